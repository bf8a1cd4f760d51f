// The probe: asking another executable, as a child, whether it would take this VM over.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"

/**
 * DOC: Theory of operation
 *
 * Before a guest is stopped for an exec, the command that will be exec'ed is run once as a child,
 * with a socket in the environment variable MOLT_CPR_PROBE.  A molt that finds the variable parses
 * its own arguments, reads one FRAME_OFFER from the socket, compares, answers FRAME_ACCEPT or
 * FRAME_REFUSE and ends without having touched anything.
 *
 * Unhappy paths: the command does not exist, is no molt, ends or crashes without an answer, prints
 * garbage, or hangs: in each case the child's process group is killed, the child is reaped, every
 * descriptor is closed, and the caller is told what happened, with the last line the child printed.
 */

/** PROBE_ENV - Number of the probe's socket */
#define PROBE_ENV "MOLT_CPR_PROBE"

/**
 * typedef probe_done_fn - The end of a probe
 * @build:	The other's version if it accepts; NULL with @error set if not.  Both borrowed
 * @start_ns:	Processor time it needed to start and to judge; 0 if it does not say
 */
typedef void (*probe_done_fn)(void *opaque, const char *build, uint64_t start_ns,
			      const GError *error);

struct probe;

/**
 * probe_start() - Run @path with @argv and ask it
 * @path:	The executable
 * @argv:	NULL-ended
 * @offer:	The offer's JSON object; borrowed for the call
 * @timeout_ms:	After which a silent child is killed
 * @done:	Called once from the main loop, unless probe_free() comes before
 *
 * Return: NULL with @error set if the command cannot be started.
 */
struct probe *probe_start(const char *path, char *const *argv, const json_t *offer,
			  uint32_t timeout_ms, probe_done_fn done, void *opaque, GError **error);

/** probe_free() - Kill and reap what is left; accepts NULL.  Not from inside @done. */
void probe_free(struct probe *probe);
DEFINE_CLEANUP(probe, probe_free)

/** probe_requested() - Whether this process was started as a probe. */
bool probe_requested(void);

/**
 * probe_answer() - The other side: read the offer, let @judge look at it, answer
 * @judge:	Return: NULL to accept, or why not, to be freed
 *
 * Return: the exit status.
 */
int probe_answer(char *(*judge)(void *opaque, const json_t *offer), void *opaque);
