// ACPI tables that tell the guest what the q35 board has.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * struct acpi_params - What the tables depend on
 * @n_cpus:	vCPUs
 * @apic_id:	APIC id of vCPU @index
 * @pci64_base:	First address of the 64-bit PCI window, LAYOUT_PCI64_SIZE long
 * @n_serials:	COM ports present (0 to 2)
 */
struct acpi_params {
	uint32_t n_cpus;
	uint32_t (*apic_id)(void *opaque, uint32_t index);
	void *opaque;
	uint64_t pci64_base;
	uint32_t n_serials;
};

/**
 * acpi_build() - RSDP, XSDT, FADT, FACS, MADT, MCFG and DSDT as one block that starts at @gpa
 *
 * The RSDP is at offset 0.  Return: owned by the caller.
 */
GByteArray *acpi_build(const struct acpi_params *params, uint64_t gpa);
