// The side that gets the guest: what both modes do with a saved state.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/internal.h"

#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "state/fd_paths.h"

static const struct state_field update_state_fields[] = {
	FIELD_ARRAY(struct update_state, session, 1),
	FIELD_PAD(struct update_state, pad),
	FIELD(struct update_state, attempt, 2),
};

const struct state_desc update_state_desc = {
	.name = "update",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct update_state, update_state_fields),
};

/* A stream of another update must not be loaded by mistake.  Return: its attempt, 0 with @error set. */
static uint64_t check_session(struct state_reader *reader, const struct offer *offer,
			      GError **error)
{
	struct update_state state;

	if (!state_reader_load(reader, UPDATE_SECTION, 0, &update_state_desc, NULL, &state, error))
		return 0;
	if (memcmp(state.session, offer->session, sizeof(state.session)) == 0 && state.attempt)
		return state.attempt;
	error_set_generic(error, "the state belongs to another update");
	return 0;
}

bool update_check_state(GBytes *state, const struct offer *offer, GError **error)
{
	autoptr(state_reader) reader = state_reader_open(state, error);

	return reader && check_session(reader, offer, error);
}

uint64_t update_load(struct update *update, GBytes *state, const struct offer *offer,
		     GError **error)
{
	autoptr(state_reader) reader = state_reader_open(state, error);
	uint64_t attempt = reader ? check_session(reader, offer, error) : 0;

	/* The machine comes last: it fails if a section is left that nobody took. */
	if (attempt && machine_load(update->machine, reader, error))
		return attempt;
	g_prefix_error(error, "load of migration failed: ");
	return 0;
}

bool update_rehearse_load(struct update *update, GBytes *state, const struct offer *offer,
			  GError **error)
{
	autoptr(state_reader) reader = state_reader_open(state, error);

	return reader && check_session(reader, offer, error) &&
	       machine_rehearse_takeover(update->machine, reader, error);
}

/* ---- is it the same machine? ---- */

bool incoming_may_plug(const struct incoming *in)
{
	return in->update->config->explicit_vm && !in->started && !in->channels.main &&
	       (in->channels.deferred || in->channels.cpr);
}

static bool may_stay(void *opaque, const char *name)
{
	const struct update *update = opaque;

	return !fd_is_vms(name) || chardev_fd_moved(update->config, name);
}

bool incoming_all_taken(const struct incoming *in, GError **error)
{
	return fdstore_finish(in->update->inherited, may_stay, in->update, error);
}

/* Everything that differs in one message; own machine @may_lack some, @all descriptors must be taken. */
static bool compare(const struct incoming *in, bool may_lack, bool all, GError **error)
{
	json_t *own = machine_device_tree(in->update->machine);
	g_autofree char *differences = offer_tree_differences(in->offer->tree, own, may_lack);
	g_autoptr(GError) left = NULL;

	json_decref(own);
	if (all)
		(void)incoming_all_taken(in, &left);
	if (!differences && !left)
		return true;
	return error_set(error, MOLT_ERROR_REFUSED, "%s%s%s", differences ? differences : "",
			 differences && left ? "\n" : "", left ? left->message : "");
}

bool incoming_complete(const struct incoming *in, GError **error)
{
	g_autofree char *differences = NULL;

	if (!incoming_may_plug(in) || !in->update->machine)
		return true;
	differences = offer_config_differences(in->offer, in->update->config, false);
	if (differences)
		error_set(error, MOLT_ERROR_REFUSED, "%s", differences);
	if (!differences && compare(in, false, true, error))
		return true;
	g_prefix_error(error, "this machine is not the offered one; device_add can add what is "
			      "missing: ");
	return false;
}

/* The offer is this owner's, and its next one. */
static bool inherit_owner(struct update *update, const struct offer *offer, GError **error)
{
	update->owner = owner_inherit(&update->fds, error);
	return update->owner &&
	       (offer->generation == owner_generation(update->owner) + 1 ||
		error_set_generic(error,
				  "the offer is of generation %" G_GUINT64_FORMAT
				  ", the owner page of %" G_GUINT64_FORMAT,
				  offer->generation, owner_generation(update->owner)));
}

bool incoming_build(struct incoming *in, bool all, GError **error)
{
	struct update *update = in->update;

	if (!inherit_owner(update, in->offer, error))
		return false;
	update->fds.complete = true;
	update->fds.way = in->has_guest ? FD_WAY_EXEC : FD_WAY_TRANSFER;
	update->machine = machine_new(update->config, &update->fds, update->chardevs, false, error);
	update->fds.complete = in->has_guest;
	return update->machine &&
	       compare(in, incoming_may_plug(in), all && !incoming_may_plug(in), error);
}

static uint64_t running_since(struct machine *machine)
{
	uint64_t entered_ns = kvm_vm_entered_ns(machine_kvm(machine));

	return entered_ns ? entered_ns : clock_now_ns();
}

void update_go(struct update *update)
{
	machine_arrive(update->machine, update->autostart);
	update->record->running_ns = update->progress.resumed_ns = running_since(update->machine);
	/* Monitors are found, and the pid file is ours, from now on. */
	fd_paths_take(&update->fds);
	log_info("took over the guest");
}

void update_adopt(struct update *update, struct offer *offer, bool keep_monitors)
{
	if (update->config->explicit_vm)
		return;
	update->command_line = update->config;
	update->config = offer_adopt_config(offer, update->command_line, keep_monitors);
}

void update_own(struct update *update)
{
	update->fds.inherited = NULL;
	update->fds.complete = false;
	fd_paths_inherit(&update->fds, NULL);
	g_clear_pointer(&update->inherited, fdstore_leave);
	if (update->ended)
		update->ended(update->ended_opaque, NULL);
}

void incoming_clear(struct incoming *in)
{
	stage_run_clear(&in->run);
	migration_channels_clear(&in->channels);
	g_clear_pointer(&in->offer, offer_free);
}

/* The end of a process that has no guest: told from the main loop, which may not run yet. */
static void tell_end(void *opaque)
{
	struct update *update = opaque;
	g_autoptr(GError) error = NULL;

	error_set_generic(&error, "%s", update->progress.error_desc);
	if (update->ended)
		update->ended(update->ended_opaque, error);
}

void incoming_failed(struct incoming *in, const GError *error)
{
	struct update *update = in->update;
	const bool ends = in->exit_on_error;

	update_record_finish(update->record, UPDATE_UNCHANGED, error->message);
	migration_progress_fail(&update->progress, error->message);
	update_set_idle(update);
	in->free(in);
	if (ends)
		loop_call_later(tell_end, update);
	else
		log_error("%s", error->message);
}
