// What the files of the virtio disk share: its state, its requests, its run-time struct.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/virtio_blk.h>

#include "backend/block/block.h"
#include "device/virtio/virtio.h"

#define BLK_SERIAL_BYTES      VIRTIO_BLK_ID_BYTES
#define BLK_RANGE_SECTORS_MAX ((1U << 31) / 512 - 1) /* of one discard or write-zeroes */
#define BLK_BLOCK_SIZE_MAX    4096

/** BLK_TAKEN_MAX - Requests that a disk takes from its rings before some must end */
#define BLK_TAKEN_MAX 1024

/**
 * struct virtio_blk_state - What survives
 * @capacity_sectors: and what follows up to @serial is what the guest was told (virtio 1.2 section
 *		5.2.4).  It holds whatever becomes of the image: only block_resize changes it
 * @offered:	The features that the guest may choose from
 * @writeback:	The guest's cache mode
 * @io_status:	enum block_io_status
 * @flush_error: see block_queue_flush_error()
 * @shelved:	Requests that failed and are repeated when the machine goes on, oldest first: queue
 *		in the upper half, head of the chain in the lower one
 */
struct virtio_blk_state {
	struct virtio_pci_state common;
	uint64_t capacity_sectors;
	uint64_t offered;
	uint32_t seg_max;
	uint32_t blk_size;
	uint32_t opt_io_size;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint16_t min_io_size;
	uint8_t physical_block_exp;
	uint8_t alignment_offset;
	uint8_t write_zeroes_may_unmap;
	uint8_t serial[BLK_SERIAL_BYTES];
	bool writeback;
	uint8_t io_status;
	uint8_t pad0[1];
	uint32_t flush_error;
	uint32_t n_shelved;
	uint32_t shelved[BLK_TAKEN_MAX];
	uint8_t pad1[4];
};

extern const struct state_desc virtio_blk_desc;

/** struct virtio_blk_props - -device virtio-blk-pci,... */
struct virtio_blk_props {
	struct virtio_props common;
	char *drive;
	char *serial;
	char *iothread;
	uint16_t num_queues;
	uint16_t queue_size;
	uint32_t logical_block_size;
	uint32_t physical_block_size;
	uint32_t min_io_size;
	uint32_t opt_io_size;
	int write_cache; /* enum on_off_auto */
	bool config_wce;
	bool discard;
	bool write_zeroes;
	bool share_rw;
	enum block_on_error werror, rerror;
};

/**
 * struct blk_slot - One request taken from a ring
 * @req:	First member: what the block queue hands back
 * @chain:	Its @iov points at the slot's own array
 * @status:	Where the status byte goes
 * @next:	In the list of free slots, or of shelved ones
 * @order:	Ascending in the order in which requests were taken
 */
struct blk_slot {
	struct block_request req;
	struct virtio_blk *blk;
	struct blk_slot *next;
	struct virtqueue_chain chain;
	uint8_t *status;
	uint64_t order;
	uint32_t q;
};

/**
 * struct virtio_blk - The device
 * @thread:	Its I/O thread; @own_thread if it is not an iothread object's
 * @slots, @iovs, @free: per virtqueue
 * @n_taken, @n_ordered: slots in use, and how many were ever
 * @starved:	Virtqueues that have more while all that may be taken is
 * @touched:	Virtqueues with buffers given back of which the driver was not told yet
 * @shelved:	Requests that failed, oldest first
 * @halted:	The machine was asked to stop: no request is taken until it goes on
 * @told_ns:	When an error that did not stop the machine was last told
 */
struct virtio_blk {
	struct virtio_device vdev;
	struct virtio_blk_props props;
	struct virtio_blk_state state;
	struct block_node *node;
	struct block_queue *queue;
	struct io_thread *thread;
	bool own_thread;
	struct blk_slot *slots[VIRTIO_QUEUES_MAX];
	struct iovec *iovs[VIRTIO_QUEUES_MAX];
	struct blk_slot *free[VIRTIO_QUEUES_MAX];
	uint32_t n_taken;
	uint64_t n_ordered;
	uint64_t starved;
	uint64_t touched;
	struct blk_slot *shelved;
	bool halted;
	uint64_t told_ns;
	struct log_limit log;
};

/* virtio_blk.c; the device's lock is held */

/** blk_slot_take() - A free slot of queue @q; NULL if there is none, or enough was taken. */
struct blk_slot *blk_slot_take(struct virtio_blk *blk, uint32_t q);

/** blk_slot_free() - The inverse; its buffer was given back, or is forgotten. */
void blk_slot_free(struct blk_slot *slot);

/** blk_give_back() - The request has ended with @status. */
void blk_give_back(struct blk_slot *slot, uint8_t status);

/** blk_begin() - Start the request whose chain is in @slot; in the I/O thread. */
void blk_begin(struct blk_slot *slot);

/* virtio_blk_config.c */

/** blk_tell_guest() - What the guest is told of a new disk, from properties and image. */
void blk_tell_guest(struct virtio_blk *blk);

/** blk_show() - Put what the state says into the configuration space. */
void blk_show(struct virtio_blk *blk);

/** blk_logical_bytes() - The block size of a new disk. */
uint32_t blk_logical_bytes(const struct virtio_blk *blk);

/** blk_set_writeback() - The guest's cache mode; its lock is held. */
void blk_set_writeback(struct virtio_blk *blk, bool on);

/** blk_resized() - block_user.resized. */
void blk_resized(void *opaque, uint64_t end_bytes);

/** virtio_blk_capture(), virtio_blk_at_rest(), virtio_blk_apply() - Of device_ops. */
bool virtio_blk_capture(struct device *dev, GError **error);
void virtio_blk_at_rest(struct device *dev, void *state);
bool virtio_blk_apply(struct device *dev, GError **error);

/* virtio_blk_error.c; the device's lock is held */

/** blk_failed() - The storage failed the request with errno @err: as werror= and rerror= say. */
void blk_failed(struct blk_slot *slot, int err);

/** blk_shelve_again() - A predecessor had shelved this request, as the youngest so far. */
void blk_shelve_again(struct blk_slot *slot);

/** blk_repeat() - Start what was shelved, oldest first; in the I/O thread. */
void blk_repeat(struct virtio_blk *blk);

/** blk_unhalt() - The machine goes on: errors are history, the queues are looked at again. */
void blk_unhalt(struct virtio_blk *blk);

/** blk_drop_shelved() - Forget what was shelved: a reset, or a state that comes from elsewhere. */
void blk_drop_shelved(struct virtio_blk *blk);
