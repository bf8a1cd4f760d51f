// The virtio entropy device (virtio 1.2 section 5.4).
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtio_rng.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "device/virtio/virtio.h"

/**
 * DOC: Theory of operation
 *
 * One queue, handled in the main thread.  A buffer is filled from the kernel's generator, or from
 * the file of an rng-random object, and given back with what there was: at most 4 KiB.  With
 * max-bytes= at most that many bytes are given per period; further buffers stay in the ring until
 * the next one.  So nothing is ever in flight.
 *
 * Unhappy paths.  A file that has nothing now is watched until it has.  A file that ended or fails
 * gives no more entropy; the guest's buffers wait, as they would for a slow source.
 */

#define CLASS_OTHER	   0x00ff00
#define QUEUE_SIZE	   8
#define IOV_MAX_PER_BUFFER 64
#define GIVE_BYTES_MAX	   4096
#define GIVE_BUFFERS_MAX   64 /* per turn of the main loop */

/** struct virtio_rng_state - What survives */
struct virtio_rng_state {
	struct virtio_pci_state common;
};

static const struct state_field virtio_rng_fields[] = {
	FIELD_STRUCT(struct virtio_rng_state, common, 1, &virtio_pci_desc),
};

static const struct state_desc virtio_rng_desc = {
	.name = "virtio-rng",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct virtio_rng_state, virtio_rng_fields),
};

/** struct virtio_rng_props - -device virtio-rng-pci,... */
struct virtio_rng_props {
	struct virtio_props common;
	char *rng;
	uint64_t max_bytes;
	uint32_t period_ms;
};

/**
 * struct virtio_rng - The device
 * @fd:		The rng object's file, -1: the kernel's generator
 * @fd_name:	Its name in the registry
 * @fd_watch:	While the file had nothing
 * @timer:	While the period's bytes are used up
 * @dry:	The source has ended or failed
 * @left_bytes:	Of this period
 * @period_end_ns: when the next begins
 */
struct virtio_rng {
	struct virtio_device vdev;
	struct virtio_rng_props props;
	struct virtio_rng_state state;
	int fd;
	char *fd_name;
	GSource *fd_watch;
	GSource *timer;
	bool dry;
	uint64_t left_bytes;
	uint64_t period_end_ns;
	struct iovec iov[IOV_MAX_PER_BUFFER];
	struct log_limit log;
};

/* clang-format off */
#define ROW(member_) .offset = offsetof(struct virtio_rng_props, member_)
static const struct prop rng_props[] = {
	{.name = "rng", .type = PROP_STRING, ROW(rng),
	 .help = "id of an -object rng-random (default: the kernel's generator)"},
	{.name = "max-bytes", .type = PROP_U64, ROW(max_bytes), .def = "9223372036854775807",
	 .min = 1, .max = INT64_MAX, .help = "bytes per period at most"},
	{.name = "period", .type = PROP_U32, ROW(period_ms), .def = "65536",
	 .min = 1, .max = UINT32_MAX, .help = "length of a period in ms"},
	VIRTIO_PROPS(struct virtio_rng_props, common, "off"),
	{0},
};
#undef ROW
/* clang-format on */

static gboolean rng_file_ready(int fd, GIOCondition condition, void *opaque)
{
	struct virtio_rng *rng = opaque;

	loop_unwatch(&rng->fd_watch);
	virtio_kick(&rng->vdev, 0);
	return G_SOURCE_REMOVE;
}

static gboolean rng_period_over(void *opaque)
{
	struct virtio_rng *rng = opaque;

	loop_unwatch(&rng->timer);
	virtio_kick(&rng->vdev, 0);
	return G_SOURCE_REMOVE;
}

/* Return: bytes the guest may have now; 0 with the timer running if it must wait. */
static uint64_t rng_budget(struct virtio_rng *rng)
{
	uint64_t now = clock_now_ns();

	if (now >= rng->period_end_ns) {
		rng->left_bytes = rng->props.max_bytes;
		rng->period_end_ns = now + rng->props.period_ms * NS_PER_MSEC;
	}
	if (!rng->left_bytes && !rng->timer)
		rng->timer = loop_after_ms((rng->period_end_ns - now) / NS_PER_MSEC + 1,
					   rng_period_over, rng);
	return rng->left_bytes;
}

/* Return: bytes read, 0 if there is nothing for now. */
static size_t rng_read(struct virtio_rng *rng, uint8_t *buf, size_t len)
{
	ssize_t n;

	do
		n = rng->fd < 0 ? getrandom(buf, len, 0) : read(rng->fd, buf, len);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (n < 0 && errno == EAGAIN) {
		if (!rng->fd_watch)
			rng->fd_watch = loop_watch_fd(NULL, rng->fd, G_IO_IN, rng_file_ready, rng);
	} else {
		rng->dry = true;
		log_guest(&rng->log, "%s: the entropy source '%s' %s", rng->vdev.fn.dev.path,
			  rng->props.rng ? rng->props.rng : "kernel",
			  n < 0 ? g_strerror(errno) : "has ended");
	}
	return 0;
}

/* Return: whether to go on; false if there is no buffer, no entropy or no budget. */
static bool rng_give(struct virtio_rng *rng, uint32_t q)
{
	struct virtqueue_chain chain = {.iov = rng->iov, .iov_max = G_N_ELEMENTS(rng->iov)};
	uint8_t buf[GIVE_BYTES_MAX];
	size_t len;

	if (!rng_budget(rng) || !virtio_pop(&rng->vdev, q, &chain))
		return false;
	len = MIN(MIN(chain.in_bytes, sizeof(buf)), rng->left_bytes);
	if (len) {
		len = rng_read(rng, buf, len);
		if (!len) {
			virtio_unpop(&rng->vdev, q);
			return false;
		}
		(void)iov_write(chain.iov + chain.n_out, chain.n_in, buf, len);
		explicit_bzero(buf, len);
	}
	rng->left_bytes -= len;
	virtio_push(&rng->vdev, q, chain.head, len);
	return true;
}

static void rng_handle_queue(struct virtio_device *vdev, uint32_t q)
{
	struct virtio_rng *rng = (struct virtio_rng *)vdev;
	struct virtqueue *ring = &vdev->queues[q].ring;
	uint32_t n_given = 0;

	virtqueue_silence(ring);
	while (n_given < GIVE_BUFFERS_MAX && rng_give(rng, q))
		n_given++;
	if (n_given)
		virtio_notify(vdev, q);
	/* The main thread has other things to do; and what came since is to be looked at, unless
	 * the timer or the source will say when. */
	if (virtio_queue_live(vdev, q) && virtqueue_listen(ring) && !rng->timer && !rng->fd_watch &&
	    !rng->dry)
		virtio_kick(vdev, q);
}

static const struct virtio_ops rng_virtio_ops = {
	.type = VIRTIO_ID_RNG,
	.class_code = CLASS_OTHER,
	.handle_queue = rng_handle_queue,
};

static int rng_open(void *arg, GError **error)
{
	const char *path = arg;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		error_set_errno(error, errno, "cannot open '%s'", path);
	return fd;
}

static bool rng_open_source(struct virtio_rng *rng, struct device_env *env, GError **error)
{
	const char *path;

	rng->fd = -1;
	if (!rng->props.rng)
		return true;
	path = env->find_rng_path ? env->find_rng_path(env->opaque, rng->props.rng) : NULL;
	if (!path)
		return error_set_generic(error, "there is no rng '%s'", rng->props.rng);
	rng->fd_name = g_strdup_printf("%s/rng", rng->vdev.fn.dev.path);
	rng->fd = fd_acquire(env->fds, rng->fd_name, FD_CHAR, rng_open, (void *)path, error);
	return rng->fd >= 0;
}

static bool virtio_rng_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct virtio_rng *rng = (struct virtio_rng *)dev;
	const struct virtio_params params = {
		.ops = &rng_virtio_ops,
		.state = &rng->state.common,
		.props = &rng->props.common,
		.n_queues = 1,
		.queue_size = QUEUE_SIZE,
		.n_vectors = 2,
	};

	return rng_open_source(rng, env, error) && virtio_realize(&rng->vdev, &params, error);
}

static void virtio_rng_unrealize(struct device *dev)
{
	struct virtio_rng *rng = (struct virtio_rng *)dev;

	virtio_unrealize(&rng->vdev);
	loop_unwatch(&rng->fd_watch);
	loop_unwatch(&rng->timer);
	if (rng->fd >= 0 && rng->fd_name)
		fd_withdraw(dev->env->fds, rng->fd_name);
	if (rng->fd_name)
		fd_close(&rng->fd);
	g_free(rng->fd_name);
}

const struct device_ops virtio_rng_ops = {
	.name = "virtio-rng",
	.driver = "virtio-rng-pci",
	.bus = DEVICE_BUS_PCI,
	.help = "virtio entropy source",
	.props = rng_props,
	.props_offset = offsetof(struct virtio_rng, props),
	.size = sizeof(struct virtio_rng),
	.state = &virtio_rng_desc,
	.state_offset = offsetof(struct virtio_rng, state),
	.realize = virtio_rng_realize,
	.reset = virtio_reset,
	.drain = virtio_drain,
	.in_flight = virtio_in_flight,
	.resume = virtio_resume,
	.capture = virtio_capture,
	.at_rest = virtio_at_rest,
	.apply = virtio_apply,
	.unrealize = virtio_rng_unrealize,
};
