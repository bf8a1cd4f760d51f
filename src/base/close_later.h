// Closing files whose store may hang: on a thread, whenever that comes to its end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * close() of a file on FUSE or NFS waits for its server, the last one of a block device for its writes.
 * What has no store (fd_has_store()) is closed at once; the rest on a thread, which base/stuck.h knows
 * of.  Where there is no thread to be had it is closed here.
 */

/**
 * close_later() - Close descriptors, without waiting for any store
 * @fds:	int: taken, each of them; -1 are left out.  The array stays the caller's
 */
void close_later(const GArray *fds);

/** CLOSE_SOON_MS - How long close_soon() waits for a store; a thread that only lacks a processor has longer */
#define CLOSE_SOON_MS 50

/**
 * close_soon() - Close one descriptor, and wait for its store for a moment only
 * @fd:	Taken, -1 afterwards; may be -1
 *
 * Whoever opens the file next, locks of which go with it, finds it closed, unless its store hangs.
 * Context: any thread, not in a pause.
 */
void close_soon(int *fd);
