// Character devices: output from any thread, without blocking.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "backend/chardev/chardev_priv.h"
#include "base/fd.h"
#include "base/loop.h"

/* A pipe or terminal that poll() calls writable takes at least this much without blocking. */
#define BLOCKING_WRITE_BYTES 256

void chardev_output_drop(struct chardev *chardev)
{
	g_byte_array_set_size(chardev->pending, 0);
	chardev->pending_start = 0;
}

/* ---- waking the main thread ---- */

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
	chardev_notify(chardev);
	chardev_poll_input(chardev);
	return G_SOURCE_CONTINUE;
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

/* ---- writing ---- */

static ssize_t chardev_write_fd(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	struct pollfd p = {.fd = chardev->out_fd, .events = POLLOUT};

	if (chardev->ops->write)
		return chardev->ops->write(chardev, buf, len);
	if (chardev->out_blocking) {
		if (poll(&p, 1, 0) <= 0) {
			errno = EAGAIN;
			return -1;
		}
		len = MIN(len, BLOCKING_WRITE_BYTES);
	}
	return write(chardev->out_fd, buf, len);
}

/* Write as much as there is room for.  Return: bytes taken; all of them once the peer is lost. */
static size_t chardev_write_some(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = chardev_write_fd(chardev, buf + done, len - done);

		if (n > 0) {
			done += n;
		} else if (n == 0 || errno == EAGAIN) {
			break;
		} else if (errno != EINTR) {
			chardev_lose(chardev);
			return len;
		}
	}
	return done;
}

static void chardev_log(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	/* A full disk must not stop the guest's console. */
	if (chardev->log_fd >= 0 && len > 0)
		(void)fd_write_all(chardev->log_fd, buf, len, NULL);
}

static void chardev_flush_pending(struct chardev *chardev)
{
	GByteArray *pending = chardev->pending;
	size_t left = pending->len - chardev->pending_start;
	size_t done;

	if (left == 0)
		return;
	done = chardev_write_some(chardev, pending->data + chardev->pending_start, left);
	if (done == left || chardev->lost)
		chardev_output_drop(chardev);
	else
		chardev->pending_start += done;
}

static gboolean chardev_writable(int fd, GIOCondition condition, void *opaque)
{
	struct chardev *chardev = opaque;
	bool drained, want_room, closing;

	g_mutex_lock(&chardev->lock);
	chardev_flush_pending(chardev);
	drained = chardev->pending->len == chardev->pending_start;
	closing = chardev->closing;
	want_room = drained && chardev->want_room;
	if (drained) {
		loop_unwatch(&chardev->out_watch);
		chardev->want_room = false;
	}
	g_mutex_unlock(&chardev->lock);
	if (drained && closing)
		chardev_hangup(chardev);
	for (unsigned int i = 0; want_room && i < chardev->n_links; i++)
		if (chardev->links[i]->frontend->writable)
			chardev->links[i]->frontend->writable(chardev->links[i]->opaque);
	return G_SOURCE_CONTINUE;
}

static void chardev_await_room(struct chardev *chardev)
{
	if (!chardev->out_watch && !chardev->quiesced && chardev->out_fd >= 0)
		chardev->out_watch =
			loop_watch_fd(NULL, chardev->out_fd, G_IO_OUT, chardev_writable, chardev);
}

static void chardev_keep(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	size_t left = chardev->pending->len - chardev->pending_start;

	if (len > CHARDEV_PENDING_BYTES - MIN(left, CHARDEV_PENDING_BYTES)) {
		chardev_lose(chardev);
		return;
	}
	if (chardev->pending_start > left) {
		g_byte_array_remove_range(chardev->pending, 0, chardev->pending_start);
		chardev->pending_start = 0;
	}
	g_byte_array_append(chardev->pending, buf, len);
}

static size_t chardev_output_locked(struct chardev *chardev, const uint8_t *buf, size_t len,
				    bool keep)
{
	size_t done = 0;

	if (!chardev->connected || chardev->lost || (chardev->out_fd < 0 && !chardev->ops->write))
		return len;
	if (!chardev->started && chardev->out_fd >= 0) {
		chardev_keep(chardev, buf, len);
		return len;
	}
	chardev_flush_pending(chardev);
	if (chardev->pending->len == chardev->pending_start)
		done = chardev_write_some(chardev, buf, len);
	if (keep && done < len) {
		chardev_keep(chardev, buf + done, len - done);
		done = len;
	} else if (done < len) {
		chardev->want_room = true;
	}
	if (chardev->want_room || chardev->pending->len > chardev->pending_start)
		chardev_await_room(chardev);
	return done;
}

size_t chardev_output(struct chardev *chardev, const uint8_t *buf, size_t len, bool keep)
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
	g_mutex_unlock(&chardev->lock);
}

void chardev_output_stop(struct chardev *chardev)
{
	g_mutex_lock(&chardev->lock);
	loop_unwatch(&chardev->out_watch);
	g_mutex_unlock(&chardev->lock);
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
		again = again && fd_poll(fd, POLLOUT, deadline_ns) > 0;
	}
}
