// Reading the stream: everything that can be checked before a machine is touched.
// SPDX-License-Identifier: Apache-2.0
#include "state/section.h"

#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "state/stream.h"

/**
 * struct section - A section of an opened stream
 * @name:	In the stream's bytes; its terminating NUL was checked
 * @instance:	Tells apart sections of one name
 * @flags:	0 or STATE_OPTIONAL
 * @payload:	The struct in wire form
 * @taken:	Whether state_reader_take() handed it out
 */
struct section {
	const char *name;
	uint32_t instance;
	uint32_t flags;
	struct span payload;
	bool taken;
};

/**
 * struct state_reader - An opened stream
 * @bytes:	What all spans point into
 * @header:	Decoded
 * @sections:	@header.n_sections of them, ascending
 */
struct state_reader {
	GBytes *bytes;
	struct state_header header;
	struct section *sections;
};

/* Copy a NUL-padded text field.  False unless it is NUL-terminated, padded with NULs, printable. */
static bool read_text(const uint8_t *at, size_t size, char *out)
{
	size_t len = strnlen((const char *)at, size);

	for (size_t i = 0; i < size; i++) {
		if (i < len ? !g_ascii_isprint(at[i]) : at[i] != 0)
			return false;
	}
	if (len == 0 || len == size)
		return false;
	memcpy(out, at, size);
	return true;
}

static bool header_check(const struct state_header *header, GError **error)
{
	if (header->min_reader == 0 || header->min_reader > header->format_version)
		return error_set_generic(error,
					 "the state stream says format %u, readable from %u on: "
					 "not sane",
					 header->format_version, header->min_reader);
	if (header->min_reader > STATE_FORMAT_VERSION)
		return error_set_generic(error,
					 "the state stream is in format %u (written by %s), which "
					 "needs a reader of format %u; this molt reads format %u",
					 header->format_version, header->build_id,
					 header->min_reader, STATE_FORMAT_VERSION);
	if (strcmp(header->arch, state_arch_name()) != 0)
		return error_set_generic(error,
					 "the state stream is of a %s machine (written by %s); "
					 "this molt runs %s machines",
					 header->arch, header->build_id, state_arch_name());
	if (header->total_length > STATE_MAX_BYTES)
		return error_set_generic(error,
					 "the state stream claims %" G_GUINT64_FORMAT
					 " bytes; the limit is %u",
					 header->total_length, STATE_MAX_BYTES);
	if (header->n_sections > STATE_MAX_SECTIONS)
		return error_set_generic(error,
					 "the state stream claims %u sections; the limit is %u",
					 header->n_sections, STATE_MAX_SECTIONS);
	if (header->total_length < STATE_HEADER_BYTES + END_BYTES)
		return error_set_generic(error,
					 "the state stream claims %" G_GUINT64_FORMAT " bytes: "
					 "too few",
					 header->total_length);
	return true;
}

bool state_header_read(struct span wire, struct state_header *header, GError **error)
{
	const uint8_t *at = wire.data;
	uint32_t crc;

	if (wire.len < STATE_HEADER_BYTES)
		return error_set_generic(
			error, "the state stream is cut short in its header: %zu bytes", wire.len);
	if (memcmp(at, STREAM_MAGIC, strlen(STREAM_MAGIC)) != 0)
		return error_set_generic(error, "this is not a state stream of molt");
	wire = span_of(at + STREAM_AT_FORMAT, STATE_HEADER_BYTES - STREAM_AT_FORMAT);
	if (!span_read_le32(&wire, &header->format_version) ||
	    !span_read_le32(&wire, &header->min_reader) ||
	    !span_read_le64(&wire, &header->total_length) ||
	    !span_read_le32(&wire, &header->n_sections) ||
	    !span_take(&wire, STATE_ARCH_BYTES + STATE_BUILD_ID_BYTES, NULL) ||
	    !span_read_le32(&wire, &crc) || crc != crc32c(0, at, STREAM_AT_CRC) ||
	    !read_text(at + STREAM_AT_ARCH, STATE_ARCH_BYTES, header->arch) ||
	    !read_text(at + STREAM_AT_BUILD_ID, STATE_BUILD_ID_BYTES, header->build_id))
		return error_set_generic(error, "the header of the state stream is damaged");
	return header_check(header, error);
}

static bool section_read(struct span *rest, uint32_t index, struct section *section, GError **error)
{
	char name[STATE_NAME_BYTES];
	uint32_t mark, length, crc;
	struct span header, text;
	const uint8_t *start;

	if (!span_take(rest, SECTION_HEADER_BYTES, &header))
		return error_set_generic(error, "the state stream ends in the header of section %u",
					 index);
	start = header.data;
	if (!span_read_le32(&header, &mark) || !span_read_le32(&header, &section->instance) ||
	    !span_read_le32(&header, &section->flags) || !span_read_le32(&header, &length) ||
	    !span_take(&header, STATE_NAME_BYTES, &text) || !span_read_le32(&header, &crc) ||
	    mark != SECTION_MARK || !read_text(text.data, text.len, name) ||
	    !state_name_valid(name))
		return error_set_generic(
			error, "the header of section %u of the state stream is damaged", index);
	if (!span_take(rest, length, &section->payload))
		return error_set_generic(error, "%s: the state stream ends in this section", name);
	if (crc != section_crc(start, section->payload.data, length))
		return error_set_generic(error, "%s: damaged: its checksum does not match", name);
	if (section->flags & ~STATE_OPTIONAL)
		return error_set_generic(error, "%s: unknown flags 0x%x", name, section->flags);
	section->name = (const char *)text.data;
	return true;
}

static int section_key_compare(const char *name, uint32_t instance, const struct section *section)
{
	int by_name = strcmp(name, section->name);

	if (by_name != 0)
		return by_name;
	return instance < section->instance ? -1 : instance > section->instance;
}

static bool reader_read(struct state_reader *reader, GError **error)
{
	struct span rest = span_of_bytes(reader->bytes);
	uint32_t mark, n_sections;

	if (!state_header_read(rest, &reader->header, error))
		return false;
	if (rest.len != reader->header.total_length)
		return error_set_generic(
			error, "the state stream has %zu bytes, its header says %" G_GUINT64_FORMAT,
			rest.len, reader->header.total_length);
	if (!span_take(&rest, STATE_HEADER_BYTES, NULL))
		return false;
	reader->sections = g_new0(struct section, reader->header.n_sections);
	for (uint32_t i = 0; i < reader->header.n_sections; i++) {
		struct section *section = &reader->sections[i];

		if (!section_read(&rest, i, section, error))
			return false;
		if (i > 0 &&
		    section_key_compare(section->name, section->instance, section - 1) <= 0)
			return error_set_generic(error, "%s: out of order or twice in the stream",
						 section->name);
	}
	if (!span_read_le32(&rest, &mark) || !span_read_le32(&rest, &n_sections) || rest.len != 0 ||
	    mark != END_MARK || n_sections != reader->header.n_sections)
		return error_set_generic(error, "the end mark of the state stream is damaged");
	return true;
}

struct state_reader *state_reader_open(GBytes *bytes, GError **error)
{
	autoptr(state_reader) reader = g_new0(struct state_reader, 1);

	reader->bytes = g_bytes_ref(bytes);
	if (!reader_read(reader, error))
		return NULL;
	return g_steal_pointer(&reader);
}

const struct state_header *state_reader_header(const struct state_reader *reader)
{
	return &reader->header;
}

bool state_reader_get(const struct state_reader *reader, uint32_t index, const char **name,
		      uint32_t *instance, struct span *payload)
{
	const struct section *section;

	if (index >= reader->header.n_sections)
		return false;
	section = &reader->sections[index];
	if (name)
		*name = section->name;
	if (instance)
		*instance = section->instance;
	if (payload)
		*payload = section->payload;
	return true;
}

static struct section *reader_lookup(const struct state_reader *reader, const char *name,
				     uint32_t instance)
{
	uint32_t low = 0;
	uint32_t high = reader->header.n_sections;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		struct section *section = &reader->sections[middle];
		int order = section_key_compare(name, instance, section);

		if (order == 0)
			return section;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

bool state_reader_find(const struct state_reader *reader, const char *name, uint32_t instance,
		       struct span *payload)
{
	const struct section *section = reader_lookup(reader, name, instance);

	if (section && payload)
		*payload = section->payload;
	return section;
}

bool state_reader_take(struct state_reader *reader, const char *name, uint32_t instance,
		       struct span *payload, GError **error)
{
	struct section *section = reader_lookup(reader, name, instance);

	if (!section || section->taken) {
		error_set_generic(error, section ? "this section was taken before"
						 : "the stream has no such section");
		state_section_prefix(error, name, instance);
		return false;
	}
	section->taken = true;
	*payload = section->payload;
	return true;
}

bool state_reader_load(struct state_reader *reader, const char *name, uint32_t instance,
		       const struct state_desc *desc, const void *reset, void *obj, GError **error)
{
	struct span payload;

	if (!state_reader_take(reader, name, instance, &payload, error))
		return false;
	if (!state_load(desc, payload, reset, obj, error)) {
		state_section_prefix(error, name, instance);
		return false;
	}
	return true;
}

bool state_reader_finish(const struct state_reader *reader, GError **error)
{
	g_autoptr(GString) left = g_string_new(NULL);

	for (uint32_t i = 0; i < reader->header.n_sections; i++) {
		const struct section *section = &reader->sections[i];

		if (section->taken || (section->flags & STATE_OPTIONAL))
			continue;
		g_string_append_printf(left, "%s%s", left->len > 0 ? ", " : "", section->name);
		if (section->instance > 0)
			g_string_append_printf(left, "#%u", section->instance);
	}
	if (left->len == 0)
		return true;
	return error_set_generic(
		error, "the stream has state of what this machine does not have: %s", left->str);
}

void state_reader_free(struct state_reader *reader)
{
	if (!reader)
		return;
	g_bytes_unref(reader->bytes);
	g_free(reader->sections);
	g_free(reader);
}
