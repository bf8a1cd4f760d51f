// ACPI tables that tell the guest what the q35 board has.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * struct acpi_params - What the tables depend on
 * @n_cpus:	vCPUs, at most 255; a vCPU's APIC id is its index
 * @pci64_base:	First address of the 64-bit PCI window, LAYOUT_PCI64_SIZE long
 * @serials:	bit i: COM port i + 1 is there
 */
struct acpi_params {
	uint32_t n_cpus;
	uint64_t pci64_base;
	uint32_t serials;
};

/**
 * acpi_build() - RSDP, XSDT, FADT, FACS, MADT, MCFG and DSDT as one block that starts at @gpa
 *
 * The RSDP is at offset 0.  Return: owned by the caller.
 */
GByteArray *acpi_build(const struct acpi_params *params, uint64_t gpa);
