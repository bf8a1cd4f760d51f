// Work in processor time that nobody else wants, as long as there is some.
// SPDX-License-Identifier: Apache-2.0
#include "base/spare_time.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <time.h>
#include <glib.h>

#include "base/clock.h"

#define LOOK_MS	       100
#define SHARE_EXPECTED 4 /* a quarter of a processor */

/**
 * struct spare_time - One spare_time_run()
 * @lock:	Guards @ended, which @changed tells
 * @done:	@work was called; of the thread until it has ended
 */
struct spare_time {
	void (*work)(void *opaque);
	void *opaque;
	bool done;
	GMutex lock;
	GCond changed;
	bool ended;
};

static const struct sched_param no_priority = {0};

/* For the calling thread.  Whether it could be undone is known only from undoing it once. */
static bool become_idle(void)
{
	pthread_t self = pthread_self();

	return pthread_setschedparam(self, SCHED_IDLE, &no_priority) == 0 &&
	       pthread_setschedparam(self, SCHED_OTHER, &no_priority) == 0 &&
	       pthread_setschedparam(self, SCHED_IDLE, &no_priority) == 0;
}

static void *spare_time_thread(void *opaque)
{
	struct spare_time *s = opaque;

	if (become_idle()) {
		s->work(s->opaque);
		s->done = true;
	}
	g_mutex_lock(&s->lock);
	s->ended = true;
	g_cond_signal(&s->changed);
	g_mutex_unlock(&s->lock);
	return NULL;
}

/* Until the thread has ended, or LOOK_MS. */
static bool wait_ended(struct spare_time *s)
{
	const gint64 until_us = g_get_monotonic_time() + LOOK_MS * 1000;
	bool ended;

	g_mutex_lock(&s->lock);
	while (!s->ended && g_cond_wait_until(&s->changed, &s->lock, until_us))
		;
	ended = s->ended;
	g_mutex_unlock(&s->lock);
	return ended;
}

/* Return once the thread has ended, or does not get by as SCHED_IDLE. */
static void watch(struct spare_time *s, pthread_t thread)
{
	uint64_t looked_ns = clock_now_ns(), had_ns = 0;

	while (!wait_ended(s)) {
		const uint64_t now_ns = clock_now_ns(), has_ns = clock_thread_ns(thread);

		if ((has_ns - had_ns) * SHARE_EXPECTED < now_ns - looked_ns)
			return;
		looked_ns = now_ns;
		had_ns = has_ns;
	}
}

/* Return: false if @work still has to be done. */
static bool run_idle(struct spare_time *s)
{
	pthread_t thread;

	if (sched_getscheduler(0) != SCHED_OTHER ||
	    pthread_create(&thread, NULL, spare_time_thread, s) != 0)
		return false;
	pthread_setname_np(thread, "spare time");
	watch(s, thread);
	/* If it has ended already, this is too late and does nothing. */
	pthread_setschedparam(thread, SCHED_OTHER, &no_priority);
	pthread_join(thread, NULL);
	return s->done;
}

void spare_time_run(void (*work)(void *opaque), void *opaque)
{
	struct spare_time s = {.work = work, .opaque = opaque};

	g_mutex_init(&s.lock);
	g_cond_init(&s.changed);
	if (!run_idle(&s))
		work(opaque);
	g_cond_clear(&s.changed);
	g_mutex_clear(&s.lock);
}
