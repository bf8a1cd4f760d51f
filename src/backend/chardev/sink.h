// Sinks: output to what may block its writer, written by a thread from a bounded buffer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * O_NONBLOCK means nothing to a regular file, and may not be set on an open file that others share.
 * So output to those goes into a buffer that a thread of the sink's own writes.  The lock is never
 * held while it does.
 *
 * The rule for what a slow, full or failing sink costs.  While the buffer is full the writer is
 * asked to wait, as by flow control.  A sink that has taken nothing for SINK_STALL_MS, or whose last
 * write failed, is stalled: it keeps what it has, and what does not fit is dropped and counted.  It
 * tries again all the time; when it takes something, the buffer is written and everything goes on.
 * One line in the log tells of the beginning, one of the end with the number of bytes lost.
 *
 * Update.  sink_hold() lets a write in progress end and begins no other; sink_unsent() is then what
 * a successor has to write.  A write that does not end in time counts as done.
 */

/** SINK_STALL_MS - A sink that takes nothing for so long asks nobody to wait any more */
#define SINK_STALL_MS 1000

struct sink;

/**
 * sink_new() - A sink for @fd, which is duplicated; held until sink_release()
 * @what:	What messages call it
 * @size_bytes:	Of its buffer
 * @progress:	Given a ready time of 0 when there is room that somebody was refused, and when it
 *		stalls; a reference is taken
 *
 * Return: NULL with @error set.
 */
struct sink *sink_new(const char *what, int fd, size_t size_bytes, GSource *progress,
		      GError **error);

/**
 * sink_free() - Write what is there, @flush_ms at most, and end; accepts NULL
 *
 * What is stalled is not waited for.  A thread that the kernel does not let go of ends by itself.
 */
void sink_free(struct sink *sink, uint32_t flush_ms);

/** sink_needed() - Whether writes to @fd can block, whatever its flags say. */
bool sink_needed(int fd);

/**
 * sink_write() - Take bytes for writing; any thread, never waits
 * @may_wait:	The caller can keep what is not taken
 *
 * Return: bytes taken or dropped: less than @len only with @may_wait, while the sink is not stalled.
 */
size_t sink_write(struct sink *sink, const uint8_t *buf, size_t len, bool may_wait);

/** sink_has_room() - Whether sink_write() would take something, or drop it. */
bool sink_has_room(struct sink *sink);

/** sink_prepend() - Put what a predecessor left before everything else; while held. */
void sink_prepend(struct sink *sink, const uint8_t *buf, size_t len);

/** sink_hold() - Begin no write; wait for one in progress, unless it is stuck.  Main thread. */
void sink_hold(struct sink *sink, uint64_t deadline_ns);

/** sink_release() - Undo sink_hold(), or begin. */
void sink_release(struct sink *sink);

/** sink_unsent() - Copy what is not written to @buf, @max at most; while held.  Return: how much. */
size_t sink_unsent(struct sink *sink, uint8_t *buf, size_t max);

/** sink_flush() - Wait until everything is written, @deadline_ns at most, unless it is stalled. */
void sink_flush(struct sink *sink, uint64_t deadline_ns);

/** sink_lost_bytes() - Bytes dropped so far. */
uint64_t sink_lost_bytes(struct sink *sink);
