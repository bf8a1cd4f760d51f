// PCI: configuration mechanisms, header, BARs, capabilities, chipset functions.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/lpc.h"
#include "pci_util.h"

#define COMMAND 0x04
#define BAR(n)	(0x10 + 4 * (n))

static void select_config(struct fake_machine *m, uint8_t bus, uint8_t devfn, uint8_t reg)
{
	fake_out(m, 0xcf8, 4, 0x80000000U | bus << 16 | devfn << 8 | (reg & 0xfc));
}

static void test_identity(void)
{
	struct pci_rig rig = pci_rig_new();

	g_assert_cmphex(toy_get(&rig, 0x00, 4), ==, 0x12341af4);
	g_assert_cmphex(toy_get(&rig, 0x08, 4), ==, 0x02000009);
	g_assert_cmphex(toy_get(&rig, 0x2c, 4), ==, 0x56781af4);
	g_assert_cmphex(toy_get(&rig, 0x3d, 1), ==, 0); /* no INTx */
	toy_put(&rig, 0x00, 4, 0xffffffff);
	toy_put(&rig, 0x2c, 4, 0xffffffff);
	g_assert_cmphex(toy_get(&rig, 0x00, 4), ==, 0x12341af4);
	g_assert_cmphex(toy_get(&rig, 0x2c, 4), ==, 0x56781af4);
	toy_put(&rig, 0x3c, 1, 0x0b);
	g_assert_cmphex(toy_get(&rig, 0x3c, 1), ==, 0x0b);
	toy_put(&rig, COMMAND, 2, 0xffff);
	g_assert_cmphex(toy_get(&rig, COMMAND, 2), ==, 0x0547);
	/* Bridge: the datasheet's ids; PCIEXBAR says where this very window is and stays so. */
	g_assert_cmphex(fake_load(rig.m, ecam_of(0, 0), 4), ==, 0x29c08086);
	fake_store(rig.m, ecam_of(0, 0x60), 8, 0x1234567890abcdef);
	g_assert_cmphex(fake_load(rig.m, ecam_of(0, 0x60), 8), ==, ECAM | 1);
	pci_rig_free(&rig);
}

/* Both mechanisms, every size and offset, see the same bytes. */
static void test_mechanisms(void)
{
	struct pci_rig rig = pci_rig_new();

	for (uint32_t reg = 0; reg < 256; reg++) {
		for (uint32_t size = 1; size <= 4; size *= 2) {
			uint64_t want = 0;

			if ((reg & 3) + size > 4)
				continue;
			for (uint32_t i = 0; i < size; i++)
				want |= (uint64_t)rig.toy->state.pci.config[reg + i] << (8 * i);
			select_config(rig.m, 0, TOY_DEVFN, reg);
			g_assert_cmphex(fake_in(rig.m, 0xcfc + (reg & 3), size), ==, want);
			g_assert_cmphex(toy_get(&rig, reg, size), ==, want);
		}
	}
	select_config(rig.m, 0, TOY_DEVFN, 0x3c);
	fake_out(rig.m, 0xcfc, 1, 0x55);
	g_assert_cmphex(toy_get(&rig, 0x3c, 1), ==, 0x55);
	/* A wide access that ends outside of the window is served by bytes. */
	select_config(rig.m, 0, TOY_DEVFN, 0);
	g_assert_cmphex(fake_in(rig.m, 0xcfe, 4), ==, 0xffff1234);
	/* Extended space of a function that is there reads as zero, without one as ones. */
	g_assert_cmphex(toy_get(&rig, 0x100, 4), ==, 0);
	g_assert_cmphex(toy_get(&rig, 0xffc, 4), ==, 0);
	toy_put(&rig, 0x100, 4, 0x1234);
	for (uint32_t size = 1; size <= 4; size *= 2) {
		uint64_t ones = size == 4 ? 0xffffffff : (1U << (8 * size)) - 1;

		g_assert_cmphex(fake_load(rig.m, ecam_of(4 << 3, 0), size), ==, ones);
		g_assert_cmphex(fake_load(rig.m, ecam_of(TOY_DEVFN + 1, 0), size), ==, ones);
		g_assert_cmphex(fake_load(rig.m, ECAM + (1 << 20), size), ==, ones);
		select_config(rig.m, 1, TOY_DEVFN, 0);
		g_assert_cmphex(fake_in(rig.m, 0xcfc, size), ==, ones);
		fake_out(rig.m, 0xcf8, 4, TOY_DEVFN << 8); /* not enabled */
		g_assert_cmphex(fake_in(rig.m, 0xcfc, size), ==, ones);
	}
	pci_rig_free(&rig);
}

static void test_address_port(void)
{
	struct pci_rig rig = pci_rig_new();

	fake_out(rig.m, 0xcf8, 4, 0xffffffff);
	g_assert_cmphex(fake_in(rig.m, 0xcf8, 4), ==, 0x80fffffc);
	/* Only dwords reach it. */
	fake_out(rig.m, 0xcf8, 1, 0);
	fake_out(rig.m, 0xcf8, 2, 0);
	fake_out(rig.m, 0xcfa, 2, 0);
	g_assert_cmphex(fake_in(rig.m, 0xcf8, 4), ==, 0x80fffffc);
	g_assert_cmphex(fake_in(rig.m, 0xcf8, 1), ==, 0xff);
	g_assert_cmphex(fake_in(rig.m, 0xcf8, 2), ==, 0xffff);
	g_assert_cmpuint(rig.m->n_power[POWER_RESET], ==, 0);
	/* Reset control. */
	fake_out(rig.m, 0xcf9, 1, 0x02);
	g_assert_cmphex(fake_in(rig.m, 0xcf9, 1), ==, 0x02);
	g_assert_cmpuint(rig.m->n_power[POWER_RESET], ==, 0);
	fake_out(rig.m, 0xcf9, 1, 0x06);
	g_assert_cmpuint(rig.m->n_power[POWER_RESET], ==, 1);
	g_assert_cmphex(fake_in(rig.m, 0xcf9, 1), ==, 0x02);
	fake_out(rig.m, 0xcf9, 1, 0x0e);
	g_assert_cmpuint(rig.m->n_power[POWER_RESET], ==, 2);
	pci_rig_free(&rig);
}

/* Writing ones shows the size, whatever is enabled, and no BAR lands at the top of its space. */
static void test_bar_sizing(void)
{
	static const struct {
		uint32_t bar, ones;
	} cases[] = {
		{TOY_MEM_BAR, 0xffffe000}, {TOY_MSIX_BAR, 0xfffff000},
		{TOY_IO_BAR, 0xffffffe1},  {3, 0},
		{TOY_64_BAR, 0xfff00004},  {TOY_64_BAR + 1, 0xffffffff},
	};

	for (uint32_t command = 0; command <= 3; command++) {
		struct pci_rig rig = pci_rig_new();

		toy_put(&rig, COMMAND, 2, command);
		for (uint32_t i = 0; i < G_N_ELEMENTS(cases); i++)
			toy_put(&rig, BAR(cases[i].bar), 4, 0xffffffff);
		for (uint32_t i = 0; i < G_N_ELEMENTS(cases); i++)
			g_assert_cmphex(toy_get(&rig, BAR(cases[i].bar), 4), ==, cases[i].ones);
		for (uint32_t i = 0; i < PCI_N_BARS; i++)
			g_assert_false(rig.toy->fn.bars[i].mapped);
		pci_rig_free(&rig);
	}
}

static void test_bar_moves(void)
{
	struct pci_rig rig = pci_rig_new();
	struct toy *toy = rig.toy;

	toy_put(&rig, BAR(TOY_MEM_BAR), 4, 0xc0000000);
	toy_put(&rig, BAR(TOY_IO_BAR), 4, 0xd000);
	toy_put(&rig, BAR(TOY_64_BAR), 4, 0x00100000);
	toy_put(&rig, BAR(TOY_64_BAR + 1), 4, 0x4);
	g_assert_cmphex(fake_load(rig.m, 0xc0000004, 4), ==, 0xffffffff);
	g_assert_cmpuint(toy->n_moved, ==, 0);
	/* Memory and I/O are enabled one by one. */
	toy_put(&rig, COMMAND, 1, 0x1);
	g_assert_cmphex(fake_in(rig.m, 0xd004, 4), ==, 0x1004);
	g_assert_cmphex(fake_load(rig.m, 0xc0000004, 4), ==, 0xffffffff);
	g_assert_cmphex(toy->base[TOY_IO_BAR], ==, 0xd000);
	toy_put(&rig, COMMAND, 1, 0x2);
	g_assert_cmphex(fake_in(rig.m, 0xd004, 4), ==, 0xffffffff);
	g_assert_cmphex(fake_load(rig.m, 0xc0000004, 4), ==, 0x1004);
	g_assert_cmphex(fake_load(rig.m, 0x400100008, 4), ==, 0x1008);
	g_assert_cmphex(toy->base[TOY_IO_BAR], ==, 0);
	g_assert_cmphex(toy->base[TOY_MEM_BAR], ==, 0xc0000000);
	g_assert_cmphex(toy->base[TOY_64_BAR], ==, 0x400100000);
	/* Moved while enabled, also to where it overlaps its old place. */
	toy_put(&rig, BAR(TOY_MEM_BAR), 4, 0xc0002000);
	g_assert_cmphex(fake_load(rig.m, 0xc0000004, 4), ==, 0xffffffff);
	g_assert_cmphex(fake_load(rig.m, 0xc0002004, 4), ==, 0x1004);
	toy_put(&rig, BAR(TOY_64_BAR + 1), 4, 0x5);
	g_assert_cmphex(fake_load(rig.m, 0x500100008, 4), ==, 0x1008);
	g_assert_cmphex(fake_load(rig.m, 0x400100008, 4), ==, 0xffffffff);
	/* Two BARs of one function change places by way of decode off. */
	toy_put(&rig, COMMAND, 1, 0);
	toy_put(&rig, BAR(TOY_MEM_BAR), 4, 0xc0010000);
	toy_put(&rig, BAR(TOY_MSIX_BAR), 4, 0xc0002000);
	toy_put(&rig, COMMAND, 1, 2);
	g_assert_true(toy->fn.bars[TOY_MEM_BAR].mapped && toy->fn.bars[TOY_MSIX_BAR].mapped);
	/* Reset takes everything away. */
	toy_reset(&toy->fn.dev);
	g_assert_cmphex(toy->base[TOY_MEM_BAR], ==, 0);
	g_assert_cmphex(fake_load(rig.m, 0xc0010000, 4), ==, 0xffffffff);
	g_assert_cmphex(toy_get(&rig, BAR(TOY_MEM_BAR), 4), ==, 0);
	pci_rig_free(&rig);
}

/* Places that a BAR cannot have: it decodes nothing, and says so at most five times a second. */
static void test_bar_nonsense(void)
{
	static const struct {
		uint32_t bar;
		uint64_t base;
	} cases[] = {
		{TOY_MEM_BAR, 0x2000},	   /* RAM */
		{TOY_MEM_BAR, 0xb0002000}, /* ECAM */
		{TOY_MEM_BAR, 0xfec00000}, /* IOAPIC */
		{TOY_MEM_BAR, 0xfee00000}, /* LAPIC */
		{TOY_IO_BAR, 0xce0},	   /* CF8 */
		{TOY_IO_BAR, 0x10000},	   /* no such port */
		{TOY_64_BAR, 0},	   /* RAM */
		{TOY_64_BAR, 0xfff00000},  /* reset vector */
	};
	struct pci_rig rig = pci_rig_new();

	toy_put(&rig, COMMAND, 1, 0x3);
	for (uint32_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		toy_put(&rig, BAR(cases[i].bar), 4, cases[i].base);
		g_assert_false(rig.toy->fn.bars[cases[i].bar].mapped);
		g_assert_cmphex(toy_get(&rig, BAR(cases[i].bar), 4) & ~0xfU, ==,
				cases[i].base & ~0xfU);
	}
	/* Over another BAR. */
	toy_put(&rig, BAR(TOY_MSIX_BAR), 4, 0xc0001000);
	toy_put(&rig, BAR(TOY_MEM_BAR), 4, 0xc0000000);
	g_assert_true(rig.toy->fn.bars[TOY_MSIX_BAR].mapped);
	g_assert_false(rig.toy->fn.bars[TOY_MEM_BAR].mapped);
	toy_put(&rig, BAR(TOY_MEM_BAR), 4, 0xc0002000);
	g_assert_true(rig.toy->fn.bars[TOY_MEM_BAR].mapped);
	pci_rig_free(&rig);
}

static void test_capabilities(void)
{
	struct pci_rig rig = pci_rig_new();
	const uint8_t vendor[] = {0x09, 0xff, 5, 0xaa, 0xbb};
	uint8_t at = pci_function_add_capability(&rig.toy->fn, vendor, sizeof(vendor));

	toy_reset(&rig.toy->fn.dev);
	g_assert_cmphex(toy_get(&rig, 0x06, 2) & 0x10, ==, 0x10);
	g_assert_cmphex(toy_get(&rig, 0x34, 1), ==, at);
	g_assert_cmphex(toy_get(&rig, at, 1), ==, 0x09);
	g_assert_cmphex(toy_get(&rig, at + 1, 1), ==, 0x40);
	g_assert_cmphex(toy_get(&rig, at + 4, 1), ==, 0xbb);
	/* MSI-X: id, four vectors, table in BAR 1, PBA in its second half. */
	g_assert_cmphex(toy_get(&rig, 0x40, 4), ==, 0x00030011);
	g_assert_cmphex(toy_get(&rig, 0x44, 4), ==, TOY_MSIX_BAR);
	g_assert_cmphex(toy_get(&rig, 0x48, 4), ==, 0x800 | TOY_MSIX_BAR);
	pci_rig_free(&rig);
}

static void test_bus(void)
{
	struct pci_rig rig = pci_rig_new();
	g_autofree char *path = pci_path(NULL, 0x1f << 3), *sub = pci_path(NULL, 3 << 3 | 2);
	g_autofree char *behind = pci_path("pci/00.3", 0);
	g_autoptr(GError) error = NULL;
	struct device *dev = device_new(&toy_ops, NULL, NULL, NULL);

	g_assert_cmpstr(path, ==, "pci/00.1f");
	g_assert_cmpstr(sub, ==, "pci/00.3.2");
	g_assert_cmpstr(behind, ==, "pci/00.3/0");
	fake_realize(rig.m, dev, "pci/00.3");
	g_assert_false(pci_bus_plug(rig.m->env.pci, (struct pci_function *)dev, TOY_DEVFN, &error));
	g_assert_nonnull(strstr(error->message, "03.0"));
	/* Freeing the one that did not get the place leaves the other there. */
	device_free(dev);
	g_assert_cmphex(toy_get(&rig, 0, 2), ==, 0x1af4);
	device_free(&rig.toy->fn.dev);
	g_assert_cmphex(fake_load(rig.m, ecam_of(TOY_DEVFN, 0), 2), ==, 0xffff);
	rig.toy = (struct toy *)device_new(&toy_ops, NULL, NULL, NULL);
	pci_rig_free(&rig);
}

static void test_lpc(void)
{
	struct pci_rig rig = pci_rig_new();
	struct device *lpc = fake_start(rig.m, lpc_new(), "pci/00.1f");
	uint8_t devfn = 0x1f << 3;

	fake_plug(rig.m, lpc, devfn);
	g_assert_cmphex(fake_load(rig.m, ecam_of(devfn, 0), 4), ==, 0x29188086);
	fake_store(rig.m, ecam_of(devfn, 0x40), 4, 0xffffffff);
	g_assert_cmphex(fake_load(rig.m, ecam_of(devfn, 0x40), 4), ==, 0x601);
	g_assert_cmphex(fake_load(rig.m, ecam_of(devfn, 0x44), 1), ==, 0x80);
	g_assert_cmphex(fake_load(rig.m, ecam_of(devfn, 0x60), 4), ==, 0x80808080);
	fake_store(rig.m, ecam_of(devfn, 0x68), 4, 0xff0b0a09);
	g_assert_cmphex(fake_load(rig.m, ecam_of(devfn, 0x68), 4), ==, 0x8f0b0a09);
	device_free(lpc);
	pci_rig_free(&rig);
}

static void test_hand_over(void)
{
	struct pci_rig old = pci_rig_new(), new = pci_rig_new();

	toy_put(&old, BAR(TOY_MEM_BAR), 4, 0xc0000000);
	toy_put(&old, BAR(TOY_64_BAR + 1), 4, 0x4);
	toy_put(&old, COMMAND, 2, 0x6);
	select_config(old.m, 0, TOY_DEVFN, 0x10);
	fake_hand_over(old.bridge, new.bridge);
	fake_hand_over(&old.toy->fn.dev, &new.toy->fn.dev);
	g_assert_cmphex(new.toy->base[TOY_MEM_BAR], ==, 0xc0000000);
	g_assert_cmphex(fake_load(new.m, 0xc0000004, 4), ==, 0x1004);
	g_assert_cmphex(fake_load(new.m, 0x400000004, 4), ==, 0x1004);
	/* In the middle of an access pair: the address was written, the data not read yet. */
	g_assert_cmphex(fake_in(new.m, 0xcfc, 4), ==, 0xc0000000);
	pci_rig_free(&old);
	pci_rig_free(&new);
}

static void test_other_device(void)
{
	struct pci_rig old = pci_rig_new(), new = pci_rig_new();
	g_autoptr(GByteArray) bytes = NULL;
	g_autoptr(GError) error = NULL;

	new.toy->fn.reset_config[0x08]++;
	bytes = fake_save(&old.toy->fn.dev);
	g_assert_false(fake_restore(&new.toy->fn.dev, bytes, &error));
	g_assert_nonnull(strstr(error->message, "byte 0x08"));
	g_clear_error(&error);
	new.toy->fn.reset_config[0x08]--;
	old.toy->state.pci.n_msix--;
	g_byte_array_unref(bytes);
	bytes = fake_save(&old.toy->fn.dev);
	g_assert_false(fake_restore(&new.toy->fn.dev, bytes, &error));
	g_assert_nonnull(strstr(error->message, "3 MSI-X vectors"));
	g_clear_error(&error);
	old.toy->state.pci.n_msix++;
	old.toy->state.pci.msix_pending = 1ULL << TOY_VECTORS;
	g_assert_false(pci_function_desc.check(&old.toy->state.pci, &error));
	old.toy->state.pci.msix_pending = 0;
	pci_rig_free(&old);
	pci_rig_free(&new);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/pci/identity", test_identity);
	g_test_add_func("/pci/mechanisms", test_mechanisms);
	g_test_add_func("/pci/address-port", test_address_port);
	g_test_add_func("/pci/bar-sizing", test_bar_sizing);
	g_test_add_func("/pci/bar-moves", test_bar_moves);
	g_test_add_func("/pci/bar-nonsense", test_bar_nonsense);
	g_test_add_func("/pci/capabilities", test_capabilities);
	g_test_add_func("/pci/bus", test_bus);
	g_test_add_func("/pci/lpc", test_lpc);
	g_test_add_func("/pci/hand-over", test_hand_over);
	g_test_add_func("/pci/other-device", test_other_device);
	return g_test_run();
}
