// Split virtqueues (virtio 1.2 section 2.7).
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtqueue.h"

#include <string.h>

#include "base/error.h"

/**
 * DOC: Theory of operation
 *
 * The rings lie in guest memory and any vCPU may scribble on them at any time.  So every value is
 * loaded exactly once into a local, then checked, then used; indices are checked or masked before
 * they index anything; a chain ends after as many descriptors as the rules allow, loop or not; and
 * addresses become host pointers only through guest_memory_map().  What breaks a rule makes
 * virtqueue_pop() return VIRTQUEUE_BROKEN: the device then sets DEVICE_NEEDS_RESET and looks at the
 * queue no more.
 *
 * Ordering.  The driver's index is loaded with acquire before the entries it covers; our index is
 * stored with release after the entries it covers.  Where both sides write one value and then read
 * the other's (notification suppression) a full barrier stands between.
 */

static const struct state_field virtqueue_fields[] = {
	FIELD(struct virtqueue_state, desc_gpa, 1),
	FIELD(struct virtqueue_state, avail_gpa, 2),
	FIELD(struct virtqueue_state, used_gpa, 3),
	FIELD(struct virtqueue_state, size, 4),
	FIELD(struct virtqueue_state, vector, 5),
	FIELD(struct virtqueue_state, last_avail, 6),
	FIELD(struct virtqueue_state, used_idx, 7),
	FIELD(struct virtqueue_state, signalled_used, 8),
	FIELD(struct virtqueue_state, signalled_valid, 9),
	FIELD(struct virtqueue_state, enabled, 10),
	FIELD(struct virtqueue_state, n_shelved, 11, .since = 2, .flags = STATE_OPTIONAL),
	FIELD_PAD(struct virtqueue_state, pad0),
};

static const char *virtqueue_misaligned(const struct virtqueue_state *s)
{
	if (s->desc_gpa % VRING_DESC_ALIGN_SIZE)
		return "desc_gpa";
	if (s->avail_gpa % VRING_AVAIL_ALIGN_SIZE)
		return "avail_gpa";
	if (s->used_gpa % VRING_USED_ALIGN_SIZE)
		return "used_gpa";
	return NULL;
}

static bool virtqueue_check(const void *obj, GError **error)
{
	const struct virtqueue_state *s = obj;
	const char *misaligned = virtqueue_misaligned(s);

	if (s->size == 0 || s->size > VIRTQUEUE_SIZE_MAX || (s->size & (s->size - 1)))
		return error_set_generic(error, "size: %u is not a power of two up to %u", s->size,
					 VIRTQUEUE_SIZE_MAX);
	if (!s->enabled)
		return true;
	if (misaligned)
		return error_set_generic(error, "%s: is misaligned", misaligned);
	/* Nothing is in flight in a saved device: what was taken was given back, or set aside. */
	if ((uint16_t)(s->last_avail - s->used_idx) != s->n_shelved)
		return error_set_generic(error,
					 "used_idx: %u and %u shelved do not make last_avail, %u",
					 s->used_idx, s->n_shelved, s->last_avail);
	return true;
}

const struct state_desc virtqueue_desc = {
	.name = "virtqueue",
	.version = 2,
	.min_reader = 1,
	.check = virtqueue_check,
	STATE_DESC(struct virtqueue_state, virtqueue_fields),
};

/* The event indices lie behind the rings (section 2.7.6 and 2.7.8). */
static uint16_t *virtqueue_used_event(const struct virtqueue *vq)
{
	return &vq->avail->ring[vq->s->size];
}

static uint16_t *virtqueue_avail_event(const struct virtqueue *vq)
{
	return (uint16_t *)&vq->used->ring[vq->s->size];
}

bool virtqueue_map(struct virtqueue *vq)
{
	const struct virtqueue_state *s = vq->s;
	uint64_t size = s->size;

	virtqueue_unmap(vq);
	if (virtqueue_misaligned(s)) {
		vq->why = "the ring is misaligned";
		return false;
	}
	vq->desc = guest_memory_map(vq->memory, s->desc_gpa, size * sizeof(*vq->desc), false);
	vq->avail = guest_memory_map(vq->memory, s->avail_gpa,
				     sizeof(*vq->avail) + (size + 1) * sizeof(uint16_t), false);
	vq->used = guest_memory_map(
		vq->memory, s->used_gpa,
		sizeof(*vq->used) + size * sizeof(struct vring_used_elem) + sizeof(uint16_t), true);
	if (!vq->desc || !vq->avail || !vq->used) {
		virtqueue_unmap(vq);
		vq->why = "the ring is not in RAM";
		return false;
	}
	vq->seen_avail = s->last_avail;
	return true;
}

void virtqueue_unmap(struct virtqueue *vq)
{
	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
}

static enum virtqueue_result virtqueue_broken(struct virtqueue *vq, const char *why)
{
	vq->why = why;
	return VIRTQUEUE_BROKEN;
}

/* Bytes of [gpa, gpa + len) that lie in the region of its first byte; 0 if there is none. */
static uint64_t virtqueue_part(const struct virtqueue *vq, uint64_t gpa, uint64_t len)
{
	for (uint32_t i = 0; i < vq->memory->n_regions; i++) {
		const struct guest_region *region = &vq->memory->regions[i];

		if (gpa >= region->gpa && gpa - region->gpa < region->size_bytes)
			return MIN(len, region->size_bytes - (gpa - region->gpa));
	}
	return 0;
}

/* One descriptor is one range of guest memory, but maybe several of ours. */
static bool virtqueue_add(struct virtqueue *vq, struct virtqueue_chain *chain, uint64_t gpa,
			  uint64_t len, bool write)
{
	while (len > 0) {
		uint32_t n = chain->n_out + chain->n_in;
		uint64_t part = len;
		void *host = guest_memory_map(vq->memory, gpa, len, write);

		if (!host) {
			part = virtqueue_part(vq, gpa, len);
			host = part ? guest_memory_map(vq->memory, gpa, part, write) : NULL;
		}
		if (!host) {
			vq->why = write ? "a writable buffer is not in RAM"
					: "a buffer is not in RAM";
			return false;
		}
		if (n == chain->iov_max) {
			vq->why = "a buffer has too many parts";
			return false;
		}
		chain->iov[n] = (struct iovec){host, part};
		*(write ? &chain->n_in : &chain->n_out) += 1;
		*(write ? &chain->in_bytes : &chain->out_bytes) += part;
		gpa += part;
		len -= part;
	}
	return true;
}

static void virtqueue_load_desc(const struct vring_desc *from, struct vring_desc *to)
{
	to->addr = __atomic_load_n(&from->addr, __ATOMIC_RELAXED);
	to->len = __atomic_load_n(&from->len, __ATOMIC_RELAXED);
	to->flags = __atomic_load_n(&from->flags, __ATOMIC_RELAXED);
	to->next = __atomic_load_n(&from->next, __ATOMIC_RELAXED);
}

static const struct vring_desc *virtqueue_map_indirect(struct virtqueue *vq,
						       const struct vring_desc *desc)
{
	const struct vring_desc *table;

	if (!vq->indirect || (desc->flags & VRING_DESC_F_NEXT)) {
		vq->why = "an indirect descriptor is not allowed there";
		return NULL;
	}
	if (desc->len == 0 || desc->len % sizeof(*desc) ||
	    desc->len / sizeof(*desc) > VIRTQUEUE_SIZE_MAX) {
		vq->why = "an indirect table has an impossible size";
		return NULL;
	}
	table = guest_memory_map(vq->memory, desc->addr, desc->len, false);
	/* Loads of misaligned members would work on x86, but are no way to write C. */
	if (!table || desc->addr % _Alignof(struct vring_desc)) {
		vq->why = "an indirect table is not in RAM, or misaligned";
		return NULL;
	}
	return table;
}

static enum virtqueue_result virtqueue_walk(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	const struct vring_desc *table = vq->desc;
	uint32_t n_table = vq->s->size;
	uint32_t n_left = n_table;
	uint32_t i = chain->head;
	struct vring_desc desc;

	for (;;) {
		bool write;

		virtqueue_load_desc(&table[i], &desc);
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			if (table != vq->desc)
				return virtqueue_broken(vq, "an indirect table is nested");
			table = virtqueue_map_indirect(vq, &desc);
			if (!table)
				return VIRTQUEUE_BROKEN;
			n_table = desc.len / sizeof(desc);
			n_left = n_table;
			i = 0;
			continue;
		}
		if (n_left-- == 0)
			return virtqueue_broken(vq, "a chain does not end");
		write = desc.flags & VRING_DESC_F_WRITE;
		if (!write && chain->n_in)
			return virtqueue_broken(vq, "a readable buffer follows a writable one");
		if (!virtqueue_add(vq, chain, desc.addr, desc.len, write))
			return VIRTQUEUE_BROKEN;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return VIRTQUEUE_CHAIN;
		i = desc.next;
		if (i >= n_table)
			return virtqueue_broken(vq, "a chain leaves its table");
	}
}

enum virtqueue_result virtqueue_pop_again(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	if (chain->head >= vq->s->size)
		return virtqueue_broken(vq, "an available index is out of range");
	chain->n_out = 0;
	chain->n_in = 0;
	chain->out_bytes = 0;
	chain->in_bytes = 0;
	return virtqueue_walk(vq, chain);
}

enum virtqueue_result virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	struct virtqueue_state *s = vq->s;
	enum virtqueue_result result;

	if (vq->seen_avail == s->last_avail) {
		vq->seen_avail = __atomic_load_n(&vq->avail->idx, __ATOMIC_ACQUIRE);
		if (vq->seen_avail == s->last_avail)
			return VIRTQUEUE_EMPTY;
		if ((uint16_t)(vq->seen_avail - s->last_avail) > s->size)
			return virtqueue_broken(vq, "more is available than the ring holds");
	}
	chain->head =
		__atomic_load_n(&vq->avail->ring[s->last_avail & (s->size - 1)], __ATOMIC_RELAXED);
	result = virtqueue_pop_again(vq, chain);
	if (result == VIRTQUEUE_CHAIN)
		s->last_avail++;
	return result;
}

void virtqueue_unpop(struct virtqueue *vq)
{
	vq->s->last_avail--;
}

void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len_bytes)
{
	struct virtqueue_state *s = vq->s;
	struct vring_used_elem *elem = &vq->used->ring[s->used_idx & (s->size - 1)];

	__atomic_store_n(&elem->id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&elem->len, len_bytes, __ATOMIC_RELAXED);
	s->used_idx++;
	__atomic_store_n(&vq->used->idx, s->used_idx, __ATOMIC_RELEASE);
}

bool virtqueue_should_notify(struct virtqueue *vq)
{
	struct virtqueue_state *s = vq->s;
	uint16_t old = s->signalled_used;
	bool valid = s->signalled_valid;
	uint16_t event;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_idx)
		return !(__atomic_load_n(&vq->avail->flags, __ATOMIC_RELAXED) &
			 VRING_AVAIL_F_NO_INTERRUPT);
	event = __atomic_load_n(virtqueue_used_event(vq), __ATOMIC_RELAXED);
	s->signalled_used = s->used_idx;
	s->signalled_valid = true;
	return !valid || vring_need_event(event, s->used_idx, old);
}

void virtqueue_silence(struct virtqueue *vq)
{
	/* With event indices the last one asked for lies behind us: that is silence. */
	if (!vq->event_idx)
		__atomic_store_n(&vq->used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool virtqueue_listen(struct virtqueue *vq)
{
	if (vq->event_idx)
		__atomic_store_n(virtqueue_avail_event(vq), vq->s->last_avail, __ATOMIC_RELAXED);
	else
		__atomic_store_n(&vq->used->flags, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return virtqueue_more(vq);
}

bool virtqueue_more(const struct virtqueue *vq)
{
	return __atomic_load_n(&vq->avail->idx, __ATOMIC_RELAXED) != vq->s->last_avail;
}

size_t iov_read(const struct iovec *iov, uint32_t n_iov, void *buf, size_t len)
{
	size_t done = 0;

	for (uint32_t i = 0; i < n_iov && done < len; i++) {
		size_t part = MIN(len - done, iov[i].iov_len);

		memcpy((uint8_t *)buf + done, iov[i].iov_base, part);
		done += part;
	}
	return done;
}

size_t iov_write(const struct iovec *iov, uint32_t n_iov, const void *buf, size_t len)
{
	size_t done = 0;

	for (uint32_t i = 0; i < n_iov && done < len; i++) {
		size_t part = MIN(len - done, iov[i].iov_len);

		memcpy(iov[i].iov_base, (const uint8_t *)buf + done, part);
		done += part;
	}
	return done;
}

uint32_t iov_skip(struct iovec **iov, uint32_t n_iov, size_t len)
{
	while (n_iov > 0 && len >= (*iov)->iov_len) {
		len -= (*iov)->iov_len;
		(*iov)++;
		n_iov--;
	}
	if (n_iov > 0) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + len;
		(*iov)->iov_len -= len;
	}
	return n_iov;
}
