// The virtio disk (virtio 1.2 section 5.2).
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtio_blk.h"

#include <inttypes.h>
#include <linux/virtio_ids.h>
#include <string.h>

#include "base/error.h"
#include "device/virtio/virtio_blk_priv.h"

/**
 * DOC: Theory of operation
 *
 * All queues of a disk are handled in one I/O thread and share one block queue, so that a batch of
 * kicks costs one system call.  Every virtqueue has as many slots as entries, made when the device
 * is; a slot holds the chain, the block request and the place of the status byte.  handle_queue()
 * turns chains into requests, starts them, and gives back what ended at once; the rest ends in
 * blk_ready(), called by the block queue in the same thread.  The driver is notified once per
 * batch and queue.
 *
 * Unhappy paths.  A chain without header or status byte breaks the device, since there is nowhere
 * to report to.  Everything else that is wrong with a request is its status.  What the storage fails
 * is the business of virtio_blk_error.c.
 *
 * No more than BLK_TAKEN_MAX requests are taken at a time, which is what fits the state if all of
 * them fail; the others stay in their rings, and their queues are looked at again when some have
 * ended.
 */

#define CLASS_STORAGE	   0x010000
#define QUEUE_SIZE_MIN	   4
#define QUEUES_DEFAULT_MAX 16
#define IOV_SLACK	   4 /* parts more than descriptors, where RAM has seams */
#define REQUEST_BYTES_MAX  UINT32_MAX
#define ROUNDS_MAX	   8 /* of one queue before others have their turn */

/* clang-format off */
#define ROW(member_) .offset = offsetof(struct virtio_blk_props, member_)
static const struct prop blk_props[] = {
	{.name = "drive", .type = PROP_STRING, ROW(drive), .required = true,
	 .help = "node name or id of the disk's -blockdev or -drive"},
	{.name = "serial", .type = PROP_STRING, ROW(serial),
	 .help = "serial number, up to 20 characters"},
	{.name = "iothread", .type = PROP_STRING, ROW(iothread),
	 .help = "id of the -object iothread that handles the queues (default: one of its own)"},
	{.name = "num-queues", .type = PROP_U16, ROW(num_queues), .max = VIRTIO_QUEUES_MAX - 1,
	 .help = "virtqueues (default: one per vCPU, up to 16)"},
	{.name = "queue-size", .type = PROP_U16, ROW(queue_size), .def = "256",
	 .min = QUEUE_SIZE_MIN, .max = VIRTQUEUE_SIZE_MAX,
	 .help = "entries per virtqueue, a power of two"},
	{.name = "logical_block_size", .type = PROP_U32, ROW(logical_block_size),
	 .max = BLK_BLOCK_SIZE_MAX, .help = "bytes (default: the host device's, 512 for files)"},
	{.name = "physical_block_size", .type = PROP_U32, ROW(physical_block_size),
	 .max = BLK_BLOCK_SIZE_MAX, .help = "bytes (default: the logical block size)"},
	{.name = "min_io_size", .type = PROP_U32, ROW(min_io_size), .max = 65535 * 512,
	 .help = "bytes a request should have at least (default: none)"},
	{.name = "opt_io_size", .type = PROP_U32, ROW(opt_io_size), .max = UINT32_MAX,
	 .help = "bytes a request should best have (default: none)"},
	{.name = "write-cache", .type = PROP_ON_OFF_AUTO, ROW(write_cache), .def = "auto",
	 .help = "whether the guest finds a write cache (auto: as the drive says)"},
	{.name = "config-wce", .type = PROP_BOOL, ROW(config_wce), .def = "on",
	 .help = "the guest may switch the write cache"},
	{.name = "discard", .type = PROP_BOOL, ROW(discard), .def = "on",
	 .help = "offer discard"},
	{.name = "write-zeroes", .type = PROP_BOOL, ROW(write_zeroes), .def = "on",
	 .help = "offer write-zeroes"},
	{.name = "share-rw", .type = PROP_BOOL, ROW(share_rw), .def = "off",
	 .help = "let other processes write to the image, too"},
	{.name = "werror", .type = PROP_ENUM, ROW(werror), .names = block_on_error_names,
	 .def = "auto", .help = "what failed writes lead to (auto: as the drive says)"},
	{.name = "rerror", .type = PROP_ENUM, ROW(rerror), .names = block_on_error_names,
	 .def = "auto", .help = "what failed reads lead to (auto: as the drive says)"},
	VIRTIO_PROPS(struct virtio_blk_props, common, "on"),
	{0},
};
#undef ROW
/* clang-format on */

/* ---- requests ---- */

struct blk_slot *blk_slot_take(struct virtio_blk *blk, uint32_t q)
{
	struct blk_slot *slot = blk->free[q];

	if (!slot || blk->n_taken == BLK_TAKEN_MAX)
		return NULL;
	blk->free[q] = slot->next;
	blk->n_taken++;
	slot->order = ++blk->n_ordered;
	return slot;
}

void blk_slot_free(struct blk_slot *slot)
{
	struct virtio_blk *blk = slot->blk;

	slot->next = blk->free[slot->q];
	blk->free[slot->q] = slot;
	blk->n_taken--;
}

void blk_give_back(struct blk_slot *slot, uint8_t status)
{
	struct virtio_blk *blk = slot->blk;
	uint32_t q = slot->q;

	*slot->status = status;
	blk_slot_free(slot);
	blk->touched |= UINT64_C(1) << q;
	/* The status byte is the last one: with it everything counts as written. */
	virtio_push(&blk->vdev, q, slot->chain.head, MIN(slot->chain.in_bytes, UINT32_MAX));
}

static void blk_done(struct block_request *req, int result)
{
	struct blk_slot *slot = (struct blk_slot *)req;

	if (result)
		blk_failed(slot, -result);
	else
		blk_give_back(slot, VIRTIO_BLK_S_OK);
}

/* Section 5.2.5.1: without either feature there is no cache that the guest knows of. */
static bool blk_writeback(const struct virtio_blk *blk)
{
	if (virtio_has_feature(&blk->vdev, VIRTIO_BLK_F_CONFIG_WCE))
		return blk->state.writeback;
	return virtio_has_feature(&blk->vdev, VIRTIO_BLK_F_FLUSH);
}

/* Return: false if it is not within what the guest was told. */
static bool blk_byte_range(uint64_t sector, uint64_t n_sectors, struct blk_slot *slot)
{
	uint64_t capacity = slot->blk->state.capacity_sectors;

	if (sector > capacity || n_sectors > capacity - sector)
		return false;
	slot->req.offset_bytes = sector << 9;
	slot->req.len_bytes = n_sectors << 9;
	return true;
}

static void blk_submit(struct blk_slot *slot, enum block_op op)
{
	struct virtio_blk *blk = slot->blk;

	slot->req.op = op;
	slot->req.fua = !blk_writeback(blk);
	slot->req.done = blk_done;
	block_queue_submit(blk->queue, &slot->req);
}

static void blk_start_transfer(struct blk_slot *slot, uint64_t sector, bool write)
{
	const struct virtqueue_chain *chain = &slot->chain;
	uint64_t len = write ? chain->out_bytes - sizeof(struct virtio_blk_outhdr)
			     : chain->in_bytes - 1;

	if (len % 512 || len > REQUEST_BYTES_MAX || !blk_byte_range(sector, len / 512, slot) ||
	    (write && block_node_read_only(slot->blk->node))) {
		blk_give_back(slot, VIRTIO_BLK_S_IOERR);
		return;
	}
	blk_submit(slot, write ? BLOCK_WRITE : BLOCK_READ);
}

/* Section 5.2.6.2: one range, since that is what the configuration offers. */
static void blk_start_range(struct blk_slot *slot, bool zeroes)
{
	struct virtio_blk_discard_write_zeroes range;
	struct virtio_blk *blk = slot->blk;
	bool offered = virtio_has_feature(&blk->vdev, zeroes ? VIRTIO_BLK_F_WRITE_ZEROES
							     : VIRTIO_BLK_F_DISCARD);
	bool whole = iov_read(slot->req.iov, slot->req.n_iov, &range, sizeof(range)) ==
			     sizeof(range) &&
		     slot->chain.out_bytes == sizeof(struct virtio_blk_outhdr) + sizeof(range);

	if (!offered) {
		blk_give_back(slot, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (!whole ||
	    range.num_sectors > (zeroes ? blk->state.max_write_zeroes_sectors
					: blk->state.max_discard_sectors) ||
	    !blk_byte_range(range.sector, range.num_sectors, slot) ||
	    block_node_read_only(blk->node)) {
		blk_give_back(slot, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (range.flags & ~(zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0)) {
		blk_give_back(slot, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	slot->req.n_iov = 0;
	slot->req.may_unmap = range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	blk_submit(slot, zeroes ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD);
}

static void blk_start_flush(struct blk_slot *slot)
{
	slot->req.offset_bytes = 0;
	slot->req.len_bytes = 0;
	slot->req.n_iov = 0;
	blk_submit(slot, BLOCK_FLUSH);
}

static void blk_get_id(struct blk_slot *slot)
{
	const struct virtio_blk_state *state = &slot->blk->state;

	(void)iov_write(slot->req.iov, slot->req.n_iov, state->serial, sizeof(state->serial));
	blk_give_back(slot, VIRTIO_BLK_S_OK);
}

static void blk_start(struct blk_slot *slot, const struct virtio_blk_outhdr *header)
{
	bool write = header->type == VIRTIO_BLK_T_OUT;

	switch (header->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		blk_start_transfer(slot, header->sector, write);
		break;
	case VIRTIO_BLK_T_FLUSH:
		blk_start_flush(slot);
		break;
	case VIRTIO_BLK_T_GET_ID:
		blk_get_id(slot);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		blk_start_range(slot, header->type == VIRTIO_BLK_T_WRITE_ZEROES);
		break;
	default:
		blk_give_back(slot, VIRTIO_BLK_S_UNSUPP);
	}
}

/*
 * Header in front, status byte at the end, wherever descriptors cut them; what lies between becomes
 * the request's buffers: behind the header what the device reads, or else what it writes.
 */
static bool blk_parse(struct blk_slot *slot, struct virtio_blk_outhdr *header)
{
	struct virtqueue_chain *chain = &slot->chain;
	struct block_request *req = &slot->req;
	struct iovec *in = chain->iov + chain->n_out, *last;

	if (iov_read(chain->iov, chain->n_out, header, sizeof(*header)) != sizeof(*header) ||
	    chain->in_bytes == 0)
		return false;
	last = &in[chain->n_in - 1];
	last->iov_len--;
	slot->status = (uint8_t *)last->iov_base + last->iov_len;
	req->iov = chain->iov;
	req->n_iov = iov_skip(&req->iov, chain->n_out, sizeof(*header));
	if (header->type == VIRTIO_BLK_T_IN || header->type == VIRTIO_BLK_T_GET_ID) {
		req->iov = in;
		req->n_iov = chain->n_in - (last->iov_len == 0);
	}
	return true;
}

void blk_begin(struct blk_slot *slot)
{
	struct virtio_blk *blk = slot->blk;
	struct virtio_blk_outhdr header;

	if (blk_parse(slot, &header)) {
		blk_start(slot, &header);
		return;
	}
	virtio_break(&blk->vdev, slot->q, "a request has no header or no status byte");
	blk_slot_free(slot);
	virtio_push(&blk->vdev, slot->q, slot->chain.head, 0);
}

static void blk_complete(struct virtio_blk *blk)
{
	(void)block_queue_complete(blk->queue);
	for (uint32_t q = 0; blk->touched; q++) {
		if (blk->touched & UINT64_C(1) << q)
			virtio_notify(&blk->vdev, q);
		blk->touched &= ~(UINT64_C(1) << q);
	}
	if (blk->n_taken == BLK_TAKEN_MAX)
		return;
	for (uint32_t q = 0; blk->starved; q++) {
		if (blk->starved & UINT64_C(1) << q)
			virtio_kick(&blk->vdev, q);
		blk->starved &= ~(UINT64_C(1) << q);
	}
}

/* Return: false if the queue is not to be looked at again for now. */
static bool blk_take(struct virtio_blk *blk, uint32_t q)
{
	struct virtqueue *ring = &blk->vdev.queues[q].ring;
	struct blk_slot *slot;

	while ((slot = blk_slot_take(blk, q))) {
		if (!virtio_pop(&blk->vdev, q, &slot->chain)) {
			blk_slot_free(slot);
			return virtio_queue_live(&blk->vdev, q);
		}
		blk_begin(slot);
		if (!virtio_queue_live(&blk->vdev, q))
			return false;
	}
	if (!virtqueue_more(ring))
		return true;
	/* As many slots as entries: only a driver that offers a buffer twice needs more. */
	if (!blk->free[q])
		virtio_break(&blk->vdev, q, "more requests than entries");
	else
		blk->starved |= UINT64_C(1) << q;
	return false;
}

static void blk_handle_queue(struct virtio_device *vdev, uint32_t q)
{
	struct virtio_blk *blk = (struct virtio_blk *)vdev;
	struct virtqueue *ring = &vdev->queues[q].ring;
	bool more = true;

	if (blk->halted)
		return;
	if (blk->shelved)
		blk_repeat(blk);
	for (uint32_t round = 0; round < ROUNDS_MAX && more; round++) {
		virtqueue_silence(ring);
		more = virtio_queue_live(vdev, q) && blk_take(blk, q);
		block_queue_flush(blk->queue);
		/* What the page cache answered is given back without another round of poll(). */
		blk_complete(blk);
		if (!more || blk->halted || !virtio_queue_live(vdev, q) || !virtqueue_listen(ring))
			return;
	}
	/* Others share the thread. */
	virtio_kick(vdev, q);
}

static void blk_ready(void *opaque)
{
	struct virtio_blk *blk = opaque;

	g_mutex_lock(&blk->vdev.fn.dev.lock);
	blk_complete(blk);
	g_mutex_unlock(&blk->vdev.fn.dev.lock);
}

/* ---- configuration ---- */

static bool blk_initial_writeback(const struct virtio_blk *blk)
{
	if (blk->props.write_cache != ON_OFF_AUTO)
		return blk->props.write_cache == ON_OFF_ON;
	return !block_node_writethrough(blk->node);
}

static void blk_config_write(struct virtio_device *vdev, uint32_t offset, uint32_t size,
			     uint32_t value)
{
	if (offset == offsetof(struct virtio_blk_config, wce) && size == 1 &&
	    virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE))
		blk_set_writeback((struct virtio_blk *)vdev, value & 1);
}

static void blk_forget(struct virtio_device *vdev)
{
	struct virtio_blk *blk = (struct virtio_blk *)vdev;

	blk_drop_shelved(blk);
	blk_unhalt(blk);
	blk_set_writeback(blk, blk_initial_writeback(blk));
}

static void blk_goes_on(struct virtio_device *vdev)
{
	blk_unhalt((struct virtio_blk *)vdev);
}

static const struct virtio_ops blk_virtio_ops = {
	.type = VIRTIO_ID_BLOCK,
	.class_code = CLASS_STORAGE,
	.handle_queue = blk_handle_queue,
	.config_write = blk_config_write,
	.reset = blk_forget,
	.resumed = blk_goes_on,
};

static uint64_t blk_features(const struct virtio_blk *blk)
{
	const struct virtio_blk_props *props = &blk->props;
	uint64_t features = UINT64_C(1) << VIRTIO_BLK_F_SEG_MAX |
			    UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE |
			    UINT64_C(1) << VIRTIO_BLK_F_FLUSH |
			    UINT64_C(1) << VIRTIO_BLK_F_TOPOLOGY;

	features |= (uint64_t)props->config_wce << VIRTIO_BLK_F_CONFIG_WCE;
	features |= (uint64_t)props->discard << VIRTIO_BLK_F_DISCARD;
	features |= (uint64_t)props->write_zeroes << VIRTIO_BLK_F_WRITE_ZEROES;
	features |= (uint64_t)(props->num_queues > 1) << VIRTIO_BLK_F_MQ;
	features |= (uint64_t)block_node_read_only(blk->node) << VIRTIO_BLK_F_RO;
	return features;
}

/* ---- realize ---- */

static bool blk_block_size_valid(uint32_t bytes)
{
	return bytes >= 512 && bytes <= BLK_BLOCK_SIZE_MAX && !(bytes & (bytes - 1));
}

static bool blk_check_props(struct virtio_blk *blk, const struct device_env *env, GError **error)
{
	struct virtio_blk_props *props = &blk->props;
	uint32_t logical = blk_logical_bytes(blk);

	if (props->queue_size & (props->queue_size - 1))
		return error_set_generic(error, "queue-size=%u is not a power of two",
					 props->queue_size);
	if (!blk_block_size_valid(logical) ||
	    (props->physical_block_size && !blk_block_size_valid(props->physical_block_size)))
		return error_set_generic(error,
					 "a block size must be a power of two from 512 to %u",
					 BLK_BLOCK_SIZE_MAX);
	if (props->serial && strlen(props->serial) > BLK_SERIAL_BYTES)
		return error_set_generic(error, "serial '%s' is longer than %u characters",
					 props->serial, BLK_SERIAL_BYTES);
	if (!props->num_queues)
		props->num_queues = CLAMP(env->n_cpus, 1, QUEUES_DEFAULT_MAX);
	return true;
}

static bool blk_attach_node(struct virtio_blk *blk, struct device_env *env, GError **error)
{
	struct device *dev = &blk->vdev.fn.dev;
	g_autofree char *name =
		dev->id ? g_strdup_printf("/machine/peripheral/%s/virtio-backend", dev->id)
			: g_strdup(dev->path);
	struct block_node *node = env->find_block(env->opaque, blk->props.drive);
	const struct block_user user = {
		.name = name,
		.share_rw = blk->props.share_rw,
		.werror = blk->props.werror,
		.rerror = blk->props.rerror,
		.resized = blk_resized,
		.opaque = blk,
	};

	if (!node)
		return error_set_generic(error, "there is no drive '%s'", blk->props.drive);
	if (!block_node_attach(node, &user, error))
		return false;
	blk->node = node;
	return true;
}

static bool blk_find_thread(struct virtio_blk *blk, struct device_env *env, GError **error)
{
	const char *id = blk->props.iothread;
	const char *place = strrchr(blk->vdev.fn.dev.path, '/');
	g_autofree char *name = NULL;

	if (id) {
		blk->thread = env->find_iothread ? env->find_iothread(env->opaque, id) : NULL;
		return blk->thread || error_set_generic(error, "there is no iothread '%s'", id);
	}
	name = g_strdup_printf("blk-%s", place ? place + 1 : blk->vdev.fn.dev.path);
	blk->thread = io_thread_new(name, error);
	blk->own_thread = blk->thread != NULL;
	return blk->own_thread;
}

/* Fresh zero pages cost nothing until a request is that deep; the list keeps hot slots in use. */
static void blk_make_slots(struct virtio_blk *blk)
{
	uint32_t n = blk->props.queue_size, n_iov = n + IOV_SLACK;

	for (uint32_t q = 0; q < blk->props.num_queues; q++) {
		blk->slots[q] = g_new0(struct blk_slot, n);
		blk->iovs[q] = g_new0(struct iovec, (size_t)n * n_iov);
		for (uint32_t i = 0; i < n; i++) {
			struct blk_slot *slot = &blk->slots[q][i];

			slot->blk = blk;
			slot->q = q;
			slot->chain.iov = blk->iovs[q] + (size_t)i * n_iov;
			slot->chain.iov_max = n_iov;
			slot->next = i + 1 < n ? slot + 1 : NULL;
		}
		blk->free[q] = blk->slots[q];
	}
}

static bool virtio_blk_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct virtio_blk *blk = (struct virtio_blk *)dev;
	struct virtio_params params = {
		.ops = &blk_virtio_ops,
		.state = &blk->state.common,
		.props = &blk->props.common,
		.queue_size = blk->props.queue_size,
		.config_bytes = offsetof(struct virtio_blk_config, max_secure_erase_sectors),
	};

	if (!blk_attach_node(blk, env, error) || !blk_check_props(blk, env, error) ||
	    !blk_find_thread(blk, env, error))
		return false;
	blk_make_slots(blk);
	blk->queue = block_queue_new(blk->node, io_thread_context(blk->thread),
				     blk->props.num_queues * blk->props.queue_size, blk_ready, blk,
				     error);
	if (!blk->queue)
		return false;
	params.features = blk_features(blk);
	params.n_queues = blk->props.num_queues;
	params.n_vectors = blk->props.num_queues + 1;
	params.thread = blk->thread;
	if (!virtio_realize(&blk->vdev, &params, error))
		return false;
	blk_tell_guest(blk);
	return true;
}

static void blk_free_queue(void *opaque)
{
	struct virtio_blk *blk = opaque;

	block_queue_free(g_steal_pointer(&blk->queue));
}

static void virtio_blk_unrealize(struct device *dev)
{
	struct virtio_blk *blk = (struct virtio_blk *)dev;

	virtio_unrealize(&blk->vdev);
	if (blk->thread)
		io_thread_run(blk->thread, blk_free_queue, blk);
	if (blk->own_thread)
		io_thread_free(blk->thread);
	for (uint32_t q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		g_free(blk->slots[q]);
		g_free(blk->iovs[q]);
	}
	if (blk->node)
		block_node_detach(blk->node);
}

const struct device_ops virtio_blk_ops = {
	.name = "virtio-blk",
	.driver = "virtio-blk-pci",
	.bus = DEVICE_BUS_PCI,
	.help = "virtio disk",
	.props = blk_props,
	.props_offset = offsetof(struct virtio_blk, props),
	.size = sizeof(struct virtio_blk),
	.state = &virtio_blk_desc,
	.state_offset = offsetof(struct virtio_blk, state),
	.realize = virtio_blk_realize,
	.reset = virtio_reset,
	.drain = virtio_drain,
	.in_flight = virtio_in_flight,
	.resume = virtio_resume,
	.capture = virtio_blk_capture,
	.at_rest = virtio_blk_at_rest,
	.apply = virtio_blk_apply,
	.unrealize = virtio_blk_unrealize,
};
