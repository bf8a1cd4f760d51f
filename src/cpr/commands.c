// What the monitors' migrate family does: checks, refusals, queries.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "cpr/internal.h"

/* ---- migrate ---- */

static bool check_mode(enum migration_mode mode, GError **error)
{
	if (mode == MIGRATION_MODE_CPR_TRANSFER || mode == MIGRATION_MODE_CPR_EXEC)
		return true;
	return error_set_generic(error,
				 "migration mode '%s' is not offered; set the parameter mode to "
				 "'cpr-transfer' or 'cpr-exec'",
				 migration_mode_name(mode));
}

/* Another try counts: it is the same migrate's. */
static bool check_not_outgoing(const struct update *update, GError **error)
{
	return (!update->outgoing && !update->next_try.timer) ||
	       error_set_generic(error, "There's a migration process in progress");
}

static bool check_idle(const struct update *update, GError **error)
{
	if (!check_not_outgoing(update, error))
		return false;
	if (update->incoming || !update->machine)
		return error_set_generic(error, "Guest is waiting for an incoming migration");
	if (!owner_held(update->owner))
		return error_set_generic(error, "Can't migrate the vm that was paused due to "
						"previous migration");
	return true;
}

/* An exec may do without a file: the state crosses in memory. */
static bool parse_channels(enum migration_mode mode, const json_t *args,
			   struct migration_channels *channels, GError **error)
{
	const bool transfer = mode == MIGRATION_MODE_CPR_TRANSFER;

	if (!transfer && !json_object_get(args, "uri") && !json_object_get(args, "channels"))
		return true;
	if (!migration_channels_from_migrate(args, transfer, channels, error))
		return false;
	if (transfer || (channels->main->transport == MIGRATION_FILE && !channels->cpr))
		return true;
	migration_channels_clear(channels);
	return error_set_generic(error, "mode 'cpr-exec' stores the state in a file: give "
					"file:PATH, and no cpr channel");
}

static bool start(struct update *update, enum migration_mode mode,
		  struct migration_channels *channels, GError **error)
{
	if (!check_idle(update, error) || !update_check_blockers(update, mode, error))
		return false;
	if (mode == MIGRATION_MODE_CPR_TRANSFER)
		return transfer_source_start(update, channels, error);
	return exec_source_start(update, channels, error);
}

/* An update goes on when no monitor's callback is on the stack. */
static void go_on(void *opaque)
{
	struct update *update = opaque;
	struct outgoing *out = update->outgoing;

	if (out && stage_run_awaits_manager(&out->run))
		stage_run_continue(&out->run, NULL);
}

/* The second step of a two-step transfer; it may come before the successor's main channel is named. */
static bool resume(struct update *update, GError **error)
{
	if (!update->outgoing || !update->progress.ready || update->outgoing->resumed)
		return error_set_generic(error, "Cannot resume if there is no paused migration");
	update->outgoing->resumed = true;
	loop_call_later(go_on, update);
	return true;
}

static bool migrate(struct update *update, const json_t *args, GError **error)
{
	const enum migration_mode mode = migration_parameters_mode(&update->parameters);
	struct migration_channels channels = {0};
	bool ok;

	if (json_is_true(json_object_get(args, "resume")))
		return resume(update, error);
	if (!check_mode(mode, error) || !parse_channels(mode, args, &channels, error))
		return false;
	ok = start(update, mode, &channels, error);
	migration_channels_clear(&channels);
	return ok;
}

bool update_migrate(struct update *update, const json_t *args, GError **error)
{
	g_autoptr(GError) why = NULL;

	if (migrate(update, args, &why))
		return true;
	/* There is no record of an update that has not begun. */
	log_warn("migrate was refused: %s", why->message);
	g_propagate_error(error, g_steal_pointer(&why));
	return false;
}

void update_cancel(struct update *update)
{
	struct outgoing *out = update->outgoing;

	if (exec_source_drop_next_try(update)) {
		migration_progress_set(&update->progress, MIGRATION_CANCELLING);
		migration_progress_set(&update->progress, MIGRATION_CANCELLED);
	}
	if (!out || !stage_run_pending(&out->run) || stage_run_committed(&out->run))
		return;
	out->cancelled = true;
	stage_run_continue(&out->run, g_error_new(MOLT_ERROR, MOLT_ERROR_GENERIC,
						  "cancelled by migrate_cancel"));
}

bool update_continue(struct update *update, const char *state, GError **error)
{
	const enum migration_status status = migration_status_from_name(state);

	if (status == MIGRATION_STATUS_COUNT || status != update->progress.status ||
	    status != MIGRATION_PRE_SWITCHOVER)
		return error_set_generic(error, "Migration not in expected state: %s",
					 migration_status_name(update->progress.status));
	loop_call_later(go_on, update);
	return true;
}

/* ---- migrate-incoming ---- */

bool update_incoming(struct update *update, const json_t *args, GError **error)
{
	struct incoming *in = update->incoming;
	struct migration_channels channels = {0};
	const json_t *exits = json_object_get(args, "exit-on-error");
	bool ok;

	if (!in && update->config->incoming->len > 0)
		return error_set_generic(error, "The incoming migration has already been started");
	if (!in)
		return error_set_generic(error, "'-incoming' was not specified on the command "
						"line");
	if (in->started)
		return error_set_generic(error, "The incoming migration has already been started");
	if (!migration_channels_from_incoming(args, &channels, error))
		return false;
	if (!incoming_complete(in, error)) {
		migration_channels_clear(&channels);
		return false;
	}
	in->started = true;
	in->exit_on_error = !exits || json_is_true(exits);
	in->channels.main = g_steal_pointer(&channels.main);
	migration_channels_clear(&channels);
	/* At once: whoever asks for the status next finds the guest running. */
	in->in_command = true;
	ok = in->main_named(in, error);
	if (update->incoming)
		update->incoming->in_command = false;
	if (!ok) {
		in->started = false;
		g_clear_pointer(&in->channels.main, migration_address_free);
	}
	return ok;
}

/* ---- queries and settings ---- */

static json_t *blocked_reasons(struct update *update, enum migration_mode mode)
{
	g_autoptr(GPtrArray) reasons = update_blockers(update, mode);
	json_t *list = json_array();

	for (guint i = 0; i < reasons->len; i++)
		json_array_append_new(list, json_string(g_ptr_array_index(reasons, i)));
	return list;
}

static void add_blockers(struct update *update, json_t *out)
{
	const enum migration_mode mode = migration_parameters_mode(&update->parameters);
	json_t *reasons;

	if (mode != MIGRATION_MODE_CPR_TRANSFER && mode != MIGRATION_MODE_CPR_EXEC)
		return;
	if (!update->machine || !update->owner || !owner_held(update->owner))
		return;
	/* One that has begun found none, and what it has open meanwhile is none either. */
	if (update->outgoing)
		return;
	reasons = blocked_reasons(update, mode);
	if (json_array_size(reasons) > 0)
		json_object_set(out, "blocked-reasons", reasons);
	json_decref(reasons);
}

/* What the time before another try of an exec is called beside its stages. */
#define NEXT_TRY_STAGE "again"

json_t *update_query(struct update *update)
{
	const struct stage_run *run = update->outgoing	 ? &update->outgoing->run
				      : update->incoming ? &update->incoming->run
							 : NULL;
	const char *stage = run			     ? stage_run_pending(run)
			    : update->next_try.timer ? NEXT_TRY_STAGE
						     : NULL;
	json_t *out = migration_progress_query(&update->progress);

	if (stage)
		json_object_set_new(out, "update-stage", json_string(stage));
	if (update->record && update->record->result != UPDATE_IN_PROGRESS)
		json_object_set_new(out, "update-record", update_record_to_json(update->record));
	add_blockers(update, out);
	return out;
}

bool update_set_parameters(struct update *update, const json_t *args, GError **error)
{
	return migration_parameters_set(&update->parameters, args, error);
}

json_t *update_query_parameters(struct update *update)
{
	return migration_parameters_query(&update->parameters);
}

bool update_set_capabilities(struct update *update, const json_t *list, GError **error)
{
	if (!check_not_outgoing(update, error))
		return false;
	if (!migration_capabilities_set(&update->capabilities, list, error))
		return false;
	update->progress.events = update->capabilities.on[MIGRATION_CAP_EVENTS];
	return true;
}

json_t *update_query_capabilities(struct update *update)
{
	return migration_capabilities_query(&update->capabilities);
}
