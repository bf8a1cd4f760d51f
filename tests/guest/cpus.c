// Starts the other vCPUs.
// SPDX-License-Identifier: Apache-2.0
#include "cpus.h"

#define TRAMPOLINE    0x8000
#define APIC_SVR      (*(volatile uint32_t *)0xfee000f0)
#define APIC_ICR_LOW  (*(volatile uint32_t *)0xfee00300)
#define APIC_ICR_HIGH (*(volatile uint32_t *)0xfee00310)

extern char trampoline_start[], trampoline_end[];
extern uint32_t ap_stack;
static uint8_t stacks[64][4096] __attribute__((aligned(16)));
static volatile uint32_t next_cpu, started;

static void pause_ticks(uint64_t ticks)
{
	uint64_t start = rdtsc();

	while (rdtsc() - start < ticks)
		;
}

void ap_main(void)
{
	uint32_t cpu = next_cpu;

	started = cpu;
	cpu_main(cpu);
}

void cpus_start(uint32_t n_cpus)
{
	volatile char *to = (volatile char *)TRAMPOLINE;

	APIC_SVR = 0x1ff; /* software enable */
	for (const char *p = trampoline_start; p < trampoline_end; p++)
		*to++ = *p;
	for (uint32_t cpu = 1; cpu < n_cpus && cpu < 64; cpu++) {
		next_cpu = cpu;
		ap_stack = (uint32_t)(uintptr_t)stacks[cpu + 1 < 64 ? cpu + 1 : cpu];
		APIC_ICR_HIGH = cpu << 24;
		APIC_ICR_LOW = 0x4500; /* INIT */
		pause_ticks(1000000);
		APIC_ICR_HIGH = cpu << 24;
		APIC_ICR_LOW = 0x4600 | TRAMPOLINE >> 12; /* SIPI */
		while (started != cpu)
			pause_ticks(1000);
	}
}
