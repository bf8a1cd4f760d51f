// cpr-transfer, the side that has the guest: everything but the vCPU and device state goes early.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"
#include "cpr/internal.h"
#include "state/fd_paths.h"

/* A successor that listens is there at once; a name server and a far one are given time. */
#define CONNECT_MS 8000

/*
 * How long a successor that was given the guest may make no progress before it is taken back, and one
 * that has it before its report is done without (patience.h).
 */
#define CLAIM_MS  2000
#define REPORT_MS 5000

/* A process that is killed loses its sockets before its locks: how often to look again. */
#define VERDICT_TICKS 100
#define VERDICT_MS    10

/**
 * struct transfer_source - The update, from this side
 * @dial:	The connection that a stage waits for
 * @cpr:	Dialogue with the successor
 * @main:	The state goes here
 * @features:	HELLO_ bits in force
 * @awaited:	Frame that ends the pending stage, 0: none
 * @sent:	The whole state has been sent
 * @patience:	After the commit: with the successor
 * @claimed:	It was seen to have the guest
 * @timer:	After the commit: ticks while the report is awaited, or the verdict
 * @ticks:	How often it ticked while the verdict is awaited
 * @trouble:	Why the verdict has to be found
 * @verdict:	Who owns the guest, once @judged
 */
struct transfer_source {
	struct outgoing base;
	struct channel_dial *dial;
	struct link *cpr;
	struct link *main;
	uint32_t features;
	unsigned int awaited;
	bool sent;
	struct patience patience;
	bool claimed;
	GSource *timer;
	unsigned int ticks;
	GError *trouble;
	bool judged;
	enum owner_verdict verdict;
};

/* Whether the successor took the guest; it may have handed it on meanwhile. */
static bool taken(const struct transfer_source *ts)
{
	return owner_word_used(owner_word(ts->base.update->owner), ts->base.attempt);
}

/* The successor's processor time, to tell one that is slow from one that stands. */
static uint64_t ts_progress(void *ctx)
{
	const struct transfer_source *ts = ctx;

	return ts->cpr ? clock_of_process_ns(link_peer_pid(ts->cpr)) : 0;
}

/* ---- trouble after the commit ---- */

/*
 * The lock tells who owns the guest, but only once it is settled: a successor that is being killed
 * still holds it for a moment.  One that holds it and does not take the guest is stopped, and loses it.
 */
static gboolean poll_owner(void *opaque)
{
	struct transfer_source *ts = opaque;
	struct owner *owner = ts->base.update->owner;

	ts->verdict = owner_reclaim(owner, ts->base.attempt);
	if (ts->verdict == OWNER_ELSEWHERE && ++ts->ticks < VERDICT_TICKS)
		return G_SOURCE_CONTINUE;
	if (ts->verdict == OWNER_ELSEWHERE && !taken(ts))
		ts->verdict = owner_seize(owner, ts->base.attempt, NULL);
	if (ts->verdict == OWNER_ELSEWHERE && !taken(ts))
		return G_SOURCE_CONTINUE;
	ts->judged = true;
	stage_run_continue(&ts->base.run, g_steal_pointer(&ts->trouble));
	return G_SOURCE_REMOVE;
}

/* The dialogue has failed; @error is taken. */
static void in_trouble(struct transfer_source *ts, GError *error)
{
	ts->awaited = 0;
	if (!stage_run_committed(&ts->base.run)) {
		stage_run_continue(&ts->base.run, error);
		return;
	}
	if (ts->trouble) {
		g_error_free(error);
		return;
	}
	ts->trouble = error;
	ts->ticks = 0;
	loop_unwatch(&ts->timer);
	ts->timer = loop_after_ms(VERDICT_MS, poll_owner, ts);
}

/* ---- what the successor says ---- */

static bool take_welcome(struct transfer_source *ts, json_t *body, GError **error)
{
	g_clear_pointer(&ts->base.update->record->new_build, g_free);
	return hello_check(body, &ts->base.update->record->new_build, &ts->features, error);
}

/* What the pause will be spent on has been rehearsed on both sides. */
static void take_ready(struct transfer_source *ts, const json_t *body)
{
	json_int_t theirs_ns = json_integer_value(json_object_get(body, "rehearsal-ns"));

	ts->base.rehearsal_ns += theirs_ns > 0 ? theirs_ns : 0;
}

/* The successor's phases and times; a report that is not understood changes nothing. */
static void take_running(struct transfer_source *ts, json_t *body)
{
	g_autoptr(GError) ignored = NULL;

	if (ts->features & HELLO_RECORD)
		(void)update_record_merge(ts->base.update->record, json_object_get(body, "record"),
					  true, &ignored);
}

static void cpr_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload)
{
	struct transfer_source *ts = opaque;
	GError *error = NULL;

	if (link_gave_up(ts->cpr, type, body, &error))
		;
	else if (type != ts->awaited)
		error_set_generic(&error, "the new process sent '%s' out of turn",
				  frame_type_name(type));
	else if (type == FRAME_WELCOME)
		take_welcome(ts, body, &error);
	else if (type == FRAME_READY)
		take_ready(ts, body);
	else if (type == FRAME_RUNNING)
		take_running(ts, body);
	if (error) {
		in_trouble(ts, error);
		return;
	}
	ts->awaited = 0;
	stage_run_continue(&ts->base.run, NULL);
}

static void cpr_closed(void *opaque, const GError *error)
{
	struct transfer_source *ts = opaque;
	const char *stage = stage_run_pending(&ts->base.run);

	in_trouble(ts,
		   g_error_new(MOLT_ERROR, MOLT_ERROR_GENERIC, "%s: the new process is gone: %s",
			       stage ? stage : "?", error->message));
}

static const struct link_handler cpr_handler = {"the new process", cpr_message, cpr_closed};

static enum stage_result await(struct transfer_source *ts, enum frame_type type)
{
	ts->awaited = type;
	return STAGE_PENDING;
}

/* ---- stages, guest running ---- */

/* @fd is taken; -1 with @error set. */
static bool begin_dialogue(struct transfer_source *ts, int fd, GError **error)
{
	if (fd < 0) {
		g_prefix_error(error, "cpr channel: ");
		return false;
	}
	ts->cpr = link_new(fd, &cpr_handler, ts);
	if (link_peer_trusted(ts->cpr, error))
		return true;
	g_clear_pointer(&ts->cpr, link_free);
	return false;
}

static void cpr_connected(void *opaque, int fd, const GError *error)
{
	struct transfer_source *ts = opaque;
	GError *why = error ? g_error_copy(error) : NULL;

	g_clear_pointer(&ts->dial, channel_dial_free);
	begin_dialogue(ts, fd, &why);
	stage_run_continue(&ts->base.run, why);
}

/* A successor that listens is connected to at once, and one that does not is the command's answer. */
static enum stage_result ts_connect(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;
	int fd;

	ts->dial = channel_connect(ts->base.channels.cpr, CONNECT_MS, cpr_connected, ts);
	if (!channel_dial_take(ts->dial, &fd, error))
		return STAGE_PENDING;
	ts->dial = NULL;
	return begin_dialogue(ts, fd, error) ? STAGE_DONE : STAGE_FAILED;
}

/* The last thing to be undone: the guest runs already, so there is time to say why. */
static void ts_disconnect(void *ctx)
{
	struct transfer_source *ts = ctx;
	const char *reason = ts->base.cancelled ? "the update was cancelled" : "the update failed";

	g_clear_pointer(&ts->dial, channel_dial_free);
	if (!ts->cpr)
		return;
	(void)link_send(ts->cpr, FRAME_ABORT, json_pack("{s:s}", "reason", reason), NULL);
	g_clear_pointer(&ts->cpr, link_free);
}

static enum stage_result ts_hello(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;

	if (!link_send(ts->cpr, FRAME_HELLO, hello_to_json(HELLO_ALL), error))
		return STAGE_FAILED;
	return await(ts, FRAME_WELCOME);
}

static enum stage_result ts_offer(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;
	json_t *offer = outgoing_offer(&ts->base);

	json_object_set_new(offer, "paths", fd_paths_json(&ts->base.update->fds));
	if (!link_send(ts->cpr, FRAME_OFFER, offer, error))
		return STAGE_FAILED;
	return await(ts, FRAME_ACCEPT);
}

static enum stage_result ts_fds(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;
	autoptr(fdstore) store = fdstore_new_view();

	if (fd_source_offer(&ts->base.update->fds, store, FD_WAY_TRANSFER, error) &&
	    link_send_fds(ts->cpr, store, error))
		return STAGE_DONE;
	return STAGE_FAILED;
}

static enum stage_result ts_ready(void *ctx, GError **error)
{
	return await(ctx, FRAME_READY);
}

static bool two_step(const struct transfer_source *ts)
{
	return ts->base.update->capabilities.on[MIGRATION_CAP_CPR_TWO_STEP];
}

static enum stage_result ts_main(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;

	if (two_step(ts))
		migration_progress_ready(&ts->base.update->progress);
	return await(ts, FRAME_MAIN_READY);
}

/* The manager's time: both monitors answer, nothing has stopped, migrate_cancel ends it. */
static enum stage_result ts_window(void *ctx, GError **error)
{
	const struct transfer_source *ts = ctx;

	return two_step(ts) && !ts->base.resumed ? STAGE_MANAGER : STAGE_DONE;
}

/* Nothing but silence is expected on the main channel. */
static void main_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload)
{
}

/* After the commit the successor closes it when it likes. */
static void main_closed(void *opaque, const GError *error)
{
	struct transfer_source *ts = opaque;
	const char *stage = stage_run_pending(&ts->base.run);
	GError *why;

	if (stage_run_committed(&ts->base.run))
		return;
	why = g_error_new(MOLT_ERROR, MOLT_ERROR_GENERIC, "%s: main channel: %s",
			  stage ? stage : "?", error->message);
	link_last_words(ts->cpr, &why);
	in_trouble(ts, why);
}

static const struct link_handler main_handler = {"the new process", main_message, main_closed};

static void ts_leave(void *ctx)
{
	struct transfer_source *ts = ctx;

	g_clear_pointer(&ts->dial, channel_dial_free);
	g_clear_pointer(&ts->main, link_free);
}

/* "joined" is still to come.  @fd is taken; -1 with @error set. */
static bool say_join(struct transfer_source *ts, int fd, GError **error)
{
	if (fd < 0) {
		g_prefix_error(error, "main channel: ");
		return false;
	}
	ts->main = link_new(fd, &main_handler, ts);
	ts->base.update->progress.connected_ns = clock_now_ns();
	if (link_send(ts->main, FRAME_JOIN, json_pack("{s:s}", "session", ts->base.session), error))
		return true;
	g_clear_pointer(&ts->main, link_free);
	return false;
}

static void main_connected(void *opaque, int fd, const GError *error)
{
	struct transfer_source *ts = opaque;
	GError *why = error ? g_error_copy(error) : NULL;

	g_clear_pointer(&ts->dial, channel_dial_free);
	if (!say_join(ts, fd, &why))
		stage_run_continue(&ts->base.run, why);
}

static enum stage_result ts_join(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;
	int fd;

	ts->dial = channel_connect(ts->base.channels.main, CONNECT_MS, main_connected, ts);
	if (channel_dial_take(ts->dial, &fd, error)) {
		ts->dial = NULL;
		if (!say_join(ts, fd, error))
			return STAGE_FAILED;
	}
	return await(ts, FRAME_JOINED);
}

/* ---- stages, guest paused ---- */

static enum stage_result ts_state(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;

	if (!link_send_bytes(ts->main, FRAME_STATE, ts->base.state, error)) {
		link_last_words(ts->cpr, error);
		return STAGE_FAILED;
	}
	ts->sent = link_flush(ts->main, clock_deadline_ms(LINK_SWIFT_MS));
	return STAGE_DONE;
}

static enum stage_result ts_loaded(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;
	g_autoptr(GError) why = NULL;
	json_t *body = NULL;

	if (ts->sent)
		body = link_wait(ts->cpr, FRAME_LOADED, clock_deadline_ms(LINK_SWIFT_MS), &why);
	if (body) {
		json_decref(body);
		return STAGE_DONE;
	}
	/* It takes longer: monitors answer meanwhile. */
	if (!why || why->code == MOLT_ERROR_TIMEOUT)
		return await(ts, FRAME_LOADED);
	g_propagate_prefixed_error(error, g_steal_pointer(&why), "loaded: ");
	return STAGE_FAILED;
}

static enum stage_result ts_commit(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;

	owner_release(ts->base.update->owner);
	return STAGE_DONE;
}

/* ---- after the commit ---- */

/* One that has gone cannot hear it: the hang-up will tell, and then the owner page. */
static enum stage_result ts_go(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;
	json_int_t paused_ns = ts->base.update->record->paused_ns;

	(void)link_send(ts->cpr, FRAME_GO, json_pack("{s:I}", "paused-at-ns", paused_ns), NULL);
	return STAGE_DONE;
}

/* Whether the guest has stood for as long as was agreed. */
static bool limit_is_over(const struct stage_run *run)
{
	return run->limit_ns && clock_now_ns() - run->paused_ns > run->limit_ns;
}

static uint32_t begin_patience(struct transfer_source *ts, uint32_t ms)
{
	ts->patience = (struct patience){.budget_ms = ms, .progress = ts_progress, .opaque = ts};
	return patience_begin(&ts->patience);
}

static gboolean report_tick(void *opaque)
{
	struct transfer_source *ts = opaque;
	uint32_t next_ms = patience_tick(&ts->patience);

	if (!ts->claimed && taken(ts)) {
		ts->claimed = true;
		next_ms = begin_patience(ts, REPORT_MS);
	}
	if (!ts->claimed && limit_is_over(&ts->base.run))
		next_ms = 0;
	if (next_ms) {
		loop_unwatch(&ts->timer);
		ts->timer = loop_after_ms(next_ms, report_tick, ts);
	} else if (ts->claimed) {
		stage_run_continue(
			&ts->base.run,
			g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT,
				    "the new process has the guest, but did not report"));
	} else {
		/* If the lock is free, the guest is taken back. */
		in_trouble(ts, g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT,
					   "the new process was given the guest, but did not take "
					   "it"));
	}
	return G_SOURCE_REMOVE;
}

static enum stage_result ts_running(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;

	ts->timer = loop_after_ms(begin_patience(ts, CLAIM_MS), report_tick, ts);
	return await(ts, FRAME_RUNNING);
}

/* A successor that has died needs none; the guest died with it, and that is found out elsewhere. */
static enum stage_result ts_record(void *ctx, GError **error)
{
	struct transfer_source *ts = ctx;
	json_t *record = update_record_to_json(ts->base.update->record);

	if (ts->features & HELLO_RECORD)
		(void)link_send(ts->cpr, FRAME_RECORD, json_pack("{s:O}", "record", record), NULL);
	json_decref(record);
	return STAGE_DONE;
}

static void ts_stop_waiting(void *ctx)
{
	struct transfer_source *ts = ctx;

	loop_unwatch(&ts->timer);
}

/* clang-format off */
static const struct stage transfer_source_stages[] = {
	{ "connect",    10000,  false, ts_connect,        ts_disconnect },
	{ "hello",      5000,   false, ts_hello,          NULL, STATION_HELLO },
	{ "disks",      0,      false, source_disks,      source_undrain },
	{ "offer",      10000,  false, ts_offer,          NULL, STATION_OFFER },
	{ "fds",        0,      false, ts_fds,            NULL, STATION_FDS },
	{ "rehearse",   5000,   false, source_rehearse,   NULL, STATION_REHEARSE },
	{ "ready",      60000,  false, ts_ready,          NULL, STATION_READY },
	{ "main",       0,      false, ts_main,           NULL, STATION_MAIN },
	{ "window",     0,      false, ts_window,         NULL },
	{ "join",       10000,  false, ts_join,           ts_leave, STATION_JOIN },
	{ "drain",      0,      false, source_drain,      source_undrain },
	{ "pause",      1000,   false, source_pause,      source_unpause },
	{ "switchover", 0,      false, source_switchover, NULL },
	{ "quiesce",    1000,   false, source_quiesce,    source_unquiesce },
	{ "save",       5000,   false, source_save,       source_unsave },
	{ "state",      0,      false, ts_state,          NULL, STATION_STATE },
	{ "loaded",     2000,   false, ts_loaded,         NULL, STATION_LOADED },
	{ "commit",     0,      true,  ts_commit,         NULL, STATION_COMMIT },
	{ "go",         0,      false, ts_go,             NULL },
	{ "running",    0,      false, ts_running,        ts_stop_waiting, STATION_RUNNING },
	{ "record",     0,      false, ts_record,         NULL, STATION_RECORD },
};
/* clang-format on */

const struct stage_table transfer_source_table =
	STAGE_TABLE("transfer-source", transfer_source_stages);

/* ---- the run ---- */

static bool ts_reclaim(void *ctx)
{
	struct transfer_source *ts = ctx;

	if (!ts->judged)
		ts->verdict = owner_reclaim(ts->base.update->owner, ts->base.attempt);
	return ts->verdict == OWNER_OURS;
}

static void ts_free(struct outgoing *out)
{
	struct transfer_source *ts = (struct transfer_source *)out;

	loop_unwatch(&ts->timer);
	g_clear_error(&ts->trouble);
	channel_dial_free(ts->dial);
	link_free(ts->cpr);
	link_free(ts->main);
	outgoing_clear(out);
	g_free(ts);
}

/* The guest is another process's, or was: let go, tell, keep the monitor. */
static void ts_committed(struct transfer_source *ts, const GError *error)
{
	struct update *update = ts->base.update;
	const bool lost = error && ts->verdict == OWNER_GONE;

	update->progress.resumed_ns = update->record->running_ns ? update->record->running_ns
								 : clock_now_ns();
	machine_enter(update->machine, RUNSTATE_POSTMIGRATE);
	update_record_finish(update->record, lost ? UPDATE_LOST : UPDATE_COMMITTED,
			     error ? error->message : NULL);
	update_publish_record(update);
	update_set_idle(update);
	ts_free(&ts->base);
	machine_disown(update->machine);
	if (lost)
		migration_progress_fail(&update->progress, error->message);
	else
		migration_progress_set(&update->progress, MIGRATION_COMPLETED);
}

static void ts_finished(void *ctx, enum stage_outcome outcome, const GError *error)
{
	struct transfer_source *ts = ctx;

	if (outcome == STAGE_OUTCOME_UNDONE)
		outgoing_undone(&ts->base, error);
	else
		ts_committed(ts, error);
}

bool transfer_source_start(struct update *update, struct migration_channels *channels,
			   GError **error)
{
	struct transfer_source *ts = g_new0(struct transfer_source, 1);

	ts->base.free = ts_free;
	if (!outgoing_init(&ts->base, update, MIGRATION_MODE_CPR_TRANSFER, &transfer_source_table,
			   channels, error)) {
		g_free(ts);
		return false;
	}
	ts->base.run.progress = ts_progress;
	ts->base.run.reclaim = ts_reclaim;
	ts->base.run.finished = ts_finished;
	stage_run_start(&ts->base.run);
	/* What went wrong before the first wait is also the command's answer. */
	if (update->progress.status == MIGRATION_FAILED)
		return error_set_generic(error, "%s", update->progress.error_desc);
	return true;
}
