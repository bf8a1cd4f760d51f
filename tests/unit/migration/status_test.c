// The status machine: event order of every way through it, and what query-migrate says on the way.
// SPDX-License-Identifier: Apache-2.0
#include <glib.h>
#include <jansson.h>
#include <string.h>

#include "base/clock.h"
#include "migration/status.h"

static void note(void *opaque, const char *name, json_t *data)
{
	GString *log = opaque;
	const char *status = json_string_value(json_object_get(data, "status"));

	if (strcmp(name, "MIGRATION") == 0)
		g_string_append_printf(log, "%s ", status);
	else
		g_string_append_printf(log, "pass%d ",
				       (int)json_integer_value(json_object_get(data, "pass")));
}

static void walk(struct migration_progress *p, const enum migration_status *path, size_t n)
{
	for (size_t i = 0; i < n; i++)
		migration_progress_set(p, path[i]);
}

#define WALK(p, ...)                                    \
	walk(p, (enum migration_status[]){__VA_ARGS__}, \
	     sizeof((enum migration_status[]){__VA_ARGS__}) / sizeof(enum migration_status))

static void test_paths(void)
{
	g_autoptr(GString) log = g_string_new(NULL);
	struct migration_progress p = {.events = true, .emit = note, .opaque = log};

	migration_progress_begin(&p, false);
	WALK(&p, MIGRATION_ACTIVE);
	migration_progress_pass(&p, 2);
	WALK(&p, MIGRATION_DEVICE, MIGRATION_COMPLETED);
	g_assert_cmpstr(log->str, ==, "setup active pass2 device completed ");

	g_string_truncate(log, 0);
	migration_progress_begin(&p, false);
	WALK(&p, MIGRATION_FAILING, MIGRATION_FAILED);
	migration_progress_begin(&p, false);
	WALK(&p, MIGRATION_ACTIVE, MIGRATION_PRE_SWITCHOVER, MIGRATION_CANCELLING,
	     MIGRATION_CANCELLED);
	g_assert_cmpstr(log->str, ==,
			"setup failing failed setup active pre-switchover cancelling cancelled ");

	g_string_truncate(log, 0);
	p.events = false;
	migration_progress_begin(&p, false);
	g_assert_cmpstr(log->str, ==, "");
	migration_progress_clear(&p);
}

static void test_table(void)
{
	/* Every status is reached from none, final ones lead to setup only, and names are unique. */
	for (int to = MIGRATION_SETUP; to < MIGRATION_STATUS_COUNT; to++) {
		unsigned int ways = 0;

		for (int from = 0; from < MIGRATION_STATUS_COUNT; from++)
			ways += migration_status_allowed(from, to);
		g_assert_cmpuint(ways, >, 0);
		g_assert_cmpint(migration_status_from_name(migration_status_name(to)), ==, to);
	}
	for (int status = 0; status < MIGRATION_STATUS_COUNT; status++) {
		if (migration_status_running(status))
			continue;
		for (int to = 0; to < MIGRATION_STATUS_COUNT; to++)
			g_assert_cmpint(migration_status_allowed(status, to), ==,
					to == MIGRATION_SETUP);
	}
	g_assert_cmpint(migration_status_from_name("bored"), ==, MIGRATION_STATUS_COUNT);
}

static json_t *query(struct migration_progress *p, const char *status)
{
	json_t *out = migration_progress_query(p);

	g_assert_cmpstr(json_string_value(json_object_get(out, "status")), ==, status);
	return out;
}

static void test_query(void)
{
	struct migration_progress p = {0};
	json_t *out = migration_progress_query(&p);

	g_assert_cmpint(json_object_size(out), ==, 0);
	json_decref(out);

	migration_progress_begin(&p, false);
	out = query(&p, "setup");
	g_assert_cmpint(json_object_size(out), ==, 1);
	json_decref(out);

	p.connected_ns = p.begun_ns + 3 * NS_PER_MSEC;
	p.stopped_ns = p.begun_ns + 5 * NS_PER_MSEC;
	p.resumed_ns = p.stopped_ns + 9 * NS_PER_MSEC;
	p.state_bytes = 78743;
	WALK(&p, MIGRATION_ACTIVE, MIGRATION_DEVICE, MIGRATION_COMPLETED);
	out = query(&p, "completed");
	g_assert_cmpint(json_integer_value(json_object_get(out, "setup-time")), ==, 3);
	g_assert_cmpint(json_integer_value(json_object_get(out, "downtime")), ==, 9);
	g_assert_nonnull(json_object_get(out, "total-time"));
	g_assert_cmpint(
		json_integer_value(json_object_get(json_object_get(out, "ram"), "transferred")), ==,
		78743);
	g_assert_cmpint(json_integer_value(json_object_get(json_object_get(out, "ram"), "total")),
			==, 0);
	json_decref(out);

	migration_progress_begin(&p, false);
	migration_progress_fail(&p, "the dog ate it");
	out = query(&p, "failed");
	g_assert_cmpstr(json_string_value(json_object_get(out, "error-desc")), ==,
			"the dog ate it");
	g_assert_null(json_object_get(out, "ram"));
	json_decref(out);
	migration_progress_begin(&p, true);
	g_assert_null(p.error_desc);
	migration_progress_clear(&p);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/status/paths", test_paths);
	g_test_add_func("/status/table", test_table);
	g_test_add_func("/status/query", test_query);
	return g_test_run();
}
