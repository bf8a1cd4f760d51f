// What a configuration must fulfil whoever wrote it: ids, references, sizes that agree.
// SPDX-License-Identifier: Apache-2.0
#include "options/check.h"

#include <string.h>

#include "base/error.h"
#include "options/tables.h"
#include "options/text.h"
#include "state/fdstore.h"
#include "state/section.h"

#define SERIALS_MAX 4
#define PAGE_BYTES  4096
/* Owner page and lock, pid file, implicit RAM, kernel, initrd. */
#define PROCESS_DESCRIPTORS 8
#define LETTERS		    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

/* The longest names that an id is part of; its descriptors have longer ones. */
_Static_assert(sizeof("monitor//session") + VM_ID_MAX <= STATE_NAME_BYTES, "names of sections");
_Static_assert(sizeof("dev//debugcon") + VM_ID_MAX <= STATE_NAME_BYTES, "names of sections");
_Static_assert(sizeof("monitor//connection") + VM_ID_MAX <= FDSTORE_NAME_BYTES,
	       "names of descriptors");

static bool is_power_of_two(uint64_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

/**
 * struct check - One run of vm_config_check()
 * @chardev_users: chardev id to the text of the option that uses it
 * @block_users: struct block_config to the text of the device that uses it
 */
struct check {
	const struct vm_config *config;
	GHashTable *chardev_users;
	GHashTable *block_users;
};

bool id_check(const char *id, const char *what, GError **error)
{
	g_autofree char *shown = text_printable(id);

	if (*id && strchr(LETTERS, *id) && !id[strspn(id, LETTERS "0123456789-._")] &&
	    strlen(id) <= VM_ID_MAX)
		return true;
	return error_set_generic(error,
				 "%s: '%s' is not an id; begin with a letter, go on with letters, "
				 "digits, '-', '.' and '_', at most %d in all",
				 what, shown, VM_ID_MAX);
}

bool machine_config_check(const struct machine_config *machine, const char *what, GError **error)
{
	g_autofree char *shown = text_printable(machine->type);

	if (strcmp(machine->type, "q35") == 0)
		return true;
	if (g_str_has_prefix(machine->type, "pc-q35-"))
		return error_set_generic(error,
					 "%s: type: '%s': there are no versioned machine types; "
					 "give q35",
					 what, shown);
	return error_set_generic(error, "%s: type: '%s' is not available; the machine type is q35",
				 what, shown);
}

static bool check_socket(const struct chardev_config *c, const char *what, GError **error)
{
	if (c->path && (c->host || c->port))
		return error_set_generic(
			error, "%s: path and host or port exclude each other; give one", what);
	if (!c->path && !(c->host && c->port))
		return error_set_generic(error,
					 "%s: no address; give path=, or host= and port=", what);
	if (c->path && c->nodelay)
		return error_set_generic(error,
					 "%s: nodelay: a UNIX socket has no such option; "
					 "leave it out",
					 what);
	if (c->wait && !c->server)
		return error_set_generic(error, "%s: wait: a client cannot wait; add server=on",
					 what);
	if (c->reconnect_ms && c->server)
		return error_set_generic(
			error, "%s: reconnect: a server does not connect; leave it out", what);
	return true;
}

bool chardev_config_check(const struct chardev_config *chardev, const char *what, GError **error)
{
	if (!id_check(chardev->id, what, error))
		return false;
	if (chardev->kind == CHARDEV_SOCKET)
		return check_socket(chardev, what, error);
	if (chardev->kind == CHARDEV_RINGBUF && !is_power_of_two(chardev->size_bytes))
		return error_set_generic(error, "%s: size: not a power of two; give 64k", what);
	return true;
}

static bool check_backend(const struct memory_backend_config *backend, GError **error)
{
	g_autofree char *what = g_strdup_printf(
		"-object %s,id=%s", kind_by_number(memory_backend_kinds, backend->kind)->name,
		backend->id);
	uint64_t page = backend->hugetlbsize_bytes;

	if (backend->size_bytes % PAGE_BYTES != 0)
		return error_set_generic(error, "%s: size: not a multiple of 4k; round it up",
					 what);
	if (page != 0 && !backend->hugetlb)
		return error_set_generic(
			error, "%s: hugetlbsize: huge pages are off; add hugetlb=on", what);
	if (page != 0 && (!is_power_of_two(page) || page < PAGE_BYTES))
		return error_set_generic(error, "%s: hugetlbsize: not a page size; give 2M or 1G",
					 what);
	return true;
}

static bool check_ram(const struct vm_config *config, GError **error)
{
	const struct memory_backend_config *backend;
	const char *id = config->machine.memory_backend;
	g_autofree char *ram = text_from_size(config->ram_size_bytes);
	g_autofree char *shown = text_printable(id ? id : "");
	g_autofree char *size = NULL;

	for (guint i = 0; i < config->memory_backends->len; i++)
		if (!check_backend(g_ptr_array_index(config->memory_backends, i), error))
			return false;
	if (config->ram_size_bytes % PAGE_BYTES != 0)
		return error_set_generic(error, "-m %s: not a multiple of 4k; round it up", ram);
	if (!id)
		return true;
	backend = vm_config_memory_backend(config, id);
	if (!backend)
		return error_set_generic(
			error,
			"-machine memory-backend=%s: there is no such object; "
			"define it with -object memory-backend-memfd,id=%s,size=%s",
			shown, shown, ram);
	if (backend->size_bytes == config->ram_size_bytes)
		return true;
	size = text_from_size(backend->size_bytes);
	return error_set_generic(error,
				 "-m %s: does not match memory backend %s of %s; leave -m out or "
				 "give -m %s",
				 ram, backend->id, size, size);
}

static bool check_id(GHashTable *seen, const char *option, const char *id, GError **error)
{
	g_autofree char *what = g_strdup_printf("%s id", option);

	if (!id_check(id, what, error))
		return false;
	if (g_hash_table_add(seen, (char *)id))
		return true;
	return error_set_generic(error, "%s id=%s: the id is taken; choose another", option, id);
}

static bool check_array_ids(GHashTable *seen, const GPtrArray *array, size_t offset,
			    const char *option, GError **error)
{
	for (guint i = 0; i < array->len; i++) {
		const char *element = g_ptr_array_index(array, i);
		const char *id = *(char *const *)(element + offset);

		if (id && !check_id(seen, option, id, error))
			return false;
	}
	return true;
}

static bool check_block_ids(GHashTable *seen, const GPtrArray *blocks, GError **error)
{
	for (guint i = 0; i < blocks->len; i++) {
		const struct block_config *b = g_ptr_array_index(blocks, i);
		const char *option = b->drive_id ? "-drive" : "-blockdev";

		if (!check_id(seen, option, b->node_name, error))
			return false;
		if (b->protocol_name && !check_id(seen, option, b->protocol_name, error))
			return false;
		if (b->drive_id && strcmp(b->drive_id, b->node_name) != 0 &&
		    !check_id(seen, option, b->drive_id, error))
			return false;
	}
	return true;
}

static bool check_ids(const struct vm_config *config, GError **error)
{
	g_autoptr(GHashTable) objects = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GHashTable) chardevs = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GHashTable) blocks = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GHashTable) devices = g_hash_table_new(g_str_hash, g_str_equal);

	return check_array_ids(objects, config->memory_backends,
			       offsetof(struct memory_backend_config, id), "-object", error) &&
	       check_array_ids(objects, config->rngs, offsetof(struct rng_config, id), "-object",
			       error) &&
	       check_array_ids(objects, config->iothreads, offsetof(struct iothread_config, id),
			       "-object", error) &&
	       check_array_ids(chardevs, config->chardevs, offsetof(struct chardev_config, id),
			       "-chardev", error) &&
	       check_block_ids(blocks, config->blocks, error) &&
	       check_array_ids(devices, config->devices, offsetof(struct device_config, id),
			       "-device", error);
}

static bool use_chardev(struct check *check, const char *id, const char *user, GError **error)
{
	const struct chardev_config *chardev = vm_config_chardev(check->config, id);
	const char *other = g_hash_table_lookup(check->chardev_users, id);
	g_autofree char *shown = text_printable(id);

	if (!chardev)
		return error_set_generic(error,
					 "%s: chardev: there is no chardev '%s'; define it with "
					 "-chardev KIND,id=%s",
					 user, shown, shown);
	if (other && !chardev->mux)
		return error_set_generic(error,
					 "%s: chardev: %s uses '%s' already; add mux=on to that "
					 "-chardev to share it",
					 user, other, shown);
	if (!other)
		g_hash_table_insert(check->chardev_users, g_strdup(id), g_strdup(user));
	return true;
}

static bool use_block(struct check *check, const char *name, const char *user, GError **error)
{
	const struct block_config *block = vm_config_block(check->config, name);
	g_autofree char *shown = text_printable(name);
	const char *other;

	if (!block)
		return error_set_generic(error,
					 "%s: drive: there is no block node '%s'; define it with "
					 "-drive if=none,id=%s,file=PATH or with -blockdev",
					 user, shown, shown);
	other = g_hash_table_lookup(check->block_users, block);
	if (other)
		return error_set_generic(error,
					 "%s: drive: %s uses '%s' already; give each device a "
					 "drive of its own",
					 user, other, shown);
	g_hash_table_insert(check->block_users, (void *)block, g_strdup(user));
	return true;
}

static bool check_object(const void *object, const char *user, const char *key, const char *id,
			 const char *type, GError **error)
{
	g_autofree char *shown = text_printable(id);

	if (object)
		return true;
	return error_set_generic(error,
				 "%s: %s: there is no %s '%s'; define it with -object %s,id=%s",
				 user, key, type, shown, type, shown);
}

/* The properties by which any device refers to a thing of the configuration. */
static bool check_device(struct check *check, const struct device_config *device, GError **error)
{
	const struct vm_config *config = check->config;
	g_autofree char *driver = text_printable(device->driver);
	g_autofree char *user = g_strdup_printf("-device %s%s%s", driver, device->id ? ",id=" : "",
						device->id ? device->id : "");
	const char *drive = json_string_value(json_object_get(device->props, "drive"));
	const char *chardev = json_string_value(json_object_get(device->props, "chardev"));
	const char *rng = json_string_value(json_object_get(device->props, "rng"));
	const char *iothread = json_string_value(json_object_get(device->props, "iothread"));

	return (!drive || use_block(check, drive, user, error)) &&
	       (!chardev || use_chardev(check, chardev, user, error)) &&
	       (!rng ||
		check_object(vm_config_rng(config, rng), user, "rng", rng, "rng-random", error)) &&
	       (!iothread || check_object(vm_config_iothread(config, iothread), user, "iothread",
					  iothread, "iothread", error));
}

static bool check_users(struct check *check, GError **error)
{
	const struct vm_config *config = check->config;

	if (config->serials->len > VM_SERIALS_MAX)
		return error_set_generic(error,
					 "-serial: the board has %d serial ports; for more "
					 "consoles take -device virtconsole",
					 VM_SERIALS_MAX);
	for (guint i = 0; i < config->serials->len; i++) {
		const struct serial_config *serial = g_ptr_array_index(config->serials, i);
		g_autofree char *user = g_strdup_printf("-serial (COM%u)", i + 1);

		if (serial->chardev && !use_chardev(check, serial->chardev, user, error))
			return false;
	}
	for (guint i = 0; i < config->devices->len; i++)
		if (!check_device(check, g_ptr_array_index(config->devices, i), error))
			return false;
	for (guint i = 0; i < config->monitors->len; i++) {
		const struct monitor_config *monitor = g_ptr_array_index(config->monitors, i);
		g_autofree char *shown = text_printable(monitor->chardev);
		g_autofree char *user = g_strdup_printf("-mon %s", shown);

		if (!use_chardev(check, monitor->chardev, user, error))
			return false;
	}
	return true;
}

static bool check_chardevs(const struct vm_config *config, GError **error)
{
	const struct chardev_config *stdio = NULL;

	for (guint i = 0; i < config->chardevs->len; i++) {
		const struct chardev_config *c = g_ptr_array_index(config->chardevs, i);
		g_autofree char *what = g_strdup_printf(
			"-chardev %s,id=%s", kind_by_number(chardev_kinds, c->kind)->name, c->id);

		if (!chardev_config_check(c, what, error))
			return false;
		if (c->kind != CHARDEV_STDIO)
			continue;
		if (stdio)
			return error_set_generic(error,
						 "%s: stdio is '%s' already; share it: -chardev "
						 "stdio,mux=on, or -serial mon:stdio",
						 what, stdio->id);
		stdio = c;
	}
	return true;
}

static bool check_uuid(const char *uuid, GError **error)
{
	g_autofree char *shown = text_printable(uuid);
	g_autofree char *lower = g_ascii_strdown(uuid, -1);

	if (g_uuid_string_is_valid(uuid) && strcmp(uuid, lower) == 0)
		return true;
	return error_set_generic(error,
				 "-uuid %s: not a UUID; give "
				 "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in hexadecimal",
				 shown);
}

static bool check_scalars(const struct vm_config *config, GError **error)
{
	g_autofree char *cpu = text_printable(config->cpu_model);
	uint64_t product = (uint64_t)config->n_sockets * config->n_cores * config->n_threads;

	if (strcmp(config->cpu_model, "host") != 0)
		return error_set_generic(error, "-cpu %s: not available; the CPU model is host",
					 cpu);
	if (product != config->n_cpus)
		return error_set_generic(
			error,
			"-smp %u: sockets=%u * cores=%u * threads=%u is %" G_GUINT64_FORMAT
			"; make them agree",
			config->n_cpus, config->n_sockets, config->n_cores, config->n_threads,
			product);
	if ((config->initrd || config->append) && !config->kernel)
		return error_set_generic(error, "%s: there is no kernel to pass it to; add -kernel",
					 config->initrd ? "-initrd" : "-append");
	if (config->process_name &&
	    (!*config->process_name || strlen(config->process_name) > PROCESS_NAME_MAX))
		return error_set_generic(error, "-name process=: give 1 to %d bytes",
					 PROCESS_NAME_MAX);
	return !config->uuid || check_uuid(config->uuid, error);
}

static bool check_counts(const struct vm_config *config, GError **error)
{
	for (int i = 0; i < VM_LIST_COUNT; i++)
		if (vm_list_array(config, i)->len > VM_LIST_MAX)
			return error_set_generic(error, "%s: more than %d; leave some out",
						 vm_lists[i].name, VM_LIST_MAX);
	return config->memory_backends->len <= VM_MEMORY_BACKENDS_MAX ||
	       error_set_generic(error, "-object memory-backend-*: more than %d; leave some out",
				 VM_MEMORY_BACKENDS_MAX);
}

/* The most that a chardev of such a kind can have open. */
static guint chardev_descriptors(const struct chardev_config *chardev)
{
	guint log = chardev->logfile ? 1 : 0;

	switch (chardev->kind) {
	case CHARDEV_NULL:
	case CHARDEV_RINGBUF:
		return log;
	case CHARDEV_SERIAL:
	case CHARDEV_PARALLEL:
	case CHARDEV_PTY:
		return log + 1;
	case CHARDEV_STDIO:
	case CHARDEV_SOCKET:
	case CHARDEV_FILE:
	case CHARDEV_PIPE:
		break;
	}
	return log + 2;
}

/* A device has one at most, beside its disk's; the process has few. */
static bool check_descriptors(const struct vm_config *config, GError **error)
{
	guint n = PROCESS_DESCRIPTORS + config->memory_backends->len + config->blocks->len +
		  config->devices->len;

	for (guint i = 0; i < config->chardevs->len; i++)
		n += chardev_descriptors(g_ptr_array_index(config->chardevs, i));
	return n <= FDSTORE_MAX ||
	       error_set_generic(error,
				 "chardevs, disks and devices have up to %u descriptors, at most "
				 "%d can be handed to a successor; leave some out",
				 n, FDSTORE_MAX);
}

static bool check_size(const struct vm_config *config, GError **error)
{
	json_t *json = vm_config_to_json(config);
	size_t size = json_dumpb(json, NULL, 0, JSON_COMPACT);

	json_decref(json);
	return size <= VM_CONFIG_BYTES_MAX ||
	       error_set_generic(error,
				 "the configuration takes %zu bytes, at most %u can be handed to a "
				 "successor; give shorter texts or fewer devices",
				 size, VM_CONFIG_BYTES_MAX);
}

bool vm_config_check(const struct vm_config *config, GError **error)
{
	g_autoptr(GHashTable)
		chardev_users = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	g_autoptr(GHashTable) block_users = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	struct check check = {config, chardev_users, block_users};

	return check_counts(config, error) &&
	       machine_config_check(&config->machine, "-machine", error) &&
	       check_scalars(config, error) && check_ids(config, error) &&
	       check_chardevs(config, error) && check_ram(config, error) &&
	       check_users(&check, error) && check_descriptors(config, error) &&
	       check_size(config, error);
}
