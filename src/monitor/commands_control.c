// Commands that open a session, start and stop the guest, and end the process.
// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"
#include "machine/machine.h"
#include "monitor/command.h"
#include "monitor/hmp.h"
#include "monitor/monitors.h"
#include "monitor/types.h"

ENUM_TYPE(qmp_capability, "oob");
LIST_TYPE(qmp_capability_list, qmp_capability);
OBJECT_TYPE(qmp_capabilities_args, {"enable", &qmp_capability_list, true});
OBJECT_TYPE(human_monitor_args, {"command-line", &schema_string}, {"cpu-index", &schema_int, true});

static json_t *done(bool good)
{
	return good ? json_object() : NULL;
}

static json_t *run_qmp_capabilities(struct command_call *call, const json_t *args, GError **error)
{
	if (json_array_size(json_object_get(args, "enable")) > 0)
		return done(error_set_generic(error, "Capability 'oob' is not available"));
	return done(true);
}

static json_t *run_quit(struct command_call *call, const json_t *args, GError **error)
{
	call->after = monitors_request_quit;
	return done(true);
}

static json_t *run_stop(struct command_call *call, const json_t *args, GError **error)
{
	return done(update_stop(call->update, error));
}

static json_t *run_cont(struct command_call *call, const json_t *args, GError **error)
{
	return done(update_cont(call->update, error));
}

/*
 * Why the guest cannot be asked for anything; false where it can.  Its state may be on the way, which
 * would not know; and before it is here, its RAM is somebody else's.
 */
static bool refuse_gone(struct command_call *call, GError **error)
{
	switch (update_runstate(call->update)) {
	case RUNSTATE_POSTMIGRATE:
		return !error_set_generic(error, "another process has taken over the guest");
	case RUNSTATE_FINISH_MIGRATE:
		return !error_set_generic(error, "There's a migration process in progress");
	case RUNSTATE_INMIGRATE:
		return !error_set_generic(error, "Guest is waiting for an incoming migration");
	default:
		return false;
	}
}

static json_t *run_reset(struct command_call *call, const json_t *args, GError **error)
{
	if (refuse_gone(call, error))
		return NULL;
	machine_reset(call->machine);
	return done(true);
}

static json_t *run_powerdown(struct command_call *call, const json_t *args, GError **error)
{
	if (refuse_gone(call, error))
		return NULL;
	machine_powerdown(call->machine);
	return done(true);
}

static json_t *run_human_monitor(struct command_call *call, const json_t *args, GError **error)
{
	g_autoptr(GString) out = g_string_new(NULL);
	g_autofree char *text = NULL;
	struct hmp_outcome outcome;

	outcome = hmp_run_line(call->monitors, json_member(args, "command-line"), out);
	call->after = outcome.after;
	if (outcome.waits)
		g_string_append(out, "terminal does not allow synchronous migration, "
				     "continuing detached\n");
	text = hmp_crlf(out->str);
	return json_text(text);
}

const struct command commands_control[] = {
	{
		.name = "qmp_capabilities",
		.args = &qmp_capabilities_args,
		.run = run_qmp_capabilities,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{
		.name = "quit",
		.run = run_quit,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"quit", "q", .help = "end the virtual machine and this process"},
	},
	{
		.name = "stop",
		.run = run_stop,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"stop", "s", .help = "stop the guest"},
	},
	{
		.name = "cont",
		.run = run_cont,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"cont", "c", .help = "let the guest go on"},
	},
	{
		.name = "system_reset",
		.run = run_reset,
		.flags = COMMAND_OUTSIDE_OF_UPDATE,
		.hmp = {"system_reset", .help = "reset the guest"},
	},
	{
		.name = "system_powerdown",
		.run = run_powerdown,
		.hmp = {"system_powerdown", .help = "press the guest's power button"},
	},
	{
		.name = "human-monitor-command",
		.args = &human_monitor_args,
		.returns = &schema_string,
		.run = run_human_monitor,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{0},
};
