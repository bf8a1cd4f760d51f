// The migrate family: live update and migration.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "base/error.h"
#include "monitor/command.h"
#include "monitor/types.h"
#include "options/text.h"

static json_t *done(bool good)
{
	return good ? json_object() : NULL;
}

/* ---- in QMP ---- */

static json_t *run_migrate(struct command_call *call, const json_t *args, GError **error)
{
	return done(update_migrate(call->update, args, error));
}

static json_t *run_incoming(struct command_call *call, const json_t *args, GError **error)
{
	return done(update_incoming(call->update, args, error));
}

static json_t *run_cancel(struct command_call *call, const json_t *args, GError **error)
{
	update_cancel(call->update);
	return done(true);
}

static json_t *run_continue(struct command_call *call, const json_t *args, GError **error)
{
	return done(update_continue(call->update, json_member(args, "state"), error));
}

static json_t *run_query(struct command_call *call, const json_t *args, GError **error)
{
	return update_query(call->update);
}

static json_t *run_set_parameters(struct command_call *call, const json_t *args, GError **error)
{
	return done(update_set_parameters(call->update, args, error));
}

static json_t *run_query_parameters(struct command_call *call, const json_t *args, GError **error)
{
	return update_query_parameters(call->update);
}

static json_t *run_set_capabilities(struct command_call *call, const json_t *args, GError **error)
{
	return done(update_set_capabilities(call->update, json_object_get(args, "capabilities"),
					    error));
}

static json_t *run_query_capabilities(struct command_call *call, const json_t *args, GError **error)
{
	return update_query_capabilities(call->update);
}

/* ---- in HMP ---- */

/* -d says how the monitor behaves, not what is done. */
static bool prepare_migrate(json_t *args, GError **error)
{
	json_object_del(args, "detach");
	return true;
}

static json_t *parameter_command(const char *text, GError **error)
{
	g_auto(GStrv) words = NULL;
	json_t *list = json_array();

	if (*text && !g_shell_parse_argv(text, NULL, &words, error)) {
		json_decref(list);
		return NULL;
	}
	for (char **word = words; word && *word; word++)
		json_array_append_new(list, json_text(*word));
	return list;
}

/* Bandwidths count in MiB unless a suffix says otherwise. */
static json_t *parameter_number(const char *name, const char *text, GError **error)
{
	uint64_t unit = g_str_has_suffix(name, "bandwidth") ? MIB : 1;
	uint64_t value;

	if (text_to_size(text, unit, &value) && value <= INT64_MAX)
		return json_integer(value);
	error_set_generic(error, "Parameter '%s' expects a number", name);
	return NULL;
}

/* The text after a parameter's name, as its type wants it. */
static json_t *parameter_value(const char *name, const char *text, GError **error)
{
	const struct schema *type = schema_find_member(&type_migrate_set_parameters, name);
	bool on;

	if (!type) {
		error_set_generic(error, "Parameter '%s' is unexpected", name);
		return NULL;
	}
	switch (type->kind) {
	case SCHEMA_INT:
		return parameter_number(name, text, error);
	case SCHEMA_BOOL:
		if (text_to_bool(text, &on))
			return json_boolean(on);
		error_set_generic(error, "Parameter '%s' expects 'on' or 'off'", name);
		return NULL;
	case SCHEMA_ARRAY:
		if (type == &schema_string_list)
			return parameter_command(text, error);
		error_set_generic(error, "Parameter '%s' can be set by QMP only", name);
		return NULL;
	default:
		return json_text(text);
	}
}

static bool prepare_set_parameter(json_t *args, GError **error)
{
	g_autofree char *name = g_strdup(json_member(args, "parameter"));
	json_t *value = parameter_value(name, json_member(args, "value"), error);

	json_object_clear(args);
	return value && json_object_set_new(args, name, value) == 0;
}

static bool prepare_set_capability(json_t *args, GError **error)
{
	json_t *one = json_deep_copy(args);

	json_object_clear(args);
	return json_object_set_new(args, "capabilities", json_pack("[o]", one)) == 0;
}

static void print_ms(GString *out, const json_t *result, const char *key, const char *label)
{
	const json_t *value = json_object_get(result, key);

	if (value)
		g_string_append_printf(out, "%s: %" JSON_INTEGER_FORMAT " ms\n", label,
				       json_integer_value(value));
}

/* What became of the last update, and where the guest is. */
static void print_record(GString *out, const json_t *record)
{
	const char *reason = json_member(record, "reason");
	const json_t *pause = json_object_get(record, "pause-ns");

	if (!record)
		return;
	g_string_append_printf(out, "update: \t\t%s by %s%s%s%s\n", json_member(record, "result"),
			       json_member(record, "mode"), *reason ? " (" : "", reason,
			       *reason ? ")" : "");
	if (pause)
		g_string_append_printf(out, "pause: \t\t\t%.3f ms\n",
				       (double)json_integer_value(pause) / 1000000);
	g_string_append_printf(out,
			       "process: \t\told %" JSON_INTEGER_FORMAT
			       " (%s), new %" JSON_INTEGER_FORMAT " (%s)\n",
			       json_integer_value(json_object_get(record, "old-pid")),
			       json_member(record, "old-build"),
			       json_integer_value(json_object_get(record, "new-pid")),
			       json_member(record, "new-build"));
}

static void print_migrate(GString *out, const json_t *result)
{
	const char *stage = json_member(result, "update-stage");
	const json_t *ram = json_object_get(result, "ram");
	const char *why = json_member(result, "error-desc");
	json_t *reason;
	size_t i;

	json_array_foreach(json_object_get(result, "blocked-reasons"), i, reason)
		g_string_append_printf(out, "%s  %s\n", i ? "" : "Outgoing migration blocked:\n",
				       json_string_value(reason));
	if (json_object_get(result, "status")) {
		g_string_append_printf(out, "Status: \t\t%s", json_member(result, "status"));
		g_string_append_printf(out, *why ? " (%s)\n" : "\n", why);
	}
	if (*stage)
		g_string_append_printf(out, "Stage: \t\t\t%s\n", stage);
	print_record(out, json_object_get(result, "update-record"));
	print_ms(out, result, "total-time", "total time");
	print_ms(out, result, "expected-downtime", "expected downtime");
	print_ms(out, result, "downtime", "downtime");
	print_ms(out, result, "setup-time", "setup");
	if (ram)
		g_string_append_printf(out, "transferred ram: %" JSON_INTEGER_FORMAT " kbytes\n",
				       json_integer_value(json_object_get(ram, "transferred")) /
					       1024);
}

static void print_words(GString *out, const json_t *list)
{
	json_t *word;
	size_t i;

	json_array_foreach(list, i, word)
		g_string_append_printf(out, " %s", json_string_value(word));
	g_string_append_c(out, '\n');
}

static void print_parameters(GString *out, const json_t *result)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)result, name, value)
	{
		const char *unit = "";

		if (g_str_has_suffix(name, "bandwidth"))
			unit = " bytes/second";
		else if (strcmp(name, "downtime-limit") == 0)
			unit = " ms";
		if (json_is_array(value)) {
			g_string_append_printf(out, "%s:", name);
			print_words(out, value);
		} else if (json_is_integer(value)) {
			g_string_append_printf(out, "%s: %" JSON_INTEGER_FORMAT "%s\n", name,
					       json_integer_value(value), unit);
		} else if (json_is_boolean(value)) {
			g_string_append_printf(out, "%s: %s\n", name,
					       json_is_true(value) ? "on" : "off");
		} else if (strstr(name, "tls")) {
			g_string_append_printf(out, "%s: '%s'\n", name, json_string_value(value));
		} else {
			g_string_append_printf(out, "%s: %s\n", name, json_string_value(value));
		}
	}
}

static void print_capabilities(GString *out, const json_t *result)
{
	json_t *one;
	size_t i;

	json_array_foreach(result, i, one)
		g_string_append_printf(out, "%s: %s\n", json_member(one, "capability"),
				       json_is_true(json_object_get(one, "state")) ? "on" : "off");
}

const struct command commands_migration[] = {
	{
		.name = "migrate",
		.args = &type_migrate,
		.run = run_migrate,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"migrate", NULL, "-d:detach,-r:resume,uri:s", "[-d] [-r] uri",
			"hand the guest to another process (-d: do not wait until that is done, "
			"-r: go on with one that was interrupted)",
			prepare_migrate, .waits = true},
	},
	{
		.name = "migrate-incoming",
		.args = &type_migrate_incoming,
		.run = run_incoming,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"migrate_incoming", NULL, "uri:s", "uri",
			"take the guest over from uri (after -incoming defer)"},
	},
	{
		.name = "migrate_cancel",
		.run = run_cancel,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"migrate_cancel", .help = "undo the update in progress"},
	},
	{
		.name = "migrate-continue",
		.args = &type_migrate_continue,
		.run = run_continue,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"migrate_continue", NULL, "state:s", "state",
			"go on from the state an update has paused in"},
	},
	{
		.name = "query-migrate",
		.returns = &type_migration_info,
		.run = run_query,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info migrate", .help = "how the update goes", .print = print_migrate},
	},
	{
		.name = "migrate-set-parameters",
		.args = &type_migrate_set_parameters,
		.run = run_set_parameters,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"migrate_set_parameter", NULL, "parameter:s,value:r?", "parameter value",
			"set one of the parameters of updates", prepare_set_parameter},
	},
	{
		.name = "query-migrate-parameters",
		.returns = &type_migrate_parameters,
		.run = run_query_parameters,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info migrate_parameters", .help = "parameters of updates",
			.print = print_parameters},
	},
	{
		.name = "migrate-set-capabilities",
		.args = &type_migrate_set_capabilities,
		.run = run_set_capabilities,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"migrate_set_capability", NULL, "capability:s,state:b", "capability on|off",
			"switch a capability of updates", prepare_set_capability},
	},
	{
		.name = "query-migrate-capabilities",
		.returns = &type_migrate_capabilities,
		.run = run_query_capabilities,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info migrate_capabilities", .help = "capabilities of updates",
			.print = print_capabilities},
	},
	{0},
};
