// Queries about the machine: vCPUs, memory, device models, options.
// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>

#include "accel/kvm.h"
#include "base/error.h"
#include "device/device.h"
#include "machine/machine.h"
#include "memory/ram.h"
#include "monitor/command.h"
#include "monitor/types.h"
#include "options/parse.h"

#define MAX_CPUS 255

/* ---- vCPUs ---- */

ENUM_TYPE(cpu_target, "x86_64");
OBJECT_TYPE(cpu_props, {"node-id", &schema_int, true}, {"socket-id", &schema_int, true},
	    {"die-id", &schema_int, true}, {"cluster-id", &schema_int, true},
	    {"core-id", &schema_int, true}, {"thread-id", &schema_int, true});
OBJECT_TYPE(cpu_info, {"cpu-index", &schema_int}, {"qom-type", &schema_string},
	    {"qom-path", &schema_string}, {"thread-id", &schema_int}, {"props", &cpu_props, true},
	    {"target", &cpu_target});
LIST_TYPE(cpu_info_list, cpu_info);

static json_t *cpu_entry(const struct vm_config *config, struct kvm_vm *kvm, uint32_t index)
{
	uint32_t thread = index % config->n_threads;
	uint32_t core = index / config->n_threads % config->n_cores;
	uint32_t socket = index / config->n_threads / config->n_cores;
	g_autofree char *path = g_strdup_printf("/machine/unattached/device[%u]", index);

	return json_pack("{s:i, s:s, s:s, s:i, s:{s:i, s:i, s:i}, s:s}", "cpu-index", index,
			 "qom-type", "host-x86_64-cpu", "qom-path", path, "thread-id",
			 kvm_vm_vcpu_tid(kvm, index), "props", "socket-id", socket, "core-id", core,
			 "thread-id", thread, "target", "x86_64");
}

/* A process that has let the guest go has no vCPUs. */
static json_t *run_cpus(struct command_call *call, const json_t *args, GError **error)
{
	const struct vm_config *config = machine_config(call->machine);
	struct kvm_vm *kvm = machine_kvm(call->machine);
	json_t *list = json_array();

	for (uint32_t i = 0; kvm && i < config->n_cpus; i++)
		json_array_append_new(list, cpu_entry(config, kvm, i));
	return list;
}

static void print_cpus(GString *out, const json_t *result)
{
	json_t *cpu;
	size_t i;

	json_array_foreach(result, i, cpu) g_string_append_printf(
		out, "%c CPU #%zu: thread_id=%" JSON_INTEGER_FORMAT "\n", i ? ' ' : '*', i,
		json_integer_value(json_object_get(cpu, "thread-id")));
}

/* ---- memory ---- */

ENUM_TYPE(memory_policy, "default", "preferred", "bind", "interleave");
LIST_TYPE(node_list, schema_uint16);
OBJECT_TYPE(memdev, {"id", &schema_string, true}, {"size", &schema_uint64}, {"merge", &schema_bool},
	    {"dump", &schema_bool}, {"prealloc", &schema_bool}, {"share", &schema_bool},
	    {"host-nodes", &node_list}, {"policy", &memory_policy});
LIST_TYPE(memdev_list, memdev);
OBJECT_TYPE(ram_block_info, {"name", &schema_string}, {"page-size", &schema_uint64},
	    {"size", &schema_uint64}, {"shared", &schema_bool}, {"hva", &schema_string});
LIST_TYPE(ram_block_list, ram_block_info);

static json_t *run_memdev(struct command_call *call, const json_t *args, GError **error)
{
	const GPtrArray *backends = machine_config(call->machine)->memory_backends;
	json_t *list = json_array();

	for (guint i = 0; i < backends->len; i++) {
		const struct memory_backend_config *b = backends->pdata[i];

		json_array_append_new(
			list, json_pack("{s:s, s:I, s:b, s:b, s:b, s:b, s:[], s:s}", "id", b->id,
					"size", (json_int_t)b->size_bytes, "merge", b->merge,
					"dump", b->dump, "prealloc", b->prealloc, "share", b->share,
					"host-nodes", "policy", "default"));
	}
	return list;
}

static const char *on_off(const json_t *value)
{
	return json_is_true(value) ? "true" : "false";
}

static void print_memdev(GString *out, const json_t *result)
{
	json_t *m;
	size_t i;

	json_array_foreach(result, i, m) g_string_append_printf(
		out,
		"memory backend: %s\n  size:  %" JSON_INTEGER_FORMAT
		"\n  merge: %s\n  dump: %s\n  prealloc: %s\n  share: %s\n  policy: default\n",
		json_member(m, "id"), json_integer_value(json_object_get(m, "size")),
		on_off(json_object_get(m, "merge")), on_off(json_object_get(m, "dump")),
		on_off(json_object_get(m, "prealloc")), on_off(json_object_get(m, "share")));
}

static json_t *run_ramblock(struct command_call *call, const json_t *args, GError **error)
{
	const GPtrArray *blocks = machine_ram_blocks(call->machine);
	json_t *list = json_array();

	for (guint i = 0; blocks && i < blocks->len; i++) {
		const struct ram_block *b = blocks->pdata[i];
		g_autofree char *hva = g_strdup_printf("%p", b->host);

		json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:b, s:s}", "name", b->name,
						      "page-size", (json_int_t)b->page_size_bytes,
						      "size", (json_int_t)b->size_bytes, "shared",
						      b->shared, "hva", hva));
	}
	return list;
}

static void print_ramblock(GString *out, const json_t *result)
{
	json_t *b;
	size_t i;

	g_string_append_printf(out, "%24s %8s %18s %18s %s\n", "Block Name", "PSize", "Total",
			       "HVA", "Shared");
	json_array_foreach(result, i, b) g_string_append_printf(
		out, "%24s %4" JSON_INTEGER_FORMAT " KiB 0x%016" PRIx64 " %18s %s\n",
		json_member(b, "name"), json_integer_value(json_object_get(b, "page-size")) / 1024,
		(uint64_t)json_integer_value(json_object_get(b, "size")), json_member(b, "hva"),
		on_off(json_object_get(b, "shared")));
}

/* ---- what there is to choose from ---- */

OBJECT_TYPE(machine_info, {"name", &schema_string}, {"is-default", &schema_bool, true},
	    {"cpu-max", &schema_int}, {"hotpluggable-cpus", &schema_bool},
	    {"numa-mem-supported", &schema_bool}, {"deprecated", &schema_bool},
	    {"default-cpu-type", &schema_string, true}, {"default-ram-id", &schema_string, true},
	    {"acpi", &schema_bool});
LIST_TYPE(machine_info_list, machine_info);
OBJECT_TYPE(current_machine, {"wakeup-suspend-support", &schema_bool});
OBJECT_TYPE(cpu_definition, {"name", &schema_string}, {"static", &schema_bool},
	    {"typename", &schema_string}, {"unavailable-features", &schema_string_list, true},
	    {"migration-safe", &schema_bool, true}, {"deprecated", &schema_bool});
LIST_TYPE(cpu_definition_list, cpu_definition);
OBJECT_TYPE(iothread_info, {"id", &schema_string});
LIST_TYPE(iothread_list, iothread_info);
OBJECT_TYPE(typename_args, {"typename", &schema_string});
OBJECT_TYPE(property_info, {"name", &schema_string}, {"type", &schema_string},
	    {"description", &schema_string, true}, {"default-value", &schema_any, true});
LIST_TYPE(property_list, property_info);
OBJECT_TYPE(option_args, {"option", &schema_string, true});
ENUM_TYPE(option_kind, "string", "boolean", "number", "size");
OBJECT_TYPE(option_parameter, {"name", &schema_string}, {"type", &option_kind},
	    {"help", &schema_string, true}, {"default", &schema_string, true});
LIST_TYPE(option_parameters, option_parameter);
OBJECT_TYPE(option_info, {"option", &schema_string}, {"parameters", &option_parameters});
LIST_TYPE(option_list, option_info);

static json_t *run_machines(struct command_call *call, const json_t *args, GError **error)
{
	return json_pack("[{s:s, s:b, s:i, s:b, s:b, s:b, s:s, s:s, s:b}]", "name", "q35",
			 "is-default", 1, "cpu-max", MAX_CPUS, "hotpluggable-cpus", 0,
			 "numa-mem-supported", 0, "deprecated", 0, "default-cpu-type",
			 "host-x86_64-cpu", "default-ram-id", "pc.ram", "acpi", 1);
}

static json_t *run_current_machine(struct command_call *call, const json_t *args, GError **error)
{
	return json_pack("{s:b}", "wakeup-suspend-support", 0);
}

static json_t *run_cpu_definitions(struct command_call *call, const json_t *args, GError **error)
{
	return json_pack("[{s:s, s:b, s:s, s:[], s:b, s:b}]", "name", "host", "static", 0,
			 "typename", "host-x86_64-cpu", "unavailable-features", "migration-safe", 0,
			 "deprecated", 0);
}

static json_t *run_iothreads(struct command_call *call, const json_t *args, GError **error)
{
	const GPtrArray *iothreads = machine_config(call->machine)->iothreads;
	json_t *list = json_array();

	for (guint i = 0; i < iothreads->len; i++) {
		const struct iothread_config *iothread = iothreads->pdata[i];

		json_array_append_new(list, json_pack("{s:s}", "id", iothread->id));
	}
	return list;
}

/* How device-list-properties and query-command-line-options call a property's type. */
static const struct {
	const char *device, *option;
} prop_type_names[] = {
	[PROP_BOOL] = {"bool", "boolean"}, [PROP_U16] = {"uint16", "number"},
	[PROP_U32] = {"uint32", "number"}, [PROP_U64] = {"uint64", "number"},
	[PROP_SIZE] = {"size", "size"},	   [PROP_STRING] = {"str", "string"},
	[PROP_ENUM] = {"enum", "string"},  [PROP_ON_OFF_AUTO] = {"OnOffAuto", "string"},
};

static json_t *run_device_properties(struct command_call *call, const json_t *args, GError **error)
{
	const char *name = json_member(args, "typename");
	const struct device_ops *ops = device_ops_find(name);
	json_t *list;

	if (!ops) {
		error_set(error, MOLT_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", name);
		return NULL;
	}
	list = json_array();
	for (const struct prop *p = ops->props; p && p->name; p++) {
		json_t *entry = json_pack("{s:s, s:s}", "name", p->name, "type",
					  prop_type_names[p->type].device);

		if (p->help)
			json_object_set_new(entry, "description", json_text(p->help));
		if (p->def)
			json_object_set_new(entry, "default-value", json_text(p->def));
		json_array_append_new(list, entry);
	}
	return list;
}

static json_t *option_entry(const struct option *option)
{
	json_t *parameters = json_array();

	for (const struct prop *p = option->props; p->name; p++) {
		json_t *entry = json_pack("{s:s, s:s}", "name", p->name, "type",
					  prop_type_names[p->type].option);

		if (p->help)
			json_object_set_new(entry, "help", json_text(p->help));
		if (p->def)
			json_object_set_new(entry, "default", json_text(p->def));
		json_array_append_new(parameters, entry);
	}
	return json_pack("{s:s, s:o}", "option", option->name + 1, "parameters", parameters);
}

static json_t *run_options(struct command_call *call, const json_t *args, GError **error)
{
	const json_t *wanted = json_object_get(args, "option");
	json_t *list = json_array();

	for (const struct option *o = option_table; o->name; o++)
		if (o->props && (!wanted || g_str_equal(json_string_value(wanted), o->name + 1)))
			json_array_append_new(list, option_entry(o));
	if (!wanted || json_array_size(list) > 0)
		return list;
	json_decref(list);
	error_set_generic(error, "invalid option name: %s", json_string_value(wanted));
	return NULL;
}

const struct command commands_machine[] = {
	{
		.name = "query-cpus-fast",
		.returns = &cpu_info_list,
		.run = run_cpus,
		.hmp = {"info cpus", .help = "vCPUs and their threads", .print = print_cpus},
	},
	{
		.name = "query-memdev",
		.returns = &memdev_list,
		.run = run_memdev,
		.hmp = {"info memdev", .help = "memory backends", .print = print_memdev},
	},
	{
		.returns = &ram_block_list,
		.run = run_ramblock,
		.hmp = {"info ramblock", .help = "RAM blocks", .print = print_ramblock},
	},
	{
		.name = "query-machines",
		.returns = &machine_info_list,
		.run = run_machines,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{
		.name = "query-current-machine",
		.returns = &current_machine,
		.run = run_current_machine,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{
		.name = "query-cpu-definitions",
		.returns = &cpu_definition_list,
		.run = run_cpu_definitions,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{
		.name = "query-iothreads",
		.returns = &iothread_list,
		.run = run_iothreads,
	},
	{
		.name = "device-list-properties",
		.args = &typename_args,
		.returns = &property_list,
		.run = run_device_properties,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{
		.name = "query-command-line-options",
		.args = &option_args,
		.returns = &option_list,
		.run = run_options,
		.flags = COMMAND_WITHOUT_MACHINE,
	},
	{0},
};
