// Devices and chardevs that stand still: all of them told at once, then waited for once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "backend/chardev/chardev.h"
#include "base/patience.h"
#include "device/device.h"

/**
 * DOC: Theory of operation
 *
 * There are reasons for devices to stand still, a bit each.  With the first one every device is told
 * to take no new work; with the last one gone every device is resumed.  So nobody's reason undoes
 * another's, and one that fails gives back what it took and no more.
 *
 * Two depths.  To drain means to take no new work from the guest for the host; timers, registers and
 * input go on, so that the guest may run meanwhile (HOLD_DRAIN).  Every other reason is of a guest that
 * is stopped, and makes devices quiet altogether; that takes no time.
 *
 * Chardevs read nothing for a reason in HOLD_INPUT, and mind no other: a stopped machine still takes
 * input, for a monitor may share a chardev with a device.
 *
 * Telling never waits.  What is in flight at a device ends when the host answers; the device reports
 * that once, from any thread, and one source of the main loop takes all reports.  hold_state() says
 * what is so: a hold is held when nothing is in flight any more, and not before.
 */

/** enum hold_reason - Why devices stand still */
enum hold_reason {
	HOLD_DRAIN = 1 << 0,	/* an update is about to stop the guest, which still runs */
	HOLD_STOPPED = 1 << 1,	/* it is stopped, or was never started */
	HOLD_UPDATE = 1 << 2,	/* an update has it */
	HOLD_RESET = 1 << 3,	/* it is being reset */
	HOLD_INCOMING = 1 << 4, /* it is another process's, or nobody's yet */

	HOLD_INPUT = HOLD_UPDATE | HOLD_INCOMING,
};

/** enum hold_state - How far that is */
enum hold_state {
	HOLD_STATE_NONE,     /* no reason: devices work */
	HOLD_STATE_DRAINING, /* told, and something is in flight */
	HOLD_STATE_HELD,     /* nothing is in flight */
};

/** typedef hold_done_fn - @error, owned by the callee, is NULL if the devices have drained */
typedef void (*hold_done_fn)(void *opaque, GError *error);

/**
 * struct hold - The reasons, and who waits; main thread but for hold_reported()
 * @devices:	struct device *, not owned; those that come are told by hold_admit()
 * @chardevs:	struct chardev *, not owned
 * @reasons:	enum hold_reason, or'ed
 * @reported, @opaque: called in the main loop when a device has drained, before hold_await()'s
 * @told:	The source that takes reports
 * @lock, @cond, @n_reports: for hold_wait()
 * @done ..:	See hold_await()
 */
struct hold {
	const GPtrArray *devices;
	const GPtrArray *chardevs;
	uint32_t reasons;
	void (*reported)(void *opaque);
	void *opaque;
	GSource *told;

	GMutex lock;
	GCond cond;
	uint32_t n_reports;

	hold_done_fn done;
	void *done_opaque;
	GSource *tick;
	uint64_t limit_ns;
	uint64_t begun_ns;
	struct patience patience;
};

/** hold_init() - @devices and @chardevs may be filled later; they are born still, for @reasons */
void hold_init(struct hold *hold, const GPtrArray *devices, const GPtrArray *chardevs,
	       uint32_t reasons, void (*reported)(void *opaque), void *opaque);
void hold_clear(struct hold *hold);

/** hold_add(), hold_drop() - One reason more or less; neither waits.  No-op if that is so already. */
void hold_add(struct hold *hold, enum hold_reason reason);
void hold_drop(struct hold *hold, enum hold_reason reason);

/** hold_admit() - A device that was just realized works as far as the others do. */
void hold_admit(struct hold *hold, struct device *dev);

/**
 * hold_retire() - @dev takes no more work for ever; the others do not mind
 * Return: whether nothing is in flight at it, so that it may be freed.  To be asked again.
 */
bool hold_retire(struct hold *hold, struct device *dev);

/** hold_reinstate() - Every retired device may work again; it does after the next hold_drop(). */
void hold_reinstate(struct hold *hold);

/** hold_reported() - device_env.drained; any thread. */
void hold_reported(struct hold *hold);

/** hold_state() - See enum hold_state. */
enum hold_state hold_state(struct hold *hold);

/** hold_error() - Which devices are not done, and with what; NULL if all are.  The caller's. */
GError *hold_error(struct hold *hold);

/** hold_wait() - Wait without the main loop, @ms at most.  Return: whether nothing is in flight. */
bool hold_wait(struct hold *hold, uint32_t ms);

/**
 * hold_await() - Call @done from the main loop when nothing is in flight, or late, with an error
 * @limit_ns:	How long at most; 0: as long as requests end, one in HOLD_PATIENCE_MS at least, and
 *		HOLD_TOTAL_MS in all, counted in ticks of a main loop that turns: time that this
 *		process did not get does not count
 *
 * Not for a hold that is held already.  One waiter at a time; ended by hold_await_stop(), or by @done.
 */
void hold_await(struct hold *hold, uint64_t limit_ns, hold_done_fn done, void *opaque);
void hold_await_stop(struct hold *hold);

#define HOLD_PATIENCE_MS 500
#define HOLD_TOTAL_MS	 5000
