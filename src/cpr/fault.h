// Fault injection: fail, hang, kill or leave out a named stage, in builds made for tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

/** enum fault - What to do instead of running a stage */
enum fault {
	FAULT_NONE,
	FAULT_ERROR, /* the stage fails */
	FAULT_STALL, /* it never completes, the main loop goes on */
};

/** enum mutant - What is left out of a stage, to see that a test notices */
enum mutant {
	MUTANT_SKIP,	/* it is not run, and counts as done */
	MUTANT_NO_UNDO, /* it is run, and not undone */
};

#ifdef MOLT_FAULT_INJECTION
/**
 * fault_check() - What the environment variable MOLT_FAULT asks for here
 * @table, @stage: Compared with MOLT_FAULT=TABLE:STAGE:WHAT
 *
 * WHAT is "error", "stall", "hang" (the process stops for good), "kill" (SIGKILL), "exit" (status
 * 3) or "abort"; the last four do not return.  "stop" stops the process until somebody lets it go on
 * (SIGCONT), and then nothing is wrong.  A fault happens once per process: the variable is removed.
 */
enum fault fault_check(const char *table, const char *stage);

/**
 * fault_mutant() - Whether the environment variable MOLT_MUTANT breaks this stage in this way
 * @table, @stage, @what: Compared with MOLT_MUTANT=TABLE:STAGE:WHAT
 *
 * WHAT is "skip" or "no-undo".  Unlike a fault it stays: every process that inherits it is broken, each
 * time (scripts/mutants --stages).
 */
bool fault_mutant(const char *table, const char *stage, enum mutant what);
#else
static inline enum fault fault_check(const char *table, const char *stage)
{
	return FAULT_NONE;
}

static inline bool fault_mutant(const char *table, const char *stage, enum mutant what)
{
	return false;
}
#endif
