// Channels: sockets and files that an address names, opened, listened on and read with deadlines.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "migration/address.h"

/**
 * struct channel_listener - A listening socket of ours
 * @fd:		Nonblocking
 * @made:	UNIX socket path that was bound, nothing for other kinds
 */
struct channel_listener {
	int fd;
	struct file_made made;
};

/**
 * channel_listen() - Listen on a UNIX, TCP or inherited socket
 *
 * A UNIX socket is made with mode 0600.  A path that nobody listens on any more is reused; one that
 * somebody listens on is refused.
 * Return: NULL with @error set.
 */
struct channel_listener *channel_listen(const struct migration_address *address, GError **error);

/** channel_listener_free() - Close, and unlink the path if it is still ours; accepts NULL. */
void channel_listener_free(struct channel_listener *listener);
DEFINE_CLEANUP(channel_listener, channel_listener_free)

/** channel_listener_address() - query-migrate's socket-address entry; owned by the caller. */
json_t *channel_listener_address(const struct channel_listener *listener);

/**
 * channel_accept() - Take one connection if there is one
 * Return: a nonblocking descriptor, -1 with @error set, or -1 without when nobody is there.
 */
int channel_accept(const struct channel_listener *listener, GError **error);

/**
 * channel_connect() - Connect to a UNIX or TCP address, or take an inherited descriptor
 * @deadline_ns: clock_now_ns() time by which the connection must stand
 * Return: a nonblocking descriptor owned by the caller, -1 with @error set.
 */
int channel_connect(const struct migration_address *address, uint64_t deadline_ns, GError **error);

/**
 * channel_create_file() - Open a file for a state stream by the rule of base/file.h, cut to the offset
 * @made:	Filled if the file was not there before; the caller removes or forgets it
 *
 * A FIFO or a device is opened nonblocking.
 * Return: a descriptor that stands at the offset, -1 with @error set and nothing left behind.
 */
int channel_create_file(const struct migration_address *address, struct file_made *made,
			GError **error);

/** channel_open_file() - Open a file with a state stream, at the offset. */
int channel_open_file(const struct migration_address *address, GError **error);

/**
 * channel_write() - Write everything before @deadline_ns (0: no limit); never raises SIGPIPE
 * Return: false with @error set, MOLT_ERROR_TIMEOUT when the reader does not keep up.
 */
bool channel_write(int fd, const void *data, size_t len, uint64_t deadline_ns, GError **error);

/**
 * channel_read_state() - Read one state stream, as long as its header says it is
 * Return: a new reference, NULL with @error set when it is cut short, damaged or too long.
 */
GBytes *channel_read_state(int fd, uint64_t deadline_ns, GError **error);
