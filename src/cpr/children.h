// Children that are still to be reaped, if need be by the program after the next exec.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>
#include <glib.h>

/**
 * children_add() - List a child that will end
 * @children:	pid_t of everyone who is still to be reaped: an exec that comes before that must hand
 *		them on
 */
void children_add(GArray *children, pid_t pid);

/** children_remove() - It was reaped. */
void children_remove(GArray *children, pid_t pid);

/**
 * children_reap() - Reap @pid, which is listed already or now, from the main loop once it has ended
 * @children:	A reference is kept
 * @then:	Called when it is gone, at once if it is no child that could be waited for; may be NULL
 */
void children_reap(GArray *children, pid_t pid, void (*then)(void));

/**
 * children_serve_as_init() - Process 1 of a PID namespace: live as long as anybody does, end as the last
 *
 * The kernel ends all others with process 1, and the guest may go on to further processes.  What this
 * process is told to end by, all are told.  Any other process: no-op.
 */
void children_serve_as_init(void);
