// The law of stages: what fails is undone, last first, and nothing else is; and the real tables.
// SPDX-License-Identifier: Apache-2.0
#include <glib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/loop.h"
#include "cpr/internal.h"
#include "cpr/stages.h"

/* A table of five rows, a to e, with the commit at d; what each does is told by letters. */
enum act { DO, FAIL, WAIT, ASK, SLOW, LATE };

struct trial {
	struct stage_run run;
	enum act acts[5];
	unsigned int next;
	bool can_reclaim;
	GString *log;
	int finished;
	enum stage_outcome outcome;
	char *error;
};

static enum stage_result run_row(void *ctx, GError **error)
{
	struct trial *t = ctx;
	unsigned int row = t->run.at;

	g_string_append_c(t->log, 'a' + row);
	switch (t->acts[row]) {
	case FAIL:
		error_set_generic(error, "row %c broke", 'a' + row);
		return STAGE_FAILED;
	case WAIT:
		return STAGE_PENDING;
	case ASK:
		return STAGE_MANAGER;
	case SLOW:
		g_usleep(30000);
		return STAGE_DONE;
	case LATE:
		for (uint64_t begun_ns = clock_thread_ns();
		     clock_thread_ns() - begun_ns < 30 * NS_PER_MSEC;)
			;
		return STAGE_DONE;
	case DO:
		break;
	}
	return STAGE_DONE;
}

#define UNDO(row)                                                      \
	static void undo_##row(void *ctx)                              \
	{                                                              \
		g_string_append(((struct trial *)ctx)->log, "-" #row); \
	}
UNDO(a)
UNDO(b)
UNDO(c)
UNDO(d)
UNDO(e)

static const struct stage rows[] = {
	{"a", 10, false, run_row, undo_a}, {"b", 10, false, run_row, undo_b},
	{"c", 10, false, run_row, undo_c}, {"d", 10, true, run_row, undo_d},
	{"e", 10, false, run_row, undo_e},
};

static const struct stage_table table = STAGE_TABLE("trial", rows);

static bool reclaim(void *ctx)
{
	struct trial *t = ctx;

	g_string_append_c(t->log, '?');
	return t->can_reclaim;
}

static void failed(void *ctx, const GError *error)
{
	g_string_append_c(((struct trial *)ctx)->log, '!');
}

static void finished(void *ctx, enum stage_outcome outcome, const GError *error)
{
	struct trial *t = ctx;

	t->finished++;
	t->outcome = outcome;
	t->error = error ? g_strdup(error->message) : NULL;
}

static void trial_start(struct trial *t)
{
	t->log = g_string_new(NULL);
	t->run = (struct stage_run){.table = &table,
				    .ctx = t,
				    .reclaim = reclaim,
				    .failed = failed,
				    .finished = finished,
				    .record = update_record_new("test")};
	stage_run_start(&t->run);
}

static void trial_end(struct trial *t)
{
	g_assert_cmpint(t->finished, ==, 1);
	g_assert_null(stage_run_pending(&t->run));
	g_string_free(t->log, TRUE);
	g_free(t->error);
	update_record_free(t->run.record);
}

static void wait_finished(struct trial *t)
{
	while (!t->finished)
		g_main_context_iteration(NULL, TRUE);
}

static void test_happy(void)
{
	struct trial t = {0};

	trial_start(&t);
	g_assert_cmpint(t.outcome, ==, STAGE_OUTCOME_DONE);
	g_assert_cmpstr(t.log->str, ==, "abcde");
	g_assert_cmpuint(t.run.record->phases->len, ==, 5);
	trial_end(&t);
}

/* Each row fails: exactly the rows before it are undone, last first. */
static void test_fail_each(void)
{
	static const char *const logs[] = {"a!", "ab!-a", "abc!-b-a", "abcd!-c-b-a", "abcde?"};

	for (unsigned int row = 0; row < 5; row++) {
		struct trial t = {0};

		t.acts[row] = FAIL;
		trial_start(&t);
		g_assert_cmpstr(t.log->str, ==, logs[row]);
		g_assert_cmpint(t.outcome, ==,
				row < 4 ? STAGE_OUTCOME_UNDONE : STAGE_OUTCOME_COMMITTED);
		g_assert_nonnull(strstr(t.error, "broke"));
		trial_end(&t);
	}
}

static void test_fail_past_commit(void)
{
	struct trial t = {.can_reclaim = true};

	t.acts[4] = FAIL;
	trial_start(&t);
	g_assert_cmpstr(t.log->str, ==, "abcde?!-d-c-b-a");
	g_assert_cmpint(t.outcome, ==, STAGE_OUTCOME_UNDONE);
	trial_end(&t);
}

/* Each row waits and is failed from outside: it is undone too. */
static void test_fail_pending(void)
{
	static const char *const logs[] = {"a!-a", "ab!-b-a", "abc!-c-b-a", "abcd!-d-c-b-a",
					   "abcde?"};

	for (unsigned int row = 0; row < 5; row++) {
		struct trial t = {0};

		t.acts[row] = WAIT;
		trial_start(&t);
		g_assert_cmpstr(stage_run_pending(&t.run), ==, rows[row].name);
		stage_run_continue(&t.run, g_error_new(MOLT_ERROR, 0, "cancelled"));
		g_assert_cmpstr(t.log->str, ==, logs[row]);
		g_assert_cmpstr(t.error, ==, "cancelled");
		/* What comes late changes nothing. */
		stage_run_continue(&t.run, NULL);
		stage_run_continue(&t.run, g_error_new(MOLT_ERROR, 0, "again"));
		g_assert_cmpstr(t.log->str, ==, logs[row]);
		trial_end(&t);
	}
}

static void test_pending_goes_on(void)
{
	struct trial t = {.acts = {WAIT, DO, WAIT, DO, WAIT}};

	trial_start(&t);
	g_assert_cmpstr(t.log->str, ==, "a");
	stage_run_continue(&t.run, NULL);
	g_assert_cmpstr(t.log->str, ==, "abc");
	g_assert_false(stage_run_committed(&t.run));
	stage_run_continue(&t.run, NULL);
	g_assert_cmpstr(t.log->str, ==, "abcde");
	g_assert_true(stage_run_committed(&t.run));
	stage_run_continue(&t.run, NULL);
	g_assert_cmpint(t.outcome, ==, STAGE_OUTCOME_DONE);
	trial_end(&t);
}

static void test_budgets(void)
{
	struct trial waits = {.acts = {DO, WAIT}};
	struct trial late = {.acts = {DO, DO, LATE}};
	struct trial late_commit = {.acts = {DO, DO, DO, LATE, LATE}};
	struct trial slow = {.acts = {DO, DO, SLOW}};

	trial_start(&waits);
	wait_finished(&waits);
	g_assert_cmpstr(waits.error, ==, "b: no answer within 10 ms");
	g_assert_cmpstr(waits.log->str, ==, "ab!-b-a");
	trial_end(&waits);

	trial_start(&late);
	g_assert_nonnull(strstr(late.error, "more than its 10 ms"));
	g_assert_cmpstr(late.log->str, ==, "abc!-c-b-a");
	trial_end(&late);

	/* What cannot be undone is not failed for being late; and a host that is slow is no reason. */
	trial_start(&late_commit);
	g_assert_cmpint(late_commit.outcome, ==, STAGE_OUTCOME_DONE);
	trial_end(&late_commit);
	trial_start(&slow);
	g_assert_cmpint(slow.outcome, ==, STAGE_OUTCOME_DONE);
	trial_end(&slow);
}

/* A manager is waited for as long as it takes, also in a row that has a budget. */
static void test_manager(void)
{
	struct trial t = {.acts = {WAIT, ASK, WAIT}};

	trial_start(&t);
	g_assert_false(stage_run_awaits_manager(&t.run));
	stage_run_continue(&t.run, NULL);
	g_assert_true(stage_run_awaits_manager(&t.run));
	g_assert_cmpstr(stage_run_pending(&t.run), ==, "b");
	g_assert_null(t.run.deadline);
	stage_run_continue(&t.run, NULL);
	g_assert_false(stage_run_awaits_manager(&t.run));
	g_assert_nonnull(t.run.deadline);
	stage_run_continue(&t.run, NULL);
	g_assert_false(stage_run_awaits_manager(&t.run));
	g_assert_cmpint(t.outcome, ==, STAGE_OUTCOME_DONE);
	trial_end(&t);
}

/* The agreed pause ends a wait in it, whatever the budget. */
static void test_pause_limit_pending(void)
{
	static const struct stage waits[] = {{"a", 60000, false, run_row, undo_a},
					     {"b", 0, true, run_row, undo_b}};
	static const struct stage_table long_table = STAGE_TABLE("long", waits);
	struct trial t = {.acts = {WAIT}, .log = g_string_new(NULL)};

	t.run = (struct stage_run){.table = &long_table,
				   .ctx = &t,
				   .finished = finished,
				   .record = update_record_new("test"),
				   .paused_ns = clock_now_ns(),
				   .limit_ns = 20 * NS_PER_MSEC};
	stage_run_start(&t.run);
	wait_finished(&t);
	g_assert_cmpint(t.outcome, ==, STAGE_OUTCOME_UNDONE);
	g_assert_nonnull(strstr(t.error, "downtime-limit allows 20000 us"));
	trial_end(&t);
}

static void test_pause_limit(void)
{
	struct trial t = {.acts = {WAIT}};

	trial_start(&t);
	t.run.paused_ns = clock_now_ns() - 50 * NS_PER_MSEC;
	t.run.limit_ns = 20 * NS_PER_MSEC;
	stage_run_continue(&t.run, NULL);
	g_assert_cmpint(t.outcome, ==, STAGE_OUTCOME_UNDONE);
	g_assert_cmpstr(t.log->str, ==, "abc!-c-b-a");
	g_assert_nonnull(strstr(t.error, "downtime-limit allows 20000 us"));
	trial_end(&t);
}

static void test_fault(void)
{
#ifdef MOLT_FAULT_INJECTION
	struct trial fails = {0}, stalls = {0};

	g_setenv("MOLT_FAULT", "trial:c:error", TRUE);
	trial_start(&fails);
	g_assert_cmpstr(fails.log->str, ==, "ab!-b-a");
	g_assert_null(g_getenv("MOLT_FAULT"));
	trial_end(&fails);

	g_setenv("MOLT_FAULT", "trial:c:stall", TRUE);
	trial_start(&stalls);
	g_assert_cmpstr(stage_run_pending(&stalls.run), ==, "c");
	stage_run_continue(&stalls.run, g_error_new(MOLT_ERROR, 0, "enough"));
	g_assert_cmpstr(stalls.log->str, ==, "ab!-c-b-a");
	trial_end(&stalls);
#else
	g_test_skip("built without fault injection");
#endif
}

static void test_mutant(void)
{
#ifdef MOLT_FAULT_INJECTION
	static const struct {
		const char *mutant, *log;
	} all[] = {
		{"trial:b:skip", "ac!-b-a"},	{"trial:b:no-undo", "abc!-a"},
		{"trial:e:skip", "abc!-b-a"},	{"trial:b:other", "abc!-b-a"},
		{"another:b:skip", "abc!-b-a"}, {"b:skip", "abc!-b-a"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
		g_setenv("MOLT_MUTANT", all[i].mutant, TRUE);
		/* It stays for the next run. */
		for (int round = 0; round < 2; round++) {
			struct trial t = {.acts = {[2] = FAIL}};

			trial_start(&t);
			g_assert_cmpstr(t.log->str, ==, all[i].log);
			trial_end(&t);
		}
	}
	g_unsetenv("MOLT_MUTANT");
#else
	g_test_skip("built without fault injection");
#endif
}

/* ---- the real tables ---- */

static int find(const struct stage_table *t, const char *name)
{
	for (unsigned int i = 0; i < t->n_stages; i++)
		if (strcmp(t->stages[i].name, name) == 0)
			return i;
	return -1;
}

static void check_table(const struct stage_table *t)
{
	unsigned int commits = 0;

	for (unsigned int i = 0; i < t->n_stages; i++) {
		g_assert_nonnull(t->stages[i].run);
		g_assert_cmpint(find(t, t->stages[i].name), ==, i);
		g_assert_cmpuint(strlen(t->stages[i].name), <,
				 sizeof(((struct update_phase *)NULL)->name));
		commits += t->stages[i].commit;
	}
	g_assert_cmpuint(commits, ==, 1);
}

static void test_tables(void)
{
	check_table(&transfer_source_table);
	check_table(&transfer_target_table);
	check_table(&exec_source_table);
	check_table(&exec_target_table);
	check_table(&exec_rehearsal_table);
}

static void check_stations(const struct stage_table *t)
{
	unsigned int last = 0;

	for (unsigned int i = 0; i < t->n_stages; i++)
		if (t->stages[i].station)
			g_assert_cmpuint(t->stages[i].station, ==, ++last);
	g_assert_cmpuint(last + 1, ==, STATION_END);
}

/* The two sides of a dialogue go through the same stations in the same order. */
static void test_tables_agree(void)
{
	check_stations(&transfer_source_table);
	check_stations(&transfer_target_table);
	for (unsigned int i = 0; i < transfer_source_table.n_stages; i++) {
		const struct stage *stage = &transfer_source_table.stages[i];
		int other = find(&transfer_target_table, stage->name);

		g_assert_cmpint(stage->station, ==,
				other < 0 ? 0 : transfer_target_table.stages[other].station);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/stages/happy", test_happy);
	g_test_add_func("/stages/fail-each", test_fail_each);
	g_test_add_func("/stages/fail-past-commit", test_fail_past_commit);
	g_test_add_func("/stages/fail-pending", test_fail_pending);
	g_test_add_func("/stages/pending", test_pending_goes_on);
	g_test_add_func("/stages/manager", test_manager);
	g_test_add_func("/stages/budgets", test_budgets);
	g_test_add_func("/stages/pause-limit", test_pause_limit);
	g_test_add_func("/stages/pause-limit-pending", test_pause_limit_pending);
	g_test_add_func("/stages/fault", test_fault);
	g_test_add_func("/stages/mutant", test_mutant);
	g_test_add_func("/stages/tables", test_tables);
	g_test_add_func("/stages/tables-agree", test_tables_agree);
	return g_test_run();
}
