// Forward-only reading of bytes that came from outside, and little-endian writing.
// SPDX-License-Identifier: Apache-2.0
#include "base/span.h"

#include <endian.h>
#include <string.h>

struct span span_of_bytes(GBytes *bytes)
{
	size_t len = 0;
	const void *data = g_bytes_get_data(bytes, &len);

	return span_of(data, len);
}

bool span_take(struct span *span, size_t len, struct span *taken)
{
	if (len > span->len)
		return false;
	if (taken)
		*taken = span_of(span->data, len);
	if (len > 0)
		span->data += len;
	span->len -= len;
	return true;
}

bool span_read(struct span *span, void *out, size_t len)
{
	struct span taken;

	if (!span_take(span, len, &taken))
		return false;
	if (len > 0)
		memcpy(out, taken.data, len);
	return true;
}

bool span_read_u8(struct span *span, uint8_t *value)
{
	return span_read(span, value, sizeof(*value));
}

bool span_read_le16(struct span *span, uint16_t *value)
{
	uint16_t wire;

	if (!span_read(span, &wire, sizeof(wire)))
		return false;
	*value = le16toh(wire);
	return true;
}

bool span_read_le32(struct span *span, uint32_t *value)
{
	uint32_t wire;

	if (!span_read(span, &wire, sizeof(wire)))
		return false;
	*value = le32toh(wire);
	return true;
}

bool span_read_le64(struct span *span, uint64_t *value)
{
	uint64_t wire;

	if (!span_read(span, &wire, sizeof(wire)))
		return false;
	*value = le64toh(wire);
	return true;
}

uint8_t *wire_grow(GByteArray *out, size_t len)
{
	guint old_len = out->len;

	g_byte_array_set_size(out, old_len + len);
	return out->data + old_len;
}

void wire_put(GByteArray *out, const void *data, size_t len)
{
	if (len > 0)
		memcpy(wire_grow(out, len), data, len);
}

void wire_put_u8(GByteArray *out, uint8_t value)
{
	wire_put(out, &value, sizeof(value));
}

void wire_put_le16(GByteArray *out, uint16_t value)
{
	wire_store_le16(wire_grow(out, sizeof(value)), value);
}

void wire_put_le32(GByteArray *out, uint32_t value)
{
	wire_store_le32(wire_grow(out, sizeof(value)), value);
}

void wire_put_le64(GByteArray *out, uint64_t value)
{
	wire_store_le64(wire_grow(out, sizeof(value)), value);
}

void wire_store_le16(uint8_t *at, uint16_t value)
{
	uint16_t wire = htole16(value);

	memcpy(at, &wire, sizeof(wire));
}

void wire_store_le32(uint8_t *at, uint32_t value)
{
	uint32_t wire = htole32(value);

	memcpy(at, &wire, sizeof(wire));
}

void wire_store_le64(uint8_t *at, uint64_t value)
{
	uint64_t wire = htole64(value);

	memcpy(at, &wire, sizeof(wire));
}
