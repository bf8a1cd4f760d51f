// Connecting to a UNIX or TCP address without waiting: names and connections in a thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

/** CONNECT_MS - A connection that is not there after so long is given up */
#define CONNECT_MS 10000

/**
 * struct connect_attempt - One attempt, made by a thread of its own
 *
 * What it waits for (a name server, a peer behind a firewall) it waits for alone; whoever made it
 * polls its descriptor, or forgets it at any time.
 */
struct connect_attempt;

/**
 * connect_begin() - Try to connect
 * @path:	UNIX socket; NULL: @host and @port, a number or a service's name
 * Return: to be ended with connect_end() or connect_cancel(); NULL with @error set.
 */
struct connect_attempt *connect_begin(const char *path, const char *host, const char *port,
				      GError **error);

/** connect_fd() - Readable when the attempt has ended. */
int connect_fd(const struct connect_attempt *attempt);

/**
 * connect_end() - The result of an attempt that has ended; *@attempt is gone and NULL
 * Return: the connection, nonblocking and close-on-exec; -1 with @error set.
 */
int connect_end(struct connect_attempt **attempt, GError **error);

/** connect_cancel() - Forget *@attempt, whatever it does; accepts NULL there. */
void connect_cancel(struct connect_attempt **attempt);
