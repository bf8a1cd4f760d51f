// Work that may block without end, on a thread of its own beside the main loop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * A file on a store that hangs blocks whoever opens, writes or removes it.  So a thread does it, which
 * is waited for in the main loop, with whatever patience the caller has; one that is given up goes on
 * alone, and what it worked on is freed when it comes back.
 *
 * Context: main thread for all functions here.
 */
struct job;

/**
 * job_start() - Run @run(@arg) on a new thread, and @done(@arg) in the main loop after it
 * @name:	Of the thread, 15 characters
 * @done:	May free @arg; the job is gone before it is called
 *
 * @arg belongs to the thread until @done.  Return: NULL with @error if there is no thread to be had.
 */
struct job *job_start(const char *name, void (*run)(void *arg), void (*done)(void *arg), void *arg,
		      GError **error);

/**
 * job_insist() - The same; while there is no room for a thread it is tried again, once a second
 *
 * For what has to be done and has time.  It cannot be abandoned.
 */
void job_insist(const char *name, void (*run)(void *arg), void (*done)(void *arg), void *arg);

/** job_abandon() - Let @late(@arg) be called instead of @done, whenever that is; main loop. */
void job_abandon(struct job *job, void (*late)(void *arg));
