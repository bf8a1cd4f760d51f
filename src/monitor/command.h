// Commands: one row each gives dispatch, checks, introspection, HMP and help.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>
#include <jansson.h>

#include "cpr/update.h"
#include "monitor/schema.h"

struct monitors;

/**
 * struct command_call - What a handler is given beside its arguments
 * @machine:	NULL only for commands with COMMAND_WITHOUT_MACHINE
 * @after:	Out: called with @monitors when the reply is on its way
 */
struct command_call {
	struct monitors *monitors;
	struct update *update;
	struct machine *machine;
	void (*after)(struct monitors *monitors);
};

/**
 * typedef command_fn - Carry out a command
 * @args:	Checked against the row's schema; borrowed
 * Return: the result, a new reference; NULL with @error set.
 */
typedef json_t *(*command_fn)(struct command_call *call, const json_t *args, GError **error);

enum command_flags {
	COMMAND_WITHOUT_MACHINE = 1,   /* works while a successor waits for its machine */
	COMMAND_OUTSIDE_OF_UPDATE = 2, /* refused while an update is in progress */
};

/**
 * struct hmp_form - The same command as people type it; no name: QMP only
 * @name:	"migrate", "info status"
 * @alias:	NULL if there is none
 * @args:	How words become members: "-d:detach" a flag, "uri:s" a word, "value:r" the rest of
 *		the line, "n:i" a number, "state:b" on or off; '?' at the end: may be left out
 * @synopsis:	Of the arguments
 * @help:	One line
 * @prepare:	Optional: make the command's arguments of the words'
 * @print:	Writes the result for people; NULL: it prints nothing
 * @waits:	Without -d the monitor takes no input until the update has ended
 */
struct hmp_form {
	const char *name;
	const char *alias;
	const char *args;
	const char *synopsis;
	const char *help;
	bool (*prepare)(json_t *args, GError **error);
	void (*print)(GString *out, const json_t *result);
	bool waits;
};

/**
 * struct command - One row
 * @name:	In QMP; NULL: HMP only
 * @args:	Its arguments, an object type; NULL: none
 * @returns:	Type of the result; NULL: empty object
 * @flags:	enum command_flags
 */
struct command {
	const char *name;
	const struct schema *args;
	const struct schema *returns;
	command_fn run;
	unsigned int flags;
	struct hmp_form hmp;
};

/* One table per family; a row without a name of either kind ends it. */
extern const struct command commands_control[], commands_query[], commands_machine[],
	commands_block[], commands_device[], commands_migration[], commands_chardev[],
	commands_schema[], commands_hmp[];

/** struct event_type - An event for query-qmp-schema; @data NULL: it has none */
struct event_type {
	const char *name;
	const struct schema *data;
};

/** event_types - Every event there is; ended by a NULL name */
extern const struct event_type event_types[];

/** command_next() - All rows of all families, one after the other; start with NULL. */
const struct command *command_next(const struct command *previous);

/** command_find() - By its QMP name; NULL if there is none. */
const struct command *command_find(const char *name);

/**
 * command_run() - Check everything the row asks for, then call the handler
 * @args:	NULL for none; hostile until checked
 * Return: the result, a new reference; NULL with @error set.
 */
json_t *command_run(const struct command *command, struct command_call *call, const json_t *args,
		    GError **error);

/** json_text() - A JSON string of any text, also of one that is not UTF-8. */
json_t *json_text(const char *text);

/** json_member() - The string at @key of @object, "" if there is none. */
const char *json_member(const json_t *object, const char *key);
