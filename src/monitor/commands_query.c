// Queries that need no machine: run state, version, name, uuid, kvm, target.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/command.h"
#include "monitor/qmp.h"
#include "monitor/types.h"

ENUM_TYPE(run_state, "prelaunch", "inmigrate", "running", "paused", "suspended", "finish-migrate",
	  "postmigrate", "shutdown", "internal-error", "io-error");
ENUM_TYPE(target_name, "x86_64");
OBJECT_TYPE(status_info, {"running", &schema_bool}, {"status", &run_state});
OBJECT_TYPE(version_triple, {"major", &schema_int}, {"minor", &schema_int}, {"micro", &schema_int});
OBJECT_TYPE(version_info, {"qemu", &version_triple}, {"package", &schema_string});
OBJECT_TYPE(name_info, {"name", &schema_string, true});
OBJECT_TYPE(uuid_info, {"UUID", &schema_string});
OBJECT_TYPE(kvm_info, {"enabled", &schema_bool}, {"present", &schema_bool});
OBJECT_TYPE(target_info, {"arch", &target_name});

static json_t *run_status(struct command_call *call, const json_t *args, GError **error)
{
	enum runstate state = update_runstate(call->update);

	return json_pack("{s:s, s:b}", "status", runstate_name(state), "running",
			 runstate_is_running(state));
}

static void print_status(GString *out, const json_t *result)
{
	const char *status = json_member(result, "status");

	if (json_is_true(json_object_get(result, "running")))
		g_string_append(out, "VM status: running\n");
	else if (g_str_equal(status, "paused"))
		g_string_append(out, "VM status: paused\n");
	else
		g_string_append_printf(out, "VM status: paused (%s)\n", status);
}

static json_t *run_version(struct command_call *call, const json_t *args, GError **error)
{
	return qmp_version();
}

static void print_version(GString *out, const json_t *result)
{
	const json_t *qemu = json_object_get(result, "qemu");

	g_string_append_printf(out, "%d.%d.%d (%s)\n",
			       (int)json_integer_value(json_object_get(qemu, "major")),
			       (int)json_integer_value(json_object_get(qemu, "minor")),
			       (int)json_integer_value(json_object_get(qemu, "micro")),
			       json_member(result, "package"));
}

static json_t *run_name(struct command_call *call, const json_t *args, GError **error)
{
	const char *name = update_config(call->update)->name;
	json_t *result = json_object();

	if (name)
		json_object_set_new(result, "name", json_text(name));
	return result;
}

static void print_name(GString *out, const json_t *result)
{
	if (*json_member(result, "name"))
		g_string_append_printf(out, "%s\n", json_member(result, "name"));
}

static json_t *run_uuid(struct command_call *call, const json_t *args, GError **error)
{
	const char *uuid = update_config(call->update)->uuid;

	return json_pack("{s:s}", "UUID", uuid ? uuid : "00000000-0000-0000-0000-000000000000");
}

static void print_uuid(GString *out, const json_t *result)
{
	g_string_append_printf(out, "%s\n", json_member(result, "UUID"));
}

static json_t *run_kvm(struct command_call *call, const json_t *args, GError **error)
{
	return json_pack("{s:b, s:b}", "enabled", 1, "present", 1);
}

static void print_kvm(GString *out, const json_t *result)
{
	g_string_append(out, "kvm support: enabled\n");
}

static json_t *run_target(struct command_call *call, const json_t *args, GError **error)
{
	return json_pack("{s:s}", "arch", "x86_64");
}

const struct command commands_query[] = {
	{
		.name = "query-status",
		.returns = &status_info,
		.run = run_status,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info status", .help = "whether the guest runs", .print = print_status},
	},
	{
		.name = "query-version",
		.returns = &version_info,
		.run = run_version,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info version", .help = "version", .print = print_version},
	},
	{
		.name = "query-name",
		.returns = &name_info,
		.run = run_name,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info name", .help = "name of the guest", .print = print_name},
	},
	{
		.name = "query-uuid",
		.returns = &uuid_info,
		.run = run_uuid,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info uuid", .help = "UUID of the guest", .print = print_uuid},
	},
	{
		.name = "query-kvm",
		.returns = &kvm_info,
		.run = run_kvm,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info kvm", .help = "whether KVM is used", .print = print_kvm},
	},
	{
		.name = "query-target",
		.returns = &target_info,
		.run = run_target,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{0},
};
