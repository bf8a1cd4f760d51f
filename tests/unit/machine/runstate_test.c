// Run states: names, and the table of changes against what the field's documents say.
// SPDX-License-Identifier: Apache-2.0
#include "machine/runstate.h"

#include <glib.h>

static void test_names(void)
{
	for (int i = 0; i < RUNSTATE_MAX; i++)
		g_assert_cmpint(runstate_from_name(runstate_name(i)), ==, i);
	g_assert_cmpint(runstate_from_name("singlestep"), ==, RUNSTATE_MAX);
	g_assert_cmpint(runstate_from_name(""), ==, RUNSTATE_MAX);
}

/* Every pair: only what is listed here is allowed. */
static void test_every_pair(void)
{
	static const char *const allowed[RUNSTATE_MAX] = {
		[RUNSTATE_PRELAUNCH] = "running paused inmigrate finish-migrate "
				       "internal-error",
		[RUNSTATE_INMIGRATE] = "running paused prelaunch suspended postmigrate shutdown "
				       "internal-error io-error finish-migrate",
		[RUNSTATE_RUNNING] = "paused suspended finish-migrate shutdown internal-error "
				     "io-error",
		[RUNSTATE_PAUSED] = "running finish-migrate prelaunch shutdown "
				    "internal-error",
		[RUNSTATE_SUSPENDED] = "running paused finish-migrate shutdown "
				       "internal-error",
		[RUNSTATE_FINISH_MIGRATE] = "running paused prelaunch suspended postmigrate "
					    "shutdown internal-error io-error",
		[RUNSTATE_POSTMIGRATE] = "running paused finish-migrate",
		[RUNSTATE_SHUTDOWN] = "paused prelaunch finish-migrate internal-error",
		[RUNSTATE_INTERNAL_ERROR] = "paused prelaunch finish-migrate",
		[RUNSTATE_IO_ERROR] = "running paused prelaunch finish-migrate internal-error",
	};

	for (int from = 0; from < RUNSTATE_MAX; from++) {
		g_auto(GStrv) to_names = g_strsplit(allowed[from], " ", -1);

		for (int to = 0; to < RUNSTATE_MAX; to++) {
			bool expected = from == to || g_strv_contains((const char *const *)to_names,
								      runstate_name(to));

			if (runstate_allowed(from, to) != expected)
				g_error("%s -> %s", runstate_name(from), runstate_name(to));
		}
	}
}

/* What is not in the table changes nothing, and says so. */
static void test_change(void)
{
	enum runstate state = RUNSTATE_SHUTDOWN;
	g_autoptr(GError) error = NULL;

	g_assert_false(runstate_change(&state, RUNSTATE_RUNNING, &error));
	g_assert_cmpstr(error->message, ==, "run state cannot change from 'shutdown' to 'running'");
	g_assert_cmpint(state, ==, RUNSTATE_SHUTDOWN);
	g_assert_true(runstate_change(&state, RUNSTATE_PRELAUNCH, NULL));
	g_assert_cmpint(state, ==, RUNSTATE_PRELAUNCH);
}

/* An update can begin in every state a guest can be in, and go back to it. */
static void test_update_and_back(void)
{
	for (int i = 0; i < RUNSTATE_MAX; i++) {
		if (i == RUNSTATE_INMIGRATE || i == RUNSTATE_POSTMIGRATE)
			continue;
		g_assert_true(runstate_allowed(i, RUNSTATE_FINISH_MIGRATE));
		g_assert_true(runstate_allowed(RUNSTATE_FINISH_MIGRATE, i));
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/runstate/names", test_names);
	g_test_add_func("/runstate/every-pair", test_every_pair);
	g_test_add_func("/runstate/change", test_change);
	g_test_add_func("/runstate/update-and-back", test_update_and_back);
	return g_test_run();
}
