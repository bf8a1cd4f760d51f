// cpr-exec, the new program: take over what the old one left, or become the old one again.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "cpr/crash.h"
#include "cpr/guardian.h"
#include "cpr/internal.h"

#define STATE_READ_MS 5000

/**
 * struct exec_target - The update, from this side
 * @envelope:	What the old program left
 * @state:	The stream, until it is loaded
 * @attempt:	That it is of
 * @failure:	Why this program does not go on
 */
struct exec_target {
	struct incoming base;
	struct envelope *envelope;
	GBytes *state;
	uint64_t attempt;
	GError *failure;
};

/* ---- taking over what was left ---- */

static bool import_fds(struct update *update, const struct envelope *envelope, GError **error)
{
	update->inherited = fdstore_import_exec(envelope->manifest, error);
	update->fds.inherited = update->inherited;
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

/* Settings survive; one that this release does not know is left at its default. */
static void settle_settings(struct update *update, const struct envelope *envelope)
{
	g_autoptr(GError) error = NULL;

	if (!migration_parameters_set(&update->parameters,
				      json_object_get(envelope->json, "parameters"), &error) ||
	    !migration_capabilities_set(&update->capabilities,
					json_object_get(envelope->json, "capabilities"), &error))
		log_warn("a setting did not survive the update: %s", error->message);
	update->parameters.limit_set =
		json_is_true(json_object_get(envelope->json, "downtime-limit-set"));
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
	update_machine_ready(et->base.update);
	return STAGE_DONE;
}

static enum stage_result et_main(void *ctx, GError **error)
{
	struct exec_target *et = ctx;

	if (et->base.channels.deferred && !et->base.channels.main) {
		guardian_tell(et->envelope->guardian_fd, GUARDIAN_WAIT);
		return STAGE_PENDING;
	}
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

/*
 * migrate-incoming has come.  With exit-on-error off, a file that holds no such state is reported and
 * another one may be named; nothing has been touched so far.
 */
static void et_main_named(struct incoming *in)
{
	struct exec_target *et = (struct exec_target *)in;
	struct migration_progress *progress = &in->update->progress;
	g_autoptr(GError) error = NULL;

	if (g_strcmp0(stage_run_pending(&in->run), "main") != 0)
		return;
	if (progress->status == MIGRATION_FAILED) {
		migration_progress_set(progress, MIGRATION_SETUP);
		migration_progress_set(progress, MIGRATION_ACTIVE);
	}
	if (!in->exit_on_error) {
		et->state = read_file(in->channels.main, &error);
		if (et->state && !update_check_state(et->state, in->offer, &error))
			g_clear_pointer(&et->state, g_bytes_unref);
	}
	if (!error) {
		guardian_tell(et->envelope->guardian_fd, GUARDIAN_STEP);
		g_clear_pointer(&progress->error_desc, g_free);
		stage_run_continue(&in->run, NULL);
		return;
	}
	g_clear_pointer(&in->channels.main, migration_address_free);
	in->started = false;
	migration_progress_fail(progress, error->message);
	migration_progress_set(progress, MIGRATION_FAILING);
	migration_progress_set(progress, MIGRATION_FAILED);
}

static enum stage_result et_state(void *ctx, GError **error)
{
	struct exec_target *et = ctx;

	if (et->state)
		return STAGE_DONE;
	if (et->base.channels.main && !et->envelope->rollback)
		et->state = read_file(et->base.channels.main, error);
	else
		et->state = state_bytes_map(et->envelope->state_fd, error);
	return et->state ? STAGE_DONE : STAGE_FAILED;
}

static enum stage_result et_load(void *ctx, GError **error)
{
	struct exec_target *et = ctx;
	struct update *update = et->base.update;

	if (incoming_all_taken(&et->base, error))
		et->attempt = update_load(update, et->state, et->base.offer, error);
	update->progress.state_bytes = g_bytes_get_size(et->state);
	g_clear_pointer(&et->state, g_bytes_unref);
	return et->attempt ? STAGE_DONE : STAGE_FAILED;
}

static enum stage_result et_run(void *ctx, GError **error)
{
	struct exec_target *et = ctx;
	struct update *update = et->base.update;
	bool ok;

	/* A crash from here on must not start a program that finds the guest taken. */
	crash_disarm();
	ok = et->envelope->rollback ? owner_take_back(update->owner, et->attempt, error)
				    : owner_take(update->owner, et->attempt, 0, error);
	if (!ok)
		return STAGE_FAILED;
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

/* ---- the run ---- */

/* Freed before the guest has arrived and without a failure: the process was told to end. */
static void et_free(struct incoming *in)
{
	struct exec_target *et = (struct exec_target *)in;

	crash_disarm();
	if (!et->failure && et->envelope->guardian_fd >= 0)
		guardian_tell(et->envelope->guardian_fd, GUARDIAN_DONE);
	incoming_clear(in);
	envelope_free(et->envelope);
	g_clear_pointer(&et->state, g_bytes_unref);
	g_clear_error(&et->failure);
	g_free(et);
}

static void release_guardians(struct exec_target *et)
{
	GArray *guardians = et->base.update->guardians;
	const json_t *earlier = json_object_get(et->envelope->json, "guardians");
	const json_t *pid;
	size_t i;

	guardian_release(guardians, et->envelope->guardian_pid,
			 fd_steal(&et->envelope->guardian_fd));
	json_array_foreach(earlier, i, pid)
		guardian_release(guardians, json_integer_value(pid), -1);
}

static void et_arrived(struct exec_target *et)
{
	struct update *update = et->base.update;
	const char *reason = et->envelope->rollback;

	release_guardians(et);
	update_record_finish(update->record, reason ? UPDATE_ROLLED_BACK : UPDATE_COMMITTED,
			     reason);
	if (reason)
		migration_progress_fail(&update->progress, reason);
	update_own(update);
	update_publish_record(update);
	migration_progress_set(&update->progress, reason ? MIGRATION_FAILED : MIGRATION_COMPLETED);
	update_set_idle(update);
	et_free(&et->base);
}

static void go_back(void *opaque)
{
	struct exec_target *et = opaque;
	struct update *update = et->base.update;
	g_autoptr(GError) stuck = NULL;
	json_t *record = update_record_to_json(update->record);

	envelope_exec_back(et->envelope, update->inherited, record, et->failure->message, &stuck);
	json_decref(record);
	g_prefix_error(&stuck, "the guest is lost: %s; ", et->failure->message);
	migration_progress_set(&update->progress, MIGRATION_FAILING);
	incoming_failed(&et->base, stuck);
}

static void et_finished(void *ctx, enum stage_outcome outcome, const GError *error)
{
	struct exec_target *et = ctx;

	if (outcome != STAGE_OUTCOME_UNDONE) {
		et_arrived(et);
		return;
	}
	et->failure = g_error_copy(error);
	if (et->base.in_command)
		loop_call_later(go_back, et);
	else
		go_back(et);
}

static void et_start(struct incoming *in)
{
	stage_run_start(&in->run);
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
		.run = {.table = &exec_target_table,
			.ctx = et,
			.record = update->record,
			.is_new = !owned->rollback,
			.finished = et_finished},
	};
	*channels = (struct migration_channels){0};
	if (owned->rollback)
		et->base.channels.deferred = false;
	et->envelope = g_steal_pointer(&owned);
	guardian_tell(et->envelope->guardian_fd, GUARDIAN_STEP);
	if (!et->envelope->rollback)
		envelope_arm_crash(et->envelope, update->inherited);
	return &et->base;
}
