// Socket chardevs: servers, clients, slow peers, and a connection that changes processes.
// SPDX-License-Identifier: Apache-2.0
#include "chardev_util.h"

#include <netinet/in.h>
#include <sys/resource.h>

#include "backend/chardev/chardev_priv.h"
#include "base/file.h"
#include "state/state.h"

struct fixture {
	char *dir;
	char *path;
	struct chardev_config config;
	struct fd_source fds;
};

static void setup(struct fixture *f, gconstpointer data)
{
	f->dir = scratch_dir_new();
	f->path = g_build_filename(f->dir, "s", NULL);
	f->config = (struct chardev_config){
		.kind = CHARDEV_SOCKET, .id = (char *)"ser", .path = f->path, .server = true};
}

static void teardown(struct fixture *f, gconstpointer data)
{
	fd_source_clear(&f->fds);
	g_free(f->path);
	scratch_dir_free(f->dir);
}

static void test_server(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) r = recorder_new(100);
	autoptr(chardev) c = open_chardev(&f->config, &f->fds);
	struct chardev_link *link = attach(c, r);
	g_autofree char *name = g_strdup_printf("unix:%s,server=on", f->path);
	g_autofree char *disconnected = g_strconcat("disconnected:", name, NULL);
	autofd int client = connect_unix(f->path);

	settle();
	g_assert_cmpstr(r->events->str, ==, "");
	g_assert_cmpstr(chardev_filename(c), ==, disconnected);
	chardev_resume(c);
	WAIT_FOR(r->events->len == 1);
	g_assert_cmpstr(chardev_filename(c), ==, name);
	g_assert_true(chardev_link_connected(link));
	say(link, "to you");
	expect_read(client, "to you");
	send_text(client, "to me");
	WAIT_FOR(r->got->len == 5);
	g_assert_cmpstr(r->got->str, ==, "to me");
	fd_close(&client);
	WAIT_FOR(r->events->len == 2);
	g_assert_cmpstr(r->events->str, ==, "OC");
	say(link, "nobody hears this");
	client = connect_unix(f->path);
	WAIT_FOR(r->events->len == 3);
	say(link, "again");
	expect_read(client, "again");
}

static void test_one_at_a_time(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) r = recorder_new(100);
	autoptr(chardev) c = open_chardev(&f->config, &f->fds);
	struct chardev_link *link = attach(c, r);
	autofd int first = connect_unix(f->path);
	autofd int second = -1;

	chardev_resume(c);
	WAIT_FOR(r->events->len == 1);
	second = connect_unix(f->path);
	send_text(second, "second");
	send_text(first, "first");
	WAIT_FOR(r->got->len == 5);
	settle();
	g_assert_cmpstr(r->got->str, ==, "first");
	fd_close(&first);
	WAIT_FOR(r->got->len == 11);
	g_assert_cmpstr(r->events->str, ==, "OCO");
	say(link, "x");
	expect_read(second, "x");
}

static void test_flow_control(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) r = recorder_new(3);
	autoptr(chardev) c = open_chardev(&f->config, &f->fds);
	struct chardev_link *link = attach(c, r);
	autofd int client = connect_unix(f->path);

	chardev_resume(c);
	send_text(client, "abcdefgh");
	WAIT_FOR(r->got->len == 3);
	settle();
	g_assert_cmpstr(r->got->str, ==, "abc");
	r->room = 2;
	chardev_accept_input(link);
	WAIT_FOR(r->got->len == 5);
	r->room = 100;
	chardev_accept_input(link);
	WAIT_FOR(r->got->len == 8);
	g_assert_cmpstr(r->got->str, ==, "abcdefgh");
}

static void test_slow_reader(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) r = recorder_new(3);
	autoptr(chardev) c = open_chardev(&f->config, &f->fds);
	struct chardev_link *link = attach(c, r);
	autofd int client = connect_unix(f->path);
	g_autofree uint8_t *block = g_malloc0(1 << 20);
	size_t taken = 0, n;

	chardev_resume(c);
	WAIT_FOR(r->events->len == 1);
	/* chardev_write() takes what there is room for, and says when there is more. */
	while ((n = chardev_write(link, block, 4096)) == 4096)
		taken += n;
	taken += n;
	settle();
	g_assert_cmpuint(r->n_writable, ==, 0);
	g_assert_true(fd_read_all(client, block, taken, 0, NULL));
	WAIT_FOR(r->n_writable > 0);
	/* chardev_write_all() keeps the rest, up to a point. */
	for (int i = 0; i < 8; i++)
		chardev_write_all(link, block, 1 << 20);
	settle();
	g_assert_cmpstr(r->events->str, ==, "O");
	for (int i = 0; i < 10; i++)
		chardev_write_all(link, block, 1 << 20);
	WAIT_FOR(r->events->len == 2);
	g_assert_cmpstr(r->events->str, ==, "OC");
}

static void test_reply_after_half_close(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) r = recorder_new(100);
	autoptr(chardev) c = open_chardev(&f->config, &f->fds);
	struct chardev_link *link = attach(c, r);
	autofd int client = connect_unix(f->path);
	g_autofree uint8_t *block = g_malloc0(1 << 20);
	g_autofree uint8_t *back = g_malloc0(1 << 20);

	chardev_resume(c);
	WAIT_FOR(r->events->len == 1);
	block[(1 << 20) - 1] = 42;
	chardev_write_all(link, block, 1 << 20);
	shutdown(client, SHUT_WR);
	settle();
	g_assert_cmpint(fcntl(client, F_SETFL, O_NONBLOCK), ==, 0);
	for (size_t have = 0; have < 1 << 20;) {
		ssize_t got = read(client, back + have, (1 << 20) - have);

		if (got > 0)
			have += got;
		else
			g_assert_true(got < 0 && errno == EAGAIN);
		g_main_context_iteration(NULL, FALSE);
	}
	g_assert_cmpint(back[(1 << 20) - 1], ==, 42);
	WAIT_FOR(g_str_equal(r->events->str, "OC"));
}

static void test_client_reconnects(struct fixture *f, gconstpointer data)
{
	struct chardev_config config = f->config;
	autoptr(recorder) server_r = recorder_new(100);
	autoptr(recorder) r = recorder_new(100);
	struct fd_source client_fds = {0};
	autoptr(chardev) server = open_chardev(&f->config, &f->fds);
	struct chardev *c;

	attach(server, server_r);
	config.server = false;
	config.reconnect_ms = 10;
	c = open_chardev(&config, &client_fds);
	say(attach(c, r), "lost");
	chardev_resume(c);
	chardev_resume(server);
	WAIT_FOR(r->events->len == 1 && server_r->events->len == 1);
	chardev_free(g_steal_pointer(&server));
	WAIT_FOR(r->events->len == 2);
	server = open_chardev(&f->config, &f->fds);
	attach(server, server_r);
	chardev_resume(server);
	WAIT_FOR(r->events->len == 3 && server_r->events->len == 2);
	g_assert_cmpstr(r->events->str, ==, "OCO");
	chardev_free(c);
	fd_source_clear(&client_fds);
}

static void test_client_without_server(struct fixture *f, gconstpointer data)
{
	g_autoptr(GError) error = NULL;

	f->config.server = false;
	g_assert_null(chardev_new(&f->config, &f->fds, &error));
	g_assert_true(g_str_has_prefix(error->message, "chardev 'ser': cannot connect to '"));
}

static void test_tcp(struct fixture *f, gconstpointer data)
{
	struct chardev_config config = {
		.kind = CHARDEV_SOCKET,
		.id = (char *)"t",
		.host = (char *)"127.0.0.1",
		.port = (char *)"0",
		.server = true,
		.nodelay = true,
	};
	autoptr(recorder) r = recorder_new(100);
	autoptr(recorder) client_r = recorder_new(100);
	autoptr(chardev) c = open_chardev(&config, &f->fds);
	struct chardev_link *link = attach(c, r);
	struct fd_source client_fds = {0};
	struct chardev *client;
	g_autofree char *port = NULL;

	g_assert_true(g_str_has_prefix(chardev_filename(c), "disconnected:tcp:127.0.0.1:"));
	port = g_strdup(strrchr(chardev_filename(c), ':') + 1);
	*strchr(port, ',') = '\0';
	config.port = port;
	config.server = false;
	client = open_chardev(&config, &client_fds);
	attach(client, client_r);
	chardev_resume(c);
	chardev_resume(client);
	WAIT_FOR(r->events->len == 1);
	g_assert_nonnull(strstr(chardev_filename(c), ",server=on <-> 127.0.0.1:"));
	say(link, "over tcp");
	WAIT_FOR(client_r->got->len == 8);
	chardev_free(client);
	fd_source_clear(&client_fds);
}

static void test_path_in_use(struct fixture *f, gconstpointer data)
{
	g_autoptr(GError) error = NULL;
	autoptr(chardev) c = open_chardev(&f->config, &f->fds);
	struct fd_source other = {0};

	g_assert_null(chardev_new(&f->config, &other, &error));
	g_assert_nonnull(strstr(error->message, "another process listens on"));
	fd_source_clear(&other);
	chardev_free(g_steal_pointer(&c));
	g_assert_false(g_file_test(f->path, G_FILE_TEST_EXISTS));
	/* A file that a killed process left is no obstacle. */
	c = open_chardev(&f->config, &f->fds);
	chardev_disown(c);
	chardev_free(g_steal_pointer(&c));
	g_assert_true(g_file_test(f->path, G_FILE_TEST_EXISTS));
	c = open_chardev(&f->config, &f->fds);
}

static void test_long_path(struct fixture *f, gconstpointer data)
{
	char path[200];
	g_autoptr(GError) error = NULL;

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	f->config.path = path;
	g_assert_null(chardev_new(&f->config, &f->fds, &error));
	g_assert_nonnull(strstr(error->message, "is too long"));
}

/* Move the state as an update does: through bytes. */
static void carry_state(struct chardev *from, struct chardev *to)
{
	g_autoptr(GByteArray) wire = g_byte_array_new();
	g_autoptr(GError) error = NULL;

	g_assert_true(state_save(&chardev_state_desc, chardev_state(from), wire, &error));
	g_assert_true(state_load(&chardev_state_desc, span_of(wire->data, wire->len), NULL,
				 chardev_state(to), &error));
	g_assert_no_error(error);
}

static void test_takeover(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) old_r = recorder_new(100);
	autoptr(recorder) new_r = recorder_new(1000);
	struct chardev *old = open_chardev(&f->config, &f->fds);
	struct chardev_link *old_link = attach(old, old_r);
	struct chardev_link *new_link;
	struct fd_source new_fds = {0};
	autoptr(chardev) new = NULL;
	autofd int client = connect_unix(f->path);
	g_autofree uint8_t *block = g_malloc(64 << 10);
	g_autofree uint8_t *back = g_malloc(8 << 20);
	struct fdstore *store;
	size_t sent = 0;

	memset(block, 'o', 64 << 10);
	chardev_resume(old);
	WAIT_FOR(old_r->events->len == 1);
	/* Fill the socket, then leave 64 KiB more unsent. */
	for (size_t n = 1; n > 0; sent += n)
		n = chardev_write(old_link, block, 64 << 10);
	chardev_write_all(old_link, block, 64 << 10);
	sent += 64 << 10;
	chardev_quiesce(old);
	/* Nothing is read from now on: this is for the successor. */
	send_text(client, "input");
	settle();
	g_assert_cmpstr(old_r->got->str, ==, "");

	store = hand_over(&f->fds);
	new_fds.inherited = store;
	new = open_chardev(&f->config, &new_fds);
	new_link = attach(new, new_r);
	g_assert_true(fdstore_finish(store, NULL, NULL, NULL));
	say(new_link, "new");
	carry_state(old, new);
	chardev_disown(old);
	chardev_free(old);
	g_assert_true(g_file_test(f->path, G_FILE_TEST_EXISTS));
	settle();
	g_assert_cmpstr(new_r->events->str, ==, "");

	chardev_resume(new);
	g_assert_cmpstr(new_r->events->str, ==, "O");
	WAIT_FOR(new_r->got->len == 5);
	g_assert_cmpstr(new_r->got->str, ==, "input");
	g_assert_cmpint(fcntl(client, F_SETFL, O_NONBLOCK), ==, 0);
	for (size_t have = 0; have < sent + 3;) {
		ssize_t n = read(client, back + have, (8 << 20) - have);

		if (n > 0)
			have += n;
		else
			g_assert_true(n < 0 && errno == EAGAIN);
		g_main_context_iteration(NULL, FALSE);
		g_assert_cmpuint(have, <=, sent + 3);
	}
	for (size_t i = 0; i < sent; i++)
		g_assert_cmpint(back[i], ==, 'o');
	g_assert_cmpint(memcmp(back + sent, "new", 3), ==, 0);

	/* The listener works on, and its path goes with the last owner. */
	fd_close(&client);
	WAIT_FOR(g_str_equal(new_r->events->str, "OC"));
	client = connect_unix(f->path);
	WAIT_FOR(g_str_equal(new_r->events->str, "OCO"));
	chardev_free(g_steal_pointer(&new));
	g_assert_false(g_file_test(f->path, G_FILE_TEST_EXISTS));
	fd_source_clear(&new_fds);
	fdstore_free(store);
}

static void test_rollback(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) old_r = recorder_new(100);
	autoptr(recorder) new_r = recorder_new(100);
	autoptr(chardev) old = open_chardev(&f->config, &f->fds);
	struct fd_source new_fds = {0};
	struct chardev *new;
	autofd int client = connect_unix(f->path);
	struct fdstore *store;

	attach(old, old_r);
	chardev_resume(old);
	WAIT_FOR(old_r->events->len == 1);
	chardev_quiesce(old);
	store = hand_over(&f->fds);
	new_fds.inherited = store;
	new = open_chardev(&f->config, &new_fds);
	attach(new, new_r);
	send_text(client, "input");
	chardev_free(new);
	fdstore_free(store);
	fd_source_clear(&new_fds);
	g_assert_true(g_file_test(f->path, G_FILE_TEST_EXISTS));
	chardev_resume(old);
	WAIT_FOR(old_r->got->len == 5);
	g_assert_cmpstr(old_r->events->str, ==, "O");
}

static void test_reopen_on_cpr(struct fixture *f, gconstpointer data)
{
	autoptr(chardev) c = NULL;
	struct fdstore *store;

	f->config.reopen_on_cpr = true;
	c = open_chardev(&f->config, &f->fds);
	store = hand_over(&f->fds);
	/* Not as the chardev's own, which would cross to another process, too. */
	g_assert_cmpuint(fdstore_count(store), ==, 1);
	g_assert_nonnull(fdstore_find(store, "reopen/ser/listener"));
	g_assert_null(chardev_reopening_new(c));
	fdstore_free(store);
}

/* A client is connected a second time, while the first connection goes on. */
static void test_client_reopens(struct fixture *f, gconstpointer data)
{
	autofd int listener = file_make_socket(f->path, false, NULL, NULL), first = -1, second = -1,
		   taken = -1;
	autoptr(chardev) c = NULL;
	struct chardev_reopening *r;
	struct fdstore *store = fdstore_new();

	g_assert_cmpint(listen(listener, 2), ==, 0);
	g_assert_true(fd_set_nonblock(listener, false));
	f->config.server = false;
	f->config.reopen_on_cpr = true;
	c = open_chardev(&f->config, &f->fds);
	first = accept(listener, NULL, NULL);
	r = chardev_reopening_new(c);
	g_assert_true(chardev_reopening_connect(r, NULL));
	second = accept(listener, NULL, NULL);
	g_assert_true(chardev_reopening_offer(r, store, NULL));
	taken = fdstore_take(store, "reopen/ser/connection", FD_STREAM, NULL);
	g_assert_cmpint(write(taken, "x", 1), ==, 1);
	chardev_reopening_free(r);
	fdstore_free(store);
	fd_close(&taken);
	WAIT_FOR(recv(second, &(char){0}, 1, MSG_DONTWAIT | MSG_PEEK) == 1);
	g_assert_cmpint(recv(first, &(char){0}, 1, MSG_DONTWAIT), ==, -1);
}

static gboolean count_turn(void *opaque)
{
	(*(unsigned int *)opaque)++;
	return G_SOURCE_CONTINUE;
}

/* Without a descriptor left accept() is not tried at every turn, and works when there is one again. */
static void test_no_descriptors(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) r = recorder_new(100);
	autoptr(chardev) c = open_chardev(&f->config, &f->fds);
	unsigned int n_turns = 0, n_rounds = 0;
	guint turns = g_timeout_add(20, count_turn, &n_turns);
	struct rlimit limit, none;
	autofd int client = -1;
	int free_fd;

	attach(c, r);
	chardev_resume(c);
	client = connect_unix(f->path);
	g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
	none = limit;
	/* The lowest free number is the first that may not be used. */
	free_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(free_fd);
	none.rlim_cur = free_fd;
	g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
	WAIT_FOR((n_rounds++, n_turns) >= 50);
	/* A second of it, in which the loop was woken by little else than the test's timer. */
	g_assert_cmpuint(n_rounds, <, 3 * 50);
	g_assert_cmpstr(r->events->str, ==, "");
	g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
	WAIT_FOR(r->events->len == 1);
	g_source_remove(turns);
}

/* A name that does not resolve any more is no reason: the connection is there. */
static void test_inherited_name(struct fixture *f, gconstpointer data)
{
	struct chardev_config config = {.kind = CHARDEV_SOCKET,
					.id = (char *)"ser",
					.host = (char *)"no-such-host.invalid",
					.port = (char *)"1"};
	struct fd_source fds = {0};
	struct chardev *c;
	g_autoptr(GError) error = NULL;
	int ends[2];

	g_assert_null(chardev_new(&config, &f->fds, &error));
	g_assert_nonnull(strstr(error->message, "cannot connect to 'no-such-host.invalid:1'"));
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), ==, 0);
	fds.inherited = fdstore_new();
	g_assert_true(
		fdstore_add(fds.inherited, "chardev/ser/connection", FD_STREAM, ends[1], NULL));
	c = open_chardev(&config, &fds);
	chardev_free(c);
	fdstore_free(fds.inherited);
	fd_source_clear(&fds);
	close(ends[0]);
	close(ends[1]);
}

/* What the successor's configuration says leads elsewhere is opened there, and only there. */
static void test_moved(struct fixture *f, gconstpointer data)
{
	autoptr(recorder) r = recorder_new(100);
	struct chardev *old = open_chardev(&f->config, &f->fds);
	g_autofree char *path = g_strconcat(f->path, "2", NULL);
	struct chardev_config config = f->config;
	struct fd_source fds = {0};
	autofd int client = -1;
	struct chardev *new;

	chardev_resume(old);
	chardev_quiesce(old);
	fds.inherited = hand_over(&f->fds);
	fds.complete = true;
	config.path = path;
	config.moved = true;
	config.wait = true;
	new = open_chardev(&config, &fds);
	attach(new, r);
	chardev_disown(old);
	chardev_resume(new);
	client = connect_unix(path);
	WAIT_FOR(r->events->len == 1);
	g_assert_false(fdstore_finish(fds.inherited, NULL, NULL, NULL));
	chardev_free(old);
	chardev_free(new);
	fdstore_free(fds.inherited);
	fd_source_clear(&fds);
}

#define TEST(path_, fn_) g_test_add(path_, struct fixture, NULL, setup, fn_, teardown)

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	g_test_init(&argc, &argv, NULL);
	TEST("/chardev/socket/server", test_server);
	TEST("/chardev/socket/one-at-a-time", test_one_at_a_time);
	TEST("/chardev/socket/flow-control", test_flow_control);
	TEST("/chardev/socket/slow-reader", test_slow_reader);
	TEST("/chardev/socket/half-close", test_reply_after_half_close);
	TEST("/chardev/socket/reconnect", test_client_reconnects);
	TEST("/chardev/socket/no-server", test_client_without_server);
	TEST("/chardev/socket/tcp", test_tcp);
	TEST("/chardev/socket/path-in-use", test_path_in_use);
	TEST("/chardev/socket/long-path", test_long_path);
	TEST("/chardev/socket/takeover", test_takeover);
	TEST("/chardev/socket/rollback", test_rollback);
	TEST("/chardev/socket/reopen-on-cpr", test_reopen_on_cpr);
	TEST("/chardev/socket/client-reopens", test_client_reopens);
	TEST("/chardev/socket/no-descriptors", test_no_descriptors);
	TEST("/chardev/socket/inherited-name", test_inherited_name);
	TEST("/chardev/socket/moved", test_moved);
	return g_test_run();
}
