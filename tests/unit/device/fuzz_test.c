// Guest nonsense: random accesses to every device, after which its state still makes a round trip.
// SPDX-License-Identifier: Apache-2.0
#include "device/legacy/acpi_pm.h"
#include "device/legacy/i8042.h"
#include "device/legacy/rtc_cmos.h"
#include "device/legacy/uart16550.h"
#include "device/pci/lpc.h"
#include "pci_util.h"

#define ROUNDS	 8
#define ACCESSES 4000

static struct device *make_uart(void)
{
	return uart16550_new(0x3f8, 4, NULL);
}

static struct device *make_rtc(void)
{
	return rtc_cmos_new(8, false, 1 << 30, 0);
}

static struct device *make_pm(void)
{
	return acpi_pm_new(9);
}

static struct device *make_bridge(void)
{
	return host_bridge_new(ECAM);
}

static struct device *make_toy(void)
{
	return device_new(&toy_ops, NULL, NULL, NULL);
}

/** struct subject - A device and where the guest reaches it; PCI: at 00.3 unless it is the bridge */
struct subject {
	const char *name;
	struct device *(*make)(void);
	uint16_t first, last; /* ports */
	uint16_t more;	      /* one more port */
};

static const struct subject subjects[] = {
	{"uart16550", make_uart, 0x3f8, 0x3ff, 0x3f8},
	{"rtc-cmos", make_rtc, 0x70, 0x71, 0x70},
	{"i8042", i8042_new, 0x60, 0x64, 0x92},
	{"acpi-pm", make_pm, ACPI_PM_BASE, ACPI_PM_BASE + ACPI_PM_SIZE - 1, ACPI_PM_BASE},
	{"host-bridge", make_bridge, 0xcf8, 0xcff, 0xcf8},
	{"lpc", lpc_new, 0xcf8, 0xcff, 0xcf8},
	{"toy", make_toy, 0xcf8, 0xcff, 0xd000},
};

static struct device *place(struct fake_machine *m, const struct subject *subject,
			    struct device **bridge)
{
	struct device *dev;

	*bridge = NULL;
	if (subject->make != make_bridge) {
		*bridge = fake_start(m, make_bridge(), "pci/00.0");
		fake_plug(m, *bridge, 0);
	}
	dev = fake_start(m, subject->make(), subject->name);
	if (dev->ops->bus == DEVICE_BUS_PCI)
		fake_plug(m, dev, *bridge ? TOY_DEVFN : 0);
	return dev;
}

/* Mostly interesting values: none, all, one bit, a BAR's place. */
static uint64_t random_value(GRand *rand)
{
	switch (g_rand_int_range(rand, 0, 6)) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX;
	case 2:
		return 1ULL << g_rand_int_range(rand, 0, 64);
	case 3:
		return 0x80000000U | TOY_DEVFN << 8 | (g_rand_int(rand) & 0xff);
	case 4:
		return 0xc0000000U | (g_rand_int(rand) & 0x3ff);
	default:
		return (uint64_t)g_rand_int(rand) << 32 | g_rand_int(rand);
	}
}

static void poke(struct fake_machine *m, const struct subject *subject, GRand *rand)
{
	uint32_t size = 1U << g_rand_int_range(rand, 0, 4);
	uint16_t port = (uint16_t)g_rand_int_range(rand, subject->first, subject->last + 1);
	bool write = g_rand_boolean(rand);
	uint64_t value = random_value(rand), gpa = ECAM;

	fake_clock_ns += g_rand_int_range(rand, 0, 1 << 30);
	fake_wall_ns += g_rand_int_range(rand, 0, 1 << 30);
	if (g_rand_int_range(rand, 0, 4) == 0) {
		/* Configuration space of functions 0 and 3, and where BARs may have gone. */
		switch (g_rand_int_range(rand, 0, 3)) {
		case 0:
			gpa += g_rand_int_range(rand, 0, 4200);
			break;
		case 1:
			gpa += (TOY_DEVFN << 12) + (uint64_t)g_rand_int_range(rand, 0, 256);
			break;
		default:
			gpa = 0xc0000000 + (uint64_t)g_rand_int_range(rand, 0, 0x2000);
		}
		if (write)
			fake_store(m, gpa, size, value);
		else
			fake_load(m, gpa, size);
		return;
	}
	port = g_rand_int_range(rand, 0, 8) ? port : subject->more;
	if (write)
		fake_out(m, port, size, value);
	else
		fake_in(m, port, size);
}

static void test_subject(gconstpointer data)
{
	const struct subject *subject = data;
	g_autoptr(GRand) rand = g_rand_new_with_seed((uint32_t)g_test_rand_int());

	for (uint32_t round = 0; round < ROUNDS; round++) {
		struct fake_machine *a = fake_machine_new(), *b = fake_machine_new();
		struct device *old_bridge, *new_bridge, *old, *new;

		fake_clock_ns = fake_wall_ns = 1700000000 * NS_PER_SEC;
		old = place(a, subject, &old_bridge);
		new = place(b, subject, &new_bridge);
		for (uint32_t i = 0; i < ACCESSES; i++)
			poke(a, subject, rand);
		fake_deliver(a);
		fake_rest(new);
		fake_hand_over(old, new);
		old->ops->reset(old);
		new->ops->reset(new);
		device_free(old);
		device_free(new);
		device_free(old_bridge);
		device_free(new_bridge);
		fake_machine_free(a);
		fake_machine_free(b);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	for (uint32_t i = 0; i < G_N_ELEMENTS(subjects); i++) {
		g_autofree char *fuzz = g_strconcat("/fuzz/", subjects[i].name, NULL);

		g_test_add_data_func(fuzz, &subjects[i], test_subject);
	}
	return g_test_run();
}
