// The root bus: which function is where, and configuration accesses to it.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/pci_priv.h"

#include "base/error.h"

#define N_DEVFNS     256
#define N_SLOTS	     32
#define CONFIG_SPACE 4096

/*
 * Only bus 0 exists.  @lock guards the table, not the functions: a function's own lock is taken
 * around the access.  A function that is unplugged under running vCPUs is freed by its owner only
 * after they have been parked once, as every other region.
 */
struct pci_bus {
	GMutex lock;
	struct pci_function *functions[N_DEVFNS];
};

struct pci_bus *pci_bus_new(void)
{
	struct pci_bus *bus = g_new0(struct pci_bus, 1);

	g_mutex_init(&bus->lock);
	return bus;
}

void pci_bus_free(struct pci_bus *bus)
{
	if (!bus)
		return;
	g_mutex_clear(&bus->lock);
	g_free(bus);
}

char *pci_path(uint8_t devfn)
{
	if (devfn & 7)
		return g_strdup_printf("pci/00.%x.%x", devfn >> 3, devfn & 7);
	return g_strdup_printf("pci/00.%x", devfn >> 3);
}

int pci_bus_free_slot(struct pci_bus *bus, int first)
{
	int found = -1;

	g_mutex_lock(&bus->lock);
	for (int slot = first; slot < N_SLOTS && found < 0; slot++) {
		bool taken = false;

		for (int function = 0; function < 8; function++)
			taken |= bus->functions[slot << 3 | function] != NULL;
		if (!taken)
			found = slot;
	}
	g_mutex_unlock(&bus->lock);
	return found;
}

bool pci_bus_plug(struct pci_bus *bus, struct pci_function *fn, uint8_t devfn, GError **error)
{
	struct pci_function *there;

	g_mutex_lock(&bus->lock);
	there = bus->functions[devfn];
	if (!there) {
		fn->bus = bus;
		fn->devfn = devfn;
		bus->functions[devfn] = fn;
	}
	g_mutex_unlock(&bus->lock);
	return !there || error_set_generic(error, "PCI address %02x.%x is taken by %s", devfn >> 3,
					   devfn & 7, there->dev.ops->name);
}

void pci_bus_unplug(struct pci_bus *bus, struct pci_function *fn)
{
	g_mutex_lock(&bus->lock);
	bus->functions[fn->devfn] = NULL;
	fn->bus = NULL;
	g_mutex_unlock(&bus->lock);
}

static struct pci_function *bus_find(struct pci_bus *bus, uint16_t bdf)
{
	struct pci_function *fn;

	if (bdf >= N_DEVFNS)
		return NULL;
	g_mutex_lock(&bus->lock);
	fn = bus->functions[bdf];
	g_mutex_unlock(&bus->lock);
	return fn;
}

uint32_t pci_bus_config_read(struct pci_bus *bus, uint16_t bdf, uint32_t offset, uint32_t size)
{
	struct pci_function *fn = bus_find(bus, bdf);
	uint32_t value;

	if (!fn || offset + size > CONFIG_SPACE)
		return UINT32_MAX >> (32 - 8 * size);
	g_mutex_lock(&fn->dev.lock);
	value = pci_config_read(fn, offset, size);
	g_mutex_unlock(&fn->dev.lock);
	return value;
}

void pci_bus_config_write(struct pci_bus *bus, uint16_t bdf, uint32_t offset, uint32_t size,
			  uint32_t value)
{
	struct pci_function *fn = bus_find(bus, bdf);

	if (!fn)
		return;
	g_mutex_lock(&fn->dev.lock);
	pci_config_write(fn, offset, size, value);
	g_mutex_unlock(&fn->dev.lock);
}
