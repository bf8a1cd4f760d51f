// A new program that crashes before it has taken the guest becomes the old one again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * While a way back is armed, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS and SIGABRT do not end the
 * process: the handler makes the descriptors inheritable again and executes the old program, so the
 * PID stays.  SIGABRT that another process sent is the guardian's word that this one hangs.
 *
 * The handler asks the owner's word first (owner.h): the attempt is called back in one step, or the
 * guest was taken, and the crash is an ordinary one.
 *
 * All that the handler needs is made beforehand; it makes system calls only, on a stack of its own.
 * If it fails too, the signal does what it would have done, and the guardian takes over.
 *
 * Context: one per process, hence the state behind these functions; main thread.
 */

/**
 * crash_arm() - From now on a crash executes the old program
 * @exec_fd:	It
 * @argv, @env:	Its arguments and environment; taken.  @env names the envelope; the reason is added
 * @fds:	int; descriptors to make inheritable; taken
 */
void crash_arm(int exec_fd, char **argv, char **env, GArray *fds);

/** crash_set_word() - The owner's, once it is mapped: before, nobody can have taken @attempt. */
void crash_set_word(_Atomic uint64_t *word, uint64_t attempt);

/** crash_disarm() - The guest is this program's now, or given up on purpose; no-op if not armed. */
void crash_disarm(void);
