// System calls of threads that may not come back: who waits for what, and since when.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

/**
 * DOC: Theory of operation
 *
 * A thread that waits for a file on a store that hangs cannot even be killed, so execve(), which ends
 * all other threads first, waits as well, and the guest with it.  Whoever has such a thread says here
 * around each call that may wait so (fd_has_store()) what it waits for, and who wants to execve() asks
 * before.  Waits for pipes, sockets and terminals are none: a kill ends them.  Nor does a thread wait
 * that is merely not given a processor: it counts only while the kernel says that it sleeps.
 *
 * Fixed slots, no lock: nobody waits here.  Context: any thread.
 */

/** STUCK_NAME_BYTES - Room for what is waited for, its end included; more is cut off */
#define STUCK_NAME_BYTES 64

/** STUCK_CALLS - How many calls are known at the same time; those above are not */
#define STUCK_CALLS 512

/**
 * stuck_begin() - A call that may wait for @what begins
 * @what:	For messages; copied
 * Return: for stuck_end(); -1 when there is no slot.
 */
int stuck_begin(const char *what);

/** stuck_end() - It is back; errno is kept.  @call: may be -1 */
void stuck_end(int call);

/**
 * stuck_oldest() - The call that waits longest
 * @min_ns:	Those that have waited for less do not count
 * @what:	Filled if there is one
 * Return: for how many ns; 0 if there is none.
 */
uint64_t stuck_oldest(uint64_t min_ns, char what[STUCK_NAME_BYTES]);
