// A virtio driver for tests: finds the registers by the capabilities, builds rings, waits for MSIs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <poll.h>

#include "device/pci/host_bridge.h"
#include "fake.h"

#define DRV_ECAM      0xb0000000ULL
#define DRV_DEVFN     (3 << 3)
#define DRV_MSIX_BAR  0xc0000000ULL
#define DRV_BAR	      0xc0100000ULL
#define DRV_LOW_BYTES (4U << 20)
#define DRV_RAM_BYTES (8U << 20) /* two regions of 4 MiB, adjacent in the guest, not on the host */
#define DRV_QUEUES    64
#define DRV_WAIT_MS   5000

/**
 * struct drv_ram - Guest memory that outlives a machine
 * @next:	Where drv_alloc() goes on
 */
struct drv_ram {
	uint8_t *low, *high;
	struct guest_memory memory;
	uint64_t next;
};

/**
 * struct drv_queue - The driver's side of a queue
 * @seen_used:	Used entries taken
 * @out:	Heads that are the device's
 * @next_of:	The chains, kept where the device cannot change them
 */
struct drv_queue {
	uint16_t size;
	uint64_t desc, avail, used;
	uint16_t n_free, free[1024];
	uint16_t seen_used;
	uint16_t next_of[1024];
	bool out[1024];
};

/**
 * struct drv - A driver
 * @m, @bridge, @dev: the machine the device is in; replaced by a hand-over
 * @common, @notify, @isr, @config: guest-physical addresses of the structures
 */
struct drv {
	struct fake_machine *m;
	struct device *bridge, *dev;
	struct drv_ram *ram;
	uint64_t common, notify, isr, config;
	uint32_t notify_multiplier;
	uint64_t features;
	struct drv_queue queues[DRV_QUEUES];
	uint32_t n_irqs;
};

struct drv_sg {
	uint64_t gpa;
	uint32_t len;
	bool write;
};

/* ---- memory ---- */

static inline struct drv_ram *drv_ram_new(void)
{
	struct drv_ram *ram = g_new0(struct drv_ram, 1);

	ram->low = g_malloc0(DRV_LOW_BYTES);
	ram->high = g_malloc0(DRV_RAM_BYTES - DRV_LOW_BYTES);
	ram->memory.n_regions = 2;
	ram->memory.regions[0] =
		(struct guest_region){.gpa = 0, .size_bytes = DRV_LOW_BYTES, .host = ram->low};
	ram->memory.regions[1] = (struct guest_region){.gpa = DRV_LOW_BYTES,
						       .size_bytes = DRV_RAM_BYTES - DRV_LOW_BYTES,
						       .host = ram->high};
	ram->next = 0x1000;
	return ram;
}

static inline void drv_ram_free(struct drv_ram *ram)
{
	g_free(ram->low);
	g_free(ram->high);
	g_free(ram);
}

static inline void *drv_ptr(struct drv_ram *ram, uint64_t gpa)
{
	return gpa < DRV_LOW_BYTES ? ram->low + gpa : ram->high + (gpa - DRV_LOW_BYTES);
}

static inline uint64_t drv_alloc(struct drv_ram *ram, uint32_t len)
{
	uint64_t gpa = ram->next;

	ram->next = (ram->next + len + 4095) & ~4095ULL;
	g_assert_cmpuint(ram->next, <=, DRV_LOW_BYTES);
	return gpa;
}

/* ---- registers ---- */

static inline uint64_t drv_pci_get(struct drv *d, uint32_t reg, uint32_t size)
{
	return fake_load(d->m, DRV_ECAM + (DRV_DEVFN << 12) + reg, size);
}

static inline void drv_pci_put(struct drv *d, uint32_t reg, uint32_t size, uint64_t value)
{
	fake_store(d->m, DRV_ECAM + (DRV_DEVFN << 12) + reg, size, value);
}

static inline uint64_t drv_get(struct drv *d, uint32_t reg, uint32_t size)
{
	return fake_load(d->m, d->common + reg, size);
}

static inline void drv_put(struct drv *d, uint32_t reg, uint32_t size, uint64_t value)
{
	fake_store(d->m, d->common + reg, size, value);
}

static inline uint8_t drv_status(struct drv *d)
{
	return drv_get(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

static inline void drv_add_status(struct drv *d, uint8_t bits)
{
	drv_put(d, VIRTIO_PCI_COMMON_STATUS, 1, drv_status(d) | bits);
}

static inline void drv_put64(struct drv *d, uint32_t reg, uint64_t value)
{
	drv_put(d, reg, 4, (uint32_t)value);
	drv_put(d, reg + 4, 4, value >> 32);
}

static inline void drv_find_capabilities(struct drv *d)
{
	uint8_t at = drv_pci_get(d, PCI_CAPABILITY_LIST, 1);

	for (int n = 0; at && n < 48; n++, at = drv_pci_get(d, at + 1, 1)) {
		uint64_t gpa = DRV_BAR + drv_pci_get(d, at + VIRTIO_PCI_CAP_OFFSET, 4);

		if (drv_pci_get(d, at, 1) != PCI_CAP_ID_VNDR)
			continue;
		switch (drv_pci_get(d, at + VIRTIO_PCI_CAP_CFG_TYPE, 1)) {
		case VIRTIO_PCI_CAP_COMMON_CFG:
			d->common = gpa;
			break;
		case VIRTIO_PCI_CAP_NOTIFY_CFG:
			d->notify = gpa;
			d->notify_multiplier = drv_pci_get(d, at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
			break;
		case VIRTIO_PCI_CAP_ISR_CFG:
			d->isr = gpa;
			break;
		case VIRTIO_PCI_CAP_DEVICE_CFG:
			d->config = gpa;
			break;
		}
	}
	g_assert_true(d->common && d->notify && d->isr && d->config);
}

static inline uint8_t drv_msix_cap(struct drv *d)
{
	uint8_t at = drv_pci_get(d, PCI_CAPABILITY_LIST, 1);

	while (at && drv_pci_get(d, at, 1) != PCI_CAP_ID_MSIX)
		at = drv_pci_get(d, at + 1, 1);
	g_assert_cmpuint(at, !=, 0);
	return at;
}

/* BARs, bus mastering, MSI-X with the vector's number as its data. */
static inline void drv_pci_set_up(struct drv *d)
{
	uint8_t msix = drv_msix_cap(d);
	uint32_t n_vectors = (drv_pci_get(d, msix + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;

	drv_pci_put(d, PCI_BASE_ADDRESS_1, 4, DRV_MSIX_BAR);
	drv_pci_put(d, PCI_BASE_ADDRESS_4, 4, DRV_BAR);
	drv_pci_put(d, PCI_BASE_ADDRESS_5, 4, 0);
	drv_pci_put(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	drv_find_capabilities(d);
	for (uint32_t i = 0; i < n_vectors; i++) {
		fake_store(d->m, DRV_MSIX_BAR + i * 16, 4, 0xfee00000);
		fake_store(d->m, DRV_MSIX_BAR + i * 16 + 4, 4, 0);
		fake_store(d->m, DRV_MSIX_BAR + i * 16 + 8, 4, i);
		fake_store(d->m, DRV_MSIX_BAR + i * 16 + 12, 4, 0);
	}
	drv_pci_put(d, msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
}

/* ---- machines ---- */

static inline struct fake_machine *drv_machine_new(struct drv_ram *ram)
{
	struct fake_machine *m = fake_machine_new();

	m->memory = ram->memory;
	return m;
}

/* Realize @dev in a machine of its own; it stays quiesced. */
static inline void drv_plug(struct drv *d, struct fake_machine *m, struct drv_ram *ram,
			    struct device *dev)
{
	d->m = m;
	d->ram = ram;
	d->bridge = fake_start(m, host_bridge_new(DRV_ECAM), "pci/00.0");
	d->dev = fake_realize(m, dev, "pci/00.3");
	g_assert_true(pci_bus_plug(m->env.pci, (struct pci_function *)d->dev, DRV_DEVFN, NULL));
}

static inline void drv_unplug(struct drv *d)
{
	fake_rest(d->dev);
	device_free(d->dev);
	device_free(d->bridge);
	fake_machine_free(d->m);
}

/* ---- virtio ---- */

static inline uint64_t drv_device_features(struct drv *d)
{
	uint64_t low;

	drv_put(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
	low = drv_get(d, VIRTIO_PCI_COMMON_DF, 4);
	drv_put(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	return low | drv_get(d, VIRTIO_PCI_COMMON_DF, 4) << 32;
}

/* Return: whether the device agrees. */
static inline bool drv_negotiate(struct drv *d, uint64_t features)
{
	drv_add_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	drv_add_status(d, VIRTIO_CONFIG_S_DRIVER);
	for (uint32_t half = 0; half < 2; half++) {
		drv_put(d, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
		drv_put(d, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(features >> (half * 32)));
	}
	drv_add_status(d, VIRTIO_CONFIG_S_FEATURES_OK);
	d->features = features;
	return drv_status(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static inline void drv_set_up_queue(struct drv *d, uint16_t q, uint16_t size, uint16_t vector)
{
	struct drv_queue *dq = &d->queues[q];

	*dq = (struct drv_queue){.size = size, .n_free = size};
	for (uint16_t i = 0; i < size; i++)
		dq->free[i] = size - 1 - i;
	dq->desc = drv_alloc(d->ram, size * 16);
	dq->avail = drv_alloc(d->ram, 6 + size * 2);
	dq->used = drv_alloc(d->ram, 6 + size * 8);
	memset(drv_ptr(d->ram, dq->desc), 0, d->ram->next - dq->desc);
	drv_put(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), >=, size);
	drv_put(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
	drv_put(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, vector);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), ==, vector);
	drv_put64(d, VIRTIO_PCI_COMMON_Q_DESCLO, dq->desc);
	drv_put64(d, VIRTIO_PCI_COMMON_Q_AVAILLO, dq->avail);
	drv_put64(d, VIRTIO_PCI_COMMON_Q_USEDLO, dq->used);
	drv_put(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static inline struct vring_desc *drv_desc(struct drv *d, uint16_t q)
{
	return drv_ptr(d->ram, d->queues[q].desc);
}

static inline struct vring_avail *drv_avail(struct drv *d, uint16_t q)
{
	return drv_ptr(d->ram, d->queues[q].avail);
}

static inline struct vring_used *drv_used(struct drv *d, uint16_t q)
{
	return drv_ptr(d->ram, d->queues[q].used);
}

/* Offer a buffer.  @table: put the list there and use one indirect descriptor; 0: chain it.
 * Return: its head. */
static inline uint16_t drv_add(struct drv *d, uint16_t q, const struct drv_sg *sg, uint16_t n,
			       uint64_t table)
{
	struct drv_queue *dq = &d->queues[q];
	struct vring_desc *desc = drv_desc(d, q);
	struct vring_avail *avail = drv_avail(d, q);
	uint16_t head = dq->free[dq->n_free - 1], at = head, before = head;

	for (uint16_t i = 0; table && i < n; i++)
		((struct vring_desc *)drv_ptr(d->ram, table))[i] =
			(struct vring_desc){sg[i].gpa, sg[i].len,
					    (sg[i].write ? VRING_DESC_F_WRITE : 0) |
						    (i + 1 < n ? VRING_DESC_F_NEXT : 0),
					    i + 1};
	for (uint16_t i = 0; i < (table ? 1 : n); i++) {
		g_assert_cmpuint(dq->n_free, >, 0);
		at = dq->free[--dq->n_free];
		if (i > 0) {
			desc[before].next = at;
			desc[before].flags |= VRING_DESC_F_NEXT;
		}
		dq->next_of[before] = at;
		dq->next_of[at] = UINT16_MAX;
		desc[at] = (struct vring_desc){sg[i].gpa, sg[i].len,
					       sg[i].write ? VRING_DESC_F_WRITE : 0, 0};
		if (table)
			desc[at] = (struct vring_desc){table, n * 16, VRING_DESC_F_INDIRECT, 0};
		before = at;
	}
	dq->next_of[at] = UINT16_MAX;
	g_assert_false(dq->out[head]);
	dq->out[head] = true;
	avail->ring[avail->idx % dq->size] = head;
	__atomic_store_n(&avail->idx, avail->idx + 1, __ATOMIC_RELEASE);
	return head;
}

/* As Linux does: only if the device wants to be kicked.  Return: whether it did. */
static inline bool drv_kick(struct drv *d, uint16_t q, uint16_t old_idx)
{
	struct drv_queue *dq = &d->queues[q];
	struct vring_used *used = drv_used(d, q);
	uint16_t idx = drv_avail(d, q)->idx;
	bool needed;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (d->features >> VIRTIO_RING_F_EVENT_IDX & 1)
		needed = vring_need_event(
			__atomic_load_n((uint16_t *)&used->ring[dq->size], __ATOMIC_RELAXED), idx,
			old_idx);
	else
		needed =
			!(__atomic_load_n(&used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
	if (needed)
		fake_store(d->m, d->notify + q * d->notify_multiplier, 2, q);
	return needed;
}

static inline struct fake_route *drv_route(struct drv *d, uint32_t vector)
{
	for (uint32_t i = 0; i < FAKE_ROUTES; i++)
		if (d->m->routes[i].used && d->m->routes[i].data == vector &&
		    d->m->routes[i].eventfd >= 0)
			return &d->m->routes[i];
	g_assert_not_reached();
}

/* Wait for the interrupt of @vector, with the main loop running. */
static inline bool drv_wait_irq(struct drv *d, uint32_t vector)
{
	uint64_t deadline_ns = clock_deadline_ms(DRV_WAIT_MS);
	int fd = drv_route(d, vector)->eventfd;

	while (clock_now_ns() < deadline_ns) {
		while (g_main_context_iteration(NULL, FALSE))
			;
		if (fd_poll(fd, POLLIN, MIN(deadline_ns, clock_deadline_ms(20))) > 0) {
			(void)eventfd_drain(fd);
			d->n_irqs++;
			return true;
		}
	}
	return false;
}

/* Take one used entry if there is one.  Return: whether there was. */
static inline bool drv_take_used(struct drv *d, uint16_t q, uint16_t *head, uint32_t *len)
{
	struct drv_queue *dq = &d->queues[q];
	struct vring_used *used = drv_used(d, q);
	uint16_t at;

	if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == dq->seen_used)
		return false;
	*head = used->ring[dq->seen_used % dq->size].id;
	*len = used->ring[dq->seen_used % dq->size].len;
	dq->seen_used++;
	g_assert_cmpuint(*head, <, dq->size);
	/* Given back once, not twice, and only what was offered. */
	g_assert_true(dq->out[*head]);
	dq->out[*head] = false;
	for (at = *head; at != UINT16_MAX; at = dq->next_of[at])
		dq->free[dq->n_free++] = at;
	return true;
}

/* Ask to be told about the next used entry.  Return: whether one is already there. */
static inline bool drv_want_irq(struct drv *d, uint16_t q)
{
	struct drv_queue *dq = &d->queues[q];

	__atomic_store_n(&drv_avail(d, q)->ring[dq->size], dq->seen_used, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(&drv_used(d, q)->idx, __ATOMIC_ACQUIRE) != dq->seen_used;
}

/* Wait for a used entry by interrupt; a lost interrupt fails the test. */
static inline uint16_t drv_wait_used(struct drv *d, uint16_t q, uint32_t vector, uint32_t *len)
{
	uint16_t head;

	while (!drv_take_used(d, q, &head, len))
		if (!drv_want_irq(d, q) && !drv_wait_irq(d, vector))
			g_error("no interrupt for queue %u", q);
	return head;
}

static inline void drv_driver_ok(struct drv *d)
{
	drv_add_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
	g_assert_cmpuint(drv_status(d) & VIRTIO_CONFIG_S_DRIVER_OK, !=, 0);
}

/* Write 0 and wait until it reads back. */
static inline void drv_reset(struct drv *d)
{
	uint64_t deadline_ns = clock_deadline_ms(DRV_WAIT_MS);

	drv_put(d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	while (drv_status(d)) {
		g_assert_cmpuint(clock_now_ns(), <, deadline_ns);
		g_thread_yield();
	}
}
