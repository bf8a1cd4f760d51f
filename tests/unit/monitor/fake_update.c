// A stand-in for src/cpr and src/machine: remembers what monitors ask of them.
// SPDX-License-Identifier: Apache-2.0
#include "fake_update.h"

#include "backend/chardev/chardev_set.h"
#include "base/error.h"

struct update *fake_update_new(struct vm_config *config, bool with_machine)
{
	struct update *update = g_new0(struct update, 1);

	update->config = config;
	update->chardevs = chardev_set_new();
	update->calls = g_string_new(NULL);
	update->runstate = with_machine ? RUNSTATE_RUNNING : RUNSTATE_INMIGRATE;
	if (with_machine)
		fake_update_machine_appears(update);
	return update;
}

void fake_update_machine_appears(struct update *update)
{
	update->machine = g_new0(struct machine, 1);
	update->machine->update = update;
	if (update->machine_fn)
		update->machine_fn(update->machine_opaque, update->machine);
}

void fake_machine_event(struct update *update, enum machine_event event, json_t *data)
{
	if (update->machine->fn)
		update->machine->fn(update->machine->opaque, event, data);
	json_decref(data);
}

static bool called(struct update *update, const char *what, const json_t *args, GError **error)
{
	char *text = args ? json_dumps(args, JSON_SORT_KEYS | JSON_COMPACT) : NULL;

	g_string_append_printf(update->calls, "%s(%s);", what, text ? text : "");
	free(text);
	if (!update->fail)
		return true;
	error_set_generic(error, "%s", update->fail);
	update->fail = NULL;
	return false;
}

void update_free(struct update *update)
{
	if (!update)
		return;
	chardev_set_free(update->chardevs);
	fd_source_clear(&update->fds);
	vm_config_free(update->config);
	g_string_free(update->calls, TRUE);
	g_free(update->machine);
	g_free(update);
}

void update_set_extra(struct update *update, const struct update_extra *extra)
{
	update->extra = *extra;
}

void update_add_listener(struct update *update, update_event_fn fn, void *opaque)
{
	update->event_fn = fn;
	update->event_opaque = opaque;
}

void update_on_idle(struct update *update, void (*fn)(void *opaque), void *opaque)
{
	update->idle_fn = fn;
	update->idle_opaque = opaque;
}

void fake_update_ends(struct update *update)
{
	update->active = false;
	update->idle_fn(update->idle_opaque);
}

void update_on_machine(struct update *update, void (*fn)(void *opaque, struct machine *machine),
		       void *opaque)
{
	update->machine_fn = fn;
	update->machine_opaque = opaque;
	if (update->machine)
		fn(opaque, update->machine);
}

struct machine *update_machine(struct update *update)
{
	return update->machine;
}

const struct vm_config *update_config(const struct update *update)
{
	return update->config;
}

struct fd_source *update_fds(struct update *update)
{
	return &update->fds;
}

struct chardev_set *update_chardevs(struct update *update)
{
	return update->chardevs;
}

enum runstate update_runstate(const struct update *update)
{
	return update->runstate;
}

bool update_cont(struct update *update, GError **error)
{
	return called(update, "cont", NULL, error);
}

bool update_stop(struct update *update, GError **error)
{
	return called(update, "stop", NULL, error);
}

bool update_migrate(struct update *update, const json_t *args, GError **error)
{
	return called(update, "migrate", args, error);
}

bool update_incoming(struct update *update, const json_t *args, GError **error)
{
	return called(update, "incoming", args, error);
}

void update_cancel(struct update *update)
{
	called(update, "cancel", NULL, NULL);
}

bool update_continue(struct update *update, const char *state, GError **error)
{
	return called(update, "continue", NULL, error);
}

json_t *update_query(struct update *update)
{
	if (update->error_desc)
		return json_pack("{s:s, s:s}", "status", "failed", "error-desc",
				 update->error_desc);
	return json_pack("{s:s, s:i}", "status", "completed", "downtime", 7);
}

bool update_set_parameters(struct update *update, const json_t *args, GError **error)
{
	return called(update, "parameters", args, error);
}

json_t *update_query_parameters(struct update *update)
{
	return json_pack("{s:s, s:i, s:[s, s], s:b, s:s}", "mode", "cpr-exec", "max-bandwidth", 1,
			 "cpr-exec-command", "a", "b c", "direct-io", 0, "tls-creds", "");
}

bool update_set_capabilities(struct update *update, const json_t *list, GError **error)
{
	return called(update, "capabilities", list, error);
}

json_t *update_query_capabilities(struct update *update)
{
	return json_pack("[{s:s, s:b}]", "capability", "events", "state", 1);
}

bool update_active(const struct update *update)
{
	return update->active;
}

/* ---- the machine ---- */

void machine_add_listener(struct machine *machine, machine_event_fn fn, void *opaque)
{
	machine->fn = fn;
	machine->opaque = opaque;
}

void machine_remove_listener(struct machine *machine, machine_event_fn fn, void *opaque)
{
	machine->fn = NULL;
}

const struct vm_config *machine_config(const struct machine *machine)
{
	return machine->update->config;
}

struct kvm_vm *machine_kvm(struct machine *machine)
{
	return (struct kvm_vm *)machine;
}

int kvm_vm_vcpu_tid(const struct kvm_vm *vm, uint32_t index)
{
	return 1000 + index;
}

GPtrArray *machine_ram_blocks(struct machine *machine)
{
	return NULL;
}

bool machine_block_resize(struct machine *machine, const char *device, const char *node_name,
			  uint64_t size_bytes, GError **error)
{
	return error_set(error, MOLT_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found",
			 device ? device : node_name);
}

json_t *machine_query_block(struct machine *machine)
{
	return json_pack("[{s:s, s:s, s:b, s:b}]", "device", "disk0", "type", "unknown",
			 "removable", 0, "locked", 0);
}

void machine_reset(struct machine *machine)
{
	called(machine->update, "reset", NULL, NULL);
}

void machine_powerdown(struct machine *machine)
{
	called(machine->update, "powerdown", NULL, NULL);
}

static const struct prop fake_props[] = {
	{.name = "drive", .type = PROP_STRING, .help = "the disk"},
	{.name = NULL},
};

const struct device_ops *device_ops_find(const char *driver)
{
	static const struct device_ops ops = {.name = "fake", .props = fake_props};

	return g_str_equal(driver, "fake-pci") ? &ops : NULL;
}

bool update_device_add(struct update *update, const json_t *args, GError **error)
{
	return called(update, "device_add", args, error);
}

bool update_device_del(struct update *update, const char *id, GError **error)
{
	json_t *args = json_pack("{s:s}", "id", id);
	bool ok = called(update, "device_del", args, error);

	json_decref(args);
	return ok;
}
