// The machine as sections of a stream, and as the tree that a handshake compares.
// SPDX-License-Identifier: Apache-2.0
#include "machine/machine_priv.h"

#include <string.h>

#include "backend/block/block.h"
#include "base/clock.h"
#include "base/error.h"
#include "state/txn.h"

/**
 * DOC: theory of operation
 *
 * Saving walks the owners (machine, KVM, devices, chardevs) and adds each one's described struct
 * under its stable path.  Loading walks them in the same way, parses every section into scratch,
 * checks each and all together, copies, and only then lets each owner apply what it got.  A section
 * that nobody asked for fails the load, and so does one that is missing.
 */

#define MACHINE_MAX_RAM 16

/* From the state's arrival until it is parsed and the vCPUs get theirs. */
#define LOAD_NEAR_NS (500 * NS_PER_USEC)

_Static_assert(VM_MEMORY_BACKENDS_MAX + 1 <= MACHINE_MAX_RAM, "implicit RAM is one more");

/* What the machine itself remembers, and which RAM its state belongs to. */
struct machine_ram_state {
	uint8_t name[64];
	uint64_t size_bytes;
};

_Static_assert(VM_ID_MAX < sizeof(((struct machine_ram_state *)0)->name), "names of RAM blocks");

struct machine_state {
	uint8_t runstate[16];
	uint32_t requests;
	uint32_t n_ram;
	struct machine_ram_state ram[MACHINE_MAX_RAM];
};

static const struct state_field machine_ram_fields[] = {
	FIELD_ARRAY(struct machine_ram_state, name, 1),
	FIELD(struct machine_ram_state, size_bytes, 2),
};

static const struct state_desc machine_ram_desc = {
	.name = "machine-ram",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct machine_ram_state, machine_ram_fields),
};

static const struct state_field machine_fields[] = {
	FIELD_ARRAY(struct machine_state, runstate, 1),
	FIELD(struct machine_state, requests, 2),
	FIELD_STRUCT_LIST(struct machine_state, ram, n_ram, 3, &machine_ram_desc),
};

static bool machine_state_check(const void *obj, GError **error)
{
	const struct machine_state *state = obj;

	if (state->runstate[sizeof(state->runstate) - 1] != 0 ||
	    runstate_from_name((const char *)state->runstate) == RUNSTATE_MAX)
		return error_set_generic(error, "runstate: unknown run state");
	if (state->requests & ~MACHINE_REQUEST_KNOWN)
		return error_set_generic(error, "requests: 0x%x is not known here",
					 state->requests & ~MACHINE_REQUEST_KNOWN);
	for (uint32_t i = 0; i < state->n_ram; i++)
		if (state->ram[i].name[sizeof(state->ram[i].name) - 1] != 0)
			return error_set_generic(error, "ram[%u].name: not terminated", i);
	return true;
}

const struct state_desc machine_state_desc = {
	.name = "machine",
	.version = 1,
	.min_reader = 1,
	.check = machine_state_check,
	STATE_DESC(struct machine_state, machine_fields),
};

/* @runstate: what the guest was, when it was stopped for this. */
static bool fill_machine_state(struct machine *machine, enum runstate runstate,
			       struct machine_state *state, GError **error)
{
	if (machine->ram_blocks->len > MACHINE_MAX_RAM)
		return error_set_generic(error, "more than %d RAM blocks", MACHINE_MAX_RAM);
	g_strlcpy((char *)state->runstate, runstate_name(runstate), sizeof(state->runstate));
	state->requests = __atomic_load_n(&machine->requests, __ATOMIC_ACQUIRE);
	state->n_ram = machine->ram_blocks->len;
	for (uint32_t i = 0; i < state->n_ram; i++) {
		const struct ram_block *block = machine->ram_blocks->pdata[i];

		if (strlen(block->name) >= sizeof(state->ram[i].name))
			return error_set_generic(error, "RAM block '%s': the name is too long",
						 block->name);
		strcpy((char *)state->ram[i].name, block->name);
		state->ram[i].size_bytes = block->size_bytes;
	}
	return true;
}

static char *device_section(const struct device *dev)
{
	return g_strdup_printf("%s/%s", dev->path, dev->ops->name);
}

static char *chardev_section(const struct chardev *chardev)
{
	return g_strdup_printf("chardev/%s", chardev_id(chardev));
}

static bool save_chardevs(struct machine *machine, struct state_writer *writer, GError **error)
{
	for (guint i = 0; i < machine->own_chardevs->len; i++) {
		struct chardev *chardev = machine->own_chardevs->pdata[i];
		g_autofree char *name = chardev_section(chardev);

		if (!state_writer_add(writer, name, 0, &chardev_state_desc, chardev_state(chardev),
				      error))
			return false;
	}
	return true;
}

bool machine_save_devices(struct machine *machine, struct state_writer *writer, GError **error)
{
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];
		g_autofree char *name = device_section(dev);

		if (dev->ops->capture && !dev->ops->capture(dev, error)) {
			g_prefix_error(error, "%s: ", name);
			return false;
		}
		if (dev->ops->state &&
		    !state_writer_add(writer, name, 0, dev->ops->state, device_state(dev), error))
			return false;
	}
	return save_chardevs(machine, writer, error);
}

static bool save_kvm(struct machine *machine, struct state_writer *writer, GError **error)
{
	const struct kvm_section *sections;
	uint32_t n;

	sections = kvm_vm_sections(machine->kvm, &n);
	for (uint32_t i = 0; i < n; i++)
		if (!state_writer_add(writer, sections[i].name, sections[i].instance,
				      sections[i].desc, sections[i].state, error))
			return false;
	return true;
}

bool machine_save(struct machine *machine, struct state_writer *writer, GError **error)
{
	g_autofree struct machine_state *state = g_new0(struct machine_state, 1);
	bool ok;

	if (!fill_machine_state(machine, machine->paused_from, state, error) ||
	    !state_writer_add(writer, "machine", 0, &machine_state_desc, state, error) ||
	    !kvm_vm_begin_capture(machine->kvm, error))
		return false;
	ok = machine_save_devices(machine, writer, error);
	return kvm_vm_capture(machine->kvm, ok ? error : NULL) && ok &&
	       save_kvm(machine, writer, error);
}

/* A copy of what @dev has now, as if it stood still; nothing of the device changes. */
static bool save_copy(struct device *dev, struct state_writer *writer, GError **error)
{
	const struct state_desc *desc = dev->ops->state;
	g_autofree char *name = device_section(dev);
	g_autofree void *copy = NULL;

	if (!desc)
		return true;
	g_mutex_lock(&dev->lock);
	copy = g_memdup2(device_state(dev), desc->size);
	if (dev->ops->at_rest)
		dev->ops->at_rest(dev, copy);
	g_mutex_unlock(&dev->lock);
	return state_writer_add(writer, name, 0, desc, copy, error);
}

bool machine_save_running(struct machine *machine, struct state_writer *writer, GError **error)
{
	g_autofree struct machine_state *state = g_new0(struct machine_state, 1);

	if (!fill_machine_state(machine, machine->runstate, state, error) ||
	    !state_writer_add(writer, "machine", 0, &machine_state_desc, state, error))
		return false;
	for (guint i = 0; i < machine->devices->len; i++)
		if (!save_copy(machine->devices->pdata[i], writer, error))
			return false;
	return save_chardevs(machine, writer, error) && save_kvm(machine, writer, error);
}

/* Rules between objects: the RAM that the state speaks of is the RAM that is here. */
static bool machine_check(const struct state_txn *txn, void *opaque, GError **error)
{
	const struct machine *machine = opaque;
	const struct machine_state *state = state_txn_peek(txn, "machine", 0);

	if (state->n_ram != machine->ram_blocks->len)
		return error_set_generic(error, "machine: %u RAM blocks, here are %u", state->n_ram,
					 machine->ram_blocks->len);
	for (uint32_t i = 0; i < state->n_ram; i++) {
		const struct ram_block *block = machine->ram_blocks->pdata[i];

		if (strcmp(block->name, (const char *)state->ram[i].name) != 0)
			return error_set_generic(error, "machine: RAM block %u is '%s', here '%s'",
						 i, state->ram[i].name, block->name);
		if (block->size_bytes != state->ram[i].size_bytes)
			return error_set_generic(
				error,
				"machine: RAM block '%s' has %" G_GUINT64_FORMAT
				" bytes, here %" G_GUINT64_FORMAT "; start with the same -m",
				block->name, state->ram[i].size_bytes, block->size_bytes);
	}
	return true;
}

static bool parse_all(struct machine *machine, struct state_txn *txn, struct machine_state *state,
		      GError **error)
{
	const struct kvm_section *sections;
	uint32_t n;

	if (!state_txn_add(txn, "machine", 0, &machine_state_desc, NULL, state, error))
		return false;
	sections = kvm_vm_sections(machine->kvm, &n);
	for (uint32_t i = 0; i < n; i++)
		if (!state_txn_add(txn, sections[i].name, sections[i].instance, sections[i].desc,
				   sections[i].state, sections[i].state, error))
			return false;
	return machine_parse_devices(machine, txn, error);
}

bool machine_parse_devices(struct machine *machine, struct state_txn *txn, GError **error)
{
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];
		g_autofree char *name = device_section(dev);
		void *obj = device_state(dev);

		if (dev->ops->state &&
		    !state_txn_add(txn, name, 0, dev->ops->state, obj, obj, error))
			return false;
	}
	for (guint i = 0; i < machine->own_chardevs->len; i++) {
		struct chardev *chardev = machine->own_chardevs->pdata[i];
		g_autofree char *name = chardev_section(chardev);
		void *obj = chardev_state(chardev);

		if (!state_txn_add(txn, name, 0, &chardev_state_desc, obj, obj, error))
			return false;
	}
	return true;
}

/* All routes of all devices in one call to the kernel: each change costs it a grace period. */
static bool apply_devices(struct machine *machine, GError **error)
{
	bool ok = true;

	kvm_vm_hold_routes(machine->kvm);
	for (guint i = 0; ok && i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		ok = !dev->ops->apply || dev->ops->apply(dev, error);
		if (!ok)
			g_prefix_error(error, "%s/%s: ", dev->path, dev->ops->name);
	}
	return kvm_vm_release_routes(machine->kvm, ok ? error : NULL) && ok;
}

bool machine_load(struct machine *machine, struct state_reader *reader, GError **error)
{
	autoptr(state_txn) txn = state_txn_new(reader);
	g_autofree struct machine_state *state = g_new0(struct machine_state, 1);

	kvm_vm_expect(machine->kvm, LOAD_NEAR_NS);
	if (!parse_all(machine, txn, state, error) ||
	    !state_txn_commit(txn, machine_check, machine, error))
		return false;
	machine->loaded_runstate = runstate_from_name((const char *)state->runstate);
	machine->requests = state->requests;
	return apply_devices(machine, error) && kvm_vm_apply(machine->kvm, error);
}

bool machine_rehearse_save(struct machine *machine, GError **error)
{
	autoptr(state_writer) writer = state_writer_begin("rehearsal");
	g_autoptr(GBytes) stream = NULL;

	if (save_kvm(machine, writer, error))
		stream = state_writer_finish(writer, error);
	return stream;
}

bool machine_check_stream(struct machine *machine, struct state_reader *reader, GError **error)
{
	autoptr(state_txn) txn = state_txn_new(reader);
	g_autofree struct machine_state *state = g_new0(struct machine_state, 1);

	return parse_all(machine, txn, state, error) && state_reader_finish(reader, error) &&
	       machine_check(txn, machine, error);
}

bool machine_prove(struct machine *machine, GError **error)
{
	return kvm_vm_prove(machine->kvm, error);
}

/*
 * KVM's own state was parsed and checked with the rest; what is applied is that of the VM here.  The
 * guest's has addresses in it to which KVM writes, and the guest runs.
 */
bool machine_rehearse_takeover(struct machine *machine, struct state_reader *reader, GError **error)
{
	autoptr(state_txn) txn = state_txn_new(reader);
	g_autofree struct machine_state *state = g_new0(struct machine_state, 1);

	return parse_all(machine, txn, state, error) &&
	       state_txn_commit(txn, machine_check, machine, error) &&
	       apply_devices(machine, error) && kvm_vm_capture(machine->kvm, error) &&
	       kvm_vm_apply(machine->kvm, error);
}

bool machine_rehearse_load(struct machine *machine, const json_t *tree, GError **error)
{
	autoptr(state_writer) writer = state_writer_begin("rehearsal");
	autoptr(state_reader) reader = NULL;
	g_autoptr(GBytes) stream = NULL;

	if (json_integer_value(json_object_get(tree, "cpuid")) ==
		    kvm_vm_cpuid_digest(machine->kvm) &&
	    !kvm_vm_rehearse_entry(machine->kvm, error))
		return false;
	if (machine_save(machine, writer, error))
		stream = state_writer_finish(writer, error);
	if (stream)
		reader = state_reader_open(stream, error);
	return reader && machine_load(machine, reader, error);
}

void machine_add_blockers(struct machine *machine, GPtrArray *reasons)
{
	for (guint i = 0; i < machine->ram_blocks->len; i++) {
		g_autoptr(GError) reason = NULL;

		if (!ram_block_preservable(machine->ram_blocks->pdata[i], &reason))
			g_ptr_array_add(reasons, g_strdup(reason->message));
	}
	for (guint i = 0; i < machine->own_chardevs->len; i++) {
		g_autoptr(GError) reason = NULL;

		if (!chardev_preservable(machine->own_chardevs->pdata[i], &reason))
			g_ptr_array_add(reasons, g_strdup(reason->message));
	}
	for (guint i = 0; machine->blocks && i < machine->blocks->len; i++) {
		g_autoptr(GError) reason = NULL;

		if (!block_node_check_resized(machine->blocks->pdata[i], &reason))
			g_ptr_array_add(reasons, g_strdup(reason->message));
	}
}

static json_t *describe(const char *section, uint32_t instance, const struct state_desc *desc)
{
	return json_pack("{s:s, s:i, s:s, s:i, s:i}", "section", section, "instance", instance,
			 "state", desc ? desc->name : "", "version", desc ? desc->version : 0,
			 "min-reader", desc ? desc->min_reader : 0);
}

json_t *machine_device_tree(struct machine *machine)
{
	json_t *devices = json_array(), *ram = json_array();
	const struct kvm_section *sections;
	uint32_t n;

	sections = kvm_vm_sections(machine->kvm, &n);
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(devices, describe(sections[i].name, sections[i].instance,
							sections[i].desc));
	for (guint i = 0; i < machine->devices->len; i++) {
		const struct device *dev = machine->devices->pdata[i];
		g_autofree char *name = device_section(dev);

		json_array_append_new(devices, describe(name, 0, dev->ops->state));
	}
	for (guint i = 0; i < machine->own_chardevs->len; i++) {
		g_autofree char *name = chardev_section(machine->own_chardevs->pdata[i]);

		json_array_append_new(devices, describe(name, 0, &chardev_state_desc));
	}
	for (guint i = 0; i < machine->ram_blocks->len; i++) {
		const struct ram_block *block = machine->ram_blocks->pdata[i];

		json_array_append_new(ram, json_pack("{s:s, s:I, s:b}", "name", block->name, "size",
						     (json_int_t)block->size_bytes, "share",
						     block->shared));
	}
	return json_pack("{s:o, s:o, s:I}", "devices", devices, "ram", ram, "cpuid",
			 (json_int_t)kvm_vm_cpuid_digest(machine->kvm));
}
