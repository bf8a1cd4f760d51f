// Dumping: one described struct as JSON, for human eyes.
// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <string.h>

static json_t *dump_hex(const uint8_t *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	g_autofree char *text = g_malloc(2 * len + 1);

	for (size_t i = 0; i < len; i++) {
		text[2 * i] = digits[data[i] >> 4];
		text[2 * i + 1] = digits[data[i] & 0xf];
	}
	text[2 * len] = '\0';
	return json_string(text);
}

static json_t *dump_u64(uint64_t value)
{
	char text[sizeof("0x") + 16];

	g_snprintf(text, sizeof(text), "0x%" G_GINT64_MODIFIER "x", value);
	return json_string(text);
}

static json_t *dump_element(const struct state_field *field, const uint8_t *elem)
{
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;

	switch ((enum state_type)field->type) {
	case STATE_U8:
		return json_integer(*elem);
	case STATE_U16:
		memcpy(&u16, elem, sizeof(u16));
		return json_integer(u16);
	case STATE_U32:
		memcpy(&u32, elem, sizeof(u32));
		return json_integer(u32);
	case STATE_U64:
		memcpy(&u64, elem, sizeof(u64));
		return dump_u64(u64);
	case STATE_BOOL:
		return json_boolean(*elem);
	case STATE_STRUCT:
		return state_dump_json(field->desc, elem);
	case STATE_BLOB:
		return json_pack("{s:s, s:o}", "abi", field->abi, "hex",
				 dump_hex(elem, field->elem_size));
	}
	return json_null();
}

static json_t *dump_field(const struct state_field *field, const uint8_t *obj)
{
	uint32_t count = MIN(state_field_count(field, obj), field->capacity);
	const uint8_t *member = obj + field->offset;
	json_t *array;

	if (field->shape == STATE_ONE)
		return dump_element(field, member);
	if (field->type == STATE_U8)
		return dump_hex(member, count);
	array = json_array();
	for (uint32_t i = 0; i < count; i++)
		json_array_append_new(array,
				      dump_element(field, member + (size_t)i * field->elem_size));
	return array;
}

json_t *state_dump_json(const struct state_desc *desc, const void *obj)
{
	json_t *object = json_object();

	for (uint32_t i = 0; i < desc->n_fields; i++) {
		const struct state_field *field = &desc->fields[i];

		if (field->shape != STATE_PAD && field->shape != STATE_GONE)
			json_object_set_new(object, field->name, dump_field(field, obj));
	}
	return object;
}
