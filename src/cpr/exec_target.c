// cpr-exec, the new program: take over what the old one left, or become the old one again.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/thread.h"
#include "cpr/children.h"
#include "cpr/crash.h"
#include "cpr/fault.h"
#include "cpr/guardian.h"
#include "cpr/internal.h"
#include "cpr/probe.h"
#include "cpr/state_file.h"
#include "state/fd_paths.h"

#define STATE_READ_MS 5000

/* How long a new program waits for room for a thread before it lets the old one try. */
#define THREADS_MS 2000

/**
 * struct exec_target - The update, from this side
 * @envelope:	What the old program left
 * @state:	The stream, until it is loaded
 * @file:	The state file that was asked for, until it is written; NULL: none
 * @failure:	Why this program does not go on
 * @back:	It goes back when no command is on the stack
 * @beat:	Tells the guardian that the main loop runs, while a manager is waited for
 */
struct exec_target {
	struct incoming base;
	struct envelope *envelope;
	GBytes *state;
	struct state_file *file;
	GError *failure;
	GSource *back;
	GSource *beat;
};

/* This program gets on: the guardian need not. */
static void tell_step(void *opaque)
{
	const struct exec_target *et = opaque;

	guardian_beat(et->envelope->guardian_fd);
}

/* ---- taking over what was left ---- */

static bool import_fds(struct update *update, const struct envelope *envelope, GError **error)
{
	update->inherited = fdstore_import_exec(envelope->manifest, error);
	update->fds.inherited = update->inherited;
	fd_paths_inherit(&update->fds, json_object_get(envelope->json, "paths"));
	/* Until the guest is here, nothing is opened, bound or connected: update_own(). */
	update->fds.complete = true;
	return update->inherited;
}

/* On the way back the arguments are of an earlier day: the offer is right. */
static bool settle_config(struct update *update, struct envelope *envelope, bool may_plug,
			  GError **error)
{
	g_autofree char *differences = NULL;
	const char *pidfile = json_string_value(json_object_get(envelope->json, "pidfile"));

	if (envelope->rollback) {
		update->config->explicit_vm = false;
		update->config->start_paused = false;
		g_ptr_array_set_size(update->config->monitors, 0);
	}
	differences = offer_config_differences(envelope->offer, update->config, may_plug);
	if (differences)
		return error_set(error, MOLT_ERROR_REFUSED, "%s", differences);
	update_adopt(update, envelope->offer, true);
	if (pidfile && !update->config->pidfile)
		update->config->pidfile = g_strdup(pidfile);
	return true;
}

static void settle_settings(struct update *update, const struct envelope *envelope)
{
	migration_parameters_inherit(&update->parameters,
				     json_object_get(envelope->json, "parameters"));
	migration_capabilities_inherit(&update->capabilities,
				       json_object_get(envelope->json, "capabilities"));
	update->progress.events = update->capabilities.on[MIGRATION_CAP_EVENTS];
}

/* From the end of the last stage before execve() until here. */
static void note_exec(struct update_record *record, const char *name, bool is_new)
{
	const struct update_phase *last;

	if (record->phases->len == 0)
		return;
	last = &g_array_index(record->phases, struct update_phase, record->phases->len - 1);
	update_record_phase(record, name, is_new, last->end_ns, clock_now_ns());
}

/* The record goes on where the program before this one left it. */
static void settle_record(struct update *update, const struct envelope *envelope)
{
	struct update_record *record = update_record_new(envelope->offer->mode);
	const json_t *json = json_object_get(envelope->json, "record");
	g_autoptr(GError) ignored = NULL;

	update->record = record;
	/* Where the guardian went back, the process that has the guest is another one now. */
	if (envelope->rollback)
		record->old_pid = getpid();
	(void)update_record_merge(record, json, false, &ignored);
	if (envelope->rollback) {
		(void)update_record_merge(record, json, true, &ignored);
		note_exec(record, "exec-back", false);
	} else {
		g_free(record->new_build);
		record->new_build = g_strdup(MOLT_VERSION);
		note_exec(record, "exec", true);
	}
	update->progress.begun_ns = envelope->begun_ns;
	update->progress.connected_ns = envelope->begun_ns;
	update->progress.stopped_ns = record->paused_ns;
	/* Where the old program was; nothing is emitted. */
	update->progress.status = MIGRATION_DEVICE;
}

/* ---- stages ---- */

/* Monitors go on first, so that they can be used while the main channel is waited for. */
static bool load_sessions(struct exec_target *et, GError **error)
{
	const struct update_extra *extra = &et->base.update->extra;
	g_autoptr(GBytes) bytes = state_bytes_map(et->envelope->sessions_fd, error);
	autoptr(state_reader) reader = bytes ? state_reader_open(bytes, error) : NULL;

	return reader && (!extra->load || extra->load(extra->opaque, reader, error));
}

static enum stage_result et_sessions(void *ctx, GError **error)
{
	return load_sessions(ctx, error) ? STAGE_DONE : STAGE_FAILED;
}

static enum stage_result et_build(void *ctx, GError **error)
{
	struct exec_target *et = ctx;

	if (!incoming_build(&et->base, false, error))
		return STAGE_FAILED;
	if (!et->envelope->rollback)
		crash_set_word(owner_word(et->base.update->owner), et->envelope->attempt);
	update_machine_ready(et->base.update);
	return STAGE_DONE;
}

/* ---- the state file ---- */

static void file_written(void *opaque, const GError *error)
{
	struct update *update = opaque;

	if (!error)
		return;
	log_error("the state file of the last update: %s", error->message);
	/* The guest has gone on without it. */
	if (update->record && !update->record->reason)
		update->record->reason = g_strdup_printf("state file: %s", error->message);
}

/* Once the guest runs: a thread that waits for a store would hold up every way back until then. */
static void write_file(struct exec_target *et)
{
	g_autoptr(GBytes) state = NULL;
	g_autoptr(GError) error = NULL;

	if (!et->file)
		return;
	state = state_bytes_map(et->envelope->state_fd, &error);
	if (state)
		state_file_write(g_steal_pointer(&et->file), state, file_written, et->base.update);
	else
		file_written(et->base.update, error);
}

/* Whether @address is the file that the old program was told to leave. */
static bool names_file(const struct exec_target *et, const struct migration_address *address)
{
	const json_t *file = json_object_get(et->envelope->json, "file");
	const char *path = json_string_value(json_object_get(file, "path"));
	const json_int_t offset = json_integer_value(json_object_get(file, "offset"));
	g_autofree char *theirs = NULL, *ours = NULL;

	if (!path || address->transport != MIGRATION_FILE || offset != (json_int_t)address->offset)
		return false;
	theirs = file_canonical(path);
	ours = file_canonical(address->path);
	return strcmp(theirs, ours) == 0;
}

/* The state crosses in memory: the command's -incoming may say where it is written to, and no more. */
static bool check_incoming(const struct exec_target *et, GError **error)
{
	const struct migration_address *address = et->base.channels.main;
	const json_t *file = json_object_get(et->envelope->json, "file");
	const char *path = json_string_value(json_object_get(file, "path"));

	if (!address || et->envelope->rollback || names_file(et, address))
		return true;
	return error_set(error, MOLT_ERROR_REFUSED,
			 "the command's -incoming names another state than migrate, which writes "
			 "%s%s; give both the same file:PATH, or leave -incoming out",
			 path ? "file:" : "none", path ? path : "");
}

/* A manager may take its time, but this process must be there to hear it. */
static gboolean beat(void *opaque)
{
	tell_step(opaque);
	return G_SOURCE_CONTINUE;
}

static enum stage_result et_main(void *ctx, GError **error)
{
	struct exec_target *et = ctx;

	if (et->base.channels.deferred && !et->base.channels.main) {
		tell_step(et);
		et->beat = loop_after_ms(GUARDIAN_BEAT_MS, beat, et);
		return STAGE_MANAGER;
	}
	if (!et->base.started && !check_incoming(et, error))
		return STAGE_FAILED;
	et->base.started = true;
	return STAGE_DONE;
}

static GBytes *read_file(const struct migration_address *address, GError **error)
{
	autofd int fd = -1;
	GBytes *state;
	char beyond;

	if (address->transport != MIGRATION_FILE) {
		error_set_generic(error, "the state of an exec is in a file: use file:");
		return NULL;
	}
	fd = channel_open_file(address, error);
	if (fd < 0)
		return NULL;
	state = channel_read_state(fd, clock_deadline_ms(STATE_READ_MS), error);
	if (state && read(fd, &beyond, 1) > 0) {
		g_clear_pointer(&state, g_bytes_unref);
		error_set_generic(error, "something follows the state");
	}
	if (!state)
		g_prefix_error(error, "'%s': ", address->path);
	return state;
}

/* The memfd has what the file of the old program's migrate has, or will have; a manager may name another. */
static GBytes *read_state(struct exec_target *et, GError **error)
{
	const struct migration_address *address = et->base.channels.main;

	if (address && !et->envelope->rollback && !names_file(et, address))
		return read_file(address, error);
	return state_bytes_map(et->envelope->state_fd, error);
}

/*
 * migrate-incoming has come.  With exit-on-error off, a file that holds no such state is reported and
 * another one may be named; nothing has been touched so far.
 */
static bool et_main_named(struct incoming *in, GError **unused)
{
	struct exec_target *et = (struct exec_target *)in;
	struct migration_progress *progress = &in->update->progress;
	g_autoptr(GError) error = NULL;

	if (!stage_run_awaits_manager(&in->run))
		return true;
	if (progress->status == MIGRATION_FAILED) {
		migration_progress_set(progress, MIGRATION_SETUP);
		migration_progress_set(progress, MIGRATION_ACTIVE);
	}
	if (!in->exit_on_error) {
		et->state = read_state(et, &error);
		if (et->state && !update_check_state(et->state, in->offer, &error))
			g_clear_pointer(&et->state, g_bytes_unref);
	}
	if (!error) {
		loop_unwatch(&et->beat);
		tell_step(et);
		g_clear_pointer(&progress->error_desc, g_free);
		stage_run_continue(&in->run, NULL);
		return true;
	}
	g_clear_pointer(&in->channels.main, migration_address_free);
	in->started = false;
	migration_progress_fail(progress, error->message);
	return true;
}

static enum stage_result et_state(void *ctx, GError **error)
{
	struct exec_target *et = ctx;

	if (et->state)
		return STAGE_DONE;
	et->state = read_state(et, error);
	return et->state ? STAGE_DONE : STAGE_FAILED;
}

static enum stage_result et_load(void *ctx, GError **error)
{
	struct exec_target *et = ctx;
	struct update *update = et->base.update;

	bool ok = incoming_all_taken(&et->base, error) &&
		  update_load(update, et->state, et->base.offer, error);

	update->progress.state_bytes = g_bytes_get_size(et->state);
	g_clear_pointer(&et->state, g_bytes_unref);
	return ok ? STAGE_DONE : STAGE_FAILED;
}

static bool take(struct exec_target *et, GError **error)
{
	struct owner *owner = et->base.update->owner;
	const uint64_t attempt = et->envelope->attempt;

	return et->envelope->rollback ? owner_take_back(owner, attempt, error)
				      : owner_take(owner, attempt, error);
}

static enum stage_result et_run(void *ctx, GError **error)
{
	struct exec_target *et = ctx;
	struct update *update = et->base.update;

	if (!take(et, error))
		return STAGE_FAILED;
	(void)fault_check("exec-target", "taken");
	/* Before anything that could be held up: from here on nobody else has to do with the guest. */
	guardian_tell(et->envelope->guardian_fd, GUARDIAN_DONE);
	crash_disarm();
	if (et->envelope->rollback)
		migration_progress_set(&update->progress, MIGRATION_FAILING);
	update_go(update);
	return STAGE_DONE;
}

/* clang-format off */
static const struct stage exec_target_stages[] = {
	{ "sessions", 0, false, et_sessions, NULL },
	{ "build",    0, false, et_build,    NULL },
	{ "main",     0, false, et_main,     NULL },
	{ "state",    0, false, et_state,    NULL },
	{ "load",     0, false, et_load,     NULL },
	{ "run",      0, true,  et_run,      NULL },
};
/* clang-format on */

const struct stage_table exec_target_table = STAGE_TABLE("exec-target", exec_target_stages);

/* ---- the rehearsal ---- */

static enum stage_result er_state(void *ctx, GError **error)
{
	struct exec_target *et = ctx;

	if (check_incoming(et, error))
		et->state = state_bytes_map(et->envelope->state_fd, error);
	return et->state ? STAGE_DONE : STAGE_FAILED;
}

static enum stage_result er_load(void *ctx, GError **error)
{
	struct exec_target *et = ctx;

	/* What is missing comes by device_add in the manager's window; migrate-incoming checks it. */
	if (!incoming_complete(&et->base, NULL))
		return STAGE_DONE;
	return incoming_all_taken(&et->base, error) &&
			       update_rehearse_load(et->base.update, et->state, et->base.offer,
						    error)
		       ? STAGE_DONE
		       : STAGE_FAILED;
}

static enum stage_result er_answer(void *ctx, GError **error)
{
	probe_accept();
}

/* clang-format off */
static const struct stage exec_rehearsal_stages[] = {
	{ "sessions", 0, false, et_sessions, NULL },
	{ "build",    0, false, et_build,    NULL },
	{ "state",    0, false, er_state,    NULL },
	{ "load",     0, false, er_load,     NULL },
	{ "answer",   0, true,  er_answer,   NULL },
};
/* clang-format on */

const struct stage_table exec_rehearsal_table =
	STAGE_TABLE("exec-rehearsal", exec_rehearsal_stages);

/* ---- the run ---- */

/* Freed before the guest has arrived and without a failure: the process was told to end. */
static void et_free(struct incoming *in)
{
	struct exec_target *et = (struct exec_target *)in;

	crash_disarm();
	thread_set_patience(0, NULL, NULL);
	loop_unwatch(&et->back);
	loop_unwatch(&et->beat);
	if (!et->failure && et->envelope->guardian_fd >= 0)
		guardian_tell(et->envelope->guardian_fd, GUARDIAN_DONE);
	incoming_clear(in);
	envelope_free(et->envelope);
	g_clear_pointer(&et->state, g_bytes_unref);
	g_clear_pointer(&et->file, state_file_discard);
	g_clear_error(&et->failure);
	g_free(et);
}

/* Reaped are children of the program before this one, too. */
static void release_children(struct exec_target *et)
{
	GArray *children = et->base.update->children;
	const json_t *earlier = json_object_get(et->envelope->json, "children");
	const json_t *pid;
	size_t i;

	guardian_release(children, et->envelope->guardian_pid,
			 fd_steal(&et->envelope->guardian_fd));
	json_array_foreach(earlier, i, pid) children_reap(children, json_integer_value(pid), NULL);
}

static void et_arrived(struct exec_target *et)
{
	struct update *update = et->base.update;
	const char *reason = et->envelope->rollback;

	thread_set_patience(0, NULL, NULL);
	release_children(et);
	update_record_finish(update->record, reason ? UPDATE_ROLLED_BACK : UPDATE_COMMITTED,
			     reason);
	/* What becomes of the file is said in the record. */
	if (reason)
		g_clear_pointer(&et->file, state_file_discard);
	else
		write_file(et);
	update_own(update);
	update_publish_record(update);
	if (reason && update->record->new_pid != getpid())
		log_warn("the guest goes on in process %d; until now its process was %d",
			 (int)getpid(), (int)update->record->new_pid);
	if (reason)
		migration_progress_fail(&update->progress, reason);
	else
		migration_progress_set(&update->progress, MIGRATION_COMPLETED);
	update_set_idle(update);
	et_free(&et->base);
}

/* Whether the guardian has seized the attempt meanwhile: then it goes on, once this process is gone. */
static bool seized(const struct exec_target *et)
{
	struct owner *owner = et->base.update->owner;

	return owner && !probe_active() && !et->envelope->rollback &&
	       !owner_word_recall(owner_word(owner), et->envelope->attempt);
}

void exec_serve_others(const char *why)
{
	if (getpid() != 1)
		return;
	log_error("%s", why);
	log_flush(LOG_EXEC_MS);
	crash_disarm();
	guardian_ignore();
	children_serve_as_init();
}

static void end_for_others(struct exec_target *et, const GError *why)
{
	exec_serve_others(why->message);
	incoming_failed(&et->base, why);
}

static void go_back(void *opaque)
{
	struct exec_target *et = opaque;
	struct update *update = et->base.update;
	g_autoptr(GError) stuck = NULL;
	json_t *record;

	if (seized(et)) {
		error_set_generic(&stuck, "the guardian goes on with the guest: %s",
				  et->failure->message);
		end_for_others(et, stuck);
		return;
	}
	record = update_record_to_json(update->record);
	envelope_exec_back(et->envelope, update->inherited, record, et->failure->message, &stuck);
	json_decref(record);
	g_prefix_error(&stuck, "the guest is lost: %s; ", et->failure->message);
	end_for_others(et, stuck);
}

static gboolean go_back_later(void *opaque)
{
	struct exec_target *et = opaque;

	loop_unwatch(&et->back);
	go_back(et);
	return G_SOURCE_REMOVE;
}

static void et_finished(void *ctx, enum stage_outcome outcome, const GError *error)
{
	struct exec_target *et = ctx;

	if (outcome != STAGE_OUTCOME_UNDONE) {
		et_arrived(et);
		return;
	}
	/* Nobody brings the guest back; where the guardian has it, that is told to end. */
	if (g_error_matches(error, MOLT_ERROR, MOLT_ERROR_TOLD_TO_END) && !seized(et)) {
		guardian_tell(et->envelope->guardian_fd, GUARDIAN_DONE);
		crash_disarm();
		incoming_failed(&et->base, error);
		return;
	}
	et->failure = g_error_copy(error);
	if (et->base.in_command)
		et->back = loop_after_ms(0, go_back_later, et);
	else
		go_back(et);
}

static void et_start(struct incoming *in)
{
	struct update *update = in->update;

	stage_run_start(&in->run);
	/* What is for the process alone may be opened: the guest runs, or a manager is waited for. */
	update->fds.complete = false;
	/* The main loop of a rehearsal would read others' input. */
	if (probe_active())
		probe_refuse("a stage of the rehearsal does not come to its end");
}

static void et_abandon(struct incoming *in, const char *reason)
{
	struct exec_target *et = (struct exec_target *)in;

	error_set_generic(&et->failure, "%s", reason);
	go_back(et);
}

struct incoming *exec_target_new(struct update *update, struct envelope *envelope,
				 struct migration_channels *channels, GError **error)
{
	autoptr(envelope) owned = envelope;
	struct exec_target *et;
	g_autoptr(GError) why = NULL, stuck = NULL;

	settle_record(update, owned);
	if (!import_fds(update, owned, &why) ||
	    !settle_config(update, owned, channels->deferred && !channels->main, &why)) {
		envelope_exec_back(owned, update->inherited, NULL, why->message, &stuck);
		error_set_generic(error, "the guest is lost: %s; %s", why->message, stuck->message);
		exec_serve_others((*error)->message);
		return NULL;
	}
	settle_settings(update, owned);
	et = g_new0(struct exec_target, 1);
	et->base = (struct incoming){
		.update = update,
		.free = et_free,
		.start = et_start,
		.abandon = et_abandon,
		.main_named = et_main_named,
		.channels = *channels,
		.exit_on_error = true,
		.has_guest = true,
		.offer = g_steal_pointer(&owned->offer),
		.run = {.table = probe_active() ? &exec_rehearsal_table : &exec_target_table,
			.ctx = et,
			.record = update->record,
			.is_new = !owned->rollback,
			.finished = et_finished},
	};
	*channels = (struct migration_channels){0};
	if (owned->rollback)
		et->base.channels.deferred = false;
	et->envelope = g_steal_pointer(&owned);
	et->file = state_file_inherit(json_object_get(et->envelope->json, "file"),
				      et->envelope->file_fd);
	guardian_tell(et->envelope->guardian_fd, GUARDIAN_STEP);
	/* Who came back is the last who could run the guest. */
	if (!probe_active())
		thread_set_patience(et->envelope->rollback ? THREAD_FOR_EVER : THREADS_MS,
				    tell_step, et);
	if (!et->envelope->rollback && !probe_active())
		envelope_arm_crash(et->envelope, update->inherited);
	return &et->base;
}
