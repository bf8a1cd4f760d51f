// Tests of base/span: bounds, byte order, and that a failed read changes nothing.
// SPDX-License-Identifier: Apache-2.0
#include "base/span.h"

#include <string.h>

static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void test_read_numbers(void)
{
	struct span span = span_of(bytes, sizeof(bytes));
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;

	g_assert_true(span_read_u8(&span, &u8));
	g_assert_cmpuint(u8, ==, 1);
	g_assert_true(span_read_le16(&span, &u16));
	g_assert_cmphex(u16, ==, 0x0302);
	g_assert_true(span_read_le32(&span, &u32));
	g_assert_cmphex(u32, ==, 0x07060504);
	g_assert_true(span_read_le64(&span, &u64));
	g_assert_cmphex(u64, ==, 0x0f0e0d0c0b0a0908);
	g_assert_cmpuint(span.len, ==, 0);
	g_assert_false(span_read_u8(&span, &u8));
}

static void test_short_reads_change_nothing(void)
{
	for (size_t len = 0; len < 8; len++) {
		struct span span = span_of(bytes, len);
		uint16_t u16 = 0xaaaa;
		uint32_t u32 = 0xaaaaaaaa;
		uint64_t u64 = 0xaaaaaaaaaaaaaaaa;

		g_assert_false(span_read_le64(&span, &u64));
		g_assert_cmphex(u64, ==, 0xaaaaaaaaaaaaaaaa);
		if (len < 4) {
			g_assert_false(span_read_le32(&span, &u32));
			g_assert_cmphex(u32, ==, 0xaaaaaaaa);
		}
		if (len < 2) {
			g_assert_false(span_read_le16(&span, &u16));
			g_assert_cmphex(u16, ==, 0xaaaa);
		}
		g_assert_true(span.data == bytes);
		g_assert_cmpuint(span.len, ==, len);
	}
}

static void test_take(void)
{
	struct span span = span_of(bytes, sizeof(bytes));
	struct span empty = span_of(NULL, 0);
	struct span taken;

	g_assert_false(span_take(&span, sizeof(bytes) + 1, &taken));
	g_assert_false(span_take(&span, SIZE_MAX, &taken));
	g_assert_true(span_take(&span, 5, &taken));
	g_assert_cmpmem(taken.data, taken.len, bytes, 5);
	g_assert_true(span_take(&span, 10, NULL));
	g_assert_true(span_take(&span, 0, &taken));
	g_assert_cmpuint(taken.len, ==, 0);
	g_assert_false(span_take(&span, 1, NULL));
	g_assert_true(span_take(&empty, 0, &taken));
	g_assert_false(span_take(&empty, 1, &taken));
}

static void test_write(void)
{
	g_autoptr(GByteArray) out = g_byte_array_new();

	wire_put_u8(out, 1);
	wire_put_le16(out, 0x0302);
	wire_put_le32(out, 0x07060504);
	wire_put_le64(out, 0x0f0e0d0c0b0a0908);
	g_assert_cmpmem(out->data, out->len, bytes, sizeof(bytes));
	wire_put(out, NULL, 0);
	wire_put(out, bytes, 2);
	g_assert_cmpuint(out->len, ==, sizeof(bytes) + 2);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/base/span/read-numbers", test_read_numbers);
	g_test_add_func("/base/span/short-reads", test_short_reads_change_nothing);
	g_test_add_func("/base/span/take", test_take);
	g_test_add_func("/base/span/write", test_write);
	return g_test_run();
}
