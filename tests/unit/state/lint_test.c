// Tests of the lint: it must find every mistake that a table can have and the compiler cannot see.
// SPDX-License-Identifier: Apache-2.0
#include "state/state.h"

#include <string.h>

#include "sample.h"
#include "state/fdstore_priv.h"

struct thing {
	uint8_t a;
	uint8_t b;
	uint16_t c;
	uint32_t n;
	uint32_t list[2];
};

static void assert_lint(const struct state_field *fields, uint32_t n_fields, uint16_t version,
			uint16_t min_reader, const char *expected)
{
	const struct state_desc desc = {
		.name = "thing",
		.version = version,
		.min_reader = min_reader,
		.fields = fields,
		.n_fields = n_fields,
		.size = sizeof(struct thing),
	};
	g_autoptr(GError) error = NULL;
	bool ok = state_desc_lint(&desc, &error);

	if (!expected) {
		g_assert_no_error(error);
		g_assert_true(ok);
		return;
	}
	g_assert_false(ok);
	if (!strstr(error->message, expected))
		g_error("'%s' expected, got '%s'", expected, error->message);
}

#define A    FIELD(struct thing, a, 1)
#define B    FIELD(struct thing, b, 2)
#define C    FIELD(struct thing, c, 3)
#define LIST FIELD_LIST(struct thing, list, n, 4)

#define ASSERT_LINT(expected, version, min_reader, ...)                                   \
	do {                                                                              \
		const struct state_field fields[] = {__VA_ARGS__};                        \
		assert_lint(fields, G_N_ELEMENTS(fields), version, min_reader, expected); \
	} while (0)

static void test_coverage(void)
{
	ASSERT_LINT(NULL, 1, 1, A, B, C, LIST);
	ASSERT_LINT("byte 0, after the start of the struct, is not described", 1, 1, B, C, LIST);
	ASSERT_LINT("byte 1, after a, is not described", 1, 1, A, C, LIST);
	ASSERT_LINT("byte 4, after c, is not described", 1, 1, A, B, C);
	ASSERT_LINT("byte 4, after c, is not described", 1, 1, A, B, C,
		    FIELD_ARRAY(struct thing, list, 4));
	ASSERT_LINT("byte 2 is described twice, by c and by c", 1, 1, A, B, C, LIST,
		    FIELD(struct thing, c, 5));
	ASSERT_LINT("byte 4 is described twice, by list and by n", 1, 1, A, B, C, LIST,
		    FIELD(struct thing, n, 5));
}

static void test_tags(void)
{
	ASSERT_LINT("tag 1 after tag 2 is out of order", 1, 1, B, A, C, LIST);
	ASSERT_LINT("tag 4 after tag 4 is out of order", 1, 1, A, B, C, LIST, FIELD_GONE(4));
	ASSERT_LINT("tag 0 after tag 0 is out of order", 1, 1, FIELD(struct thing, a, 0), B, C,
		    LIST);
	ASSERT_LINT(NULL, 1, 1, A, B, C, LIST, FIELD_GONE(9));
}

static void test_versions(void)
{
	ASSERT_LINT("not sane", 0, 0, A, B, C, LIST);
	ASSERT_LINT("not sane", 1, 0, A, B, C, LIST);
	ASSERT_LINT("not sane", 1, 2, A, B, C, LIST);
	ASSERT_LINT("b: since version 3, but the struct is at 2", 2, 2, A,
		    FIELD(struct thing, b, 2, .since = 3), C, LIST);
	ASSERT_LINT("min_reader must be at least 2, not 1", 2, 1, A,
		    FIELD(struct thing, b, 2, .since = 2), C, LIST);
	ASSERT_LINT(NULL, 2, 2, A, FIELD(struct thing, b, 2, .since = 2), C, LIST);
	ASSERT_LINT(NULL, 2, 1, A, FIELD(struct thing, b, 2, .since = 2, .flags = STATE_OPTIONAL),
		    C, LIST);
	ASSERT_LINT("unknown flags 0x80", 1, 1, A, FIELD(struct thing, b, 2, .flags = 0x80), C,
		    LIST);
}

static void test_nested(void)
{
	struct outer {
		struct sample_queue queue;
	};
	static const struct state_field bad_fields[] = {FIELD(struct sample_queue, size, 1)};
	static const struct state_desc bad = {.name = "bad",
					      .version = 1,
					      .min_reader = 1,
					      STATE_DESC(struct sample_queue, bad_fields)};
	const struct state_field wrong_size[] = {
		FIELD_STRUCT(struct outer, queue, 1, &sample_timer_desc)};
	const struct state_field not_covered[] = {FIELD_STRUCT(struct outer, queue, 1, &bad)};
	struct state_desc desc = {.name = "outer",
				  .version = 1,
				  .min_reader = 1,
				  STATE_DESC(struct outer, wrong_size)};
	g_autoptr(GError) error = NULL;

	g_assert_false(state_desc_lint(&desc, &error));
	g_assert_cmpstr(error->message, ==,
			"outer: queue: is 16 bytes long, but sample-timer describes 8");
	g_clear_error(&error);
	desc.fields = not_covered;
	g_assert_false(state_desc_lint(&desc, &error));
	g_assert_cmpstr(error->message, ==,
			"outer: queue: byte 0, after the start of the struct, is not described");
}

static void test_endless_nesting(void)
{
	static struct state_field fields[1];
	static struct state_desc desc;
	g_autoptr(GError) error = NULL;

	fields[0] = (struct state_field){.name = "self",
					 .desc = &desc,
					 .tag = 1,
					 .type = STATE_STRUCT,
					 .shape = STATE_ONE,
					 .capacity = 1,
					 .elem_size = 8};
	desc = (struct state_desc){.name = "self",
				   .version = 1,
				   .min_reader = 1,
				   .fields = fields,
				   .n_fields = 1,
				   .size = 8};
	g_assert_false(state_desc_lint(&desc, &error));
	g_assert_nonnull(strstr(error->message, "nested deeper"));
}

static void test_our_own(void)
{
	const struct state_desc *const descs[] = {&sample_v1_desc, &sample_v2_desc,
						  &fd_identity_desc, &fd_manifest_desc};

	for (size_t i = 0; i < G_N_ELEMENTS(descs); i++) {
		g_autoptr(GError) error = NULL;

		state_desc_lint(descs[i], &error);
		g_assert_no_error(error);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/lint/coverage", test_coverage);
	g_test_add_func("/state/lint/tags", test_tags);
	g_test_add_func("/state/lint/versions", test_versions);
	g_test_add_func("/state/lint/nested", test_nested);
	g_test_add_func("/state/lint/endless-nesting", test_endless_nesting);
	g_test_add_func("/state/lint/our-own", test_our_own);
	return g_test_run();
}
