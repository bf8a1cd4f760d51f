// Another size for an image, on a thread: its store may not answer.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/resize.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block/lock.h"
#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/job.h"
#include "base/stuck.h"

/**
 * struct block_resize - One; the thread's until @done
 * @lock, @cond, @done: by which it is waited for
 * @late, @opaque: See block_resize_wait(); the main thread's
 * @orphan:	The descriptor, once it is nobody else's; -1 before
 */
struct block_resize {
	struct block_resize_what what;
	char *filename;
	uint64_t end_bytes;
	GError *error;
	GMutex lock;
	GCond cond;
	bool done;
	block_resize_late_fn late;
	void *opaque;
	int orphan;
};

static void resize_free(struct block_resize *resize)
{
	g_clear_error(&resize->error);
	g_mutex_clear(&resize->lock);
	g_cond_clear(&resize->cond);
	g_free(resize->filename);
	g_free(resize);
}

/* ---- the thread ---- */

/* Others may have a say in the size: QEMU holds and shares this permission for as long as it resizes. */
static bool lock_size(const struct block_resize_what *what, GError **error)
{
	int err = what->locks ? block_lock(what->fd, what->held | BLOCK_PERM_RESIZE, what->shared)
			      : 0;

	if (err == EAGAIN)
		error_set_generic(error,
				  "'%s': another process uses the image and relies on its size",
				  what->filename);
	return err != EAGAIN;
}

static void unlock_size(const struct block_resize_what *what)
{
	if (what->locks)
		(void)block_lock(what->fd, what->held, what->shared);
}

static int measure(const struct block_resize_what *what, uint64_t *end_bytes)
{
	struct stat st;

	if (what->is_device)
		return ioctl(what->fd, BLKGETSIZE64, end_bytes);
	if (fstat(what->fd, &st) < 0)
		return -1;
	*end_bytes = st.st_size;
	return 0;
}

static bool change_size(const struct block_resize_what *what, uint64_t *end_bytes, GError **error)
{
	if (!what->is_device && TEMP_FAILURE_RETRY(ftruncate(what->fd, what->size_bytes)) < 0)
		return error_set_errno(error, errno, "cannot make '%s' %" PRIu64 " bytes long",
				       what->filename, what->size_bytes);
	if (measure(what, end_bytes) < 0)
		return error_set_errno(error, errno, "cannot measure '%s'", what->filename);
	if (what->is_device && *end_bytes < what->size_bytes)
		return error_set_generic(error,
					 "'%s' has %" PRIu64
					 " bytes, and a device does not grow by "
					 "itself; extend it first",
					 what->filename, *end_bytes);
	return true;
}

static void job_resize(void *opaque)
{
	struct block_resize *resize = opaque;
	int call = stuck_begin(resize->filename);

	(void)(lock_size(&resize->what, &resize->error) &&
	       change_size(&resize->what, &resize->end_bytes, &resize->error));
	unlock_size(&resize->what);
	g_mutex_lock(&resize->lock);
	resize->done = true;
	g_cond_signal(&resize->cond);
	g_mutex_unlock(&resize->lock);
	stuck_end(call);
}

/* ---- main thread ---- */

static void resize_ended(void *opaque)
{
	struct block_resize *resize = opaque;

	if (resize->late)
		resize->late(resize->opaque, resize->end_bytes, resize->error);
	close_soon(&resize->orphan);
	resize_free(resize);
}

struct block_resize *block_resize_start(const struct block_resize_what *what, GError **error)
{
	struct block_resize *resize = g_new0(struct block_resize, 1);

	g_mutex_init(&resize->lock);
	g_cond_init(&resize->cond);
	resize->filename = g_strdup(what->filename);
	resize->what = *what;
	resize->what.filename = resize->filename;
	resize->orphan = -1;
	if (job_start("resize", job_resize, resize_ended, resize, error))
		return resize;
	resize_free(resize);
	return NULL;
}

bool block_resize_wait(struct block_resize *resize, uint32_t ms, block_resize_late_fn late,
		       void *opaque)
{
	const int64_t end_usecs = g_get_monotonic_time() + ms * (int64_t)1000;
	bool done;

	g_mutex_lock(&resize->lock);
	while (!resize->done && g_cond_wait_until(&resize->cond, &resize->lock, end_usecs))
		;
	done = resize->done;
	g_mutex_unlock(&resize->lock);
	resize->late = done ? NULL : late;
	resize->opaque = opaque;
	return done;
}

bool block_resize_take(struct block_resize *resize, uint64_t *end_bytes, GError **error)
{
	*end_bytes = resize->end_bytes;
	if (!resize->error)
		return true;
	g_propagate_error(error, g_steal_pointer(&resize->error));
	return false;
}

void block_resize_forget(struct block_resize *resize, int *fd)
{
	if (!resize)
		return;
	resize->late = NULL;
	resize->orphan = fd_steal(fd);
}
