// Threads: made with patience, and what the kernel says of one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>

/** THREAD_FOR_EVER - For thread_set_patience(): without end */
#define THREAD_FOR_EVER UINT32_MAX

/**
 * thread_set_patience() - How long thread_new() waits for room from now on
 * @ms:		For all threads together, counted in tries of 2 ms at least; 0 in the beginning
 * @beat:	Called every 100 ms of such a wait, to tell who watches this process; may be NULL
 *
 * execve() ends the threads of a program, and what counts tasks (a pids cgroup, RLIMIT_NPROC,
 * threads-max) may give their places to others before the new program has made its own.  Who has a guest
 * that nobody else could run waits until there is room.
 * Context: main thread.
 */
void thread_set_patience(uint32_t ms, void (*beat)(void *opaque), void *opaque);

/**
 * thread_new() - g_thread_try_new(), with that patience
 *
 * It ends early, with MOLT_ERROR_TOLD_TO_END, when the process is told to end (a signal that is blocked
 * and pending).
 * Context: main thread.
 */
GThread *thread_new(const char *name, GThreadFunc run, void *opaque, GError **error);

/**
 * thread_runs() - Whether thread @tid of this process is on a processor, or would be if one were free
 *
 * For who waits for it: such a thread waits for a processor only, and that the host is busy is not its
 * fault.
 * Return: false also where that cannot be known, without /proc.
 * Context: any thread.
 */
bool thread_runs(pid_t tid);
