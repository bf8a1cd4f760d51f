// Threads for which there is no room: given up at once, after a while, never, or when told to end.
// SPDX-License-Identifier: Apache-2.0
#include "base/thread.h"

#include <dlfcn.h>
#include <signal.h>

#include "base/error.h"

static unsigned int n_refusals, n_tries, n_beats;

/* In place of GLib's, for which the host would have to be full. */
GThread *g_thread_try_new(const char *name, GThreadFunc run, gpointer opaque, GError **error)
{
	GThread *(*real)(const char *, GThreadFunc, gpointer, GError **) =
		(__typeof__(real))dlsym(RTLD_NEXT, "g_thread_try_new");

	if (n_tries++ >= n_refusals)
		return real(name, run, opaque, error);
	g_set_error(error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN, "no room");
	return NULL;
}

static void *run(void *opaque)
{
	return opaque;
}

static void beat(void *opaque)
{
	n_beats++;
	g_assert_true(opaque == &n_beats);
}

static GThread *try_new(uint32_t patience_ms, unsigned int refusals, GError **error)
{
	n_refusals = refusals;
	n_tries = n_beats = 0;
	thread_set_patience(patience_ms, beat, &n_beats);
	return thread_new("one", run, NULL, error);
}

static void test_without_patience(void)
{
	g_autoptr(GError) error = NULL;

	g_assert_null(try_new(0, 1, &error));
	g_assert_error(error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN);
	g_assert_cmpuint(n_tries, ==, 1);
	g_assert_cmpuint(n_beats, ==, 0);
}

static void test_with_patience(void)
{
	g_autoptr(GError) error = NULL;

	g_assert_null(try_new(20, UINT_MAX, &error));
	g_assert_error(error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN);
	g_assert_cmpuint(n_tries, >, 1);
	g_assert_cmpuint(n_beats, >=, 1);
}

/* Places that come one by one do not make a pause longer and longer. */
static void test_for_all_together(void)
{
	g_autoptr(GError) error = NULL;

	g_thread_join(try_new(20, 6, &error));
	g_assert_no_error(error);
	n_refusals = 6;
	n_tries = 0;
	g_assert_null(thread_new("two", run, NULL, &error));
	g_assert_error(error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN);
	g_assert_cmpuint(n_tries, ==, 5);
}

/* Whoever watches hears of it all the while. */
static void test_for_ever(void)
{
	g_autoptr(GError) error = NULL;

	g_thread_join(try_new(THREAD_FOR_EVER, 120, &error));
	g_assert_no_error(error);
	g_assert_cmpuint(n_tries, ==, 121);
	g_assert_cmpuint(n_beats, ==, 3);
}

static void test_told_to_end(void)
{
	g_autoptr(GError) error = NULL;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGTERM);
	g_assert_null(try_new(THREAD_FOR_EVER, UINT_MAX, &error));
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_TOLD_TO_END);
	/* Where there is room, that is for others to see. */
	g_clear_error(&error);
	g_thread_join(try_new(THREAD_FOR_EVER, 0, &error));
	g_assert_no_error(error);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/thread/without-patience", test_without_patience);
	g_test_add_func("/thread/with-patience", test_with_patience);
	g_test_add_func("/thread/for-all-together", test_for_all_together);
	g_test_add_func("/thread/for-ever", test_for_ever);
	g_test_add_func("/thread/told-to-end", test_told_to_end);
	return g_test_run();
}
