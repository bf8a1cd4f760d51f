// Block queues over an engine that fails, dawdles and cuts short as the test says.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/block/queue.h"

#define IMAGE_BYTES (1U << 20)
#define N_SLOTS	    32
#define PATIENCE    10000 /* rounds */

struct slot {
	struct block_request req;
	struct iovec iov[4];
	int n_done;
	int result;
};

/**
 * struct fake - An engine that makes its steps when they are reaped
 * @pending:	Pushed, oldest first
 * @fail_kind, @fail_flags, @fail_errno, @n_fail: so many steps of this kind with these flags fail
 * @max_bytes:	Reads and writes move no more at once; 0: everything
 * @held_at:	Steps at this offset do not end; UINT64_MAX: all do
 * @n_steps:	By kind
 */
struct fake {
	struct block_engine base;
	int fd;
	struct block_list pending;
	enum block_step_kind fail_kind;
	int fail_flags, fail_errno;
	uint32_t n_fail;
	uint64_t max_bytes, held_at;
	uint32_t n_steps[BLOCK_STEP_BLKDISCARD + 1];
};

struct fixture {
	char *path;
	int fd;
	struct fd_source fds;
	struct block_node *node;
	struct block_queue *queue;
	struct block_engine *real;
	struct fake fake;
	enum block_on_error werror;
	uint8_t *buf;
	struct slot slots[N_SLOTS];
};

/* ---- the engine ---- */

static void fake_push(struct block_engine *engine, struct block_request *req)
{
	block_list_append(&((struct fake *)engine)->pending, req);
}

static bool fake_flush(struct block_engine *engine)
{
	return true;
}

static int64_t fake_execute(struct fake *fake, const struct block_step *step)
{
	struct block_step part = *step;
	struct iovec iov;

	fake->n_steps[step->kind]++;
	if (fake->n_fail && fake->fail_kind == step->kind &&
	    (step->flags & fake->fail_flags) == fake->fail_flags) {
		fake->n_fail--;
		return -fake->fail_errno;
	}
	if (fake->max_bytes && step->kind <= BLOCK_STEP_WRITEV) {
		iov = step->iov[0];
		iov.iov_len = MIN(iov.iov_len, fake->max_bytes);
		part.iov = &iov;
		part.n_iov = 1;
	}
	return block_step_execute(fake->fd, &part);
}

/* The youngest first: no order may be relied on. */
static struct block_request *fake_reap(struct block_engine *engine)
{
	struct fake *fake = (struct fake *)engine;
	struct block_request *req, *ended = NULL;
	struct block_list held = {0};

	while ((req = block_list_take(&fake->pending))) {
		if (req->step.offset_bytes == fake->held_at) {
			block_list_append(&held, req);
			continue;
		}
		req->step.result = fake_execute(fake, &req->step);
		req->next = ended;
		ended = req;
	}
	fake->pending = held;
	return ended;
}

static const struct block_engine_ops fake_ops = {
	.name = "fake",
	.push = fake_push,
	.flush = fake_flush,
	.reap = fake_reap,
};

static void no_news(void *opaque)
{
}

/* ---- an image, a node, a queue ---- */

static void set_up_with(struct fixture *f, uint32_t align_bytes)
{
	struct block_config config = {
		.node_name = (char *)"disk0", .discard = true, .aio = BLOCK_AIO_THREADS};
	g_autoptr(GError) error = NULL;

	f->path = g_strdup("/var/tmp/molt-faults-XXXXXX");
	f->fd = mkostemp(f->path, O_CLOEXEC);
	g_assert_cmpint(ftruncate(f->fd, IMAGE_BYTES), ==, 0);
	config.filename = f->path;
	config.werror = f->werror;
	f->node = block_node_new(&config, &f->fds, &error);
	g_assert_no_error(error);
	/* Storage with larger blocks, which the file under it does not need. */
	if (align_bytes) {
		struct block_traits *traits = (struct block_traits *)block_node_traits(f->node);

		traits->direct = true;
		traits->align_bytes = align_bytes;
		traits->memory_align_bytes = align_bytes;
	}
	f->queue = block_queue_new(f->node, NULL, N_SLOTS, no_news, f, &error);
	g_assert_no_error(error);
	f->fake = (struct fake){.base = {&fake_ops, -1}, .fd = f->fd, .held_at = UINT64_MAX};
	f->real = f->queue->engine;
	f->queue->engine = &f->fake.base;
	f->buf = aligned_alloc(4096, IMAGE_BYTES);
}

static void set_up(struct fixture *f, const void *data)
{
	set_up_with(f, 0);
}

static void set_up_blocks(struct fixture *f, const void *data)
{
	set_up_with(f, 4096);
}

static void set_up_report(struct fixture *f, const void *data)
{
	f->werror = BLOCK_ON_ERROR_REPORT;
	set_up_with(f, 0);
}

static void tear_down(struct fixture *f, const void *data)
{
	f->queue->engine = f->real;
	block_queue_free(f->queue);
	block_node_free(f->node);
	fd_source_clear(&f->fds);
	g_unlink(f->path);
	g_free(f->path);
	fd_close(&f->fd);
	free(f->buf);
}

static void request_done(struct block_request *req, int result)
{
	struct slot *slot = (struct slot *)req;

	slot->n_done++;
	slot->result = result;
}

static struct slot *submit(struct fixture *f, uint32_t i, enum block_op op, uint64_t offset,
			   void *buf, uint64_t len)
{
	struct slot *slot = &f->slots[i];
	bool may_unmap = slot->req.may_unmap, fua = slot->req.fua;

	*slot = (struct slot){.req = {.op = op,
				      .offset_bytes = offset,
				      .len_bytes = len,
				      .iov = slot->iov,
				      .n_iov = buf ? 1 : 0,
				      .may_unmap = may_unmap,
				      .fua = fua,
				      .done = request_done}};
	slot->iov[0] = (struct iovec){buf, len};
	block_queue_submit(f->queue, &slot->req);
	return slot;
}

static void finish_all(struct fixture *f)
{
	for (int i = 0; block_queue_in_flight(f->queue); i++) {
		g_assert_cmpint(i, <, PATIENCE);
		block_queue_complete(f->queue);
	}
}

static int run_one(struct fixture *f, enum block_op op, uint64_t offset, void *buf, uint64_t len)
{
	struct slot *slot = submit(f, 0, op, offset, buf, len);

	finish_all(f);
	g_assert_cmpint(slot->n_done, ==, 1);
	return slot->result;
}

static void fail(struct fixture *f, uint32_t n, enum block_step_kind kind, int flags, int err)
{
	f->fake.n_fail = n;
	f->fake.fail_kind = kind;
	f->fake.fail_flags = flags;
	f->fake.fail_errno = err;
}

static void fill(uint8_t *buf, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (seed = seed * 1664525 + 1013904223) >> 24;
}

static void expect_bytes(struct fixture *f, uint64_t offset, const uint8_t *want, size_t len)
{
	g_autofree uint8_t *seen = g_malloc(len);

	g_assert_cmpint(pread(f->fd, seen, len, offset), ==, len);
	g_assert_cmpmem(seen, len, want, len);
}

/* ---- transfers ---- */

static void test_short(struct fixture *f, const void *data)
{
	static const uint32_t sizes[] = {512, 700, 4096, 65536};
	uint8_t *back = f->buf + (IMAGE_BYTES / 2);

	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		/* O_DIRECT moves whole blocks. */
		if (sizes[i] % block_node_traits(f->node)->align_bytes && f->queue->traits->direct)
			continue;
		fill(f->buf, 200 * 1024, i);
		f->fake.max_bytes = sizes[i];
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 4096, f->buf, 200 * 1024), ==, 0);
		expect_bytes(f, 4096, f->buf, 200 * 1024);
		g_assert_cmpint(run_one(f, BLOCK_READ, 4096, back, 200 * 1024), ==, 0);
		g_assert_cmpmem(back, 200 * 1024, f->buf, 200 * 1024);
	}
}

/* The guest has no use for these two: the step is made again until it goes through. */
static void test_again(struct fixture *f, const void *data)
{
	static const int errors[] = {EINTR, EAGAIN};

	for (size_t i = 0; i < G_N_ELEMENTS(errors); i++) {
		fill(f->buf, 4096, i);
		fail(f, 100, BLOCK_STEP_WRITEV, 0, errors[i]);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 4096), ==, 0);
		g_assert_cmpuint(f->fake.n_fail, ==, 0);
		expect_bytes(f, 0, f->buf, 4096);
		fail(f, 40, BLOCK_STEP_FDATASYNC, 0, errors[i]);
		g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, 0);
	}
}

static void test_errors(struct fixture *f, const void *data)
{
	static const struct {
		int err, result;
	} cases[] = {{EIO, -EIO},
		     {ENOSPC, -ENOSPC},
		     {EDQUOT, -ENOSPC},
		     {EROFS, -EROFS},
		     {ECANCELED, -ECANCELED}};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		fail(f, 1, BLOCK_STEP_WRITEV, 0, cases[i].err);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 4096), ==, cases[i].result);
		fail(f, 1, BLOCK_STEP_READV, 0, cases[i].err);
		g_assert_cmpint(run_one(f, BLOCK_READ, 0, f->buf, 4096), ==, cases[i].result);
		fail(f, 1, BLOCK_STEP_FALLOCATE, FALLOC_FL_ZERO_RANGE, cases[i].err);
		g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 0, NULL, 4096), ==, cases[i].result);
		fail(f, 1, BLOCK_STEP_FALLOCATE, FALLOC_FL_PUNCH_HOLE, cases[i].err);
		g_assert_cmpint(run_one(f, BLOCK_DISCARD, 0, NULL, 4096), ==, cases[i].result);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 4096), ==, 0);
	}
}

/* What the page cache could not write it forgets: no later flush means anything. */
static void test_flush_error(struct fixture *f, const void *data)
{
	fail(f, 1, BLOCK_STEP_FDATASYNC, 0, EIO);
	g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, -EIO);
	g_assert_false(f->slots[0].req.remembered);
	g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, -EIO);
	g_assert_true(f->slots[0].req.remembered);
	g_assert_cmpuint(f->fake.n_steps[BLOCK_STEP_FDATASYNC], ==, 1);
	g_assert_cmpint(block_queue_flush_error(f->queue), ==, EIO);
	block_queue_set_flush_error(f->queue, 0);
	g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, 0);
}

/* For want of space the VM stops, and the flush is really tried again; what fails otherwise counts. */
static void test_flush_no_space(struct fixture *f, const void *data)
{
	static const int errors[] = {ENOSPC, EDQUOT};
	uint32_t *n_tried = &f->fake.n_steps[BLOCK_STEP_FDATASYNC];

	for (size_t i = 0; i < G_N_ELEMENTS(errors); i++) {
		*n_tried = 0;
		fail(f, 2, BLOCK_STEP_FDATASYNC, 0, errors[i]);
		for (uint32_t n = 1; n <= 2; n++) {
			g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, -ENOSPC);
			g_assert_false(f->slots[0].req.remembered);
			g_assert_cmpuint(*n_tried, ==, n);
			g_assert_cmpint(block_queue_flush_error(f->queue), ==, 0);
		}
		g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, 0);
		g_assert_cmpuint(*n_tried, ==, 3);
	}
}

/* Where the guest was told of it, the next flush would tell it a lie. */
static void test_flush_no_space_reported(struct fixture *f, const void *data)
{
	fail(f, 1, BLOCK_STEP_FDATASYNC, 0, ENOSPC);
	g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, -ENOSPC);
	g_assert_false(f->slots[0].req.remembered);
	g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, -ENOSPC);
	g_assert_true(f->slots[0].req.remembered);
	g_assert_cmpint(block_queue_flush_error(f->queue), ==, ENOSPC);
	/* Nothing of this sticks to the slot. */
	g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 4096), ==, 0);
	g_assert_false(f->slots[0].req.remembered);
}

static void test_flush_error_direct(struct fixture *f, const void *data)
{
	fail(f, 1, BLOCK_STEP_FDATASYNC, 0, EIO);
	g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, -EIO);
	g_assert_cmpint(run_one(f, BLOCK_FLUSH, 0, NULL, 0), ==, 0);
}

/* ---- fall-backs ---- */

static const int unsupported[] = {EOPNOTSUPP, EINVAL, ENOSYS, ENOTTY, ENODEV, EPERM};

/* Each way of saying no, to each kind of request: it succeeds, and is not tried a second time. */
static void test_fall_back(struct fixture *f, const void *data)
{
	static const uint8_t zeros[600 * 1024];
	const uint32_t *n_tried = &f->fake.n_steps[BLOCK_STEP_FALLOCATE];

	for (size_t i = 0; i < G_N_ELEMENTS(unsupported); i++) {
		f->queue->no_zero_range = f->queue->no_punch = false;
		f->fake.n_steps[BLOCK_STEP_FALLOCATE] = 0;
		fill(f->buf, sizeof(zeros), i);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 512, f->buf, sizeof(zeros)), ==, 0);
		fail(f, 1, BLOCK_STEP_FALLOCATE, FALLOC_FL_ZERO_RANGE, unsupported[i]);
		g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 512, NULL, sizeof(zeros)), ==, 0);
		expect_bytes(f, 512, zeros, sizeof(zeros));
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 4096), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 0, NULL, 4096), ==, 0);
		expect_bytes(f, 0, zeros, 4096);
		g_assert_cmpuint(*n_tried, ==, 1);
		/* Punching is another matter, and may be refused as well. */
		f->slots[0].req.may_unmap = true;
		fail(f, 1, BLOCK_STEP_FALLOCATE, FALLOC_FL_PUNCH_HOLE, unsupported[i]);
		g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 4096), ==, 0);
		f->slots[0].req.may_unmap = true;
		g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 0, NULL, 4096), ==, 0);
		expect_bytes(f, 0, zeros, 4096);
		f->slots[0].req.may_unmap = false;
		g_assert_cmpuint(*n_tried, ==, 2);
		g_assert_cmpint(run_one(f, BLOCK_DISCARD, 0, NULL, 4096), ==, 0);
		g_assert_cmpuint(*n_tried, ==, 2);
		/* A discard that finds it out itself. */
		f->queue->no_punch = false;
		fail(f, 1, BLOCK_STEP_FALLOCATE, FALLOC_FL_PUNCH_HOLE, unsupported[i]);
		g_assert_cmpint(run_one(f, BLOCK_DISCARD, 0, NULL, 4096), ==, 0);
		g_assert_cmpint(run_one(f, BLOCK_DISCARD, 0, NULL, 4096), ==, 0);
		g_assert_cmpuint(*n_tried, ==, 3);
	}
}

/* A device takes whole blocks only: the edges of zeroes by hand, of discards not at all. */
static void test_edges(struct fixture *f, const void *data)
{
	static const uint8_t zeros[64 * 1024];
	struct block_traits *traits = (struct block_traits *)block_node_traits(f->node);

	traits->allocate_align_bytes = 4096;
	fill(f->buf, 65536, 1);
	g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 65536), ==, 0);
	g_assert_cmpint(run_one(f, BLOCK_WRITE_ZEROES, 512, NULL, 65536 - 1024), ==, 0);
	expect_bytes(f, 0, f->buf, 512);
	expect_bytes(f, 512, zeros, 65536 - 1024);
	expect_bytes(f, 65536 - 512, f->buf + 65536 - 512, 512);
	/* So little goes through one bounce buffer where one is needed anyway. */
	g_assert_cmpuint(f->fake.n_steps[BLOCK_STEP_FALLOCATE], ==, traits->direct ? 0 : 1);
	g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 65536), ==, 0);
	g_assert_cmpint(run_one(f, BLOCK_DISCARD, 512, NULL, 8192), ==, 0);
	expect_bytes(f, 0, f->buf, 4096);
	expect_bytes(f, 8192, f->buf + 8192, 4096);
	g_assert_cmpint(run_one(f, BLOCK_DISCARD, 512, NULL, 4096), ==, 0);
	expect_bytes(f, 0, f->buf, 4096);
}

/* ---- blocks larger than sectors ---- */

/* Every sector of some blocks at once, whatever the order of the steps: none loses another. */
static void test_neighbours(struct fixture *f, const void *data)
{
	for (uint32_t round = 0; round < 20; round++) {
		fill(f->buf, N_SLOTS * 512, round);
		for (uint32_t i = 0; i < N_SLOTS; i++) {
			uint32_t at = i * 5 % N_SLOTS;

			submit(f, i, BLOCK_WRITE, at * 512, f->buf + at * 512, 512);
		}
		finish_all(f);
		for (uint32_t i = 0; i < N_SLOTS; i++)
			g_assert_cmpint(f->slots[i].result, ==, 0);
		expect_bytes(f, 0, f->buf, N_SLOTS * 512);
	}
}

/* Small, large, odd and even requests over one another's blocks, not over one another. */
static void test_mixture(struct fixture *f, const void *data)
{
	static const uint8_t zeros[4096];
	uint8_t *model = f->buf + IMAGE_BYTES / 2;

	memset(model, 0, 65536 * 4);
	for (uint32_t round = 0; round < 100; round++) {
		uint64_t at = 0;

		for (uint32_t i = 0; i < N_SLOTS && at < 65536 * 3; i++) {
			uint32_t len = 512 * g_test_rand_int_range(1, i % 5 ? 20 : 160);
			bool zero = g_test_rand_int_range(0, 5) == 0;

			fill(f->buf + at, len, round + i);
			f->fake.max_bytes = round % 3 ? 0 : 4096;
			if (zero && len <= sizeof(zeros)) {
				memset(model + at, 0, len);
				submit(f, i, BLOCK_WRITE_ZEROES, at, NULL, len);
			} else {
				memcpy(model + at, f->buf + at, len);
				submit(f, i, BLOCK_WRITE, at, f->buf + at, len);
			}
			at += len;
		}
		finish_all(f);
		expect_bytes(f, 0, model, 65536 * 4);
	}
}

/* A write that hangs holds up its own blocks, nobody else. */
static void test_hanging_block(struct fixture *f, const void *data)
{
	struct slot *stuck, *same, *other, *read;

	fill(f->buf, 65536, 1);
	f->fake.held_at = 4096;
	stuck = submit(f, 0, BLOCK_WRITE, 4096 + 512, f->buf, 512);
	same = submit(f, 1, BLOCK_WRITE, 4096, f->buf + 512, 512);
	other = submit(f, 2, BLOCK_WRITE, 512, f->buf + 1024, 512);
	read = submit(f, 3, BLOCK_READ, 512 * 40, f->buf + 32768, 512);
	for (int i = 0; i < 20; i++)
		block_queue_complete(f->queue);
	g_assert_cmpint(stuck->n_done, ==, 0);
	g_assert_cmpint(same->n_done, ==, 0);
	g_assert_cmpint(other->n_done, ==, 1);
	g_assert_cmpint(read->n_done, ==, 1);
	f->fake.held_at = UINT64_MAX;
	finish_all(f);
	expect_bytes(f, 4096, f->buf + 512, 512);
	expect_bytes(f, 4096 + 512, f->buf, 512);
}

/* The read before a write fails: so does the write, and the block is as it was. */
static void test_fill_error(struct fixture *f, const void *data)
{
	fill(f->buf, 8192, 1);
	g_assert_cmpint(run_one(f, BLOCK_WRITE, 0, f->buf, 8192), ==, 0);
	fail(f, 1, BLOCK_STEP_READV, 0, EIO);
	g_assert_cmpint(run_one(f, BLOCK_WRITE, 512, f->buf + 4096, 512), ==, -EIO);
	expect_bytes(f, 0, f->buf, 8192);
	g_assert_cmpint(run_one(f, BLOCK_WRITE, 512, f->buf + 4096, 512), ==, 0);
	/* Somebody cut the image short: nothing is written that would make it longer again. */
	g_assert_cmpint(ftruncate(f->fd, 4096), ==, 0);
	g_assert_cmpint(run_one(f, BLOCK_WRITE, 8192 + 512, f->buf, 512), ==, -EIO);
	g_assert_cmpint(lseek(f->fd, 0, SEEK_END), ==, 4096);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*set_up)(struct fixture *, const void *);
		void (*run)(struct fixture *, const void *);
	} cases[] = {
		{"short", set_up, test_short},
		{"short-blocks", set_up_blocks, test_short},
		{"again", set_up, test_again},
		{"again-blocks", set_up_blocks, test_again},
		{"errors", set_up, test_errors},
		{"errors-blocks", set_up_blocks, test_errors},
		{"flush-error", set_up, test_flush_error},
		{"flush-no-space", set_up, test_flush_no_space},
		{"flush-no-space-reported", set_up_report, test_flush_no_space_reported},
		{"flush-error-direct", set_up_blocks, test_flush_error_direct},
		{"fall-back", set_up, test_fall_back},
		{"fall-back-blocks", set_up_blocks, test_fall_back},
		{"edges", set_up, test_edges},
		{"edges-blocks", set_up_blocks, test_edges},
		{"neighbours", set_up_blocks, test_neighbours},
		{"mixture", set_up_blocks, test_mixture},
		{"hanging-block", set_up_blocks, test_hanging_block},
		{"fill-error", set_up_blocks, test_fill_error},
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *name = g_strdup_printf("/block/faults/%s", cases[i].name);

		g_test_add(name, struct fixture, NULL, cases[i].set_up, cases[i].run, tear_down);
	}
	return g_test_run();
}
