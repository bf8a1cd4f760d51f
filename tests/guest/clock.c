// Watches TSC and kvmclock: neither may go back; their distance to the host is the host's to check.
// SPDX-License-Identifier: Apache-2.0
#include "pvclock.h"

static struct pvclock clock;

/* detail: 0 last kvmclock ns, 1 last TSC, 2 times kvmclock went back, 3 times TSC went back,
 * 4 longest step of kvmclock in ns, 5 sequence number (odd while 0 and 1 are read and written) */
void payload_main(void *info)
{
	uint64_t last_ns = 0, last_tsc = 0;

	payload_begin();
	pvclock_enable(&clock);
	serial_puts("ready\n");
	for (;;) {
		uint64_t tsc, ns;

		SHARED->detail[5]++;
		__asm__ volatile("mfence" ::: "memory");
		ns = pvclock_read_ns(&clock, &tsc);
		if (ns < last_ns)
			SHARED->detail[2]++;
		if (tsc < last_tsc)
			SHARED->detail[3]++;
		if (last_ns && ns > last_ns && ns - last_ns > SHARED->detail[4])
			SHARED->detail[4] = ns - last_ns;
		SHARED->detail[0] = ns;
		SHARED->detail[1] = tsc;
		SHARED->detail[5]++;
		last_ns = ns;
		last_tsc = tsc;
		SHARED->errors = SHARED->detail[2] + SHARED->detail[3];
		SHARED->counter++;
	}
}
