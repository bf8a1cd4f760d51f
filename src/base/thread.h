// What the kernel says of a thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/**
 * thread_runs() - Whether thread @tid of this process is on a processor, or would be if one were free
 *
 * For who waits for it: such a thread waits for a processor only; that the host is busy is no fault of its own.
 * Return: false also where that cannot be known, without /proc.
 * Context: any thread.
 */
bool thread_runs(pid_t tid);
