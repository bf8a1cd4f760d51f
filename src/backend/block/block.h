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
 * engine executes single system calls ("steps"); transfer.c makes requests out of them: it goes on
 * after short transfers, bounces what O_DIRECT does not take, reads and changes blocks that a write
 * covers in part, falls back from fallocate() to writing zeros.
 *
 * Sizes.  A node knows where its image really ended when it was last measured: when it was opened
 * or inherited, and at each block_node_resize().  What the guest was told is its device's business.
 * The last sector may be a part of one: what is missing reads as zeros, and a write completes it.
 * Requests beyond that are I/O errors (-EIO), so that an image that somebody cut short never looks
 * as if it held zeros.
 *
 * Locks (lock.c) are taken when a device attaches, and stay until the descriptor is closed in every
 * process that has it: an update never lets go of them.
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
 * A regular file or a block device, raw.  An image that is opened must not be empty, and must not
 * begin with the header of another format unless @config says that raw is meant.  Of an image that
 * is inherited nothing is asked but its type: a guest is using it.
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

/**
 * block_node_size_bytes() - Length of the image as it was last measured, whole sectors
 *
 * Any thread; changes only where block_node_resize() says.
 */
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

/** enum block_action - What becomes of a request that failed, see block_node_error_action() */
enum block_action {
	BLOCK_ACTION_REPORT, /* the guest gets the error */
	BLOCK_ACTION_IGNORE, /* the guest is told that all is well */
	BLOCK_ACTION_STOP,   /* the VM stops; the request is repeated when it goes on */
};

/** block_action_name() - QMP's BlockErrorAction: "report", "ignore", "stop". */
const char *block_action_name(enum block_action action);

/**
 * struct block_user - Who works with a node
 * @name:	For messages and query-block's "qdev"; copied
 * @share_rw:	Other processes may write to the image, too
 * @werror, @rerror: instead of the drive's; BLOCK_ON_ERROR_AUTO: as the drive says
 * @resized:	Optional: block_node_resize() has changed the image, which ends at @end_bytes now.
 *		Calls block_node_set_end() where no request of its queue is being looked at.  Main
 *		thread
 * @opaque:	For @resized
 */
struct block_user {
	const char *name;
	bool share_rw;
	enum block_on_error werror, rerror;
	void (*resized)(void *opaque, uint64_t end_bytes);
	void *opaque;
};

/**
 * block_node_attach() - Make @user the node's only user, and lock the image for it
 * @user:	Copied
 *
 * The locks are those of QEMU and its tools: a byte for each permission that is held (100 and up),
 * and one for each that is not shared with others (200 and up), through the open file description
 * (fcntl_locking(2)), so that they cross an update with the descriptor and are never let go.
 * Nothing is locked with locking=off; with locking=auto a file system without locks is accepted.
 * Asking again on a description that has them changes nothing.
 *
 * Return: false with @error naming the present user, or that another process has the image.
 */
bool block_node_attach(struct block_node *node, const struct block_user *user, GError **error);

/** block_node_user() - The name of who attached; owned by the node, NULL if nobody has. */
const char *block_node_user(const struct block_node *node);

/** block_node_detach() - Undo block_node_attach(); the locks stay with the descriptor. */
void block_node_detach(struct block_node *node);

/**
 * block_node_resize() - Make the image @size_bytes long, and tell the user
 *
 * A regular file is cut or extended; of a block device, which was resized by other means, the
 * present size is taken, which must not be below @size_bytes.
 *
 * The store is asked on a thread.  One that does not answer within half a second is not waited for: the
 * error is MOLT_ERROR_TIMEOUT, and when it has answered, @resized is called all the same, from the main
 * loop, and the log has what became of it.
 * Context: main thread.
 * Return: false with @error set; nothing is changed, except that after MOLT_ERROR_TIMEOUT it may still be.
 */
bool block_node_resize(struct block_node *node, uint64_t size_bytes, GError **error);

/** block_node_check_resized() - False with @error while a resize is under way that was given up: the VM
 * cannot be updated. */
bool block_node_check_resized(const struct block_node *node, GError **error);

/** block_node_set_end() - The image ends at @end_bytes; where the node's queue is idle or in hand. */
void block_node_set_end(struct block_node *node, uint64_t end_bytes);

/**
 * block_node_error_action() - What werror= or rerror= say about a request that failed
 * @read:	It was a read
 * @err:	errno
 */
enum block_action block_node_error_action(const struct block_node *node, bool read, int err);

/** block_node_may_stop() - Whether there are errors that stop the VM: io-status has a meaning. */
bool block_node_may_stop(const struct block_node *node);

/** enum block_io_status - QMP's BlockDeviceIoStatus; the values are on the wire */
enum block_io_status { BLOCK_IO_OK, BLOCK_IO_FAILED, BLOCK_IO_NOSPACE, BLOCK_IO_STATUS_COUNT };

/** block_node_set_io_status() - For query-block's "io-status".  Any thread. */
void block_node_set_io_status(struct block_node *node, enum block_io_status status);

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

/** enum block_phase - What a request's step is for */
enum block_phase {
	BLOCK_PHASE_MOVE,     /* to or from the caller's buffers, or zeros */
	BLOCK_PHASE_FILL,     /* read blocks that the next write covers in part */
	BLOCK_PHASE_ALLOCATE, /* fallocate(), or discard */
	BLOCK_PHASE_SYNC,
};

/**
 * struct block_request - One operation on an image, in a slot that the caller owns
 * @op:		What to do
 * @fua:	Writes, zeroes: end only when the data is on stable storage
 * @may_unmap:	Zeroes: may be done by deallocating
 * @offset_bytes, @len_bytes: where, multiples of BLOCK_SECTOR_BYTES; 0 for a flush
 * @iov, @n_iov: buffers that together have @len_bytes; consumed: the array is changed.  Zeroes,
 *		discards and flushes have none
 * @done:	Called once; @result is 0 or -errno.  The slot may be reused from within
 * @remembered:	For @done: its error is an earlier flush's, nothing was tried
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
	bool remembered;

	struct block_request *next, *next_writer;
	struct block_step step;
	uint64_t progress_bytes;
	struct iovec own_iov;
	int result;
	uint32_t filled_bytes;
	uint8_t n_retries;
	uint8_t phase;	/* enum block_phase */
	uint8_t bounce; /* its number plus one, 0 for none */
	bool by_hand;	/* zeroes: as a write */
	bool writer;	/* is in the list of writers */
	bool partial;	/* covers a block of the storage in part */
	bool held_up;	/* by a writer in front of it */
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

/**
 * block_queue_flush_error() - errno of the flush that all others fail with; 0: none
 *
 * The page cache forgets what it could not write: a later flush would succeed and mean nothing.  So
 * after one that failed all fail, for as long as the image is open, which is longer than one
 * process: block_queue_set_flush_error() tells a successor's queue.  Not so with O_DIRECT, and not
 * where the VM stops for want of space: that flush has not ended, and is tried again.
 */
int block_queue_flush_error(const struct block_queue *queue);
void block_queue_set_flush_error(struct block_queue *queue, int err);

/** block_queue_engine_name() - "io_uring" or "threads". */
const char *block_queue_engine_name(const struct block_queue *queue);
