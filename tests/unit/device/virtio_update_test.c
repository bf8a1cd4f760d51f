// A virtio disk that changes hands, and hands back, while its driver has requests under way.
// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"
#include "device/virtio/virtio.h"
#include "virtio_disk.h"

#define FEATURES                                                                           \
	(F(VIRTIO_RING_F_EVENT_IDX) | F(VIRTIO_BLK_F_FLUSH) | F(VIRTIO_BLK_F_CONFIG_WCE) | \
	 F(VIRTIO_BLK_F_MQ))
#define PER_QUEUE 15

static void set_up(struct disk *disk, const void *data)
{
	disk->aio = GPOINTER_TO_INT(data);
	disk_open(disk);
	disk_start(disk, FEATURES);
}

static void tear_down(struct disk *disk, const void *data)
{
	disk_close(disk);
}

/* Offer writes of fresh data on both queues and kick, wherever the device is in its work. */
static void write_burst(struct disk *disk, uint32_t round, bool hands_change)
{
	disk_fill(disk, disk->data, 2 * PER_QUEUE * 4096, round);
	for (uint16_t q = 0; q < 2; q++) {
		for (uint32_t i = 0; i < PER_QUEUE; i++) {
			uint32_t slot = q * PER_QUEUE + i;
			uint16_t old = drv_avail(&disk->d, q)->idx;

			disk_offer(disk, q, slot, VIRTIO_BLK_T_OUT, (slot + round % 7) * 8,
				   disk->data + slot * 4096, 4096, false);
			/* Without some kicks: a successor must not need them. */
			if (!hands_change || i % 4 != 3)
				drv_kick(&disk->d, q, old);
		}
	}
}

/* Every request once (drv_take_used() checks), by interrupt, and its data on the disk. */
static void collect_burst(struct disk *disk, uint32_t round)
{
	uint32_t len;

	for (uint16_t q = 0; q < 2; q++) {
		for (uint32_t i = 0; i < PER_QUEUE; i++)
			drv_wait_used(&disk->d, q, q + 1, &len);
		g_assert_cmpuint(drv_used(&disk->d, q)->idx, ==, disk->d.queues[q].seen_used);
	}
	for (uint32_t slot = 0; slot < 2 * PER_QUEUE; slot++) {
		g_assert_cmpuint(disk_status_of(disk, slot), ==, 0);
		g_assert_true(disk_holds(disk, (slot + round % 7) * 4096, disk->data + slot * 4096,
					 4096));
	}
}

/* A successor with the predecessor's descriptor and state. */
static void change_hands(struct disk *disk, bool old_goes_first)
{
	struct drv old = disk->d;
	struct block_node *old_node = disk->node;
	struct fd_source *old_fds = disk->fds;
	autoptr(fdstore) store = fdstore_new();
	GError *error = NULL;

	/* As an update: the successor is built while the guest runs. */
	g_assert_true(fd_source_offer(old_fds, store, FD_WAY_EXEC, &error));
	disk_plug(disk, store);
	g_assert_true(fdstore_finish(store, NULL, NULL, &error));
	disk->fds->inherited = NULL;
	fake_hand_over(old.dev, disk->d.dev);
	if (old_goes_first)
		disk_unplug(&old, old_node, old_fds);
	disk->d.dev->ops->resume(disk->d.dev);
	if (!old_goes_first)
		disk_unplug(&old, old_node, old_fds);
}

static void test_hand_over(struct disk *disk, const void *data)
{
	for (uint32_t round = 0; round < 60; round++) {
		write_burst(disk, round, true);
		change_hands(disk, round & 1);
		collect_burst(disk, round);
	}
}

static void test_roll_back(struct disk *disk, const void *data)
{
	for (uint32_t round = 0; round < 100; round++) {
		write_burst(disk, round, true);
		g_byte_array_unref(fake_save(disk->d.dev));
		/* Quiesced: what comes now stays in the ring. */
		if (round & 1) {
			uint16_t old = drv_avail(&disk->d, 0)->idx;

			disk_offer(disk, 0, 60, VIRTIO_BLK_T_IN, 0, disk->data + 60 * 4096, 4096,
				   true);
			drv_kick(&disk->d, 0, old);
		}
		disk->d.dev->ops->resume(disk->d.dev);
		if (round & 1) {
			uint16_t head;
			uint32_t len;

			/* One more on queue 0; collect_burst() takes the rest. */
			while (!drv_take_used(&disk->d, 0, &head, &len))
				g_assert_true(drv_want_irq(&disk->d, 0) ||
					      drv_wait_irq(&disk->d, 1));
		}
		collect_burst(disk, round);
	}
}

/* An interrupt that the predecessor raised, and the guest never saw, comes from the successor. */
static void test_lost_interrupt(struct disk *disk, const void *data)
{
	write_burst(disk, 8, false);
	collect_burst(disk, 8);
	for (uint32_t vector = 1; vector <= 2; vector++)
		(void)eventfd_drain(drv_route(&disk->d, vector)->eventfd);
	change_hands(disk, true);
	for (uint32_t vector = 1; vector <= 2; vector++)
		g_assert_true(drv_wait_irq(&disk->d, vector));
	write_burst(disk, 9, false);
	collect_burst(disk, 9);
}

/* The state does not depend on what was in flight: two saves in a row are the same. */
static void test_stable_state(struct disk *disk, const void *data)
{
	g_autoptr(GByteArray) first = NULL, second = NULL;

	write_burst(disk, 1, true);
	first = fake_save(disk->d.dev);
	second = fake_save(disk->d.dev);
	g_assert_cmpmem(first->data, first->len, second->data, second->len);
	disk->d.dev->ops->resume(disk->d.dev);
	collect_burst(disk, 1);
}

/* A driver in the middle of its set-up goes on with the successor. */
static void test_half_set_up(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;

	drv_reset(d);
	g_assert_true(drv_negotiate(d, FEATURES | F(VIRTIO_F_VERSION_1)));
	drv_put(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	drv_put(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
	drv_put64(d, VIRTIO_PCI_COMMON_Q_DESCLO, 0x123456780);
	fake_store(d->m, d->config + offsetof(struct virtio_blk_config, wce), 1, 0);
	change_hands(disk, true);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 8);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4), ==, 0x23456780);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_DESCHI, 4), ==, 1);
	g_assert_cmpuint(fake_load(d->m, d->config + offsetof(struct virtio_blk_config, wce), 1),
			 ==, 0);
	drv_reset(d);
	disk_start(disk, FEATURES);
	write_burst(disk, 3, false);
	collect_burst(disk, 3);
}

/* Told, then waited for: the device says once that it is done, and what it is not done with. */
static void test_drain(struct disk *disk, const void *data)
{
	struct virtio_device *vdev = (struct virtio_device *)disk->d.dev;
	g_autoptr(GString) text = g_string_new(NULL);
	const uint32_t seen = fake_n_drained;

	/* Two requests that the backend does not answer yet, and one on another queue. */
	g_mutex_lock(&disk->d.dev->lock);
	virtio_unshelve(vdev, 0);
	virtio_unshelve(vdev, 0);
	virtio_unshelve(vdev, 1);
	g_mutex_unlock(&disk->d.dev->lock);
	g_assert_false(disk->d.dev->ops->drain(disk->d.dev));
	g_assert_cmpuint(disk->d.dev->ops->in_flight(disk->d.dev, text), ==, 3);
	g_assert_cmpstr(text->str, ==, "queue 0: 2 requests, queue 1: 1 request");
	/* What comes now stays in the ring. */
	write_burst(disk, 5, false);
	g_mutex_lock(&disk->d.dev->lock);
	virtio_shelve(vdev, 0);
	virtio_shelve(vdev, 1);
	g_assert_cmpuint(fake_n_drained, ==, seen);
	virtio_shelve(vdev, 0);
	g_mutex_unlock(&disk->d.dev->lock);
	g_assert_cmpuint(fake_n_drained, ==, seen + 1);
	g_assert_true(disk->d.dev->ops->drain(disk->d.dev));
	disk->d.dev->ops->resume(disk->d.dev);
	collect_burst(disk, 5);
	g_assert_cmpuint(fake_n_drained, ==, seen + 1);
}

/* Resumed before it was done: nothing is said any more, and nothing was lost. */
static void test_drain_undone(struct disk *disk, const void *data)
{
	struct virtio_device *vdev = (struct virtio_device *)disk->d.dev;
	const uint32_t seen = fake_n_drained;

	g_mutex_lock(&disk->d.dev->lock);
	virtio_unshelve(vdev, 1);
	g_mutex_unlock(&disk->d.dev->lock);
	g_assert_false(disk->d.dev->ops->drain(disk->d.dev));
	disk->d.dev->ops->resume(disk->d.dev);
	write_burst(disk, 5, false);
	collect_burst(disk, 5);
	g_mutex_lock(&disk->d.dev->lock);
	virtio_shelve(vdev, 1);
	g_mutex_unlock(&disk->d.dev->lock);
	g_assert_cmpuint(fake_n_drained, ==, seen);
}

/* The machine's reset does not wait either: the last request completes it. */
static void test_reset_in_flight(struct disk *disk, const void *data)
{
	struct virtio_device *vdev = (struct virtio_device *)disk->d.dev;

	g_mutex_lock(&disk->d.dev->lock);
	virtio_unshelve(vdev, 0);
	g_mutex_unlock(&disk->d.dev->lock);
	disk->d.dev->ops->reset(disk->d.dev);
	g_assert_cmphex(vdev->vs->status, !=, 0);
	g_mutex_lock(&disk->d.dev->lock);
	virtio_shelve(vdev, 0);
	g_mutex_unlock(&disk->d.dev->lock);
	g_assert_cmphex(vdev->vs->status, ==, 0);
	disk_start(disk, FEATURES);
	write_burst(disk, 7, false);
	collect_burst(disk, 7);
}

/* ---- streams that lie ---- */

static void expect_refused(struct disk *disk, const char *says)
{
	struct disk other = {.props = disk->props, .path = disk->path, .ram = disk->ram};
	struct virtio_pci_state *state = device_state(disk->d.dev);
	g_autoptr(GByteArray) bytes = g_byte_array_new();
	g_autoptr(GError) error = NULL;
	autoptr(fdstore) store = fdstore_new();

	g_assert_nonnull(state);
	g_assert_true(state_save(disk->d.dev->ops->state, state, bytes, NULL));
	g_assert_true(fd_source_offer(disk->fds, store, FD_WAY_EXEC, NULL));
	disk_plug(&other, store);
	g_assert_false(fake_restore(other.d.dev, bytes, &error));
	if (!strstr(error->message, says))
		g_error("unexpected: %s", error->message);
	disk_unplug(&other.d, other.node, other.fds);
}

static void test_lies(struct disk *disk, const void *data)
{
	struct virtio_pci_state *state = device_state(disk->d.dev);
	struct virtio_state *vs = &state->virtio, good;
	GError *error = NULL;

	fake_rest(disk->d.dev);
	g_assert_true(state_desc_lint(disk->d.dev->ops->state, &error));
	g_assert_no_error(error);
	good = *vs;
	vs->n_queues = 1;
	expect_refused(disk, "1 queues in the state, 2 here");
	*vs = good;
	vs->queues[1].size = 1024;
	expect_refused(disk, "queue 1 has 1024 entries");
	*vs = good;
	vs->queues[0].size = 48;
	expect_refused(disk, "size: 48");
	*vs = good;
	vs->queues[0].used_gpa = UINT64_C(1) << 40;
	expect_refused(disk, "queue 0: the ring is not in RAM");
	*vs = good;
	vs->queues[0].used_idx++;
	expect_refused(disk, "used_idx");
	*vs = good;
	vs->queues[1].vector = 40;
	expect_refused(disk, "vector 40");
	*vs = good;
	vs->driver_features |= UINT64_C(1) << 60;
	expect_refused(disk, "features");
	*vs = good;
	vs->status = 0x30;
	expect_refused(disk, "status");
	*vs = good;
	vs->status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	expect_refused(disk, "status");
	*vs = good;
	disk->d.dev->ops->resume(disk->d.dev);
	write_burst(disk, 6, false);
	collect_burst(disk, 6);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct disk *, const void *);
	} cases[] = {
		{"hand-over", test_hand_over},
		{"roll-back", test_roll_back},
		{"lost-interrupt", test_lost_interrupt},
		{"stable-state", test_stable_state},
		{"half-set-up", test_half_set_up},
		{"drain", test_drain},
		{"drain-undone", test_drain_undone},
		{"reset-in-flight", test_reset_in_flight},
		{"lies", test_lies},
	};
	static const struct {
		const char *name;
		enum block_aio aio;
	} engines[] = {{"uring", BLOCK_AIO_IO_URING}, {"threads", BLOCK_AIO_THREADS}};

	g_test_init(&argc, &argv, NULL);
	for (size_t e = 0; e < G_N_ELEMENTS(engines); e++) {
		for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
			g_autofree char *name = g_strdup_printf("/virtio/update/%s/%s",
								engines[e].name, cases[i].name);

			g_test_add(name, struct disk, GINT_TO_POINTER(engines[e].aio), set_up,
				   cases[i].run, tear_down);
		}
	}
	return g_test_run();
}
