// The side that has the guest: what both modes do between check and commit.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/internal.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

static void outgoing_failed(void *ctx, const GError *error)
{
	struct outgoing *out = ctx;

	migration_progress_set(&out->update->progress,
			       out->cancelled ? MIGRATION_CANCELLING : MIGRATION_FAILING);
}

bool outgoing_init(struct outgoing *out, struct update *update, enum migration_mode mode,
		   const struct stage_table *table, struct migration_channels *channels,
		   GError **error)
{
	struct update_record *record;

	if (!offer_session_new(out->session, error))
		return false;
	out->attempt = owner_id_new(error);
	if (!out->attempt)
		return false;
	record = update_record_new(migration_mode_name(mode));
	record->old_build = g_strdup(MOLT_VERSION);
	record->old_pid = getpid();
	update_record_free(update->record);
	update->record = record;
	out->update = update;
	out->channels = *channels;
	*channels = (struct migration_channels){0};
	out->run = (struct stage_run){
		.table = table,
		.ctx = out,
		.record = record,
		.failed = outgoing_failed,
		.limit_ns = migration_parameters_limit_ns(&update->parameters),
	};
	update->outgoing = out;
	machine_hold_devices(update->machine);
	migration_progress_begin(&update->progress, false);
	return true;
}

/* The attempt's state: what was saved is of no use any more. */
static void drop_state(struct outgoing *out)
{
	g_clear_pointer(&out->state, g_bytes_unref);
	g_clear_pointer(&out->sessions, g_bytes_unref);
}

void outgoing_clear(struct outgoing *out)
{
	stage_run_clear(&out->run);
	migration_channels_clear(&out->channels);
	drop_state(out);
}

json_t *outgoing_offer(struct outgoing *out)
{
	struct update *update = out->update;

	return offer_to_json(update->config, machine_device_tree(update->machine), out->session,
			     owner_generation(update->owner) + 1, update->record->mode);
}

void outgoing_conclude(struct outgoing *out, const GError *error)
{
	struct update *update = out->update;
	struct update_record *record = update->record;

	update_record_finish(record, record->paused_ns ? UPDATE_ROLLED_BACK : UPDATE_UNCHANGED,
			     error->message);
	machine_release_devices(update->machine);
	update_publish_record(update);
}

void outgoing_undone(struct outgoing *out, const GError *error)
{
	struct update *update = out->update;

	outgoing_conclude(out, error);
	update_set_idle(update);
	if (out->cancelled)
		migration_progress_set(&update->progress, MIGRATION_CANCELLED);
	else
		migration_progress_fail(&update->progress, error->message);
	out->free(out);
}

/* ---- stages ---- */

enum stage_result source_rehearse(void *ctx, GError **error)
{
	struct outgoing *out = ctx;
	const uint64_t begun_ns = clock_now_ns();

	if (!machine_rehearse_save(out->update->machine, error))
		return STAGE_FAILED;
	out->rehearsal_ns += clock_now_ns() - begun_ns;
	return STAGE_DONE;
}

/* Whether the pause that was agreed to is too short even for what was rehearsed. */
static bool check_rehearsal(const struct outgoing *out, GError **error)
{
	const uint64_t limit_ns = out->run.limit_ns, least_ns = out->rehearsal_ns;

	return !limit_ns || least_ns <= limit_ns ||
	       error_set(error, MOLT_ERROR_TIMEOUT,
			 "the pause would take %" PRIu64
			 " us at least, by its rehearsal; downtime-limit allows %" PRIu64 " us",
			 least_ns / 1000, limit_ns / 1000);
}

static void disks_answered(void *opaque, GError *error)
{
	struct outgoing *out = opaque;

	if (!error)
		machine_undrain(out->update->machine);
	stage_run_continue(&out->run, error);
}

/*
 * A disk that does not answer is better known before anything else is begun: whoever opens, closes or
 * even looks at its image may have to wait for it.
 */
enum stage_result source_disks(void *ctx, GError **error)
{
	struct outgoing *out = ctx;

	if (!machine_drain(out->update->machine, out->run.limit_ns, disks_answered, out))
		return STAGE_PENDING;
	machine_undrain(out->update->machine);
	return STAGE_DONE;
}

static void source_drained(void *opaque, GError *error)
{
	struct outgoing *out = opaque;

	stage_run_continue(&out->run, error);
}

/* Most of what takes time happens here: the guest runs, and its disks take no new work. */
enum stage_result source_drain(void *ctx, GError **error)
{
	struct outgoing *out = ctx;

	return machine_drain(out->update->machine, out->run.limit_ns, source_drained, out)
		       ? STAGE_DONE
		       : STAGE_PENDING;
}

void source_undrain(void *ctx)
{
	struct outgoing *out = ctx;

	machine_undrain(out->update->machine);
}

enum stage_result source_pause(void *ctx, GError **error)
{
	struct outgoing *out = ctx;
	struct update *update = out->update;
	const bool ran = runstate_is_running(machine_runstate(update->machine));

	if (!check_rehearsal(out, error) ||
	    !machine_pause(update->machine, out->run.limit_ns, error))
		return STAGE_FAILED;
	out->run.paused_ns = update->progress.stopped_ns = machine_paused_ns(update->machine);
	if (ran)
		update->record->paused_ns = out->run.paused_ns;
	migration_progress_set(&update->progress, MIGRATION_ACTIVE);
	migration_progress_pass(&update->progress, 2);
	return STAGE_DONE;
}

void source_unpause(void *ctx)
{
	struct outgoing *out = ctx;
	struct update *update = out->update;

	if (!out->run.paused_ns)
		return;
	out->run.paused_ns = 0;
	if (out->elsewhere) {
		log_error("the guest was taken by another process while its update was undone");
		machine_enter(update->machine, RUNSTATE_POSTMIGRATE);
		return;
	}
	machine_unpause(update->machine);
	update->progress.resumed_ns = update->record->running_ns = clock_now_ns();
}

enum stage_result source_switchover(void *ctx, GError **error)
{
	struct outgoing *out = ctx;

	if (!out->update->capabilities.on[MIGRATION_CAP_PAUSE_BEFORE_SWITCHOVER])
		return STAGE_DONE;
	migration_progress_set(&out->update->progress, MIGRATION_PRE_SWITCHOVER);
	return STAGE_MANAGER;
}

enum stage_result source_quiesce(void *ctx, GError **error)
{
	struct outgoing *out = ctx;

	out->quiesced = machine_quiesce(out->update->machine, error);
	return out->quiesced ? STAGE_DONE : STAGE_FAILED;
}

void source_unquiesce(void *ctx)
{
	struct outgoing *out = ctx;

	if (out->quiesced)
		machine_unquiesce(out->update->machine);
	out->quiesced = false;
}

/* Of a rehearsal's state: no attempt that anybody can take. */
#define REHEARSED_ATTEMPT 1

uint64_t outgoing_attempt(const struct outgoing *out)
{
	return out->offered ? out->attempt : REHEARSED_ATTEMPT;
}

static bool add_update_section(struct outgoing *out, struct state_writer *writer, GError **error)
{
	struct update_state state = {.attempt = outgoing_attempt(out)};

	memcpy(state.session, out->session, sizeof(state.session));
	return state_writer_add(writer, UPDATE_SECTION, 0, &update_state_desc, &state, error);
}

static GBytes *save_sessions(struct outgoing *out, bool running, GError **error)
{
	autoptr(state_writer) writer = state_writer_begin("molt " MOLT_VERSION);
	const struct update_extra *extra = &out->update->extra;

	if (extra->save && !extra->save(extra->opaque, writer, running, error))
		return NULL;
	return state_writer_finish(writer, error);
}

/* What is in both streams of an attempt; @running: as it is at the moment, nothing is stopped. */
static bool save_streams(struct outgoing *out, bool running, GError **error)
{
	struct machine *machine = out->update->machine;
	autoptr(state_writer) writer = state_writer_begin("molt " MOLT_VERSION);

	if (!add_update_section(out, writer, error))
		return false;
	if (!(running ? machine_save_running : machine_save)(machine, writer, error))
		return false;
	out->state = state_writer_finish(writer, error);
	if (out->state && out->with_sessions)
		out->sessions = save_sessions(out, running, error);
	if (out->state && (!out->with_sessions || out->sessions))
		return true;
	drop_state(out);
	return false;
}

bool outgoing_save_running(struct outgoing *out, GBytes **state, GBytes **sessions, GError **error)
{
	const uint64_t begun_ns = clock_now_ns();

	if (!save_streams(out, true, error))
		return false;
	*state = g_steal_pointer(&out->state);
	*sessions = g_steal_pointer(&out->sessions);
	out->rehearsal_ns += clock_now_ns() - begun_ns;
	return true;
}

/*
 * What this program cannot read back, or KVM does not take back, none can: better to undo it than to go
 * back to it.  The successor of a transfer finds that out itself, while there is a way back.
 */
static bool check_streams(const struct outgoing *out, GError **error)
{
	autoptr(state_reader) reader = state_reader_open(out->state, error);
	struct span payload;

	if (reader && state_reader_take(reader, UPDATE_SECTION, 0, &payload, error) &&
	    machine_check_stream(out->update->machine, reader, error) &&
	    machine_prove(out->update->machine, error))
		return true;
	g_prefix_error(error, "the saved state is not one that can be loaded: ");
	return false;
}

enum stage_result source_save(void *ctx, GError **error)
{
	struct outgoing *out = ctx;
	struct update *update = out->update;

	migration_progress_set(&update->progress, MIGRATION_DEVICE);
	out->offered = owner_offer(update->owner, out->attempt, error);
	if (!out->offered)
		return STAGE_FAILED;
	if (!save_streams(out, false, error) || (out->prove && !check_streams(out, error))) {
		source_unsave(out);
		return STAGE_FAILED;
	}
	update->progress.state_bytes = g_bytes_get_size(out->state);
	return STAGE_DONE;
}

void source_unsave(void *ctx)
{
	struct outgoing *out = ctx;

	if (out->offered)
		out->elsewhere = !owner_recall(out->update->owner, out->attempt);
	out->offered = false;
	drop_state(out);
}
