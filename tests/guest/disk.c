// Drives virtio-blk by polling: writes numbered sectors, reads them back, counts what does not
// match. SPDX-License-Identifier: Apache-2.0
#include "payload.h"

/* Sections of the virtio 1.2 specification are named where they matter. */
#define ECAM	   0xb0000000ULL
#define N_SECTORS  256
#define QUEUE_SIZE 16

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

static struct desc desc[QUEUE_SIZE] __attribute__((aligned(4096)));
static struct avail avail __attribute__((aligned(4096)));
static struct used used __attribute__((aligned(4096)));
static struct {
	uint32_t type, reserved;
	uint64_t sector;
} header __attribute__((aligned(16)));
static volatile uint8_t status;
static uint64_t sector_data[64] __attribute__((aligned(512)));
static uint64_t last_written[N_SECTORS];

static volatile struct virtio_common *common;
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
static bool find_device(void)
{
	uint64_t notify = 0;
	uint32_t multiplier = 0;

	for (uint32_t slot = 1; slot < 31; slot++) {
		if (config32(slot, 0) != 0x10421af4)
			continue;
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
			if (head >> 24 == 2) {
				notify = base;
				multiplier = config32(slot, cap + 16);
			}
		}
		if (!common || !notify)
			return false;
		common->queue_select = 0;
		doorbell = (void *)(notify + common->queue_notify_off * (uint64_t)multiplier);
		return true;
	}
	return false;
}

/* 3.1.1, with queue 0 only and no interrupts. */
static void start_device(void)
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

/* 5.2.6: one request at a time; type 0 reads, 1 writes, 4 flushes. */
static void request(uint32_t type, uint64_t sector)
{
	uint16_t done = used.idx;

	header.type = type;
	header.sector = sector;
	status = 0xff;
	desc[0] = (struct desc){(uintptr_t)&header, 16, 1, type == 4 ? 2 : 1};
	desc[1] = (struct desc){(uintptr_t)sector_data, 512, type == 0 ? 3 : 1, 2};
	desc[2] = (struct desc){(uintptr_t)&status, 1, 2, 0};
	avail.ring[avail.idx % QUEUE_SIZE] = 0;
	__asm__ volatile("" ::: "memory");
	avail.idx++;
	__asm__ volatile("mfence" ::: "memory");
	*doorbell = 0;
	while (used.idx == done)
		SHARED->counter++;
	if (status != 0)
		SHARED->errors++;
}

/* detail: 0 sectors written, 1 sectors verified, 2 mismatches */
void payload_main(void *info)
{
	payload_begin();
	if (!find_device()) {
		serial_puts("no disk\n");
		for (;;)
			;
	}
	start_device();
	serial_puts("ready\n");
	for (uint64_t n = 1;; n++) {
		uint64_t sector = n % N_SECTORS, other = (n * 7) % N_SECTORS;

		for (uint32_t i = 0; i < 64; i++)
			sector_data[i] = n ^ (i << 20) ^ sector;
		request(1, sector);
		last_written[sector] = n;
		SHARED->detail[0] = n;
		if (n % 16 == 0)
			request(4, 0);
		if (!last_written[other])
			continue;
		for (uint32_t i = 0; i < 64; i++)
			sector_data[i] = 0;
		request(0, other);
		for (uint32_t i = 0; i < 64; i++)
			if (sector_data[i] != (last_written[other] ^ (i << 20) ^ other)) {
				SHARED->detail[2]++;
				SHARED->errors++;
			}
		SHARED->detail[1]++;
	}
}
