// Paths that a process has: sockets and files that others find it by, and that a successor takes over.
// SPDX-License-Identifier: Apache-2.0
#include "state/fd_paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

/**
 * struct fd_path - One path
 * @made:	The owner's
 * @asked:	The path that the owner asked for, where that is not @made's: a link led from there; or NULL
 * @wanted:	A claim: the path that it will have; NULL when it has it
 * @beside:	A claim: where it lies until then
 * @lies:	What was made there
 */
struct fd_path {
	struct file_made *made;
	char *asked;
	char *wanted;
	char *beside;
	struct file_made lies;
};

static void fd_path_free(void *opaque)
{
	struct fd_path *path = opaque;

	file_unmake(&path->lies);
	g_free(path->asked);
	g_free(path->wanted);
	g_free(path->beside);
	g_free(path);
}

static struct fd_path *add(struct fd_source *src, struct file_made *made)
{
	struct fd_path *path = g_new0(struct fd_path, 1);

	if (!src->paths)
		src->paths = g_ptr_array_new_with_free_func(fd_path_free);
	path->made = made;
	g_ptr_array_add(src->paths, path);
	return path;
}

void fd_path_add(struct fd_source *src, struct file_made *made)
{
	if (src && made->path)
		add(src, made);
}

/* Under the name that was asked for; a file, of which the kernel knows the inode, under any. */
static const struct file_made *find_left(const struct fd_source *src, const char *asked, int fd)
{
	const struct file_made *left = g_hash_table_lookup(src->left, asked);
	GHashTableIter iter;
	struct statx st;
	void *value;

	if (left || fd < 0 || !fd_look(fd, STATX_INO, &st))
		return left;
	g_hash_table_iter_init(&iter, src->left);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		left = value;
		if (left->ino == st.stx_ino &&
		    left->dev == makedev(st.stx_dev_major, st.stx_dev_minor))
			return left;
	}
	return NULL;
}

void fd_path_inherit(struct fd_source *src, const char *path, int fd, struct file_made *made)
{
	g_autofree char *asked = file_absolute(path);
	const struct file_made *left = src && src->left ? find_left(src, asked, fd) : NULL;
	struct fd_path *inherited;

	file_made_clear(made);
	if (left) {
		*made = *left;
		made->path = g_strdup(left->path);
		inherited = add(src, made);
		if (strcmp(asked, made->path) != 0)
			inherited->asked = g_steal_pointer(&asked);
	} else if (!src || !src->left) {
		file_made_adopt(made, path, fd);
		fd_path_add(src, made);
	}
}

void fd_path_forget(struct fd_source *src, const struct file_made *made)
{
	for (guint i = 0; src && src->paths && i < src->paths->len; i++) {
		const struct fd_path *path = src->paths->pdata[i];

		if (path->made == made)
			g_ptr_array_remove_index(src->paths, i--);
	}
}

bool fd_paths_claiming(const struct fd_source *src)
{
	return src && src->claiming;
}

/* ---- claims ---- */

/* What lies at the end of @path's links, so that a rename replaces that; the path itself if nothing. */
static char *real_path(const char *path)
{
	char *found = realpath(path, NULL);
	char *own = found ? g_strdup(found) : file_canonical(path);

	free(found);
	return own;
}

/* A claim of @path.  Where it shall lie until it is taken is a name that nobody else comes upon: process
 * ids are no such thing, each container has its own. */
static struct fd_path *claim(struct fd_source *src, const char *path, struct file_made *made)
{
	struct fd_path *claim = add(src, made);
	g_autofree char *name = g_uuid_string_random();
	g_autofree char *dir = NULL;

	claim->asked = file_absolute(path);
	claim->wanted = real_path(path);
	dir = g_path_get_dirname(claim->wanted);
	claim->beside = g_strdup_printf("%s/.molt-%s", dir, name);
	return claim;
}

/* What was made for @claim is there, as @fd; -1: it was not made, and the claim goes. */
static int claimed_as(struct fd_source *src, struct fd_path *claim, int fd)
{
	if (fd < 0)
		fd_path_forget(src, claim->made);
	else
		file_made_adopt(&claim->lies, claim->beside, -1);
	return fd;
}

/* The name may be longer than a socket's address: reached by its directory. */
static int bind_beside(const char *beside, GError **error)
{
	g_autofree char *dir = g_path_get_dirname(beside);
	g_autofree char *name = g_path_get_basename(beside);
	g_autofree char *brief = NULL;
	autofd int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir_fd < 0) {
		error_set_errno(error, errno, "'%s'", dir);
		return -1;
	}
	brief = g_strdup_printf("/proc/self/fd/%d/%s", dir_fd, name);
	return file_make_socket(brief, false, NULL, error);
}

static bool is_socket(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

int fd_path_make_socket(struct fd_source *src, const char *path, bool replace,
			struct file_made *made, bool *claimed, GError **error)
{
	const bool may_claim = fd_paths_claiming(src);
	g_autoptr(GError) local = NULL;
	int fd = file_make_socket(path, replace && !may_claim, made, &local);
	struct fd_path *own;

	*claimed = fd < 0 && may_claim && is_socket(path);
	if (fd >= 0) {
		fd_path_add(src, made);
		return fd;
	}
	if (!*claimed) {
		g_propagate_error(error, g_steal_pointer(&local));
		return -1;
	}
	own = claim(src, path, made);
	return claimed_as(src, own, bind_beside(own->beside, error));
}

int fd_path_claim_file(struct fd_source *src, const char *path, struct file_made *made,
		       GError **error)
{
	struct fd_path *own = claim(src, path, made);

	return claimed_as(src, own, file_make(own->beside, FILE_READ, NULL, error));
}

/* ---- over an execve() ---- */

json_t *fd_paths_describe(const struct fd_source *src)
{
	json_t *list = json_array();

	for (guint i = 0; src->paths && i < src->paths->len; i++) {
		const struct fd_path *path = src->paths->pdata[i];
		const struct file_made *made = path->made;
		json_t *entry = NULL;

		if (made->path)
			entry = json_pack("{s:s, s:s, s:I, s:I, s:I}", "path", made->path, "asked",
					  path->asked ? path->asked : made->path, "dev",
					  (json_int_t)made->dev, "ino", (json_int_t)made->ino,
					  "born-ns", (json_int_t)made->born_ns);
		/* One that is not UTF-8 cannot be told, and stays behind at the end. */
		if (entry)
			(void)json_array_append_new(list, entry);
	}
	return list;
}

static void made_free(void *opaque)
{
	struct file_made *made = opaque;

	file_made_clear(made);
	g_free(made);
}

void fd_paths_inherit(struct fd_source *src, const json_t *list)
{
	const json_t *entry;
	size_t i;

	g_clear_pointer(&src->left, g_hash_table_unref);
	if (!json_is_array(list))
		return;
	src->left = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, made_free);
	json_array_foreach(list, i, entry)
	{
		const char *path = json_string_value(json_object_get(entry, "path"));
		const char *asked = json_string_value(json_object_get(entry, "asked"));
		struct file_made *made;

		if (!path)
			continue;
		made = g_new(struct file_made, 1);
		*made = (struct file_made){
			.path = g_strdup(path),
			.dev = json_integer_value(json_object_get(entry, "dev")),
			.ino = json_integer_value(json_object_get(entry, "ino")),
			.born_ns = json_integer_value(json_object_get(entry, "born-ns"))};
		/* Programs before "asked" was said made no difference. */
		g_hash_table_replace(src->left, g_strdup(asked ? asked : path), made);
	}
}

/* ---- an update ---- */

json_t *fd_paths_json(const struct fd_source *src)
{
	json_t *list = json_array();

	for (guint i = 0; src->paths && i < src->paths->len; i++) {
		const struct fd_path *path = src->paths->pdata[i];
		g_autofree char *text = path->made->path ? real_path(path->made->path) : NULL;

		/* What is not UTF-8 cannot be told; who claims it is refused. */
		if (text)
			(void)json_array_append_new(list, json_string(text));
	}
	return list;
}

static bool lists(const json_t *list, const char *path)
{
	const json_t *entry;
	size_t i;

	/* clang-format off */
	json_array_foreach(list, i, entry)
		if (g_strcmp0(json_string_value(entry), path) == 0)
			return true;
	/* clang-format on */
	return false;
}

bool fd_paths_check(const struct fd_source *src, const json_t *theirs, GError **error)
{
	g_autoptr(GString) out = g_string_new(NULL);

	for (guint i = 0; src->paths && i < src->paths->len; i++) {
		const struct fd_path *path = src->paths->pdata[i];

		if (path->wanted && !lists(theirs, path->wanted))
			g_string_append_printf(out, "%s'%s' is in use, and not by the old process",
					       out->len ? "\n" : "", path->wanted);
	}
	return out->len == 0 || error_set(error, MOLT_ERROR_REFUSED, "%s", out->str);
}

static void take(struct fd_path *path)
{
	if (!file_made_is_there(&path->lies)) {
		log_error("cannot take over '%s': what was made for it is not there any more",
			  path->wanted);
		return;
	}
	if (rename(path->beside, path->wanted) < 0) {
		log_error("cannot take over '%s': %s", path->wanted, g_strerror(errno));
		return;
	}
	g_clear_pointer(&path->beside, g_free);
	file_made_clear(&path->lies);
	file_made_adopt(path->made, path->wanted, -1);
	g_clear_pointer(&path->wanted, g_free);
}

void fd_paths_take(struct fd_source *src)
{
	src->claiming = false;
	for (guint i = 0; src->paths && i < src->paths->len; i++) {
		struct fd_path *path = src->paths->pdata[i];

		if (path->wanted)
			take(path);
	}
}
