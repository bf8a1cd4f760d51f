// Does the disk requests that the host asks for in the shared page, and says what came of them.
// SPDX-License-Identifier: Apache-2.0
#include "virtio_blk.h"

#define DATA_WORDS (DISK_SECTOR_BYTES / 8)

static uint64_t data[DISK_SLOTS][DATA_WORDS] __attribute__((aligned(512)));

/*
 * Asked: detail 0 number of the question (the last word written), 1 type, 2 first sector, 3 how many
 * sectors (one request each, DISK_SLOTS at most, all at once), 4 how far apart, 5 what is in them.
 * Answered: 6 number of the question, 7 requests that ended well, 8 sectors read that hold something
 * else, 9 capacity, 10 block size, 11 generation, 12 configuration interrupts seen, 13 requests that
 * the device still has.
 */
enum {
	ASKED,
	TYPE,
	SECTOR,
	N,
	STEP,
	SEED,
	ANSWERED,
	GOOD,
	WRONG,
	CAPACITY,
	BLOCK,
	GENERATION,
	TOLD,
	OPEN
};

static uint64_t word(uint64_t seed, uint64_t sector, uint32_t i)
{
	return seed ? (seed * 1000003 + sector) ^ ((uint64_t)i << 48) : 0;
}

static void look(void)
{
	SHARED->detail[CAPACITY] = disk_capacity();
	SHARED->detail[BLOCK] = disk_block_bytes();
	SHARED->detail[GENERATION] = disk_generation();
	SHARED->detail[TOLD] += disk_was_told();
	SHARED->detail[OPEN] = disk_in_flight();
	SHARED->counter++;
}

static void begin(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t sector = SHARED->detail[SECTOR] + i * SHARED->detail[STEP];
		bool write = SHARED->detail[TYPE] == DISK_WRITE;

		for (uint32_t w = 0; w < DATA_WORDS; w++)
			data[i][w] = write ? word(SHARED->detail[SEED], sector, w) : ~0ULL;
		disk_submit(i, SHARED->detail[TYPE], sector, data[i]);
	}
	disk_kick();
}

static void count(uint32_t n)
{
	SHARED->detail[GOOD] = 0;
	SHARED->detail[WRONG] = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t sector = SHARED->detail[SECTOR] + i * SHARED->detail[STEP];
		bool wrong = false;

		for (uint32_t w = 0; w < DATA_WORDS; w++)
			wrong |= data[i][w] != word(SHARED->detail[SEED], sector, w);
		SHARED->detail[GOOD] += disk_good(i);
		SHARED->detail[WRONG] += SHARED->detail[TYPE] == DISK_READ && wrong;
	}
}

void payload_main(void *info)
{
	uint64_t answered = 0;

	payload_begin();
	if (!disk_start()) {
		serial_puts("no disk\n");
		for (;;)
			;
	}
	serial_puts("ready\n");
	for (;;) {
		uint64_t asked = SHARED->detail[ASKED];
		uint32_t n = SHARED->detail[N];

		look();
		if (asked == answered)
			continue;
		begin(n);
		while (disk_in_flight())
			look();
		count(n);
		look();
		answered = asked;
		SHARED->detail[ANSWERED] = asked;
	}
}
