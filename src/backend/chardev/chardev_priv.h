// struct chardev, for the files that make up the chardevs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>
#include <glib.h>

#include "backend/chardev/chardev.h"
#include "backend/chardev/sink.h"
#include "base/log.h"
#include "state/state.h"

#define CHARDEV_MAX_LINKS 4

/* The logfile's name in the fd registry, after the chardev's. */
#define CHARDEV_LOG_FD "log"

/* Typed ahead for each frontend of a multiplexed chardev. */
#define CHARDEV_MUX_BYTES 256

/* What chardev_write_all() keeps before it gives up on a peer. */
#define CHARDEV_PENDING_BYTES (16U << 20)

/* What chardev_write_some() keeps before it drops. */
#define CHARDEV_KEPT_BYTES (64U << 10)

/* What of output crosses an update: all of it, but what a monitor's client left unread. */
#define CHARDEV_UNSENT_BYTES (128U << 10)
#define CHARDEV_LOG_BYTES    (32U << 10)

/** enum chardev_keep - What becomes of output that there is no room for */
enum chardev_keep {
	CHARDEV_KEEP_NONE, /* the frontend keeps it */
	CHARDEV_KEEP_SOME, /* the chardev keeps some, and drops the rest */
	CHARDEV_KEEP_ALL,  /* the chardev keeps it, or disconnects the peer */
};

/**
 * struct chardev_state - What survives beside descriptors
 * @mux_focus:	Which frontend gets the input
 * @mux_escape:	Ctrl-A was typed, the next byte is a command
 * @has_termios: @termios holds the terminal's modes from before we changed them
 * @unsent_lost: more than @unsent has room for was waiting: the connection must end
 * @n_mux_in:	Bytes of @mux_in per frontend
 * @mux_in:	Input typed for a frontend that did not take it yet, CHARDEV_MUX_BYTES for each
 * @unsent:	Output not yet taken by the peer
 * @lost_bytes:	Output dropped so far
 * @log_unsent:	Output not yet in the logfile
 */
struct chardev_state {
	uint32_t mux_focus;
	bool mux_escape;
	bool has_termios;
	bool unsent_lost;
	uint8_t pad[1];
	uint32_t n_mux_in[CHARDEV_MAX_LINKS];
	uint8_t mux_in[CHARDEV_MAX_LINKS * CHARDEV_MUX_BYTES];
	struct termios termios;
	uint32_t n_unsent;
	uint8_t unsent[CHARDEV_UNSENT_BYTES];
	uint64_t lost_bytes;
	uint32_t n_log_unsent;
	uint8_t log_unsent[CHARDEV_LOG_BYTES];
	uint8_t pad1[4];
};

/** struct chardev_link - One frontend; @told: it was last told that a peer is there */
struct chardev_link {
	struct chardev *chardev;
	const struct chardev_frontend *frontend;
	void *opaque;
	bool told;
};

/**
 * struct chardev_kind_ops - What a kind provides; every entry but @name and @open is optional
 * @name:	Also the default filename in query-chardev
 * @preservable: its descriptors can cross an update
 * @open:	Open or inherit; calls chardev_set_peer() if somebody is there already
 * @resume:	Begin to accept, connect, look for a peer
 * @quiesce:	Stop that
 * @hangup:	The peer is gone (core has dropped the watches): close and, unless quiesced, await
 *		the next one.  Without it the descriptors stay open, unused
 * @close:	Undo @open.  @owner: this process is the last to use it, so remove what is left
 *		behind
 * @write:	Instead of writing to out_fd; lock held
 * @filename:	For query-chardev; the caller's
 */
struct chardev_kind_ops {
	const char *name;
	bool preservable;
	bool (*open)(struct chardev *chardev, GError **error);
	void (*resume)(struct chardev *chardev);
	void (*quiesce)(struct chardev *chardev);
	void (*hangup)(struct chardev *chardev);
	void (*close)(struct chardev *chardev, bool owner);
	ssize_t (*write)(struct chardev *chardev, const uint8_t *buf, size_t len);
	char *(*filename)(struct chardev *chardev);
};

/**
 * struct chardev - See chardev.h
 * @config:	A copy of its own
 * @prefix:	Of its names in the fd registry: "chardev/<id>"
 * @fds:	NULL: what it has does not cross
 * @paths:	Where paths are known that it has made
 * @lock:	Guards what follows it up to @kick: the output side, and what wakes the main thread
 * @in_fd, @out_fd: may be the same; closed under @lock, by the main thread
 * @sink:	where writes to out_fd may block: what writes instead.  Else NULL
 * @log_sink:	the same for log_fd
 * @connected:	a peer is there
 * @lost:	a write found it gone; the main thread has yet to act
 * @lost_bytes:	dropped so far, but for what the sinks dropped
 * @failing:	the log has it that output is dropped
 * @closing:	the peer will send no more; hang up when @pending has drained
 * @want_room:	chardev_write() took less than given
 * @input_blocked: a frontend takes nothing now
 * @pending:	output waiting for room, from @pending_start
 * @kick:	runs chardev_woken(); one source, however often it is asked for
 * @stall:	the same, later: when a sink without room may have stalled
 * @quiesced, @started: see chardev.h; @started: resumed at least once
 * @inherited:	its descriptors came from a predecessor
 * @input_over:	end of file on in_fd
 * @terminal:	the peer is a terminal in raw mode
 * @priv:	the kind's own
 */
struct chardev {
	const struct chardev_kind_ops *ops;
	struct chardev_config config;
	char *prefix;
	struct fd_source *fds;
	struct fd_source *paths;

	GMutex lock;
	int in_fd, out_fd, log_fd;
	struct sink *sink, *log_sink;
	bool connected;
	bool lost;
	uint64_t lost_bytes;
	bool failing;
	struct log_limit log;
	bool closing;
	bool want_room;
	bool input_blocked;
	GByteArray *pending;
	size_t pending_start;
	GSource *out_watch;
	GSource *kick, *stall;

	bool quiesced;
	bool started;
	bool disowned;
	bool inherited;
	bool input_over;
	bool terminal;
	GSource *in_watch;
	struct chardev_link *links[CHARDEV_MAX_LINKS];
	unsigned int n_links;
	char *filename;
	void (*on_quit)(void *opaque);
	void *on_quit_opaque;
	struct chardev_state *state;
	void *priv;
};

/**
 * struct chardev_reopening - A client with reopen-on-cpr, to be connected anew for an exec
 *
 * Independent of its chardev, which may go meanwhile.
 */
struct chardev_reopening;

/** chardev_reopening_new() - Return: NULL for all others, and for one that reconnects by itself. */
struct chardev_reopening *chardev_reopening_new(const struct chardev *chardev);
void chardev_reopening_free(struct chardev_reopening *reopening);

/** chardev_reopening_connect() - Connect.  Context: any thread; waits for names and for the peer. */
bool chardev_reopening_connect(struct chardev_reopening *reopening, GError **error);

/** chardev_reopening_offer() - Put the connection into @store, as the chardev's. */
bool chardev_reopening_offer(const struct chardev_reopening *reopening, struct fdstore *store,
			     GError **error);

/** chardev_new_in() - chardev_new() with another first part of its names than "chardev/". */
struct chardev *chardev_new_in(const char *prefix, const struct chardev_config *config,
			       struct fd_source *fds, GError **error);

/* ---- for kinds ---- */

/** chardev_fd_name() - "chardev/<id>/<what>"; the caller's. */
char *chardev_fd_name(const struct chardev *chardev, const char *what);

/** chardev_acquire() - fd_acquire() of "<prefix>/<what>", noting whether it was inherited. */
int chardev_acquire(struct chardev *chardev, const char *what, enum fd_kind kind,
		    fd_open_fn *open_fn, GError **error);

/** chardev_inherit() - fd_inherit() of "<prefix>/<what>". */
int chardev_inherit(struct chardev *chardev, const char *what, enum fd_kind kind, GError **error);

/** chardev_publish(), chardev_withdraw() - The same for fd_publish() and fd_withdraw(). */
bool chardev_publish(struct chardev *chardev, const char *what, enum fd_kind kind, int fd,
		     GError **error);
void chardev_withdraw(struct chardev *chardev, const char *what);

/** chardev_set_peer() - A peer is there, reached through these (both taken; may be the same). */
void chardev_set_peer(struct chardev *chardev, int in_fd, int out_fd);

/** chardev_close_fds() - Close in_fd and out_fd. */
void chardev_close_fds(struct chardev *chardev);

/** chardev_hangup() - The peer is gone; main thread. */
void chardev_hangup(struct chardev *chardev);

/** chardev_notify() - Tell each frontend what it has not been told yet about the peer. */
void chardev_notify(struct chardev *chardev);

/** chardev_poll_input() - Watch in_fd if and only if input has somewhere to go. */
void chardev_poll_input(struct chardev *chardev);

/* ---- output (output.c) ---- */

/** chardev_wake() - Have chardev_woken() called in the main thread; lock held. */
void chardev_wake(struct chardev *chardev);

/** chardev_woken() - Look at @lost, @input_blocked, and at frontends that are to be told. */
gboolean chardev_woken(void *opaque);

/** chardev_output_start(), chardev_output_stop() - Begin and stop waiting for room. */
void chardev_output_start(struct chardev *chardev);
void chardev_output_stop(struct chardev *chardev);

/** chardev_output_drop() - Forget @pending; lock held. */
void chardev_output_drop(struct chardev *chardev);

/** chardev_output() - Lock taken: write what can be written, do with the rest as @keep says. */
size_t chardev_output(struct chardev *chardev, const uint8_t *buf, size_t len,
		      enum chardev_keep keep);

/** chardev_drop() - Count @len bytes of output that are lost to @why, and say so; lock held. */
void chardev_drop(struct chardev *chardev, size_t len, const char *why);

/** chardev_open_sinks() - For what was opened and may block; ends with chardev_close_sinks(). */
bool chardev_open_sinks(struct chardev *chardev, GError **error);
void chardev_close_sinks(struct chardev *chardev, bool flush);

/* ---- the multiplexer (mux.c) ---- */

/** mux_room() - How many bytes of input can be taken, whatever is in them. */
size_t mux_room(const struct chardev *chardev);

/** mux_receive() - Carry out what was typed after Ctrl-A, keep the rest for who has the focus. */
void mux_receive(struct chardev *chardev, const uint8_t *buf, size_t len);

/** mux_deliver() - Give frontends what is kept for them.  Return: whether they took all of it. */
bool mux_deliver(struct chardev *chardev);

/** mux_forget() - Frontend @index is about to go; those after it move up. */
void mux_forget(struct chardev *chardev, unsigned int index);

/* ---- kinds ---- */

extern const struct chardev_kind_ops chardev_null_ops, chardev_file_ops, chardev_pipe_ops,
	chardev_serial_ops, chardev_parallel_ops, chardev_ringbuf_ops;	 /* kinds.c */
extern const struct chardev_kind_ops chardev_stdio_ops, chardev_pty_ops; /* terminal.c */
extern const struct chardev_kind_ops chardev_socket_ops;		 /* socket.c */
