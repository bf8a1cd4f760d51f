// Split virtqueues: the rings in guest memory, read as if the guest were hostile.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <linux/virtio_ring.h>

#include "memory/guest_memory.h"
#include "state/state.h"

/** VIRTQUEUE_SIZE_MAX - Entries of a ring at most; also of an indirect table */
#define VIRTQUEUE_SIZE_MAX 1024

/** VIRTQUEUE_NO_VECTOR - No MSI-X vector (virtio 1.2 section 4.1.5.1.2) */
#define VIRTQUEUE_NO_VECTOR 0xffff

/**
 * struct virtqueue_state - What survives of a queue
 * @desc_gpa, @avail_gpa, @used_gpa: the three parts of the ring
 * @size:	Entries, a power of two
 * @vector:	MSI-X vector, VIRTQUEUE_NO_VECTOR for none
 * @last_avail:	Index of the next available entry to look at
 * @used_idx:	Index of the next used entry to write.  @n_shelved behind @last_avail while nothing
 *		is in flight
 * @signalled_used: @used_idx when the driver was last told, if @signalled_valid
 * @enabled:	The driver has set it up
 * @n_shelved:	Buffers that were taken and set aside (virtio_shelve()); the model knows which
 */
struct virtqueue_state {
	uint64_t desc_gpa;
	uint64_t avail_gpa;
	uint64_t used_gpa;
	uint16_t size;
	uint16_t vector;
	uint16_t last_avail;
	uint16_t used_idx;
	uint16_t signalled_used;
	bool signalled_valid;
	bool enabled;
	uint16_t n_shelved;
	uint8_t pad0[2];
};

extern const struct state_desc virtqueue_desc;

/**
 * struct virtqueue - A queue at run time
 * @s:		Its surviving part, owned by the device
 * @memory:	Where the guest's addresses lead
 * @desc, @avail, @used: the ring, NULL until virtqueue_map()
 * @indirect, @event_idx: features negotiated
 * @seen_avail:	The driver's index when it was last read
 * @why:	What was wrong, after VIRTQUEUE_BROKEN
 *
 * Context: one thread at a time (the device's lock).
 */
struct virtqueue {
	struct virtqueue_state *s;
	const struct guest_memory *memory;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	bool indirect;
	bool event_idx;
	uint16_t seen_avail;
	const char *why;
};

/**
 * struct virtqueue_chain - One buffer of the driver, as host memory
 * @iov:	Readable parts first, then writable ones; the array is the caller's
 * @iov_max:	Its length
 * @n_out, @n_in: entries the device reads, and writes
 * @out_bytes, @in_bytes: their sums
 * @head:	For virtqueue_push()
 *
 * The driver may change the bytes at any time: read each once, then check.
 */
struct virtqueue_chain {
	struct iovec *iov;
	uint32_t iov_max;
	uint32_t n_out;
	uint32_t n_in;
	uint64_t out_bytes;
	uint64_t in_bytes;
	uint16_t head;
};

/** enum virtqueue_result - What virtqueue_pop() found */
enum virtqueue_result {
	VIRTQUEUE_EMPTY,
	VIRTQUEUE_CHAIN,
	VIRTQUEUE_BROKEN, /* the ring makes no sense; @why says what */
};

/**
 * virtqueue_map() - Find the ring in guest memory; before any of the calls below
 * Return: false with @why set if a part is misaligned or not in RAM.
 */
bool virtqueue_map(struct virtqueue *vq);

/** virtqueue_unmap() - Forget the ring. */
void virtqueue_unmap(struct virtqueue *vq);

/**
 * virtqueue_pop() - Take the next available buffer
 * @chain:	@iov and @iov_max are set by the caller, the rest is filled in
 */
enum virtqueue_result virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);

/**
 * virtqueue_pop_again() - Read a buffer again that was popped before, maybe by a predecessor
 * @chain:	@iov, @iov_max and @head are set by the caller, the rest is filled in
 * Return: VIRTQUEUE_CHAIN or VIRTQUEUE_BROKEN: the driver may have changed it.
 */
enum virtqueue_result virtqueue_pop_again(struct virtqueue *vq, struct virtqueue_chain *chain);

/** virtqueue_unpop() - Put the buffer popped last back; none of @vq may have been pushed since. */
void virtqueue_unpop(struct virtqueue *vq);

/** virtqueue_push() - Give a buffer back, with @len_bytes written to it from its start. */
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len_bytes);

/** virtqueue_should_notify() - Whether the driver wants to hear of what was pushed so far. */
bool virtqueue_should_notify(struct virtqueue *vq);

/** virtqueue_silence() - Ask the driver not to kick while the device looks at the ring anyway. */
void virtqueue_silence(struct virtqueue *vq);

/**
 * virtqueue_listen() - Ask the driver to kick again
 * Return: true if buffers became available meanwhile: look at them, no kick will come for those.
 */
bool virtqueue_listen(struct virtqueue *vq);

/** virtqueue_more() - Whether a buffer is available. */
bool virtqueue_more(const struct virtqueue *vq);

/** iov_read() - Copy up to @len bytes from the front of an array.  Return: how many. */
size_t iov_read(const struct iovec *iov, uint32_t n_iov, void *buf, size_t len);

/** iov_write() - Copy up to @len bytes to the front of an array.  Return: how many. */
size_t iov_write(const struct iovec *iov, uint32_t n_iov, const void *buf, size_t len);

/**
 * iov_skip() - Drop @len bytes from the front of *@iov, which is advanced and changed
 * Return: entries left.
 */
uint32_t iov_skip(struct iovec **iov, uint32_t n_iov, size_t len);
