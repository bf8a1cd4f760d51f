// Watches TSC and kvmclock: neither may go back; their distance to the host is for the host to
// check. SPDX-License-Identifier: Apache-2.0
#include "payload.h"

#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01

/* Documentation/virt/kvm/x86/msr.rst */
struct pvclock {
	volatile uint32_t version;
	uint32_t pad0;
	volatile uint64_t tsc_timestamp;
	volatile uint64_t system_time;
	volatile uint32_t tsc_to_system_mul;
	volatile int8_t tsc_shift;
	volatile uint8_t flags;
	uint8_t pad[2];
};

static struct pvclock clock __attribute__((aligned(64)));

static uint64_t kvmclock_ns(uint64_t *tsc)
{
	uint32_t version;
	uint64_t ns;

	do {
		uint64_t delta;

		version = clock.version & ~1u;
		__asm__ volatile("" ::: "memory");
		*tsc = rdtsc();
		delta = *tsc - clock.tsc_timestamp;
		delta = clock.tsc_shift >= 0 ? delta << clock.tsc_shift : delta >> -clock.tsc_shift;
		ns = clock.system_time +
		     (uint64_t)(((unsigned __int128)delta * clock.tsc_to_system_mul) >> 32);
		__asm__ volatile("" ::: "memory");
	} while (clock.version != version);
	return ns;
}

/* detail: 0 last kvmclock ns, 1 last TSC, 2 times kvmclock went back, 3 times TSC went back,
 * 4 longest step of kvmclock in ns, 5 sequence number around 0 and 1 (odd: being written) */
void payload_main(void *info)
{
	uint64_t last_ns = 0, last_tsc = 0;

	payload_begin();
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (uint64_t)(uintptr_t)&clock | 1);
	serial_puts("ready\n");
	for (;;) {
		uint64_t tsc, ns = kvmclock_ns(&tsc);

		if (ns < last_ns)
			SHARED->detail[2]++;
		if (tsc < last_tsc)
			SHARED->detail[3]++;
		if (last_ns && ns > last_ns && ns - last_ns > SHARED->detail[4])
			SHARED->detail[4] = ns - last_ns;
		SHARED->detail[5]++;
		SHARED->detail[0] = ns;
		SHARED->detail[1] = tsc;
		SHARED->detail[5]++;
		last_ns = ns;
		last_tsc = tsc;
		SHARED->errors = SHARED->detail[2] + SHARED->detail[3];
		SHARED->counter++;
	}
}
