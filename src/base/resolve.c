// Names of hosts, looked up on a thread, so that nobody waits for a name server.
// SPDX-License-Identifier: Apache-2.0
#include "base/resolve.h"

#include <stdbool.h>

#include "base/error.h"
#include "base/loop.h"

/**
 * struct resolve - See resolve.h
 * @cancelled:	Nobody waits any more; the main thread's, as is everything but @list and @result
 *		until the thread has told the main loop
 */
struct resolve {
	char *host;
	char *port;
	int flags;
	resolve_done_fn done;
	void *opaque;
	bool cancelled;
	int result;
	struct addrinfo *list;
};

static int look_up(const char *host, const char *port, int flags, struct addrinfo **list)
{
	struct addrinfo hints = {.ai_flags = flags | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};

	*list = NULL;
	return getaddrinfo(host && *host ? host : NULL, port, &hints, list);
}

struct addrinfo *resolve_now(const char *host, const char *port, int flags)
{
	struct addrinfo *list;

	return look_up(host, port, flags | AI_NUMERICHOST, &list) == 0 ? list : NULL;
}

/* In the main thread, at the end. */
static void resolved(void *opaque)
{
	struct resolve *resolve = opaque;
	g_autoptr(GError) error = NULL;

	if (resolve->result != 0)
		error_set_generic(&error, "address resolution failed for %s:%s: %s", resolve->host,
				  resolve->port, gai_strerror(resolve->result));
	if (!resolve->cancelled)
		resolve->done(resolve->opaque, resolve->list, error);
	else if (resolve->list)
		freeaddrinfo(resolve->list);
	g_free(resolve->host);
	g_free(resolve->port);
	g_free(resolve);
}

static gpointer resolve_thread(gpointer opaque)
{
	struct resolve *resolve = opaque;

	resolve->result = look_up(resolve->host, resolve->port, resolve->flags, &resolve->list);
	loop_call_later(resolved, resolve);
	return NULL;
}

struct resolve *resolve_start(const char *host, const char *port, int flags, resolve_done_fn done,
			      void *opaque, GError **error)
{
	struct resolve *resolve = g_new0(struct resolve, 1);
	g_autoptr(GError) why = NULL;
	GThread *thread;

	resolve->host = g_strdup(host ? host : "");
	resolve->port = g_strdup(port);
	resolve->flags = flags;
	resolve->done = done;
	resolve->opaque = opaque;
	thread = g_thread_try_new("resolve", resolve_thread, resolve, &why);
	if (thread) {
		g_thread_unref(thread);
		return resolve;
	}
	error_set_generic(error, "cannot look up '%s': %s", resolve->host, why->message);
	g_free(resolve->host);
	g_free(resolve->port);
	g_free(resolve);
	return NULL;
}

void resolve_cancel(struct resolve *resolve)
{
	if (resolve)
		resolve->cancelled = true;
}
