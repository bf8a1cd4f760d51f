// The property tables of struct vm_config's parts, for parsing, JSON and help alike.
// SPDX-License-Identifier: Apache-2.0
#include "options/tables.h"

#include <string.h>

/* A row for @member of struct @type; attributes follow as designated initialisers. */
#define PROP(struct_type, key, prop_type, member, ...)                                          \
	{                                                                                       \
		.name = key, .type = prop_type, .offset = offsetof(struct struct_type, member), \
		__VA_ARGS__                                                                     \
	}
/* Guest RAM: at least a page, at most what 46 physical address bits hold. */
#define RAM_BOUNDS .min = 4096, .max = UINT64_C(1) << 46

const struct prop machine_props[] = {
	PROP(machine_config, "type", PROP_STRING, type, .def = "q35", .help = "machine type"),
	PROP(machine_config, "memory-backend", PROP_STRING, memory_backend,
	     .help = "id of the memory-backend object that is guest RAM"),
	PROP(machine_config, "aux-ram-share", PROP_BOOL, aux_ram_share, .def = "off",
	     .help = "implicit RAM is a shared memfd, as an update needs it"),
	{.name = NULL},
};

#define MEMORY_BACKEND(...) PROP(memory_backend_config, __VA_ARGS__)

#define MEMORY_BACKEND_ROWS(share_default)                                                  \
	MEMORY_BACKEND("id", PROP_STRING, id, .required = true,                             \
		       .help = "object id, also the RAM block's name"),                     \
		MEMORY_BACKEND("size", PROP_SIZE, size_bytes, RAM_BOUNDS, .required = true, \
			       .help = "size"),                                             \
		MEMORY_BACKEND("share", PROP_BOOL, share, .def = share_default,             \
			       .help = "shared mapping, as an update needs it"),            \
		MEMORY_BACKEND("prealloc", PROP_BOOL, prealloc, .def = "off",               \
			       .help = "populate all pages before the guest starts"),       \
		MEMORY_BACKEND("merge", PROP_BOOL, merge, .def = "on",                      \
			       .help = "let the kernel merge equal pages"),                 \
		MEMORY_BACKEND("dump", PROP_BOOL, dump, .def = "on",                        \
			       .help = "core dumps contain the memory")

static const struct prop memory_backend_ram_props[] = {
	MEMORY_BACKEND_ROWS("off"),
	{.name = NULL},
};

static const struct prop memory_backend_memfd_props[] = {
	MEMORY_BACKEND_ROWS("on"),
	MEMORY_BACKEND("hugetlb", PROP_BOOL, hugetlb, .def = "off", .help = "use huge pages"),
	MEMORY_BACKEND("hugetlbsize", PROP_SIZE, hugetlbsize_bytes, .def = "0",
		       .help = "huge page size; 0: the system's default"),
	MEMORY_BACKEND("seal", PROP_BOOL, seal, .def = "on", .help = "forbid resizing the memfd"),
	{.name = NULL},
};

static const struct prop memory_backend_file_props[] = {
	MEMORY_BACKEND_ROWS("off"),
	MEMORY_BACKEND("mem-path", PROP_STRING, mem_path, .required = true,
		       .help = "a file, or a directory for an unlinked file"),
	{.name = NULL},
};

const struct kind_table memory_backend_kinds[] = {
	{"memory-backend-ram", MEMORY_BACKEND_RAM, memory_backend_ram_props,
	 "anonymous memory; share=on makes it a memfd"},
	{"memory-backend-memfd", MEMORY_BACKEND_MEMFD, memory_backend_memfd_props,
	 "memory in a memfd"},
	{"memory-backend-file", MEMORY_BACKEND_FILE, memory_backend_file_props,
	 "memory in a file on tmpfs, hugetlbfs or DAX"},
	{.name = NULL},
};

const struct prop rng_props[] = {
	PROP(rng_config, "id", PROP_STRING, id, .required = true, .help = "object id"),
	PROP(rng_config, "filename", PROP_STRING, filename, .def = "/dev/urandom",
	     .help = "where random bytes are read"),
	{.name = NULL},
};

const struct prop iothread_props[] = {
	PROP(iothread_config, "id", PROP_STRING, id, .required = true, .help = "object id"),
	{.name = NULL},
};

#define CHARDEV(...) PROP(chardev_config, __VA_ARGS__)

#define CHARDEV_ROWS                                                                           \
	CHARDEV("id", PROP_STRING, id, .required = true, .help = "label"),                     \
		CHARDEV("mux", PROP_BOOL, mux, .def = "off",                                   \
			.help = "several frontends share it; Ctrl-a c switches"),              \
		CHARDEV("logfile", PROP_STRING, logfile, .help = "file that gets all output"), \
		CHARDEV("logappend", PROP_BOOL, logappend, .def = "off",                       \
			.help = "keep what logfile holds already"),                            \
		CHARDEV("reopen-on-cpr", PROP_BOOL, reopen_on_cpr, .def = "off",               \
			.help = "an update closes and reopens it")

static const struct prop chardev_plain_props[] = {
	CHARDEV_ROWS,
	{.name = NULL},
};

static const struct prop chardev_stdio_props[] = {
	CHARDEV_ROWS,
	CHARDEV("signal", PROP_BOOL, signal, .def = "on", .help = "Ctrl-C ends the process"),
	{.name = NULL},
};

static const struct prop chardev_socket_props[] = {
	CHARDEV_ROWS,
	CHARDEV("path", PROP_STRING, path, .help = "UNIX socket"),
	CHARDEV("host", PROP_STRING, host, .help = "TCP: address or name"),
	CHARDEV("port", PROP_STRING, port, .help = "TCP: port"),
	CHARDEV("server", PROP_BOOL, server, .def = "off", .help = "listen"),
	CHARDEV("wait", PROP_BOOL, wait, .def = "off",
		.help = "server: start when a client has connected; -chardev: on unless given"),
	CHARDEV("nodelay", PROP_BOOL, nodelay, .def = "off", .help = "TCP_NODELAY"),
	CHARDEV("reconnect-ms", PROP_U32, reconnect_ms, .def = "0",
		.help = "client: pause before connecting again, 0: never"),
	{.name = NULL},
};

static const struct prop chardev_file_props[] = {
	CHARDEV_ROWS,
	CHARDEV("path", PROP_STRING, path, .required = true, .help = "file that gets the output"),
	CHARDEV("input-path", PROP_STRING, in_path, .help = "file that input is read from"),
	CHARDEV("append", PROP_BOOL, append, .def = "off", .help = "do not truncate it"),
	{.name = NULL},
};

static const struct prop chardev_path_props[] = {
	CHARDEV_ROWS,
	CHARDEV("path", PROP_STRING, path, .required = true, .help = "path on the host"),
	{.name = NULL},
};

static const struct prop chardev_ringbuf_props[] = {
	CHARDEV_ROWS,
	CHARDEV("size", PROP_SIZE, size_bytes, .def = "65536", .min = 1, .max = 16777216,
		.help = "size, a power of two"),
	{.name = NULL},
};

const struct kind_table chardev_kinds[] = {
	{"null", CHARDEV_NULL, chardev_plain_props, "takes everything, says nothing"},
	{"stdio", CHARDEV_STDIO, chardev_stdio_props, "standard input and output"},
	{"socket", CHARDEV_SOCKET, chardev_socket_props, "UNIX or TCP socket"},
	{"file", CHARDEV_FILE, chardev_file_props, "output to a file"},
	{"pipe", CHARDEV_PIPE, chardev_path_props, "FIFOs PATH.in and PATH.out, or PATH"},
	{"serial", CHARDEV_SERIAL, chardev_path_props, "serial line of the host (alias tty)"},
	{"parallel", CHARDEV_PARALLEL, chardev_path_props, "parallel port (alias parport)"},
	{"pty", CHARDEV_PTY, chardev_plain_props, "new pseudo-terminal"},
	{"ringbuf", CHARDEV_RINGBUF, chardev_ringbuf_props, "last output, kept in memory"},
	{.name = NULL},
};

static const char *const block_aio_names[] = {
	[BLOCK_AIO_IO_URING] = "io_uring",
	[BLOCK_AIO_THREADS] = "threads",
	NULL,
};

const char *const block_on_error_names[] = {
	[BLOCK_ON_ERROR_AUTO] = "auto",	    [BLOCK_ON_ERROR_REPORT] = "report",
	[BLOCK_ON_ERROR_IGNORE] = "ignore", [BLOCK_ON_ERROR_STOP] = "stop",
	[BLOCK_ON_ERROR_ENOSPC] = "enospc", NULL,
};

#define BLOCK(...) PROP(block_config, __VA_ARGS__)

static const struct prop block_props[] = {
	BLOCK("node-name", PROP_STRING, node_name, .required = true),
	BLOCK("protocol-node-name", PROP_STRING, protocol_name),
	BLOCK("drive-id", PROP_STRING, drive_id),
	BLOCK("filename", PROP_STRING, filename, .required = true),
	BLOCK("host-device", PROP_BOOL, host_device),
	BLOCK("read-only", PROP_BOOL, read_only),
	BLOCK("cache.direct", PROP_BOOL, cache_direct),
	BLOCK("cache.no-flush", PROP_BOOL, cache_no_flush),
	BLOCK("cache.writethrough", PROP_BOOL, writethrough),
	BLOCK("discard", PROP_BOOL, discard),
	BLOCK("locking", PROP_ON_OFF_AUTO, locking),
	BLOCK("aio", PROP_ENUM, aio, .names = block_aio_names),
	BLOCK("guess-raw", PROP_BOOL, guess_raw),
	BLOCK("werror", PROP_ENUM, werror, .names = block_on_error_names),
	BLOCK("rerror", PROP_ENUM, rerror, .names = block_on_error_names),
	{.name = NULL},
};

static const struct prop device_props[] = {
	PROP(device_config, "driver", PROP_STRING, driver, .required = true),
	PROP(device_config, "id", PROP_STRING, id),
	{.name = NULL},
};

static const struct prop serial_props[] = {
	PROP(serial_config, "chardev", PROP_STRING, chardev),
	{.name = NULL},
};

static const char *const monitor_mode_names[] = {
	[MONITOR_HMP] = "readline",
	[MONITOR_QMP] = "control",
	NULL,
};

const struct prop monitor_props[] = {
	PROP(monitor_config, "chardev", PROP_STRING, chardev, .required = true,
	     .help = "id of the character device it speaks on"),
	PROP(monitor_config, "mode", PROP_ENUM, kind, .names = monitor_mode_names,
	     .def = "readline", .help = "HMP for people or QMP for programs"),
	PROP(monitor_config, "pretty", PROP_BOOL, pretty, .def = "off",
	     .help = "QMP: one member per line"),
	{.name = NULL},
};

#define VM(...) PROP(vm_config, __VA_ARGS__)

const struct prop vm_props[] = {
	VM("cpu", PROP_STRING, cpu_model, .def = "host"),
	VM("cpus", PROP_U32, n_cpus, .def = "1", .min = 1, .max = 255),
	VM("sockets", PROP_U32, n_sockets, .def = "1", .min = 1, .max = 255),
	VM("cores", PROP_U32, n_cores, .def = "1", .min = 1, .max = 255),
	VM("threads", PROP_U32, n_threads, .def = "1", .min = 1, .max = 255),
	VM("ram-size", PROP_SIZE, ram_size_bytes, .def = "128M", RAM_BOUNDS),
	VM("kernel", PROP_STRING, kernel),
	VM("initrd", PROP_STRING, initrd),
	VM("append", PROP_STRING, append),
	VM("name", PROP_STRING, name),
	VM("process-name", PROP_STRING, process_name),
	VM("uuid", PROP_STRING, uuid),
	VM("no-reboot", PROP_BOOL, no_reboot),
	VM("no-shutdown", PROP_BOOL, no_shutdown),
	VM("rtc-localtime", PROP_BOOL, rtc_localtime),
	VM("nodefaults", PROP_BOOL, nodefaults),
	VM("only-migratable", PROP_BOOL, only_migratable),
	VM("only-migratable-transfer", PROP_BOOL, only_migratable_transfer),
	VM("only-migratable-exec", PROP_BOOL, only_migratable_exec),
	{.name = NULL},
};

const struct kind_table *kind_find(const struct kind_table *kinds, const char *name)
{
	for (; kinds->name; kinds++)
		if (strcmp(kinds->name, name) == 0)
			return kinds;
	return NULL;
}

const struct kind_table *kind_by_number(const struct kind_table *kinds, int kind)
{
	for (; kinds->name; kinds++)
		if (kinds->kind == kind)
			return kinds;
	return NULL;
}

char *kind_names(const struct kind_table *kinds)
{
	GString *names = g_string_new(NULL);

	for (; kinds->name; kinds++)
		g_string_append_printf(names, "%s%s", names->len ? ", " : "", kinds->name);
	return g_string_free(names, FALSE);
}

static void free_by_table(const struct prop *props, void *element)
{
	if (!element)
		return;
	props_clear(props, element);
	g_free(element);
}

static void memory_backend_free(void *element)
{
	struct memory_backend_config *backend = element;

	if (backend)
		free_by_table(kind_by_number(memory_backend_kinds, backend->kind)->props, backend);
}

static void rng_free(void *element)
{
	free_by_table(rng_props, element);
}

static void iothread_free(void *element)
{
	free_by_table(iothread_props, element);
}

static void chardev_free(void *element)
{
	struct chardev_config *chardev = element;

	if (chardev)
		free_by_table(kind_by_number(chardev_kinds, chardev->kind)->props, chardev);
}

static void block_free(void *element)
{
	free_by_table(block_props, element);
}

void device_config_free(struct device_config *device)
{
	if (device)
		json_decref(device->props);
	free_by_table(device_props, device);
}

static void device_free(void *element)
{
	device_config_free(element);
}

static void serial_free(void *element)
{
	free_by_table(serial_props, element);
}

static void monitor_free(void *element)
{
	free_by_table(monitor_props, element);
}

#define LIST(key, member, struct_type, ...)                                \
	{                                                                  \
		.name = key, .offset = offsetof(struct vm_config, member), \
		.size = sizeof(struct struct_type), __VA_ARGS__            \
	}

const struct vm_list vm_lists[VM_LIST_COUNT] = {
	[VM_LIST_MEMORY_BACKENDS] = LIST(
		"memory-backends", memory_backends, memory_backend_config, .kind_key = "qom-type",
		.kind_offset = offsetof(struct memory_backend_config, kind),
		.kinds = memory_backend_kinds, .free = memory_backend_free),
	[VM_LIST_RNGS] = LIST("rngs", rngs, rng_config, .props = rng_props, .free = rng_free),
	[VM_LIST_IOTHREADS] = LIST("iothreads", iothreads, iothread_config, .props = iothread_props,
				   .free = iothread_free),
	[VM_LIST_CHARDEVS] = LIST("chardevs", chardevs, chardev_config, .kind_key = "backend",
				  .kind_offset = offsetof(struct chardev_config, kind),
				  .kinds = chardev_kinds, .free = chardev_free),
	[VM_LIST_BLOCKS] =
		LIST("blocks", blocks, block_config, .props = block_props, .free = block_free),
	[VM_LIST_DEVICES] =
		LIST("devices", devices, device_config, .props = device_props, .json_key = "props",
		     .json_offset = offsetof(struct device_config, props), .free = device_free),
	[VM_LIST_SERIALS] =
		LIST("serials", serials, serial_config, .props = serial_props, .free = serial_free),
	[VM_LIST_MONITORS] = LIST("monitors", monitors, monitor_config, .props = monitor_props,
				  .free = monitor_free),
};

GPtrArray *vm_list_array(const struct vm_config *config, enum vm_list_index index)
{
	return *(GPtrArray *const *)((const char *)config + vm_lists[index].offset);
}
