// Files that are closed for others: what close_soon() returns from is closed, and its lock is free.
// SPDX-License-Identifier: Apache-2.0
#include "base/close_later.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"

/* A file of a file system: only those have a store. */
static char *make_file(int *fd)
{
	char *path = NULL;

	*fd = g_file_open_tmp("molt-close-XXXXXX", &path, NULL);
	g_assert_cmpint(*fd, >, STDERR_FILENO);
	return path;
}

static void test_soon_is_closed(void)
{
	for (int i = 0; i < 100; i++) {
		int fd, other;
		g_autofree char *path = make_file(&fd);

		other = open(path, O_RDWR | O_CLOEXEC);
		g_assert_cmpint(fd_lock(fd, F_WRLCK), ==, 0);
		g_assert_cmpint(fd_lock(other, F_WRLCK), ==, EAGAIN);
		close_soon(&fd);
		g_assert_cmpint(fd, ==, -1);
		g_assert_cmpint(fd_lock(other, F_WRLCK), ==, 0);
		close(other);
		unlink(path);
	}
}

static void test_soon_without_a_store(void)
{
	int ends[2], copy;

	g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
	copy = ends[0];
	close_soon(&ends[0]);
	g_assert_cmpint(fcntl(copy, F_GETFD), ==, -1);
	close_soon(&ends[0]);
	close(ends[1]);
}

/* All of them in the end; -1 is none. */
static void test_later(void)
{
	g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
	int file, none = -1, writers[2], readers[2];
	g_autofree char *path = make_file(&file);
	char byte;

	/* The file's lock is gone when it is closed: another one waits for that. */
	for (int i = 0; i < 2; i++) {
		int ends[2];

		g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
		readers[i] = ends[0];
		writers[i] = ends[1];
		g_array_append_val(fds, writers[i]);
	}
	g_assert_cmpint(fd_lock(file, F_WRLCK), ==, 0);
	g_array_append_val(fds, none);
	g_array_append_val(fds, file);
	close_later(fds);
	for (int i = 0; i < 2; i++) {
		g_assert_cmpint(read(readers[i], &byte, 1), ==, 0);
		close(readers[i]);
	}
	file = open(path, O_RDWR | O_CLOEXEC);
	g_assert_cmpint(
		fcntl(file, F_OFD_SETLKW, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET}),
		==, 0);
	close(file);
	unlink(path);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/close_later/soon/closed", test_soon_is_closed);
	g_test_add_func("/close_later/soon/without-a-store", test_soon_without_a_store);
	g_test_add_func("/close_later/later", test_later);
	return g_test_run();
}
