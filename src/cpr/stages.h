// Stage tables: what an update does, in order, with the undo of each step and one commit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/patience.h"
#include "cpr/frame.h"
#include "cpr/record.h"

/**
 * DOC: Theory of operation
 *
 * A side of an update is a const table of stages.  The runner calls run() of each row in order.  A
 * stage that has to wait (for the peer, for a child) returns STAGE_PENDING, one that waits for a
 * command of its manager's STAGE_MANAGER; the main loop goes on, monitors answer, and a callback or
 * the command ends the stage with stage_run_continue().
 *
 * The law: when a stage fails, every row before it, and the row itself if it was pending, is
 * undone, last first, and nothing else is.  A run() that returns STAGE_FAILED has changed nothing.
 *
 * Budgets mean "no progress", not time (patience.h).  A pending stage fails when the peer has stood for
 * that long, seen by progress(), or after five times as long whatever it does.  A stage that returned
 * STAGE_DONE but used more processor time than its budget fails too, after which it is undone,
 * unless it lies past the commit.  Budget 0 is no limit: the stage limits itself.  In the pause the
 * agreed limit ends a pending stage that has a budget, too.  Nothing ends a wait for a manager, but in
 * the pause it counts toward that limit.
 *
 * One row is marked as the commit.  A failure past it asks reclaim() whether the work can still be
 * undone (the successor died before it ran the guest); if so it is, otherwise the run ends with
 * STAGE_OUTCOME_COMMITTED and the error.
 *
 * Context: main thread.
 */

/** enum stage_result - What run() says */
enum stage_result {
	STAGE_FAILED, /* nothing was changed, @error is set */
	STAGE_DONE,
	STAGE_PENDING, /* stage_run_continue() will be called */
	STAGE_MANAGER, /* The same, by a command, and whenever that comes */
};

/**
 * struct stage - One row
 * @name:	In records, logs and fault tests
 * @budget_ms:	See above
 * @commit:	The point of no return is reached when this row is done
 * @run:	Do it
 * @undo:	Undo it, also after half of it was done; cannot fail.  NULL only if run changes
 *		nothing
 * @station:	The step of the dialogue with the other side that it is
 */
struct stage {
	const char *name;
	uint32_t budget_ms;
	bool commit;
	enum stage_result (*run)(void *ctx, GError **error);
	void (*undo)(void *ctx);
	enum dialogue_station station;
};

/** struct stage_table - One side of one mode; @name is used by fault tests */
struct stage_table {
	const char *name;
	const struct stage *stages;
	unsigned int n_stages;
};

/** STAGE_TABLE() - Initialiser from a const array of rows */
#define STAGE_TABLE(name_, stages_)                                                     \
	{                                                                               \
		.name = (name_), .stages = (stages_), .n_stages = G_N_ELEMENTS(stages_) \
	}

/**
 * enum stage_outcome - How a run ended
 * @STAGE_OUTCOME_DONE:	  Every row is done
 * @STAGE_OUTCOME_UNDONE: Something failed and everything was undone
 * @STAGE_OUTCOME_COMMITTED: Something failed past the commit; nothing was undone
 */
enum stage_outcome { STAGE_OUTCOME_DONE, STAGE_OUTCOME_UNDONE, STAGE_OUTCOME_COMMITTED };

/**
 * struct stage_run - One table being run; owned by the caller, who fills the first part
 * @table:	What to run
 * @ctx:	Passed to every function
 * @record:	Where phases are noted; may be NULL
 * @is_new:	This process is the new one, for the record
 * @reclaim:	See above; NULL: a failure past the commit is never undone
 * @failed:	Optional: called once with the error, before anything is undone
 * @progress:	A number that changes while the peer works, NULL if that cannot be known
 * @finished:	Called once at the end; may free the run
 * @limit_ns:	Longest pause that was agreed to, 0 for none: checked before the commit
 * @paused_ns:	Set by the stage that stops the guest, cleared by its undo
 * @ahead_ns:	What the pause takes past the commit at least, as far as is known
 */
struct stage_run {
	const struct stage_table *table;
	void *ctx;
	struct update_record *record;
	bool is_new;
	bool (*reclaim)(void *ctx);
	void (*failed)(void *ctx, const GError *error);
	uint64_t (*progress)(void *ctx);
	void (*finished)(void *ctx, enum stage_outcome outcome, const GError *error);
	uint64_t limit_ns;
	uint64_t paused_ns;
	uint64_t ahead_ns;

	/* The runner's own. */
	unsigned int at;
	bool pending;
	bool manager;
	bool stalled;
	bool waited;
	struct patience patience;
	bool committed;
	uint64_t begun_ns;
	uint64_t mark_ns, mark_cpu_ns; /* when the thread's clock was asked, and what it said */
	GSource *deadline;
};

/** stage_run_start() - Run from the first row until the first pending one or the end. */
void stage_run_start(struct stage_run *run);

/**
 * stage_run_continue() - The pending stage is done, or failed with @error (taken)
 *
 * Not to be called from inside a run() or undo().  No-op unless a stage is pending.
 */
void stage_run_continue(struct stage_run *run, GError *error);

/** stage_run_pending() - Name of the pending stage, NULL if there is none. */
const char *stage_run_pending(const struct stage_run *run);

/** stage_run_awaits_manager() - Whether the pending stage waits for a command. */
bool stage_run_awaits_manager(const struct stage_run *run);

/** stage_run_committed() - Whether the commit row is done. */
bool stage_run_committed(const struct stage_run *run);

/** stage_run_clear() - Forget a run: timers go, nothing is undone, finished() is not called. */
void stage_run_clear(struct stage_run *run);
