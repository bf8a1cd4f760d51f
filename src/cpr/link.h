// A connection that speaks frames: by callback while the guest runs, by waiting in a pause.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "cpr/frame.h"
#include "state/fdstore.h"

/**
 * struct link_handler - Who is told
 * @peer:	What messages call the other end: "the old process"
 * @message:	A whole, undamaged frame; @body is its JSON object (NULL for FRAME_STATE, then
 *		@payload holds the octets).  May free the link
 * @closed:	The peer is gone, or sent something that is not a frame: @error (borrowed).  Called
 *		once, after everything that the peer had sent was read; may free the link
 *
 * Context: main thread, from the main loop, never from inside link_send() or link_wait().
 */
struct link_handler {
	const char *peer;
	void (*message)(void *opaque, enum frame_type type, json_t *body, GBytes *payload);
	void (*closed)(void *opaque, const GError *error);
};

struct link;

/** link_new() - Speak frames over the connected nonblocking @fd, which is taken. */
struct link *link_new(int fd, const struct link_handler *handler, void *opaque);

/** link_free() - Close it; accepts NULL. */
void link_free(struct link *link);
DEFINE_CLEANUP(link, link_free)

/**
 * link_send() - Send a frame with the JSON object @body (taken; NULL is {})
 *
 * What a peer that does not read leaves no room for is sent from the main loop; that this fails is
 * told by @closed.  Return: false with @error set if the peer is gone.
 */
bool link_send(struct link *link, enum frame_type type, json_t *body, GError **error);

/** link_send_bytes() - Send a frame with octets, FRAME_STATE, in the same way. */
bool link_send_bytes(struct link *link, enum frame_type type, GBytes *payload, GError **error);

/**
 * link_flush() - Block until everything is sent, or @deadline_ns
 * Return: whether it is; what is left is still sent from the main loop.
 */
bool link_flush(struct link *link, uint64_t deadline_ns);

/** link_peer_pid() - Process id of the peer of a UNIX socket; 0 if it cannot be known. */
pid_t link_peer_pid(const struct link *link);

/** link_send_fds() - Send FRAME_FDS and the store. */
bool link_send_fds(struct link *link, const struct fdstore *store, GError **error);

/** link_receive_fds() - In the handler of FRAME_FDS: the store that follows. */
struct fdstore *link_receive_fds(struct link *link, GError **error);

/**
 * link_wait() - Block until the peer has sent a frame of @type, or @deadline_ns
 *
 * For the pause only.  FRAME_ABORT and FRAME_REFUSE become @error with the peer's text; any other
 * type is an error too.
 * Return: its body, owned by the caller.
 */
json_t *link_wait(struct link *link, enum frame_type type, uint64_t deadline_ns, GError **error);

/**
 * link_gave_up() - Whether a frame of @type with @body ends the dialogue
 * Return: true, with @error set to what the peer says, for FRAME_ABORT and FRAME_REFUSE.
 */
bool link_gave_up(const struct link *link, enum frame_type type, const json_t *body,
		  GError **error);

/**
 * link_last_words() - If the peer has sent FRAME_ABORT or FRAME_REFUSE, let @error say that instead
 *
 * Who gives up says why before it hangs up, and "Broken pipe" is no reason.  What sends over @link
 * does it when it fails; this is for when another connection of the same dialogue has.  Reads what
 * has arrived: the dialogue is over.
 */
void link_last_words(struct link *link, GError **error);

/** link_peer_trusted() - Whether the peer of a UNIX socket runs as our user or as root. */
bool link_peer_trusted(struct link *link, GError **error);

#define LINK_FDS_MS 10000

/** LINK_SWIFT_MS - How long to link_wait() in a pause before the main loop does: it is sooner so */
#define LINK_SWIFT_MS 20
