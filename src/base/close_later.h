// Closing files whose store may hang: on a thread, whenever that comes to its end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>

/**
 * close_later() - Close descriptors, without waiting for any store
 * @fds:	int: taken, each of them; -1 are left out.  The array stays the caller's
 *
 * What can be closed at once is closed at once; regular files of a file system (fd_has_store()) on a
 * thread, which base/stuck.h knows of.  Where there is no thread to be had they are closed here.
 */
void close_later(const GArray *fds);
