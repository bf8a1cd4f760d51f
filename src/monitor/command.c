// Commands: look-up, checks, dispatch.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/command.h"

#include <string.h>

#include "base/error.h"
#include "options/text.h"

static const struct command *const families[] = {
	commands_control,   commands_query,   commands_machine, commands_block, commands_device,
	commands_migration, commands_chardev, commands_schema,	commands_hmp,
};

static bool command_is_end(const struct command *command)
{
	return !command->name && !command->hmp.name;
}

/* A family is an array, so the end mark after @command says where the next one starts. */
const struct command *command_next(const struct command *previous)
{
	const struct command *candidate = previous ? previous + 1 : families[0];
	const struct command *end;

	if (!command_is_end(candidate))
		return candidate;
	for (size_t i = 0; i + 1 < G_N_ELEMENTS(families); i++) {
		for (end = families[i]; !command_is_end(end); end++)
			;
		if (end == candidate)
			return families[i + 1];
	}
	return NULL;
}

const struct command *command_find(const char *name)
{
	for (const struct command *c = command_next(NULL); c; c = command_next(c))
		if (c->name && strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

json_t *command_run(const struct command *command, struct command_call *call, const json_t *args,
		    GError **error)
{
	const struct schema *type = command->args ? command->args : &schema_empty;
	json_t *none = json_object();
	bool valid = schema_check(type, args ? args : none, "", error);
	json_t *result = NULL;

	if (!valid) {
		/* the error is set */
	} else if (!call->machine && !(command->flags & COMMAND_WITHOUT_MACHINE)) {
		error_set_generic(error, "no machine yet: waiting for the predecessor's offer");
	} else if ((command->flags & COMMAND_OUTSIDE_OF_UPDATE) && update_active(call->update)) {
		error_set_generic(error, "There's a migration process in progress");
	} else {
		result = command->run(call, args ? args : none, error);
	}
	json_decref(none);
	return result;
}

json_t *json_text(const char *text)
{
	g_autofree char *valid = g_utf8_make_valid(text, -1);

	return json_string(valid);
}

const char *json_member(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}
