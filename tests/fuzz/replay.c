// Runs a harness over the files of a corpus directory, without libFuzzer: an ordinary test.
// SPDX-License-Identifier: Apache-2.0
#include <glib.h>
#include <stdio.h>

#include "fuzz.h"

/* The input, every truncation of its last octets, and a flipped bit in each of its first ones. */
#define VARIANTS 512

static void replay(const uint8_t *data, size_t len)
{
	LLVMFuzzerTestOneInput(data, len);
	for (size_t cut = 1; cut <= MIN(len, VARIANTS); cut++) {
		g_autofree uint8_t *shorter = g_memdup2(data, len - cut);

		LLVMFuzzerTestOneInput(shorter, len - cut);
	}
	for (size_t bit = 0; bit < MIN(len, VARIANTS) * 8; bit++) {
		g_autofree uint8_t *flipped = g_memdup2(data, len);

		flipped[bit / 8] ^= 1 << bit % 8;
		LLVMFuzzerTestOneInput(flipped, len);
	}
}

int main(int argc, char **argv)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GDir) dir = argc == 2 ? g_dir_open(argv[1], 0, NULL) : NULL;
	const char *entry;

	if (!dir) {
		fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
		return 2;
	}
	while ((entry = g_dir_read_name(dir)))
		g_ptr_array_add(names, g_build_filename(argv[1], entry, NULL));
	printf("1..%u\n", names->len);
	for (guint i = 0; i < names->len; i++) {
		const char *name = g_ptr_array_index(names, i);
		g_autofree char *data = NULL;
		gsize len;

		if (!g_file_get_contents(name, &data, &len, NULL)) {
			printf("not ok %u - %s cannot be read\n", i + 1, name);
			return 1;
		}
		replay((const uint8_t *)data, len);
		printf("ok %u - %s\n", i + 1, name);
	}
	return names->len > 0 ? 0 : 1;
}
