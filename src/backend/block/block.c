// Disk images: open, measure, resize, who uses them, what their errors lead to.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block/engine.h"
#include "backend/block/format.h"
#include "backend/block/lock.h"
#include "backend/block/resize.h"
#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

/* How long the main loop stands still for a store that is slow. */
#define BLOCK_RESIZE_MS 500

/**
 * struct block_node - One open image
 * @fds, @fd_name: where the descriptor is registered
 * @user_name:	Who attached, NULL if nobody; @user has the rest
 * @end_bytes:	Where the image ended when it was last measured
 * @sector_bytes: see block.h
 * @fresh:	Opened here, not inherited
 * @lock_held, @lock_shared: what was locked here last
 * @io_status:	enum block_io_status
 * @resize:	One that its storage has not done so far; NULL: none
 */
struct block_node {
	char *name;
	char *drive_id;
	char *filename;
	char *user_name;
	struct block_user user;
	struct fd_source *fds;
	char *fd_name;
	int fd;
	uint64_t end_bytes;
	uint32_t sector_bytes;
	bool read_only;
	bool writethrough;
	bool fresh;
	enum on_off_auto locking;
	unsigned int lock_held, lock_shared;
	enum block_on_error werror, rerror;
	int io_status;
	struct block_traits traits;
	struct block_resize *resize;
};

/** struct block_opening - What block_open() is given; @opened is set when it has opened something */
struct block_opening {
	const struct block_config *config;
	bool opened;
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

/* Return: -1 with errno set if its size cannot be found out. */
static int block_end(int fd, uint64_t *end_bytes)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	*end_bytes = st.st_size;
	return S_ISBLK(st.st_mode) ? ioctl(fd, BLKGETSIZE64, end_bytes) : 0;
}

/* The same without asking the store, and what it is: of an image that a guest may be waiting for. */
static int block_look(int fd, struct statx *st, uint64_t *end_bytes)
{
	if (!fd_look(fd, STATX_TYPE | STATX_SIZE, st))
		return -1;
	*end_bytes = st->stx_size;
	return S_ISBLK(st->stx_mode) ? ioctl(fd, BLKGETSIZE64, end_bytes) : 0;
}

/* What is asked of an image before a guest has it. */
static bool block_check_content(const struct block_config *config, int fd, GError **error)
{
	const char *format;
	uint64_t end_bytes;

	if (block_end(fd, &end_bytes) < 0)
		return error_set_errno(error, errno, "cannot measure '%s'", config->filename);
	if (end_bytes == 0)
		return error_set_generic(error, "'%s' is empty; give it a size with truncate -s",
					 config->filename);
	format = config->guess_raw ? block_format_guess(fd, end_bytes) : NULL;
	if (format)
		return error_set_generic(
			error,
			"'%s' looks like a %s image, and only raw ones are read here; convert it "
			"with qemu-img convert -O raw, or give format=raw if the guest is to see "
			"its bytes as they are",
			config->filename, format);
	return true;
}

static void block_explain_open(const struct block_config *config, int err, GError **error)
{
	if (err == EINVAL && config->cache_direct)
		error_set_generic(
			error,
			"cannot open '%s': its file system does not support O_DIRECT; use "
			"cache.direct=off",
			config->filename);
	else if ((err == EACCES || err == EROFS || err == EPERM) && !config->read_only)
		error_set_generic(error,
				  "cannot open '%s' for writing: %s; use read-only=on if the "
				  "guest needs no more",
				  config->filename, strerror(err));
	else
		error_set_errno(error, err, "cannot open '%s'", config->filename);
}

static int block_open(void *arg, GError **error)
{
	struct block_opening *opening = arg;
	const struct block_config *config = opening->config;
	int flags = O_CLOEXEC | (config->read_only ? O_RDONLY : O_RDWR);
	struct stat st;
	autofd int fd = -1;

	if (config->cache_direct)
		flags |= O_DIRECT;
	/* Opening a FIFO would wait for its other end. */
	if (stat(config->filename, &st) == 0 && !block_check_type(config, st.st_mode, error))
		return -1;
	fd = open(config->filename, flags);
	if (fd < 0) {
		block_explain_open(config, errno, error);
		return -1;
	}
	if (!block_check_content(config, fd, error))
		return -1;
	opening->opened = true;
	return fd_steal(&fd);
}

static void block_measure_direct(struct block_node *node)
{
	struct statx stx = {0};

	if (fd_look(node->fd, STATX_DIOALIGN, &stx) && (stx.stx_mask & STATX_DIOALIGN) &&
	    stx.stx_dio_offset_align) {
		node->traits.align_bytes = MAX(stx.stx_dio_offset_align, BLOCK_SECTOR_BYTES);
		node->traits.memory_align_bytes = MAX(stx.stx_dio_mem_align, 1);
		return;
	}
	/* An old kernel does not tell: what every disk takes. */
	node->traits.align_bytes = node->sector_bytes;
	node->traits.memory_align_bytes = 4096;
}

/* A guest may be waiting for this image: whatever its size is, it is taken. */
static bool block_measure(struct block_node *node, GError **error)
{
	int sector = BLOCK_SECTOR_BYTES;
	struct statx st;

	/* One that was just opened has been measured: block_check_content(). */
	if (block_look(node->fd, &st, &node->end_bytes) < 0)
		return error_set_errno(error, errno, "cannot measure '%s'", node->filename);
	node->traits.is_device = S_ISBLK(st.stx_mode);
	if (node->traits.is_device && ioctl(node->fd, BLKSSZGET, &sector) < 0)
		return error_set_errno(error, errno, "cannot measure '%s'", node->filename);
	node->sector_bytes = MAX(sector, BLOCK_SECTOR_BYTES);
	node->traits.allocate_align_bytes = node->traits.is_device ? node->sector_bytes : 1;
	node->traits.align_bytes = BLOCK_SECTOR_BYTES;
	node->traits.memory_align_bytes = 1;
	node->traits.direct = (fcntl(node->fd, F_GETFL) & O_DIRECT) != 0;
	if (node->traits.direct)
		block_measure_direct(node);
	return true;
}

static bool block_check_fd(const struct block_config *config, int fd, GError **error)
{
	int flags = fcntl(fd, F_GETFL);
	struct statx st;

	if (flags < 0 || !fd_look(fd, STATX_TYPE, &st))
		return error_set_errno(error, errno, "cannot examine '%s'", config->filename);
	if ((flags & O_ACCMODE) != (config->read_only ? O_RDONLY : O_RDWR))
		return error_set_generic(error, "'%s' is open %s, but the configuration says %s",
					 config->filename,
					 config->read_only ? "for writing" : "read-only",
					 config->read_only ? "read-only=on" : "read-only=off");
	return block_check_type(config, st.stx_mode, error);
}

struct block_node *block_node_new(const struct block_config *config, struct fd_source *fds,
				  GError **error)
{
	struct block_node *node = g_new0(struct block_node, 1);
	struct block_opening opening = {.config = config};

	node->name = g_strdup(config->node_name);
	node->drive_id = g_strdup(config->drive_id);
	node->filename = g_strdup(config->filename);
	node->read_only = config->read_only;
	node->writethrough = config->writethrough;
	node->locking = config->locking;
	node->lock_shared = ~0U;
	node->werror = config->werror;
	node->rerror = config->rerror;
	node->traits.no_flush = config->cache_no_flush;
	node->traits.discard = config->discard;
	node->traits.threads = config->aio == BLOCK_AIO_THREADS;
	node->fds = fds;
	node->fd_name = g_strdup_printf("block/%s", config->node_name);
	node->fd = fd_acquire(fds, node->fd_name, FD_IMAGE, block_open, &opening, error);
	node->fresh = opening.opened;
	if (node->fd < 0 || !block_check_fd(config, node->fd, error) ||
	    !block_measure(node, error)) {
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
	block_resize_forget(node->resize, &node->fd);
	close_soon(&node->fd);
	g_free(node->name);
	g_free(node->drive_id);
	g_free(node->filename);
	g_free(node->user_name);
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

uint64_t block_node_end_bytes(const struct block_node *node)
{
	return __atomic_load_n(&node->end_bytes, __ATOMIC_RELAXED);
}

uint64_t block_node_size_bytes(const struct block_node *node)
{
	uint64_t end_bytes = block_node_end_bytes(node);

	return (end_bytes + BLOCK_SECTOR_BYTES - 1) & ~(uint64_t)(BLOCK_SECTOR_BYTES - 1);
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

int block_node_fd(const struct block_node *node)
{
	return node->fd;
}

const struct block_traits *block_node_traits(const struct block_node *node)
{
	return &node->traits;
}

/* ---- users ---- */

static bool block_lock_for(struct block_node *node, bool share_rw, GError **error)
{
	unsigned int held = BLOCK_PERM_READ | (node->read_only ? 0 : BLOCK_PERM_WRITE);
	unsigned int shared = ~0U & ~(share_rw ? 0U : (unsigned int)BLOCK_PERM_WRITE);
	int err;

	if (node->locking == ON_OFF_OFF)
		return true;
	/* Whoever has the device over there locked for it, and the locks came with the descriptor.  A
	 * server would have to be asked, while the guest stands still. */
	if (!node->fresh && node->fds && node->fds->complete) {
		node->lock_held = held;
		node->lock_shared = shared;
		return true;
	}
	err = block_lock(node->fd, held, shared);
	if (err && node->fresh)
		(void)block_lock(node->fd, node->lock_held, node->lock_shared);
	if (err == EAGAIN)
		return error_set_generic(
			error,
			"cannot lock '%s' for %s: another process holds a lock on it; stop that "
			"process, or use share-rw=on for both if the guests are made for sharing, "
			"or locking=off",
			node->filename, node->read_only ? "reading" : "writing");
	if (err && node->locking == ON_OFF_ON)
		return error_set_errno(error, err, "cannot lock '%s' (locking=on)", node->filename);
	node->lock_held = held;
	node->lock_shared = shared;
	return true;
}

bool block_node_attach(struct block_node *node, const struct block_user *user, GError **error)
{
	if (node->user_name)
		return error_set_generic(error, "drive '%s' is already in use by '%s'", node->name,
					 node->user_name);
	if (!block_lock_for(node, user->share_rw, error))
		return false;
	node->user_name = g_strdup(user->name);
	node->user = *user;
	node->user.name = node->user_name;
	return true;
}

const char *block_node_user(const struct block_node *node)
{
	return node->user_name;
}

void block_node_detach(struct block_node *node)
{
	g_clear_pointer(&node->user_name, g_free);
	node->user = (struct block_user){0};
	node->io_status = BLOCK_IO_OK;
}

/* ---- size ---- */

static void take_size(struct block_node *node, uint64_t end_bytes)
{
	if (node->user.resized)
		node->user.resized(node->user.opaque, end_bytes);
	else
		block_node_set_end(node, end_bytes);
}

static void resized_late(void *opaque, uint64_t end_bytes, const GError *error)
{
	struct block_node *node = opaque;

	node->resize = NULL;
	if (error) {
		log_warn("block_resize, which was given up before: %s", error->message);
		return;
	}
	log_info("block_resize, which was given up before: '%s' has %" PRIu64 " bytes now",
		 node->filename, end_bytes);
	take_size(node, end_bytes);
}

bool block_node_check_resized(const struct block_node *node, GError **error)
{
	return !node->resize || error_set_generic(error,
						  "'%s' is being resized: its storage has not "
						  "answered so far",
						  node->filename);
}

bool block_node_resize(struct block_node *node, uint64_t size_bytes, GError **error)
{
	const struct block_resize_what what = {
		.fd = node->fd,
		.filename = node->filename,
		.size_bytes = size_bytes,
		.is_device = node->traits.is_device,
		.locks = node->locking != ON_OFF_OFF && node->lock_held,
		.held = node->lock_held,
		.shared = node->lock_shared,
	};
	struct block_resize *resize;
	uint64_t end_bytes;

	if (size_bytes > INT64_MAX || (size_bytes == 0 && !node->traits.is_device))
		return error_set_generic(error, "a size of %" PRIu64 " bytes is impossible",
					 size_bytes);
	if (node->read_only)
		return error_set_generic(error, "'%s' is read-only", node->filename);
	if (!block_node_check_resized(node, error))
		return false;
	resize = block_resize_start(&what, error);
	if (!resize)
		return false;
	if (!block_resize_wait(resize, BLOCK_RESIZE_MS, resized_late, node)) {
		node->resize = resize;
		return error_set(error, MOLT_ERROR_TIMEOUT,
				 "the storage of '%s' has not answered within %u ms; it is asked "
				 "still, and the guest is told when it has done it",
				 node->filename, BLOCK_RESIZE_MS);
	}
	if (!block_resize_take(resize, &end_bytes, error))
		return false;
	take_size(node, end_bytes);
	return true;
}

void block_node_set_end(struct block_node *node, uint64_t end_bytes)
{
	__atomic_store_n(&node->end_bytes, end_bytes, __ATOMIC_RELAXED);
}

/* ---- errors ---- */

const char *block_action_name(enum block_action action)
{
	switch (action) {
	case BLOCK_ACTION_REPORT:
		return "report";
	case BLOCK_ACTION_IGNORE:
		return "ignore";
	case BLOCK_ACTION_STOP:
		return "stop";
	}
	return "report";
}

static enum block_on_error block_on_error(const struct block_node *node, bool read)
{
	enum block_on_error user = read ? node->user.rerror : node->user.werror;
	enum block_on_error drive = read ? node->rerror : node->werror;

	if (user != BLOCK_ON_ERROR_AUTO)
		return user;
	if (drive != BLOCK_ON_ERROR_AUTO)
		return drive;
	return read ? BLOCK_ON_ERROR_REPORT : BLOCK_ON_ERROR_ENOSPC;
}

enum block_action block_node_error_action(const struct block_node *node, bool read, int err)
{
	switch (block_on_error(node, read)) {
	case BLOCK_ON_ERROR_IGNORE:
		return BLOCK_ACTION_IGNORE;
	case BLOCK_ON_ERROR_STOP:
		return BLOCK_ACTION_STOP;
	case BLOCK_ON_ERROR_ENOSPC:
		return err == ENOSPC ? BLOCK_ACTION_STOP : BLOCK_ACTION_REPORT;
	default:
		return BLOCK_ACTION_REPORT;
	}
}

bool block_node_may_stop(const struct block_node *node)
{
	enum block_on_error write = block_on_error(node, false), read = block_on_error(node, true);

	return write == BLOCK_ON_ERROR_STOP || write == BLOCK_ON_ERROR_ENOSPC ||
	       read == BLOCK_ON_ERROR_STOP;
}

void block_node_set_io_status(struct block_node *node, enum block_io_status status)
{
	__atomic_store_n(&node->io_status, status, __ATOMIC_RELAXED);
}

static const char *block_io_status_name(const struct block_node *node)
{
	switch (__atomic_load_n(&node->io_status, __ATOMIC_RELAXED)) {
	case BLOCK_IO_FAILED:
		return "failed";
	case BLOCK_IO_NOSPACE:
		return "nospace";
	default:
		return "ok";
	}
}

/* ---- query-block ---- */

static json_t *block_image_json(const struct block_node *node)
{
	g_autofree char *shown = g_utf8_make_valid(node->filename, -1);
	json_t *image = json_pack("{s:s, s:s, s:I, s:b}", "filename", shown, "format", "raw",
				  "virtual-size", (json_int_t)block_node_size_bytes(node),
				  "dirty-flag", 0);
	struct statx st;

	/* As far as it is known here: a monitor waits for no store. */
	if (fd_look(node->fd, STATX_BLOCKS, &st))
		json_object_set_new(image, "actual-size",
				    json_integer(st.stx_blocks * INT64_C(512)));
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
	json_t *info = json_pack(
		"{s:s, s:s, s:b, s:b, s:o}", "device", node->drive_id ? node->drive_id : "", "type",
		"unknown", "removable", 0, "locked", 0, "inserted", block_inserted_json(node));

	if (node->user_name && block_node_may_stop(node))
		json_object_set_new(info, "io-status", json_string(block_io_status_name(node)));
	if (node->user_name)
		json_object_set_new(info, "qdev", json_string(node->user_name));
	return info;
}
