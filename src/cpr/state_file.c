// The state file of an exec: reserved before the guest is stopped, written once it has run again.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/job.h"
#include "base/log.h"
#include "base/stuck.h"

/**
 * struct state_file - One file; while a job runs it is the job's
 * @size_bytes:	Room to be reserved
 * @old_bytes:	How long a file was that was there before
 * @made:	A file that was not
 * @inherited_made: Its path, where the program before this one made it
 * @state:	What to write
 * @job:	Which works on it; NULL: none
 * @error:	The job's
 */
struct state_file {
	char *path;
	uint64_t offset;
	uint64_t size_bytes;
	uint64_t old_bytes;
	int fd;
	struct file_made made;
	char *inherited_made;
	GBytes *state;
	struct job *job;
	GError *error;
	state_file_fn done;
	void *opaque;
};

static void state_file_free(void *opaque)
{
	struct state_file *file = opaque;

	close_soon(&file->fd);
	file_made_clear(&file->made);
	g_clear_pointer(&file->state, g_bytes_unref);
	g_clear_error(&file->error);
	g_free(file->inherited_made);
	g_free(file->path);
	g_free(file);
}

/* ---- jobs: on a thread ---- */

/* A job that is given up counts as well, until its thread is back. */
static int stuck_at(const struct state_file *file)
{
	g_autofree char *what = g_strdup_printf("state file %s", file->path);

	return stuck_begin(what);
}

static bool reserve(struct state_file *file, GError **error)
{
	struct stat st;
	int err;

	/* Also for reading: posix_fallocate() reads where the file system has no better way. */
	file->fd = file_make(file->path, FILE_READ | FILE_UNLOCKED, &file->made, error);
	if (file->fd < 0)
		return false;
	if (fstat(file->fd, &st) < 0)
		return error_set_errno(error, errno, "'%s'", file->path);
	file->old_bytes = st.st_size;
	err = posix_fallocate(file->fd, file->offset, file->size_bytes);
	/* Not every file system can. */
	return err == 0 || err == EOPNOTSUPP || err == EINVAL ||
	       error_set_errno(error, err, "'%s': room for %" PRIu64 " bytes", file->path,
			       file->size_bytes);
}

static void job_reserve(void *opaque)
{
	struct state_file *file = opaque;
	int call = stuck_at(file);

	(void)reserve(file, &file->error);
	stuck_end(call);
}

static void job_discard(void *opaque)
{
	struct state_file *file = opaque;
	int call = stuck_at(file);
	int ignored = 0;

	if (file->inherited_made)
		file_made_adopt(&file->made, file->inherited_made, file->fd);
	if (file->fd >= 0 && !file->made.path)
		ignored = ftruncate(file->fd, file->old_bytes);
	(void)ignored;
	file_unmake(&file->made);
	/* To close it may wait too. */
	fd_close(&file->fd);
	stuck_end(call);
}

static bool write_all(const struct state_file *file, GError **error)
{
	gsize len;
	const uint8_t *data = g_bytes_get_data(file->state, &len);

	for (gsize at = 0; at < len;) {
		ssize_t n = pwrite(file->fd, data + at, len - at, file->offset + at);

		if (n < 0 && errno != EINTR)
			return error_set_errno(error, errno, "'%s'", file->path);
		at += n > 0 ? n : 0;
	}
	return ftruncate(file->fd, file->offset + len) == 0 ||
	       error_set_errno(error, errno, "'%s'", file->path);
}

static void job_write(void *opaque)
{
	struct state_file *file = opaque;
	int call = stuck_at(file);

	(void)write_all(file, &file->error);
	fd_close(&file->fd);
	stuck_end(call);
}

/* ---- main thread ---- */

static void discard_now(void *opaque)
{
	job_insist("state file", job_discard, state_file_free, opaque);
}

void state_file_discard(struct state_file *file)
{
	if (!file)
		return;
	if (file->job)
		job_abandon(g_steal_pointer(&file->job), discard_now);
	else
		discard_now(file);
}

static void reserved(void *opaque)
{
	struct state_file *file = opaque;
	g_autoptr(GError) error = g_steal_pointer(&file->error);

	file->job = NULL;
	file->done(file->opaque, error);
}

struct state_file *state_file_reserve(const struct migration_address *address, uint64_t size_bytes,
				      state_file_fn done, void *opaque, GError **error)
{
	struct state_file *file = g_new0(struct state_file, 1);

	file->path = g_strdup(address->path);
	file->offset = address->offset;
	file->size_bytes = size_bytes;
	file->fd = -1;
	file->done = done;
	file->opaque = opaque;
	file->job = job_start("state file", job_reserve, reserved, file, error);
	if (file->job)
		return file;
	state_file_free(file);
	return NULL;
}

int state_file_fd(const struct state_file *file)
{
	return file->fd;
}

json_t *state_file_describe(const struct state_file *file)
{
	return json_pack("{s:s, s:I, s:I, s:s?}", "path", file->path, "offset",
			 (json_int_t)file->offset, "old-size", (json_int_t)file->old_bytes, "made",
			 file->made.path);
}

struct state_file *state_file_inherit(const json_t *json, int fd)
{
	const char *path = json_string_value(json_object_get(json, "path"));
	struct state_file *file;

	if (!path || fd < 0)
		return NULL;
	file = g_new0(struct state_file, 1);
	file->path = g_strdup(path);
	file->offset = json_integer_value(json_object_get(json, "offset"));
	file->old_bytes = json_integer_value(json_object_get(json, "old-size"));
	file->fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (file->fd < 0)
		log_warn("'%s' will not be written: %s", path, g_strerror(errno));
	file->inherited_made = g_strdup(json_string_value(json_object_get(json, "made")));
	return file;
}

static void written(void *opaque)
{
	struct state_file *file = opaque;

	file->done(file->opaque, file->error);
	state_file_free(file);
}

void state_file_write(struct state_file *file, GBytes *state, state_file_fn done, void *opaque)
{
	file->state = g_bytes_ref(state);
	file->done = done;
	file->opaque = opaque;
	job_insist("state file", job_write, written, file);
}
