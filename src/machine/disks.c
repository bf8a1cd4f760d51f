// Disks as monitors see them: what there is, and their sizes.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/block.h"
#include "base/error.h"
#include "machine/machine_priv.h"

json_t *machine_query_block(struct machine *machine)
{
	json_t *list = json_array();

	for (guint i = 0; machine->blocks && i < machine->blocks->len; i++)
		json_array_append_new(list, block_node_query_json(machine->blocks->pdata[i]));
	return list;
}

struct block_node *machine_find_block(const struct machine *machine, const char *device,
				      const char *node_name)
{
	for (guint i = 0; machine->blocks && i < machine->blocks->len; i++) {
		struct block_node *node = machine->blocks->pdata[i];

		if ((node_name && g_strcmp0(block_node_name(node), node_name) == 0) ||
		    (device && g_strcmp0(block_node_drive_id(node), device) == 0))
			return node;
	}
	return NULL;
}

bool machine_block_resize(struct machine *machine, const char *device, const char *node_name,
			  uint64_t size_bytes, GError **error)
{
	enum runstate state = machine_runstate(machine);
	struct block_node *node = machine_find_block(machine, device, node_name);

	if (state == RUNSTATE_INMIGRATE || state == RUNSTATE_POSTMIGRATE)
		return error_set_generic(error, "the guest is in another process; resize it there");
	if (!node && device)
		return error_set(error, MOLT_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found",
				 device);
	if (!node)
		return error_set_generic(error, "Cannot find device='' nor node-name='%s'",
					 node_name);
	return block_node_resize(node, size_bytes, error);
}
