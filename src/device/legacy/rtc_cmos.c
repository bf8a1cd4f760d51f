// The battery-backed clock and memory of a PC (MC146818).
// SPDX-License-Identifier: Apache-2.0
#include "device/legacy/rtc_cmos.h"

#include <inttypes.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "device/timer.h"

/**
 * DOC: Theory of operation
 *
 * RTC time is the host's time of day plus @offset.  The time registers are computed when they are
 * read, unless the guest has frozen them (SET, or divider held in reset): then they are plain
 * bytes, and the offset is computed from them when the clock is let go.
 *
 * The flags of register C are computed too: @seen is the RTC time up to which ticks, seconds and
 * alarms are accounted for; rtc_account() brings it to now.  So a guest that polls flags gets them,
 * and a timer is needed only for an interrupt that is enabled and not already raised.
 */

#define RTC_PORT   0x70
#define CMOS_BYTES 128

#define RTC_SECONDS	  0x00
#define RTC_SECONDS_ALARM 0x01
#define RTC_MINUTES	  0x02
#define RTC_MINUTES_ALARM 0x03
#define RTC_HOURS	  0x04
#define RTC_HOURS_ALARM	  0x05
#define RTC_WEEKDAY	  0x06
#define RTC_DAY		  0x07
#define RTC_MONTH	  0x08
#define RTC_YEAR	  0x09
#define RTC_A		  0x0a
#define RTC_B		  0x0b
#define RTC_C		  0x0c
#define RTC_D		  0x0d
#define RTC_CENTURY	  0x32 /* not the chip's, but every PC's (FADT CENTURY) */

#define RTC_A_UIP	 0x80
#define RTC_A_DIV_RESET	 0x60 /* both bits: the divider chain is held */
#define RTC_A_RATE	 0x0f
#define RTC_A_32768_HZ	 0x26 /* with a rate of 1024 Hz */
#define RTC_B_SET	 0x80
#define RTC_B_IRQS	 0x70 /* periodic, alarm, update: the same bits as in C */
#define RTC_B_SQUARE	 0x08
#define RTC_B_BINARY	 0x04
#define RTC_B_24H	 0x02
#define RTC_C_IRQ	 0x80
#define RTC_C_PERIODIC	 0x40
#define RTC_C_ALARM	 0x20
#define RTC_C_UPDATE	 0x10
#define RTC_D_POWER_GOOD 0x80

#define RTC_PM		0x80
#define ALARM_ANY	0xc0		  /* "don't care" */
#define ALARM_STEPS	(24 + 1 + 4 * 60) /* each of seconds and minutes before and after the hour */
#define SECONDS_PER_DAY 86400
#define UIP_NS		244141 /* eight cycles of 32.768 kHz before an update */
#define OFFSET_MAX_S	(1LL << 40)

/**
 * struct rtc_cmos_state - What survives
 * @index:	Port 0x70, without the NMI bit
 * @offset_s, @offset_ns: RTC time minus host time; @offset_s is two's complement
 * @seen_s, @seen_ns: RTC time up to which register C is right; @seen_s is two's complement
 * @cmos:	All bytes; those of the running clock are stale
 */
struct rtc_cmos_state {
	uint8_t index;
	uint8_t pad0[7];
	uint64_t offset_s;
	uint64_t seen_s;
	uint32_t offset_ns;
	uint32_t seen_ns;
	uint8_t cmos[CMOS_BYTES];
};

struct rtc_cmos {
	struct device dev;
	struct rtc_cmos_state state;
	uint32_t gsi;
	bool localtime;
	uint64_t low_ram_bytes, high_ram_bytes;
	struct io_region region;
	struct device_timer timer;
	bool raised;
	bool quiesced;
};

/* A point in RTC time: seconds since 1970 as the clock shows them, and ns into the second. */
struct rtc_time {
	int64_t s;
	uint32_t ns;
};

static const struct state_field rtc_cmos_fields[] = {
	FIELD(struct rtc_cmos_state, index, 1),	     FIELD_PAD(struct rtc_cmos_state, pad0),
	FIELD(struct rtc_cmos_state, offset_s, 2),   FIELD(struct rtc_cmos_state, offset_ns, 3),
	FIELD(struct rtc_cmos_state, seen_s, 4),     FIELD(struct rtc_cmos_state, seen_ns, 5),
	FIELD_ARRAY(struct rtc_cmos_state, cmos, 6),
};

static bool rtc_cmos_check(const void *obj, GError **error)
{
	const struct rtc_cmos_state *s = obj;
	int64_t offset_s = (int64_t)s->offset_s, seen_s = (int64_t)s->seen_s;

	if (s->index >= CMOS_BYTES)
		return error_set_generic(error, "index: 0x%02x", s->index);
	if (offset_s < -OFFSET_MAX_S || offset_s > OFFSET_MAX_S || s->offset_ns >= NS_PER_SEC)
		return error_set_generic(error, "offset: %" PRId64 " s and %u ns", offset_s,
					 s->offset_ns);
	if (seen_s < -OFFSET_MAX_S || seen_s > 2 * OFFSET_MAX_S || s->seen_ns >= NS_PER_SEC)
		return error_set_generic(error, "seen: %" PRId64 " s and %u ns", seen_s,
					 s->seen_ns);
	return true;
}

static const struct state_desc rtc_cmos_desc = {
	.name = "rtc-cmos",
	.version = 1,
	.min_reader = 1,
	.check = rtc_cmos_check,
	STATE_DESC(struct rtc_cmos_state, rtc_cmos_fields),
};

/* ---- time and its registers ---- */

static struct rtc_time rtc_now(const struct rtc_cmos *rtc)
{
	uint64_t wall = device_wall_ns(&rtc->dev);
	uint64_t ns = wall % NS_PER_SEC + rtc->state.offset_ns;

	return (struct rtc_time){
		.s = (int64_t)(wall / NS_PER_SEC + ns / NS_PER_SEC + rtc->state.offset_s),
		.ns = ns % NS_PER_SEC,
	};
}

static bool rtc_divider_held(const struct rtc_cmos_state *s)
{
	return (s->cmos[RTC_A] & RTC_A_DIV_RESET) == RTC_A_DIV_RESET;
}

static bool rtc_frozen(const struct rtc_cmos_state *s)
{
	return s->cmos[RTC_B] & RTC_B_SET || rtc_divider_held(s);
}

static uint8_t encode(const struct rtc_cmos_state *s, unsigned int value)
{
	return s->cmos[RTC_B] & RTC_B_BINARY ? value : value / 10 << 4 | value % 10;
}

static unsigned int decode(const struct rtc_cmos_state *s, uint8_t byte)
{
	return s->cmos[RTC_B] & RTC_B_BINARY ? byte : (byte >> 4) * 10 + (byte & 0x0f);
}

static uint8_t encode_hour(const struct rtc_cmos_state *s, unsigned int hour)
{
	if (s->cmos[RTC_B] & RTC_B_24H)
		return encode(s, hour);
	return encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? RTC_PM : 0);
}

static unsigned int decode_hour(const struct rtc_cmos_state *s, uint8_t byte)
{
	if (s->cmos[RTC_B] & RTC_B_24H)
		return decode(s, byte);
	return decode(s, byte & ~RTC_PM) % 12 + (byte & RTC_PM ? 12 : 0);
}

/* Show @now in the time registers. */
static void rtc_latch(struct rtc_cmos_state *s, struct rtc_time now)
{
	time_t t = now.s;
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return;
	s->cmos[RTC_SECONDS] = encode(s, tm.tm_sec);
	s->cmos[RTC_MINUTES] = encode(s, tm.tm_min);
	s->cmos[RTC_HOURS] = encode_hour(s, tm.tm_hour);
	s->cmos[RTC_WEEKDAY] = encode(s, tm.tm_wday + 1);
	s->cmos[RTC_DAY] = encode(s, tm.tm_mday);
	s->cmos[RTC_MONTH] = encode(s, tm.tm_mon + 1);
	s->cmos[RTC_YEAR] = encode(s, (unsigned int)(tm.tm_year + 1900) % 100);
	s->cmos[RTC_CENTURY] = encode(s, (unsigned int)(tm.tm_year + 1900) / 100 % 100);
}

/* Let the clock go on from what the registers say, @ns into that second. */
static void rtc_commit(struct rtc_cmos *rtc, uint32_t ns)
{
	struct rtc_cmos_state *s = &rtc->state;
	uint64_t wall = device_wall_ns(&rtc->dev);
	uint32_t wall_ns = wall % NS_PER_SEC;
	struct tm tm = {
		.tm_sec = (int)decode(s, s->cmos[RTC_SECONDS]),
		.tm_min = (int)decode(s, s->cmos[RTC_MINUTES]),
		.tm_hour = (int)decode_hour(s, s->cmos[RTC_HOURS]),
		.tm_mday = (int)decode(s, s->cmos[RTC_DAY]),
		.tm_mon = (int)decode(s, s->cmos[RTC_MONTH]) - 1,
		.tm_year = (int)(decode(s, s->cmos[RTC_CENTURY]) * 100 +
				 decode(s, s->cmos[RTC_YEAR])) -
			   1900,
	};
	int64_t set = timegm(&tm);

	s->offset_s = (uint64_t)set - wall / NS_PER_SEC - (ns < wall_ns);
	s->offset_ns = ns < wall_ns ? ns + (uint32_t)NS_PER_SEC - wall_ns : ns - wall_ns;
	s->seen_s = (uint64_t)set;
	s->seen_ns = ns;
}

/* ---- flags, interrupt, timer ---- */

/* Frequency of the periodic flag; 0: off.  Rates 1 and 2 are those of 8 and 9 (table 5). */
static uint32_t rtc_rate_hz(const struct rtc_cmos_state *s)
{
	uint32_t rate = s->cmos[RTC_A] & RTC_A_RATE;

	if (rate == 0 || rtc_divider_held(s))
		return 0;
	return 32768U >> ((rate <= 2 ? rate + 7 : rate) - 1);
}

static uint32_t tick_in_second(uint32_t ns, uint32_t hz)
{
	return (uint64_t)ns * hz / NS_PER_SEC;
}

static bool alarm_matches(uint8_t alarm, uint8_t now)
{
	return (alarm & ALARM_ANY) == ALARM_ANY || alarm == now;
}

/*
 * Seconds from @from until the alarm registers match, 0 if they do at @from itself; -1: not within
 * @seconds.  A wrong hour or minute is skipped whole, so an alarm that exists is found within ALARM_STEPS.
 */
static int32_t alarm_distance(const struct rtc_cmos_state *s, int64_t from, int64_t seconds)
{
	uint32_t start = (uint32_t)(((from % SECONDS_PER_DAY) + SECONDS_PER_DAY) % SECONDS_PER_DAY);
	uint32_t end = start + (uint32_t)MIN(seconds, SECONDS_PER_DAY);

	for (uint32_t t = start, n = 0; t < end && n < ALARM_STEPS; n++) {
		uint32_t of_day = t % SECONDS_PER_DAY;

		if (!alarm_matches(s->cmos[RTC_HOURS_ALARM], encode_hour(s, of_day / 3600)))
			t += 3600 - t % 3600;
		else if (!alarm_matches(s->cmos[RTC_MINUTES_ALARM], encode(s, of_day / 60 % 60)))
			t += 60 - t % 60;
		else if (!alarm_matches(s->cmos[RTC_SECONDS_ALARM], encode(s, of_day % 60)))
			t++;
		else
			return (int32_t)(t - start);
	}
	return -1;
}

static void rtc_update_irq(struct rtc_cmos *rtc)
{
	struct accel *accel = rtc->dev.env->accel;
	uint8_t *cmos = rtc->state.cmos;
	bool level = cmos[RTC_C] & cmos[RTC_B] & RTC_B_IRQS;

	cmos[RTC_C] = (cmos[RTC_C] & RTC_B_IRQS) | (level ? RTC_C_IRQ : 0);
	if (level != rtc->raised)
		accel->ops->set_irq(accel, rtc->gsi, level);
	rtc->raised = level;
}

static uint8_t rtc_events(const struct rtc_cmos_state *s, struct rtc_time now)
{
	int64_t seen_s = (int64_t)s->seen_s;
	uint32_t hz = rtc_rate_hz(s);
	uint8_t flags = 0;

	if (hz && (now.s > seen_s || tick_in_second(now.ns, hz) > tick_in_second(s->seen_ns, hz)))
		flags |= RTC_C_PERIODIC;
	if (now.s > seen_s && !rtc_frozen(s)) {
		flags |= RTC_C_UPDATE;
		if (alarm_distance(s, seen_s + 1, now.s - seen_s) >= 0)
			flags |= RTC_C_ALARM;
	}
	return flags;
}

/* Account for what happened until now.  A host clock that was set back gives no events. */
static void rtc_account(struct rtc_cmos *rtc)
{
	struct rtc_cmos_state *s = &rtc->state;
	struct rtc_time now = rtc_now(rtc);
	int64_t seen_s = (int64_t)s->seen_s;

	if (now.s > seen_s || (now.s == seen_s && now.ns > s->seen_ns))
		s->cmos[RTC_C] |= rtc_events(s, now);
	s->seen_s = (uint64_t)now.s;
	s->seen_ns = now.ns;
	rtc_update_irq(rtc);
}

/* ns from @now until the next event that is enabled; 0: there is none. */
static uint64_t rtc_next_event(const struct rtc_cmos_state *s, struct rtc_time now)
{
	uint64_t to_second = NS_PER_SEC - now.ns, next = UINT64_MAX;
	uint32_t hz = rtc_rate_hz(s);
	uint8_t enabled = s->cmos[RTC_B];

	if (enabled & RTC_C_PERIODIC && hz) {
		uint64_t tick = tick_in_second(now.ns, hz) + 1;

		next = (tick * NS_PER_SEC + hz - 1) / hz - now.ns;
	}
	if (enabled & RTC_C_UPDATE && !rtc_frozen(s))
		next = MIN(next, to_second);
	if (enabled & RTC_C_ALARM && !rtc_frozen(s)) {
		int32_t distance = alarm_distance(s, now.s + 1, SECONDS_PER_DAY);

		if (distance >= 0)
			next = MIN(next, to_second + (uint64_t)distance * NS_PER_SEC);
	}
	return next == UINT64_MAX ? 0 : next;
}

/* An interrupt that is raised already needs no timer: the next one comes after register C is read.
 */
static void rtc_arm(struct rtc_cmos *rtc)
{
	uint64_t delay = 0;

	if (!rtc->quiesced && !rtc->raised)
		delay = rtc_next_event(&rtc->state, rtc_now(rtc));
	device_timer_set(&rtc->timer, delay ? device_wall_ns(&rtc->dev) + delay : 0);
}

static void rtc_timer_fired(void *opaque)
{
	struct rtc_cmos *rtc = opaque;

	g_mutex_lock(&rtc->dev.lock);
	if (!rtc->quiesced) {
		rtc_account(rtc);
		rtc_arm(rtc);
	}
	g_mutex_unlock(&rtc->dev.lock);
}

/* ---- registers ---- */

static bool is_time_register(uint8_t index)
{
	return index == RTC_SECONDS || index == RTC_MINUTES || index == RTC_HOURS ||
	       (index >= RTC_WEEKDAY && index <= RTC_YEAR) || index == RTC_CENTURY;
}

/*
 * Registers A and B: the clock may stop or start.  A divider chain that was held takes half a
 * second to the first update; otherwise the second goes on where it is.
 */
static void rtc_control_write(struct rtc_cmos *rtc, uint8_t index, uint8_t value)
{
	struct rtc_cmos_state *s = &rtc->state;
	bool was_frozen = rtc_frozen(s), was_held = rtc_divider_held(s);
	struct rtc_time now = rtc_now(rtc);

	rtc_account(rtc);
	s->cmos[index] = index == RTC_A ? value & ~RTC_A_UIP : value;
	if (!was_frozen && rtc_frozen(s)) {
		rtc_latch(s, now);
	} else if (was_frozen && !rtc_frozen(s)) {
		rtc_commit(rtc, was_held ? NS_PER_SEC / 2 : now.ns);
	}
	if (s->cmos[RTC_B] & RTC_B_SET)
		s->cmos[RTC_B] &= ~RTC_C_UPDATE;
	rtc_update_irq(rtc);
}

static void rtc_register_write(struct rtc_cmos *rtc, uint8_t index, uint8_t value)
{
	struct rtc_cmos_state *s = &rtc->state;

	if (index == RTC_C || index == RTC_D)
		return;
	if (index == RTC_A || index == RTC_B) {
		rtc_control_write(rtc, index, value);
	} else if (is_time_register(index) && !rtc_frozen(s)) {
		struct rtc_time now = rtc_now(rtc);

		rtc_account(rtc);
		rtc_latch(s, now);
		s->cmos[index] = value;
		rtc_commit(rtc, now.ns);
	} else {
		rtc_account(rtc);
		s->cmos[index] = value;
	}
	rtc_arm(rtc);
}

static uint8_t rtc_register_read(struct rtc_cmos *rtc, uint8_t index)
{
	struct rtc_cmos_state *s = &rtc->state;
	struct rtc_time now = rtc_now(rtc);
	uint8_t value;

	if (is_time_register(index) && !rtc_frozen(s))
		rtc_latch(s, now);
	if (index == RTC_A && !rtc_frozen(s) && now.ns >= NS_PER_SEC - UIP_NS)
		return s->cmos[RTC_A] | RTC_A_UIP;
	if (index != RTC_C)
		return s->cmos[index];
	rtc_account(rtc);
	value = s->cmos[RTC_C];
	s->cmos[RTC_C] = 0;
	rtc_update_irq(rtc);
	rtc_arm(rtc);
	return value;
}

static uint64_t rtc_cmos_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	struct rtc_cmos *rtc = opaque;

	return offset_bytes == 0 ? 0xff : rtc_register_read(rtc, rtc->state.index);
}

static void rtc_cmos_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct rtc_cmos *rtc = opaque;

	if (offset_bytes == 0)
		rtc->state.index = value & (CMOS_BYTES - 1);
	else
		rtc_register_write(rtc, rtc->state.index, value);
}

static const struct io_ops rtc_cmos_io_ops = {
	.read = rtc_cmos_read,
	.write = rtc_cmos_write,
	.min_size = 1,
	.max_size = 1,
};

/* ---- life ---- */

static void put_le(uint8_t *at, uint64_t value, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		at[i] = value >> (i * 8);
}

/* What PC firmware leaves there: KiB below 1 MiB and above it, 64 KiB units above 16 MiB and 4 GiB.
 */
static void cmos_set_ram(struct rtc_cmos *rtc)
{
	uint8_t *cmos = rtc->state.cmos;
	uint64_t kib = rtc->low_ram_bytes >> 10;
	uint64_t above_1m = kib > 1024 ? MIN(kib - 1024, 65535) : 0;
	uint64_t above_16m = kib > 16384 ? MIN((kib - 16384) / 64, 65535) : 0;

	put_le(cmos + 0x15, MIN(kib, 640), 2);
	put_le(cmos + 0x17, above_1m, 2);
	put_le(cmos + 0x30, above_1m, 2);
	put_le(cmos + 0x34, above_16m, 2);
	put_le(cmos + 0x5b, MIN(rtc->high_ram_bytes >> 16, 0xffffff), 3);
}

static uint64_t start_offset_s(const struct rtc_cmos *rtc)
{
	time_t t = (time_t)(device_wall_ns(&rtc->dev) / NS_PER_SEC);
	struct tm tm;

	return rtc->localtime && localtime_r(&t, &tm) ? (uint64_t)tm.tm_gmtoff : 0;
}

/* The battery is put in here: reset leaves the clock and the memory alone. */
static bool rtc_cmos_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct rtc_cmos *rtc = (struct rtc_cmos *)dev;
	struct rtc_cmos_state *s = &rtc->state;
	struct rtc_time now;

	rtc->quiesced = true;
	s->offset_s = start_offset_s(rtc);
	now = rtc_now(rtc);
	s->seen_s = (uint64_t)now.s;
	s->seen_ns = now.ns;
	s->cmos[RTC_A] = RTC_A_32768_HZ;
	s->cmos[RTC_B] = RTC_B_24H;
	s->cmos[RTC_D] = RTC_D_POWER_GOOD;
	cmos_set_ram(rtc);
	return device_timer_init(&rtc->timer, CLOCK_REALTIME, rtc_timer_fired, rtc, error) &&
	       device_map_pio(dev, &rtc->region, "rtc-cmos", RTC_PORT, 2, &rtc_cmos_io_ops, error);
}

static void rtc_cmos_reset(struct device *dev)
{
	struct rtc_cmos *rtc = (struct rtc_cmos *)dev;

	g_mutex_lock(&dev->lock);
	rtc->state.index = 0;
	rtc->state.cmos[RTC_B] &= ~(RTC_B_IRQS | RTC_B_SQUARE);
	rtc->state.cmos[RTC_C] = 0;
	rtc_update_irq(rtc);
	rtc_arm(rtc);
	g_mutex_unlock(&dev->lock);
}

static void rtc_cmos_quiesce(struct device *dev)
{
	struct rtc_cmos *rtc = (struct rtc_cmos *)dev;

	g_mutex_lock(&dev->lock);
	rtc->quiesced = true;
	rtc_arm(rtc);
	g_mutex_unlock(&dev->lock);
}

static void rtc_cmos_resume(struct device *dev)
{
	struct rtc_cmos *rtc = (struct rtc_cmos *)dev;

	g_mutex_lock(&dev->lock);
	rtc->quiesced = false;
	rtc_account(rtc);
	rtc_arm(rtc);
	g_mutex_unlock(&dev->lock);
}

static bool rtc_cmos_apply(struct device *dev, GError **error)
{
	struct rtc_cmos *rtc = (struct rtc_cmos *)dev;

	rtc->raised = rtc->state.cmos[RTC_C] & rtc->state.cmos[RTC_B] & RTC_B_IRQS;
	return true;
}

static void rtc_cmos_unrealize(struct device *dev)
{
	struct rtc_cmos *rtc = (struct rtc_cmos *)dev;

	device_unmap_pio(dev, &rtc->region);
	device_timer_fini(&rtc->timer);
}

static const struct device_ops rtc_cmos_ops = {
	.name = "rtc-cmos",
	.size = sizeof(struct rtc_cmos),
	.state = &rtc_cmos_desc,
	.state_offset = offsetof(struct rtc_cmos, state),
	.realize = rtc_cmos_realize,
	.reset = rtc_cmos_reset,
	.quiesce = rtc_cmos_quiesce,
	.resume = rtc_cmos_resume,
	.apply = rtc_cmos_apply,
	.unrealize = rtc_cmos_unrealize,
};

struct device *rtc_cmos_new(uint32_t gsi, bool localtime, uint64_t low_ram_bytes,
			    uint64_t high_ram_bytes)
{
	struct device *dev = device_new(&rtc_cmos_ops, NULL, NULL, NULL);
	struct rtc_cmos *rtc = (struct rtc_cmos *)dev;

	rtc->gsi = gsi;
	rtc->localtime = localtime;
	rtc->low_ram_bytes = low_ram_bytes;
	rtc->high_ram_bytes = high_ram_bytes;
	return dev;
}
