// A one-shot timer of a device: armed from any thread, fires on the main thread, free while off.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <glib.h>

/**
 * struct device_timer - A timerfd watched by the main loop; embedded, zero before init
 * @fd:		The timerfd
 * @watch:	NULL: not initialised
 * @armed:	It was set to fire and not set to 0 since
 * @fired, @opaque: what to call
 */
struct device_timer {
	int fd;
	GSource *watch;
	bool armed;
	void (*fired)(void *opaque);
	void *opaque;
};

/**
 * device_timer_init() - Make the timer, disarmed
 * @clock:	CLOCK_MONOTONIC or CLOCK_REALTIME
 * @fired:	Called on the main thread, no lock held.  It may come early, late by a race with
 *		device_timer_set(), or because the wall clock was set: look at the clock, then
 *		decide
 *
 * Return: false with @error set when there is no descriptor left.
 */
bool device_timer_init(struct device_timer *timer, clockid_t clock, void (*fired)(void *opaque),
		       void *opaque, GError **error);

/** device_timer_set() - Fire at @expires_ns on the timer's clock; 0: do not.
 * Context: any thread, device lock held. */
void device_timer_set(struct device_timer *timer, uint64_t expires_ns);

/** device_timer_fini() - Disarm and free; accepts one that was never initialised. */
void device_timer_fini(struct device_timer *timer);
