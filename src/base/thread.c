// Threads: made with patience, and what the kernel says of one.
// SPDX-License-Identifier: Apache-2.0
#include "base/thread.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

/* How often it is tried. */
#define AGAIN_US 2000

static uint32_t patience_ms;

void thread_set_patience(uint32_t ms)
{
	patience_ms = ms;
}

static bool told_to_end(void)
{
	sigset_t set;

	return sigpending(&set) == 0 && (sigismember(&set, SIGTERM) || sigismember(&set, SIGINT) ||
					 sigismember(&set, SIGHUP));
}

GThread *thread_new(const char *name, GThreadFunc run, void *opaque, GError **error)
{
	const uint64_t end_ns = clock_deadline_ms(patience_ms);
	bool said = false;

	for (;;) {
		GError *why = NULL;
		GThread *thread = g_thread_try_new(name, run, opaque, &why);

		if (thread)
			return thread;
		if (!patience_ms || told_to_end() ||
		    (patience_ms != THREAD_FOR_EVER && clock_now_ns() >= end_ns)) {
			g_propagate_error(error, why);
			return NULL;
		}
		if (!said)
			log_warn("no room for thread '%s' (%s): raise pids.max, RLIMIT_NPROC or "
				 "threads-max; trying again",
				 name, why->message);
		said = true;
		g_error_free(why);
		g_usleep(AGAIN_US);
	}
}

bool thread_runs(pid_t tid)
{
	char path[64], text[256];
	const char *state;
	autofd int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return false;
	text[n] = 0;
	/* The name before it may have anything in it. */
	state = strrchr(text, ')');
	return state && strncmp(state, ") R", 3) == 0;
}
