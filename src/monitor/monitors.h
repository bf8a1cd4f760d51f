// The monitors of a process: sessions on chardevs, and what they all are told.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "cpr/update.h"

/**
 * DOC: Theory of operation
 *
 * A session is one -mon: a QMP or HMP protocol engine as the frontend of a chardev.  A chardev that
 * only monitors use is opened here; one that is shared with a device (mux=on) comes from the
 * machine, as soon as there is one.
 *
 * Commands are rows of tables (monitor/command.h).  A session turns its input into a row and
 * arguments, and the result back into bytes; that is all it does.  What happens by itself reaches
 * every session as an event.
 *
 * Over an exec the sessions go on: the chardev's connection crosses as a descriptor, and what the
 * session knows (negotiated, half a command) as a described struct in the stream of struct
 * update_extra.  Saving stops the input; where the update fails, the update front tells that it
 * has ended, and they go on.  Over a transfer the old
 * process keeps its sessions, and the new one has those of its command line.
 *
 * Context: main thread for everything.
 */
struct monitors;

/**
 * monitors_new() - Open every monitor of the configuration; silent until monitors_start()
 * @update:	Outlives the monitors
 * @quit:	Called by quit when its reply is on its way, and by Ctrl-A x on a multiplexed chardev:
 *		end with QMP's SHUTDOWN reason @reason.
 *		With a machine that is machine_shutdown(), without one the end of the main loop
 *
 * After update_new() and before update_start().  In a process that goes on with a predecessor's
 * guest a monitor that cannot be opened is logged and left out.
 * Return: NULL with @error set.
 */
struct monitors *monitors_new(struct update *update, void (*quit)(void *opaque, const char *reason),
			      void *opaque, GError **error);

/** monitors_start() - Greet who is there, take input.  After update_start(). */
void monitors_start(struct monitors *monitors);

/** monitors_free() - Flush and close; accepts NULL.  Before update_free(). */
void monitors_free(struct monitors *monitors);
DEFINE_CLEANUP(monitors, monitors_free)

/**
 * monitors_emit() - Tell every session that negotiated of the QMP event @name; @data borrowed
 * monitors_deliver() - Now, before something else is said
 *
 * Ordinarily it is delivered from the main loop: what happens in the pause of an update is not
 * written to sockets in it.
 */
void monitors_emit(struct monitors *monitors, const char *name, json_t *data);
void monitors_deliver(struct monitors *monitors);

/** monitors_update() - The update front they were made with. */
struct update *monitors_update(struct monitors *monitors);

/** monitors_look() - Soon let sessions go on that wait for an update, if none is in progress. */
void monitors_look(struct monitors *monitors);

/** monitors_request_quit() - What the quit command does after its reply. */
void monitors_request_quit(struct monitors *monitors);
