// Block queues on temporary files, each case with io_uring and with threads, cached and O_DIRECT.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "base/clock.h"
#include "base/fd.h"

#define IMAGE_BYTES (4U << 20)
#define N_SLOTS	    64

struct slot {
	struct block_request req;
	struct iovec iov[8];
	int n_done;
	int result;
};

struct fixture {
	char *path;
	int fd; /* a second look at the image */
	struct fd_source fds;
	struct block_node *node;
	struct block_queue *queue;
	GMainContext *context;
	struct slot slots[N_SLOTS];
	bool skipped;
};

struct variant {
	const char *name;
	enum block_aio aio;
	bool direct;
	const char *engine;
};

static const struct variant variants[] = {
	{"io_uring", BLOCK_AIO_IO_URING, false, "io_uring"},
	{"threads", BLOCK_AIO_THREADS, false, "threads"},
	{"io_uring-direct", BLOCK_AIO_IO_URING, true, "io_uring"},
	{"threads-direct", BLOCK_AIO_THREADS, true, "threads"},
};

static void request_done(struct block_request *req, int result)
{
	struct slot *slot = (struct slot *)req;

	slot->n_done++;
	slot->result = result;
}

static void queue_ready(void *opaque)
{
	struct fixture *f = opaque;

	block_queue_complete(f->queue);
}

static void fixture_open(struct fixture *f, const struct block_config *extra,
			 const struct variant *variant, uint32_t depth)
{
	struct block_config config = *extra;
	g_autoptr(GError) error = NULL;

	config.node_name = (char *)"disk0";
	config.filename = f->path;
	config.aio = variant->aio;
	config.cache_direct = variant->direct;
	f->node = block_node_new(&config, &f->fds, &error);
	if (error && strstr(error->message, "does not support O_DIRECT")) {
		f->skipped = true;
		g_test_skip("the temporary directory's file system has no O_DIRECT");
		return;
	}
	g_assert_no_error(error);
	f->queue = block_queue_new(f->node, f->context, depth, queue_ready, f, &error);
	g_assert_no_error(error);
}

static void fixture_set_up(struct fixture *f, const void *data)
{
	const struct variant *variant = data;

	f->path = g_strdup("/var/tmp/molt-queue-XXXXXX");
	f->fd = mkostemp(f->path, O_CLOEXEC);
	g_assert_cmpint(f->fd, >=, 0);
	g_assert_cmpint(ftruncate(f->fd, IMAGE_BYTES), ==, 0);
	f->context = g_main_context_new();
	fixture_open(f, &(struct block_config){.discard = true}, variant, 16);
}

static void fixture_close(struct fixture *f)
{
	block_queue_free(g_steal_pointer(&f->queue));
	block_node_free(g_steal_pointer(&f->node));
	fd_source_clear(&f->fds);
}

static void fixture_tear_down(struct fixture *f, const void *data)
{
	fixture_close(f);
	g_main_context_unref(f->context);
	g_unlink(f->path);
	g_free(f->path);
	fd_close(&f->fd);
}

static void submit(struct fixture *f, uint32_t i, enum block_op op, uint64_t offset, uint64_t len)
{
	struct slot *slot = &f->slots[i];

	slot->req.op = op;
	slot->req.offset_bytes = offset;
	slot->req.len_bytes = len;
	slot->req.iov = slot->iov;
	slot->req.done = request_done;
	slot->n_done = 0;
	block_queue_submit(f->queue, &slot->req);
	/* Never from within submit. */
	g_assert_cmpint(slot->n_done, ==, 0);
}

static void wait_all(struct fixture *f)
{
	uint64_t deadline_ns = clock_deadline_ms(20000);

	block_queue_flush(f->queue);
	block_queue_complete(f->queue);
	while (block_queue_in_flight(f->queue)) {
		g_assert_cmpuint(clock_now_ns(), <, deadline_ns);
		g_main_context_iteration(f->context, TRUE);
	}
}

/* One request with one buffer.  Return: its result. */
static int run_one(struct fixture *f, enum block_op op, uint64_t offset, void *buf, uint64_t len)
{
	struct slot *slot = &f->slots[0];

	slot->iov[0] = (struct iovec){buf, len};
	slot->req.n_iov = buf ? 1 : 0;
	submit(f, 0, op, offset, len);
	wait_all(f);
	g_assert_cmpint(slot->n_done, ==, 1);
	return slot->result;
}

static void fill(uint8_t *buf, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (seed = seed * 1664525 + 1013904223) >> 24;
}

static void test_engine(struct fixture *f, const void *data)
{
	const struct variant *variant = data;

	if (f->skipped)
		return;
	g_assert_cmpstr(block_queue_engine_name(f->queue), ==, variant->engine);
}

static void test_read_write(struct fixture *f, const void *data)
{
	g_autofree uint8_t *want = g_malloc(65536);
	uint8_t *buf = aligned_alloc(4096, 65536);
	struct slot *slot = &f->slots[0];

	if (!f->skipped) {
		fill(want, 65536, 1);
		memcpy(buf, want, 65536);
		/* Out of order in memory, so that a wrong order of buffers shows. */
		slot->iov[0] = (struct iovec){buf + 32768, 32768};
		slot->iov[1] = (struct iovec){buf, 16384};
		slot->iov[2] = (struct iovec){buf + 16384, 16384};
		slot->req.n_iov = 3;
		submit(f, 0, BLOCK_WRITE, 8192, 65536);
		wait_all(f);
		g_assert_cmpint(slot->result, ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_READ, 8192, buf, 65536), ==, 0);
		g_assert_cmpmem(buf, 32768, want + 32768, 32768);
		g_assert_cmpmem(buf + 32768, 32768, want, 32768);
		g_assert_cmpint(pread(f->fd, buf, 65536, 8192), ==, 65536);
		g_assert_cmpmem(buf + 32768, 32768, want, 32768);
	}
	free(buf);
}

/* More than the engine takes at once; each request once, each in its place. */
static void test_many(struct fixture *f, const void *data)
{
	uint8_t *buf = aligned_alloc(4096, N_SLOTS * 4096);

	for (int round = 0; round < 20 && !f->skipped; round++) {
		fill(buf, N_SLOTS * 4096, round);
		for (uint32_t i = 0; i < N_SLOTS; i++) {
			f->slots[i].iov[0] = (struct iovec){buf + i * 4096, 4096};
			f->slots[i].req.n_iov = 1;
			submit(f, i, BLOCK_WRITE, (i * 7 % N_SLOTS) * 4096, 4096);
		}
		wait_all(f);
		for (uint32_t i = 0; i < N_SLOTS; i++) {
			uint8_t seen[4096];

			g_assert_cmpint(f->slots[i].n_done, ==, 1);
			g_assert_cmpint(f->slots[i].result, ==, 0);
			g_assert_cmpint(pread(f->fd, seen, 4096, (i * 7 % N_SLOTS) * 4096), ==,
					4096);
			g_assert_cmpmem(seen, 4096, buf + i * 4096, 4096);
		}
	}
	free(buf);
}

/* Guests may put buffers anywhere and cut them anywhere. */
static void test_misaligned(struct fixture *f, const void *data)
{
	g_autofree uint8_t *want = g_malloc(600 * 1024);
	g_autofree uint8_t *buf = g_malloc(2 * 600 * 1024);

	if (f->skipped)
		return;
	fill(want, 600 * 1024, 3);
	memcpy(buf + 3, want, 600 * 1024);
	for (uint32_t i = 0; i < 3; i++) {
		struct slot *slot = &f->slots[i];
		uint8_t *from = buf + 3 + i * 200 * 1024;

		slot->iov[0] = (struct iovec){from, 17};
		slot->iov[1] = (struct iovec){from + 17, 100000};
		slot->iov[2] = (struct iovec){from + 100017, 0};
		slot->iov[3] = (struct iovec){from + 100017, 200 * 1024 - 100017};
		slot->req.n_iov = 4;
		submit(f, i, BLOCK_WRITE, i * 200 * 1024, 200 * 1024);
	}
	wait_all(f);
	for (uint32_t i = 0; i < 3; i++)
		g_assert_cmpint(f->slots[i].result, ==, 0);
	/* One read larger than the bounce buffer. */
	g_assert_cmpint(run_one(f, BLOCK_READ, 0, buf + 1, 600 * 1024), ==, 0);
	g_assert_cmpmem(buf + 1, 600 * 1024, want, 600 * 1024);
}

static void test_discard_and_zeroes(struct fixture *f, const void *data)
{
	uint8_t *buf = aligned_alloc(4096, 1 << 20);
	static const uint8_t zeros[1 << 20];
	struct stat before, after;

	if (!f->skipped) {
		fill(buf, 1 << 20, 5);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, buf, 1 << 20), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, 0);
		g_assert_cmpint(fstat(f->fd, &before), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_DISCARD, 0, NULL, 1 << 19), ==, 0);
		g_assert_cmpint(fstat(f->fd, &after), ==, 0);
		g_assert_cmpint(after.st_blocks, <, before.st_blocks);
		g_assert_cmpint(after.st_size, ==, before.st_size);

		f->slots[0].req.may_unmap = false;
		f->slots[0].req.fua = true;
		g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 1 << 19, NULL, 1 << 18), ==, 0);
		f->slots[0].req.may_unmap = true;
		g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 3 << 18, NULL, 1 << 18), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_READ, 0, buf, 1 << 20), ==, 0);
		g_assert_cmpmem(buf, 1 << 20, zeros, 1 << 20);
	}
	free(buf);
}

static void test_errors(struct fixture *f, const void *data)
{
	uint8_t *buf = aligned_alloc(4096, 8192);

	if (!f->skipped) {
		memset(buf, 0x5a, 8192);
		g_assert_cmpint(run_one(f, BLOCK_READ, IMAGE_BYTES, buf, 4096), ==, -EIO);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, IMAGE_BYTES - 4096, buf, 8192), ==, -EIO);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, UINT64_MAX - 511, buf, 4096), ==, -EIO);
		g_assert_cmpint(run_one(f, BLOCK_DISCARD, 4096, NULL, UINT64_MAX - 511), ==, -EIO);
		g_assert_cmpint(run_one(f, BLOCK_READ, 100, buf, 4096), ==, -EINVAL);
		g_assert_cmpint(run_one(f, BLOCK_READ, 0, NULL, 0), ==, 0);
		/* Somebody cuts the image short. */
		g_assert_cmpint(ftruncate(f->fd, 4096), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_READ, 0, buf, 8192), ==, -EIO);
		g_assert_cmpint(run_one(f, BLOCK_READ, 8192, buf, 4096), ==, -EIO);
		g_assert_cmpint(run_one(f, BLOCK_READ, 0, buf, 4096), ==, 0);
	}
	free(buf);
}

/* An image that ends within a sector, and within a page: the rest is zeros until it is written. */
static void test_tail(struct fixture *f, const void *data)
{
	static const uint8_t zeros[4096];
	static const uint32_t tails[] = {1, 100, 511, 513, 4095};
	uint8_t *buf = aligned_alloc(4096, 8192);
	struct stat st;

	for (size_t i = 0; i < G_N_ELEMENTS(tails) && !f->skipped; i++) {
		uint32_t tail = tails[i], whole = (tail + 511) & ~511;

		fixture_close(f);
		g_assert_cmpint(ftruncate(f->fd, 0), ==, 0);
		fill(buf, 8192, i);
		g_assert_cmpint(pwrite(f->fd, buf, 4096 + tail, 0), ==, 4096 + tail);
		fixture_open(f, &(struct block_config){.discard = true}, data, 4);
		g_assert_cmpuint(block_node_size_bytes(f->node), ==, 4096 + whole);
		memset(buf, 0xee, 8192);
		g_assert_cmpint(run_one(f, BLOCK_READ, 0, buf, 4096 + whole), ==, 0);
		g_assert_cmpmem(buf + 4096 + tail, whole - tail, zeros, whole - tail);
		g_assert_cmpint(run_one(f, BLOCK_READ, 4096 + whole, buf, 512), ==, -EIO);
		/* A write completes the sector, and disturbs nothing. */
		memset(buf, 0x33, 512);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 4096 + whole - 512, buf, 512), ==, 0);
		g_assert_cmpint(fstat(f->fd, &st), ==, 0);
		g_assert_cmpint(st.st_size, >=, 4096 + whole);
		g_assert_cmpint(run_one(f, BLOCK_READ, 4096 + whole - 512, buf + 4096, 512), ==, 0);
		g_assert_cmpmem(buf + 4096, 512, buf, 512);
	}
	free(buf);
}

static void test_read_only(struct fixture *f, const void *data)
{
	uint8_t *buf = aligned_alloc(4096, 4096);

	if (!f->skipped) {
		fixture_close(f);
		fixture_open(f, &(struct block_config){.read_only = true}, data, 4);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, buf, 4096), ==, -EROFS);
		g_assert_cmpint(run_one(f, BLOCK_DISCARD, 0, NULL, 4096), ==, -EROFS);
		g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 0, NULL, 4096), ==, -EROFS);
		g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_READ, 0, buf, 4096), ==, 0);
	}
	free(buf);
}

/* discard=ignore: the request succeeds and the data stays. */
static void test_discard_ignored(struct fixture *f, const void *data)
{
	uint8_t *buf = aligned_alloc(4096, 4096);
	uint8_t seen[4096];

	if (!f->skipped) {
		fixture_close(f);
		fixture_open(f, &(struct block_config){.writethrough = true}, data, 1);
		memset(buf, 0x77, 4096);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 4096, buf, 4096), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_DISCARD, 4096, NULL, 4096), ==, 0);
		g_assert_cmpint(pread(f->fd, seen, 4096, 4096), ==, 4096);
		g_assert_cmpmem(seen, 4096, buf, 4096);
		memset(buf, 0, 4096);
		g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 4096, NULL, 4096), ==, 0);
		g_assert_cmpint(pread(f->fd, seen, 4096, 4096), ==, 4096);
		g_assert_cmpmem(seen, 4096, buf, 4096);
	}
	free(buf);
}

/* The file may not grow past a limit: what a full disk looks like from above. */
static void test_disk_full(struct fixture *f, const void *data)
{
	struct rlimit old, limit;
	uint8_t *buf = aligned_alloc(4096, 8192);

	if (!f->skipped) {
		memset(buf, 1, 8192);
		signal(SIGXFSZ, SIG_IGN);
		g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
		limit = (struct rlimit){1 << 20, old.rlim_max};
		g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, buf, 8192), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 2 << 20, buf, 8192), ==, -EFBIG);
		/* Half of it fits: the short write is continued, and then fails. */
		g_assert_cmpint(run_one(f, BLOCK_WRITE, (1 << 20) - 4096, buf, 8192), ==, -EFBIG);
		g_assert_cmpint(run_one(f, BLOCK_READ, 2 << 20, buf, 4096), ==, 0);
		g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 2 << 20, buf, 8192), ==, 0);
	}
	free(buf);
}

/* The lock goes with the node, at once, although a ring was in use; and again and again. */
static void test_lock_let_go(struct fixture *f, const void *data)
{
	const struct variant *variant = data;
	uint8_t *buf = aligned_alloc(4096, 4096);

	for (int round = 0; round < 50 && !f->skipped; round++) {
		fixture_close(f);
		fixture_open(f, &(struct block_config){.locking = ON_OFF_ON}, variant, 4);
		g_assert_cmpint(run_one(f, BLOCK_READ, 0, buf, 4096), ==, 0);
	}
	free(buf);
}

/* Where the kernel or a container forbids io_uring, threads take over. */
static void test_fallback(void)
{
	struct fixture f = {0};
	uint8_t *buf;

	if (!g_test_subprocess()) {
		g_test_trap_subprocess(NULL, 30 * G_USEC_PER_SEC, 0);
		g_test_trap_assert_passed();
		return;
	}
	for (int round = 0; round < 2; round++) {
		scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

		g_assert_nonnull(filter);
		g_assert_cmpint(seccomp_rule_add(filter, SCMP_ACT_ERRNO(round ? EPERM : ENOSYS),
						 SCMP_SYS(io_uring_setup), 0),
				==, 0);
		g_assert_cmpint(seccomp_load(filter), ==, 0);
		seccomp_release(filter);
		memset(&f, 0, sizeof(f));
		fixture_set_up(&f, &variants[0]);
		g_assert_cmpstr(block_queue_engine_name(f.queue), ==, "threads");
		buf = aligned_alloc(4096, 4096);
		g_assert_cmpint(run_one(&f, BLOCK_WRITE, 0, buf, 4096), ==, 0);
		free(buf);
		fixture_tear_down(&f, &variants[0]);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct fixture *, const void *);
	} cases[] = {
		{"engine", test_engine},
		{"read-write", test_read_write},
		{"many", test_many},
		{"misaligned", test_misaligned},
		{"discard-zeroes", test_discard_and_zeroes},
		{"errors", test_errors},
		{"tail", test_tail},
		{"read-only", test_read_only},
		{"discard-ignored", test_discard_ignored},
		{"disk-full", test_disk_full},
		{"lock-let-go", test_lock_let_go},
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t v = 0; v < G_N_ELEMENTS(variants); v++) {
		for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
			g_autofree char *name = g_strdup_printf("/block/queue/%s/%s",
								variants[v].name, cases[i].name);

			g_test_add(name, struct fixture, &variants[v], fixture_set_up, cases[i].run,
				   fixture_tear_down);
		}
	}
	g_test_add_func("/block/queue/fallback", test_fallback);
	return g_test_run();
}
