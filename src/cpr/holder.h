// The holder: a child that keeps the old address space and KVM VM alive over an exec.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * execve() takes the old address space apart before the new program starts: 50 to 125 ms per GiB of
 * mapped guest RAM, and the KVM VM on top, all while the guest stands still.  The holder is a child
 * that shares the address space (CLONE_VM) and has KVM's descriptors and nothing else open, so that
 * the exec merely drops a reference.  It waits for the end of a pipe.  The new program closes that
 * pipe once the guest runs, or by dying; the holder exits, and the teardown happens in it.
 *
 * The holder shares memory with a process that goes on running, so it uses nothing but its own
 * stack and system calls: no libc call that might write errno, no lock, no allocation.
 *
 * Context: main thread.
 */

/**
 * struct holder - A running holder, as its parent sees it
 * @pid:	0: there is none
 * @pipe:	Closing it ends the holder; close-on-exec until holder_keep()
 * @stack:	Its stack; the old address space's, so not to be unmapped after an exec
 */
struct holder {
	pid_t pid;
	int pipe;
	void *stack;
};

/** holder_start() - Start one.  *@holder is written on success only. */
bool holder_start(struct holder *holder, GError **error);

/** holder_stop() - End it and wait until it is gone; no-op if there is none. */
void holder_stop(struct holder *holder);

/**
 * holder_release() - After an exec: let it go; it is reaped from the main loop
 * @holders:	pid_t of every holder that is still to be reaped: an exec that comes before that must
 *		hand them on.  A reference is kept
 * @pipe:	The descriptor that came over, taken; -1 if it was closed by an earlier program
 */
void holder_release(GArray *holders, pid_t pid, int pipe);
