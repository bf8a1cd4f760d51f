// Help texts: every row of the option table in --help and the manual page, properties on demand.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "options/command_line.h"
#include "options/parse.h"

static bool fake_device_help(const char *driver, GString *out, GError **error)
{
	if (g_strcmp0(driver, "bad") == 0) {
		g_set_error(error, g_quark_from_static_string("test"), 0, "-device bad: no driver");
		return false;
	}
	g_string_append_printf(out, "device help: %s\n", driver ? driver : "all");
	return true;
}

/* What "molt @option @value" prints, NULL where that is an error. */
static char *print(const char *option, const char *value, GError **error)
{
	struct command_line_action action = {.device_help = fake_device_help};
	char *argv[] = {(char *)"molt", (char *)"-S", (char *)option, (char *)value, NULL};

	g_assert_null(command_line_parse(value ? 4 : 3, argv, &action, error));
	g_assert_true((action.text != NULL) == (action.verb == COMMAND_LINE_PRINT));
	return action.text;
}

static void test_every_row(void)
{
	static const char *const spellings[] = {"-h", "-help", "--help"};
	g_autofree char *man = print("--help-man", NULL, NULL);

	for (size_t i = 0; i < G_N_ELEMENTS(spellings); i++) {
		g_autofree char *help = print(spellings[i], NULL, NULL);

		for (const struct option *o = option_table; o->name; o++) {
			g_autofree char *line = g_strdup_printf("\n  %s", o->name);
			g_auto(GStrv) parts = g_strsplit(o->name, "-", -1);
			g_autofree char *escaped = g_strjoinv("\\-", parts);
			g_autofree char *roff = g_strdup_printf("\n.B %s", escaped);

			g_assert_nonnull(strstr(help, line));
			g_assert_nonnull(strstr(man, roff));
			g_assert_true(!o->argument || strstr(help, o->argument));
			g_assert_nonnull(o->parse);
			g_assert_true(!o->keyval || o->props || o->explain);
		}
		g_assert_nonnull(strstr(help, "Examples:\n"));
	}
}

static void test_layout(void)
{
	g_autofree char *help = print("-help", NULL, NULL);
	g_auto(GStrv) lines = g_strsplit(help, "\n", -1);

	for (char **line = lines; *line; line++) {
		size_t len = strlen(*line);

		g_assert_cmpuint(len, <=, 90);
		g_assert_true(len == 0 || (*line)[len - 1] != ' ');
	}
}

static void test_version(void)
{
	g_autofree char *one = print("-version", NULL, NULL);
	g_autofree char *two = print("--version", NULL, NULL);

	g_assert_cmpstr(one, ==, "molt " MOLT_VERSION "\n");
	g_assert_cmpstr(one, ==, two);
}

static void test_properties(void)
{
	static const struct {
		const char *option, *value, *expect;
	} cases[] = {
		{"-machine", "help", "aux-ram-share=on|off"},
		{"-machine", "help", "  q35 "},
		{"-M", "q35,help", "memory-backend=<text>"},
		{"-accel", "help", "accel=kvm"},
		{"-cpu", "help", "  host "},
		{"-smp", "help", "threads=<number>"},
		{"-m", "help", "size=<text>"},
		{"-name", "help", "process=<text>"},
		{"-rtc", "help", "base=utc|localtime"},
		{"-action", "help", "reboot=reset|shutdown"},
		{"-boot", "help", "menu=off"},
		{"-object", "help", "memory-backend-file"},
		{"-object", "help", "iothread"},
		{"-object", "memory-backend-memfd,help", "hugetlbsize=<size>"},
		{"-object", "rng-random,help", "filename=<text>"},
		{"-chardev", "help", "ringbuf"},
		{"-chardev", "?", "ringbuf"},
		{"-chardev", "socket,help", "reconnect-ms=<number>"},
		{"-drive", "help", "if=virtio|none"},
		{"-blockdev", "help", "host_device"},
		{"-blockdev", "raw,help", "file=<node>"},
		{"-blockdev", "file,help", "locking=on|off|auto"},
		{"-mon", "help", "mode=readline|control"},
		{"-device", "help", "device help: all\n"},
		{"-device", "virtio-blk-pci,help", "device help: virtio-blk-pci\n"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;
		g_autofree char *text = print(cases[i].option, cases[i].value, &error);

		g_assert_no_error(error);
		g_test_message("%s %s", cases[i].option, cases[i].value);
		g_assert_nonnull(strstr(text, cases[i].expect));
	}
}

static void test_unknown_kinds(void)
{
	static const struct {
		const char *option, *value, *message;
	} cases[] = {
		{"-chardev", "vc,help",
		 "-chardev vc,help: 'vc' is not available; give one of: null"},
		{"-object", "tls,help", "-object tls,help: 'tls' is not available"},
		{"-blockdev", "nbd,help", "-blockdev nbd,help: 'nbd' is not available"},
		{"-device", "bad,help", "-device bad: no driver"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;

		g_assert_null(print(cases[i].option, cases[i].value, &error));
		g_assert_nonnull(strstr(error->message, cases[i].message));
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/options/help/every-row", test_every_row);
	g_test_add_func("/options/help/layout", test_layout);
	g_test_add_func("/options/help/version", test_version);
	g_test_add_func("/options/help/properties", test_properties);
	g_test_add_func("/options/help/unknown-kinds", test_unknown_kinds);
	return g_test_run();
}
