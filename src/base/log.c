// One line per message on stderr, and a rate limit for what a guest can provoke.
// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

#define LOG_GUEST_PER_SEC 5

/* One write() per line, so that lines of several threads and processes do not mix. */
static void G_GNUC_PRINTF(2, 0) log_line(const char *level, const char *fmt, va_list ap)
{
	char line[1024];
	int head = snprintf(line, sizeof(line), "molt: %s", level);
	int n = vsnprintf(line + head, sizeof(line) - head - 1, fmt, ap);
	size_t len = MIN((size_t)(head + MAX(n, 0)), sizeof(line) - 2);
	ssize_t ignored;

	line[len++] = '\n';
	ignored = write(STDERR_FILENO, line, len);
	(void)ignored;
}

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line("", fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line("warning: ", fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line("", fmt, ap);
	va_end(ap);
}

void log_guest(struct log_limit *limit, const char *fmt, ...)
{
	uint64_t now = clock_now_ns();
	va_list ap;

	if (now - limit->window_ns >= NS_PER_SEC) {
		if (limit->n > LOG_GUEST_PER_SEC)
			log_warn("(%u more messages of this kind)", limit->n - LOG_GUEST_PER_SEC);
		limit->window_ns = now;
		limit->n = 0;
	}
	if (limit->n++ >= LOG_GUEST_PER_SEC)
		return;
	va_start(ap, fmt);
	log_line("guest: ", fmt, ap);
	va_end(ap);
}
