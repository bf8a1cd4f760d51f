// A virtio disk on a temporary image, in a test machine, with the test's driver on it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "device/virtio/virtio_blk.h"
#include "virtio_util.h"

#define IMAGE_BYTES (2U << 20)
#define QUEUE_SIZE  64
#define F(bit)	    (UINT64_C(1) << (bit))
#define NO_STATUS   0xee

/**
 * struct disk - A disk and its driver
 * @path, @fd:	The image, and a second look at it
 * @fds, @node:	Of the machine the device is in now
 * @props:	-device's properties as JSON
 * @n_queues, @indirect: how the driver uses it
 * @header, @table, @status: one of each per descriptor of queue 0
 * @data:	QUEUE_SIZE times 4 KiB
 */
struct disk {
	struct drv d;
	struct drv_ram *ram;
	char *path;
	int fd;
	struct fd_source *fds;
	struct block_node *node;
	enum block_aio aio;
	bool read_only;
	const char *props;
	uint32_t n_queues;
	bool indirect;
	uint64_t header, table, status, data;
};

static inline struct block_node *disk_find(void *opaque, const char *id)
{
	struct disk *disk = opaque;

	return strcmp(id, "d0") == 0 ? disk->node : NULL;
}

/* A machine with the disk in it, realized and quiesced; @inherited as at a takeover. */
static inline void disk_plug(struct disk *disk, struct fdstore *inherited)
{
	const struct block_config config = {.node_name = (char *)"d0",
					    .filename = disk->path,
					    .aio = disk->aio,
					    .read_only = disk->read_only,
					    .discard = true};
	json_t *props = json_loads(disk->props, 0, NULL);
	struct fake_machine *m = drv_machine_new(disk->ram);
	GError *error = NULL;

	disk->fds = g_new0(struct fd_source, 1);
	disk->fds->inherited = inherited;
	disk->node = block_node_new(&config, disk->fds, &error);
	g_assert_no_error(error);
	m->env.opaque = disk;
	m->env.find_block = disk_find;
	drv_plug(&disk->d, m, disk->ram, device_new(&virtio_blk_ops, "vda", props, &error));
	json_decref(props);
}

static inline void disk_unplug(struct drv *d, struct block_node *node, struct fd_source *fds)
{
	drv_unplug(d);
	block_node_free(node);
	fd_source_clear(fds);
	g_free(fds);
}

static inline void disk_open(struct disk *disk)
{
	disk->path = g_strdup("/var/tmp/molt-disk-XXXXXX");
	disk->fd = mkostemp(disk->path, O_CLOEXEC);
	g_assert_cmpint(disk->fd, >=, 0);
	g_assert_cmpint(ftruncate(disk->fd, IMAGE_BYTES), ==, 0);
	if (!disk->props)
		disk->props =
			"{\"drive\": \"d0\", \"serial\": \"SN-0123456789\", \"num-queues\": 2}";
	disk->ram = drv_ram_new();
	disk_plug(disk, NULL);
	disk->d.dev->ops->resume(disk->d.dev);
}

static inline void disk_close(struct disk *disk)
{
	disk_unplug(&disk->d, disk->node, disk->fds);
	drv_ram_free(disk->ram);
	g_unlink(disk->path);
	g_free(disk->path);
	fd_close(&disk->fd);
}

/* From power-on, or from a reset, to DRIVER_OK. */
static inline void disk_start(struct disk *disk, uint64_t features)
{
	struct drv *d = &disk->d;

	disk->ram->next = 0x1000;
	disk->header = drv_alloc(disk->ram, QUEUE_SIZE * 16);
	disk->status = drv_alloc(disk->ram, QUEUE_SIZE);
	disk->table = drv_alloc(disk->ram, QUEUE_SIZE * 16 * 8);
	disk->data = drv_alloc(disk->ram, QUEUE_SIZE * 4096);
	disk->n_queues = 2;
	drv_pci_set_up(d);
	g_assert_true(drv_negotiate(d, features | F(VIRTIO_F_VERSION_1)));
	drv_put(d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
	for (uint16_t q = 0; q < disk->n_queues; q++)
		drv_set_up_queue(d, q, QUEUE_SIZE, q + 1);
	drv_driver_ok(d);
}

/* Offer request number @i (0 to QUEUE_SIZE-1) on queue @q, without a kick.  Its data is @len bytes
 * at @data, in two parts if it is long enough. */
static inline uint16_t disk_offer(struct disk *disk, uint16_t q, uint32_t i, uint32_t type,
				  uint64_t sector, uint64_t data, uint32_t len, bool data_in)
{
	uint64_t header = disk->header + i * 16;
	uint32_t half = len >= 1024 ? 512 : len;
	struct drv_sg sg[4] = {{header, 16, false}};
	uint16_t n = 1;

	*(struct virtio_blk_outhdr *)drv_ptr(disk->ram, header) =
		(struct virtio_blk_outhdr){.type = type, .sector = sector};
	*(uint8_t *)drv_ptr(disk->ram, disk->status + i) = NO_STATUS;
	if (len)
		sg[n++] = (struct drv_sg){data, half, data_in};
	if (len > half)
		sg[n++] = (struct drv_sg){data + half, len - half, data_in};
	sg[n++] = (struct drv_sg){disk->status + i, 1, true};
	return drv_add(&disk->d, q, sg, n, disk->indirect ? disk->table + i * 16 * 8 : 0);
}

static inline uint8_t disk_status_of(struct disk *disk, uint32_t i)
{
	return *(uint8_t *)drv_ptr(disk->ram, disk->status + i);
}

/* One request with its data at @data, waited for.  Return: its status. */
static inline uint8_t disk_do(struct disk *disk, uint32_t type, uint64_t sector, uint64_t data,
			      uint32_t len, bool data_in)
{
	uint16_t old = drv_avail(&disk->d, 0)->idx;
	uint32_t used_len;

	disk_offer(disk, 0, 0, type, sector, data, len, data_in);
	drv_kick(&disk->d, 0, old);
	drv_wait_used(&disk->d, 0, 1, &used_len);
	g_assert_cmpuint(used_len, ==, 1 + (data_in ? len : 0));
	return disk_status_of(disk, 0);
}

static inline void disk_fill(struct disk *disk, uint64_t gpa, uint32_t len, uint32_t seed)
{
	uint8_t *p = drv_ptr(disk->ram, gpa);

	for (uint32_t i = 0; i < len; i++)
		p[i] = (seed = seed * 1664525 + 1013904223) >> 24;
}

/* Whether the image holds at @offset what guest memory holds at @gpa. */
static inline bool disk_holds(struct disk *disk, uint64_t offset, uint64_t gpa, uint32_t len)
{
	g_autofree uint8_t *seen = g_malloc(len);

	g_assert_cmpint(pread(disk->fd, seen, len, offset), ==, len);
	return memcmp(seen, drv_ptr(disk->ram, gpa), len) == 0;
}
