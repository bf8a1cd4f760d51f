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
 * A sealed memfd holds one JSON object.  The environment variable MOLT_CPR_EXEC is "NUMBER:NONCE": its
 * number, and a member of it, so that a variable that is left over, or set by somebody, means nothing.
 *
 *   protocol	4
 *   nonce	32 hex digits
 *   offer	as on the cpr channel (offer.h)
 *   fds	the manifest of the exported descriptors, base64
 *   attempt	that the state is valid by (owner.h)
 *   state-fd	a sealed memfd with the VM's state stream
 *   sessions-fd	a sealed memfd with that of the process (monitor sessions)
 *   file-fd, file	the state file that was asked for, reserved, and what it is (state_file.h); -1 and
 *		null if none was
 *   leftovers	numbers of files that nobody needs any more (a log, the device's own of two descriptors).
 *		execve() would close them, and wait for their stores while the guest stands; whoever has
 *		the guest closes them on a thread
 *   paths	what the process made at which path, as fd_paths_describe() says; without it they are looked at
 *   exec-fd	the old executable, to go back to
 *   argv, environment	the old arguments and environment
 *   guardian-fd, guardian-pid	the pipe for words to the guardian, and its pid (guardian.h)
 *   children	pids of other children that are still to be reaped
 *   record	the update's record so far (record.h)
 *   begun-ns	when migrate was accepted
 *   parameters, downtime-limit-set, capabilities	as the queries give them; they survive
 *   pidfile	the process's own file, null if it has none
 *   rollback	only on the way back: why the new program did not take the guest
 *
 * A rehearsal (probe.h) finds one too, named by its socket; it has no guardian (-1) and no valid attempt.
 *
 * The new program changes nothing in it and hands it back, with "rollback" added, when it cannot go
 * on.  Who cannot write another one (a crashed program, the guardian) gives the reason in the
 * environment variable MOLT_CPR_ROLLBACK, the guardian beside MOLT_CPR_SEIZED.  A program that finds
 * either takes the configuration from the offer whatever its arguments say, and does not go back once
 * more.
 */

/** ENVELOPE_ENV - Number and nonce of the envelope */
#define ENVELOPE_ENV "MOLT_CPR_EXEC"

/** ENVELOPE_ROLLBACK_ENV - The reason for coming back, of one who could not write it down */
#define ENVELOPE_ROLLBACK_ENV "MOLT_CPR_ROLLBACK"

/** ENVELOPE_SEIZED_ENV - Set by the guardian: the attempt is guardian_claim()'s now */
#define ENVELOPE_SEIZED_ENV "MOLT_CPR_SEIZED"

/** struct envelope - One that was found, checked; the descriptors are owned and close-on-exec */
struct envelope {
	int fd;
	json_t *json;
	struct offer *offer;
	GBytes *manifest;
	int state_fd;
	int sessions_fd;
	int exec_fd;
	int file_fd;
	int guardian_fd;
	GArray *leftovers;
	pid_t guardian_pid;
	uint64_t begun_ns;
	uint64_t attempt;
	const char *rollback;
};

/** envelope_found() - Whether this process came by an exec. */
bool envelope_found(void);

/** envelope_clean_environ() - At a start without an envelope: what stands beside one is no setting. */
void envelope_clean_environ(void);

/**
 * envelope_check_privileges() - Refuse to run where a predecessor's word is there but must not be heard
 *
 * Somebody counts on this process to rehearse, or to go on with a guest.  With more privileges than who
 * started it (set-user-ID, file capabilities) it trusts no environment; to start a VM as if nothing had
 * been said would run the guest twice.
 * Return: false with @error set.
 */
bool envelope_check_privileges(GError **error);

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

/**
 * envelope_environ() - @env with the envelope named
 * @reason:	The guardian's, for going back; NULL: none
 * Return: to be freed.
 */
char **envelope_environ(char *const *env, int fd, const json_t *json, const char *reason);

/**
 * envelope_describe() - envelope_export() for a child that rehearses: nothing becomes inheritable here
 * @fds:	int: gets every number that the child must inherit, the envelope's too
 *
 * Return: the envelope, close-on-exec, owned by the caller; -1 with @error set.
 */
int envelope_describe(json_t *json, const struct fdstore *store, GArray *fds, GError **error);

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
 * envelope_exec_back() - Become the old program again; a rehearsal refuses instead, and ends
 * @store:	The imported descriptors; NULL if they were not imported, and are as they came
 * @record:	What this side has to say, update_record_to_json(); borrowed
 *
 * Return: only if that fails, with @error set.
 */
bool envelope_exec_back(struct envelope *envelope, struct fdstore *store, const json_t *record,
			const char *reason, GError **error);
