// cpr-transfer, the side that wants the guest: built warm, loads, goes on.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "cpr/internal.h"
#include "state/fd_paths.h"

/* From "joined" to the state is the predecessor's pause, quiesce and save. */
#define STATE_NEAR_NS (5 * NS_PER_MSEC)

/* How often the lock is tried: of a predecessor that lives, and of one that has hung up. */
#define TRY_MS	     10
#define TRY_AFTER_MS 1

/* How long the main channel may stay open after the cpr channel: what lies in it is read first. */
#define DRAIN_MS 5000

/**
 * struct transfer_target - The update, from this side
 * @cpr_listener: Until a predecessor has said hello
 * @cpr:	Dialogue with it
 * @naming:	Until the name of @main_listener's host is known
 * @main_listener: Until it has connected
 * @main:	The state comes here
 * @features:	HELLO_ bits in force
 * @awaited:	Frame that ends the pending stage, 0: none
 * @paths:	That the predecessor has; it may be any JSON
 * @accepted:	The offer fits: from now on a failure is an abort, not a refusal
 * @state:	The stream, until it is loaded
 * @attempt:	That it is of
 * @gone_on:	The guest was let go on
 * @gone:	Why the predecessor is taken for dead: it is believed when all it sent has been read, and
 *		then only the owner page decides
 * @told:	What it said when it gave up
 * @timer:	Next try for the lock, or the end of reading on
 * @population:	Page tables being filled
 * @rehearsal_ns: How long loading a state like the one to come takes
 */
struct transfer_target {
	struct incoming base;
	struct channel_listener *cpr_listener;
	struct link *cpr;
	struct channel_naming *naming;
	struct channel_listener *main_listener;
	struct link *main;
	uint32_t features;
	unsigned int awaited;
	json_t *paths;
	bool accepted;
	GBytes *state;
	uint64_t attempt;
	bool gone_on;
	GError *gone;
	GError *told;
	GSource *timer;
	struct population *population;
	uint64_t rehearsal_ns;
};

static void try_now(struct transfer_target *tt);

static enum stage_result await(struct transfer_target *tt, enum frame_type type)
{
	tt->awaited = type;
	return STAGE_PENDING;
}

/* ---- what the predecessor says ---- */

static bool take_hello(struct transfer_target *tt, const json_t *body, GError **error)
{
	struct update_record *record = tt->base.update->record;

	g_clear_pointer(&tt->cpr_listener, channel_listener_free);
	return hello_check(body, &record->old_build, &tt->features, error);
}

static bool take_offer(struct transfer_target *tt, const json_t *body, GError **error)
{
	struct update *update = tt->base.update;
	autoptr(offer) offer = offer_from_json(body, error);
	g_autofree char *differences = NULL;
	g_autofree char *moved = NULL;

	if (!offer)
		return false;
	if (strcmp(offer->mode, update->record->mode) != 0)
		return error_set(error, MOLT_ERROR_REFUSED,
				 "the offer is for mode '%s'; a cpr channel is for '%s'",
				 offer->mode, update->record->mode);
	tt->paths = json_incref(json_object_get(body, "paths"));
	differences = offer_differences(offer, update->config, incoming_may_plug(&tt->base));
	if (differences)
		return error_set(error, MOLT_ERROR_REFUSED, "%s", differences);
	if (!fd_paths_check(&update->fds, tt->paths, error))
		return false;
	if (update->config->explicit_vm)
		moved = vm_config_moved_chardevs(offer->config, update->config, true);
	if (moved)
		log_info("used as the command line has it: %s", moved);
	tt->accepted = true;
	update_adopt(update, offer, false);
	if (update->config->monitors->len == 0)
		log_warn("this process has no monitor: once it has the guest, only signals reach "
			 "it; start it with -qmp or -monitor");
	tt->base.offer = g_steal_pointer(&offer);
	return link_send(tt->cpr, FRAME_ACCEPT, NULL, error);
}

static bool take_fds(struct transfer_target *tt, GError **error)
{
	struct update *update = tt->base.update;

	update->inherited = link_receive_fds(tt->cpr, error);
	update->fds.inherited = update->inherited;
	return update->inherited;
}

static void note_go(struct transfer_target *tt, const json_t *body)
{
	tt->base.update->record->paused_ns =
		json_integer_value(json_object_get(body, "paused-at-ns"));
}

static void take_record(struct transfer_target *tt, const json_t *body)
{
	g_autoptr(GError) ignored = NULL;

	(void)update_record_merge(tt->base.update->record, json_object_get(body, "record"), false,
				  &ignored);
}

/* In the commit nothing that is said decides, but it may be worth a look. */
static void take_commit_word(struct transfer_target *tt, enum frame_type type, const json_t *body,
			     GError *error)
{
	if (type == FRAME_GO)
		note_go(tt, body);
	if (error && !tt->told)
		tt->told = error;
	else
		g_clear_error(&error);
	try_now(tt);
}

static void cpr_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload)
{
	struct transfer_target *tt = opaque;
	GError *error = NULL;

	if (tt->cpr_listener && type != FRAME_HELLO) {
		log_warn("cpr channel: a connection that began with '%s' was closed",
			 frame_type_name(type));
		g_clear_pointer(&tt->cpr, link_free);
		return;
	}
	if (link_gave_up(tt->cpr, type, body, &error))
		;
	else if (type != tt->awaited)
		error_set_generic(&error, "the old process sent '%s' out of turn",
				  frame_type_name(type));
	else if (type == FRAME_HELLO)
		take_hello(tt, body, &error);
	else if (type == FRAME_OFFER)
		take_offer(tt, body, &error);
	else if (type == FRAME_FDS)
		take_fds(tt, &error);
	else if (type == FRAME_RECORD)
		take_record(tt, body);
	if (tt->awaited == FRAME_GO) {
		take_commit_word(tt, type, body, error);
		return;
	}
	tt->awaited = 0;
	stage_run_continue(&tt->base.run, error);
}

static gboolean drained(void *opaque)
{
	struct transfer_target *tt = opaque;

	loop_unwatch(&tt->timer);
	stage_run_continue(&tt->base.run, g_error_copy(tt->gone));
	return G_SOURCE_REMOVE;
}

/*
 * Who connects and says nothing sensible is no predecessor: go on waiting for one.  One that has hung
 * up may have sent the state before.
 */
static void cpr_closed(void *opaque, const GError *error)
{
	struct transfer_target *tt = opaque;
	const char *stage = stage_run_pending(&tt->base.run);

	if (tt->cpr_listener) {
		log_warn("cpr channel: %s", error->message);
		g_clear_pointer(&tt->cpr, link_free);
		return;
	}
	if (!tt->gone)
		error_set_generic(&tt->gone, "%s: the old process is gone: %s", stage ? stage : "?",
				  error->message);
	if (tt->awaited == FRAME_GO) {
		try_now(tt);
	} else if (tt->awaited == FRAME_STATE) {
		loop_unwatch(&tt->timer);
		tt->timer = loop_after_ms(DRAIN_MS, drained, tt);
	} else {
		tt->awaited = 0;
		stage_run_continue(&tt->base.run, g_error_copy(tt->gone));
	}
}

static const struct link_handler cpr_handler = {"the old process", cpr_message, cpr_closed};

static void cpr_connected(void *opaque, int fd)
{
	struct transfer_target *tt = opaque;
	g_autoptr(GError) error = NULL;

	/* One at a time: a newer connection replaces one that has said nothing yet. */
	link_free(tt->cpr);
	tt->cpr = link_new(fd, &cpr_handler, tt);
	tt->awaited = FRAME_HELLO;
	if (!link_peer_trusted(tt->cpr, &error)) {
		log_warn("cpr channel: %s", error->message);
		g_clear_pointer(&tt->cpr, link_free);
	}
}

/* ---- stages: the predecessor's guest runs ---- */

static enum stage_result tt_listen(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	tt->cpr_listener = channel_listen(tt->base.channels.cpr, error);
	if (!tt->cpr_listener) {
		g_prefix_error(error, "-incoming: cpr channel: ");
		return STAGE_FAILED;
	}
	channel_listener_start(tt->cpr_listener, cpr_connected, tt);
	return STAGE_PENDING;
}

static void tt_hang_up(void *ctx)
{
	struct transfer_target *tt = ctx;

	g_clear_pointer(&tt->cpr, link_free);
	g_clear_pointer(&tt->cpr_listener, channel_listener_free);
}

static enum stage_result tt_hello(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	return link_send(tt->cpr, FRAME_WELCOME, hello_to_json(tt->features), error) ? STAGE_DONE
										     : STAGE_FAILED;
}

static enum stage_result tt_offer(void *ctx, GError **error)
{
	return await(ctx, FRAME_OFFER);
}

static enum stage_result tt_fds(void *ctx, GError **error)
{
	return await(ctx, FRAME_FDS);
}

/* Once monitors know the machine it stays until the process ends, whatever comes of the update. */
static enum stage_result tt_build(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;
	struct update *update = tt->base.update;

	/* Again: the machine's chardevs may claim paths too. */
	if (incoming_build(&tt->base, true, error) &&
	    fd_paths_check(&update->fds, tt->paths, error)) {
		update_machine_ready(update);
		return STAGE_DONE;
	}
	g_clear_pointer(&update->machine, machine_free);
	g_clear_pointer(&update->owner, owner_free);
	return STAGE_FAILED;
}

static void populated(void *opaque, GError *error)
{
	struct transfer_target *tt = opaque;

	stage_run_continue(&tt->base.run, error);
}

static void tt_stop_populating(void *ctx)
{
	struct transfer_target *tt = ctx;

	g_clear_pointer(&tt->population, population_free);
}

/* On a thread: the predecessor may change its mind, and memory can be large. */
static enum stage_result tt_populate(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	tt->population = machine_populate(tt->base.update->machine, populated, tt, error);
	return tt->population ? STAGE_PENDING : STAGE_FAILED;
}

/*
 * Once over what will be done in the pause, with the state that this machine has now: code, heap and
 * the kernel's lazily made parts are in place then, and what this program writes it can also read.
 */
static enum stage_result tt_rehearse(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;
	const uint64_t begun_ns = clock_now_ns();

	if (!machine_rehearse_load(tt->base.update->machine, tt->base.offer->tree, error))
		return STAGE_FAILED;
	tt->rehearsal_ns = clock_now_ns() - begun_ns;
	return STAGE_DONE;
}

static enum stage_result tt_ready(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	return link_send(tt->cpr, FRAME_READY,
			 json_pack("{s:I}", "rehearsal-ns", (json_int_t)tt->rehearsal_ns), error)
		       ? STAGE_DONE
		       : STAGE_FAILED;
}

static void main_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload);
static void main_closed(void *opaque, const GError *error);

static const struct link_handler main_handler = {"the old process", main_message, main_closed};

static void main_connected(void *opaque, int fd)
{
	struct transfer_target *tt = opaque;

	/* One at a time: a newer connection replaces one that has not shown the session. */
	link_free(tt->main);
	tt->main = link_new(fd, &main_handler, tt);
}

static void tt_close_main(void *ctx)
{
	struct transfer_target *tt = ctx;

	g_clear_pointer(&tt->naming, channel_naming_free);
	g_clear_pointer(&tt->main, link_free);
	g_clear_pointer(&tt->main_listener, channel_listener_free);
	g_clear_pointer(&tt->base.update->progress.address, json_decref);
}

/* The predecessor may connect; @listener is taken, NULL with @error set. */
static bool main_is_open(struct transfer_target *tt, struct channel_listener *listener,
			 GError **error)
{
	tt->main_listener = listener;
	if (!listener) {
		g_prefix_error(error, "main channel: ");
		return false;
	}
	channel_listener_start(listener, main_connected, tt);
	tt->base.update->progress.address = channel_listener_address(listener);
	if (link_send(tt->cpr, FRAME_MAIN_READY, NULL, error))
		return true;
	tt_close_main(tt);
	return false;
}

static void main_listening(void *opaque, struct channel_listener *listener, const GError *error)
{
	struct transfer_target *tt = opaque;
	GError *why = error ? g_error_copy(error) : NULL;

	g_clear_pointer(&tt->naming, channel_naming_free);
	main_is_open(tt, listener, &why);
	stage_run_continue(&tt->base.run, why);
}

static enum stage_result open_main(struct transfer_target *tt, GError **error)
{
	const struct migration_address *address = tt->base.channels.main;

	if (!channel_has_name(address))
		return main_is_open(tt, channel_listen(address, error), error) ? STAGE_DONE
									       : STAGE_FAILED;
	tt->naming = channel_listen_name(address, main_listening, tt, error);
	return tt->naming ? STAGE_PENDING : STAGE_FAILED;
}

static enum stage_result tt_main(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	if (!tt->base.channels.main)
		return STAGE_MANAGER;
	tt->base.started = true;
	return open_main(tt, error);
}

/* migrate-incoming has come while or before the stage "main" waits for it. */
static bool tt_main_named(struct incoming *in, GError **error)
{
	struct transfer_target *tt = (struct transfer_target *)in;
	enum stage_result result;

	if (!stage_run_awaits_manager(&in->run))
		return true;
	result = open_main(tt, error);
	if (result == STAGE_DONE)
		stage_run_continue(&in->run, NULL);
	return result != STAGE_FAILED;
}

static bool join_fits(struct transfer_target *tt, enum frame_type type, const json_t *body)
{
	const char *session = json_string_value(json_object_get(body, "session"));

	return type == FRAME_JOIN && session && strcmp(session, tt->base.offer->session) == 0 &&
	       tt->awaited == FRAME_JOIN;
}

static void main_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload)
{
	struct transfer_target *tt = opaque;

	if (tt->main_listener && !join_fits(tt, type, body)) {
		log_warn(
			"main channel: a connection that does not belong to this update was closed");
		g_clear_pointer(&tt->main, link_free);
	} else if (tt->main_listener) {
		g_clear_pointer(&tt->main_listener, channel_listener_free);
		g_clear_pointer(&tt->base.update->progress.address, json_decref);
		tt->awaited = 0;
		stage_run_continue(&tt->base.run, NULL);
	} else if (type == FRAME_STATE && tt->awaited == FRAME_STATE) {
		tt->awaited = 0;
		loop_unwatch(&tt->timer);
		tt->state = g_bytes_ref(payload);
		stage_run_continue(&tt->base.run, NULL);
	} else {
		stage_run_continue(&tt->base.run, g_error_new(MOLT_ERROR, MOLT_ERROR_GENERIC,
							      "main channel: '%s' out of turn",
							      frame_type_name(type)));
	}
}

/* Once the state is here, nothing more is expected. */
static void main_closed(void *opaque, const GError *error)
{
	struct transfer_target *tt = opaque;
	GError *why = NULL;

	if (tt->main_listener) {
		g_clear_pointer(&tt->main, link_free);
		return;
	}
	if (tt->awaited != FRAME_STATE)
		return;
	tt->awaited = 0;
	loop_unwatch(&tt->timer);
	if (tt->gone)
		why = g_error_copy(tt->gone);
	else
		error_set_generic(&why, "main channel: %s", error->message);
	link_last_words(tt->cpr, &why);
	stage_run_continue(&tt->base.run, why);
}

static enum stage_result tt_join(void *ctx, GError **error)
{
	return await(ctx, FRAME_JOIN);
}

static enum stage_result tt_state(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	if (!link_send(tt->cpr, FRAME_JOINED, NULL, error))
		return STAGE_FAILED;
	migration_progress_set(&tt->base.update->progress, MIGRATION_ACTIVE);
	loop_stay_awake(STATE_NEAR_NS);
	return await(tt, FRAME_STATE);
}

/* ---- stages: nobody runs the guest ---- */

static enum stage_result tt_load(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;
	tt->attempt = update_load(tt->base.update, tt->state, tt->base.offer, error);
	g_clear_pointer(&tt->state, g_bytes_unref);
	return tt->attempt ? STAGE_DONE : STAGE_FAILED;
}

/* A predecessor that is not there to hear it has died, perhaps: the owner page will tell. */
static enum stage_result tt_loaded(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	(void)link_send(tt->cpr, FRAME_LOADED, NULL, NULL);
	return STAGE_DONE;
}

/*
 * Whatever the predecessor has said, or has not: the guest is ours if its word offers this attempt and
 * nobody holds the lock, it is not if the word says so, and otherwise that is still open.
 */
static enum stage_result try_take(struct transfer_target *tt, GError **error)
{
	g_autoptr(GError) why = NULL;

	if (owner_take(tt->base.update->owner, tt->attempt, &why)) {
		if (tt->gone)
			log_warn("the old process died in the middle of the update; going on");
		return STAGE_DONE;
	}
	if (why->code == MOLT_ERROR_TIMEOUT)
		return STAGE_PENDING;
	if (tt->told) {
		g_clear_error(&why);
		why = g_steal_pointer(&tt->told);
	}
	g_propagate_prefixed_error(error, g_steal_pointer(&why), "commit: ");
	return STAGE_FAILED;
}

static gboolean take_tick(void *opaque)
{
	try_now(opaque);
	return G_SOURCE_REMOVE;
}

static void try_again_later(struct transfer_target *tt)
{
	loop_unwatch(&tt->timer);
	tt->timer = loop_after_ms(tt->gone ? TRY_AFTER_MS : TRY_MS, take_tick, tt);
}

static void try_now(struct transfer_target *tt)
{
	GError *error = NULL;

	if (try_take(tt, &error) == STAGE_PENDING) {
		try_again_later(tt);
		return;
	}
	tt->awaited = 0;
	loop_unwatch(&tt->timer);
	stage_run_continue(&tt->base.run, error);
}

static enum stage_result tt_commit(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;
	json_t *go = link_wait(tt->cpr, FRAME_GO, clock_deadline_ms(LINK_SWIFT_MS), &tt->told);
	enum stage_result result;

	if (go)
		note_go(tt, go);
	json_decref(go);
	/* Its own words are worth repeating; anything else is a hang-up, or not yet. */
	if (tt->told && tt->told->code == MOLT_ERROR_TIMEOUT)
		g_clear_error(&tt->told);
	else if (tt->told && tt->told->code != MOLT_ERROR_REFUSED && !tt->gone)
		tt->gone = g_steal_pointer(&tt->told);
	result = try_take(tt, error);
	if (result == STAGE_PENDING) {
		tt->awaited = FRAME_GO;
		try_again_later(tt);
	}
	return result;
}

static void tt_stop_trying(void *ctx)
{
	struct transfer_target *tt = ctx;

	loop_unwatch(&tt->timer);
}

static enum stage_result tt_run(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	update_go(tt->base.update);
	tt->gone_on = true;
	return STAGE_DONE;
}

static enum stage_result tt_running(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;
	json_t *report = json_object();

	if (tt->features & HELLO_RECORD)
		json_object_set_new(report, "record",
				    update_record_to_json(tt->base.update->record));
	/* A predecessor that has died needs no report. */
	(void)link_send(tt->cpr, FRAME_RUNNING, report, NULL);
	return STAGE_DONE;
}

/* The old process's part of the record.  The guest runs: one that dies or is silent changes nothing. */
static enum stage_result tt_record(void *ctx, GError **error)
{
	struct transfer_target *tt = ctx;

	return tt->features & HELLO_RECORD ? await(tt, FRAME_RECORD) : STAGE_DONE;
}

/* clang-format off */
static const struct stage transfer_target_stages[] = {
	{ "listen",   0,      false, tt_listen,   tt_hang_up },
	{ "hello",    0,      false, tt_hello,    NULL, STATION_HELLO },
	{ "offer",    60000,  false, tt_offer,    NULL, STATION_OFFER },
	{ "fds",      60000,  false, tt_fds,      NULL, STATION_FDS },
	{ "build",    0,      false, tt_build,    NULL },
	{ "populate", 0,      false, tt_populate, tt_stop_populating },
	{ "rehearse", 0,      false, tt_rehearse, NULL, STATION_REHEARSE },
	{ "ready",    0,      false, tt_ready,    NULL, STATION_READY },
	{ "main",     0,      false, tt_main,     tt_close_main, STATION_MAIN },
	{ "join",     0,      false, tt_join,     NULL, STATION_JOIN },
	{ "state",    0,      false, tt_state,    NULL, STATION_STATE },
	{ "load",     0,      false, tt_load,     NULL },
	{ "loaded",   0,      false, tt_loaded,   NULL, STATION_LOADED },
	{ "commit",   0,      true,  tt_commit,   tt_stop_trying, STATION_COMMIT },
	{ "run",      0,      false, tt_run,      NULL },
	{ "running",  0,      false, tt_running,  NULL, STATION_RUNNING },
	{ "record",   5000,   false, tt_record,   NULL, STATION_RECORD },
};
/* clang-format on */

const struct stage_table transfer_target_table =
	STAGE_TABLE("transfer-target", transfer_target_stages);

/* ---- the run ---- */

/* Tell the predecessor at once: its guest may be paused for us. */
static void tt_failed(void *ctx, const GError *error)
{
	struct transfer_target *tt = ctx;

	migration_progress_set(&tt->base.update->progress, MIGRATION_FAILING);
	if (tt->cpr && !tt->cpr_listener)
		(void)link_send(tt->cpr, tt->accepted ? FRAME_ABORT : FRAME_REFUSE,
				json_pack("{s:s}", "reason", error->message), NULL);
}

static void tt_free(struct incoming *in)
{
	struct transfer_target *tt = (struct transfer_target *)in;

	incoming_clear(in);
	tt_stop_populating(tt);
	tt_close_main(tt);
	tt_hang_up(tt);
	loop_unwatch(&tt->timer);
	g_clear_error(&tt->gone);
	g_clear_error(&tt->told);
	json_decref(tt->paths);
	g_clear_pointer(&tt->state, g_bytes_unref);
	g_free(tt);
}

static void tt_finished(void *ctx, enum stage_outcome outcome, const GError *error)
{
	struct transfer_target *tt = ctx;
	struct update *update = tt->base.update;

	if (outcome == STAGE_OUTCOME_UNDONE) {
		incoming_failed(&tt->base, error);
		return;
	}
	/* It is this process's, whatever came between. */
	if (!tt->gone_on)
		update_go(update);
	update_set_idle(update);
	tt_free(&tt->base);
	update_own(update);
	update_record_finish(update->record, UPDATE_COMMITTED, error ? error->message : NULL);
	update_publish_record(update);
	migration_progress_set(&update->progress, MIGRATION_COMPLETED);
}

static void tt_start(struct incoming *in)
{
	migration_progress_begin(&in->update->progress, true);
	stage_run_start(&in->run);
}

struct incoming *transfer_target_new(struct update *update, struct migration_channels *channels)
{
	struct transfer_target *tt = g_new0(struct transfer_target, 1);

	update->record = update_record_new(migration_mode_name(MIGRATION_MODE_CPR_TRANSFER));
	update->record->new_build = g_strdup(MOLT_VERSION);
	update->record->new_pid = getpid();
	tt->base = (struct incoming){
		.update = update,
		.free = tt_free,
		.start = tt_start,
		.main_named = tt_main_named,
		.channels = *channels,
		.exit_on_error = true,
		.run = {.table = &transfer_target_table,
			.ctx = tt,
			.record = update->record,
			.is_new = true,
			.failed = tt_failed,
			.finished = tt_finished},
	};
	*channels = (struct migration_channels){0};
	return &tt->base;
}
