// Character devices: byte streams between a frontend (UART, console, monitor) and the host.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"
#include "options/config.h"
#include "state/fd_acquire.h"

/** enum chardev_event - What a frontend is told beside data */
enum chardev_event {
	CHARDEV_OPENED, /* a peer is there now (sockets: accepted or connected) */
	CHARDEV_CLOSED, /* it went away */
	CHARDEV_MUX_IN, /* a multiplexed chardev gave this frontend the focus */
	CHARDEV_MUX_OUT,
};

/**
 * struct chardev_frontend - What uses a chardev
 * @can_receive: how many bytes it takes now; 0 stops reading until chardev_accept_input()
 * @receive:	@len bytes arrived, at most what @can_receive said
 * @event:	optional
 * @writable:	optional: chardev_write() took less than it was given; now there is room again
 *
 * Context: main thread.
 */
struct chardev_frontend {
	size_t (*can_receive)(void *opaque);
	void (*receive)(void *opaque, const uint8_t *buf, size_t len);
	void (*event)(void *opaque, enum chardev_event event);
	void (*writable)(void *opaque);
};

/** struct chardev - One chardev (chardev.c); kinds are the rows of a table in kinds.c */
struct chardev;

/**
 * chardev_new() - Open a chardev, or go on with the predecessor's descriptors
 * @fds: "chardev/<id>/listener", "chardev/<id>/connection", "chardev/<id>/file", ... (at a takeover
 *	 they are in its inherited store).  Outlives the chardev
 *
 * With server=on,wait=on the call blocks until a client is there, unless one was inherited.
 * Return: NULL with @error set.
 */
struct chardev *chardev_new(const struct chardev_config *config, struct fd_source *fds,
			    GError **error);

/** chardev_free() - Close it and withdraw its descriptors; accepts NULL. */
void chardev_free(struct chardev *chardev);
DEFINE_CLEANUP(chardev, chardev_free)

/**
 * chardev_attach() - Connect a frontend; a peer already there gives CHARDEV_OPENED at once
 *
 * One frontend per chardev; up to four on a multiplexed one (mux=on), which share its output and
 * take turns in its input (Ctrl-A c).  Return: a handle for the calls below, NULL with @error set.
 */
struct chardev_link *chardev_attach(struct chardev *chardev,
				    const struct chardev_frontend *frontend, void *opaque,
				    GError **error);
void chardev_detach(struct chardev_link *link);

/**
 * chardev_write() - Send to the peer without blocking; any thread
 * Return: bytes taken: all of them when nobody is connected (as if the cable were unplugged).
 */
size_t chardev_write(struct chardev_link *link, const uint8_t *buf, size_t len);

/**
 * chardev_write_all() - chardev_write(), keeping what the peer does not take yet in a buffer
 *
 * For monitors.  A peer that leaves more than 16 MiB unread is disconnected.
 */
void chardev_write_all(struct chardev_link *link, const uint8_t *buf, size_t len);

/** chardev_accept_input() - The frontend's can_receive() has grown; any thread. */
void chardev_accept_input(struct chardev_link *link);

/** chardev_link_connected() - Whether a peer is there. */
bool chardev_link_connected(const struct chardev_link *link);

/** chardev_link_is_terminal() - Whether the peer is a terminal in raw mode (stdio, pty, tty). */
bool chardev_link_is_terminal(const struct chardev_link *link);

/** chardev_id(), chardev_filename() - query-chardev's label and filename (owned by the chardev). */
const char *chardev_id(const struct chardev *chardev);
const char *chardev_filename(struct chardev *chardev);
bool chardev_frontend_open(const struct chardev *chardev);

/**
 * chardev_preservable() - Whether it can cross an update: by its kind, or by reopen-on-cpr
 * Return: false with @error naming the chardev and the remedy.
 */
bool chardev_preservable(const struct chardev *chardev, GError **error);

/**
 * chardev_quiesce(), chardev_resume() - Stop and restart reading and accepting
 *
 * Between them no callback runs and no byte is lost: input stays in the kernel.  Pending output of
 * chardev_write_all() is flushed, or kept for chardev_pending() to carry it over.
 */
void chardev_quiesce(struct chardev *chardev);
void chardev_resume(struct chardev *chardev);

/**
 * chardev_state(), chardev_state_desc() - What survives beside descriptors (mux focus, unsent
 * output)
 *
 * The state struct is captured by chardev_quiesce(); loading it takes effect in chardev_resume().
 */
extern const struct state_desc chardev_state_desc;
void *chardev_state(struct chardev *chardev);
