// The key=value syntax: escapes, nesting, lists, the implied key, JSON, and nonsense.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "options/props.h"

static void test_good(void)
{
	static const struct {
		const char *text;
		const char *implied_key;
		const char *json;
	} cases[] = {
		{"", NULL, "{}"},
		{"", "type", "{}"},
		{"a=b", NULL, "{\"a\":\"b\"}"},
		{"a=b,", NULL, "{\"a\":\"b\"}"},
		{"a=", NULL, "{\"a\":\"\"}"},
		{"a=b=c", NULL, "{\"a\":\"b=c\"}"},
		{"a=b,,c,d=e", NULL, "{\"a\":\"b,c\",\"d\":\"e\"}"},
		{"a=,,,b=c", NULL, "{\"a\":\",\",\"b\":\"c\"}"},
		{"a=1,a=2", NULL, "{\"a\":\"2\"}"},
		{"q35", "type", "{\"type\":\"q35\"}"},
		{"q35,accel=kvm", "type", "{\"type\":\"q35\",\"accel\":\"kvm\"}"},
		{"accel=kvm", "type", "{\"accel\":\"kvm\"}"},
		{"a,,b,c=d", "path", "{\"path\":\"a,b\",\"c\":\"d\"}"},
		{"server,nowait", NULL, "{\"server\":\"on\",\"wait\":\"off\"}"},
		{"no=1,no", NULL, "{\"no\":\"on\"}"},
		{"x,help", "driver", "{\"driver\":\"x\",\"help\":\"on\"}"},
		{"x,?", "driver", "{\"driver\":\"x\",\"help\":\"on\"}"},
		{"a.b=1,a.c=2,d=3", NULL, "{\"a\":{\"b\":\"1\",\"c\":\"2\"},\"d\":\"3\"}"},
		{"a.0=x,a.1=y", NULL, "{\"a\":[\"x\",\"y\"]}"},
		{"a.1.k=y,a.0.k=x", NULL, "{\"a\":[{\"k\":\"x\"},{\"k\":\"y\"}]}"},
		{"{\"a\": {\"b\": [1, true]}}", "x", "{\"a\":{\"b\":[1,true]}}"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;
		json_t *expected = json_loads(cases[i].json, 0, NULL);
		json_t *json = keyval_parse(cases[i].text, cases[i].implied_key, &error);

		g_test_message("%s", cases[i].text);
		g_assert_no_error(error);
		g_assert_true(json_equal(json, expected));
		json_decref(json);
		json_decref(expected);
	}
}

static void test_bad(void)
{
	static const struct {
		const char *text;
		const char *message;
	} cases[] = {
		{"=a", "a name is missing"},
		{"a..b=c", "a name is missing"},
		{".a=c", "a name is missing"},
		{"a=b,,", NULL},
		{"a b=c", "'a b' is not a key; a comma in a value is written ',,'"},
		{"a\n=c", "'a?' is not a key"},
		{"a=1,a.b=2", "'a.b' both has a value and parts"},
		{"a.b=2,a=1", "'a' both has a value and parts"},
		{"a.0=x,a.2=y", "a: element 1 of the list is missing"},
		{"a.0=x,a.b=y", "a: element 1 of the list is missing"},
		{"a.b=y,a.0=x", "a: element 1 of the list is missing"},
		{"a.00=x", "a: element 0 of the list is missing"},
		{"a.b.c.d.e.f.g.h=1", NULL},
		{"a.b.c.d.e.f.g.h.i=1", "nests deeper than 8"},
		{"a=\xff", "the value of 'a' is not UTF-8 text"},
		{"{", "not valid JSON"},
		{"{\"a\":1,\"a\":2}", "not valid JSON"},
		{"{} x", "not valid JSON"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;
		json_t *json = keyval_parse(cases[i].text, NULL, &error);

		if (!cases[i].message) {
			g_assert_no_error(error);
			json_decref(json);
			continue;
		}
		g_assert_null(json);
		g_test_message("%s", error->message);
		g_assert_nonnull(strstr(error->message, cases[i].message));
		g_assert_null(strchr(error->message, '\n'));
	}
}

static void test_bounds(void)
{
	g_autofree char *text = g_strnfill(65537, 'a');
	g_autoptr(GString) list = g_string_new(NULL);
	g_autoptr(GError) error = NULL;
	json_t *json;

	g_assert_null(keyval_parse(text, NULL, &error));
	g_assert_nonnull(strstr(error->message, "longer than 65536"));
	g_clear_error(&error);
	for (int i = 0; i < 256; i++)
		g_string_append_printf(list, "a.%d=x,", i);
	json = keyval_parse(list->str, NULL, NULL);
	g_assert_cmpuint(json_array_size(json_object_get(json, "a")), ==, 256);
	json_decref(json);
	g_string_append(list, "a.256=x");
	g_assert_null(keyval_parse(list->str, NULL, &error));
	g_assert_nonnull(strstr(error->message, "at most 256"));
}

/* Whatever the text, the answer is an object or an error, never both and never a crash. */
static void parse_anything(const char *text)
{
	g_autoptr(GError) error = NULL;
	json_t *json = keyval_parse(text, g_test_rand_int_range(0, 2) ? "key" : NULL, &error);

	g_assert_true((json == NULL) == (error != NULL));
	g_assert_true(!json || json_is_object(json));
	json_decref(json);
}

static void test_random(void)
{
	static const char alphabet[] = "ab01.,=,.{}\"[]:no \\\xc3\xa4\xff\n";

	for (int round = 0; round < 20000; round++) {
		char text[64];
		int len = g_test_rand_int_range(0, sizeof(text) - 1);

		for (int i = 0; i < len; i++)
			text[i] =
				round % 4 == 0
					? g_test_rand_int_range(1, 256)
					: alphabet[g_test_rand_int_range(0, sizeof(alphabet) - 1)];
		text[len] = '\0';
		parse_anything(text);
	}
}

static void test_truncations(void)
{
	static const char *const texts[] = {
		"raw,node-name=d0,cache.direct=on,file.driver=file,file.filename=/a,,b,c.0=x,c.1=y",
		"{\"driver\":\"raw\",\"file\":{\"filename\":\"/a\",\"list\":[1,true,null,1.5]}}",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
		for (size_t len = 0; len <= strlen(texts[i]); len++) {
			g_autofree char *head = g_strndup(texts[i], len);

			parse_anything(head);
			parse_anything(texts[i] + len);
		}
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/options/keyval/good", test_good);
	g_test_add_func("/options/keyval/bad", test_bad);
	g_test_add_func("/options/keyval/bounds", test_bounds);
	g_test_add_func("/options/keyval/random", test_random);
	g_test_add_func("/options/keyval/truncations", test_truncations);
	return g_test_run();
}
