// Ownership of a guest: a lock on a descriptor that both processes can name, and a counter beside
// it. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"
#include "state/fd_acquire.h"

/**
 * DOC: Theory of operation
 *
 * A guest has one owner page: a sealed memfd that is handed from process to process under the name
 * "cpr/owner".  Whoever holds the write lock (F_OFD_SETLK) on it may run vCPUs and let devices
 * touch guest memory.  Each process locks through an open file description of its own, made by
 * opening /proc/self/fd/N, so that the locks of two processes exclude each other and the kernel
 * releases the lock of one that dies.  Over exec the locked description itself survives, under the
 * name "cpr/owner-lock".
 *
 * The lock alone does not tell whether a guest has run since its state was saved.  Two counters in
 * the page do:
 *
 *   generation	how often the guest changed hands; raised by a new owner just before the first vCPU
 *		runs
 *   offered	the generation whose saved state is valid: generation + 1 from the moment the state
 *		is sent until it is used or called back, 0 otherwise
 *
 * Happy path: old offers, sends the state, unlocks (the commit); new locks, marks (generation =
 * offered, offered = 0), runs.
 *
 * Unhappy paths.  Old takes an offer back (offered = 0) before it lets the guest go on, so that a
 * successor that has stale state cannot use it even if old dies later.  Old dies after the state
 *		was acknowledged: new gets the lock, sees offered unchanged, and goes on.  New dies after the
 *		commit but before it marked: old gets the lock back, sees generation unchanged, and goes on.  New
 *		dies after it marked: the guest died with its owner; old sees another generation and stays
 *		stopped.
 *
 * Context: main thread.
 */

/** enum owner_verdict - What owner_reclaim() found */
enum owner_verdict {
	OWNER_OURS,	 /* locked again, and nobody ran the guest: go on */
	OWNER_ELSEWHERE, /* another process holds the lock */
	OWNER_GONE,	 /* another process ran the guest and is no more: its state is lost */
};

struct owner;

/** owner_new() - A new guest's page, locked; registered in @fds as "cpr/owner". */
struct owner *owner_new(struct fd_source *fds, GError **error);

/**
 * owner_inherit() - The page of a predecessor
 *
 * After an exec it is locked already; after a transfer the predecessor holds the lock.
 * Return: NULL with @error set if the descriptor is missing, too small or not an owner page.
 */
struct owner *owner_inherit(struct fd_source *fds, GError **error);

/** owner_free() - Unlock and unmap; accepts NULL. */
void owner_free(struct owner *owner);
DEFINE_CLEANUP(owner, owner_free)

/** owner_held() - Whether this process holds the lock. */
bool owner_held(const struct owner *owner);

/** owner_generation() - Of the guest, as this process knows it. */
uint64_t owner_generation(const struct owner *owner);

/**
 * owner_offer() - Declare the state about to be sent valid
 * Return: the generation that its receiver will be.
 */
uint64_t owner_offer(struct owner *owner);

/** owner_revoke() - Take the offer back; before the guest goes on.  No-op without one. */
void owner_revoke(struct owner *owner);

/** owner_release() - Unlock: the commit of an owner. */
void owner_release(struct owner *owner);

/** owner_moved() - Whether a successor has marked the guest as its own. */
bool owner_moved(const struct owner *owner);

/** owner_reclaim() - After owner_release(): try to become owner again. */
enum owner_verdict owner_reclaim(struct owner *owner);

/**
 * owner_lock() - A successor: lock, and check that @offered is what the predecessor stands by
 * Return: false with @error set while another process holds the lock or if the offer was called
 * back; nothing is locked then.
 */
bool owner_lock(struct owner *owner, uint64_t offered, GError **error);

/** owner_mark() - A successor that locked: from now on the guest is its own. */
void owner_mark(struct owner *owner, uint64_t offered);

/** owner_add_lock() - Put the locked description into @store, for an exec. */
bool owner_add_lock(struct owner *owner, struct fdstore *store, GError **error);
