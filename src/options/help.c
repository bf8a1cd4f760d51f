// Help texts and the manual page, all made from the option table and the property tables.
// SPDX-License-Identifier: Apache-2.0
#include "options/parse.h"

#include <string.h>

#include "base/error.h"
#include "options/text.h"

#define HELP_WIDTH  80
#define HELP_INDENT 30
#define SUMMARY	    "virtual machine monitor for KVM that can be replaced under a running guest"

static const char *const topics[TOPIC_COUNT] = {
	[TOPIC_MACHINE] = "Machine",
	[TOPIC_BOOT] = "Boot",
	[TOPIC_OBJECT] = "Objects and devices",
	[TOPIC_DISK] = "Disks",
	[TOPIC_CHARDEV] = "Character devices and consoles",
	[TOPIC_MONITOR] = "Monitors",
	[TOPIC_UPDATE] = "Updates and migration",
	[TOPIC_PROCESS] = "Process",
	[TOPIC_INFO] = "Information",
};

static const struct {
	const char *title;
	const char *command;
} examples[] = {
	{"A Linux guest on the terminal:",
	 "molt -nographic -m 1G -smp 2 -kernel vmlinuz -initrd initrd.img \\\n"
	 "         -append console=ttyS0"},
	{"RAM that survives updates, a disk, console and QMP on sockets:",
	 "molt -object memory-backend-memfd,id=ram0,size=4G \\\n"
	 "         -machine q35,memory-backend=ram0,aux-ram-share=on \\\n"
	 "         -kernel vmlinuz -append \"console=ttyS0 root=/dev/vda\" \\\n"
	 "         -drive file=disk.img,cache=none \\\n"
	 "         -serial unix:/run/vm7/console,server=on,wait=off \\\n"
	 "         -qmp unix:/run/vm7/qmp,server=on,wait=off"},
	{"A successor that takes that VM over, with the description it has there:",
	 "molt -incoming defer -incoming '{\"channel-type\":\"cpr\", \"addr\":\n"
	 "         {\"transport\":\"socket\", \"type\":\"unix\", \"path\":\"/run/vm7/cpr\"}}' \\\n"
	 "         -qmp unix:/run/vm7/qmp-new,server=on,wait=off"},
};

/* Appends @text in words, @column being used on the first line. */
static void append_wrapped(GString *out, const char *text, size_t column, size_t indent)
{
	g_auto(GStrv) words = g_strsplit(text, " ", -1);

	for (char **word = words; *word; word++) {
		size_t len = strlen(*word);

		if (column > indent && column + 1 + len > HELP_WIDTH) {
			g_string_append_printf(out, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			g_string_append_c(out, ' ');
			column++;
		}
		g_string_append(out, *word);
		column += len;
	}
	g_string_append_c(out, '\n');
}

static void append_option(GString *out, const struct option *option)
{
	g_autofree char *synopsis =
		g_strdup_printf("  %s%s%s%s%s", option->name, option->alias ? ", " : "",
				option->alias ? option->alias : "", option->argument ? " " : "",
				option->argument ? option->argument : "");

	if (strlen(synopsis) + 2 > HELP_INDENT)
		g_string_append_printf(out, "%s\n%*s", synopsis, HELP_INDENT, "");
	else
		g_string_append_printf(out, "%-*s", HELP_INDENT, synopsis);
	append_wrapped(out, option->help, HELP_INDENT, HELP_INDENT);
}

void help_text(GString *out)
{
	g_string_append(out, "molt " MOLT_VERSION ": " SUMMARY "\n\nUsage: molt [OPTION...]\n");
	for (enum option_topic topic = 0; topic < TOPIC_COUNT; topic++) {
		g_string_append_printf(out, "\n%s:\n", topics[topic]);
		for (const struct option *o = option_table; o->name; o++)
			if (o->topic == topic)
				append_option(out, o);
	}
	g_string_append(out, "\n-option and --option are the same. -machine help, -object help, "
			     "-object TYPE,help,\n-device help, -device DRIVER,help and so on list "
			     "properties. Sizes take k, M, G, T.\nA comma inside a value is "
			     "written ',,'.\n\nExamples:\n");
	for (size_t i = 0; i < G_N_ELEMENTS(examples); i++)
		g_string_append_printf(out, "  %s\n    %s\n", examples[i].title,
				       examples[i].command);
}

bool explain_kinds(const struct kind_table *kinds, const char *option, const char *kind,
		   GString *out, GError **error)
{
	const struct kind_table *found = kind ? kind_find(kinds, kind) : NULL;
	g_autofree char *shown = text_printable(kind ? kind : "");
	g_autofree char *known = kind_names(kinds);

	if (kind && !found)
		return error_set_generic(error,
					 "%s %s,help: '%s' is not available; give one of: %s",
					 option, shown, shown, known);
	if (found) {
		g_string_append_printf(out, "Properties of %s %s:\n", option, found->name);
		props_help(found->props, out);
		return true;
	}
	g_string_append_printf(out, "Kinds of %s (%s KIND,help lists a kind's properties):\n",
			       option, option);
	for (; kinds->name; kinds++)
		g_string_append_printf(out, "  %-28s  %s\n", kinds->name, kinds->help);
	return true;
}

bool help_option(const struct parse *p, const struct option *option, const char *kind, GString *out,
		 GError **error)
{
	if (option->explain)
		return option->explain(p, kind, out, error);
	g_string_append_printf(out, "Properties of %s:\n", option->name);
	props_help(option->props, out);
	return true;
}

/* Text in roff: what would be read as a request or turned into typography is escaped. */
static void append_roff(GString *out, const char *text)
{
	for (const char *c = text; *c; c++) {
		if (*c == '-')
			g_string_append(out, "\\-");
		else if (*c == '\\')
			g_string_append(out, "\\e");
		else if (*c == '\'')
			g_string_append(out, "\\(aq");
		else if (*c == '.' && (c == text || c[-1] == '\n'))
			g_string_append(out, "\\&.");
		else
			g_string_append_c(out, *c);
	}
}

static void man_option(GString *out, const struct option *option)
{
	g_string_append(out, ".TP\n.B ");
	append_roff(out, option->name);
	if (option->alias) {
		g_string_append(out, ", ");
		append_roff(out, option->alias);
	}
	if (option->argument) {
		g_string_append(out, " \\fI");
		append_roff(out, option->argument);
		g_string_append(out, "\\fR");
	}
	g_string_append_c(out, '\n');
	append_roff(out, option->help);
	g_string_append_c(out, '\n');
}

static void man_table(GString *out, const char *title, const struct prop *props)
{
	g_autoptr(GString) text = g_string_new(NULL);

	props_help(props, text);
	g_string_append(out, ".PP\n.B ");
	append_roff(out, title);
	g_string_append(out, "\n.PP\n.nf\n");
	append_roff(out, text->str);
	g_string_append(out, ".fi\n");
}

static void man_kinds(GString *out, const char *option, const struct kind_table *kinds)
{
	for (; kinds->name; kinds++) {
		g_autofree char *title = g_strdup_printf("%s %s", option, kinds->name);

		man_table(out, title, kinds->props);
	}
}

static void man_properties(GString *out)
{
	g_string_append(out, ".SH PROPERTIES\n");
	for (const struct option *o = option_table; o->name; o++)
		if (o->props)
			man_table(out, o->name, o->props);
	man_kinds(out, "-object", memory_backend_kinds);
	man_table(out, "-object rng-random", rng_props);
	man_table(out, "-object iothread", iothread_props);
	man_kinds(out, "-chardev", chardev_kinds);
	g_string_append(out, ".PP\nDevices list theirs with\n.BR \"molt \\-device help\" .\n");
}

void help_man(GString *out)
{
	g_string_append(out,
			".TH MOLT 1 \"\" \"molt " MOLT_VERSION "\" \"User Commands\"\n"
			".SH NAME\nmolt \\- " SUMMARY "\n"
			".SH SYNOPSIS\n.B molt\n.RI [ OPTION .\\|.\\|.]\n.SH DESCRIPTION\n"
			"molt runs a virtual machine on KVM. Its process can be replaced by "
			"another one, of the same or another version, while the guest runs on.\n"
			"Options may begin with one dash or two. A comma inside a value is "
			"written twice. Sizes take the suffixes k, M, G and T.\n"
			".SH OPTIONS\n");
	for (enum option_topic topic = 0; topic < TOPIC_COUNT; topic++) {
		g_string_append_printf(out, ".SS %s\n", topics[topic]);
		for (const struct option *o = option_table; o->name; o++)
			if (o->topic == topic)
				man_option(out, o);
	}
	man_properties(out);
	g_string_append(out, ".SH EXAMPLES\n");
	for (size_t i = 0; i < G_N_ELEMENTS(examples); i++) {
		g_string_append_printf(out, ".PP\n%s\n.PP\n.nf\n", examples[i].title);
		append_roff(out, examples[i].command);
		g_string_append(out, "\n.fi\n");
	}
	g_string_append(out, ".SH EXIT STATUS\n0 when the guest ended or the text was printed; 1 "
			     "after an error, which is one line on standard error.\n");
}
