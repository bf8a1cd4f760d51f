// Offers: hostile messages are refused, and every difference is named.
// SPDX-License-Identifier: Apache-2.0
#include <glib.h>
#include <jansson.h>
#include <string.h>

#include "cpr/record.h"
#include "machine/machine.h"
#include "offers.h"

static void test_round_trip(void)
{
	autoptr(vm_config) config = config_of(VM);
	autoptr(vm_config) nothing = config_of("molt -incoming defer");
	autoptr(vm_config) other = config_of(VM " -m 128M");
	json_t *json = offer_of(config);
	g_autoptr(GError) error = NULL;
	autoptr(offer) offer = offer_from_json(json, &error);
	g_autofree char *differences = NULL;

	g_assert_no_error(error);
	g_assert_cmpuint(offer->generation, ==, 2);
	g_assert_null(offer_config_differences(offer, config, false));
	g_assert_null(offer_config_differences(offer, nothing, false));
	differences = offer_config_differences(offer, other, false);
	g_assert_nonnull(strstr(differences, "-m: "));
	json_decref(json);
}

/* Without any member, with any member of another type, no offer is accepted, and none crashes. */
static void test_hostile(void)
{
	autoptr(vm_config) config = config_of(VM);
	json_t *json = offer_of(config);
	static const char *const values[] = {"null", "7", "-1", "\"x\"", "[]", "{}", "true"};
	const char *key;
	json_t *value;

	json_object_foreach(json, key, value)
	{
		json_t *without = json_copy(json);
		g_autoptr(GError) error = NULL;

		json_object_del(without, key);
		g_assert_null(offer_from_json(without, &error));
		g_assert_nonnull(error);
		for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
			autoptr(offer) offer = NULL;

			json_object_set_new(without, key,
					    json_loads(values[i], JSON_DECODE_ANY, NULL));
			offer = offer_from_json(without, NULL);
			g_assert_true(!offer || json_typeof(value) ==
							json_typeof(json_object_get(without, key)));
		}
		json_decref(without);
	}
	json_decref(json);
}

static char *tree_diff(const char *patch_theirs, const char *patch_own)
{
	json_t *theirs = tree_of(), *own = tree_of(), *patch;
	char *out;

	patch = patch_theirs ? json_loads(patch_theirs, 0, NULL) : NULL;
	if (patch)
		json_object_update(theirs, patch);
	json_decref(patch);
	patch = patch_own ? json_loads(patch_own, 0, NULL) : NULL;
	if (patch)
		json_object_update(own, patch);
	json_decref(patch);
	out = offer_tree_differences(theirs, own, false);
	json_decref(theirs);
	json_decref(own);
	return out;
}

static void check_tree(const char *theirs, const char *own, const char *words)
{
	g_autofree char *out = tree_diff(theirs, own);

	if (!words)
		g_assert_null(out);
	else if (!out || !strstr(out, words))
		g_error("'%s' does not say '%s'", out, words);
}

#define RAM(size) "\"ram\":[{\"name\":\"pc.ram\",\"size\":" size "}]"
#define DEV(name, v, m)                                                           \
	"{\"section\":\"" name "\",\"instance\":0,\"state\":\"a\",\"version\":" v \
	",\"min-reader\":" m "}"

static void test_trees(void)
{
	check_tree(NULL, NULL, NULL);
	check_tree("{" RAM("8192") "}", NULL, "RAM block pc.ram: 8192 bytes there, 4096 here");
	check_tree("{\"ram\":[]}", NULL, "RAM block pc.ram: here, not there");
	check_tree(NULL, "{\"ram\":[]}", "RAM block pc.ram: there, not here");
	check_tree("{\"devices\":[]}", NULL, "device vcpu: here, not there");
	check_tree(NULL, "{\"devices\":[]}", "device pci/00.1/a: there, not here");
	/* Newer writers are fine as long as we can read them; older ones always are. */
	check_tree("{\"devices\":[" DEV("x", "9", "2") "]}",
		   "{\"devices\":[" DEV("x", "2", "1") "]}", NULL);
	check_tree("{\"devices\":[" DEV("x", "9", "3") "]}",
		   "{\"devices\":[" DEV("x", "2", "1") "]}",
		   "x: state version 9 needs a reader of version 3, here is 2");
	check_tree("{\"ram\":[{\"name\":\"pc.ram\",\"size\":4096,\"share\":false}]}", NULL,
		   "RAM block pc.ram: share=off there, share=on here");
	/* All of them in one text. */
	check_tree("{" RAM("1") ",\"devices\":[" DEV("y", "1", "1") "]}", NULL, "device y");
	check_tree("{" RAM("1") ",\"devices\":[" DEV("y", "1", "1") "]}", NULL, "1 bytes there");
	/* Garbage compares, too. */
	check_tree("{\"ram\":7,\"devices\":[7,null,{}]}", NULL, "device ?");
}

static void test_adopt(void)
{
	autoptr(vm_config) config = config_of(VM);
	autoptr(vm_config) own = config_of("molt -incoming defer -S -qmp unix:/tmp/q,server=on,"
					   "wait=off -pidfile /tmp/p");
	json_t *json = offer_of(config);
	autoptr(offer) offer = offer_from_json(json, NULL);
	autoptr(vm_config) taken = NULL;
	const struct monitor_config *monitor;

	g_assert_false(own->explicit_vm);
	taken = offer_adopt_config(offer, own, false);
	json_decref(json);
	g_assert_cmpuint(taken->ram_size_bytes, ==, 64 << 20);
	g_assert_true(taken->start_paused);
	g_assert_cmpstr(taken->pidfile, ==, "/tmp/p");
	g_assert_cmpuint(taken->incoming->len, ==, 1);
	/* The successor's own monitor, the VM's own chardev, and not the predecessor's monitor. */
	g_assert_cmpuint(taken->monitors->len, ==, 1);
	monitor = g_ptr_array_index(taken->monitors, 0);
	g_assert_cmpstr(monitor->chardev, !=, "mon");
	g_assert_nonnull(vm_config_chardev(taken, monitor->chardev));
	g_assert_nonnull(vm_config_chardev(taken, "com"));
	g_assert_null(vm_config_chardev(taken, "mon"));
}

static void test_adopt_over_exec(void)
{
	autoptr(vm_config) config = config_of(VM);
	autoptr(vm_config) own = config_of("molt");
	json_t *json = offer_of(config);
	autoptr(offer) offer = offer_from_json(json, NULL);
	autoptr(vm_config) taken = offer_adopt_config(offer, own, true);

	json_decref(json);
	g_assert_cmpuint(taken->monitors->len, ==, 1);
	g_assert_nonnull(vm_config_chardev(taken, "mon"));
}

static void test_hello(void)
{
	static const struct {
		int newest, oldest;
		bool ok;
	} rows[] = {{2, 2, true}, {9, 2, true}, {9, 3, false}, {1, 1, false}};
	json_t *hello = hello_to_json(HELLO_ALL);
	char *build = NULL;
	uint32_t features;

	g_assert_true(hello_check(hello, &build, &features, NULL));
	g_assert_cmpstr(build, ==, MOLT_VERSION);
	g_clear_pointer(&build, g_free);
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autoptr(GError) error = NULL;

		json_object_set_new(hello, "protocol", json_integer(rows[i].newest));
		json_object_set_new(hello, "protocol-min", json_integer(rows[i].oldest));
		g_assert_cmpint(hello_check(hello, &build, &features, &error), ==, rows[i].ok);
		g_assert_cmpint(error == NULL, ==, rows[i].ok);
		g_clear_pointer(&build, g_free);
	}
	json_object_del(hello, "build");
	g_assert_false(hello_check(hello, &build, &features, NULL));
	json_decref(hello);
}

/* Both sides have in force what both know, whatever else the other one says. */
static void test_features(void)
{
	static const struct {
		const char *names;
		bool ok;
		uint32_t features;
	} rows[] = {
		{"[]", true, 0},
		{"[\"record\"]", true, HELLO_RECORD},
		{"[\"warp\", \"record\", \"\"]", true, HELLO_RECORD},
		{"[\"warp\", \"records\", \"RECORD\"]", true, 0},
		{"{}", false, 0},
		{"7", false, 0},
		{"[7]", false, 0},
		{"[\"record\", null]", false, 0},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		json_t *hello = hello_to_json(0), *answer;
		g_autoptr(GError) error = NULL;
		g_autofree char *build = NULL;
		uint32_t features = ~0U;

		json_object_set_new(hello, "features",
				    json_loads(rows[i].names, JSON_DECODE_ANY, NULL));
		g_assert_cmpint(hello_check(hello, &build, &features, &error), ==, rows[i].ok);
		json_decref(hello);
		if (!rows[i].ok)
			continue;
		g_assert_cmphex(features, ==, rows[i].features);
		/* The answer names these, and the other side comes to the same. */
		answer = hello_to_json(features);
		g_clear_pointer(&build, g_free);
		g_assert_true(hello_check(answer, &build, &features, &error));
		g_assert_cmphex(features, ==, rows[i].features);
		json_decref(answer);
	}
}

static void test_too_many_features(void)
{
	json_t *hello = hello_to_json(0), *names = json_object_get(hello, "features");
	char *build = NULL;
	uint32_t features;

	for (int i = 0; i < 1000; i++)
		json_array_append_new(names, json_string("x"));
	g_assert_false(hello_check(hello, &build, &features, NULL));
	json_decref(hello);
}

/* The format of the stream, the configuration, the states: in one text. */
static void test_all_differences(void)
{
	autoptr(vm_config) config = config_of(VM);
	autoptr(vm_config) other = config_of(VM " -m 128M -smp 3");
	json_t *json = offer_of(config);
	autoptr(offer) offer = NULL;
	g_autofree char *text = NULL;

	json_object_set_new(json, "state-min-reader", json_integer(99));
	offer = offer_from_json(json, NULL);
	json_decref(json);
	text = offer_differences(offer, other, false);
	g_assert_nonnull(strstr(text, "needs a reader of format 99"));
	g_assert_nonnull(strstr(text, "-m: 64M here, 128M in the successor"));
	g_assert_nonnull(strstr(text, "-smp cpus: 2 here, 3 in the successor"));
	g_assert_nonnull(strstr(text, "pci/00.1/a: its state 'a' is not known here"));
}

/* What the probe looks at beside the configuration: devices, and the versions of their state. */
static void check_takeover(const char *line, const char *entries, const char *words)
{
	autoptr(vm_config) config = config_of(line);
	g_autofree char *text = g_strdup_printf("{\"devices\":[%s]}", entries);
	json_t *tree = json_loads(text, 0, NULL);
	g_autoptr(GError) error = NULL;
	bool ok = machine_check_takeover(config, tree, &error);

	g_assert_nonnull(tree);
	json_decref(tree);
	g_assert_cmpint(ok, ==, words == NULL);
	if (words && !strstr(error->message, words))
		g_error("'%s' does not say '%s'", error->message, words);
}

#define SECTION(name, state, min) \
	"{\"section\":\"" name "\",\"state\":\"" state "\",\"min-reader\":" min "}"

static void test_takeover(void)
{
	check_takeover(VM, SECTION("isa/60/i8042", "i8042", "1"), NULL);
	check_takeover(VM, SECTION("dev/0/none", "", "0"), NULL);
	check_takeover(VM, SECTION("isa/60/i8042", "i8042", "99"),
		       "isa/60/i8042: its state 'i8042' needs a reader of version 99");
	check_takeover(VM, SECTION("pci/05.0/warp", "warp-drive", "1"),
		       "pci/05.0/warp: its state 'warp-drive' is not known here");
	check_takeover(VM " -device virtio-rng-pci,addr=5",
		       "7, null, {}, " SECTION("pci/00.5/virtio-rng", "virtio-rng", "1"), NULL);
	check_takeover(VM " -device virtio-rng-pci",
		       SECTION("pci/00.2/virtio-rng", "virtio-rng", "1"),
		       "device pci/00.1/virtio-rng: here, not there");
	check_takeover(VM " -device virtio-rng-pci,bus=none", "", "Bus 'none' not found");
	check_takeover(VM " -device warp-drive", "", "-device warp-drive: no such device");
}

/* ---- the record, which crosses in the same way ---- */

static void test_record(void)
{
	autoptr(update_record) old = update_record_new("cpr-transfer");
	autoptr(update_record) new = update_record_new("cpr-transfer");
	g_autoptr(GError) error = NULL;
	g_autofree char *text = NULL;
	json_t *json;

	old->paused_ns = 1000000;
	update_record_phase(old, "pause", false, 1000000, 1100000);
	update_record_phase(new, "load", true, 1200000, 1500000);
	new->running_ns = 2000000;
	new->new_pid = 7;
	json = update_record_to_json(new);
	g_assert_true(update_record_merge(old, json, true, &error));
	g_assert_no_error(error);
	g_assert_cmpuint(old->phases->len, ==, 2);
	g_assert_cmpuint(update_record_pause_ns(old), ==, 1000000);
	g_assert_cmpint(old->new_pid, ==, 7);
	update_record_finish(old, UPDATE_COMMITTED, NULL);
	text = update_record_text(old);
	g_assert_cmpstr(text, ==,
			"update by cpr-transfer: committed, pause 1000 us; us: old.pause 100, "
			"new.load 300");
	/* Its own phases are not taken from the other side. */
	g_assert_true(update_record_merge(new, json, false, &error));
	g_assert_cmpuint(new->phases->len, ==, 1);
	json_decref(json);
}

static void test_hostile_record(void)
{
	static const char *const rows[] = {
		"{}",
		"{\"phases\":7}",
		"{\"phases\":[7]}",
		"{\"phases\":[{\"name\":\"x\"}]}",
	};
	autoptr(update_record) record = update_record_new("cpr-exec");
	json_t *json;

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		json = json_loads(rows[i], 0, NULL);
		g_assert_false(update_record_merge(record, json, true, NULL));
		json_decref(json);
	}
	/* More phases than any table has, and names longer than any. */
	json = json_pack("{s:[]}", "phases");
	for (int i = 0; i < 1000; i++)
		json_array_append_new(json_object_get(json, "phases"),
				      json_pack("{s:s, s:s, s:I, s:I}", "process", "new", "name",
						"0123456789012345678901234567890123456789",
						"begin-ns", (json_int_t)INT64_MAX, "ns",
						(json_int_t)INT64_MAX));
	g_assert_true(update_record_merge(record, json, true, NULL));
	g_assert_cmpuint(record->phases->len, ==, RECORD_MAX_PHASES);
	json_decref(json);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/offer/round-trip", test_round_trip);
	g_test_add_func("/offer/hostile", test_hostile);
	g_test_add_func("/offer/trees", test_trees);
	g_test_add_func("/offer/adopt", test_adopt);
	g_test_add_func("/offer/adopt-over-exec", test_adopt_over_exec);
	g_test_add_func("/offer/takeover", test_takeover);
	g_test_add_func("/offer/hello", test_hello);
	g_test_add_func("/offer/features", test_features);
	g_test_add_func("/offer/too-many-features", test_too_many_features);
	g_test_add_func("/offer/all-differences", test_all_differences);
	g_test_add_func("/record/merge", test_record);
	g_test_add_func("/record/hostile", test_hostile_record);
	return g_test_run();
}
