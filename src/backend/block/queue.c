// Block queues: requests come, wait for one another, and are given back.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/queue.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/loop.h"

#define ENGINE_DEPTH_MAX  1024
#define POOL_THREADS	  4
#define STEP_RETRIES	  16
#define FLUSH_RETRY_USECS 1000

void block_list_append(struct block_list *list, struct block_request *req)
{
	req->next = NULL;
	if (list->tail)
		list->tail->next = req;
	else
		list->head = req;
	list->tail = req;
}

struct block_request *block_list_take(struct block_list *list)
{
	struct block_request *req = list->head;

	if (!req)
		return NULL;
	list->head = req->next;
	if (!list->head)
		list->tail = NULL;
	return req;
}

/* ---- writers of one block, where blocks are larger than sectors ---- */

/*
 * Who covers a block in part reads it, changes it, writes it: nobody else may write to it meanwhile.
 * So a writer waits for those before it that share a block with it, if either of the two is of that
 * kind; all others go on.
 */
static bool block_writers_clash(const struct block_queue *queue, const struct block_request *a,
				const struct block_request *b)
{
	uint64_t mask = queue->traits->align_bytes - 1;
	uint64_t a_end = (a->offset_bytes + a->len_bytes + mask) & ~mask;
	uint64_t b_end = (b->offset_bytes + b->len_bytes + mask) & ~mask;

	return (a->partial || b->partial) && (a->offset_bytes & ~mask) < b_end &&
	       (b->offset_bytes & ~mask) < a_end;
}

static bool block_writer_must_wait(const struct block_queue *queue, const struct block_request *req)
{
	for (const struct block_request *w = queue->writers; w != req; w = w->next_writer)
		if (block_writers_clash(queue, w, req))
			return true;
	return false;
}

static void block_writer_add(struct block_queue *queue, struct block_request *req)
{
	req->writer = true;
	req->partial = (req->offset_bytes | req->len_bytes) & (queue->traits->align_bytes - 1);
	req->next_writer = NULL;
	if (queue->writers)
		queue->writers_tail->next_writer = req;
	else
		queue->writers = req;
	queue->writers_tail = req;
	req->held_up = block_writer_must_wait(queue, req);
	if (req->held_up)
		queue->n_held_up++;
	else
		block_request_start(queue, req);
}

static void block_writer_remove(struct block_queue *queue, struct block_request *req)
{
	struct block_request **at = &queue->writers, *before = NULL;

	while (*at != req) {
		before = *at;
		at = &(*at)->next_writer;
	}
	*at = req->next_writer;
	if (queue->writers_tail == req)
		queue->writers_tail = before;
	queue->writers_changed = true;
}

/* Those that waited for writers that are gone.  Return: whether there were any. */
static bool block_writers_go_on(struct block_queue *queue)
{
	bool any = false;

	for (struct block_request *w = queue->writers, *next; w && queue->n_held_up; w = next) {
		next = w->next_writer;
		if (!w->held_up || block_writer_must_wait(queue, w))
			continue;
		w->held_up = false;
		queue->n_held_up--;
		block_request_start(queue, w);
		any = true;
	}
	queue->writers_changed = false;
	return any;
}

/* ---- steps ---- */

void block_request_finish(struct block_queue *queue, struct block_request *req, int result)
{
	/* No room left for this user is no room left. */
	req->result = result == -EDQUOT ? -ENOSPC : result;
	block_list_append(&queue->finished, req);
}

void block_step_push(struct block_queue *queue, struct block_request *req)
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

static void block_queue_wake(struct block_queue *queue)
{
	g_source_set_ready_time(queue->watch, g_get_monotonic_time() + FLUSH_RETRY_USECS);
}

static void block_step_done(struct block_queue *queue, struct block_request *req)
{
	int64_t n = req->step.result;

	if (n != -EAGAIN && n != -EINTR) {
		block_request_go_on(queue, req);
		return;
	}
	/* The guest has no use for these; what does not help at once may help in a while. */
	if (req->n_retries++ < STEP_RETRIES) {
		block_step_push(queue, req);
		return;
	}
	req->n_retries = 0;
	block_list_append(&queue->later, req);
	block_queue_wake(queue);
}

/* ---- the queue ---- */

static int block_request_check(const struct block_queue *queue, const struct block_request *req)
{
	uint64_t size = block_node_size_bytes(queue->node);

	if (req->op != BLOCK_READ && req->op != BLOCK_FLUSH && block_node_read_only(queue->node))
		return -EROFS;
	if ((req->offset_bytes | req->len_bytes) & (BLOCK_SECTOR_BYTES - 1))
		return -EINVAL;
	if (req->offset_bytes > size || req->len_bytes > size - req->offset_bytes)
		return -EIO;
	return 0;
}

void block_queue_submit(struct block_queue *queue, struct block_request *req)
{
	int err = block_request_check(queue, req);

	queue->n_in_flight++;
	req->progress_bytes = 0;
	req->n_retries = 0;
	req->bounce = 0;
	req->by_hand = false;
	req->remembered = false;
	req->writer = false;
	if (err || (req->len_bytes == 0 && req->op != BLOCK_FLUSH))
		block_request_finish(queue, req, err);
	else if (queue->traits->align_bytes > BLOCK_SECTOR_BYTES && req->op != BLOCK_READ &&
		 req->op != BLOCK_FLUSH)
		block_writer_add(queue, req);
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
		block_queue_wake(queue);
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

/* Start what waited for room in the engine or for a bounce buffer. */
static void block_queue_refill(struct block_queue *queue)
{
	while (queue->waiting.head && queue->n_in_engine < queue->engine_depth)
		block_step_push(queue, block_list_take(&queue->waiting));
	while (queue->bounce_waiting.head && queue->bounce_used != BLOCK_BOUNCE_ALL)
		block_request_start(queue, block_list_take(&queue->bounce_waiting));
}

static uint32_t block_queue_give_back(struct block_queue *queue)
{
	struct block_request *req;
	uint32_t n_done = 0;

	while ((req = block_list_take(&queue->finished))) {
		if (req->writer)
			block_writer_remove(queue, req);
		queue->n_in_flight--;
		n_done++;
		req->done(req, req->result);
	}
	return n_done;
}

uint32_t block_queue_complete(struct block_queue *queue)
{
	struct block_list later = queue->later;
	struct block_request *req;
	uint32_t n_done = 0;
	bool more;

	queue->later = (struct block_list){0};
	while ((req = block_list_take(&later)))
		block_step_push(queue, req);
	do {
		more = block_queue_reap(queue, queue->engine);
		if (queue->helper)
			more = block_queue_reap(queue, queue->helper) || more;
		block_queue_refill(queue);
		block_queue_flush(queue);
		n_done += block_queue_give_back(queue);
		if (queue->writers_changed)
			more = block_writers_go_on(queue) || more;
	} while (more);
	return n_done;
}

int block_queue_flush_error(const struct block_queue *queue)
{
	return queue->flush_error;
}

void block_queue_set_flush_error(struct block_queue *queue, int err)
{
	queue->flush_error = err;
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

/* Fresh zero pages cost nothing until they are used. */
static bool block_queue_make_bounce(struct block_queue *queue, GError **error)
{
	size_t size;
	void *addr;

	queue->bounce_bytes = MAX(BLOCK_BOUNCE_BYTES, queue->traits->align_bytes);
	if (!queue->traits->direct)
		return true;
	size = (size_t)BLOCK_BOUNCE_BUFFERS * queue->bounce_bytes;
	addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		return error_set_errno(error, errno, "cannot allocate bounce buffers");
	queue->bounce = (struct mapping){addr, size};
	return true;
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
	if (!block_queue_make_bounce(queue, error) || !block_queue_start_engines(queue, error)) {
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
