// The thread engine: a few threads that make the system calls, where io_uring is not to be had.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/thread.h"

#define THREADS_MAX 16

/**
 * struct block_threads - A pool for one queue
 * @base:	Its event descriptor is an eventfd, signalled when @done_head gets its first entry
 * @fd:		The image, not owned
 * @pushed, @pushed_tail: taken over by the queue's thread, not yet visible to the pool
 * @lock:	Guards what follows
 * @wake:	There is work, or @stop
 * @work_head, @work_tail: steps to execute, oldest first
 * @done_head, @done_tail: steps executed, oldest first
 */
struct block_threads {
	struct block_engine base;
	int fd;
	GThread *threads[THREADS_MAX];
	uint32_t n_threads;
	struct block_request *pushed, *pushed_tail;
	GMutex lock;
	GCond wake;
	struct block_request *work_head, *work_tail;
	struct block_request *done_head, *done_tail;
	bool stop;
};

static void block_chain_append(struct block_request **head, struct block_request **tail,
			       struct block_request *first, struct block_request *last)
{
	if (*tail)
		(*tail)->next = first;
	else
		*head = first;
	*tail = last;
}

int64_t block_step_execute(int fd, const struct block_step *step)
{
	uint64_t range[2] = {step->offset_bytes, step->len_bytes};
	ssize_t n = -1;

	switch (step->kind) {
	case BLOCK_STEP_READV:
		n = preadv2(fd, step->iov, step->n_iov, step->offset_bytes, step->flags);
		break;
	case BLOCK_STEP_WRITEV:
		n = pwritev2(fd, step->iov, step->n_iov, step->offset_bytes, step->flags);
		break;
	case BLOCK_STEP_FDATASYNC:
		n = fdatasync(fd);
		break;
	case BLOCK_STEP_FALLOCATE:
		n = fallocate(fd, step->flags, step->offset_bytes, step->len_bytes);
		break;
	case BLOCK_STEP_BLKDISCARD:
		n = ioctl(fd, BLKDISCARD, range);
		break;
	}
	return n < 0 ? -errno : n;
}

static void *block_threads_main(void *opaque)
{
	struct block_threads *pool = opaque;

	g_mutex_lock(&pool->lock);
	for (;;) {
		struct block_request *req = pool->work_head;

		if (!req) {
			if (pool->stop)
				break;
			g_cond_wait(&pool->wake, &pool->lock);
			continue;
		}
		pool->work_head = req->next;
		if (!pool->work_head)
			pool->work_tail = NULL;
		g_mutex_unlock(&pool->lock);
		req->step.result = block_step_execute(pool->fd, &req->step);
		req->next = NULL;
		g_mutex_lock(&pool->lock);
		if (!pool->done_head)
			eventfd_signal(pool->base.event_fd);
		block_chain_append(&pool->done_head, &pool->done_tail, req, req);
	}
	g_mutex_unlock(&pool->lock);
	return NULL;
}

static void block_threads_push(struct block_engine *engine, struct block_request *req)
{
	struct block_threads *pool = (struct block_threads *)engine;

	req->next = NULL;
	block_chain_append(&pool->pushed, &pool->pushed_tail, req, req);
}

static bool block_threads_flush(struct block_engine *engine)
{
	struct block_threads *pool = (struct block_threads *)engine;
	bool several = pool->pushed != pool->pushed_tail;

	if (!pool->pushed)
		return true;
	g_mutex_lock(&pool->lock);
	block_chain_append(&pool->work_head, &pool->work_tail, pool->pushed, pool->pushed_tail);
	if (several)
		g_cond_broadcast(&pool->wake);
	else
		g_cond_signal(&pool->wake);
	g_mutex_unlock(&pool->lock);
	pool->pushed = NULL;
	pool->pushed_tail = NULL;
	return true;
}

static struct block_request *block_threads_reap(struct block_engine *engine)
{
	struct block_threads *pool = (struct block_threads *)engine;
	struct block_request *head;

	g_mutex_lock(&pool->lock);
	head = pool->done_head;
	pool->done_head = NULL;
	pool->done_tail = NULL;
	/* Under the lock, or the signal of a step that ends just now would be lost. */
	if (head)
		eventfd_drain(pool->base.event_fd);
	g_mutex_unlock(&pool->lock);
	return head;
}

static void block_threads_free(struct block_engine *engine)
{
	struct block_threads *pool = (struct block_threads *)engine;

	g_mutex_lock(&pool->lock);
	pool->stop = true;
	g_cond_broadcast(&pool->wake);
	g_mutex_unlock(&pool->lock);
	for (uint32_t i = 0; i < pool->n_threads; i++)
		g_thread_join(pool->threads[i]);
	fd_close(&pool->base.event_fd);
	g_cond_clear(&pool->wake);
	g_mutex_clear(&pool->lock);
	g_free(pool);
}

static const struct block_engine_ops block_threads_ops = {
	.name = "threads",
	.push = block_threads_push,
	.flush = block_threads_flush,
	.reap = block_threads_reap,
	.free = block_threads_free,
};

struct block_engine *block_threads_new(int fd, uint32_t n_threads, GError **error)
{
	struct block_threads *pool = g_new0(struct block_threads, 1);

	pool->base.ops = &block_threads_ops;
	pool->fd = fd;
	g_mutex_init(&pool->lock);
	g_cond_init(&pool->wake);
	pool->base.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pool->base.event_fd < 0) {
		error_set_errno(error, errno, "eventfd");
		block_threads_free(&pool->base);
		return NULL;
	}
	n_threads = MIN(n_threads, THREADS_MAX);
	while (pool->n_threads < n_threads) {
		GThread *thread = thread_new("molt-block", block_threads_main, pool, error);

		if (!thread) {
			block_threads_free(&pool->base);
			return NULL;
		}
		pool->threads[pool->n_threads++] = thread;
	}
	return &pool->base;
}
