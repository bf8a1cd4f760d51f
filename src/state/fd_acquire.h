// The one door through which host descriptors come, at cold boot and at takeover alike.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

#include "state/fd_scope.h"
#include "state/fdstore.h"

/**
 * struct fd_source - Where descriptors come from, and which are in use
 * @inherited:	What the predecessor handed over; NULL at a cold boot.  Not owned
 * @complete:	While a machine is built from @inherited: what is not in it is an error, since
 *		opening it anew would give the guest other memory, or take a path from the
 *		predecessor that still uses it
 * @way:	How it came: what does not cross on this way is opened anew all the same
 * @live:	Name to struct fd_live (fd_live.c): every descriptor acquired or published and not
 *		withdrawn.  This is what an update hands over; owners keep owning them
 *
 * @paths:	struct fd_path (fd_paths.c): what lies under a name because of this process
 * @left:	Path that was asked for to struct file_made: what the program before an execve() said
 *		that it made; NULL where there was none, or where it did not say
 * @claiming:	This process waits for a predecessor that lives: see fd_paths.h
 *
 * Zero-initialised, ended with fd_source_clear().  Context: main thread.
 */
struct fd_source {
	struct fdstore *inherited;
	bool complete;
	enum fd_way way;
	GHashTable *live;
	GPtrArray *paths;
	GHashTable *left;
	bool claiming;
};

/** fd_source_clear() - Forget what is live; closes nothing. */
void fd_source_clear(struct fd_source *src);

/**
 * typedef fd_open_fn - Open the resource anew
 * @arg:	fd_acquire()'s
 * Return: a descriptor, close-on-exec; -1 with @error set.
 */
typedef int fd_open_fn(void *arg, GError **error);

/**
 * fd_acquire() - Get the descriptor called @name
 * @src:	NULL is a source without a predecessor
 * @name:	Stable path of the owner and what it is to it, such as "pci/00.3/image"
 * @kind:	What it must be; checked on both ways
 * @open_fn:	Called if there is no predecessor, or if it had no such descriptor and @src is not
 *		complete
 * @arg:	For @open_fn
 *
 * The descriptor is remembered as live under @name until fd_withdraw().  The caller cannot tell
 * which way it went, and does not ask.
 * Context: main thread.
 * Return: a descriptor owned by the caller; -1 with @error naming it.
 */
int fd_acquire(struct fd_source *src, const char *name, enum fd_kind kind, fd_open_fn *open_fn,
	       void *arg, GError **error);

/**
 * fd_acquire_new() - fd_acquire(), opened whatever the predecessor had under that name
 *
 * For what the successor is told to use instead.
 */
int fd_acquire_new(struct fd_source *src, const char *name, enum fd_kind kind, fd_open_fn *open_fn,
		   void *arg, GError **error);

/**
 * fd_inherit() - The predecessor's descriptor called @name, if it had one
 *
 * For what may or may not be there, such as an accepted connection.  Remembered as live.
 * Return: a descriptor owned by the caller; -1 without @error if there is none, with it if there
 * is one and it cannot be taken.
 */
int fd_inherit(struct fd_source *src, const char *name, enum fd_kind kind, GError **error);

/**
 * fd_expected() - Whether a predecessor that had a descriptor called @name has handed it over
 *
 * Then one that is not there was not there before either, and is not made: a client's connection that
 * had ended.
 */
bool fd_expected(const struct fd_source *src, const char *name);

/**
 * fd_publish() - Remember a descriptor that appeared later (an accepted connection) as live
 * @fd:	Stays the caller's; fd_withdraw() comes before close()
 * Return: false if another live descriptor has the name.
 */
bool fd_publish(struct fd_source *src, const char *name, enum fd_kind kind, int fd, GError **error);

/** fd_withdraw() - Forget a live descriptor that is about to be closed, and give it back to the
 * predecessor's store while there is one; accepts unknown names. */
void fd_withdraw(struct fd_source *src, const char *name);

/**
 * fd_source_check() - What fd_source_offer() would say of the descriptors as they were published
 *
 * Touches no file, so it waits for no store.
 * Return: false if one cannot be handed over.
 */
bool fd_source_check(const struct fd_source *src, GError **error);

/**
 * fd_source_offer() - Add (dup) every live descriptor that crosses on @way to @store, for a successor
 * Return: false if one cannot be handed over.
 */
bool fd_source_offer(struct fd_source *src, struct fdstore *store, enum fd_way way, GError **error);
