// A loop that looks at the clock as often as it can, and keeps the longest time between two looks.
// SPDX-License-Identifier: Apache-2.0
#include "busy.h"

#include <time.h>

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void busy_spin(struct busy *busy, uint64_t for_ns)
{
	uint64_t now_ns = monotonic_ns(), end_ns = now_ns + for_ns;

	if (!busy->last_ns)
		busy->last_ns = now_ns;
	while (now_ns < end_ns) {
		if (now_ns - busy->last_ns > busy->max_gap_ns) {
			busy->max_gap_ns = now_ns - busy->last_ns;
			busy->max_gap_at_ns = busy->last_ns;
		}
		busy->last_ns = now_ns;
		busy->looks++;
		now_ns = monotonic_ns();
	}
}
