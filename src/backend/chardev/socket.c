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
#include "backend/chardev/connect.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/signals.h"
#include "state/fd_paths.h"

/* How soon an accept() that failed is tried again. */
#define ACCEPT_AGAIN_MS 500

/**
 * struct socket_chardev - A socket chardev's own
 * @listen_fd:	server: -1 for a client
 * @attempt:	client: under way; NULL without one
 * @watch:	waits on one of the two
 * @retry:	time to the next attempt, to connect or to accept
 * @tried:	client: there was an attempt; the first one does not wait
 * @refused:	server: the log has it that accept() fails
 * @made:	server: the UNIX socket's path
 * @claimed:	server: the path is a predecessor's still
 */
struct socket_chardev {
	int listen_fd;
	struct connect_attempt *attempt;
	GSource *watch;
	GSource *retry;
	bool tried;
	bool refused;
	struct file_made made;
	bool claimed;
};

static void socket_resume(struct chardev *chardev);

/* ---- addresses ---- */

static bool unix_check_path(const char *path, GError **error)
{
	const size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (strlen(path) <= max)
		return true;
	return error_set_generic(error, "UNIX socket path '%s' is too long: at most %zu bytes",
				 path, max);
}

/* Where to listen. */
static struct addrinfo *tcp_resolve(const struct chardev_config *config, GError **error)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE,
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

static gboolean socket_accept_again(void *opaque)
{
	struct chardev *chardev = opaque;
	struct socket_chardev *s = chardev->priv;

	loop_unwatch(&s->retry);
	socket_resume(chardev);
	return G_SOURCE_REMOVE;
}

/* No descriptors or memory left: the client stays in the queue, and would be reported for ever. */
static void socket_back_off(struct chardev *chardev, int failure)
{
	struct socket_chardev *s = chardev->priv;

	if (!s->refused)
		log_warn("chardev '%s': cannot accept a connection: %s; it is tried again",
			 chardev->config.id, g_strerror(failure));
	s->refused = true;
	s->retry = loop_after_ms(ACCEPT_AGAIN_MS, socket_accept_again, chardev);
}

static gboolean socket_acceptable(int listen_fd, GIOCondition condition, void *opaque)
{
	struct chardev *chardev = opaque;
	struct socket_chardev *s = chardev->priv;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return G_SOURCE_CONTINUE;
	loop_unwatch(&s->watch);
	if (fd < 0) {
		socket_back_off(chardev, errno);
		return G_SOURCE_REMOVE;
	}
	s->refused = false;
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

static gboolean socket_connect_done(int fd, GIOCondition condition, void *opaque)
{
	struct chardev *chardev = opaque;
	struct socket_chardev *s = chardev->priv;
	int connection;

	loop_unwatch(&s->watch);
	connection = connect_end(&s->attempt, NULL);
	if (connection >= 0)
		socket_adopt_running(chardev, connection);
	else
		socket_resume(chardev);
	return G_SOURCE_REMOVE;
}

static gboolean socket_retry(void *opaque)
{
	struct chardev *chardev = opaque;
	const struct chardev_config *config = &chardev->config;
	struct socket_chardev *s = chardev->priv;
	g_autoptr(GError) error = NULL;

	loop_unwatch(&s->retry);
	s->tried = true;
	s->attempt = connect_begin(config->path, config->host, config->port, &error);
	if (s->attempt) {
		s->watch = loop_watch_fd(NULL, connect_fd(s->attempt), G_IO_IN, socket_connect_done,
					 chardev);
	} else {
		log_rated(&chardev->log, "chardev '%s': %s", config->id, error->message);
		socket_resume(chardev);
	}
	return G_SOURCE_REMOVE;
}

/* Connected before it returns, waiting with @poll; -1 with @error set. */
static int socket_connect_to(const struct chardev_config *config,
			     int (*poll)(int fd, short events, uint64_t deadline_ns),
			     GError **error)
{
	struct connect_attempt *attempt =
		connect_begin(config->path, config->host, config->port, error);
	int ready, fd = -1;

	if (!attempt)
		return -1;
	ready = poll(connect_fd(attempt), POLLIN, clock_deadline_ms(CONNECT_MS));
	if (ready > 0) {
		fd = connect_end(&attempt, error);
	} else {
		error_set_errno(error, ready < 0 ? errno : ETIMEDOUT, "no answer");
		connect_cancel(&attempt);
	}
	if (fd < 0)
		g_prefix_error(error, "cannot connect to '%s%s%s': ", config->path ?: config->host,
			       config->path ? "" : ":", config->path ? "" : config->port);
	return fd;
}

/* Without reconnect the peer must be there at once.  A signal that ends the process ends the wait. */
static bool socket_connect_now(struct chardev *chardev, GError **error)
{
	int fd = socket_connect_to(&chardev->config, signals_poll, error);

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
	r->fd = socket_connect_to(&r->config, fd_poll, error);
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
		fd_path_inherit(chardev->paths, chardev->config.path, -1, &s->made);
	/* A predecessor's listener: whoever waited for a client has waited already. */
	if (!chardev->config.wait || chardev->inherited || s->claimed || chardev->config.moved)
		return true;
	return socket_await_client(chardev, error);
}

static bool socket_open_client(struct chardev *chardev, GError **error)
{
	g_autofree char *name = NULL;

	if (chardev->config.path && !unix_check_path(chardev->config.path, error))
		return false;
	if (chardev->connected || chardev->config.reconnect_ms)
		return true;
	/* A predecessor whose connection had ended has none to hand over: go on without, as it. */
	name = chardev_fd_name(chardev, "connection");
	if (fd_expected(chardev->fds, name) && !chardev->config.moved)
		return true;
	return socket_connect_now(chardev, error);
}

static bool socket_open(struct chardev *chardev, GError **error)
{
	struct socket_chardev *s = g_new0(struct socket_chardev, 1);
	g_autoptr(GError) failure = NULL;
	int fd;

	s->listen_fd = -1;
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
	connect_cancel(&s->attempt);
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
