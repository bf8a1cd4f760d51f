// One line per message on stderr, never waiting for its reader; a rate limit for what repeats.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * stderr is often a pipe or a terminal that others share, and whose reader may be slow or gone: a
 * write to it may wait for ever, and O_NONBLOCK would reach everybody who has the same open file.
 * So a message becomes a line of a bounded queue, and a thread of the log's own writes: one
 * write() per line, in order, so that lines of several threads and processes do not mix.  The
 * queue's lock is never held while something is written.
 *
 * A line that the queue has no room for is dropped and counted; when there is room again, a line
 * says how many were lost, at the place where they are missing.
 *
 * The thread begins with the first message, and anew in a child of fork().  log_flush() gives it a
 * short time at the end of the process and before what would end the thread (execve()).  Where no
 * thread can be made the caller writes what poll() says can be written.
 *
 * A message is one line: newlines in it become "; ", other control characters "\xNN".
 */

/** LOG_QUEUE_BYTES - What the queue has room for */
#define LOG_QUEUE_BYTES (64U << 10)

/** LOG_LINE_BYTES - No line is longer, its newline included: what a pipe takes in one piece */
#define LOG_LINE_BYTES 4096

/** log_error() - "molt: message" on stderr: something was refused or failed.  Any thread. */
void log_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** log_warn() - "molt: warning: message" on stderr.  Any thread. */
void log_warn(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** log_info() - "molt: message" on stderr: an event an operator wants to find later.  Any thread.
 */
void log_info(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** log_plain() - "message" alone on stderr: what scripts look for as QEMU writes it.  Any thread. */
void log_plain(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/**
 * struct log_limit - How often one source may log: five messages a second, then a count
 * @window_ns:	Start of the current second
 * @n:		Messages in it
 *
 * Zero-initialised; may end before its count is told.  Guarded by the log's lock.
 */
struct log_limit {
	uint64_t window_ns;
	uint32_t n;
};

/**
 * log_guest() - "molt: guest: message" under @limit, for what a guest provokes.  Any thread.
 *
 * What is not said is counted, and the count told at the end of the second, also when nothing
 * follows.
 */
void log_guest(struct log_limit *limit, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/** log_rated() - log_warn() under @limit, for what a peer or the host may repeat.  Any thread. */
void log_rated(struct log_limit *limit, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/** LOG_EXEC_MS - What execve(), which ends the writer, waits for lines of the last moment */
#define LOG_EXEC_MS 10

/**
 * log_flush() - Wait until everything said so far is written, @ms at most
 *
 * Without waiting if the writer has been stuck for longer already.  At exit() it is called by
 * itself; before execve() and before stderr becomes another file by who does that.
 * Return: whether it is.
 */
bool log_flush(uint32_t ms);
