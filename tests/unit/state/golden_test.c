// Every golden file still loads, with the values it was written with, and is what is written today.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "sample.h"

/* The files are of a little-endian 64-bit machine, and the stream says which. */
static GBytes *golden_read(const char *name)
{
	g_autofree char *path = g_build_filename(g_getenv("MOLT_SOURCE_ROOT"), "tests", "golden",
						 "state", name, NULL);
	g_autoptr(GError) error = NULL;
	char *data = NULL;
	gsize len;

	g_file_get_contents(path, &data, &len, &error);
	g_assert_no_error(error);
	return g_bytes_new_take(data, len);
}

static void check_v1(const struct sample_v1 *loaded)
{
	struct sample_v1 expected;

	sample_fill(&expected);
	g_assert_cmpmem(loaded, sizeof(*loaded), &expected, sizeof(expected));
}

static void test_struct_v1(void)
{
	g_autoptr(GBytes) golden = golden_read("sample.v1.bin");
	g_autoptr(GByteArray) today = g_byte_array_new();
	g_autoptr(GError) error = NULL;
	struct span wire = span_of_bytes(golden);
	struct sample_v1 v1;
	struct sample_v2 v2, expected;

	state_load(&sample_v1_desc, wire, NULL, &v1, &error);
	g_assert_no_error(error);
	check_v1(&v1);
	state_save(&sample_v1_desc, &v1, today, NULL);
	g_assert_cmpmem(today->data, today->len, wire.data, wire.len);

	/* The next release reads it too; the field that is new there keeps its reset value. */
	state_load(&sample_v2_desc, wire, NULL, &v2, &error);
	g_assert_no_error(error);
	sample_fill_v2(&expected);
	expected.fcr = 0;
	g_assert_cmpmem(&v2, sizeof(v2), &expected, sizeof(expected));
}

static void test_struct_v2(void)
{
	g_autoptr(GBytes) golden = golden_read("sample.v2.bin");
	g_autoptr(GByteArray) today = g_byte_array_new();
	g_autoptr(GError) error = NULL;
	struct span wire = span_of_bytes(golden);
	struct sample_v1 v1;
	struct sample_v2 v2, expected;

	state_load(&sample_v2_desc, wire, NULL, &v2, &error);
	g_assert_no_error(error);
	sample_fill_v2(&expected);
	g_assert_cmpmem(&v2, sizeof(v2), &expected, sizeof(expected));
	state_save(&sample_v2_desc, &v2, today, NULL);
	g_assert_cmpmem(today->data, today->len, wire.data, wire.len);

	/* And back: the release before drops what it does not know. */
	state_load(&sample_v1_desc, wire, NULL, &v1, &error);
	g_assert_no_error(error);
	v1.scratch = 0x77;
	check_v1(&v1);
}

static void test_stream_v1(void)
{
	g_autoptr(GBytes) golden = golden_read("stream.v1.bin");
	g_autoptr(GBytes) today = sample_stream();
	g_autoptr(GError) error = NULL;
	autoptr(state_reader) reader = NULL;
	struct sample_v1 loaded;

	if (!g_str_equal(state_arch_name(), "x86_64")) {
		g_assert_null(state_reader_open(golden, &error));
		g_assert_nonnull(strstr(error->message, "of a x86_64 machine"));
		return;
	}
	reader = state_reader_open(golden, &error);
	g_assert_no_error(error);
	for (uint32_t instance = 0; instance < 2; instance++) {
		state_reader_load(reader, "pci/00.3/sample", instance, &sample_v1_desc, NULL,
				  &loaded, &error);
		g_assert_no_error(error);
		check_v1(&loaded);
	}
	g_assert_true(g_bytes_equal(golden, today));
}

/* A file without a test here would not be a golden file. */
static void test_all_are_covered(void)
{
	static const char *const known[] = {"sample.v1.bin", "sample.v2.bin", "stream.v1.bin",
					    NULL};
	g_autofree char *path =
		g_build_filename(g_getenv("MOLT_SOURCE_ROOT"), "tests", "golden", "state", NULL);
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	unsigned int n = 0;
	const char *name;

	g_assert_nonnull(dir);
	while ((name = g_dir_read_name(dir))) {
		if (!g_str_has_prefix(name, "sample.") && !g_str_has_prefix(name, "stream."))
			continue;
		if (!g_strv_contains(known, name))
			g_error("%s is tested nowhere", name);
		n++;
	}
	g_assert_cmpuint(n, ==, g_strv_length((char **)known));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/golden/struct-v1", test_struct_v1);
	g_test_add_func("/state/golden/struct-v2", test_struct_v2);
	g_test_add_func("/state/golden/stream-v1", test_stream_v1);
	g_test_add_func("/state/golden/all-covered", test_all_are_covered);
	return g_test_run();
}
