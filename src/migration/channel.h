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

/** typedef channel_accepted_fn - Somebody has connected: @fd is nonblocking, and taken. */
typedef void (*channel_accepted_fn)(void *opaque, int fd);

/**
 * struct channel_listener - A listening socket of ours
 * @fd:		Nonblocking
 * @made:	UNIX socket path that was bound, nothing for other kinds
 * @accepted, @opaque: See channel_listener_start()
 * @watch:	Waits for a connection, or until there may be a descriptor for it
 * @short_of:	There was none, and that has been logged
 */
struct channel_listener {
	int fd;
	struct file_made made;
	channel_accepted_fn accepted;
	void *opaque;
	GSource *watch;
	bool short_of;
};

/**
 * channel_listen() - Listen on a UNIX, inherited, or TCP socket whose host is given by number
 *
 * A UNIX socket is made with mode 0600.  A path that nobody listens on any more is reused; one that
 * somebody listens on is refused.
 * Return: NULL with @error set.
 */
struct channel_listener *channel_listen(const struct migration_address *address, GError **error);

/** channel_has_name() - Whether a name has to be looked up first: channel_listen_name(). */
bool channel_has_name(const struct migration_address *address);

/** typedef channel_listening_fn - @listener is taken; NULL with @error (borrowed). */
typedef void (*channel_listening_fn)(void *opaque, struct channel_listener *listener,
				     const GError *error);

struct channel_naming;

/**
 * channel_listen_name() - The same for a host's name, without waiting for a name server
 * @address:	Borrowed until the end
 * @done:	Called once from the main loop, unless channel_naming_free() comes before; may call that
 *
 * Return: to be freed with channel_naming_free(); NULL with @error set.
 */
struct channel_naming *channel_listen_name(const struct migration_address *address,
					   channel_listening_fn done, void *opaque, GError **error);
void channel_naming_free(struct channel_naming *naming);

/**
 * channel_listener_start() - Call @accepted for each connection, from the main loop
 *
 * Where there is no descriptor for one (EMFILE, ENFILE, no memory) it stays in the queue for a while.
 */
void channel_listener_start(struct channel_listener *listener, channel_accepted_fn accepted,
			    void *opaque);

/** channel_listener_free() - Close, and unlink the path if it is still ours; accepts NULL. */
void channel_listener_free(struct channel_listener *listener);
DEFINE_CLEANUP(channel_listener, channel_listener_free)

/** channel_listener_address() - query-migrate's socket-address entry; owned by the caller. */
json_t *channel_listener_address(const struct channel_listener *listener);

/**
 * channel_accept() - Take one connection if there is one
 * Return: a nonblocking descriptor, -1 with @error set, or -1 without when nobody is there.
 */
int channel_accept(struct channel_listener *listener, GError **error);

/** typedef channel_connected_fn - @fd is nonblocking, and taken; -1 with @error (borrowed). */
typedef void (*channel_connected_fn)(void *opaque, int fd, const GError *error);

struct channel_dial;

/**
 * channel_connect() - Connect to a UNIX or TCP address, or take an inherited descriptor
 * @timeout_ms:	For all of it: looking up a name, each of its addresses
 * @done:	Called once from the main loop, also if nothing has to be waited for, unless
 *		channel_dial_free() comes before; may call that
 *
 * Nothing in it blocks.  Return: to be freed with channel_dial_free().
 */
struct channel_dial *channel_connect(const struct migration_address *address, uint32_t timeout_ms,
				     channel_connected_fn done, void *opaque);

/**
 * channel_dial_take() - Right after channel_connect(): the result, if nothing had to be waited for
 * @fd:		Set as for @done, which is not called then
 *
 * Return: whether there is one; @dial is freed then.
 */
bool channel_dial_take(struct channel_dial *dial, int *fd, GError **error);

/** channel_dial_free() - Accepts NULL. */
void channel_dial_free(struct channel_dial *dial);

/** channel_inherited_socket() - For channel_connect(): a duplicate of the socket that @address names. */
int channel_inherited_socket(const struct migration_address *address, GError **error);

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
