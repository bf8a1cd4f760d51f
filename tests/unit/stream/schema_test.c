// Every description obeys the rules, and docs/schema/ says what it is.
// SPDX-License-Identifier: Apache-2.0
#include "all_descs.h"

#include <string.h>

#include "base/error.h"

static void test_lint(void)
{
	g_autoptr(GPtrArray) descs = all_descs_nested();

	for (guint i = 0; i < descs->len; i++) {
		g_autoptr(GError) error = NULL;

		state_desc_lint(descs->pdata[i], &error);
		g_assert_no_error(error);
	}
}

static void test_names_are_unique(void)
{
	g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GPtrArray) descs = all_descs_nested();

	for (guint i = 0; i < descs->len; i++) {
		const struct state_desc *desc = descs->pdata[i];

		if (!g_hash_table_add(names, (gpointer)desc->name))
			g_error("two descriptions are named '%s'", desc->name);
	}
}

/* ---- the list is whole ---- */

static unsigned int count_matches(const GRegex *regex, const char *path)
{
	g_autoptr(GMatchInfo) match = NULL;
	g_autoptr(GError) error = NULL;
	g_autofree char *text = NULL;
	unsigned int n = 0;

	g_file_get_contents(path, &text, NULL, &error);
	g_assert_no_error(error);
	for (g_regex_match(regex, text, 0, &match); g_match_info_matches(match); n++)
		g_match_info_next(match, NULL);
	return n;
}

static unsigned int count_in_tree(const GRegex *regex, const char *path)
{
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	unsigned int n = 0;
	const char *name;

	if (!dir)
		return g_str_has_suffix(path, ".c") ? count_matches(regex, path) : 0;
	while ((name = g_dir_read_name(dir))) {
		g_autofree char *below = g_build_filename(path, name, NULL);

		n += count_in_tree(regex, below);
	}
	return n;
}

/* A description that the list does not reach would be one without schema and golden file. */
static void test_list_is_whole(void)
{
	g_autoptr(GRegex) regex = g_regex_new("^(static )?const struct state_desc \\w+ = \\{",
					      G_REGEX_MULTILINE, 0, NULL);
	g_autoptr(GPtrArray) descs = all_descs_nested();
	const struct device_ops *const *ops;
	g_autofree char *src = source_path("src");

	g_assert_cmpuint(count_in_tree(regex, src), ==, descs->len);
	for (ops = device_ops_list(); *ops; ops++)
		if ((*ops)->state && !g_ptr_array_find(descs, (*ops)->state, NULL))
			g_error("the state of %s is not in all_descs.h", (*ops)->driver);
}

/* ---- schemas ---- */

/* The table of @name within a schema, NULL if it is not there; *@version from its first line. */
static const char *find_table(char **tables, const char *name, unsigned int *version)
{
	g_autofree char *start = g_strdup_printf("%s version ", name);

	for (; *tables; tables++) {
		if (!g_str_has_prefix(*tables, start))
			continue;
		*version = (unsigned int)strtoul(*tables + strlen(start), NULL, 10);
		return *tables;
	}
	return NULL;
}

static char **split_tables(const char *schema)
{
	g_autofree char *text = g_strchomp(g_strdup(schema));

	return g_strsplit(text, "\n\n", -1);
}

/* What may become of a schema: no table differs from the committed one under the same version. */
static bool schema_may_follow(const char *committed, const char *now, GError **error)
{
	g_auto(GStrv) old_tables = split_tables(committed), new_tables = split_tables(now);

	for (char **table = new_tables; *table; table++) {
		g_autofree char *name = g_strndup(*table, strcspn(*table, " "));
		unsigned int old_version = 0, new_version = 0;
		const char *old = find_table(old_tables, name, &old_version);

		find_table(new_tables, name, &new_version);
		if (old && strcmp(old, *table) != 0 && new_version <= old_version)
			return error_set_generic(
				error, "'%s' changed and is still version %u: raise it, see %s",
				name, new_version, "docs/format-state.md");
	}
	return true;
}

static void test_version_rule(void)
{
	static const char was[] = "a version 1, readable\n    1  x  u8\n\nb version 3\n    1  y\n";
	static const struct {
		const char *now;
		bool allowed;
	} cases[] = {
		{was, true},
		{"a version 1, readable\n    1  x  u16\n\nb version 3\n    1  y\n", false},
		{"a version 2, readable\n    1  x  u16\n\nb version 3\n    1  y\n", true},
		{"a version 1, readable\n    1  x  u8\n\nb version 3\n    1  y\n    2  z\n", false},
		{"a version 1, readable\n    1  x  u8\n\nb version 4\n    1  y\n    2  z\n", true},
		{"a version 1, readable\n    1  x  u8\n\nb version 2\n    1  y\n", false},
		{"a version 1, readable\n    1  x  u8\n\nc version 1\n    1  y\n", true},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;

		g_assert_cmpint(schema_may_follow(was, cases[i].now, &error), ==, cases[i].allowed);
		g_assert_cmpint(!error, ==, cases[i].allowed);
	}
}

static char *schema_path(const struct state_desc *desc)
{
	g_autofree char *dir = source_path("docs/schema");
	g_autofree char *file = g_strdup_printf("%s.txt", desc->name);

	return g_build_filename(dir, file, NULL);
}

/* MOLT_WRITE_SCHEMA=1 writes what is new, as far as the rule lets it. */
static void test_schema(gconstpointer data)
{
	const struct state_desc *desc = data;
	g_autofree char *path = schema_path(desc);
	g_autoptr(GString) now = g_string_new(NULL);
	g_autofree char *committed = NULL;
	g_autoptr(GError) error = NULL;

	state_schema_write(desc, now);
	if (g_file_get_contents(path, &committed, NULL, NULL)) {
		schema_may_follow(committed, now->str, &error);
		g_assert_no_error(error);
	}
	if (g_getenv("MOLT_WRITE_SCHEMA"))
		g_assert_true(g_file_set_contents(path, now->str, -1, NULL));
	else
		g_assert_cmpstr(now->str, ==, committed);
}

/* A file that no section has is of one that was renamed or went: that breaks every reader. */
static void test_no_other_schemas(void)
{
	g_autoptr(GPtrArray) descs = all_descs();
	g_autofree char *path = source_path("docs/schema");
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	guint n = 0;

	g_assert_nonnull(dir);
	while (g_dir_read_name(dir))
		n++;
	g_assert_cmpuint(n, ==, descs->len);
}

int main(int argc, char **argv)
{
	g_autoptr(GPtrArray) descs = all_descs();

	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/stream/descs/lint", test_lint);
	g_test_add_func("/stream/descs/names", test_names_are_unique);
	g_test_add_func("/stream/descs/whole", test_list_is_whole);
	g_test_add_func("/stream/schema-rule", test_version_rule);
	for (guint i = 0; i < descs->len; i++) {
		const struct state_desc *desc = descs->pdata[i];
		g_autofree char *name = g_strdup_printf("/stream/schema/%s", desc->name);

		g_test_add_data_func(name, desc, test_schema);
	}
	g_test_add_func("/stream/schemas/no-other", test_no_other_schemas);
	return g_test_run();
}
