// The envelope: what a process leaves for the program that execve() makes of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "cpr/offer.h"
#include "state/fdstore.h"

/**
 * DOC: this interface is a contract
 *
 * A sealed memfd, whose number is in the environment variable MOLT_CPR_EXEC, holds one JSON object:
 *
 *   protocol	2
 *   offer	as on the cpr channel (offer.h)
 *   fds	the manifest of the exported descriptors, base64
 *   state-fd	a sealed memfd with the VM's state stream
 *   sessions-fd	a sealed memfd with that of the process (monitor sessions)
 *   exec-fd	the old executable, to go back to
 *   argv, environment	the old arguments and environment
 *   guardian-fd, guardian-pid	the pipe for words to the guardian, and its pid (guardian.h)
 *   guardians	pids of earlier ones that are still to be reaped
 *   record	the update's record so far (record.h)
 *   begun-ns	when migrate was accepted
 *   parameters, downtime-limit-set, capabilities	as the queries give them; they survive
 *   pidfile	the process's own file, null if it has none
 *   rollback	only on the way back: why the new program did not take the guest
 *
 * The new program changes nothing in it and hands it back, with "rollback" added, when it cannot go
 * on.  Who cannot write another one (a crashed program, the guardian) gives the reason in the
 * environment variable MOLT_CPR_ROLLBACK.  A program that finds either takes the configuration from
 * the offer whatever its arguments say, and does not go back once more.
 */

/** ENVELOPE_ENV - Number of the envelope */
#define ENVELOPE_ENV "MOLT_CPR_EXEC"

/** ENVELOPE_ROLLBACK_ENV - The reason for coming back, of one who could not write it down */
#define ENVELOPE_ROLLBACK_ENV "MOLT_CPR_ROLLBACK"

/** struct envelope - One that was found, checked; the descriptors are owned and close-on-exec */
struct envelope {
	int fd;
	json_t *json;
	struct offer *offer;
	GBytes *manifest;
	int state_fd;
	int sessions_fd;
	int exec_fd;
	int guardian_fd;
	pid_t guardian_pid;
	uint64_t begun_ns;
	const char *rollback;
};

/** envelope_found() - Whether this process came by an exec. */
bool envelope_found(void);

/**
 * envelope_read() - Read the one in the environment, and remove it from there
 * Return: to be freed with envelope_free(); NULL with @error set.
 */
struct envelope *envelope_read(GError **error);
void envelope_free(struct envelope *envelope);
DEFINE_CLEANUP(envelope, envelope_free)

/**
 * envelope_arm_crash() - A crash from now on goes back too, see crash.h
 * @store:	The imported descriptors
 *
 * Undone by crash_disarm().  @envelope and @store must not be freed before that.
 */
void envelope_arm_crash(const struct envelope *envelope, const struct fdstore *store);

/** envelope_environ() - @env with the envelope @fd named, and the reason for going back if there is
 * one (NULL: none).  Return: to be freed. */
char **envelope_environ(char *const *env, int fd, const char *reason);

/**
 * envelope_export() - Last before execve(): make an envelope and everything it names inheritable
 * @json:	All members but fds; borrowed, fds is added
 * @store:	Exported; see fdstore_export_exec()
 * @fd:		Set to the envelope's descriptor
 *
 * Return: false with @error set and nothing changed.
 */
bool envelope_export(json_t *json, struct fdstore *store, int *fd, GError **error);

/** envelope_unexport() - Undo it when execve() failed; closes @fd. */
void envelope_unexport(json_t *json, struct fdstore *store, int *fd);

/**
 * envelope_exec_back() - Become the old program again
 * @store:	The imported descriptors; NULL if they were not imported, and are as they came
 * @record:	What this side has to say, update_record_to_json(); borrowed
 *
 * Return: only if that fails, with @error set.
 */
bool envelope_exec_back(struct envelope *envelope, struct fdstore *store, const json_t *record,
			const char *reason, GError **error);
