// The signals that end the process: blocked everywhere, read from a descriptor in the main loop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <signal.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * SIGTERM, SIGINT and SIGHUP are blocked in every thread from the start on, and read from a signalfd
 * in the main loop.  What is pending, and the mask, survive execve(): a signal that comes while the
 * process becomes another program is delivered to that program, once; none dies of one between
 * two handlers.  Where nobody runs the main loop for long (a wait for a client), signals_poll()
 * hears them.
 *
 * SIGPIPE and SIGXFSZ are ignored: who writes is told by write().
 *
 * Children get the defaults and an empty mask, see probe.c.
 */

/** signals_hold() - Block and ignore as above; first in main(), before any thread, and after fork(). */
void signals_hold(void);

/** signals_release() - Undo it in a process that only waits for another and may be killed. */
void signals_release(void);

/** signals_mask() - Set @set to what signals_hold() blocks; async-signal-safe. */
void signals_mask(sigset_t *set);

/** signals_pending() - Whether one that ends the process has come and was not taken yet; any thread. */
bool signals_pending(void);

/**
 * signals_watch() - Call @fn(@opaque) in the main loop for each signal that ends the process
 * Return: the source, owned by the caller; NULL with @error set.  It closes its descriptor.
 */
GSource *signals_watch(void (*fn)(void *opaque), void *opaque, GError **error);

/**
 * signals_poll() - fd_poll(), ended by a signal that ends the process, which stays pending
 * Return: as fd_poll(); -1 with errno EINTR when told to end.
 */
int signals_poll(int fd, short events, uint64_t deadline_ns);
