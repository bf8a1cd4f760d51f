// The option table, and the walk over argv that fills a struct vm_config from it.
// SPDX-License-Identifier: Apache-2.0
#include "options/command_line.h"

#include <string.h>

#include "base/error.h"
#include "options/check.h"
#include "options/parse.h"
#include "options/text.h"

/* A plain argument must fit where from_json() accepts it again. */
#define TEXT_MAX 4096

static void set_text(char **member, const char *text)
{
	g_free(*member);
	*member = g_strdup(text);
}

static bool parse_kernel(struct parse *p, const char *text, json_t *json, GError **error)
{
	set_text(&p->config->kernel, text);
	return true;
}

static bool parse_initrd(struct parse *p, const char *text, json_t *json, GError **error)
{
	set_text(&p->config->initrd, text);
	return true;
}

static bool parse_append(struct parse *p, const char *text, json_t *json, GError **error)
{
	set_text(&p->config->append, text);
	return true;
}

static bool parse_pidfile(struct parse *p, const char *text, json_t *json, GError **error)
{
	set_text(&p->config->pidfile, text);
	return true;
}

static bool parse_incoming(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct incoming_config *incoming = g_new0(struct incoming_config, 1);

	incoming->text = g_strdup(text);
	g_ptr_array_add(p->config->incoming, incoming);
	return true;
}

static bool parse_paused(struct parse *p, const char *text, json_t *json, GError **error)
{
	p->config->start_paused = true;
	return true;
}

static bool parse_daemonize(struct parse *p, const char *text, json_t *json, GError **error)
{
	p->config->daemonize = true;
	return true;
}

static bool parse_no_reboot(struct parse *p, const char *text, json_t *json, GError **error)
{
	p->config->no_reboot = true;
	return true;
}

static bool parse_no_shutdown(struct parse *p, const char *text, json_t *json, GError **error)
{
	p->config->no_shutdown = true;
	return true;
}

static bool parse_nodefaults(struct parse *p, const char *text, json_t *json, GError **error)
{
	p->config->nodefaults = true;
	return true;
}

static bool parse_only_migratable(struct parse *p, const char *text, json_t *json, GError **error)
{
	p->config->only_migratable = true;
	return true;
}

static bool parse_only_migratable_modes(struct parse *p, const char *text, json_t *json,
					GError **error)
{
	g_auto(GStrv) modes = g_strsplit(text, ",", -1);

	for (char **mode = modes; *mode; mode++) {
		g_autofree char *shown = text_printable(*mode);

		if (strcmp(*mode, "cpr-transfer") == 0)
			p->config->only_migratable_transfer = true;
		else if (strcmp(*mode, "cpr-exec") == 0)
			p->config->only_migratable_exec = true;
		else
			return error_set_generic(error,
						 "%s: migration mode '%s' is not offered; give "
						 "cpr-transfer, cpr-exec, or both",
						 p->what, shown);
	}
	return true;
}

static bool parse_nographic(struct parse *p, const char *text, json_t *json, GError **error)
{
	p->nographic = true;
	return true;
}

/* The only value: what there is none of here. */
static bool parse_none(struct parse *p, const char *text, json_t *json, GError **error)
{
	if (strcmp(text, "none") == 0)
		return true;
	return error_set_generic(error, "%s: there is no display; give none", p->what);
}

/* Options that say what is true here anyway. */
static bool parse_nothing(struct parse *p, const char *text, json_t *json, GError **error)
{
	return true;
}

static bool parse_help(struct parse *p, const char *text, json_t *json, GError **error)
{
	help_text(p->print);
	return true;
}

static bool parse_help_man(struct parse *p, const char *text, json_t *json, GError **error)
{
	help_man(p->print);
	return true;
}

static bool parse_version(struct parse *p, const char *text, json_t *json, GError **error)
{
	g_string_append(p->print, "molt " MOLT_VERSION "\n");
	return true;
}

const struct option option_table[] = {
	{"-machine", "-M", "[type=]q35[,PROP=VALUE...]", "Machine type and its properties.",
	 TOPIC_MACHINE, true, true, "type", machine_props, explain_machine, parse_machine},
	{"-accel", NULL, "kvm", "Accelerator: KVM, the only one.", TOPIC_MACHINE, false, true,
	 "accel", accel_props, NULL, parse_accel},
	{"-enable-kvm", NULL, NULL, "The same as -accel kvm.", TOPIC_MACHINE,
	 .parse = parse_nothing},
	{"-cpu", NULL, "host", "CPU model: the host's, the only one.", TOPIC_MACHINE, true,
	 .parse = parse_cpu},
	{"-smp", NULL, "[cpus=]N[,sockets=N][,cores=N][,threads=N]",
	 "Number of vCPUs (1 to 255, default 1) and their topology.", TOPIC_MACHINE, true, true,
	 "cpus", smp_props, NULL, parse_smp},
	{"-m", NULL, "[size=]SIZE",
	 "Guest RAM; MiB without a suffix. Default: 128M, or the memory backend's size.",
	 TOPIC_MACHINE, true, true, "size", ram_props, NULL, parse_ram},
	{"-name", NULL, "[guest=]NAME[,process=NAME]", "Names of the guest and of the process.",
	 TOPIC_MACHINE, false, true, "guest", name_props, NULL, parse_name},
	{"-uuid", NULL, "UUID", "The guest's UUID.", TOPIC_MACHINE, true, .parse = parse_uuid},
	{"-rtc", NULL, "base=utc|localtime[,clock=host]", "Real-time clock.", TOPIC_MACHINE, true,
	 true, NULL, rtc_props, NULL, parse_rtc},
	{"-no-hpet", NULL, NULL, "Accepted: there is no HPET.", TOPIC_MACHINE,
	 .parse = parse_nothing},
	{"-nodefaults", NULL, NULL, "No default devices, also with -nographic.", TOPIC_MACHINE,
	 .parse = parse_nodefaults},
	{"-no-user-config", NULL, NULL, "Accepted: there are no configuration files.",
	 TOPIC_MACHINE, .parse = parse_nothing},

	{"-kernel", NULL, "FILE", "Linux bzImage or PVH ELF image to boot.", TOPIC_BOOT, true,
	 .parse = parse_kernel},
	{"-initrd", NULL, "FILE", "Initial RAM disk for -kernel.", TOPIC_BOOT, true,
	 .parse = parse_initrd},
	{"-append", NULL, "TEXT", "Command line for -kernel.", TOPIC_BOOT, true,
	 .parse = parse_append},
	{"-boot", NULL, "menu=off", "Boot order needs firmware, which there is none of.",
	 TOPIC_BOOT, false, true, "order", boot_props, NULL, parse_boot},

	{"-object", NULL, "TYPE,id=ID[,PROP=VALUE...]",
	 "Host resource: memory backend, random source, I/O thread. Also as JSON.", TOPIC_OBJECT,
	 true, true, "qom-type", NULL, explain_object, parse_object},
	{"-device", NULL, "DRIVER[,id=ID][,PROP=VALUE...]", "Device of the guest. Also as JSON.",
	 TOPIC_OBJECT, true, true, "driver", NULL, explain_device, parse_device},

	{"-drive", NULL, "file=FILE[,if=virtio|none][,id=ID][,PROP=VALUE...]",
	 "Disk: a raw image or block device; one that begins like another format is refused "
	 "without format=raw. if=virtio (default) adds a virtio-blk-pci, if=none leaves that to "
	 "-device.",
	 TOPIC_DISK, true, true, NULL, drive_props, NULL, parse_drive},
	{"-blockdev", NULL, "DRIVER,node-name=NAME[,PROP=VALUE...]",
	 "Disk in layers: raw over file or host_device. Also as JSON.", TOPIC_DISK, true, true,
	 "driver", NULL, explain_blockdev, parse_blockdev},

	{"-chardev", NULL, "KIND,id=ID[,PROP=VALUE...]",
	 "Character device, for -serial, -mon or a -device.", TOPIC_CHARDEV, false, true, "backend",
	 NULL, explain_chardev, parse_chardev},
	{"-serial", NULL, "CHARDEV",
	 "Next serial port (COM1, then COM2) on stdio, null, pty, file:PATH, pipe:PATH, "
	 "unix:PATH[,server=on,wait=off], tcp:HOST:PORT[,...], /dev/NAME or chardev:ID; mon:CHARDEV "
	 "shares it with a monitor; none skips the port. Default: no port.",
	 TOPIC_CHARDEV, true, .parse = parse_serial},
	{"-nographic", NULL, NULL,
	 "COM1 and a monitor share stdio (Ctrl-a c switches), each unless given or -nodefaults.",
	 TOPIC_CHARDEV, .parse = parse_nographic},
	{"-display", NULL, "none", "There is no display; also the default.", TOPIC_CHARDEV,
	 .parse = parse_none},
	{"-vga", NULL, "none", "There is no VGA; also the default.", TOPIC_CHARDEV,
	 .parse = parse_none},

	{"-monitor", NULL, "CHARDEV",
	 "HMP, the monitor for people; CHARDEV as for -serial. "
	 "Default: none.",
	 TOPIC_MONITOR, .parse = parse_monitor},
	{"-qmp", NULL, "CHARDEV", "QMP, the monitor for programs.", TOPIC_MONITOR,
	 .parse = parse_qmp},
	{"-qmp-pretty", NULL, "CHARDEV", "QMP, indented.", TOPIC_MONITOR,
	 .parse = parse_qmp_pretty},
	{"-mon", NULL, "[chardev=]ID[,mode=readline|control][,pretty=on|off]",
	 "Monitor on a -chardev.", TOPIC_MONITOR, false, true, "chardev", monitor_props, NULL,
	 parse_mon},

	{"-incoming", NULL, "URI|defer|CHANNEL",
	 "Take a VM over or load it: unix:PATH, tcp:HOST:PORT, file:PATH, a channel in JSON, or "
	 "defer to the migrate-incoming command. May be repeated, once per channel. Without options "
	 "that describe the VM, the predecessor's description holds. The predecessor's own command "
	 "line will do too: its monitors' UNIX sockets and pid file are taken over with the guest.",
	 TOPIC_UPDATE, .parse = parse_incoming},
	{"-only-migratable", NULL, NULL,
	 "Refuse to start, and to add devices, where the VM could not be updated in every mode that "
	 "there is; else a warning tells.",
	 TOPIC_UPDATE, .parse = parse_only_migratable},
	{"-only-migratable-modes", NULL, "MODE[,MODE]",
	 "The same for the given modes: cpr-transfer, cpr-exec.", TOPIC_UPDATE,
	 .parse = parse_only_migratable_modes},

	{"-S", NULL, NULL, "Do not start the vCPUs; the monitor's cont does.", TOPIC_PROCESS,
	 .parse = parse_paused},
	{"-no-reboot", NULL, NULL, "End when the guest reboots.", TOPIC_PROCESS,
	 .parse = parse_no_reboot},
	{"-no-shutdown", NULL, NULL, "Pause when the guest powers off, do not end.", TOPIC_PROCESS,
	 .parse = parse_no_shutdown},
	{"-action", NULL, "[reboot=reset|shutdown][,shutdown=poweroff|pause]",
	 "What the guest's reboot and power-off do.", TOPIC_PROCESS, false, true, NULL,
	 action_props, NULL, parse_action},
	{"-pidfile", NULL, "FILE", "Write the process id to FILE.", TOPIC_PROCESS,
	 .parse = parse_pidfile},
	{"-daemonize", NULL, NULL, "Go to the background once the VM is set up.", TOPIC_PROCESS,
	 .parse = parse_daemonize},

	{"-help", "-h", NULL, "This text.", TOPIC_INFO, .parse = parse_help},
	{"-help-man", NULL, NULL, "The manual page molt(1), in roff.", TOPIC_INFO,
	 .parse = parse_help_man},
	{"-version", NULL, NULL, "Version.", TOPIC_INFO, .parse = parse_version},
	{.name = NULL},
};

bool json_flag(const json_t *json, const char *key, bool *value)
{
	const json_t *given = json_object_get(json, key);

	if (json_is_boolean(given)) {
		*value = json_is_true(given);
		return true;
	}
	return json_is_string(given) && text_to_bool(json_string_value(given), value);
}

bool json_rename(json_t *json, const char *from, const char *to, const char *what, GError **error)
{
	json_t *value = json_object_get(json, from);

	if (!value)
		return true;
	if (json_object_get(json, to))
		return error_set_generic(error, "%s: %s and %s are the same; give one", what, from,
					 to);
	json_object_set(json, to, value);
	json_object_del(json, from);
	return true;
}

void vm_config_add(struct vm_config *config, enum vm_list_index index, void *element)
{
	g_ptr_array_add(vm_list_array(config, index), element);
}

/* "-opt" and "--opt" alike. */
static const struct option *find_option(const char *arg)
{
	const char *name = g_str_has_prefix(arg, "--") ? arg + 1 : arg;

	for (const struct option *o = option_table; o->name; o++)
		if (strcmp(o->name, name) == 0 || g_strcmp0(o->alias, name) == 0)
			return o;
	return NULL;
}

/*
 * Return: whether @json asks for help; *@kind is then the kind that is asked about, or NULL.
 */
static bool asks_for_help(const struct option *option, const json_t *json, const char **kind)
{
	const char *implied =
		option->implied_key ? json_string_value(json_object_get(json, option->implied_key))
				    : NULL;

	*kind = NULL;
	if (g_strcmp0(implied, "help") == 0 || g_strcmp0(implied, "?") == 0)
		return true;
	*kind = implied;
	return json_object_get(json, "help") != NULL;
}

static bool parse_keyval(struct parse *p, const struct option *option, const char *text,
			 GError **error)
{
	json_t *json = keyval_parse(text, option->implied_key, error);
	const char *kind;
	bool ok;

	if (!json) {
		g_prefix_error(error, "%s: ", p->what);
		return false;
	}
	if (asks_for_help(option, json, &kind))
		ok = help_option(p, option, kind, p->print, error);
	else
		ok = option->parse(p, text, json, error);
	json_decref(json);
	return ok;
}

static bool parse_option(struct parse *p, const struct option *option, const char *text,
			 GError **error)
{
	g_autofree char *shown = text_printable(text ? text : "");
	g_autofree char *what = g_strdup_printf("%s%s%s", option->name, text ? " " : "", shown);
	bool ok;

	p->what = what;
	if (option->keyval)
		ok = parse_keyval(p, option, text, error);
	else if (text && strlen(text) > TEXT_MAX)
		ok = error_set_generic(error, "%s: longer than %d bytes", what, TEXT_MAX);
	else
		ok = option->parse(p, text, NULL, error);
	p->what = NULL;
	if (option->describes_vm)
		p->config->explicit_vm = true;
	return ok;
}

static bool refuse_unknown(const char *arg, GError **error)
{
	g_autofree char *shown = text_printable(arg);

	if (*arg == '-' && arg[1] != '\0')
		return error_set_generic(error, "%s: unknown option; see molt --help", shown);
	return error_set_generic(error, "%s: not an option; for a disk give -drive file=%s", shown,
				 shown);
}

/* Stops early where an option asked for a text. */
static bool parse_all(struct parse *p, int argc, char **argv, GError **error)
{
	for (int i = 1; i < argc && p->print->len == 0; i++) {
		const struct option *option = find_option(argv[i]);
		const char *text = NULL;

		if (!option)
			return refuse_unknown(argv[i], error);
		if (option->argument) {
			if (++i == argc)
				return error_set_generic(error, "%s: needs an argument: %s",
							 option->name, option->argument);
			text = argv[i];
		}
		if (text && !g_utf8_validate(text, -1, NULL))
			return error_set_generic(error,
						 "%s: the argument is not UTF-8 text; encode it so",
						 option->name);
		if (!parse_option(p, option, text, error))
			return false;
	}
	return true;
}

static bool used_by_monitor(const struct vm_config *config, const char *chardev)
{
	for (guint i = 0; i < config->monitors->len; i++) {
		const struct monitor_config *monitor = g_ptr_array_index(config->monitors, i);

		if (strcmp(monitor->chardev, chardev) == 0)
			return true;
	}
	return false;
}

static bool check_daemon(const struct vm_config *config, GError **error)
{
	for (guint i = 0; config->daemonize && i < config->chardevs->len; i++) {
		const struct chardev_config *chardev = g_ptr_array_index(config->chardevs, i);

		if (chardev->kind == CHARDEV_STDIO)
			return error_set_generic(error,
						 "-daemonize: chardev %s needs stdio, which a "
						 "daemon has none of; give it a unix socket",
						 chardev->id);
	}
	return true;
}

/* What follows from all options together. */
static bool finish(struct parse *p, GError **error)
{
	struct vm_config *config = p->config;
	const char *backend_id = config->machine.memory_backend;
	const struct memory_backend_config *backend =
		backend_id ? vm_config_memory_backend(config, backend_id) : NULL;

	if (!add_default_consoles(p, error))
		return false;
	add_protocol_blocks(p);
	if (backend && !p->ram_given)
		config->ram_size_bytes = backend->size_bytes;
	for (guint i = 0; i < config->chardevs->len; i++) {
		const struct chardev_config *chardev = g_ptr_array_index(config->chardevs, i);

		if (!used_by_monitor(config, chardev->id))
			config->explicit_vm = true;
	}
	return check_daemon(config, error) && vm_config_check(config, error);
}

struct vm_config *command_line_parse(int argc, char **argv, struct command_line_action *action,
				     GError **error)
{
	autoptr(vm_config) config = vm_config_new();
	g_autoptr(GString) print = g_string_new(NULL);
	g_autoptr(GPtrArray) protocols = g_ptr_array_new_with_free_func(block_layer_free);
	struct parse p = {
		.config = config,
		.device_help = action->device_help,
		.print = print,
		.machine = json_object(),
		.smp = json_object(),
		.protocols = protocols,
	};
	bool ok = parse_all(&p, argc, argv, error);

	action->verb = COMMAND_LINE_RUN;
	action->text = NULL;
	if (ok && print->len != 0) {
		action->verb = COMMAND_LINE_PRINT;
		action->text = g_strdup(print->str);
		ok = false;
	} else if (ok) {
		ok = finish(&p, error);
	}
	json_decref(p.machine);
	json_decref(p.smp);
	return ok ? g_steal_pointer(&config) : NULL;
}
