// Sinks: output to what may block its writer, written by a thread from a bounded buffer.
// SPDX-License-Identifier: Apache-2.0
#include "backend/chardev/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/stuck.h"

/* What is written in one go: a pipe or terminal that poll() calls writable takes the smaller. */
#define FILE_CHUNK_BYTES  (16U << 10)
#define OTHER_CHUNK_BYTES 256

/* How soon a write that failed is tried again. */
#define SINK_RETRY_MS 100

/**
 * struct sink - See sink.h
 * @n_refs:	The owner's, and the thread's while it runs; atomic
 * @fd:		Its own duplicate
 * @wake_fd:	Ends the thread's wait for room; an eventfd
 * @is_file:	Not even a kill ends a wait for it
 * @lock:	Guards what follows
 * @changed:	There is something to write, or something was written, or another state is wanted
 * @start, @len: what of @bytes is used
 * @held:	Begin no write
 * @closing:	End the thread
 * @running:	There is a thread
 * @write_ns:	When the write in progress began, 0 without one; @flight_bytes: how much it has
 * @idle_ns:	Since when it has taken nothing although there was something
 * @failure:	Of the last write; 0: it succeeded
 * @wanted:	Somebody waits for room
 * @lost_bytes, @told_bytes: dropped so far, and until the last report of an end
 * @told:	The log has the beginning of a stall
 */
struct sink {
	int n_refs;
	char *what;
	int fd, wake_fd;
	bool is_file;
	GSource *progress;
	GMutex lock;
	GCond changed;
	uint8_t *bytes;
	size_t size, start, len;
	bool held, closing, running;
	uint64_t write_ns, idle_ns;
	size_t flight_bytes;
	int failure;
	bool wanted;
	uint64_t lost_bytes, told_bytes;
	bool told;
	struct log_limit log;
	GThread *thread;
};

/* ---- life ---- */

static bool is_file(int fd)
{
	struct statx st;

	return fd_look(fd, STATX_TYPE, &st) && (S_ISREG(st.stx_mode) || S_ISBLK(st.stx_mode));
}

bool sink_needed(int fd)
{
	/* O_NONBLOCK means nothing to a file. */
	return is_file(fd) || !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

static void sink_unref(struct sink *sink)
{
	if (!g_atomic_int_dec_and_test(&sink->n_refs))
		return;
	close_soon(&sink->fd);
	fd_close(&sink->wake_fd);
	g_source_unref(sink->progress);
	g_mutex_clear(&sink->lock);
	g_cond_clear(&sink->changed);
	g_free(sink->bytes);
	g_free(sink->what);
	g_free(sink);
}

struct sink *sink_new(const char *what, int fd, size_t size_bytes, GSource *progress,
		      GError **error)
{
	autofd int own = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	autofd int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct sink *sink;

	if (own < 0 || wake < 0) {
		error_set_errno(error, errno, "%s", what);
		return NULL;
	}
	sink = g_new0(struct sink, 1);
	sink->n_refs = 1;
	sink->what = g_strdup(what);
	sink->is_file = is_file(own);
	sink->fd = fd_steal(&own);
	sink->wake_fd = fd_steal(&wake);
	sink->progress = g_source_ref(progress);
	sink->size = size_bytes;
	sink->bytes = g_malloc(size_bytes);
	sink->held = true;
	g_mutex_init(&sink->lock);
	g_cond_init(&sink->changed);
	return sink;
}

/* ---- the buffer; the lock is held ---- */

static void buffer_put(struct sink *sink, const uint8_t *buf, size_t len)
{
	size_t end = (sink->start + sink->len) % sink->size;
	size_t first = MIN(len, sink->size - end);

	if (sink->len == 0)
		sink->idle_ns = clock_now_ns();
	memcpy(sink->bytes + end, buf, first);
	memcpy(sink->bytes, buf + first, len - first);
	sink->len += len;
}

static size_t buffer_get(const struct sink *sink, uint8_t *buf, size_t max)
{
	size_t len = MIN(sink->len, max);
	size_t first = MIN(len, sink->size - sink->start);

	memcpy(buf, sink->bytes + sink->start, first);
	memcpy(buf + first, sink->bytes, len - first);
	return len;
}

static void buffer_drop(struct sink *sink, size_t len)
{
	sink->start = (sink->start + len) % sink->size;
	sink->len -= len;
}

static bool sink_stalled(const struct sink *sink)
{
	return sink->failure || (sink->len > 0 && !sink->held &&
				 clock_now_ns() - sink->idle_ns >= SINK_STALL_MS * NS_PER_MSEC);
}

static void sink_lose(struct sink *sink, size_t len)
{
	sink->lost_bytes += len;
	if (!sink->told)
		log_rated(&sink->log, "%s takes no output (%s); what does not fit is lost",
			  sink->what, sink->failure ? g_strerror(sink->failure) : "it is slow");
	sink->told = true;
}

/* ---- the thread ---- */

/* Wait for what is to be written.  Return: false at the end.  Lock held. */
static bool thread_await(struct sink *sink)
{
	while (!sink->closing && (sink->held || sink->len == 0))
		g_cond_wait(&sink->changed, &sink->lock);
	return !sink->closing;
}

/* Wait without the lock until @fd takes something, or something else is wanted. */
static bool thread_await_room(struct sink *sink)
{
	struct pollfd p[] = {{.fd = sink->fd, .events = POLLOUT},
			     {.fd = sink->wake_fd, .events = POLLIN}};

	(void)poll(p, G_N_ELEMENTS(p), -1);
	eventfd_drain(sink->wake_fd);
	return p[0].revents;
}

/* After a failure: not at once again. */
static void thread_pause(struct sink *sink)
{
	gint64 until_us = g_get_monotonic_time() + SINK_RETRY_MS * G_TIME_SPAN_MILLISECOND;

	while (!sink->closing && g_cond_wait_until(&sink->changed, &sink->lock, until_us))
		;
}

/* @n bytes were written, or the write failed with @failure.  Lock held. */
static void thread_account(struct sink *sink, ssize_t n, int failure)
{
	sink->write_ns = 0;
	if (n > 0) {
		sink->failure = 0;
		sink->idle_ns = clock_now_ns();
		if (sink->told)
			log_rated(&sink->log,
				  "%s takes output again; %" G_GUINT64_FORMAT " bytes were lost",
				  sink->what, sink->lost_bytes - sink->told_bytes);
		if (sink->told)
			sink->told_bytes = sink->lost_bytes;
		sink->told = false;
	} else if (failure != EAGAIN && failure != EINTR) {
		sink->failure = failure;
	}
	if (sink->wanted)
		g_source_set_ready_time(sink->progress, 0);
	sink->wanted = false;
	g_cond_broadcast(&sink->changed);
}

/* Lock held, let go meanwhile. */
static void thread_write(struct sink *sink, uint8_t *chunk)
{
	size_t len = buffer_get(sink, chunk, sink->is_file ? FILE_CHUNK_BYTES : OTHER_CHUNK_BYTES);
	int failure = 0, call;
	ssize_t n;

	sink->flight_bytes = len;
	sink->write_ns = clock_now_ns();
	g_mutex_unlock(&sink->lock);
	call = sink->is_file ? stuck_begin(sink->what) : -1;
	n = write(sink->fd, chunk, len);
	if (n < 0)
		failure = errno;
	stuck_end(call);
	g_mutex_lock(&sink->lock);
	sink->flight_bytes = 0;
	buffer_drop(sink, MAX(n, 0));
	thread_account(sink, n, failure);
	if (sink->failure)
		thread_pause(sink);
}

static void *sink_thread(void *opaque)
{
	struct sink *sink = opaque;
	uint8_t chunk[FILE_CHUNK_BYTES];

	g_mutex_lock(&sink->lock);
	while (thread_await(sink)) {
		bool ready;

		g_mutex_unlock(&sink->lock);
		ready = thread_await_room(sink);
		g_mutex_lock(&sink->lock);
		if (ready && !sink->held && !sink->closing && sink->len > 0)
			thread_write(sink, chunk);
	}
	sink->running = false;
	g_cond_broadcast(&sink->changed);
	g_mutex_unlock(&sink->lock);
	sink_unref(sink);
	return NULL;
}

/* Have the thread look; make it the first time.  Lock held. */
static void sink_stir(struct sink *sink)
{
	if (!sink->thread && !sink->held && sink->len > 0) {
		g_atomic_int_inc(&sink->n_refs);
		sink->thread = g_thread_try_new("sink", sink_thread, sink, NULL);
		sink->running = sink->thread;
		if (!sink->thread) {
			g_atomic_int_add(&sink->n_refs, -1);
			sink->failure = EAGAIN;
		}
	}
	g_cond_broadcast(&sink->changed);
}

/* ---- for the chardev ---- */

size_t sink_write(struct sink *sink, const uint8_t *buf, size_t len, bool may_wait)
{
	size_t n;

	g_mutex_lock(&sink->lock);
	n = MIN(len, sink->size - sink->len);
	buffer_put(sink, buf, n);
	if (n < len && (!may_wait || sink_stalled(sink))) {
		sink_lose(sink, len - n);
		n = len;
	}
	sink->wanted = sink->wanted || n < len;
	sink_stir(sink);
	g_mutex_unlock(&sink->lock);
	return n;
}

bool sink_has_room(struct sink *sink)
{
	bool room;

	g_mutex_lock(&sink->lock);
	room = sink->len < sink->size || sink_stalled(sink);
	sink->wanted = sink->wanted || !room;
	g_mutex_unlock(&sink->lock);
	return room;
}

void sink_prepend(struct sink *sink, const uint8_t *buf, size_t len)
{
	g_autofree uint8_t *old = NULL;
	size_t n, old_len, kept;

	if (len == 0)
		return;
	g_mutex_lock(&sink->lock);
	old_len = sink->len;
	old = g_malloc(MAX(old_len, 1));
	buffer_get(sink, old, old_len);
	sink->start = sink->len = 0;
	n = MIN(len, sink->size);
	buffer_put(sink, buf, n);
	kept = MIN(old_len, sink->size - sink->len);
	buffer_put(sink, old, kept);
	if (n + kept < len + old_len)
		sink_lose(sink, len + old_len - n - kept);
	g_mutex_unlock(&sink->lock);
}

void sink_hold(struct sink *sink, uint64_t deadline_ns)
{
	bool waits = true;

	g_mutex_lock(&sink->lock);
	sink->held = true;
	eventfd_signal(sink->wake_fd);
	while (waits && sink->write_ns &&
	       clock_now_ns() - sink->write_ns < SINK_RETRY_MS * NS_PER_MSEC)
		waits = g_cond_wait_until(&sink->changed, &sink->lock, deadline_ns / NS_PER_USEC);
	g_mutex_unlock(&sink->lock);
}

void sink_release(struct sink *sink)
{
	g_mutex_lock(&sink->lock);
	sink->held = false;
	sink->idle_ns = clock_now_ns();
	sink_stir(sink);
	g_mutex_unlock(&sink->lock);
}

size_t sink_unsent(struct sink *sink, uint8_t *buf, size_t max)
{
	size_t n, skip;

	g_mutex_lock(&sink->lock);
	skip = sink->flight_bytes;
	sink->start = (sink->start + skip) % sink->size;
	sink->len -= skip;
	n = buffer_get(sink, buf, max);
	sink->start = (sink->start + sink->size - skip) % sink->size;
	sink->len += skip;
	g_mutex_unlock(&sink->lock);
	return n;
}

/* Lock held. */
static void sink_await_empty(struct sink *sink, uint64_t deadline_ns)
{
	bool waits = true;

	while (waits && sink->running && sink->len > 0 && !sink->held && !sink_stalled(sink))
		waits = g_cond_wait_until(&sink->changed, &sink->lock, deadline_ns / NS_PER_USEC);
}

void sink_flush(struct sink *sink, uint64_t deadline_ns)
{
	g_mutex_lock(&sink->lock);
	sink_await_empty(sink, deadline_ns);
	g_mutex_unlock(&sink->lock);
}

uint64_t sink_lost_bytes(struct sink *sink)
{
	uint64_t n;

	g_mutex_lock(&sink->lock);
	n = sink->lost_bytes;
	g_mutex_unlock(&sink->lock);
	return n;
}

void sink_free(struct sink *sink, uint32_t flush_ms)
{
	gint64 until_us;
	bool waits = true;
	GThread *thread;
	bool stuck;

	if (!sink)
		return;
	if (flush_ms)
		sink_release(sink);
	g_mutex_lock(&sink->lock);
	if (flush_ms)
		sink_await_empty(sink, clock_deadline_ms(flush_ms));
	sink->closing = true;
	g_cond_broadcast(&sink->changed);
	eventfd_signal(sink->wake_fd);
	until_us = g_get_monotonic_time() + SINK_RETRY_MS * G_TIME_SPAN_MILLISECOND;
	while (waits && sink->running)
		waits = g_cond_wait_until(&sink->changed, &sink->lock, until_us);
	thread = sink->thread;
	stuck = sink->running;
	g_mutex_unlock(&sink->lock);
	if (thread && stuck)
		g_thread_unref(thread);
	else if (thread)
		g_thread_join(thread);
	sink_unref(sink);
}
