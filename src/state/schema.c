// The schema: a table as text, one line per field, for docs/schema/ and for review.
// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

const char *state_type_name(unsigned int type)
{
	switch ((enum state_type)type) {
	case STATE_U8:
		return "u8";
	case STATE_U16:
		return "u16";
	case STATE_U32:
		return "u32";
	case STATE_U64:
		return "u64";
	case STATE_BOOL:
		return "bool";
	case STATE_STRUCT:
		return "struct";
	case STATE_BLOB:
		return "blob";
	}
	return NULL;
}

static void schema_type(const struct state_field *field, GString *out)
{
	if (field->type == STATE_STRUCT)
		g_string_append_printf(out, "struct %s", field->desc->name);
	else if (field->type == STATE_BLOB)
		g_string_append_printf(out, "blob %s, %u octets", field->abi, field->elem_size);
	else
		g_string_append(out, state_type_name(field->type));
	if (field->shape == STATE_FIXED)
		g_string_append_printf(out, "[%u]", field->capacity);
	if (field->shape == STATE_COUNTED)
		g_string_append_printf(out, "[0..%u]", field->capacity);
}

static void schema_field(const struct state_field *field, GString *out)
{
	if (field->shape == STATE_PAD)
		return;
	g_string_append_printf(out, "%5u  ", field->tag);
	if (field->shape == STATE_GONE) {
		g_string_append(out, "gone\n");
		return;
	}
	g_string_append_printf(out, "%-24s ", field->name);
	schema_type(field, out);
	if (field->since > 1)
		g_string_append_printf(out, ", since %u", field->since);
	if (field->flags & STATE_OPTIONAL)
		g_string_append(out, ", optional");
	g_string_append_c(out, '\n');
}

/* @done holds the descriptions written or about to be: each is written once. */
static void schema_desc(const struct state_desc *desc, GPtrArray *done, GString *out)
{
	g_string_append_printf(out, "%s version %u, readable from version %u on%s\n", desc->name,
			       desc->version, desc->min_reader,
			       desc->flags & STATE_OPTIONAL ? ", optional section" : "");
	for (uint32_t i = 0; i < desc->n_fields; i++) {
		const struct state_field *field = &desc->fields[i];

		schema_field(field, out);
		if (field->desc && !g_ptr_array_find(done, field->desc, NULL))
			g_ptr_array_add(done, (gpointer)field->desc);
	}
}

void state_schema_write(const struct state_desc *desc, GString *out)
{
	g_autoptr(GPtrArray) done = g_ptr_array_new();

	g_ptr_array_add(done, (gpointer)desc);
	for (guint i = 0; i < done->len; i++) {
		if (i > 0)
			g_string_append_c(out, '\n');
		schema_desc(g_ptr_array_index(done, i), done, out);
	}
}
