// Ownership of a guest: one word that decides who may run it next, and a lock that says who lives.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"
#include "state/fd_acquire.h"

/**
 * DOC: Theory of operation
 *
 * A guest has one owner page: a sealed memfd that is handed from process to process under the name
 * "cpr/owner".  It holds one word, id << 2 | state, that changes by compare-and-exchange only:
 *
 *   OWNED(id)		the process that made attempt @id, or booted with it, has the guest
 *   OFFERED(id)	attempt @id: the saved state that carries this id is valid
 *   RECALLED(id)	attempt @id was taken back; only its own way back may use the state
 *
 * An id is 62 random bits, drawn for each attempt and never used again.  A state that is late, of an
 * attempt that was called back or that somebody else has used, names an id that the word no longer
 * offers, so the exchange fails: check and mark are one step, whoever wakes up when.
 *
 *   offer	OWNED(mine) -> OFFERED(fresh)		before the state is saved
 *   recall	OFFERED(a) -> OWNED(mine)		before the guest goes on where it was
 *   take	OFFERED(a) -> OWNED(a)			before the guest goes on in the new one
 *   word_recall OFFERED(a) -> RECALLED(a)		an exec's guardian or crash handler; seize
 *   word_claim	RECALLED(a) -> RECALLED(c)		a guardian, before it kills who may take back
 *   take_back	RECALLED(a), OFFERED(a) -> OWNED(fresh)	before an old program runs it again
 *
 * The guest runs only after a recall, take or take_back that succeeded, or where it was booted.
 *
 * The lock beside it (F_OFD_SETLK on the memfd) says whether the process that may make the next
 * exchange lives: who holds it may recall, who wants to take has to get it first.  Each process locks
 * through an open file description of its own, made by opening /proc/self/fd/N, and the kernel
 * unlocks for one that dies.  A successor therefore takes the guest when its predecessor has let go
 * of the lock (the commit) or has died, and not from one that lives.  One that got the lock and stands
 * before its exchange loses the attempt to the word, and the guest goes on with a new page.  Over an
 * exec the locked description itself survives, under the name "cpr/owner-lock": old program, new
 * program, guardian and crash handler share it, and the word alone decides between them.
 *
 * Happy path of a transfer: old offers, saves, sends the state, unlocks (the commit), says go; new
 * locks, takes, runs.  Unhappy paths: docs/live-update.md, section 5; tests/model goes through all.
 *
 * Context: main thread; owner_word_recall() and owner_word_taken() anywhere, also in signal handlers.
 */

/** enum owner_state - The low two bits of the word; see above */
enum owner_state { OWNER_OWNED = 1, OWNER_OFFERED = 2, OWNER_RECALLED = 3 };

/** enum owner_verdict - What owner_reclaim() found */
enum owner_verdict {
	OWNER_OURS,	 /* locked again, and nobody ran the guest: go on */
	OWNER_ELSEWHERE, /* another process holds the lock */
	OWNER_GONE,	 /* another process took the guest and is no more: its state is lost */
};

struct owner;

/** owner_new() - A new guest's page, locked and owned; registered in @fds as "cpr/owner". */
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

/** owner_stays() - Whether the guest cannot go to another process: /proc was missing at the start. */
bool owner_stays(const struct owner *owner);

/** owner_held() - Whether this process holds the lock. */
bool owner_held(const struct owner *owner);

/** owner_generation() - How often the guest changed hands, as this process knows; for records. */
uint64_t owner_generation(const struct owner *owner);

/**
 * owner_offer() - From now on the state that carries @attempt is valid
 * @attempt:	Of owner_id_new(), drawn before the guest stands still, and offered once
 * Return: false with @error set if the guest is not ours to offer.
 */
bool owner_offer(struct owner *owner, uint64_t attempt, GError **error);

/**
 * owner_recall() - Take @attempt back, before the guest goes on here; the lock is held
 *
 * Also where a guardian has recalled it already.
 * Return: false if somebody took it: the guest must not go on here.  True also when it is ours.
 */
bool owner_recall(struct owner *owner, uint64_t attempt);

/** owner_release() - Unlock: the commit of an owner. */
void owner_release(struct owner *owner);

/** owner_reclaim() - After owner_release(): try to lock, and to take @attempt back. */
enum owner_verdict owner_reclaim(struct owner *owner, uint64_t attempt);

/**
 * owner_seize() - After owner_release(): take @attempt back from who holds the lock and stands
 *
 * The word is recalled without the lock: whoever holds that finds its exchange refused when it goes on,
 * and gives up.  As its lock would be in the way of later attempts, the guest gets a new page.
 * Return: OWNER_OURS, or OWNER_ELSEWHERE with @error set: it took the guest, or there is no new page
 * to be had; nothing has changed.
 */
enum owner_verdict owner_seize(struct owner *owner, uint64_t attempt, GError **error);

/**
 * owner_take() - A successor: the guest of @attempt becomes this process's, or nothing changes
 *
 * Return: false with @error set.  MOLT_ERROR_TIMEOUT: another process holds the lock, and the attempt
 * stands.  MOLT_ERROR_REFUSED: the attempt was called back or used; for good.  The lock is held
 * afterwards if it was before or the guest is ours.
 */
bool owner_take(struct owner *owner, uint64_t attempt, GError **error);

/**
 * owner_take_back() - An old program that came back by exec: the guest of @attempt is its own again
 * Return: false with @error set if the new program took it.
 */
bool owner_take_back(struct owner *owner, uint64_t attempt, GError **error);

/** owner_id_new() - An id that nobody has had or will have, for an offer or a claim; 0 with @error set. */
uint64_t owner_id_new(GError **error);

/** owner_add_lock() - Put the locked description into @store, for an exec. */
bool owner_add_lock(struct owner *owner, struct fdstore *store, GError **error);

/** owner_word() - The word, mapped until owner_free(); and over an exec in what a guardian keeps. */
_Atomic uint64_t *owner_word(struct owner *owner);

/** owner_word_of() - The word for @id in @state. */
static inline uint64_t owner_word_of(uint64_t id, enum owner_state state)
{
	return id << 2 | state;
}

/**
 * owner_word_recall() - Take @attempt back for its way back
 * Return: whether this call or an earlier one recalled it; false: it was taken.
 */
static inline bool owner_word_recall(_Atomic uint64_t *word, uint64_t attempt)
{
	const uint64_t recalled = owner_word_of(attempt, OWNER_RECALLED);
	uint64_t seen = owner_word_of(attempt, OWNER_OFFERED);

	return atomic_compare_exchange_strong(word, &seen, recalled) || seen == recalled;
}

/**
 * owner_word_claim() - A guardian that recalled @attempt: from now on the way back is @claim's alone
 *
 * Before it kills a program that may be taking the guest back at that moment.
 * Return: false if that program was sooner: it has the guest.
 */
static inline bool owner_word_claim(_Atomic uint64_t *word, uint64_t attempt, uint64_t claim)
{
	uint64_t seen = owner_word_of(attempt, OWNER_RECALLED);

	return atomic_compare_exchange_strong(word, &seen, owner_word_of(claim, OWNER_RECALLED));
}

/** owner_word_used() - Whether a successor has taken @attempt, wherever the guest is by now. */
static inline bool owner_word_used(const _Atomic uint64_t *word, uint64_t attempt)
{
	const uint64_t seen = atomic_load((_Atomic uint64_t *)word);

	return seen != owner_word_of(attempt, OWNER_OFFERED) &&
	       seen != owner_word_of(attempt, OWNER_RECALLED);
}

/** owner_word_taken() - Whether a successor has taken @attempt, and still has the guest. */
static inline bool owner_word_taken(const _Atomic uint64_t *word, uint64_t attempt)
{
	return atomic_load((_Atomic uint64_t *)word) == owner_word_of(attempt, OWNER_OWNED);
}
