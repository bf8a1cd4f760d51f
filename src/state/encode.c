// Saving: one described struct to bytes, in the one canonical encoding.
// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <string.h>

#include "base/error.h"

/* Numbers are copied as they lie in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little endian");
_Static_assert(sizeof(bool) == 1, "a bool is one octet on the wire");

static bool encode_struct(const struct state_desc *desc, const uint8_t *obj, GByteArray *out,
			  GError **error);

uint32_t state_field_count(const struct state_field *field, const void *obj)
{
	uint32_t count;

	switch ((enum state_shape)field->shape) {
	case STATE_ONE:
	case STATE_FIXED:
		return field->capacity;
	case STATE_COUNTED:
		memcpy(&count, (const uint8_t *)obj + field->count_offset, sizeof(count));
		return count;
	case STATE_PAD:
	case STATE_GONE:
		break;
	}
	return 0;
}

static bool encode_elements(const struct state_field *field, const uint8_t *member, uint32_t count,
			    GByteArray *out, GError **error)
{
	if (field->type != STATE_STRUCT) {
		wire_put(out, member, (size_t)count * field->elem_size);
		return true;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (!encode_struct(field->desc, member + (size_t)i * field->elem_size, out, error))
			return false;
	}
	return true;
}

static bool encode_field(const struct state_field *field, const uint8_t *obj, GByteArray *out,
			 GError **error)
{
	uint32_t count = state_field_count(field, obj);
	guint start = out->len;
	uint8_t *header;

	if (count > field->capacity)
		return error_set_generic(error, "%s: %u elements, but there is room for %u only",
					 field->name, count, field->capacity);
	header = wire_grow(out, STATE_FIELD_HEADER_BYTES);
	wire_store_le16(header, field->tag);
	header[2] = field->type;
	header[3] = field->flags;
	wire_store_le32(header + 4, count);
	if (!encode_elements(field, obj + field->offset, count, out, error))
		return false;
	wire_store_le32(out->data + start + 8, out->len - start - STATE_FIELD_HEADER_BYTES);
	return true;
}

static bool encode_struct(const struct state_desc *desc, const uint8_t *obj, GByteArray *out,
			  GError **error)
{
	guint start = out->len;
	uint32_t n_fields = 0;
	uint8_t *header;

	wire_grow(out, STATE_STRUCT_HEADER_BYTES);
	for (uint32_t i = 0; i < desc->n_fields; i++) {
		const struct state_field *field = &desc->fields[i];

		if (field->shape == STATE_PAD || field->shape == STATE_GONE)
			continue;
		if (!encode_field(field, obj, out, error)) {
			g_prefix_error(error, "%s: ", desc->name);
			return false;
		}
		n_fields++;
	}
	header = out->data + start;
	wire_store_le16(header, desc->version);
	wire_store_le16(header + 2, desc->min_reader);
	wire_store_le32(header + 4, n_fields);
	wire_store_le32(header + 8, out->len - start - STATE_STRUCT_HEADER_BYTES);
	return true;
}

bool state_save(const struct state_desc *desc, const void *obj, GByteArray *out, GError **error)
{
	guint old_len = out->len;

	if (encode_struct(desc, obj, out, error))
		return true;
	g_byte_array_set_size(out, old_len);
	return false;
}
