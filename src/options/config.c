// Life of a struct vm_config: defaults, lookups by id, freeing.
// SPDX-License-Identifier: Apache-2.0
#include "options/config.h"

#include "options/check.h"
#include "options/tables.h"

static void incoming_free(void *element)
{
	struct incoming_config *incoming = element;

	g_free(incoming->text);
	g_free(incoming);
}

struct vm_config *vm_config_new(void)
{
	struct vm_config *config = g_new0(struct vm_config, 1);
	json_t *nothing = json_object();

	props_from_json(vm_props, nothing, config, "defaults", NULL);
	props_from_json(machine_props, nothing, &config->machine, "defaults", NULL);
	json_decref(nothing);
	for (int i = 0; i < VM_LIST_COUNT; i++)
		*(GPtrArray **)((char *)config + vm_lists[i].offset) =
			g_ptr_array_new_with_free_func(vm_lists[i].free);
	config->incoming = g_ptr_array_new_with_free_func(incoming_free);
	return config;
}

void vm_config_free(struct vm_config *config)
{
	if (!config)
		return;
	props_clear(machine_props, &config->machine);
	props_clear(vm_props, config);
	for (int i = 0; i < VM_LIST_COUNT; i++)
		g_ptr_array_unref(vm_list_array(config, i));
	g_ptr_array_unref(config->incoming);
	g_free(config->pidfile);
	g_free(config);
}

/* The element of @array whose string at @offset is @id. */
static void *find_string(const GPtrArray *array, size_t offset, const char *id)
{
	for (guint i = 0; i < array->len; i++) {
		const char *element = g_ptr_array_index(array, i);

		if (g_strcmp0(*(char *const *)(element + offset), id) == 0)
			return (void *)element;
	}
	return NULL;
}

const struct memory_backend_config *vm_config_memory_backend(const struct vm_config *config,
							     const char *id)
{
	return find_string(config->memory_backends, offsetof(struct memory_backend_config, id), id);
}

const struct rng_config *vm_config_rng(const struct vm_config *config, const char *id)
{
	return find_string(config->rngs, offsetof(struct rng_config, id), id);
}

const struct iothread_config *vm_config_iothread(const struct vm_config *config, const char *id)
{
	return find_string(config->iothreads, offsetof(struct iothread_config, id), id);
}

const struct chardev_config *vm_config_chardev(const struct vm_config *config, const char *id)
{
	return find_string(config->chardevs, offsetof(struct chardev_config, id), id);
}

const struct block_config *vm_config_block(const struct vm_config *config, const char *name)
{
	const struct block_config *block =
		find_string(config->blocks, offsetof(struct block_config, node_name), name);

	if (block)
		return block;
	return find_string(config->blocks, offsetof(struct block_config, drive_id), name);
}

const struct device_config *vm_config_device(const struct vm_config *config, const char *id)
{
	return find_string(config->devices, offsetof(struct device_config, id), id);
}

/* ---- devices that come and go ---- */

bool vm_config_plug(struct vm_config *config, struct device_config *device, GError **error)
{
	g_ptr_array_add(config->devices, device);
	if (vm_config_check(config, error))
		return true;
	vm_config_unplug(config, device);
	return false;
}

void vm_config_unplug(struct vm_config *config, struct device_config *device)
{
	g_ptr_array_remove(config->devices, device);
}

const char *device_config_bus(const struct device_config *device)
{
	const char *bus = json_string_value(json_object_get(device->props, "bus"));

	return bus ? bus : "pcie.0";
}

const char *device_config_addr(const struct device_config *device)
{
	return json_string_value(json_object_get(device->props, "addr"));
}
