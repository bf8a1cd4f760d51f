// kvmclock, as Documentation/virt/kvm/x86/msr.rst has it.
// SPDX-License-Identifier: Apache-2.0
#include "pvclock.h"

#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01

void pvclock_enable(struct pvclock *clock)
{
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (uint64_t)(uintptr_t)clock | 1);
}

uint64_t pvclock_read_ns(const struct pvclock *clock, uint64_t *tsc)
{
	uint32_t version;
	uint64_t ns;

	do {
		uint64_t delta;

		version = clock->version & ~1u;
		__asm__ volatile("" ::: "memory");
		*tsc = rdtsc();
		delta = *tsc - clock->tsc_timestamp;
		delta = clock->tsc_shift >= 0 ? delta << clock->tsc_shift
					      : delta >> -clock->tsc_shift;
		ns = clock->system_time +
		     (uint64_t)(((unsigned __int128)delta * clock->tsc_to_system_mul) >> 32);
		__asm__ volatile("" ::: "memory");
	} while (clock->version != version);
	return ns;
}
