// Jobs: done in the main loop after the thread, or late when nobody wants them any more.
// SPDX-License-Identifier: Apache-2.0
#include "base/job.h"

#include <dlfcn.h>
#include <stdbool.h>

/** struct work - @go: the thread waits for it */
struct work {
	GMutex lock;
	GCond cond;
	bool go;
	unsigned int n_run, n_done, n_late;
};

static void run(void *arg)
{
	struct work *work = arg;

	g_mutex_lock(&work->lock);
	while (!work->go)
		g_cond_wait(&work->cond, &work->lock);
	work->n_run++;
	g_mutex_unlock(&work->lock);
}

static void let_go(struct work *work)
{
	g_mutex_lock(&work->lock);
	work->go = true;
	g_cond_signal(&work->cond);
	g_mutex_unlock(&work->lock);
}

static void done(void *arg)
{
	((struct work *)arg)->n_done++;
}

static void late(void *arg)
{
	((struct work *)arg)->n_late++;
}

static void test_done(void)
{
	struct work work = {.go = false};

	g_assert_nonnull(job_start("test", run, done, &work, NULL));
	g_main_context_iteration(NULL, FALSE);
	g_assert_cmpuint(work.n_done, ==, 0);
	let_go(&work);
	while (!work.n_done)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpuint(work.n_run, ==, 1);
}

static void test_abandoned(void)
{
	struct work work = {.go = false};
	struct job *job = job_start("test", run, done, &work, NULL);

	job_abandon(job, late);
	g_main_context_iteration(NULL, FALSE);
	g_assert_cmpuint(work.n_late, ==, 0);
	let_go(&work);
	while (!work.n_late)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpuint(work.n_done, ==, 0);
}

static unsigned int n_refusals;

/* In place of GLib's, for which the host would have to be full. */
GThread *g_thread_try_new(const char *name, GThreadFunc fn, gpointer opaque, GError **error)
{
	GThread *(*real)(const char *, GThreadFunc, gpointer, GError **) =
		(__typeof__(real))dlsym(RTLD_NEXT, "g_thread_try_new");

	if (n_refusals == 0)
		return real(name, fn, opaque, error);
	n_refusals--;
	g_set_error(error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN, "no room");
	return NULL;
}

/* It is done once there is room. */
static void test_insisted(void)
{
	struct work work = {.go = true};

	n_refusals = 2;
	g_assert_null(job_start("test", run, done, &work, NULL));
	job_insist("test", run, done, &work);
	g_assert_cmpuint(n_refusals, ==, 0);
	while (!work.n_done)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpuint(work.n_run, ==, 1);
	g_assert_cmpuint(work.n_done, ==, 1);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/job/done", test_done);
	g_test_add_func("/job/abandoned", test_abandoned);
	g_test_add_func("/job/insisted", test_insisted);
	return g_test_run();
}
