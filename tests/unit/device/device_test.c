// Devices' common part: properties, life, the registry.
// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"
#include "fake.h"

struct toy_config {
	uint32_t size;
	char *name;
};

struct toy {
	struct device dev;
	struct toy_config config;
	bool fail;
	uint32_t *n_unrealized;
	uint32_t n_reset;
};

static const struct prop toy_props[] = {
	{.name = "size", .type = PROP_U32, .offset = offsetof(struct toy_config, size), .def = "7"},
	{.name = "name", .type = PROP_STRING, .offset = offsetof(struct toy_config, name)},
	{0},
};

static bool toy_realize(struct device *dev, struct device_env *env, GError **error)
{
	return !((struct toy *)dev)->fail || error_set_generic(error, "no luck");
}

static void toy_reset(struct device *dev)
{
	((struct toy *)dev)->n_reset++;
}

static void toy_unrealize(struct device *dev)
{
	++*((struct toy *)dev)->n_unrealized;
}

static const struct device_ops toy_ops = {
	.name = "toy",
	.driver = "toy-pci",
	.props = toy_props,
	.props_offset = offsetof(struct toy, config),
	.size = sizeof(struct toy),
	.realize = toy_realize,
	.reset = toy_reset,
	.unrealize = toy_unrealize,
};

static const struct device_ops bare_ops = {
	.name = "bare",
	.size = sizeof(struct toy),
	.realize = toy_realize,
	.reset = toy_reset,
	.unrealize = toy_unrealize,
};

static void test_props(void)
{
	json_t *props = json_pack("{s:s, s:i}", "name", "x", "size", 3);
	struct device *dev = device_new(&toy_ops, "t0", props, NULL);
	GError *error = NULL;

	g_assert_cmpstr(dev->id, ==, "t0");
	g_assert_cmpstr(((struct toy *)dev)->config.name, ==, "x");
	g_assert_cmpuint(((struct toy *)dev)->config.size, ==, 3);
	g_assert_null(device_state(dev));
	device_free(dev);
	dev = device_new(&toy_ops, NULL, NULL, NULL);
	g_assert_cmpuint(((struct toy *)dev)->config.size, ==, 7);
	device_free(dev);
	json_object_set_new(props, "speed", json_integer(1));
	g_assert_null(device_new(&toy_ops, NULL, props, &error));
	g_assert_nonnull(strstr(error->message, "speed"));
	g_assert_nonnull(strstr(error->message, "toy-pci"));
	g_clear_error(&error);
	json_decref(props);
	props = json_pack("{s:i}", "speed", 1);
	g_assert_null(device_new(&bare_ops, NULL, props, &error));
	g_assert_nonnull(strstr(error->message, "speed"));
	g_clear_error(&error);
	json_decref(props);
	device_free(NULL);
}

static void test_life(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *dev = device_new(&toy_ops, NULL, NULL, NULL);
	struct toy *toy = (struct toy *)dev;
	uint32_t n_unrealized = 0;
	GError *error = NULL;

	toy->n_unrealized = &n_unrealized;
	fake_realize(m, dev, "pci/00.3");
	g_assert_cmpstr(dev->path, ==, "pci/00.3");
	g_assert_cmpuint(toy->n_reset, ==, 1);
	device_free(dev);
	g_assert_cmpuint(n_unrealized, ==, 1);
	/* A device that fails is not reset, names itself, and is unrealized when it is freed. */
	dev = device_new(&toy_ops, NULL, NULL, NULL);
	toy = (struct toy *)dev;
	toy->n_unrealized = &n_unrealized;
	toy->fail = true;
	g_assert_false(device_realize(dev, g_strdup("p"), &m->env, &error));
	g_assert_cmpstr(error->message, ==, "toy-pci: no luck");
	g_assert_cmpuint(toy->n_reset, ==, 0);
	g_clear_error(&error);
	device_free(dev);
	g_assert_cmpuint(n_unrealized, ==, 2);
}

static void test_registry(void)
{
	const struct device_ops *const *list = device_ops_list();

	for (uint32_t i = 0; list[i]; i++) {
		g_assert_nonnull(list[i]->driver);
		g_assert_nonnull(list[i]->help);
		g_assert_true(device_ops_find(list[i]->driver) == list[i]);
		if (i > 0)
			g_assert_cmpstr(list[i - 1]->driver, <, list[i]->driver);
		if (list[i]->state) {
			GError *error = NULL;

			state_desc_lint(list[i]->state, &error);
			g_assert_no_error(error);
		}
	}
	g_assert_nonnull(device_ops_find("isa-debugcon"));
	g_assert_null(device_ops_find("isa-nothing"));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/device/props", test_props);
	g_test_add_func("/device/life", test_life);
	g_test_add_func("/device/registry", test_registry);
	return g_test_run();
}
