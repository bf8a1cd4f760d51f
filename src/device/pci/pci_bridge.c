// PCI-to-PCI bridges: the header of type 1, and the number of the bus behind.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/pci_priv.h"

#include <string.h>

/* PCI-to-PCI Bridge 1.2 section 3.2, as PCI Express 5.0 section 7.5.1.3 narrows it. */
#define HEADER_TYPE	     0x0e
#define HEADER_BRIDGE	     0x01
#define PRIMARY_BUS	     0x18
#define SECONDARY_BUS	     0x19
#define SUBORDINATE_BUS	     0x1a
#define IO_BASE		     0x1c
#define IO_LIMIT	     0x1d
#define IO_32_BIT	     0x01
#define SECONDARY_STATUS     0x1e
#define SECONDARY_STATUS_W1C 0xf900
#define MEMORY_BASE	     0x20
#define PREFETCH_BASE	     0x24
#define PREFETCH_64_BIT	     0x00010001
#define PREFETCH_UPPER	     0x28
#define IO_UPPER	     0x30
#define BRIDGE_CONTROL	     0x3e
#define CONTROL_WRITABLE     0x001f /* no secondary bus reset: nothing behind has one */

/* Subsystem ids are a capability here; their place in the header is the prefetchable window's. */
static void fill_header(struct pci_function *fn)
{
	uint8_t *config = fn->reset_config, *wmask = fn->wmask;

	pci_put32(config + PCI_SUBSYSTEM, 0);
	config[HEADER_TYPE] = HEADER_BRIDGE;
	config[IO_BASE] = config[IO_LIMIT] = IO_32_BIT;
	pci_put32(config + PREFETCH_BASE, PREFETCH_64_BIT);
	memset(wmask + PRIMARY_BUS, 0xff, 3);
	wmask[IO_BASE] = wmask[IO_LIMIT] = 0xf0;
	pci_put16(fn->w1cmask + SECONDARY_STATUS, SECONDARY_STATUS_W1C);
	pci_put32(wmask + MEMORY_BASE, 0xfff0fff0);
	pci_put32(wmask + PREFETCH_BASE, 0xfff0fff0);
	memset(wmask + PREFETCH_UPPER, 0xff, 8);
	pci_put32(wmask + IO_UPPER, UINT32_MAX);
	pci_put16(wmask + BRIDGE_CONTROL, CONTROL_WRITABLE);
}

static void follow_number(struct pci_function *fn)
{
	pci_bus_set_number(fn->secondary, fn->state->config[SECONDARY_BUS]);
}

static void bridge_config_written(struct pci_function *fn, uint32_t offset, uint32_t len)
{
	if (offset <= SECONDARY_BUS && SECONDARY_BUS < offset + len)
		follow_number(fn);
}

void pci_bridge_init(struct pci_function *fn, struct pci_function_state *state,
		     const struct pci_ids *ids)
{
	pci_function_init(fn, state, ids);
	fill_header(fn);
	fn->config_written = bridge_config_written;
	fn->secondary = pci_bus_new(fn);
}

void pci_bridge_reset(struct pci_function *fn)
{
	pci_function_reset(fn);
	follow_number(fn);
}

bool pci_bridge_apply(struct pci_function *fn, GError **error)
{
	if (!pci_function_apply(fn, error))
		return false;
	follow_number(fn);
	return true;
}

void pci_bridge_fini(struct pci_function *fn)
{
	pci_function_fini(fn);
	g_clear_pointer(&fn->secondary, pci_bus_free);
}
