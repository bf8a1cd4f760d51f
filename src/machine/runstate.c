// The VM's run state: one variable, one table of allowed changes, one function that changes it.
// SPDX-License-Identifier: Apache-2.0
#include "machine/runstate.h"

#include <stdint.h>
#include <string.h>

#include "base/error.h"

static const char *const runstate_names[] = {
	[RUNSTATE_PRELAUNCH] = "prelaunch",
	[RUNSTATE_INMIGRATE] = "inmigrate",
	[RUNSTATE_RUNNING] = "running",
	[RUNSTATE_PAUSED] = "paused",
	[RUNSTATE_SUSPENDED] = "suspended",
	[RUNSTATE_FINISH_MIGRATE] = "finish-migrate",
	[RUNSTATE_POSTMIGRATE] = "postmigrate",
	[RUNSTATE_SHUTDOWN] = "shutdown",
	[RUNSTATE_INTERNAL_ERROR] = "internal-error",
	[RUNSTATE_IO_ERROR] = "io-error",
};
_Static_assert(G_N_ELEMENTS(runstate_names) == RUNSTATE_MAX, "a name for every run state");

#define TO(state) (1u << RUNSTATE_##state)

/* Row: from.  Bits: where it may go.  A change to the same state is always allowed. */
static const uint32_t runstate_next[RUNSTATE_MAX] = {
	[RUNSTATE_PRELAUNCH] = TO(RUNNING) | TO(PAUSED) | TO(INMIGRATE) | TO(FINISH_MIGRATE) |
			       TO(INTERNAL_ERROR),
	[RUNSTATE_INMIGRATE] = TO(RUNNING) | TO(PAUSED) | TO(PRELAUNCH) | TO(SUSPENDED) |
			       TO(POSTMIGRATE) | TO(SHUTDOWN) | TO(INTERNAL_ERROR) | TO(IO_ERROR) |
			       TO(FINISH_MIGRATE),
	[RUNSTATE_RUNNING] = TO(PAUSED) | TO(SUSPENDED) | TO(FINISH_MIGRATE) | TO(SHUTDOWN) |
			     TO(INTERNAL_ERROR) | TO(IO_ERROR),
	[RUNSTATE_PAUSED] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(PRELAUNCH) | TO(SHUTDOWN) |
			    TO(INTERNAL_ERROR),
	[RUNSTATE_SUSPENDED] = TO(RUNNING) | TO(PAUSED) | TO(FINISH_MIGRATE) | TO(SHUTDOWN) |
			       TO(INTERNAL_ERROR),
	[RUNSTATE_FINISH_MIGRATE] = TO(RUNNING) | TO(PAUSED) | TO(PRELAUNCH) | TO(SUSPENDED) |
				    TO(POSTMIGRATE) | TO(SHUTDOWN) | TO(INTERNAL_ERROR) |
				    TO(IO_ERROR),
	[RUNSTATE_POSTMIGRATE] = TO(RUNNING) | TO(PAUSED) | TO(FINISH_MIGRATE),
	[RUNSTATE_SHUTDOWN] = TO(PAUSED) | TO(PRELAUNCH) | TO(FINISH_MIGRATE) | TO(INTERNAL_ERROR),
	[RUNSTATE_INTERNAL_ERROR] = TO(PAUSED) | TO(PRELAUNCH) | TO(FINISH_MIGRATE),
	[RUNSTATE_IO_ERROR] = TO(RUNNING) | TO(PAUSED) | TO(PRELAUNCH) | TO(FINISH_MIGRATE) |
			      TO(INTERNAL_ERROR),
};

const char *runstate_name(enum runstate state)
{
	return runstate_names[state];
}

enum runstate runstate_from_name(const char *name)
{
	for (int i = 0; i < RUNSTATE_MAX; i++)
		if (strcmp(name, runstate_names[i]) == 0)
			return i;
	return RUNSTATE_MAX;
}

bool runstate_allowed(enum runstate from, enum runstate to)
{
	return from == to || (runstate_next[from] & (1u << to));
}

bool runstate_change(enum runstate *state, enum runstate to, GError **error)
{
	if (!runstate_allowed(*state, to))
		return error_set_generic(error, "run state cannot change from '%s' to '%s'",
					 runstate_name(*state), runstate_name(to));
	*state = to;
	return true;
}

bool runstate_is_running(enum runstate state)
{
	return state == RUNSTATE_RUNNING;
}
