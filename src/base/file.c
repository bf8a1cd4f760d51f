// Files that molt makes: opened, made, bound and removed under one rule.
// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"

#define FILE_MODE 0600
/* As many symbolic links, and as many files that come and go under us, as the kernel follows. */
#define MAX_STEPS  40
#define COPY_BYTES (16U << 20)

/* ---- what was made ---- */

void file_made_clear(struct file_made *made)
{
	g_free(made->path);
	*made = (struct file_made){0};
}

static bool identify(const char *path, struct file_made *made)
{
	struct statx st;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &st) < 0)
		return false;
	made->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	made->ino = st.stx_ino;
	made->born_ns = st.stx_mask & STATX_BTIME
				? st.stx_btime.tv_sec * NS_PER_SEC + st.stx_btime.tv_nsec
				: 0;
	return true;
}

/* g_get_current_dir() would look at the directory, and so wait for its store. */
char *file_absolute(const char *path)
{
	char *cwd, *absolute;

	if (g_path_is_absolute(path))
		return g_strdup(path);
	cwd = getcwd(NULL, 0);
	absolute = g_build_filename(cwd ? cwd : "/", path, NULL);
	free(cwd);
	return absolute;
}

char *file_canonical(const char *path)
{
	g_autofree char *absolute = file_absolute(path);

	return g_canonicalize_filename(absolute, "/");
}

void file_made_adopt(struct file_made *made, const char *path, int fd)
{
	struct stat st;

	file_made_clear(made);
	if (!identify(path, made) ||
	    (fd >= 0 && (fstat(fd, &st) < 0 || st.st_dev != made->dev || st.st_ino != made->ino)))
		return;
	made->path = file_absolute(path);
}

bool file_made_is_there(const struct file_made *made)
{
	struct file_made now;

	return made->path && identify(made->path, &now) && now.dev == made->dev &&
	       now.ino == made->ino && now.born_ns == made->born_ns;
}

void file_unmake(struct file_made *made)
{
	int saved_errno = errno;

	if (file_made_is_there(made))
		unlink(made->path);
	file_made_clear(made);
	errno = saved_errno;
}

/* ---- whom to trust ---- */

static bool owner_trusted(const char *path, const struct stat *st, GError **error)
{
	g_autofree char *dir = g_path_get_dirname(path);
	struct stat dir_st;

	if (st->st_uid == geteuid() || st->st_uid == 0 ||
	    (stat(dir, &dir_st) == 0 && dir_st.st_uid == st->st_uid))
		return true;
	return error_set_generic(error,
				 "'%s': a %s of user %u is not used: it belongs neither to this "
				 "process's user, nor to root, nor to the owner of its directory",
				 path, S_ISLNK(st->st_mode) ? "symbolic link" : "file", st->st_uid);
}

static bool type_accepted(const char *path, const struct stat *st, unsigned int flags,
			  GError **error)
{
	bool stream = S_ISCHR(st->st_mode) || S_ISFIFO(st->st_mode);

	if (S_ISREG(st->st_mode) || (stream && (flags & FILE_STREAM)))
		return true;
	return error_set_generic(error, "'%s': not a regular file%s", path,
				 flags & FILE_STREAM ? ", character device or FIFO" : "");
}

/* Whether an open file that was there before, and came by a path, may be used. */
static bool file_trusted(const char *path, const struct stat *st, GError **error)
{
	/* Only root makes devices; whose a terminal is says who sits at it. */
	if (S_ISCHR(st->st_mode))
		return true;
	if (S_ISREG(st->st_mode) && st->st_nlink > 1)
		return error_set_generic(error,
					 "'%s': a file with %u names is not written to; copy it, "
					 "or choose another path",
					 path, (unsigned int)st->st_nlink);
	return owner_trusted(path, st, error);
}

/* Whether a link is the kernel's own, into a process's descriptors: its text is no path. */
static bool link_is_magic(const char *path)
{
	autofd int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct statfs fs;

	return fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

/* Replace the link *@path by what it names.  Return: false with @error if it is not trusted. */
static bool follow_link(char **path, const struct stat *st, GError **error)
{
	g_autofree char *dir = g_path_get_dirname(*path);
	g_autofree char *target = NULL;
	g_autoptr(GError) local = NULL;

	if (!owner_trusted(*path, st, error))
		return false;
	target = g_file_read_link(*path, &local);
	if (!target)
		return error_set_generic(error, "'%s': %s", *path, local->message);
	g_free(*path);
	*path = g_path_is_absolute(target) ? g_steal_pointer(&target)
					   : g_build_filename(dir, target, NULL);
	return true;
}

/* ---- opening ---- */

static int open_flags(unsigned int flags)
{
	return (flags & FILE_READ ? O_RDWR : O_WRONLY) | (flags & FILE_APPEND ? O_APPEND : 0) |
	       O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
}

/* Return: a descriptor; -1 with errno EEXIST if somebody was faster, else with @error. */
static int create(const char *path, unsigned int flags, struct file_made *made, GError **error)
{
	autofd int fd = open(path, open_flags(flags) | O_CREAT | O_EXCL | O_NOFOLLOW, FILE_MODE);

	if (fd < 0) {
		if (errno != EEXIST)
			error_set_errno(error, errno, "'%s'", path);
		return -1;
	}
	if (fchmod(fd, FILE_MODE) < 0) {
		error_set_errno(error, errno, "'%s'", path);
		unlink(path);
		return -1;
	}
	file_made_adopt(made, path, fd);
	return fd_steal(&fd);
}

/* Return: a descriptor; -1 without @error if the path changed meanwhile. */
static int open_existing(const char *path, const struct stat *before, unsigned int flags,
			 GError **error)
{
	bool magic = S_ISLNK(before->st_mode);
	autofd int fd = -1;
	struct stat st;

	/* Asked beforehand, because to open some devices means to do something to them. */
	if (!magic && !type_accepted(path, before, flags, error))
		return -1;
	fd = open(path, open_flags(flags) | (magic ? 0 : O_NOFOLLOW));
	if (fd < 0 && (errno == ENOENT || errno == ELOOP) && !magic)
		return -1;
	if (fd < 0 && errno == ENXIO && S_ISFIFO(before->st_mode))
		error_set_generic(error, "'%s': nobody reads from this FIFO", path);
	else if (fd < 0 || fstat(fd, &st) < 0)
		error_set_errno(error, errno, "'%s'", path);
	else if (type_accepted(path, &st, flags, error) &&
		 (magic || file_trusted(path, &st, error)))
		return fd_steal(&fd);
	return -1;
}

/* One look at the path, which may end in another one.  Return: as open_existing(). */
static int open_step(char **path, unsigned int flags, struct file_made *made, GError **error)
{
	struct stat st;

	if (lstat(*path, &st) < 0) {
		if (errno == ENOENT)
			return create(*path, flags, made, error);
		error_set_errno(error, errno, "'%s'", *path);
		return -1;
	}
	if (S_ISLNK(st.st_mode) && !link_is_magic(*path)) {
		follow_link(path, &st, error);
		return -1;
	}
	return open_existing(*path, &st, flags, error);
}

/* Whether a lock of anybody's lies on any part of it; a file system without locks has none. */
static bool is_locked(int fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* The last step: what only a file that was accepted gets. */
static bool prepare(int fd, const char *path, unsigned int flags, GError **error)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set_errno(error, errno, "'%s'", path);
	if (!S_ISREG(st.st_mode))
		return true;
	if ((flags & FILE_UNLOCKED) && is_locked(fd))
		return error_set_generic(error,
					 "'%s' is in use: a process holds a lock on it, as on an "
					 "image, RAM or pid file",
					 path);
	if (!fd_set_nonblock(fd, false) || ((flags & FILE_TRUNCATE) && ftruncate(fd, 0) < 0))
		return error_set_errno(error, errno, "'%s'", path);
	return true;
}

int file_make(const char *path, unsigned int flags, struct file_made *made, GError **error)
{
	g_autofree char *at = g_strdup(path);
	struct file_made local = {0};
	GError *failure = NULL;
	autofd int fd = -1;

	for (int step = 0; step < MAX_STEPS && fd < 0 && !failure; step++)
		fd = open_step(&at, flags, &local, &failure);
	if (fd < 0 && !failure)
		error_set_errno(&failure, ELOOP, "'%s'", path);
	if (failure || !prepare(fd, path, flags, &failure)) {
		g_propagate_error(error, failure);
		file_unmake(&local);
		return -1;
	}
	if (made) {
		file_made_clear(made);
		*made = local;
	} else {
		file_made_clear(&local);
	}
	return fd_steal(&fd);
}

int file_make_nameless(const char *dir, GError **error)
{
	g_autofree char *path = g_build_filename(dir, "molt-XXXXXX", NULL);
	int fd = mkostemp(path, O_CLOEXEC);

	if (fd >= 0)
		unlink(path);
	else
		error_set_errno(error, errno, "'%s'", dir);
	return fd;
}

/* ---- in memory ---- */

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* Kernels before 6.3 do not know the flag; some hosts (vm.memfd_noexec=2) refuse a memfd without it. */
int file_make_memfd(const char *name, unsigned int flags)
{
	int fd;

	flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
	fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	return fd;
}

/* By the kernel, without a buffer of ours.  Return: false with errno set. */
static bool copy_file(int from, int to)
{
	off_t offset = 0;
	ssize_t n;

	do
		n = sendfile(to, from, &offset, COPY_BYTES);
	while (n > 0 || (n < 0 && errno == EINTR));
	return n == 0;
}

int file_copy_sealed(int fd, const char *name, GError **error)
{
	autofd int copy = file_make_memfd(name, 0);

	if (copy >= 0 && copy_file(fd, copy) && fcntl(copy, F_ADD_SEALS, FILE_SEALED) == 0)
		return fd_steal(&copy);
	error_set_errno(error, errno, "%s: a copy in memory", name);
	return -1;
}

/* ---- sockets ---- */

/*
 * Whether some process has the socket open.  Asked with a datagram socket: connect() looks the
 * other one up before it notices that the types differ, so nobody sees a connection.
 */
static bool socket_in_use(const struct sockaddr_un *addr)
{
	autofd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return true;
	return connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 ||
	       (errno != ECONNREFUSED && errno != ENOENT);
}

/* Make room at the path, if what lies there is a socket that may go. */
static bool make_room(const struct sockaddr_un *addr, bool replace, GError **error)
{
	const char *path = addr->sun_path;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT || error_set_errno(error, errno, "'%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return error_set_generic(error, "'%s': what is there is no socket", path);
	if (!owner_trusted(path, &st, error))
		return false;
	if (!replace && socket_in_use(addr))
		return error_set_generic(error,
					 "Failed to bind socket to %s: Address already in use: "
					 "another process listens on it; choose another path",
					 path);
	if (unlink(path) < 0 && errno != ENOENT)
		return error_set_errno(error, errno, "'%s'", path);
	return true;
}

int file_make_socket(const char *path, bool replace, struct file_made *made, GError **error)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	autofd int fd = -1;

	if (g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path)) >= sizeof(addr.sun_path)) {
		error_set_generic(error, "UNIX socket path '%s' is too long: at most %zu bytes",
				  path, sizeof(addr.sun_path) - 1);
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode of the socket before bind() becomes that of the path: there is no window. */
	if (fd < 0 || fchmod(fd, FILE_MODE) < 0) {
		error_set_errno(error, errno, "cannot make a UNIX socket");
		return -1;
	}
	if (!make_room(&addr, replace, error))
		return -1;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		error_set_errno(error, errno, "Failed to bind socket to %s", path);
		return -1;
	}
	if (made)
		file_made_adopt(made, path, -1);
	return fd_steal(&fd);
}
