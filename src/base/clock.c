// The one clock that deadlines and phase times use, the same in every process of a host.
// SPDX-License-Identifier: Apache-2.0
#include "base/clock.h"

#include <time.h>

uint64_t clock_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

uint64_t clock_deadline_ms(uint64_t ms)
{
	return clock_now_ns() + ms * NS_PER_MSEC;
}
