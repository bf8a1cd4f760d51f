// RTC and CMOS: time in every format, setting it, flags, interrupts, update.
// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include "device/legacy/rtc_cmos.h"
#include "fake.h"

#define IRQ 8

/* 2023-12-31 23:59:58.25 UTC, a Sunday. */
#define NEW_YEAR_EVE (1704067198ULL * NS_PER_SEC + 250000000)

static struct device *rtc_start(struct fake_machine *m)
{
	return fake_start(m, rtc_cmos_new(IRQ, false, 3ULL << 30, 5ULL << 30), "isa/70");
}

static uint8_t get(struct fake_machine *m, uint8_t reg)
{
	fake_out(m, 0x70, 1, reg);
	return fake_in(m, 0x71, 1);
}

static void put(struct fake_machine *m, uint8_t reg, uint8_t value)
{
	fake_out(m, 0x70, 1, reg | 0x80); /* with the NMI bit, which is not part of the index */
	fake_out(m, 0x71, 1, value);
}

/* Hour, minute, second, weekday, day, month, year, century. */
static void assert_time(struct fake_machine *m, const uint8_t want[8])
{
	static const uint8_t regs[8] = {4, 2, 0, 6, 7, 8, 9, 0x32};

	for (uint32_t i = 0; i < 8; i++)
		if (get(m, regs[i]) != want[i])
			g_error("register 0x%02x is 0x%02x, not 0x%02x", regs[i], get(m, regs[i]),
				want[i]);
}

static void test_formats(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *rtc;

	fake_wall_ns = NEW_YEAR_EVE;
	rtc = rtc_start(m);
	assert_time(m, (uint8_t[]){0x23, 0x59, 0x58, 0x01, 0x31, 0x12, 0x23, 0x20});
	put(m, 0x0b, 0x00); /* 12 hours, BCD */
	g_assert_cmphex(get(m, 4), ==, 0x91);
	put(m, 0x0b, 0x04); /* 12 hours, binary */
	g_assert_cmphex(get(m, 4), ==, 0x8b);
	put(m, 0x0b, 0x06);
	assert_time(m, (uint8_t[]){23, 59, 58, 1, 31, 12, 23, 20});
	fake_wall_ns += 2 * NS_PER_SEC;
	assert_time(m, (uint8_t[]){0, 0, 0, 2, 1, 1, 24, 20});
	put(m, 0x0b, 0x00);
	g_assert_cmphex(get(m, 4), ==, 0x12); /* midnight */
	fake_wall_ns += 12 * 3600 * NS_PER_SEC;
	g_assert_cmphex(get(m, 4), ==, 0x92); /* noon */
	device_free(rtc);
}

static void test_fixed_registers(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *rtc;

	fake_wall_ns = NEW_YEAR_EVE;
	rtc = rtc_start(m);
	g_assert_cmphex(get(m, 0x0a), ==, 0x26);
	g_assert_cmphex(get(m, 0x0b), ==, 0x02);
	put(m, 0x0d, 0);
	g_assert_cmphex(get(m, 0x0d), ==, 0x80);
	put(m, 0x0c, 0xff);
	g_assert_cmphex(get(m, 0x0c), ==, 0);
	g_assert_cmphex(fake_in(m, 0x70, 1), ==, 0xff);
	/* 3 GiB below 4 GiB, 5 GiB above. */
	g_assert_cmphex(get(m, 0x15) | get(m, 0x16) << 8, ==, 640);
	g_assert_cmphex(get(m, 0x17) | get(m, 0x18) << 8, ==, 65535);
	g_assert_cmphex(get(m, 0x30) | get(m, 0x31) << 8, ==, 65535);
	g_assert_cmphex(get(m, 0x34) | get(m, 0x35) << 8, ==, (0xc0000000 - 0x1000000) >> 16);
	g_assert_cmphex(get(m, 0x5b) | get(m, 0x5c) << 8 | get(m, 0x5d) << 16, ==, 5 << 14);
	/* Ordinary bytes are memory; a reset leaves them and the clock alone. */
	put(m, 0x0f, 0x5a);
	put(m, 0x7f, 0xa5);
	put(m, 0x0b, 0x72);
	rtc->ops->reset(rtc);
	g_assert_cmphex(get(m, 0x0f), ==, 0x5a);
	g_assert_cmphex(get(m, 0x7f), ==, 0xa5);
	g_assert_cmphex(get(m, 0x0b), ==, 0x02);
	g_assert_cmphex(get(m, 0), ==, 0x58);
	device_free(rtc);
}

static void test_update_in_progress(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *rtc;

	fake_wall_ns = NEW_YEAR_EVE;
	rtc = rtc_start(m);
	g_assert_cmphex(get(m, 0x0a) & 0x80, ==, 0);
	fake_wall_ns += 749900000; /* 100 us before the second changes */
	g_assert_cmphex(get(m, 0x0a) & 0x80, ==, 0x80);
	g_assert_cmphex(get(m, 0), ==, 0x58);
	fake_wall_ns += 100000;
	g_assert_cmphex(get(m, 0x0a) & 0x80, ==, 0);
	g_assert_cmphex(get(m, 0), ==, 0x59);
	device_free(rtc);
}

/* As Linux sets it: SET, hold the divider, write, let go. */
static void test_set(void)
{
	static const uint8_t moon[][2] = {{0, 0x40}, {2, 0x17}, {4, 0x20},   {7, 0x20},
					  {8, 0x07}, {9, 0x69}, {0x32, 0x19}};
	autoptr(fake_machine) m = fake_machine_new();
	struct device *rtc;

	fake_wall_ns = NEW_YEAR_EVE;
	rtc = rtc_start(m);
	put(m, 0x0b, 0x82);
	put(m, 0x0a, 0x76);
	for (uint32_t i = 0; i < G_N_ELEMENTS(moon); i++)
		put(m, moon[i][0], moon[i][1]);
	fake_wall_ns += 100 * NS_PER_SEC;
	g_assert_cmphex(get(m, 0), ==, 0x40); /* frozen */
	put(m, 0x0b, 0x02);
	g_assert_cmphex(get(m, 0), ==, 0x40);
	put(m, 0x0a, 0x26);
	assert_time(m, (uint8_t[]){0x20, 0x17, 0x40, 0x01, 0x20, 0x07, 0x69, 0x19});
	/* The first update comes half a second after the divider was let go. */
	fake_wall_ns += NS_PER_SEC / 2 - 1;
	g_assert_cmphex(get(m, 0), ==, 0x40);
	fake_wall_ns += 1;
	g_assert_cmphex(get(m, 0), ==, 0x41);
	fake_wall_ns += 86400ULL * NS_PER_SEC;
	g_assert_cmphex(get(m, 7), ==, 0x21);
	/* One register of a running clock. */
	put(m, 4, 0x05);
	assert_time(m, (uint8_t[]){0x05, 0x17, 0x41, 0x02, 0x21, 0x07, 0x69, 0x19});
	device_free(rtc);
}

/* Without any interrupt enabled the flags are there for who polls. */
static void test_polled_flags(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *rtc;

	fake_wall_ns = NEW_YEAR_EVE;
	rtc = rtc_start(m);
	get(m, 0x0c);
	g_assert_cmphex(get(m, 0x0c), ==, 0);
	fake_wall_ns += NS_PER_SEC / 1024 + 1;
	g_assert_cmphex(get(m, 0x0c), ==, 0x40);
	fake_wall_ns += NS_PER_SEC;
	g_assert_cmphex(get(m, 0x0c), ==, 0x50);
	g_assert_cmphex(get(m, 0x0c), ==, 0);
	put(m, 0x0a, 0x20); /* no rate: no periodic flag */
	put(m, 1, 0x30);    /* alarm at second 30 of every minute */
	put(m, 3, 0xff);
	put(m, 5, 0xc0);
	get(m, 0x0c);
	fake_wall_ns += 5 * NS_PER_SEC;
	g_assert_cmphex(get(m, 0x0c), ==, 0x10);
	fake_wall_ns += 30 * NS_PER_SEC;
	g_assert_cmphex(get(m, 0x0c), ==, 0x30);
	put(m, 3, 0x99); /* never */
	fake_wall_ns += 86400ULL * 2 * NS_PER_SEC;
	g_assert_cmphex(get(m, 0x0c), ==, 0x10);
	fake_wall_ns -= 3600 * NS_PER_SEC; /* host clock set back: no event */
	g_assert_cmphex(get(m, 0x0c), ==, 0);
	/* An enable that finds its flag set raises at once; reading C lowers. */
	fake_wall_ns += NS_PER_SEC;
	put(m, 0x0b, 0x12);
	g_assert_true(m->level[IRQ]);
	g_assert_cmphex(get(m, 0x0c), ==, 0x90);
	g_assert_false(m->level[IRQ]);
	/* SET stops updates and disables their interrupt. */
	put(m, 0x0b, 0x92);
	g_assert_cmphex(get(m, 0x0b), ==, 0x82);
	fake_wall_ns += 10 * NS_PER_SEC;
	g_assert_cmphex(get(m, 0x0c), ==, 0);
	device_free(rtc);
}

/* The alarm is set for @alarm at @from seconds into the day; look early, or only when it is due. */
static void check_alarm(uint32_t from, uint32_t alarm, bool look_early)
{
	autoptr(fake_machine) m = fake_machine_new();
	uint32_t wait = (alarm + 86400 - from) % 86400;
	struct device *rtc;

	fake_wall_ns = (1704067200ULL + from) * NS_PER_SEC;
	rtc = rtc_start(m);
	put(m, 0x0b, 0x06);
	put(m, 5, alarm / 3600);
	put(m, 3, alarm / 60 % 60);
	put(m, 1, alarm % 60);
	get(m, 0x0c);
	fake_wall_ns += wait * NS_PER_SEC - 1;
	if (look_early)
		g_assert_cmphex(get(m, 0x0c) & 0x20, ==, 0);
	fake_wall_ns += 1;
	g_assert_cmphex(get(m, 0x0c) & 0x20, ==, 0x20);
	device_free(rtc);
}

/* Alarms all over the day are found from all over the day, at the right second. */
static void test_alarm_exact(void)
{
	for (uint32_t hour = 0; hour < 24; hour += 5) {
		for (uint32_t alarm = 13; alarm < 86400; alarm += 7207) {
			check_alarm(hour * 3600 + 1800 + 29, alarm, true);
			check_alarm(hour * 3600 + 1800 + 29, alarm, false);
		}
	}
	/* The longest search: just missed, so through every kind of step twice. */
	check_alarm(5 * 3600 + 1, 5 * 3600, false);
	check_alarm(5 * 3600 + 59 * 60 + 59, 5 * 3600 + 59 * 60 + 58, false);
}

/* Real time: the timer raises the line, and only once until C is read. */
static void test_timer(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *rtc;

	fake_wall_ns = 0;
	rtc = rtc_start(m);
	put(m, 0x0a, 0x23); /* 8192 Hz */
	put(m, 0x0b, 0x42);
	for (uint32_t i = 1; i <= 20; i++) {
		FAKE_WAIT_FOR(m->level[IRQ]);
		g_assert_cmpuint(m->raised[IRQ], ==, i);
		g_assert_cmphex(get(m, 0x0c) & 0xc0, ==, 0xc0);
		g_assert_false(m->level[IRQ]);
	}
	put(m, 0x0b, 0x12); /* once a second */
	get(m, 0x0c);
	FAKE_WAIT_FOR(m->level[IRQ]);
	g_assert_cmphex(get(m, 0x0c) & 0x90, ==, 0x90);
	/* Quiesced it keeps quiet, and catches up in resume. */
	put(m, 0x0b, 0x42);
	fake_rest(rtc);
	get(m, 0x0c);
	g_usleep(1000);
	while (g_main_context_iteration(NULL, FALSE))
		;
	g_assert_false(m->level[IRQ]);
	rtc->ops->resume(rtc);
	FAKE_WAIT_FOR(m->level[IRQ]);
	device_free(rtc);
}

static void test_hand_over(void)
{
	autoptr(fake_machine) a = fake_machine_new();
	autoptr(fake_machine) b = fake_machine_new();
	struct device *old, *new;

	fake_wall_ns = NEW_YEAR_EVE;
	old = rtc_start(a);
	put(a, 9, 0x99); /* the guest lives in 2099 */
	put(a, 0x0b, 0x12);
	put(a, 0x33, 0x77);
	fake_wall_ns += NS_PER_SEC;
	g_assert_cmphex(get(a, 0), ==, 0x59);
	fake_rest(old);
	old->ops->resume(old); /* accounts: the update interrupt is up */
	g_assert_true(a->level[IRQ]);
	fake_wall_ns += NS_PER_SEC;
	new = fake_realize(b, rtc_cmos_new(IRQ, true, 0, 0), "isa/70");
	fake_out(a, 0x70, 1, 0x32);
	fake_hand_over(old, new);
	g_assert_cmpuint(b->n_set_irq[IRQ], ==, 0);
	g_assert_cmphex(fake_in(b, 0x71, 1), ==, 0x21); /* index; midnight was passed */
	new->ops->resume(new);
	g_assert_cmpuint(b->n_set_irq[IRQ], ==, 0);
	assert_time(b, (uint8_t[]){0x00, 0x00, 0x00, 0x06, 0x01, 0x01, 0x00, 0x21});
	g_assert_cmphex(get(b, 0x33), ==, 0x77);
	g_assert_cmphex(get(b, 0x0c) & 0x90, ==, 0x90);
	g_assert_cmpuint(b->n_set_irq[IRQ], ==, 1);
	device_free(old);
	device_free(new);
}

static void test_localtime(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *rtc;

	g_setenv("TZ", "XXX-5:30", TRUE);
	tzset();
	fake_wall_ns = NEW_YEAR_EVE;
	rtc = fake_start(m, rtc_cmos_new(IRQ, true, 0, 0), "isa/70");
	assert_time(m, (uint8_t[]){0x05, 0x29, 0x58, 0x02, 0x01, 0x01, 0x24, 0x20});
	device_free(rtc);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/rtc/formats", test_formats);
	g_test_add_func("/rtc/fixed-registers", test_fixed_registers);
	g_test_add_func("/rtc/update-in-progress", test_update_in_progress);
	g_test_add_func("/rtc/set", test_set);
	g_test_add_func("/rtc/polled-flags", test_polled_flags);
	g_test_add_func("/rtc/alarm-exact", test_alarm_exact);
	g_test_add_func("/rtc/timer", test_timer);
	g_test_add_func("/rtc/hand-over", test_hand_over);
	g_test_add_func("/rtc/localtime", test_localtime);
	return g_test_run();
}
