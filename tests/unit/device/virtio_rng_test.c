// The virtio entropy device: its sources, its budget, its hand-over.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device/virtio/virtio_rng.h"
#include "virtio_util.h"

#define F(bit) (UINT64_C(1) << (bit))

static const char *rng_path;

static const char *find_rng_path(void *opaque, const char *id)
{
	return strcmp(id, "r0") == 0 ? rng_path : NULL;
}

static void rng_plug(struct drv *d, struct drv_ram *ram, const char *props_text,
		     struct fd_source *fds)
{
	struct fake_machine *m = drv_machine_new(ram);
	json_t *props = json_loads(props_text, 0, NULL);

	m->env.find_rng_path = find_rng_path;
	m->env.fds = fds;
	drv_plug(d, m, ram, device_new(&virtio_rng_ops, NULL, props, NULL));
	json_decref(props);
}

static void rng_start(struct drv *d, const char *props, struct fd_source *fds)
{
	rng_plug(d, drv_ram_new(), props, fds);
	d->dev->ops->resume(d->dev);
	drv_pci_set_up(d);
	g_assert_true(drv_negotiate(d, F(VIRTIO_F_VERSION_1) | F(VIRTIO_RING_F_EVENT_IDX)));
	drv_set_up_queue(d, 0, 8, 1);
	drv_driver_ok(d);
}

static void rng_end(struct drv *d)
{
	struct drv_ram *ram = d->ram;

	drv_unplug(d);
	drv_ram_free(ram);
}

static uint64_t rng_offer(struct drv *d, uint32_t len)
{
	uint64_t gpa = drv_alloc(d->ram, len);
	const struct drv_sg sg = {gpa, len, true};
	uint16_t old = drv_avail(d, 0)->idx;

	drv_add(d, 0, &sg, 1, 0);
	drv_kick(d, 0, old);
	return gpa;
}

static uint32_t rng_wait(struct drv *d)
{
	uint32_t len;

	drv_wait_used(d, 0, 1, &len);
	return len;
}

static void test_kernel(void)
{
	struct drv d = {0};
	static const uint8_t zeros[64];
	uint64_t gpa;

	rng_start(&d, "{}", NULL);
	for (int i = 0; i < 20; i++) {
		gpa = rng_offer(&d, 64);
		g_assert_cmpuint(rng_wait(&d), ==, 64);
		g_assert_cmpint(memcmp(drv_ptr(d.ram, gpa), zeros, 64), !=, 0);
	}
	/* As much as it likes, not as much as was asked for. */
	rng_offer(&d, 1 << 20);
	g_assert_cmpuint(rng_wait(&d), ==, 4096);
	rng_end(&d);
}

/* More than a period allows waits for the next one. */
static void test_budget(void)
{
	struct drv d = {0};
	uint64_t start = clock_now_ns();

	rng_start(&d, "{\"max-bytes\": 100, \"period\": 50}", NULL);
	for (int i = 0; i < 4; i++)
		rng_offer(&d, 64);
	g_assert_cmpuint(rng_wait(&d), ==, 64);
	g_assert_cmpuint(rng_wait(&d), ==, 36);
	g_assert_cmpuint(rng_wait(&d), ==, 64);
	g_assert_cmpuint(clock_now_ns() - start, >=, 50 * NS_PER_MSEC);
	g_assert_cmpuint(rng_wait(&d), ==, 36);
	rng_end(&d);
}

/* A slow source: a FIFO that somebody fills; then the successor goes on reading it. */
static void test_file(void)
{
	g_autofree char *dir = g_dir_make_tmp("molt-rng-XXXXXX", NULL);
	g_autofree char *path = g_build_filename(dir, "fifo", NULL);
	struct fd_source fds = {0}, new_fds = {0};
	autoptr(fdstore) store = fdstore_new();
	struct drv d = {0}, old;
	GError *error = NULL;
	uint64_t gpa;
	int writer;

	g_assert_cmpint(mkfifo(path, 0600), ==, 0);
	writer = open(path, O_RDWR | O_CLOEXEC);
	g_assert_cmpint(writer, >=, 0);
	rng_path = path;
	rng_start(&d, "{\"rng\": \"r0\"}", &fds);
	gpa = rng_offer(&d, 8);
	while (g_main_context_iteration(NULL, FALSE))
		;
	g_assert_cmpuint(drv_used(&d, 0)->idx, ==, 0);
	g_assert_cmpint(write(writer, "abcdefgh", 8), ==, 8);
	g_assert_cmpuint(rng_wait(&d), ==, 8);
	g_assert_cmpmem(drv_ptr(d.ram, gpa), 8, "abcdefgh", 8);

	gpa = rng_offer(&d, 8);
	while (g_main_context_iteration(NULL, FALSE))
		;
	g_assert_true(fd_source_offer(&fds, store, FD_WAY_EXEC, &error));
	g_assert_cmpuint(fdstore_count(store), ==, 1);
	old = d;
	new_fds.inherited = store;
	rng_plug(&d, old.ram, "{\"rng\": \"r0\"}", &new_fds);
	g_assert_true(fdstore_finish(store, NULL, NULL, &error));
	fake_hand_over(old.dev, d.dev);
	drv_unplug(&old);
	d.dev->ops->resume(d.dev);
	g_assert_cmpint(write(writer, "01234567", 8), ==, 8);
	g_assert_cmpuint(rng_wait(&d), ==, 8);
	g_assert_cmpmem(drv_ptr(d.ram, gpa), 8, "01234567", 8);
	rng_end(&d);
	fd_source_clear(&fds);
	fd_source_clear(&new_fds);
	fd_close(&writer);
	g_assert_cmpint(unlink(path), ==, 0);
	g_assert_cmpint(rmdir(dir), ==, 0);
}

static void test_refused(void)
{
	struct fake_machine *m = fake_machine_new();
	json_t *props = json_pack("{s:s}", "rng", "r7");
	struct device *dev = device_new(&virtio_rng_ops, NULL, props, NULL);
	g_autoptr(GError) error = NULL;

	m->env.find_rng_path = find_rng_path;
	g_assert_false(device_realize(dev, g_strdup("pci/00.3"), &m->env, &error));
	g_assert_nonnull(strstr(error->message, "there is no rng 'r7'"));
	device_free(dev);
	json_decref(props);
	fake_machine_free(m);
}

static void test_nonsense(void)
{
	struct drv d = {0};

	rng_start(&d, "{}", NULL);
	drv_avail(&d, 0)->ring[0] = 100;
	drv_avail(&d, 0)->idx = 1;
	fake_store(d.m, d.notify, 2, 0);
	FAKE_WAIT_FOR(drv_status(&d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	g_assert_true(state_desc_lint(virtio_rng_ops.state, NULL));
	rng_end(&d);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/virtio/rng/kernel", test_kernel);
	g_test_add_func("/virtio/rng/budget", test_budget);
	g_test_add_func("/virtio/rng/file", test_file);
	g_test_add_func("/virtio/rng/refused", test_refused);
	g_test_add_func("/virtio/rng/nonsense", test_nonsense);
	return g_test_run();
}
