// struct update and what the files of this folder tell each other.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "backend/chardev/chardev_set.h"
#include "cpr/envelope.h"
#include "cpr/link.h"
#include "cpr/offer.h"
#include "cpr/owner.h"
#include "cpr/record.h"
#include "cpr/stages.h"
#include "cpr/update.h"
#include "migration/address.h"
#include "migration/capabilities.h"
#include "migration/channel.h"
#include "migration/parameters.h"
#include "migration/status.h"

struct outgoing;
struct incoming;

/** struct update_listener - One update_add_listener() */
struct update_listener {
	update_event_fn fn;
	void *opaque;
};

/** struct update_waiter - One update_on_machine() that waits for the machine */
struct update_waiter {
	void (*fn)(void *opaque, struct machine *machine);
	void *opaque;
};

/**
 * struct next_try - An exec that failed for want of time, and is to be tried again
 * @timer:	Until then; NULL: there is none.  No update is in progress meanwhile
 * @channels:	The migrate command's
 * @n:		Which try it will be, from 2
 */
struct next_try {
	GSource *timer;
	struct migration_channels channels;
	unsigned int n;
};

/**
 * struct update - See update.h
 * @config:	In force; the machine and the monitors borrow it
 * @command_line: The config it replaced, of which others may have pointers; NULL
 * @argv:	This process's arguments, borrowed
 * @fds:	Door for descriptors; @inherited is its store, kept until the guest is ours, so that
 *		it can be handed back
 * @machine:	NULL while a successor waits
 * @owner:	Of the guest; NULL while a successor waits
 * @record:	Of the last update, or the one in progress; NULL if there was none
 * @autostart:	What to do with a running guest once it is loaded
 * @children:	That are still to be reaped, see children.h
 * @outgoing, @incoming: The side this process has in an update in progress; at most one
 * @next_try:	See there; never together with @outgoing
 * @ended, @ended_opaque: See update_on_end()
 * @idle, @idle_opaque: See update_on_idle()
 * @ending:	update_quit() was called
 */
struct update {
	struct vm_config *config;
	struct vm_config *command_line;
	char **argv;
	struct chardev_set *chardevs;
	struct fd_source fds;
	struct fdstore *inherited;
	struct machine *machine;
	struct owner *owner;
	struct migration_parameters parameters;
	struct migration_capabilities capabilities;
	struct migration_progress progress;
	struct update_record *record;
	struct update_extra extra;
	GArray *listeners; /* struct update_listener */
	GArray *waiters;   /* struct update_waiter */
	bool autostart;
	GArray *children; /* pid_t */
	struct outgoing *outgoing;
	struct incoming *incoming;
	struct next_try next_try;
	void (*ended)(void *opaque, const GError *error);
	void *ended_opaque;
	void (*idle)(void *opaque);
	void *idle_opaque;
	bool ending;
};

/* ---- both sides ---- */

/** UPDATE_SECTION - The section of a state stream that names the update it belongs to */
#define UPDATE_SECTION "cpr/update"

/**
 * struct update_state - What the stream says about the update itself
 * @session:	The offer's
 * @attempt:	By which the state is valid (owner.h)
 */
struct update_state {
	uint8_t session[OFFER_SESSION_BYTES];
	uint8_t pad[7];
	uint64_t attempt;
};

extern const struct state_desc update_state_desc;

/** update_machine_ready() - There is a machine now: tell who waits. */
void update_machine_ready(struct update *update);

/** update_check_state() - Whether @state is undamaged and the offer's; nothing is touched. */
bool update_check_state(GBytes *state, const struct offer *offer, GError **error);

/**
 * update_load() - Load the machine from @state, which must be the offer's
 * Return: the attempt that the state is of, for owner_take(); 0 with @error set.
 */
uint64_t update_load(struct update *update, GBytes *state, const struct offer *offer,
		     GError **error);

/** update_rehearse_load() - The same of a rehearsal's state, into a machine that nobody will run. */
bool update_rehearse_load(struct update *update, GBytes *state, const struct offer *offer,
			  GError **error);

/** update_go() - Let the guest go on as it was, or as the command line and the monitors say. */
void update_go(struct update *update);

/** update_adopt() - Take the offer's configuration if the command line describes no VM. */
void update_adopt(struct update *update, struct offer *offer, bool keep_monitors);

/** update_set_idle() - The side that this process had in an update has ended. */
void update_set_idle(struct update *update);

/** update_own() - After the guest runs here: the inherited store is of no more use. */
void update_own(struct update *update);

/** update_publish_record() - The finished record, to the log and as an event. */
void update_publish_record(struct update *update);

/**
 * update_blockers() - Why this VM, as it is now, cannot be updated in @mode (blockers.c)
 * Return: strings, none if it can; the caller's.
 */
GPtrArray *update_blockers(struct update *update, enum migration_mode mode);

/** update_check_blockers() - Return: false with the first of them as @error. */
bool update_check_blockers(struct update *update, enum migration_mode mode, GError **error);

/**
 * update_judge_start(), update_judge_plug() - The same, of every mode, at the start and before a device
 * comes: an error where the command line promised otherwise (-only-migratable), else a warning
 */
bool update_judge_start(struct update *update, GError **error);
bool update_judge_plug(struct update *update, GError **error);

/* ---- the side that has the guest (source.c) ---- */

/**
 * struct outgoing - An update of which this process has the guest; begins the mode's own struct
 * @free:	Frees the whole struct
 * @quiesced:	Whether there is something to undo
 * @with_sessions: What belongs to the process (struct update_extra) crosses too
 * @prove:	What was saved is read back, and KVM asked whether it takes it: the successor could not say so
 *		while there is a way back
 * @attempt:	Its id (owner.h), and @offered: by it @state is valid
 * @elsewhere:	Somebody took the guest, although the update is being undone: it does not go on here
 * @state:	The saved stream of the VM
 * @sessions:	The saved stream of the process; NULL without @with_sessions
 * @cancelled:	The failure is migrate_cancel's
 * @resumed:	Capability cpr-two-step: migrate with resume has been given
 * @rehearsal_ns: What the pause takes at least, by what both sides tried out before it
 */
struct outgoing {
	struct update *update;
	struct stage_run run;
	void (*free)(struct outgoing *out);
	struct migration_channels channels;
	char session[OFFER_SESSION_BYTES];
	bool quiesced;
	bool with_sessions;
	bool prove;
	uint64_t attempt;
	bool offered;
	bool elsewhere;
	GBytes *state;
	GBytes *sessions;
	bool cancelled;
	bool resumed;
	uint64_t rehearsal_ns;
};

/** outgoing_init() - Fill the common part; @channels are taken. */
bool outgoing_init(struct outgoing *out, struct update *update, enum migration_mode mode,
		   const struct stage_table *table, struct migration_channels *channels,
		   GError **error);

/** outgoing_conclude() - In finished(): the guest is as before; the record, and devices may come and go. */
void outgoing_conclude(struct outgoing *out, const GError *error);

/** outgoing_undone() - In finished(): the guest is as before; record, status, and the struct is freed.
 */
void outgoing_undone(struct outgoing *out, const GError *error);

/** outgoing_clear() - Free the common part. */
void outgoing_clear(struct outgoing *out);

/** outgoing_attempt() - What is handed over now is of; a rehearsal's is of none that can be taken. */
uint64_t outgoing_attempt(const struct outgoing *out);

/** outgoing_offer() - The offer's message; owned by the caller. */
json_t *outgoing_offer(struct outgoing *out);

/**
 * outgoing_save_running() - Both streams as they are at the moment, for a rehearsal; nothing is stopped
 * Return: false with @error set; @state and @sessions are references of the caller's.
 */
bool outgoing_save_running(struct outgoing *out, GBytes **state, GBytes **sessions, GError **error);

/* Stages that both modes share; the context begins with a struct outgoing. */
enum stage_result source_rehearse(void *ctx, GError **error);
enum stage_result source_disks(void *ctx, GError **error);
enum stage_result source_drain(void *ctx, GError **error);
void source_undrain(void *ctx);
enum stage_result source_pause(void *ctx, GError **error);
void source_unpause(void *ctx);
enum stage_result source_switchover(void *ctx, GError **error);
enum stage_result source_quiesce(void *ctx, GError **error);
void source_unquiesce(void *ctx);
enum stage_result source_save(void *ctx, GError **error);
void source_unsave(void *ctx);

/** transfer_source_start(), exec_source_start() - Begin an update; @channels are taken. */
bool transfer_source_start(struct update *update, struct migration_channels *channels,
			   GError **error);
bool exec_source_start(struct update *update, struct migration_channels *channels, GError **error);

/**
 * exec_serve_others() - This program ends, its guardian may get the guest or has it, and is its child
 *
 * As process 1 it must outlive them: says @why, does not return.  Any other process: no-op.
 */
void exec_serve_others(const char *why);

/** exec_source_drop_next_try() - There will be none.  Return: whether one was waited for. */
bool exec_source_drop_next_try(struct update *update);

/* ---- the side that wants it ---- */

/**
 * struct incoming - An update by which this process gets the guest; begins the mode's own struct
 * @free:	Frees the whole struct
 * @start:	Begins
 * @channels:	From the command line, the main one perhaps from migrate-incoming
 * @started:	migrate-incoming was used, or not needed
 * @abandon:	Give the guest back before @start; NULL: it is not here yet
 * @main_named:	Called when migrate-incoming has named the main channel; false with @error: nothing has
 *		happened, and another one may be named
 * @in_command:	migrate-incoming is on the stack: its reply comes before anything that ends this
 *		program
 * @exit_on_error: A failure ends the process
 * @has_guest:	The guest is nobody else's any more (exec): it ends with this process
 */
struct incoming {
	struct update *update;
	struct stage_run run;
	void (*free)(struct incoming *in);
	void (*start)(struct incoming *in);
	void (*abandon)(struct incoming *in, const char *reason);
	bool (*main_named)(struct incoming *in, GError **error);
	struct migration_channels channels;
	bool started;
	bool in_command;
	bool exit_on_error;
	bool has_guest;
	struct offer *offer;
};

/** incoming_clear() - Free the common part. */
void incoming_clear(struct incoming *in);

/** incoming_failed() - In finished(): status, record, and the end of the process if so wanted. */
void incoming_failed(struct incoming *in, const GError *error);

/**
 * incoming_may_plug() - Whether devices may still be added before the main channel is named
 *
 * They may where the command line describes the VM and the main channel is not named: what the
 * predecessor has beyond it may be hot-plugged here too.
 */
bool incoming_may_plug(const struct incoming *in);

/**
 * incoming_build() - Make owner and machine from what the predecessor handed over
 * @all:	Descriptors that nobody has taken are among the differences, unless devices may be added
 *
 * Return: false with @error, which names every difference between the two machines.
 */
bool incoming_build(struct incoming *in, bool all, GError **error);

/** incoming_all_taken() - Whether every descriptor of the VM was taken; monitors and the process's
 * own files may differ. */
bool incoming_all_taken(const struct incoming *in, GError **error);

/** incoming_complete() - At migrate-incoming: whether what could still be added has been; nothing has
 * ended if it has not. */
bool incoming_complete(const struct incoming *in, GError **error);

/** transfer_target_new() - Wait for a predecessor on the cpr channel; @channels are taken. */
struct incoming *transfer_target_new(struct update *update, struct migration_channels *channels);

/** exec_target_new() - Take over what an exec left; @envelope and @channels are taken. */
struct incoming *exec_target_new(struct update *update, struct envelope *envelope,
				 struct migration_channels *channels, GError **error);

extern const struct stage_table transfer_source_table;
extern const struct stage_table transfer_target_table;
extern const struct stage_table exec_source_table;
extern const struct stage_table exec_target_table;
extern const struct stage_table exec_rehearsal_table;
