// The record that every update leaves: result, reason, and its phases on one clock.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"

/**
 * enum update_result - How it ended
 * @UPDATE_IN_PROGRESS: Not yet
 * @UPDATE_COMMITTED:	The new process owns the guest
 * @UPDATE_ROLLED_BACK:	The guest was stopped, and goes on in the old version
 * @UPDATE_UNCHANGED:	The guest was never stopped
 * @UPDATE_LOST:	The new process took over and died
 */
enum update_result {
	UPDATE_IN_PROGRESS,
	UPDATE_COMMITTED,
	UPDATE_ROLLED_BACK,
	UPDATE_UNCHANGED,
	UPDATE_LOST,
	UPDATE_RESULT_COUNT,
};

/** update_result_name() - "in-progress", "committed", "rolled-back", "unchanged", "lost" */
const char *update_result_name(enum update_result result);

/** RECORD_MAX_PHASES - More than both tables have rows */
#define RECORD_MAX_PHASES 64

/**
 * struct update_phase - One stage that ran
 * @name:	The stage's name
 * @is_new:	It ran in the new process
 * @begin_ns, @end_ns: clock_now_ns(), which both processes share
 */
struct update_phase {
	char name[24];
	bool is_new;
	uint64_t begin_ns;
	uint64_t end_ns;
};

/**
 * struct update_record - One update, as both sides know it
 * @result:	enum update_result
 * @reason:	Why it did not commit; of a committed one, what went wrong afterwards; NULL: nothing
 * @mode:	"cpr-transfer", "cpr-exec"
 * @old_build, @new_build: Versions of the two programs
 * @old_pid, @new_pid: The same for an exec
 * @paused_ns, @running_ns: When the guest was stopped and when it ran again; 0 if it was not
 * @phases:	Of both processes, struct update_phase
 */
struct update_record {
	enum update_result result;
	char *reason;
	char *mode;
	char *old_build;
	char *new_build;
	int old_pid;
	int new_pid;
	uint64_t paused_ns;
	uint64_t running_ns;
	GArray *phases;
};

/** update_record_new() - An update in progress by @mode, this process being the old one or not. */
struct update_record *update_record_new(const char *mode);
void update_record_free(struct update_record *record);
DEFINE_CLEANUP(update_record, update_record_free)

/** update_record_phase() - Add a phase of this process; past RECORD_MAX_PHASES it is dropped. */
void update_record_phase(struct update_record *record, const char *name, bool is_new,
			 uint64_t begin_ns, uint64_t end_ns);

/** update_record_finish() - Note how it ended; @reason may be NULL. */
void update_record_finish(struct update_record *record, enum update_result result,
			  const char *reason);

/** update_record_pause_ns() - How long the guest did not run. */
uint64_t update_record_pause_ns(const struct update_record *record);

/** update_record_to_json() - For query-migrate, and for the other process; owned by the caller. */
json_t *update_record_to_json(const struct update_record *record);

/**
 * update_record_merge() - Add what the other process knows
 * @json:	update_record_to_json() of the other side, hostile until checked
 * @phases_of_new: Take the phases of the new process, or those of the old
 *
 * Also takes the other side's build, pid and the times that this side has not seen.
 */
bool update_record_merge(struct update_record *record, const json_t *json, bool phases_of_new,
			 GError **error);

/** update_record_text() - One line for the log; owned by the caller. */
char *update_record_text(const struct update_record *record);
