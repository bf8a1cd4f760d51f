// The virtio disk whose storage fails, dawdles, or changes its size.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>

#include "backend/block/queue.h"
#include "device/virtio/virtio_blk_priv.h"
#include "virtio_disk.h"

#define FEATURES                                                                               \
	(F(VIRTIO_RING_F_EVENT_IDX) | F(VIRTIO_RING_F_INDIRECT_DESC) | F(VIRTIO_BLK_F_FLUSH) | \
	 F(VIRTIO_BLK_F_CONFIG_WCE) | F(VIRTIO_BLK_F_MQ) | F(VIRTIO_BLK_F_WRITE_ZEROES) |      \
	 F(VIRTIO_BLK_F_DISCARD))
#define STEPS_MAX 4096
#define N_WRITES  10

/**
 * struct bad - An engine in front of a real one
 * @fail_errno:	Every step fails with it, and does nothing; 0: none does
 * @hold:	No step ends
 * @offsets, @n_steps: what was pushed, in order
 * @failed:	Requests whose step is to fail
 */
struct bad {
	struct block_engine base;
	struct block_engine *real;
	int fail_errno;
	int hold;
	uint64_t offsets[STEPS_MAX];
	uint32_t n_steps;
	GHashTable *failed;
};

/** struct errors - A disk, its bad engine, and what the machine was told */
struct errors {
	struct disk disk;
	struct bad *bad;
	json_t *event;
	uint32_t n_events, n_stops;
};

/* ---- the engine; in the I/O thread ---- */

static void bad_push(struct block_engine *engine, struct block_request *req)
{
	struct bad *bad = (struct bad *)engine;
	uint32_t n = __atomic_load_n(&bad->n_steps, __ATOMIC_RELAXED);

	g_assert_cmpuint(n, <, STEPS_MAX);
	bad->offsets[n] = req->step.offset_bytes;
	__atomic_store_n(&bad->n_steps, n + 1, __ATOMIC_RELEASE);
	if (__atomic_load_n(&bad->fail_errno, __ATOMIC_ACQUIRE)) {
		g_hash_table_add(bad->failed, req);
		req->step.kind = BLOCK_STEP_READV;
		req->step.n_iov = 0;
	}
	bad->real->ops->push(bad->real, req);
}

static bool bad_flush(struct block_engine *engine)
{
	struct bad *bad = (struct bad *)engine;

	return bad->real->ops->flush(bad->real);
}

static struct block_request *bad_reap(struct block_engine *engine)
{
	struct bad *bad = (struct bad *)engine;
	struct block_request *list;

	if (__atomic_load_n(&bad->hold, __ATOMIC_ACQUIRE))
		return NULL;
	list = bad->real->ops->reap(bad->real);
	for (struct block_request *req = list; req; req = req->next)
		if (g_hash_table_remove(bad->failed, req))
			req->step.result = -bad->fail_errno;
	return list;
}

static void bad_free(struct block_engine *engine)
{
	struct bad *bad = (struct bad *)engine;

	bad->real->ops->free(bad->real);
	g_hash_table_unref(bad->failed);
	g_free(bad);
}

static const struct block_engine_ops bad_ops = {
	.name = "bad",
	.push = bad_push,
	.flush = bad_flush,
	.reap = bad_reap,
	.free = bad_free,
};

/* ---- the machine ---- */

static void note_error(void *opaque, json_t *event, bool stop)
{
	struct errors *e = opaque;

	if (e->event)
		json_decref(e->event);
	e->event = event;
	__atomic_fetch_add(&e->n_stops, stop, __ATOMIC_RELEASE);
	__atomic_fetch_add(&e->n_events, 1, __ATOMIC_RELEASE);
}

static struct virtio_blk *blk_of(struct errors *e)
{
	return (struct virtio_blk *)e->disk.d.dev;
}

static void make_bad(struct errors *e)
{
	struct block_queue *queue = blk_of(e)->queue;

	e->bad = g_new0(struct bad, 1);
	e->bad->base = (struct block_engine){&bad_ops, queue->engine->event_fd};
	e->bad->real = queue->engine;
	e->bad->failed = g_hash_table_new(NULL, NULL);
	queue->engine = &e->bad->base;
	e->disk.d.m->env.io_error = note_error;
}

static void set_up_with(struct errors *e, const char *props)
{
	e->disk.aio = BLOCK_AIO_THREADS;
	e->disk.props = props;
	disk_open(&e->disk);
	make_bad(e);
	disk_start(&e->disk, FEATURES);
}

static void set_up(struct errors *e, const void *data)
{
	set_up_with(e, "{\"drive\": \"d0\", \"num-queues\": 2, \"werror\": \"stop\", "
		       "\"rerror\": \"stop\"}");
}

static void tear_down(struct errors *e, const void *data)
{
	disk_close(&e->disk);
	if (e->event)
		json_decref(e->event);
}

static void fail_with(struct errors *e, int err)
{
	__atomic_store_n(&e->bad->fail_errno, err, __ATOMIC_RELEASE);
}

static const char *said(struct errors *e, const char *key)
{
	return json_string_value(json_object_get(e->event, key));
}

static uint32_t n_shelved(struct errors *e)
{
	uint32_t n = 0;

	g_mutex_lock(&e->disk.d.dev->lock);
	for (struct blk_slot *slot = blk_of(e)->shelved; slot; slot = slot->next)
		n++;
	g_mutex_unlock(&e->disk.d.dev->lock);
	return n;
}

static void wait_until(struct errors *e, uint32_t (*now)(struct errors *e), uint32_t wanted)
{
	uint64_t deadline_ns = clock_deadline_ms(DRV_WAIT_MS);

	while (now(e) != wanted) {
		g_assert_cmpuint(clock_now_ns(), <, deadline_ns);
		g_thread_yield();
	}
}

static uint32_t n_pushed(struct errors *e)
{
	return __atomic_load_n(&e->bad->n_steps, __ATOMIC_ACQUIRE);
}

static void wait_for_stop(struct errors *e, uint32_t nth)
{
	uint64_t deadline_ns = clock_deadline_ms(DRV_WAIT_MS);

	while (__atomic_load_n(&e->n_stops, __ATOMIC_ACQUIRE) < nth) {
		g_assert_cmpuint(clock_now_ns(), <, deadline_ns);
		g_thread_yield();
	}
}

/* Writes on both queues by turns, all of which fail and are shelved; sector of write i: 800 - 8 i. */
static void shelve_writes(struct errors *e)
{
	struct disk *disk = &e->disk;

	disk_fill(disk, disk->data, N_WRITES * 4096, 7);
	e->bad->n_steps = 0;
	fail_with(e, ENOSPC);
	__atomic_store_n(&e->bad->hold, 1, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < N_WRITES; i++) {
		uint16_t q = i % 2, old = drv_avail(&disk->d, q)->idx;

		disk_offer(disk, q, i, VIRTIO_BLK_T_OUT, 800 - 8 * i, disk->data + i * 4096, 4096,
			   false);
		drv_kick(&disk->d, q, old);
		wait_until(e, n_pushed, i + 1);
	}
	__atomic_store_n(&e->bad->hold, 0, __ATOMIC_RELEASE);
	wait_until(e, n_shelved, N_WRITES);
	fail_with(e, 0);
	e->bad->n_steps = 0;
}

static void expect_writes_done(struct errors *e)
{
	struct disk *disk = &e->disk;
	uint32_t len;

	for (uint32_t i = 0; i < N_WRITES; i++)
		drv_wait_used(&disk->d, i % 2, i % 2 + 1, &len);
	for (uint32_t i = 0; i < N_WRITES; i++) {
		g_assert_cmpuint(disk_status_of(disk, i), ==, 0);
		g_assert_true(disk_holds(disk, (800 - 8 * i) * 512, disk->data + i * 4096, 4096));
	}
}

/* ---- tests ---- */

static void test_report_and_ignore(void)
{
	static const struct {
		const char *policy;
		uint8_t status;
	} cases[] = {{"report", VIRTIO_BLK_S_IOERR}, {"ignore", VIRTIO_BLK_S_OK}};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *props = g_strdup_printf(
			"{\"drive\": \"d0\", \"num-queues\": 2, \"werror\": \"%s\", \"rerror\": \"%s\"}",
			cases[i].policy, cases[i].policy);
		struct errors e = {0};
		struct disk *disk = &e.disk;

		set_up_with(&e, props);
		fail_with(&e, EIO);
		/* Whatever the request is; told of it once a second. */
		g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 0, disk->data, 512, false), ==,
				 cases[i].status);
		g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, disk->data, 512, true), ==,
				 cases[i].status);
		g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false), ==,
				 cases[i].status);
		g_assert_cmpuint(e.n_events, ==, 1);
		g_assert_cmpuint(e.n_stops, ==, 0);
		g_assert_cmpstr(said(&e, "action"), ==, cases[i].policy);
		g_assert_cmpstr(said(&e, "operation"), ==, "write");
		g_assert_null(json_object_get(e.event, "nospace"));
		/* The guest's own mistakes are no news. */
		fail_with(&e, 0);
		g_assert_cmpuint(
			disk_do(disk, VIRTIO_BLK_T_IN, IMAGE_BYTES / 512, disk->data, 512, true),
			==, VIRTIO_BLK_S_IOERR);
		g_assert_cmpuint(e.n_events, ==, 1);
		tear_down(&e, NULL);
	}
}

static void test_stop(struct errors *e, const void *data)
{
	struct device *dev = e->disk.d.dev;
	json_t *info;

	shelve_writes(e);
	g_assert_cmpuint(e->n_events, ==, 1);
	g_assert_cmpuint(e->n_stops, ==, 1);
	g_assert_cmpstr(said(e, "action"), ==, "stop");
	g_assert_cmpstr(said(e, "reason"), ==, g_strerror(ENOSPC));
	g_assert_cmpstr(said(e, "node-name"), ==, "d0");
	g_assert_cmpstr(said(e, "device"), ==, "");
	g_assert_cmpstr(said(e, "qom-path"), ==, "/machine/peripheral/vda/virtio-backend");
	g_assert_true(json_is_true(json_object_get(e->event, "nospace")));
	info = block_node_query_json(e->disk.node);
	g_assert_cmpstr(json_string_value(json_object_get(info, "io-status")), ==, "nospace");
	json_decref(info);
	for (uint32_t i = 0; i < N_WRITES; i++)
		g_assert_cmpuint(disk_status_of(&e->disk, i), ==, NO_STATUS);
	/* What is shelved is not in flight: the device stands still at once. */
	fake_rest(dev);
	dev->ops->resume(dev);
	expect_writes_done(e);
	for (uint32_t i = 0; i < N_WRITES; i++)
		g_assert_cmpuint(e->bad->offsets[i], ==, (800 - 8 * i) * 512);
	g_assert_cmpuint(n_pushed(e), ==, N_WRITES);
}

/* While the machine is about to stop no new request is taken; and what fails again stops again. */
static void test_stop_again(struct errors *e, const void *data)
{
	struct device *dev = e->disk.d.dev;
	struct disk *disk = &e->disk;
	uint16_t old;
	uint32_t len;

	shelve_writes(e);
	old = drv_avail(&disk->d, 0)->idx;
	disk_offer(disk, 0, 20, VIRTIO_BLK_T_IN, 0, disk->data + 20 * 4096, 512, true);
	fake_store(disk->d.m, disk->d.notify, 2, 0);
	fail_with(e, EIO);
	for (uint32_t round = 2; round < 5; round++) {
		fake_rest(dev);
		g_assert_cmpuint(disk_status_of(disk, 20), ==, NO_STATUS);
		e->bad->n_steps = 0;
		dev->ops->resume(dev);
		/* What is shelved now may be so still: the queues go on in another thread. */
		wait_for_stop(e, round);
		wait_until(e, n_shelved, N_WRITES + 1);
		for (uint32_t i = 0; i < N_WRITES; i++)
			g_assert_cmpuint(e->bad->offsets[i], ==, (800 - 8 * i) * 512);
	}
	(void)old;
	fail_with(e, 0);
	fake_rest(dev);
	dev->ops->resume(dev);
	expect_writes_done(e);
	drv_wait_used(&disk->d, 0, 1, &len);
	g_assert_cmpuint(disk_status_of(disk, 20), ==, 0);
}

/* The successor has them, in their order; and hands them on. */
static void test_update(struct errors *e, const void *data)
{
	shelve_writes(e);
	for (uint32_t hop = 0; hop < 3; hop++) {
		struct drv old = e->disk.d;
		struct block_node *old_node = e->disk.node;
		struct fd_source *old_fds = e->disk.fds;
		autoptr(fdstore) store = fdstore_new();
		json_t *info;

		g_assert_true(fd_source_offer(old_fds, store, FD_WAY_EXEC, NULL));
		disk_plug(&e->disk, store);
		g_assert_true(fdstore_finish(store, NULL, NULL, NULL));
		e->disk.fds->inherited = NULL;
		fake_hand_over(old.dev, e->disk.d.dev);
		disk_unplug(&old, old_node, old_fds);
		g_assert_cmpuint(n_shelved(e), ==, N_WRITES);
		info = block_node_query_json(e->disk.node);
		g_assert_cmpstr(json_string_value(json_object_get(info, "io-status")), ==,
				"nospace");
		json_decref(info);
	}
	make_bad(e);
	e->disk.d.dev->ops->resume(e->disk.d.dev);
	expect_writes_done(e);
	for (uint32_t i = 0; i < N_WRITES; i++)
		g_assert_cmpuint(e->bad->offsets[i], ==, (800 - 8 * i) * 512);
}

static void test_reset(struct errors *e, const void *data)
{
	struct disk *disk = &e->disk;
	struct device *dev = disk->d.dev;

	for (uint32_t round = 0; round < 2; round++) {
		shelve_writes(e);
		if (round)
			dev->ops->reset(dev);
		else
			drv_reset(&disk->d);
		g_assert_cmpuint(n_shelved(e), ==, 0);
		disk_start(disk, FEATURES);
		g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 0, disk->data, 512, false), ==, 0);
		g_assert_cmpuint(blk_of(e)->n_taken, ==, 0);
		g_assert_cmpuint(n_pushed(e), ==, 1);
	}
}

/* ---- flushes, which the page cache makes a case of their own ---- */

static void flush_stops(struct errors *e, int err)
{
	struct disk *disk = &e->disk;
	uint32_t n_stops = e->n_stops;
	uint16_t old = drv_avail(&disk->d, 0)->idx;

	fail_with(e, err);
	disk_offer(disk, 0, 0, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false);
	drv_kick(&disk->d, 0, old);
	wait_for_stop(e, n_stops + 1);
	wait_until(e, n_shelved, 1);
	g_assert_cmpuint(disk_status_of(disk, 0), ==, NO_STATUS);
}

/* Return: the status of what was shelved alone, after the machine went on. */
static uint8_t goes_on(struct errors *e)
{
	struct device *dev = e->disk.d.dev;
	uint32_t len;

	fake_rest(dev);
	dev->ops->resume(dev);
	drv_wait_used(&e->disk.d, 0, 1, &len);
	g_assert_cmpuint(n_shelved(e), ==, 0);
	return disk_status_of(&e->disk, 0);
}

/* Tried again at each cont, until there is room; or dropped by a reset. */
static void test_flush_no_space(void)
{
	struct errors e = {0};
	struct device *dev;

	set_up_with(&e, "{\"drive\": \"d0\", \"num-queues\": 2}");
	dev = e.disk.d.dev;
	flush_stops(&e, ENOSPC);
	for (uint32_t n = 2; n < 5; n++) {
		fake_rest(dev);
		e.bad->n_steps = 0;
		dev->ops->resume(dev);
		wait_for_stop(&e, n);
		wait_until(&e, n_shelved, 1);
		g_assert_cmpuint(n_pushed(&e), ==, 1);
	}
	fail_with(&e, 0);
	g_assert_cmpuint(goes_on(&e), ==, VIRTIO_BLK_S_OK);
	g_assert_cmpuint(disk_do(&e.disk, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false), ==, VIRTIO_BLK_S_OK);
	flush_stops(&e, ENOSPC);
	fail_with(&e, 0);
	dev->ops->reset(dev);
	g_assert_cmpuint(n_shelved(&e), ==, 0);
	disk_start(&e.disk, FEATURES);
	g_assert_cmpuint(disk_do(&e.disk, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false), ==, VIRTIO_BLK_S_OK);
	tear_down(&e, NULL);
}

/* A failure that later flushes only remember stops the machine once, and the guest is told. */
static void test_flush_lost(struct errors *e, const void *data)
{
	struct disk *disk = &e->disk;

	flush_stops(e, EIO);
	fail_with(e, 0);
	e->bad->n_steps = 0;
	g_assert_cmpuint(goes_on(e), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false), ==, VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(n_pushed(e), ==, 0);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 0, disk->data, 512, false), ==,
			 VIRTIO_BLK_S_OK);
	g_assert_cmpuint(e->n_stops, ==, 1);
	g_assert_cmpstr(said(e, "action"), ==, "report");
}

/* The driver makes nonsense of a chain that is shelved. */
static void test_scribbled(struct errors *e, const void *data)
{
	struct disk *disk = &e->disk;
	struct device *dev = disk->d.dev;
	struct vring_desc *desc = drv_desc(&disk->d, 0);

	shelve_writes(e);
	for (uint32_t i = 0; i < QUEUE_SIZE; i++)
		desc[i] = (struct vring_desc){UINT64_C(1) << 52, 512, VRING_DESC_F_WRITE, 0};
	dev->ops->resume(dev);
	g_assert_true(drv_wait_irq(&disk->d, 0));
	g_assert_cmpuint(drv_status(&disk->d) & VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
	drv_reset(&disk->d);
	disk_start(disk, FEATURES);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_OUT, 0, disk->data, 512, false), ==, 0);
	g_assert_cmpuint(blk_of(e)->n_taken, ==, 0);
}

static void expect_refused(struct errors *e, const char *says)
{
	const struct state_desc *desc = e->disk.d.dev->ops->state;
	g_autofree void *scratch = state_scratch_new(desc, device_state(e->disk.d.dev));
	g_autoptr(GByteArray) bytes = g_byte_array_new();
	g_autoptr(GError) error = NULL;

	g_assert_true(state_save(desc, device_state(e->disk.d.dev), bytes, NULL));
	g_assert_false(state_parse(desc, span_of(bytes->data, bytes->len), scratch, &error));
	if (!strstr(error->message, says))
		g_error("unexpected: %s", error->message);
}

static void test_lies(struct errors *e, const void *data)
{
	struct device *dev = e->disk.d.dev;
	struct virtio_blk_state *s = device_state(dev);
	g_autofree struct virtio_blk_state *good = NULL;

	shelve_writes(e);
	g_byte_array_unref(fake_save(dev));
	good = g_memdup2(s, sizeof(*s));
	s->shelved[0] = 5 << 16;
	expect_refused(e, "shelved[0]");
	s->shelved[0] = 0xffff;
	expect_refused(e, "shelved[0]");
	*s = *good;
	s->n_shelved--;
	expect_refused(e, "shelved: ");
	*s = *good;
	s->common.virtio.queues[1].n_shelved++;
	expect_refused(e, "last_avail");
	*s = *good;
	s->io_status = 9;
	expect_refused(e, "io_status");
	*s = *good;
	s->blk_size = 100;
	expect_refused(e, "blk_size");
	*s = *good;
	s->max_discard_sectors = UINT32_MAX;
	expect_refused(e, "max_discard_sectors");
	*s = *good;
	dev->ops->resume(dev);
	expect_writes_done(e);
}

/* ---- more than is taken at a time ---- */

static void test_deep(void)
{
	struct errors e = {0};
	struct disk *disk = &e.disk;
	struct drv *d = &disk->d;
	const uint32_t n = 900;
	struct drv_sg sg[3];
	uint32_t len;

	disk->aio = BLOCK_AIO_THREADS;
	disk->props = "{\"drive\": \"d0\", \"num-queues\": 2, \"queue-size\": 1024}";
	disk_open(disk);
	make_bad(&e);
	disk_start(disk, FEATURES);
	drv_reset(d);
	disk->ram->next = disk->data + 4096;
	drv_pci_set_up(d);
	g_assert_true(drv_negotiate(d, FEATURES | F(VIRTIO_F_VERSION_1)));
	drv_put(d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
	for (uint16_t q = 0; q < 2; q++)
		drv_set_up_queue(d, q, 1024, q + 1);
	drv_driver_ok(d);
	sg[0] = (struct drv_sg){disk->header, 16, false};
	sg[1] = (struct drv_sg){disk->data, 512, true};
	sg[2] = (struct drv_sg){disk->status, 1, true};
	*(struct virtio_blk_outhdr *)drv_ptr(disk->ram, disk->header) =
		(struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN};
	__atomic_store_n(&e.bad->hold, 1, __ATOMIC_RELEASE);
	for (uint16_t q = 0; q < 2; q++) {
		for (uint32_t i = 0; i < n; i++)
			drv_add(d, q, sg, 3, disk->table);
		fake_store(d->m, d->notify + q * d->notify_multiplier, 2, q);
	}
	wait_until(&e, n_pushed, BLK_TAKEN_MAX);
	__atomic_store_n(&e.bad->hold, 0, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < n; i++)
		for (uint16_t q = 0; q < 2; q++)
			drv_wait_used(d, q, q + 1, &len);
	g_assert_cmpuint(n_pushed(&e), ==, 2 * n);
	tear_down(&e, NULL);
}

/* ---- what the guest is told ---- */

static uint64_t shown_capacity(struct errors *e)
{
	return fake_load(e->disk.d.m, e->disk.d.config, 8);
}

static void test_resize(struct errors *e, const void *data)
{
	struct drv *d = &e->disk.d;
	uint64_t generation = drv_get(d, VIRTIO_PCI_COMMON_CFGGENERATION, 1);

	g_assert_true(block_node_resize(e->disk.node, 4 << 20, NULL));
	g_assert_true(drv_wait_irq(d, 0));
	g_assert_cmpuint(fake_load(d->m, d->isr, 1) & 2, !=, 0);
	g_assert_cmpuint(shown_capacity(e), ==, (4 << 20) / 512);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_CFGGENERATION, 1), ==, generation + 1);
	g_assert_cmpuint(
		disk_do(&e->disk, VIRTIO_BLK_T_OUT, (3 << 20) / 512, e->disk.data, 512, false), ==,
		0);
	g_assert_true(block_node_resize(e->disk.node, 1 << 20, NULL));
	g_assert_true(drv_wait_irq(d, 0));
	g_assert_cmpuint(
		disk_do(&e->disk, VIRTIO_BLK_T_OUT, (3 << 20) / 512, e->disk.data, 512, false), ==,
		VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(e->n_events, ==, 0);
}

/* What a successor finds of its image changes nothing of what the guest was told. */
static void test_view_crosses(struct errors *e, const void *data)
{
	static const uint64_t sizes[] = {64 << 20, 1 << 20, 0, (1 << 20) + 77};

	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		struct drv old = e->disk.d;
		struct block_node *old_node = e->disk.node;
		struct fd_source *old_fds = e->disk.fds;
		autoptr(fdstore) store = fdstore_new();
		uint8_t before[60], after[60];

		for (uint32_t at = 0; at < sizeof(before); at++)
			before[at] = fake_load(old.m, old.config + at, 1);
		g_assert_cmpint(ftruncate(e->disk.fd, sizes[i]), ==, 0);
		g_assert_true(fd_source_offer(old_fds, store, FD_WAY_EXEC, NULL));
		disk_plug(&e->disk, store);
		g_assert_true(fdstore_finish(store, NULL, NULL, NULL));
		e->disk.fds->inherited = NULL;
		fake_hand_over(old.dev, e->disk.d.dev);
		disk_unplug(&old, old_node, old_fds);
		make_bad(e);
		e->disk.d.dev->ops->resume(e->disk.d.dev);
		for (uint32_t at = 0; at < sizeof(after); at++)
			after[at] = fake_load(e->disk.d.m, e->disk.d.config + at, 1);
		g_assert_cmpmem(before, sizeof(before), after, sizeof(after));
	}
	/* It is what the guest was told that counts, not what there is. */
	g_assert_cmpuint(
		disk_do(&e->disk, VIRTIO_BLK_T_IN, IMAGE_BYTES / 512, e->disk.data, 512, true), ==,
		VIRTIO_BLK_S_IOERR);
	g_assert_cmpuint(e->n_events, ==, 0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct errors *, const void *);
	} cases[] = {
		{"stop", test_stop},
		{"stop-again", test_stop_again},
		{"update", test_update},
		{"reset", test_reset},
		{"scribbled", test_scribbled},
		{"lies", test_lies},
		{"resize", test_resize},
		{"view-crosses", test_view_crosses},
		{"flush-lost", test_flush_lost},
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *name = g_strdup_printf("/virtio/blk-error/%s", cases[i].name);

		g_test_add(name, struct errors, NULL, set_up, cases[i].run, tear_down);
	}
	g_test_add_func("/virtio/blk-error/report-and-ignore", test_report_and_ignore);
	g_test_add_func("/virtio/blk-error/deep", test_deep);
	g_test_add_func("/virtio/blk-error/flush-no-space", test_flush_no_space);
	return g_test_run();
}
