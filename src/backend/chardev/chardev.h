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
	CHARDEV_BREAK, /* the person at a multiplexed chardev typed Ctrl-A b */
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

/**
 * DOC: Theory of operation
 *
 * A chardev begins its life quiesced: chardev_new() opens it, or takes over the predecessor's
 * descriptors, and chardev_resume() lets it read, accept and say CHARDEV_OPENED for the first time.
 * What is written before that is kept.
 *
 * Each kind (socket, pty, ...) is a row of function pointers; chardev.c has what all kinds share:
 * frontends, the lock, output that waits for room, flow control of input, the multiplexer.
 *
 * The main thread reads, connects and closes.  Any thread may write: a lock of the chardev's own
 * guards the output side.  No frontend is ever called with that lock held, so a frontend may write
 * while it holds its own.  When a write finds that the peer has gone, the main thread is woken to
 * tell the frontends.
 *
 * No write blocks.  What may block in spite of O_NONBLOCK, or cannot have that flag, is a sink's
 * (sink.h), which says what it costs when it is slow, full or failing.  Other peers hold frontends
 * back: chardev_write() takes less than it was given, and @writable tells when there is room.  A
 * peer that can go is disconnected when a write fails; what has nobody to disconnect (a tty, a FIFO)
 * loses what was written, is tried again with the next write, and the loss is counted and told.
 *
 * Descriptors live in the fd registry under "chardev/<id>/..."; those of chardevs that only
 * monitors use under "monitor/<id>/...", which a transfer leaves behind.  O_NONBLOCK belongs to the
 * open file and is set once, when it is opened: a predecessor may share it.  Terminals and pipes
 * that come from outside are opened again through /proc for that reason.
 *
 * Ownership: a process that inherited a chardev and never resumed it, or that called
 * chardev_disown(), lets go without a trace: no path is removed, no connection shut down, no
 * terminal mode restored.
 */

/** struct chardev - One chardev; kinds are rows of kinds[] in chardev.c */
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

/**
 * chardev_free() - Close it and withdraw its descriptors; accepts NULL
 *
 * Frontends still attached are detached without a word.  Not from within one of their callbacks.
 */
void chardev_free(struct chardev *chardev);
DEFINE_CLEANUP(chardev, chardev_free)

/**
 * chardev_disown() - Another process goes on with it: close the descriptors and leave no trace
 *
 * After a committed transfer.  Frontends stay attached to a chardev on which nobody is connected.
 */
void chardev_disown(struct chardev *chardev);

/** chardev_on_quit() - Call @fn(@opaque) when the person at a multiplexed chardev types Ctrl-A x.
 */
void chardev_on_quit(struct chardev *chardev, void (*fn)(void *opaque), void *opaque);

/**
 * chardev_attach() - Connect a frontend
 *
 * No callback runs in it: of a peer that is there already the frontend hears from the main loop, or
 * in chardev_resume().
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

/**
 * chardev_write_some() - chardev_write(), keeping some of what the peer does not take, not all
 *
 * For output that cannot be held back.  Beyond 64 KiB it is dropped and counted.
 */
void chardev_write_some(struct chardev_link *link, const uint8_t *buf, size_t len);

/**
 * chardev_backlog() - Whether more than @max_bytes of output wait for the peer
 *
 * Then the frontend's writable() is called when all have been taken.
 */
bool chardev_backlog(struct chardev_link *link, size_t max_bytes);

/**
 * chardev_flush() - Wait until what chardev_write_all() kept has been taken
 * @deadline_ns: on clock_now_ns()'s clock; what is left then stays where it is
 */
void chardev_flush(struct chardev_link *link, uint64_t deadline_ns);

/** chardev_accept_input() - The frontend's can_receive() has grown; any thread. */
void chardev_accept_input(struct chardev_link *link);

/** chardev_link_connected() - Whether a peer is there. */
bool chardev_link_connected(const struct chardev_link *link);

/**
 * chardev_link_continues() - Whether the peer is one that a predecessor had
 *
 * Before the first chardev_resume().
 */
bool chardev_link_continues(const struct chardev_link *link);

/** chardev_link_has_focus() - Whether input goes to this frontend: always, unless multiplexed. */
bool chardev_link_has_focus(const struct chardev_link *link);

/** chardev_link_is_terminal() - Whether the peer is a terminal in raw mode (stdio, pty, tty). */
bool chardev_link_is_terminal(const struct chardev_link *link);

/** chardev_id(), chardev_filename() - query-chardev's label and filename (owned by the chardev). */
const char *chardev_id(const struct chardev *chardev);
const char *chardev_filename(struct chardev *chardev);
bool chardev_frontend_open(const struct chardev *chardev);

/** chardev_lost_bytes() - How much output neither the peer, nor the file, nor the logfile got. */
uint64_t chardev_lost_bytes(struct chardev *chardev);

/**
 * chardev_preservable() - Whether it can cross an update: by its kind, or by reopen-on-cpr
 * Return: false with @error naming the chardev and the remedy.
 */
bool chardev_preservable(const struct chardev *chardev, GError **error);

/**
 * chardev_quiesce(), chardev_resume() - Stop and restart reading and accepting
 *
 * Between them no callback runs and no byte is lost: input stays in the kernel.  Pending output of
 * chardev_write_all() is flushed, or kept in chardev_state().
 */
void chardev_quiesce(struct chardev *chardev);
void chardev_resume(struct chardev *chardev);

/**
 * chardev_state(), chardev_state_desc - What survives beside descriptors (mux focus, unsent output)
 *
 * The state struct is captured by chardev_quiesce(); loading it takes effect in chardev_resume().
 */
extern const struct state_desc chardev_state_desc;
void *chardev_state(struct chardev *chardev);

/**
 * chardev_ringbuf_read() - Take up to @max bytes of the oldest output out of a ringbuf
 * Return: the caller's; NULL with @error set if @chardev is of another kind.
 */
GByteArray *chardev_ringbuf_read(struct chardev *chardev, size_t max, GError **error);

/** chardev_ringbuf_write() - Put bytes into a ringbuf as if they were output. */
bool chardev_ringbuf_write(struct chardev *chardev, const uint8_t *buf, size_t len, GError **error);
