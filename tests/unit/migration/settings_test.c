// Parameters and capabilities: what can be set is kept, what nothing obeys is refused.
// SPDX-License-Identifier: Apache-2.0
#include <glib.h>
#include <jansson.h>
#include <string.h>

#include "migration/capabilities.h"
#include "migration/parameters.h"

static bool set(struct migration_parameters *p, const char *text, GError **error)
{
	json_t *args = json_loads(text, 0, NULL);
	bool ok;

	g_assert_nonnull(args);
	ok = migration_parameters_set(p, args, error);
	json_decref(args);
	return ok;
}

static void test_defaults(void)
{
	static const struct {
		const char *name;
		json_int_t value;
	} rows[] = {
		{"announce-initial", 50},      {"announce-max", 550},
		{"announce-rounds", 5},	       {"announce-step", 100},
		{"downtime-limit", 300},       {"max-bandwidth", 134217728},
		{"multifd-channels", 2},       {"xbzrle-cache-size", 67108864},
		{"x-checkpoint-delay", 20000}, {"vcpu-dirty-limit", 1},
	};
	struct migration_parameters p;
	json_t *values;

	migration_parameters_init(&p);
	values = migration_parameters_query(&p);
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
		g_assert_cmpint(json_integer_value(json_object_get(values, rows[i].name)), ==,
				rows[i].value);
	g_assert_cmpstr(json_string_value(json_object_get(values, "mode")), ==, "normal");
	g_assert_cmpstr(json_string_value(json_object_get(values, "tls-creds")), ==, "");
	g_assert_cmpint(json_array_size(json_object_get(values, "cpr-exec-command")), ==, 0);
	g_assert_null(json_object_get(values, "block-bitmap-mapping"));
	/* The defaults can be set: what a query says is what a set accepts. */
	g_assert_true(migration_parameters_set(&p, values, NULL));
	json_decref(values);
	migration_parameters_clear(&p);
}

static void test_bounds(void)
{
	static const struct {
		const char *args, *words;
	} rows[] = {
		{"{\"mode\":\"warp\"}", "Parameter 'mode' does not accept value 'warp'"},
		{"{\"mode\":7}", "'mode', expected: string"},
		{"{\"colour\":7}", "Parameter 'colour' is unexpected"},
		{"{\"downtime-limit\":-1}", "range of 0 to 2000000"},
		{"{\"downtime-limit\":2000001}", "range of 0 to 2000000"},
		{"{\"downtime-limit\":\"1\"}", "expected: integer"},
		{"{\"multifd-channels\":4}", "multifd is not offered"},
		{"{\"tls-creds\":\"tls0\"}", "TLS on migration channels is not offered"},
		{"{\"direct-io\":true}", "not offered"},
		{"{\"zero-page-detection\":\"none\"}", "not offered"},
		{"{\"block-bitmap-mapping\":[{}]}", "not offered"},
		{"{\"cpr-exec-command\":[1]}", "array of strings"},
		{"{\"cpr-exec-command\":7}", "expected: array"},
		{"{\"cpr-exec-command\":\"a 'b\"}", "cpr-exec-command"},
	};
	struct migration_parameters p;

	migration_parameters_init(&p);
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autoptr(GError) error = NULL;

		g_assert_false(set(&p, rows[i].args, &error));
		if (!strstr(error->message, rows[i].words))
			g_error("%s: '%s'", rows[i].args, error->message);
	}
	g_assert_true(set(&p, "{\"tls-creds\":null,\"max-bandwidth\":0}", NULL));
	migration_parameters_clear(&p);
}

static void test_all_or_nothing(void)
{
	struct migration_parameters p;

	migration_parameters_init(&p);
	g_assert_false(set(&p, "{\"mode\":\"cpr-exec\",\"downtime-limit\":-5}", NULL));
	g_assert_cmpint(migration_parameters_mode(&p), ==, MIGRATION_MODE_NORMAL);
	g_assert_cmpint(migration_parameters_limit_ns(&p), ==, 0);
	g_assert_true(set(&p, "{\"mode\":\"cpr-exec\",\"downtime-limit\":5}", NULL));
	g_assert_cmpint(migration_parameters_mode(&p), ==, MIGRATION_MODE_CPR_EXEC);
	g_assert_cmpint(migration_parameters_limit_ns(&p), ==, 5000000);
	migration_parameters_clear(&p);
}

static void test_command(void)
{
	static const char *const rows[] = {
		"{\"cpr-exec-command\":[\"molt\",\"-incoming\",\"file:a b\"]}",
		"{\"cpr-exec-args\":[\"molt\",\"-incoming\",\"file:a b\"]}",
		"{\"cpr-exec-command\":\"molt -incoming 'file:a b'\"}",
		"{\"cpr-exec-args\":\"molt -incoming file:a\\\\ b\"}",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct migration_parameters p;
		g_auto(GStrv) argv = NULL;

		migration_parameters_init(&p);
		g_assert_null(migration_parameters_command(&p));
		g_assert_true(set(&p, rows[i], NULL));
		argv = migration_parameters_command(&p);
		g_assert_cmpint(g_strv_length(argv), ==, 3);
		g_assert_cmpstr(argv[2], ==, "file:a b");
		g_assert_true(set(&p, "{\"cpr-exec-command\":\"\"}", NULL));
		g_assert_null(migration_parameters_command(&p));
		migration_parameters_clear(&p);
	}
}

static bool switch_caps(struct migration_capabilities *caps, const char *text, GError **error)
{
	json_t *list = json_loads(text, 0, NULL);
	bool ok;

	g_assert_nonnull(list);
	ok = migration_capabilities_set(caps, list, error);
	json_decref(list);
	return ok;
}

static void test_capabilities(void)
{
	struct migration_capabilities caps = {0};
	g_autoptr(GError) error = NULL;
	json_t *list = migration_capabilities_query(&caps);
	json_t *entry;
	size_t i;

	g_assert_cmpint(json_array_size(list), ==, 22);
	json_array_foreach(list, i, entry)
		g_assert_true(json_is_false(json_object_get(entry, "state")));
	g_assert_true(migration_capabilities_set(&caps, list, NULL));
	json_decref(list);

	g_assert_true(switch_caps(&caps,
				  "[{\"capability\":\"events\",\"state\":true},"
				  "{\"capability\":\"return-path\",\"state\":true},"
				  "{\"capability\":\"x-ignore-shared\",\"state\":true}]",
				  NULL));
	g_assert_true(caps.on[MIGRATION_CAP_EVENTS]);
	g_assert_false(switch_caps(&caps,
				   "[{\"capability\":\"events\",\"state\":false},"
				   "{\"capability\":\"postcopy-ram\",\"state\":true}]",
				   &error));
	g_assert_nonnull(strstr(error->message, "Cannot use postcopy with CPR"));
	g_assert_true(caps.on[MIGRATION_CAP_EVENTS]);
	g_clear_error(&error);
	g_assert_false(switch_caps(&caps, "[{\"capability\":\"warp\",\"state\":true}]", &error));
	g_clear_error(&error);
	g_assert_false(switch_caps(&caps, "[{\"capability\":\"events\"}]", &error));
	g_clear_error(&error);
	g_assert_false(switch_caps(&caps, "[{\"state\":true}]", &error));
}

/* Of a predecessor's settings, one that is not known here takes no other one with it. */
static void test_inherited(void)
{
	struct migration_parameters p;
	struct migration_capabilities caps = {0};
	json_t *settings = json_pack("{s:s, s:i, s:i, s:[s]}", "mode", "cpr-exec", "warp-factor", 9,
				     "downtime-limit", 300, "cpr-exec-command", "molt");
	json_t *on = json_pack("[{s:s, s:b}, {s:s, s:b}, {s:s, s:b}]", "capability", "events",
			       "state", true, "capability", "warp", "state", true, "capability",
			       "cpr-two-step", "state", true);
	json_t *changed;

	migration_parameters_init(&p);
	changed = migration_parameters_changed(&p);
	g_assert_cmpint(json_object_size(changed), ==, 0);
	json_decref(changed);
	migration_parameters_inherit(&p, settings);
	g_assert_cmpint(migration_parameters_mode(&p), ==, MIGRATION_MODE_CPR_EXEC);
	/* It was set, to what is its default, and is enforced. */
	g_assert_cmpuint(migration_parameters_limit_ns(&p), ==, 300000000);
	changed = migration_parameters_changed(&p);
	json_object_del(settings, "warp-factor");
	g_assert_true(json_equal(changed, settings));
	json_decref(changed);
	json_decref(settings);
	migration_parameters_clear(&p);

	migration_capabilities_inherit(&caps, on);
	g_assert_true(caps.on[MIGRATION_CAP_EVENTS] && caps.on[MIGRATION_CAP_CPR_TWO_STEP]);
	changed = migration_capabilities_changed(&caps);
	json_array_remove(on, 1);
	g_assert_true(json_equal(changed, on));
	json_decref(changed);
	json_decref(on);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/settings/defaults", test_defaults);
	g_test_add_func("/settings/bounds", test_bounds);
	g_test_add_func("/settings/all-or-nothing", test_all_or_nothing);
	g_test_add_func("/settings/command", test_command);
	g_test_add_func("/settings/inherited", test_inherited);
	g_test_add_func("/settings/capabilities", test_capabilities);
	return g_test_run();
}
