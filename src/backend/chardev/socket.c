// Character devices on UNIX and TCP sockets, as server or client, one connection at a time.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/chardev/chardev_priv.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "state/fd_paths.h"
#include "base/signals.h"

/**
 * struct socket_chardev - A socket chardev's own
 * @listen_fd:	server: -1 for a client
 * @connecting_fd: client: a connection attempt under way
 * @watch:	waits on one of the two
 * @retry:	client: time to the next attempt
 * @tried:	client: there was an attempt; the first one does not wait
 * @addrs:	client: where to, resolved once
 * @made:	server: the UNIX socket's path
 * @claimed:	server: the path is a predecessor's still
 */
struct socket_chardev {
	int listen_fd;
	int connecting_fd;
	GSource *watch;
	GSource *retry;
	bool tried;
	struct addrinfo *addrs;
	struct file_made made;
	bool claimed;
};

static void socket_resume(struct chardev *chardev);
static struct addrinfo *socket_resolve(const struct chardev_config *config, GError **error);

/* ---- addresses ---- */

static bool unix_address(const char *path, struct sockaddr_un *addr, GError **error)
{
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(addr->sun_path))
		return error_set_generic(error,
					 "UNIX socket path '%s' is too long: at most %zu bytes",
					 path, sizeof(addr->sun_path) - 1);
	strcpy(addr->sun_path, path);
	return true;
}

static struct addrinfo *tcp_resolve(const struct chardev_config *config, GError **error)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM,
		.ai_flags = config->server ? AI_PASSIVE : 0,
	};
	const char *host = config->host && *config->host ? config->host : NULL;
	struct addrinfo *addrs = NULL;
	int ret = getaddrinfo(host, config->port ?: "0", &hints, &addrs);

	if (ret == 0)
		return addrs;
	error_set_generic(error, "address '%s:%s': %s", host ?: "", config->port ?: "",
			  gai_strerror(ret));
	return NULL;
}

/* "tcp:HOST:PORT" of one end; the caller's */
static char *tcp_name(const struct sockaddr_storage *addr, socklen_t len)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];
	bool v6 = addr->ss_family == AF_INET6;

	if (getnameinfo((const struct sockaddr *)addr, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return g_strdup("?");
	return g_strdup_printf(v6 ? "[%s]:%s" : "%s:%s", host, port);
}

static char *socket_local_name(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	return getsockname(fd, (struct sockaddr *)&addr, &len) == 0 ? tcp_name(&addr, len)
								    : g_strdup("?");
}

static char *socket_peer_name(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	return getpeername(fd, (struct sockaddr *)&addr, &len) == 0 ? tcp_name(&addr, len)
								    : g_strdup("?");
}

static char *socket_filename(struct chardev *chardev)
{
	const struct chardev_config *config = &chardev->config;
	const struct socket_chardev *s = chardev->priv;
	const char *mode = config->server ? ",server=on" : "";
	const char *state = chardev->connected ? "" : "disconnected:";
	g_autofree char *local = NULL;
	g_autofree char *peer = NULL;

	if (config->path)
		return g_strdup_printf("%sunix:%s%s", state, config->path, mode);
	if (chardev->connected) {
		local = socket_local_name(chardev->in_fd);
		peer = socket_peer_name(chardev->in_fd);
		return g_strdup_printf("tcp:%s%s <-> %s", local, mode, peer);
	}
	local = s && s->listen_fd >= 0
			? socket_local_name(s->listen_fd)
			: g_strdup_printf("%s:%s", config->host ?: "", config->port ?: "");
	return g_strdup_printf("%stcp:%s%s", state, local, mode);
}

/* ---- server ---- */

static int unix_listen(struct chardev *chardev, GError **error)
{
	struct socket_chardev *s = chardev->priv;
	const char *path = chardev->config.path;
	autofd int fd = fd_path_make_socket(chardev->paths, path, chardev->config.reopen_on_cpr,
					    &s->made, &s->claimed, error);

	if (fd < 0)
		return -1;
	if (listen(fd, 1) < 0) {
		error_set_errno(error, errno, "cannot listen on '%s'", path);
		fd_path_forget(chardev->paths, &s->made);
		file_unmake(&s->made);
		return -1;
	}
	return fd_steal(&fd);
}

static int tcp_listen_on(const struct addrinfo *addr)
{
	autofd int fd =
		socket(addr->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	int on = 1;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, addr->ai_addr, addr->ai_addrlen) < 0 || listen(fd, 1) < 0)
		return -1;
	return fd_steal(&fd);
}

static int tcp_listen(struct chardev *chardev, GError **error)
{
	const struct chardev_config *config = &chardev->config;
	struct addrinfo *addrs = tcp_resolve(config, error);
	int fd = -1;

	if (!addrs)
		return -1;
	for (struct addrinfo *a = addrs; a && fd < 0; a = a->ai_next)
		fd = tcp_listen_on(a);
	if (fd < 0)
		error_set_errno(error, errno, "cannot listen on '%s:%s'", config->host ?: "",
				config->port ?: "");
	freeaddrinfo(addrs);
	return fd;
}

static int socket_open_listener(void *opaque, GError **error)
{
	struct chardev *chardev = opaque;

	return chardev->config.path ? unix_listen(chardev, error) : tcp_listen(chardev, error);
}

/* A connection is there: it is the peer from now on.  Takes @fd. */
static bool socket_adopt(struct chardev *chardev, int fd, GError **error)
{
	int on = 1;

	if (!chardev->config.path && chardev->config.nodelay)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	/* One that is to be connected anew does not cross. */
	if (!chardev->config.reopen_on_cpr &&
	    !chardev_publish(chardev, "connection", FD_STREAM, fd, error)) {
		fd_close(&fd);
		return false;
	}
	chardev_set_peer(chardev, fd, fd);
	return true;
}

static void socket_adopt_running(struct chardev *chardev, int fd)
{
	g_autoptr(GError) error = NULL;

	if (!socket_adopt(chardev, fd, &error)) {
		log_error("chardev '%s': %s", chardev->config.id, error->message);
		socket_resume(chardev);
		return;
	}
	chardev_notify(chardev);
	chardev_poll_input(chardev);
}

static gboolean socket_acceptable(int listen_fd, GIOCondition condition, void *opaque)
{
	struct chardev *chardev = opaque;
	struct socket_chardev *s = chardev->priv;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return G_SOURCE_CONTINUE;
	loop_unwatch(&s->watch);
	socket_adopt_running(chardev, fd);
	return G_SOURCE_REMOVE;
}

/* server=on,wait=on: nothing else happens in this process until somebody has connected. */
static bool socket_await_client(struct chardev *chardev, GError **error)
{
	struct socket_chardev *s = chardev->priv;
	int fd = -1;

	log_info("waiting for connection on: %s", chardev_filename(chardev));
	while (fd < 0) {
		if (signals_poll(s->listen_fd, POLLIN, 0) < 0)
			return error_set_errno(error, errno, "cannot wait for a connection");
		fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			return error_set_errno(error, errno, "cannot accept a connection");
	}
	return socket_adopt(chardev, fd, error);
}

/* ---- client ---- */

/*
 * Begin a connection to the first address that can be tried.
 * Return: the socket, connected or (errno EINPROGRESS) about to be; -1 with errno set.
 */
static int socket_begin_connect(const struct addrinfo *addrs)
{
	int failure = ECONNREFUSED;

	for (const struct addrinfo *a = addrs; a; a = a->ai_next) {
		autofd int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) {
			errno = 0;
			return fd_steal(&fd);
		}
		if (fd >= 0 && errno == EINPROGRESS)
			return fd_steal(&fd);
		failure = errno;
	}
	errno = failure;
	return -1;
}

static int socket_connect_result(int fd)
{
	socklen_t len = sizeof(int);
	int result = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &len) < 0 ? errno : result;
}

static gboolean socket_connect_done(int fd, GIOCondition condition, void *opaque)
{
	struct chardev *chardev = opaque;
	struct socket_chardev *s = chardev->priv;

	loop_unwatch(&s->watch);
	if (socket_connect_result(fd) == 0) {
		socket_adopt_running(chardev, fd_steal(&s->connecting_fd));
	} else {
		fd_close(&s->connecting_fd);
		socket_resume(chardev);
	}
	return G_SOURCE_REMOVE;
}

static gboolean socket_retry(void *opaque)
{
	struct chardev *chardev = opaque;
	struct socket_chardev *s = chardev->priv;
	int fd;

	loop_unwatch(&s->retry);
	s->tried = true;
	if (!s->addrs)
		s->addrs = socket_resolve(&chardev->config, NULL);
	fd = socket_begin_connect(s->addrs);
	if (fd < 0) {
		socket_resume(chardev);
	} else if (errno == EINPROGRESS) {
		s->connecting_fd = fd;
		s->watch = loop_watch_fd(NULL, fd, G_IO_OUT, socket_connect_done, chardev);
	} else {
		socket_adopt_running(chardev, fd);
	}
	return G_SOURCE_REMOVE;
}

/* One addrinfo that holds a UNIX address, so that one loop serves both families. */
static struct addrinfo *unix_resolve(const struct chardev_config *config, GError **error)
{
	struct sockaddr_un addr;
	struct addrinfo *a;

	if (!unix_address(config->path, &addr, error))
		return NULL;
	a = g_malloc0(sizeof(*a) + sizeof(addr));
	a->ai_family = AF_UNIX;
	a->ai_addr = (struct sockaddr *)(a + 1);
	a->ai_addrlen = sizeof(addr);
	memcpy(a->ai_addr, &addr, sizeof(addr));
	return a;
}

static struct addrinfo *socket_resolve(const struct chardev_config *config, GError **error)
{
	return config->path ? unix_resolve(config, error) : tcp_resolve(config, error);
}

static void socket_free_addrs(const struct chardev_config *config, struct addrinfo *addrs)
{
	if (config->path)
		g_free(addrs);
	else if (addrs)
		freeaddrinfo(addrs);
}

/* Connected to one of @addrs before it returns; -1 with @error set. */
static int socket_connect_to(const struct chardev_config *config, const struct addrinfo *addrs,
			     GError **error)
{
	autofd int fd = socket_begin_connect(addrs);
	int failure = fd < 0 ? errno : 0;

	if (fd >= 0 && errno == EINPROGRESS)
		failure = fd_poll(fd, POLLOUT, 0) < 0 ? errno : socket_connect_result(fd);
	if (!failure)
		return fd_steal(&fd);
	error_set_errno(error, failure, "cannot connect to '%s%s%s'", config->path ?: config->host,
			config->path ? "" : ":", config->path ? "" : config->port);
	return -1;
}

/* Without reconnect the peer must be there at once. */
static bool socket_connect_now(struct chardev *chardev, GError **error)
{
	struct socket_chardev *s = chardev->priv;
	int fd = socket_connect_to(&chardev->config, s->addrs, error);

	return fd >= 0 && socket_adopt(chardev, fd, error);
}

/* ---- clients that connect anew for an exec ---- */

struct chardev_reopening {
	char *name;
	struct chardev_config config; /* path, host and port of it only */
	int fd;
};

struct chardev_reopening *chardev_reopening_new(const struct chardev *chardev)
{
	const struct chardev_config *config = &chardev->config;
	struct chardev_reopening *r;

	if (!config->reopen_on_cpr || config->kind != CHARDEV_SOCKET || config->server ||
	    config->reconnect_ms)
		return NULL;
	r = g_new0(struct chardev_reopening, 1);
	r->name = chardev_fd_name(chardev, "connection");
	r->config.path = g_strdup(config->path);
	r->config.host = g_strdup(config->host);
	r->config.port = g_strdup(config->port);
	r->fd = -1;
	return r;
}

bool chardev_reopening_connect(struct chardev_reopening *r, GError **error)
{
	struct addrinfo *addrs = socket_resolve(&r->config, error);

	if (addrs)
		r->fd = socket_connect_to(&r->config, addrs, error);
	socket_free_addrs(&r->config, addrs);
	if (r->fd < 0)
		g_prefix_error(error, "%s: ", r->name);
	return r->fd >= 0;
}

bool chardev_reopening_offer(const struct chardev_reopening *r, struct fdstore *store,
			     GError **error)
{
	return fdstore_add(store, r->name, FD_STREAM, r->fd, error);
}

void chardev_reopening_free(struct chardev_reopening *r)
{
	fd_close(&r->fd);
	g_free(r->config.path);
	g_free(r->config.host);
	g_free(r->config.port);
	g_free(r->name);
	g_free(r);
}

/* ---- the kind ---- */

static bool socket_open_server(struct chardev *chardev, GError **error)
{
	struct socket_chardev *s = chardev->priv;

	s->listen_fd = chardev_acquire(chardev, "listener", FD_LISTEN, socket_open_listener, error);
	if (s->listen_fd < 0)
		return false;
	if (chardev->config.path && chardev->inherited)
		file_made_adopt(&s->made, chardev->config.path, -1);
	if (chardev->inherited)
		fd_path_add(chardev->paths, &s->made);
	/* A predecessor's listener: whoever waited for a client has waited already. */
	if (!chardev->config.wait || chardev->inherited || s->claimed)
		return true;
	return socket_await_client(chardev, error);
}

static bool socket_open_client(struct chardev *chardev, GError **error)
{
	struct socket_chardev *s = chardev->priv;

	/*
	 * What was inherited needs no address, and a name that does not resolve any more is no reason to
	 * refuse it.  A predecessor whose connection had ended has none to hand over: go on without, as it.
	 */
	if (chardev->connected)
		return true;
	if (chardev->fds && chardev->fds->inherited &&
	    (!chardev->config.reopen_on_cpr || chardev->config.reconnect_ms))
		return true;
	s->addrs = socket_resolve(&chardev->config, error);
	if (!s->addrs)
		return false;
	return chardev->config.reconnect_ms || socket_connect_now(chardev, error);
}

static bool socket_open(struct chardev *chardev, GError **error)
{
	struct socket_chardev *s = g_new0(struct socket_chardev, 1);
	g_autoptr(GError) failure = NULL;
	int fd;

	s->listen_fd = s->connecting_fd = -1;
	chardev->priv = s;
	fd = chardev_inherit(chardev, "connection", FD_STREAM, &failure);
	if (failure) {
		g_propagate_error(error, g_steal_pointer(&failure));
		return false;
	}
	if (fd >= 0)
		chardev_set_peer(chardev, fd, fd);
	return chardev->config.server ? socket_open_server(chardev, error)
				      : socket_open_client(chardev, error);
}

/* Await the next connection, if there is none and none is awaited yet. */
static void socket_resume(struct chardev *chardev)
{
	struct socket_chardev *s = chardev->priv;

	if (chardev->connected || chardev->quiesced || s->watch || s->retry)
		return;
	if (chardev->config.server)
		s->watch = loop_watch_fd(NULL, s->listen_fd, G_IO_IN, socket_acceptable, chardev);
	else if (chardev->config.reconnect_ms)
		s->retry = loop_after_ms(s->tried ? chardev->config.reconnect_ms : 0, socket_retry,
					 chardev);
}

static void socket_quiesce(struct chardev *chardev)
{
	struct socket_chardev *s = chardev->priv;

	if (!s)
		return;
	loop_unwatch(&s->watch);
	loop_unwatch(&s->retry);
	fd_close(&s->connecting_fd);
}

static void socket_hangup(struct chardev *chardev)
{
	chardev_withdraw(chardev, "connection");
	chardev_close_fds(chardev);
	socket_resume(chardev);
}

static void socket_close(struct chardev *chardev, bool owner)
{
	struct socket_chardev *s = chardev->priv;

	if (!s)
		return;
	fd_path_forget(chardev->paths, &s->made);
	if (owner)
		file_unmake(&s->made);
	file_made_clear(&s->made);
	chardev_withdraw(chardev, "connection");
	chardev_withdraw(chardev, "listener");
	fd_close(&s->listen_fd);
	socket_free_addrs(&chardev->config, s->addrs);
	g_free(s);
	chardev->priv = NULL;
}

static ssize_t socket_write(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	return send(chardev->out_fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

const struct chardev_kind_ops chardev_socket_ops = {
	.name = "socket",
	.preservable = true,
	.open = socket_open,
	.resume = socket_resume,
	.quiesce = socket_quiesce,
	.hangup = socket_hangup,
	.close = socket_close,
	.write = socket_write,
	.filename = socket_filename,
};
