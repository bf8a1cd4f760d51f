// Property tables: typed members of a struct read from JSON or text, written back, explained.
// SPDX-License-Identifier: Apache-2.0
#include "options/props.h"

#include <string.h>

#include "base/error.h"
#include "options/config.h"
#include "options/text.h"

/* No property of a VM needs more text than this; it bounds what hostile input can make us keep. */
#define PROP_STRING_MAX 4096

static const char *const on_off_auto_names[] = {"auto", "on", "off", NULL};

/**
 * struct prop_value - A value between its text and its member
 * @number:	Everything but strings: booleans as 0 and 1, enums as their index
 * @string:	PROP_STRING
 */
struct prop_value {
	uint64_t number;
	char *string;
};

static void *prop_member(const struct prop *prop, void *obj)
{
	return (char *)obj + prop->offset;
}

static void prop_store(const struct prop *prop, void *obj, struct prop_value value)
{
	void *member = prop_member(prop, obj);

	switch (prop->type) {
	case PROP_BOOL:
		*(bool *)member = value.number;
		break;
	case PROP_U16:
		*(uint16_t *)member = value.number;
		break;
	case PROP_U32:
		*(uint32_t *)member = value.number;
		break;
	case PROP_U64:
	case PROP_SIZE:
		*(uint64_t *)member = value.number;
		break;
	case PROP_STRING:
		*(char **)member = value.string;
		break;
	case PROP_ENUM:
		*(int *)member = value.number;
		break;
	case PROP_ON_OFF_AUTO:
		*(enum on_off_auto *)member = value.number;
		break;
	}
}

/* The string is lent, not copied. */
static struct prop_value prop_fetch(const struct prop *prop, const void *obj)
{
	const void *member = (const char *)obj + prop->offset;

	switch (prop->type) {
	case PROP_BOOL:
		return (struct prop_value){.number = *(const bool *)member};
	case PROP_U16:
		return (struct prop_value){.number = *(const uint16_t *)member};
	case PROP_U32:
		return (struct prop_value){.number = *(const uint32_t *)member};
	case PROP_U64:
	case PROP_SIZE:
		return (struct prop_value){.number = *(const uint64_t *)member};
	case PROP_STRING:
		return (struct prop_value){.string = *(char *const *)member};
	case PROP_ENUM:
		return (struct prop_value){.number = *(const int *)member};
	case PROP_ON_OFF_AUTO:
		return (struct prop_value){.number = *(const enum on_off_auto *)member};
	}
	g_return_val_if_reached((struct prop_value){0});
}

static uint64_t prop_type_max(enum prop_type type)
{
	if (type == PROP_U16)
		return UINT16_MAX;
	return type == PROP_U32 ? UINT32_MAX : UINT64_MAX;
}

static bool prop_check_bounds(const struct prop *prop, uint64_t number, GError **error)
{
	bool bounded = prop->min != 0 || prop->max != 0;
	uint64_t min = bounded ? prop->min : 0;
	uint64_t max = bounded ? prop->max : prop_type_max(prop->type);

	if (number >= min && number <= max)
		return true;
	return error_set_generic(error,
				 "%" G_GUINT64_FORMAT " is out of bounds; give %" G_GUINT64_FORMAT
				 " to %" G_GUINT64_FORMAT,
				 number, min, max);
}

static bool prop_parse_name(const char *const *names, const char *text, uint64_t *index,
			    GError **error)
{
	g_autofree char *shown = text_printable(text);
	g_autofree char *known = NULL;

	for (uint64_t i = 0; names[i]; i++) {
		if (strcmp(names[i], text) == 0) {
			*index = i;
			return true;
		}
	}
	known = g_strjoinv(", ", (char **)names);
	return error_set_generic(error, "'%s' is not a value it takes; give one of: %s", shown,
				 known);
}

static bool prop_parse_string(const char *text, struct prop_value *value, GError **error)
{
	if (strlen(text) > PROP_STRING_MAX)
		return error_set_generic(error, "the text is longer than %d bytes",
					 PROP_STRING_MAX);
	value->string = g_strdup(text);
	return true;
}

static bool prop_parse_text(const struct prop *prop, const char *text, struct prop_value *value,
			    GError **error)
{
	g_autofree char *shown = text_printable(text);
	bool flag;

	switch (prop->type) {
	case PROP_BOOL:
		if (!text_to_bool(text, &flag))
			return error_set_generic(error, "'%s' is neither on nor off", shown);
		value->number = flag;
		return true;
	case PROP_U16:
	case PROP_U32:
	case PROP_U64:
		if (!text_to_u64(text, &value->number))
			return error_set_generic(error, "'%s' is not a number", shown);
		return prop_check_bounds(prop, value->number, error);
	case PROP_SIZE:
		if (!text_to_size(text, 1, &value->number))
			return error_set_generic(
				error, "'%s' is not a size; give a number with k, M, G or T",
				shown);
		return prop_check_bounds(prop, value->number, error);
	case PROP_STRING:
		return prop_parse_string(text, value, error);
	case PROP_ENUM:
		return prop_parse_name(prop->names, text, &value->number, error);
	case PROP_ON_OFF_AUTO:
		return prop_parse_name(on_off_auto_names, text, &value->number, error);
	}
	g_return_val_if_reached(false);
}

static bool prop_parse_json(const struct prop *prop, const json_t *json, struct prop_value *value,
			    GError **error)
{
	if (json_is_string(json)) {
		if (strlen(json_string_value(json)) != json_string_length(json))
			return error_set_generic(error, "the text contains a NUL character");
		return prop_parse_text(prop, json_string_value(json), value, error);
	}
	if (json_is_boolean(json) && prop->type == PROP_BOOL) {
		value->number = json_is_true(json);
		return true;
	}
	if (json_is_boolean(json) && prop->type == PROP_ON_OFF_AUTO) {
		value->number = json_is_true(json) ? ON_OFF_ON : ON_OFF_OFF;
		return true;
	}
	if (json_is_integer(json) && prop->type != PROP_BOOL && prop->type <= PROP_SIZE) {
		if (json_integer_value(json) < 0)
			return error_set_generic(error, "the number is negative");
		value->number = json_integer_value(json);
		return prop_check_bounds(prop, value->number, error);
	}
	return error_set_generic(error, "the JSON value has the wrong type");
}

/* A table's own defaults: they parse, or the table is wrong (a unit test walks all tables). */
static struct prop_value prop_default(const struct prop *prop)
{
	struct prop_value value = {0};

	if (prop->def && !prop_parse_text(prop, prop->def, &value, NULL))
		g_warn_if_reached();
	return value;
}

/**
 * struct prop_reader - One run of props_from_json()
 * @given:	Per row of @table: the key was seen
 */
struct prop_reader {
	const struct prop *table;
	void *obj;
	bool *given;
};

static bool props_refuse_unknown(const struct prop_reader *reader, const char *path, GError **error)
{
	g_autoptr(GString) known = g_string_new(NULL);
	g_autofree char *shown = text_printable(path);

	for (const struct prop *p = reader->table; p->name; p++)
		g_string_append_printf(known, "%s%s", known->len ? ", " : "", p->name);
	return error_set_generic(error, "unknown property '%s'; known are: %s", shown,
				 known->len ? known->str : "none");
}

static bool props_is_parent(const struct prop *table, const char *path)
{
	size_t len = strlen(path);

	for (const struct prop *p = table; p->name; p++)
		if (strncmp(p->name, path, len) == 0 && p->name[len] == '.')
			return true;
	return false;
}

static bool props_read_leaf(struct prop_reader *reader, const char *path, const json_t *json,
			    GError **error)
{
	const struct prop *prop = reader->table;
	struct prop_value value = {0};

	while (prop->name && strcmp(prop->name, path) != 0)
		prop++;
	if (!prop->name)
		return props_refuse_unknown(reader, path, error);
	if (reader->given[prop - reader->table])
		return error_set_generic(error, "%s: given twice", path);
	if (!prop_parse_json(prop, json, &value, error)) {
		g_prefix_error(error, "%s: ", path);
		return false;
	}
	if (prop->type == PROP_STRING)
		g_free(*(char **)prop_member(prop, reader->obj));
	prop_store(prop, reader->obj, value);
	reader->given[prop - reader->table] = true;
	return true;
}

/* Depth is bounded by the dots in the table's names: nothing else is entered. */
static bool props_read_object(struct prop_reader *reader, const char *parent, const json_t *json,
			      GError **error)
{
	const char *key;
	json_t *child;

	json_object_foreach((json_t *)json, key, child)
	{
		g_autofree char *path = g_strconcat(parent, *parent ? "." : "", key, NULL);
		bool ok;

		if (json_is_object(child) && props_is_parent(reader->table, path))
			ok = props_read_object(reader, path, child, error);
		else
			ok = props_read_leaf(reader, path, child, error);
		if (!ok)
			return false;
	}
	return true;
}

static bool props_check_required(const struct prop_reader *reader, GError **error)
{
	for (const struct prop *p = reader->table; p->name; p++)
		if (p->required && !reader->given[p - reader->table])
			return error_set_generic(error, "%s= is missing", p->name);
	return true;
}

bool props_from_json(const struct prop *table, const json_t *json, void *obj, const char *what,
		     GError **error)
{
	size_t n = 0;
	g_autofree bool *given = NULL;
	struct prop_reader reader;

	for (; table[n].name; n++)
		prop_store(&table[n], obj, prop_default(&table[n]));
	given = g_new0(bool, n + 1);
	reader = (struct prop_reader){.table = table, .obj = obj, .given = given};
	if (!json_is_object(json))
		error_set_generic(error, "not a JSON object");
	else if (props_read_object(&reader, "", json, error) &&
		 props_check_required(&reader, error))
		return true;
	g_prefix_error(error, "%s: ", what);
	props_clear(table, obj);
	return false;
}

static json_t *prop_to_json(const struct prop *prop, struct prop_value value)
{
	switch (prop->type) {
	case PROP_BOOL:
		return json_boolean(value.number);
	case PROP_U16:
	case PROP_U32:
	case PROP_U64:
	case PROP_SIZE:
		if (value.number > INT64_MAX)
			return json_sprintf("%" G_GUINT64_FORMAT, value.number);
		return json_integer(value.number);
	case PROP_STRING:
		return json_string(value.string);
	case PROP_ENUM:
		return json_string(prop->names[value.number]);
	case PROP_ON_OFF_AUTO:
		return json_string(on_off_auto_names[value.number]);
	}
	g_return_val_if_reached(NULL);
}

static void json_set_path(json_t *object, const char *path, json_t *value)
{
	const char *dot = strchr(path, '.');

	if (dot) {
		g_autofree char *head = g_strndup(path, dot - path);
		json_t *child = json_object_get(object, head);

		if (!child) {
			child = json_object();
			json_object_set_new(object, head, child);
		}
		json_set_path(child, dot + 1, value);
		return;
	}
	json_object_set_new(object, path, value);
}

json_t *props_to_json(const struct prop *table, const void *obj)
{
	json_t *out = json_object();

	for (const struct prop *p = table; p->name; p++) {
		struct prop_value value = prop_fetch(p, obj);
		struct prop_value def = prop_default(p);
		bool same = value.number == def.number && !g_strcmp0(value.string, def.string);
		bool absent = p->type == PROP_STRING && !value.string;

		g_free(def.string);
		if (!absent && (!same || p->required))
			json_set_path(out, p->name, prop_to_json(p, value));
	}
	return out;
}

void props_clear(const struct prop *table, void *obj)
{
	for (const struct prop *p = table; p->name; p++) {
		if (p->type == PROP_STRING)
			g_free(*(char **)prop_member(p, obj));
		prop_store(p, obj, (struct prop_value){0});
	}
}

static char *prop_type_text(const struct prop *prop)
{
	switch (prop->type) {
	case PROP_BOOL:
		return g_strdup("on|off");
	case PROP_U16:
	case PROP_U32:
	case PROP_U64:
		return g_strdup("<number>");
	case PROP_SIZE:
		return g_strdup("<size>");
	case PROP_STRING:
		return g_strdup("<text>");
	case PROP_ENUM:
		return g_strjoinv("|", (char **)prop->names);
	case PROP_ON_OFF_AUTO:
		return g_strdup("on|off|auto");
	}
	g_return_val_if_reached(NULL);
}

void props_help(const struct prop *table, GString *out)
{
	for (const struct prop *p = table; p->name; p++) {
		g_autofree char *type = prop_type_text(p);
		g_autofree char *key = g_strdup_printf("%s=%s", p->name, type);

		g_string_append_printf(out, "  %-28s  %s", key, p->help ? p->help : "");
		if (p->required)
			g_string_append(out, " (required)");
		else if (p->def)
			g_string_append_printf(out, " (default: %s)", p->def);
		while (out->len && out->str[out->len - 1] == ' ')
			g_string_truncate(out, out->len - 1);
		g_string_append_c(out, '\n');
	}
}
