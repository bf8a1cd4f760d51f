// Requests made out of single steps: short transfers, bounces, blocks changed in part, fall-backs.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <limits.h>
#include <linux/falloc.h>
#include <fcntl.h>
#include <string.h>

#include "backend/block/queue.h"

/**
 * DOC: theory of operation
 *
 * A request moves forward by progress_bytes, a step at a time.  What O_DIRECT takes as it is goes
 * between the caller's buffers and the image.  The rest goes through a bounce buffer, in pieces
 * that begin and end where the storage's blocks do: a read takes of them what was asked for; a
 * write that covers a block in part first reads the piece (BLOCK_PHASE_FILL).  Between that and the
 * write nobody else may change those blocks: queue.c keeps such writers apart.
 *
 * A file may end within a sector.  Reads of what is missing there give zeros.  Wherever else a read
 * meets the end of the file, somebody has cut it short: an I/O error.
 *
 * Zeroes are allocated or punched where that works, and written by hand where it does not, and at
 * the edges of what it takes.
 */

#define ZEROS_BYTES (256U << 10)

static uint8_t block_zeros[ZEROS_BYTES] __attribute__((aligned(4096)));

/* ---- buffers ---- */

static void block_iov_advance(struct block_request *req, uint64_t n)
{
	while (n > 0 && req->n_iov > 0) {
		uint64_t part = MIN(n, req->iov->iov_len);

		req->iov->iov_base = (uint8_t *)req->iov->iov_base + part;
		req->iov->iov_len -= part;
		n -= part;
		if (req->iov->iov_len)
			break;
		req->iov++;
		req->n_iov--;
	}
}

static void block_iov_copy(const struct block_request *req, uint8_t *buf, uint64_t n, bool to_buf)
{
	for (uint32_t i = 0; i < req->n_iov && n > 0; i++) {
		uint64_t part = MIN(n, req->iov[i].iov_len);

		if (to_buf)
			memcpy(buf, req->iov[i].iov_base, part);
		else
			memcpy(req->iov[i].iov_base, buf, part);
		buf += part;
		n -= part;
	}
}

static void block_iov_clear(const struct block_request *req)
{
	for (uint32_t i = 0; i < req->n_iov; i++)
		memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
}

static uint8_t *block_bounce(const struct block_queue *queue, const struct block_request *req)
{
	return (uint8_t *)queue->bounce.addr + (size_t)(req->bounce - 1) * queue->bounce_bytes;
}

static bool block_bounce_take(struct block_queue *queue, struct block_request *req)
{
	uint32_t free = ~queue->bounce_used & BLOCK_BOUNCE_ALL;

	if (!free)
		return false;
	req->bounce = __builtin_ctz(free) + 1;
	queue->bounce_used |= 1U << (req->bounce - 1);
	return true;
}

static void block_bounce_drop(struct block_queue *queue, struct block_request *req)
{
	if (req->bounce)
		queue->bounce_used &= ~(1U << (req->bounce - 1));
	req->bounce = 0;
}

static void block_request_end(struct block_queue *queue, struct block_request *req, int result)
{
	block_bounce_drop(queue, req);
	block_request_finish(queue, req, result);
}

/* ---- reads and writes ---- */

static uint64_t block_left(const struct block_request *req)
{
	return req->len_bytes - req->progress_bytes;
}

static uint64_t block_place(const struct block_request *req)
{
	return req->offset_bytes + req->progress_bytes;
}

static bool block_needs_bounce(const struct block_queue *queue, const struct block_request *req)
{
	const struct block_traits *traits = queue->traits;
	uintptr_t bits = 0;

	if (!traits->direct)
		return false;
	if ((block_place(req) | block_left(req)) & (traits->align_bytes - 1))
		return true;
	for (uint32_t i = 0; i < req->n_iov; i++)
		bits |= (uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len;
	return (bits & (traits->memory_align_bytes - 1)) || req->n_iov > IOV_MAX;
}

static int block_write_flags(const struct block_queue *queue, const struct block_request *req)
{
	bool sync = req->fua || block_node_writethrough(queue->node);

	return sync && !queue->traits->no_flush ? RWF_DSYNC : 0;
}

static void block_step_buffer(struct block_request *req, void *buf, uint64_t len)
{
	req->own_iov = (struct iovec){buf, len};
	req->step.iov = &req->own_iov;
	req->step.n_iov = 1;
	req->step.len_bytes = len;
}

/* The piece of @req that its bounce buffer takes next, in whole blocks. */
static void block_piece(const struct block_queue *queue, const struct block_request *req,
			uint64_t *start, uint64_t *len)
{
	uint64_t mask = queue->traits->align_bytes - 1;
	uint64_t end = (block_place(req) + block_left(req) + mask) & ~mask;

	*start = block_place(req) & ~mask;
	*len = MIN(end - *start, queue->bounce_bytes);
}

/* What of a piece of @len bytes from @start on is @req's. */
static uint64_t block_piece_part(const struct block_request *req, uint64_t start, uint64_t len)
{
	return MIN(start + len - block_place(req), block_left(req));
}

/* The piece is in the buffer as it is to be, but for what the request brings. */
static void block_write_piece(struct block_queue *queue, struct block_request *req, uint64_t start,
			      uint64_t len)
{
	uint8_t *to = block_bounce(queue, req) + (block_place(req) - start);
	uint64_t part = block_piece_part(req, start, len);

	if (req->by_hand)
		memset(to, 0, part);
	else
		block_iov_copy(req, to, part, true);
	req->phase = BLOCK_PHASE_MOVE;
	req->step = (struct block_step){
		.kind = BLOCK_STEP_WRITEV,
		.flags = req->by_hand ? 0 : block_write_flags(queue, req),
		.offset_bytes = start,
	};
	block_step_buffer(req, block_bounce(queue, req), len);
	block_step_push(queue, req);
}

static void block_read_piece(struct block_queue *queue, struct block_request *req, uint64_t start,
			     uint64_t len, enum block_phase phase)
{
	req->phase = phase;
	req->step = (struct block_step){
		.kind = BLOCK_STEP_READV,
		.offset_bytes = start + req->filled_bytes,
	};
	block_step_buffer(req, block_bounce(queue, req) + req->filled_bytes,
			  len - req->filled_bytes);
	block_step_push(queue, req);
}

static void block_start_bounced(struct block_queue *queue, struct block_request *req)
{
	uint64_t start, len;

	if (!req->bounce && !block_bounce_take(queue, req)) {
		block_list_append(&queue->bounce_waiting, req);
		return;
	}
	block_piece(queue, req, &start, &len);
	req->filled_bytes = 0;
	if (req->op == BLOCK_READ)
		block_read_piece(queue, req, start, len, BLOCK_PHASE_MOVE);
	else if (block_piece_part(req, start, len) < len)
		block_read_piece(queue, req, start, len, BLOCK_PHASE_FILL);
	else
		block_write_piece(queue, req, start, len);
}

/* Up to where the kernel may take the rest at once. */
static uint64_t block_hand_bytes(const struct block_queue *queue, const struct block_request *req)
{
	uint64_t unit = queue->traits->allocate_align_bytes;
	uint64_t odd = block_place(req) & (unit - 1);

	return MIN(block_left(req), odd ? unit - odd : ZEROS_BYTES);
}

static void block_start_transfer(struct block_queue *queue, struct block_request *req)
{
	if (req->bounce || block_needs_bounce(queue, req)) {
		block_start_bounced(queue, req);
		return;
	}
	req->phase = BLOCK_PHASE_MOVE;
	req->step = (struct block_step){
		.kind = req->op == BLOCK_READ ? BLOCK_STEP_READV : BLOCK_STEP_WRITEV,
		.flags = req->op == BLOCK_WRITE ? block_write_flags(queue, req) : 0,
		.offset_bytes = block_place(req),
		.iov = req->iov,
		.n_iov = MIN(req->n_iov, IOV_MAX),
		.len_bytes = block_left(req),
	};
	if (req->by_hand)
		block_step_buffer(req, block_zeros, block_hand_bytes(queue, req));
	block_step_push(queue, req);
}

/* ---- zeroes, discards, flushes ---- */

static bool block_unsupported(int64_t result)
{
	return result == -EOPNOTSUPP || result == -EINVAL || result == -ENOSYS ||
	       result == -ENOTTY || result == -ENODEV || result == -EPERM;
}

static void block_step_allocate(struct block_queue *queue, struct block_request *req, int mode,
				uint64_t start, uint64_t end)
{
	req->phase = BLOCK_PHASE_ALLOCATE;
	req->step = (struct block_step){
		.kind = BLOCK_STEP_FALLOCATE,
		.flags = FALLOC_FL_KEEP_SIZE | mode,
		.offset_bytes = start,
		.len_bytes = end - start,
	};
	block_step_push(queue, req);
}

static void block_start_discard(struct block_queue *queue, struct block_request *req)
{
	const struct block_traits *traits = queue->traits;
	uint64_t mask = traits->allocate_align_bytes - 1;
	uint64_t start = (req->offset_bytes + mask) & ~mask;
	uint64_t end = (req->offset_bytes + req->len_bytes) & ~mask;

	/* A discard is a hint: without support, or for less than a block, it is done already. */
	if (!traits->discard || start >= end ||
	    (traits->is_device ? queue->no_blkdiscard : queue->no_punch)) {
		block_request_end(queue, req, 0);
		return;
	}
	if (!traits->is_device) {
		block_step_allocate(queue, req, FALLOC_FL_PUNCH_HOLE, start, end);
		return;
	}
	req->phase = BLOCK_PHASE_ALLOCATE;
	req->step = (struct block_step){
		.kind = BLOCK_STEP_BLKDISCARD,
		.offset_bytes = start,
		.len_bytes = end - start,
	};
	block_step_push(queue, req);
}

/* By hand up to where the kernel takes it, then in one step, then the rest by hand. */
static void block_start_zeroes(struct block_queue *queue, struct block_request *req)
{
	bool unmap = req->may_unmap && queue->traits->discard && !queue->no_punch;
	uint64_t mask = queue->traits->allocate_align_bytes - 1;
	uint64_t start = block_place(req), end = (start + block_left(req)) & ~mask;

	if ((start & mask) || start >= end || (!unmap && queue->no_zero_range)) {
		req->by_hand = true;
		block_start_transfer(queue, req);
		return;
	}
	req->by_hand = false;
	block_step_allocate(queue, req, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, start,
			    end);
}

static void block_start_sync(struct block_queue *queue, struct block_request *req)
{
	if (queue->traits->no_flush) {
		block_request_end(queue, req, 0);
		return;
	}
	if (queue->flush_error) {
		req->remembered = true;
		block_request_end(queue, req, -queue->flush_error);
		return;
	}
	req->phase = BLOCK_PHASE_SYNC;
	req->step = (struct block_step){.kind = BLOCK_STEP_FDATASYNC};
	block_step_push(queue, req);
}

void block_request_start(struct block_queue *queue, struct block_request *req)
{
	switch (req->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		block_start_transfer(queue, req);
		break;
	case BLOCK_FLUSH:
		block_start_sync(queue, req);
		break;
	case BLOCK_DISCARD:
		block_start_discard(queue, req);
		break;
	case BLOCK_WRITE_ZEROES:
		block_start_zeroes(queue, req);
		break;
	}
}

/* ---- results of steps ---- */

/* @req has got, or brought, @n bytes more. */
static void block_advance(struct block_queue *queue, struct block_request *req, uint64_t n)
{
	if (req->op != BLOCK_WRITE_ZEROES)
		block_iov_advance(req, n);
	req->progress_bytes += n;
	req->n_retries = 0;
	if (block_left(req))
		block_request_start(queue, req);
	else if (req->op == BLOCK_WRITE_ZEROES && block_write_flags(queue, req))
		block_start_sync(queue, req);
	else
		block_request_end(queue, req, 0);
}

/* A read met the end of the file where it wants @place. */
static bool block_is_tail(const struct block_queue *queue, uint64_t place)
{
	return place >= block_node_end_bytes(queue->node);
}

/* The read before a write of blocks in part. */
static void block_fill_done(struct block_queue *queue, struct block_request *req, uint64_t n)
{
	uint64_t start, len, total = req->filled_bytes + n;

	block_piece(queue, req, &start, &len);
	if (total < len && block_is_tail(queue, start + total)) {
		memset(block_bounce(queue, req) + total, 0, len - total);
		total = len;
	}
	/* O_DIRECT goes on at blocks only. */
	if (total < len)
		total &= ~(uint64_t)(queue->traits->align_bytes - 1);
	if (total <= req->filled_bytes) {
		block_request_end(queue, req, -EIO);
		return;
	}
	req->filled_bytes = total;
	if (total < len)
		block_read_piece(queue, req, start, len, BLOCK_PHASE_FILL);
	else
		block_write_piece(queue, req, start, len);
}

/* Return: how much of what a step moved is the request's, which is not what surrounds it. */
static uint64_t block_moved(struct block_queue *queue, struct block_request *req, uint64_t n)
{
	uint64_t start, len, skip;

	if (!req->bounce)
		return MIN(n, req->step.len_bytes);
	block_piece(queue, req, &start, &len);
	skip = block_place(req) - start;
	if (n <= skip)
		return 0;
	n = MIN(n - skip, block_piece_part(req, start, len));
	if (req->op == BLOCK_READ)
		block_iov_copy(req, block_bounce(queue, req) + skip, n, false);
	return n;
}

static void block_move_done(struct block_queue *queue, struct block_request *req, uint64_t n)
{
	uint64_t moved = block_moved(queue, req, n);

	if (!moved && req->op == BLOCK_READ && block_is_tail(queue, block_place(req))) {
		block_iov_clear(req);
		moved = block_left(req);
	}
	/* An image that somebody cut short, or a disk that takes nothing. */
	if (!moved) {
		block_request_end(queue, req, -EIO);
		return;
	}
	/* What comes next of zeroes need not be by hand. */
	if (req->op == BLOCK_WRITE_ZEROES)
		block_bounce_drop(queue, req);
	block_advance(queue, req, moved);
}

static void block_allocate_done(struct block_queue *queue, struct block_request *req, int64_t n)
{
	if (block_unsupported(n)) {
		if (req->step.kind == BLOCK_STEP_BLKDISCARD)
			queue->no_blkdiscard = true;
		else if (req->step.flags & FALLOC_FL_PUNCH_HOLE)
			queue->no_punch = true;
		else
			queue->no_zero_range = true;
		/* Zeroes another way; a discard will find that it is done. */
		block_request_start(queue, req);
		return;
	}
	if (n < 0 || req->op == BLOCK_DISCARD)
		block_request_end(queue, req, MIN(n, 0));
	else
		block_advance(queue, req, req->step.len_bytes);
}

/* Whether a flush that failed is tried again when somebody has made room. */
static bool block_waits_for_room(const struct block_queue *queue, int err)
{
	return (err == ENOSPC || err == EDQUOT) &&
	       block_node_error_action(queue->node, false, ENOSPC) == BLOCK_ACTION_STOP;
}

static void block_sync_done(struct block_queue *queue, struct block_request *req, int64_t n)
{
	if (n < 0 && !queue->traits->direct && !block_waits_for_room(queue, -n))
		queue->flush_error = -n;
	block_request_end(queue, req, MIN(n, 0));
}

void block_request_go_on(struct block_queue *queue, struct block_request *req)
{
	int64_t n = req->step.result;

	if (req->phase == BLOCK_PHASE_ALLOCATE)
		block_allocate_done(queue, req, n);
	else if (req->phase == BLOCK_PHASE_SYNC)
		block_sync_done(queue, req, n);
	else if (n < 0)
		block_request_end(queue, req, n);
	else if (req->phase == BLOCK_PHASE_FILL)
		block_fill_done(queue, req, n);
	else
		block_move_done(queue, req, n);
}
