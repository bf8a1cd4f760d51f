// Migration status: the state machine behind the MIGRATION event and query-migrate.
// SPDX-License-Identifier: Apache-2.0
#include "migration/status.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

static const char *const status_names[] = {
	[MIGRATION_NONE] = "none",
	[MIGRATION_SETUP] = "setup",
	[MIGRATION_ACTIVE] = "active",
	[MIGRATION_PRE_SWITCHOVER] = "pre-switchover",
	[MIGRATION_DEVICE] = "device",
	[MIGRATION_COMPLETED] = "completed",
	[MIGRATION_CANCELLING] = "cancelling",
	[MIGRATION_CANCELLED] = "cancelled",
	[MIGRATION_FAILING] = "failing",
	[MIGRATION_FAILED] = "failed",
};
_Static_assert(G_N_ELEMENTS(status_names) == MIGRATION_STATUS_COUNT, "a name for every status");

#define TO(status) (1u << MIGRATION_##status)

/* Row: from.  Bits: where it may go. */
static const uint32_t status_next[MIGRATION_STATUS_COUNT] = {
	[MIGRATION_NONE] = TO(SETUP),
	[MIGRATION_SETUP] = TO(ACTIVE) | TO(FAILING) | TO(CANCELLING),
	[MIGRATION_ACTIVE] = TO(PRE_SWITCHOVER) | TO(DEVICE) | TO(COMPLETED) | TO(FAILING) |
			     TO(CANCELLING),
	[MIGRATION_PRE_SWITCHOVER] = TO(DEVICE) | TO(FAILING) | TO(CANCELLING),
	[MIGRATION_DEVICE] = TO(COMPLETED) | TO(FAILING) | TO(CANCELLING),
	[MIGRATION_COMPLETED] = TO(SETUP),
	[MIGRATION_CANCELLING] = TO(CANCELLED),
	[MIGRATION_CANCELLED] = TO(SETUP),
	/* Another attempt may follow, see cpr-exec-attempts. */
	[MIGRATION_FAILING] = TO(FAILED) | TO(SETUP),
	[MIGRATION_FAILED] = TO(SETUP),
};

const char *migration_status_name(enum migration_status status)
{
	return status_names[status];
}

enum migration_status migration_status_from_name(const char *name)
{
	for (int i = 0; i < MIGRATION_STATUS_COUNT; i++)
		if (strcmp(name, status_names[i]) == 0)
			return i;
	return MIGRATION_STATUS_COUNT;
}

bool migration_status_allowed(enum migration_status from, enum migration_status to)
{
	return status_next[from] & (1u << to);
}

bool migration_status_running(enum migration_status status)
{
	const uint32_t running = TO(SETUP) | TO(ACTIVE) | TO(PRE_SWITCHOVER) | TO(DEVICE) |
				 TO(CANCELLING) | TO(FAILING);

	return running & (1u << status);
}

static void progress_emit(struct migration_progress *progress, const char *event, json_t *data)
{
	if (progress->events && progress->emit)
		progress->emit(progress->opaque, event, data);
	json_decref(data);
}

void migration_progress_begin(struct migration_progress *progress, bool incoming)
{
	g_clear_pointer(&progress->error_desc, g_free);
	progress->incoming = incoming;
	progress->ready = false;
	progress->connected_ns = progress->stopped_ns = progress->resumed_ns = 0;
	progress->ended_ns = progress->state_bytes = 0;
	progress->begun_ns = clock_now_ns();
	/* It is that already while another try is waited for. */
	if (progress->status != MIGRATION_SETUP)
		migration_progress_set(progress, MIGRATION_SETUP);
}

void migration_progress_set(struct migration_progress *progress, enum migration_status status)
{
	if (!migration_status_allowed(progress->status, status)) {
		log_error("migration status cannot go from %s to %s",
			  migration_status_name(progress->status), migration_status_name(status));
		return;
	}
	progress->status = status;
	if (!migration_status_running(status))
		progress->ended_ns = clock_now_ns();
	progress_emit(progress, "MIGRATION",
		      json_pack("{s:s}", "status", migration_status_name(status)));
}

void migration_progress_ready(struct migration_progress *progress)
{
	progress->ready = true;
	progress_emit(progress, "MIGRATION",
		      json_pack("{s:s, s:b}", "status", migration_status_name(progress->status),
				"ready", true));
}

void migration_progress_pass(struct migration_progress *progress, int pass)
{
	progress_emit(progress, "MIGRATION_PASS", json_pack("{s:i}", "pass", pass));
}

void migration_progress_record(struct migration_progress *progress, json_t *record)
{
	progress_emit(progress, "MIGRATION_RECORD", record);
}

void migration_progress_fail(struct migration_progress *progress, const char *reason)
{
	g_free(progress->error_desc);
	progress->error_desc = g_strdup(reason);
	if (progress->status != MIGRATION_FAILING)
		migration_progress_set(progress, MIGRATION_FAILING);
	migration_progress_set(progress, MIGRATION_FAILED);
}

static void set_ms(json_t *out, const char *name, uint64_t from_ns, uint64_t to_ns)
{
	uint64_t ns = from_ns && to_ns > from_ns ? to_ns - from_ns : 0;

	json_object_set_new(out, name, json_integer(ns / NS_PER_MSEC));
}

/* No RAM is copied in the modes offered: every counter but the octets of state is truly zero. */
static json_t *ram_counters(const struct migration_progress *progress)
{
	static const char *const zeros[] = {
		"remaining",
		"total",
		"duplicate",
		"normal",
		"normal-bytes",
		"dirty-pages-rate",
		"mbps",
		"dirty-sync-count",
		"dirty-sync-missed-zero-copy",
		"postcopy-requests",
		"multifd-bytes",
		"pages-per-second",
		"precopy-bytes",
		"postcopy-bytes",
	};
	json_t *ram = json_object();

	json_object_set_new(ram, "transferred", json_integer(progress->state_bytes));
	json_object_set_new(ram, "downtime-bytes", json_integer(progress->state_bytes));
	json_object_set_new(ram, "page-size", json_integer(sysconf(_SC_PAGESIZE)));
	for (size_t i = 0; i < G_N_ELEMENTS(zeros); i++)
		json_object_set_new(ram, zeros[i], json_integer(0));
	return ram;
}

static void query_source(const struct migration_progress *progress, json_t *out)
{
	const uint64_t now = progress->ended_ns ? progress->ended_ns : clock_now_ns();

	set_ms(out, "total-time", progress->begun_ns, now);
	set_ms(out, "setup-time", progress->begun_ns, progress->connected_ns);
	if (progress->status == MIGRATION_COMPLETED)
		set_ms(out, "downtime", progress->stopped_ns, progress->resumed_ns);
	else
		json_object_set_new(out, "expected-downtime", json_integer(0));
	json_object_set_new(out, "ram", ram_counters(progress));
}

json_t *migration_progress_query(const struct migration_progress *progress)
{
	const uint32_t counted = TO(ACTIVE) | TO(PRE_SWITCHOVER) | TO(DEVICE) | TO(COMPLETED);
	json_t *out = json_object();

	if (progress->status == MIGRATION_NONE)
		return out;
	json_object_set_new(out, "status", json_string(migration_status_name(progress->status)));
	if (!progress->incoming && (counted & (1u << progress->status)))
		query_source(progress, out);
	if (progress->ready && progress->status == MIGRATION_SETUP)
		json_object_set_new(out, "ready", json_true());
	if (progress->error_desc)
		json_object_set_new(out, "error-desc", json_string(progress->error_desc));
	if (progress->address)
		json_object_set_new(out, "socket-address", json_pack("[O]", progress->address));
	return out;
}

void migration_progress_clear(struct migration_progress *progress)
{
	g_clear_pointer(&progress->error_desc, g_free);
	g_clear_pointer(&progress->address, json_decref);
}
