// The JSON splitter: split anywhere, fed anything.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/json_stream.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Values as compact text, errors as "!message", one per line. */
static void note(void *opaque, const json_t *value, const char *id, const GError *error)
{
	GString *text = opaque;

	if (error) {
		g_assert_null(value);
		g_string_append_printf(text, "!%s\n", error->message);
	} else {
		char *dump = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

		g_string_append_printf(text, "%s\n", dump);
		free(dump);
	}
}

static void feed(struct json_stream *stream, const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		size_t n = json_stream_feed(stream, (const uint8_t *)data + done, len - done);

		g_assert_cmpuint(n, >, 0);
		done += n;
	}
}

/* Feed @input in two pieces, the first @split long; with @restart to two splitters in turn. */
static char *run(const char *input, size_t len, size_t split, bool restart)
{
	GString *out = g_string_new(NULL);
	struct json_stream *stream = json_stream_new(note, out);

	feed(stream, input, split);
	if (restart) {
		size_t n;
		const uint8_t *pending = json_stream_pending(stream, &n);
		struct json_stream *next = json_stream_new(note, out);

		feed(next, pending, n);
		json_stream_free(stream);
		stream = next;
	}
	feed(stream, input + split, len - split);
	json_stream_free(stream);
	return g_string_free(out, FALSE);
}

static const struct {
	const char *name, *input, *expect;
} cases[] = {
	{"one", "{\"execute\":\"x\"}", "{\"execute\":\"x\"}\n"},
	{"concatenated", "{}{\"a\":[1,{}]}[]{}", "{}\n{\"a\":[1,{}]}\n[]\n{}\n"},
	{"space", " \r\n\t{ \"a\" : 1 }\r\n", "{\"a\":1}\n"},
	{"brackets-in-strings", "{\"a\":\"}]{[\\\"}\"}", "{\"a\":\"}]{[\\\"}\"}\n"},
	{"scalars", "1 \"two\" true\nnull ", "1\n\"two\"\ntrue\nnull\n"},
	{"scalar-then-object", "1{}2[]", "1\n{}\n2\n[]\n"}, /* "2" ends where "[" begins */
	{"single-quotes", "{'a':'it\\'s \"b\"'}", "{\"a\":\"it's \\\"b\\\"\"}\n"},
	{"escaped-backslash", "{\"a\":\"\\\\\"}{}", "{\"a\":\"\\\\\"}\n{}\n"},
};

static void test_cases(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		size_t len = strlen(cases[i].input);

		for (size_t split = 0; split <= len; split++) {
			g_autofree char *got = run(cases[i].input, len, split, false);
			g_autofree char *again = run(cases[i].input, len, split, true);

			g_test_message("%s split at %zu", cases[i].name, split);
			g_assert_cmpstr(got, ==, cases[i].expect);
			g_assert_cmpstr(again, ==, cases[i].expect);
		}
	}
}

/* After whatever error, a command that follows on the next line is understood. */
static void expect_error(const char *input, size_t len, const char *error)
{
	g_autoptr(GString) all = g_string_new_len(input, len);
	g_autofree char *got = NULL;

	g_string_append(all, "\n{\"ok\":1}\n");
	got = run(all->str, all->len, len / 2, false);
	g_assert_true(g_str_has_prefix(got, "!JSON parse error, "));
	g_assert_nonnull(strstr(got, error));
	g_assert_true(g_str_has_suffix(got, "{\"ok\":1}\n"));
}

static void test_errors(void)
{
	static const struct {
		const char *input, *error;
	} bad[] = {
		{"{\"a\":}", "unexpected token"},
		{"}", "stray '}'"},
		{"{]", "stray ']'"},
		{"foo", "invalid token"},
		{"{\"a\":\"open\n", "control character"},
		{"{\"a\":\"\x01\"}", "control character"},
		{"{\"a\":1,\"a\":2}", "duplicate"},
		{"{\"a\":\"\x80\"}", "decode"},
		{"{\"a\":\"\xc3\"}", "decode"},
		{"{\"a\":\"\xff\"}", "0xff"},
		{"{\"a\":\"\\u0000\"}", ""},
		{"{\"a\":\"\\ud800\"}", ""},
		{"{\"a\":99999999999999999999}", "too large"},
		{"{\"a\":1e999}", ""},
		{"\xff", "0xff"},
		{"{{{{\xff", "0xff"},
		{",", "stray"},
		{"{1}", ""},
		{"[1,]", ""},
		{"nul", "token"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
		expect_error(bad[i].input, strlen(bad[i].input), bad[i].error);
	expect_error("\0\1\2", 3, "");
}

static void test_depth(void)
{
	g_autoptr(GString) deep = g_string_new(NULL);
	g_autofree char *fits = NULL;

	for (int i = 0; i < JSON_STREAM_MAX_DEPTH; i++)
		g_string_append_c(deep, '[');
	for (int i = 0; i < JSON_STREAM_MAX_DEPTH; i++)
		g_string_append_c(deep, ']');
	fits = run(deep->str, deep->len, 1, false);
	g_assert_true(g_str_has_prefix(fits, "[[["));
	g_string_prepend_c(deep, '[');
	g_string_append_c(deep, ']');
	expect_error(deep->str, deep->len, "deeper than 1024 levels");
	g_string_truncate(deep, 0);
	for (int i = 0; i < 100000; i++)
		g_string_append(deep, "{\"a\":[");
	expect_error(deep->str, deep->len, "deeper than 1024 levels");
}

static void test_size(void)
{
	g_autoptr(GString) huge = g_string_new("{\"a\":\"");
	g_autofree char *fits = NULL;

	while (huge->len < JSON_STREAM_MAX_BYTES - 2)
		g_string_append_c(huge, 'x');
	g_string_append(huge, "\"}");
	fits = run(huge->str, huge->len, 1000, false);
	g_assert_true(g_str_has_prefix(fits, "{\"a\":\"xxx"));
	g_string_insert_c(huge, 10, 'x');
	expect_error(huge->str, huge->len, "longer than 4 MiB");
	/* One error, however long it is; then silence up to the line's end. */
	while (huge->len < 3 * JSON_STREAM_MAX_BYTES)
		g_string_append(huge, "[[[[\"\"\"\"}}}}]]]]");
	expect_error(huge->str, huge->len, "longer than 4 MiB");
	{
		g_autofree char *got = run(huge->str, huge->len, 7, false);

		g_assert_cmpstr(strchr(got, '\n'), ==, "\n");
	}
}

static void test_random(void)
{
	static const char alphabet[] = "{}[]\"':,\\ \n019.e-truefalsn\xff\xc3\x80\x00";
	GRand *rand = g_rand_new_with_seed(7);
	GString *out = g_string_new(NULL);
	struct json_stream *stream = json_stream_new(note, out);

	for (int i = 0; i < 200000; i++) {
		uint8_t c = alphabet[g_rand_int_range(rand, 0, sizeof(alphabet) - 1)];

		feed(stream, &c, 1);
	}
	g_string_truncate(out, 0);
	feed(stream, "\xff{}", 3);
	g_assert_true(g_str_has_suffix(out->str, "\n{}\n"));
	json_stream_free(stream);
	g_string_free(out, TRUE);
	g_rand_free(rand);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/json-stream/cases", test_cases);
	g_test_add_func("/json-stream/errors", test_errors);
	g_test_add_func("/json-stream/depth", test_depth);
	g_test_add_func("/json-stream/size", test_size);
	g_test_add_func("/json-stream/random", test_random);
	return g_test_run();
}
