// Character devices: null, file, pipe, serial, parallel, ringbuf.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <linux/ppdev.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "backend/chardev/chardev_priv.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"

static int open_path(const char *path, int flags, GError **error)
{
	int fd = open(path, flags | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		error_set_errno(error, errno, "'%s'", path);
	return fd;
}

/* ---- null ---- */

static bool null_open(struct chardev *chardev, GError **error)
{
	chardev_set_peer(chardev, -1, -1);
	return true;
}

const struct chardev_kind_ops chardev_null_ops = {
	.name = "null",
	.preservable = true,
	.open = null_open,
};

/* ---- file ---- */

static int file_open_out(void *opaque, GError **error)
{
	const struct chardev_config *config = &((struct chardev *)opaque)->config;

	return file_make(config->path,
			 FILE_STREAM | FILE_UNLOCKED |
				 (config->append ? FILE_APPEND : FILE_TRUNCATE),
			 NULL, error);
}

static int file_open_in(void *opaque, GError **error)
{
	return open_path(((struct chardev *)opaque)->config.in_path, O_RDONLY | O_NONBLOCK, error);
}

static bool file_open(struct chardev *chardev, GError **error)
{
	autofd int in = -1;
	int out;

	if (chardev->config.in_path) {
		in = chardev_acquire(chardev, "input", FD_CHAR, file_open_in, error);
		if (in < 0)
			return false;
	}
	out = chardev_acquire(chardev, "file", FD_CHAR, file_open_out, error);
	if (out < 0)
		return false;
	chardev_set_peer(chardev, fd_steal(&in), out);
	return true;
}

static void file_close(struct chardev *chardev, bool owner)
{
	chardev_withdraw(chardev, "input");
	chardev_withdraw(chardev, "file");
}

const struct chardev_kind_ops chardev_file_ops = {
	.name = "file",
	.preservable = true,
	.open = file_open,
	.close = file_close,
};

/* ---- pipe ---- */

/* Read-write: a FIFO opened so has no end of file and no SIGPIPE when the other side goes. */
static int pipe_open_end(struct chardev *chardev, const char *suffix, GError **error)
{
	g_autofree char *path = g_strconcat(chardev->config.path, suffix, NULL);

	if (access(path, F_OK) < 0)
		return open_path(chardev->config.path, O_RDWR | O_NONBLOCK, error);
	return open_path(path, O_RDWR | O_NONBLOCK, error);
}

static int pipe_open_in(void *opaque, GError **error)
{
	return pipe_open_end(opaque, ".in", error);
}

static int pipe_open_out(void *opaque, GError **error)
{
	return pipe_open_end(opaque, ".out", error);
}

static bool pipe_open(struct chardev *chardev, GError **error)
{
	autofd int in = chardev_acquire(chardev, "in", FD_CHAR, pipe_open_in, error);
	int out;

	if (in < 0)
		return false;
	out = chardev_acquire(chardev, "out", FD_CHAR, pipe_open_out, error);
	if (out < 0)
		return false;
	chardev_set_peer(chardev, fd_steal(&in), out);
	return true;
}

static void pipe_close(struct chardev *chardev, bool owner)
{
	chardev_withdraw(chardev, "in");
	chardev_withdraw(chardev, "out");
}

const struct chardev_kind_ops chardev_pipe_ops = {
	.name = "pipe",
	.preservable = true,
	.open = pipe_open,
	.close = pipe_close,
};

/* ---- serial ---- */

static int serial_open_device(void *opaque, GError **error)
{
	const struct chardev_config *config = &((struct chardev *)opaque)->config;
	autofd int fd = open_path(config->path, O_RDWR | O_NONBLOCK, error);
	struct termios modes;

	/* What is no terminal (/dev/null) has no settings. */
	if (fd < 0 || tcgetattr(fd, &modes) < 0)
		return fd_steal(&fd);
	cfmakeraw(&modes);
	modes.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&modes, B115200);
	if (tcsetattr(fd, TCSANOW, &modes) < 0) {
		error_set_errno(error, errno, "cannot set the modes of '%s'", config->path);
		return -1;
	}
	return fd_steal(&fd);
}

static bool serial_open(struct chardev *chardev, GError **error)
{
	int fd = chardev_acquire(chardev, "device", FD_CHAR, serial_open_device, error);

	if (fd < 0)
		return false;
	chardev->terminal = isatty(fd);
	chardev_set_peer(chardev, fd, fd);
	return true;
}

static void device_close(struct chardev *chardev, bool owner)
{
	chardev_withdraw(chardev, "device");
}

const struct chardev_kind_ops chardev_serial_ops = {
	.name = "serial",
	.preservable = true,
	.open = serial_open,
	.close = device_close,
};

/* ---- parallel ---- */

static int parallel_open_device(void *opaque, GError **error)
{
	const struct chardev_config *config = &((struct chardev *)opaque)->config;
	autofd int fd = open_path(config->path, O_RDWR | O_NONBLOCK, error);

	if (fd < 0)
		return -1;
	if (ioctl(fd, PPCLAIM) < 0) {
		error_set_errno(error, errno, "'%s' is not a parallel port, or not free",
				config->path);
		return -1;
	}
	return fd_steal(&fd);
}

static bool parallel_open(struct chardev *chardev, GError **error)
{
	int fd = chardev_acquire(chardev, "device", FD_CHAR, parallel_open_device, error);

	if (fd < 0)
		return false;
	chardev_set_peer(chardev, fd, fd);
	return true;
}

/* The claim belongs to the open file, which the last process closes. */
const struct chardev_kind_ops chardev_parallel_ops = {
	.name = "parallel",
	.preservable = true,
	.open = parallel_open,
	.close = device_close,
};

/* ---- ringbuf ---- */

#define RINGBUF_DEFAULT_BYTES 65536

/** struct ringbuf - @n of @size bytes are in use, the oldest at @start */
struct ringbuf {
	uint8_t *data;
	size_t size, start, n;
};

static bool ringbuf_open(struct chardev *chardev, GError **error)
{
	uint64_t size = chardev->config.size_bytes ?: RINGBUF_DEFAULT_BYTES;
	struct ringbuf *ring;

	if (size & (size - 1))
		return error_set_generic(error, "size must be a power of two");
	ring = g_new0(struct ringbuf, 1);
	ring->data = g_malloc(size);
	ring->size = size;
	chardev->priv = ring;
	chardev_set_peer(chardev, -1, -1);
	return true;
}

static void ringbuf_close(struct chardev *chardev, bool owner)
{
	struct ringbuf *ring = chardev->priv;

	if (!ring)
		return;
	g_free(ring->data);
	g_free(ring);
	chardev->priv = NULL;
}

static ssize_t ringbuf_write(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	struct ringbuf *ring = chardev->priv;

	for (size_t i = len > ring->size ? len - ring->size : 0; i < len; i++) {
		ring->data[(ring->start + ring->n) & (ring->size - 1)] = buf[i];
		if (ring->n < ring->size)
			ring->n++;
		else
			ring->start++;
	}
	return len;
}

const struct chardev_kind_ops chardev_ringbuf_ops = {
	.name = "ringbuf",
	.open = ringbuf_open,
	.close = ringbuf_close,
	.write = ringbuf_write,
};

static bool ringbuf_check(struct chardev *chardev, GError **error)
{
	if (chardev->ops == &chardev_ringbuf_ops && chardev->priv)
		return true;
	return error_set_generic(error, "%s is not a ringbuf device", chardev->config.id);
}

GByteArray *chardev_ringbuf_read(struct chardev *chardev, size_t max, GError **error)
{
	struct ringbuf *ring = chardev->priv;
	GByteArray *out;

	if (!ringbuf_check(chardev, error))
		return NULL;
	out = g_byte_array_new();
	g_mutex_lock(&chardev->lock);
	while (ring->n > 0 && out->len < max) {
		g_byte_array_append(out, &ring->data[ring->start++ & (ring->size - 1)], 1);
		ring->n--;
	}
	g_mutex_unlock(&chardev->lock);
	return out;
}

bool chardev_ringbuf_write(struct chardev *chardev, const uint8_t *buf, size_t len, GError **error)
{
	if (!ringbuf_check(chardev, error))
		return false;
	g_mutex_lock(&chardev->lock);
	ringbuf_write(chardev, buf, len);
	g_mutex_unlock(&chardev->lock);
	return true;
}
