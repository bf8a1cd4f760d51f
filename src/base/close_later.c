// Closing files whose store may hang: on a thread, whenever that comes to its end.
// SPDX-License-Identifier: Apache-2.0
#include "base/close_later.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/patience.h"
#include "base/stuck.h"
#include "base/thread.h"

/* For a thread that always has work, or waits for a processor. */
#define CLOSE_BUSY_MS 1000
#define CLOSE_TICK_MS 10

/**
 * struct closing - Files that a thread closes
 * @files:	int
 * @done:	All are closed
 * @tid:	The thread's, 0 until it runs
 * @n_ready:	How often it was seen to wait for no store
 * @n_refs:	The thread's, and of who waits for it
 */
struct closing {
	GArray *files;
	GMutex lock;
	GCond cond;
	bool done;
	int tid;
	uint64_t n_ready;
	int n_refs;
};

static struct closing *closing_new(void)
{
	struct closing *closing = g_new0(struct closing, 1);

	closing->files = g_array_new(FALSE, FALSE, sizeof(int));
	g_mutex_init(&closing->lock);
	g_cond_init(&closing->cond);
	closing->n_refs = 2;
	return closing;
}

static void closing_unref(struct closing *closing)
{
	if (!g_atomic_int_dec_and_test(&closing->n_refs))
		return;
	g_array_unref(closing->files);
	g_mutex_clear(&closing->lock);
	g_cond_clear(&closing->cond);
	g_free(closing);
}

static void *close_all(void *opaque)
{
	struct closing *closing = opaque;

	g_atomic_int_set(&closing->tid, (int)gettid());
	for (guint i = 0; i < closing->files->len; i++) {
		int call = stuck_begin("a file to be closed");

		fd_close(&g_array_index(closing->files, int, i));
		stuck_end(call);
	}
	g_mutex_lock(&closing->lock);
	closing->done = true;
	g_cond_signal(&closing->cond);
	g_mutex_unlock(&closing->lock);
	closing_unref(closing);
	return NULL;
}

/* One that was given no processor yet does not hang. */
static uint64_t closing_progress(void *opaque)
{
	struct closing *closing = opaque;
	const int tid = g_atomic_int_get(&closing->tid);

	if (!tid || thread_runs(tid))
		closing->n_ready++;
	return closing->n_ready;
}

static void wait_until_closed(struct closing *closing)
{
	struct patience patience = {.budget_ms = CLOSE_SOON_MS,
				    .tick_ms = CLOSE_TICK_MS,
				    .max_ms = CLOSE_BUSY_MS,
				    .progress = closing_progress,
				    .opaque = closing};
	uint32_t tick_ms = patience_begin(&patience);

	g_mutex_lock(&closing->lock);
	while (tick_ms && !closing->done)
		if (!g_cond_wait_until(&closing->cond, &closing->lock,
				       g_get_monotonic_time() + tick_ms * G_TIME_SPAN_MILLISECOND))
			tick_ms = patience_tick(&patience);
	g_mutex_unlock(&closing->lock);
}

/* Takes @closing. */
static void close_on_thread(struct closing *closing, bool wait)
{
	GThread *thread = g_thread_try_new("close", close_all, closing, NULL);

	if (thread)
		g_thread_unref(thread);
	else
		close_all(closing);
	if (wait)
		wait_until_closed(closing);
	closing_unref(closing);
}

void close_later(const GArray *fds)
{
	struct closing *closing = NULL;

	for (guint i = 0; i < fds->len; i++) {
		int fd = g_array_index(fds, int, i);

		if (fd < 0 || !fd_has_store(fd)) {
			fd_close(&fd);
			continue;
		}
		closing = closing ? closing : closing_new();
		g_array_append_val(closing->files, fd);
	}
	if (closing)
		close_on_thread(closing, false);
}

void close_soon(int *fd)
{
	struct closing *closing;
	int file = fd_steal(fd);

	if (file < 0 || !fd_has_store(file)) {
		fd_close(&file);
		return;
	}
	closing = closing_new();
	g_array_append_val(closing->files, file);
	close_on_thread(closing, true);
}
