// The register file of virtio over PCI, modern interface only (virtio 1.2 section 4.1).
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtio_priv.h"

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "base/error.h"
#include "base/fd.h"

/* One BAR, a page per structure. */
#define COMMON_OFFSET 0x0000
#define ISR_OFFSET    0x1000
#define CONFIG_OFFSET 0x2000
#define NOTIFY_OFFSET 0x3000
#define PART_BYTES    0x1000
#define BAR_BYTES     0x4000

#define NOTIFY_MULTIPLIER 4

#define VIRTIO_VENDOR	 0x1af4
#define VIRTIO_DEVICE	 0x1040
#define VIRTIO_SUBSYSTEM 0x1100

/* ---- common configuration (section 4.1.4.3) ---- */

static uint64_t common_read_queue(struct virtio_device *vdev, uint32_t offset)
{
	const struct virtqueue_state *s;

	if (vdev->vs->queue_select >= vdev->n_queues)
		return 0;
	s = &vdev->vs->queues[vdev->vs->queue_select];
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return s->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return s->vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return s->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return vdev->vs->queue_select;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return (uint32_t)s->desc_gpa;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return s->desc_gpa >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return (uint32_t)s->avail_gpa;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return s->avail_gpa >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return (uint32_t)s->used_gpa;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return s->used_gpa >> 32;
	default:
		return 0;
	}
}

static uint32_t features_half(uint64_t features, uint32_t select)
{
	return select > 1 ? 0 : features >> (select * 32);
}

static uint64_t common_read(struct virtio_device *vdev, uint32_t offset)
{
	const struct virtio_state *vs = vdev->vs;

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return vs->device_feature_select;
	case VIRTIO_PCI_COMMON_DF:
		return features_half(vdev->features, vs->device_feature_select);
	case VIRTIO_PCI_COMMON_GFSELECT:
		return vs->driver_feature_select;
	case VIRTIO_PCI_COMMON_GF:
		return features_half(vs->driver_features, vs->driver_feature_select);
	case VIRTIO_PCI_COMMON_MSIX:
		return vs->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return vdev->n_queues;
	case VIRTIO_PCI_COMMON_STATUS:
		return vs->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return vs->config_generation;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return vs->queue_select;
	default:
		return common_read_queue(vdev, offset);
	}
}

static uint16_t valid_vector(const struct virtio_device *vdev, uint64_t value)
{
	return value < vdev->fn.n_vectors ? value : VIRTIO_MSI_NO_VECTOR;
}

static void write_half(uint64_t *gpa, uint32_t value, bool high)
{
	if (high)
		*gpa = (uint32_t)*gpa | (uint64_t)value << 32;
	else
		*gpa = (*gpa & ~UINT64_C(0xffffffff)) | value;
}

/* Where a ring lies is settled when the queue is enabled (section 4.1.4.3.2). */
static void common_write_ring(struct virtio_device *vdev, uint32_t offset, uint32_t value)
{
	struct virtqueue_state *s = &vdev->vs->queues[vdev->vs->queue_select];

	if (s->enabled)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		if (value > 0 && value <= vdev->queue_size && !(value & (value - 1)))
			s->size = value;
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		write_half(&s->desc_gpa, value, offset == VIRTIO_PCI_COMMON_Q_DESCHI);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		write_half(&s->avail_gpa, value, offset == VIRTIO_PCI_COMMON_Q_AVAILHI);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		write_half(&s->used_gpa, value, offset == VIRTIO_PCI_COMMON_Q_USEDHI);
		break;
	}
}

static void common_write_queue(struct virtio_device *vdev, uint32_t offset, uint32_t value)
{
	uint16_t q = vdev->vs->queue_select;

	if (q >= vdev->n_queues)
		return;
	if (offset == VIRTIO_PCI_COMMON_Q_MSIX)
		vdev->vs->queues[q].vector = valid_vector(vdev, value);
	else if (offset == VIRTIO_PCI_COMMON_Q_ENABLE && value == 1)
		virtio_enable_queue(vdev, q);
	else
		common_write_ring(vdev, offset, value);
}

static void common_write(struct virtio_device *vdev, uint32_t offset, uint32_t value)
{
	struct virtio_state *vs = vdev->vs;

	if (vdev->resetting)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		vs->device_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		vs->driver_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		virtio_write_features(vdev, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		vs->config_vector = valid_vector(vdev, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_write_status(vdev, value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		vs->queue_select = value;
		break;
	default:
		common_write_queue(vdev, offset, value);
	}
}

/* ---- the BAR ---- */

static uint64_t config_read(const struct virtio_device *vdev, uint32_t offset, uint32_t size)
{
	uint32_t value = 0;

	for (uint32_t i = 0; i < size && offset + i < vdev->config_bytes; i++)
		value |= (uint32_t)vdev->config[offset + i] << (i * 8);
	return value;
}

static uint64_t bar_read(void *opaque, uint64_t offset, uint32_t size)
{
	struct virtio_device *vdev = opaque;
	uint32_t at = offset % PART_BYTES;
	uint8_t isr;

	switch (offset - at) {
	case COMMON_OFFSET:
		return common_read(vdev, at) & (UINT32_MAX >> (32 - 8 * size));
	case CONFIG_OFFSET:
		return config_read(vdev, at, size);
	case ISR_OFFSET:
		if (at != 0)
			return 0;
		isr = vdev->vs->isr;
		vdev->vs->isr = 0;
		return isr;
	default:
		return 0;
	}
}

static void bar_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
	struct virtio_device *vdev = opaque;
	uint32_t at = offset % PART_BYTES;

	switch (offset - at) {
	case COMMON_OFFSET:
		common_write(vdev, at, value);
		break;
	case CONFIG_OFFSET:
		if (vdev->ops->config_write && at + size <= vdev->config_bytes)
			vdev->ops->config_write(vdev, at, size, value);
		break;
	case NOTIFY_OFFSET:
		if (at / NOTIFY_MULTIPLIER < vdev->n_queues)
			virtio_kick(vdev, at / NOTIFY_MULTIPLIER);
		break;
	}
}

static const struct io_ops bar_ops = {
	.read = bar_read,
	.write = bar_write,
	.min_size = 1,
	.max_size = 4,
};

/* ---- doorbells ---- */

static uint64_t wanted_doorbell(const struct virtio_device *vdev, uint32_t q)
{
	if (!vdev->bar_gpa || !(vdev->vs->status & VIRTIO_CONFIG_S_DRIVER_OK) ||
	    !vdev->vs->queues[q].enabled)
		return 0;
	return vdev->bar_gpa + NOTIFY_OFFSET + q * NOTIFY_MULTIPLIER;
}

void virtio_pci_update_doorbells(struct virtio_device *vdev)
{
	struct accel *accel = vdev->fn.dev.env->accel;

	for (uint32_t q = 0; q < vdev->n_queues && vdev->ioeventfd; q++) {
		struct virtio_queue *queue = &vdev->queues[q];
		uint64_t gpa = wanted_doorbell(vdev, q);

		if (gpa == queue->doorbell_gpa)
			continue;
		if (queue->doorbell_gpa)
			accel->ops->ioeventfd_set(accel, queue->doorbell_gpa, 0, false, NULL,
						  queue->kick_fd, false, NULL);
		queue->doorbell_gpa = 0;
		/* Refused: the write exits to bar_write(), which does the same, only slower. */
		if (gpa && accel->ops->ioeventfd_set(accel, gpa, 0, false, NULL, queue->kick_fd,
						     true, NULL))
			queue->doorbell_gpa = gpa;
	}
}

static void bar_moved(struct pci_function *fn, uint32_t bar, uint64_t base)
{
	struct virtio_device *vdev = (struct virtio_device *)fn;

	vdev->bar_gpa = base;
	virtio_pci_update_doorbells(vdev);
}

/* ---- configuration space ---- */

bool virtio_pci_bus_master(const struct virtio_device *vdev)
{
	return vdev->fn.state->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

/* Section 4.1.4.9: registers for those who cannot map the BAR, such as firmware. */
static bool cfg_access(const struct virtio_device *vdev, uint32_t *offset, uint32_t *size)
{
	struct virtio_pci_cfg_cap cap;

	memcpy(&cap, vdev->fn.state->config + vdev->cfg_cap, sizeof(cap));
	*offset = cap.cap.offset;
	*size = cap.cap.length;
	return cap.cap.bar == VIRTIO_PCI_BAR && (*size == 1 || *size == 2 || *size == 4) &&
	       *offset < BAR_BYTES && *offset % *size == 0;
}

static bool touches_cfg_data(const struct virtio_device *vdev, uint32_t offset, uint32_t len)
{
	uint32_t data = vdev->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);

	return offset < data + 4 && data < offset + len;
}

static uint8_t *cfg_data(struct virtio_device *vdev)
{
	return vdev->fn.state->config + vdev->cfg_cap +
	       offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
}

static void config_space_read(struct pci_function *fn, uint32_t offset, uint32_t len)
{
	struct virtio_device *vdev = (struct virtio_device *)fn;
	uint32_t at, size, value;

	if (!touches_cfg_data(vdev, offset, len) || !cfg_access(vdev, &at, &size))
		return;
	value = bar_read(vdev, at, size);
	memcpy(cfg_data(vdev), &value, size);
}

static void config_space_written(struct pci_function *fn, uint32_t offset, uint32_t len)
{
	struct virtio_device *vdev = (struct virtio_device *)fn;
	uint32_t at, size, value = 0;

	/* Bus mastering may have been switched on: what was kicked before is looked at now. */
	if (offset < PCI_COMMAND + 2 && PCI_COMMAND < offset + len)
		for (uint32_t q = 0; q < vdev->n_queues; q++)
			if (virtio_queue_live(vdev, q))
				virtio_kick(vdev, q);
	if (!touches_cfg_data(vdev, offset, len) || !cfg_access(vdev, &at, &size))
		return;
	memcpy(&value, cfg_data(vdev), size);
	bar_write(vdev, at, size, value);
}

static void add_cap(struct virtio_device *vdev, uint8_t type, uint32_t offset)
{
	struct virtio_pci_cap cap = {
		.cap_vndr = PCI_CAP_ID_VNDR,
		.cap_len = sizeof(cap),
		.cfg_type = type,
		.bar = VIRTIO_PCI_BAR,
		.offset = offset,
		.length = PART_BYTES,
	};

	pci_function_add_capability(&vdev->fn, &cap, sizeof(cap));
}

static void add_capabilities(struct virtio_device *vdev)
{
	struct virtio_pci_notify_cap notify = {
		.cap.cap_vndr = PCI_CAP_ID_VNDR,
		.cap.cap_len = sizeof(notify),
		.cap.cfg_type = VIRTIO_PCI_CAP_NOTIFY_CFG,
		.cap.bar = VIRTIO_PCI_BAR,
		.cap.offset = NOTIFY_OFFSET,
		.cap.length = PART_BYTES,
		.notify_off_multiplier = NOTIFY_MULTIPLIER,
	};
	struct virtio_pci_cfg_cap access = {
		.cap.cap_vndr = PCI_CAP_ID_VNDR,
		.cap.cap_len = sizeof(access),
		.cap.cfg_type = VIRTIO_PCI_CAP_PCI_CFG,
	};
	uint8_t *wmask;

	add_cap(vdev, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFFSET);
	add_cap(vdev, VIRTIO_PCI_CAP_ISR_CFG, ISR_OFFSET);
	add_cap(vdev, VIRTIO_PCI_CAP_DEVICE_CFG, CONFIG_OFFSET);
	pci_function_add_capability(&vdev->fn, &notify, sizeof(notify));
	vdev->cfg_cap = pci_function_add_capability(&vdev->fn, &access, sizeof(access));
	wmask = vdev->fn.wmask + vdev->cfg_cap;
	wmask[VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(wmask + VIRTIO_PCI_CAP_OFFSET, 0xff, sizeof(access) - VIRTIO_PCI_CAP_OFFSET);
}

bool virtio_pci_init(struct virtio_device *vdev, const struct virtio_params *params, GError **error)
{
	const struct pci_ids ids = {
		.vendor = VIRTIO_VENDOR,
		.device = VIRTIO_DEVICE + params->ops->type,
		.subsystem_vendor = VIRTIO_VENDOR,
		.subsystem = VIRTIO_SUBSYSTEM,
		.revision = 1,
		.class_code = params->ops->class_code,
	};

	pci_function_init(&vdev->fn, &params->state->pci, &ids);
	vdev->fn.config_read = config_space_read;
	vdev->fn.config_written = config_space_written;
	pci_function_add_bar(&vdev->fn, VIRTIO_PCI_BAR, BAR_BYTES, false, true, &bar_ops, vdev,
			     bar_moved);
	add_capabilities(vdev);
	return pci_function_add_msix(&vdev->fn, params->n_vectors, VIRTIO_PCI_MSIX_BAR, error);
}
