// Channels: modes, stale and foreign sockets, deadlines, and streams that end early.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"
#include "migration/channel.h"
#include "state/section.h"

struct fixture {
	char *dir;
	char *path;
};

static void setup(struct fixture *f, const void *data)
{
	f->dir = g_dir_make_tmp("molt-channel-XXXXXX", NULL);
	f->path = g_build_filename(f->dir, "s", NULL);
}

static void teardown(struct fixture *f, const void *data)
{
	g_unlink(f->path);
	g_assert_cmpint(g_rmdir(f->dir), ==, 0);
	g_free(f->path);
	g_free(f->dir);
}

static struct migration_address *unix_address(const char *path)
{
	g_autofree char *uri = g_strdup_printf("unix:%s", path);

	return migration_address_from_uri(uri, NULL);
}

static struct migration_address *file_address(const char *path, unsigned int offset)
{
	g_autofree char *uri = g_strdup_printf("file:%s,offset=%u", path, offset);

	return migration_address_from_uri(uri, NULL);
}

/* What channel_connect() comes to, from the main loop. */
struct outcome {
	int fd;
	GError *error;
	bool over;
};

static void connected(void *opaque, int fd, const GError *error)
{
	struct outcome *outcome = opaque;

	outcome->fd = fd;
	outcome->error = error ? g_error_copy(error) : NULL;
	outcome->over = true;
}

static int connect_to(const struct migration_address *address, GError **error)
{
	struct outcome outcome = {-1};
	struct channel_dial *dial = channel_connect(address, 5000, connected, &outcome);

	/* Never from inside the call. */
	g_assert_false(outcome.over);
	while (!outcome.over)
		g_main_context_iteration(NULL, TRUE);
	channel_dial_free(dial);
	if (outcome.error)
		g_propagate_error(error, outcome.error);
	return outcome.fd;
}

static void test_unix(struct fixture *f, const void *data)
{
	autoptr(migration_address) address = unix_address(f->path);
	autoptr(channel_listener) listener = NULL;
	g_autoptr(GError) error = NULL;
	autofd int client = -1;
	autofd int server = -1;
	mode_t mask = umask(0);
	struct stat st;
	char buf[4];

	g_assert_cmpint(connect_to(address, &error), ==, -1);
	g_assert_nonnull(strstr(error->message, f->path));
	g_clear_error(&error);
	listener = channel_listen(address, &error);
	umask(mask);
	g_assert_no_error(error);
	g_assert_cmpint(lstat(f->path, &st), ==, 0);
	g_assert_cmpint(st.st_mode & 0777, ==, 0600);
	g_assert_cmpint(channel_accept(listener, &error), ==, -1);
	g_assert_no_error(error);
	client = connect_to(address, &error);
	g_assert_no_error(error);
	server = channel_accept(listener, &error);
	g_assert_cmpint(server, >=, 0);
	g_assert_true(channel_write(client, "ping", 4, clock_deadline_ms(1000), &error));
	g_assert_true(fd_read_all(server, buf, 4, clock_deadline_ms(1000), &error));
	g_clear_pointer(&listener, channel_listener_free);
	g_assert_cmpint(lstat(f->path, &st), ==, -1);
}

/* A path left behind is reused, one in use is not, and only what is ours is removed. */
static void test_unix_path(struct fixture *f, const void *data)
{
	autoptr(migration_address) address = unix_address(f->path);
	struct channel_listener *first = channel_listen(address, NULL);
	struct channel_listener *second;
	g_autoptr(GError) error = NULL;

	g_assert_nonnull(first);
	g_assert_null(channel_listen(address, &error));
	g_assert_nonnull(strstr(error->message, "Address already in use"));
	fd_close(&first->fd);
	second = channel_listen(address, NULL);
	g_assert_nonnull(second);
	channel_listener_free(first);
	g_assert_cmpint(access(f->path, F_OK), ==, 0);
	channel_listener_free(second);
	g_assert_cmpint(access(f->path, F_OK), ==, -1);
}

static void test_tcp(void)
{
	autoptr(migration_address) any = migration_address_from_uri("tcp:127.0.0.1:0", NULL);
	autoptr(channel_listener) listener = channel_listen(any, NULL);
	autoptr(migration_address) address = NULL;
	g_autofree char *uri = NULL;
	g_autoptr(GError) error = NULL;
	autofd int client = -1;
	json_t *where;

	g_assert_nonnull(listener);
	where = channel_listener_address(listener);
	/* "0" is any address, which connects to this host: as in the manual's transcript. */
	uri = g_strdup_printf("tcp:0:%s", json_string_value(json_object_get(where, "port")));
	json_decref(where);
	address = migration_address_from_uri(uri, NULL);
	client = connect_to(address, &error);
	g_assert_no_error(error);
	g_assert_cmpint(client, >=, 0);
}

/* A host's name is looked up on a thread, for either end; so is one that there is not. */
static void listening(void *opaque, struct channel_listener *listener, const GError *error)
{
	g_assert_no_error(error);
	*(struct channel_listener **)opaque = listener;
}

static void test_names(void)
{
	autoptr(migration_address) any = migration_address_from_uri("tcp:localhost:0", NULL);
	autoptr(migration_address)
		nobody = migration_address_from_uri("tcp:no.such.host.invalid:1", NULL);
	autoptr(migration_address) address = NULL;
	autoptr(channel_listener) listener = NULL;
	struct channel_naming *naming;
	g_autofree char *uri = NULL;
	g_autoptr(GError) error = NULL;
	autofd int client = -1;
	json_t *where;

	g_assert_true(channel_has_name(any));
	naming = channel_listen_name(any, listening, &listener, &error);
	g_assert_nonnull(naming);
	while (!listener)
		g_main_context_iteration(NULL, TRUE);
	channel_naming_free(naming);
	where = channel_listener_address(listener);
	uri = g_strdup_printf("tcp:localhost:%s",
			      json_string_value(json_object_get(where, "port")));
	json_decref(where);
	address = migration_address_from_uri(uri, NULL);
	client = connect_to(address, &error);
	g_assert_no_error(error);
	g_assert_cmpint(client, >=, 0);
	g_assert_cmpint(connect_to(nobody, &error), ==, -1);
	g_assert_nonnull(strstr(error->message, "address resolution failed"));
}

static void never(void *opaque, int fd, const GError *error)
{
	g_assert_not_reached();
}

/* A full queue is waited for, until there is room or it is too late; what is given up is not told. */
static void test_full_queue(struct fixture *f, const void *data)
{
	autoptr(migration_address) address = unix_address(f->path);
	autoptr(channel_listener) listener = channel_listen(address, NULL);
	struct outcome outcome = {-1};
	struct channel_dial *dial;
	autofd int first = -1, taken = -1;
	int fd;

	g_assert_cmpint(listen(listener->fd, 0), ==, 0);
	first = connect_to(address, NULL);
	dial = channel_connect(address, 200, connected, &outcome);
	g_assert_false(channel_dial_take(dial, &fd, NULL));
	while (!outcome.over)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpint(outcome.fd, ==, -1);
	g_assert_nonnull(strstr(outcome.error->message, "timed out"));
	g_clear_error(&outcome.error);
	channel_dial_free(dial);

	outcome.over = false;
	dial = channel_connect(address, 10000, connected, &outcome);
	taken = channel_accept(listener, NULL);
	while (!outcome.over)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpint(outcome.fd, >=, 0);
	fd_close(&outcome.fd);
	channel_dial_free(dial);

	channel_dial_free(channel_connect(address, 10000, never, NULL));
	while (g_main_context_iteration(NULL, FALSE))
		;
}

static gboolean nothing(void *opaque)
{
	return G_SOURCE_REMOVE;
}

static void accepted(void *opaque, int fd)
{
	*(int *)opaque = fd;
}

/* Without a descriptor for it a connection waits, and the loop sleeps. */
static void test_no_descriptor(struct fixture *f, const void *data)
{
	autoptr(migration_address) address = unix_address(f->path);
	autoptr(channel_listener) listener = channel_listen(address, NULL);
	autofd int client = connect_to(address, NULL);
	struct rlimit limit, none;
	int peer = -1, turns = 0, free_fd;

	/* The next number is too high. */
	getrlimit(RLIMIT_NOFILE, &limit);
	free_fd = dup(client);
	none = (struct rlimit){free_fd, limit.rlim_max};
	fd_close(&free_fd);
	channel_listener_start(listener, accepted, &peer);
	setrlimit(RLIMIT_NOFILE, &none);
	for (uint64_t end_ns = clock_deadline_ms(100); clock_now_ns() < end_ns; turns++) {
		GSource *tick = loop_after_ms(20, nothing, NULL);

		g_main_context_iteration(NULL, TRUE);
		loop_unwatch(&tick);
	}
	setrlimit(RLIMIT_NOFILE, &limit);
	g_assert_cmpint(turns, <, 20);
	g_assert_cmpint(peer, ==, -1);
	while (peer < 0)
		g_main_context_iteration(NULL, TRUE);
	fd_close(&peer);
}

static void test_inherited(void)
{
	autoptr(migration_address) address = NULL;
	g_autofree char *uri = NULL;
	g_autoptr(GError) error = NULL;
	autofd int file = open("/dev/null", O_RDONLY | O_CLOEXEC);

	uri = g_strdup_printf("fd:%d", file);
	address = migration_address_from_uri(uri, NULL);
	g_assert_null(channel_listen(address, &error));
	g_assert_nonnull(strstr(error->message, "is not a socket"));
}

static void test_slow_reader(void)
{
	static const char much[1 << 16];
	g_autoptr(GError) error = NULL;
	int pair[2];

	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			==, 0);
	while (channel_write(pair[0], much, sizeof(much), clock_deadline_ms(20), &error))
		;
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_TIMEOUT);
	g_clear_error(&error);
	close(pair[1]);
	g_assert_false(channel_write(pair[0], much, sizeof(much), clock_deadline_ms(20), &error));
	g_assert_nonnull(error);
	close(pair[0]);
}

static void test_file(struct fixture *f, const void *data)
{
	autoptr(migration_address) address = file_address(f->path, 4096);
	autoptr(state_writer) writer = state_writer_begin("test");
	g_autoptr(GBytes) stream = state_writer_finish(writer, NULL);
	g_autoptr(GBytes) back = NULL;
	g_autoptr(GError) error = NULL;
	gsize len = g_bytes_get_size(stream);
	autofd int out = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	autofd int in = -1;

	g_assert_cmpint(pwrite(out, g_bytes_get_data(stream, NULL), len, 4096), ==, len);
	in = channel_open_file(address, &error);
	back = channel_read_state(in, clock_deadline_ms(1000), &error);
	g_assert_no_error(error);
	g_assert_true(g_bytes_equal(back, stream));
}

static void test_short_stream(struct fixture *f, const void *data)
{
	autoptr(migration_address) address = file_address(f->path, 0);
	autoptr(state_writer) writer = state_writer_begin("test");
	g_autoptr(GBytes) stream = state_writer_finish(writer, NULL);
	gsize len;
	const char *octets = g_bytes_get_data(stream, &len);

	for (gsize cut = 0; cut < len; cut++) {
		g_autoptr(GError) error = NULL;
		autofd int fd = -1;

		g_assert_true(g_file_set_contents(f->path, octets, cut, NULL));
		fd = channel_open_file(address, &error);
		g_assert_no_error(error);
		g_assert_null(channel_read_state(fd, clock_deadline_ms(1000), &error));
		g_assert_nonnull(error);
	}
}

static void test_bad_file(struct fixture *f, const void *data)
{
	autoptr(migration_address) address = file_address("/does/not/exist/x", 0);
	g_autoptr(GError) error = NULL;

	g_assert_cmpint(channel_open_file(address, &error), ==, -1);
	g_assert_nonnull(error);
	g_clear_error(&error);
	g_assert_cmpint(connect_to(address, &error), ==, -1);
	g_assert_cmpstr(error->message, ==, "Migration requires streamable transport (eg unix)");
}

#define ADD(name, fn) g_test_add(name, struct fixture, NULL, setup, fn, teardown)

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	ADD("/channel/unix", test_unix);
	ADD("/channel/unix-path", test_unix_path);
	g_test_add_func("/channel/tcp", test_tcp);
	g_test_add_func("/channel/names", test_names);
	ADD("/channel/full-queue", test_full_queue);
	ADD("/channel/no-descriptor", test_no_descriptor);
	g_test_add_func("/channel/inherited", test_inherited);
	g_test_add_func("/channel/slow-reader", test_slow_reader);
	ADD("/channel/file", test_file);
	ADD("/channel/short-stream", test_short_stream);
	ADD("/channel/bad-file", test_bad_file);
	return g_test_run();
}
