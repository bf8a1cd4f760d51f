// Disk images: open, lock, measure, describe.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block/engine.h"
#include "base/error.h"
#include "base/fd.h"

/* QEMU locks a byte per permission it holds (100 + n) and per one it does not share (200 + n). */
#define LOCK_BYTE_WRITES       101
#define LOCK_BYTE_NO_WRITES_BY 201

/**
 * struct block_node - One open image
 * @fds, @fd_name: where the descriptor is registered
 * @user:	Who attached, NULL if nobody
 * @sector_bytes, @align_bytes: see block.h
 */
struct block_node {
	char *name;
	char *drive_id;
	char *filename;
	char *user;
	struct fd_source *fds;
	char *fd_name;
	int fd;
	uint64_t size_bytes;
	uint32_t sector_bytes;
	uint32_t align_bytes;
	bool read_only;
	bool writethrough;
	struct block_traits traits;
};

static bool block_check_type(const struct block_config *config, mode_t mode, GError **error)
{
	if (!S_ISREG(mode) && !S_ISBLK(mode))
		return error_set_generic(error, "'%s' is neither a regular file nor a block device",
					 config->filename);
	if (config->host_device && !S_ISBLK(mode))
		return error_set_generic(error,
					 "'%s' is not a block device; use the driver 'file' for it",
					 config->filename);
	/* -drive knows no driver for the protocol and takes both. */
	if (!config->host_device && !config->drive_id && !S_ISREG(mode))
		return error_set_generic(
			error, "'%s' is not a regular file; use the driver 'host_device' for it",
			config->filename);
	return true;
}

static int block_open(void *arg, GError **error)
{
	const struct block_config *config = arg;
	int flags = O_CLOEXEC | (config->read_only ? O_RDONLY : O_RDWR);
	struct stat st;
	int fd;

	if (config->cache_direct)
		flags |= O_DIRECT;
	/* Opening a FIFO would wait for its other end. */
	if (stat(config->filename, &st) == 0 && !block_check_type(config, st.st_mode, error))
		return -1;
	fd = open(config->filename, flags);
	if (fd >= 0)
		return fd;
	if (errno == EINVAL && config->cache_direct)
		error_set_generic(
			error,
			"cannot open '%s': its file system does not support O_DIRECT; use "
			"cache.direct=off",
			config->filename);
	else if ((errno == EACCES || errno == EROFS || errno == EPERM) && !config->read_only)
		error_set_generic(error,
				  "cannot open '%s' for writing: %s; use read-only=on if the "
				  "guest needs no more",
				  config->filename, strerror(errno));
	else
		error_set_errno(error, errno, "cannot open '%s'", config->filename);
	return -1;
}

/* Return: 0, or the errno: EAGAIN if another open file description is in the way. */
static int block_lock_range(int fd, short type, off_t start, off_t len)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EACCES ? EAGAIN : errno;
}

/* Return: 0, or the errno: EAGAIN if somebody writes to the image. */
static int block_lock_shared(int fd)
{
	struct flock writer = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE_WRITES, .l_len = 1};
	int err = block_lock_range(fd, F_RDLCK, LOCK_BYTE_NO_WRITES_BY, 1);

	if (err)
		return err;
	if (fcntl(fd, F_OFD_GETLK, &writer) < 0)
		return errno;
	return writer.l_type == F_UNLCK ? 0 : EAGAIN;
}

/*
 * An inherited descriptor carries its lock; asking again on the same open file description changes
 * nothing and leaves no gap.
 */
static bool block_lock(const struct block_config *config, int fd, GError **error)
{
	int err;

	if (config->locking == ON_OFF_OFF)
		return true;
	err = config->read_only ? block_lock_shared(fd) : block_lock_range(fd, F_WRLCK, 0, 0);
	if (err == 0)
		return true;
	if (err == EAGAIN)
		return error_set_generic(
			error,
			"cannot lock '%s' for %s: another process holds a lock on "
			"it; stop that process, or use locking=off if the image is "
			"shared on purpose",
			config->filename, config->read_only ? "reading" : "writing");
	if (config->locking == ON_OFF_AUTO)
		return true;
	return error_set_errno(error, err, "cannot lock '%s' (locking=on)", config->filename);
}

static void block_measure_direct(struct block_node *node)
{
	struct statx stx = {0};

	if (statx(node->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN) && stx.stx_dio_offset_align) {
		node->align_bytes = MAX(stx.stx_dio_offset_align, BLOCK_SECTOR_BYTES);
		node->traits.memory_align_bytes = MAX(stx.stx_dio_mem_align, 1);
		return;
	}
	/* An old kernel does not tell: what every disk takes. */
	node->align_bytes = node->sector_bytes;
	node->traits.memory_align_bytes = 4096;
}

static bool block_measure(struct block_node *node, GError **error)
{
	struct stat st;
	int sector = BLOCK_SECTOR_BYTES;

	if (fstat(node->fd, &st) < 0)
		return error_set_errno(error, errno, "cannot examine '%s'", node->filename);
	node->size_bytes = st.st_size;
	node->traits.is_device = S_ISBLK(st.st_mode);
	if (node->traits.is_device && (ioctl(node->fd, BLKGETSIZE64, &node->size_bytes) < 0 ||
				       ioctl(node->fd, BLKSSZGET, &sector) < 0))
		return error_set_errno(error, errno, "cannot measure '%s'", node->filename);
	if (node->size_bytes == 0)
		return error_set_generic(error, "'%s' is empty; give it a size with truncate -s",
					 node->filename);
	if (node->size_bytes % BLOCK_SECTOR_BYTES)
		return error_set_generic(
			error,
			"the size of '%s', %" G_GUINT64_FORMAT " bytes, is not a multiple of 512: "
			"it is cut short, or not a raw image (truncate -s %%512 extends it)",
			node->filename, node->size_bytes);
	node->sector_bytes = MAX(sector, BLOCK_SECTOR_BYTES);
	node->align_bytes = BLOCK_SECTOR_BYTES;
	node->traits.memory_align_bytes = 1;
	node->traits.direct = (fcntl(node->fd, F_GETFL) & O_DIRECT) != 0;
	if (node->traits.direct)
		block_measure_direct(node);
	return true;
}

static bool block_check_fd(const struct block_config *config, int fd, GError **error)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags < 0 || fstat(fd, &st) < 0)
		return error_set_errno(error, errno, "cannot examine '%s'", config->filename);
	if ((flags & O_ACCMODE) != (config->read_only ? O_RDONLY : O_RDWR))
		return error_set_generic(error, "'%s' is open %s, but the configuration says %s",
					 config->filename,
					 config->read_only ? "for writing" : "read-only",
					 config->read_only ? "read-only=on" : "read-only=off");
	return block_check_type(config, st.st_mode, error);
}

struct block_node *block_node_new(const struct block_config *config, struct fd_source *fds,
				  GError **error)
{
	struct block_node *node = g_new0(struct block_node, 1);

	node->name = g_strdup(config->node_name);
	node->drive_id = g_strdup(config->drive_id);
	node->filename = g_strdup(config->filename);
	node->read_only = config->read_only;
	node->writethrough = config->writethrough;
	node->traits.no_flush = config->cache_no_flush;
	node->traits.discard = config->discard;
	node->traits.threads = config->aio == BLOCK_AIO_THREADS;
	node->fds = fds;
	node->fd_name = g_strdup_printf("block/%s", config->node_name);
	node->fd = fd_acquire(fds, node->fd_name, FD_IMAGE, block_open, (void *)config, error);
	if (node->fd < 0 || !block_check_fd(config, node->fd, error) ||
	    !block_lock(config, node->fd, error) || !block_measure(node, error)) {
		block_node_free(node);
		return NULL;
	}
	return node;
}

void block_node_free(struct block_node *node)
{
	if (!node)
		return;
	if (node->fd >= 0)
		fd_withdraw(node->fds, node->fd_name);
	fd_close(&node->fd);
	g_free(node->name);
	g_free(node->drive_id);
	g_free(node->filename);
	g_free(node->user);
	g_free(node->fd_name);
	g_free(node);
}

const char *block_node_name(const struct block_node *node)
{
	return node->name;
}

const char *block_node_filename(const struct block_node *node)
{
	return node->filename;
}

const char *block_node_drive_id(const struct block_node *node)
{
	return node->drive_id;
}

uint64_t block_node_size_bytes(const struct block_node *node)
{
	return node->size_bytes;
}

bool block_node_read_only(const struct block_node *node)
{
	return node->read_only;
}

bool block_node_writethrough(const struct block_node *node)
{
	return node->writethrough;
}

uint32_t block_node_sector_bytes(const struct block_node *node)
{
	return node->sector_bytes;
}

uint32_t block_node_align_bytes(const struct block_node *node)
{
	return node->align_bytes;
}

int block_node_fd(const struct block_node *node)
{
	return node->fd;
}

const struct block_traits *block_node_traits(const struct block_node *node)
{
	return &node->traits;
}

bool block_node_attach(struct block_node *node, const char *user, GError **error)
{
	if (node->user)
		return error_set_generic(error, "drive '%s' is already in use by '%s'", node->name,
					 node->user);
	node->user = g_strdup(user);
	return true;
}

void block_node_detach(struct block_node *node)
{
	g_clear_pointer(&node->user, g_free);
}

static json_t *block_image_json(const struct block_node *node)
{
	g_autofree char *shown = g_utf8_make_valid(node->filename, -1);
	json_t *image = json_pack("{s:s, s:s, s:I, s:b}", "filename", shown, "format", "raw",
				  "virtual-size", (json_int_t)node->size_bytes, "dirty-flag", 0);
	struct stat st;

	if (fstat(node->fd, &st) == 0)
		json_object_set_new(image, "actual-size",
				    json_integer(st.st_blocks * INT64_C(512)));
	return image;
}

static json_t *block_inserted_json(const struct block_node *node)
{
	static const char *const limits[] = {"bps",  "bps_rd",	"bps_wr",
					     "iops", "iops_rd", "iops_wr"};
	g_autofree char *shown = g_utf8_make_valid(node->filename, -1);
	json_t *inserted = json_pack(
		"{s:s, s:s, s:s, s:b, s:b, s:i, s:s, s:i, s:{s:b, s:b, s:b}, s:o}", "file", shown,
		"node-name", node->name, "drv", "raw", "ro", node->read_only, "encrypted", 0,
		"backing_file_depth", 0, "detect_zeroes", "off", "write_threshold", 0, "cache",
		"writeback", !node->writethrough, "direct", node->traits.direct, "no-flush",
		node->traits.no_flush, "image", block_image_json(node));

	for (size_t i = 0; i < G_N_ELEMENTS(limits); i++)
		json_object_set_new(inserted, limits[i], json_integer(0));
	return inserted;
}

json_t *block_node_query_json(const struct block_node *node)
{
	json_t *info = json_pack("{s:s, s:s, s:b, s:b, s:s, s:o}", "device",
				 node->drive_id ? node->drive_id : "", "type", "unknown",
				 "removable", 0, "locked", 0, "io-status", "ok", "inserted",
				 block_inserted_json(node));

	if (node->user)
		json_object_set_new(info, "qdev", json_string(node->user));
	return info;
}
