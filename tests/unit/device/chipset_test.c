// The small ones: keyboard controller, ACPI power management, debug port.
// SPDX-License-Identifier: Apache-2.0
#include <glib/gstdio.h>

#include "backend/chardev/chardev.h"
#include "device/legacy/acpi_pm.h"
#include "device/legacy/debugcon.h"
#include "device/legacy/i8042.h"
#include "fake.h"

#define SCI    9
#define STATUS (ACPI_PM_BASE + ACPI_PM1_EVT)
#define ENABLE (STATUS + 2)
#define CNT    (ACPI_PM_BASE + ACPI_PM1_CNT)
#define TMR    (ACPI_PM_BASE + ACPI_PM_TMR)

/* When bit 31 of the PM timer changes. */
#define CARRY_NS ((1ULL << 31) * NS_PER_SEC / 3579545)

static void test_i8042(void)
{
	static const struct {
		uint8_t command;
		int data; /* -1: none */
		int reply;
		uint32_t n_resets;
	} cases[] = {
		{0xaa, -1, 0x55, 0},   {0xab, -1, 0x00, 0}, {0xa9, -1, 0x02, 0},
		{0x20, -1, 0x34, 0},   {0x60, 0x47, -1, 0}, {0x20, -1, 0x47, 0},
		{0xad, -1, -1, 0},     {0x20, -1, 0x57, 0}, {0xae, -1, -1, 0},
		{0xa7, -1, -1, 0},     {0x20, -1, 0x67, 0}, {0xa8, -1, -1, 0},
		{0x20, -1, 0x47, 0},   {0xc0, -1, 0x80, 0}, {0xd0, -1, 0x03, 0},
		{0xdd, -1, -1, 0},     {0xd0, -1, 0x01, 0}, {0xdf, -1, -1, 0},
		{0xd0, -1, 0x03, 0},   {0xd1, 0xdf, -1, 0}, {0xd0, -1, 0xdf, 0},
		{0xd2, 0x12, 0x12, 0}, {0xd3, 0x5a, -1, 0}, {0xd4, 0xf4, 0xfe, 0},
		{0x11, -1, -1, 0},     {0xff, -1, -1, 0},   {0xfe, -1, -1, 1},
		{0xf0, -1, -1, 2},     {0xd1, 0xde, -1, 3}, {0xd0, -1, 0xdf, 3},
	};
	autoptr(fake_machine) m = fake_machine_new();
	struct device *kbc = fake_start(m, i8042_new(), "isa/60");

	g_assert_cmphex(fake_in(m, 0x64, 1), ==, 0x14);
	for (uint32_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		fake_out(m, 0x64, 1, cases[i].command);
		if (cases[i].data >= 0)
			fake_out(m, 0x60, 1, cases[i].data);
		if ((fake_in(m, 0x64, 1) & 1) != (cases[i].reply >= 0))
			g_error("case %u: output buffer", i);
		if (cases[i].reply >= 0)
			g_assert_cmphex(fake_in(m, 0x60, 1), ==, cases[i].reply);
		g_assert_cmphex(fake_in(m, 0x64, 1) & 0x41, ==, 0);
		g_assert_cmpuint(m->n_power[POWER_RESET], ==, cases[i].n_resets);
	}
	/* No keyboard: time-out and "resend". */
	fake_out(m, 0x60, 1, 0xff);
	g_assert_cmphex(fake_in(m, 0x64, 1) & 0x41, ==, 0x41);
	g_assert_cmphex(fake_in(m, 0x60, 1), ==, 0xfe);
	device_free(kbc);
}

static void test_port92(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *kbc = fake_start(m, i8042_new(), "isa/60");

	g_assert_cmphex(fake_in(m, 0x92, 1), ==, 0x02);
	fake_out(m, 0x92, 1, 0x00);
	g_assert_cmphex(fake_in(m, 0x92, 1), ==, 0x00);
	fake_out(m, 0x92, 1, 0xfe);
	g_assert_cmphex(fake_in(m, 0x92, 1), ==, 0x02);
	g_assert_cmpuint(m->n_power[POWER_RESET], ==, 0);
	fake_out(m, 0x92, 1, 0x01);
	g_assert_cmpuint(m->n_power[POWER_RESET], ==, 1);
	device_free(kbc);
}

/* A command has been given, its data byte not yet. */
static void test_i8042_hand_over(void)
{
	autoptr(fake_machine) a = fake_machine_new();
	autoptr(fake_machine) b = fake_machine_new();
	struct device *old = fake_start(a, i8042_new(), "isa/60");
	struct device *new = fake_realize(b, i8042_new(), "isa/60");

	fake_out(a, 0x64, 1, 0x60);
	fake_hand_over(old, new);
	fake_out(b, 0x60, 1, 0x41);
	fake_out(b, 0x64, 1, 0x20);
	g_assert_cmphex(fake_in(b, 0x60, 1), ==, 0x41);
	device_free(old);
	device_free(new);
}

static void test_power_button(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *pm = fake_start(m, acpi_pm_new(SCI), "isa/600");

	acpi_pm_power_button(pm);
	g_assert_cmphex(fake_in(m, STATUS, 2), ==, 0x100);
	g_assert_false(m->level[SCI]);
	fake_out(m, ENABLE, 2, 0xffff);
	g_assert_cmphex(fake_in(m, ENABLE, 2), ==, 0x521);
	g_assert_true(m->level[SCI]);
	g_assert_cmphex(fake_in(m, STATUS, 4), ==, 0x05210100);
	fake_out(m, STATUS, 2, 0x0001); /* another bit */
	g_assert_true(m->level[SCI]);
	fake_out(m, STATUS + 1, 1, 0x01); /* by bytes */
	g_assert_false(m->level[SCI]);
	g_assert_cmphex(fake_in(m, STATUS, 2), ==, 0);
	acpi_pm_power_button(pm);
	g_assert_cmpuint(m->raised[SCI], ==, 2);
	pm->ops->reset(pm);
	g_assert_false(m->level[SCI]);
	g_assert_cmphex(fake_in(m, STATUS, 4), ==, 0);
	device_free(pm);
}

static void test_sleep(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *pm = fake_start(m, acpi_pm_new(SCI), "isa/600");

	g_assert_cmphex(fake_in(m, CNT, 2), ==, 0x0001);
	fake_out(m, CNT, 2, 0);
	g_assert_cmphex(fake_in(m, CNT, 2), ==, 0x0001);
	fake_out(m, CNT, 2, ACPI_SLP_TYP_S5 << 10);
	g_assert_cmphex(fake_in(m, CNT, 2), ==, ACPI_SLP_TYP_S5 << 10 | 1);
	fake_out(m, CNT, 2, 1 << 10 | 1 << 13); /* no such sleep type */
	g_assert_cmpuint(m->n_power[POWER_OFF], ==, 0);
	fake_out(m, CNT, 2, ACPI_SLP_TYP_S5 << 10 | 1 << 13);
	g_assert_cmpuint(m->n_power[POWER_OFF], ==, 1);
	fake_out(m, CNT + 1, 1, ACPI_SLP_TYP_S5 << 2 | 1 << 5);
	g_assert_cmpuint(m->n_power[POWER_OFF], ==, 2);
	g_assert_cmphex(fake_in(m, CNT, 2) & 1 << 13, ==, 0);
	device_free(pm);
}

static void test_pm_timer(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *pm;

	fake_clock_ns = 1000 * NS_PER_SEC;
	pm = fake_start(m, acpi_pm_new(SCI), "isa/600");
	g_assert_cmpuint(fake_in(m, TMR, 4), ==, 0);
	fake_clock_ns += NS_PER_SEC;
	g_assert_cmpuint(fake_in(m, TMR, 4), ==, 3579545);
	g_assert_cmphex(fake_in(m, TMR + 2, 2), ==, 3579545 >> 16);
	g_assert_cmphex(fake_in(m, TMR + 1, 1), ==, 3579545 >> 8 & 0xff);
	fake_out(m, TMR, 4, 0);
	g_assert_cmpuint(fake_in(m, TMR, 4), ==, 3579545);
	/* The status bit follows bit 31, without anybody having looked meanwhile. */
	fake_clock_ns = 1000 * NS_PER_SEC + CARRY_NS - 1000;
	g_assert_cmphex(fake_in(m, TMR, 4) >> 31, ==, 0);
	g_assert_cmphex(fake_in(m, STATUS, 2), ==, 0);
	fake_clock_ns += 2000;
	g_assert_cmphex(fake_in(m, TMR, 4) >> 31, ==, 1);
	g_assert_cmphex(fake_in(m, STATUS, 2), ==, 1);
	fake_out(m, ENABLE, 2, 1);
	g_assert_true(m->level[SCI]);
	fake_out(m, STATUS, 2, 1);
	g_assert_false(m->level[SCI]);
	device_free(pm);
	fake_clock_ns = 0;
}

/* Real time: the carry comes by itself. */
static void test_pm_timer_carry(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *pm;

	fake_clock_ns = 0;
	pm = fake_realize(m, acpi_pm_new(SCI), "isa/600");
	/* As if the timer had started long ago: the carry is due in 50 ms. */
	((uint64_t *)device_state(pm))[1] -= CARRY_NS - 50 * NS_PER_MSEC;
	pm->ops->reset(pm);
	pm->ops->resume(pm);
	fake_out(m, ENABLE, 2, 1);
	g_assert_false(m->level[SCI]);
	FAKE_WAIT_FOR(m->level[SCI]);
	g_assert_cmphex(fake_in(m, STATUS, 2), ==, 1);
	device_free(pm);
}

static void test_pm_hand_over(void)
{
	autoptr(fake_machine) a = fake_machine_new();
	autoptr(fake_machine) b = fake_machine_new();
	struct device *old, *new;
	uint64_t before;

	fake_clock_ns = 1000 * NS_PER_SEC;
	old = fake_start(a, acpi_pm_new(SCI), "isa/600");
	fake_clock_ns += 12345678901;
	fake_out(a, ENABLE, 2, 0x100);
	acpi_pm_power_button(old);
	before = fake_in(a, TMR, 4);
	new = fake_realize(b, acpi_pm_new(SCI), "isa/600");
	fake_hand_over(old, new);
	new->ops->resume(new);
	g_assert_cmpuint(fake_in(b, TMR, 4), ==, before);
	fake_clock_ns += NS_PER_SEC; /* the pause counts */
	g_assert_cmpuint(fake_in(b, TMR, 4), >, before + 3579543);
	g_assert_cmphex(fake_in(b, STATUS, 4), ==, 0x01000100);
	g_assert_cmpuint(b->n_set_irq[SCI], ==, 0);
	fake_out(b, STATUS, 2, 0x100);
	g_assert_cmpuint(b->n_set_irq[SCI], ==, 1);
	device_free(old);
	device_free(new);
	fake_clock_ns = 0;
}

static struct chardev *the_chardev;

static struct chardev *find_chardev(void *opaque, const char *id)
{
	return strcmp(id, "dbg") == 0 ? the_chardev : NULL;
}

static void test_debugcon(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	g_autofree char *dir = g_dir_make_tmp("molt-debugcon-XXXXXX", NULL);
	g_autofree char *path = g_build_filename(dir, "out", NULL), *got = NULL;
	struct chardev_config config = {.kind = CHARDEV_FILE, .id = (char *)"dbg", .path = path};
	json_t *props = json_pack("{s:s, s:s}", "chardev", "dbg", "iobase", "0x402");
	struct device *con;
	GError *error = NULL;

	m->env.find_chardev = find_chardev;
	the_chardev = chardev_new(&config, NULL, &error);
	g_assert_no_error(error);
	con = fake_start(m, device_new(&debugcon_ops, NULL, props, &error), "dev/0");
	chardev_resume(the_chardev);
	g_assert_cmphex(fake_in(m, 0x402, 1), ==, 0xe9);
	for (const char *p = "hello"; *p; p++)
		fake_out(m, 0x402, 1, (uint8_t)*p);
	device_free(con);
	chardev_free(the_chardev);
	g_assert_true(g_file_get_contents(path, &got, NULL, NULL));
	g_assert_cmpstr(got, ==, "hello");
	/* Unknown chardev; missing property. */
	json_object_set_new(props, "chardev", json_string("none"));
	con = device_new(&debugcon_ops, NULL, props, &error);
	g_assert_false(device_realize(con, g_strdup("dev/0"), &m->env, &error));
	g_assert_cmpstr(error->message, ==, "isa-debugcon: chardev 'none' not found");
	g_clear_error(&error);
	device_free(con);
	g_assert_null(device_new(&debugcon_ops, NULL, NULL, &error));
	g_assert_nonnull(strstr(error->message, "chardev"));
	g_clear_error(&error);
	json_decref(props);
	g_unlink(path);
	g_rmdir(dir);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/i8042/commands", test_i8042);
	g_test_add_func("/i8042/port92", test_port92);
	g_test_add_func("/i8042/hand-over", test_i8042_hand_over);
	g_test_add_func("/acpi-pm/power-button", test_power_button);
	g_test_add_func("/acpi-pm/sleep", test_sleep);
	g_test_add_func("/acpi-pm/timer", test_pm_timer);
	g_test_add_func("/acpi-pm/timer-carry", test_pm_timer_carry);
	g_test_add_func("/acpi-pm/hand-over", test_pm_hand_over);
	g_test_add_func("/debugcon", test_debugcon);
	return g_test_run();
}
