// How a configuration travels: exact inverses between struct vm_config and JSON.
// SPDX-License-Identifier: Apache-2.0
#include "options/tables.h"

#include <string.h>

#include "base/error.h"
#include "options/check.h"
#include "options/text.h"

/* Bounds of a configuration: hostile input cannot make us keep more than this. */
#define ELEMENTS_MAX   VM_LIST_MAX
#define STRING_MAX     4096
#define JSON_DEPTH_MAX 8

/* What is kept as JSON (a device's properties) is bounded here; everything else by its table. */
static bool json_check_bounds(const json_t *json, int depth, GError **error)
{
	const char *key;
	json_t *child;
	size_t i;

	if (depth > JSON_DEPTH_MAX)
		return error_set_generic(error, "nests deeper than %d", JSON_DEPTH_MAX);
	if (json_object_size(json) > ELEMENTS_MAX || json_array_size(json) > ELEMENTS_MAX)
		return error_set_generic(error, "has more than %d elements", ELEMENTS_MAX);
	if (json_is_string(json) && (json_string_length(json) > STRING_MAX ||
				     strlen(json_string_value(json)) != json_string_length(json)))
		return error_set_generic(
			error, "a text is longer than %d bytes or contains a NUL character",
			STRING_MAX);
	json_array_foreach((json_t *)json, i, child)
	{
		if (!json_check_bounds(child, depth + 1, error))
			return false;
	}
	json_object_foreach((json_t *)json, key, child)
	{
		if (strlen(key) > STRING_MAX)
			return error_set_generic(error, "a key is longer than %d bytes",
						 STRING_MAX);
		if (!json_check_bounds(child, depth + 1, error))
			return false;
	}
	return true;
}

static const struct kind_table *take_kind(const struct vm_list *list, json_t *json,
					  const char *what, GError **error)
{
	const char *name = json_string_value(json_object_get(json, list->kind_key));
	const struct kind_table *kind = name ? kind_find(list->kinds, name) : NULL;
	g_autofree char *shown = text_printable(name ? name : "");
	g_autofree char *known = kind_names(list->kinds);

	if (!kind)
		error_set_generic(error, "%s: %s: '%s' is not available; give one of: %s", what,
				  list->kind_key, shown, known);
	json_object_del(json, list->kind_key);
	return kind;
}

/* Moves the object that is kept as JSON out of @json. */
static bool take_json(const struct vm_list *list, json_t *json, void *element, const char *what,
		      GError **error)
{
	json_t *kept = json_object_get(json, list->json_key);

	if (!kept)
		kept = json_object();
	else
		json_incref(kept);
	*(json_t **)((char *)element + list->json_offset) = kept;
	json_object_del(json, list->json_key);
	if (json_is_object(kept) && json_check_bounds(kept, 0, error))
		return true;
	if (!json_is_object(kept))
		error_set_generic(error, "not a JSON object");
	g_prefix_error(error, "%s: %s: ", what, list->json_key);
	return false;
}

static bool read_element(const struct vm_list *list, json_t *json, void *element, const char *what,
			 GError **error)
{
	const struct prop *props = list->props;

	if (list->kinds) {
		const struct kind_table *kind = take_kind(list, json, what, error);

		if (!kind)
			return false;
		props = kind->props;
		*(int *)((char *)element + list->kind_offset) = kind->kind;
	}
	if (list->json_key && !take_json(list, json, element, what, error))
		return false;
	return props_from_json(props, json, element, what, error);
}

void *vm_list_read(enum vm_list_index index, const json_t *json, const char *what, GError **error)
{
	const struct vm_list *list = &vm_lists[index];
	void *element;
	json_t *rest;

	if (!json_is_object(json)) {
		error_set_generic(error, "%s: not a JSON object", what);
		return NULL;
	}
	element = g_malloc0(list->size);
	rest = json_copy((json_t *)json);
	if (!read_element(list, rest, element, what, error))
		g_clear_pointer(&element, list->free);
	json_decref(rest);
	return element;
}

struct device_config *device_config_read(const json_t *args, const char *what, GError **error)
{
	json_t *whole = json_object();
	json_t *props = json_copy((json_t *)args);
	static const char *const own[] = {"driver", "id"};
	void *device;

	for (size_t i = 0; i < G_N_ELEMENTS(own); i++) {
		json_t *value = json_object_get(props, own[i]);

		if (value)
			json_object_set(whole, own[i], value);
		json_object_del(props, own[i]);
	}
	json_object_set_new(whole, "props", props);
	device = vm_list_read(VM_LIST_DEVICES, whole, what, error);
	json_decref(whole);
	return device;
}

json_t *vm_list_write(enum vm_list_index index, const void *element)
{
	const struct vm_list *list = &vm_lists[index];
	const struct prop *props = list->props;
	json_t *out = json_object();
	json_t *rest;

	if (list->kinds) {
		int number = *(const int *)((const char *)element + list->kind_offset);
		const struct kind_table *kind = kind_by_number(list->kinds, number);

		json_object_set_new(out, list->kind_key, json_string(kind->name));
		props = kind->props;
	}
	rest = props_to_json(props, element);
	json_object_update(out, rest);
	json_decref(rest);
	if (list->json_key) {
		json_t *kept = *(json_t *const *)((const char *)element + list->json_offset);

		json_object_set_new(out, list->json_key, json_deep_copy(kept));
	}
	return out;
}

json_t *vm_config_to_json(const struct vm_config *config)
{
	json_t *out = props_to_json(vm_props, config);

	json_object_set_new(out, "machine", props_to_json(machine_props, &config->machine));
	for (int i = 0; i < VM_LIST_COUNT; i++) {
		const GPtrArray *array = vm_list_array(config, i);
		json_t *list = json_array();

		for (guint n = 0; n < array->len; n++)
			json_array_append_new(list, vm_list_write(i, g_ptr_array_index(array, n)));
		json_object_set_new(out, vm_lists[i].name, list);
	}
	return out;
}

static bool read_list(struct vm_config *config, enum vm_list_index index, const json_t *json,
		      GError **error)
{
	const char *name = vm_lists[index].name;
	size_t i;
	json_t *child;

	if (!json)
		return true;
	if (!json_is_array(json))
		return error_set_generic(error, "configuration: %s: not a JSON array", name);
	if (json_array_size(json) > ELEMENTS_MAX)
		return error_set_generic(error, "configuration: %s: more than %d elements", name,
					 ELEMENTS_MAX);
	json_array_foreach((json_t *)json, i, child)
	{
		g_autofree char *what = g_strdup_printf("configuration: %s[%zu]", name, i);
		void *element = vm_list_read(index, child, what, error);

		if (!element)
			return false;
		g_ptr_array_add(vm_list_array(config, index), element);
	}
	return true;
}

static bool read_machine(struct vm_config *config, const json_t *json, GError **error)
{
	if (!json)
		return true;
	props_clear(machine_props, &config->machine);
	return props_from_json(machine_props, json, &config->machine, "configuration: machine",
			       error);
}

/* Consumes @rest, a copy of the whole: what is left of it when the parts are out is vm_props'. */
static bool read_config(struct vm_config *config, json_t *rest, GError **error)
{
	if (!read_machine(config, json_object_get(rest, "machine"), error))
		return false;
	json_object_del(rest, "machine");
	for (int i = 0; i < VM_LIST_COUNT; i++) {
		if (!read_list(config, i, json_object_get(rest, vm_lists[i].name), error))
			return false;
		json_object_del(rest, vm_lists[i].name);
	}
	props_clear(vm_props, config);
	if (!props_from_json(vm_props, rest, config, "configuration", error))
		return false;
	if (vm_config_check(config, error))
		return true;
	g_prefix_error(error, "configuration: ");
	return false;
}

struct vm_config *vm_config_from_json(const json_t *json, GError **error)
{
	autoptr(vm_config) config = NULL;
	json_t *rest;
	bool ok;

	if (!json_is_object(json)) {
		error_set_generic(error, "configuration: not a JSON object");
		return NULL;
	}
	config = vm_config_new();
	rest = json_copy((json_t *)json);
	ok = read_config(config, rest, error);
	json_decref(rest);
	return ok ? g_steal_pointer(&config) : NULL;
}
