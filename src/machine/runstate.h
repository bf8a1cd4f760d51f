// The VM's run state: one variable, one table of allowed changes, one function that changes it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

/** enum runstate - QMP's RunState, the members that can occur here */
enum runstate {
	RUNSTATE_PRELAUNCH, /* built, not started (-S) */
	RUNSTATE_INMIGRATE, /* waiting for a predecessor's state */
	RUNSTATE_RUNNING,
	RUNSTATE_PAUSED,
	RUNSTATE_SUSPENDED,	 /* ACPI S3 */
	RUNSTATE_FINISH_MIGRATE, /* stopped for an update in progress */
	RUNSTATE_POSTMIGRATE,	 /* another process owns the guest */
	RUNSTATE_SHUTDOWN,	 /* powered off, -no-shutdown */
	RUNSTATE_INTERNAL_ERROR, /* KVM could not go on */
	RUNSTATE_IO_ERROR,	 /* a disk's request failed, werror=stop; cont repeats it */
	RUNSTATE_MAX,
};

/** runstate_name() - QMP's name: "running", "finish-migrate", ... */
const char *runstate_name(enum runstate state);

/** runstate_from_name() - The inverse; RUNSTATE_MAX if there is none. */
enum runstate runstate_from_name(const char *name);

/** runstate_allowed() - Whether the table has a row from @from to @to. */
bool runstate_allowed(enum runstate from, enum runstate to);

/**
 * runstate_change() - Let *@state become @to, if the table has such a row
 *
 * Nothing else writes a run state.  Return: false with @error set, *@state as it was.
 */
bool runstate_change(enum runstate *state, enum runstate to, GError **error);

/** runstate_is_running() - Whether vCPUs run in @state. */
bool runstate_is_running(enum runstate state);
