// Block queues: requests made out of single system calls that an engine executes.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "backend/block/engine.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"

#define BOUNCE_BYTES	  (256U << 10)
#define ZEROS_BYTES	  (256U << 10)
#define ENGINE_DEPTH_MAX  1024
#define POOL_THREADS	  4
#define STEP_RETRIES	  16
#define FLUSH_RETRY_USECS 1000

static uint8_t block_zeros[ZEROS_BYTES] __attribute__((aligned(4096)));

/** struct block_list - A first-in first-out list through block_request.next */
struct block_list {
	struct block_request *head, *tail;
};

/**
 * struct block_queue - Requests of one thread on one image
 * @engine:	Executes steps
 * @helper:	Threads for what io_uring cannot do (discard on a block device); NULL if not needed
 * @watch, @helper_watch: on the engines' event descriptors
 * @n_in_engine, @engine_depth: steps handed over, and how many at most
 * @waiting:	Steps that wait for room in the engine
 * @finished:	Requests whose done function is to be called
 * @bounce:	The one aligned buffer for requests whose buffers O_DIRECT does not take
 * @bouncing:	Who has it; the others are in @bounce_waiting
 * @no_punch, @no_zero_range, @no_blkdiscard: the image does not support it, do not try again
 */
struct block_queue {
	struct block_node *node;
	const struct block_traits *traits;
	struct block_engine *engine, *helper;
	GSource *watch, *helper_watch;
	void (*ready)(void *opaque);
	void *opaque;
	uint32_t n_in_flight, n_in_engine, engine_depth;
	struct block_list waiting, finished, bounce_waiting;
	struct mapping bounce;
	struct block_request *bouncing;
	bool no_punch, no_zero_range, no_blkdiscard;
};

static void block_list_append(struct block_list *list, struct block_request *req)
{
	req->next = NULL;
	if (list->tail)
		list->tail->next = req;
	else
		list->head = req;
	list->tail = req;
}

static struct block_request *block_list_take(struct block_list *list)
{
	struct block_request *req = list->head;

	if (!req)
		return NULL;
	list->head = req->next;
	if (!list->head)
		list->tail = NULL;
	return req;
}

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

static bool block_needs_bounce(const struct block_queue *queue, const struct block_request *req)
{
	uintptr_t bits = 0;

	if (!queue->traits->direct)
		return false;
	for (uint32_t i = 0; i < req->n_iov; i++)
		bits |= (uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len;
	return (bits & (queue->traits->memory_align_bytes - 1)) || req->n_iov > IOV_MAX;
}

/* ---- requests into steps ---- */

static void block_request_finish(struct block_queue *queue, struct block_request *req, int result)
{
	req->result = result;
	block_list_append(&queue->finished, req);
	if (queue->bouncing == req)
		queue->bouncing = NULL;
}

static void block_step_push(struct block_queue *queue, struct block_request *req)
{
	if (queue->n_in_engine == queue->engine_depth) {
		block_list_append(&queue->waiting, req);
		return;
	}
	queue->n_in_engine++;
	if (req->step.kind == BLOCK_STEP_BLKDISCARD && queue->helper)
		queue->helper->ops->push(queue->helper, req);
	else
		queue->engine->ops->push(queue->engine, req);
}

static int block_write_flags(const struct block_queue *queue, const struct block_request *req)
{
	bool sync = req->fua || block_node_writethrough(queue->node);

	return sync && !queue->traits->no_flush ? RWF_DSYNC : 0;
}

static void block_start_transfer(struct block_queue *queue, struct block_request *req)
{
	struct block_step *step = &req->step;
	uint64_t left = req->len_bytes - req->progress_bytes;

	if (queue->bouncing != req && block_needs_bounce(queue, req)) {
		if (queue->bouncing) {
			block_list_append(&queue->bounce_waiting, req);
			return;
		}
		queue->bouncing = req;
	}
	*step = (struct block_step){
		.kind = req->op == BLOCK_READ ? BLOCK_STEP_READV : BLOCK_STEP_WRITEV,
		.flags = req->op == BLOCK_WRITE ? block_write_flags(queue, req) : 0,
		.offset_bytes = req->offset_bytes + req->progress_bytes,
		.iov = req->iov,
		.n_iov = MIN(req->n_iov, IOV_MAX),
		.len_bytes = left,
	};
	if (queue->bouncing == req) {
		step->len_bytes = MIN(left, BOUNCE_BYTES);
		req->own_iov = (struct iovec){queue->bounce.addr, step->len_bytes};
		step->iov = &req->own_iov;
		step->n_iov = 1;
		if (req->op == BLOCK_WRITE)
			block_iov_copy(req, queue->bounce.addr, step->len_bytes, true);
	}
	block_step_push(queue, req);
}

static void block_start_discard(struct block_queue *queue, struct block_request *req)
{
	bool device = queue->traits->is_device;

	/* A discard is a hint: without support it is done when it arrives. */
	if (!queue->traits->discard || (device ? queue->no_blkdiscard : queue->no_punch)) {
		block_request_finish(queue, req, 0);
		return;
	}
	req->step = (struct block_step){
		.kind = device ? BLOCK_STEP_BLKDISCARD : BLOCK_STEP_FALLOCATE,
		.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		.offset_bytes = req->offset_bytes,
		.len_bytes = req->len_bytes,
	};
	block_step_push(queue, req);
}

static void block_start_zeroes(struct block_queue *queue, struct block_request *req)
{
	bool unmap = req->may_unmap && queue->traits->discard && !queue->no_punch;

	req->step = (struct block_step){
		.kind = BLOCK_STEP_FALLOCATE,
		.flags = FALLOC_FL_KEEP_SIZE |
			 (unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE),
		.offset_bytes = req->offset_bytes + req->progress_bytes,
		.len_bytes = req->len_bytes - req->progress_bytes,
	};
	req->writing_zeros = !unmap && queue->no_zero_range;
	if (req->writing_zeros) {
		req->step.kind = BLOCK_STEP_WRITEV;
		req->step.flags = 0;
		req->step.len_bytes = MIN(req->step.len_bytes, ZEROS_BYTES);
		req->own_iov = (struct iovec){block_zeros, req->step.len_bytes};
		req->step.iov = &req->own_iov;
		req->step.n_iov = 1;
	}
	block_step_push(queue, req);
}

static void block_start_sync(struct block_queue *queue, struct block_request *req)
{
	if (queue->traits->no_flush) {
		block_request_finish(queue, req, 0);
		return;
	}
	req->syncing = true;
	req->step = (struct block_step){.kind = BLOCK_STEP_FDATASYNC};
	block_step_push(queue, req);
}

static void block_request_start(struct block_queue *queue, struct block_request *req)
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

static void block_transfer_done(struct block_queue *queue, struct block_request *req, int64_t n)
{
	/* An image that somebody cut short, or a disk that takes nothing, is an I/O error. */
	if (n <= 0) {
		block_request_finish(queue, req, n < 0 ? n : -EIO);
		return;
	}
	n = MIN(n, (int64_t)req->step.len_bytes);
	if (req->op == BLOCK_READ && queue->bouncing == req)
		block_iov_copy(req, queue->bounce.addr, n, false);
	block_iov_advance(req, n);
	req->progress_bytes += n;
	if (req->progress_bytes == req->len_bytes)
		block_request_finish(queue, req, 0);
	else
		block_start_transfer(queue, req);
}

static void block_zeroes_done(struct block_queue *queue, struct block_request *req, int64_t n)
{
	if (n == -EOPNOTSUPP && !req->writing_zeros) {
		if (req->step.flags & FALLOC_FL_PUNCH_HOLE)
			queue->no_punch = true;
		else
			queue->no_zero_range = true;
		block_start_zeroes(queue, req);
		return;
	}
	if (n < 0 || (req->writing_zeros && n == 0)) {
		block_request_finish(queue, req, n < 0 ? n : -EIO);
		return;
	}
	req->progress_bytes += req->writing_zeros ? (uint64_t)n : req->step.len_bytes;
	if (req->progress_bytes < req->len_bytes)
		block_start_zeroes(queue, req);
	else if (block_write_flags(queue, req))
		block_start_sync(queue, req);
	else
		block_request_finish(queue, req, 0);
}

static void block_discard_done(struct block_queue *queue, struct block_request *req, int64_t n)
{
	if (n == -EOPNOTSUPP) {
		if (queue->traits->is_device)
			queue->no_blkdiscard = true;
		else
			queue->no_punch = true;
		n = 0;
	}
	block_request_finish(queue, req, MIN(n, 0));
}

static void block_step_done(struct block_queue *queue, struct block_request *req)
{
	int64_t n = req->step.result;

	if ((n == -EAGAIN || n == -EINTR) && req->n_retries++ < STEP_RETRIES) {
		block_step_push(queue, req);
		return;
	}
	if (req->syncing) {
		block_request_finish(queue, req, MIN(n, 0));
		return;
	}
	switch (req->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		block_transfer_done(queue, req, n);
		break;
	case BLOCK_WRITE_ZEROES:
		block_zeroes_done(queue, req, n);
		break;
	default:
		block_discard_done(queue, req, n);
		break;
	}
}

/* ---- the queue ---- */

static int block_request_check(const struct block_queue *queue, const struct block_request *req)
{
	uint64_t size = block_node_size_bytes(queue->node);
	uint32_t mask = block_node_align_bytes(queue->node) - 1;

	if (req->op != BLOCK_READ && req->op != BLOCK_FLUSH && block_node_read_only(queue->node))
		return -EROFS;
	if (req->offset_bytes > size || req->len_bytes > size - req->offset_bytes)
		return -EINVAL;
	/* Discards are hints, and the kernel rounds them inwards. */
	if (((req->offset_bytes | req->len_bytes) & mask) && req->op != BLOCK_DISCARD)
		return -EINVAL;
	return 0;
}

void block_queue_submit(struct block_queue *queue, struct block_request *req)
{
	int err = block_request_check(queue, req);

	queue->n_in_flight++;
	req->progress_bytes = 0;
	req->n_retries = 0;
	req->writing_zeros = false;
	req->syncing = false;
	if (err || (req->len_bytes == 0 && req->op != BLOCK_FLUSH))
		block_request_finish(queue, req, err);
	else
		block_request_start(queue, req);
}

void block_queue_flush(struct block_queue *queue)
{
	bool flushed = queue->engine->ops->flush(queue->engine);

	if (queue->helper)
		flushed = queue->helper->ops->flush(queue->helper) && flushed;
	/* The kernel is short of memory: the watch fires again without its descriptor. */
	if (!flushed)
		g_source_set_ready_time(queue->watch, g_get_monotonic_time() + FLUSH_RETRY_USECS);
}

static bool block_queue_reap(struct block_queue *queue, struct block_engine *engine)
{
	struct block_request *req = engine->ops->reap(engine);
	bool any = req != NULL;

	while (req) {
		struct block_request *next = req->next;

		queue->n_in_engine--;
		block_step_done(queue, req);
		req = next;
	}
	return any;
}

/* Start what waited for room in the engine or for the bounce buffer. */
static void block_queue_refill(struct block_queue *queue)
{
	while (queue->waiting.head && queue->n_in_engine < queue->engine_depth)
		block_step_push(queue, block_list_take(&queue->waiting));
	if (!queue->bouncing && queue->bounce_waiting.head)
		block_start_transfer(queue, block_list_take(&queue->bounce_waiting));
}

uint32_t block_queue_complete(struct block_queue *queue)
{
	struct block_request *req;
	uint32_t n_done = 0;
	bool more;

	do {
		more = block_queue_reap(queue, queue->engine);
		if (queue->helper)
			more = block_queue_reap(queue, queue->helper) || more;
		block_queue_refill(queue);
		block_queue_flush(queue);
		while ((req = block_list_take(&queue->finished))) {
			queue->n_in_flight--;
			n_done++;
			req->done(req, req->result);
		}
	} while (more);
	return n_done;
}

uint32_t block_queue_in_flight(const struct block_queue *queue)
{
	return queue->n_in_flight;
}

const char *block_queue_engine_name(const struct block_queue *queue)
{
	return queue->engine->ops->name;
}

static gboolean block_queue_event(int fd, GIOCondition condition, void *opaque)
{
	struct block_queue *queue = opaque;

	g_source_set_ready_time(queue->watch, -1);
	queue->ready(queue->opaque);
	return G_SOURCE_CONTINUE;
}

static bool block_queue_start_engines(struct block_queue *queue, GError **error)
{
	int fd = block_node_fd(queue->node);

	/* Where io_uring is not to be had, whatever the reason, threads do the same. */
	if (!queue->traits->threads)
		queue->engine = block_uring_new(fd, queue->engine_depth, NULL);
	if (!queue->engine) {
		queue->engine = block_threads_new(fd, POOL_THREADS, error);
		return queue->engine != NULL;
	}
	if (!queue->traits->is_device || !queue->traits->discard)
		return true;
	queue->helper = block_threads_new(fd, 1, error);
	return queue->helper != NULL;
}

struct block_queue *block_queue_new(struct block_node *node, GMainContext *context, uint32_t depth,
				    void (*ready)(void *opaque), void *opaque, GError **error)
{
	struct block_queue *queue = g_new0(struct block_queue, 1);

	queue->node = node;
	queue->traits = block_node_traits(node);
	queue->ready = ready;
	queue->opaque = opaque;
	queue->engine_depth = CLAMP(depth, 1, ENGINE_DEPTH_MAX);
	if (queue->traits->direct) {
		void *addr = mmap(NULL, BOUNCE_BYTES, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (addr == MAP_FAILED) {
			error_set_errno(error, errno, "cannot allocate a bounce buffer");
			block_queue_free(queue);
			return NULL;
		}
		queue->bounce = (struct mapping){addr, BOUNCE_BYTES};
	}
	if (!block_queue_start_engines(queue, error)) {
		block_queue_free(queue);
		return NULL;
	}
	queue->watch =
		loop_watch_fd(context, queue->engine->event_fd, G_IO_IN, block_queue_event, queue);
	/* Spares three system calls per event: GLib would guard against nested loops. */
	g_source_set_can_recurse(queue->watch, TRUE);
	if (queue->helper)
		queue->helper_watch = loop_watch_fd(context, queue->helper->event_fd, G_IO_IN,
						    block_queue_event, queue);
	return queue;
}

void block_queue_free(struct block_queue *queue)
{
	if (!queue)
		return;
	loop_unwatch(&queue->watch);
	loop_unwatch(&queue->helper_watch);
	if (queue->engine)
		queue->engine->ops->free(queue->engine);
	if (queue->helper)
		queue->helper->ops->free(queue->helper);
	mapping_unmap(&queue->bounce);
	g_free(queue);
}
