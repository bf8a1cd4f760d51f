// Where things are in the guest-physical and port spaces of the q35 board.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

/*
 * RAM: up to LAYOUT_LOW_RAM_MAX from 0, the rest from 4 GiB on.  With more than that, low RAM ends
 * at LAYOUT_LOW_RAM_SPLIT so that both parts are well aligned for large pages.
 */
#define LAYOUT_LOW_RAM_MAX   0xb0000000ULL
#define LAYOUT_LOW_RAM_SPLIT 0x80000000ULL
#define LAYOUT_HIGH_RAM	     0x100000000ULL

#define LAYOUT_ECAM	  0xb0000000ULL /* PCI Express 5.0, 7.2.2: 1 MiB per bus */
#define LAYOUT_ECAM_SIZE  0x10000000ULL
#define LAYOUT_PCI32	  0xc0000000ULL
#define LAYOUT_PCI32_END  0xfec00000ULL
#define LAYOUT_PCI64_SIZE (16 * GIB) /* from the first GiB boundary above RAM on */
#define LAYOUT_PCI_IO	  0xd00
#define LAYOUT_PCI_IO_END 0x10000

#define LAYOUT_IOAPIC 0xfec00000ULL
#define LAYOUT_LAPIC  0xfee00000ULL

/* First MiB: what the loaders leave for the kernel. */
#define LAYOUT_GDT	   0x500
#define LAYOUT_PVH_INFO	   0x6000
#define LAYOUT_BOOT_PARAMS 0x7000
#define LAYOUT_PAGE_TABLES 0x9000 /* PML4, PDPT, four page directories: 24 KiB */
#define LAYOUT_STACK	   0x1fff0
#define LAYOUT_CMDLINE	   0x20000
#define LAYOUT_CMDLINE_MAX 0x10000
#define LAYOUT_EBDA	   0x9fc00ULL /* end of conventional memory */
#define LAYOUT_ACPI	   0xe0000ULL /* RSDP first: ACPI 6.4 section 5.2.5.1 searches from here */
#define LAYOUT_ACPI_END	   0xf0000ULL
#define LAYOUT_SMBIOS	   0xf0000ULL
#define LAYOUT_SMBIOS_END  0x100000ULL
#define LAYOUT_KERNEL	   0x100000ULL

/* Interrupt lines. */
#define LAYOUT_IRQ_COM1 4
#define LAYOUT_IRQ_COM2 3
#define LAYOUT_IRQ_RTC	8
#define LAYOUT_IRQ_SCI	9
