// Drives virtio-blk by polling, with several requests in flight.
// SPDX-License-Identifier: Apache-2.0
#include "virtio_blk.h"

/* Sections of the virtio 1.2 specification are named where they matter. */
#define ECAM	   0xb0000000ULL
#define QUEUE_SIZE 32
#define CHAIN	   3 /* header, data, status */

struct virtio_common { /* 4.1.4.3 */
	volatile uint32_t device_feature_select, device_feature;
	volatile uint32_t driver_feature_select, driver_feature;
	volatile uint16_t msix_config, num_queues;
	volatile uint8_t device_status, config_generation;
	volatile uint16_t queue_select, queue_size, queue_msix_vector, queue_enable,
		queue_notify_off;
	volatile uint32_t queue_desc[2], queue_driver[2], queue_device[2];
};

struct desc { /* 2.7.5 */
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct avail {
	uint16_t flags;
	volatile uint16_t idx;
	uint16_t ring[QUEUE_SIZE];
};

struct used {
	uint16_t flags;
	volatile uint16_t idx;
	struct {
		uint32_t id, len;
	} ring[QUEUE_SIZE];
};

struct header { /* 5.2.6 */
	uint32_t type, reserved;
	uint64_t sector;
};

static struct desc desc[QUEUE_SIZE] __attribute__((aligned(4096)));
static struct avail avail __attribute__((aligned(4096)));
static struct used used __attribute__((aligned(4096)));
static struct header headers[DISK_SLOTS] __attribute__((aligned(16)));
static volatile uint8_t statuses[DISK_SLOTS];
static uint16_t seen; /* used entries that disk_ended() has told */

static volatile struct virtio_common *common;
static volatile uint8_t *isr, *config;
static volatile uint16_t *doorbell;

static uint32_t config32(uint32_t slot, uint32_t offset)
{
	return *(volatile uint32_t *)(ECAM + (slot << 15) + offset);
}

static uint64_t bar_base(uint32_t slot, uint32_t bar)
{
	uint64_t low = config32(slot, 0x10 + 4 * bar);

	if ((low & 6) == 4)
		low |= (uint64_t)config32(slot, 0x14 + 4 * bar) << 32;
	return low & ~0xfULL;
}

/* 4.1.4: vendor capabilities name the BAR and offset of each structure. */
static bool map_device(uint32_t slot)
{
	uint64_t notify = 0;
	uint32_t multiplier = 0;

	*(volatile uint16_t *)(ECAM + (slot << 15) + 4) = 6; /* memory, bus master */
	for (uint32_t cap = config32(slot, 0x34) & 0xfc; cap;
	     cap = config32(slot, cap) >> 8 & 0xfc) {
		uint32_t head = config32(slot, cap);
		uint32_t bar = config32(slot, cap + 4) & 0xff;
		uint64_t base;

		if ((head & 0xff) != 9)
			continue;
		base = bar_base(slot, bar) + config32(slot, cap + 8);
		if (head >> 24 == 1)
			common = (void *)base;
		if (head >> 24 == 3)
			isr = (void *)base;
		if (head >> 24 == 4)
			config = (void *)base;
		if (head >> 24 == 2) {
			notify = base;
			multiplier = config32(slot, cap + 16);
		}
	}
	if (!common || !notify || !isr || !config)
		return false;
	common->queue_select = 0;
	doorbell = (void *)(notify + common->queue_notify_off * (uint64_t)multiplier);
	return true;
}

/* 3.1.1, with queue 0 only and no interrupts. */
static void start_queue(void)
{
	common->device_status = 0;
	while (common->device_status)
		;
	common->device_status = 1 | 2;
	common->driver_feature_select = 1;
	common->driver_feature = 1; /* VERSION_1 */
	common->driver_feature_select = 0;
	common->driver_feature = 1 << 9; /* FLUSH */
	common->device_status = 1 | 2 | 8;
	common->queue_select = 0;
	common->queue_size = QUEUE_SIZE;
	common->queue_desc[0] = (uintptr_t)desc;
	common->queue_desc[1] = 0;
	common->queue_driver[0] = (uintptr_t)&avail;
	common->queue_driver[1] = 0;
	common->queue_device[0] = (uintptr_t)&used;
	common->queue_device[1] = 0;
	common->queue_enable = 1;
	common->device_status = 1 | 2 | 4 | 8;
}

bool disk_start(void)
{
	for (uint32_t slot = 1; slot < 31; slot++) {
		if (config32(slot, 0) != 0x10421af4)
			continue;
		if (!map_device(slot))
			return false;
		start_queue();
		return true;
	}
	return false;
}

void disk_submit(uint32_t slot, enum disk_request type, uint64_t sector, void *data)
{
	uint16_t first = slot * CHAIN;
	uint16_t flags = type == DISK_READ ? 3 : 1; /* NEXT, and WRITE for what the device fills */

	headers[slot] = (struct header){.type = type, .sector = sector};
	statuses[slot] = 0xff;
	desc[first] = (struct desc){(uintptr_t)&headers[slot], sizeof(headers[slot]), 1,
				    type == DISK_FLUSH ? first + 2 : first + 1};
	desc[first + 1] = (struct desc){(uintptr_t)data, DISK_SECTOR_BYTES, flags, first + 2};
	desc[first + 2] = (struct desc){(uintptr_t)&statuses[slot], 1, 2, 0};
	avail.ring[avail.idx % QUEUE_SIZE] = first;
	__asm__ volatile("" ::: "memory");
	avail.idx++;
}

void disk_kick(void)
{
	__asm__ volatile("mfence" ::: "memory");
	*doorbell = 0;
}

uint16_t disk_in_flight(void)
{
	uint16_t n = avail.idx - used.idx;

	__asm__ volatile("" ::: "memory");
	return n;
}

int disk_ended(void)
{
	if (seen == used.idx)
		return -1;
	__asm__ volatile("" ::: "memory");
	return used.ring[seen++ % QUEUE_SIZE].id / CHAIN;
}

bool disk_good(uint32_t slot)
{
	return statuses[slot] == 0;
}

/* The two halves belong together if the generation is the same before and after (4.1.4.3.1). */
uint64_t disk_capacity(void)
{
	uint8_t before;
	uint64_t sectors;

	do {
		before = common->config_generation;
		sectors = *(volatile uint32_t *)config;
		sectors |= (uint64_t) * (volatile uint32_t *)(config + 4) << 32;
	} while (common->config_generation != before);
	return sectors;
}

uint32_t disk_block_bytes(void)
{
	return *(volatile uint32_t *)(config + 20);
}

uint8_t disk_generation(void)
{
	return common->config_generation;
}

bool disk_was_told(void)
{
	return *isr & 2;
}
