// Inside the command-line parser: the option table's shape and what parse functions share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "options/command_line.h"
#include "options/tables.h"

/**
 * struct parse - One run of command_line_parse()
 * @config:	What is being filled
 * @device_help: struct command_line_action's
 * @what:	Prefix of messages: the option at hand as it was given, "-m 4G"
 * @print:	Not empty: an option asked for this text instead of a VM
 * @machine:	All -machine properties so far, the last one of a key wins
 * @smp:	The same of -smp
 * @ram_given:	-m was given
 * @nographic, @have_serial, @have_monitor: decide about default serial port and monitor
 * @n_monitors:	-monitor, -qmp and -qmp-pretty so far: numbers the compat_monitor chardevs
 * @n_plain_drives: -drive if=none without id so far
 * @drive_indexes: bit N: -drive if=virtio number N is taken
 * @protocols:	struct block_layer *: -blockdev file nodes that no raw node uses (yet)
 */
struct parse {
	struct vm_config *config;
	bool (*device_help)(const char *driver, GString *out, GError **error);
	const char *what;
	GString *print;
	json_t *machine;
	json_t *smp;
	bool ram_given;
	bool nographic;
	bool have_serial;
	bool have_monitor;
	unsigned int n_monitors;
	unsigned int n_plain_drives;
	uint64_t drive_indexes;
	GPtrArray *protocols;
};

/** enum option_topic - Groups of --help, in their order */
enum option_topic {
	TOPIC_MACHINE,
	TOPIC_BOOT,
	TOPIC_OBJECT,
	TOPIC_DISK,
	TOPIC_CHARDEV,
	TOPIC_MONITOR,
	TOPIC_UPDATE,
	TOPIC_PROCESS,
	TOPIC_INFO,
	TOPIC_COUNT,
};

/**
 * typedef option_fn - Take one option into @p->config
 * @text:	The argument as given, NULL for options without one
 * @json:	The argument as an object, NULL for options without the key=value syntax; lent
 * Return: false with @error set, its message beginning with @p->what.
 */
typedef bool (*option_fn)(struct parse *p, const char *text, json_t *json, GError **error);

/**
 * struct option - One row of the option table
 * @name:	With its dash: "-machine"; "--machine" is the same
 * @alias:	Another spelling, NULL if there is none
 * @argument:	Synopsis of the argument, NULL if the option has none
 * @help:	What --help and the manual page say
 * @topic:	Where they say it
 * @describes_vm: Giving it makes the command line the VM's description (vm_config.explicit_vm)
 * @keyval:	The argument is key=value text or a JSON object
 * @implied_key: Key of a first item without '=', NULL if there is none
 * @props:	The argument's properties, for "-option help"; NULL if @explain writes that
 * @explain:	Writes the answer to "-option help" (@kind NULL) or "-option KIND,help"
 * @parse:	Takes it
 */
struct option {
	const char *name;
	const char *alias;
	const char *argument;
	const char *help;
	enum option_topic topic;
	bool describes_vm;
	bool keyval;
	const char *implied_key;
	const struct prop *props;
	bool (*explain)(const struct parse *p, const char *kind, GString *out, GError **error);
	option_fn parse;
};

/** option_table - Every option there is; ended by a NULL name */
extern const struct option option_table[];

/** json_flag() - A boolean, or text that means one, at @key.  Return: false if it is neither. */
bool json_flag(const json_t *json, const char *key, bool *value);

/** json_rename() - Move what is at key @from to key @to, unless that would overwrite something. */
bool json_rename(json_t *json, const char *from, const char *to, const char *what, GError **error);

/** vm_config_add() - Append an @element to one of @config's arrays, which owns it then. */
void vm_config_add(struct vm_config *config, enum vm_list_index index, void *element);

/** explain_kinds() - The @explain of options whose argument is one of several kinds. */
bool explain_kinds(const struct kind_table *kinds, const char *option, const char *kind,
		   GString *out, GError **error);

/* parse_machine.c */
extern const struct prop smp_props[], ram_props[], accel_props[], name_props[], action_props[],
	rtc_props[], boot_props[];
bool explain_machine(const struct parse *p, const char *kind, GString *out, GError **error);
bool explain_object(const struct parse *p, const char *kind, GString *out, GError **error);
bool explain_device(const struct parse *p, const char *kind, GString *out, GError **error);
bool parse_machine(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_accel(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_cpu(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_smp(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_ram(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_object(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_device(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_name(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_uuid(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_action(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_rtc(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_boot(struct parse *p, const char *text, json_t *json, GError **error);

/* parse_chardev.c */
bool explain_chardev(const struct parse *p, const char *kind, GString *out, GError **error);
bool parse_chardev(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_serial(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_monitor(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_qmp(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_qmp_pretty(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_mon(struct parse *p, const char *text, json_t *json, GError **error);
/** add_default_consoles() - What -nographic adds where no -serial or -monitor was given. */
bool add_default_consoles(struct parse *p, GError **error);

/* parse_block.c */
extern const struct prop drive_props[];
bool explain_blockdev(const struct parse *p, const char *kind, GString *out, GError **error);
bool parse_drive(struct parse *p, const char *text, json_t *json, GError **error);
bool parse_blockdev(struct parse *p, const char *text, json_t *json, GError **error);
/** add_protocol_blocks() - Make disks of the -blockdev file nodes that no raw node is over. */
void add_protocol_blocks(struct parse *p);
/** block_layer_free() - Free a member of struct parse's protocols; accepts NULL. */
void block_layer_free(void *layer);

/* help.c */
/** help_text() - Append what --help prints. */
void help_text(GString *out);
/** help_man() - Append the manual page molt(1) in roff, made from the same table. */
void help_man(GString *out);
/** help_option() - Append the properties of @option, or of its @kind.  False with @error set. */
bool help_option(const struct parse *p, const struct option *option, const char *kind, GString *out,
		 GError **error);
