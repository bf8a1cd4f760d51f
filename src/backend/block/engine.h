// What executes steps on an image: io_uring, or a few threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "backend/block/block.h"

struct block_engine;

/**
 * struct block_engine_ops - An engine
 * @name:	As block_queue_engine_name() tells it
 * @push:	Take @req, whose step is filled in; may wait for @flush before it starts
 * @flush:	Start everything pushed.  False if the kernel is short of memory: call again later
 * @reap:	Requests whose step has a result, linked by their next member; NULL if there are
 * none
 * @free:	Nothing is in flight
 *
 * Context: the queue's thread, one call at a time; @free with that thread stopped.
 */
struct block_engine_ops {
	const char *name;
	void (*push)(struct block_engine *engine, struct block_request *req);
	bool (*flush)(struct block_engine *engine);
	struct block_request *(*reap)(struct block_engine *engine);
	void (*free)(struct block_engine *engine);
};

/**
 * struct block_engine - Embedded in each engine's own struct
 * @ops:	Which engine
 * @event_fd:	Readable while @reap has something to return
 */
struct block_engine {
	const struct block_engine_ops *ops;
	int event_fd;
};

/**
 * block_uring_new() - An io_uring with room for @depth steps on @fd
 * Return: NULL with @error where the kernel has none, forbids it, or lacks an operation.
 */
struct block_engine *block_uring_new(int fd, uint32_t depth, GError **error);

/** block_threads_new() - @n_threads threads that execute steps on @fd.  NULL with @error set. */
struct block_engine *block_threads_new(int fd, uint32_t n_threads, GError **error);

/** block_step_execute() - Make @step's system call on @fd, here and now.  Return: its result. */
int64_t block_step_execute(int fd, const struct block_step *step);

/**
 * block_node_fd() - The image's descriptor, owned by the node; for block_queue_new()
 */
int block_node_fd(const struct block_node *node);

/** block_node_end_bytes() - Where the image ends, in the middle of a sector maybe. */
uint64_t block_node_end_bytes(const struct block_node *node);

/**
 * struct block_traits - How a node wants its requests
 * @direct:	O_DIRECT: buffers must be aligned to @memory_align_bytes, places to @align_bytes
 * @align_bytes: 512 but for O_DIRECT where the file system or device wants more
 * @allocate_align_bytes: what the kernel asks of discards and fallocate(): a device's sector; 1 for
 *		files
 * @is_device:	A block device: discards are an ioctl
 * @no_flush:	Flushes do nothing (cache=unsafe)
 * @discard:	Discards reach the image; otherwise they do nothing
 * @threads:	aio=threads
 */
struct block_traits {
	bool direct;
	bool is_device;
	bool no_flush;
	bool discard;
	bool threads;
	uint32_t align_bytes;
	uint32_t allocate_align_bytes;
	uint32_t memory_align_bytes;
};

/** block_node_traits() - Constant, owned by the node; for block_queue_new(). */
const struct block_traits *block_node_traits(const struct block_node *node);
