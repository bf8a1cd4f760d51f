// Forward-only reading of bytes that came from outside, and little-endian writing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/**
 * struct span - Bytes somebody else owns, with their length
 * @data:	First byte; may be NULL when @len is 0
 * @len:	Bytes left
 *
 * Readers take from the front and shorten the span.  A read that does not fit returns false and
 * changes neither the span nor its output, so a truncated input can never be read past its end.
 */
struct span {
	const uint8_t *data;
	size_t len;
};

/** span_of() - The span over @len bytes at @data. */
static inline struct span span_of(const void *data, size_t len)
{
	return (struct span){.data = data, .len = len};
}

/** span_of_bytes() - The span over @bytes, valid as long as they are. */
struct span span_of_bytes(GBytes *bytes);

/**
 * span_take() - Split @len bytes off the front of @span
 * @taken:	The bytes taken, still owned by whoever owns @span's; may be NULL to skip them
 * Return: false when fewer than @len bytes are left.
 */
bool span_take(struct span *span, size_t len, struct span *taken);

/** span_read() - Copy @len bytes off the front to @out.  Return: false when they are not there. */
bool span_read(struct span *span, void *out, size_t len);

/** span_read_u8() - Take one byte.  Return: false at the end. */
bool span_read_u8(struct span *span, uint8_t *value);

/** span_read_le16() - Take a 16-bit little-endian number.  Return: false when it is cut short. */
bool span_read_le16(struct span *span, uint16_t *value);

/** span_read_le32() - Take a 32-bit little-endian number.  Return: false when it is cut short. */
bool span_read_le32(struct span *span, uint32_t *value);

/** span_read_le64() - Take a 64-bit little-endian number.  Return: false when it is cut short. */
bool span_read_le64(struct span *span, uint64_t *value);

/** wire_grow() - Lengthen @out by @len bytes.  Return: the first of them, not yet written. */
uint8_t *wire_grow(GByteArray *out, size_t len);

/** wire_put() - Append @len bytes. */
void wire_put(GByteArray *out, const void *data, size_t len);

/** wire_put_u8() - Append one byte. */
void wire_put_u8(GByteArray *out, uint8_t value);

/** wire_put_le16() - Append a 16-bit number, little endian. */
void wire_put_le16(GByteArray *out, uint16_t value);

/** wire_put_le32() - Append a 32-bit number, little endian. */
void wire_put_le32(GByteArray *out, uint32_t value);

/** wire_put_le64() - Append a 64-bit number, little endian. */
void wire_put_le64(GByteArray *out, uint64_t value);

/** wire_store_le16() - Write a 16-bit number, little endian, to @at, which needs no alignment. */
void wire_store_le16(uint8_t *at, uint16_t value);

/** wire_store_le32() - Write a 32-bit number, little endian, to @at, which needs no alignment. */
void wire_store_le32(uint8_t *at, uint32_t value);

/** wire_store_le64() - Write a 64-bit number, little endian, to @at, which needs no alignment. */
void wire_store_le64(uint8_t *at, uint64_t value);
