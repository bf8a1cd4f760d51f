// What the files of device/pci share: registers of the header, and the seams between them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/pci/pci.h"

/* PCI Local Bus 3.0 section 6.1 and 6.8.2.  Not <linux/pci_regs.h>: only what is used. */
#define PCI_VENDOR	   0x00
#define PCI_DEVICE	   0x02
#define PCI_COMMAND	   0x04
#define PCI_COMMAND_IO	   0x0001
#define PCI_COMMAND_MEMORY 0x0002
#define PCI_STATUS	   0x06
#define PCI_STATUS_CAPS	   0x0010
#define PCI_REVISION	   0x08
#define PCI_BAR0	   0x10
#define PCI_BAR_IO	   0x1
#define PCI_BAR_MEM_64	   0x4
#define PCI_SUBSYSTEM	   0x2c
#define PCI_CAP_POINTER	   0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_HEADER_BYTES   0x40

#define PCI_MSIX_CONTROL      2 /* in the capability */
#define PCI_MSIX_CONTROL_MASK 0x4000
#define PCI_MSIX_CONTROL_ON   0x8000

static inline uint16_t pci_get16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint32_t pci_get32(const uint8_t *at)
{
	return pci_get16(at) | (uint32_t)pci_get16(at + 2) << 16;
}

static inline void pci_put16(uint8_t *at, uint16_t value)
{
	at[0] = value & 0xff;
	at[1] = value >> 8;
}

static inline void pci_put32(uint8_t *at, uint32_t value)
{
	pci_put16(at, value & 0xffff);
	pci_put16(at + 2, value >> 16);
}

/* pci_config.c: one access to a function's configuration space; its lock is held. */
uint32_t pci_config_read(struct pci_function *fn, uint32_t offset, uint32_t size);
void pci_config_write(struct pci_function *fn, uint32_t offset, uint32_t size, uint32_t value);

/* pci_bar.c: map and unmap what command register and BARs ask for. */
void pci_bars_update(struct pci_function *fn);
void pci_bars_unmap(struct pci_function *fn);

/* pci_msix.c */
void pci_msix_control_written(struct pci_function *fn);
void pci_msix_reset(struct pci_function *fn);
void pci_msix_capture(struct pci_function *fn);
bool pci_msix_apply(struct pci_function *fn, GError **error);
void pci_msix_fini(struct pci_function *fn);
