// Types of QMP arguments and results: the query-qmp-schema list.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/schema.h"

/**
 * struct schema_info - The list being made
 * @names:	Type (pointer) to the name it got; builtins have fixed names, arrays that of their
 *		elements in brackets, the others numbers
 * @arrays:	Names of the arrays that are listed: two types in C may be one by name
 */
struct schema_info {
	json_t *list;
	GHashTable *names;
	GHashTable *arrays;
	unsigned int next;
};

struct schema_info *schema_info_new(void)
{
	struct schema_info *info = g_new0(struct schema_info, 1);

	info->list = json_array();
	info->names = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	info->arrays = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	return info;
}

json_t *schema_info_finish(struct schema_info *info)
{
	json_t *list = info->list;

	g_hash_table_unref(info->names);
	g_hash_table_unref(info->arrays);
	g_free(info);
	return list;
}

static const char *schema_info_type(struct schema_info *info, const struct schema *type);

static void schema_info_builtin(struct schema_info *info, const char *name, const char *json_type)
{
	json_t *entry = json_pack("{s:s, s:s, s:s}", "name", name, "meta-type", "builtin",
				  "json-type", json_type);
	json_t *old;
	size_t i;

	json_array_foreach(info->list, i, old)
	{
		if (json_equal(old, entry)) {
			json_decref(entry);
			return;
		}
	}
	json_array_append_new(info->list, entry);
}

static json_t *schema_info_members(struct schema_info *info, const struct schema_member *members)
{
	json_t *list = json_array();

	for (const struct schema_member *m = members; m && m->name; m++) {
		json_t *entry = json_pack("{s:s, s:s}", "name", m->name, "type",
					  schema_info_type(info, m->type));

		if (m->optional)
			json_object_set_new(entry, "default", json_null());
		json_array_append_new(list, entry);
	}
	return list;
}

static void schema_info_object(struct schema_info *info, const struct schema *type, json_t *entry)
{
	json_object_set_new(entry, "meta-type", json_string("object"));
	json_object_set_new(entry, "members", schema_info_members(info, type->members));
	if (type->tag) {
		json_t *variants = json_array();

		for (const struct schema_variant *v = type->variants; v->value; v++) {
			const struct schema *variant = v->type ? v->type : &schema_empty;

			json_array_append_new(variants,
					      json_pack("{s:s, s:s}", "case", v->value, "type",
							schema_info_type(info, variant)));
		}
		json_object_set_new(entry, "tag", json_string(type->tag));
		json_object_set_new(entry, "variants", variants);
	}
}

static void schema_info_enum(const struct schema *type, json_t *entry)
{
	json_t *members = json_array();
	json_t *values = json_array();

	for (const char *const *value = type->values; *value; value++) {
		json_array_append_new(members, json_pack("{s:s}", "name", *value));
		json_array_append_new(values, json_string(*value));
	}
	json_object_set_new(entry, "meta-type", json_string("enum"));
	json_object_set_new(entry, "members", members);
	json_object_set_new(entry, "values", values);
}

static void schema_info_alternate(struct schema_info *info, const struct schema *type,
				  json_t *entry)
{
	json_t *members = json_array();

	for (const struct schema *const *choice = type->choices; *choice; choice++)
		json_array_append_new(members,
				      json_pack("{s:s}", "type", schema_info_type(info, *choice)));
	json_object_set_new(entry, "meta-type", json_string("alternate"));
	json_object_set_new(entry, "members", members);
}

static const char *schema_info_array(struct schema_info *info, const struct schema *type)
{
	const char *element = schema_info_type(info, type->element);
	char *name = g_strdup_printf("[%s]", element);

	g_hash_table_insert(info->names, (void *)type, name);
	if (g_hash_table_add(info->arrays, g_strdup(name)))
		json_array_append_new(info->list,
				      json_pack("{s:s, s:s, s:s}", "name", name, "meta-type",
						"array", "element-type", element));
	return name;
}

/* A type of our own gets its number before what it refers to, so that recursion ends. */
static const char *schema_info_composite(struct schema_info *info, const struct schema *type)
{
	json_t *entry = json_object();
	char *name = g_strdup_printf("%u", info->next++);

	g_hash_table_insert(info->names, (void *)type, name);
	json_object_set_new(entry, "name", json_string(name));
	switch (type->kind) {
	case SCHEMA_ENUM:
		schema_info_enum(type, entry);
		break;
	case SCHEMA_ALTERNATE:
		schema_info_alternate(info, type, entry);
		break;
	default:
		schema_info_object(info, type, entry);
		break;
	}
	json_array_append_new(info->list, entry);
	return name;
}

/* The name of @type; its entry is added the first time. */
static const char *schema_info_type(struct schema_info *info, const struct schema *type)
{
	static const struct {
		const char *name, *json_type;
	} builtins[] = {
		[SCHEMA_STRING] = {"str", "string"}, [SCHEMA_BOOL] = {"bool", "boolean"},
		[SCHEMA_INT] = {"int", "int"},	     [SCHEMA_NUMBER] = {"number", "number"},
		[SCHEMA_NULL] = {"null", "null"},    [SCHEMA_ANY] = {"any", "value"},
	};
	const char *name = g_hash_table_lookup(info->names, type);

	if (name)
		return name;
	if (type->kind < G_N_ELEMENTS(builtins) && builtins[type->kind].name) {
		name = builtins[type->kind].name;
		schema_info_builtin(info, name, builtins[type->kind].json_type);
		g_hash_table_insert(info->names, (void *)type, g_strdup(name));
		return name;
	}
	return type->kind == SCHEMA_ARRAY ? schema_info_array(info, type)
					  : schema_info_composite(info, type);
}

void schema_info_command(struct schema_info *info, const char *name, const struct schema *args,
			 const struct schema *returns)
{
	const char *arg_type = schema_info_type(info, args ? args : &schema_empty);
	const char *ret_type = schema_info_type(info, returns ? returns : &schema_empty);

	json_array_append_new(info->list,
			      json_pack("{s:s, s:s, s:s, s:s}", "name", name, "meta-type",
					"command", "arg-type", arg_type, "ret-type", ret_type));
}

void schema_info_event(struct schema_info *info, const char *name, const struct schema *args)
{
	json_array_append_new(info->list,
			      json_pack("{s:s, s:s, s:s}", "name", name, "meta-type", "event",
					"arg-type",
					schema_info_type(info, args ? args : &schema_empty)));
}
