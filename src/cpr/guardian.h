// The guardian: a child that keeps the old address space over an exec, and goes back if the new
// program dies or hangs. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * execve() takes the old address space apart before the new program starts: 50 to 125 ms per GiB of
 * mapped guest RAM, and the KVM VM on top, all while the guest stands still.  And it leaves nobody
 * who could go on with the guest if the new program is killed, ends, or hangs before it has taken
 * it.  The guardian is there for both.  It is a child that shares address space and descriptor
 * table (CLONE_VM | CLONE_FILES), so that the exec merely drops references; the kernel gives the
 * exec'ing process a descriptor table of its own.
 *
 * It waits for words on a pipe and for the end of its parent:
 *
 *   a word "step"	the next one must come within GUARDIAN_STEP_MS
 *   a word "wait"	what follows may last: the new program waits for a manager
 *   a word "done"	the guest runs, or was given up on purpose: the guardian ends, and the teardown
 *			happens in it
 *   late		SIGABRT, upon which the new program becomes the old one again, same PID (see
 *			envelope_arm_crash()); if it does not, SIGKILL
 *   the parent ends	the guardian itself becomes the old program, under its own PID, with the
 *			saved state, the descriptors and the lock
 *
 * Before guardian_arm() there is no state to go on with: a parent that dies then takes the guest
 * along, as in any crash, and the guardian just ends.
 *
 * It shares memory with a process that goes on running, and later has what that left, so it uses
 * nothing but its own stack and system calls: no libc call that might write errno, no lock, no
 * allocation.
 *
 * Context: main thread.
 */

/** GUARDIAN_STEP_MS - How long a new program may take from one word to the next */
#define GUARDIAN_STEP_MS 10000

/**
 * struct guardian - A running guardian, as its parent sees it
 * @pid:	0: there is none
 * @pipe:	For words; close-on-exec until the envelope is exported
 * @stack:	Its stack, at whose low end its plan lies; the old address space's
 */
struct guardian {
	pid_t pid;
	int pipe;
	void *stack;
};

/** enum guardian_word - See above */
enum guardian_word { GUARDIAN_STEP = 's', GUARDIAN_WAIT = 'w', GUARDIAN_DONE = 'd' };

/** guardian_start() - Start one.  *@guardian is written on success only. */
bool guardian_start(struct guardian *guardian, GError **error);

/** guardian_stop() - End it and wait until it is gone; no-op if there is none. */
void guardian_stop(struct guardian *guardian);

/**
 * guardian_arm() - From now on there is a way back
 * @exec_fd, @argv: The old program
 * @died, @hung:	Environments to go back with; they name the envelope and the reason
 *
 * All are borrowed until guardian_disarm(), or for ever by the exec.
 */
void guardian_arm(struct guardian *guardian, int exec_fd, char *const *argv, char *const *died,
		  char *const *hung);
void guardian_disarm(struct guardian *guardian);

/** guardian_tell() - Say a word on @pipe; one who has gone is not missed. */
void guardian_tell(int pipe, enum guardian_word word);

/**
 * guardian_release() - Say "done" and close @pipe; the child is reaped from the main loop
 * @guardians:	pid_t of everyone who is still to be reaped: an exec that comes before that must hand
 *		them on.  A reference is kept
 * @pipe:	The descriptor that came over, taken; -1 if an earlier program closed it
 */
void guardian_release(GArray *guardians, pid_t pid, int pipe);
