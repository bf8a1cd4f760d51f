// What the descriptor tests share: things to preserve, and counting what is open.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "state/fdstore.h"

/** test_memfd() - A memfd of a page that takes seals. */
static inline int test_memfd(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(ftruncate(fd, 4096), ==, 0);
	return fd;
}

/** test_count_fds() - Descriptors open in this process. */
static inline unsigned int test_count_fds(void)
{
	g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
	unsigned int n = 0;

	g_assert_nonnull(dir);
	while (g_dir_read_name(dir))
		n++;
	return n;
}

/** test_same_file() - Whether two descriptors are of one open file (by device and inode). */
static inline bool test_same_file(int a, int b)
{
	struct stat st_a, st_b;

	g_assert_cmpint(fstat(a, &st_a), ==, 0);
	g_assert_cmpint(fstat(b, &st_b), ==, 0);
	return st_a.st_dev == st_b.st_dev && st_a.st_ino == st_b.st_ino;
}

/** test_assert_message() - @error must be set and contain @expected. */
static inline void test_assert_message(GError **error, const char *expected)
{
	g_assert_nonnull(*error);
	if (!strstr((*error)->message, expected))
		g_error("'%s' expected, got '%s'", expected, (*error)->message);
	g_clear_error(error);
}
