// Places on PCI buses: the lowest free one, the one that was asked for, or an error that says why.
// SPDX-License-Identifier: Apache-2.0
#include "machine/placing.h"

#include <string.h>

#define RNG  "virtio-rng-pci"
#define PORT "pcie-root-port"

static struct device_config *config_of(const char *driver, const char *id, const char *bus,
				       const char *addr)
{
	json_t *args = json_pack("{s:s, s:s*, s:s*, s:s*}", "driver", driver, "id", id, "bus", bus,
				 "addr", addr);
	struct device_config *config = device_config_read(args, "test", NULL);

	g_assert_nonnull(config);
	json_decref(args);
	return config;
}

/* The path of the place that such a device gets; if it gets none, the error has @words. */
static void expect(struct placing *placing, const char *driver, const char *id, const char *bus,
		   const char *addr, const char *path, const char *words)
{
	struct device_config *config = config_of(driver, id, bus, addr);
	g_autoptr(GError) error = NULL;
	struct place place = {0};

	placing_take(placing, device_ops_find(driver), config, &place, &error);
	g_assert_cmpstr(place.path, ==, path);
	if (!words)
		g_assert_no_error(error);
	else
		g_assert_nonnull(error);
	if (words && !strstr(error->message, words))
		g_error("'%s' does not say '%s'", error->message, words);
	g_free(place.path);
	device_config_free(config);
}

static void test_places(void)
{
	autoptr(placing) placing = placing_new();

	expect(placing, RNG, NULL, NULL, NULL, "pci/00.1", NULL);
	expect(placing, RNG, NULL, "pcie.0", "0x3", "pci/00.3", NULL);
	expect(placing, RNG, NULL, NULL, NULL, "pci/00.2", NULL);
	expect(placing, RNG, NULL, NULL, NULL, "pci/00.4", NULL);
	expect(placing, RNG, NULL, NULL, "06.1", "pci/00.6.1", NULL);
	/* A slot with any function in it is not free. */
	expect(placing, RNG, NULL, NULL, NULL, "pci/00.5", NULL);
	expect(placing, RNG, NULL, NULL, NULL, "pci/00.7", NULL);
	expect(placing, RNG, NULL, NULL, "1f", NULL, "in use by the LPC bridge");
	expect(placing, RNG, NULL, NULL, "0", NULL, "in use by the host bridge");
	expect(placing, RNG, NULL, NULL, "3", NULL,
	       "PCI: slot 3 function 0 not available for virtio-rng-pci, in use by virtio-rng-pci");
	expect(placing, RNG, NULL, NULL, "20", NULL, "addr=20: not SLOT or SLOT.FUNCTION");
	expect(placing, RNG, NULL, NULL, "", NULL, "addr=: not SLOT or SLOT.FUNCTION");
	expect(placing, RNG, NULL, NULL, "3.8", NULL, "not SLOT or SLOT.FUNCTION");
	expect(placing, RNG, NULL, "isa.0", NULL, NULL, "Bus 'isa.0' not found");
	for (int slot = 8; slot < 31; slot++) {
		g_autofree char *path = g_strdup_printf("pci/00.%x", slot);

		expect(placing, PORT, NULL, NULL, NULL, path, NULL);
	}
	expect(placing, RNG, NULL, NULL, NULL, NULL,
	       "PCI: no slot/function available for virtio-rng-pci, all in use or reserved");
}

static void test_behind(void)
{
	autoptr(placing) placing = placing_new();
	struct device_config *port = config_of(PORT, "rp", NULL, NULL);
	struct device_config *rng = config_of(RNG, NULL, "rp", NULL);

	expect(placing, RNG, NULL, "rp", NULL, NULL, "Bus 'rp' not found");
	expect(placing, PORT, "rp", NULL, NULL, "pci/00.1", NULL);
	expect(placing, PORT, NULL, "rp", NULL, NULL, "only be on pcie.0");
	expect(placing, RNG, NULL, "rp", "1", NULL, "slot 0 only");
	expect(placing, RNG, NULL, "rp", NULL, "pci/00.1/0", NULL);
	expect(placing, RNG, NULL, "rp", NULL, NULL, "no slot/function available");
	expect(placing, RNG, NULL, "rp", "0.2", "pci/00.1/0.2", NULL);
	/* What goes leaves its place; the port takes its bus along. */
	placing_give(placing, rng, 2);
	placing_give(placing, rng, 0);
	expect(placing, RNG, NULL, "rp", NULL, "pci/00.1/0", NULL);
	placing_give(placing, rng, 0);
	placing_give(placing, port, 1 << 3);
	expect(placing, RNG, NULL, "rp", NULL, NULL, "Bus 'rp' not found");
	expect(placing, RNG, NULL, NULL, NULL, "pci/00.1", NULL);
	device_config_free(port);
	device_config_free(rng);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/placing/places", test_places);
	g_test_add_func("/placing/behind", test_behind);
	return g_test_run();
}
