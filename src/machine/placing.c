// Where PCI devices go: the bus and the address of each, told from the configuration alone.
// SPDX-License-Identifier: Apache-2.0
#include "machine/placing.h"

#include <string.h>

#include "base/error.h"
#include "device/pci/pci.h"
#include "options/text.h"

#define N_DEVFNS  256
#define N_SLOTS	  32
#define LPC_DEVFN (0x1f << 3)

/**
 * struct placed_bus - A bus
 * @name:	"pcie.0", or the id of its root port
 * @bridge:	Path of the root port; NULL: the root bus
 * @taken:	Driver of the device at each address; NULL: free
 */
struct placed_bus {
	char *name;
	char *bridge;
	const char *taken[N_DEVFNS];
};

struct placing {
	GPtrArray *buses;
};

static void bus_free(void *element)
{
	struct placed_bus *bus = element;

	g_free(bus->name);
	g_free(bus->bridge);
	g_free(bus);
}

static struct placed_bus *bus_add(struct placing *placing, const char *name, const char *bridge)
{
	struct placed_bus *bus = g_new0(struct placed_bus, 1);

	bus->name = g_strdup(name);
	bus->bridge = g_strdup(bridge);
	g_ptr_array_add(placing->buses, bus);
	return bus;
}

static struct placed_bus *bus_find(const struct placing *placing, const char *name)
{
	for (guint i = 0; i < placing->buses->len; i++) {
		struct placed_bus *bus = g_ptr_array_index(placing->buses, i);

		if (strcmp(bus->name, name) == 0)
			return bus;
	}
	return NULL;
}

struct placing *placing_new(void)
{
	struct placing *placing = g_new0(struct placing, 1);
	struct placed_bus *root;

	placing->buses = g_ptr_array_new_with_free_func(bus_free);
	root = bus_add(placing, "pcie.0", NULL);
	root->taken[0] = "the host bridge";
	root->taken[LPC_DEVFN] = "the LPC bridge";
	return placing;
}

void placing_free(struct placing *placing)
{
	if (!placing)
		return;
	g_ptr_array_unref(placing->buses);
	g_free(placing);
}

/* The lowest slot of which no function is taken; behind a port there is slot 0 only. */
static int free_slot(const struct placed_bus *bus)
{
	for (int slot = 0; slot < (bus->bridge ? 1 : N_SLOTS); slot++) {
		bool taken = false;

		for (int function = 0; function < 8; function++)
			taken |= bus->taken[slot << 3 | function] != NULL;
		if (!taken)
			return slot;
	}
	return -1;
}

static bool given_place(const struct placed_bus *bus, const struct device_config *config,
			const char *addr, uint8_t *devfn, GError **error)
{
	if (!text_to_devfn(addr, devfn))
		return error_set_generic(error, "addr=%s: not SLOT or SLOT.FUNCTION", addr);
	if (bus->bridge && *devfn >> 3 != 0)
		return error_set_generic(error, "addr=%s: behind a root port there is slot 0 only",
					 addr);
	return !bus->taken[*devfn] ||
	       error_set_generic(error,
				 "PCI: slot %d function %d not available for %s, in use by %s",
				 *devfn >> 3, *devfn & 7, config->driver, bus->taken[*devfn]);
}

static bool find_place(const struct placed_bus *bus, const struct device_config *config,
		       uint8_t *devfn, GError **error)
{
	const char *addr = device_config_addr(config);
	int slot;

	if (addr)
		return given_place(bus, config, addr, devfn, error);
	slot = free_slot(bus);
	if (slot < 0)
		return error_set_generic(
			error, "PCI: no slot/function available for %s, all in use or reserved",
			config->driver);
	*devfn = slot << 3;
	return true;
}

/* What is no text cannot be looked at, so it must not be there. */
static bool check_texts(const struct device_config *config, GError **error)
{
	static const char *const keys[] = {"bus", "addr"};

	for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
		const json_t *value = json_object_get(config->props, keys[i]);

		if (value && !json_is_string(value))
			return error_set_generic(error, "%s: give it as text", keys[i]);
	}
	return true;
}

bool placing_take(struct placing *placing, const struct device_ops *ops,
		  const struct device_config *config, struct place *place, GError **error)
{
	struct placed_bus *bus;

	if (!check_texts(config, error))
		return false;
	place->bus = device_config_bus(config);
	bus = bus_find(placing, place->bus);
	if (!bus)
		return error_set_generic(error, "Bus '%s' not found", place->bus);
	if (ops->bridge && bus->bridge)
		return error_set_generic(error, "bus=%s: a root port can only be on pcie.0",
					 place->bus);
	if (!find_place(bus, config, &place->devfn, error))
		return false;
	bus->taken[place->devfn] = ops->driver;
	place->path = pci_path(bus->bridge, place->devfn);
	if (ops->bridge && config->id)
		bus_add(placing, config->id, place->path);
	return true;
}

void placing_give(struct placing *placing, const struct device_config *config, uint8_t devfn)
{
	struct placed_bus *bus = bus_find(placing, device_config_bus(config));
	struct placed_bus *behind = config->id ? bus_find(placing, config->id) : NULL;

	if (bus)
		bus->taken[devfn] = NULL;
	if (behind && behind->bridge)
		g_ptr_array_remove(placing->buses, behind);
}
