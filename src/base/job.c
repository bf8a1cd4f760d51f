// Work that may block without end, on a thread of its own beside the main loop.
// SPDX-License-Identifier: Apache-2.0
#include "base/job.h"

#include "base/loop.h"

#define AGAIN_MS 1000

/**
 * struct job - See job_start()
 * @ended:	By which the thread tells that it has
 */
struct job {
	void (*run)(void *arg);
	void (*done)(void *arg);
	void *arg;
	GSource *ended;
};

static void *run_job(void *opaque)
{
	struct job *job = opaque;
	g_autoptr(GSource) ended = g_source_ref(job->ended);

	job->run(job->arg);
	/* From here on the job may be gone. */
	g_source_set_ready_time(ended, 0);
	return NULL;
}

static gboolean job_ended(void *opaque)
{
	struct job *job = opaque;
	void (*done)(void *arg) = job->done;
	void *arg = job->arg;

	loop_unwatch(&job->ended);
	g_free(job);
	done(arg);
	return G_SOURCE_REMOVE;
}

struct job *job_start(const char *name, void (*run)(void *arg), void (*done)(void *arg), void *arg,
		      GError **error)
{
	struct job *job = g_new(struct job, 1);
	GThread *thread;

	*job = (struct job){run, done, arg, NULL};
	job->ended = loop_when_told(job_ended, job);
	thread = g_thread_try_new(name, run_job, job, error);
	if (thread) {
		g_thread_unref(thread);
		return job;
	}
	loop_unwatch(&job->ended);
	g_free(job);
	return NULL;
}

/** struct insistence - One job_insist() without a thread; @again: until one is asked for again */
struct insistence {
	const char *name;
	void (*run)(void *arg);
	void (*done)(void *arg);
	void *arg;
	GSource *again;
};

static gboolean insist(void *opaque)
{
	struct insistence *in = opaque;

	loop_unwatch(&in->again);
	if (job_start(in->name, in->run, in->done, in->arg, NULL))
		g_free(in);
	else
		in->again = loop_after_ms(AGAIN_MS, insist, in);
	return G_SOURCE_REMOVE;
}

void job_insist(const char *name, void (*run)(void *arg), void (*done)(void *arg), void *arg)
{
	struct insistence *in = g_new(struct insistence, 1);

	*in = (struct insistence){name, run, done, arg, NULL};
	(void)insist(in);
}

void job_abandon(struct job *job, void (*late)(void *arg))
{
	job->done = late;
}
