// Patience: what counts is that nothing moves, in ticks, and in all.
// SPDX-License-Identifier: Apache-2.0
#include "base/patience.h"

#include <unistd.h>

#include "base/clock.h"

static uint64_t count(void *opaque)
{
	return ++*(uint64_t *)opaque;
}

static uint64_t look(void *opaque)
{
	return *(uint64_t *)opaque;
}

static unsigned int ticks_of(struct patience *p)
{
	unsigned int ticks = 1;

	for (patience_begin(p); patience_tick(p); ticks++)
		;
	return ticks;
}

/* One whose work cannot be seen has its budget, the last tick being what is left of it. */
static void test_silent(void)
{
	struct patience p = {.budget_ms = 250};
	g_autofree char *text = NULL;

	g_assert_cmpuint(patience_begin(&p), ==, 100);
	g_assert_cmpuint(patience_tick(&p), ==, 100);
	g_assert_cmpuint(patience_tick(&p), ==, 50);
	g_assert_cmpuint(patience_tick(&p), ==, 0);
	text = patience_text(&p);
	g_assert_cmpstr(text, ==, "no answer within 250 ms");
}

/* One that works has five times as long, or what it is given. */
static void test_working(void)
{
	uint64_t n = 0;
	struct patience p = {.budget_ms = 200, .progress = count, .opaque = &n};
	struct patience given = {
		.budget_ms = 200, .tick_ms = 50, .max_ms = 600, .progress = count, .opaque = &n};
	g_autofree char *text = NULL;

	g_assert_cmpuint(ticks_of(&p), ==, 10);
	text = patience_text(&p);
	g_assert_cmpstr(text, ==, "no answer within 1000 ms, although the peer works");
	g_assert_cmpuint(ticks_of(&given), ==, 12);
}

/* What has moved once has its whole budget again; a new wait begins with all of it. */
static void test_moves_once(void)
{
	uint64_t n = 7;
	struct patience p = {.budget_ms = 300, .progress = look, .opaque = &n};

	patience_begin(&p);
	g_assert_cmpuint(patience_tick(&p), ==, 100);
	g_assert_cmpuint(patience_tick(&p), ==, 100);
	n--;
	g_assert_cmpuint(patience_tick(&p), ==, 100);
	g_assert_cmpuint(patience_tick(&p), ==, 100);
	g_assert_cmpuint(patience_tick(&p), ==, 100);
	g_assert_cmpuint(patience_tick(&p), ==, 0);
	g_assert_cmpuint(ticks_of(&p), ==, 3);
}

/* What progress of a process is: the time of its threads. */
static void test_process(void)
{
	g_assert_cmpuint(clock_of_process_ns(getpid()), >, 0);
	g_assert_cmpuint(clock_of_process_ns(0), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/patience/silent", test_silent);
	g_test_add_func("/patience/working", test_working);
	g_test_add_func("/patience/moves-once", test_moves_once);
	g_test_add_func("/patience/process", test_process);
	return g_test_run();
}
