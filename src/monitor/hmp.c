// HMP: lines that people type, as calls of the same commands that QMP has.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/hmp.h"

#include <string.h>

#include "base/error.h"
#include "monitor/monitors.h"
#include "options/text.h"

/* ---- words ---- */

static const char *skip_space(const char *text)
{
	return text + strspn(text, " \t");
}

/*
 * Take a word, in double quotes if it has spaces; a backslash takes the next character as it is.
 * Return: the word, to be freed; NULL at the end, or with @error set for an open quote.
 */
static char *take_word(const char **text, GError **error)
{
	const char *p = skip_space(*text);
	GString *word;
	bool quoted = *p == '"';

	if (!*p)
		return NULL;
	word = g_string_new(NULL);
	for (p += quoted; *p && (quoted ? *p != '"' : !strchr(" \t", *p)); p++) {
		if (quoted && *p == '\\' && p[1])
			p++;
		g_string_append_c(word, *p);
	}
	if (quoted && *p != '"') {
		g_string_free(word, TRUE);
		error_set_generic(error, "unterminated string");
		return NULL;
	}
	*text = p + quoted;
	return g_string_free(word, FALSE);
}

/**
 * struct hmp_item - One item of a row's argument template, "name:s?" or "-d:name"
 * @flag:	The letter, 0 for what is no flag
 * @type:	's', 'r', 'i', 'b'
 */
struct hmp_item {
	char flag;
	char *name;
	char type;
	bool optional;
};

static struct hmp_item hmp_item_parse(const char *text)
{
	g_auto(GStrv) parts = g_strsplit(text, ":", 2);
	struct hmp_item item = {0};

	if (parts[0][0] == '-') {
		item.flag = parts[0][1];
		item.name = g_strdup(parts[1]);
		return item;
	}
	item.name = g_strdup(parts[0]);
	item.type = parts[1][0];
	item.optional = parts[1][1] == '?';
	return item;
}

static json_t *hmp_value(char type, const char *word, GError **error)
{
	uint64_t number;
	bool on;

	switch (type) {
	case 'i':
		if (text_to_u64(word, &number) && number <= INT64_MAX)
			return json_integer(number);
		error_set_generic(error, "'%s' is not a number", word);
		return NULL;
	case 'b':
		if (text_to_bool(word, &on))
			return json_boolean(on);
		error_set_generic(error, "'%s' is neither 'on' nor 'off'", word);
		return NULL;
	default:
		if (g_utf8_validate(word, -1, NULL))
			return json_string(word);
		error_set_generic(error, "the text is not UTF-8");
		return NULL;
	}
}

static bool hmp_take_item(const struct hmp_item *item, const char **text, json_t *args,
			  GError **error)
{
	g_autoptr(GError) failure = NULL;
	g_autofree char *word = NULL;
	json_t *value;

	if (item->type == 'r') {
		word = *skip_space(*text) ? g_strchomp(g_strdup(skip_space(*text))) : NULL;
		*text = "";
	} else {
		word = take_word(text, &failure);
	}
	if (failure) {
		g_propagate_error(error, g_steal_pointer(&failure));
		return false;
	}
	if (!word)
		return item->optional || error_set_generic(error, "%s expected", item->name);
	value = hmp_value(item->type, word, error);
	return value && json_object_set_new(args, item->name, value) == 0;
}

/* Take "-d" if it is next; flags are separate and come first. */
static void hmp_take_flag(const struct hmp_item *item, const char **text, json_t *args)
{
	const char *p = skip_space(*text);

	if (p[0] != '-' || p[1] != item->flag || (p[2] && !strchr(" \t", p[2])))
		return;
	json_object_set_new(args, item->name, json_true());
	*text = p + 2;
}

/* Flags may come in any order: go through them once per flag. */
static void hmp_take_flags(char **items, const char **text, json_t *args)
{
	for (guint round = 0; round < g_strv_length(items); round++) {
		for (char **i = items; *i; i++) {
			struct hmp_item item = hmp_item_parse(*i);

			if (item.flag)
				hmp_take_flag(&item, text, args);
			g_free(item.name);
		}
	}
}

/* Return: the row's arguments, a new reference; NULL with @error set. */
static json_t *hmp_arguments(const struct hmp_form *form, const char *text, GError **error)
{
	g_auto(GStrv) items = g_strsplit(form->args ? form->args : "", ",", 0);
	json_t *args = json_object();
	bool good = true;

	hmp_take_flags(items, &text, args);
	for (char **i = items; *i && good; i++) {
		struct hmp_item item = hmp_item_parse(*i);

		good = item.flag || hmp_take_item(&item, &text, args, error);
		g_free(item.name);
	}
	if (good && *skip_space(text))
		good = error_set_generic(error, "extraneous characters at the end of line");
	if (!good) {
		g_prefix_error(error, "%s: ", form->name);
		json_decref(args);
		return NULL;
	}
	return args;
}

/* ---- lines ---- */

static bool hmp_is(const struct command *command, const char *name)
{
	return command->hmp.name &&
	       (strcmp(command->hmp.name, name) == 0 || g_strcmp0(command->hmp.alias, name) == 0);
}

static const struct command *hmp_find(const char *name)
{
	for (const struct command *c = command_next(NULL); c; c = command_next(c))
		if (hmp_is(c, name))
			return c;
	return NULL;
}

/* "info X" is one name of two words.  Return: the row; NULL with @error set. */
static const struct command *hmp_take_command(const char **text, GError **error)
{
	g_autofree char *first = take_word(text, error);
	g_autofree char *second = NULL;
	g_autofree char *both = NULL;
	const struct command *command = NULL;
	const char *rest = *text;

	if (!first)
		return NULL;
	if (strcmp(first, "info") == 0 && (second = take_word(&rest, NULL))) {
		both = g_strdup_printf("info %s", second);
		command = hmp_find(both);
		*text = rest;
	} else {
		command = hmp_find(first);
	}
	if (!command) {
		g_autofree char *shown = text_printable(both ? both : first);

		error_set_generic(error, "unknown command: '%s'", shown);
	}
	return command;
}

static json_t *hmp_run_command(const struct command *command, struct command_call *call,
			       const char *rest, struct hmp_outcome *outcome, GError **error)
{
	json_t *args = hmp_arguments(&command->hmp, rest, error);
	bool detached = json_object_get(args, "detach") != NULL;
	json_t *result = NULL;

	if (args && (!command->hmp.prepare || command->hmp.prepare(args, error)))
		result = command_run(command, call, args, error);
	outcome->waits = result && command->hmp.waits && !detached;
	outcome->after = call->after;
	json_decref(args);
	return result;
}

struct hmp_outcome hmp_run_line(struct monitors *monitors, const char *line, GString *out)
{
	struct update *update = monitors_update(monitors);
	struct command_call call = {monitors, update, update_machine(update), NULL};
	struct hmp_outcome outcome = {0};
	g_autoptr(GError) error = NULL;
	const struct command *command;
	json_t *result = NULL;

	if (!*skip_space(line) || *skip_space(line) == '#')
		return outcome;
	command = hmp_take_command(&line, &error);
	if (!command) {
		g_string_append_printf(out, "%s\n", error->message);
		return outcome;
	}
	result = hmp_run_command(command, &call, line, &outcome, &error);
	if (!result)
		g_string_append_printf(out, "Error: %s\n", error->message);
	else if (command->hmp.print)
		command->hmp.print(out, result);
	json_decref(result);
	return outcome;
}

void hmp_complete(const char *prefix, GPtrArray *matches)
{
	for (const struct command *c = command_next(NULL); c; c = command_next(c))
		if (c->hmp.name && g_str_has_prefix(c->hmp.name, prefix))
			g_ptr_array_add(matches, g_strdup(c->hmp.name));
}

char *hmp_crlf(const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	return g_strjoinv("\r\n", lines);
}

/* ---- commands that only people have ---- */

static void append_help(GString *out, const struct hmp_form *form)
{
	g_string_append_printf(out, "%s%s%s", form->name, form->alias ? "|" : "",
			       form->alias ? form->alias : "");
	if (form->synopsis)
		g_string_append_printf(out, " %s", form->synopsis);
	g_string_append_printf(out, " -- %s\n", form->help);
}

/* Help for all commands, all of the same family word ("info"), or one. */
static json_t *run_help(struct command_call *call, const json_t *args, GError **error)
{
	const char *name = json_member(args, "name");
	g_autofree char *family = g_strconcat(name, " ", NULL);
	g_autoptr(GString) out = g_string_new(NULL);

	for (const struct command *c = command_next(NULL); c; c = command_next(c))
		if (c->hmp.name && (*name ? hmp_is(c, name) || g_str_has_prefix(c->hmp.name, family)
					  : !g_str_has_prefix(c->hmp.name, "info ")))
			append_help(out, &c->hmp);
	if (out->len == 0)
		error_set_generic(error, "there is no command '%s'", name);
	return out->len ? json_text(out->str) : NULL;
}

static json_t *run_info(struct command_call *call, const json_t *args, GError **error)
{
	json_t *about = json_pack("{s:s}", "name", "info");
	json_t *result = run_help(call, about, error);

	json_decref(about);
	return result;
}

static void print_text(GString *out, const json_t *result)
{
	g_string_append(out, json_string_value(result));
}

static const struct schema help_args = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"name", &schema_string, true}, {NULL}},
};

const struct command commands_hmp[] = {
	{
		.args = &help_args,
		.returns = &schema_string,
		.run = run_help,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"help", "?", "name:r?", "[cmd]", "show the help", .print = print_text},
	},
	{
		.returns = &schema_string,
		.run = run_info,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info", NULL, NULL, "[subcommand]",
			"show various information about the system state", .print = print_text},
	},
	{0},
};
