// A process that does nothing but read the clocks and counts how often one goes back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>
#include <sys/types.h>

/**
 * struct clock_counts - What was seen, since the first clock_watch_start()
 * @reads:	Rounds of reading all three
 * @mono_back, @real_back, @tsc_back: Rounds in which CLOCK_MONOTONIC, CLOCK_REALTIME, the TSC were
 *		lower than in the round before
 */
struct clock_counts {
	uint64_t reads;
	uint64_t mono_back;
	uint64_t real_back;
	uint64_t tsc_back;
};

/**
 * struct clock_watch - Zero-initialised
 * @pid:	The process; 0: none
 * @counts:	Shared with it; NULL before the first start
 */
struct clock_watch {
	pid_t pid;
	volatile struct clock_counts *counts;
};

/** clock_watch_start(), clock_watch_stop() - Either may come twice. */
void clock_watch_start(struct clock_watch *watch);
void clock_watch_stop(struct clock_watch *watch);

/** clock_watch_counts() - So far; zeroes if it never was started. */
struct clock_counts clock_watch_counts(const struct clock_watch *watch);
