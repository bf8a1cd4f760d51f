// Loading: hostile bytes to one described struct, all or nothing.
// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <string.h>

#include "base/error.h"

/**
 * struct path - Where in the nest of structs the parser is; lives on the stack
 * @up:		The struct around it; NULL at the top
 * @name:	The member
 * @index:	Which element, for lists
 * @indexed:	Whether @index means anything
 */
struct path {
	const struct path *up;
	const char *name;
	uint32_t index;
	bool indexed;
};

/**
 * struct field_header - The twelve octets before a field's elements
 *
 * Members as in docs/format-state.md.
 */
struct field_header {
	uint16_t tag;
	uint8_t type;
	uint8_t flags;
	uint32_t count;
	uint32_t length;
};

static bool decode_struct(const struct path *path, const struct state_desc *desc, struct span *wire,
			  uint8_t *obj, GError **error);

static void path_write(const struct path *path, GString *out)
{
	if (!path)
		return;
	if (path->up) {
		path_write(path->up, out);
		g_string_append_c(out, '.');
	}
	g_string_append(out, path->name);
	if (path->indexed)
		g_string_append_printf(out, "[%u]", path->index);
}

static bool G_GNUC_PRINTF(3, 4)
	decode_fail(const struct path *path, GError **error, const char *fmt, ...)
{
	g_autoptr(GString) message = g_string_new(NULL);
	va_list ap;

	path_write(path, message);
	if (message->len > 0)
		g_string_append(message, ": ");
	va_start(ap, fmt);
	g_string_append_vprintf(message, fmt, ap);
	va_end(ap);
	return error_set_generic(error, "%s", message->str);
}

/* On the way to the field that is on the wire next, or to the end, @field was passed over. */
static bool decode_missing(const struct path *path, const struct state_field *field,
			   uint16_t wire_version, GError **error)
{
	const struct path at = {.up = path, .name = field->name};

	if (field->shape == STATE_PAD || field->shape == STATE_GONE)
		return true;
	if ((field->flags & STATE_OPTIONAL) || field->since > wire_version)
		return true;
	return decode_fail(&at, error, "missing, and version %u has it", wire_version);
}

static bool decode_bools(const struct path *path, const struct span *body, GError **error)
{
	for (size_t i = 0; i < body->len; i++) {
		if (body->data[i] > 1)
			return decode_fail(path, error, "element %zu is %u, not 0 or 1", i,
					   body->data[i]);
	}
	return true;
}

static bool decode_nested(const struct path *path, const struct state_field *field, uint32_t count,
			  struct span body, uint8_t *member, GError **error)
{
	struct path at = *path;

	at.indexed = field->shape == STATE_COUNTED;
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *elem = member + (size_t)i * field->elem_size;

		at.index = i;
		if (at.indexed && field->desc->reset) {
			memset(elem, 0, field->elem_size);
			field->desc->reset(elem);
		}
		if (!decode_struct(&at, field->desc, &body, elem, error))
			return false;
	}
	if (body.len > 0)
		return decode_fail(path, error, "%zu bytes too many", body.len);
	return true;
}

static bool decode_scalars(const struct path *path, const struct state_field *field, uint32_t count,
			   struct span body, uint8_t *member, GError **error)
{
	uint64_t expected = (uint64_t)count * field->elem_size;

	if (body.len != expected)
		return decode_fail(path, error,
				   "%zu bytes on the wire, %" G_GUINT64_FORMAT " expected",
				   body.len, expected);
	if (field->type == STATE_BOOL && !decode_bools(path, &body, error))
		return false;
	if (body.len > 0)
		memcpy(member, body.data, body.len);
	return true;
}

static bool decode_type(const struct path *path, const struct state_field *field,
			const struct field_header *header, GError **error)
{
	const char *found = state_type_name(header->type);

	if (header->type == field->type)
		return true;
	return decode_fail(path, error, "type %s (%u) on the wire, %s expected",
			   found ? found : "unknown", header->type, state_type_name(field->type));
}

static bool decode_field(const struct path *up, const struct state_field *field,
			 const struct field_header *header, struct span body, uint8_t *obj,
			 GError **error)
{
	const struct path path = {.up = up, .name = field->name};
	uint8_t *member = obj + field->offset;
	uint32_t count = header->count;
	bool ok;

	if (!decode_type(&path, field, header, error))
		return false;
	if (field->shape == STATE_COUNTED && count > field->capacity)
		return decode_fail(&path, error, "%u elements, but there is room for %u only",
				   count, field->capacity);
	if (field->shape != STATE_COUNTED && count != field->capacity)
		return decode_fail(&path, error, "%u elements on the wire, %u expected", count,
				   field->capacity);
	if (field->type == STATE_STRUCT)
		ok = decode_nested(&path, field, count, body, member, error);
	else
		ok = decode_scalars(&path, field, count, body, member, error);
	if (ok && field->shape == STATE_COUNTED) {
		memset(member + (size_t)count * field->elem_size, 0,
		       (size_t)(field->capacity - count) * field->elem_size);
		memcpy(obj + field->count_offset, &count, sizeof(count));
	}
	return ok;
}

static bool decode_field_header(const struct path *path, struct span *body, uint16_t last_tag,
				struct field_header *header, struct span *elements, GError **error)
{
	if (!span_read_le16(body, &header->tag) || !span_read_u8(body, &header->type) ||
	    !span_read_u8(body, &header->flags) || !span_read_le32(body, &header->count) ||
	    !span_read_le32(body, &header->length))
		return decode_fail(path, error, "cut short in the header of the field after tag %u",
				   last_tag);
	if (header->tag <= last_tag)
		return decode_fail(path, error, "out of order: tag %u after tag %u", header->tag,
				   last_tag);
	if (header->flags & ~STATE_OPTIONAL)
		return decode_fail(path, error, "tag %u has unknown flags 0x%02x", header->tag,
				   header->flags);
	if (!span_take(body, header->length, elements))
		return decode_fail(path, error, "tag %u claims %u bytes, but only %zu are left",
				   header->tag, header->length, body->len);
	return true;
}

/* Walk the table and the wire, both ascending by tag, side by side. */
static bool decode_fields(const struct path *path, const struct state_desc *desc,
			  uint16_t wire_version, uint32_t n_fields, struct span *body, uint8_t *obj,
			  GError **error)
{
	const struct state_field *field = desc->fields;
	const struct state_field *end = field + desc->n_fields;
	struct field_header header = {0};
	uint16_t last_tag = 0;
	struct span elements;

	for (uint32_t i = 0; i < n_fields; i++, last_tag = header.tag) {
		if (!decode_field_header(path, body, last_tag, &header, &elements, error))
			return false;
		for (; field < end && field->tag < header.tag; field++) {
			if (!decode_missing(path, field, wire_version, error))
				return false;
		}
		if (field < end && field->tag == header.tag && field->shape != STATE_GONE) {
			if (!decode_field(path, field, &header, elements, obj, error))
				return false;
			field++;
		} else if (!(header.flags & STATE_OPTIONAL)) {
			return decode_fail(
				path, error,
				"tag %u is unknown to version %u and must not be dropped",
				header.tag, desc->version);
		}
	}
	for (; field < end; field++) {
		if (!decode_missing(path, field, wire_version, error))
			return false;
	}
	return true;
}

static bool decode_check(const struct path *path, const struct state_desc *desc, const uint8_t *obj,
			 GError **error)
{
	g_autoptr(GError) reason = NULL;

	if (!desc->check || desc->check(obj, &reason))
		return true;
	return decode_fail(path, error, "%s", reason ? reason->message : "its check refuses it");
}

static bool decode_struct(const struct path *path, const struct state_desc *desc, struct span *wire,
			  uint8_t *obj, GError **error)
{
	uint16_t version, min_reader;
	uint32_t n_fields, length;
	struct span body;

	if (!span_read_le16(wire, &version) || !span_read_le16(wire, &min_reader) ||
	    !span_read_le32(wire, &n_fields) || !span_read_le32(wire, &length))
		return decode_fail(path, error, "cut short in the header of struct %s", desc->name);
	if (min_reader == 0 || min_reader > version)
		return decode_fail(path, error, "version %u readable from version %u on: not sane",
				   version, min_reader);
	if (min_reader > desc->version)
		return decode_fail(path, error,
				   "struct %s was written as version %u, which can be read from "
				   "version %u on; this molt knows version %u",
				   desc->name, version, min_reader, desc->version);
	if (!span_take(wire, length, &body))
		return decode_fail(path, error, "struct %s claims %u bytes, but only %zu are left",
				   desc->name, length, wire->len);
	if (!decode_fields(path, desc, version, n_fields, &body, obj, error))
		return false;
	if (body.len > 0)
		return decode_fail(path, error, "%zu bytes after the last field", body.len);
	return decode_check(path, desc, obj, error);
}

bool state_parse(const struct state_desc *desc, struct span wire, void *scratch, GError **error)
{
	if (!decode_struct(NULL, desc, &wire, scratch, error))
		return false;
	if (wire.len > 0)
		return error_set_generic(error, "%zu bytes after the struct", wire.len);
	return true;
}

void *state_scratch_new(const struct state_desc *desc, const void *reset)
{
	void *scratch = g_malloc0(desc->size);

	if (reset)
		memcpy(scratch, reset, desc->size);
	else if (desc->reset)
		desc->reset(scratch);
	return scratch;
}

bool state_load(const struct state_desc *desc, struct span wire, const void *reset, void *obj,
		GError **error)
{
	g_autofree void *scratch = state_scratch_new(desc, reset);

	if (!state_parse(desc, wire, scratch, error))
		return false;
	memcpy(obj, scratch, desc->size);
	return true;
}
