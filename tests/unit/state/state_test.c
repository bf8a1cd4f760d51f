// Tests of one described struct: round trip, all or nothing, every way to be damaged, versions.
// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <string.h>

#include "sample.h"

static GByteArray *save(const struct state_desc *desc, const void *obj)
{
	GByteArray *out = g_byte_array_new();
	g_autoptr(GError) error = NULL;

	g_assert_true(state_save(desc, obj, out, &error));
	g_assert_no_error(error);
	return out;
}

static struct span all(const GByteArray *bytes)
{
	return span_of(bytes->data, bytes->len);
}

/* Loading must fail with @expected in the message and must not touch the object. */
static void assert_refused(const struct state_desc *desc, struct span wire, const char *expected)
{
	g_autofree uint8_t *obj = g_malloc(desc->size);
	g_autofree uint8_t *before = g_malloc(desc->size);
	g_autoptr(GError) error = NULL;

	memset(obj, 0xa5, desc->size);
	memset(before, 0xa5, desc->size);
	g_assert_false(state_load(desc, wire, NULL, obj, &error));
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_GENERIC);
	if (expected && !strstr(error->message, expected))
		g_error("'%s' expected, got '%s'", expected, error->message);
	g_assert_cmpmem(obj, desc->size, before, desc->size);
}

static void test_round_trip(void)
{
	struct sample_v1 in, out;
	g_autoptr(GByteArray) bytes = NULL;
	g_autoptr(GByteArray) again = NULL;
	g_autoptr(GError) error = NULL;

	sample_fill(&in);
	memset(&out, 0xff, sizeof(out));
	bytes = save(&sample_v1_desc, &in);
	g_assert_true(state_load(&sample_v1_desc, all(bytes), NULL, &out, &error));
	g_assert_no_error(error);
	g_assert_cmpmem(&in, sizeof(in), &out, sizeof(out));
	again = save(&sample_v1_desc, &out);
	g_assert_cmpmem(bytes->data, bytes->len, again->data, again->len);
}

static void test_random_round_trips(void)
{
	for (int round = 0; round < 200; round++) {
		struct sample_v1 in = {0};
		struct sample_v1 out;
		g_autoptr(GByteArray) bytes = NULL;

		in.ier = g_test_rand_int();
		in.irq = g_test_rand_bit();
		in.divisor = g_test_rand_int_range(0, 0xdead);
		in.n_rx = g_test_rand_int_range(0, sizeof(in.rx) + 1);
		for (uint32_t i = 0; i < in.n_rx; i++)
			in.rx[i] = g_test_rand_int();
		in.n_queues = g_test_rand_int_range(0, 5);
		for (uint32_t i = 0; i < in.n_queues; i++)
			in.queue[i].size = 1U << g_test_rand_int_range(0, 16);
		in.n_msrs = g_test_rand_int_range(0, 9);
		for (uint32_t i = 0; i < in.n_msrs; i++)
			in.msrs[i] = (uint64_t)g_test_rand_int() << 32;
		bytes = save(&sample_v1_desc, &in);
		g_assert_true(state_load(&sample_v1_desc, all(bytes), NULL, &out, NULL));
		g_assert_cmpmem(&in, sizeof(in), &out, sizeof(out));
	}
}

static void test_truncated(void)
{
	struct sample_v1 sample;
	g_autoptr(GByteArray) bytes = NULL;

	sample_fill(&sample);
	bytes = save(&sample_v1_desc, &sample);
	for (guint len = 0; len < bytes->len; len++) {
		/* A copy of this length, so that a sanitizer sees a read past it. */
		g_autofree uint8_t *copy = g_memdup2(bytes->data, len);

		assert_refused(&sample_v1_desc, span_of(copy, len), NULL);
	}
	wire_put_u8(bytes, 0);
	assert_refused(&sample_v1_desc, all(bytes), "1 bytes after the struct");
}

/* Without a checksum, flips may go unnoticed, but they must be loaded or refused cleanly. */
static void test_flipped(void)
{
	struct sample_v1 sample, out;
	g_autoptr(GByteArray) bytes = NULL;

	sample_fill(&sample);
	bytes = save(&sample_v1_desc, &sample);
	for (guint bit = 0; bit < bytes->len * 8; bit++) {
		bytes->data[bit / 8] ^= 1 << bit % 8;
		if (state_load(&sample_v1_desc, all(bytes), NULL, &out, NULL)) {
			g_assert_cmpuint(out.n_rx, <=, G_N_ELEMENTS(out.rx));
			g_assert_cmpuint(out.n_queues, <=, G_N_ELEMENTS(out.queue));
			g_assert_cmpuint(out.n_msrs, <=, G_N_ELEMENTS(out.msrs));
		} else {
			assert_refused(&sample_v1_desc, all(bytes), NULL);
		}
		bytes->data[bit / 8] ^= 1 << bit % 8;
	}
}

static void test_check(void)
{
	struct sample_v1 sample;
	g_autoptr(GByteArray) top = NULL;
	g_autoptr(GByteArray) nested = NULL;

	sample_fill(&sample);
	sample.divisor = 0xdead;
	top = save(&sample_v1_desc, &sample);
	assert_refused(&sample_v1_desc, all(top), "divisor is dead");
	sample_fill(&sample);
	sample.queue[1].size = 48;
	nested = save(&sample_v1_desc, &sample);
	assert_refused(&sample_v1_desc, all(nested), "queue[1]: size 48 is not a power of two");
}

static void test_count_over_capacity(void)
{
	struct sample_v1 sample;
	struct sample_v2 more;
	g_autoptr(GByteArray) out = g_byte_array_new();
	g_autoptr(GByteArray) bytes = NULL;
	g_autoptr(GError) error = NULL;

	sample_fill(&sample);
	sample.n_rx = sizeof(sample.rx) + 1;
	wire_put_u8(out, 9);
	g_assert_false(state_save(&sample_v1_desc, &sample, out, &error));
	g_assert_nonnull(strstr(error->message, "sample: rx: 14 elements"));
	g_assert_cmpuint(out->len, ==, 1);

	/* A grown list is read by an old reader unless the extra room is used. */
	sample_fill_v2(&more);
	more.n_queues = 5;
	for (int i = 0; i < 5; i++)
		more.queue[i].size = 1;
	bytes = save(&sample_v2_desc, &more);
	assert_refused(&sample_v1_desc, all(bytes),
		       "queue: 5 elements, but there is room for 4 only");
}

static void test_list_tail_is_zeroed(void)
{
	struct sample_v1 in, reset, out;
	g_autoptr(GByteArray) bytes = NULL;

	sample_fill(&in);
	sample_fill(&reset);
	memset(reset.rx, 0xee, sizeof(reset.rx));
	bytes = save(&sample_v1_desc, &in);
	g_assert_true(state_load(&sample_v1_desc, all(bytes), &reset, &out, NULL));
	g_assert_cmpmem(out.rx, sizeof(out.rx), "hello\0\0\0\0\0\0\0\0", sizeof(out.rx));
}

/* ---- between releases ---- */

static void test_upgrade_and_downgrade(void)
{
	struct sample_v1 old;
	struct sample_v2 new, reset = {0};
	g_autoptr(GByteArray) old_bytes = NULL;
	g_autoptr(GByteArray) new_bytes = NULL;
	g_autoptr(GError) error = NULL;

	sample_fill(&old);
	old_bytes = save(&sample_v1_desc, &old);
	reset.fcr = 0x99;
	g_assert_true(state_load(&sample_v2_desc, all(old_bytes), &reset, &new, &error));
	g_assert_cmphex(new.fcr, ==, 0x99);
	g_assert_cmphex(new.features, ==, old.features);

	sample_fill_v2(&new);
	new_bytes = save(&sample_v2_desc, &new);
	memset(&old, 0, sizeof(old));
	g_assert_true(state_load(&sample_v1_desc, all(new_bytes), NULL, &old, &error));
	g_assert_cmphex(old.features, ==, new.features);
	g_assert_cmphex(old.scratch, ==, 0);
}

/* A struct of one u8 field, put together by hand. */
static GByteArray *make(uint16_t version, uint16_t min_reader, uint16_t tag, uint8_t flags)
{
	GByteArray *out = g_byte_array_new();

	wire_put_le16(out, version);
	wire_put_le16(out, min_reader);
	wire_put_le32(out, tag ? 1 : 0);
	wire_put_le32(out, tag ? 13 : 0);
	if (tag) {
		wire_put_le16(out, tag);
		wire_put_u8(out, STATE_U8);
		wire_put_u8(out, flags);
		wire_put_le32(out, 1);
		wire_put_le32(out, 1);
		wire_put_u8(out, 7);
	}
	return out;
}

struct small {
	uint8_t value;
};

static const struct state_field small_always[] = {FIELD(struct small, value, 5)};
static const struct state_field small_since_3[] = {FIELD(struct small, value, 5, .since = 3)};
static const struct state_field small_optional[] = {
	FIELD(struct small, value, 5, .flags = STATE_OPTIONAL)};
static const struct state_field small_gone[] = {FIELD_PAD(
							struct { uint8_t pad[1]; }, pad),
						FIELD_GONE(5)};

static void test_version_rules(void)
{
	static const struct {
		const struct state_field *fields;
		uint32_t n_fields;
		uint16_t my_version;
		uint16_t version, min_reader, tag;
		uint8_t flags;
		const char *refusal; /* NULL: loads */
		uint8_t value;	     /* 0x11: the reset value stands */
	} cases[] = {
		{small_always, 1, 1, 1, 1, 5, 0, NULL, 7},
		/* The reader is old: what counts is min_reader. */
		{small_always, 1, 1, 9, 1, 5, 0, NULL, 7},
		{small_always, 1, 2, 3, 3, 5, 0, "needs", 0},
		{small_always, 1, 3, 3, 3, 5, 0, NULL, 7},
		{small_always, 1, 1, 1, 0, 5, 0, "not sane", 0},
		{small_always, 1, 1, 1, 2, 5, 0, "not sane", 0},
		{small_always, 1, 1, 0, 0, 5, 0, "not sane", 0},
		/* Missing. */
		{small_always, 1, 1, 1, 1, 0, 0, "value: missing", 0},
		{small_optional, 1, 1, 1, 1, 0, 0, NULL, 0x11},
		{small_since_3, 1, 3, 2, 1, 0, 0, NULL, 0x11},
		{small_since_3, 1, 3, 3, 1, 0, 0, "value: missing", 0},
		{small_since_3, 1, 3, 4, 1, 0, 0, "value: missing", 0},
		{small_gone, 2, 1, 1, 1, 0, 0, NULL, 0x11},
		/* Unknown. */
		{small_always, 1, 1, 2, 1, 6, STATE_OPTIONAL, "value: missing", 0},
		{small_optional, 1, 1, 2, 1, 6, STATE_OPTIONAL, NULL, 0x11},
		{small_optional, 1, 1, 2, 1, 6, 0, "tag 6 is unknown to version 1", 0},
		{small_optional, 1, 1, 2, 1, 4, STATE_OPTIONAL, NULL, 0x11},
		{small_optional, 1, 1, 2, 1, 4, 0, "tag 4 is unknown", 0},
		{small_gone, 2, 1, 1, 1, 5, STATE_OPTIONAL, NULL, 0x11},
		{small_gone, 2, 1, 1, 1, 5, 0, "tag 5 is unknown", 0},
		{small_optional, 1, 1, 1, 1, 5, 0x02, "unknown flags 0x02", 0},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		const struct state_desc desc = {
			.name = "small",
			.version = cases[i].my_version,
			.min_reader = 1,
			.fields = cases[i].fields,
			.n_fields = cases[i].n_fields,
			.size = sizeof(struct small),
		};
		g_autoptr(GByteArray) bytes =
			make(cases[i].version, cases[i].min_reader, cases[i].tag, cases[i].flags);
		struct small reset = {.value = 0x11};
		struct small out = {0};
		g_autoptr(GError) error = NULL;

		if (cases[i].refusal && !g_str_equal(cases[i].refusal, "needs")) {
			assert_refused(&desc, all(bytes), cases[i].refusal);
		} else if (cases[i].refusal) {
			assert_refused(&desc, all(bytes),
				       "was written as version 3, which can be read from version 3 "
				       "on; this molt knows version 2");
		} else {
			g_assert_true(state_load(&desc, all(bytes), &reset, &out, &error));
			g_assert_no_error(error);
			g_assert_cmphex(out.value, ==, cases[i].value);
		}
	}
}

/* Damage that has a name: write @value over the octet at @offset. */
static void test_malformed(void)
{
	static const struct {
		guint offset;
		uint8_t value;
		const char *refusal;
	} cases[] = {
		{4, 0, "13 bytes after the last field"},
		{4, 2, "cut short in the header of the field after tag 5"},
		{8, 14, "struct small claims 14 bytes, but only 13 are left"},
		{8, 12, "claims 1 bytes, but only 0 are left"},
		{12, 0, "out of order: tag 0 after tag 0"},
		{14, STATE_U16, "value: type u16 (2) on the wire, u8 expected"},
		{14, 99, "value: type unknown (99) on the wire, u8 expected"},
		{16, 0, "value: 0 elements on the wire, 1 expected"},
		{16, 2, "value: 2 elements on the wire, 1 expected"},
		{20, 0, "value: 0 bytes on the wire, 1 expected"},
	};
	const struct state_desc desc = {
		.name = "small",
		.version = 1,
		.min_reader = 1,
		STATE_DESC(struct small, small_optional),
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GByteArray) bytes = make(1, 1, 5, 0);

		bytes->data[cases[i].offset] = cases[i].value;
		assert_refused(&desc, all(bytes), cases[i].refusal);
	}
}

static void test_bool_is_0_or_1(void)
{
	struct sample_v1 sample;
	g_autoptr(GByteArray) bytes = NULL;

	sample_fill(&sample);
	bytes = save(&sample_v1_desc, &sample);
	/* The second field follows the struct header and the first field's 13 octets. */
	g_assert_cmpuint(bytes->data[12 + 13 + 12], ==, 1);
	bytes->data[12 + 13 + 12] = 2;
	assert_refused(&sample_v1_desc, all(bytes), "irq: element 0 is 2, not 0 or 1");
}

static void test_twice_and_out_of_order(void)
{
	const struct state_desc desc = {
		.name = "small",
		.version = 1,
		.min_reader = 1,
		STATE_DESC(struct small, small_optional),
	};
	g_autoptr(GByteArray) bytes = make(1, 1, 5, 0);
	g_autofree uint8_t *field = g_memdup2(bytes->data + 12, 13);

	wire_put(bytes, field, 13);
	wire_store_le32(bytes->data + 4, 2);
	wire_store_le32(bytes->data + 8, 26);
	assert_refused(&desc, all(bytes), "out of order: tag 5 after tag 5");
	wire_store_le16(bytes->data + 12 + 13, 4);
	assert_refused(&desc, all(bytes), "out of order: tag 4 after tag 5");
}

static void test_nested_reset(void)
{
	/* A queue without its size: the nested description's reset value stands. */
	static const struct state_field small_queue_fields[] = {
		FIELD(struct sample_queue, ring_gpa, 1),
		FIELD(struct sample_queue, size, 2, .flags = STATE_OPTIONAL),
	};
	static const struct state_desc reader = {
		.name = "queue",
		.version = 1,
		.min_reader = 1,
		.reset = sample_queue_reset,
		STATE_DESC(struct sample_queue, small_queue_fields),
	};
	static const struct state_field writer_fields[] = {
		FIELD(struct sample_queue, ring_gpa, 1),
	};
	static const struct state_desc writer = {
		.name = "queue",
		.version = 1,
		.min_reader = 1,
		STATE_DESC(struct sample_queue, writer_fields),
	};
	struct holder {
		uint32_t n;
		uint32_t pad;
		struct sample_queue queue[3];
	} in = {.n = 2}, out = {0};
	const struct state_field in_fields[] = {
		FIELD_STRUCT_LIST(struct holder, queue, n, 1, &writer)};
	const struct state_field out_fields[] = {
		FIELD_STRUCT_LIST(struct holder, queue, n, 1, &reader)};
	const struct state_desc in_desc = {.name = "holder",
					   .version = 1,
					   .min_reader = 1,
					   STATE_DESC(struct holder, in_fields)};
	const struct state_desc out_desc = {.name = "holder",
					    .version = 1,
					    .min_reader = 1,
					    STATE_DESC(struct holder, out_fields)};
	g_autoptr(GByteArray) bytes = save(&in_desc, &in);

	g_assert_true(state_load(&out_desc, all(bytes), NULL, &out, NULL));
	g_assert_cmpuint(out.queue[0].size, ==, 128);
	g_assert_cmpuint(out.queue[1].size, ==, 128);
	g_assert_cmpuint(out.queue[2].size, ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/state/round-trip", test_round_trip);
	g_test_add_func("/state/state/random-round-trips", test_random_round_trips);
	g_test_add_func("/state/state/truncated", test_truncated);
	g_test_add_func("/state/state/flipped", test_flipped);
	g_test_add_func("/state/state/check", test_check);
	g_test_add_func("/state/state/count-over-capacity", test_count_over_capacity);
	g_test_add_func("/state/state/list-tail", test_list_tail_is_zeroed);
	g_test_add_func("/state/state/upgrade-and-downgrade", test_upgrade_and_downgrade);
	g_test_add_func("/state/state/version-rules", test_version_rules);
	g_test_add_func("/state/state/malformed", test_malformed);
	g_test_add_func("/state/state/bool", test_bool_is_0_or_1);
	g_test_add_func("/state/state/order", test_twice_and_out_of_order);
	g_test_add_func("/state/state/nested-reset", test_nested_reset);
	return g_test_run();
}
