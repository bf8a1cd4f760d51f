// Types of QMP arguments and results: the check.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/schema.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "options/text.h"

const struct schema schema_string = {.kind = SCHEMA_STRING};
const struct schema schema_bool = {.kind = SCHEMA_BOOL};
const struct schema schema_number = {.kind = SCHEMA_NUMBER};
const struct schema schema_null = {.kind = SCHEMA_NULL};
const struct schema schema_any = {.kind = SCHEMA_ANY};
const struct schema schema_int = {SCHEMA_INT, "int64", INT64_MIN, INT64_MAX};
const struct schema schema_uint8 = {SCHEMA_INT, "uint8", 0, UINT8_MAX};
const struct schema schema_uint16 = {SCHEMA_INT, "uint16", 0, UINT16_MAX};
const struct schema schema_uint32 = {SCHEMA_INT, "uint32", 0, UINT32_MAX};
/* JSON numbers above INT64_MAX are refused where the text is parsed. */
const struct schema schema_uint64 = {SCHEMA_INT, "uint64", 0, INT64_MAX};
const struct schema schema_empty = {.kind = SCHEMA_OBJECT};
DEFINE_SCHEMA_LIST(schema_string_list, schema_string);

const char *schema_kind_name(const struct schema *type)
{
	static const char *const names[] = {
		[SCHEMA_STRING] = "string", [SCHEMA_BOOL] = "boolean",
		[SCHEMA_INT] = "integer",   [SCHEMA_NUMBER] = "number",
		[SCHEMA_NULL] = "null",	    [SCHEMA_ENUM] = "string",
		[SCHEMA_ARRAY] = "array",   [SCHEMA_OBJECT] = "object",
		[SCHEMA_ANY] = "value",	    [SCHEMA_ALTERNATE] = "alternate",
	};

	return names[type->kind];
}

static bool schema_kind_matches(const struct schema *type, const json_t *value)
{
	switch (type->kind) {
	case SCHEMA_STRING:
	case SCHEMA_ENUM:
		return json_is_string(value);
	case SCHEMA_BOOL:
		return json_is_boolean(value);
	case SCHEMA_INT:
		return json_is_integer(value);
	case SCHEMA_NUMBER:
		return json_is_number(value);
	case SCHEMA_NULL:
		return json_is_null(value);
	case SCHEMA_ARRAY:
		return json_is_array(value);
	case SCHEMA_OBJECT:
		return json_is_object(value);
	case SCHEMA_ALTERNATE:
	case SCHEMA_ANY:
		return true;
	}
	return false;
}

static bool schema_check_enum(const struct schema *type, const json_t *value, const char *path,
			      GError **error)
{
	const char *text = json_string_value(value);
	g_autofree char *shown = NULL;

	if (g_strv_contains(type->values, text))
		return true;
	shown = text_printable(text);
	return error_set_generic(error, "Parameter '%s' does not accept value '%s'", path, shown);
}

static bool schema_check_array(const struct schema *type, const json_t *value, const char *path,
			       GError **error)
{
	for (size_t i = 0; i < json_array_size(value); i++) {
		g_autofree char *item = g_strdup_printf("%s[%zu]", path, i);

		if (!schema_check(type->element, json_array_get(value, i), item, error))
			return false;
	}
	return true;
}

static char *schema_path(const char *path, const char *name)
{
	g_autofree char *shown = text_printable(name);

	return *path ? g_strdup_printf("%s.%s", path, shown) : g_steal_pointer(&shown);
}

static bool schema_check_members(const struct schema_member *members, const json_t *value,
				 const char *path, GError **error)
{
	for (const struct schema_member *m = members; m && m->name; m++) {
		const json_t *item = json_object_get(value, m->name);
		g_autofree char *item_path = schema_path(path, m->name);

		if (!item && !m->optional)
			return error_set_generic(error, "Parameter '%s' is missing", item_path);
		if (item && !schema_check(m->type, item, item_path, error))
			return false;
	}
	return true;
}

static const struct schema *schema_pick_variant(const struct schema *type, const json_t *value)
{
	const char *tag = type->tag ? json_string_value(json_object_get(value, type->tag)) : NULL;

	for (const struct schema_variant *v = type->variants; tag && v && v->value; v++)
		if (strcmp(v->value, tag) == 0)
			return v->type;
	return NULL;
}

static bool schema_knows(const struct schema *type, const json_t *value, const char *name)
{
	for (; type; type = schema_pick_variant(type, value))
		if (schema_find_member(type, name))
			return true;
	return false;
}

/* A variant may have a tag and variants of its own, in the same JSON object. */
static bool schema_check_object(const struct schema *type, const json_t *value, const char *path,
				GError **error)
{
	const char *name;
	json_t *item;

	for (const struct schema *t = type; t; t = schema_pick_variant(t, value))
		if (!schema_check_members(t->members, value, path, error))
			return false;
	json_object_foreach((json_t *)value, name, item)
	{
		if (!type->open && !schema_knows(type, value, name)) {
			g_autofree char *item_path = schema_path(path, name);

			return error_set_generic(error, "Parameter '%s' is unexpected", item_path);
		}
	}
	return true;
}

static bool schema_check_alternate(const struct schema *type, const json_t *value, const char *path,
				   GError **error)
{
	for (const struct schema *const *choice = type->choices; *choice; choice++)
		if (schema_kind_matches(*choice, value))
			return schema_check(*choice, value, path, error);
	return error_set_generic(error, "Invalid parameter type for '%s', expected: %s", path,
				 schema_kind_name(type->choices[0]));
}

bool schema_check(const struct schema *type, const json_t *value, const char *path, GError **error)
{
	if (!schema_kind_matches(type, value))
		return error_set_generic(error, "Invalid parameter type for '%s', expected: %s",
					 *path ? path : "arguments", schema_kind_name(type));
	switch (type->kind) {
	case SCHEMA_INT:
		if (json_integer_value(value) < type->min || json_integer_value(value) > type->max)
			return error_set_generic(error, "Parameter '%s' expects %s", path,
						 type->name);
		return true;
	case SCHEMA_ENUM:
		return schema_check_enum(type, value, path, error);
	case SCHEMA_ARRAY:
		return schema_check_array(type, value, path, error);
	case SCHEMA_OBJECT:
		return schema_check_object(type, value, path, error);
	case SCHEMA_ALTERNATE:
		return schema_check_alternate(type, value, path, error);
	default:
		return true;
	}
}

const struct schema *schema_find_member(const struct schema *type, const char *name)
{
	for (const struct schema_member *m = type->members; m && m->name; m++)
		if (strcmp(m->name, name) == 0)
			return m->type;
	return NULL;
}
