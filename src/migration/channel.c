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
#include "state/section.h"

/* ---- sockets ---- */

static struct sockaddr_un unix_sockaddr(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	g_strlcpy(sun.sun_path, path, sizeof(sun.sun_path));
	return sun;
}

/* A duplicate of the inherited descriptor that @address names. */
static int inherited_socket(const struct migration_address *address, GError **error)
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

static struct addrinfo *inet_resolve(const struct migration_address *address, int flags,
				     GError **error)
{
	struct addrinfo hints = {.ai_flags = flags | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int r = getaddrinfo(address->host[0] ? address->host : NULL, address->port, &hints, &list);

	if (r == 0)
		return list;
	error_set_generic(error, "address resolution failed for %s:%s: %s", address->host,
			  address->port, gai_strerror(r));
	return NULL;
}

static int inet_bind(const struct migration_address *address, GError **error)
{
	struct addrinfo *list = inet_resolve(address, AI_PASSIVE, error);
	int on = 1, saved = 0, found = -1;

	for (struct addrinfo *ai = list; ai && found < 0; ai = ai->ai_next) {
		autofd int fd =
			socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
		    bind(fd, ai->ai_addr, ai->ai_addrlen) == 0)
			found = fd_steal(&fd);
		else
			saved = errno;
	}
	if (list && found < 0)
		error_set_errno(error, saved, "Failed to bind socket to %s:%s", address->host,
				address->port);
	if (list)
		freeaddrinfo(list);
	return found;
}

static int listener_socket(const struct migration_address *address, struct file_made *made,
			   GError **error)
{
	switch (address->transport) {
	case MIGRATION_UNIX:
		return file_make_socket(address->path, false, made, error);
	case MIGRATION_INET:
		return inet_bind(address, error);
	case MIGRATION_FD:
		return inherited_socket(address, error);
	case MIGRATION_FILE:
	case MIGRATION_EXEC:
		break;
	}
	error_set_generic(error, "cannot listen on a %s: address; use unix: or tcp:",
			  address->transport == MIGRATION_FILE ? "file" : "exec");
	return -1;
}

struct channel_listener *channel_listen(const struct migration_address *address, GError **error)
{
	autoptr(channel_listener) listener = g_new0(struct channel_listener, 1);

	listener->fd = listener_socket(address, &listener->made, error);
	if (listener->fd < 0)
		return NULL;
	if (!fd_set_nonblock(listener->fd, true) || listen(listener->fd, 4) < 0) {
		g_autofree char *text = migration_address_text(address);

		error_set_errno(error, errno, "Failed to listen on %s", text);
		return NULL;
	}
	return g_steal_pointer(&listener);
}

void channel_listener_free(struct channel_listener *listener)
{
	if (!listener)
		return;
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

int channel_accept(const struct channel_listener *listener, GError **error)
{
	int on = 1;
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		/* Fails on anything but TCP, where there is nothing to set. */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		return fd;
	}
	if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		error_set_errno(error, errno, "cannot accept a connection");
	return -1;
}

/* Connect the nonblocking @fd.  Return: 0 or an errno. */
static int connect_before(int fd, const struct sockaddr *sa, socklen_t len, uint64_t deadline_ns)
{
	int err = 0;
	socklen_t err_len = sizeof(err);

	if (connect(fd, sa, len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	switch (fd_poll(fd, POLLOUT, deadline_ns)) {
	case -1:
		return errno;
	case 0:
		return ETIMEDOUT;
	}
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_len) < 0 ? errno : err;
}

static int unix_connect(const char *path, uint64_t deadline_ns, GError **error)
{
	struct sockaddr_un sun = unix_sockaddr(path);
	autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err = fd < 0 ? errno : 0;

	if (!err)
		err = connect_before(fd, (struct sockaddr *)&sun, sizeof(sun), deadline_ns);
	if (err) {
		error_set_errno(error, err, "Failed to connect to '%s'", path);
		return -1;
	}
	return fd_steal(&fd);
}

static int inet_connect(const struct migration_address *address, uint64_t deadline_ns,
			GError **error)
{
	struct addrinfo *list = inet_resolve(address, 0, error);
	int on = 1, err = 0, found = -1;

	for (struct addrinfo *ai = list; ai && found < 0; ai = ai->ai_next) {
		autofd int fd =
			socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		err = fd < 0 ? errno : connect_before(fd, ai->ai_addr, ai->ai_addrlen, deadline_ns);
		if (!err)
			found = fd_steal(&fd);
	}
	if (list && found < 0)
		error_set_errno(error, err, "Failed to connect to '%s:%s'", address->host,
				address->port);
	if (list)
		freeaddrinfo(list);
	if (found >= 0)
		(void)setsockopt(found, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return found;
}

int channel_connect(const struct migration_address *address, uint64_t deadline_ns, GError **error)
{
	autofd int fd = -1;

	switch (address->transport) {
	case MIGRATION_UNIX:
		return unix_connect(address->path, deadline_ns, error);
	case MIGRATION_INET:
		return inet_connect(address, deadline_ns, error);
	case MIGRATION_FD:
		fd = inherited_socket(address, error);
		if (fd >= 0 && !fd_set_nonblock(fd, true)) {
			error_set_errno(error, errno, "cannot make file descriptor %s nonblocking",
					address->fd_name);
			return -1;
		}
		return fd_steal(&fd);
	case MIGRATION_FILE:
		error_set_generic(error, "Migration requires streamable transport (eg unix)");
		return -1;
	case MIGRATION_EXEC:
		break;
	}
	error_set_generic(error, "exec: is not offered as a channel of this mode; use unix: or "
				 "tcp:");
	return -1;
}

/* ---- files ---- */

int channel_create_file(const struct migration_address *address, struct file_made *made,
			GError **error)
{
	struct file_made local = {0};
	autofd int fd = file_make(address->path, FILE_STREAM, &local, error);

	if (fd < 0) {
		g_prefix_error(error, "Could not create ");
		return -1;
	}
	/* A pipe or a device has no length to cut. */
	if (ftruncate(fd, address->offset) < 0 && errno != EINVAL)
		error_set_errno(error, errno,
				"failed to truncate migration file to offset %" PRIx64,
				address->offset);
	else if (address->offset && lseek(fd, address->offset, SEEK_SET) < 0)
		error_set_errno(error, errno, "cannot skip to offset %" PRIu64 " of '%s'",
				address->offset, address->path);
	else {
		*made = local;
		return fd_steal(&fd);
	}
	file_unmake(&local);
	return -1;
}

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
