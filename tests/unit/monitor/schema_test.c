// Types of QMP: the check, and the introspection that is made of the same description.
// SPDX-License-Identifier: Apache-2.0
#include <glib.h>

#include "monitor/types.h"

static void expect(const struct schema *type, const char *text, const char *message)
{
	json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
	g_autoptr(GError) error = NULL;
	bool good = schema_check(type, value, "", &error);

	g_test_message("%s", text);
	g_assert_cmpint(good, ==, message == NULL);
	g_assert_cmpstr(error ? error->message : NULL, ==, message);
	json_decref(value);
}

#define SOCKET(rest_) \
	"{\"channels\":[{\"channel-type\":\"cpr\",\"addr\":{\"transport\":\"socket\"" rest_ "}}]}"

static void test_check(void)
{
	const struct schema *type = &type_migrate;

	expect(type, "{}", NULL);
	expect(type, "{\"uri\":\"x\",\"resume\":true}", NULL);
	expect(type, "[]", "Invalid parameter type for 'arguments', expected: object");
	expect(type, "{\"uri\":[]}", "Invalid parameter type for 'uri', expected: string");
	expect(type, "{\"resume\":1}", "Invalid parameter type for 'resume', expected: boolean");
	expect(type, "{\"channels\":1}", "Invalid parameter type for 'channels', expected: array");
	expect(type, "{\"channels\":[{}]}", "Parameter 'channels[0].channel-type' is missing");
	expect(type, SOCKET(""), "Parameter 'channels[0].addr.type' is missing");
	expect(type, SOCKET(",\"type\":\"vsock\""),
	       "Parameter 'channels[0].addr.type' does not accept value 'vsock'");
	expect(type, SOCKET(",\"type\":\"unix\""), "Parameter 'channels[0].addr.path' is missing");
	expect(type, SOCKET(",\"type\":\"unix\",\"path\":\"p\""), NULL);
	expect(type, SOCKET(",\"type\":\"unix\",\"path\":\"p\",\"host\":\"h\""),
	       "Parameter 'channels[0].addr.host' is unexpected");
	expect(type, SOCKET(",\"type\":\"inet\",\"host\":\"h\",\"port\":44444"),
	       "Invalid parameter type for 'channels[0].addr.port', expected: string");
	expect(&type_migrate_set_parameters, "{\"tls-creds\":null,\"tls-authz\":\"x\"}", NULL);
	expect(&type_migrate_set_parameters, "{\"tls-creds\":1}",
	       "Invalid parameter type for 'tls-creds', expected: string");
	expect(&type_migrate_set_parameters, "{\"cpr-exec-command\":[\"a\",1]}",
	       "Invalid parameter type for 'cpr-exec-command[1]', expected: string");
	expect(&schema_uint8, "255", NULL);
	expect(&schema_uint8, "-1", "Parameter '' expects uint8");
	expect(&schema_uint8, "1.0", "Invalid parameter type for 'arguments', expected: integer");
	expect(&schema_number, "1", NULL);
}

static const json_t *find(const json_t *list, const char *name)
{
	json_t *entry;
	size_t i;

	json_array_foreach(list, i,
			   entry) if (g_str_equal(json_string_value(json_object_get(entry, "name")),
						  name)) return entry;
	g_error("no entry '%s'", name);
	return NULL;
}

static const json_t *member(const json_t *list, const json_t *object, const char *name)
{
	const json_t *m = find(json_object_get(object, "members"), name);

	return find(list, json_string_value(json_object_get(m, "type")));
}

static void check_entry(const json_t *list, const json_t *entry)
{
	static const char *const references[] = {"arg-type", "ret-type", "element-type"};

	for (size_t i = 0; i < G_N_ELEMENTS(references); i++) {
		const json_t *name = json_object_get(entry, references[i]);

		if (name)
			find(list, json_string_value(name));
	}
}

/* As managers probe: from the command by member names to types, whatever these are called. */
static void test_introspection(void)
{
	struct schema_info *info = schema_info_new();
	g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
	const json_t *args, *channel, *address, *parameters, *mode;
	json_t *list, *entry;
	size_t i;

	schema_info_command(info, "migrate", &type_migrate, NULL);
	schema_info_command(info, "migrate-set-parameters", &type_migrate_set_parameters, NULL);
	schema_info_command(info, "query-migrate", NULL, &type_migration_info);
	schema_info_event(info, "STOP", NULL);
	list = schema_info_finish(info);
	json_array_foreach(list, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "name"));

		g_assert_true(g_hash_table_add(names, (void *)name));
		check_entry(list, entry);
	}
	args = find(list, json_string_value(json_object_get(find(list, "migrate"), "arg-type")));
	channel = member(list, args, "channels");
	g_assert_cmpstr(json_string_value(json_object_get(channel, "meta-type")), ==, "array");
	channel = find(list, json_string_value(json_object_get(channel, "element-type")));
	address = member(list, channel, "addr");
	g_assert_cmpstr(json_string_value(json_object_get(address, "tag")), ==, "transport");
	g_assert_cmpuint(json_array_size(json_object_get(address, "variants")), ==, 3);
	g_assert_true(json_is_null(
		json_object_get(find(json_object_get(args, "members"), "uri"), "default")));
	parameters = find(list, json_string_value(json_object_get(
					find(list, "migrate-set-parameters"), "arg-type")));
	mode = member(list, parameters, "mode");
	g_assert_cmpstr(json_string_value(json_object_get(mode, "meta-type")), ==, "enum");
	find(json_object_get(mode, "members"), "cpr-exec");
	g_assert_cmpuint(json_array_size(json_object_get(mode, "values")), ==, 4);
	g_assert_cmpstr(json_string_value(json_object_get(member(list, parameters, "tls-creds"),
							  "meta-type")),
			==, "alternate");
	g_assert_cmpstr(json_string_value(json_object_get(find(list, "STOP"), "meta-type")), ==,
			"event");
	json_decref(list);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/schema/check", test_check);
	g_test_add_func("/schema/introspection", test_introspection);
	return g_test_run();
}
