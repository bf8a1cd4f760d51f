// What the kernel says of a thread.
// SPDX-License-Identifier: Apache-2.0
#include "base/thread.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

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
