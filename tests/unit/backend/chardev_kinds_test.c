// Chardev kinds that are not sockets, and the multiplexer.
// SPDX-License-Identifier: Apache-2.0
#include "chardev_util.h"

#include <pty.h>
#include <termios.h>

#include "state/state.h"

static void test_file(void)
{
	char *dir = scratch_dir_new();
	g_autofree char *out = g_build_filename(dir, "out", NULL);
	g_autofree char *in = g_build_filename(dir, "in", NULL);
	g_autofree char *log = g_build_filename(dir, "log", NULL);
	g_autofree char *content = NULL;
	struct chardev_config config = {.kind = CHARDEV_FILE,
					.id = (char *)"f",
					.path = out,
					.in_path = in,
					.logfile = log};
	autoptr(recorder) r = recorder_new(100);
	struct chardev *c;

	g_assert_true(g_file_set_contents(out, "before", -1, NULL));
	g_assert_true(g_file_set_contents(in, "from a file", -1, NULL));
	c = open_chardev(&config, NULL);
	chardev_resume(c);
	say(attach(c, r), "one ");
	WAIT_FOR(r->got->len == 11);
	g_assert_cmpstr(r->got->str, ==, "from a file");
	g_assert_cmpstr(chardev_filename(c), ==, "file");
	chardev_free(c);
	config.append = true;
	config.logappend = true;
	c = open_chardev(&config, NULL);
	chardev_resume(c);
	say(attach(c, r), "two");
	chardev_free(c);
	g_assert_true(g_file_get_contents(out, &content, NULL, NULL));
	g_assert_cmpstr(content, ==, "one two");
	g_clear_pointer(&content, g_free);
	g_assert_true(g_file_get_contents(log, &content, NULL, NULL));
	g_assert_cmpstr(content, ==, "one two");
	scratch_dir_free(dir);
}

/* A successor goes on where the file offset is, with what was not written yet. */
static void test_file_takeover(void)
{
	char *dir = scratch_dir_new();
	g_autofree char *out = g_build_filename(dir, "out", NULL);
	g_autofree char *content = NULL;
	struct chardev_config config = {.kind = CHARDEV_FILE, .id = (char *)"f", .path = out};
	autoptr(recorder) r = recorder_new(100);
	struct fd_source fds = {0}, new_fds = {0};
	struct chardev *old = open_chardev(&config, &fds);
	g_autoptr(GByteArray) wire = g_byte_array_new();
	struct chardev *new;

	chardev_resume(old);
	say(attach(old, r), "old ");
	chardev_quiesce(old);
	new_fds.inherited = hand_over(&fds);
	new = open_chardev(&config, &new_fds);
	g_assert_true(state_save(&chardev_state_desc, chardev_state(old), wire, NULL));
	g_assert_true(state_load(&chardev_state_desc, span_of(wire->data, wire->len), NULL,
				 chardev_state(new), NULL));
	chardev_disown(old);
	chardev_resume(new);
	say(attach(new, r), "new");
	chardev_free(old);
	chardev_free(new);
	g_assert_true(g_file_get_contents(out, &content, NULL, NULL));
	g_assert_cmpstr(content, ==, "old new");
	fdstore_free(new_fds.inherited);
	fd_source_clear(&fds);
	fd_source_clear(&new_fds);
	scratch_dir_free(dir);
}

static void test_pipe(void)
{
	char *dir = scratch_dir_new();
	g_autofree char *path = g_build_filename(dir, "p", NULL);
	g_autofree char *in = g_strconcat(path, ".in", NULL);
	g_autofree char *out = g_strconcat(path, ".out", NULL);
	struct chardev_config config = {.kind = CHARDEV_PIPE, .id = (char *)"p", .path = path};
	autoptr(recorder) r = recorder_new(100);
	g_autoptr(GError) error = NULL;
	autofd int to = -1;
	autofd int from = -1;
	struct chardev *c;

	g_assert_null(chardev_new(&config, NULL, &error));
	g_assert_nonnull(strstr(error->message, "No such file"));
	g_assert_cmpint(mkfifo(in, 0600), ==, 0);
	g_assert_cmpint(mkfifo(out, 0600), ==, 0);
	c = open_chardev(&config, NULL);
	chardev_resume(c);
	say(attach(c, r), "out");
	to = open(in, O_WRONLY);
	from = open(out, O_RDONLY);
	send_text(to, "in");
	expect_read(from, "out");
	WAIT_FOR(r->got->len == 2);
	fd_close(&to);
	settle();
	to = open(in, O_WRONLY);
	send_text(to, "more");
	WAIT_FOR(r->got->len == 6);
	chardev_free(c);
	scratch_dir_free(dir);
}

static int open_slave(struct chardev *c)
{
	const char *name = chardev_filename(c);

	g_assert_true(g_str_has_prefix(name, "pty:/dev/pts/"));
	return open(name + 4, O_RDWR | O_NOCTTY | O_NONBLOCK);
}

static void test_pty(void)
{
	struct chardev_config config = {.kind = CHARDEV_PTY, .id = (char *)"tty"};
	struct fd_source fds = {0}, new_fds = {0};
	autoptr(recorder) r = recorder_new(100);
	autoptr(recorder) new_r = recorder_new(100);
	struct chardev *c = open_chardev(&config, &fds);
	struct chardev_link *link = attach(c, r);
	g_autofree char *name = g_strdup(chardev_filename(c));
	struct chardev *new;
	autofd int slave = -1;

	chardev_resume(c);
	settle();
	g_assert_cmpstr(r->events->str, ==, "");
	g_assert_true(chardev_link_is_terminal(link));
	slave = open_slave(c);
	g_assert_cmpint(slave, >=, 0);
	WAIT_FOR(r->events->len == 1);
	say(link, "hello\n");
	expect_read(slave, "hello\n");
	send_text(slave, "x\r");
	WAIT_FOR(r->got->len == 2);
	g_assert_cmpstr(r->got->str, ==, "x\r");
	fd_close(&slave);
	WAIT_FOR(r->events->len == 2);
	g_assert_cmpstr(r->events->str, ==, "OC");
	/* What somebody left who has closed it again is input all the same. */
	slave = open_slave(c);
	send_text(slave, "left");
	fd_close(&slave);
	WAIT_FOR(r->got->len == 6);

	slave = open_slave(c);
	WAIT_FOR(r->events->str[r->events->len - 1] == 'O');
	chardev_quiesce(c);
	send_text(slave, "for new");
	new_fds.inherited = hand_over(&fds);
	new = open_chardev(&config, &new_fds);
	attach(new, new_r);
	chardev_disown(c);
	chardev_free(c);
	chardev_resume(new);
	g_assert_cmpstr(chardev_filename(new), ==, name);
	WAIT_FOR(new_r->got->len == 7);
	g_assert_cmpstr(new_r->events->str, ==, "O");
	chardev_free(new);
	fdstore_free(new_fds.inherited);
	fd_source_clear(&fds);
	fd_source_clear(&new_fds);
}

static bool is_raw(int fd)
{
	struct termios modes;

	g_assert_cmpint(tcgetattr(fd, &modes), ==, 0);
	return !(modes.c_lflag & (ICANON | ECHO));
}

/* Standard input and output become a terminal for the test, and come back after it. */
static void test_stdio(void)
{
	struct chardev_config config = {.kind = CHARDEV_STDIO, .id = (char *)"io", .signal = true};
	autoptr(recorder) r = recorder_new(100);
	autofd int saved_in = dup(STDIN_FILENO);
	autofd int saved_out = dup(STDOUT_FILENO);
	autofd int master = -1;
	autofd int slave = -1;
	struct fd_source fds = {0}, new_fds = {0};
	struct chardev *c, *new;

	g_assert_cmpint(openpty(&master, &slave, NULL, NULL, NULL), ==, 0);
	dup2(slave, STDIN_FILENO);
	dup2(slave, STDOUT_FILENO);
	c = open_chardev(&config, &fds);
	g_assert_true(is_raw(slave));
	g_assert_false(fcntl(slave, F_GETFL) & O_NONBLOCK);
	chardev_resume(c);
	say(attach(c, r), "prompt");
	expect_read(master, "prompt");
	send_text(master, "k");
	WAIT_FOR(r->got->len == 1);
	chardev_quiesce(c);

	/* A successor that fails leaves the terminal as it is. */
	new_fds.inherited = hand_over(&fds);
	new = open_chardev(&config, &new_fds);
	chardev_free(new);
	g_assert_true(is_raw(slave));
	fdstore_free(new_fds.inherited);
	fd_source_clear(&new_fds);

	/* One that succeeds restores what its predecessor found. */
	new_fds.inherited = hand_over(&fds);
	new = open_chardev(&config, &new_fds);
	{
		g_autoptr(GByteArray) wire = g_byte_array_new();

		g_assert_true(state_save(&chardev_state_desc, chardev_state(c), wire, NULL));
		g_assert_true(state_load(&chardev_state_desc, span_of(wire->data, wire->len), NULL,
					 chardev_state(new), NULL));
	}
	chardev_disown(c);
	chardev_free(c);
	g_assert_true(is_raw(slave));
	chardev_resume(new);
	chardev_free(new);
	g_assert_false(is_raw(slave));
	fdstore_free(new_fds.inherited);
	fd_source_clear(&fds);
	fd_source_clear(&new_fds);
	dup2(saved_in, STDIN_FILENO);
	dup2(saved_out, STDOUT_FILENO);
}

static void test_ringbuf(void)
{
	struct chardev_config config = {
		.kind = CHARDEV_RINGBUF, .id = (char *)"r", .size_bytes = 8};
	autoptr(recorder) r = recorder_new(100);
	autoptr(chardev) c = open_chardev(&config, NULL);
	autoptr(chardev) null = NULL;
	g_autoptr(GByteArray) got = NULL;
	g_autoptr(GError) error = NULL;

	say(attach(c, r), "0123456789");
	got = chardev_ringbuf_read(c, 5, &error);
	g_assert_cmpmem(got->data, got->len, "23456", 5);
	g_assert_true(chardev_ringbuf_write(c, (const uint8_t *)"ab", 2, &error));
	g_byte_array_unref(got);
	got = chardev_ringbuf_read(c, 100, &error);
	g_assert_cmpmem(got->data, got->len, "789ab", 5);
	g_assert_false(chardev_preservable(c, &error));
	g_assert_cmpstr(error->message, ==,
			"chardev r -> ringbuf is not capable of cpr. See reopen-on-cpr");
	g_clear_error(&error);
	config = (struct chardev_config){.kind = CHARDEV_NULL, .id = (char *)"n"};
	null = open_chardev(&config, NULL);
	g_assert_true(chardev_preservable(null, &error));
	g_assert_null(chardev_ringbuf_read(null, 1, &error));
	g_assert_cmpstr(error->message, ==, "n is not a ringbuf device");
	g_clear_error(&error);
	config = (struct chardev_config){
		.kind = CHARDEV_RINGBUF, .id = (char *)"r", .size_bytes = 9};
	g_assert_null(chardev_new(&config, NULL, &error));
	g_assert_cmpstr(error->message, ==, "chardev 'r': size must be a power of two");
}

static void quit_noted(void *opaque)
{
	*(bool *)opaque = true;
}

static void test_mux(void)
{
	char *dir = scratch_dir_new();
	g_autofree char *path = g_build_filename(dir, "s", NULL);
	struct chardev_config config = {.kind = CHARDEV_SOCKET,
					.id = (char *)"m",
					.path = path,
					.server = true,
					.mux = true};
	autoptr(recorder) a = recorder_new(3);
	autoptr(recorder) b = recorder_new(100);
	struct fd_source fds = {0}, new_fds = {0};
	struct chardev *c = open_chardev(&config, &fds);
	struct chardev_link *link_a = attach(c, a);
	struct chardev_link *link_b = attach(c, b);
	g_autoptr(GByteArray) wire = g_byte_array_new();
	struct chardev *new;
	bool quit = false;
	autofd int client = connect_unix(path);

	chardev_on_quit(c, quit_noted, &quit);
	chardev_resume(c);
	WAIT_FOR(a->events->len == 1 && b->events->len == 1);
	/* A frontend that takes nothing more does not lock the person out. */
	send_text(client, "12345\001cfor b\001\001\001b");
	WAIT_FOR(b->got->len == 6);
	g_assert_cmpstr(a->got->str, ==, "123");
	g_assert_cmpstr(b->got->str, ==, "for b\001");
	WAIT_FOR(g_str_equal(b->events->str, "OIB"));
	g_assert_cmpstr(a->events->str, ==, "OU");
	say(link_a, "A");
	say(link_b, "B");
	expect_read(client, "AB");
	send_text(client, "\001h");
	expect_read(client, "\r\nCtrl-A h ");
	send_text(client, "\001x");
	WAIT_FOR(quit);
	a->room = 1;
	chardev_accept_input(link_a);
	WAIT_FOR(a->got->len == 4);

	/* Focus, half an escape and what was typed ahead cross an update. */
	send_text(client, "\001");
	settle();
	chardev_quiesce(c);
	g_assert_true(state_save(&chardev_state_desc, chardev_state(c), wire, NULL));
	new_fds.inherited = hand_over(&fds);
	new = open_chardev(&config, &new_fds);
	g_assert_true(state_load(&chardev_state_desc, span_of(wire->data, wire->len), NULL,
				 chardev_state(new), NULL));
	chardev_disown(c);
	chardev_free(c);
	a->room = 100;
	attach(new, a);
	attach(new, b);
	chardev_resume(new);
	WAIT_FOR(a->got->len == 5);
	g_assert_cmpstr(a->got->str, ==, "12345");
	send_text(client, "cto a");
	WAIT_FOR(a->got->len == 9);
	g_assert_cmpstr(a->got->str, ==, "12345to a");
	chardev_free(new);
	fdstore_free(new_fds.inherited);
	fd_source_clear(&fds);
	fd_source_clear(&new_fds);
	scratch_dir_free(dir);
}

static void test_one_frontend(void)
{
	struct chardev_config config = {.kind = CHARDEV_NULL, .id = (char *)"n"};
	autoptr(recorder) r = recorder_new(1);
	autoptr(chardev) c = open_chardev(&config, NULL);
	struct chardev_link *link = attach(c, r);
	g_autoptr(GError) error = NULL;

	g_assert_true(chardev_frontend_open(c));
	g_assert_null(chardev_attach(c, &recorder_frontend, r, &error));
	g_assert_nonnull(strstr(error->message, "'n' is in use; with mux=on"));
	chardev_detach(link);
	g_assert_false(chardev_frontend_open(c));
}

/* What attaches to a chardev that runs does not have its link while it attaches: told later. */
static void test_attach_is_silent(void)
{
	struct chardev_config config = {.kind = CHARDEV_NULL, .id = (char *)"n", .mux = true};
	autoptr(recorder) early = recorder_new(1);
	autoptr(recorder) late = recorder_new(1);
	autoptr(chardev) c = open_chardev(&config, NULL);

	attach(c, early);
	g_assert_cmpstr(early->events->str, ==, "");
	chardev_resume(c);
	g_assert_cmpstr(early->events->str, ==, "O");
	attach(c, late);
	g_assert_cmpstr(late->events->str, ==, "");
	settle();
	g_assert_cmpstr(late->events->str, ==, "O");
	g_assert_cmpstr(early->events->str, ==, "O");
}

/* What is no terminal has no settings, which is no reason to refuse it. */
static void test_serial_null(void)
{
	struct chardev_config config = {
		.kind = CHARDEV_SERIAL, .id = (char *)"s", .path = (char *)"/dev/null"};
	autoptr(recorder) r = recorder_new(1);
	autoptr(chardev) c = open_chardev(&config, NULL);
	struct chardev_link *link = attach(c, r);

	chardev_resume(c);
	g_assert_false(chardev_link_is_terminal(link));
	say(link, "gone");
	settle();
	g_assert_cmpstr(r->events->str, ==, "O");
}

static void test_state_is_described(void)
{
	g_autoptr(GError) error = NULL;

	g_assert_true(state_desc_lint(&chardev_state_desc, &error));
	g_assert_no_error(error);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/chardev/file", test_file);
	g_test_add_func("/chardev/file-takeover", test_file_takeover);
	g_test_add_func("/chardev/pipe", test_pipe);
	g_test_add_func("/chardev/pty", needs_pty(test_pty));
	g_test_add_func("/chardev/stdio", needs_pty(test_stdio));
	g_test_add_func("/chardev/ringbuf", test_ringbuf);
	g_test_add_func("/chardev/mux", test_mux);
	g_test_add_func("/chardev/one-frontend", test_one_frontend);
	g_test_add_func("/chardev/attach-is-silent", test_attach_is_silent);
	g_test_add_func("/chardev/serial-null", test_serial_null);
	g_test_add_func("/chardev/state", test_state_is_described);
	return g_test_run();
}
