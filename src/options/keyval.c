// The "a=b,c.d=e,flag" syntax of option arguments, read into JSON.
// SPDX-License-Identifier: Apache-2.0
#include "options/props.h"

#include <string.h>

#include "base/error.h"
#include "options/text.h"

/* Bounds: an argument longer, deeper or with a longer list than these is a mistake. */
#define KEYVAL_TEXT_MAX	 65536
#define KEYVAL_DEPTH_MAX 8
#define KEYVAL_LIST_MAX	 256

static json_t *keyval_parse_json(const char *text, GError **error)
{
	json_error_t detail;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &detail);

	if (!json) {
		g_autofree char *reason = text_printable(detail.text);

		error_set_generic(error, "not valid JSON at character %d: %s", detail.position,
				  reason);
	}
	return json;
}

/* Reads up to an unescaped comma; leaves *@cursor behind it, or at the end. */
static char *keyval_take_value(const char **cursor)
{
	GString *value = g_string_new(NULL);
	const char *p = *cursor;

	for (; *p; p++) {
		if (*p == ',' && *++p != ',')
			break;
		g_string_append_c(value, *p);
	}
	*cursor = p;
	return g_string_free(value, FALSE);
}

static bool keyval_check_part(const char *part, const char *key, GError **error)
{
	g_autofree char *shown = text_printable(key);

	if (*part == '\0')
		return error_set_generic(error, "'%s' is not a key: a name is missing in it",
					 shown);
	if (part[strspn(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")])
		return error_set_generic(
			error, "'%s' is not a key; a comma in a value is written ',,'", shown);
	return true;
}

/* Walks to the parent of the last part of @key, making objects on the way. */
static bool keyval_set(json_t *root, const char *key, const char *text, GError **error)
{
	g_auto(GStrv) parts = g_strsplit(key, ".", KEYVAL_DEPTH_MAX + 1);
	g_autofree char *shown = text_printable(key);
	guint n = g_strv_length(parts);
	json_t *node = root;
	json_t *value;

	if (n > KEYVAL_DEPTH_MAX)
		return error_set_generic(error, "'%s' nests deeper than %d", shown,
					 KEYVAL_DEPTH_MAX);
	if (n == 0)
		return keyval_check_part("", key, error);
	for (guint i = 0; i < n; i++)
		if (!keyval_check_part(parts[i], key, error))
			return false;
	for (guint i = 0; i + 1 < n; i++) {
		json_t *child = json_object_get(node, parts[i]);

		if (!child) {
			child = json_object();
			json_object_set_new(node, parts[i], child);
		}
		if (!json_is_object(child))
			return error_set_generic(error, "'%s' both has a value and parts", shown);
		node = child;
	}
	if (json_is_object(json_object_get(node, parts[n - 1])))
		return error_set_generic(error, "'%s' both has a value and parts", shown);
	value = json_string(text);
	if (!value)
		return error_set_generic(error, "the value of '%s' is not UTF-8 text", shown);
	json_object_set_new(node, parts[n - 1], value);
	return true;
}

static bool has_index(json_t *object)
{
	const char *key;
	json_t *child;

	json_object_foreach(object, key, child)
	{
		if (key[strspn(key, "0123456789")] == '\0')
			return true;
	}
	return false;
}

/* Return: a list with @object's values if its keys are 0, 1, ..., NULL with @error set if not. */
static json_t *keyval_object_to_list(json_t *object, const char *name, GError **error)
{
	size_t n = json_object_size(object);
	json_t *list;

	if (n > KEYVAL_LIST_MAX) {
		error_set_generic(error, "%s: a list has at most %d elements", name,
				  KEYVAL_LIST_MAX);
		return NULL;
	}
	list = json_array();
	for (size_t i = 0; i < n; i++) {
		char index[24];
		json_t *element;

		g_snprintf(index, sizeof(index), "%zu", i);
		element = json_object_get(object, index);
		if (!element) {
			error_set_generic(error, "%s: element %zu of the list is missing", name, i);
			json_decref(list);
			return NULL;
		}
		json_array_append(list, element);
	}
	return list;
}

/* Depth is bounded by KEYVAL_DEPTH_MAX. */
static bool keyval_make_lists(json_t *object, GError **error)
{
	const char *key;
	json_t *child;
	void *next;

	json_object_foreach_safe(object, next, key, child)
	{
		json_t *list;

		if (!json_is_object(child))
			continue;
		if (!keyval_make_lists(child, error))
			return false;
		if (!has_index(child))
			continue;
		list = keyval_object_to_list(child, key, error);
		if (!list)
			return false;
		json_object_set_new(object, key, list);
	}
	return true;
}

static bool keyval_parse_item(json_t *root, const char **cursor, const char *implied_key,
			      GError **error)
{
	size_t key_len = strcspn(*cursor, "=,");
	bool has_value = (*cursor)[key_len] == '=';
	g_autofree char *key = NULL;
	g_autofree char *value = NULL;

	if (has_value) {
		key = g_strndup(*cursor, key_len);
		*cursor += key_len + 1;
		value = keyval_take_value(cursor);
		return keyval_set(root, key, value, error);
	}
	value = keyval_take_value(cursor);
	if (implied_key)
		return keyval_set(root, implied_key, value, error);
	if (g_str_has_prefix(value, "no") && value[2] != '\0')
		return keyval_set(root, value + 2, "off", error);
	if (strcmp(value, "?") == 0)
		return keyval_set(root, "help", "on", error);
	return keyval_set(root, value, "on", error);
}

json_t *keyval_parse(const char *text, const char *implied_key, GError **error)
{
	const char *cursor = text;
	json_t *root;

	if (strlen(text) > KEYVAL_TEXT_MAX) {
		error_set_generic(error, "the argument is longer than %d bytes", KEYVAL_TEXT_MAX);
		return NULL;
	}
	if (*text == '{')
		return keyval_parse_json(text, error);
	root = json_object();
	while (*cursor) {
		const char *implied = cursor == text ? implied_key : NULL;

		if (!keyval_parse_item(root, &cursor, implied, error)) {
			json_decref(root);
			return NULL;
		}
	}
	if (!keyval_make_lists(root, error)) {
		json_decref(root);
		return NULL;
	}
	return root;
}
