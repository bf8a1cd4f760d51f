// Migration capabilities: which exist, which are offered, which are on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

/** enum migration_capability - Those that something here looks at */
enum migration_capability {
	MIGRATION_CAP_EVENTS,
	MIGRATION_CAP_RETURN_PATH,
	MIGRATION_CAP_PAUSE_BEFORE_SWITCHOVER,
	MIGRATION_CAP_IGNORE_SHARED,
	MIGRATION_CAP_CPR_TWO_STEP,
	MIGRATION_CAP_COUNT,
};

/** struct migration_capabilities - Which are on; all off at first */
struct migration_capabilities {
	bool on[MIGRATION_CAP_COUNT];
};

/**
 * migration_capabilities_set() - [{capability, state}, ...], all or nothing
 *
 * Switching on one that is not offered is refused with the reason; off is always accepted.
 */
bool migration_capabilities_set(struct migration_capabilities *capabilities, const json_t *list,
				GError **error);

/** migration_capabilities_changed() - A list of those that are on, as migration_capabilities_set() takes
 * it; owned by the caller. */
json_t *migration_capabilities_changed(const struct migration_capabilities *capabilities);

/**
 * migration_capabilities_inherit() - What a predecessor's migration_capabilities_changed() gave
 *
 * One by one: one that this release does not know, or offer, stays off, with a warning.
 */
void migration_capabilities_inherit(struct migration_capabilities *capabilities,
				    const json_t *changed);

/** migration_capabilities_query() - query-migrate-capabilities' list; owned by the caller. */
json_t *migration_capabilities_query(const struct migration_capabilities *capabilities);
