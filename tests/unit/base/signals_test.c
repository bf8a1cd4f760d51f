// Signals that end the process: pending over execve(), told once, never fatal; writes fail instead.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"
#include "base/signals.h"

#define AFTER_EXEC "--after-exec"

static unsigned int n_told;

static void told(void *opaque)
{
	n_told++;
}

static void iterate(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		;
}

static void test_told_in_the_loop(void)
{
	g_autoptr(GError) error = NULL;
	GSource *watch;

	signals_hold();
	raise(SIGTERM);
	raise(SIGHUP);
	watch = signals_watch(told, NULL, &error);
	g_assert_no_error(error);
	g_assert_cmpuint(n_told, ==, 0);
	iterate();
	g_assert_cmpuint(n_told, ==, 2);
	iterate();
	g_assert_cmpuint(n_told, ==, 2);
	loop_unwatch(&watch);
}

/* A wait outside of the loop ends, and the signal is still there for the loop. */
static void test_poll(void)
{
	int ends[2];
	GSource *watch;

	g_assert_cmpint(pipe(ends), ==, 0);
	g_assert_cmpint(signals_poll(ends[0], POLLIN, clock_deadline_ms(1)), ==, 0);
	raise(SIGINT);
	g_assert_cmpint(signals_poll(ends[0], POLLIN, 0), ==, -1);
	g_assert_cmpint(errno, ==, EINTR);
	g_assert_cmpint(write(ends[1], "x", 1), ==, 1);
	g_assert_cmpint(signals_poll(ends[0], POLLIN, 0), ==, POLLIN);
	n_told = 0;
	watch = signals_watch(told, NULL, NULL);
	iterate();
	g_assert_cmpuint(n_told, ==, 1);
	loop_unwatch(&watch);
	close(ends[0]);
	close(ends[1]);
}

/* In the child: SIGTERM has come before this program began. */
static int after_exec(void)
{
	GSource *watch;

	signals_hold();
	watch = signals_watch(told, NULL, NULL);
	iterate();
	loop_unwatch(&watch);
	return n_told == 1 ? 0 : 1;
}

static void test_over_exec(gconstpointer self)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		signals_hold();
		raise(SIGTERM);
		execl(self, self, AFTER_EXEC, NULL);
		_exit(99);
	}
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_cmpint(status, ==, 0);
}

static void test_file_size(void)
{
	const struct rlimit none = {0, 0};
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		FILE *file = tmpfile();

		signals_hold();
		setrlimit(RLIMIT_FSIZE, &none);
		_exit(write(fileno(file), "x", 1) < 0 && errno == EFBIG ? 0 : 1);
	}
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_cmpint(status, ==, 0);
}

int main(int argc, char **argv)
{
	g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);

	if (argc == 2 && strcmp(argv[1], AFTER_EXEC) == 0)
		return after_exec();
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/signals/told-in-the-loop", test_told_in_the_loop);
	g_test_add_func("/signals/poll", test_poll);
	g_test_add_data_func("/signals/over-exec", self, test_over_exec);
	g_test_add_func("/signals/file-size", test_file_size);
	return g_test_run();
}
