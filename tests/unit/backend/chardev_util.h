// What the chardev tests share: a recording frontend, and waiting for something with a deadline.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/chardev/chardev.h"
#include "base/fd.h"
#include "state/fdstore.h"

static inline void skip_without_pty(void)
{
	g_test_skip("no pseudo terminals here");
}

/** needs_pty() - @test, or a skip where there are no pseudo terminals (no devpts, as in a chroot) */
static inline GTestFunc needs_pty(GTestFunc test)
{
	char name[64] = "";
	int master = -1, slave = -1;
	bool missing = openpty(&master, &slave, name, NULL, NULL) < 0 || access(name, R_OK) < 0;

	fd_close(&master);
	fd_close(&slave);
	return missing ? skip_without_pty : test;
}

/** struct recorder - A frontend that notes what it is told */
struct recorder {
	GString *got;
	GString *events; /* a letter each: O C I(n) U(out) B */
	size_t room;
	unsigned int n_writable;
};

static inline size_t recorder_can_receive(void *opaque)
{
	return ((struct recorder *)opaque)->room;
}

static inline void recorder_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct recorder *r = opaque;

	g_assert_cmpuint(len, <=, r->room);
	r->room -= len;
	g_string_append_len(r->got, (const char *)buf, len);
}

static inline void recorder_event(void *opaque, enum chardev_event event)
{
	struct recorder *r = opaque;

	g_string_append_c(r->events, "OCIUB"[event]);
}

static inline void recorder_writable(void *opaque)
{
	((struct recorder *)opaque)->n_writable++;
}

static const struct chardev_frontend recorder_frontend = {
	.can_receive = recorder_can_receive,
	.receive = recorder_receive,
	.event = recorder_event,
	.writable = recorder_writable,
};

static inline struct recorder *recorder_new(size_t room)
{
	struct recorder *r = g_new0(struct recorder, 1);

	r->got = g_string_new(NULL);
	r->events = g_string_new(NULL);
	r->room = room;
	return r;
}

static inline void recorder_free(struct recorder *r)
{
	g_string_free(r->got, TRUE);
	g_string_free(r->events, TRUE);
	g_free(r);
}
DEFINE_CLEANUP(recorder, recorder_free)

static inline gboolean wait_late(void *opaque)
{
	g_error("the event that the test waits for did not come");
	return G_SOURCE_REMOVE;
}

/** WAIT_FOR() - Run the main loop until @cond holds; the test fails after ten seconds. */
#define WAIT_FOR(cond)                                                    \
	do {                                                              \
		guint late_ = g_timeout_add_seconds(10, wait_late, NULL); \
		while (!(cond))                                           \
			g_main_context_iteration(NULL, TRUE);             \
		g_source_remove(late_);                                   \
	} while (0)

/** settle() - Run everything that is ready now. */
static inline void settle(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		;
}

static inline struct chardev *open_chardev(const struct chardev_config *config,
					   struct fd_source *fds)
{
	g_autoptr(GError) error = NULL;
	struct chardev *chardev = chardev_new(config, fds, &error);

	g_assert_no_error(error);
	g_assert_nonnull(chardev);
	return chardev;
}

static inline struct chardev_link *attach(struct chardev *chardev, struct recorder *r)
{
	g_autoptr(GError) error = NULL;
	struct chardev_link *link = chardev_attach(chardev, &recorder_frontend, r, &error);

	g_assert_no_error(error);
	g_assert_nonnull(link);
	return link;
}

static inline void say(struct chardev_link *link, const char *text)
{
	g_assert_cmpuint(chardev_write(link, (const uint8_t *)text, strlen(text)), ==,
			 strlen(text));
}

/** expect_read() - The next bytes on @fd are @text. */
static inline void expect_read(int fd, const char *text)
{
	char buf[4096] = {0};
	size_t want = strlen(text);
	size_t have = 0;

	g_assert_cmpuint(want, <, sizeof(buf));
	while (have < want) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		g_main_context_iteration(NULL, FALSE);
		if (poll(&p, 1, 0) == 0)
			continue;
		n = read(fd, buf + have, want - have);
		if (n <= 0)
			g_error("read: %zd, errno %d, so far '%s'", n, errno, buf);
		have += n;
	}
	g_assert_cmpstr(buf, ==, text);
}

static inline int connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
	g_assert_cmpint(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
	return fd;
}

static inline void send_text(int fd, const char *text)
{
	g_assert_cmpint(write(fd, text, strlen(text)), ==, (ssize_t)strlen(text));
}

/** struct scratch_dir - A directory that goes away with what is in it */
static inline char *scratch_dir_new(void)
{
	char *dir = g_dir_make_tmp("molt-chardev-XXXXXX", NULL);

	g_assert_nonnull(dir);
	return dir;
}

static inline void scratch_dir_free(char *dir)
{
	GDir *d = g_dir_open(dir, 0, NULL);
	const char *name;

	while (d && (name = g_dir_read_name(d))) {
		g_autofree char *path = g_build_filename(dir, name, NULL);

		g_unlink(path);
	}
	if (d)
		g_dir_close(d);
	g_rmdir(dir);
	g_free(dir);
}

/** hand_over() - What a successor would inherit from @from. */
static inline struct fdstore *hand_over(struct fd_source *from)
{
	g_autoptr(GError) error = NULL;
	struct fdstore *store = fdstore_new();

	g_assert_true(fd_source_offer(from, store, FD_WAY_EXEC, &error));
	g_assert_no_error(error);
	return store;
}
