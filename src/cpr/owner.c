// Ownership of a guest: one word that decides who may run it next, and a lock that says who lives.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"

#define OWNER_NAME	"cpr/owner"
#define OWNER_LOCK_NAME "cpr/owner-lock"
#define OWNER_BYTES	4096
#define OWNER_MAGIC	0x64726f776f746c6dULL /* "mltoword" */
#define OWNER_SEALS	(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/**
 * struct owner_page - What lies in the memfd; the layout never changes
 * @magic:	OWNER_MAGIC
 * @generation:	How often the guest changed hands; raised after the exchange, for records
 * @word:	See the theory of operation
 */
struct owner_page {
	uint64_t magic;
	_Atomic uint64_t generation;
	_Atomic uint64_t word;
};

/**
 * struct owner - This process's view of the page
 * @fds:	Where @handle is registered
 * @handle:	The memfd, never locked itself; what crosses
 * @lock:	This process's own description of it
 * @page:	Mapped
 * @stays:	There was no /proc to open the memfd again by: @lock is @handle's own description, which a
 *		successor would share, so the guest stays in this process
 * @held:	Whether @lock is locked
 * @id:		The one this process has the guest by; 0 if it never had it
 * @generation:	The one this process owns, or its predecessor does
 */
struct owner {
	struct fd_source *fds;
	int handle;
	int lock;
	struct owner_page *page;
	bool stays;
	bool held;
	uint64_t id;
	uint64_t generation;
};

uint64_t owner_id_new(GError **error)
{
	uint64_t id = 0;

	while ((id >>= 2) == 0) {
		if (getrandom(&id, sizeof(id), 0) == sizeof(id) || errno == EINTR)
			continue;
		error_set_errno(error, errno, "cannot get random numbers");
		return 0;
	}
	return id;
}

static bool exchange(struct owner *owner, uint64_t from, enum owner_state from_state, uint64_t to,
		     enum owner_state to_state)
{
	uint64_t seen = owner_word_of(from, from_state);

	return atomic_compare_exchange_strong(&owner->page->word, &seen,
					      owner_word_of(to, to_state));
}

/* The guest is this process's by @id, and has changed hands. */
static void arrived(struct owner *owner, uint64_t id)
{
	owner->id = id;
	owner->generation = atomic_fetch_add(&owner->page->generation, 1) + 1;
}

static struct owner *owner_alloc(struct fd_source *fds)
{
	struct owner *owner = g_new0(struct owner, 1);

	owner->fds = fds;
	owner->handle = -1;
	owner->lock = -1;
	return owner;
}

void owner_free(struct owner *owner)
{
	if (!owner)
		return;
	fd_withdraw(owner->fds, OWNER_NAME);
	if (owner->page)
		munmap(owner->page, OWNER_BYTES);
	fd_close(&owner->lock);
	fd_close(&owner->handle);
	g_free(owner);
}

/* A description of our own, so that our lock and another process's exclude each other. */
static bool owner_reopen(struct owner *owner, GError **error)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", owner->handle);

	owner->lock = open(path, O_RDWR | O_CLOEXEC);
	if (owner->lock < 0)
		return error_set_errno(error, errno,
				       "cannot open the owner page again (is /proc mounted?)");
	return true;
}

static bool owner_map(struct owner *owner, GError **error)
{
	void *addr = mmap(NULL, OWNER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, owner->handle, 0);

	if (addr == MAP_FAILED)
		return error_set_errno(error, errno, "cannot map the owner page");
	owner->page = addr;
	return true;
}

static int owner_create(void *arg, GError **error)
{
	autofd int fd = file_make_memfd("molt-owner", 0);

	if (fd < 0 || ftruncate(fd, OWNER_BYTES) < 0 || fcntl(fd, F_ADD_SEALS, OWNER_SEALS) < 0) {
		error_set_errno(error, errno, "cannot make the owner page");
		return -1;
	}
	return fd_steal(&fd);
}

/* Map and lock what @owner->handle is, and begin it as a page of @owner->id. */
static bool owner_begin(struct owner *owner, GError **error)
{
	int err;

	if (!owner_map(owner, error))
		return false;
	owner->stays = !owner_reopen(owner, NULL);
	if (owner->stays)
		owner->lock = fcntl(owner->handle, F_DUPFD_CLOEXEC, 3);
	err = fd_lock(owner->lock, F_WRLCK);
	if (err)
		return error_set_errno(error, err, "cannot lock the owner page");
	owner->held = true;
	owner->page->magic = OWNER_MAGIC;
	atomic_store(&owner->page->generation, owner->generation);
	atomic_store(&owner->page->word, owner_word_of(owner->id, OWNER_OWNED));
	return true;
}

struct owner *owner_new(struct fd_source *fds, GError **error)
{
	autoptr(owner) owner = owner_alloc(fds);

	owner->generation = 1;
	owner->id = owner_id_new(error);
	if (!owner->id)
		return NULL;
	owner->handle = fd_acquire(fds, OWNER_NAME, FD_OWNER, owner_create, NULL, error);
	if (owner->handle < 0 || !owner_begin(owner, error))
		return NULL;
	return g_steal_pointer(&owner);
}

static bool owner_check(struct owner *owner, GError **error)
{
	struct stat st;

	if (fstat(owner->handle, &st) < 0 || st.st_size != OWNER_BYTES ||
	    (fcntl(owner->handle, F_GET_SEALS) & OWNER_SEALS) != OWNER_SEALS)
		return error_set_generic(error, "the predecessor's '%s' is not an owner page",
					 OWNER_NAME);
	if (!owner_map(owner, error))
		return false;
	if (owner->page->magic != OWNER_MAGIC)
		return error_set_generic(error, "the predecessor's '%s' is not an owner page",
					 OWNER_NAME);
	owner->generation = atomic_load(&owner->page->generation);
	return true;
}

struct owner *owner_inherit(struct fd_source *fds, GError **error)
{
	autoptr(owner) owner = owner_alloc(fds);

	if (!fds->inherited || !fdstore_find(fds->inherited, OWNER_NAME)) {
		error_set_generic(error, "the predecessor handed over no '%s'", OWNER_NAME);
		return NULL;
	}
	owner->handle = fd_inherit(fds, OWNER_NAME, FD_OWNER, error);
	if (owner->handle < 0 || !owner_check(owner, error))
		return NULL;
	if (!fdstore_find(fds->inherited, OWNER_LOCK_NAME)) {
		if (!owner_reopen(owner, error))
			return NULL;
		return g_steal_pointer(&owner);
	}
	owner->lock = fdstore_take(fds->inherited, OWNER_LOCK_NAME, FD_OWNER, error);
	if (owner->lock < 0)
		return NULL;
	/* Locking what this description has locked already changes nothing. */
	owner->held = fd_lock(owner->lock, F_WRLCK) == 0;
	if (!owner->held) {
		error_set_generic(error, "another process owns this guest");
		return NULL;
	}
	return g_steal_pointer(&owner);
}

bool owner_stays(const struct owner *owner)
{
	return owner->stays;
}

bool owner_held(const struct owner *owner)
{
	return owner->held;
}

uint64_t owner_generation(const struct owner *owner)
{
	return owner->generation;
}

_Atomic uint64_t *owner_word(struct owner *owner)
{
	return &owner->page->word;
}

/* ---- the side that has the guest ---- */

bool owner_offer(struct owner *owner, uint64_t attempt, GError **error)
{
	return (owner->held && exchange(owner, owner->id, OWNER_OWNED, attempt, OWNER_OFFERED)) ||
	       error_set_generic(error, "this process does not have the guest");
}

bool owner_recall(struct owner *owner, uint64_t attempt)
{
	if (!owner->held || !owner->id)
		return false;
	return exchange(owner, attempt, OWNER_OFFERED, owner->id, OWNER_OWNED) ||
	       exchange(owner, attempt, OWNER_RECALLED, owner->id, OWNER_OWNED) ||
	       owner_word_taken(&owner->page->word, owner->id);
}

void owner_release(struct owner *owner)
{
	/* Unlocking what one has locked cannot fail. */
	(void)fd_lock(owner->lock, F_UNLCK);
	owner->held = false;
}

enum owner_verdict owner_reclaim(struct owner *owner, uint64_t attempt)
{
	if (fd_lock(owner->lock, F_WRLCK) != 0)
		return OWNER_ELSEWHERE;
	owner->held = true;
	if (owner_recall(owner, attempt))
		return OWNER_OURS;
	owner_release(owner);
	return OWNER_GONE;
}

/* The other page is let go: what is mapped, open and locked of it, and its name. */
static void swap_pages(struct owner *owner, struct owner *other)
{
	const struct owner old = *owner;

	*owner = *other;
	other->handle = old.handle;
	other->lock = old.lock;
	other->page = old.page;
	owner->fds = old.fds;
	other->fds = NULL;
}

enum owner_verdict owner_seize(struct owner *owner, uint64_t attempt, GError **error)
{
	autoptr(owner) fresh = owner_alloc(NULL);

	fresh->id = owner->id;
	fresh->generation = owner->generation;
	fresh->handle = owner_create(NULL, error);
	if (fresh->handle < 0 || !owner_begin(fresh, error))
		return OWNER_ELSEWHERE;
	fd_withdraw(owner->fds, OWNER_NAME);
	if (owner_word_recall(&owner->page->word, attempt))
		swap_pages(owner, fresh);
	else
		error_set(error, MOLT_ERROR_REFUSED, "the new process took the guest");
	/* The name was withdrawn above, so this cannot fail. */
	(void)fd_publish(owner->fds, OWNER_NAME, FD_OWNER, owner->handle, NULL);
	return owner->held ? OWNER_OURS : OWNER_ELSEWHERE;
}

/* ---- the side that wants it ---- */

/* Why @attempt cannot be taken any more; an id that is not offered now never is again. */
static bool refuse(struct owner *owner, uint64_t attempt, GError **error)
{
	return error_set(error, MOLT_ERROR_REFUSED,
			 owner_word_taken(&owner->page->word, attempt)
				 ? "the state was used already"
				 : "the old process called the state back");
}

bool owner_take(struct owner *owner, uint64_t attempt, GError **error)
{
	const bool was_held = owner->held;
	int err;

	if (atomic_load(&owner->page->word) != owner_word_of(attempt, OWNER_OFFERED))
		return refuse(owner, attempt, error);
	err = was_held ? 0 : fd_lock(owner->lock, F_WRLCK);
	if (err)
		return error_set(error, MOLT_ERROR_TIMEOUT,
				 "the old process still has the guest: %s", g_strerror(err));
	owner->held = true;
	if (exchange(owner, attempt, OWNER_OFFERED, attempt, OWNER_OWNED)) {
		arrived(owner, attempt);
		return true;
	}
	if (!was_held)
		owner_release(owner);
	return refuse(owner, attempt, error);
}

bool owner_take_back(struct owner *owner, uint64_t attempt, GError **error)
{
	uint64_t id = owner_id_new(error);

	if (!id)
		return false;
	if (!owner->held || (!exchange(owner, attempt, OWNER_RECALLED, id, OWNER_OWNED) &&
			     !exchange(owner, attempt, OWNER_OFFERED, id, OWNER_OWNED)))
		return error_set(error, MOLT_ERROR_REFUSED, "the new program took the guest");
	arrived(owner, id);
	return true;
}

bool owner_add_lock(struct owner *owner, struct fdstore *store, GError **error)
{
	return fdstore_add(store, OWNER_LOCK_NAME, FD_OWNER, owner->lock, error);
}
