// Migration status: the state machine behind the MIGRATION event and query-migrate.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

/**
 * enum migration_status - QMP's MigrationStatus, the members that can occur here
 * @MIGRATION_NONE:	Nothing happened yet
 * @MIGRATION_SETUP:	Accepted; guest runs; the other side prepares, or is waited for
 * @MIGRATION_ACTIVE:	Guest stopped, state on its way (on the destination: being loaded)
 * @MIGRATION_PRE_SWITCHOVER: Guest stopped, waiting for migrate-continue
 * @MIGRATION_DEVICE:	State is saved, sent, acknowledged
 * @MIGRATION_COMPLETED: The destination owns the guest.  Final
 * @MIGRATION_CANCELLING: migrate_cancel was accepted; being undone
 * @MIGRATION_CANCELLED: Undone; the guest is as before.  Final
 * @MIGRATION_FAILING:	The error is known; being undone
 * @MIGRATION_FAILED:	Undone; the guest is as before.  Final
 *
 * From a final state only a new attempt leads on.
 */
enum migration_status {
	MIGRATION_NONE,
	MIGRATION_SETUP,
	MIGRATION_ACTIVE,
	MIGRATION_PRE_SWITCHOVER,
	MIGRATION_DEVICE,
	MIGRATION_COMPLETED,
	MIGRATION_CANCELLING,
	MIGRATION_CANCELLED,
	MIGRATION_FAILING,
	MIGRATION_FAILED,
	MIGRATION_STATUS_COUNT,
};

/** migration_status_name() - "none", "setup", "pre-switchover", ... */
const char *migration_status_name(enum migration_status status);

/** migration_status_from_name() - The inverse; MIGRATION_STATUS_COUNT if there is none. */
enum migration_status migration_status_from_name(const char *name);

/** migration_status_allowed() - Whether the table has a row from @from to @to. */
bool migration_status_allowed(enum migration_status from, enum migration_status to);

/** migration_status_running() - Whether an update is in progress in @status. */
bool migration_status_running(enum migration_status status);

/** typedef migration_event_fn - Emit the QMP event @name with @data (borrowed). */
typedef void (*migration_event_fn)(void *opaque, const char *name, json_t *data);

/**
 * struct migration_progress - One attempt, as clients see it
 * @status:	Changed by migration_progress_set() only
 * @incoming:	This process is the destination: no RAM counters
 * @events:	Capability "events" is on
 * @emit, @opaque: Where events go; may be NULL
 * @ready:	Status setup: the successor is built, the guest can be switched over
 * @error_desc:	Why the last attempt failed, until the next one; NULL
 * @begun_ns, @connected_ns, @stopped_ns, @resumed_ns, @ended_ns: clock_now_ns(), 0: not yet
 * @state_bytes: Octets of state sent
 * @address:	Address of an open listener, for socket-address; NULL
 */
struct migration_progress {
	enum migration_status status;
	bool incoming;
	bool events;
	migration_event_fn emit;
	void *opaque;
	bool ready;
	char *error_desc;
	uint64_t begun_ns;
	uint64_t connected_ns;
	uint64_t stopped_ns;
	uint64_t resumed_ns;
	uint64_t ended_ns;
	uint64_t state_bytes;
	json_t *address;
};

/** migration_progress_begin() - Start an attempt: status setup, times and error of the last gone.
 */
void migration_progress_begin(struct migration_progress *progress, bool incoming);

/**
 * migration_progress_set() - Go to @status and emit the event
 *
 * A change the table does not have is a mistake of this program: it is logged and not made.
 */
void migration_progress_set(struct migration_progress *progress, enum migration_status status);

/** migration_progress_ready() - The successor is built and waits; emits MIGRATION {setup, ready}. */
void migration_progress_ready(struct migration_progress *progress);

/** migration_progress_pass() - Emit MIGRATION_PASS. */
void migration_progress_pass(struct migration_progress *progress, int pass);

/** migration_progress_record() - Emit MIGRATION_RECORD: how the update went; @record is taken. */
void migration_progress_record(struct migration_progress *progress, json_t *record);

/** migration_progress_fail() - Remember why, and go to failed, by way of failing if not there yet. */
void migration_progress_fail(struct migration_progress *progress, const char *reason);

/** migration_progress_query() - query-migrate's members that follow from the attempt. */
json_t *migration_progress_query(const struct migration_progress *progress);

/** migration_progress_clear() - Free what it owns. */
void migration_progress_clear(struct migration_progress *progress);
