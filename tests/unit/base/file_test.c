// Tests of base/file: what is made, what of what lies there is taken, and what is removed.
// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

/* A user that is neither root nor whoever runs the tests. */
#define STRANGER 12345

struct fixture {
	char *dir;
	char *path;
	char *other;
};

static void setup(struct fixture *f, const void *data)
{
	f->dir = g_dir_make_tmp("molt-file-XXXXXX", NULL);
	f->path = g_build_filename(f->dir, "made", NULL);
	f->other = g_build_filename(f->dir, "other", NULL);
}

static void teardown(struct fixture *f, const void *data)
{
	g_unlink(f->path);
	g_unlink(f->other);
	/* Whatever else was left behind makes this fail. */
	g_assert_cmpint(g_rmdir(f->dir), ==, 0);
	g_free(f->other);
	g_free(f->path);
	g_free(f->dir);
}

static void write_file(const char *path, const char *text)
{
	g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void assert_contents(const char *path, const char *expected)
{
	g_autofree char *text = NULL;

	g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
	g_assert_cmpstr(text, ==, expected);
}

static void assert_refused(const char *path, unsigned int flags, const char *why)
{
	g_autoptr(GError) error = NULL;
	struct file_made made = {0};

	g_assert_cmpint(file_make(path, flags, &made, &error), ==, -1);
	g_assert_nonnull(error);
	g_assert_nonnull(strstr(error->message, why));
	g_assert_null(made.path);
}

static void test_new(struct fixture *f, const void *data)
{
	static const mode_t masks[] = {0, 022, 0777};

	for (size_t i = 0; i < G_N_ELEMENTS(masks); i++) {
		g_autoptr(GError) error = NULL;
		struct file_made made = {0};
		mode_t saved = umask(masks[i]);
		autofd int fd = file_make(f->path, FILE_READ, &made, &error);
		struct stat st;

		umask(saved);
		g_assert_no_error(error);
		g_assert_cmpint(fstat(fd, &st), ==, 0);
		g_assert_cmpint(st.st_mode & 07777, ==, 0600);
		g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
		g_assert_cmpint(fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), ==, O_RDWR);
		g_assert_cmpstr(made.path, ==, f->path);
		file_unmake(&made);
		g_assert_null(made.path);
		g_assert_cmpint(access(f->path, F_OK), ==, -1);
	}
}

static void test_existing(struct fixture *f, const void *data)
{
	struct file_made made = {0};
	struct stat st;
	int fd;

	write_file(f->path, "before");
	g_assert_cmpint(chmod(f->path, 0640), ==, 0);
	fd = file_make(f->path, FILE_APPEND, &made, NULL);
	g_assert_cmpint(write(fd, "+", 1), ==, 1);
	fd_close(&fd);
	g_assert_null(made.path);
	assert_contents(f->path, "before+");
	fd = file_make(f->path, 0, NULL, NULL);
	g_assert_cmpint(write(fd, "B", 1), ==, 1);
	fd_close(&fd);
	assert_contents(f->path, "Before+");
	fd = file_make(f->path, FILE_TRUNCATE, NULL, NULL);
	fd_close(&fd);
	assert_contents(f->path, "");
	/* Who may read it was somebody's decision. */
	g_assert_cmpint(stat(f->path, &st), ==, 0);
	g_assert_cmpint(st.st_mode & 07777, ==, 0640);
}

static void test_types(struct fixture *f, const void *data)
{
	autofd int reader = -1;
	autofd int fd = -1;

	assert_refused(f->dir, FILE_STREAM, "not a regular file");
	assert_refused("/dev/null", 0, "not a regular file");
	fd = file_make("/dev/null", FILE_TRUNCATE | FILE_STREAM, NULL, NULL);
	g_assert_cmpint(fd, >=, 0);
	fd_close(&fd);
	g_assert_cmpint(mkfifo(f->path, 0600), ==, 0);
	assert_refused(f->path, FILE_STREAM, "nobody reads");
	assert_refused(f->path, 0, "not a regular file");
	reader = open(f->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	fd = file_make(f->path, FILE_STREAM, NULL, NULL);
	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(fcntl(fd, F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
	assert_refused("/does/not/exist/x", 0, "'/does/not/exist/x': No such file");
}

static void test_two_names(struct fixture *f, const void *data)
{
	write_file(f->other, "precious");
	g_assert_cmpint(link(f->other, f->path), ==, 0);
	assert_refused(f->path, FILE_TRUNCATE, "a file with 2 names");
	assert_contents(f->other, "precious");
}

/* Whoever has it locked, whatever part of it, and however: it is left as it is. */
static void test_locked(struct fixture *f, const void *data)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
	autofd int fd = -1, other = -1;
	struct stat st;

	g_assert_true(g_file_set_contents(f->path, "image", 5, NULL));
	other = open(f->path, O_RDWR | O_CLOEXEC);
	g_assert_cmpint(fcntl(other, F_OFD_SETLK, &lock), ==, 0);
	assert_refused(f->path, FILE_TRUNCATE | FILE_UNLOCKED, "is in use");
	g_assert_cmpint(fstat(other, &st), ==, 0);
	g_assert_cmpint(st.st_size, ==, 5);
	lock.l_type = F_UNLCK;
	g_assert_cmpint(fcntl(other, F_OFD_SETLK, &lock), ==, 0);
	fd = file_make(f->path, FILE_TRUNCATE | FILE_UNLOCKED, NULL, NULL);
	g_assert_cmpint(fd, >=, 0);
}

static void test_own_link(struct fixture *f, const void *data)
{
	struct file_made made = {0};
	int fd;

	/* Relative, and to what is not there yet: what is made is the file, not the link. */
	g_assert_cmpint(symlink("other", f->path), ==, 0);
	fd = file_make(f->path, 0, &made, NULL);
	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpstr(made.path, ==, f->other);
	file_unmake(&made);
	g_assert_cmpint(access(f->other, F_OK), ==, -1);
	fd_close(&fd);
	g_unlink(f->path);
	g_assert_cmpint(symlink("made", f->path), ==, 0);
	assert_refused(f->path, 0, strerror(ELOOP));
}

/* /dev/stdout and its like end in links whose text is no path. */
static void test_magic_link(struct fixture *f, const void *data)
{
	g_autofree char *magic = NULL;
	autofd int held = -1;
	autofd int fd = -1;

	write_file(f->other, "x");
	held = open(f->other, O_RDWR | O_CLOEXEC);
	g_unlink(f->other);
	magic = g_strdup_printf("/proc/self/fd/%d", held);
	fd = file_make(magic, 0, NULL, NULL);
	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(write(fd, "y", 1), ==, 1);
}

/* The sticky directory of everybody: what a stranger left there is not touched. */
static void test_stranger(struct fixture *f, const void *data)
{
	if (geteuid() != 0) {
		g_test_skip("only root can make files of another user");
		return;
	}
	g_assert_cmpint(chmod(f->dir, 01777), ==, 0);
	write_file(f->path, "trap");
	g_assert_cmpint(chown(f->path, STRANGER, STRANGER), ==, 0);
	assert_refused(f->path, FILE_TRUNCATE, "a file of user 12345 is not used");
	assert_contents(f->path, "trap");
	g_unlink(f->path);
	write_file(f->other, "precious");
	g_assert_cmpint(symlink(f->other, f->path), ==, 0);
	g_assert_cmpint(lchown(f->path, STRANGER, STRANGER), ==, 0);
	assert_refused(f->path, FILE_TRUNCATE, "a symbolic link of user 12345 is not used");
	assert_contents(f->other, "precious");
	g_unlink(f->path);
	g_assert_cmpint(mkfifo(f->path, 0666), ==, 0);
	g_assert_cmpint(chown(f->path, STRANGER, STRANGER), ==, 0);
	{
		autofd int reader = open(f->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

		g_assert_cmpint(reader, >=, 0);
		assert_refused(f->path, FILE_STREAM, "a file of user 12345 is not used");
	}
	/* In his own directory he could do anything anyway. */
	g_unlink(f->path);
	g_assert_cmpint(chown(f->dir, STRANGER, STRANGER), ==, 0);
	write_file(f->path, "log");
	g_assert_cmpint(chown(f->path, STRANGER, STRANGER), ==, 0);
	{
		autofd int fd = file_make(f->path, FILE_TRUNCATE, NULL, NULL);

		g_assert_cmpint(fd, >=, 0);
	}
}

static void test_unmake_only_own(struct fixture *f, const void *data)
{
	struct file_made made = {0};
	autofd int fd = file_make(f->path, 0, &made, NULL);

	g_assert_cmpint(g_rename(f->path, f->other), ==, 0);
	write_file(f->path, "another");
	file_unmake(&made);
	assert_contents(f->path, "another");
	/* Adopted is only what is open. */
	file_made_adopt(&made, f->path, fd);
	g_assert_null(made.path);
	file_made_adopt(&made, f->other, fd);
	file_unmake(&made);
	g_assert_cmpint(access(f->other, F_OK), ==, -1);
}

static void test_nameless(struct fixture *f, const void *data)
{
	autofd int fd = file_make_nameless(f->dir, NULL);
	struct stat st;

	g_assert_cmpint(fstat(fd, &st), ==, 0);
	g_assert_cmpint(st.st_mode & 07777, ==, 0600);
	g_assert_cmpint(st.st_nlink, ==, 0);
}

static void test_socket(struct fixture *f, const void *data)
{
	struct file_made made = {0};
	g_autoptr(GError) error = NULL;
	mode_t saved = umask(0);
	int first = file_make_socket(f->path, false, &made, &error);
	autofd int second = -1;
	struct stat st;

	umask(saved);
	g_assert_no_error(error);
	g_assert_cmpint(lstat(f->path, &st), ==, 0);
	g_assert_cmpint(st.st_mode & 07777, ==, 0600);
	g_assert_cmpint(listen(first, 1), ==, 0);
	g_assert_cmpint(file_make_socket(f->path, false, NULL, &error), ==, -1);
	g_assert_nonnull(strstr(error->message, "in use"));
	g_clear_error(&error);
	/* The question whether somebody listens is no connection. */
	g_assert_cmpint(accept4(first, NULL, NULL, SOCK_CLOEXEC), ==, -1);
	fd_close(&first);
	second = file_make_socket(f->path, false, NULL, &error);
	g_assert_no_error(error);
	file_unmake(&made);
	g_assert_cmpint(lstat(f->path, &st), ==, 0);
	g_unlink(f->path);
	write_file(f->path, "no socket");
	g_assert_cmpint(file_make_socket(f->path, true, NULL, &error), ==, -1);
	g_assert_nonnull(strstr(error->message, "is no socket"));
	assert_contents(f->path, "no socket");
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add("/file/" #name, struct fixture, NULL, setup, test_##name, teardown)
	ADD(new);
	ADD(existing);
	ADD(types);
	ADD(two_names);
	ADD(locked);
	ADD(own_link);
	ADD(magic_link);
	ADD(stranger);
	ADD(unmake_only_own);
	ADD(nameless);
	ADD(socket);
#undef ADD
	return g_test_run();
}
