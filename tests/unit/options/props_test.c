// Property tables: every type, bounds, defaults, and that writing is the inverse of reading.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "options/config.h"
#include "options/props.h"
#include "options/tables.h"
#include "options/text.h"

enum colour { RED, GREEN };

static const char *const colours[] = {[RED] = "red", [GREEN] = "green", NULL};

struct thing {
	bool flag;
	bool set_by_default;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
	uint64_t size_bytes;
	char *text;
	char *named;
	enum colour colour;
	enum on_off_auto mode;
	bool nested;
	uint32_t bounded;
};

#define ROW(key, kind, member, ...)                                    \
	{                                                              \
		key, kind, offsetof(struct thing, member), __VA_ARGS__ \
	}

static const struct prop table[] = {
	ROW("flag", PROP_BOOL, flag, .help = "a flag"),
	ROW("default-on", PROP_BOOL, set_by_default, .def = "on"),
	ROW("u16", PROP_U16, u16),
	ROW("u32", PROP_U32, u32, .def = "7"),
	ROW("u64", PROP_U64, u64),
	ROW("size", PROP_SIZE, size_bytes, .def = "4k", .help = "how much"),
	ROW("text", PROP_STRING, text),
	ROW("named", PROP_STRING, named, .def = "nobody"),
	ROW("colour", PROP_ENUM, colour, .names = colours, .def = "green"),
	ROW("mode", PROP_ON_OFF_AUTO, mode, .def = "auto"),
	ROW("cache.direct", PROP_BOOL, nested),
	ROW("bounded", PROP_U32, bounded, .def = "3", .min = 2, .max = 5),
	{.name = NULL},
};

static bool read_thing(const char *text, struct thing *thing, GError **error)
{
	json_t *json = json_loads(text, 0, NULL);
	bool ok;

	g_assert_nonnull(json);
	memset(thing, 0xa5, sizeof(*thing));
	ok = props_from_json(table, json, thing, "-thing", error);
	json_decref(json);
	return ok;
}

static void test_defaults(void)
{
	struct thing thing;

	g_assert_true(read_thing("{}", &thing, NULL));
	g_assert_false(thing.flag);
	g_assert_true(thing.set_by_default);
	g_assert_cmpuint(thing.u16, ==, 0);
	g_assert_cmpuint(thing.u32, ==, 7);
	g_assert_cmpuint(thing.size_bytes, ==, 4096);
	g_assert_null(thing.text);
	g_assert_cmpstr(thing.named, ==, "nobody");
	g_assert_cmpint(thing.colour, ==, GREEN);
	g_assert_cmpint(thing.mode, ==, ON_OFF_AUTO);
	g_assert_cmpuint(thing.bounded, ==, 3);
	props_clear(table, &thing);
	g_assert_null(thing.named);
	g_assert_cmpuint(thing.size_bytes, ==, 0);
}

static void test_types(void)
{
	/* The same values as JSON types and as text. */
	static const char *const forms[] = {
		"{\"flag\":true,\"default-on\":false,\"u16\":65535,\"u32\":4294967295,"
		"\"u64\":9,\"size\":2147483648,\"text\":\"a,b\",\"named\":\"x\",\"colour\":\"red\","
		"\"mode\":true,\"cache\":{\"direct\":true},\"bounded\":5}",
		"{\"flag\":\"on\",\"default-on\":\"off\",\"u16\":\"0xffff\",\"u32\":\"4294967295\","
		"\"u64\":\"9\",\"size\":\"2G\",\"text\":\"a,b\",\"named\":\"x\",\"colour\":\"red\","
		"\"mode\":\"on\",\"cache.direct\":\"yes\",\"bounded\":\"5\"}",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
		struct thing thing;

		g_assert_true(read_thing(forms[i], &thing, NULL));
		g_assert_true(thing.flag);
		g_assert_false(thing.set_by_default);
		g_assert_cmpuint(thing.u16, ==, 65535);
		g_assert_cmpuint(thing.u32, ==, UINT32_MAX);
		g_assert_cmpuint(thing.u64, ==, 9);
		g_assert_cmpuint(thing.size_bytes, ==, 2 * GIB);
		g_assert_cmpstr(thing.text, ==, "a,b");
		g_assert_cmpstr(thing.named, ==, "x");
		g_assert_cmpint(thing.colour, ==, RED);
		g_assert_cmpint(thing.mode, ==, ON_OFF_ON);
		g_assert_true(thing.nested);
		g_assert_cmpuint(thing.bounded, ==, 5);
		props_clear(table, &thing);
	}
}

static void test_refusals(void)
{
	static const struct {
		const char *json;
		const char *message;
	} cases[] = {
		{"[]", "-thing: not a JSON object"},
		{"{\"colors\":1}", "-thing: unknown property 'colors'; known are: flag, "},
		{"{\"cache\":{\"x\":1}}", "unknown property 'cache.x'"},
		{"{\"flag\":{\"x\":1}}", "flag: the JSON value has the wrong type"},
		{"{\"flag\":\"maybe\"}", "-thing: flag: 'maybe' is neither on nor off"},
		{"{\"flag\":1}", "flag: the JSON value has the wrong type"},
		{"{\"text\":7}", "text: the JSON value has the wrong type"},
		{"{\"text\":null}", "text: the JSON value has the wrong type"},
		{"{\"u32\":1.5}", "u32: the JSON value has the wrong type"},
		{"{\"u16\":65536}", "u16: 65536 is out of bounds; give 0 to 65535"},
		{"{\"u16\":-1}", "u16: the number is negative"},
		{"{\"u16\":\"-1\"}", "u16: '-1' is not a number"},
		{"{\"u32\":\"7k\"}", "u32: '7k' is not a number"},
		{"{\"u32\":\"\"}", "u32: '' is not a number"},
		{"{\"u64\":\"18446744073709551616\"}", "is not a number"},
		{"{\"size\":\"1.5G\"}", "size: '1.5G' is not a size"},
		{"{\"size\":\"16E\"}", "size: '16E' is not a size"},
		{"{\"colour\":\"blue\"}", "colour: 'blue' is not a value it takes; give one of: "
					  "red, green"},
		{"{\"bounded\":1}", "bounded: 1 is out of bounds; give 2 to 5"},
		{"{\"bounded\":\"6\"}", "bounded: 6 is out of bounds; give 2 to 5"},
		{"{\"cache\":{\"direct\":true},\"cache.direct\":true}",
		 "cache.direct: given twice"},
		{"{\"text\":\"kept\",\"named\":\"kept\",\"u16\":70000}", "out of bounds"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) error = NULL;
		struct thing thing;

		g_assert_false(read_thing(cases[i].json, &thing, &error));
		g_test_message("%s", error->message);
		g_assert_nonnull(strstr(error->message, cases[i].message));
		g_assert_null(strchr(error->message, '\n'));
		g_assert_null(thing.text); /* left cleared */
		g_assert_null(thing.named);
	}
}

static void test_nul_and_length(void)
{
	g_autofree char *text = g_strnfill(4096, 'x');
	g_autofree char *longer = g_strnfill(4097, 'x');
	g_autoptr(GError) error = NULL;
	json_t *fits = json_pack("{ss}", "text", text);
	json_t *too_long = json_pack("{ss}", "text", longer);
	json_t *nul = json_pack("{ss#}", "text", "a\0b", 3);
	struct thing thing;

	g_assert_true(props_from_json(table, fits, &thing, "-thing", NULL));
	g_assert_cmpuint(strlen(thing.text), ==, 4096);
	props_clear(table, &thing);
	g_assert_false(props_from_json(table, too_long, &thing, "-thing", &error));
	g_assert_nonnull(strstr(error->message, "longer than 4096 bytes"));
	g_clear_error(&error);
	g_assert_false(props_from_json(table, nul, &thing, "-thing", &error));
	g_assert_nonnull(strstr(error->message, "NUL"));
	json_decref(fits);
	json_decref(too_long);
	json_decref(nul);
}

static void test_required(void)
{
	g_autoptr(GError) error = NULL;
	struct rng_config rng;
	json_t *json = json_object();

	g_assert_false(props_from_json(rng_props, json, &rng, "-object rng-random", &error));
	g_assert_cmpstr(error->message, ==, "-object rng-random: id= is missing");
	json_decref(json);
}

static void test_write(void)
{
	static const char *const forms[] = {
		"{}",
		"{\"flag\":true,\"u64\":\"18446744073709551615\",\"cache\":{\"direct\":true}}",
		"{\"default-on\":false,\"u32\":0,\"size\":1,\"named\":\"\",\"mode\":\"off\"}",
		"{\"colour\":\"red\"}",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
		json_t *expected = json_loads(forms[i], 0, NULL);
		json_t *written;
		struct thing thing;

		g_assert_true(read_thing(forms[i], &thing, NULL));
		written = props_to_json(table, &thing);
		g_assert_true(json_equal(written, expected));
		props_clear(table, &thing);
		json_decref(written);
		json_decref(expected);
	}
}

static void test_help(void)
{
	g_autoptr(GString) out = g_string_new(NULL);

	props_help(table, out);
	for (const struct prop *p = table; p->name; p++)
		g_assert_nonnull(strstr(out->str, p->name));
	g_assert_nonnull(
		strstr(out->str, "  size=<size>                   how much (default: 4k)\n"));
	g_assert_nonnull(strstr(out->str, "colour=red|green"));
	g_assert_null(strstr(out->str, " \n"));
}

/* A default that its own type refuses would go unnoticed until somebody leaves the key out. */
static void check_table(const struct prop *props)
{
	for (const struct prop *p = props; p->name; p++) {
		struct prop rows[2] = {*p, {.name = NULL}};
		json_t *json = p->def ? json_pack("{s:s}", "x", p->def) : json_object();
		uint64_t scratch[sizeof(struct vm_config) / 8 + 8] = {0};
		g_autoptr(GError) error = NULL;

		rows[0].name = "x";
		rows[0].required = false;
		props_from_json(rows, json, scratch, p->name, &error);
		g_assert_no_error(error);
		props_clear(rows, scratch);
		json_decref(json);
	}
}

static void test_tables(void)
{
	check_table(machine_props);
	check_table(vm_props);
	for (int i = 0; i < VM_LIST_COUNT; i++) {
		if (vm_lists[i].props)
			check_table(vm_lists[i].props);
		for (const struct kind_table *k = vm_lists[i].kinds; k && k->name; k++)
			check_table(k->props);
	}
}

static void test_sizes(void)
{
	static const struct {
		const char *text;
		uint64_t unit_bytes;
		uint64_t size_bytes;
	} good[] = {
		{"0", 1, 0},
		{"512", 1, 512},
		{"512", MIB, 512 * MIB},
		{"1k", MIB, 1024},
		{"1K", 1, 1024},
		{"7b", MIB, 7},
		{"3G", 1, 3 * GIB},
		{"0x1000", 1, 4096},
		{"2T", 1, 2048 * GIB},
		{"15E", 1, 15 * (GIB << 30)},
	};
	static const char *const bad[] = {"",	  "G",	 "1GB", "1 G", " 1", "-1", "+1",
					  "1.5G", "99E", "0x",	"1x",  "k1", "0xk"};
	uint64_t size_bytes;

	for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
		g_assert_true(text_to_size(good[i].text, good[i].unit_bytes, &size_bytes));
		g_assert_cmpuint(size_bytes, ==, good[i].size_bytes);
	}
	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_test_message("%s", bad[i]);
		g_assert_false(text_to_size(bad[i], 1, &size_bytes));
	}
	for (uint64_t n = 1; n != 0; n <<= 1) {
		g_autofree char *text = text_from_size(n);

		g_assert_true(text_to_size(text, 1, &size_bytes));
		g_assert_cmpuint(size_bytes, ==, n);
	}
}

static void test_printable(void)
{
	g_autofree char *controls = text_printable("a\nb\tc\x7f");
	g_autofree char *invalid = text_printable("a\xff"
						  "b");
	g_autofree char *text = g_strnfill(1000, 'x');
	g_autofree char *cut = text_printable(text);

	g_assert_cmpstr(controls, ==, "a?b?c?");
	g_assert_true(g_utf8_validate(invalid, -1, NULL));
	g_assert_cmpuint(strlen(cut), ==, 123);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/options/props/defaults", test_defaults);
	g_test_add_func("/options/props/types", test_types);
	g_test_add_func("/options/props/refusals", test_refusals);
	g_test_add_func("/options/props/nul-and-length", test_nul_and_length);
	g_test_add_func("/options/props/required", test_required);
	g_test_add_func("/options/props/write", test_write);
	g_test_add_func("/options/props/help", test_help);
	g_test_add_func("/options/props/tables", test_tables);
	g_test_add_func("/options/text/sizes", test_sizes);
	g_test_add_func("/options/text/printable", test_printable);
	return g_test_run();
}
