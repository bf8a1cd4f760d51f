// Threads: made with patience, and what the kernel says of one.
// SPDX-License-Identifier: Apache-2.0
#include "base/thread.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/signals.h"

/* How often it is tried, and how many times from one beat to the next. */
#define AGAIN_US       2000
#define TRIES_PER_BEAT 50

/** struct patience_for_threads - See thread_set_patience(); @tries_left: UINT32_MAX: without end */
static struct patience_for_threads {
	uint32_t tries_left;
	void (*beat)(void *opaque);
	void *opaque;
} patience;

void thread_set_patience(uint32_t ms, void (*beat)(void *opaque), void *opaque)
{
	const uint32_t tries = ms == THREAD_FOR_EVER ? UINT32_MAX : ms * 1000 / AGAIN_US;

	patience = (struct patience_for_threads){tries, beat, opaque};
}

/* Whether thread_new() is to go on; else @error, from @why. */
static bool wait_for_room(const char *name, unsigned int n_tries, const GError *why, GError **error)
{
	if (!patience.tries_left) {
		g_propagate_error(error, g_error_copy(why));
		return false;
	}
	if (signals_pending())
		return error_set(error, MOLT_ERROR_TOLD_TO_END,
				 "told to end while there was no room for thread '%s'", name);
	if (n_tries == 0)
		log_warn("no room for thread '%s' (%s): raise pids.max, RLIMIT_NPROC or "
			 "threads-max; trying again",
			 name, why->message);
	if (patience.beat && n_tries % TRIES_PER_BEAT == 0)
		patience.beat(patience.opaque);
	if (patience.tries_left != UINT32_MAX)
		patience.tries_left--;
	g_usleep(AGAIN_US);
	return true;
}

GThread *thread_new(const char *name, GThreadFunc run, void *opaque, GError **error)
{
	for (unsigned int n_tries = 0;; n_tries++) {
		g_autoptr(GError) why = NULL;
		GThread *thread = g_thread_try_new(name, run, opaque, &why);

		if (thread)
			return thread;
		if (!wait_for_room(name, n_tries, why, error))
			return NULL;
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
