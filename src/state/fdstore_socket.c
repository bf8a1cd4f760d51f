// The store crosses a UNIX socket: batches of descriptors, each beside its part of the manifest.
// SPDX-License-Identifier: Apache-2.0
#include "state/fdstore.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/span.h"
#include "state/fdstore_priv.h"
#include "state/section.h"

/**
 * DOC: Frames
 *
 * frame: u32 mark | u32 version | u32 n_total | u32 n_before | u32 n_here | u32 length, then
 * @length bytes of a state stream with the manifest of the @n_here descriptors that came with the
 * frame's first byte.  All little endian.  @n_before counts the descriptors of earlier frames.  A
 * store without entries is one frame without descriptors.
 */
#define FRAME_MARK    0x5344464dU /* "MFDS" */
#define FRAME_VERSION 1
#define FRAME_BYTES   24

/* The kernel takes at most 253 (SCM_MAX_FD) in a message. */
#define BATCH_MAX   250
#define SCM_FDS_MAX 253

/* A manifest record has a few hundred bytes. */
#define FRAME_PAYLOAD_MAX (1U << 20)

/**
 * struct frame - The numbers before a batch
 *
 * Members as in "Frames" above.
 */
struct frame {
	uint32_t n_total;
	uint32_t n_before;
	uint32_t n_here;
	uint32_t length;
};

/**
 * struct bag - Descriptors that arrived and belong to no store yet
 * @fds:	Valid up to @n; -1 where one was moved on
 * @n:		How many came
 */
struct bag {
	int fds[SCM_FDS_MAX];
	size_t n;
};

static void bag_close(struct bag *bag)
{
	for (size_t i = 0; i < bag->n; i++)
		fd_close(&bag->fds[i]);
	bag->n = 0;
}

static bool wait_for(int sock, short events, uint64_t deadline_ns, GError **error)
{
	int ready = fd_poll(sock, events, deadline_ns);

	if (ready < 0)
		return error_set_errno(error, errno, "cannot wait for the other side");
	if (ready == 0)
		return error_set(error, MOLT_ERROR_TIMEOUT,
				 "the other side did not answer within the time limit");
	return true;
}

/* ---- sending ---- */

/* Send @len bytes, the descriptors in @control with the first of them. */
static bool send_all(int sock, struct span bytes, void *control, size_t control_len,
		     uint64_t deadline_ns, GError **error)
{
	while (bytes.len > 0) {
		struct iovec iov = {.iov_base = (void *)bytes.data, .iov_len = bytes.len};
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control_len ? control : NULL,
			.msg_controllen = control_len,
		};
		ssize_t n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			if (!wait_for(sock, POLLOUT, deadline_ns, error))
				return false;
			continue;
		}
		if (n < 0)
			return error_set_errno(error, errno, "cannot send");
		control_len = 0;
		if (!span_take(&bytes, n, NULL))
			return error_set_generic(error, "the kernel sent more than it was given");
	}
	return true;
}

/* Fill @control with the descriptors of @n entries from @first on.  Return: its length. */
static size_t control_fill(const struct fdstore *store, size_t first, size_t n, uint8_t *control,
			   size_t control_size)
{
	struct msghdr msg = {.msg_control = control, .msg_controllen = control_size};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	size_t pos = first;

	if (n == 0)
		return 0;
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
	for (size_t i = 0; i < n; i++) {
		const struct fdstore_entry *entry = fdstore_iter(store, &pos);

		memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &entry->fd, sizeof(int));
	}
	return CMSG_SPACE(n * sizeof(int));
}

static bool send_batch(const struct fdstore *store, int sock, size_t first, size_t n,
		       uint64_t deadline_ns, GError **error)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(BATCH_MAX * sizeof(int))] = {0};
	g_autoptr(GBytes) manifest = fdstore_manifest_write(store, first, n, false, error);
	g_autoptr(GByteArray) frame = NULL;
	struct span payload;

	if (!manifest)
		return false;
	payload = span_of_bytes(manifest);
	frame = g_byte_array_sized_new(FRAME_BYTES + payload.len);
	wire_put_le32(frame, FRAME_MARK);
	wire_put_le32(frame, FRAME_VERSION);
	wire_put_le32(frame, fdstore_count(store));
	wire_put_le32(frame, first);
	wire_put_le32(frame, n);
	wire_put_le32(frame, payload.len);
	wire_put(frame, payload.data, payload.len);
	return send_all(sock, span_of(frame->data, frame->len), control,
			control_fill(store, first, n, control, sizeof(control)), deadline_ns,
			error);
}

bool fdstore_send(const struct fdstore *store, int sock, uint64_t deadline_ns, GError **error)
{
	size_t total = fdstore_count(store);
	size_t sent = 0;

	do {
		size_t n = MIN(total - sent, BATCH_MAX);

		if (!send_batch(store, sock, sent, n, deadline_ns, error)) {
			g_prefix_error(error, "descriptors: after %zu of %zu: ", sent, total);
			return false;
		}
		sent += n;
	} while (sent < total);
	return true;
}

/* ---- receiving ---- */

/* Collect what the message brought, even if it will be refused: it must be closed then. */
static bool bag_collect(struct bag *bag, struct msghdr *msg, GError **error)
{
	bool room = true;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t n;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (bag->n < SCM_FDS_MAX) {
				bag->fds[bag->n++] = fd;
			} else {
				close(fd);
				room = false;
			}
		}
	}
	if (msg->msg_flags & MSG_CTRUNC)
		return error_set_generic(error, "some were lost on the way (is the limit of open "
						"files, RLIMIT_NOFILE, too low?)");
	if (!room)
		return error_set_generic(error, "too many in one batch");
	return true;
}

/* Return: bytes received, -1 with @error set. */
static ssize_t receive_some(int sock, void *data, size_t len, struct bag *bag, GError **error)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(SCM_FDS_MAX * sizeof(int))];
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0) {
		error_set_errno(error, errno, "cannot receive");
		return -1;
	}
	if (!bag_collect(bag, &msg, error))
		return -1;
	if (n == 0) {
		error_set_generic(error, "the other side closed the connection");
		return -1;
	}
	return n;
}

static bool receive_all(int sock, uint8_t *data, size_t len, struct bag *bag, uint64_t deadline_ns,
			GError **error)
{
	while (len > 0) {
		ssize_t n;

		if (!wait_for(sock, POLLIN, deadline_ns, error))
			return false;
		n = receive_some(sock, data, len, bag, error);
		if (n < 0)
			return false;
		data += n;
		len -= n;
	}
	return true;
}

static bool frame_read(struct span wire, struct frame *frame, GError **error)
{
	uint32_t mark, version;

	if (!span_read_le32(&wire, &mark) || !span_read_le32(&wire, &version) ||
	    !span_read_le32(&wire, &frame->n_total) || !span_read_le32(&wire, &frame->n_before) ||
	    !span_read_le32(&wire, &frame->n_here) || !span_read_le32(&wire, &frame->length) ||
	    mark != FRAME_MARK)
		return error_set_generic(error, "the other side sent something else");
	if (version != FRAME_VERSION)
		return error_set_generic(error,
					 "the other side sends them in version %u; this molt knows "
					 "version %u",
					 version, FRAME_VERSION);
	if (frame->n_total > FDSTORE_MAX || frame->n_before > frame->n_total ||
	    frame->n_here > BATCH_MAX || frame->n_here > frame->n_total - frame->n_before ||
	    (frame->n_here == 0 && frame->n_total > 0))
		return error_set_generic(error,
					 "counts do not add up: %u here, %u before, %u in all",
					 frame->n_here, frame->n_before, frame->n_total);
	if (frame->length > FRAME_PAYLOAD_MAX)
		return error_set_generic(error, "a manifest of %u bytes is too long",
					 frame->length);
	return true;
}

/* What is wrong with any of them is told of all at once. */
static bool adopt_all(struct fdstore *store, const struct fd_manifest *manifest, struct bag *bag,
		      GError **error)
{
	g_autoptr(GString) wrong = g_string_new(NULL);

	for (uint32_t i = 0; i < manifest->n_records; i++) {
		g_autoptr(GError) reason = NULL;

		if (!fdstore_adopt(store, &manifest->records[i], &bag->fds[i], &reason))
			g_string_append_printf(wrong, "%s%s", wrong->len ? "\n" : "",
					       reason->message);
	}
	return !wrong->len || error_set_generic(error, "%s", wrong->str);
}

static bool batch_adopt(struct fdstore *store, const struct frame *frame, GBytes *bytes,
			struct bag *bag, GError **error)
{
	g_autofree struct fd_manifest *manifest = NULL;

	if (bag->n != frame->n_here)
		return error_set_generic(error, "%u announced, %zu came", frame->n_here, bag->n);
	manifest = fdstore_manifest_read(bytes, error);
	if (!manifest)
		return false;
	if (manifest->n_records != frame->n_here)
		return error_set_generic(error, "%u announced, %u named", frame->n_here,
					 manifest->n_records);
	return adopt_all(store, manifest, bag, error);
}

static bool receive_batch(struct fdstore *store, int sock, struct frame *frame, struct bag *bag,
			  uint64_t deadline_ns, GError **error)
{
	g_autofree uint8_t *payload = NULL;
	g_autoptr(GBytes) bytes = NULL;
	uint8_t header[FRAME_BYTES];
	uint32_t length;

	if (!receive_all(sock, header, sizeof(header), bag, deadline_ns, error) ||
	    !frame_read(span_of(header, sizeof(header)), frame, error))
		return false;
	if (frame->n_before != fdstore_count(store))
		return error_set_generic(error, "a batch was left out: %u before, %zu received",
					 frame->n_before, fdstore_count(store));
	length = frame->length;
	payload = g_malloc(length);
	if (!receive_all(sock, payload, length, bag, deadline_ns, error))
		return false;
	bytes = g_bytes_new_take(g_steal_pointer(&payload), length);
	return batch_adopt(store, frame, bytes, bag, error);
}

struct fdstore *fdstore_receive(int sock, uint64_t deadline_ns, GError **error)
{
	autoptr(fdstore) store = fdstore_new();
	struct frame frame = {0};
	uint32_t n_total = 0;

	do {
		struct bag bag = {.n = 0};
		bool ok = receive_batch(store, sock, &frame, &bag, deadline_ns, error);

		bag_close(&bag);
		if (!ok) {
			g_prefix_error(error, "descriptors: after %zu: ", fdstore_count(store));
			return NULL;
		}
		if (n_total != 0 && frame.n_total != n_total) {
			error_set_generic(error, "descriptors: %u in all became %u", n_total,
					  frame.n_total);
			return NULL;
		}
		n_total = frame.n_total;
	} while (fdstore_count(store) < n_total);
	return g_steal_pointer(&store);
}
