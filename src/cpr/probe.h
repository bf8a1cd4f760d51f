// The probe: another executable, as a child, rehearses taking this VM over while the guest runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"

/**
 * DOC: Theory of operation
 *
 * Before a guest is stopped for an exec, the command that will be exec'ed is run once as a child,
 * with everything that it will find after the exec: the same descriptors under the same numbers, an
 * envelope, a state that the running machine has just saved.  MOLT_CPR_PROBE names its socket, on
 * which FRAME_OFFER names the envelope.  A molt that finds the variable goes the way of a successor, by
 * the same code: it imports, compares, builds the whole machine with its KVM VM, loads; and then, where
 * a successor would take the guest, it answers FRAME_ACCEPT, or FRAME_REFUSE wherever that one would
 * have gone back, and ends.  What both have in common (locks, connections, files, terminals) it does
 * not touch: nothing is opened anew (fd_source.complete), nothing is resumed, its main loop never runs,
 * and it ends without tidying up.
 *
 * Descriptors are inherited by number, not sent: that is what the exec does, so the same import is
 * rehearsed, and neither side waits for the other.  The variable is not the envelope's, so that a
 * program which does not know of rehearsals cannot take one for an exec.
 *
 * The child is the first to be killed where memory is short (oom_score_adj).
 *
 * Unhappy paths: the command does not exist, is no molt, ends or crashes without an answer, prints
 * garbage, or hangs: in each case the child's process group is killed, the child is reaped, every
 * descriptor is closed, and the caller is told what happened, with the last line the child printed.
 * What hangs is judged by patience.h, with the child's processor time for progress.
 */

/** PROBE_ENV - Number of the probe's socket */
#define PROBE_ENV "MOLT_CPR_PROBE"

/**
 * struct probe_params - What to run; all is borrowed for the call
 * @path:	The executable
 * @argv, @env:	NULL-ended; PROBE_ENV is added to @env
 * @fds:	int: what the child inherits under the same numbers; one of them is @envelope
 * @envelope:	For FRAME_OFFER
 * @budget_ms:	How long the child may make no progress, see patience.h
 * @children:	pid_t: lists the child until it is reaped; a reference is kept
 */
struct probe_params {
	const char *path;
	char *const *argv;
	char *const *env;
	const GArray *fds;
	int envelope;
	uint32_t budget_ms;
	GArray *children;
};

/**
 * struct probe_answer - Of a program that would take the VM
 * @build:	Its version
 * @start_ns:	Processor time it needed to start, build and load
 * @memory_bytes: Memory of its own that it had then; 0 if it does not know
 */
struct probe_answer {
	const char *build;
	uint64_t start_ns;
	uint64_t memory_bytes;
};

/** typedef probe_done_fn - The child has ended; @answer is NULL with @error set.  Both borrowed. */
typedef void (*probe_done_fn)(void *opaque, const struct probe_answer *answer, const GError *error);

struct probe;

/**
 * probe_start() - Run the command and let it rehearse
 * @done:	Called once from the main loop, unless probe_free() comes before
 *
 * Return: NULL with @error set if the command cannot be started.
 */
struct probe *probe_start(const struct probe_params *params, probe_done_fn done, void *opaque,
			  GError **error);

/** probe_free() - Kill what is left, which is reaped from the main loop; accepts NULL.  Not from
 * inside @done. */
void probe_free(struct probe *probe);
DEFINE_CLEANUP(probe, probe_free)

/* ---- the other side, one per process (rehearsal.c) ---- */

/** probe_requested() - Whether this process was started as a probe. */
bool probe_requested(void);

/** probe_begin() - Learn which envelope to rehearse; from here on probe_active(). */
bool probe_begin(GError **error);

/** probe_active() - Whether this process rehearses. */
bool probe_active(void);

/** probe_envelope() - The envelope's number, while probe_active(). */
int probe_envelope(void);

/** probe_accept(), probe_refuse() - Answer, and end the process on the spot. */
void probe_accept(void) G_GNUC_NORETURN;
void probe_refuse(const char *reason) G_GNUC_NORETURN;
