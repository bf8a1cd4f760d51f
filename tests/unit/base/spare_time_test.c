// Tests of base/spare_time: who does the work, by which policy, and that it never starves.
// SPDX-License-Identifier: Apache-2.0
#include "base/spare_time.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <glib.h>

#include "base/clock.h"

#define ENOUGH_NS (30 * NS_PER_SEC)

/* What the work saw of itself. */
struct seen {
	unsigned int calls;
	pthread_t thread;
	int first_policy, last_policy;
	bool wait_for_change;
};

static void work(void *opaque)
{
	const uint64_t end_ns = clock_now_ns() + ENOUGH_NS;
	struct seen *seen = opaque;

	seen->calls++;
	seen->thread = pthread_self();
	seen->first_policy = seen->last_policy = sched_getscheduler(0);
	while (seen->wait_for_change && seen->last_policy == SCHED_IDLE && clock_now_ns() < end_ns)
		seen->last_policy = sched_getscheduler(0);
}

static int run_in_child(int (*fn)(void))
{
	int status;
	pid_t child = fork();

	g_assert_cmpint(child, >=, 0);
	if (child == 0)
		_exit(fn());
	g_assert_cmpint(waitpid(child, &status, 0), ==, child);
	g_assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int come_back(void)
{
	const struct sched_param none = {0};

	return sched_setscheduler(0, SCHED_IDLE, &none) != 0 ||
	       sched_setscheduler(0, SCHED_OTHER, &none) != 0;
}

/* A container's root may not, nor most other users: sched(7). */
static bool can_come_back(void)
{
	return run_in_child(come_back) == 0;
}

static void test_runs_as_idle(void)
{
	struct seen seen = {0};

	spare_time_run(work, &seen);
	g_assert_cmpuint(seen.calls, ==, 1);
	g_assert_cmpint(seen.first_policy, ==, can_come_back() ? SCHED_IDLE : SCHED_OTHER);
	g_assert_cmpint(sched_getscheduler(0), ==, SCHED_OTHER);
}

static void *busy(void *opaque)
{
	const bool *stop = opaque;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
		;
	return NULL;
}

/* On the only processor there is another thread that always wants it. */
static void test_goes_on_where_nothing_is_spare(void)
{
	struct seen seen = {.wait_for_change = true};
	cpu_set_t before, one;
	bool stop = false;
	pthread_t thread;

	if (!can_come_back()) {
		g_test_skip("this user may not leave SCHED_IDLE");
		return;
	}
	g_assert_cmpint(sched_getaffinity(0, sizeof(before), &before), ==, 0);
	CPU_ZERO(&one);
	for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
		if (CPU_ISSET(cpu, &before))
			CPU_SET(cpu, &one);
	g_assert_cmpint(sched_setaffinity(0, sizeof(one), &one), ==, 0);
	g_assert_cmpint(pthread_create(&thread, NULL, busy, &stop), ==, 0);
	spare_time_run(work, &seen);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	g_assert_cmpint(sched_setaffinity(0, sizeof(before), &before), ==, 0);
	g_assert_cmpuint(seen.calls, ==, 1);
	g_assert_cmpint(seen.first_policy, ==, SCHED_IDLE);
	g_assert_cmpint(seen.last_policy, ==, SCHED_OTHER);
}

/* Run in a child that has neither the capability nor the limit. */
static int run_as_nobody(void)
{
	const struct rlimit none = {0};
	struct seen seen = {0};

	if (setrlimit(RLIMIT_NICE, &none) != 0 || (geteuid() == 0 && setuid(65534) != 0))
		return 2;
	spare_time_run(work, &seen);
	return seen.calls == 1 && seen.first_policy == SCHED_OTHER &&
			       pthread_equal(seen.thread, pthread_self())
		       ? 0
		       : 1;
}

static void test_is_called_where_there_is_no_way_back(void)
{
	g_assert_cmpint(run_in_child(run_as_nobody), ==, 0);
}

/* A caller that an administrator gave another policy keeps it. */
static void test_another_policy_is_left_alone(void)
{
	const struct sched_param none = {0};
	struct seen seen = {0};

	g_assert_cmpint(sched_setscheduler(0, SCHED_BATCH, &none), ==, 0);
	spare_time_run(work, &seen);
	g_assert_cmpint(seen.first_policy, ==, SCHED_BATCH);
	g_assert_true(pthread_equal(seen.thread, pthread_self()));
	g_assert_cmpint(sched_setscheduler(0, SCHED_OTHER, &none), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/base/spare_time/runs_as_idle", test_runs_as_idle);
	g_test_add_func("/base/spare_time/goes_on_where_nothing_is_spare",
			test_goes_on_where_nothing_is_spare);
	g_test_add_func("/base/spare_time/is_called_where_there_is_no_way_back",
			test_is_called_where_there_is_no_way_back);
	g_test_add_func("/base/spare_time/another_policy_is_left_alone",
			test_another_policy_is_left_alone);
	return g_test_run();
}
