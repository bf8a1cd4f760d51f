// Connecting to a UNIX or TCP address without waiting: names and connections in a thread.
// SPDX-License-Identifier: Apache-2.0
#include "backend/chardev/connect.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/stuck.h"

/**
 * struct connect_attempt - See connect.h
 * @n_refs:	Its maker's and the thread's; atomic
 * @done_fd:	Signalled after @fd or @error was set; an eventfd
 * @cancelled:	Nobody waits for it any more; atomic
 */
struct connect_attempt {
	int n_refs;
	char *path, *host, *port;
	int done_fd;
	int cancelled;
	int fd;
	GError *error;
};

static void connect_unref(struct connect_attempt *attempt)
{
	if (!g_atomic_int_dec_and_test(&attempt->n_refs))
		return;
	g_free(attempt->path);
	g_free(attempt->host);
	g_free(attempt->port);
	g_clear_error(&attempt->error);
	fd_close(&attempt->done_fd);
	fd_close(&attempt->fd);
	g_free(attempt);
}

/* ---- the thread ---- */

static int connect_result(int fd)
{
	socklen_t len = sizeof(int);
	int result = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &len) < 0 ? errno : result;
}

/* Return: the connection; -1 with errno set. */
static int connect_to(const struct sockaddr *addr, socklen_t len, uint64_t deadline_ns)
{
	autofd int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int ready, result, call;

	if (fd < 0)
		return -1;
	/* It waits for nobody but the store that a socket's path lies on. */
	call = stuck_begin("the path of a chardev's socket");
	result = connect(fd, addr, len);
	stuck_end(call);
	if (result == 0)
		return fd_steal(&fd);
	/* EAGAIN: a UNIX server has more clients waiting than it wants. */
	if (errno != EINPROGRESS)
		return -1;
	ready = fd_poll(fd, POLLOUT, deadline_ns);
	if (ready >= 0)
		errno = ready ? connect_result(fd) : ETIMEDOUT;
	return ready > 0 && errno == 0 ? fd_steal(&fd) : -1;
}

static void connect_local(struct connect_attempt *attempt, uint64_t deadline_ns)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	g_strlcpy(addr.sun_path, attempt->path, sizeof(addr.sun_path));
	attempt->fd = connect_to((struct sockaddr *)&addr, sizeof(addr), deadline_ns);
	if (attempt->fd < 0)
		error_set_generic(&attempt->error, "%s", g_strerror(errno));
}

/* The addresses of a name in turn, until one answers. */
static void connect_tcp(struct connect_attempt *attempt, uint64_t deadline_ns)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int ret = getaddrinfo(attempt->host, attempt->port, &hints, &list);

	if (ret != 0) {
		error_set_generic(&attempt->error, "%s", gai_strerror(ret));
		return;
	}
	errno = ECONNREFUSED;
	for (struct addrinfo *a = list; a && attempt->fd < 0; a = a->ai_next)
		if (!g_atomic_int_get(&attempt->cancelled))
			attempt->fd = connect_to(a->ai_addr, a->ai_addrlen, deadline_ns);
	if (attempt->fd < 0)
		error_set_generic(&attempt->error, "%s", g_strerror(errno));
	freeaddrinfo(list);
}

static void *connect_thread(void *opaque)
{
	struct connect_attempt *attempt = opaque;
	uint64_t deadline_ns = clock_deadline_ms(CONNECT_MS);

	if (attempt->path)
		connect_local(attempt, deadline_ns);
	else
		connect_tcp(attempt, deadline_ns);
	eventfd_signal(attempt->done_fd);
	connect_unref(attempt);
	return NULL;
}

/* ---- who waits for it ---- */

struct connect_attempt *connect_begin(const char *path, const char *host, const char *port,
				      GError **error)
{
	struct connect_attempt *attempt = g_new0(struct connect_attempt, 1);
	GThread *thread = NULL;

	attempt->n_refs = 2;
	attempt->fd = -1;
	attempt->path = g_strdup(path);
	attempt->host = g_strdup(host);
	attempt->port = g_strdup(port);
	attempt->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (attempt->done_fd < 0)
		error_set_errno(error, errno, "eventfd");
	else
		thread = g_thread_try_new("connect", connect_thread, attempt, error);
	if (!thread) {
		attempt->n_refs = 1;
		connect_unref(attempt);
		return NULL;
	}
	g_thread_unref(thread);
	return attempt;
}

int connect_fd(const struct connect_attempt *attempt)
{
	return attempt->done_fd;
}

int connect_end(struct connect_attempt **attempt, GError **error)
{
	int fd = fd_steal(&(*attempt)->fd);

	if (fd < 0)
		g_propagate_error(error, g_steal_pointer(&(*attempt)->error));
	connect_unref(*attempt);
	*attempt = NULL;
	return fd;
}

void connect_cancel(struct connect_attempt **attempt)
{
	if (!*attempt)
		return;
	g_atomic_int_set(&(*attempt)->cancelled, 1);
	connect_unref(*attempt);
	*attempt = NULL;
}
