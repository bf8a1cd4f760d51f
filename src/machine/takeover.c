// Whether this program could take a VM over, told from its description alone, touching nothing.
// SPDX-License-Identifier: Apache-2.0
#include "machine/machine_priv.h"

#include <string.h>

#include "accel/kvm_state.h"
#include "base/error.h"
#include "device/legacy/acpi_pm.h"
#include "device/legacy/i8042.h"
#include "device/legacy/rtc_cmos.h"
#include "device/legacy/uart16550.h"
#include "device/pci/host_bridge.h"
#include "device/pci/lpc.h"
#include "machine/placing.h"

static void free_device(void *dev)
{
	device_free(dev);
}

/* One of each device that the board makes, and all that @config asks for; none is realized. */
static GPtrArray *make_devices(const struct vm_config *config, GError **error)
{
	g_autoptr(GPtrArray) devices = g_ptr_array_new_with_free_func(free_device);

	g_ptr_array_add(devices, host_bridge_new(0));
	g_ptr_array_add(devices, lpc_new());
	g_ptr_array_add(devices, acpi_pm_new(0));
	g_ptr_array_add(devices, rtc_cmos_new(0, false, 0, 0));
	g_ptr_array_add(devices, i8042_new());
	g_ptr_array_add(devices, uart16550_new(0, 0, NULL));
	for (guint i = 0; i < config->devices->len; i++) {
		const struct device_config *device = config->devices->pdata[i];
		struct device *dev = board_make_device(device, error);

		if (!dev) {
			g_prefix_error(error, "-device %s: ", device->driver);
			return NULL;
		}
		g_ptr_array_add(devices, dev);
	}
	return g_steal_pointer(&devices);
}

/* Of what is here, or could be plugged. */
static const struct state_desc *find_desc(const GPtrArray *devices, const char *name)
{
	const struct state_desc *const fixed[] = {
		&kvm_saved_vcpu_desc,  &kvm_saved_irqchip_desc, &kvm_saved_pit_desc,
		&kvm_saved_clock_desc, &chardev_state_desc,
	};

	for (size_t i = 0; i < G_N_ELEMENTS(fixed); i++)
		if (strcmp(fixed[i]->name, name) == 0)
			return fixed[i];
	for (guint i = 0; i < devices->len; i++) {
		const struct state_desc *desc = ((struct device *)devices->pdata[i])->ops->state;

		if (desc && strcmp(desc->name, name) == 0)
			return desc;
	}
	for (const struct device_ops *const *ops = device_ops_list(); *ops; ops++)
		if ((*ops)->state && strcmp((*ops)->state->name, name) == 0)
			return (*ops)->state;
	return NULL;
}

static void check_section(GString *out, const GPtrArray *devices, const json_t *entry)
{
	const char *section = json_string_value(json_object_get(entry, "section"));
	const char *state = json_string_value(json_object_get(entry, "state"));
	json_int_t min_reader = json_integer_value(json_object_get(entry, "min-reader"));
	const struct state_desc *desc;

	/* A device without state has an empty name there. */
	if (!section || !state || !state[0])
		return;
	desc = find_desc(devices, state);
	if (desc && min_reader <= desc->version)
		return;
	if (out->len)
		g_string_append_c(out, '\n');
	if (desc)
		g_string_append_printf(out,
				       "%s: its state '%s' needs a reader of version "
				       "%" JSON_INTEGER_FORMAT ", here is %u",
				       section, state, min_reader, desc->version);
	else
		g_string_append_printf(out, "%s: its state '%s' is not known here", section, state);
}

static bool tree_has(const json_t *tree, const char *section)
{
	const json_t *entry;
	size_t i;

	json_array_foreach(json_object_get(tree, "devices"), i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "section"));

		if (g_strcmp0(name, section) == 0)
			return true;
	}
	return false;
}

/* Every PCI device has a place here, and @tree (may be NULL) has it there. */
static bool check_places(GString *out, const struct vm_config *config, const json_t *tree,
			 GError **error)
{
	autoptr(placing) placing = placing_new();

	for (guint i = 0; i < config->devices->len; i++) {
		const struct device_config *device = config->devices->pdata[i];
		const struct device_ops *ops = device_ops_find(device->driver);
		g_autofree char *section = NULL;
		struct place place = {0};

		if (ops->bus != DEVICE_BUS_PCI)
			continue;
		if (!placing_take(placing, ops, device, &place, error)) {
			g_prefix_error(error, "-device %s: ", device->driver);
			return false;
		}
		section = g_strdup_printf("%s/%s", place.path, ops->name);
		g_free(place.path);
		if (tree && !tree_has(tree, section))
			g_string_append_printf(out, "%sdevice %s: here, not there",
					       out->len ? "\n" : "", section);
	}
	return true;
}

bool board_check_devices(const struct vm_config *config, GError **error)
{
	g_autoptr(GPtrArray) devices = make_devices(config, error);

	return devices && check_places(NULL, config, NULL, error);
}

bool machine_check_takeover(const struct vm_config *config, const json_t *tree, GError **error)
{
	g_autoptr(GPtrArray) devices = make_devices(config, error);
	g_autoptr(GString) out = g_string_new(NULL);
	const json_t *entry;
	size_t i;

	if (!devices)
		return false;
	json_array_foreach(json_object_get(tree, "devices"), i, entry)
		check_section(out, devices, entry);
	if (!check_places(out, config, tree, error))
		return false;
	return !out->len || error_set_generic(error, "%s", out->str);
}
