// Counts ticks of every timer of a PC without taking an interrupt, and reads the time of day.
// SPDX-License-Identifier: Apache-2.0
#include "cpus.h"

/*
 * detail: how often each timer fired (enum timer), then when the RTC says it is, in seconds since
 * midnight.  errors: a timer that fired too early.
 *
 * PIT and RTC interrupt through the PICs, which are polled; local APIC timers show in their
 * registers.  A local APIC has one timer, so there is a vCPU for each way to use it.
 */
enum timer {
	PIT,
	RTC,
	ONE_SHOT,
	DEADLINE,
	PERIODIC,
	TIME_OF_DAY,
};

#define PIC_MASTER 0x20
#define PIC_SLAVE  0xa0

#define PIT_100_HZ 11932 /* of 1.193182 MHz */
#define RTC_64_HZ  0x2a

#define APIC(reg)      (*(volatile uint32_t *)(0xfee00000 + (reg)))
#define APIC_SVR       0xf0
#define APIC_LVT_TIMER 0x320
#define APIC_INITIAL   0x380
#define APIC_CURRENT   0x390
#define APIC_DIVIDE    0x3e0
#define LVT_PERIODIC   (1 << 17)
#define LVT_DEADLINE   (2 << 17)
#define VECTOR	       0x30

#define MSR_TSC_DEADLINE 0x6e0

#define BUS_TICKS 5000000  /* 5 ms of KVM's 1 GHz bus */
#define TSC_TICKS 10000000 /* some milliseconds */

static void tick(enum timer timer)
{
	SHARED->detail[timer]++;
}

/* ---- PICs, PIT, RTC ---- */

static void pic_init(uint16_t port, uint8_t vector, uint8_t wiring, uint8_t mask)
{
	outb(port, 0x11);
	outb(port + 1, vector);
	outb(port + 1, wiring);
	outb(port + 1, 1);
	outb(port + 1, mask);
}

/* The poll command: what is pending is acknowledged, as if the processor had taken it. */
static int pic_poll(uint16_t port)
{
	uint8_t answer;

	outb(port, 0x0c);
	answer = inb(port);
	return answer & 0x80 ? answer & 7 : -1;
}

static uint8_t rtc_read(uint8_t reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void rtc_write(uint8_t reg, uint8_t value)
{
	outb(0x70, reg);
	outb(0x71, value);
}

static uint64_t rtc_bcd(uint8_t reg)
{
	uint8_t value = rtc_read(reg);

	return (value >> 4) * 10 + (value & 15);
}

static void rtc_read_time(void)
{
	uint64_t seconds;

	if (rtc_read(0x0a) & 0x80)
		return; /* about to change */
	seconds = rtc_bcd(4) * 3600 + rtc_bcd(2) * 60 + rtc_bcd(0);
	if (!(rtc_read(0x0a) & 0x80))
		SHARED->detail[TIME_OF_DAY] = seconds;
}

static void legacy_init(void)
{
	pic_init(PIC_MASTER, 0x20, 4, (uint8_t) ~(1 << 0 | 1 << 2));
	pic_init(PIC_SLAVE, 0x28, 2, (uint8_t) ~(1 << 0));
	outb(0x43, 0x34);
	outb(0x40, PIT_100_HZ & 0xff);
	outb(0x40, PIT_100_HZ >> 8);
	rtc_write(0x0a, RTC_64_HZ);
	rtc_write(0x0b, 0x42); /* periodic interrupt, 24 hours, BCD */
	rtc_read(0x0c);
}

static void legacy_poll(void)
{
	int irq = pic_poll(PIC_MASTER);

	if (irq == 0)
		tick(PIT);
	if (irq == 2 && pic_poll(PIC_SLAVE) == 0 && rtc_read(0x0c) & 0x40)
		tick(RTC);
	if (SHARED->counter++ % 256 == 0)
		rtc_read_time();
}

/* ---- local APIC ---- */

static void apic_init(uint32_t mode)
{
	APIC(APIC_SVR) = 0x1ff;
	APIC(APIC_DIVIDE) = 0xb; /* by 1 */
	APIC(APIC_LVT_TIMER) = mode | VECTOR;
}

static void one_shot_poll(void)
{
	if (APIC(APIC_CURRENT))
		return;
	tick(ONE_SHOT);
	APIC(APIC_INITIAL) = BUS_TICKS;
}

/* A round that nobody saw, because the vCPU did not run, is not counted. */
static void periodic_main(void)
{
	uint32_t last = 0;

	apic_init(LVT_PERIODIC);
	APIC(APIC_INITIAL) = BUS_TICKS;
	for (;;) {
		uint32_t now = APIC(APIC_CURRENT);

		if (now > last)
			tick(PERIODIC);
		last = now;
	}
}

static void deadline_main(void)
{
	uint64_t deadline = 0;

	apic_init(LVT_DEADLINE);
	for (;;) {
		if (rdmsr(MSR_TSC_DEADLINE))
			continue;
		if (rdtsc() < deadline)
			SHARED->errors++;
		tick(DEADLINE);
		deadline = rdtsc() + TSC_TICKS;
		wrmsr(MSR_TSC_DEADLINE, deadline);
	}
}

void cpu_main(uint32_t cpu)
{
	if (cpu == 1)
		deadline_main();
	else
		periodic_main();
}

void payload_main(void *info)
{
	payload_begin();
	cpus_start(3);
	legacy_init();
	apic_init(0);
	APIC(APIC_INITIAL) = BUS_TICKS;
	for (;;) {
		legacy_poll();
		one_shot_poll();
	}
}
