// The virtio disk's failed requests: told, reported, ignored, or kept until the machine goes on.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "device/virtio/virtio_blk_priv.h"

/**
 * DOC: theory of operation
 *
 * What the guest asks for and cannot have by what it was told (a sector beyond the capacity, a write
 * to a read-only disk) is its own mistake and gets an error, nothing else.  What the storage failed is
 * told to the operator (BLOCK_IO_ERROR) and treated as werror= or rerror= say.
 *
 * Stop.  The request is shelved, in the order in which requests were taken; no more are taken; the
 * machine is asked to stop, and does so from its main thread.  What is in flight meanwhile ends, or is
 * shelved, too.  When the device is resumed (cont, or the successor's start) all are read from their
 * rings again and started, oldest first, in the I/O thread.  One that fails again stops the machine
 * again.  A reset drops them.  An update saves which they are.  Not for an error that the queue only
 * remembers (block_queue_flush_error()): it would stop the machine at each cont, for ever.
 *
 * A guest can make errors without end where they are only reported: these are told once a second.
 * Where the machine stops, the first one of a disk is told.
 */

#define TOLD_AGAIN_NS NS_PER_SEC

static bool blk_is_read(const struct blk_slot *slot)
{
	return slot->req.op == BLOCK_READ;
}

static bool blk_worth_telling(struct virtio_blk *blk, enum block_action action)
{
	uint64_t now_ns = clock_now_ns();

	if (action == BLOCK_ACTION_STOP)
		return !blk->halted;
	if (blk->told_ns && now_ns - blk->told_ns < TOLD_AGAIN_NS)
		return false;
	blk->told_ns = now_ns;
	return true;
}

static json_t *blk_error_json(const struct blk_slot *slot, enum block_action action, int err)
{
	const struct virtio_blk *blk = slot->blk;
	const char *drive_id = block_node_drive_id(blk->node);
	json_t *event = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "qom-path",
				  block_node_user(blk->node), "device", drive_id ? drive_id : "",
				  "node-name", block_node_name(blk->node), "operation",
				  blk_is_read(slot) ? "read" : "write", "action",
				  block_action_name(action), "reason", g_strerror(err));

	if (block_node_may_stop(blk->node))
		json_object_set_new(event, "nospace", json_boolean(err == ENOSPC));
	return event;
}

static void blk_tell(const struct blk_slot *slot, enum block_action action, int err)
{
	struct virtio_blk *blk = slot->blk;
	const struct device_env *env = blk->vdev.fn.dev.env;

	if (!blk_worth_telling(blk, action))
		return;
	log_guest(&blk->log, "%s: a %s failed at byte %" PRIu64 ": %s%s",
		  block_node_name(blk->node), blk_is_read(slot) ? "read" : "write",
		  slot->req.offset_bytes, g_strerror(err),
		  action == BLOCK_ACTION_STOP ? "; the guest stops until cont" : "");
	if (env->io_error)
		env->io_error(env->opaque, blk_error_json(slot, action, err),
			      action == BLOCK_ACTION_STOP);
}

static void blk_insert_shelved(struct blk_slot *slot)
{
	struct blk_slot **at = &slot->blk->shelved;

	while (*at && (*at)->order < slot->order)
		at = &(*at)->next;
	slot->next = *at;
	*at = slot;
}

static void blk_shelve(struct blk_slot *slot, int err)
{
	struct virtio_blk *blk = slot->blk;

	blk->halted = true;
	/* That there is no space explains what else fails. */
	if (blk->state.io_status != BLOCK_IO_NOSPACE)
		blk->state.io_status = err == ENOSPC ? BLOCK_IO_NOSPACE : BLOCK_IO_FAILED;
	block_node_set_io_status(blk->node, blk->state.io_status);
	blk_insert_shelved(slot);
	virtio_shelve(&blk->vdev, slot->q);
}

void blk_failed(struct blk_slot *slot, int err)
{
	struct virtio_blk *blk = slot->blk;
	enum block_action action = block_node_error_action(blk->node, blk_is_read(slot), err);

	/* A driver that resets has no more use for it; nor is waiting of use to what cannot change. */
	if (blk->vdev.resetting || (slot->req.remembered && action == BLOCK_ACTION_STOP))
		action = BLOCK_ACTION_REPORT;
	blk_tell(slot, action, err);
	switch (action) {
	case BLOCK_ACTION_REPORT:
		blk_give_back(slot, VIRTIO_BLK_S_IOERR);
		break;
	case BLOCK_ACTION_IGNORE:
		blk_give_back(slot, VIRTIO_BLK_S_OK);
		break;
	case BLOCK_ACTION_STOP:
		blk_shelve(slot, err);
		break;
	}
}

void blk_shelve_again(struct blk_slot *slot)
{
	blk_insert_shelved(slot);
}

void blk_repeat(struct virtio_blk *blk)
{
	struct blk_slot *list = g_steal_pointer(&blk->shelved), *next;

	for (struct blk_slot *slot = list; slot; slot = next) {
		next = slot->next;
		virtio_unshelve(&blk->vdev, slot->q);
		if (virtio_pop_again(&blk->vdev, slot->q, &slot->chain)) {
			blk_begin(slot);
			continue;
		}
		virtio_push(&blk->vdev, slot->q, slot->chain.head, 0);
		blk_slot_free(slot);
	}
}

void blk_unhalt(struct virtio_blk *blk)
{
	blk->halted = false;
	blk->state.io_status = BLOCK_IO_OK;
	block_node_set_io_status(blk->node, BLOCK_IO_OK);
}

void blk_drop_shelved(struct virtio_blk *blk)
{
	struct blk_slot *slot;

	while ((slot = blk->shelved)) {
		blk->shelved = slot->next;
		blk_slot_free(slot);
	}
}
