// Whose a descriptor is, by the first part of its name: what decides how far it crosses.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>

/**
 * DOC: Theory of operation
 *
 * Over an exec every descriptor crosses: what was the process's stays the process's, and nothing is
 * opened after execve().  Over a transfer there are two processes, and only what is the VM's crosses:
 * of monitors' chardevs, of those with reopen-on-cpr and of the process's own files each has its own.
 */

/** FD_MONITOR_PREFIX - Of chardevs that only monitors use */
#define FD_MONITOR_PREFIX "monitor/"

/**
 * FD_REOPEN_PREFIX - Of chardevs with reopen-on-cpr
 *
 * Over an exec a listener and what is no socket stays as it is, a server's connection is dropped, and
 * a client is connected anew before the guest is stopped (backend/chardev/reopen.h).
 */
#define FD_REOPEN_PREFIX "reopen/"

/** FD_PROCESS_PREFIX - Of the process's own files */
#define FD_PROCESS_PREFIX "process/"

/** FD_CHARDEV_PREFIX - Of all other chardevs, which are the VM's like everything without a prefix above */
#define FD_CHARDEV_PREFIX "chardev/"

/** enum fd_way - How descriptors come from a predecessor */
enum fd_way { FD_WAY_EXEC, FD_WAY_TRANSFER };

/** fd_is_vms() - Whether @name is the VM's, and no process's own. */
bool fd_is_vms(const char *name);

/** fd_crosses() - Whether the descriptor called @name crosses on @way; if not, a successor opens its own. */
bool fd_crosses(const char *name, enum fd_way way);
