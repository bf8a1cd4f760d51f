// Buses: which function is where, and configuration accesses to it.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/pci_priv.h"

#include "base/error.h"

#define N_DEVFNS     256
#define CONFIG_SPACE 4096

/*
 * The root bus, number 0, and one behind each bridge on it.  @lock guards the table, not the
 * functions: a function's own lock is taken around the access.  A function that is unplugged under
 * running vCPUs is freed by its owner only after they have been parked once, as every other region.
 */
struct pci_bus {
	GMutex lock;
	struct pci_function *bridge;
	uint32_t number; /* atomic */
	uint32_t hidden;
	struct pci_function *functions[N_DEVFNS];
};

struct pci_bus *pci_bus_new(struct pci_function *bridge)
{
	struct pci_bus *bus = g_new0(struct pci_bus, 1);

	g_mutex_init(&bus->lock);
	bus->bridge = bridge;
	return bus;
}

void pci_bus_free(struct pci_bus *bus)
{
	if (!bus)
		return;
	g_mutex_clear(&bus->lock);
	g_free(bus);
}

struct pci_function *pci_bus_bridge(const struct pci_bus *bus)
{
	return bus->bridge;
}

void pci_bus_set_number(struct pci_bus *bus, uint8_t number)
{
	__atomic_store_n(&bus->number, number, __ATOMIC_RELAXED);
}

void pci_bus_hide(struct pci_bus *bus, uint32_t slots)
{
	g_mutex_lock(&bus->lock);
	bus->hidden = slots;
	g_mutex_unlock(&bus->lock);
}

char *pci_path(const char *bridge, uint8_t devfn)
{
	g_autofree char *slot = devfn & 7 ? g_strdup_printf("%x.%x", devfn >> 3, devfn & 7)
					  : g_strdup_printf("%x", devfn >> 3);

	return bridge ? g_strdup_printf("%s/%s", bridge, slot) : g_strdup_printf("pci/00.%s", slot);
}

uint8_t pci_function_root_slot(const struct pci_function *fn)
{
	while (fn->bus->bridge)
		fn = fn->bus->bridge;
	return fn->devfn >> 3;
}

uint32_t pci_bus_slots(struct pci_bus *bus)
{
	uint32_t slots = 0;

	g_mutex_lock(&bus->lock);
	for (uint32_t i = 0; i < N_DEVFNS; i++)
		if (bus->functions[i])
			slots |= 1u << (i >> 3);
	g_mutex_unlock(&bus->lock);
	return slots;
}

bool pci_bus_empty(struct pci_bus *bus)
{
	return pci_bus_slots(bus) == 0;
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

/* The bus called @number behind a bridge of @root.  Context: @root's lock is held. */
static struct pci_bus *find_behind(struct pci_bus *root, uint8_t number)
{
	for (uint32_t i = 0; i < N_DEVFNS; i++) {
		const struct pci_function *fn = root->functions[i];

		if (fn && fn->secondary && !(root->hidden >> (i >> 3) & 1) &&
		    __atomic_load_n(&fn->secondary->number, __ATOMIC_RELAXED) == number)
			return fn->secondary;
	}
	return NULL;
}

static struct pci_function *bus_find(struct pci_bus *root, uint16_t bdf)
{
	struct pci_function *fn = NULL;
	uint8_t devfn = bdf & 0xff;
	struct pci_bus *behind;

	g_mutex_lock(&root->lock);
	if (bdf < N_DEVFNS) {
		fn = root->hidden >> (devfn >> 3) & 1 ? NULL : root->functions[devfn];
	} else if ((behind = find_behind(root, bdf >> 8))) {
		g_mutex_lock(&behind->lock);
		fn = behind->functions[devfn];
		g_mutex_unlock(&behind->lock);
	}
	g_mutex_unlock(&root->lock);
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
