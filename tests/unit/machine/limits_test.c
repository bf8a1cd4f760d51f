// Names and counts: the longest and most that are accepted cross an update, one more is refused early.
// SPDX-License-Identifier: Apache-2.0
#include "bed.h"

#include "base/error.h"
#include "options/check.h"
#include "state/fdstore.h"

/* An id of @len characters that ends in @suffix. */
static char *long_id(size_t len, const char *suffix)
{
	g_autofree char *rest = g_strnfill(len - strlen(suffix), 'x');

	return g_strconcat(rest, suffix, NULL);
}

/* One of everything that has an id, each of @len characters. */
static json_t *named(size_t len)
{
	g_autofree char *c0 = long_id(len, "c0"), *c1 = long_id(len, "c1"),
			*c2 = long_id(len, "c2");
	g_autofree char *ram = long_id(len, "ram"), *rng = long_id(len, "rng");
	g_autofree char *io = long_id(len, "io"), *vs = long_id(len, "vs");
	g_autofree char *port = long_id(len, "port"), *bus = long_id(len, "rp");
	g_autofree char *isa = long_id(len, "isa"), *far = long_id(len, "far");

	return json_pack(
		"{s:[{s:s,s:s,s:I}], s:[{s:s}], s:[{s:s}], s:[{s:s,s:s},{s:s,s:s},{s:s,s:s}],"
		" s:[{s:s,s:s}],"
		" s:[{s:s,s:s,s:{s:s}}, {s:s,s:s,s:{s:s,s:s}}, {s:s,s:s},"
		" {s:s,s:s,s:{s:s,s:s}}, {s:s,s:s,s:{s:s}}]}",
		"memory-backends", "qom-type", "memory-backend-ram", "id", ram, "size",
		(json_int_t)1 << 20, "rngs", "id", rng, "iothreads", "id", io, "chardevs",
		"backend", "null", "id", c0, "backend", "null", "id", c1, "backend", "null", "id",
		c2, "monitors", "chardev", c2, "mode", "control", "devices", "driver",
		"virtio-serial-pci", "id", vs, "props", "max_ports", "4", "driver",
		"virtserialport", "id", port, "props", "bus", vs, "chardev", c0, "driver",
		"pcie-root-port", "id", bus, "driver", "virtio-rng-pci", "id", far, "props", "bus",
		bus, "rng", rng, "driver", "isa-debugcon", "id", isa, "props", "chardev", c1);
}

static struct vm_config *config_from(json_t *json, GError **error)
{
	struct vm_config *config = vm_config_from_json(json, error);

	json_decref(json);
	return config;
}

static void test_longest_names(void)
{
	g_autoptr(GError) error = NULL;
	struct vm_config *config = config_from(named(VM_ID_MAX), &error);
	struct bed bed;

	g_assert_no_error(error);
	bed = bed_new(config, RUNSTATE_RUNNING);
	assert_rebuilds(bed.machine);
	bed_free(&bed);
	g_assert_null(config_from(named(VM_ID_MAX + 1), &error));
	g_assert_nonnull(strstr(error->message, "at most 47 in all"));
}

/* Each kind of thing by itself is refused for a name that is one too long. */
static void test_each_name(void)
{
	json_t *longest = named(VM_ID_MAX + 1);
	const char *list;
	json_t *elements;

	json_object_foreach(longest, list, elements)
	{
		json_t *alone = json_pack("{s:O}", list, elements);
		g_autoptr(GError) error = NULL;

		g_assert_null(config_from(alone, &error));
		/* Monitors have no id of their own. */
		if (!g_str_equal(list, "monitors"))
			g_assert_nonnull(strstr(error->message, "at most 47 in all"));
	}
	json_decref(longest);
}

static void test_hot_plug(void)
{
	struct bed bed = bed_new(config_of("{}"), RUNSTATE_RUNNING);

	for (size_t len = VM_ID_MAX; len <= VM_ID_MAX + 1; len++) {
		g_autofree char *id = long_id(len, "");
		json_t *args = json_pack("{s:s, s:s}", "driver", "virtio-rng-pci", "id", id);
		g_autoptr(GError) error = NULL;
		bool ok = machine_device_add(bed.machine, args, &error);

		g_assert_cmpint(ok, ==, len <= VM_ID_MAX);
		if (!ok)
			g_assert_nonnull(strstr(error->message, "at most 47 in all"));
		assert_rebuilds(bed.machine);
		json_decref(args);
	}
	bed_free(&bed);
}

static json_t *chardevs(int n, const char *logfile)
{
	json_t *list = json_array();

	for (int i = 0; i < n; i++) {
		g_autofree char *id = g_strdup_printf("c%d", i);

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:s, s:s*}", "backend", "file", "id",
						id, "path", "/dev/null", "logfile", logfile));
	}
	return list;
}

static void assert_accepted(json_t *json, const char *why_not)
{
	g_autoptr(GError) error = NULL;
	autoptr(vm_config) config = config_from(json, &error);

	if (!why_not) {
		g_assert_no_error(error);
		return;
	}
	g_assert_null(config);
	g_assert_nonnull(strstr(error->message, why_not));
}

static json_t *backends(int n)
{
	json_t *list = json_array();

	for (int i = 0; i < n; i++) {
		g_autofree char *id = g_strdup_printf("m%d", i);

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:i}", "qom-type", "memory-backend-ram",
						"id", id, "size", 1 << 20));
	}
	return json_pack("{s:o}", "memory-backends", list);
}

/* Devices that have nothing but text. */
static json_t *texts(int n)
{
	g_autofree char *text = g_strnfill(4096, 'x');
	json_t *list = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:{s:s}}", "driver", "d", "props", "p", text));
	return json_pack("{s:o}", "devices", list);
}

static void test_counts(void)
{
	json_t *many;

	assert_accepted(backends(VM_MEMORY_BACKENDS_MAX), NULL);
	assert_accepted(backends(VM_MEMORY_BACKENDS_MAX + 1), "more than 15");
	assert_accepted(json_pack("{s:o}", "chardevs", chardevs(VM_LIST_MAX, "/l")), NULL);
	assert_accepted(json_pack("{s:o}", "chardevs", chardevs(VM_LIST_MAX + 1, NULL)),
			"more than 256");
	assert_accepted(texts(250), NULL);
	assert_accepted(texts(256), "can be handed to a successor");
	many = texts(0);
	json_object_set_new(many, "chardevs", chardevs(VM_LIST_MAX, "/l"));
	json_object_set_new(many, "devices", json_array());
	for (int i = 0; i < VM_LIST_MAX; i++)
		json_array_append_new(json_object_get(many, "devices"),
				      json_pack("{s:s}", "driver", "d"));
	assert_accepted(many, "1032 descriptors, at most 1024");
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/limits/longest_names", test_longest_names);
	g_test_add_func("/limits/each_name", test_each_name);
	g_test_add_func("/limits/hot_plug", test_hot_plug);
	g_test_add_func("/limits/counts", test_counts);
	return g_test_run();
}
