// ACPI PCI hot plug: which slots of the root bus the guest is to look at, and which it let go of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/device.h"

/*
 * Register block, 32 bits each, bit n is slot n of the root bus.  machine/acpi_dsdt_hotplug.c has the
 * methods that use it.
 */
#define ACPI_HOTPLUG_BASE  0xcc0
#define ACPI_HOTPLUG_SIZE  0x10
#define ACPI_HOTPLUG_UP	   0x0 /* read: slots with something new; the read takes them */
#define ACPI_HOTPLUG_DOWN  0x4 /* read: slots to be emptied */
#define ACPI_HOTPLUG_EJECT 0x8 /* write: slots that the guest has let go of */
#define ACPI_HOTPLUG_OST   0xc /* write: the guest's answer, slot | status << 8 | event << 16 */

/* Slots with a hot-plug object in the DSDT: not the host bridge, not the LPC bridge. */
#define ACPI_HOTPLUG_FIRST 1
#define ACPI_HOTPLUG_LAST  30

/**
 * struct acpi_hotplug_state - What survives; inside struct acpi_pm_state
 * @up, @down:	Registers
 * @ejected, @refused: The guest's answers that the machine has not taken yet
 */
struct acpi_hotplug_state {
	uint32_t up;
	uint32_t down;
	uint32_t ejected;
	uint32_t refused;
};

extern const struct state_desc acpi_hotplug_desc;

/** struct acpi_hotplug - Run-time part, inside the device whose lock guards it */
struct acpi_hotplug {
	struct device *dev;
	struct acpi_hotplug_state *state;
	struct io_region region;
};

/** acpi_hotplug_init() - Map the registers; in the realize of @dev.  acpi_hotplug_fini() undoes it. */
bool acpi_hotplug_init(struct acpi_hotplug *hotplug, struct device *dev,
		       struct acpi_hotplug_state *state, GError **error);
void acpi_hotplug_fini(struct acpi_hotplug *hotplug);

/**
 * acpi_hotplug_plugged(), acpi_hotplug_request_eject() - Note it in the registers; the caller raises
 * the event.  acpi_hotplug_reset(): nothing is wanted.  acpi_hotplug_apply(): hide what the guest has
 * let go of.  Context: the device's lock is held.
 */
void acpi_hotplug_plugged(struct acpi_hotplug *hotplug, uint32_t slot);
void acpi_hotplug_request_eject(struct acpi_hotplug *hotplug, uint32_t slot);
void acpi_hotplug_reset(struct acpi_hotplug *hotplug);
void acpi_hotplug_apply(struct acpi_hotplug *hotplug);
