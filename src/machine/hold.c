// Devices and chardevs that stand still: all of them told at once, then waited for once.
// SPDX-License-Identifier: Apache-2.0
#include "machine/hold.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/loop.h"

#define TICK_MS 50

/* ---- telling ---- */

static void tell_drain(struct device *dev)
{
	dev->still.drained = true;
	__atomic_store_n(&dev->drained, 0, __ATOMIC_RELAXED);
	dev->draining = !dev->ops->drain(dev);
}

static void tell_quiesce(struct device *dev)
{
	dev->still.quiesced = true;
	if (dev->ops->quiesce)
		dev->ops->quiesce(dev);
}

/* What drains is resumed as a whole: timers of a device whose queues stand still can wait. */
static void tell_resume(struct device *dev)
{
	dev->still.drained = dev->still.quiesced = false;
	dev->draining = false;
	if (dev->ops->resume)
		dev->ops->resume(dev);
}

/* Tell @dev what is so for @reasons and was not. */
static void tell(struct device *dev, uint32_t reasons)
{
	const bool drain = dev->ops->drain && (reasons || dev->leaving);
	const bool quiesce = reasons & ~HOLD_DRAIN;

	if (drain && !dev->still.drained)
		tell_drain(dev);
	if (quiesce && !dev->still.quiesced)
		tell_quiesce(dev);
	if (!drain && !quiesce && (dev->still.drained || dev->still.quiesced))
		tell_resume(dev);
}

void hold_add(struct hold *hold, enum hold_reason reason)
{
	hold->reasons |= reason;
	for (guint i = 0; (reason & HOLD_INPUT) && i < hold->chardevs->len; i++)
		chardev_quiesce(hold->chardevs->pdata[i]);
	for (guint i = 0; i < hold->devices->len; i++)
		tell(hold->devices->pdata[i], hold->reasons);
}

void hold_drop(struct hold *hold, enum hold_reason reason)
{
	hold->reasons &= ~reason;
	for (guint i = hold->devices->len; i-- > 0;)
		tell(hold->devices->pdata[i], hold->reasons);
	for (guint i = 0; !(hold->reasons & HOLD_INPUT) && i < hold->chardevs->len; i++)
		chardev_resume(hold->chardevs->pdata[i]);
}

void hold_admit(struct hold *hold, struct device *dev)
{
	tell(dev, hold->reasons);
}

bool hold_retire(struct hold *hold, struct device *dev)
{
	dev->leaving = true;
	tell(dev, hold->reasons);
	(void)hold_state(hold);
	return !dev->draining;
}

void hold_reinstate(struct hold *hold)
{
	for (guint i = 0; i < hold->devices->len; i++) {
		struct device *dev = hold->devices->pdata[i];

		dev->leaving = false;
	}
}

/* ---- what became of it ---- */

enum hold_state hold_state(struct hold *hold)
{
	enum hold_state state = hold->reasons ? HOLD_STATE_HELD : HOLD_STATE_NONE;

	for (guint i = 0; i < hold->devices->len; i++) {
		struct device *dev = hold->devices->pdata[i];

		if (__atomic_load_n(&dev->drained, __ATOMIC_ACQUIRE))
			dev->draining = false;
		if (dev->draining && hold->reasons)
			state = HOLD_STATE_DRAINING;
	}
	return state;
}

static uint64_t count_in_flight(void *opaque)
{
	const struct hold *hold = opaque;
	uint32_t n = 0;

	for (guint i = 0; i < hold->devices->len; i++) {
		struct device *dev = hold->devices->pdata[i];

		if (dev->draining)
			n += dev->ops->in_flight(dev, NULL);
	}
	return n;
}

GError *hold_error(struct hold *hold)
{
	g_autoptr(GString) all = g_string_new(NULL);

	(void)hold_state(hold);
	for (guint i = 0; i < hold->devices->len; i++) {
		struct device *dev = hold->devices->pdata[i];
		g_autoptr(GString) text = g_string_new(NULL);

		if (!dev->draining)
			continue;
		(void)dev->ops->in_flight(dev, text);
		g_string_append_printf(all, "%s%s/%s (%s)", all->len ? "; " : "", dev->path,
				       dev->ops->name, text->str);
	}
	if (!all->len)
		return NULL;
	return g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT,
			   "the host has not answered what it was asked by %s", all->str);
}

/* ---- waiting ---- */

void hold_await_stop(struct hold *hold)
{
	hold->done = NULL;
	loop_unwatch(&hold->tick);
}

static void finish_wait(struct hold *hold, GError *error)
{
	hold_done_fn done = hold->done;

	hold_await_stop(hold);
	done(hold->done_opaque, error);
}

static bool is_late(struct hold *hold)
{
	if (hold->limit_ns)
		return clock_now_ns() - hold->begun_ns >= hold->limit_ns;
	return patience_tick(&hold->patience) == 0;
}

static void arm_tick(struct hold *hold);

static gboolean tick(void *opaque)
{
	struct hold *hold = opaque;
	GError *error = NULL;

	loop_unwatch(&hold->tick);
	/* The report may be on its way: it is as good as here. */
	if (is_late(hold))
		error = hold_error(hold);
	if (error)
		finish_wait(hold, error);
	else
		arm_tick(hold);
	return G_SOURCE_REMOVE;
}

static void arm_tick(struct hold *hold)
{
	uint64_t spent_ns = clock_now_ns() - hold->begun_ns;
	uint64_t left_ns = hold->limit_ns > spent_ns ? hold->limit_ns - spent_ns : 0;
	uint32_t ms = hold->limit_ns ? MIN(TICK_MS, left_ns / NS_PER_MSEC + 1) : TICK_MS;

	hold->tick = loop_after_ms(ms, tick, hold);
}

void hold_await(struct hold *hold, uint64_t limit_ns, hold_done_fn done, void *opaque)
{
	hold->done = done;
	hold->done_opaque = opaque;
	hold->limit_ns = limit_ns;
	hold->begun_ns = clock_now_ns();
	hold->patience = (struct patience){.budget_ms = HOLD_PATIENCE_MS,
					   .tick_ms = TICK_MS,
					   .max_ms = HOLD_TOTAL_MS,
					   .progress = count_in_flight,
					   .opaque = hold};
	patience_begin(&hold->patience);
	arm_tick(hold);
}

bool hold_wait(struct hold *hold, uint32_t ms)
{
	const int64_t end_usecs = g_get_monotonic_time() + ms * (int64_t)1000;
	bool in_time = true;

	g_mutex_lock(&hold->lock);
	while (in_time && hold_state(hold) == HOLD_STATE_DRAINING) {
		const uint32_t seen = hold->n_reports;

		while (in_time && hold->n_reports == seen)
			in_time = g_cond_wait_until(&hold->cond, &hold->lock, end_usecs);
	}
	g_mutex_unlock(&hold->lock);
	return hold_state(hold) != HOLD_STATE_DRAINING;
}

/* ---- reports ---- */

void hold_reported(struct hold *hold)
{
	g_mutex_lock(&hold->lock);
	hold->n_reports++;
	g_cond_signal(&hold->cond);
	g_mutex_unlock(&hold->lock);
	g_source_set_ready_time(hold->told, 0);
}

static gboolean take_reports(void *opaque)
{
	struct hold *hold = opaque;

	(void)hold_state(hold);
	hold->reported(hold->opaque);
	if (hold->done && hold_state(hold) == HOLD_STATE_HELD)
		finish_wait(hold, NULL);
	return G_SOURCE_CONTINUE;
}

void hold_init(struct hold *hold, const GPtrArray *devices, const GPtrArray *chardevs,
	       uint32_t reasons, void (*reported)(void *opaque), void *opaque)
{
	*hold = (struct hold){.devices = devices,
			      .chardevs = chardevs,
			      .reasons = reasons,
			      .reported = reported,
			      .opaque = opaque};
	g_mutex_init(&hold->lock);
	g_cond_init(&hold->cond);
	hold->told = loop_when_told(take_reports, hold);
}

void hold_clear(struct hold *hold)
{
	hold_await_stop(hold);
	loop_unwatch(&hold->told);
	g_mutex_clear(&hold->lock);
	g_cond_clear(&hold->cond);
}
