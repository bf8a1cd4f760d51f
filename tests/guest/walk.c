// Writes to every page of its RAM, again and again and far apart, and counts the pages.
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

#define PAGE_BYTES    4096
#define COLUMNS	      256
#define ROW_BYTES     (COLUMNS * PAGE_BYTES)
#define NEXT_COLUMN   97 /* odd, so that every column has its turn */
#define PAGES_AT_ONCE 16

/*
 * Each page once: all first pages of the 1 MiB rows, then all of another column, so that no two
 * accesses in a row are near each other.  What is left over at the end of a column is not visited.
 * SHARED->per_cpu[0] goes up by the pages visited; detail[0] counts the rounds.
 */
static void walk(uint64_t from, uint64_t end)
{
	uint64_t last = end - (PAGES_AT_ONCE - 1) * ROW_BYTES;

	for (uint32_t i = 0, column = 0; i < COLUMNS; i++) {
		for (uint64_t p = from + column * PAGE_BYTES; p < last;
		     p += PAGES_AT_ONCE * ROW_BYTES) {
			TOUCH_16(p, ROW_BYTES);
			SHARED->per_cpu[0] += PAGES_AT_ONCE;
		}
		column = (column + NEXT_COLUMN) % COLUMNS;
	}
}

void payload_main(void *info)
{
	uint64_t from, end;

	payload_begin();
	ram_touch();
	serial_puts("ready\n");
	for (;;) {
		for (uint32_t i = 0; ram_range(i, &from, &end); i++)
			if (end > from + PAGES_AT_ONCE * ROW_BYTES)
				walk(from, end);
		SHARED->detail[0]++;
	}
}
