// The virtio disk's state: what the guest was told of it, and how that crosses an update.
// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "device/virtio/virtio_blk_priv.h"

/**
 * DOC: what the guest is told
 *
 * A driver reads capacity, block sizes and limits once and relies on them.  So they are state: filled
 * in when the disk is made, from its properties and its image, and from then on only carried.  A
 * successor shows what its predecessor did, whatever its own image or its own defaults are.  An image
 * that has another size than the guest was told is noticed then, and nothing more: the guest learns
 * of it by block_resize, with a new generation and the configuration interrupt.
 */

/*
 * An older reader may drop all of these: what it cannot do, going on with shelved requests, the
 * queues' own numbers tell it.
 */
#define SINCE_2 .since = 2, .flags = STATE_OPTIONAL

/* clang-format off */
static const struct state_field virtio_blk_fields[] = {
	FIELD_STRUCT(struct virtio_blk_state, common, 1, &virtio_pci_desc),
	FIELD(struct virtio_blk_state, writeback, 2),
	FIELD(struct virtio_blk_state, capacity_sectors, 3, SINCE_2),
	FIELD(struct virtio_blk_state, offered, 4, SINCE_2),
	FIELD(struct virtio_blk_state, seg_max, 5, SINCE_2),
	FIELD(struct virtio_blk_state, blk_size, 6, SINCE_2),
	FIELD(struct virtio_blk_state, opt_io_size, 7, SINCE_2),
	FIELD(struct virtio_blk_state, max_discard_sectors, 8, SINCE_2),
	FIELD(struct virtio_blk_state, max_discard_seg, 9, SINCE_2),
	FIELD(struct virtio_blk_state, discard_sector_alignment, 10, SINCE_2),
	FIELD(struct virtio_blk_state, max_write_zeroes_sectors, 11, SINCE_2),
	FIELD(struct virtio_blk_state, max_write_zeroes_seg, 12, SINCE_2),
	FIELD(struct virtio_blk_state, min_io_size, 13, SINCE_2),
	FIELD(struct virtio_blk_state, physical_block_exp, 14, SINCE_2),
	FIELD(struct virtio_blk_state, alignment_offset, 15, SINCE_2),
	FIELD(struct virtio_blk_state, write_zeroes_may_unmap, 16, SINCE_2),
	FIELD_ARRAY(struct virtio_blk_state, serial, 17, SINCE_2),
	FIELD(struct virtio_blk_state, io_status, 18, SINCE_2),
	FIELD_PAD(struct virtio_blk_state, pad0),
	FIELD(struct virtio_blk_state, flush_error, 19, SINCE_2),
	FIELD_LIST(struct virtio_blk_state, shelved, n_shelved, 20, SINCE_2),
	FIELD_PAD(struct virtio_blk_state, pad1),
};
/* clang-format on */

static bool blk_size_valid(uint32_t bytes)
{
	return bytes >= 512 && bytes <= BLK_BLOCK_SIZE_MAX && !(bytes & (bytes - 1));
}

static bool blk_check_shown(const struct virtio_blk_state *s, GError **error)
{
	if (s->capacity_sectors > UINT64_MAX / 512)
		return error_set_generic(error, "capacity_sectors: %" PRIu64 " is impossible",
					 s->capacity_sectors);
	if (!blk_size_valid(s->blk_size))
		return error_set_generic(error, "blk_size: %u is no block size", s->blk_size);
	if (s->max_discard_seg != 1 || s->max_discard_sectors > BLK_RANGE_SECTORS_MAX)
		return error_set_generic(error, "max_discard_sectors: more than is possible here");
	if (s->max_write_zeroes_seg != 1 || s->max_write_zeroes_sectors > BLK_RANGE_SECTORS_MAX)
		return error_set_generic(error,
					 "max_write_zeroes_sectors: more than is possible here");
	return true;
}

/* Every queue says how many of its buffers are shelved; here is which. */
static bool blk_check_shelved(const struct virtio_blk_state *s, GError **error)
{
	const struct virtio_state *vs = &s->common.virtio;
	uint32_t n[VIRTIO_QUEUES_MAX] = {0};

	for (uint32_t i = 0; i < s->n_shelved; i++) {
		uint32_t q = s->shelved[i] >> 16;

		if (q >= vs->n_queues || !vs->queues[q].enabled ||
		    (s->shelved[i] & 0xffff) >= vs->queues[q].size)
			return error_set_generic(error, "shelved[%u]: 0x%08x is no buffer", i,
						 s->shelved[i]);
		n[q]++;
	}
	for (uint32_t q = 0; q < vs->n_queues; q++)
		if (n[q] != vs->queues[q].n_shelved)
			return error_set_generic(error, "shelved: %u of queue %u, which has %u",
						 n[q], q, vs->queues[q].n_shelved);
	return true;
}

static bool virtio_blk_check(const void *obj, GError **error)
{
	const struct virtio_blk_state *s = obj;

	if (s->io_status >= BLOCK_IO_STATUS_COUNT)
		return error_set_generic(error, "io_status: %u is unknown", s->io_status);
	if (s->flush_error > INT16_MAX)
		return error_set_generic(error, "flush_error: %u is no errno", s->flush_error);
	return blk_check_shown(s, error) && blk_check_shelved(s, error);
}

/* Where a disk's own values do not stand in for what an older writer did not save. */
static void virtio_blk_reset_state(void *obj)
{
	struct virtio_blk_state *s = obj;

	s->offered = UINT64_MAX;
	s->blk_size = 512;
	s->max_discard_seg = 1;
	s->max_write_zeroes_seg = 1;
}

const struct state_desc virtio_blk_desc = {
	.name = "virtio-blk",
	.version = 2,
	.min_reader = 1,
	.reset = virtio_blk_reset_state,
	.check = virtio_blk_check,
	STATE_DESC(struct virtio_blk_state, virtio_blk_fields),
};

/* ---- what the guest is told ---- */

uint32_t blk_logical_bytes(const struct virtio_blk *blk)
{
	return blk->props.logical_block_size ? blk->props.logical_block_size
					     : block_node_sector_bytes(blk->node);
}

void blk_tell_guest(struct virtio_blk *blk)
{
	const struct virtio_blk_props *props = &blk->props;
	struct virtio_blk_state *s = &blk->state;
	uint32_t logical = blk_logical_bytes(blk);
	uint32_t physical = MAX(props->physical_block_size, logical);

	s->capacity_sectors = block_node_size_bytes(blk->node) / 512;
	s->offered = blk->vdev.features;
	s->seg_max = props->queue_size - 2;
	s->blk_size = logical;
	s->physical_block_exp = g_bit_nth_msf(physical / logical, -1);
	s->min_io_size = props->min_io_size / logical;
	s->opt_io_size = props->opt_io_size / logical;
	s->max_discard_sectors = BLK_RANGE_SECTORS_MAX;
	s->max_discard_seg = 1;
	s->discard_sector_alignment = logical / 512;
	s->max_write_zeroes_sectors = BLK_RANGE_SECTORS_MAX;
	s->max_write_zeroes_seg = 1;
	s->write_zeroes_may_unmap = 1;
	/* Not a string: all 20 characters may be used (section 5.2.6). */
	if (props->serial)
		memcpy(s->serial, props->serial, MIN(strlen(props->serial), sizeof(s->serial)));
	blk_show(blk);
}

void blk_show(struct virtio_blk *blk)
{
	const struct virtio_blk_state *s = &blk->state;
	struct virtio_blk_config config = {
		.capacity = s->capacity_sectors,
		.seg_max = s->seg_max,
		.blk_size = s->blk_size,
		.physical_block_exp = s->physical_block_exp,
		.alignment_offset = s->alignment_offset,
		.min_io_size = s->min_io_size,
		.opt_io_size = s->opt_io_size,
		.wce = s->writeback,
		.num_queues = blk->props.num_queues,
		.max_discard_sectors = s->max_discard_sectors,
		.max_discard_seg = s->max_discard_seg,
		.discard_sector_alignment = s->discard_sector_alignment,
		.max_write_zeroes_sectors = s->max_write_zeroes_sectors,
		.max_write_zeroes_seg = s->max_write_zeroes_seg,
		.write_zeroes_may_unmap = s->write_zeroes_may_unmap,
	};

	memcpy(blk->vdev.config, &config, MIN(sizeof(config), sizeof(blk->vdev.config)));
}

void blk_set_writeback(struct virtio_blk *blk, bool on)
{
	blk->state.writeback = on;
	blk_show(blk);
}

struct blk_resize {
	struct virtio_blk *blk;
	uint64_t end_bytes;
};

/* In the I/O thread: no request is being looked at. */
static void blk_take_size(void *opaque)
{
	const struct blk_resize *resize = opaque;
	struct virtio_blk *blk = resize->blk;

	g_mutex_lock(&blk->vdev.fn.dev.lock);
	block_node_set_end(blk->node, resize->end_bytes);
	blk->state.capacity_sectors = block_node_size_bytes(blk->node) / 512;
	blk_show(blk);
	virtio_notify_config(&blk->vdev);
	g_mutex_unlock(&blk->vdev.fn.dev.lock);
}

void blk_resized(void *opaque, uint64_t end_bytes)
{
	struct blk_resize resize = {.blk = opaque, .end_bytes = end_bytes};

	io_thread_run(resize.blk->thread, blk_take_size, &resize);
}

/* ---- update ---- */

bool virtio_blk_capture(struct device *dev, GError **error)
{
	struct virtio_blk *blk = (struct virtio_blk *)dev;
	struct virtio_blk_state *s = &blk->state;

	/* A rehearsal captures while the I/O thread works. */
	g_mutex_lock(&dev->lock);
	s->n_shelved = 0;
	for (const struct blk_slot *slot = blk->shelved; slot; slot = slot->next)
		s->shelved[s->n_shelved++] = slot->q << 16 | slot->chain.head;
	s->flush_error = block_queue_flush_error(blk->queue);
	g_mutex_unlock(&dev->lock);
	return virtio_capture(dev, error);
}

void virtio_blk_at_rest(struct device *dev, void *state)
{
	((struct virtio_blk_state *)state)->n_shelved = 0;
	virtio_at_rest(dev, state);
}

static bool blk_apply_shelved(struct virtio_blk *blk, GError **error)
{
	const struct virtio_blk_state *s = &blk->state;

	blk_drop_shelved(blk);
	for (uint32_t i = 0; i < s->n_shelved; i++) {
		struct blk_slot *slot = blk_slot_take(blk, s->shelved[i] >> 16);

		if (!slot)
			return error_set_generic(error, "%s: more shelved requests than entries",
						 blk->vdev.fn.dev.path);
		slot->chain.head = s->shelved[i] & 0xffff;
		blk_shelve_again(slot);
	}
	return true;
}

bool virtio_blk_apply(struct device *dev, GError **error)
{
	struct virtio_blk *blk = (struct virtio_blk *)dev;
	struct virtio_blk_state *s = &blk->state;
	uint64_t bytes = block_node_size_bytes(blk->node);

	/* Nothing is offered that was not; what is not possible here matters if it is used. */
	blk->vdev.features &= s->offered;
	if (!virtio_apply(dev, error) || !blk_apply_shelved(blk, error))
		return false;
	blk_show(blk);
	block_node_set_io_status(blk->node, s->io_status);
	block_queue_set_flush_error(blk->queue, s->flush_error);
	if (bytes != s->capacity_sectors * 512)
		log_warn("%s: '%s' has %" PRIu64 " bytes, the guest was told %" PRIu64
			 ": block_resize tells it the new size",
			 block_node_name(blk->node), block_node_filename(blk->node), bytes,
			 s->capacity_sectors * 512);
	return true;
}
