// Options that describe the machine: -machine, -cpu, -smp, -m, objects, devices, and the like.
// SPDX-License-Identifier: Apache-2.0
#include "options/parse.h"

#include <string.h>

#include "base/error.h"
#include "options/check.h"
#include "options/text.h"

#define END_OF_TABLE         \
	{                    \
		.name = NULL \
	}

bool explain_machine(const struct parse *p, const char *kind, GString *out, GError **error)
{
	if (!kind)
		g_string_append(out,
				"Machine types:\n"
				"  q35                           PCI Express machine (default)\n");
	g_string_append(out, "Properties of -machine:\n");
	props_help(machine_props, out);
	g_string_append(out, "  accel=kvm                     the only accelerator\n"
			     "  memfd-alloc=on|off            older spelling of aux-ram-share\n"
			     "  anon-alloc=memfd|mmap         older spelling of aux-ram-share\n");
	return true;
}

static bool take_accel(struct parse *p, json_t *json, GError **error)
{
	const char *accel = json_string_value(json_object_get(json, "accel"));
	g_autofree char *shown = text_printable(accel ? accel : "?");

	if (g_strcmp0(accel, "kvm") != 0)
		return error_set_generic(error,
					 "%s: accel: '%s' is not available; the accelerator is kvm",
					 p->what, shown);
	json_object_del(json, "accel");
	return true;
}

/* memfd-alloc= and anon-alloc= become aux-ram-share=. */
static bool take_older_spellings(struct parse *p, json_t *json, GError **error)
{
	const char *anon = json_string_value(json_object_get(json, "anon-alloc"));

	if (json_object_get(json, "anon-alloc")) {
		if (g_strcmp0(anon, "memfd") != 0 && g_strcmp0(anon, "mmap") != 0)
			return error_set_generic(
				error, "%s: anon-alloc: not a value it takes; give memfd or mmap",
				p->what);
		json_object_set_new(json, "anon-alloc", json_boolean(strcmp(anon, "memfd") == 0));
	}
	return json_rename(json, "anon-alloc", "aux-ram-share", p->what, error) &&
	       json_rename(json, "memfd-alloc", "aux-ram-share", p->what, error);
}

bool parse_machine(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct machine_config *machine = &p->config->machine;

	if (json_object_get(json, "accel") && !take_accel(p, json, error))
		return false;
	if (!take_older_spellings(p, json, error))
		return false;
	json_object_update(p->machine, json);
	props_clear(machine_props, machine);
	return props_from_json(machine_props, p->machine, machine, p->what, error) &&
	       machine_config_check(machine, p->what, error);
}

static const char *const accel_names[] = {"kvm", NULL};

struct accel_args {
	int accel;
};

const struct prop accel_props[] = {
	{"accel", PROP_ENUM, offsetof(struct accel_args, accel), .names = accel_names,
	 .required = true, .help = "the only accelerator"},
	END_OF_TABLE,
};

bool parse_accel(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct accel_args args;

	return props_from_json(accel_props, json, &args, p->what, error);
}

bool parse_cpu(struct parse *p, const char *text, json_t *json, GError **error)
{
	if (strcmp(text, "help") == 0 || strcmp(text, "?") == 0) {
		g_string_append(p->print,
				"CPU models:\n"
				"  host                          the host's CPU, with what "
				"KVM can give a guest of it\n");
		return true;
	}
	if (g_str_has_prefix(text, "host,"))
		return error_set_generic(
			error, "%s: features cannot be chosen one by one; give -cpu host", p->what);
	if (strcmp(text, "host") != 0)
		return error_set_generic(
			error, "%s: this CPU model is not available; give -cpu host", p->what);
	return true;
}

struct smp_args {
	uint32_t cpus, maxcpus, sockets, cores, threads, one;
};

#define SMP(key, member, max_value, text)                                                     \
	{                                                                                     \
		key, PROP_U32, offsetof(struct smp_args, member), .min = 1, .max = max_value, \
								  .help = text                \
	}

const struct prop smp_props[] = {
	SMP("cpus", cpus, 255, "number of vCPUs"),
	SMP("maxcpus", maxcpus, 255, "must equal cpus: vCPUs are not hot-plugged"),
	SMP("sockets", sockets, 255, "sockets"),
	SMP("dies", one, 1, "dies in a socket: 1"),
	SMP("clusters", one, 1, "clusters in a die: 1"),
	SMP("cores", cores, 255, "cores in a socket"),
	SMP("threads", threads, 255, "threads in a core"),
	END_OF_TABLE,
};

/* What was not given follows from the rest; cores take what remains, as on QEMU's machines. */
static void derive_topology(struct smp_args *args)
{
	uint32_t threads = MAX(args->threads, 1);

	if (args->cpus == 0)
		args->cpus = MAX(args->sockets, 1) * MAX(args->cores, 1) * threads;
	if (args->cores == 0) {
		args->sockets = MAX(args->sockets, 1);
		args->cores = MAX(args->cpus / (args->sockets * threads), 1);
	} else if (args->sockets == 0) {
		args->sockets = MAX(args->cpus / (args->cores * threads), 1);
	}
	if (args->threads == 0)
		args->threads = MAX(args->cpus / (args->sockets * args->cores), 1);
}

bool parse_smp(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct vm_config *config = p->config;
	struct smp_args args = {0};

	json_object_update(p->smp, json);
	if (!props_from_json(smp_props, p->smp, &args, p->what, error))
		return false;
	derive_topology(&args);
	if (args.cpus > 255)
		return error_set_generic(error, "%s: %u vCPUs; there are at most 255", p->what,
					 args.cpus);
	if (args.maxcpus != 0 && args.maxcpus != args.cpus)
		return error_set_generic(error,
					 "%s: maxcpus: vCPUs are not hot-plugged; give maxcpus=%u "
					 "or leave it out",
					 p->what, args.cpus);
	if ((uint64_t)args.sockets * args.cores * args.threads != args.cpus)
		return error_set_generic(error,
					 "%s: sockets=%u * cores=%u * threads=%u is not cpus=%u; "
					 "make them agree",
					 p->what, args.sockets, args.cores, args.threads,
					 args.cpus);
	config->n_cpus = args.cpus;
	config->n_sockets = args.sockets;
	config->n_cores = args.cores;
	config->n_threads = args.threads;
	return true;
}

struct ram_args {
	char *size;
	char *slots;
	char *maxmem;
};

const struct prop ram_props[] = {
	{"size", PROP_STRING, offsetof(struct ram_args, size), .required = true,
	 .help = "RAM size; M, G, T, and MiB without a suffix"},
	{"slots", PROP_STRING, offsetof(struct ram_args, slots),
	 .help = "refused: memory is not hot-plugged"},
	{"maxmem", PROP_STRING, offsetof(struct ram_args, maxmem),
	 .help = "refused: memory is not hot-plugged"},
	END_OF_TABLE,
};

static bool take_ram(struct parse *p, const struct ram_args *args, GError **error)
{
	uint64_t size_bytes;

	if (args->slots || args->maxmem)
		return error_set_generic(error,
					 "%s: %s: memory is not hot-plugged; leave slots and "
					 "maxmem out",
					 p->what, args->slots ? "slots" : "maxmem");
	if (!text_to_size(args->size, MIB, &size_bytes))
		return error_set_generic(
			error, "%s: size: not a size; give a number with M, G or T", p->what);
	if (size_bytes < MIB || size_bytes > UINT64_C(1) << 46 || size_bytes % 4096 != 0)
		return error_set_generic(error,
					 "%s: size: not between 1M and 64T in steps of 4k; give "
					 "another size",
					 p->what);
	p->config->ram_size_bytes = size_bytes;
	p->ram_given = true;
	return true;
}

bool parse_ram(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct ram_args args;
	bool ok;

	if (!props_from_json(ram_props, json, &args, p->what, error))
		return false;
	ok = take_ram(p, &args, error);
	props_clear(ram_props, &args);
	return ok;
}

/* -object: its kinds, and the array each is kept in. */
static const struct kind_table object_kinds[] = {
	{"rng-random", VM_LIST_RNGS, rng_props, "random bytes from a file of the host"},
	{"iothread", VM_LIST_IOTHREADS, iothread_props, "a thread for devices' I/O"},
	END_OF_TABLE,
};

bool explain_object(const struct parse *p, const char *kind, GString *out, GError **error)
{
	if (kind && kind_find(object_kinds, kind))
		return explain_kinds(object_kinds, "-object", kind, out, error);
	if (!explain_kinds(memory_backend_kinds, "-object", kind, out, error))
		return false;
	for (const struct kind_table *k = object_kinds; !kind && k->name; k++)
		g_string_append_printf(out, "  %-28s  %s\n", k->name, k->help);
	return true;
}

bool parse_object(struct parse *p, const char *text, json_t *json, GError **error)
{
	const char *type = json_string_value(json_object_get(json, "qom-type"));
	g_autofree char *shown = text_printable(type ? type : "");
	enum vm_list_index index;
	void *element;

	if (type && kind_find(object_kinds, type)) {
		index = kind_find(object_kinds, type)->kind;
		json_object_del(json, "qom-type");
	} else if (type && kind_find(memory_backend_kinds, type)) {
		index = VM_LIST_MEMORY_BACKENDS;
	} else {
		g_autofree char *others = kind_names(object_kinds);
		g_autofree char *backends = kind_names(memory_backend_kinds);

		return error_set_generic(error,
					 "%s: qom-type: '%s' is not available; give one of: %s, %s",
					 p->what, shown, backends, others);
	}
	element = vm_list_read(index, json, p->what, error);
	if (!element)
		return false;
	vm_config_add(p->config, index, element);
	return true;
}

bool explain_device(const struct parse *p, const char *kind, GString *out, GError **error)
{
	if (!p->device_help)
		return error_set_generic(error, "-device: there are no device drivers");
	return p->device_help(kind, out, error);
}

bool parse_device(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct device_config *device = device_config_read(json, p->what, error);

	if (!device)
		return false;
	vm_config_add(p->config, VM_LIST_DEVICES, device);
	return true;
}

struct name_args {
	char *guest;
	char *process;
	int debug_threads;
};

static const char *const debug_threads_names[] = {"on", NULL};

const struct prop name_props[] = {
	{"guest", PROP_STRING, offsetof(struct name_args, guest), .help = "the guest's name"},
	{"process", PROP_STRING, offsetof(struct name_args, process),
	 .help = "the process's name, in ps and top; at most 15 bytes"},
	{"debug-threads", PROP_ENUM, offsetof(struct name_args, debug_threads),
	 .names = debug_threads_names, .def = "on", .help = "threads always have names"},
	END_OF_TABLE,
};

bool parse_name(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct vm_config *config = p->config;
	struct name_args args;

	if (!props_from_json(name_props, json, &args, p->what, error))
		return false;
	if (args.guest) {
		g_free(config->name);
		config->name = g_steal_pointer(&args.guest);
	}
	if (args.process) {
		g_free(config->process_name);
		config->process_name = g_steal_pointer(&args.process);
	}
	return true;
}

bool parse_uuid(struct parse *p, const char *text, json_t *json, GError **error)
{
	if (!g_uuid_string_is_valid(text))
		return error_set_generic(error,
					 "%s: not a UUID; give "
					 "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in hexadecimal",
					 p->what);
	g_free(p->config->uuid);
	p->config->uuid = g_ascii_strdown(text, -1);
	return true;
}

enum reboot_action { REBOOT_RESET, REBOOT_SHUTDOWN };
enum shutdown_action { SHUTDOWN_POWEROFF, SHUTDOWN_PAUSE };

static const char *const reboot_names[] = {"reset", "shutdown", NULL};
static const char *const shutdown_names[] = {"poweroff", "pause", NULL};

struct action_args {
	enum reboot_action reboot;
	enum shutdown_action shutdown;
};

const struct prop action_props[] = {
	{"reboot", PROP_ENUM, offsetof(struct action_args, reboot), .names = reboot_names,
	 .def = "reset", .help = "when the guest reboots"},
	{"shutdown", PROP_ENUM, offsetof(struct action_args, shutdown), .names = shutdown_names,
	 .def = "poweroff", .help = "when the guest powers off"},
	END_OF_TABLE,
};

bool parse_action(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct action_args args;

	if (!props_from_json(action_props, json, &args, p->what, error))
		return false;
	if (json_object_get(json, "reboot"))
		p->config->no_reboot = args.reboot == REBOOT_SHUTDOWN;
	if (json_object_get(json, "shutdown"))
		p->config->no_shutdown = args.shutdown == SHUTDOWN_PAUSE;
	return true;
}

enum rtc_base { RTC_UTC, RTC_LOCALTIME };

static const char *const rtc_base_names[] = {"utc", "localtime", NULL};
static const char *const rtc_clock_names[] = {"host", NULL};
static const char *const rtc_driftfix_names[] = {"none", NULL};

struct rtc_args {
	enum rtc_base base;
	int clock;
	int driftfix;
};

const struct prop rtc_props[] = {
	{"base", PROP_ENUM, offsetof(struct rtc_args, base), .names = rtc_base_names, .def = "utc",
	 .help = "what the clock shows at start"},
	{"clock", PROP_ENUM, offsetof(struct rtc_args, clock), .names = rtc_clock_names,
	 .def = "host", .help = "what drives it"},
	{"driftfix", PROP_ENUM, offsetof(struct rtc_args, driftfix), .names = rtc_driftfix_names,
	 .def = "none", .help = "lost ticks are not injected again"},
	END_OF_TABLE,
};

bool parse_rtc(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct rtc_args args;

	if (!props_from_json(rtc_props, json, &args, p->what, error))
		return false;
	p->config->rtc_localtime = args.base == RTC_LOCALTIME;
	return true;
}

static const char *const boot_menu_names[] = {"off", NULL};

struct boot_args {
	int menu;
};

const struct prop boot_props[] = {
	{"menu", PROP_ENUM, offsetof(struct boot_args, menu), .names = boot_menu_names,
	 .def = "off", .help = "there is no boot menu"},
	END_OF_TABLE,
};

bool parse_boot(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct boot_args args;

	if (json_object_get(json, "order") || json_object_get(json, "once"))
		return error_set_generic(error,
					 "%s: there is no firmware that chooses a boot device; "
					 "leave -boot out and give -kernel",
					 p->what);
	return props_from_json(boot_props, json, &args, p->what, error);
}
