// ACPI PCI hot plug: which slots of the root bus the guest is to look at, and which it let go of.
// SPDX-License-Identifier: Apache-2.0
#include "device/legacy/acpi_hotplug.h"

#include "base/error.h"
#include "device/pci/pci.h"

/**
 * DOC: Theory of operation
 *
 * A device appears: the board plugs it, sets its slot's bit in UP and raises the general-purpose
 * event.  The event's method in the DSDT reads UP, which takes the bits, and notifies the slots'
 * objects; the guest looks at the bus.
 *
 * A device is to go: its slot's bit is set in DOWN, and the event raised.  The guest stops its driver
 * and writes EJECT (_EJ0), or says that it will not (_OST).  It may also write EJECT unasked.  What it
 * has ejected it does not see from then on; the machine, which is told by POWER_EJECT, takes the
 * devices away in the main thread.  Until then the slots stay in @ejected, which crosses an update:
 * devices do not come and go in the middle of one.
 */

/* ACPI 6.4 table 5.175 and 6.2.6.3: event and status codes of _OST. */
#define OST_EVENT_EJECT	   0x03
#define OST_STATUS_OK	   0x00
#define OST_STATUS_PENDING 0x84

#define SLOTS_MASK ((UINT32_MAX >> (31 - ACPI_HOTPLUG_LAST)) & (UINT32_MAX << ACPI_HOTPLUG_FIRST))

static const struct state_field acpi_hotplug_fields[] = {
	FIELD(struct acpi_hotplug_state, up, 1),
	FIELD(struct acpi_hotplug_state, down, 2),
	FIELD(struct acpi_hotplug_state, ejected, 3),
	FIELD(struct acpi_hotplug_state, refused, 4),
};

static bool acpi_hotplug_check(const void *obj, GError **error)
{
	const struct acpi_hotplug_state *s = obj;

	if ((s->up | s->down | s->ejected | s->refused) & ~SLOTS_MASK)
		return error_set_generic(error, "a slot that cannot be hot-plugged");
	return true;
}

const struct state_desc acpi_hotplug_desc = {
	.name = "acpi-hotplug",
	.version = 1,
	.min_reader = 1,
	.check = acpi_hotplug_check,
	STATE_DESC(struct acpi_hotplug_state, acpi_hotplug_fields),
};

static void tell_machine(struct acpi_hotplug *hotplug)
{
	struct device_env *env = hotplug->dev->env;

	env->power(env->opaque, POWER_EJECT);
}

static void eject(struct acpi_hotplug *hotplug, uint32_t slots)
{
	struct acpi_hotplug_state *s = hotplug->state;

	/* Of empty slots, and of what is ejected already, the machine need not hear again and again. */
	slots &= SLOTS_MASK & ~s->ejected;
	if (hotplug->dev->env->pci)
		slots &= pci_bus_slots(hotplug->dev->env->pci);
	if (!slots)
		return;
	s->up &= ~slots;
	s->down &= ~slots;
	s->ejected |= slots;
	acpi_hotplug_apply(hotplug);
	tell_machine(hotplug);
}

/* Only a refusal of what was asked for is of interest. */
static void take_answer(struct acpi_hotplug *hotplug, uint32_t answer)
{
	struct acpi_hotplug_state *s = hotplug->state;
	uint8_t slot = answer, status = answer >> 8, event = answer >> 16;

	if (slot > ACPI_HOTPLUG_LAST || !(s->down >> slot & 1) || event != OST_EVENT_EJECT ||
	    status == OST_STATUS_OK || status == OST_STATUS_PENDING)
		return;
	s->down &= ~(1u << slot);
	s->refused |= 1u << slot;
	tell_machine(hotplug);
}

static uint64_t acpi_hotplug_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	struct acpi_hotplug_state *s = ((struct acpi_hotplug *)opaque)->state;
	uint32_t value = 0;

	if (offset_bytes == ACPI_HOTPLUG_UP) {
		value = s->up;
		s->up = 0;
	} else if (offset_bytes == ACPI_HOTPLUG_DOWN) {
		value = s->down;
	}
	return value;
}

static void acpi_hotplug_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	if (offset_bytes == ACPI_HOTPLUG_EJECT)
		eject(opaque, value);
	else if (offset_bytes == ACPI_HOTPLUG_OST)
		take_answer(opaque, value);
}

static const struct io_ops acpi_hotplug_io_ops = {
	.read = acpi_hotplug_read,
	.write = acpi_hotplug_write,
	.min_size = 4,
	.max_size = 4,
};

bool acpi_hotplug_init(struct acpi_hotplug *hotplug, struct device *dev,
		       struct acpi_hotplug_state *state, GError **error)
{
	hotplug->dev = dev;
	hotplug->state = state;
	hotplug->region = (struct io_region){
		.name = "acpi-hotplug",
		.size_bytes = ACPI_HOTPLUG_SIZE,
		.ops = &acpi_hotplug_io_ops,
		.opaque = hotplug,
		.lock = &dev->lock,
	};
	return io_space_add(dev->env->pio, &hotplug->region, ACPI_HOTPLUG_BASE, error);
}

void acpi_hotplug_fini(struct acpi_hotplug *hotplug)
{
	if (hotplug->dev)
		device_unmap_pio(hotplug->dev, &hotplug->region);
}

void acpi_hotplug_plugged(struct acpi_hotplug *hotplug, uint32_t slot)
{
	hotplug->state->up |= 1u << slot;
}

void acpi_hotplug_request_eject(struct acpi_hotplug *hotplug, uint32_t slot)
{
	hotplug->state->down |= 1u << slot;
}

void acpi_hotplug_reset(struct acpi_hotplug *hotplug)
{
	*hotplug->state = (struct acpi_hotplug_state){0};
	acpi_hotplug_apply(hotplug);
}

void acpi_hotplug_apply(struct acpi_hotplug *hotplug)
{
	if (hotplug->dev->env->pci)
		pci_bus_hide(hotplug->dev->env->pci, hotplug->state->ejected);
}
