// The front of migration and live update: what main and the monitors' migrate family call.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/update.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "cpr/internal.h"
#include "cpr/probe.h"
#include "machine/process.h"

#define TOLD_TO_END "this process was told to end"

/* ---- beginning and end ---- */

static void update_emit(void *opaque, const char *event, json_t *data)
{
	struct update *update = opaque;

	for (guint i = 0; i < update->listeners->len; i++) {
		struct update_listener *l =
			&g_array_index(update->listeners, struct update_listener, i);

		l->fn(l->opaque, event, data);
	}
}

static struct update *update_alloc(struct vm_config *config, char **argv)
{
	struct update *update = g_new0(struct update, 1);

	update->config = config;
	update->argv = argv;
	update->chardevs = chardev_set_new();
	update->autostart = !config->start_paused;
	update->listeners = g_array_new(FALSE, FALSE, sizeof(struct update_listener));
	update->waiters = g_array_new(FALSE, FALSE, sizeof(struct update_waiter));
	update->children = g_array_new(FALSE, FALSE, sizeof(pid_t));
	update->progress.emit = update_emit;
	update->progress.opaque = update;
	migration_parameters_init(&update->parameters);
	return update;
}

void update_free(struct update *update)
{
	if (!update)
		return;
	/* An update that is under way leaves no child and no file. */
	(void)update_quit(update);
	if (update->outgoing)
		update->outgoing->free(update->outgoing);
	if (update->incoming)
		update->incoming->free(update->incoming);
	machine_free(update->machine);
	chardev_set_free(update->chardevs);
	owner_free(update->owner);
	fdstore_free(update->inherited);
	fd_source_clear(&update->fds);
	update_record_free(update->record);
	migration_parameters_clear(&update->parameters);
	migration_progress_clear(&update->progress);
	g_array_unref(update->listeners);
	g_array_unref(update->waiters);
	g_array_unref(update->children);
	vm_config_free(update->config);
	vm_config_free(update->command_line);
	g_free(update);
}

static bool parse_incoming(const struct vm_config *config, struct migration_channels *channels,
			   GError **error)
{
	for (guint i = 0; i < config->incoming->len; i++) {
		const struct incoming_config *incoming = g_ptr_array_index(config->incoming, i);

		if (!migration_channels_add_option(channels, incoming->text, error))
			return false;
	}
	return migration_channels_settle(channels, error);
}

static bool begin_cold(struct update *update, GError **error)
{
	update->owner = owner_new(&update->fds, error);
	if (!update->owner)
		return false;
	update->machine = machine_new(update->config, &update->fds, update->chardevs, true, error);
	return update->machine;
}

static bool begin_exec(struct update *update, struct migration_channels *channels, GError **error)
{
	struct envelope *envelope = envelope_read(error);

	if (!envelope)
		return false;
	if (envelope->rollback)
		update->autostart = true;
	update->incoming = exec_target_new(update, envelope, channels, error);
	return update->incoming;
}

static bool begin(struct update *update, struct migration_channels *channels, GError **error)
{
	if (envelope_found())
		return begin_exec(update, channels, error);
	if (channels->cpr) {
		update->fds.claiming = true;
		update->incoming = transfer_target_new(update, channels);
		return true;
	}
	if (channels->main || channels->deferred)
		return error_set_generic(
			error, "-incoming: without a cpr channel only the modes 'normal' and "
			       "'cpr-reboot' can arrive, which are not offered; add -incoming "
			       "cpr,addr.transport=socket,addr.type=unix,addr.path=PATH");
	return begin_cold(update, error);
}

struct update *update_new(struct vm_config *config, char **argv, GError **error)
{
	autoptr(update) update = update_alloc(config, argv);
	struct migration_channels channels = {0};
	bool ok;

	/* Without an envelope what is told beside it is of nobody, and an exec would pass it on. */
	if (!envelope_found())
		envelope_clean_environ();
	ok = parse_incoming(config, &channels, error) && begin(update, &channels, error);
	migration_channels_clear(&channels);
	return ok ? g_steal_pointer(&update) : NULL;
}

bool update_start(struct update *update, GError **error)
{
	if (update->incoming)
		update->incoming->start(update->incoming);
	else if (!update_judge_start(update, error))
		return false;
	else if (update->autostart)
		machine_start(update->machine);
	return true;
}

void update_abandon(struct update *update, const char *reason)
{
	if (update->incoming && update->incoming->abandon)
		update->incoming->abandon(update->incoming, reason);
}

/* Whether the guest has arrived, or was started here: what is asked of it is done to it. */
static bool guest_is_here(const struct update *update)
{
	return update->machine && machine_runstate(update->machine) != RUNSTATE_INMIGRATE;
}

/* What comes in is given up.  Return: whether the guest ends with this process. */
static bool quit_incoming(struct incoming *in)
{
	struct update *update = in->update;

	if (in->has_guest) {
		update_set_idle(update);
		in->free(in);
		return update->machine;
	}
	/* Whoever told us to end knows why. */
	in->exit_on_error = false;
	stage_run_continue(&in->run, g_error_new(MOLT_ERROR, MOLT_ERROR_GENERIC, TOLD_TO_END));
	return false;
}

bool update_quit(struct update *update)
{
	struct outgoing *out = update->outgoing;

	update->ending = true;
	if (exec_source_drop_next_try(update))
		migration_progress_fail(&update->progress, TOLD_TO_END);
	if (update->incoming && !guest_is_here(update))
		return quit_incoming(update->incoming);
	if (out && !stage_run_committed(&out->run))
		stage_run_continue(&out->run,
				   g_error_new(MOLT_ERROR, MOLT_ERROR_GENERIC, TOLD_TO_END));
	if (!update->machine)
		return false;
	/* Its paths and connections may be the successor's by now. */
	if (!owner_held(update->owner))
		machine_disown(update->machine);
	return owner_held(update->owner);
}

/* ---- hooks ---- */

void update_set_extra(struct update *update, const struct update_extra *extra)
{
	update->extra = *extra;
}

void update_add_listener(struct update *update, update_event_fn fn, void *opaque)
{
	struct update_listener listener = {fn, opaque};

	g_array_append_val(update->listeners, listener);
}

void update_on_end(struct update *update, void (*fn)(void *opaque, const GError *error),
		   void *opaque)
{
	update->ended = fn;
	update->ended_opaque = opaque;
}

void update_on_idle(struct update *update, void (*fn)(void *opaque), void *opaque)
{
	update->idle = fn;
	update->idle_opaque = opaque;
}

void update_set_idle(struct update *update)
{
	update->outgoing = NULL;
	update->incoming = NULL;
	if (update->idle)
		update->idle(update->idle_opaque);
}

void update_on_machine(struct update *update, void (*fn)(void *opaque, struct machine *machine),
		       void *opaque)
{
	struct update_waiter waiter = {fn, opaque};

	if (update->machine)
		fn(opaque, update->machine);
	else
		g_array_append_val(update->waiters, waiter);
}

void update_machine_ready(struct update *update)
{
	for (guint i = 0; i < update->waiters->len; i++) {
		struct update_waiter *w = &g_array_index(update->waiters, struct update_waiter, i);

		w->fn(w->opaque, update->machine);
	}
	g_array_set_size(update->waiters, 0);
}

struct machine *update_machine(struct update *update)
{
	return update->machine;
}

const struct vm_config *update_config(const struct update *update)
{
	return update->config;
}

struct fd_source *update_fds(struct update *update)
{
	return &update->fds;
}

struct chardev_set *update_chardevs(struct update *update)
{
	return update->chardevs;
}

void update_publish_record(struct update *update)
{
	g_autofree char *text = update_record_text(update->record);

	log_info("%s", text);
	migration_progress_record(&update->progress, update_record_to_json(update->record));
}

/* ---- run state ---- */

enum runstate update_runstate(const struct update *update)
{
	return update->machine ? machine_runstate(update->machine) : RUNSTATE_INMIGRATE;
}

/* Whether an update in progress has the guest stopped, so that cont and stop must wait. */
static bool refuse_while_paused(const struct update *update, GError **error)
{
	if (update->outgoing && update->outgoing->run.paused_ns)
		return error_set_generic(error, "There's a migration process in progress");
	return true;
}

bool update_cont(struct update *update, GError **error)
{
	if (update->ending)
		return error_set_generic(error, TOLD_TO_END);
	if (!guest_is_here(update)) {
		update->autostart = true;
		return true;
	}
	if (!refuse_while_paused(update, error))
		return false;
	if (!owner_held(update->owner))
		return error_set_generic(error,
					 "the guest runs in another process now; quit this one");
	if (update_runstate(update) == RUNSTATE_SHUTDOWN ||
	    update_runstate(update) == RUNSTATE_INTERNAL_ERROR)
		return error_set_generic(error, "Resetting the Virtual Machine is required");
	machine_start(update->machine);
	return true;
}

bool update_stop(struct update *update, GError **error)
{
	if (!guest_is_here(update)) {
		update->autostart = false;
		return true;
	}
	if (!refuse_while_paused(update, error))
		return false;
	return machine_stop(update->machine, RUNSTATE_PAUSED, error);
}

bool update_active(const struct update *update)
{
	return update->outgoing || update->incoming;
}

/* ---- after an exec ---- */

bool update_check_privileges(GError **error)
{
	return envelope_check_privileges(error);
}

bool update_probed(void)
{
	return probe_requested() || probe_active();
}

bool update_rehearse(GError **error)
{
	return probe_begin(error);
}

bool update_resumes_process(void)
{
	return envelope_found();
}

void update_exec_back(const char *reason)
{
	g_autoptr(GError) error = NULL;
	autoptr(envelope) envelope = NULL;

	if (!envelope_found())
		return;
	envelope = envelope_read(&error);
	if (envelope)
		envelope_exec_back(envelope, NULL, NULL, reason, &error);
	g_prefix_error(&error, "the guest is lost: ");
	exec_serve_others(error->message);
	log_error("%s", error->message);
}
