// Counts up in RAM as fast as it can; with "touch" it writes to every page first.
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

#define FIRST_FREE 0x400000ULL
#define LOW_END	   0x80000000ULL
#define HIGH_START 0x100000000ULL

static void touch(uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p += 4096)
		*(volatile uint64_t *)p = p;
}

void payload_main(void *info)
{
	uint64_t end = ram_end();

	payload_begin();
	if (command_line_has("touch")) {
		if (end > HIGH_START) {
			touch(FIRST_FREE, LOW_END);
			touch(HIGH_START, end);
		} else {
			touch(FIRST_FREE, end);
		}
	}
	serial_puts("ready\n");
	for (;;)
		SHARED->counter++;
}
