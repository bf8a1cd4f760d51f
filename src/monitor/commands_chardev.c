// Commands about character devices.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "backend/chardev/chardev_set.h"
#include "base/error.h"
#include "monitor/command.h"
#include "monitor/types.h"

/* No answer is longer than a ringbuf can be. */
#define RINGBUF_READ_MAX (16 << 20)

OBJECT_TYPE(chardev_info, {"label", &schema_string}, {"filename", &schema_string},
	    {"frontend-open", &schema_bool}, {"lost-bytes", &schema_uint64});
LIST_TYPE(chardev_info_list, chardev_info);
ENUM_TYPE(data_format, "utf8", "base64");
static const struct schema read_size = {SCHEMA_INT, "a number from 1 to 16777216", 1,
					RINGBUF_READ_MAX};
OBJECT_TYPE(ringbuf_read_args, {"device", &schema_string}, {"size", &read_size},
	    {"format", &data_format, true});
OBJECT_TYPE(ringbuf_write_args, {"device", &schema_string}, {"data", &schema_string},
	    {"format", &data_format, true});

static json_t *run_chardevs(struct command_call *call, const json_t *args, GError **error)
{
	struct chardev_set *set = update_chardevs(call->update);
	json_t *list = json_array();
	struct chardev *chardev;

	for (unsigned int i = 0; (chardev = chardev_set_get(set, i)); i++)
		json_array_append_new(
			list, json_pack("{s:s, s:o, s:b, s:I}", "label", chardev_id(chardev),
					"filename", json_text(chardev_filename(chardev)),
					"frontend-open", chardev_frontend_open(chardev),
					"lost-bytes", (json_int_t)chardev_lost_bytes(chardev)));
	return list;
}

static void print_chardevs(GString *out, const json_t *result)
{
	json_t *chardev;
	size_t i;

	json_array_foreach(result, i, chardev)
	{
		json_int_t lost = json_integer_value(json_object_get(chardev, "lost-bytes"));

		g_string_append_printf(out, "%s: filename=%s", json_member(chardev, "label"),
				       json_member(chardev, "filename"));
		if (lost)
			g_string_append_printf(out, " lost-bytes=%" JSON_INTEGER_FORMAT, lost);
		g_string_append_c(out, '\n');
	}
}

static struct chardev *find(struct command_call *call, const json_t *args, GError **error)
{
	const char *id = json_member(args, "device");
	struct chardev *chardev = chardev_set_find(update_chardevs(call->update), id);

	if (!chardev)
		error_set(error, MOLT_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", id);
	return chardev;
}

static json_t *run_ringbuf_read(struct command_call *call, const json_t *args, GError **error)
{
	struct chardev *chardev = find(call, args, error);
	size_t max = json_integer_value(json_object_get(args, "size"));
	g_autoptr(GByteArray) data = NULL;
	g_autofree char *text = NULL;

	if (!chardev)
		return NULL;
	data = chardev_ringbuf_read(chardev, max, error);
	if (!data)
		return NULL;
	if (g_str_equal(json_member(args, "format"), "base64"))
		text = g_base64_encode(data->data, data->len);
	else
		text = g_utf8_make_valid((const char *)data->data, data->len);
	return json_text(text);
}

static void print_data(GString *out, const json_t *result)
{
	g_string_append_printf(out, "%s\n", json_string_value(result));
}

static json_t *run_ringbuf_write(struct command_call *call, const json_t *args, GError **error)
{
	struct chardev *chardev = find(call, args, error);
	const char *text = json_member(args, "data");
	g_autofree uint8_t *data = NULL;
	size_t len = strlen(text);

	if (!chardev)
		return NULL;
	if (g_str_equal(json_member(args, "format"), "base64"))
		data = g_base64_decode(text, &len);
	if (!chardev_ringbuf_write(chardev, data ? data : (const uint8_t *)text, len, error))
		return NULL;
	return json_object();
}

const struct command commands_chardev[] = {
	{
		.name = "query-chardev",
		.returns = &chardev_info_list,
		.run = run_chardevs,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"info chardev", .help = "character devices", .print = print_chardevs},
	},
	{
		.name = "ringbuf-read",
		.args = &ringbuf_read_args,
		.returns = &schema_string,
		.run = run_ringbuf_read,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"ringbuf_read", NULL, "device:s,size:i", "device size",
			"show and remove the oldest output of a ringbuf", .print = print_data},
	},
	{
		.name = "ringbuf-write",
		.args = &ringbuf_write_args,
		.run = run_ringbuf_write,
		.flags = COMMAND_WITHOUT_MACHINE,
		.hmp = {"ringbuf_write", NULL, "device:s,data:r", "device data",
			"put text into a ringbuf"},
	},
	{0},
};
