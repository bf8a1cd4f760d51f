// The io_uring engine: one ring per queue, one system call per batch.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/fd.h"

#define REAP_BATCH 64

/**
 * struct block_uring - A ring
 * @base:	Its event descriptor is the ring's own: readable while completions are there
 * @fd:		The image, not owned
 * @by_worker:	Reads and writes are begun on a thread of the kernel's, not where they are submitted
 *
 * The image is not registered with the ring, although that would spare the kernel a look-up per
 * step: rings are torn down after their process has gone, and would hold the image's lock till then.
 *
 * The queue never has more steps in an engine than the ring has entries, so a submission entry is
 * always free and the completion ring (twice as large) cannot overflow.
 */
struct block_uring {
	struct block_engine base;
	struct io_uring ring;
	int fd;
	bool by_worker;
};

/*
 * Whether submitting a read may wait for the store, with the device's lock held.  The kernel takes a file
 * system without a block device for one that never waits when it is asked not to
 * (io_uring/rw.c, io_bdev_nowait()); FUSE does, for files opened with O_DIRECT.  Asks no store.
 */
static bool submission_waits(int fd)
{
	struct statx st;

	return fcntl(fd, F_GETFL) & O_DIRECT && fd_look(fd, STATX_TYPE, &st) &&
	       S_ISREG(st.stx_mode) && st.stx_dev_major == 0;
}

static void block_uring_push(struct block_engine *engine, struct block_request *req)
{
	struct block_uring *uring = (struct block_uring *)engine;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
	const struct block_step *step = &req->step;

	switch (step->kind) {
	case BLOCK_STEP_READV:
		io_uring_prep_readv2(sqe, uring->fd, step->iov, step->n_iov, step->offset_bytes,
				     step->flags);
		break;
	case BLOCK_STEP_WRITEV:
		io_uring_prep_writev2(sqe, uring->fd, step->iov, step->n_iov, step->offset_bytes,
				      step->flags);
		break;
	case BLOCK_STEP_FDATASYNC:
		io_uring_prep_fsync(sqe, uring->fd, IORING_FSYNC_DATASYNC);
		break;
	case BLOCK_STEP_FALLOCATE:
	case BLOCK_STEP_BLKDISCARD: /* the queue has a helper for it */
		io_uring_prep_fallocate(sqe, uring->fd, step->flags, step->offset_bytes,
					step->len_bytes);
		break;
	}
	if (uring->by_worker)
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	io_uring_sqe_set_data(sqe, req);
}

static bool block_uring_flush(struct block_engine *engine)
{
	struct block_uring *uring = (struct block_uring *)engine;

	while (io_uring_sq_ready(&uring->ring)) {
		int n = io_uring_submit(&uring->ring);

		if (n <= 0 && n != -EINTR)
			return false;
	}
	return true;
}

static struct block_request *block_uring_reap(struct block_engine *engine)
{
	struct block_uring *uring = (struct block_uring *)engine;
	struct io_uring_cqe *cqes[REAP_BATCH];
	struct block_request *head = NULL, **tail = &head;
	unsigned int n = io_uring_peek_batch_cqe(&uring->ring, cqes, REAP_BATCH);

	for (unsigned int i = 0; i < n; i++) {
		struct block_request *req = io_uring_cqe_get_data(cqes[i]);

		/* It cancels what it finds no thread for; after an execve() there may be no room for one. */
		req->step.result = cqes[i]->res == -ECANCELED ? -EAGAIN : cqes[i]->res;
		req->next = NULL;
		*tail = req;
		tail = &req->next;
	}
	io_uring_cq_advance(&uring->ring, n);
	return head;
}

static void block_uring_free(struct block_engine *engine)
{
	struct block_uring *uring = (struct block_uring *)engine;

	io_uring_queue_exit(&uring->ring);
	g_free(uring);
}

static const struct block_engine_ops block_uring_ops = {
	.name = "io_uring",
	.push = block_uring_push,
	.flush = block_uring_flush,
	.reap = block_uring_reap,
	.free = block_uring_free,
};

static bool block_uring_probe(struct io_uring *ring, GError **error)
{
	static const int needed[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
				     IORING_OP_FALLOCATE};
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool all = probe != NULL;

	for (size_t i = 0; i < G_N_ELEMENTS(needed) && all; i++)
		all = io_uring_opcode_supported(probe, needed[i]);
	if (probe)
		io_uring_free_probe(probe);
	if (!all)
		return error_set_generic(error, "this kernel's io_uring lacks an operation");
	return true;
}

struct block_engine *block_uring_new(int fd, uint32_t depth, GError **error)
{
	struct block_uring *uring = g_new0(struct block_uring, 1);
	int err = io_uring_queue_init(depth, &uring->ring, 0);

	if (err < 0) {
		error_set_errno(error, -err, "io_uring_setup");
		g_free(uring);
		return NULL;
	}
	uring->base.ops = &block_uring_ops;
	uring->base.event_fd = uring->ring.ring_fd;
	uring->fd = fd;
	uring->by_worker = submission_waits(fd);
	if (!block_uring_probe(&uring->ring, error)) {
		block_uring_free(&uring->base);
		return NULL;
	}
	return &uring->base;
}
