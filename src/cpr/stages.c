// Stage tables: what an update does, in order, with the undo of each step and one commit.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/stages.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/loop.h"
#include "cpr/fault.h"

static const struct stage *current(const struct stage_run *run)
{
	return &run->table->stages[run->at];
}

static void note_phase(struct stage_run *run)
{
	if (run->record)
		update_record_phase(run->record, current(run)->name, run->is_new, run->begun_ns,
				    clock_now_ns());
}

/* Undo rows [0, @n), last first, and end the run. */
static void roll_back(struct stage_run *run, unsigned int n, GError *error)
{
	g_autoptr(GError) owned = error;

	if (run->failed)
		run->failed(run->ctx, owned);
	while (n-- > 0) {
		const struct stage *stage = &run->table->stages[n];

		if (stage->undo && !fault_mutant(run->table->name, stage->name, MUTANT_NO_UNDO))
			stage->undo(run->ctx);
	}
	run->finished(run->ctx, STAGE_OUTCOME_UNDONE, owned);
}

/* The row at run->at failed; @touched: it may have changed something. */
static void stage_failed(struct stage_run *run, bool touched, GError *error)
{
	g_autoptr(GError) owned = NULL;

	loop_unwatch(&run->deadline);
	run->pending = false;
	note_phase(run);
	if (!run->committed || (run->reclaim && run->reclaim(run->ctx))) {
		roll_back(run, run->at + touched, error);
		return;
	}
	owned = error;
	run->finished(run->ctx, STAGE_OUTCOME_COMMITTED, owned);
}

/* The longest stage of the pause, for the error message. */
static const char *longest_stage(const struct stage_run *run)
{
	const struct update_phase *worst = NULL;

	for (guint i = 0; run->record && i < run->record->phases->len; i++) {
		const struct update_phase *p =
			&g_array_index(run->record->phases, struct update_phase, i);

		if (p->begin_ns >= run->paused_ns &&
		    (!worst || p->end_ns - p->begin_ns > worst->end_ns - worst->begin_ns))
			worst = p;
	}
	return worst ? worst->name : "?";
}

/* Whether the guest stands, or will have stood, for longer than agreed. */
static GError *over_limit(const struct stage_run *run)
{
	uint64_t spent_ns = clock_now_ns() - run->paused_ns;

	if (run->committed || !run->limit_ns || !run->paused_ns ||
	    spent_ns + run->ahead_ns <= run->limit_ns)
		return NULL;
	if (run->ahead_ns > spent_ns)
		return g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT,
				   "the pause took %" PRIu64
				   " us, and the new program needs another %" PRIu64
				   " us to start; downtime-limit allows %" PRIu64 " us",
				   spent_ns / 1000, run->ahead_ns / 1000, run->limit_ns / 1000);
	return g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT,
			   "the pause took %" PRIu64 " us, downtime-limit allows %" PRIu64
			   " us; most of it went into '%s'",
			   spent_ns / 1000, run->limit_ns / 1000, longest_stage(run));
}

/*
 * The processor time of the current stage, at least.  The thread's clock is a system call: in the pause it
 * is asked after a wait only, and what passed since it was asked counts as used by the others.
 */
static uint64_t spent_cpu_ns(const struct stage_run *run)
{
	const uint64_t cpu_ns = clock_thread_ns() - run->mark_cpu_ns;
	const uint64_t others_ns = run->begun_ns - run->mark_ns;

	return cpu_ns > others_ns ? cpu_ns - others_ns : 0;
}

/* Whether a stage that says it is done took too much for that to count. */
static GError *over_budget(const struct stage_run *run)
{
	const struct stage *stage = current(run);
	const uint64_t budget_ns = stage->budget_ms * NS_PER_MSEC;
	uint64_t spent_ms;

	/* It cannot have used more than has passed. */
	if (run->waited || run->committed || stage->commit || !stage->budget_ms ||
	    clock_now_ns() - run->begun_ns <= budget_ns)
		return NULL;
	spent_ms = spent_cpu_ns(run) / NS_PER_MSEC;
	if (spent_ms <= stage->budget_ms)
		return NULL;
	return g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT,
			   "%s: took %" PRIu64 " ms of processor time, more than its %u ms",
			   stage->name, spent_ms, stage->budget_ms);
}

/* ---- pending ---- */

static gboolean pending_tick(void *opaque);

/* Not later than the pause is to end. */
static void arm_tick(struct stage_run *run, uint32_t ms)
{
	if (run->limit_ns && run->paused_ns && !run->committed) {
		uint64_t end_ns = run->paused_ns + run->limit_ns, now_ns = clock_now_ns();
		uint64_t left_ms = end_ns > now_ns ? (end_ns - now_ns) / NS_PER_MSEC + 1 : 1;

		ms = MIN(ms, left_ms);
	}
	loop_unwatch(&run->deadline);
	run->deadline = loop_after_ms(ms, pending_tick, run);
}

static gboolean pending_tick(void *opaque)
{
	struct stage_run *run = opaque;
	GError *error = over_limit(run);
	uint32_t next_ms = patience_tick(&run->patience);
	g_autofree char *text = NULL;

	if (!error && next_ms) {
		arm_tick(run, next_ms);
		return G_SOURCE_REMOVE;
	}
	if (!error) {
		text = patience_text(&run->patience);
		error = g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT, "%s: %s", current(run)->name,
				    text);
	}
	stage_failed(run, true, error);
	return G_SOURCE_REMOVE;
}

/* How long a stall that a test asked for lasts. */
#define STALL_MS 1000

static enum stage_result run_current(struct stage_run *run, GError **error)
{
	const struct stage *stage = current(run);

	switch (fault_check(run->table->name, stage->name)) {
	case FAULT_ERROR:
		error_set_generic(error, "fault injected into %s", stage->name);
		return STAGE_FAILED;
	case FAULT_STALL:
		run->stalled = true;
		return STAGE_PENDING;
	case FAULT_NONE:
		break;
	}
	if (fault_mutant(run->table->name, stage->name, MUTANT_SKIP))
		return STAGE_DONE;
	return stage->run(run->ctx, error);
}

static void wait_for_current(struct stage_run *run, bool manager)
{
	const uint32_t budget_ms = run->stalled ? STALL_MS : current(run)->budget_ms;

	run->pending = true;
	run->manager = manager;
	run->waited = true;
	run->patience = (struct patience){.budget_ms = budget_ms,
					  .progress = run->stalled ? NULL : run->progress,
					  .opaque = run->ctx};
	if (budget_ms && !manager)
		arm_tick(run, patience_begin(&run->patience));
}

/* The current row is done: note it.  Return: false when the run has ended with a failure. */
static bool finish_current(struct stage_run *run)
{
	GError *late = over_budget(run);

	if (late) {
		stage_failed(run, true, late);
		return false;
	}
	note_phase(run);
	run->committed |= current(run)->commit;
	run->at++;
	return true;
}

static void run_on(struct stage_run *run)
{
	while (run->at < run->table->n_stages) {
		GError *error = current(run)->commit ? over_limit(run) : NULL;
		enum stage_result result;

		run->begun_ns = clock_now_ns();
		if ((!run->paused_ns || run->waited) && current(run)->budget_ms) {
			run->mark_ns = run->begun_ns;
			run->mark_cpu_ns = clock_thread_ns();
		}
		run->waited = false;
		run->stalled = false;
		result = error ? STAGE_FAILED : run_current(run, &error);
		switch (result) {
		case STAGE_PENDING:
		case STAGE_MANAGER:
			wait_for_current(run, result == STAGE_MANAGER);
			return;
		case STAGE_FAILED:
			stage_failed(run, false, error);
			return;
		case STAGE_DONE:
			if (!finish_current(run))
				return;
		}
	}
	run->finished(run->ctx, STAGE_OUTCOME_DONE, NULL);
}

void stage_run_start(struct stage_run *run)
{
	run->at = 0;
	run->pending = false;
	run->stalled = false;
	run->committed = false;
	run->deadline = NULL;
	run_on(run);
}

void stage_run_continue(struct stage_run *run, GError *error)
{
	if (!run->pending) {
		g_clear_error(&error);
		return;
	}
	if (error) {
		stage_failed(run, true, error);
		return;
	}
	run->pending = false;
	loop_unwatch(&run->deadline);
	if (finish_current(run))
		run_on(run);
}

const char *stage_run_pending(const struct stage_run *run)
{
	return run->pending ? current(run)->name : NULL;
}

bool stage_run_awaits_manager(const struct stage_run *run)
{
	return run->pending && run->manager;
}

bool stage_run_committed(const struct stage_run *run)
{
	return run->committed;
}

void stage_run_clear(struct stage_run *run)
{
	loop_unwatch(&run->deadline);
	run->pending = false;
}
