// base/crc32c against published vectors, and its two implementations against each other.
// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.h"

#include <glib.h>
#include <string.h>

/* RFC 3720, appendix B.4, and the check value of the CRC catalogues. */
static void test_vectors(void)
{
	uint8_t block[32] = {0};

	g_assert_cmphex(crc32c(0, block, sizeof(block)), ==, 0x8a9136aa);
	memset(block, 0xff, sizeof(block));
	g_assert_cmphex(crc32c(0, block, sizeof(block)), ==, 0x62a8ab43);
	for (uint8_t i = 0; i < sizeof(block); i++)
		block[i] = i;
	g_assert_cmphex(crc32c(0, block, sizeof(block)), ==, 0x46dd794e);
	g_assert_cmphex(crc32c(0, "123456789", 9), ==, 0xe3069283);
	g_assert_cmphex(crc32c(0, NULL, 0), ==, 0);
}

static void test_implementations_agree(void)
{
	uint8_t data[67];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 37 + 11;
	for (size_t start = 0; start < 8; start++) {
		for (size_t len = 0; start + len <= sizeof(data); len++) {
			g_assert_cmphex(crc32c(0, data + start, len), ==,
					crc32c_portable(0, data + start, len));
		}
	}
}

static void test_continued(void)
{
	const char *text = "123456789";

	for (size_t split = 0; split <= 9; split++)
		g_assert_cmphex(crc32c(crc32c(0, text, split), text + split, 9 - split), ==,
				0xe3069283);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/base/crc32c/vectors", test_vectors);
	g_test_add_func("/base/crc32c/agree", test_implementations_agree);
	g_test_add_func("/base/crc32c/continued", test_continued);
	return g_test_run();
}
