// Patience: how long to wait for a peer that may be slow, frozen, or hung.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * A wait ends when who is waited for has made no progress, not when the clock has moved.  Who waits
 * ticks in its own way.  A tick counts once however late it comes, so a host, or a cgroup with both
 * processes, that was frozen has not used anything up.  A tick in which the peer got on, by its
 * processor time or by what it has done, does not count either: on a busy host everything is slow, but
 * nothing stands.  A peer that works for ever without coming to its end has PATIENCE_TIMES as long.
 *
 * Context: one owner.  patience_begin() and patience_tick() call nothing but @progress and allocate
 * nothing: a guardian uses them in a child that shares memory.
 */

#define PATIENCE_TICK_MS 100
#define PATIENCE_TIMES	 5

/**
 * struct patience - One wait; its owner fills the first part
 * @budget_ms:	How long a peer may make no progress
 * @tick_ms:	How often to look; 0: PATIENCE_TICK_MS
 * @max_ms:	How long one that works may take; 0: PATIENCE_TIMES the budget
 * @progress:	A number that changes while the peer works; NULL: that cannot be known
 */
struct patience {
	uint32_t budget_ms;
	uint32_t tick_ms;
	uint32_t max_ms;
	uint64_t (*progress)(void *opaque);
	void *opaque;

	uint64_t seen;
	uint32_t next_ms;
	uint64_t idle_ms;
	uint64_t all_ms;
};

/** patience_begin() - Begin a wait.  Return: ms to the first tick. */
uint32_t patience_begin(struct patience *patience);

/** patience_tick() - One tick has passed.  Return: ms to the next, 0: no longer. */
uint32_t patience_tick(struct patience *patience);

/** patience_text() - "no answer within 10 ms", or what else came to an end; owned by the caller. */
char *patience_text(const struct patience *patience);
