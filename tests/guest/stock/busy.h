// A loop that looks at the clock as often as it can, and keeps the longest time between two looks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

/**
 * struct busy - What the loop has seen
 * @last_ns:	The last look, CLOCK_MONOTONIC; 0: the next one begins anew
 * @max_gap_ns:	The longest time between two looks
 * @max_gap_at_ns: When it began
 * @looks:	How many there were
 */
struct busy {
	uint64_t last_ns;
	uint64_t max_gap_ns;
	uint64_t max_gap_at_ns;
	uint64_t looks;
};

/** busy_spin() - Look for @for_ns.  What happens between two calls counts as between two looks. */
void busy_spin(struct busy *busy, uint64_t for_ns);
