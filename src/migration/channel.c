// Channels: sockets and files that an address names, opened, listened on and read with deadlines.
// SPDX-License-Identifier: Apache-2.0
#include "migration/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/resolve.h"
#include "state/section.h"

/* How soon a connection is tried again for which there was no descriptor. */
#define ACCEPT_AGAIN_MS 500

/* ---- sockets ---- */

int channel_inherited_socket(const struct migration_address *address, GError **error)
{
	int number = atoi(address->fd_name);
	struct stat st;
	int fd;

	if (fstat(number, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		error_set_generic(error, "File descriptor '%d' is not a socket", number);
		return -1;
	}
	fd = fcntl(number, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		error_set_errno(error, errno, "cannot duplicate file descriptor %d", number);
	return fd;
}

static int inet_bind(const struct migration_address *address, const struct addrinfo *list,
		     GError **error)
{
	int on = 1, saved = ENOENT;

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		autofd int fd =
			socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
		    bind(fd, ai->ai_addr, ai->ai_addrlen) == 0)
			return fd_steal(&fd);
		saved = errno;
	}
	error_set_errno(error, saved, "Failed to bind socket to %s:%s", address->host,
			address->port);
	return -1;
}

/* @list: addresses of a TCP one. */
static int listener_socket(const struct migration_address *address, const struct addrinfo *list,
			   struct file_made *made, GError **error)
{
	switch (address->transport) {
	case MIGRATION_UNIX:
		return file_make_socket(address->path, false, made, error);
	case MIGRATION_INET:
		return inet_bind(address, list, error);
	case MIGRATION_FD:
		return channel_inherited_socket(address, error);
	case MIGRATION_FILE:
	case MIGRATION_EXEC:
		break;
	}
	error_set_generic(error, "cannot listen on a %s: address; use unix: or tcp:",
			  address->transport == MIGRATION_FILE ? "file" : "exec");
	return -1;
}

static struct channel_listener *listen_on(const struct migration_address *address,
					  const struct addrinfo *list, GError **error)
{
	autoptr(channel_listener) listener = g_new0(struct channel_listener, 1);

	listener->fd = listener_socket(address, list, &listener->made, error);
	if (listener->fd < 0)
		return NULL;
	if (!fd_set_nonblock(listener->fd, true) || listen(listener->fd, 4) < 0) {
		g_autofree char *text = migration_address_text(address);

		error_set_errno(error, errno, "Failed to listen on %s", text);
		return NULL;
	}
	return g_steal_pointer(&listener);
}

struct channel_listener *channel_listen(const struct migration_address *address, GError **error)
{
	struct addrinfo *list = NULL;
	struct channel_listener *listener;

	if (address->transport == MIGRATION_INET)
		list = resolve_now(address->host, address->port, AI_PASSIVE);
	listener = listen_on(address, list, error);
	if (list)
		freeaddrinfo(list);
	return listener;
}

/**
 * struct channel_naming - A name to listen on that is being looked up
 * @address:	Borrowed
 */
struct channel_naming {
	const struct migration_address *address;
	channel_listening_fn done;
	void *opaque;
	struct resolve *resolve;
};

static void name_resolved(void *opaque, struct addrinfo *list, const GError *failure)
{
	struct channel_naming *naming = opaque;
	g_autoptr(GError) error = failure ? g_error_copy(failure) : NULL;
	struct channel_listener *listener = NULL;

	naming->resolve = NULL;
	if (list) {
		listener = listen_on(naming->address, list, &error);
		freeaddrinfo(list);
	}
	/* May free it. */
	naming->done(naming->opaque, listener, error);
}

bool channel_has_name(const struct migration_address *address)
{
	struct addrinfo *list;

	if (address->transport != MIGRATION_INET)
		return false;
	list = resolve_now(address->host, address->port, AI_PASSIVE);
	if (list)
		freeaddrinfo(list);
	return !list;
}

struct channel_naming *channel_listen_name(const struct migration_address *address,
					   channel_listening_fn done, void *opaque, GError **error)
{
	struct channel_naming *naming = g_new0(struct channel_naming, 1);

	*naming = (struct channel_naming){address, done, opaque, NULL};
	naming->resolve = resolve_start(address->host, address->port, AI_PASSIVE, name_resolved,
					naming, error);
	if (!naming->resolve)
		g_clear_pointer(&naming, g_free);
	return naming;
}

void channel_naming_free(struct channel_naming *naming)
{
	if (!naming)
		return;
	resolve_cancel(naming->resolve);
	g_free(naming);
}

void channel_listener_free(struct channel_listener *listener)
{
	if (!listener)
		return;
	loop_unwatch(&listener->watch);
	file_unmake(&listener->made);
	fd_close(&listener->fd);
	g_free(listener);
}

json_t *channel_listener_address(const struct channel_listener *listener)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getsockname(listener->fd, (struct sockaddr *)&ss, &len) < 0)
		return NULL;
	if (ss.ss_family == AF_UNIX)
		return json_pack("{s:s, s:s}", "type", "unix", "path",
				 listener->made.path ? listener->made.path
						     : ((struct sockaddr_un *)&ss)->sun_path);
	if (getnameinfo((struct sockaddr *)&ss, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return NULL;
	return json_pack("{s:s, s:s, s:s}", "type", "inet", "host", host, "port", port);
}

int channel_accept(struct channel_listener *listener, GError **error)
{
	int on = 1;
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		listener->short_of = false;
		/* Fails on anything but TCP, where there is nothing to set. */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		return fd;
	}
	if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		error_set_errno(error, errno, "cannot accept a connection");
	return -1;
}

static gboolean acceptable(int fd, GIOCondition condition, void *opaque);

static gboolean accept_again(void *opaque)
{
	struct channel_listener *listener = opaque;

	loop_unwatch(&listener->watch);
	listener->watch = loop_watch_fd(NULL, listener->fd, G_IO_IN, acceptable, listener);
	return G_SOURCE_REMOVE;
}

/* Without descriptors, or memory, the connection stays in the queue, and the loop must not spin. */
static gboolean acceptable(int fd, GIOCondition condition, void *opaque)
{
	struct channel_listener *listener = opaque;
	g_autoptr(GError) error = NULL;
	int peer = channel_accept(listener, &error);

	if (peer >= 0) {
		/* May free the listener. */
		listener->accepted(listener->opaque, peer);
		return G_SOURCE_CONTINUE;
	}
	if (!error)
		return G_SOURCE_CONTINUE;
	if (!listener->short_of)
		log_warn("%s; trying again", error->message);
	listener->short_of = true;
	loop_unwatch(&listener->watch);
	listener->watch = loop_after_ms(ACCEPT_AGAIN_MS, accept_again, listener);
	return G_SOURCE_REMOVE;
}

void channel_listener_start(struct channel_listener *listener, channel_accepted_fn accepted,
			    void *opaque)
{
	listener->accepted = accepted;
	listener->opaque = opaque;
	accept_again(listener);
}

/* ---- files ---- */

int channel_open_file(const struct migration_address *address, GError **error)
{
	/* Nonblocking: a FIFO that nobody writes must not hold up the main loop. */
	autofd int fd = open(address->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		error_set_errno(error, errno, "Could not open '%s'", address->path);
		return -1;
	}
	if (address->offset && lseek(fd, address->offset, SEEK_SET) < 0) {
		error_set_errno(error, errno, "cannot skip to offset %" PRIu64 " of '%s'",
				address->offset, address->path);
		return -1;
	}
	return fd_steal(&fd);
}

/* ---- octets ---- */

static ssize_t write_some(int fd, const void *data, size_t len)
{
	ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

	if (n < 0 && errno == ENOTSOCK)
		n = write(fd, data, len);
	return n;
}

bool channel_write(int fd, const void *data, size_t len, uint64_t deadline_ns, GError **error)
{
	const uint8_t *at = data;

	while (len > 0) {
		ssize_t n = write_some(fd, at, len);

		if (n >= 0) {
			at += n;
			len -= n;
		} else if (errno == EAGAIN) {
			int r = fd_poll(fd, POLLOUT, deadline_ns);

			if (r == 0)
				return error_set(error, MOLT_ERROR_TIMEOUT,
						 "the reader did not take %zu octets in time", len);
			if (r < 0)
				return error_set_errno(error, errno, "cannot wait for the reader");
		} else if (errno != EINTR) {
			return error_set_errno(error, errno, "cannot write");
		}
	}
	return true;
}

GBytes *channel_read_state(int fd, uint64_t deadline_ns, GError **error)
{
	uint8_t head[STATE_HEADER_BYTES];
	struct state_header header;
	g_autofree uint8_t *all = NULL;

	if (!fd_read_all(fd, head, sizeof(head), deadline_ns, error) ||
	    !state_header_read(span_of(head, sizeof(head)), &header, error))
		return NULL;
	/* state_header_read() bounded the length to STATE_MAX_BYTES. */
	all = g_malloc(header.total_length);
	memcpy(all, head, sizeof(head));
	if (!fd_read_all(fd, all + sizeof(head), header.total_length - sizeof(head), deadline_ns,
			 error))
		return NULL;
	return g_bytes_new_take(g_steal_pointer(&all), header.total_length);
}
