// GLib's main loop, as this program uses it: descriptor watches, and threads that run a loop.
// SPDX-License-Identifier: Apache-2.0
#include "base/loop.h"

#include <sched.h>

#include "base/clock.h"
#include "base/thread.h"

/* ---- waiting without sleeping ---- */

/* Until when the main thread's loop looks again and again instead of sleeping. */
static uint64_t awake_until_ns;

static gint poll_awake(GPollFD *fds, guint n, gint timeout_ms)
{
	const uint64_t start_ns = clock_now_ns();

	for (uint64_t now_ns = start_ns; now_ns < awake_until_ns; now_ns = clock_now_ns()) {
		gint ready = g_poll(fds, n, 0);

		if (ready != 0 || timeout_ms == 0)
			return ready;
		if (timeout_ms > 0 && now_ns - start_ns >= timeout_ms * NS_PER_MSEC)
			return 0;
		sched_yield();
	}
	return g_poll(fds, n, timeout_ms);
}

void loop_stay_awake(uint64_t ns)
{
	awake_until_ns = clock_now_ns() + ns;
	g_main_context_set_poll_func(NULL, poll_awake);
}

/* ---- sources ---- */

GSource *loop_watch_fd(GMainContext *context, int fd, GIOCondition condition, loop_fd_fn fn,
		       void *opaque)
{
	GSource *source = g_unix_fd_source_new(fd, condition);

	g_source_set_callback(source, G_SOURCE_FUNC(fn), opaque, NULL);
	/* No loop runs within a loop; GLib would take @fd out of the poll set for one, and wake itself. */
	g_source_set_can_recurse(source, TRUE);
	g_source_attach(source, context);
	return source;
}

void loop_unwatch(GSource **source)
{
	if (!*source)
		return;
	g_source_destroy(*source);
	g_source_unref(*source);
	*source = NULL;
}

struct loop_call {
	void (*fn)(void *opaque);
	void *opaque;
};

static gboolean loop_call_run(void *opaque)
{
	struct loop_call *call = opaque;

	call->fn(call->opaque);
	return G_SOURCE_REMOVE;
}

void loop_call_later(void (*fn)(void *opaque), void *opaque)
{
	struct loop_call *call = g_new(struct loop_call, 1);
	GSource *source = g_idle_source_new();

	*call = (struct loop_call){fn, opaque};
	g_source_set_priority(source, G_PRIORITY_DEFAULT);
	g_source_set_callback(source, loop_call_run, call, g_free);
	g_source_attach(source, NULL);
	g_source_unref(source);
}

GSource *loop_after_ms(uint32_t ms, GSourceFunc fn, void *opaque)
{
	GSource *source = g_timeout_source_new(ms);

	g_source_set_callback(source, fn, opaque, NULL);
	g_source_attach(source, NULL);
	return source;
}

static gboolean told_dispatch(GSource *source, GSourceFunc fn, gpointer opaque)
{
	g_source_set_ready_time(source, -1);
	return fn(opaque);
}

GSource *loop_when_told(GSourceFunc fn, void *opaque)
{
	static GSourceFuncs funcs = {.dispatch = told_dispatch};
	GSource *source = g_source_new(&funcs, sizeof(GSource));

	g_source_set_ready_time(source, -1);
	g_source_set_callback(source, fn, opaque, NULL);
	g_source_attach(source, NULL);
	return source;
}

struct io_thread {
	GMainContext *context;
	GMainLoop *loop;
	GThread *thread;
};

static void *io_thread_main(void *opaque)
{
	struct io_thread *thread = opaque;

	g_main_context_push_thread_default(thread->context);
	g_main_loop_run(thread->loop);
	g_main_context_pop_thread_default(thread->context);
	return NULL;
}

struct io_thread *io_thread_new(const char *name, GError **error)
{
	struct io_thread *thread = g_new0(struct io_thread, 1);

	thread->context = g_main_context_new();
	thread->loop = g_main_loop_new(thread->context, FALSE);
	thread->thread = thread_new(name, io_thread_main, thread, error);
	if (!thread->thread) {
		io_thread_free(thread);
		return NULL;
	}
	return thread;
}

struct io_thread_call {
	void (*fn)(void *opaque);
	void *opaque;
	GMutex lock;
	GCond done_cond;
	bool done;
};

static gboolean io_thread_call_run(void *opaque)
{
	struct io_thread_call *call = opaque;

	call->fn(call->opaque);
	g_mutex_lock(&call->lock);
	call->done = true;
	g_cond_signal(&call->done_cond);
	g_mutex_unlock(&call->lock);
	return G_SOURCE_REMOVE;
}

void io_thread_run(struct io_thread *thread, void (*fn)(void *opaque), void *opaque)
{
	struct io_thread_call call = {.fn = fn, .opaque = opaque};
	GSource *source = g_idle_source_new();

	g_mutex_init(&call.lock);
	g_cond_init(&call.done_cond);
	g_source_set_priority(source, G_PRIORITY_HIGH);
	g_source_set_callback(source, io_thread_call_run, &call, NULL);
	g_source_attach(source, thread->context);
	g_source_unref(source);
	g_mutex_lock(&call.lock);
	while (!call.done)
		g_cond_wait(&call.done_cond, &call.lock);
	g_mutex_unlock(&call.lock);
	g_mutex_clear(&call.lock);
	g_cond_clear(&call.done_cond);
}

static void io_thread_quit(void *opaque)
{
	struct io_thread *thread = opaque;

	g_main_loop_quit(thread->loop);
}

void io_thread_free(struct io_thread *thread)
{
	if (!thread)
		return;
	if (thread->thread) {
		io_thread_run(thread, io_thread_quit, thread);
		g_thread_join(thread->thread);
	}
	g_main_loop_unref(thread->loop);
	g_main_context_unref(thread->context);
	g_free(thread);
}

GMainContext *io_thread_context(struct io_thread *thread)
{
	return thread->context;
}
