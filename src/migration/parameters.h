// Migration parameters: one table of names, bounds and defaults, and the values in force.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

/**
 * DOC: parameters and capabilities
 *
 * Every name of QEMU's interface is listed by the queries, with its default, so that a client finds
 * what it looks for.  A parameter that something in this program obeys can be set.  One that
 * belongs to something that is not offered accepts its default only; anything else is refused with
 * the reason, because a setting that is stored and ignored is a lie.
 */

/** enum migration_mode - Values of the parameter "mode" */
enum migration_mode {
	MIGRATION_MODE_NORMAL,
	MIGRATION_MODE_CPR_REBOOT,
	MIGRATION_MODE_CPR_TRANSFER,
	MIGRATION_MODE_CPR_EXEC,
	MIGRATION_MODE_COUNT,
};

/** migration_mode_name() - "normal", "cpr-reboot", "cpr-transfer", "cpr-exec" */
const char *migration_mode_name(enum migration_mode mode);

/**
 * struct migration_parameters - The values in force
 * @values:	One member per parameter, by name
 * @limit_set:	downtime-limit was set: it is enforced (its default is not a promise anyone asked
 * for)
 */
struct migration_parameters {
	json_t *values;
	bool limit_set;
};

/** migration_parameters_init() - Every parameter at its default. */
void migration_parameters_init(struct migration_parameters *parameters);

/** migration_parameters_clear() - Free the values. */
void migration_parameters_clear(struct migration_parameters *parameters);

/**
 * migration_parameters_set() - Change some: {name: value, ...}, all or nothing
 *
 * cpr-exec-args is an older spelling of cpr-exec-command.  Both take a list of strings, or one
 * string with shell quoting as HMP has it.
 */
bool migration_parameters_set(struct migration_parameters *parameters, const json_t *args,
			      GError **error);

/** migration_parameters_changed() - {name: value} of what was set, for migration_parameters_inherit() in
 * another process; owned by the caller. */
json_t *migration_parameters_changed(const struct migration_parameters *parameters);

/**
 * migration_parameters_inherit() - What a predecessor's migration_parameters_changed() gave
 *
 * One by one: what this release does not know, or offer, is left at its default, with a warning.
 */
void migration_parameters_inherit(struct migration_parameters *parameters, const json_t *changed);

/** migration_parameters_query() - query-migrate-parameters' object; owned by the caller. */
json_t *migration_parameters_query(const struct migration_parameters *parameters);

/** migration_parameters_mode() - The mode that migrate uses. */
enum migration_mode migration_parameters_mode(const struct migration_parameters *parameters);

/** migration_parameters_command() - cpr-exec-command as argv, to be freed; NULL when empty. */
char **migration_parameters_command(const struct migration_parameters *parameters);

/** migration_parameters_limit_ns() - The pause that was agreed to; 0 when nobody set one. */
uint64_t migration_parameters_limit_ns(const struct migration_parameters *parameters);

/**
 * migration_parameters_attempts() - How often an exec that fails for want of time is tried in all
 *
 * molt's own, cpr-exec-attempts: 1, the default, is once.
 */
unsigned int migration_parameters_attempts(const struct migration_parameters *parameters);
