// ACPI hardware: PM1 event and control registers, the PM timer, the power button, GPE block 0.
// SPDX-License-Identifier: Apache-2.0
#include "device/legacy/acpi_pm.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "device/legacy/acpi_hotplug.h"
#include "device/timer.h"

/**
 * DOC: Theory of operation
 *
 * ACPI mode is on from the start (there is no SMI_CMD), so SCI_EN always reads as one.  The SCI is
 * level triggered: high while an enabled status bit is set.
 *
 * The PM timer counts the host's CLOCK_MONOTONIC from @epoch_ns on.  That clock is common to all
 * processes of a host, so the counter goes on over an update, pause included, without a jump.  Its
 * status bit (the top bit has changed) is computed: @seen is the count up to which that is
 * accounted for.  A timer runs only while the guest has enabled that event.
 *
 * Of the general-purpose events one has a source: the hot-plug registers (acpi_hotplug.c), which are
 * part of this device, because they raise the same SCI.
 */

/* ACPI 6.4 section 4.8.3. */
#define STS_TIMER     0x0001
#define STS_BUTTON    0x0100
#define STS_ALL	      (STS_TIMER | STS_BUTTON)
#define EN_WRITABLE   0x0521 /* timer, global, button, RTC */
#define CNT_SCI_EN    0x0001
#define CNT_STORED    0x1c02 /* SLP_TYP, BM_RLD */
#define CNT_SLP_SHIFT 10
#define CNT_SLP_EN    0x2000

/* ACPI 6.4 section 4.8.4.1. */
#define GPE0_EN	     (ACPI_GPE0 + ACPI_GPE0_BYTES / 2)
#define GPE_WRITABLE (1u << ACPI_GPE_PCI_HOTPLUG)

#define PM_TIMER_HZ 3579545
#define TMR_TOP_BIT 31

/**
 * struct acpi_pm_state - What survives
 * @status, @enable: PM1 event registers
 * @control:	PM1 control, without SCI_EN
 * @gpe_status, @gpe_enable: GPE block 0
 * @epoch_ns:	CLOCK_MONOTONIC when the timer was 0
 * @seen:	64-bit count up to which STS_TIMER is right
 */
struct acpi_pm_state {
	uint16_t status;
	uint16_t enable;
	uint16_t control;
	uint8_t gpe_status;
	uint8_t gpe_enable;
	uint64_t epoch_ns;
	uint64_t seen;
	struct acpi_hotplug_state hotplug;
};

struct acpi_pm {
	struct device dev;
	struct acpi_pm_state state;
	uint32_t gsi;
	struct io_region region;
	struct device_timer timer;
	struct acpi_hotplug hotplug;
	struct log_limit guest_log;
	bool raised;
	bool quiesced;
};

/* A reader before version 2 drops what it does not know: its guests have no hot plug. */
#define SINCE_HOTPLUG .since = 2, .flags = STATE_OPTIONAL

static const struct state_field acpi_pm_fields[] = {
	FIELD(struct acpi_pm_state, status, 1),
	FIELD(struct acpi_pm_state, enable, 2),
	FIELD(struct acpi_pm_state, control, 3),
	FIELD(struct acpi_pm_state, epoch_ns, 4),
	FIELD(struct acpi_pm_state, seen, 5),
	FIELD(struct acpi_pm_state, gpe_status, 6, SINCE_HOTPLUG),
	FIELD(struct acpi_pm_state, gpe_enable, 7, SINCE_HOTPLUG),
	FIELD_STRUCT(struct acpi_pm_state, hotplug, 8, &acpi_hotplug_desc, SINCE_HOTPLUG),
};

static bool acpi_pm_check(const void *obj, GError **error)
{
	const struct acpi_pm_state *s = obj;

	if (s->status & ~STS_ALL || s->enable & ~EN_WRITABLE || s->control & ~CNT_STORED ||
	    (s->gpe_status | s->gpe_enable) & ~GPE_WRITABLE)
		return error_set_generic(error, "reserved register bits are set");
	return true;
}

static const struct state_desc acpi_pm_desc = {
	.name = "acpi-pm",
	.version = 2,
	.min_reader = 1,
	.check = acpi_pm_check,
	STATE_DESC(struct acpi_pm_state, acpi_pm_fields),
};

/* ---- timer and SCI ---- */

static uint64_t pm_ticks(const struct acpi_pm *pm)
{
	uint64_t elapsed_ns = device_clock_ns(&pm->dev) - pm->state.epoch_ns;

	return (uint64_t)((unsigned __int128)elapsed_ns * PM_TIMER_HZ / NS_PER_SEC);
}

static bool pm_sci_level(const struct acpi_pm_state *s)
{
	return (s->status & s->enable) || (s->gpe_status & s->gpe_enable);
}

static void pm_update_sci(struct acpi_pm *pm)
{
	struct accel *accel = pm->dev.env->accel;
	bool level = pm_sci_level(&pm->state);

	if (level != pm->raised)
		accel->ops->set_irq(accel, pm->gsi, level);
	pm->raised = level;
}

static void pm_account(struct acpi_pm *pm)
{
	uint64_t now = pm_ticks(pm);

	if (now >> TMR_TOP_BIT != pm->state.seen >> TMR_TOP_BIT)
		pm->state.status |= STS_TIMER;
	pm->state.seen = now;
	pm_update_sci(pm);
}

static void pm_arm(struct acpi_pm *pm)
{
	uint64_t carry = ((pm->state.seen >> TMR_TOP_BIT) + 1) << TMR_TOP_BIT;
	uint64_t expires_ns = 0;

	if (!pm->quiesced && pm->state.enable & ~pm->state.status & STS_TIMER)
		expires_ns = pm->state.epoch_ns + 1 +
			     (uint64_t)((unsigned __int128)carry * NS_PER_SEC / PM_TIMER_HZ);
	device_timer_set(&pm->timer, expires_ns);
}

static void pm_timer_fired(void *opaque)
{
	struct acpi_pm *pm = opaque;

	g_mutex_lock(&pm->dev.lock);
	if (!pm->quiesced) {
		pm_account(pm);
		pm_arm(pm);
	}
	g_mutex_unlock(&pm->dev.lock);
}

void acpi_pm_power_button(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	g_mutex_lock(&dev->lock);
	pm->state.status |= STS_BUTTON;
	pm_update_sci(pm);
	g_mutex_unlock(&dev->lock);
}

/* ---- hot plug ---- */

static void pm_raise_hotplug(struct acpi_pm *pm)
{
	pm->state.gpe_status |= 1u << ACPI_GPE_PCI_HOTPLUG;
	pm_update_sci(pm);
}

void acpi_pm_plugged(struct device *dev, uint32_t slot)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	g_mutex_lock(&dev->lock);
	acpi_hotplug_plugged(&pm->hotplug, slot);
	pm_raise_hotplug(pm);
	g_mutex_unlock(&dev->lock);
}

void acpi_pm_request_eject(struct device *dev, uint32_t slot)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	g_mutex_lock(&dev->lock);
	acpi_hotplug_request_eject(&pm->hotplug, slot);
	pm_raise_hotplug(pm);
	g_mutex_unlock(&dev->lock);
}

uint32_t acpi_pm_eject_requested(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;
	uint32_t slots;

	g_mutex_lock(&dev->lock);
	slots = pm->state.hotplug.down;
	g_mutex_unlock(&dev->lock);
	return slots;
}

void acpi_pm_take_ejected(struct device *dev, uint32_t *ejected, uint32_t *refused)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;
	struct acpi_hotplug_state *s = &pm->state.hotplug;

	g_mutex_lock(&dev->lock);
	*ejected = s->ejected;
	*refused = s->refused;
	s->ejected = s->refused = 0;
	g_mutex_unlock(&dev->lock);
}

void acpi_pm_keep_ejected(struct device *dev, uint32_t slots)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	g_mutex_lock(&dev->lock);
	pm->state.hotplug.ejected |= slots;
	acpi_hotplug_apply(&pm->hotplug);
	g_mutex_unlock(&dev->lock);
}

/* ---- registers ---- */

static uint64_t acpi_pm_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	struct acpi_pm *pm = opaque;
	const struct acpi_pm_state *s = &pm->state;
	uint32_t value = 0;

	switch (offset_bytes & ~3ULL) {
	case ACPI_PM1_EVT:
		pm_account(pm);
		pm_arm(pm);
		value = s->status | (uint32_t)s->enable << 16;
		break;
	case ACPI_PM1_CNT:
		value = s->control | CNT_SCI_EN;
		break;
	case ACPI_PM_TMR:
		value = (uint32_t)pm_ticks(pm);
		break;
	case ACPI_GPE0:
		value = s->gpe_status;
		break;
	case GPE0_EN:
		value = s->gpe_enable;
		break;
	}
	return value >> (offset_bytes & 3) * 8;
}

static void sleep_enter(struct acpi_pm *pm)
{
	struct device_env *env = pm->dev.env;
	unsigned int type = pm->state.control >> CNT_SLP_SHIFT & 7;

	if (type == ACPI_SLP_TYP_S5)
		env->power(env->opaque, POWER_OFF);
	else
		log_guest(&pm->guest_log, "%s: sleep type %u; there is only S5 (%u)", pm->dev.path,
			  type, ACPI_SLP_TYP_S5);
}

/* A byte of a 16-bit register: which of its bits are being written, at their place. */
static void write_byte(struct acpi_pm *pm, uint64_t offset_bytes, uint8_t byte)
{
	struct acpi_pm_state *s = &pm->state;
	uint16_t mask = offset_bytes & 1 ? 0xff00 : 0x00ff;
	uint16_t value = offset_bytes & 1 ? byte << 8 : byte;

	switch (offset_bytes & ~1ULL) {
	case ACPI_PM1_EVT:
		s->status &= ~value;
		break;
	case ACPI_PM1_EVT + 2:
		s->enable = ((s->enable & ~mask) | value) & EN_WRITABLE;
		break;
	case ACPI_PM1_CNT:
		s->control = ((s->control & ~mask) | value) & CNT_STORED;
		if (value & CNT_SLP_EN)
			sleep_enter(pm);
		break;
	case ACPI_GPE0:
		s->gpe_status &= ~(value & mask);
		break;
	case GPE0_EN:
		s->gpe_enable = ((s->gpe_enable & ~mask) | value) & GPE_WRITABLE;
		break;
	}
}

static void acpi_pm_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct acpi_pm *pm = opaque;

	pm_account(pm);
	for (uint32_t i = 0; i < size; i++)
		write_byte(pm, offset_bytes + i, value >> (i * 8));
	pm_update_sci(pm);
	pm_arm(pm);
}

static const struct io_ops acpi_pm_io_ops = {
	.read = acpi_pm_read,
	.write = acpi_pm_write,
	.min_size = 1,
	.max_size = 4,
};

/* ---- life ---- */

static bool acpi_pm_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	pm->quiesced = true;
	pm->state.epoch_ns = device_clock_ns(dev);
	return device_timer_init(&pm->timer, CLOCK_MONOTONIC, pm_timer_fired, pm, error) &&
	       device_map_pio(dev, &pm->region, "acpi-pm", ACPI_PM_BASE, ACPI_PM_SIZE,
			      &acpi_pm_io_ops, error) &&
	       acpi_hotplug_init(&pm->hotplug, dev, &pm->state.hotplug, error);
}

/* The timer is not reset: a guest may only assume that it counts. */
static void acpi_pm_reset(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	g_mutex_lock(&dev->lock);
	pm->state.status = 0;
	pm->state.enable = 0;
	pm->state.control = 0;
	pm->state.gpe_status = 0;
	pm->state.gpe_enable = 0;
	acpi_hotplug_reset(&pm->hotplug);
	pm->state.seen = pm_ticks(pm);
	pm_update_sci(pm);
	pm_arm(pm);
	g_mutex_unlock(&dev->lock);
}

static void acpi_pm_quiesce(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	g_mutex_lock(&dev->lock);
	pm->quiesced = true;
	pm_arm(pm);
	g_mutex_unlock(&dev->lock);
}

static void acpi_pm_resume(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	g_mutex_lock(&dev->lock);
	pm->quiesced = false;
	pm_account(pm);
	pm_arm(pm);
	g_mutex_unlock(&dev->lock);
}

static bool acpi_pm_apply(struct device *dev, GError **error)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	pm->raised = pm_sci_level(&pm->state);
	acpi_hotplug_apply(&pm->hotplug);
	return true;
}

static void acpi_pm_unrealize(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	acpi_hotplug_fini(&pm->hotplug);
	device_unmap_pio(dev, &pm->region);
	device_timer_fini(&pm->timer);
}

static const struct device_ops acpi_pm_ops = {
	.name = "acpi-pm",
	.size = sizeof(struct acpi_pm),
	.state = &acpi_pm_desc,
	.state_offset = offsetof(struct acpi_pm, state),
	.realize = acpi_pm_realize,
	.reset = acpi_pm_reset,
	.quiesce = acpi_pm_quiesce,
	.resume = acpi_pm_resume,
	.apply = acpi_pm_apply,
	.unrealize = acpi_pm_unrealize,
};

struct device *acpi_pm_new(uint32_t gsi)
{
	struct device *dev = device_new(&acpi_pm_ops, NULL, NULL, NULL);

	((struct acpi_pm *)dev)->gsi = gsi;
	return dev;
}
