// Golden streams: everything a released molt wrote still loads, and is what is written today.
// SPDX-License-Identifier: Apache-2.0
#include "all_descs.h"

#include <string.h>

/* Damage is sampled: a prime step reaches every bit of an octet and every place of a header. */
#define FLIP_STEP_BITS	      131
#define FLIP_INSIDE_STEP_BITS 61

static GPtrArray *golden_names(void)
{
	g_autofree char *path = source_path("tests/golden/stream");
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	const char *name;

	g_assert_nonnull(dir);
	while ((name = g_dir_read_name(dir)))
		g_ptr_array_add(names, g_build_filename(path, name, NULL));
	g_assert_cmpuint(names->len, >, 0);
	return names;
}

static GBytes *golden_read(const char *path)
{
	g_autoptr(GError) error = NULL;
	char *data = NULL;
	gsize len;

	g_file_get_contents(path, &data, &len, &error);
	g_assert_no_error(error);
	return g_bytes_new_take(data, len);
}

static struct state_reader *golden_open(const char *path)
{
	g_autoptr(GBytes) bytes = golden_read(path);
	g_autoptr(GError) error = NULL;
	struct state_reader *reader = state_reader_open(bytes, &error);

	g_assert_no_error(error);
	return reader;
}

/* Streams of another architecture are refused, which is tested in tests/unit/state. */
static bool wrong_architecture(void)
{
	if (g_str_equal(state_arch_name(), "x86_64"))
		return false;
	g_test_skip("the golden streams are of x86_64");
	return true;
}

/* Note "name version" of a struct that loads, and of those in it.  Return: whether all are of the
 * versions that are written today. */
static bool note_versions(const struct state_desc *desc, struct span *wire, GHashTable *seen)
{
	uint16_t version = 0;
	uint32_t n_fields = 0;
	bool current;

	g_assert_true(span_read_le16(wire, &version) && span_read(wire, (uint8_t[2]){0}, 2) &&
		      span_read_le32(wire, &n_fields) && span_read(wire, (uint8_t[4]){0}, 4));
	current = version == desc->version;
	g_hash_table_add(seen, g_strdup_printf("%s %u", desc->name, version));
	for (; n_fields > 0; n_fields--) {
		uint16_t tag = 0;
		uint32_t count = 0, length = 0;
		struct span elements;

		g_assert_true(span_read_le16(wire, &tag) && span_read(wire, (uint8_t[2]){0}, 2) &&
			      span_read_le32(wire, &count) && span_read_le32(wire, &length) &&
			      span_take(wire, length, &elements));
		for (uint32_t i = 0; i < desc->n_fields; i++)
			for (uint32_t j = 0;
			     desc->fields[i].tag == tag && desc->fields[i].desc && j < count; j++)
				current &= note_versions(desc->fields[i].desc, &elements, seen);
	}
	return current;
}

/* Load every section and write it again.  Return: the stream, NULL if it held older versions. */
static GBytes *load_and_save(struct state_reader *reader, GHashTable *seen)
{
	autoptr(state_writer) writer = state_writer_begin(state_reader_header(reader)->build_id);
	g_autoptr(GError) error = NULL;
	bool current = true;
	const char *name;
	uint32_t instance;
	struct span payload;
	GBytes *out;

	for (uint32_t i = 0; state_reader_get(reader, i, &name, &instance, &payload); i++) {
		const struct state_desc *desc = section_desc(name);
		g_autofree void *obj = g_malloc0(desc->size);

		g_test_message("%s %u", name, instance);
		state_reader_load(reader, name, instance, desc, NULL, obj, &error);
		g_assert_no_error(error);
		state_writer_add(writer, name, instance, desc, obj, &error);
		g_assert_no_error(error);
		current &= note_versions(desc, &payload, seen);
	}
	state_reader_finish(reader, &error);
	g_assert_no_error(error);
	out = state_writer_finish(writer, &error);
	g_assert_no_error(error);
	if (!current)
		g_clear_pointer(&out, g_bytes_unref);
	return out;
}

static void test_loads(gconstpointer path)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autoptr(GBytes) golden = golden_read(path), today = NULL;
	autoptr(state_reader) reader = NULL;

	if (wrong_architecture())
		return;
	reader = golden_open(path);
	today = load_and_save(reader, seen);
	if (today)
		g_assert_cmpmem(g_bytes_get_data(today, NULL), g_bytes_get_size(today),
				g_bytes_get_data(golden, NULL), g_bytes_get_size(golden));
}

/* Every version of every struct, ever, is in some file; so a change needs a new one. */
static void test_cover_all_versions(void)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autoptr(GPtrArray) names = golden_names(), descs = all_descs_nested();

	if (wrong_architecture())
		return;
	for (guint i = 0; i < names->len; i++) {
		autoptr(state_reader) reader = golden_open(names->pdata[i]);

		g_bytes_unref(load_and_save(reader, seen));
	}
	for (guint i = 0; i < descs->len; i++) {
		const struct state_desc *desc = descs->pdata[i];

		for (uint32_t version = 1; version <= desc->version; version++) {
			g_autofree char *key = g_strdup_printf("%s %u", desc->name, version);

			if (!g_hash_table_contains(seen, key))
				g_error("no golden stream has '%s' of version %u", desc->name,
					version);
		}
	}
}

/* ---- damage ---- */

static void assert_refused(const uint8_t *data, size_t len)
{
	g_autoptr(GBytes) bytes = g_bytes_new(data, len);
	g_autoptr(GError) error = NULL;

	g_assert_null(state_reader_open(bytes, &error));
	g_assert_nonnull(error);
}

static void test_every_truncation(gconstpointer path)
{
	g_autoptr(GBytes) golden = golden_read(path);
	const uint8_t *data = g_bytes_get_data(golden, NULL);

	for (size_t len = 0; len < g_bytes_get_size(golden); len++)
		assert_refused(data, len);
}

static void test_flipped_bits(gconstpointer path)
{
	g_autoptr(GBytes) golden = golden_read(path);
	size_t len = g_bytes_get_size(golden);
	g_autofree uint8_t *data = g_memdup2(g_bytes_get_data(golden, NULL), len);

	for (size_t bit = 0; bit < len * 8; bit += FLIP_STEP_BITS) {
		data[bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_refused(data, len);
		data[bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
}

/* A liar's checksums are right: what loads then must obey the rules, and can be saved again. */
static void flip_inside(const struct state_desc *desc, struct span payload)
{
	g_autofree uint8_t *wire = g_memdup2(payload.data, payload.len);
	g_autofree uint8_t *obj = g_malloc(desc->size), *untouched = g_malloc(desc->size);

	memset(untouched, 0xa5, desc->size);
	for (size_t bit = 0; bit < payload.len * 8; bit += FLIP_INSIDE_STEP_BITS) {
		g_autoptr(GByteArray) out = g_byte_array_new();
		g_autoptr(GError) error = NULL;

		memcpy(obj, untouched, desc->size);
		wire[bit / 8] ^= (uint8_t)(1U << bit % 8);
		if (state_load(desc, span_of(wire, payload.len), NULL, obj, &error)) {
			g_assert_true(!desc->check || desc->check(obj, NULL));
			g_assert_true(state_save(desc, obj, out, NULL));
		} else {
			g_assert_nonnull(error);
			g_assert_cmpmem(obj, desc->size, untouched, desc->size);
		}
		wire[bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
}

static void test_flipped_bits_inside(gconstpointer path)
{
	autoptr(state_reader) reader = NULL;
	struct span payload;
	const char *name;

	if (wrong_architecture())
		return;
	reader = golden_open(path);
	for (uint32_t i = 0; state_reader_get(reader, i, &name, NULL, &payload); i++)
		flip_inside(section_desc(name), payload);
}

static void add_tests(const char *what, const GPtrArray *names, GTestDataFunc test)
{
	for (guint i = 0; i < names->len; i++) {
		g_autofree char *file = g_path_get_basename(names->pdata[i]);
		g_autofree char *name = g_strdup_printf("/stream/golden/%s/%s", what, file);

		g_test_add_data_func(name, names->pdata[i], test);
	}
}

int main(int argc, char **argv)
{
	g_autoptr(GPtrArray) names = golden_names();

	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/stream/golden/cover-all-versions", test_cover_all_versions);
	add_tests("loads", names, test_loads);
	add_tests("truncated", names, test_every_truncation);
	add_tests("flipped", names, test_flipped_bits);
	add_tests("flipped-inside", names, test_flipped_bits_inside);
	return g_test_run();
}
