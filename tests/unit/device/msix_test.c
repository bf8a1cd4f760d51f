// MSI-X: masks, pending bits, routes, and what an update keeps of them.
// SPDX-License-Identifier: Apache-2.0
#include "pci_util.h"

#define TABLE	 0xc0000000ULL
#define PBA	 (TABLE + 0x800)
#define CONTROL	 0x42 /* message control of the capability */
#define ENABLE	 0x8000
#define FN_MASK	 0x4000
#define MSI_ADDR 0xfee01000ULL

static struct pci_rig msix_rig_new(void)
{
	struct pci_rig rig = pci_rig_new();

	toy_put(&rig, 0x10 + 4 * TOY_MSIX_BAR, 4, TABLE);
	toy_put(&rig, 0x04, 2, 0x6);
	return rig;
}

static void entry_write(struct pci_rig *rig, uint32_t vector, uint64_t addr, uint32_t data,
			bool masked)
{
	uint64_t at = TABLE + 16 * vector;

	fake_store(rig->m, at, 8, addr);
	fake_store(rig->m, at + 8, 4, data);
	fake_store(rig->m, at + 12, 4, masked);
}

static uint32_t delivered(struct pci_rig *rig)
{
	uint32_t n = 0;

	fake_deliver(rig->m);
	for (uint32_t i = 0; i < FAKE_ROUTES; i++)
		n += rig->m->routes[i].used ? rig->m->routes[i].delivered : 0;
	return n;
}

static void test_table(void)
{
	struct pci_rig rig = msix_rig_new();

	for (uint32_t i = 0; i < TOY_VECTORS; i++) {
		g_assert_cmphex(fake_load(rig.m, TABLE + 16 * i, 8), ==, 0);
		g_assert_cmphex(fake_load(rig.m, TABLE + 16 * i + 8, 8), ==, 1ULL << 32);
	}
	entry_write(&rig, 2, 0x1fee01003, 0x4021, true);
	g_assert_cmphex(fake_load(rig.m, TABLE + 32, 8), ==, 0x1fee01000);
	g_assert_cmphex(fake_load(rig.m, TABLE + 40, 4), ==, 0x4021);
	fake_store(rig.m, TABLE + 44, 4, 0xffffffff);
	g_assert_cmphex(fake_load(rig.m, TABLE + 44, 4), ==, 1);
	/* Beyond the last vector, and the PBA, nothing is stored. */
	fake_store(rig.m, TABLE + 16 * TOY_VECTORS, 8, UINT64_MAX);
	fake_store(rig.m, PBA, 8, UINT64_MAX);
	g_assert_cmphex(fake_load(rig.m, TABLE + 16 * TOY_VECTORS, 8), ==, 0);
	g_assert_cmphex(fake_load(rig.m, PBA, 8), ==, 0);
	toy_put(&rig, CONTROL, 2, 0xffff);
	g_assert_cmphex(toy_get(&rig, CONTROL, 2), ==, ENABLE | FN_MASK | (TOY_VECTORS - 1));
	pci_rig_free(&rig);
}

/* Every combination of enable, function mask and vector mask. */
static void test_masks(void)
{
	for (uint32_t i = 0; i < 8; i++) {
		struct pci_rig rig = msix_rig_new();
		bool enable = i & 1, fn_mask = i & 2, masked = i & 4;
		bool fires = enable && !fn_mask && !masked;

		entry_write(&rig, 1, MSI_ADDR, 0x31, masked);
		toy_put(&rig, CONTROL, 2, (enable ? ENABLE : 0) | (fn_mask ? FN_MASK : 0));
		pci_msix_notify(&rig.toy->fn, 1);
		pci_msix_notify(&rig.toy->fn, TOY_VECTORS); /* no such vector */
		pci_msix_notify(&rig.toy->fn, 0xffff);
		/* On its way to the processor it is not pending. */
		g_assert_cmphex(fake_load(rig.m, PBA, 8), ==, enable && !fires ? 2 : 0);
		g_assert_cmpuint(delivered(&rig), ==, fires);
		g_assert_cmphex(fake_load(rig.m, PBA, 8), ==, enable && !fires ? 2 : 0);
		/* What was pending comes once when the last mask goes; a disabled function forgot. */
		entry_write(&rig, 1, MSI_ADDR, 0x31, false);
		toy_put(&rig, CONTROL, 2, ENABLE);
		g_assert_cmpuint(delivered(&rig), ==, enable);
		g_assert_cmphex(fake_load(rig.m, PBA, 8), ==, 0);
		pci_msix_notify(&rig.toy->fn, 1);
		g_assert_cmpuint(delivered(&rig), ==, enable + 1);
		pci_rig_free(&rig);
	}
}

/* A vector that moves while masked delivers at its new place what came meanwhile. */
static void test_affinity(void)
{
	struct pci_rig rig = msix_rig_new();
	struct fake_route *route;

	toy_put(&rig, CONTROL, 2, ENABLE);
	entry_write(&rig, 0, MSI_ADDR, 0x31, false);
	route = fake_first_route(rig.m);
	g_assert_cmphex(route->addr, ==, MSI_ADDR);
	g_assert_cmphex(route->data, ==, 0x31);
	fake_store(rig.m, TABLE + 12, 4, 1);
	pci_msix_notify(&rig.toy->fn, 0);
	entry_write(&rig, 0, MSI_ADDR + 0x1000, 0x32, true);
	g_assert_cmpuint(delivered(&rig), ==, 0);
	g_assert_cmphex(fake_load(rig.m, PBA, 4), ==, 1);
	fake_store(rig.m, TABLE + 12, 4, 0);
	g_assert_cmphex(route->addr, ==, MSI_ADDR + 0x1000);
	g_assert_cmphex(route->data, ==, 0x32);
	g_assert_cmpuint(delivered(&rig), ==, 1);
	/* Masking and unmasking without a change does not touch the routing table. */
	rig.m->n_route_set = 0;
	fake_store(rig.m, TABLE + 12, 4, 1);
	fake_store(rig.m, TABLE + 12, 4, 0);
	g_assert_cmpuint(rig.m->n_route_set, ==, 0);
	pci_rig_free(&rig);
}

/* What was pending when MSI-X was disabled is not for whoever enables it next. */
static void test_disable(void)
{
	struct pci_rig rig = msix_rig_new();

	toy_put(&rig, CONTROL, 2, ENABLE);
	pci_msix_notify(&rig.toy->fn, 0);
	g_assert_cmphex(fake_load(rig.m, PBA, 4), ==, 1);
	toy_put(&rig, CONTROL, 2, 0);
	g_assert_cmphex(fake_load(rig.m, PBA, 4), ==, 0);
	toy_put(&rig, CONTROL, 2, ENABLE);
	entry_write(&rig, 0, MSI_ADDR, 0x31, false);
	g_assert_cmpuint(delivered(&rig), ==, 0);
	pci_rig_free(&rig);
}

static void test_no_route(void)
{
	struct pci_rig rig = msix_rig_new();

	rig.m->routes_full = true;
	toy_put(&rig, CONTROL, 2, ENABLE);
	entry_write(&rig, 0, MSI_ADDR, 0x31, false);
	pci_msix_notify(&rig.toy->fn, 0);
	g_assert_cmphex(fake_load(rig.m, PBA, 4), ==, 1);
	rig.m->routes_full = false;
	fake_store(rig.m, TABLE + 12, 4, 0);
	g_assert_cmpuint(delivered(&rig), ==, 1);
	pci_rig_free(&rig);
}

static void test_reset(void)
{
	struct pci_rig rig = msix_rig_new();

	toy_put(&rig, CONTROL, 2, ENABLE);
	entry_write(&rig, 0, MSI_ADDR, 0x31, false);
	pci_msix_notify(&rig.toy->fn, 1); /* masked: pending */
	toy_reset(&rig.toy->fn.dev);
	pci_msix_notify(&rig.toy->fn, 0);
	g_assert_cmphex(toy_get(&rig, CONTROL, 2), ==, TOY_VECTORS - 1);
	toy_put(&rig, 0x10 + 4 * TOY_MSIX_BAR, 4, TABLE);
	toy_put(&rig, 0x04, 2, 0x6);
	toy_put(&rig, CONTROL, 2, ENABLE);
	g_assert_cmphex(fake_load(rig.m, PBA, 4), ==, 0);
	g_assert_cmphex(fake_load(rig.m, TABLE + 8, 8), ==, 1ULL << 32);
	g_assert_cmpuint(delivered(&rig), ==, 0);
	pci_rig_free(&rig);
}

/* Routes and pending bits cross; the predecessor, should it go on, has lost nothing. */
static void test_hand_over(void)
{
	struct pci_rig old = msix_rig_new(), new = pci_rig_new();

	toy_put(&old, CONTROL, 2, ENABLE);
	entry_write(&old, 0, MSI_ADDR, 0x31, false);
	entry_write(&old, 3, MSI_ADDR, 0x33, true);
	pci_msix_notify(&old.toy->fn, 0);
	pci_msix_notify(&old.toy->fn, 3);
	g_assert_cmpuint(delivered(&old), ==, 1);
	fake_hand_over(&old.toy->fn.dev, &new.toy->fn.dev);
	g_assert_cmpuint(delivered(&new), ==, 0);
	g_assert_cmphex(fake_load(new.m, PBA, 8), ==, 8);
	g_assert_cmphex(fake_first_route(new.m)->data, ==, 0x31);
	pci_msix_notify(&new.toy->fn, 0);
	g_assert_cmpuint(delivered(&new), ==, 1);
	fake_store(new.m, TABLE + 3 * 16 + 12, 4, 0);
	g_assert_cmpuint(delivered(&new), ==, 2);
	g_assert_cmphex(fake_load(old.m, PBA, 8), ==, 8);
	fake_store(old.m, TABLE + 3 * 16 + 12, 4, 0);
	g_assert_cmpuint(delivered(&old), ==, 2);
	pci_rig_free(&old);
	pci_rig_free(&new);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/msix/table", test_table);
	g_test_add_func("/msix/masks", test_masks);
	g_test_add_func("/msix/affinity", test_affinity);
	g_test_add_func("/msix/disable", test_disable);
	g_test_add_func("/msix/no-route", test_no_route);
	g_test_add_func("/msix/reset", test_reset);
	g_test_add_func("/msix/hand-over", test_hand_over);
	return g_test_run();
}
