// Counts in a register and in RAM, and compares the two at every step: a second runner, or a state older
// than the RAM it runs on, cannot agree with both.  A disk, if there is one, is held to its word.
// SPDX-License-Identifier: Apache-2.0
#include "virtio_blk.h"

/*
 * @counter: where the next runner must be.  @errors: whatever was found wrong.  detail: 0 what the register
 * held at the first step that found another one, 1 what was wrong with the disk (enum wrong, a bit each), 2 the
 * sector, 3 the record that it held, 4 the one it should have held, 5 requests that ended, 6 sectors with
 * records.  From per_cpu[0] on, two words a sector: the record that was written last, and the last that the
 * device said is written.
 *
 * Each slot has sectors of its own, one of every DISK_SLOTS, and goes through them in turns: it reads the
 * sector as its last turn left it, a while ago, and then writes it several times, each as soon as the one before
 * is told complete.  What is written twice, late, or never is found in the next turn, or in the image
 * at the end.  All slots always have a request in flight, so that an update meets them in every state.
 */
enum wrong {
	WRONG_STATUS = 1, /* a request failed */
	WRONG_SLOT = 2,	  /* one was given back that was not in flight */
	WRONG_SECTOR = 4, /* a sector held something else than was written last */
};

#define WRITES	      3
#define ROUND	      (1 + WRITES)
#define SLOT_SECTORS  16
#define N_SECTORS     (DISK_SLOTS * SLOT_SECTORS)
#define SECTOR_WORDS  (DISK_SECTOR_BYTES / 8)
#define STEPS_BETWEEN 64

struct slot {
	uint64_t done; /* requests */
	uint64_t sector;
	bool open;
};

static uint64_t data[DISK_SLOTS][SECTOR_WORDS] __attribute__((aligned(512)));
static struct slot slots[DISK_SLOTS];

static volatile uint64_t *written(uint64_t sector)
{
	return &SHARED->per_cpu[2 * sector];
}

static volatile uint64_t *told(uint64_t sector)
{
	return &SHARED->per_cpu[2 * sector + 1];
}

/* The first word is the record's number; sectors that were never written hold zeros. */
static uint64_t word(uint64_t sector, uint64_t record, uint32_t i)
{
	return record && i ? (record * 1000003 + sector) ^ (uint64_t)i << 48 : record;
}

/*
 * The step is one instruction that looks and writes, so two runners cannot take it at once.
 */
static uint64_t step(uint64_t here)
{
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
	return next;
}

static void wrong(enum wrong what, uint64_t sector, uint64_t found)
{
	if (SHARED->detail[1] == 0) {
		SHARED->detail[2] = sector;
		SHARED->detail[3] = found;
		SHARED->detail[4] = *told(sector);
	}
	SHARED->detail[1] |= what;
	SHARED->errors++;
}

static bool reads(const struct slot *slot)
{
	return slot->done % ROUND == 0;
}

static void begin(uint32_t i)
{
	struct slot *slot = &slots[i];

	slot->sector = i + slot->done / ROUND % SLOT_SECTORS * DISK_SLOTS;
	if (!reads(slot))
		*written(slot->sector) = slot->done;
	for (uint32_t w = 0; w < SECTOR_WORDS; w++)
		data[i][w] = reads(slot) ? ~0ULL : word(slot->sector, slot->done, w);
	slot->open = true;
	disk_submit(i, reads(slot) ? DISK_READ : DISK_WRITE, slot->sector, data[i]);
}

static void check(uint32_t i)
{
	const uint64_t sector = slots[i].sector;

	for (uint32_t w = 0; w < SECTOR_WORDS; w++)
		if (data[i][w] != word(sector, *told(sector), w)) {
			wrong(WRONG_SECTOR, sector, data[i][0]);
			return;
		}
}

static void end(uint32_t i)
{
	struct slot *slot = &slots[i];

	if (!slot->open) {
		wrong(WRONG_SLOT, slot->sector, 0);
		return;
	}
	slot->open = false;
	if (!disk_good(i))
		wrong(WRONG_STATUS, slot->sector, 0);
	else if (reads(slot))
		check(i);
	else
		*told(slot->sector) = slot->done;
	slot->done++;
	SHARED->detail[5]++;
}

static void work(void)
{
	bool kick = false;

	for (int i; (i = disk_ended()) >= 0;)
		end(i);
	for (uint32_t i = 0; i < DISK_SLOTS; i++)
		if (!slots[i].open) {
			begin(i);
			kick = true;
		}
	if (kick)
		disk_kick();
}

void payload_main(void *info)
{
	uint64_t here = 0;
	bool disk;

	payload_begin();
	disk = disk_start();
	SHARED->detail[6] = disk ? N_SECTORS : 0;
	serial_puts("ready\n");
	for (;;) {
		for (uint32_t i = 0; i < STEPS_BETWEEN; i++)
			here = step(here);
		if (disk)
			work();
	}
}
