// What queue.c (requests come and go) and transfer.c (requests into steps) share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "backend/block/block.h"
#include "backend/block/engine.h"
#include "base/fd.h"

#define BLOCK_BOUNCE_BUFFERS 16
#define BLOCK_BOUNCE_ALL     ((1U << BLOCK_BOUNCE_BUFFERS) - 1)
#define BLOCK_BOUNCE_BYTES   (64U << 10)

/** struct block_list - A first-in first-out list through block_request.next */
struct block_list {
	struct block_request *head, *tail;
};

/** block_list_append(), block_list_take() - At the tail; from the head, NULL if it is empty. */
void block_list_append(struct block_list *list, struct block_request *req);
struct block_request *block_list_take(struct block_list *list);

/**
 * struct block_queue - Requests of one thread on one image
 * @engine:	Executes steps
 * @helper:	Threads for what io_uring cannot do (discard on a block device); NULL if not needed
 * @watch, @helper_watch: on the engines' event descriptors
 * @n_in_engine, @engine_depth: steps handed over, and how many at most
 * @waiting:	Steps that wait for room in the engine
 * @later:	Steps that the kernel had no memory for, again and again
 * @finished:	Requests whose done function is to be called
 * @bounce:	Aligned buffers for what O_DIRECT does not take as it is, @bounce_bytes each
 * @bounce_used: bit n: buffer n has a user; who has none is in @bounce_waiting
 * @writers, @writers_tail: through block_request.next_writer, oldest first: writes, zeroes and
 *		discards, where the storage's blocks are larger than a sector
 * @n_held_up:	Writers that wait for others
 * @writers_changed: one has gone that they may have waited for
 * @flush_error: see block_queue_flush_error()
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
	struct block_list waiting, later, finished, bounce_waiting;
	struct mapping bounce;
	uint32_t bounce_bytes, bounce_used;
	struct block_request *writers, *writers_tail;
	uint32_t n_held_up;
	bool writers_changed;
	int flush_error;
	bool no_punch, no_zero_range, no_blkdiscard;
};

/* queue.c */

/** block_step_push() - Have @req's step executed. */
void block_step_push(struct block_queue *queue, struct block_request *req);

/** block_request_finish() - @req has ended; its done function is called later. */
void block_request_finish(struct block_queue *queue, struct block_request *req, int result);

/* transfer.c */

/** block_request_start() - The first step of @req, whose turn it is; or it waits for a buffer. */
void block_request_start(struct block_queue *queue, struct block_request *req);

/** block_request_go_on() - @req's step has a result: the next step, or the end. */
void block_request_go_on(struct block_queue *queue, struct block_request *req);
