// HMP as people and their scripts see it.
// SPDX-License-Identifier: Apache-2.0
#include "monitor_util.h"

#include "monitor/hmp.h"

#define BANNER "molt " MOLT_VERSION " monitor - type 'help' for more information\r\n(qemu) "

/* What @line prints, newlines as they are before they become CR LF. */
static char *run(struct bed *bed, const char *line)
{
	GString *out = g_string_new(NULL);

	hmp_run_line(bed->monitors, line, out);
	return g_string_free(out, FALSE);
}

static void expect(struct bed *bed, const char *line, const char *output)
{
	g_autofree char *got = run(bed, line);

	g_assert_cmpstr(got, ==, output);
}

/* @line leads to this call of the update front. */
static void expect_call(struct bed *bed, const char *line, const char *call)
{
	g_string_truncate(bed->update->calls, 0);
	expect(bed, line, "");
	g_assert_cmpstr(bed->update->calls->str, ==, call);
}

static void test_session(void)
{
	struct bed bed;
	struct client c;
	g_autofree char *banner = NULL;
	g_autofree char *status = NULL;

	bed_init(&bed, true);
	client_init(&c, &bed, "hmp0");
	banner = client_until(&c, "(qemu) ");
	g_assert_cmpstr(banner, ==, BANNER);
	client_say(&c, "info status\r\n");
	status = client_until(&c, "(qemu) ");
	g_assert_cmpstr(status, ==, "VM status: running\r\n(qemu) ");
	client_say(&c, "\n  \nx\n");
	g_free(client_until(&c, "(qemu) (qemu) unknown command: 'x'\r\n(qemu) "));
	client_nothing(&c);
	client_say(&c, "quit\n");
	WAIT_FOR(bed.quit);
	client_clear(&c);
	bed_clear(&bed);
}

static void test_output(void)
{
	struct bed bed;
	g_autofree char *chardevs = NULL;

	bed_init(&bed, true);
	bed.update->runstate = RUNSTATE_INMIGRATE;
	expect(&bed, "info status", "VM status: paused (inmigrate)\n");
	bed.update->runstate = RUNSTATE_PAUSED;
	expect(&bed, "info status", "VM status: paused\n");
	expect(&bed, "info version", "10.2.0 (molt-" MOLT_VERSION ")\n");
	expect(&bed, "info name", "");
	expect(&bed, "info uuid", "00000000-0000-0000-0000-000000000000\n");
	expect(&bed, "info kvm", "kvm support: enabled\n");
	expect(&bed, "info cpus", "* CPU #0: thread_id=1000\n");
	chardevs = run(&bed, "info chardev");
	g_assert_true(g_str_has_prefix(chardevs, "qmp0: filename=disconnected:unix:"));
	expect(&bed, "info migrate_capabilities", "events: on\n");
	expect(&bed, "info migrate_parameters",
	       "mode: cpr-exec\nmax-bandwidth: 1 bytes/second\ncpr-exec-command: a b c\n"
	       "direct-io: off\ntls-creds: ''\n");
	expect(&bed, "info migrate", "Status: \t\tcompleted\ndowntime: 7 ms\n");
	bed.update->error_desc = "no room";
	expect(&bed, "info migrate", "Status: \t\tfailed (no room)\n");
	expect(&bed, "info nonsense", "unknown command: 'info nonsense'\n");
	bed_clear(&bed);
}

static void test_arguments(void)
{
	struct bed bed;

	bed_init(&bed, true);
	expect_call(&bed, "migrate -d unix:/x", "migrate({\"uri\":\"unix:/x\"});");
	expect_call(&bed, "migrate -d -r \"file:/a \\\"b\"",
		    "migrate({\"resume\":true,\"uri\":\"file:/a \\\"b\"});");
	expect_call(&bed, "migrate -r -d u", "migrate({\"resume\":true,\"uri\":\"u\"});");
	expect(&bed, "migrate", "Error: migrate: uri expected\n");
	expect(&bed, "migrate \"x", "Error: migrate: unterminated string\n");
	expect(&bed, "migrate a b", "Error: migrate: extraneous characters at the end of line\n");
	expect_call(&bed, "migrate_incoming tcp:0:44444", "incoming({\"uri\":\"tcp:0:44444\"});");
	expect_call(&bed, "device_add virtio-rng-pci,id=a,addr=0x3",
		    "device_add({\"addr\":\"0x3\",\"driver\":\"virtio-rng-pci\",\"id\":\"a\"});");
	expect_call(&bed, "device_del a", "device_del({\"id\":\"a\"});");
	expect(&bed, "block_resize d0 20x", "Error: '20x' is no size\n");
	expect(&bed, "block_resize d0", "Error: block_resize: size expected\n");
	expect(&bed, "block_resize d0 2G", "Error: Device 'd0' not found\n");
	expect(&bed, "device_add", "Error: device_add: device expected\n");
	expect(&bed, "device_add id=a", "Error: Parameter 'driver' is missing\n");
	expect(&bed, "device_del", "Error: device_del: id expected\n");
	expect_call(&bed, "migrate_cancel", "cancel();");
	expect_call(&bed, "migrate_set_parameter mode cpr-exec",
		    "parameters({\"mode\":\"cpr-exec\"});");
	expect_call(&bed, "migrate_set_parameter cpr-exec-args molt -m 1G 'a b' -incoming defer",
		    "parameters({\"cpr-exec-args\":[\"molt\",\"-m\",\"1G\",\"a b\",\"-incoming\","
		    "\"defer\"]});");
	expect_call(&bed, "migrate_set_parameter max-bandwidth 2",
		    "parameters({\"max-bandwidth\":2097152});");
	expect_call(&bed, "migrate_set_parameter downtime-limit 100",
		    "parameters({\"downtime-limit\":100});");
	expect_call(&bed, "migrate_set_parameter cpr-exec-command",
		    "parameters({\"cpr-exec-command\":[]});");
	expect(&bed, "migrate_set_parameter mode nonsense",
	       "Error: Parameter 'mode' does not accept value 'nonsense'\n");
	expect(&bed, "migrate_set_parameter nonsense 1",
	       "Error: Parameter 'nonsense' is unexpected\n");
	expect(&bed, "migrate_set_parameter downtime-limit much",
	       "Error: Parameter 'downtime-limit' expects a number\n");
	expect(&bed, "migrate_set_parameter cpr-exec-command a 'b",
	       "Error: Text ended before matching quote was found for '. (The text was “a 'b”)\n");
	expect_call(&bed, "migrate_set_capability events on",
		    "capabilities([{\"capability\":\"events\",\"state\":true}]);");
	expect(&bed, "migrate_set_capability events maybe",
	       "Error: migrate_set_capability: 'maybe' is neither 'on' nor 'off'\n");
	expect_call(&bed, "c", "cont();");
	expect_call(&bed, "s", "stop();");
	expect_call(&bed, "system_reset", "reset();");
	bed.update->fail = "no";
	g_string_truncate(bed.update->calls, 0);
	expect(&bed, "stop", "Error: no\n");
	bed_clear(&bed);
}

static void test_help(void)
{
	struct bed bed;
	g_autofree char *all = NULL;
	g_autofree char *one = NULL;
	g_autofree char *info = NULL;

	bed_init(&bed, true);
	all = run(&bed, "help");
	g_assert_nonnull(strstr(all, "migrate [-d] [-r] uri -- "));
	g_assert_nonnull(strstr(all, "quit|q -- "));
	g_assert_null(strstr(all, "info status"));
	one = run(&bed, "? stop");
	g_assert_cmpstr(one, ==, "stop|s -- stop the guest\n");
	info = run(&bed, "info");
	g_assert_nonnull(strstr(info, "info status -- "));
	expect(&bed, "help nonsense", "Error: there is no command 'nonsense'\n");
	bed_clear(&bed);
}

/* migrate without -d takes no input until the update has ended. */
static void test_waiting(void)
{
	struct bed bed;
	struct client c;

	bed_init(&bed, true);
	client_init(&c, &bed, "hmp0");
	g_free(client_until(&c, "(qemu) "));
	bed.update->active = true;
	client_say(&c, "migrate file:x\ninfo name\ninfo kvm\n");
	WAIT_FOR(bed.update->calls->len > 0);
	client_nothing(&c);
	bed.update->error_desc = "no room";
	fake_update_ends(bed.update);
	g_free(client_until(&c, "Error: no room\r\n(qemu) (qemu) kvm support: enabled\r\n(qemu) "));
	client_clear(&c);
	bed_clear(&bed);
}

static void test_in_qmp(void)
{
	struct bed bed;
	struct client c;

	bed_init(&bed, true);
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	client_ask(&c,
		   "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"info "
		   "status\"}}",
		   "{\"return\":\"VM status: running\\r\\n\"}");
	client_ask(&c,
		   "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"x\"}}",
		   "{\"return\":\"unknown command: 'x'\\r\\n\"}");
	client_clear(&c);
	bed_clear(&bed);
}

/* As the transcript has it: a banner after the exec, and what was typed is not lost. */
static void test_exec(void)
{
	struct bed old, new;
	struct fdstore *store;
	struct client c;
	g_autofree char *after = NULL;

	bed_init(&old, true);
	client_init(&c, &old, "hmp0");
	g_free(client_until(&c, "(qemu) "));
	client_say(&c, "migrate -d file:x\ninfo na");
	g_free(client_until(&c, "(qemu) "));
	WAIT_FOR(old.update->calls->len > 0);
	settle();
	bed_succeed(&old, &new, &store);
	new.update->config->name = g_strdup("molted");
	monitors_start(new.monitors);
	client_say(&c, "me\n");
	after = client_until(&c, "molted\r\n(qemu) ");
	g_assert_cmpstr(after, ==, BANNER "molted\r\n(qemu) ");
	client_clear(&c);
	bed_clear(&new);
	fdstore_free(store);
	bed_clear(&old);
}

/* On a terminal there is a line editor; shared with a guest, nothing shows before Ctrl-A c. */
static void test_mux_terminal(void)
{
	struct bed bed;
	struct vm_config *config = bed_prepare(&bed, NULL);
	struct chardev_config *tty = g_new0(struct chardev_config, 1);
	struct monitor_config *monitor = g_new0(struct monitor_config, 1);
	struct serial_config *serial = g_new0(struct serial_config, 1);
	autoptr(recorder) guest = recorder_new(100);
	struct chardev *chardev;
	struct client c = {.in = g_string_new(NULL)};
	g_autofree char *screen = NULL;

	tty->kind = CHARDEV_PTY;
	tty->id = g_strdup("tty");
	tty->mux = true;
	monitor->kind = MONITOR_HMP;
	monitor->chardev = g_strdup("tty");
	serial->chardev = g_strdup("tty");
	g_ptr_array_add(config->chardevs, tty);
	g_ptr_array_add(config->monitors, monitor);
	g_ptr_array_add(config->serials, serial);
	bed.update = fake_update_new(config, false);
	bed_open(&bed);
	monitors_start(bed.monitors);
	/* The machine comes later, and brings the shared chardev. */
	chardev = chardev_set_open(bed.update->chardevs, config, "tty", &bed.update->fds, NULL);
	attach(chardev, guest);
	fake_update_machine_appears(bed.update);
	chardev_resume(chardev);
	c.fd = open(chardev_filename(chardev) + strlen("pty:"), O_RDWR | O_NOCTTY | O_NONBLOCK);
	g_assert_cmpint(c.fd, >=, 0);
	client_say(&c, "g");
	WAIT_FOR(guest->got->len == 1);
	client_nothing(&c);
	client_say(&c, "\001cinfo kvn\x7fm\r");
	screen = client_until(&c, "enabled\r\n(qemu) ");
	g_assert_cmpstr(screen, ==,
			"\r\n" BANNER "info kvn\x1b[1D\x1b[Km\r\nkvm support: enabled\r\n(qemu) ");
	client_say(&c, "\001cback");
	WAIT_FOR(guest->got->len == 5);
	client_say(&c, "\001c");
	g_free(client_until(&c, "\r\n(qemu) "));
	client_say(&c, "\001x");
	WAIT_FOR(bed.quit);
	g_assert_cmpstr(bed.quit, ==, "host-ui");
	client_clear(&c);
	g_clear_pointer(&bed.monitors, monitors_free);
	chardev_set_close(bed.update->chardevs, chardev);
	bed_clear(&bed);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/hmp/session", test_session);
	g_test_add_func("/hmp/output", test_output);
	g_test_add_func("/hmp/arguments", test_arguments);
	g_test_add_func("/hmp/help", test_help);
	g_test_add_func("/hmp/waiting", test_waiting);
	g_test_add_func("/hmp/in-qmp", test_in_qmp);
	g_test_add_func("/hmp/exec", test_exec);
	g_test_add_func("/hmp/mux-terminal", needs_pty(test_mux_terminal));
	return g_test_run();
}
