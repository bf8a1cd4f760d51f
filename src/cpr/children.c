// Children that are still to be reaped, if need be by the program after the next exec.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/children.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/signals.h"

/** struct reaping - One child that is waited for; @children: where its pid is listed */
struct reaping {
	GArray *children;
	pid_t pid;
	void (*then)(void);
};

void children_remove(GArray *children, pid_t pid)
{
	for (guint i = 0; i < children->len; i++)
		if (g_array_index(children, pid_t, i) == pid)
			g_array_remove_index(children, i--);
}

void children_add(GArray *children, pid_t pid)
{
	children_remove(children, pid);
	g_array_append_val(children, pid);
}

static gboolean gone(int fd, GIOCondition condition, void *opaque)
{
	struct reaping *reaping = opaque;

	(void)waitpid(reaping->pid, NULL, WNOHANG);
	children_remove(reaping->children, reaping->pid);
	if (reaping->then)
		reaping->then();
	g_array_unref(reaping->children);
	g_free(reaping);
	close(fd);
	return G_SOURCE_REMOVE;
}

void children_reap(GArray *children, pid_t pid, void (*then)(void))
{
	int fd = pid == getpid() ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	struct reaping *reaping;

	if (fd < 0 && then)
		then();
	if (fd < 0)
		return;
	reaping = g_new(struct reaping, 1);
	*reaping = (struct reaping){g_array_ref(children), pid, then};
	children_add(children, pid);
	g_source_unref(loop_watch_fd(NULL, fd, G_IO_IN, gone, reaping));
}

/* Whoever has the guest ends last: its predecessors' guardians and programs are all children by then. */
static void reap_until_none(int *status)
{
	pid_t ended;

	do
		ended = waitpid(-1, status, WNOHANG);
	while (ended > 0);
	if (ended < 0 && errno == ECHILD)
		_exit(WIFEXITED(*status) ? WEXITSTATUS(*status) : EXIT_FAILURE);
}

/* What it has open is the guest's no more: the guest's process decides how long a lock is held. */
static void *close_all(void *opaque)
{
	(void)close_range(STDERR_FILENO + 1, ~0U, 0);
	return NULL;
}

static bool close_on_thread(void)
{
	g_autoptr(GThread) thread = g_thread_try_new("close", close_all, NULL, NULL);

	return thread;
}

void children_serve_as_init(void)
{
	const struct timespec again = {.tv_sec = 1}, *wait = &again;
	int number, status = W_EXITCODE(EXIT_FAILURE, 0);
	sigset_t set;

	if (getpid() != 1)
		return;
	signals_mask(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (;;) {
		/* A store may hang, and this process must reap; there may be room for a thread later. */
		if (wait && close_on_thread())
			wait = NULL;
		reap_until_none(&status);
		number = wait ? sigtimedwait(&set, NULL, wait) : sigwaitinfo(&set, NULL);
		if (number > 0 && number != SIGCHLD)
			kill(-1, number);
	}
}
