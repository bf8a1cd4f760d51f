// Disk images and block devices, and the queues through which a device reads and writes them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "options/config.h"
#include "state/fd_acquire.h"

/**
 * DOC: Theory of operation
 *
 * A struct block_node is one open image with its lock.  The machine makes one per configured block
 * (block_node_new()) and frees it after the devices.  A device attaches to its node and makes one
 * struct block_queue per I/O thread.
 *
 * A queue belongs to the thread of its context.  There the device fills a struct block_request (it
 * has a fixed set of them: nothing is allocated per request), hands it over with
 * block_queue_submit(), ends the batch with block_queue_flush() and collects what is already done
 * with block_queue_complete().  When more becomes ready later, the queue calls the device's ready
 * function in that thread, which calls block_queue_complete() again.  Every request ends with
 * exactly one call of its done function, from within block_queue_complete() and nowhere else.
 *
 * Under a queue works an engine (engine.h): io_uring, or threads where the kernel forbids it.  An
 * engine executes single system calls ("steps"); queue.c makes requests out of them: it goes on
 * after short transfers, bounces what O_DIRECT does not take, falls back from fallocate() to
 * writing zeros.
 *
 * Unhappy paths.  A request outside of the image, or one that writes to a read-only image, ends
 * with an error before any step.  Requests cannot be cancelled: whoever must stop waits until
 * block_queue_in_flight() is 0.
 */

/** BLOCK_SECTOR_BYTES - The unit of image sizes and request offsets */
#define BLOCK_SECTOR_BYTES 512

struct block_node;

/**
 * block_node_new() - Open the image that @config names, or go on with the predecessor's descriptor
 * @config:	Copied as needed
 * @fds:	The descriptor is "block/<node_name>" in it; outlives the node
 *
 * A regular file or a block device, raw.  Its size must be a multiple of 512 and not 0: nothing is
 * rounded, because a guest's last sector must not depend on a guess.
 *
 * Unless locking=off the image is locked through the open file description (fcntl_locking(2)), so
 * that the lock crosses an update with the descriptor and is never let go: a write lock on the
 * whole file, or for read-only use a read lock on byte 201 and a look at byte 101, which keeps it
 * compatible with what QEMU's tools lock.  With locking=auto a file system without locks is
 * accepted.
 *
 * Context: main thread.
 * Return: NULL with @error naming the path, the reason and the remedy.
 */
struct block_node *block_node_new(const struct block_config *config, struct fd_source *fds,
				  GError **error);

/** block_node_free() - Withdraw and close the descriptor; no queue may be left.  Accepts NULL. */
void block_node_free(struct block_node *node);
DEFINE_CLEANUP(block_node, block_node_free)

/** block_node_name(), block_node_filename() - node-name and path; owned by the node. */
const char *block_node_name(const struct block_node *node);
const char *block_node_filename(const struct block_node *node);

/** block_node_drive_id() - -drive's id, NULL for a -blockdev; owned by the node. */
const char *block_node_drive_id(const struct block_node *node);

/** block_node_size_bytes() - Length of the image, constant. */
uint64_t block_node_size_bytes(const struct block_node *node);

/** block_node_read_only() - Whether writes are refused. */
bool block_node_read_only(const struct block_node *node);

/** block_node_writethrough() - Whether every write reaches stable storage before it ends. */
bool block_node_writethrough(const struct block_node *node);

/**
 * block_node_sector_bytes() - The block device's logical block size, 512 for a file
 *
 * What a device shows to its guest unless told otherwise.
 */
uint32_t block_node_sector_bytes(const struct block_node *node);

/**
 * block_node_align_bytes() - What offsets and lengths must be multiples of
 *
 * 512 but for O_DIRECT where the file system or device wants more.  Buffers need no alignment.
 */
uint32_t block_node_align_bytes(const struct block_node *node);

/**
 * block_node_attach() - Make @user the node's only user
 * @user:	Who it is, for messages and query-block's "qdev"; copied
 * Return: false with @error naming the present user.
 */
bool block_node_attach(struct block_node *node, const char *user, GError **error);

/** block_node_detach() - Undo block_node_attach(). */
void block_node_detach(struct block_node *node);

/** block_node_query_json() - The node's entry in query-block (BlockInfo); owned by the caller. */
json_t *block_node_query_json(const struct block_node *node);

/** enum block_op - What a request does */
enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,
	BLOCK_DISCARD,
	BLOCK_WRITE_ZEROES,
};

/** enum block_step_kind - The system calls that engines know */
enum block_step_kind {
	BLOCK_STEP_READV,
	BLOCK_STEP_WRITEV,
	BLOCK_STEP_FDATASYNC,
	BLOCK_STEP_FALLOCATE,
	BLOCK_STEP_BLKDISCARD,
};

/**
 * struct block_step - One system call on the image
 * @kind:	Which
 * @flags:	RWF_* for reads and writes, the mode for fallocate()
 * @offset_bytes, @len_bytes: where; @len_bytes is the sum of @iov for reads and writes
 * @iov, @n_iov: buffers
 * @result:	Set by the engine: bytes or 0, -errno on failure
 */
struct block_step {
	enum block_step_kind kind;
	int flags;
	uint64_t offset_bytes;
	uint64_t len_bytes;
	const struct iovec *iov;
	uint32_t n_iov;
	int64_t result;
};

/**
 * struct block_request - One operation on an image, in a slot that the caller owns
 * @op:		What to do
 * @fua:	Writes, zeroes: end only when the data is on stable storage
 * @may_unmap:	Zeroes: may be done by deallocating
 * @offset_bytes, @len_bytes: where, multiples of block_node_align_bytes(); 0 for a flush
 * @iov, @n_iov: buffers that together have @len_bytes; consumed: the array is changed.  Zeroes,
 *		discards and flushes have none
 * @done:	Called once; @result is 0 or -errno.  The slot may be reused from within
 *
 * The rest belongs to the queue from block_queue_submit() until @done.
 */
struct block_request {
	enum block_op op;
	bool fua;
	bool may_unmap;
	uint64_t offset_bytes;
	uint64_t len_bytes;
	struct iovec *iov;
	uint32_t n_iov;
	void (*done)(struct block_request *req, int result);

	struct block_request *next;
	struct block_step step;
	uint64_t progress_bytes;
	struct iovec own_iov;
	int result;
	uint8_t n_retries;
	bool writing_zeros;
	bool syncing;
};

struct block_queue;

/**
 * block_queue_new() - A queue on @node for the thread that runs @context
 * @context:	NULL for the main thread's
 * @depth:	Requests in flight at most; more wait their turn
 * @ready:	Called in @context's thread when block_queue_complete() has something to do
 * @opaque:	For @ready
 *
 * Context: main thread; from then on the queue belongs to @context's thread.
 * Return: NULL with @error set.
 */
struct block_queue *block_queue_new(struct block_node *node, GMainContext *context, uint32_t depth,
				    void (*ready)(void *opaque), void *opaque, GError **error);

/** block_queue_free() - Free a queue with nothing in flight, its thread stopped.  Accepts NULL. */
void block_queue_free(struct block_queue *queue);
DEFINE_CLEANUP(block_queue, block_queue_free)

/** block_queue_submit() - Take over @req; nothing is started before block_queue_flush(). */
void block_queue_submit(struct block_queue *queue, struct block_request *req);

/** block_queue_flush() - Start what was submitted: one system call for all of it. */
void block_queue_flush(struct block_queue *queue);

/**
 * block_queue_complete() - Call the done functions of requests that have ended; does not block
 * Return: how many.
 */
uint32_t block_queue_complete(struct block_queue *queue);

/** block_queue_in_flight() - Requests submitted and not done. */
uint32_t block_queue_in_flight(const struct block_queue *queue);

/** block_queue_engine_name() - "io_uring" or "threads". */
const char *block_queue_engine_name(const struct block_queue *queue);
