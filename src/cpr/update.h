// The front of migration and live update: what main and the monitors' migrate family call.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "backend/chardev/chardev_set.h"
#include "base/cleanup.h"
#include "machine/machine.h"
#include "options/config.h"

/**
 * struct update - This process's part in the VM's life: which machine it has, whether the guest is
 *		   its own, what is coming in or going out
 *
 * One per process, made by main.  Owns the machine, because at a takeover it is what builds it.
 * Context: main thread for everything here.
 */
struct update;

/**
 * struct update_extra - State above this layer that crosses an exec (monitor sessions)
 * @save:	Add sections; @running: for a rehearsal, nothing is stopped.  Else the guest is paused
 * @load:	Called in the new process by update_start(), before anything else; what nobody takes
 *		is dropped.  The sections are in a stream of their own, not in the VM's
 */
struct update_extra {
	bool (*save)(void *opaque, struct state_writer *writer, bool running, GError **error);
	bool (*load)(void *opaque, struct state_reader *reader, GError **error);
	void *opaque;
};

/** typedef update_event_fn - MIGRATION, MIGRATION_PASS, MIGRATION_RECORD; @data as in QMP, borrowed. */
typedef void (*update_event_fn)(void *opaque, const char *event, json_t *data);

/**
 * DOC: what main does
 *
 *   if (!update_check_privileges(&error))
 *		end
 *   if (update_probed())
 *		update_rehearse(&error);	from here on all of the following ends in an answer
 *   if (the command line is wrong)
 *		update_exec_back(error->message);	returns if there is no way back
 *   update = update_new(config, argv, &error);
 *   update_on_end(), update_on_machine(), update_set_extra(), update_add_listener()
 *   if (anything up to here fails)
 *		update_abandon(update, error->message);
 *   update_start(update, &error);
 *   main loop
 *
 * A successor by transfer learns its configuration from the predecessor's offer, if its command line
 * describes no VM: update_config() is another one then, as soon as there is a machine.  The
 * monitors of the command line, and their chardevs, stay what they are.
 */

/** update_check_privileges() - See envelope_check_privileges(). */
bool update_check_privileges(GError **error);

/** update_probed() - Whether an old process wants to know if we take its VM: this is a rehearsal. */
bool update_probed(void);

/**
 * update_rehearse() - Learn what is to be rehearsed; main then does what it does after an exec
 *
 * The process ends, answering, in update_exec_back(), update_new(), update_abandon() or update_start():
 * before the guest would be taken.  What belongs to the process alone is not made: see probe.h.
 * Return: false with @error set if nobody asks.
 */
bool update_rehearse(GError **error);

/**
 * update_resumes_process() - Whether this program was exec'ed by a process that goes on in it
 *
 * What is done once per process (becoming a daemon) is done already then.
 */
bool update_resumes_process(void);

/**
 * update_exec_back() - After an exec: this program cannot start, @reason; become the old one again
 *
 * Before update_new() only.  Return: if this process did not come by exec, or cannot go back.
 */
void update_exec_back(const char *reason);

/**
 * update_new() - Begin this process's life with the VM
 * @config:	Parsed command line; taken.  Replaced by the predecessor's where the command line
 *		does not describe a VM (config->explicit_vm false and something incoming)
 * @argv:	This process's arguments, for an exec of the same; borrowed for the process's life
 *
 * Cold start: builds the machine; update_start() runs it.  After an exec (environment
 * MOLT_CPR_EXEC): imports the descriptors; the machine is built by update_start().  With a cpr
 * channel incoming: the machine is built when the predecessor's offer arrives, in the main loop.
 * Return: NULL with @error set.
 */
struct update *update_new(struct vm_config *config, char **argv, GError **error);
void update_free(struct update *update);
DEFINE_CLEANUP(update, update_free)

/**
 * update_abandon() - This process cannot start after all, @reason: leave the guest where it came from
 *
 * After an exec that is the old program, which this process becomes again.  Return: if there is no
 * guest to give back, or no way.
 */
void update_abandon(struct update *update, const char *reason);

/** update_set_extra(), update_add_listener() - Hooks of the monitors; set before update_start(). */
void update_set_extra(struct update *update, const struct update_extra *extra);
void update_add_listener(struct update *update, update_event_fn fn, void *opaque);

/**
 * update_on_end() - Call @fn when an incoming update has ended
 *
 * Without @error the guest is here.  With it nothing is left to do: the guest is elsewhere, or lost;
 * main logs @error (borrowed) and ends with status 1, and it is told from the main loop.
 */
void update_on_end(struct update *update, void (*fn)(void *opaque, const GError *error),
		   void *opaque);

/**
 * update_on_idle() - Call @fn whenever an update in progress, outgoing or incoming, has ended
 *
 * In the middle of what ends it: @fn only makes a note, for the main loop.
 */
void update_on_idle(struct update *update, void (*fn)(void *opaque), void *opaque);

/** update_on_machine() - Call @fn as soon as there is a machine (at once if there is one). */
void update_on_machine(struct update *update, void (*fn)(void *opaque, struct machine *machine),
		       void *opaque);

/**
 * update_start() - Cold: run unless -S.  Takeover: load the state, go on, acknowledge
 *
 * Return: false with @error set if this process has nothing to do; a takeover that fails later is
 * told by update_on_end().
 */
bool update_start(struct update *update, GError **error);

/**
 * update_quit() - This process was told to end (quit, a signal)
 *
 * An update of which it has the guest is undone, if it can be; one by which it would get the guest is
 * given up, and the guest stays where it is.  After an exec the guest is nobody else's, and ends.
 * Return: whether the guest ends with this process; false: it is, or may be, another one's.
 */
bool update_quit(struct update *update);

/** update_machine() - The machine, NULL while a successor waits for its predecessor's offer. */
struct machine *update_machine(struct update *update);

/** update_config(), update_fds(), update_chardevs() - In force now; a predecessor's offer may
 * replace the config.  The chardev set is shared by machine and monitors. */
const struct vm_config *update_config(const struct update *update);
struct fd_source *update_fds(struct update *update);
struct chardev_set *update_chardevs(struct update *update);

/** update_runstate() - query-status: machine's state, inmigrate while there is none. */
enum runstate update_runstate(const struct update *update);

/** update_cont(), update_stop() - cont and stop: while inmigrate they set what happens once loaded;
 * cont in postmigrate is refused when another process owns the guest. */
bool update_cont(struct update *update, GError **error);
bool update_stop(struct update *update, GError **error);

/**
 * update_device_add(), update_device_del() - device_add and device_del, refused while an update is in
 * progress but where a successor may still complete its machine
 * @args, @id:	As machine_device_add() and machine_device_del() take them
 */
bool update_device_add(struct update *update, const json_t *args, GError **error);
bool update_device_del(struct update *update, const char *id, GError **error);

/**
 * update_migrate() - QMP migrate
 * @args: {uri? | channels?, resume?} checked against the command's schema already
 *
 * Returns true once accepted; what follows is reported by query-migrate and events.
 */
bool update_migrate(struct update *update, const json_t *args, GError **error);

/** update_incoming() - QMP migrate-incoming {uri? | channels?, exit-on-error?}. */
bool update_incoming(struct update *update, const json_t *args, GError **error);

/** update_cancel() - QMP migrate_cancel; no-op when nothing runs. */
void update_cancel(struct update *update);

/** update_continue() - QMP migrate-continue {state}. */
bool update_continue(struct update *update, const char *state, GError **error);

/** update_query() - query-migrate's object; owned by the caller. */
json_t *update_query(struct update *update);

/** update_set_parameters(), update_query_parameters() - QMP's objects; all or nothing. */
bool update_set_parameters(struct update *update, const json_t *args, GError **error);
json_t *update_query_parameters(struct update *update);

/** update_set_capabilities(), update_query_capabilities() - [{capability, state}]. */
bool update_set_capabilities(struct update *update, const json_t *list, GError **error);
json_t *update_query_capabilities(struct update *update);

/** update_active() - Whether one is under way: hot plug and reset are refused then, not between tries. */
bool update_active(const struct update *update);
