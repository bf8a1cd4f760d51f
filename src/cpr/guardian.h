// The guardian: a child that keeps the old address space over an exec, and goes back if need be.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
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
 *   a word "step"	the next one is due
 *   a word "wait"	there is nothing to watch: the update is being undone
 *   a word "done"	the guest runs, or was given up on purpose: whatever happens now is nothing to the
 *			guardian.  It is said right after the guest was taken, before anything else
 *   a word "end"	the guest has run for a moment: the guardian ends, and the teardown happens in it
 *   late		the attempt is called back; SIGABRT, upon which the new program becomes the old one
 *			again, same PID (see envelope_arm_crash()); if it does not, SIGKILL
 *   the parent ends	the guardian itself becomes the old program, under its own PID, with the
 *			saved state, the descriptors and the lock
 *
 * Whatever it does, the owner's word (owner.h) decides first: before it stops or replaces anybody it
 * calls the attempt back, or seizes it, in one step, which fails if the guest has been taken.  A
 * program that was held up, however long, and has taken the guest after all is left alone; one that
 * was called back finds that out by the same word.
 *
 * A program is late when it makes no progress, not when the host makes it wait: base/patience.h, with
 * the program's processor time for progress.
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

/** GUARDIAN_STEP_MS - How long a program may make no progress from one word to the next */
#define GUARDIAN_STEP_MS 10000

/** GUARDIAN_BEAT_MS - How often a program that waits for a manager says that it is there ("step") */
#define GUARDIAN_BEAT_MS 1000

/** GUARDIAN_ABORT_MS - The same after SIGABRT */
#define GUARDIAN_ABORT_MS 2000

/**
 * GUARDIAN_KILL_MS - How long one that was killed may take to end
 *
 * Process 1 of a PID namespace is not killed from inside, and one that waits in the kernel for a store
 * only when that answers.  It has lost the attempt, so the guardian goes on beside it.
 */
#define GUARDIAN_KILL_MS 5000

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
enum guardian_word {
	GUARDIAN_STEP = 's',
	GUARDIAN_WAIT = 'w',
	GUARDIAN_DONE = 'd',
	GUARDIAN_END = 'e',
};

/** guardian_claim() - What @attempt is called once a guardian has seized it, see owner_word_claim(). */
static inline uint64_t guardian_claim(uint64_t attempt)
{
	return attempt ^ 1;
}

/**
 * guardian_seize() - Take @attempt from everybody else who could still use it
 *
 * The new program cannot take it any more, a program on its way back neither: either may be killed
 * without killing the guest.  Async-signal-safe.
 * Return: whether it is seized, now or earlier; false: it was taken, or taken back.
 */
bool guardian_seize(_Atomic uint64_t *word, uint64_t attempt);

/** enum guardian_act - What to do about a program that is late */
enum guardian_act { GUARDIAN_LEAVE, GUARDIAN_ABORT, GUARDIAN_KILL };

/**
 * guardian_act_on() - Decide it by the owner's word, and change the word so that it stays decided
 * @aborted:	It was sent SIGABRT already
 *
 * Async-signal-safe.
 */
enum guardian_act guardian_act_on(_Atomic uint64_t *word, uint64_t attempt, bool aborted);

/** guardian_start() - Start one.  *@guardian is written on success only. */
bool guardian_start(struct guardian *guardian, GError **error);

/** guardian_stop() - End it and wait until it is gone; no-op if there is none. */
void guardian_stop(struct guardian *guardian);

/**
 * guardian_arm() - From now on there is a way back
 * @word, @attempt: The owner's, see owner_word(); @word must stay mapped
 * @exec_fd, @argv: The old program
 * @died, @hung:	Environments to go back with; they name the envelope and the reason
 *
 * All are borrowed until guardian_disarm(), or for ever by the exec.
 */
void guardian_arm(struct guardian *guardian, _Atomic uint64_t *word, uint64_t attempt, int exec_fd,
		  char *const *argv, char *const *died, char *const *hung);
void guardian_disarm(struct guardian *guardian);

/**
 * guardian_ignore() - This program goes back already: a SIGABRT that comes late is not heard
 *
 * Over execve() too; abort() works all the same.  Async-signal-safe.
 * guardian_heed() - Undo it, once the guardian is gone.
 */
void guardian_ignore(void);
void guardian_heed(void);

/** guardian_tell() - Say a word on @pipe; that there is no guardian any more is no failure. */
void guardian_tell(int pipe, enum guardian_word word);

/** guardian_beat() - Say "step" unless a word is unread: one who is stopped must not fill @pipe, which blocks */
void guardian_beat(int pipe);

/**
 * guardian_release() - Say "end" and close @pipe; the child is reaped from the main loop
 * @children:	See children_reap()
 * @pipe:	The descriptor that came over, taken
 */
void guardian_release(GArray *children, pid_t pid, int pipe);
