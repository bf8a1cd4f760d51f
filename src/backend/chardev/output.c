// Character devices: output from any thread, without blocking.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "backend/chardev/chardev_priv.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "options/text.h"

/* The end of the process waits this long for a file to take what is left. */
#define SINK_FLUSH_MS 500

void chardev_output_drop(struct chardev *chardev)
{
	g_byte_array_set_size(chardev->pending, 0);
	chardev->pending_start = 0;
}

void chardev_wake(struct chardev *chardev)
{
	g_source_set_ready_time(chardev->kick, 0);
}

static void chardev_lose(struct chardev *chardev)
{
	chardev->lost = true;
	chardev_output_drop(chardev);
	chardev_wake(chardev);
}

void chardev_drop(struct chardev *chardev, size_t len, const char *why)
{
	chardev->lost_bytes += len;
	if (!chardev->failing)
		log_rated(&chardev->log, "chardev '%s' takes no output (%s); it is lost",
			  chardev->config.id, why);
	chardev->failing = true;
}

static void chardev_works(struct chardev *chardev)
{
	chardev->failing = false;
	log_rated(&chardev->log,
		  "chardev '%s' takes output again; %" G_GUINT64_FORMAT " bytes were lost so far",
		  chardev->config.id, chardev->lost_bytes);
}

/* ---- writing ---- */

static ssize_t chardev_write_fd(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	if (chardev->ops->write)
		return chardev->ops->write(chardev, buf, len);
	if (chardev->sink)
		return sink_write(chardev->sink, buf, len, true);
	return write(chardev->out_fd, buf, len);
}

/*
 * Write as much as there is room for.  Return: bytes taken; all of them if the peer is lost, or if
 * the write failed and there is nobody to disconnect.
 */
static size_t chardev_write_fitting(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = chardev_write_fd(chardev, buf + done, len - done);

		if (n > 0) {
			done += n;
			if (chardev->failing)
				chardev_works(chardev);
		} else if (n == 0 || errno == EAGAIN) {
			break;
		} else if (errno != EINTR) {
			if (chardev->ops->hangup)
				chardev_lose(chardev);
			else
				chardev_drop(chardev, len - done, g_strerror(errno));
			return len;
		}
	}
	return done;
}

static void chardev_log(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	if (chardev->log_sink && len > 0)
		sink_write(chardev->log_sink, buf, len, false);
}

static void chardev_flush_pending(struct chardev *chardev)
{
	GByteArray *pending = chardev->pending;
	size_t left = pending->len - chardev->pending_start;
	size_t done;

	if (left == 0)
		return;
	done = chardev_write_fitting(chardev, pending->data + chardev->pending_start, left);
	if (done == left || chardev->lost)
		chardev_output_drop(chardev);
	else
		chardev->pending_start += done;
}

static gboolean chardev_writable(int fd, GIOCondition condition, void *opaque);

/* A sink tells by @kick that there is room; that it stalls, only time tells. */
static void chardev_await_room(struct chardev *chardev)
{
	if (chardev->quiesced)
		return;
	if (chardev->sink && g_source_get_ready_time(chardev->stall) < 0)
		g_source_set_ready_time(chardev->stall,
					g_get_monotonic_time() +
						SINK_STALL_MS * G_TIME_SPAN_MILLISECOND);
	else if (!chardev->sink && !chardev->out_watch && chardev->out_fd >= 0)
		chardev->out_watch =
			loop_watch_fd(NULL, chardev->out_fd, G_IO_OUT, chardev_writable, chardev);
}

/* There may be room: write what waits, then tell who was refused.  Main thread. */
static void chardev_go_on(struct chardev *chardev)
{
	bool drained, want_room, closing;

	g_mutex_lock(&chardev->lock);
	chardev_flush_pending(chardev);
	drained = chardev->pending->len == chardev->pending_start &&
		  (!chardev->want_room || !chardev->sink || sink_has_room(chardev->sink));
	closing = chardev->closing;
	want_room = drained && chardev->want_room;
	if (drained) {
		loop_unwatch(&chardev->out_watch);
		chardev->want_room = false;
	} else {
		chardev_await_room(chardev);
	}
	g_mutex_unlock(&chardev->lock);
	if (drained && closing)
		chardev_hangup(chardev);
	for (unsigned int i = 0; want_room && i < chardev->n_links; i++)
		if (chardev->links[i]->frontend->writable)
			chardev->links[i]->frontend->writable(chardev->links[i]->opaque);
}

static gboolean chardev_writable(int fd, GIOCondition condition, void *opaque)
{
	chardev_go_on(opaque);
	return G_SOURCE_CONTINUE;
}

/* ---- the main thread is woken ---- */

gboolean chardev_woken(void *opaque)
{
	struct chardev *chardev = opaque;
	bool lost;

	g_mutex_lock(&chardev->lock);
	lost = chardev->lost;
	g_mutex_unlock(&chardev->lock);
	if (chardev->quiesced)
		return G_SOURCE_CONTINUE;
	if (lost)
		chardev_hangup(chardev);
	if (chardev->sink)
		chardev_go_on(chardev);
	chardev_notify(chardev);
	chardev_poll_input(chardev);
	return G_SOURCE_CONTINUE;
}

/* Keep what there is no room for.  A peer that cannot be disconnected costs its bytes. */
static void chardev_keep(struct chardev *chardev, const uint8_t *buf, size_t len,
			 enum chardev_keep keep)
{
	size_t left = chardev->pending->len - chardev->pending_start;
	bool all = keep == CHARDEV_KEEP_ALL && chardev->ops->hangup;
	size_t max = all ? CHARDEV_PENDING_BYTES : CHARDEV_KEPT_BYTES;
	size_t n = MIN(len, max - MIN(left, max));

	if (n < len && all) {
		chardev_lose(chardev);
		return;
	}
	if (n < len)
		chardev_drop(chardev, len - n, "the peer does not take it");
	if (chardev->pending_start > left) {
		g_byte_array_remove_range(chardev->pending, 0, chardev->pending_start);
		chardev->pending_start = 0;
	}
	g_byte_array_append(chardev->pending, buf, n);
}

static size_t chardev_output_locked(struct chardev *chardev, const uint8_t *buf, size_t len,
				    enum chardev_keep keep)
{
	size_t done = 0;

	if (!chardev->connected || chardev->lost || (chardev->out_fd < 0 && !chardev->ops->write))
		return len;
	if (!chardev->started && chardev->out_fd >= 0) {
		chardev_keep(chardev, buf, len, CHARDEV_KEEP_ALL);
		return len;
	}
	chardev_flush_pending(chardev);
	if (chardev->pending->len == chardev->pending_start)
		done = chardev_write_fitting(chardev, buf, len);
	if (keep != CHARDEV_KEEP_NONE && done < len) {
		chardev_keep(chardev, buf + done, len - done, keep);
		done = len;
	} else if (done < len) {
		chardev->want_room = true;
	}
	if (chardev->want_room || chardev->pending->len > chardev->pending_start)
		chardev_await_room(chardev);
	return done;
}

size_t chardev_output(struct chardev *chardev, const uint8_t *buf, size_t len,
		      enum chardev_keep keep)
{
	size_t done;

	g_mutex_lock(&chardev->lock);
	done = chardev_output_locked(chardev, buf, len, keep);
	chardev_log(chardev, buf, done);
	g_mutex_unlock(&chardev->lock);
	return done;
}

void chardev_output_start(struct chardev *chardev)
{
	g_mutex_lock(&chardev->lock);
	if (!chardev->connected)
		chardev_output_drop(chardev);
	else if (!chardev->lost)
		chardev_flush_pending(chardev);
	if (chardev->want_room || chardev->pending->len > chardev->pending_start)
		chardev_await_room(chardev);
	if (chardev->sink)
		chardev_wake(chardev);
	g_mutex_unlock(&chardev->lock);
}

void chardev_output_stop(struct chardev *chardev)
{
	g_mutex_lock(&chardev->lock);
	loop_unwatch(&chardev->out_watch);
	g_mutex_unlock(&chardev->lock);
}

bool chardev_backlog(struct chardev_link *link, size_t max_bytes)
{
	struct chardev *chardev = link->chardev;
	bool more;

	g_mutex_lock(&chardev->lock);
	more = chardev->pending->len - chardev->pending_start > max_bytes;
	chardev->want_room = chardev->want_room || more;
	g_mutex_unlock(&chardev->lock);
	return more;
}

void chardev_flush(struct chardev_link *link, uint64_t deadline_ns)
{
	struct chardev *chardev = link->chardev;
	bool again = true;

	while (again) {
		int fd;

		g_mutex_lock(&chardev->lock);
		if (chardev->started && chardev->connected && !chardev->lost)
			chardev_flush_pending(chardev);
		fd = chardev->out_fd;
		again = chardev->started && chardev->connected && !chardev->lost && fd >= 0 &&
			chardev->pending->len > chardev->pending_start;
		g_mutex_unlock(&chardev->lock);
		if (again && chardev->sink)
			sink_flush(chardev->sink, deadline_ns);
		again = again && clock_now_ns() < deadline_ns &&
			fd_poll(fd, POLLOUT, deadline_ns) > 0;
	}
}

/* ---- sinks ---- */

static struct sink *chardev_sink(struct chardev *chardev, const char *path, int fd, size_t size,
				 GError **error)
{
	g_autofree char *shown = path ? text_printable(path) : NULL;
	g_autofree char *what = g_strdup_printf("chardev '%s'%s%s%s", chardev->config.id,
						shown ? ": '" : "", shown ? shown : "",
						shown ? "'" : "");

	return sink_new(what, fd, size, chardev->kick, error);
}

bool chardev_open_sinks(struct chardev *chardev, GError **error)
{
	const struct chardev_config *config = &chardev->config;

	if (chardev->out_fd >= 0 && !chardev->ops->write && sink_needed(chardev->out_fd)) {
		chardev->sink = chardev_sink(chardev, config->path, chardev->out_fd,
					     CHARDEV_UNSENT_BYTES, error);
		if (!chardev->sink)
			return false;
	}
	if (chardev->log_fd < 0)
		return true;
	chardev->log_sink =
		chardev_sink(chardev, config->logfile, chardev->log_fd, CHARDEV_LOG_BYTES, error);
	return chardev->log_sink;
}

void chardev_close_sinks(struct chardev *chardev, bool flush)
{
	uint64_t lost = chardev_lost_bytes(chardev);
	struct sink *sink, *log_sink;

	g_mutex_lock(&chardev->lock);
	if (flush && chardev->sink && chardev->started)
		chardev_flush_pending(chardev);
	sink = g_steal_pointer(&chardev->sink);
	log_sink = g_steal_pointer(&chardev->log_sink);
	chardev->lost_bytes = lost;
	g_mutex_unlock(&chardev->lock);
	sink_free(sink, flush ? SINK_FLUSH_MS : 0);
	sink_free(log_sink, flush ? SINK_FLUSH_MS : 0);
}
