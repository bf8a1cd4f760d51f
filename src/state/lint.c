// Checking a description for the mistakes the compiler cannot see.
// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <string.h>

#include "base/error.h"

static bool lint_desc(const struct state_desc *desc, unsigned int depth, GError **error);

/* Mark @len bytes from @offset as described by @name; @owner[i] says who described byte i. */
static bool lint_cover(const struct state_desc *desc, const char **owner, const char *name,
		       uint64_t offset, uint64_t len, GError **error)
{
	if (offset + len > desc->size)
		return error_set_generic(error, "%s: reaches past the end of the struct", name);
	for (uint64_t i = offset; i < offset + len; i++) {
		if (owner[i])
			return error_set_generic(error,
						 "byte %" G_GUINT64_FORMAT
						 " is described twice, by %s and by %s",
						 i, owner[i], name);
		owner[i] = name;
	}
	return true;
}

static bool lint_coverage(const struct state_desc *desc, GError **error)
{
	g_autofree const char **owner = g_new0(const char *, (gsize)desc->size + 1);

	for (uint32_t i = 0; i < desc->n_fields; i++) {
		const struct state_field *field = &desc->fields[i];

		if (field->shape == STATE_GONE)
			continue;
		if (!lint_cover(desc, owner, field->name, field->offset,
				(uint64_t)field->capacity * field->elem_size, error))
			return false;
		if (field->shape == STATE_COUNTED &&
		    !lint_cover(desc, owner, field->name, field->count_offset, sizeof(uint32_t),
				error))
			return false;
	}
	for (uint32_t i = 0; i < desc->size; i++) {
		if (!owner[i])
			return error_set_generic(error, "byte %u, after %s, is not described", i,
						 i > 0 ? owner[i - 1] : "the start of the struct");
	}
	return true;
}

static bool lint_since(const struct state_desc *desc, const struct state_field *field,
		       GError **error)
{
	if (field->since > desc->version)
		return error_set_generic(error, "%s: since version %u, but the struct is at %u",
					 field->name, field->since, desc->version);
	if (!(field->flags & STATE_OPTIONAL) && field->since > desc->min_reader)
		return error_set_generic(error,
					 "%s: is new in version %u and not optional, so min_reader "
					 "must be at least %u, not %u",
					 field->name, field->since, field->since, desc->min_reader);
	return true;
}

static bool lint_field(const struct state_desc *desc, const struct state_field *field,
		       unsigned int depth, GError **error)
{
	if (field->flags & ~STATE_OPTIONAL)
		return error_set_generic(error, "%s: unknown flags 0x%02x", field->name,
					 field->flags);
	if (field->shape == STATE_PAD || field->shape == STATE_GONE)
		return true;
	if (field->capacity == 0 || field->elem_size == 0)
		return error_set_generic(error, "%s: has no room for any element", field->name);
	if (field->type == STATE_BLOB && (!field->abi || !*field->abi))
		return error_set_generic(error, "%s: a blob needs the name of its kernel struct",
					 field->name);
	if (field->type != STATE_STRUCT)
		return lint_since(desc, field, error);
	if (!field->desc)
		return error_set_generic(error, "%s: has no description", field->name);
	if (field->desc->size != field->elem_size)
		return error_set_generic(error, "%s: is %u bytes long, but %s describes %u",
					 field->name, field->elem_size, field->desc->name,
					 field->desc->size);
	if (!lint_desc(field->desc, depth + 1, error)) {
		g_prefix_error(error, "%s: ", field->name);
		return false;
	}
	return lint_since(desc, field, error);
}

static bool lint_fields(const struct state_desc *desc, unsigned int depth, GError **error)
{
	uint16_t last_tag = 0;

	for (uint32_t i = 0; i < desc->n_fields; i++) {
		const struct state_field *field = &desc->fields[i];

		if (!lint_field(desc, field, depth, error))
			return false;
		if (field->shape == STATE_PAD)
			continue;
		if (field->tag <= last_tag)
			return error_set_generic(error, "%s: tag %u after tag %u is out of order",
						 field->name, field->tag, last_tag);
		last_tag = field->tag;
	}
	return true;
}

static bool lint_desc(const struct state_desc *desc, unsigned int depth, GError **error)
{
	if (depth >= STATE_MAX_DEPTH)
		return error_set_generic(error, "nested deeper than %u", STATE_MAX_DEPTH);
	if (!desc->name || !*desc->name)
		return error_set_generic(error, "the description has no name");
	if (desc->version == 0 || desc->min_reader == 0 || desc->min_reader > desc->version)
		return error_set_generic(error, "version %u readable from version %u on: not sane",
					 desc->version, desc->min_reader);
	if (desc->flags & ~STATE_OPTIONAL)
		return error_set_generic(error, "unknown flags 0x%02x", desc->flags);
	return lint_fields(desc, depth, error) && lint_coverage(desc, error);
}

bool state_desc_lint(const struct state_desc *desc, GError **error)
{
	if (lint_desc(desc, 0, error))
		return true;
	g_prefix_error(error, "%s: ", desc->name ? desc->name : "(no name)");
	return false;
}
