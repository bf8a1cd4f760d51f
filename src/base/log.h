// One line per message on stderr, and a rate limit for what a guest can provoke.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>
#include <glib.h>

/** log_error() - "molt: message" on stderr: something was refused or failed.  Any thread. */
void log_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** log_warn() - "molt: warning: message" on stderr.  Any thread. */
void log_warn(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/** log_info() - "molt: message" on stderr: an event an operator wants to find later.  Any thread.
 */
void log_info(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/**
 * struct log_limit - How often one source may log: five messages a second, then a count
 * @window_ns:	Start of the current second
 * @n:		Messages in it
 *
 * Zero-initialised.  A race between threads costs at most one line more or less.
 */
struct log_limit {
	uint64_t window_ns;
	uint32_t n;
};

/** log_guest() - log_warn() under @limit, for what a guest provokes.  Any thread. */
void log_guest(struct log_limit *limit, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
