// GLib's main loop, as this program uses it: descriptor watches, and threads that run a loop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <glib-unix.h>

/** typedef loop_fd_fn - Called when @fd is ready.  Return: false to remove the watch. */
typedef gboolean (*loop_fd_fn)(int fd, GIOCondition condition, void *opaque);

/**
 * loop_watch_fd() - Call @fn in @context's thread whenever @condition holds on @fd
 * @context: NULL for the main thread's
 *
 * Return: the source, owned by the caller: end it with loop_unwatch().
 */
GSource *loop_watch_fd(GMainContext *context, int fd, GIOCondition condition, loop_fd_fn fn,
		       void *opaque);

/** loop_unwatch() - Destroy *@source if there is one and leave NULL behind. */
void loop_unwatch(GSource **source);

/** loop_call_later() - Call @fn(@opaque) once in the main thread, at the end of this event batch.
 */
void loop_call_later(void (*fn)(void *opaque), void *opaque);

/**
 * loop_stay_awake() - What the main thread waits for next comes within @ns: do not sleep until then
 *
 * Waking from sleep takes 30 to 100 us where the processor sleeps deeply or belongs to a hypervisor.
 * While it is awake the loop offers its processor to others at each look.  Context: main thread.
 */
void loop_stay_awake(uint64_t ns);

/**
 * loop_when_told() - Call @fn(@opaque) in the main thread once another one asked for it
 *
 * By g_source_set_ready_time(source, 0).  Return: the source, owned by the caller: end it with
 * loop_unwatch().
 */
GSource *loop_when_told(GSourceFunc fn, void *opaque);

/**
 * loop_after_ms() - Call @fn(@opaque) in the main thread after @ms milliseconds, and again after as many
 * each time that it returns G_SOURCE_CONTINUE
 * Return: the source, owned by the caller: end it with loop_unwatch().
 */
GSource *loop_after_ms(uint32_t ms, GSourceFunc fn, void *opaque);

/**
 * struct io_thread - A thread that runs a loop for a group of queues
 *
 * Owned by the device (or iothread object) that made it; see io_thread_new().
 */
struct io_thread;

/** io_thread_new() - Start a thread named @name (15 characters) with a loop of its own. */
struct io_thread *io_thread_new(const char *name, GError **error);

/** io_thread_free() - Stop the loop and join the thread; accepts NULL. */
void io_thread_free(struct io_thread *thread);

/** io_thread_context() - The context that loop_watch_fd() takes for this thread. */
GMainContext *io_thread_context(struct io_thread *thread);

/** io_thread_run() - Run @fn(@opaque) on the thread and wait until it has returned. */
void io_thread_run(struct io_thread *thread, void (*fn)(void *opaque), void *opaque);
