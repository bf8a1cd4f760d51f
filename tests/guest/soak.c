// Memory, disk and clock at work at the same time, a vCPU each; what is not as it should is counted.
// SPDX-License-Identifier: Apache-2.0
#include "cpus.h"
#include "pvclock.h"
#include "virtio_blk.h"

/*
 * A line of SHARED->per_cpu for each vCPU: 0 what it has done, 1 errors.
 *
 * vCPU 0 reads TSC and kvmclock, and answers each byte on the serial line with the next one.
 * vCPU 1 goes through all RAM that no payload uses.
 * vCPU 2 has several disk requests in flight at any time.
 */
enum {
	CLOCK,
	MEMORY,
	DISK,
	N_CPUS,
};

#define N_SECTORS 256
#define BURST	  4 /* words of a page in one pass, side by side */
#define N_PASSES  (4096 / 8 / BURST)

static uint64_t sectors[DISK_SLOTS][64] __attribute__((aligned(512)));
static uint64_t written[N_SECTORS];
static struct pvclock clock;

static void done(uint32_t cpu)
{
	SHARED->per_cpu[cpu * 8]++;
}

static void error(uint32_t cpu)
{
	SHARED->per_cpu[cpu * 8 + 1]++;
}

/* What stands at @at after round @round; nothing that a neighbour or another round has. */
static uint64_t pattern(uint64_t at, uint64_t round)
{
	return (at ^ round << 40) * 0x9e3779b97f4a7c15ULL;
}

/* ---- memory ---- */

static volatile uint64_t *burst_at(uint64_t gpa, uint64_t pass)
{
	return (void *)(gpa + pass % N_PASSES * BURST * 8);
}

/* Whether what @pass wrote into the page still stands there. */
static void memory_check(uint64_t gpa, uint64_t pass)
{
	volatile uint64_t *word = burst_at(gpa, pass);

	for (uint32_t i = 0; i < BURST; i++, word++)
		if (*word != pattern((uintptr_t)word, pass / N_PASSES))
			error(MEMORY);
}

static void memory_write(uint64_t gpa, uint64_t pass)
{
	volatile uint64_t *word = burst_at(gpa, pass);

	for (uint32_t i = 0; i < BURST; i++, word++)
		*word = pattern((uintptr_t)word, pass / N_PASSES);
}

static void memory_page(uint64_t gpa, uint64_t pass)
{
	if (pass)
		memory_check(gpa, pass - 1);
	if (pass >= N_PASSES)
		memory_check(gpa, pass - N_PASSES);
	memory_write(gpa, pass);
	done(MEMORY);
}

/* A pass touches every page, and every word has its turn: an update meets pages of all ages. */
static void memory_main(void)
{
	const uint64_t end = ram_end();

	for (uint64_t pass = 0;; pass++)
		for (uint64_t gpa = RAM_FREE_GPA; gpa < end; gpa += 4096)
			memory_page(gpa, pass);
}

/* ---- disk ---- */

static uint64_t sector_of(uint64_t n)
{
	return n * 37 % N_SECTORS;
}

static void disk_wait(uint32_t n)
{
	disk_kick();
	while (disk_in_flight())
		done(DISK);
	for (uint32_t slot = 0; slot < n; slot++)
		if (!disk_good(slot))
			error(DISK);
}

static void disk_fill(uint64_t first)
{
	for (uint32_t slot = 0; slot < DISK_SLOTS; slot++) {
		const uint64_t sector = sector_of(first + slot);

		for (uint32_t i = 0; i < 64; i++)
			sectors[slot][i] = pattern(sector << 6 | i, first + slot);
		written[sector] = first + slot;
		disk_submit(slot, DISK_WRITE, sector, sectors[slot]);
	}
	disk_wait(DISK_SLOTS);
}

/* Reads what was written a while ago. */
static void disk_check(uint64_t first)
{
	for (uint32_t slot = 0; slot < DISK_SLOTS; slot++) {
		sectors[slot][0] = 0;
		disk_submit(slot, DISK_READ, sector_of(first + slot), sectors[slot]);
	}
	disk_wait(DISK_SLOTS);
	for (uint32_t slot = 0; slot < DISK_SLOTS; slot++) {
		const uint64_t sector = sector_of(first + slot);

		for (uint32_t i = 0; i < 64; i++)
			if (sectors[slot][i] != pattern(sector << 6 | i, written[sector]))
				error(DISK);
	}
}

static void disk_main(void)
{
	for (uint64_t n = 1;; n += DISK_SLOTS) {
		disk_fill(n);
		if (n > N_SECTORS)
			disk_check(n - N_SECTORS / 2);
		if (n / DISK_SLOTS % 8 == 0) {
			disk_submit(0, DISK_FLUSH, 0, sectors[0]);
			disk_wait(1);
		}
	}
}

/* ---- clock and serial line ---- */

static void clock_main(void)
{
	uint64_t last_ns = 0, last_tsc = 0;

	pvclock_enable(&clock);
	for (;;) {
		uint64_t tsc, ns = pvclock_read_ns(&clock, &tsc);
		char answer[2] = {0};
		int c;

		if (ns < last_ns || tsc < last_tsc)
			error(CLOCK);
		last_ns = ns;
		last_tsc = tsc;
		c = serial_getc();
		if (c >= 0) {
			answer[0] = (char)(c + 1);
			serial_puts(answer);
		}
		done(CLOCK);
		SHARED->counter++;
	}
}

void cpu_main(uint32_t cpu)
{
	if (cpu == MEMORY)
		memory_main();
	else
		disk_main();
}

void payload_main(void *info)
{
	payload_begin();
	if (!disk_start()) {
		serial_puts("no disk\n");
		for (;;)
			;
	}
	cpus_start(N_CPUS);
	clock_main();
}
