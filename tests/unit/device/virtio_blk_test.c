// The virtio disk through its registers and rings: what a driver does, and what it must not.
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtio.h"
#include "virtio_disk.h"

struct variant {
	const char *name;
	enum block_aio aio;
	uint64_t features;
	bool indirect;
};

static const struct variant variants[] = {
	{"uring", BLOCK_AIO_IO_URING, 0, false},
	{"uring-event", BLOCK_AIO_IO_URING, F(VIRTIO_RING_F_EVENT_IDX), false},
	{"uring-indirect", BLOCK_AIO_IO_URING,
	 F(VIRTIO_RING_F_EVENT_IDX) | F(VIRTIO_RING_F_INDIRECT_DESC), true},
	{"threads-event", BLOCK_AIO_THREADS, F(VIRTIO_RING_F_EVENT_IDX), false},
};

#define ALL_BLK                                                                    \
	(F(VIRTIO_BLK_F_FLUSH) | F(VIRTIO_BLK_F_CONFIG_WCE) | F(VIRTIO_BLK_F_MQ) | \
	 F(VIRTIO_BLK_F_DISCARD) | F(VIRTIO_BLK_F_WRITE_ZEROES) | F(VIRTIO_BLK_F_BLK_SIZE))

static void set_up(struct disk *disk, const void *data)
{
	const struct variant *variant = data;

	disk->aio = variant->aio;
	disk->indirect = variant->indirect;
	disk_open(disk);
	disk_start(disk, variant->features | ALL_BLK);
}

static void tear_down(struct disk *disk, const void *data)
{
	disk_close(disk);
}

/* ---- what a driver does ---- */

static void test_read_write(struct disk *disk, const void *data)
{
	disk_fill(disk, disk->data, 65536, 1);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 16, disk->data, 65536, false), ==, 0);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false), ==, 0);
	g_assert_true(disk_holds(disk, 16 * 512, disk->data, 65536));
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 16, disk->data + 65536, 65536, true), ==,
			 0);
	g_assert_true(disk_holds(disk, 16 * 512, disk->data + 65536, 65536));
}

/* Data over the seam of two regions of guest memory. */
static void test_seam(struct disk *disk, const void *data)
{
	uint64_t seam = DRV_LOW_BYTES - 2048;
	uint8_t want[4096], *high = disk->ram->high;

	for (uint32_t i = 0; i < 4096; i++)
		want[i] = i * 7;
	memcpy(disk->ram->low + seam, want, 2048);
	memcpy(high, want + 2048, 2048);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 0, seam, 4096, false), ==, 0);
	memset(disk->ram->low + seam, 0, 2048);
	memset(high, 0, 2048);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, seam, 4096, true), ==, 0);
	g_assert_cmpmem(disk->ram->low + seam, 2048, want, 2048);
	g_assert_cmpmem(high, 2048, want + 2048, 2048);
}

static void test_discard_zeroes(struct disk *disk, const void *data)
{
	struct virtio_blk_discard_write_zeroes *range = drv_ptr(disk->ram, disk->data);
	g_autofree uint8_t *zeros = g_malloc0(65536);
	uint8_t seen[65536];

	disk_fill(disk, disk->data, 131072, 2);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 0, disk->data, 131072, false), ==, 0);
	*range = (struct virtio_blk_discard_write_zeroes){.sector = 0, .num_sectors = 64};
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_DISCARD, 0, disk->data, 16, false), ==, 0);
	*range = (struct virtio_blk_discard_write_zeroes){.sector = 64, .num_sectors = 32};
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, disk->data, 16, false), ==, 0);
	*range = (struct virtio_blk_discard_write_zeroes){
		.sector = 96, .num_sectors = 32, .flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, disk->data, 16, false), ==, 0);
	g_assert_cmpint(pread(disk->fd, seen, 65536, 0), ==, 65536);
	g_assert_cmpmem(seen, 65536, zeros, 65536);
	g_assert_true(disk_holds(disk, 65536, disk->data + 65536, 65536));
}

static void test_get_id(struct disk *disk, const void *data)
{
	char *id = drv_ptr(disk->ram, disk->data);

	memset(id, 'x', 32);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_GET_ID, 0, disk->data, 20, true), ==, 0);
	g_assert_cmpstr(id, ==, "SN-0123456789");
	g_assert_cmpint(id[20], ==, 'x');
}

/* Both queues full, again and again, each with its own interrupt. */
static void test_busy(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;
	uint32_t per_queue = disk->indirect ? 30 : 15, len;

	for (uint32_t round = 0; round < 60; round++) {
		disk_fill(disk, disk->data, QUEUE_SIZE * 4096, round);
		for (uint16_t q = 0; q < 2; q++) {
			uint16_t old = drv_avail(d, q)->idx;

			for (uint32_t i = 0; i < per_queue; i++) {
				uint32_t slot = q * per_queue + i;

				disk_offer(disk, q, slot, VIRTIO_BLK_T_OUT, (59 - slot) * 8,
					   disk->data + slot * 4096, 4096, false);
			}
			drv_kick(d, q, old);
		}
		for (uint16_t q = 0; q < 2; q++)
			for (uint32_t i = 0; i < per_queue; i++)
				drv_wait_used(d, q, q + 1, &len);
		for (uint32_t slot = 0; slot < 2 * per_queue; slot++) {
			g_assert_cmpuint(disk_status_of(disk, slot), ==, 0);
			g_assert_true(disk_holds(disk, (59 - slot) * 4096, disk->data + slot * 4096,
						 4096));
		}
	}
}

/* One kick each: a lost kick or interrupt ends in a time-out. */
static void test_ping_pong(struct disk *disk, const void *data)
{
	for (uint32_t i = 0; i < 3000; i++)
		g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, i % 64, disk->data, 512, true), ==,
				 0);
}

static void test_cache_mode(struct disk *disk, const void *data)
{
	uint64_t wce = disk->d.config + offsetof(struct virtio_blk_config, wce);

	g_assert_cmpuint(fake_load(disk->d.m, wce, 1), ==, 1);
	fake_store(disk->d.m, wce, 1, 0);
	g_assert_cmpuint(fake_load(disk->d.m, wce, 1), ==, 0);
	disk_fill(disk, disk->data, 4096, 9);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 0, disk->data, 4096, false), ==, 0);
	g_assert_true(disk_holds(disk, 0, disk->data, 4096));
	drv_reset(&disk->d);
	g_assert_cmpuint(fake_load(disk->d.m, wce, 1), ==, 1);
}

/* ---- what is answered with a status ---- */

static void test_statuses(struct disk *disk, const void *data)
{
	const uint64_t sectors = IMAGE_BYTES / 512;
	struct virtio_blk_discard_write_zeroes *range = drv_ptr(disk->ram, disk->data);
	const uint64_t at = disk->data;

	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, sectors, at, 512, true), ==,
			 VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, sectors - 1, at, 1024, false), ==,
			 VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, UINT64_MAX, at, 512, true), ==,
			 VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, UINT64_MAX / 512, at, 1024, true), ==,
			 VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 0, at, 100, false), ==,
			 VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(disk, 77, 0, at, 512, true), ==, VIRTIO_BLK_S_UNSUPP);
	*range =
		(struct virtio_blk_discard_write_zeroes){.sector = 0, .num_sectors = 8, .flags = 1};
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_DISCARD, 0, at, 16, false), ==,
			 VIRTIO_BLK_S_UNSUPP);
	range->flags = 2;
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, at, 16, false), ==,
			 VIRTIO_BLK_S_UNSUPP);
	range->flags = 0;
	range->sector = sectors - 4;
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, at, 16, false), ==,
			 VIRTIO_BLK_S_IOERR);
	range->num_sectors = UINT32_MAX;
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_DISCARD, 0, at, 16, false), ==,
			 VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_DISCARD, 0, at, 32, false), ==,
			 VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_DISCARD, 0, at, 8, false), ==,
			 VIRTIO_BLK_S_IOERR);
	/* None of it hurt the device. */
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, at, 512, true), ==, 0);
}

static void test_read_only(void)
{
	struct disk disk = {.read_only = true};

	disk_open(&disk);
	drv_pci_set_up(&disk.d);
	g_assert_true(drv_device_features(&disk.d) & F(VIRTIO_BLK_F_RO));
	disk_start(&disk, F(VIRTIO_BLK_F_RO) | ALL_BLK);
	g_assert_cmpuint(disk_do(&disk, VIRTIO_BLK_T_OUT, 0, disk.data, 512, false), ==,
			 VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(&disk, VIRTIO_BLK_T_IN, 0, disk.data, 512, true), ==, 0);
	disk_close(&disk);
}

/* ---- what breaks the device, and mends it ---- */

static void expect_broken(struct disk *disk)
{
	struct drv *d = &disk->d;

	g_assert_true(drv_wait_irq(d, 0));
	g_assert_cmpuint(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
	g_assert_cmpuint(fake_load(d->m, d->isr, 1) & 2, !=, 0);
	drv_reset(d);
	disk_start(disk, disk->d.features);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, disk->data, 512, true), ==, 0);
}

static void kick_always(struct disk *disk)
{
	fake_store(disk->d.m, disk->d.notify, 2, 0);
}

static void test_broken(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;
	const struct drv_sg no_status[] = {{disk->header, 16, false}, {disk->data, 512, false}};
	const struct drv_sg short_header[] = {{disk->header, 15, false}, {disk->data, 512, true}};
	const struct drv_sg no_header[] = {{disk->data, 512, true}};
	const struct drv_sg wild[] = {{disk->header, 16, false}, {UINT64_C(1) << 52, 512, true}};

	drv_add(d, 0, no_status, 2, 0);
	kick_always(disk);
	expect_broken(disk);
	drv_add(d, 0, short_header, 2, 0);
	kick_always(disk);
	expect_broken(disk);
	drv_add(d, 0, no_header, 1, 0);
	kick_always(disk);
	expect_broken(disk);
	drv_add(d, 0, wild, 2, 0);
	kick_always(disk);
	expect_broken(disk);
	drv_avail(d, 0)->idx += QUEUE_SIZE + 1;
	kick_always(disk);
	expect_broken(disk);
	/* A broken device neither works on nor crosses into health by an update. */
	drv_avail(d, 0)->ring[drv_avail(d, 0)->idx % QUEUE_SIZE] = 999;
	drv_avail(d, 0)->idx++;
	kick_always(disk);
	g_assert_true(drv_wait_irq(d, 0));
	g_byte_array_unref(fake_save(d->dev));
	d->dev->ops->resume(d->dev);
	expect_broken(disk);
}

/* The same buffer offered over and over: more in flight than the ring can hold. */
static void test_offered_twice(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;
	uint16_t head = disk_offer(disk, 0, 0, VIRTIO_BLK_T_IN, 0, disk->data, 4096, true);
	struct vring_avail *avail = drv_avail(d, 0);

	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < QUEUE_SIZE; i++)
			avail->ring[i] = head;
		__atomic_store_n(&avail->idx, avail->idx + QUEUE_SIZE / 2, __ATOMIC_RELEASE);
		kick_always(disk);
	}
	/* It may have kept up, or be broken; it answers either way. */
	drv_reset(d);
	disk_start(disk, disk->d.features);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, disk->data, 512, true), ==, 0);
}

/* Reset while requests are under way: it ends, and nothing is written to the rings after it. */
static void test_reset_in_flight(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;

	for (int round = 0; round < 50; round++) {
		uint16_t old = drv_avail(d, 0)->idx;

		for (uint32_t i = 0; i < 15; i++)
			disk_offer(disk, 0, i, VIRTIO_BLK_T_OUT, i * 8, disk->data + i * 4096, 4096,
				   false);
		drv_kick(d, 0, old);
		drv_reset(d);
		disk_start(disk, disk->d.features);
		g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, disk->data, 512, true), ==, 0);
	}
	/* And the machine's own reset, with requests under way. */
	for (uint32_t i = 0; i < 15; i++)
		disk_offer(disk, 0, i, VIRTIO_BLK_T_OUT, i * 8, disk->data + i * 4096, 4096, false);
	kick_always(disk);
	fake_rest(d->dev);
	d->dev->ops->reset(d->dev);
	d->dev->ops->resume(d->dev);
	g_assert_cmpuint(drv_pci_get(d, PCI_COMMAND, 2), ==, 0);
	disk_start(disk, disk->d.features);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, disk->data, 512, true), ==, 0);
}

/* Random descriptors and indices under a live device; it survives, and mends by reset. */
static void test_random(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;

	for (int round = 0; round < 300; round++) {
		struct vring_desc *desc = drv_desc(d, 0);
		struct vring_avail *avail = drv_avail(d, 0);

		for (int i = 0; i < QUEUE_SIZE; i++) {
			desc[i].addr = disk->header + g_test_rand_int_range(0, 4 << 20);
			desc[i].len = 1 << g_test_rand_int_range(0, 14);
			desc[i].flags = g_test_rand_int() & (round % 2 ? 3 : 7);
			desc[i].next = g_test_rand_int_range(0, QUEUE_SIZE);
			avail->ring[i] = g_test_rand_int_range(0, QUEUE_SIZE);
			/* Often a plausible request. */
			if (i % 2) {
				*(struct virtio_blk_outhdr *)drv_ptr(disk->ram,
								     disk->header + i * 16) =
					(struct virtio_blk_outhdr){
						.type = g_test_rand_int_range(0, 15),
						.sector = g_test_rand_int_range(0, 4096)};
				desc[i].addr = disk->header + i * 16;
				desc[i].len = 16;
				desc[i].flags = VRING_DESC_F_NEXT;
			}
		}
		__atomic_store_n(&avail->idx, avail->idx + g_test_rand_int_range(1, 8),
				 __ATOMIC_RELEASE);
		kick_always(disk);
		if (round % 4 == 3) {
			drv_reset(d);
			disk_start(disk, disk->d.features);
		}
	}
	drv_reset(d);
	disk_start(disk, disk->d.features);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false), ==, 0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct disk *, const void *);
	} cases[] = {
		{"read-write", test_read_write},
		{"seam", test_seam},
		{"discard-zeroes", test_discard_zeroes},
		{"get-id", test_get_id},
		{"busy", test_busy},
		{"ping-pong", test_ping_pong},
		{"cache-mode", test_cache_mode},
		{"statuses", test_statuses},
		{"broken", test_broken},
		{"offered-twice", test_offered_twice},
		{"reset-in-flight", test_reset_in_flight},
		{"random", test_random},
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t v = 0; v < G_N_ELEMENTS(variants); v++) {
		for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
			g_autofree char *name = g_strdup_printf("/virtio/blk/%s/%s",
								variants[v].name, cases[i].name);

			g_test_add(name, struct disk, &variants[v], set_up, cases[i].run,
				   tear_down);
		}
	}
	g_test_add_func("/virtio/blk/read-only", test_read_only);
	return g_test_run();
}
