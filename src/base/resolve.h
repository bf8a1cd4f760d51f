// Names of hosts, looked up on a thread, so that nobody waits for a name server.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netdb.h>
#include <glib.h>

/**
 * typedef resolve_done_fn - The end of a look-up, from the main loop
 * @list:	To be freed with freeaddrinfo(); NULL with @error (borrowed)
 */
typedef void (*resolve_done_fn)(void *opaque, struct addrinfo *list, const GError *error);

/**
 * resolve_now() - Addresses of stream sockets, where no name server has to be asked
 * @host:	"" or NULL: the wildcard or the loopback address, by @flags
 * @flags:	AI_PASSIVE or 0
 *
 * Return: NULL if @host is a name, or nothing at all.
 */
struct addrinfo *resolve_now(const char *host, const char *port, int flags);

/** struct resolve - A look-up under way */
struct resolve;

/**
 * resolve_start() - Look up what resolve_now() cannot tell
 * @done:	Called once, unless resolve_cancel() comes before
 *
 * Return: NULL with @error set if there can be no thread.
 */
struct resolve *resolve_start(const char *host, const char *port, int flags, resolve_done_fn done,
			      void *opaque, GError **error);

/** resolve_cancel() - Forget it; the thread ends when the name server answers.  Not after @done;
 * accepts NULL. */
void resolve_cancel(struct resolve *resolve);
