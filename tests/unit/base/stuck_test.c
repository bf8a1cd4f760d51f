// Calls that may not come back: the oldest is found, under its name, from whatever thread.
// SPDX-License-Identifier: Apache-2.0
#include "base/stuck.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <glib.h>

#define N_THREADS 8
#define N_ROUNDS  20000

static char what[STUCK_NAME_BYTES];

/* Until a call that began before is older than @min_ns. */
static void wait_oldest(uint64_t min_ns)
{
	while (!stuck_oldest(min_ns, what))
		g_thread_yield();
}

static void test_oldest(void)
{
	int first, second;

	g_assert_cmpuint(stuck_oldest(0, what), ==, 0);
	first = stuck_begin("the first");
	wait_oldest(NS_PER_MSEC);
	second = stuck_begin("the second");
	wait_oldest(2 * NS_PER_MSEC);
	g_assert_cmpstr(what, ==, "the first");
	g_assert_cmpuint(stuck_oldest(NS_PER_SEC * 3600, what), ==, 0);
	stuck_end(first);
	wait_oldest(NS_PER_MSEC);
	g_assert_cmpstr(what, ==, "the second");
	stuck_end(second);
	g_assert_cmpuint(stuck_oldest(0, what), ==, 0);
}

static void test_long_name(void)
{
	g_autofree char *name = g_strnfill(2 * STUCK_NAME_BYTES, 'x');
	int call = stuck_begin(name);

	wait_oldest(1);
	g_assert_cmpuint(strlen(what), ==, STUCK_NAME_BYTES - 1);
	stuck_end(call);
	/* Two bytes each after the first: the last would be cut in two. */
	memcpy(name, "xx", 2);
	for (int i = 2; i < 2 * STUCK_NAME_BYTES; i += 2)
		memcpy(name + i, "\u00e4", 2);
	call = stuck_begin(name);
	wait_oldest(1);
	g_assert_true(g_utf8_validate(what, -1, NULL));
	stuck_end(call);
}

static void test_too_many(void)
{
	int calls[STUCK_CALLS];

	for (int i = 0; i < STUCK_CALLS; i++)
		g_assert_cmpint(calls[i] = stuck_begin("many"), >=, 0);
	g_assert_cmpint(stuck_begin("one more"), ==, -1);
	stuck_end(-1);
	for (int i = 0; i < STUCK_CALLS; i++)
		stuck_end(calls[i]);
	g_assert_cmpuint(stuck_oldest(0, what), ==, 0);
}

/* What another thread of the parent waits for does not hold the child. */
static void test_fork(void)
{
	int call = stuck_begin("a thread of the parent");
	int status;
	pid_t pid;

	wait_oldest(1);
	pid = fork();
	if (pid == 0)
		_exit(stuck_oldest(0, what) != 0);
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_cmpint(status, ==, 0);
	g_assert_cmpuint(stuck_oldest(0, what), >, 0);
	stuck_end(call);
}

/* Names of one letter, as long as they can be, so that a mixture shows. */
static void *begin_and_end(void *letter)
{
	char name[STUCK_NAME_BYTES];

	memset(name, GPOINTER_TO_INT(letter), sizeof(name));
	name[STUCK_NAME_BYTES - 1] = 0;
	for (int i = 0; i < N_ROUNDS; i++) {
		int call = stuck_begin(name);

		/* Asleep now and then, as one that does not run is looked at only. */
		if (i % 16 == 0)
			g_usleep(1);
		stuck_end(call);
	}
	return NULL;
}

static int goes_on = 1;
static int begun;

static void *work_on(void *unused)
{
	int call = stuck_begin("work");

	g_atomic_int_set(&begun, 1);
	while (g_atomic_int_get(&goes_on))
		;
	stuck_end(call);
	return NULL;
}

static void *sleep_on(void *pipe)
{
	int call = stuck_begin("a store");
	char byte;

	g_assert_cmpint(read(*(int *)pipe, &byte, 1), ==, 0);
	stuck_end(call);
	return NULL;
}

/* However long ago it began by the clock, a thread that has work to do is not stuck; one that sleeps is. */
static void test_busy_host(void)
{
	GThread *works = g_thread_new("works", work_on, NULL), *sleeps;
	int pipe_fds[2];

	while (!g_atomic_int_get(&begun))
		g_thread_yield();
	for (int i = 0; i < 100; i++) {
		g_usleep(100);
		g_assert_cmpuint(stuck_oldest(1, what), ==, 0);
	}
	g_assert_cmpint(pipe(pipe_fds), ==, 0);
	sleeps = g_thread_new("sleeps", sleep_on, pipe_fds);
	wait_oldest(1);
	g_assert_cmpstr(what, ==, "a store");
	g_atomic_int_set(&goes_on, 0);
	close(pipe_fds[1]);
	g_thread_join(works);
	g_thread_join(sleeps);
	close(pipe_fds[0]);
	g_assert_cmpuint(stuck_oldest(0, what), ==, 0);
}

static void test_threads(void)
{
	GThread *threads[N_THREADS];

	for (int i = 0; i < N_THREADS; i++)
		threads[i] = g_thread_new("test", begin_and_end, GINT_TO_POINTER('a' + i));
	for (int i = 0; i < N_ROUNDS; i++)
		if (stuck_oldest(0, what))
			g_assert_cmpuint(strspn(what, (char[]){what[0], 0}), ==,
					 STUCK_NAME_BYTES - 1);
	for (int i = 0; i < N_THREADS; i++)
		g_thread_join(threads[i]);
	g_assert_cmpuint(stuck_oldest(0, what), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/stuck/oldest", test_oldest);
	g_test_add_func("/stuck/long-name", test_long_name);
	g_test_add_func("/stuck/too-many", test_too_many);
	g_test_add_func("/stuck/fork", test_fork);
	g_test_add_func("/stuck/threads", test_threads);
	g_test_add_func("/stuck/busy-host", test_busy_host);
	return g_test_run();
}
