// The record that every update leaves: result, reason, and its phases on one clock.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/record.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"

static const char *const result_names[] = {
	[UPDATE_IN_PROGRESS] = "in-progress",
	[UPDATE_COMMITTED] = "committed",
	[UPDATE_ROLLED_BACK] = "rolled-back",
	[UPDATE_UNCHANGED] = "unchanged",
	[UPDATE_LOST] = "lost",
};
_Static_assert(G_N_ELEMENTS(result_names) == UPDATE_RESULT_COUNT, "a name for every result");

const char *update_result_name(enum update_result result)
{
	return result_names[result];
}

struct update_record *update_record_new(const char *mode)
{
	struct update_record *record = g_new0(struct update_record, 1);

	record->mode = g_strdup(mode);
	record->phases = g_array_new(FALSE, TRUE, sizeof(struct update_phase));
	return record;
}

void update_record_free(struct update_record *record)
{
	if (!record)
		return;
	g_free(record->reason);
	g_free(record->mode);
	g_free(record->old_build);
	g_free(record->new_build);
	g_array_unref(record->phases);
	g_free(record);
}

void update_record_phase(struct update_record *record, const char *name, bool is_new,
			 uint64_t begin_ns, uint64_t end_ns)
{
	struct update_phase phase = {.is_new = is_new, .begin_ns = begin_ns, .end_ns = end_ns};

	if (record->phases->len >= RECORD_MAX_PHASES)
		return;
	g_strlcpy(phase.name, name, sizeof(phase.name));
	g_array_append_val(record->phases, phase);
}

void update_record_finish(struct update_record *record, enum update_result result,
			  const char *reason)
{
	record->result = result;
	g_free(record->reason);
	record->reason = g_strdup(reason);
}

uint64_t update_record_pause_ns(const struct update_record *record)
{
	if (!record->paused_ns || record->running_ns <= record->paused_ns)
		return 0;
	return record->running_ns - record->paused_ns;
}

static json_t *phases_to_json(const struct update_record *record)
{
	json_t *list = json_array();

	for (guint i = 0; i < record->phases->len; i++) {
		const struct update_phase *p =
			&g_array_index(record->phases, struct update_phase, i);

		json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:I}", "process",
						      p->is_new ? "new" : "old", "name", p->name,
						      "begin-ns", (json_int_t)p->begin_ns, "ns",
						      (json_int_t)(p->end_ns - p->begin_ns)));
	}
	return list;
}

static void set_text(json_t *out, const char *key, const char *value)
{
	if (value)
		json_object_set_new(out, key, json_string(value));
}

static void set_number(json_t *out, const char *key, uint64_t value)
{
	if (value)
		json_object_set_new(out, key, json_integer(value));
}

json_t *update_record_to_json(const struct update_record *record)
{
	json_t *out = json_object();

	set_text(out, "result", update_result_name(record->result));
	set_text(out, "reason", record->reason);
	set_text(out, "mode", record->mode);
	set_text(out, "old-build", record->old_build);
	set_text(out, "new-build", record->new_build);
	set_number(out, "old-pid", record->old_pid);
	set_number(out, "new-pid", record->new_pid);
	set_number(out, "paused-at-ns", record->paused_ns);
	set_number(out, "running-at-ns", record->running_ns);
	json_object_set_new(out, "pause-ns", json_integer(update_record_pause_ns(record)));
	json_object_set_new(out, "phases", phases_to_json(record));
	return out;
}

static void take_text(char **slot, const json_t *json, const char *key)
{
	const char *value = json_string_value(json_object_get(json, key));

	if (!*slot && value && strlen(value) < 128)
		*slot = g_strdup(value);
}

static uint64_t take_number(const json_t *json, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(json, key));

	return value > 0 ? value : 0;
}

static bool merge_phase(struct update_record *record, const json_t *entry, bool want_new,
			GError **error)
{
	const char *process = json_string_value(json_object_get(entry, "process"));
	const char *name = json_string_value(json_object_get(entry, "name"));
	uint64_t begin_ns = take_number(entry, "begin-ns");
	uint64_t ns = take_number(entry, "ns");

	if (!process || !name)
		return error_set_generic(error, "update record: a phase has no process or name");
	/* Two numbers of at most INT64_MAX: their sum cannot wrap. */
	if ((strcmp(process, "new") == 0) == want_new)
		update_record_phase(record, name, want_new, begin_ns, begin_ns + ns);
	return true;
}

bool update_record_merge(struct update_record *record, const json_t *json, bool phases_of_new,
			 GError **error)
{
	const json_t *list = json_object_get(json, "phases");
	const json_t *entry;
	size_t i;

	if (!json_is_object(json) || !json_is_array(list))
		return error_set_generic(error, "update record: not a record");
	json_array_foreach(
		list, i, entry) if (!merge_phase(record, entry, phases_of_new, error)) return false;
	take_text(&record->old_build, json, "old-build");
	take_text(&record->new_build, json, "new-build");
	if (!record->old_pid)
		record->old_pid = take_number(json, "old-pid") & INT32_MAX;
	if (!record->new_pid)
		record->new_pid = take_number(json, "new-pid") & INT32_MAX;
	if (!record->paused_ns)
		record->paused_ns = take_number(json, "paused-at-ns");
	if (!record->running_ns)
		record->running_ns = take_number(json, "running-at-ns");
	return true;
}

char *update_record_text(const struct update_record *record)
{
	GString *text = g_string_new(NULL);

	g_string_append_printf(text, "update by %s: %s", record->mode,
			       update_result_name(record->result));
	if (record->reason)
		g_string_append_printf(text, " (%s)", record->reason);
	g_string_append_printf(text, ", pause %" PRIu64 " us",
			       update_record_pause_ns(record) / 1000);
	for (guint i = 0; i < record->phases->len; i++) {
		const struct update_phase *p =
			&g_array_index(record->phases, struct update_phase, i);

		g_string_append_printf(text, "%s%s.%s %" PRIu64,
				       i ? ", " : "; us: ", p->is_new ? "new" : "old", p->name,
				       (p->end_ns - p->begin_ns) / 1000);
	}
	return g_string_free(text, FALSE);
}
