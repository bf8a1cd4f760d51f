// A connection that speaks frames: by callback while the guest runs, by waiting in a pause.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"
#include "migration/channel.h"

/**
 * struct link - See link.h
 * @head, @header: The frame being read: its header, and that decoded
 * @payload:	Its payload; NULL while the header is incomplete
 * @have:	Octets read of whichever of the two is incomplete
 * @out:	What is still to be sent, @sender: waits for room; the first @sent octets have been
 * @out_error:	Why it cannot be
 *
 * Reads exactly to the end of a frame: descriptors that follow FRAME_FDS must not be read as data.
 */
struct link {
	int fd;
	struct link_handler handler;
	void *opaque;
	GSource *watch;
	uint8_t head[FRAME_HEADER_BYTES];
	struct frame_header header;
	uint8_t *payload;
	size_t have;
	GByteArray *out;
	size_t sent;
	GSource *sender;
	GError *out_error;
};

/* How many frames may lie unread before the one that says why there will be no more. */
#define LAST_FRAMES 8

static gboolean link_readable(int fd, GIOCondition condition, void *opaque);

struct link *link_new(int fd, const struct link_handler *handler, void *opaque)
{
	struct link *link = g_new0(struct link, 1);

	link->fd = fd;
	link->handler = *handler;
	link->opaque = opaque;
	link->out = g_byte_array_new();
	link->watch = loop_watch_fd(NULL, fd, G_IO_IN | G_IO_HUP | G_IO_ERR, link_readable, link);
	return link;
}

void link_free(struct link *link)
{
	if (!link)
		return;
	loop_unwatch(&link->watch);
	loop_unwatch(&link->sender);
	fd_close(&link->fd);
	g_byte_array_unref(link->out);
	g_clear_error(&link->out_error);
	g_free(link->payload);
	g_free(link);
}

/* ---- sending ---- */

/* Send what there is room for.  Return: 1 when all is sent, 0, -1 with link->out_error set. */
static int send_some(struct link *link)
{
	while (link->sent < link->out->len) {
		ssize_t n = send(link->fd, link->out->data + link->sent,
				 link->out->len - link->sent, MSG_NOSIGNAL);

		if (n >= 0) {
			link->sent += n;
		} else if (errno == EAGAIN) {
			return 0;
		} else if (errno != EINTR) {
			error_set_errno(&link->out_error, errno, "cannot write");
			return -1;
		}
	}
	g_byte_array_set_size(link->out, 0);
	link->sent = 0;
	return 1;
}

/* That the peer is gone is told by the reading side, when what it sent before has been read. */
static gboolean link_writable(int fd, GIOCondition condition, void *opaque)
{
	struct link *link = opaque;

	if (send_some(link) == 0)
		return G_SOURCE_CONTINUE;
	loop_unwatch(&link->sender);
	return G_SOURCE_REMOVE;
}

/* In one piece: header and payload in two would wake the reader twice. */
static bool send_frame(struct link *link, enum frame_type type, const void *data, size_t len,
		       GError **error)
{
	int r;

	frame_encode(link->out, type, data, len);
	r = link->out_error ? -1 : send_some(link);
	if (r == 0 && !link->sender)
		link->sender =
			loop_watch_fd(NULL, link->fd, G_IO_OUT | G_IO_ERR, link_writable, link);
	if (r >= 0)
		return true;
	if (error)
		g_propagate_prefixed_error(error, g_error_copy(link->out_error),
					   "%s: ", frame_type_name(type));
	link_last_words(link, error);
	return false;
}

bool link_flush(struct link *link, uint64_t deadline_ns)
{
	int r = send_some(link);

	while (r == 0 && fd_poll(link->fd, POLLOUT, deadline_ns) > 0)
		r = send_some(link);
	return r > 0;
}

bool link_send(struct link *link, enum frame_type type, json_t *body, GError **error)
{
	char *text = json_dumps(body, JSON_COMPACT);
	const char *sent = text ? text : "{}";
	bool ok;

	json_decref(body);
	if (strlen(sent) > FRAME_MAX_BYTES)
		ok = error_set_generic(error, "%s: %zu octets are more than the peer takes",
				       frame_type_name(type), strlen(sent));
	else
		ok = send_frame(link, type, sent, strlen(sent), error);
	free(text);
	return ok;
}

bool link_send_bytes(struct link *link, enum frame_type type, GBytes *payload, GError **error)
{
	gsize len;
	const void *data = g_bytes_get_data(payload, &len);

	return send_frame(link, type, data, len, error);
}

bool link_send_fds(struct link *link, const struct fdstore *store, GError **error)
{
	const uint64_t deadline_ns = clock_deadline_ms(LINK_FDS_MS);

	/* The descriptors come right after the frame. */
	if (!link_send(link, FRAME_FDS, NULL, error))
		return false;
	if (!link_flush(link, deadline_ns))
		return error_set(error, MOLT_ERROR_TIMEOUT, "fds: the peer does not read");
	if (fdstore_send(store, link->fd, deadline_ns, error))
		return true;
	link_last_words(link, error);
	return false;
}

struct fdstore *link_receive_fds(struct link *link, GError **error)
{
	return fdstore_receive(link->fd, clock_deadline_ms(LINK_FDS_MS), error);
}

/* ---- receiving ---- */

/* Read until @len octets are at @at.  Return: 1, 0 if there is no more now, -1 with @error set. */
static int fill(struct link *link, uint8_t *at, size_t len, GError **error)
{
	while (link->have < len) {
		ssize_t n = read(link->fd, at + link->have, len - link->have);

		if (n > 0) {
			link->have += n;
		} else if (n == 0) {
			error_set_generic(error, "the peer closed the connection");
			return -1;
		} else if (errno == EAGAIN) {
			return 0;
		} else if (errno != EINTR) {
			error_set_errno(error, errno, "cannot read from the peer");
			return -1;
		}
	}
	link->have = 0;
	return 1;
}

/* Advance the frame being read.  Return: 1 when it is whole, 0, -1 with @error set. */
static int read_frame(struct link *link, GError **error)
{
	int r;

	if (!link->payload) {
		r = fill(link, link->head, sizeof(link->head), error);
		if (r <= 0)
			return r;
		if (!frame_header_parse(span_of(link->head, sizeof(link->head)), &link->header,
					error))
			return -1;
		link->payload = g_malloc(link->header.length + 1);
	}
	r = fill(link, link->payload, link->header.length, error);
	if (r <= 0)
		return r;
	return frame_check(&link->header, link->payload, error) ? 1 : -1;
}

/* The whole frame's payload, as octets and, but for FRAME_STATE, as an object. */
static bool take_frame(struct link *link, json_t **body, GBytes **payload, GError **error)
{
	json_error_t why;

	*payload = g_bytes_new_take(g_steal_pointer(&link->payload), link->header.length);
	*body = NULL;
	if (link->header.type == FRAME_STATE)
		return true;
	*body = json_loadb(g_bytes_get_data(*payload, NULL), link->header.length,
			   JSON_REJECT_DUPLICATES, &why);
	if (json_is_object(*body))
		return true;
	g_clear_pointer(body, json_decref);
	g_clear_pointer(payload, g_bytes_unref);
	return error_set_generic(error, "frame '%s' does not hold a JSON object",
				 frame_type_name(link->header.type));
}

static gboolean link_readable(int fd, GIOCondition condition, void *opaque)
{
	struct link *link = opaque;
	g_autoptr(GError) error = NULL;
	g_autoptr(GBytes) payload = NULL;
	json_t *body = NULL;
	int r = read_frame(link, &error);

	if (r == 0)
		return G_SOURCE_CONTINUE;
	if (r > 0 && take_frame(link, &body, &payload, &error)) {
		/* May free the link: nothing of it is touched afterwards. */
		link->handler.message(link->opaque, link->header.type, body, payload);
		json_decref(body);
		return G_SOURCE_CONTINUE;
	}
	loop_unwatch(&link->watch);
	link->handler.closed(link->opaque, error);
	return G_SOURCE_REMOVE;
}

/* Read one whole frame before @deadline_ns. */
static bool wait_frame(struct link *link, uint64_t deadline_ns, GError **error)
{
	int r;

	while ((r = read_frame(link, error)) == 0) {
		r = fd_poll(link->fd, POLLIN, deadline_ns);
		if (r == 0)
			return error_set(error, MOLT_ERROR_TIMEOUT,
					 "the peer did not answer in time");
		if (r < 0)
			return error_set_errno(error, errno, "cannot wait for the peer");
	}
	return r > 0;
}

bool link_gave_up(const struct link *link, enum frame_type type, const json_t *body, GError **error)
{
	const char *reason = json_string_value(json_object_get(body, "reason"));

	if (type != FRAME_ABORT && type != FRAME_REFUSE)
		return false;
	error_set(error, MOLT_ERROR_REFUSED, "%s %s: %s", link->handler.peer,
		  type == FRAME_REFUSE ? "refuses this VM" : "gave up",
		  reason ? reason : "no reason given");
	return true;
}

json_t *link_wait(struct link *link, enum frame_type type, uint64_t deadline_ns, GError **error)
{
	g_autoptr(GBytes) payload = NULL;
	json_t *body;

	if (!wait_frame(link, deadline_ns, error) || !take_frame(link, &body, &payload, error))
		return NULL;
	if (link->header.type == type && body)
		return body;
	if (!link_gave_up(link, link->header.type, body, error))
		error_set_generic(error, "the peer sent '%s' where '%s' was due",
				  frame_type_name(link->header.type), frame_type_name(type));
	json_decref(body);
	return NULL;
}

void link_last_words(struct link *link, GError **error)
{
	GError *why = NULL;

	for (int i = 0; error && !why && i < LAST_FRAMES && read_frame(link, NULL) > 0; i++) {
		g_autoptr(GBytes) payload = NULL;
		json_t *body;

		if (!take_frame(link, &body, &payload, NULL))
			return;
		if (link_gave_up(link, link->header.type, body, &why)) {
			g_clear_error(error);
			g_propagate_error(error, why);
		}
		json_decref(body);
	}
}

static bool peer_cred(const struct link *link, struct ucred *cred)
{
	socklen_t len = sizeof(*cred);

	*cred = (struct ucred){0};
	return getsockopt(link->fd, SOL_SOCKET, SO_PEERCRED, cred, &len) == 0;
}

pid_t link_peer_pid(const struct link *link)
{
	struct ucred cred;

	return peer_cred(link, &cred) ? cred.pid : 0;
}

bool link_peer_trusted(struct link *link, GError **error)
{
	struct ucred cred;

	if (!peer_cred(link, &cred))
		return error_set_errno(error, errno, "cannot tell who the peer is");
	if (cred.uid != 0 && cred.uid != geteuid())
		return error_set_generic(error, "the peer runs as user %u, not as ours or root",
					 (unsigned int)cred.uid);
	return true;
}
