// Writing the stream, what writer and reader share, and sealed memfds.
// SPDX-License-Identifier: Apache-2.0
#include "state/section.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "state/stream.h"

#define WRITER_RESERVE_BYTES (128U << 10)

/**
 * struct written - A section in the writer's buffer
 * @offset:	Of its header there
 * @len:	Of header and struct
 */
struct written {
	guint offset;
	guint len;
};

/**
 * struct state_writer - A stream in the making
 * @build_id:	For the header
 * @body:	Sections in the order they were added
 * @sections:	struct written, one each
 */
struct state_writer {
	char build_id[STATE_BUILD_ID_BYTES];
	GByteArray *body;
	GArray *sections;
};

const char *state_arch_name(void)
{
#if defined(__x86_64__)
	return "x86_64";
#elif defined(__aarch64__)
	return "aarch64";
#else
#error "molt has no name for this architecture"
#endif
}

bool state_name_valid(const char *name)
{
	size_t len = strnlen(name, STATE_NAME_BYTES);

	if (len == 0 || len >= STATE_NAME_BYTES)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!g_ascii_isalnum(name[i]) && !strchr("._/:@-", name[i]))
			return false;
	}
	return true;
}

void state_section_prefix(GError **error, const char *name, uint32_t instance)
{
	if (instance > 0)
		g_prefix_error(error, "%s#%u: ", name, instance);
	else
		g_prefix_error(error, "%s: ", name);
}

uint32_t section_crc(const uint8_t *header, const void *payload, size_t len)
{
	return crc32c(crc32c(0, header, SECTION_AT_CRC), payload, len);
}

struct state_writer *state_writer_begin(const char *build_id)
{
	struct state_writer *writer = g_new0(struct state_writer, 1);

	g_strlcpy(writer->build_id, build_id, sizeof(writer->build_id));
	for (char *p = writer->build_id; *p; p++) {
		if (!g_ascii_isprint(*p))
			*p = '?';
	}
	writer->body = g_byte_array_sized_new(WRITER_RESERVE_BYTES);
	writer->sections = g_array_sized_new(FALSE, FALSE, sizeof(struct written), 64);
	return writer;
}

bool state_writer_add(struct state_writer *writer, const char *name, uint32_t instance,
		      const struct state_desc *desc, const void *obj, GError **error)
{
	struct written section = {.offset = writer->body->len};
	uint8_t *header;

	if (!state_name_valid(name))
		return error_set_generic(error, "'%s' cannot name a section of the state", name);
	memset(wire_grow(writer->body, SECTION_HEADER_BYTES), 0, SECTION_HEADER_BYTES);
	if (!state_save(desc, obj, writer->body, error)) {
		g_byte_array_set_size(writer->body, section.offset);
		state_section_prefix(error, name, instance);
		return false;
	}
	section.len = writer->body->len - section.offset;
	header = writer->body->data + section.offset;
	wire_store_le32(header + SECTION_AT_MARK, SECTION_MARK);
	wire_store_le32(header + SECTION_AT_INSTANCE, instance);
	wire_store_le32(header + SECTION_AT_FLAGS, desc->flags);
	wire_store_le32(header + SECTION_AT_LENGTH, section.len - SECTION_HEADER_BYTES);
	memcpy(header + SECTION_AT_NAME, name, strlen(name));
	wire_store_le32(header + SECTION_AT_CRC, section_crc(header, header + SECTION_HEADER_BYTES,
							     section.len - SECTION_HEADER_BYTES));
	g_array_append_val(writer->sections, section);
	if (writer->body->len > STATE_MAX_BYTES)
		return error_set_generic(error, "%s: the state is longer than %u MiB", name,
					 STATE_MAX_BYTES >> 20);
	return true;
}

static int section_compare(const uint8_t *a, const uint8_t *b)
{
	int by_name = memcmp(a + SECTION_AT_NAME, b + SECTION_AT_NAME, STATE_NAME_BYTES);
	struct span in_a = span_of(a + SECTION_AT_INSTANCE, 4);
	struct span in_b = span_of(b + SECTION_AT_INSTANCE, 4);
	uint32_t instance_a = 0;
	uint32_t instance_b = 0;

	if (by_name != 0)
		return by_name;
	span_read_le32(&in_a, &instance_a);
	span_read_le32(&in_b, &instance_b);
	return instance_a < instance_b ? -1 : instance_a > instance_b;
}

static int written_compare(gconstpointer a, gconstpointer b, gpointer body)
{
	const uint8_t *data = body;

	return section_compare(data + ((const struct written *)a)->offset,
			       data + ((const struct written *)b)->offset);
}

/* Sorted, equals are neighbours. */
static bool writer_check_unique(const struct state_writer *writer, GError **error)
{
	for (guint i = 1; i < writer->sections->len; i++) {
		const uint8_t *data = writer->body->data;
		guint at = g_array_index(writer->sections, struct written, i).offset;
		guint before = g_array_index(writer->sections, struct written, i - 1).offset;

		if (section_compare(data + before, data + at) == 0)
			return error_set_generic(error, "section %s was added twice",
						 (const char *)data + at + SECTION_AT_NAME);
	}
	return true;
}

static void header_write(const struct state_writer *writer, uint64_t total, uint8_t *header)
{
	memset(header, 0, STATE_HEADER_BYTES);
	memcpy(header, STREAM_MAGIC, strlen(STREAM_MAGIC));
	wire_store_le32(header + STREAM_AT_FORMAT, STATE_FORMAT_VERSION);
	wire_store_le32(header + STREAM_AT_MIN_READER, STATE_FORMAT_MIN_READER);
	wire_store_le64(header + STREAM_AT_TOTAL, total);
	wire_store_le32(header + STREAM_AT_N_SECTIONS, writer->sections->len);
	memcpy(header + STREAM_AT_ARCH, state_arch_name(), strlen(state_arch_name()));
	memcpy(header + STREAM_AT_BUILD_ID, writer->build_id, strlen(writer->build_id));
	wire_store_le32(header + STREAM_AT_CRC, crc32c(0, header, STREAM_AT_CRC));
}

GBytes *state_writer_finish(struct state_writer *writer, GError **error)
{
	uint64_t total = (uint64_t)STATE_HEADER_BYTES + writer->body->len + END_BYTES;
	g_autofree uint8_t *stream = NULL;
	uint8_t *at;

	if (total > STATE_MAX_BYTES || writer->sections->len > STATE_MAX_SECTIONS) {
		error_set_generic(error,
				  "the state has %u sections and %" G_GUINT64_FORMAT
				  " bytes; the limits are %u and %u",
				  writer->sections->len, total, STATE_MAX_SECTIONS,
				  STATE_MAX_BYTES);
		return NULL;
	}
	g_array_sort_with_data(writer->sections, written_compare, writer->body->data);
	if (!writer_check_unique(writer, error))
		return NULL;
	stream = g_malloc(total);
	header_write(writer, total, stream);
	at = stream + STATE_HEADER_BYTES;
	for (guint i = 0; i < writer->sections->len; i++) {
		struct written section = g_array_index(writer->sections, struct written, i);

		memcpy(at, writer->body->data + section.offset, section.len);
		at += section.len;
	}
	wire_store_le32(at, END_MARK);
	wire_store_le32(at + 4, writer->sections->len);
	return g_bytes_new_take(g_steal_pointer(&stream), total);
}

void state_writer_free(struct state_writer *writer)
{
	if (!writer)
		return;
	g_byte_array_unref(writer->body);
	g_array_unref(writer->sections);
	g_free(writer);
}

int state_bytes_seal(GBytes *bytes, const char *name, GError **error)
{
	struct span span = span_of_bytes(bytes);
	autofd int fd = file_make_memfd(name, 0);

	if (fd < 0) {
		error_set_errno(error, errno, "cannot create memfd %s", name);
		return -1;
	}
	if (!fd_write_all(fd, span.data, span.len, error)) {
		g_prefix_error(error, "memfd %s: ", name);
		return -1;
	}
	if (fcntl(fd, F_ADD_SEALS, FILE_SEALED) < 0) {
		error_set_errno(error, errno, "cannot seal memfd %s", name);
		return -1;
	}
	return fd_steal(&fd);
}

static void mapping_free(gpointer data)
{
	struct mapping *mapping = data;

	mapping_unmap(mapping);
	g_free(mapping);
}

GBytes *state_bytes_map(int fd, GError **error)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct mapping *mapping;
	struct stat st;
	void *addr;

	if (seals < 0 || (seals & FILE_SEALED) != FILE_SEALED) {
		error_set_generic(error, "descriptor %d is not a sealed memfd", fd);
		return NULL;
	}
	if (fstat(fd, &st) < 0) {
		error_set_errno(error, errno, "cannot look at the sealed memfd");
		return NULL;
	}
	if (st.st_size <= 0 || st.st_size > STATE_MAX_BYTES) {
		error_set_generic(error, "the sealed memfd has %lld bytes, 1 to %u expected",
				  (long long)st.st_size, STATE_MAX_BYTES);
		return NULL;
	}
	addr = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED) {
		error_set_errno(error, errno, "cannot map the sealed memfd");
		return NULL;
	}
	mapping = g_new(struct mapping, 1);
	*mapping = (struct mapping){.addr = addr, .size_bytes = st.st_size};
	return g_bytes_new_with_free_func(addr, st.st_size, mapping_free, mapping);
}
