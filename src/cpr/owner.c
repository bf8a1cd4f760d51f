// Ownership of a guest: a lock on a descriptor that both processes can name, and a counter beside
// it. SPDX-License-Identifier: Apache-2.0
#include "cpr/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"

#define OWNER_NAME	"cpr/owner"
#define OWNER_LOCK_NAME "cpr/owner-lock"
#define OWNER_BYTES	4096
#define OWNER_MAGIC	0x72656e776f746c6dULL /* "mltowner" */
#define OWNER_SEALS	(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/**
 * struct owner_page - What lies in the memfd; the layout never changes
 * @magic:	OWNER_MAGIC
 * @generation:	See the theory of operation
 * @offered:	See the theory of operation
 */
struct owner_page {
	uint64_t magic;
	_Atomic uint64_t generation;
	_Atomic uint64_t offered;
};

/**
 * struct owner - This process's view of the page
 * @fds:	Where @handle is registered
 * @handle:	The memfd, never locked itself; what crosses
 * @lock:	This process's own description of it
 * @page:	Mapped
 * @held:	Whether @lock is locked
 * @generation:	The one this process owns, or its predecessor does
 */
struct owner {
	struct fd_source *fds;
	int handle;
	int lock;
	struct owner_page *page;
	bool held;
	uint64_t generation;
};

/* Return: 0 or an errno. */
static int lock_set(int fd, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? errno : 0;
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
	autofd int fd = memfd_create("molt-owner", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, OWNER_BYTES) < 0 || fcntl(fd, F_ADD_SEALS, OWNER_SEALS) < 0) {
		error_set_errno(error, errno, "cannot make the owner page");
		return -1;
	}
	return fd_steal(&fd);
}

struct owner *owner_new(struct fd_source *fds, GError **error)
{
	autoptr(owner) owner = owner_alloc(fds);
	int err;

	owner->handle = fd_acquire(fds, OWNER_NAME, FD_OWNER, owner_create, NULL, error);
	if (owner->handle < 0 || !owner_reopen(owner, error) || !owner_map(owner, error))
		return NULL;
	err = lock_set(owner->lock, F_WRLCK);
	if (err) {
		error_set_errno(error, err, "cannot lock the owner page");
		return NULL;
	}
	owner->held = true;
	owner->generation = 1;
	owner->page->magic = OWNER_MAGIC;
	atomic_store(&owner->page->generation, 1);
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
	owner->held = lock_set(owner->lock, F_WRLCK) == 0;
	if (!owner->held) {
		error_set_generic(error, "another process owns this guest");
		return NULL;
	}
	return g_steal_pointer(&owner);
}

bool owner_held(const struct owner *owner)
{
	return owner->held;
}

uint64_t owner_generation(const struct owner *owner)
{
	return owner->generation;
}

uint64_t owner_offer(struct owner *owner)
{
	atomic_store(&owner->page->offered, owner->generation + 1);
	return owner->generation + 1;
}

void owner_revoke(struct owner *owner)
{
	atomic_store(&owner->page->offered, 0);
}

void owner_release(struct owner *owner)
{
	/* Unlocking what one has locked cannot fail. */
	(void)lock_set(owner->lock, F_UNLCK);
	owner->held = false;
}

bool owner_moved(const struct owner *owner)
{
	return atomic_load(&owner->page->generation) != owner->generation;
}

enum owner_verdict owner_reclaim(struct owner *owner)
{
	if (lock_set(owner->lock, F_WRLCK) != 0)
		return OWNER_ELSEWHERE;
	if (owner_moved(owner)) {
		(void)lock_set(owner->lock, F_UNLCK);
		return OWNER_GONE;
	}
	owner_revoke(owner);
	owner->held = true;
	return OWNER_OURS;
}

bool owner_lock(struct owner *owner, uint64_t offered, GError **error)
{
	int err = lock_set(owner->lock, F_WRLCK);

	if (err)
		return error_set_errno(error, err, "the predecessor still owns the guest");
	owner->held = true;
	if (atomic_load(&owner->page->offered) != offered) {
		owner_release(owner);
		return error_set_generic(error, "the predecessor called the state back");
	}
	return true;
}

void owner_mark(struct owner *owner, uint64_t offered)
{
	owner->generation = offered;
	atomic_store(&owner->page->generation, offered);
	atomic_store(&owner->page->offered, 0);
}

bool owner_add_lock(struct owner *owner, struct fdstore *store, GError **error)
{
	return fdstore_add(store, OWNER_LOCK_NAME, FD_OWNER, owner->lock, error);
}
