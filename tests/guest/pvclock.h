// kvmclock, as Documentation/virt/kvm/x86/msr.rst has it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "payload.h"

struct pvclock {
	volatile uint32_t version;
	uint32_t pad0;
	volatile uint64_t tsc_timestamp;
	volatile uint64_t system_time;
	volatile uint32_t tsc_to_system_mul;
	volatile int8_t tsc_shift;
	volatile uint8_t flags;
	uint8_t pad[2];
} __attribute__((aligned(64)));

/** pvclock_enable() - Have the host keep @clock for the calling vCPU. */
void pvclock_enable(struct pvclock *clock);

/** pvclock_read_ns() - Read it; *@tsc is the TSC of the same moment. */
uint64_t pvclock_read_ns(const struct pvclock *clock, uint64_t *tsc);
