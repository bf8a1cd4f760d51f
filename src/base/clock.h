// The one clock that deadlines and phase times use, the same in every process of a host.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>
#include <sys/types.h>

#define NS_PER_SEC  1000000000ULL
#define NS_PER_MSEC 1000000ULL
#define NS_PER_USEC 1000ULL

/** clock_now_ns() - CLOCK_MONOTONIC in ns: comparable between processes of the same boot. */
uint64_t clock_now_ns(void);

/** clock_process_ns() - Processor time that this process has used, its execve() included. */
uint64_t clock_process_ns(void);

/** clock_thread_ns() - Processor time that the calling thread has used. */
uint64_t clock_thread_ns(void);

/** clock_of_process_ns() - Processor time that another process has used; 0 if that cannot be known. */
uint64_t clock_of_process_ns(pid_t pid);

/** clock_deadline_ms() - The time @ms milliseconds from now, for the deadline_ns arguments. */
uint64_t clock_deadline_ms(uint64_t ms);
