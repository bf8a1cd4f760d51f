// PCI hot plug: the registers, the event, what the guest answers; and root ports.
// SPDX-License-Identifier: Apache-2.0
#include "device/legacy/acpi_hotplug.h"
#include "device/legacy/acpi_pm.h"
#include "pci_util.h"

#define SCI	   9
#define GPE_STATUS (ACPI_PM_BASE + ACPI_GPE0)
#define GPE_ENABLE (GPE_STATUS + ACPI_GPE0_BYTES / 2)
#define GPE_BIT	   (1u << ACPI_GPE_PCI_HOTPLUG)
#define UP	   (ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_UP)
#define DOWN	   (ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_DOWN)
#define EJECT	   (ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_EJECT)
#define OST	   (ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_OST)
#define TOY_SLOT   (TOY_DEVFN >> 3)

#define EVENT_EJECT (3u << 16)

static struct device *start_pm(struct pci_rig *rig)
{
	return fake_start(rig->m, acpi_pm_new(SCI), "isa/600");
}

static void test_event(void)
{
	struct pci_rig rig = pci_rig_new();
	struct device *pm = start_pm(&rig);
	struct fake_machine *m = rig.m;

	acpi_pm_plugged(pm, 5);
	g_assert_false(m->level[SCI]);
	fake_out(m, GPE_ENABLE, 4, UINT32_MAX);
	g_assert_cmphex(fake_in(m, GPE_ENABLE, 4), ==, GPE_BIT);
	g_assert_true(m->level[SCI]);
	fake_out(m, GPE_STATUS, 1, 0xff & ~GPE_BIT);
	g_assert_cmphex(fake_in(m, GPE_STATUS, 1), ==, GPE_BIT);
	fake_out(m, GPE_STATUS, 1, GPE_BIT);
	g_assert_false(m->level[SCI]);
	/* The read takes the bits. */
	g_assert_cmphex(fake_in(m, UP, 4), ==, 1u << 5);
	g_assert_cmphex(fake_in(m, UP, 4), ==, 0);
	acpi_pm_request_eject(pm, 7);
	g_assert_true(m->level[SCI]);
	g_assert_cmphex(fake_in(m, DOWN, 4), ==, 1u << 7);
	g_assert_cmphex(fake_in(m, DOWN, 4), ==, 1u << 7);
	g_assert_cmphex(acpi_pm_eject_requested(pm), ==, 1u << 7);
	pm->ops->reset(pm);
	g_assert_false(m->level[SCI]);
	g_assert_cmphex(fake_in(m, DOWN, 4), ==, 0);
	g_assert_cmphex(fake_in(m, GPE_ENABLE, 4), ==, 0);
	device_free(pm);
	pci_rig_free(&rig);
}

static void test_eject(void)
{
	struct pci_rig rig = pci_rig_new();
	struct device *pm = start_pm(&rig);
	uint32_t ejected, refused;

	acpi_pm_request_eject(pm, TOY_SLOT);
	fake_out(rig.m, EJECT, 4, 1u << TOY_SLOT | 1u << 0 | 1u << 31);
	g_assert_cmpuint(rig.m->n_power[POWER_EJECT], ==, 1);
	/* Gone for the guest, and not yet for the machine; the chipset cannot go. */
	g_assert_cmphex(toy_get(&rig, 0, 4), ==, UINT32_MAX);
	g_assert_cmphex(fake_load(rig.m, ecam_of(0, 0), 2), ==, 0x8086);
	g_assert_cmphex(fake_in(rig.m, DOWN, 4), ==, 0);
	acpi_pm_take_ejected(pm, &ejected, &refused);
	g_assert_cmphex(ejected, ==, 1u << TOY_SLOT);
	g_assert_cmphex(refused, ==, 0);
	acpi_pm_take_ejected(pm, &ejected, &refused);
	g_assert_cmphex(ejected, ==, 0);
	pci_bus_hide(rig.m->env.pci, 0);
	g_assert_cmphex(toy_get(&rig, 0, 2), ==, 0x1af4);
	device_free(pm);
	pci_rig_free(&rig);
}

static void test_answers(void)
{
	static const struct {
		uint32_t answer;
		bool refused;
	} cases[] = {
		{EVENT_EJECT | 0x00 << 8 | 4, false}, /* done */
		{EVENT_EJECT | 0x84 << 8 | 4, false}, /* under way */
		{EVENT_EJECT | 0x81 << 8 | 5, false}, /* of a slot that was not asked for */
		{EVENT_EJECT | 0x81 << 8 | 200, false},
		{1u << 16 | 0x81 << 8 | 4, false}, /* about something else */
		{EVENT_EJECT | 0x81 << 8 | 4, true},
	};
	autoptr(fake_machine) m = fake_machine_new();
	struct device *pm = fake_start(m, acpi_pm_new(SCI), "isa/600");
	uint32_t ejected, refused;

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		acpi_pm_request_eject(pm, 4);
		fake_out(m, OST, 4, cases[i].answer);
		acpi_pm_take_ejected(pm, &ejected, &refused);
		g_assert_cmphex(ejected, ==, 0);
		g_assert_cmphex(refused, ==, cases[i].refused ? 1u << 4 : 0);
		g_assert_cmphex(fake_in(m, DOWN, 4), ==, cases[i].refused ? 0 : 1u << 4);
	}
	g_assert_cmpuint(m->n_power[POWER_EJECT], ==, 1);
	device_free(pm);
}

/* Nothing that is on its way is lost: announced, asked for, ejected. */
static void test_hand_over(void)
{
	struct pci_rig a = pci_rig_new(), b = pci_rig_new();
	struct device *old = start_pm(&a);
	struct device *new = fake_realize(b.m, acpi_pm_new(SCI), "isa/600");
	uint32_t ejected, refused;

	fake_out(a.m, GPE_ENABLE, 1, GPE_BIT);
	acpi_pm_plugged(old, 9);
	acpi_pm_request_eject(old, 10);
	fake_out(a.m, EJECT, 4, 1u << TOY_SLOT);
	fake_hand_over(old, new);
	g_assert_cmphex(toy_get(&b, 0, 4), ==, UINT32_MAX);
	g_assert_cmphex(fake_in(b.m, UP, 4), ==, 1u << 9);
	g_assert_cmphex(fake_in(b.m, DOWN, 4), ==, 1u << 10);
	acpi_pm_take_ejected(new, &ejected, &refused);
	g_assert_cmphex(ejected, ==, 1u << TOY_SLOT);
	fake_out(b.m, GPE_STATUS, 1, GPE_BIT);
	g_assert_cmpuint(b.m->n_set_irq[SCI], ==, 1);
	device_free(old);
	device_free(new);
	pci_rig_free(&a);
	pci_rig_free(&b);
}

static void test_hostile_state(void)
{
	static const struct acpi_hotplug_state bad[] = {
		{.up = 1}, {.down = 1u << 31}, {.ejected = 1}, {.refused = UINT32_MAX}};

	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
		g_assert_false(acpi_hotplug_desc.check(&bad[i], NULL));
}

/* ---- root ports ---- */

#define PORT_DEVFN (4 << 3)
#define BUSES	   0x18

struct port_rig {
	struct pci_rig pci;
	struct device *port;
	struct device *behind;
};

static struct port_rig port_rig_new(bool with_device)
{
	struct port_rig rig = {.pci = pci_rig_new()};
	struct fake_machine *m = rig.pci.m;
	json_t *props = json_pack("{s:i, s:i}", "port", 3, "slot", 7);
	GError *error = NULL;

	rig.port = fake_start(m, device_new(device_ops_find("pcie-root-port"), "rp", props, &error),
			      "pci/00.4");
	g_assert_no_error(error);
	json_decref(props);
	fake_plug(m, rig.port, PORT_DEVFN);
	if (!with_device)
		return rig;
	rig.behind = fake_start(m, device_new(&toy_ops, NULL, NULL, NULL), "pci/00.4/0");
	pci_bus_plug(((struct pci_function *)rig.port)->secondary,
		     (struct pci_function *)rig.behind, 0, &error);
	g_assert_no_error(error);
	return rig;
}

static void port_rig_free(struct port_rig *rig)
{
	device_free(rig->behind);
	device_free(rig->port);
	pci_rig_free(&rig->pci);
}

static uint64_t port_get(struct port_rig *rig, uint32_t reg, uint32_t size)
{
	return fake_load(rig->pci.m, ecam_of(PORT_DEVFN, reg), size);
}

static void port_put(struct port_rig *rig, uint32_t reg, uint32_t size, uint64_t value)
{
	fake_store(rig->pci.m, ecam_of(PORT_DEVFN, reg), size, value);
}

static uint64_t vendor_on_bus(struct port_rig *rig, uint8_t bus)
{
	return fake_load(rig->pci.m, ECAM + ((uint64_t)bus << 20), 4);
}

static uint8_t express_of(struct port_rig *rig)
{
	uint8_t at = port_get(rig, 0x34, 1);

	while (at && port_get(rig, at, 1) != 0x10)
		at = port_get(rig, at + 1, 1);
	g_assert_cmpuint(at, !=, 0);
	return at;
}

static void test_port_header(void)
{
	struct port_rig rig = port_rig_new(false);
	uint8_t express = express_of(&rig);

	g_assert_cmphex(port_get(&rig, 0x0a, 2), ==, 0x0604);
	g_assert_cmphex(port_get(&rig, 0x0e, 1), ==, 0x01);
	port_put(&rig, BUSES, 4, UINT32_MAX);
	g_assert_cmphex(port_get(&rig, BUSES, 4), ==, 0x00ffffff);
	port_put(&rig, 0x1c, 2, 0xffff);
	g_assert_cmphex(port_get(&rig, 0x1c, 2), ==, 0xf1f1);
	port_put(&rig, 0x20, 4, UINT32_MAX);
	g_assert_cmphex(port_get(&rig, 0x20, 4), ==, 0xfff0fff0);
	port_put(&rig, 0x24, 4, UINT32_MAX);
	g_assert_cmphex(port_get(&rig, 0x24, 4), ==, 0xfff1fff1);
	port_put(&rig, 0x3e, 2, 0xffff);
	g_assert_cmphex(port_get(&rig, 0x3e, 2) & 0x40, ==, 0);
	/* A root port with a slot; its numbers; extended space is there, and empty. */
	g_assert_cmphex(port_get(&rig, express + 2, 2), ==, 0x0142);
	g_assert_cmphex(port_get(&rig, express + 0x0c, 4) >> 24, ==, 3);
	g_assert_cmphex(port_get(&rig, express + 0x14, 4) >> 19, ==, 7);
	g_assert_cmphex(port_get(&rig, 0x100, 4), ==, 0);
	port_rig_free(&rig);
}

static void test_port_routes(void)
{
	struct port_rig rig = port_rig_new(true);
	uint8_t express = express_of(&rig);

	g_assert_cmphex(vendor_on_bus(&rig, 1), ==, UINT32_MAX);
	port_put(&rig, BUSES, 4, 0x00010100);
	g_assert_cmphex(vendor_on_bus(&rig, 1), ==, 0x12341af4);
	g_assert_cmphex(fake_load(rig.pci.m, ECAM + (1 << 20) + (1 << 15), 4), ==, UINT32_MAX);
	g_assert_cmphex(port_get(&rig, express + 0x1a, 2) & 0x40, ==, 0x40);
	g_assert_cmpuint(pci_function_root_slot((struct pci_function *)rig.behind), ==, 4);
	/* By byte, too; and the device that left its place is not there any more. */
	port_put(&rig, BUSES + 1, 1, 200);
	g_assert_cmphex(vendor_on_bus(&rig, 1), ==, UINT32_MAX);
	g_assert_cmphex(vendor_on_bus(&rig, 200), ==, 0x12341af4);
	pci_bus_hide(rig.pci.m->env.pci, 1u << 4);
	g_assert_cmphex(vendor_on_bus(&rig, 200), ==, UINT32_MAX);
	pci_bus_hide(rig.pci.m->env.pci, 0);
	device_free(g_steal_pointer(&rig.behind));
	g_assert_cmphex(vendor_on_bus(&rig, 200), ==, UINT32_MAX);
	g_assert_cmphex(port_get(&rig, express + 0x1a, 2) & 0x40, ==, 0);
	rig.port->ops->reset(rig.port);
	g_assert_cmphex(port_get(&rig, BUSES, 4), ==, 0);
	port_rig_free(&rig);
}

static void test_port_hand_over(void)
{
	struct port_rig a = port_rig_new(true), b = port_rig_new(true), c = port_rig_new(false);
	g_autoptr(GByteArray) bytes = NULL;
	g_autoptr(GError) error = NULL;

	port_put(&a, BUSES, 4, 0x00050500);
	fake_hand_over(a.port, b.port);
	g_assert_cmphex(vendor_on_bus(&b, 5), ==, 0x12341af4);
	bytes = fake_save(a.port);
	g_assert_false(fake_restore(c.port, bytes, &error));
	g_assert_nonnull(strstr(error->message, "something is behind it there, not here"));
	port_rig_free(&a);
	port_rig_free(&b);
	port_rig_free(&c);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/hotplug/event", test_event);
	g_test_add_func("/hotplug/eject", test_eject);
	g_test_add_func("/hotplug/answers", test_answers);
	g_test_add_func("/hotplug/hand-over", test_hand_over);
	g_test_add_func("/hotplug/hostile-state", test_hostile_state);
	g_test_add_func("/root-port/header", test_port_header);
	g_test_add_func("/root-port/routes", test_port_routes);
	g_test_add_func("/root-port/hand-over", test_port_hand_over);
	return g_test_run();
}
