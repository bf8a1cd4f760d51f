// The common part of virtio devices: status, features, queues, life cycle.
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtio.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "device/virtio/virtio_priv.h"

#define STATUS_KNOWN                                                                        \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)

#define ISR_QUEUE  0x1
#define ISR_CONFIG 0x2

/* ---- state ---- */

static const struct state_field virtio_fields[] = {
	FIELD(struct virtio_state, driver_features, 1),
	FIELD(struct virtio_state, device_feature_select, 2),
	FIELD(struct virtio_state, driver_feature_select, 3),
	FIELD(struct virtio_state, queue_select, 4),
	FIELD(struct virtio_state, config_vector, 5),
	FIELD(struct virtio_state, status, 6),
	FIELD(struct virtio_state, isr, 7),
	FIELD(struct virtio_state, config_generation, 8),
	FIELD_PAD(struct virtio_state, pad0),
	FIELD_PAD(struct virtio_state, pad1),
	FIELD_STRUCT_LIST(struct virtio_state, queues, n_queues, 9, &virtqueue_desc),
};

static bool virtio_check(const void *obj, GError **error)
{
	const struct virtio_state *vs = obj;

	if (vs->status & ~STATUS_KNOWN)
		return error_set_generic(error, "status: 0x%02x has unknown bits", vs->status);
	if ((vs->status & VIRTIO_CONFIG_S_DRIVER_OK) && !(vs->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return error_set_generic(error, "status: 0x%02x has DRIVER_OK but not FEATURES_OK",
					 vs->status);
	return true;
}

const struct state_desc virtio_desc = {
	.name = "virtio",
	.version = 1,
	.min_reader = 1,
	.check = virtio_check,
	STATE_DESC(struct virtio_state, virtio_fields),
};

static const struct state_field virtio_pci_fields[] = {
	FIELD_STRUCT(struct virtio_pci_state, pci, 1, &pci_function_desc),
	FIELD_STRUCT(struct virtio_pci_state, virtio, 2, &virtio_desc),
};

const struct state_desc virtio_pci_desc = {
	.name = "virtio-pci",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct virtio_pci_state, virtio_pci_fields),
};

/* ---- queues ---- */

bool virtio_queue_live(const struct virtio_device *vdev, uint32_t q)
{
	const struct virtio_state *vs = vdev->vs;

	return !vdev->quiesced && !vdev->resetting && vdev->queues[q].ring.desc &&
	       (vs->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
	       !(vs->status & VIRTIO_CONFIG_S_NEEDS_RESET) && virtio_pci_bus_master(vdev);
}

static void virtio_raise(struct virtio_device *vdev, uint16_t vector, uint8_t isr)
{
	/* Without a vector the driver polls this register; with one it need not be right. */
	if (vector == VIRTQUEUE_NO_VECTOR || isr == ISR_CONFIG)
		vdev->vs->isr |= isr;
	pci_msix_notify(&vdev->fn, vector);
}

void virtio_notify(struct virtio_device *vdev, uint32_t q)
{
	struct virtqueue *ring = &vdev->queues[q].ring;

	if (ring->used && !vdev->resetting && virtqueue_should_notify(ring))
		virtio_raise(vdev, ring->s->vector, ISR_QUEUE);
}

void virtio_notify_config(struct virtio_device *vdev)
{
	/* A driver that is being set up may be in the middle of reading it. */
	vdev->vs->config_generation++;
	if (vdev->vs->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_raise(vdev, vdev->vs->config_vector, ISR_CONFIG);
}

void virtio_break(struct virtio_device *vdev, uint32_t q, const char *why)
{
	struct virtio_state *vs = vdev->vs;

	log_guest(&vdev->log, "%s/%s: queue %u: %s; the device needs a reset", vdev->fn.dev.path,
		  vdev->fn.dev.ops->name, q, why);
	vs->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (vs->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_raise(vdev, vs->config_vector, ISR_CONFIG);
}

bool virtio_pop(struct virtio_device *vdev, uint32_t q, struct virtqueue_chain *chain)
{
	struct virtqueue *ring = &vdev->queues[q].ring;

	switch (virtqueue_pop(ring, chain)) {
	case VIRTQUEUE_CHAIN:
		vdev->queues[q].n_in_flight++;
		vdev->n_in_flight++;
		return true;
	case VIRTQUEUE_BROKEN:
		virtio_break(vdev, q, ring->why);
		return false;
	default:
		return false;
	}
}

void virtio_unpop(struct virtio_device *vdev, uint32_t q)
{
	virtqueue_unpop(&vdev->queues[q].ring);
	vdev->queues[q].n_in_flight--;
	vdev->n_in_flight--;
}

static void virtio_clear_queue(struct virtio_device *vdev, uint32_t q)
{
	virtqueue_unmap(&vdev->queues[q].ring);
	vdev->vs->queues[q] = (struct virtqueue_state){
		.size = vdev->queue_size,
		.vector = VIRTQUEUE_NO_VECTOR,
	};
}

/* Everything the driver told is forgotten; nothing is in flight. */
static void virtio_forget(struct virtio_device *vdev)
{
	struct virtio_state *vs = vdev->vs;

	vdev->resetting = false;
	*vs = (struct virtio_state){
		.config_vector = VIRTQUEUE_NO_VECTOR,
		.n_queues = vdev->n_queues,
	};
	for (uint32_t q = 0; q < vdev->n_queues; q++)
		virtio_clear_queue(vdev, q);
	if (vdev->ops->reset)
		vdev->ops->reset(vdev);
	virtio_pci_update_doorbells(vdev);
}

/* One less in flight: whoever waits for none is told. */
static void virtio_settle(struct virtio_device *vdev, uint32_t q)
{
	vdev->queues[q].n_in_flight--;
	if (--vdev->n_in_flight)
		return;
	if (vdev->resetting)
		virtio_forget(vdev);
	if (vdev->draining)
		device_drained(&vdev->fn.dev);
	vdev->draining = false;
}

void virtio_shelve(struct virtio_device *vdev, uint32_t q)
{
	vdev->queues[q].ring.s->n_shelved++;
	virtio_settle(vdev, q);
}

void virtio_unshelve(struct virtio_device *vdev, uint32_t q)
{
	vdev->queues[q].ring.s->n_shelved--;
	vdev->queues[q].n_in_flight++;
	vdev->n_in_flight++;
}

bool virtio_pop_again(struct virtio_device *vdev, uint32_t q, struct virtqueue_chain *chain)
{
	struct virtqueue *ring = &vdev->queues[q].ring;

	if (virtqueue_pop_again(ring, chain) == VIRTQUEUE_CHAIN)
		return true;
	virtio_break(vdev, q, ring->why);
	return false;
}

void virtio_push(struct virtio_device *vdev, uint32_t q, uint16_t head, uint32_t len_bytes)
{
	/* A driver that resets has no more use for its used ring. */
	if (!vdev->resetting)
		virtqueue_push(&vdev->queues[q].ring, head, len_bytes);
	virtio_settle(vdev, q);
}

/* ---- kicks ---- */

void virtio_kick(struct virtio_device *vdev, uint32_t q)
{
	if (vdev->queues[q].kick_fd >= 0) {
		eventfd_signal(vdev->queues[q].kick_fd);
		return;
	}
	__atomic_fetch_or(&vdev->kicked, UINT64_C(1) << q, __ATOMIC_RELEASE);
	eventfd_signal(vdev->kick_fd);
}

static gboolean virtio_queue_kicked(int fd, GIOCondition condition, void *opaque)
{
	struct virtio_queue *queue = opaque;
	struct virtio_device *vdev = queue->vdev;
	uint32_t q = queue - vdev->queues;

	eventfd_drain(fd);
	g_mutex_lock(&vdev->fn.dev.lock);
	if (virtio_queue_live(vdev, q))
		vdev->ops->handle_queue(vdev, q);
	g_mutex_unlock(&vdev->fn.dev.lock);
	return G_SOURCE_CONTINUE;
}

static gboolean virtio_device_kicked(int fd, GIOCondition condition, void *opaque)
{
	struct virtio_device *vdev = opaque;
	uint64_t kicked;

	eventfd_drain(fd);
	kicked = __atomic_exchange_n(&vdev->kicked, 0, __ATOMIC_ACQUIRE);
	g_mutex_lock(&vdev->fn.dev.lock);
	for (uint32_t q = 0; kicked; q++, kicked >>= 1)
		if ((kicked & 1) && virtio_queue_live(vdev, q))
			vdev->ops->handle_queue(vdev, q);
	g_mutex_unlock(&vdev->fn.dev.lock);
	return G_SOURCE_CONTINUE;
}

/* ---- what the driver writes ---- */

void virtio_write_features(struct virtio_device *vdev, uint32_t value)
{
	struct virtio_state *vs = vdev->vs;
	uint32_t half = vs->driver_feature_select;

	if (half > 1 || (vs->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	vs->driver_features &= ~(UINT64_C(0xffffffff) << (half * 32));
	vs->driver_features |= (uint64_t)value << (half * 32);
}

static void virtio_set_ring_features(struct virtio_device *vdev)
{
	for (uint32_t q = 0; q < vdev->n_queues; q++) {
		struct virtqueue *ring = &vdev->queues[q].ring;

		ring->event_idx = virtio_has_feature(vdev, VIRTIO_RING_F_EVENT_IDX);
		ring->indirect = virtio_has_feature(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	}
}

static void virtio_driver_ok(struct virtio_device *vdev)
{
	vdev->vs->status |= VIRTIO_CONFIG_S_DRIVER_OK;
	if (vdev->ops->driver_ok)
		vdev->ops->driver_ok(vdev);
	virtio_pci_update_doorbells(vdev);
	/* A driver may have kicked too early; the kick was eaten then. */
	for (uint32_t q = 0; q < vdev->n_queues; q++)
		if (vdev->vs->queues[q].enabled)
			virtio_kick(vdev, q);
}

static void virtio_start_reset(struct virtio_device *vdev)
{
	vdev->resetting = true;
	if (!vdev->n_in_flight)
		virtio_forget(vdev);
}

void virtio_write_status(struct virtio_device *vdev, uint8_t value)
{
	struct virtio_state *vs = vdev->vs;
	uint8_t fresh = value & ~vs->status & STATUS_KNOWN & ~VIRTIO_CONFIG_S_NEEDS_RESET;

	if (vdev->resetting)
		return;
	if (value == 0) {
		virtio_start_reset(vdev);
		return;
	}
	/* Section 2.1.1: bits are only ever added; FEATURES_OK stays off if we do not agree. */
	if ((fresh & VIRTIO_CONFIG_S_FEATURES_OK) &&
	    ((vs->driver_features & ~vdev->features) ||
	     !virtio_has_feature(vdev, VIRTIO_F_VERSION_1)))
		fresh &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	vs->status |= fresh & ~VIRTIO_CONFIG_S_DRIVER_OK;
	if (fresh & VIRTIO_CONFIG_S_FEATURES_OK)
		virtio_set_ring_features(vdev);
	if (!(fresh & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (vs->status & VIRTIO_CONFIG_S_FEATURES_OK)
		virtio_driver_ok(vdev);
	else
		virtio_break(vdev, 0, "DRIVER_OK before FEATURES_OK");
}

void virtio_enable_queue(struct virtio_device *vdev, uint32_t q)
{
	struct virtqueue *ring = &vdev->queues[q].ring;

	if (ring->s->enabled || vdev->resetting)
		return;
	if (!virtqueue_map(ring)) {
		virtio_break(vdev, q, ring->why);
		return;
	}
	ring->s->enabled = true;
	if (vdev->vs->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_pci_update_doorbells(vdev);
}

/* ---- life cycle ---- */

static bool virtio_check_props(const struct virtio_props *props, GError **error)
{
	if (props->disable_legacy == ON_OFF_OFF)
		return error_set_generic(error, "disable-legacy=off: there is no legacy interface; "
						"use disable-legacy=on");
	if (props->disable_modern)
		return error_set_generic(error, "disable-modern=on: there is no legacy interface "
						"to fall back to; use disable-modern=off");
	return true;
}

static int virtio_eventfd(GError **error)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		error_set_errno(error, errno, "eventfd");
	return fd;
}

static bool virtio_make_queues(struct virtio_device *vdev, GError **error)
{
	GMainContext *context = vdev->thread ? io_thread_context(vdev->thread) : NULL;

	for (uint32_t q = 0; q < vdev->n_queues && vdev->ioeventfd; q++) {
		struct virtio_queue *queue = &vdev->queues[q];

		queue->kick_fd = virtio_eventfd(error);
		if (queue->kick_fd < 0)
			return false;
		queue->kick_watch =
			loop_watch_fd(context, queue->kick_fd, G_IO_IN, virtio_queue_kicked, queue);
		/* Nothing here runs a nested loop, and the guard against one costs three system
		 * calls per kick (GLib wakes itself). */
		g_source_set_can_recurse(queue->kick_watch, TRUE);
	}
	if (vdev->ioeventfd)
		return true;
	vdev->kick_fd = virtio_eventfd(error);
	if (vdev->kick_fd < 0)
		return false;
	vdev->kick_watch =
		loop_watch_fd(context, vdev->kick_fd, G_IO_IN, virtio_device_kicked, vdev);
	return true;
}

bool virtio_realize(struct virtio_device *vdev, const struct virtio_params *params, GError **error)
{
	vdev->ops = params->ops;
	vdev->vs = &params->state->virtio;
	vdev->n_queues = params->n_queues;
	vdev->queue_size = params->queue_size;
	vdev->config_bytes = params->config_bytes;
	vdev->thread = params->thread;
	vdev->ioeventfd = params->props->ioeventfd;
	vdev->quiesced = true;
	vdev->features = params->features | UINT64_C(1) << VIRTIO_F_VERSION_1;
	if (params->props->event_idx)
		vdev->features |= UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
	if (params->props->indirect_desc)
		vdev->features |= UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
	vdev->realized = true;
	vdev->kick_fd = -1;
	for (uint32_t q = 0; q < VIRTIO_QUEUES_MAX; q++) {
		vdev->queues[q].kick_fd = -1;
		vdev->queues[q].vdev = vdev;
		vdev->queues[q].ring.s = &vdev->vs->queues[q];
		vdev->queues[q].ring.memory = vdev->fn.dev.env->memory;
	}
	return virtio_check_props(params->props, error) && virtio_pci_init(vdev, params, error) &&
	       virtio_make_queues(vdev, error);
}

static void virtio_unwatch(void *opaque)
{
	struct virtio_device *vdev = opaque;

	loop_unwatch(&vdev->kick_watch);
	for (uint32_t q = 0; q < vdev->n_queues; q++)
		loop_unwatch(&vdev->queues[q].kick_watch);
}

void virtio_unrealize(struct virtio_device *vdev)
{
	if (!vdev->realized)
		return;
	/* In the thread itself, or a callback could be running. */
	if (vdev->thread)
		io_thread_run(vdev->thread, virtio_unwatch, vdev);
	else
		virtio_unwatch(vdev);
	vdev->vs->status = 0;
	virtio_pci_update_doorbells(vdev);
	pci_function_fini(&vdev->fn);
	fd_close(&vdev->kick_fd);
	for (uint32_t q = 0; q < vdev->n_queues; q++)
		fd_close(&vdev->queues[q].kick_fd);
	vdev->realized = false;
}

void virtio_reset(struct device *dev)
{
	struct virtio_device *vdev = (struct virtio_device *)dev;

	g_mutex_lock(&dev->lock);
	virtio_start_reset(vdev);
	pci_function_reset(&vdev->fn);
	g_mutex_unlock(&dev->lock);
}

bool virtio_drain(struct device *dev)
{
	struct virtio_device *vdev = (struct virtio_device *)dev;
	bool idle;

	g_mutex_lock(&dev->lock);
	vdev->quiesced = true;
	idle = vdev->n_in_flight == 0;
	vdev->draining = !idle;
	g_mutex_unlock(&dev->lock);
	return idle;
}

uint32_t virtio_in_flight(struct device *dev, GString *text)
{
	struct virtio_device *vdev = (struct virtio_device *)dev;
	uint32_t n;

	g_mutex_lock(&dev->lock);
	n = vdev->n_in_flight;
	for (uint32_t q = 0; text && q < vdev->n_queues; q++) {
		uint32_t n_queue = vdev->queues[q].n_in_flight;

		if (n_queue)
			g_string_append_printf(text, "%squeue %u: %u request%s",
					       text->len ? ", " : "", q, n_queue,
					       n_queue > 1 ? "s" : "");
	}
	g_mutex_unlock(&dev->lock);
	return n;
}

void virtio_resume(struct device *dev)
{
	struct virtio_device *vdev = (struct virtio_device *)dev;
	struct virtio_state *vs = vdev->vs;

	g_mutex_lock(&dev->lock);
	vdev->quiesced = false;
	vdev->draining = false;
	for (uint32_t q = 0; q < vdev->n_queues; q++) {
		if (!virtio_queue_live(vdev, q))
			continue;
		virtio_kick(vdev, q);
		virtio_raise(vdev, vs->queues[q].vector, ISR_QUEUE);
	}
	if ((vs->status & VIRTIO_CONFIG_S_DRIVER_OK) && (vs->status & VIRTIO_CONFIG_S_NEEDS_RESET))
		virtio_raise(vdev, vs->config_vector, ISR_CONFIG);
	if (vdev->ops->resumed)
		vdev->ops->resumed(vdev);
	g_mutex_unlock(&dev->lock);
}

bool virtio_capture(struct device *dev, GError **error)
{
	pci_function_capture(&((struct virtio_device *)dev)->fn);
	return true;
}

void virtio_at_rest(struct device *dev, void *state)
{
	struct virtio_state *vs = &((struct virtio_pci_state *)state)->virtio;

	for (uint32_t q = 0; q < vs->n_queues; q++) {
		vs->queues[q].last_avail = vs->queues[q].used_idx;
		vs->queues[q].n_shelved = 0;
	}
}

static bool virtio_apply_queue(struct virtio_device *vdev, uint32_t q, GError **error)
{
	const struct virtqueue_state *s = &vdev->vs->queues[q];
	struct virtqueue *ring = &vdev->queues[q].ring;

	if (s->size > vdev->queue_size)
		return error_set_generic(error, "queue %u has %u entries, at most %u are possible",
					 q, s->size, vdev->queue_size);
	if (s->vector != VIRTQUEUE_NO_VECTOR && s->vector >= vdev->fn.n_vectors)
		return error_set_generic(error, "queue %u uses MSI-X vector %u of %u", q, s->vector,
					 vdev->fn.n_vectors);
	virtqueue_unmap(ring);
	if (s->enabled && !virtqueue_map(ring))
		return error_set_generic(error, "queue %u: %s", q, ring->why);
	return true;
}

bool virtio_apply(struct device *dev, GError **error)
{
	struct virtio_device *vdev = (struct virtio_device *)dev;
	struct virtio_state *vs = vdev->vs;

	if (vs->n_queues != vdev->n_queues)
		return error_set_generic(error, "%s: %u queues in the state, %u here", dev->path,
					 vs->n_queues, vdev->n_queues);
	if ((vs->status & VIRTIO_CONFIG_S_FEATURES_OK) && (vs->driver_features & ~vdev->features))
		return error_set_generic(error,
					 "%s: the driver uses features 0x%" PRIx64
					 " that are not offered here",
					 dev->path, vs->driver_features & ~vdev->features);
	for (uint32_t q = 0; q < vdev->n_queues; q++) {
		if (!virtio_apply_queue(vdev, q, error)) {
			g_prefix_error(error, "%s: ", dev->path);
			return false;
		}
	}
	virtio_set_ring_features(vdev);
	if (!pci_function_apply(&vdev->fn, error))
		return false;
	virtio_pci_update_doorbells(vdev);
	return true;
}
