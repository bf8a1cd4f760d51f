// Disks: query-block, block_resize.
// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"
#include "machine/machine.h"
#include "monitor/command.h"
#include "monitor/types.h"
#include "options/text.h"

OBJECT_TYPE(cache_info, {"writeback", &schema_bool}, {"direct", &schema_bool},
	    {"no-flush", &schema_bool});
OBJECT_TYPE(image_info, {"filename", &schema_string}, {"format", &schema_string},
	    {"virtual-size", &schema_int}, {"actual-size", &schema_int, true},
	    {"dirty-flag", &schema_bool, true});
OBJECT_TYPE(block_device_info, {"file", &schema_string}, {"node-name", &schema_string, true},
	    {"drv", &schema_string}, {"ro", &schema_bool}, {"encrypted", &schema_bool},
	    {"backing_file_depth", &schema_int}, {"detect_zeroes", &schema_string},
	    {"write_threshold", &schema_int}, {"cache", &cache_info}, {"image", &image_info},
	    {"bps", &schema_int}, {"bps_rd", &schema_int}, {"bps_wr", &schema_int},
	    {"iops", &schema_int}, {"iops_rd", &schema_int}, {"iops_wr", &schema_int});
ENUM_TYPE(io_status, "ok", "failed", "nospace");
OBJECT_TYPE(block_info, {"device", &schema_string}, {"qdev", &schema_string, true},
	    {"type", &schema_string}, {"removable", &schema_bool}, {"locked", &schema_bool},
	    {"io-status", &io_status, true}, {"inserted", &block_device_info, true});
LIST_TYPE(block_info_list, block_info);

static json_t *run_block(struct command_call *call, const json_t *args, GError **error)
{
	return machine_query_block(call->machine);
}

static void print_block(GString *out, const json_t *result)
{
	json_t *block;
	size_t i;

	json_array_foreach(result, i, block)
	{
		const json_t *in = json_object_get(block, "inserted");
		const json_t *cache = json_object_get(in, "cache");
		const char *device = json_member(block, "device");
		const char *direct = json_is_true(json_object_get(cache, "direct")) ? ", direct"
										    : "";
		const char *status = json_is_string(json_object_get(block, "io-status"))
					     ? json_member(block, "io-status")
					     : "ok";
		bool writeback = json_is_true(json_object_get(cache, "writeback"));

		g_string_append_printf(out, "%s%s (%s): %s (%s%s)\n", i ? "\n" : "",
				       *device ? device : json_member(in, "node-name"),
				       json_member(in, "node-name"), json_member(in, "file"),
				       json_member(in, "drv"),
				       json_is_true(json_object_get(in, "ro")) ? ", read-only"
									       : "");
		if (*json_member(block, "qdev"))
			g_string_append_printf(out, "    Attached to:      %s\n",
					       json_member(block, "qdev"));
		if (!g_str_equal(status, "ok"))
			g_string_append_printf(out, "    I/O status:       %s\n", status);
		g_string_append_printf(out, "    Cache mode:       %s%s\n",
				       writeback ? "writeback" : "writethrough", direct);
	}
}

OBJECT_TYPE(block_resize_args, {"device", &schema_string, true},
	    {"node-name", &schema_string, true}, {"size", &schema_int});

static json_t *run_block_resize(struct command_call *call, const json_t *args, GError **error)
{
	const char *device = json_string_value(json_object_get(args, "device"));
	const char *node_name = json_string_value(json_object_get(args, "node-name"));
	json_int_t size = json_integer_value(json_object_get(args, "size"));

	if (!device == !node_name) {
		error_set_generic(error, "give one of 'device' and 'node-name'");
		return NULL;
	}
	if (size < 0) {
		error_set_generic(error, "Parameter 'size' expects a >0 size");
		return NULL;
	}
	return machine_block_resize(call->machine, device, node_name, size, error) ? json_object()
										   : NULL;
}

/* "d0 20G": as QEMU's, a number alone counts MiB. */
static bool prepare_block_resize(json_t *args, GError **error)
{
	const char *text = json_member(args, "size");
	uint64_t size;

	if (!text_to_size(text, MIB, &size) || size > INT64_MAX)
		return error_set_generic(error, "'%s' is no size", text);
	json_object_set_new(args, "size", json_integer(size));
	return true;
}

const struct command commands_block[] = {
	{
		.name = "query-block",
		.returns = &block_info_list,
		.run = run_block,
		.hmp = {"info block", .help = "disks", .print = print_block},
	},
	{
		.name = "block_resize",
		.args = &block_resize_args,
		.run = run_block_resize,
		.flags = COMMAND_OUTSIDE_OF_UPDATE,
		.hmp = {"block_resize", NULL, "device:s,size:s", "device size",
			"resize a disk's image and tell the guest (size in MiB, or with a suffix)",
			.prepare = prepare_block_resize},
	},
	{0},
};
