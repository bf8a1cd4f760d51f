// Commands about commands: query-commands, query-qmp-schema; and the events there are.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/command.h"
#include "monitor/types.h"

OBJECT_TYPE(command_info, {"name", &schema_string});
LIST_TYPE(command_info_list, command_info);
LIST_TYPE(schema_info_list, schema_any);
OBJECT_TYPE(guest_reason, {"guest", &schema_bool}, {"reason", &schema_string});
OBJECT_TYPE(migration_event, {"status", &type_migration_status}, {"ready", &schema_bool, true});
OBJECT_TYPE(device_event, {"device", &schema_string, true}, {"path", &schema_string});
ENUM_TYPE(io_operation, "read", "write");
ENUM_TYPE(error_action, "ignore", "report", "stop");
OBJECT_TYPE(io_error_event, {"qom-path", &schema_string}, {"device", &schema_string},
	    {"node-name", &schema_string, true}, {"operation", &io_operation},
	    {"action", &error_action}, {"nospace", &schema_bool, true}, {"reason", &schema_string});
OBJECT_TYPE(pass_event, {"pass", &schema_int});

const struct event_type event_types[] = {
	{"STOP", NULL},
	{"RESUME", NULL},
	{"RESET", &guest_reason},
	{"SHUTDOWN", &guest_reason},
	{"POWERDOWN", NULL},
	{"DEVICE_DELETED", &device_event},
	{"DEVICE_UNPLUG_GUEST_ERROR", &device_event},
	{"BLOCK_IO_ERROR", &io_error_event},
	{"MIGRATION", &migration_event},
	{"MIGRATION_PASS", &pass_event},
	{"MIGRATION_RECORD", &type_update_record},
	{NULL, NULL},
};

static json_t *run_commands(struct command_call *call, const json_t *args, GError **error)
{
	json_t *list = json_array();

	for (const struct command *c = command_next(NULL); c; c = command_next(c))
		if (c->name)
			json_array_append_new(list, json_pack("{s:s}", "name", c->name));
	return list;
}

static json_t *run_schema(struct command_call *call, const json_t *args, GError **error)
{
	struct schema_info *info = schema_info_new();

	for (const struct command *c = command_next(NULL); c; c = command_next(c))
		if (c->name)
			schema_info_command(info, c->name, c->args, c->returns);
	for (const struct event_type *e = event_types; e->name; e++)
		schema_info_event(info, e->name, e->data);
	return schema_info_finish(info);
}

const struct command commands_schema[] = {
	{
		.name = "query-commands",
		.returns = &command_info_list,
		.run = run_commands,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{
		.name = "query-qmp-schema",
		.returns = &schema_info_list,
		.run = run_schema,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{0},
};
