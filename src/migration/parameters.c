// Migration parameters: one table of names, bounds and defaults, and the values in force.
// SPDX-License-Identifier: Apache-2.0
#include "migration/parameters.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define LIMIT_NAME "downtime-limit"

static const char *const mode_names[] = {
	[MIGRATION_MODE_NORMAL] = "normal",
	[MIGRATION_MODE_CPR_REBOOT] = "cpr-reboot",
	[MIGRATION_MODE_CPR_TRANSFER] = "cpr-transfer",
	[MIGRATION_MODE_CPR_EXEC] = "cpr-exec",
	[MIGRATION_MODE_COUNT] = NULL,
};

const char *migration_mode_name(enum migration_mode mode)
{
	return mode_names[mode];
}

enum parameter_kind {
	PARAMETER_INT,
	PARAMETER_BOOL,
	PARAMETER_TEXT, /* string or null */
	PARAMETER_CHOICE,
	PARAMETER_ARGV,
	PARAMETER_LIST, /* not shown while empty */
};

/**
 * struct parameter - One row of the table
 * @name:	QMP's name
 * @kind:	Type of its value
 * @max:	PARAMETER_INT: largest value
 * @def:	Default of a PARAMETER_INT or PARAMETER_BOOL
 * @min:	PARAMETER_INT: smallest value
 * @choices:	PARAMETER_CHOICE: values, the first is the default; NULL-ended
 * @absent:	What is not offered, so that only the default is accepted; NULL: can be set
 */
struct parameter {
	const char *name;
	enum parameter_kind kind;
	int64_t max;
	int64_t def;
	int64_t min;
	const char *const *choices;
	const char *absent;
};

static const char *const compressions[] = {"none", "zlib", "zstd", NULL};
static const char *const zero_page_kinds[] = {"multifd", "none", "legacy", NULL};

#define ANNOUNCE "self-announcement of network devices"
#define THROTTLE "throttling of vCPUs for live migration"
#define TLS	 "TLS on migration channels"
#define MULTIFD	 "multifd"
#define POSTCOPY "postcopy"
#define COPYING	 "copying of guest RAM"

/*
 * max-bandwidth bounds the copying of guest RAM.  The modes offered copy none, so every value of it
 * is kept to.
 */
static const struct parameter parameters[] = {
	{"announce-initial", PARAMETER_INT, 100000, 50, .absent = ANNOUNCE},
	{"announce-max", PARAMETER_INT, 100000, 550, .absent = ANNOUNCE},
	{"announce-rounds", PARAMETER_INT, 1000, 5, .absent = ANNOUNCE},
	{"announce-step", PARAMETER_INT, 10000, 100, .min = 1, .absent = ANNOUNCE},
	{"throttle-trigger-threshold", PARAMETER_INT, 100, 50, .min = 1, .absent = THROTTLE},
	{"cpu-throttle-initial", PARAMETER_INT, 99, 20, .min = 1, .absent = THROTTLE},
	{"cpu-throttle-increment", PARAMETER_INT, 99, 10, .min = 1, .absent = THROTTLE},
	{"cpu-throttle-tailslow", PARAMETER_BOOL, .absent = THROTTLE},
	{"tls-creds", PARAMETER_TEXT, .absent = TLS},
	{"tls-hostname", PARAMETER_TEXT, .absent = TLS},
	{"tls-authz", PARAMETER_TEXT, .absent = TLS},
	{"max-bandwidth", PARAMETER_INT, INT64_MAX, 134217728},
	{"avail-switchover-bandwidth", PARAMETER_INT, INT64_MAX, 0, .absent = COPYING},
	{LIMIT_NAME, PARAMETER_INT, 2000000, 300},
	{"x-checkpoint-delay", PARAMETER_INT, INT32_MAX, 20000, .absent = "COLO"},
	{"multifd-channels", PARAMETER_INT, 255, 2, .min = 1, .absent = MULTIFD},
	{"multifd-compression", PARAMETER_CHOICE, .choices = compressions, .absent = MULTIFD},
	{"multifd-zlib-level", PARAMETER_INT, 9, 1, .absent = MULTIFD},
	{"multifd-qatzip-level", PARAMETER_INT, 9, 1, .min = 1, .absent = MULTIFD},
	{"multifd-zstd-level", PARAMETER_INT, 20, 1, .absent = MULTIFD},
	{"xbzrle-cache-size", PARAMETER_INT, INT64_MAX, 67108864, .absent = "xbzrle"},
	{"max-postcopy-bandwidth", PARAMETER_INT, INT64_MAX, 0, .absent = POSTCOPY},
	{"max-cpu-throttle", PARAMETER_INT, 99, 99, .min = 1, .absent = THROTTLE},
	{"block-bitmap-mapping", PARAMETER_LIST, .absent = "migration of dirty bitmaps"},
	{"x-vcpu-dirty-limit-period", PARAMETER_INT, 1000, 1000, .min = 1, .absent = THROTTLE},
	{"vcpu-dirty-limit", PARAMETER_INT, INT64_MAX, 1, .min = 1, .absent = THROTTLE},
	{"mode", PARAMETER_CHOICE, .choices = mode_names},
	{"zero-page-detection", PARAMETER_CHOICE, .choices = zero_page_kinds, .absent = COPYING},
	{"direct-io", PARAMETER_BOOL, .absent = COPYING},
	{"x-rdma-chunk-size", PARAMETER_INT, 1 << 30, 1 << 20, .min = 1 << 20, .absent = "RDMA"},
	{"cpr-exec-command", PARAMETER_ARGV},
	{"cpr-exec-attempts", PARAMETER_INT, 100, 1, .min = 1},
};

static const struct parameter *parameter_find(const char *name)
{
	if (strcmp(name, "cpr-exec-args") == 0)
		name = "cpr-exec-command";
	for (size_t i = 0; i < G_N_ELEMENTS(parameters); i++)
		if (strcmp(parameters[i].name, name) == 0)
			return &parameters[i];
	return NULL;
}

static json_t *parameter_default(const struct parameter *p)
{
	switch (p->kind) {
	case PARAMETER_INT:
		return json_integer(p->def);
	case PARAMETER_BOOL:
		return json_boolean(p->def);
	case PARAMETER_TEXT:
		return json_string("");
	case PARAMETER_CHOICE:
		return json_string(p->choices[0]);
	case PARAMETER_ARGV:
	case PARAMETER_LIST:
		break;
	}
	return json_array();
}

void migration_parameters_init(struct migration_parameters *params)
{
	*params = (struct migration_parameters){.values = json_object()};
	for (size_t i = 0; i < G_N_ELEMENTS(parameters); i++)
		json_object_set_new(params->values, parameters[i].name,
				    parameter_default(&parameters[i]));
}

void migration_parameters_clear(struct migration_parameters *params)
{
	json_decref(params->values);
	*params = (struct migration_parameters){0};
}

static json_t *wrong_type(const struct parameter *p, const char *expected, GError **error)
{
	error_set_generic(error, "Invalid parameter type for '%s', expected: %s", p->name,
			  expected);
	return NULL;
}

static json_t *accept_int(const struct parameter *p, const json_t *value, GError **error)
{
	int64_t number;

	if (!json_is_integer(value))
		return wrong_type(p, "integer", error);
	number = json_integer_value(value);
	if (number < p->min || number > p->max) {
		error_set_generic(error,
				  "Parameter '%s' expects an integer in the range of %" PRId64
				  " to %" PRId64,
				  p->name, p->min, p->max);
		return NULL;
	}
	return json_integer(number);
}

static json_t *accept_choice(const struct parameter *p, const json_t *value, GError **error)
{
	if (!json_is_string(value))
		return wrong_type(p, "string", error);
	if (!g_strv_contains(p->choices, json_string_value(value))) {
		error_set_generic(error, "Parameter '%s' does not accept value '%s'", p->name,
				  json_string_value(value));
		return NULL;
	}
	return json_string(json_string_value(value));
}

static json_t *argv_from_text(const struct parameter *p, const char *text, GError **error)
{
	g_autoptr(GError) local = NULL;
	g_auto(GStrv) argv = NULL;
	json_t *list;

	if (!g_shell_parse_argv(text, NULL, &argv, &local) &&
	    !g_error_matches(local, G_SHELL_ERROR, G_SHELL_ERROR_EMPTY_STRING)) {
		error_set_generic(error, "Parameter '%s': %s", p->name, local->message);
		return NULL;
	}
	list = json_array();
	for (char **arg = argv; arg && *arg; arg++)
		json_array_append_new(list, json_string(*arg));
	return list;
}

static json_t *accept_argv(const struct parameter *p, const json_t *value, GError **error)
{
	const json_t *arg;
	size_t i;

	if (json_is_string(value))
		return argv_from_text(p, json_string_value(value), error);
	if (!json_is_array(value))
		return wrong_type(p, "array", error);
	json_array_foreach(value, i, arg) if (!json_is_string(arg)) return wrong_type(
		p, "array of strings", error);
	return json_deep_copy(value);
}

/* @value in canonical form if it is of the row's type and within its bounds. */
static json_t *parameter_accept(const struct parameter *p, const json_t *value, GError **error)
{
	switch (p->kind) {
	case PARAMETER_INT:
		return accept_int(p, value, error);
	case PARAMETER_BOOL:
		return json_is_boolean(value) ? json_boolean(json_is_true(value))
					      : wrong_type(p, "boolean", error);
	case PARAMETER_TEXT:
		if (json_is_null(value))
			return json_string("");
		return json_is_string(value) ? json_string(json_string_value(value))
					     : wrong_type(p, "string", error);
	case PARAMETER_CHOICE:
		return accept_choice(p, value, error);
	case PARAMETER_ARGV:
		return accept_argv(p, value, error);
	case PARAMETER_LIST:
		break;
	}
	return json_is_array(value) ? json_deep_copy(value) : wrong_type(p, "array", error);
}

/* Check one setting and put it into @changes. */
static bool parameter_set(const char *name, const json_t *value, json_t *changes, GError **error)
{
	const struct parameter *p = parameter_find(name);
	json_t *accepted, *def;
	bool is_default;

	if (!p)
		return error_set_generic(error, "Parameter '%s' is unexpected", name);
	accepted = parameter_accept(p, value, error);
	if (!accepted)
		return false;
	def = parameter_default(p);
	is_default = json_equal(accepted, def);
	json_decref(def);
	if (p->absent && !is_default) {
		json_decref(accepted);
		return error_set_generic(error,
					 "Parameter '%s' cannot be changed: %s is not offered",
					 p->name, p->absent);
	}
	json_object_set_new(changes, p->name, accepted);
	return true;
}

bool migration_parameters_set(struct migration_parameters *params, const json_t *args,
			      GError **error)
{
	json_t *changes = json_object();
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)args, name, value)
	{
		if (!parameter_set(name, value, changes, error)) {
			json_decref(changes);
			return false;
		}
	}
	if (json_object_get(changes, LIMIT_NAME))
		params->limit_set = true;
	json_object_update(params->values, changes);
	json_decref(changes);
	return true;
}

json_t *migration_parameters_changed(const struct migration_parameters *params)
{
	json_t *changed = json_object();

	for (size_t i = 0; i < G_N_ELEMENTS(parameters); i++) {
		const char *name = parameters[i].name;
		json_t *value = json_object_get(params->values, name);
		json_t *def = parameter_default(&parameters[i]);

		/* A limit that was set is kept, whatever it is. */
		if (!json_equal(value, def) || (params->limit_set && strcmp(name, LIMIT_NAME) == 0))
			json_object_set(changed, name, value);
		json_decref(def);
	}
	return changed;
}

void migration_parameters_inherit(struct migration_parameters *params, const json_t *changed)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)changed, name, value)
	{
		g_autoptr(GError) error = NULL;
		json_t *one = json_pack("{s:O}", name, value);

		if (!migration_parameters_set(params, one, &error))
			log_warn("a setting did not survive the update: %s", error->message);
		json_decref(one);
	}
}

json_t *migration_parameters_query(const struct migration_parameters *params)
{
	json_t *values = json_deep_copy(params->values);

	for (size_t i = 0; i < G_N_ELEMENTS(parameters); i++)
		if (parameters[i].kind == PARAMETER_LIST &&
		    json_array_size(json_object_get(values, parameters[i].name)) == 0)
			json_object_del(values, parameters[i].name);
	return values;
}

enum migration_mode migration_parameters_mode(const struct migration_parameters *params)
{
	const char *name = json_string_value(json_object_get(params->values, "mode"));

	for (int mode = 0; mode < MIGRATION_MODE_COUNT; mode++)
		if (strcmp(mode_names[mode], name) == 0)
			return mode;
	return MIGRATION_MODE_NORMAL;
}

char **migration_parameters_command(const struct migration_parameters *params)
{
	const json_t *list = json_object_get(params->values, "cpr-exec-command");
	char **argv;
	const json_t *arg;
	size_t i;

	if (json_array_size(list) == 0)
		return NULL;
	argv = g_new0(char *, json_array_size(list) + 1);
	json_array_foreach(list, i, arg) argv[i] = g_strdup(json_string_value(arg));
	return argv;
}

uint64_t migration_parameters_limit_ns(const struct migration_parameters *params)
{
	if (!params->limit_set)
		return 0;
	return json_integer_value(json_object_get(params->values, LIMIT_NAME)) * NS_PER_MSEC;
}

unsigned int migration_parameters_attempts(const struct migration_parameters *params)
{
	return json_integer_value(json_object_get(params->values, "cpr-exec-attempts"));
}
