// Counts in a register and in RAM, and compares the two at every step: a second runner, or a state older
// than the RAM it runs on, cannot agree with both.
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

/*
 * @counter: where the next runner must be.  @errors: steps that found it elsewhere.  @detail[0]: what
 * the register held at the first of these.
 *
 * The step is one instruction that looks and writes, so two runners cannot take it at once.
 */
void payload_main(void *info)
{
	uint64_t here = 0;

	payload_begin();
	serial_puts("ready\n");
	for (;;) {
		const uint64_t next = here + 1;
		uint64_t found = here;

		__asm__ volatile("lock cmpxchgq %2, %1"
				 : "+a"(found), "+m"(SHARED->counter)
				 : "r"(next)
				 : "cc", "memory");
		if (found != here) {
			if (SHARED->errors == 0)
				SHARED->detail[0] = here;
			SHARED->errors++;
		}
		here = next;
	}
}
