// Migration capabilities: which exist, which are offered, which are on.
// SPDX-License-Identifier: Apache-2.0
#include "migration/capabilities.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"

#define NOT_OFFERED (-1)
#define POSTCOPY    "Cannot use postcopy with CPR, and no other mode is offered"
#define NO_COPY	    "guest RAM is not copied in the modes offered"

/**
 * struct capability - One row of the table
 * @name:	QMP's name
 * @index:	enum migration_capability, NOT_OFFERED if it cannot be switched on
 * @absent:	Why not
 *
 * return-path and x-ignore-shared state what is always so here: the cpr channel answers, and shared
 * RAM stays where it is.
 */
struct capability {
	const char *name;
	int index;
	const char *absent;
};

static const struct capability capabilities[] = {
	{"xbzrle", NOT_OFFERED, NO_COPY},
	{"rdma-pin-all", NOT_OFFERED, "RDMA is not offered"},
	{"auto-converge", NOT_OFFERED, NO_COPY},
	{"events", MIGRATION_CAP_EVENTS, NULL},
	{"postcopy-ram", NOT_OFFERED, POSTCOPY},
	{"x-colo", NOT_OFFERED, "Cannot use COLO with CPR, and no other mode is offered"},
	{"release-ram", NOT_OFFERED, NO_COPY},
	{"return-path", MIGRATION_CAP_RETURN_PATH, NULL},
	{"pause-before-switchover", MIGRATION_CAP_PAUSE_BEFORE_SWITCHOVER, NULL},
	{"multifd", NOT_OFFERED, NO_COPY},
	{"dirty-bitmaps", NOT_OFFERED, "disks have no dirty bitmaps here"},
	{"postcopy-blocktime", NOT_OFFERED, POSTCOPY},
	{"late-block-activate", NOT_OFFERED, "disks cross as open descriptors, never inactive"},
	{"x-ignore-shared", MIGRATION_CAP_IGNORE_SHARED, NULL},
	{"validate-uuid", NOT_OFFERED, "the handshake compares the whole configuration"},
	{"background-snapshot", NOT_OFFERED,
	 "Cannot use background snapshot with CPR, and no other mode is offered"},
	{"zero-copy-send", NOT_OFFERED, NO_COPY},
	{"postcopy-preempt", NOT_OFFERED, POSTCOPY},
	{"switchover-ack", NOT_OFFERED, "the successor always acknowledges in the CPR modes"},
	{"dirty-limit", NOT_OFFERED, NO_COPY},
	{"mapped-ram", NOT_OFFERED, NO_COPY},
	{"cpr-two-step", MIGRATION_CAP_CPR_TWO_STEP, NULL},
};

static const struct capability *capability_find(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++)
		if (strcmp(capabilities[i].name, name) == 0)
			return &capabilities[i];
	return NULL;
}

static bool capability_set(struct migration_capabilities *caps, const json_t *entry, GError **error)
{
	const char *name = json_string_value(json_object_get(entry, "capability"));
	const json_t *state = json_object_get(entry, "state");
	const struct capability *cap;

	if (!name)
		return error_set_generic(error, "Parameter 'capability' is missing");
	if (!json_is_boolean(state))
		return error_set_generic(error,
					 "Invalid parameter type for 'state', expected: boolean");
	cap = capability_find(name);
	if (!cap)
		return error_set_generic(error, "Parameter 'capability' does not accept value '%s'",
					 name);
	if (cap->index != NOT_OFFERED)
		caps->on[cap->index] = json_is_true(state);
	else if (json_is_true(state))
		return error_set_generic(error, "Capability '%s' cannot be switched on: %s", name,
					 cap->absent);
	return true;
}

bool migration_capabilities_set(struct migration_capabilities *caps, const json_t *list,
				GError **error)
{
	struct migration_capabilities changed = *caps;
	const json_t *entry;
	size_t i;

	if (!json_is_array(list))
		return error_set_generic(
			error, "Invalid parameter type for 'capabilities', expected: array");
	json_array_foreach(list, i,
			   entry) if (!capability_set(&changed, entry, error)) return false;
	*caps = changed;
	return true;
}

json_t *migration_capabilities_changed(const struct migration_capabilities *caps)
{
	json_t *list = json_array();

	for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++)
		if (capabilities[i].index != NOT_OFFERED && caps->on[capabilities[i].index])
			json_array_append_new(list, json_pack("{s:s, s:b}", "capability",
							      capabilities[i].name, "state", true));
	return list;
}

void migration_capabilities_inherit(struct migration_capabilities *caps, const json_t *changed)
{
	json_t *entry;
	size_t i;

	json_array_foreach(changed, i, entry)
	{
		g_autoptr(GError) error = NULL;

		if (!capability_set(caps, entry, &error))
			log_warn("a setting did not survive the update: %s", error->message);
	}
}

json_t *migration_capabilities_query(const struct migration_capabilities *caps)
{
	json_t *list = json_array();

	for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++) {
		const struct capability *cap = &capabilities[i];
		bool on = cap->index != NOT_OFFERED && caps->on[cap->index];

		json_array_append_new(
			list, json_pack("{s:s, s:b}", "capability", cap->name, "state", on));
	}
	return list;
}
