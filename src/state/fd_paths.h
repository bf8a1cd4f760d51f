// Paths that a process has: sockets and files that others find it by, and that a successor takes over.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>
#include <jansson.h>

#include "base/file.h"
#include "state/fd_acquire.h"

/**
 * DOC: Theory of operation
 *
 * A successor by transfer may be started with its predecessor's command line.  What that names (a
 * monitor's socket, a pid file) is in use as long as the predecessor has the guest.  A process that
 * waits for a predecessor therefore makes such a socket or file beside the path, under a name that
 * nobody looks for: it *claims* the path.  The predecessor's offer says which paths are its own; a
 * claim of any other is refused, before anything is stopped.  When the guest has become this
 * process's, each claim is renamed over its path, which is one step: there is always exactly one of
 * the two.  A claim that comes to nothing is removed, and the path was never touched.
 *
 * The predecessor, whenever it ends, finds something else at the path than it made (struct
 * file_made), and leaves it.
 *
 * Over an execve() paths stay, and so does what is known of them: to look at one again would ask its
 * store while the guest is stopped.
 *
 * Context: main thread.
 */

/**
 * fd_path_make_socket() - file_make_socket(), or a claim
 * @src:	NULL is a process that does not wait for a predecessor
 * @made:	Where the owner keeps what it made; filled now, or by fd_paths_take().  Known to @src
 *		until fd_path_forget()
 * @claimed:	Set to whether nobody can connect yet
 *
 * Return: a descriptor as of file_make_socket().
 */
int fd_path_make_socket(struct fd_source *src, const char *path, bool replace,
			struct file_made *made, bool *claimed, GError **error);

/**
 * fd_path_claim_file() - A new file that will be at @path
 *
 * For who found the file there locked by somebody else.  @src waits for a predecessor
 * (fd_paths_claiming()).
 */
int fd_path_claim_file(struct fd_source *src, const char *path, struct file_made *made,
		       GError **error);

/** fd_path_add() - Remember that *@made is this process's; no-op if nothing was made. */
void fd_path_add(struct fd_source *src, struct file_made *made);

/**
 * fd_path_inherit() - What the predecessor made at @path is this process's now
 * @fd:		The open file, -1 for a socket: see file_made_adopt()
 * @made:	As for fd_path_make_socket()
 *
 * Where the predecessor has said what it made (fd_paths_inherit()), that is believed, and the path not
 * looked at.
 */
void fd_path_inherit(struct fd_source *src, const char *path, int fd, struct file_made *made);

/** fd_path_forget() - Before *@made goes: a claim is dropped.  Accepts what is not known. */
void fd_path_forget(struct fd_source *src, const struct file_made *made);

/** fd_paths_claiming() - Whether paths that are in use are claimed. */
bool fd_paths_claiming(const struct fd_source *src);

/** fd_paths_json() - The paths that this process has, for the offer; owned by the caller. */
json_t *fd_paths_json(const struct fd_source *src);

/** fd_paths_describe() - What this process made at which path, for the program after an execve(); owned by
 * the caller. */
json_t *fd_paths_describe(const struct fd_source *src);

/** fd_paths_inherit() - What fd_paths_describe() said in the program before; anything else: nothing. */
void fd_paths_inherit(struct fd_source *src, const json_t *list);

/**
 * fd_paths_check() - Whether every claimed path is the predecessor's, by its list @theirs
 * Return: false with @error, a line for each that is not.
 */
bool fd_paths_check(const struct fd_source *src, const json_t *theirs, GError **error);

/** fd_paths_take() - The guest is ours: take every claimed path.  What fails is logged. */
void fd_paths_take(struct fd_source *src);
