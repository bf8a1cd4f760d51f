// Devices that come and go: device_add, device_del.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "base/error.h"
#include "device/device.h"
#include "monitor/command.h"
#include "monitor/types.h"
#include "options/props.h"

/* The rest is the driver's own, and its property table knows it. */
static const struct schema_member device_add_members[] = {
	{"driver", &schema_string},
	{"bus", &schema_string, true},
	{"id", &schema_string, true},
	{NULL},
};
static const struct schema device_add_args = {
	.kind = SCHEMA_OBJECT,
	.members = device_add_members,
	.open = true,
};
OBJECT_TYPE(device_del_args, {"id", &schema_string});

static json_t *run_device_add(struct command_call *call, const json_t *args, GError **error)
{
	return update_device_add(call->update, args, error) ? json_object() : NULL;
}

static json_t *run_device_del(struct command_call *call, const json_t *args, GError **error)
{
	return update_device_del(call->update, json_member(args, "id"), error) ? json_object()
									       : NULL;
}

/* "driver,id=x,addr=5", as -device takes it. */
static bool prepare_device_add(json_t *args, GError **error)
{
	json_t *device = keyval_parse(json_member(args, "device"), "driver", error);

	if (!device)
		return false;
	json_object_clear(args);
	json_object_update(args, device);
	json_decref(device);
	return true;
}

const struct command commands_device[] = {
	{
		.name = "device_add",
		.args = &device_add_args,
		.run = run_device_add,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"device_add", NULL, "device:r", "driver[,prop=value][,...]",
			"add device, like -device on the command line",
			.prepare = prepare_device_add},
	},
	{
		.name = "device_del",
		.args = &device_del_args,
		.run = run_device_del,
		.hmp = {"device_del", NULL, "id:s", "device", "remove device"},
	},
	{0},
};
