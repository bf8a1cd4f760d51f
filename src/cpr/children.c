// Children that are still to be reaped, if need be by the program after the next exec.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/children.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"

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

/* Reap whoever has ended; orphans of the namespace come to process 1, too. */
static void reap_until(pid_t pid)
{
	int status;

	for (;;) {
		pid_t ended = waitpid(-1, &status, WNOHANG);

		if (ended == pid)
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
		if (ended <= 0)
			return;
	}
}

void children_serve_as_init(pid_t pid)
{
	static const int told[] = {SIGTERM, SIGINT, SIGHUP};
	sigset_t set;
	int number;

	if (getpid() != 1)
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (size_t i = 0; i < G_N_ELEMENTS(told); i++)
		sigaddset(&set, told[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (;;) {
		reap_until(pid);
		number = sigwaitinfo(&set, NULL);
		if (number > 0 && number != SIGCHLD)
			kill(pid, number);
	}
}
