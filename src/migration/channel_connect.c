// Channels: connecting to an address, without waiting for a name server or a peer.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/resolve.h"
#include "migration/channel.h"

/* How soon a UNIX listener whose queue is full is tried again. */
#define QUEUE_FULL_MS 50

/**
 * struct channel_dial - A connection on its way
 * @where:	The address, for messages
 * @resolve:	Its name is being looked up
 * @list, @next: Addresses of a TCP one; the next to be tried
 * @sun:	Of a UNIX one
 * @fd:		The attempt, and in the end the result
 * @failure:	Of the last attempt
 * @step:	Waits for the attempt, or for the time to try again, or to tell the end
 * @timer:	The end of all attempts
 * @over:	@fd or @failure is the result
 */
struct channel_dial {
	channel_connected_fn done;
	void *opaque;
	char *where;
	struct resolve *resolve;
	struct addrinfo *list;
	struct addrinfo *next;
	struct sockaddr_un sun;
	int fd;
	GError *failure;
	GSource *step;
	GSource *timer;
	bool over;
};

void channel_dial_free(struct channel_dial *dial)
{
	if (!dial)
		return;
	loop_unwatch(&dial->step);
	loop_unwatch(&dial->timer);
	resolve_cancel(dial->resolve);
	if (dial->list)
		freeaddrinfo(dial->list);
	fd_close(&dial->fd);
	g_clear_error(&dial->failure);
	g_free(dial->where);
	g_free(dial);
}

/* ---- the end ---- */

static gboolean tell(void *opaque)
{
	struct channel_dial *dial = opaque;
	const channel_connected_fn done = dial->done;
	void *const whose = dial->opaque;
	g_autoptr(GError) error = g_steal_pointer(&dial->failure);
	int fd = error ? -1 : fd_steal(&dial->fd);

	/* It is over, and @done may free it. */
	loop_unwatch(&dial->step);
	loop_unwatch(&dial->timer);
	done(whose, fd, error);
	return G_SOURCE_REMOVE;
}

/* Told from the main loop, not to who has only just begun. */
static void finish(struct channel_dial *dial)
{
	int on = 1;

	/* Fails on anything but TCP, where there is nothing to set. */
	if (!dial->failure)
		(void)setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	dial->over = true;
	loop_unwatch(&dial->timer);
	loop_unwatch(&dial->step);
	dial->step = loop_after_ms(0, tell, dial);
}

static void fail(struct channel_dial *dial, int err)
{
	fd_close(&dial->fd);
	if (!dial->failure)
		error_set_errno(&dial->failure, err, "Failed to connect to '%s'", dial->where);
	finish(dial);
}

static gboolean too_late(void *opaque)
{
	fail(opaque, ETIMEDOUT);
	return G_SOURCE_REMOVE;
}

/* ---- attempts ---- */

static void try_next(struct channel_dial *dial, int err);

static gboolean attempt_over(int fd, GIOCondition condition, void *opaque)
{
	struct channel_dial *dial = opaque;
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	loop_unwatch(&dial->step);
	if (err)
		try_next(dial, err);
	else
		finish(dial);
	return G_SOURCE_REMOVE;
}

/* The next TCP address; @err is why the one before would not do. */
static void try_next(struct channel_dial *dial, int err)
{
	while (dial->next) {
		const struct addrinfo *ai = dial->next;

		dial->next = ai->ai_next;
		fd_close(&dial->fd);
		dial->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (dial->fd >= 0 && connect(dial->fd, ai->ai_addr, ai->ai_addrlen) == 0) {
			finish(dial);
			return;
		}
		err = errno;
		if (dial->fd >= 0 && err == EINPROGRESS) {
			dial->step = loop_watch_fd(NULL, dial->fd, G_IO_OUT, attempt_over, dial);
			return;
		}
	}
	fail(dial, err);
}

static void resolved(void *opaque, struct addrinfo *list, const GError *error)
{
	struct channel_dial *dial = opaque;

	dial->resolve = NULL;
	dial->list = dial->next = list;
	if (error)
		dial->failure = g_error_copy(error);
	try_next(dial, ENOENT);
}

static void begin_inet(struct channel_dial *dial, const struct migration_address *address)
{
	dial->list = dial->next = resolve_now(address->host, address->port, 0);
	if (!dial->list)
		dial->resolve = resolve_start(address->host, address->port, 0, resolved, dial,
					      &dial->failure);
	if (!dial->resolve)
		try_next(dial, ENOENT);
}

/* A full queue is as good as a slow peer. */
static gboolean try_unix(void *opaque)
{
	struct channel_dial *dial = opaque;

	loop_unwatch(&dial->step);
	if (connect(dial->fd, (struct sockaddr *)&dial->sun, sizeof(dial->sun)) == 0)
		finish(dial);
	else if (errno == EAGAIN)
		dial->step = loop_after_ms(QUEUE_FULL_MS, try_unix, dial);
	else
		fail(dial, errno);
	return G_SOURCE_REMOVE;
}

static void begin_unix(struct channel_dial *dial, const struct migration_address *address)
{
	dial->sun.sun_family = AF_UNIX;
	g_strlcpy(dial->sun.sun_path, address->path, sizeof(dial->sun.sun_path));
	dial->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (dial->fd < 0)
		fail(dial, errno);
	else
		try_unix(dial);
}

static void begin_inherited(struct channel_dial *dial, const struct migration_address *address)
{
	dial->fd = channel_inherited_socket(address, &dial->failure);
	if (dial->fd >= 0 && !fd_set_nonblock(dial->fd, true))
		error_set_errno(&dial->failure, errno, "cannot make file descriptor %s nonblocking",
				address->fd_name);
	finish(dial);
}

bool channel_dial_take(struct channel_dial *dial, int *fd, GError **error)
{
	if (!dial->over)
		return false;
	*fd = dial->failure ? -1 : fd_steal(&dial->fd);
	if (dial->failure)
		g_propagate_error(error, g_steal_pointer(&dial->failure));
	channel_dial_free(dial);
	return true;
}

static char *name_of(const struct migration_address *address)
{
	if (address->transport == MIGRATION_INET)
		return g_strdup_printf("%s:%s", address->host, address->port);
	return g_strdup(address->path);
}

struct channel_dial *channel_connect(const struct migration_address *address, uint32_t timeout_ms,
				     channel_connected_fn done, void *opaque)
{
	struct channel_dial *dial = g_new0(struct channel_dial, 1);

	dial->done = done;
	dial->opaque = opaque;
	dial->fd = -1;
	dial->where = name_of(address);
	dial->timer = loop_after_ms(timeout_ms, too_late, dial);
	switch (address->transport) {
	case MIGRATION_UNIX:
		begin_unix(dial, address);
		return dial;
	case MIGRATION_INET:
		begin_inet(dial, address);
		return dial;
	case MIGRATION_FD:
		begin_inherited(dial, address);
		return dial;
	case MIGRATION_FILE:
		error_set_generic(&dial->failure,
				  "Migration requires streamable transport (eg unix)");
		break;
	case MIGRATION_EXEC:
		error_set_generic(&dial->failure, "exec: is not offered as a channel of this mode; "
						  "use unix: or tcp:");
		break;
	}
	finish(dial);
	return dial;
}
