// A loop that looks at the clock as often as it can, and keeps the longest time between two looks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * struct busy - A page that the loop fills and that the host can watch (bench/stock_guest.py)
 * @looks:	Goes up at every look
 * @max_gap_ns:	The longest time between two looks, CLOCK_MONOTONIC
 * @restart:	Set by the host: the longest gap starts anew; then 0 again
 * @last_ns:	The last look; 0: the next one begins anew
 */
struct busy {
	volatile uint64_t looks;
	volatile uint64_t max_gap_ns;
	volatile uint64_t restart;
	uint64_t last_ns;
};

/**
 * busy_open() - Make such a page
 * @gpa: Where it is in guest-physical memory
 *
 * Return: NULL without memory, or without the right to know @gpa.
 */
struct busy *busy_open(uint64_t *gpa);

/** busy_run() - Look at the clock for ever. */
_Noreturn void busy_run(struct busy *busy);
