// The store of named descriptors that cross into the next process.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"
#include "state/fd_kind.h"

/**
 * DOC: Theory of operation
 *
 * Happy path.  The old process fills a store: each owner adds its descriptors under stable names
 * ("ram/pc.ram", "pci/00.3/image").  The store crosses, by fdstore_send() and fdstore_receive() or
 * by fdstore_export_exec() and fdstore_import_exec().  In the new process each owner takes its own
 * through fd_acquire() while it is built, the same call that opens them at a cold boot.
 * fdstore_finish() fails while something was not taken: nothing leaks, nothing is forgotten.
 *
 * Rules.
 * 1. The store holds duplicates (number 3 or above, close-on-exec); its user keeps its own. Undoing
 *    an offer is freeing the store.  A view (fdstore_new_view()) holds the user's own.
 * 2. Every entry records an identity, which is checked after crossing and at every take.
 * 3. Taking works once (until it is given back) and gives the taker a duplicate.  The store keeps its
 *    own until it is freed, so a successor that fails after taking can still hand everything back
 *    (export again).  After the commit it must be freed, or closed sockets would stay open through it.
 * 4. fdstore_finish() names what was not taken.
 * 5. Everything is close-on-exec at all times but between fdstore_export_exec() and execve(), when
 *    what is in the store, and what must not be closed by execve() (cpr/envelope.h), is not.
 * 6. A table row per kind says how to verify it (fd_kind.c).
 *
 * Unhappy paths.  Every failure to receive closes what had arrived.  A failure to import leaves the
 * descriptors open and inheritable as they were found, so that the caller can exec back.
 *
 * Context: a store belongs to one thread at a time (the main thread).
 */

/** FDSTORE_NAME_BYTES - Of an entry's name, with its NUL */
#define FDSTORE_NAME_BYTES 96

/** FDSTORE_MAX - Entries a store may have */
#define FDSTORE_MAX 1024

struct fdstore;

/**
 * struct fdstore_entry - One descriptor in a store
 * @name:	1 to 95 printable characters without blanks
 * @kind:	What it was verified to be
 * @fd:		The store's own duplicate
 * @identity:	As recorded when it was added in the first process
 * @taken:	Whether fdstore_take() handed it out
 */
struct fdstore_entry {
	char name[FDSTORE_NAME_BYTES];
	enum fd_kind kind;
	int fd;
	struct fd_identity identity;
	bool taken;
};

/** fdstore_new() - An empty store.  Return: to be freed with fdstore_free(). */
struct fdstore *fdstore_new(void);

/**
 * fdstore_new_view() - An empty store that closes nothing: what is added is the caller's, and stays open
 *
 * To look, to send, to let a child inherit.  Even closing the duplicate of an image can take as long as
 * its storage hangs: where a file system flushes, it waits for writes that are under way.
 */
struct fdstore *fdstore_new_view(void);

/** fdstore_free() - Close the store's descriptors and free it.  Accepts NULL. */
void fdstore_free(struct fdstore *store);
DEFINE_CLEANUP(fdstore, fdstore_free)

/** fdstore_leave() - fdstore_free() under a guest that runs: files are closed by close_later(). */
void fdstore_leave(struct fdstore *store);

/** fdstore_check_name() - Whether a descriptor can be called @name. */
bool fdstore_check_name(const char *name, GError **error);

/**
 * fdstore_add() - Put a duplicate of @fd into the store; into a view, @fd itself
 * @fd:		Stays the caller's
 *
 * RAM is sealed against shrinking first, as fd_kind_prepare() says.
 * Return: false for a bad or used name, a full store, or a descriptor that is not of @kind.
 */
bool fdstore_add(struct fdstore *store, const char *name, enum fd_kind kind, int fd,
		 GError **error);

/** fdstore_find() - The entry called @name, NULL if there is none. */
const struct fdstore_entry *fdstore_find(const struct fdstore *store, const char *name);

/**
 * fdstore_take() - Hand out the descriptor called @name, once
 *
 * Checks kind and identity again.
 * Return: a duplicate, close-on-exec, owned by the caller; -1 with @error set if there is no such
 * entry, it was taken, or it is not what it says.
 */
int fdstore_take(struct fdstore *store, const char *name, enum fd_kind kind, GError **error);

/** fdstore_give_back() - What was taken of @name is closed: it may be taken anew, and has to be.
 * Accepts names that the store does not have. */
void fdstore_give_back(struct fdstore *store, const char *name);

/**
 * fdstore_finish() - Whether everything was taken
 * @may_stay:	Says of which names it does not matter; NULL: of none
 *
 * Return: false with the names of all others that nobody took.
 */
bool fdstore_finish(const struct fdstore *store, bool (*may_stay)(void *opaque, const char *name),
		    void *opaque, GError **error);

/** fdstore_count() - Entries, taken or not. */
size_t fdstore_count(const struct fdstore *store);

/**
 * fdstore_iter() - The next entry, in the order they were added
 * @pos:	Start with 0; advanced
 * Return: NULL past the last one.
 */
const struct fdstore_entry *fdstore_iter(const struct fdstore *store, size_t *pos);

/* ---- crossing by a socket ---- */

/**
 * fdstore_send() - Send all entries over a UNIX stream socket
 * @sock:	Blocking or not; nothing else may be in flight on it
 * @deadline_ns: On clock_now_ns()'s clock; 0: none
 *
 * Blocks the calling thread until the peer has made room for all.  The store is unchanged.
 * Return: false with @error (MOLT_ERROR_TIMEOUT when late); the connection is then of no more use.
 */
bool fdstore_send(const struct fdstore *store, int sock, uint64_t deadline_ns, GError **error);

/**
 * fdstore_receive() - Receive what fdstore_send() sends
 * @sock:	Blocking or not; not read past the last entry
 * @deadline_ns: On clock_now_ns()'s clock; 0: none
 *
 * The peer is not trusted: names, counts, kinds and identities are checked against what arrived.
 * Return: the store; NULL with @error on failure, all that had arrived closed.
 */
struct fdstore *fdstore_receive(int sock, uint64_t deadline_ns, GError **error);

/* ---- crossing by exec ---- */

/**
 * fdstore_export_exec() - Let the store's descriptors survive the execve() that follows
 *
 * The last act before execve(): a fork in another thread would leak them.  Entries that were taken
 * are exported too.
 * Return: the manifest, names and descriptor numbers, for fdstore_import_exec() (a new reference);
 * NULL on failure, close-on-exec everywhere.
 */
GBytes *fdstore_export_exec(struct fdstore *store, GError **error);

/**
 * fdstore_describe_exec() - The manifest alone, for a child that is given the same numbers
 *
 * Return: as fdstore_export_exec(); nothing is made inheritable.
 */
GBytes *fdstore_describe_exec(const struct fdstore *store, GError **error);

/** fdstore_unexport_exec() - Undo fdstore_export_exec() when execve() failed. */
void fdstore_unexport_exec(struct fdstore *store);

/**
 * fdstore_import_exec() - Own what the process before the execve() exported
 * @manifest:	As fdstore_export_exec() returned it
 *
 * Sets close-on-exec on all numbers first, then verifies every one.
 * Return: the store; NULL with @error on failure, the descriptors left open and inheritable.
 */
struct fdstore *fdstore_import_exec(GBytes *manifest, GError **error);
