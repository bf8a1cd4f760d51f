// ACPI fixed hardware: PM1 event and control registers, the PM timer, the power button.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

#include "device/device.h"

/*
 * Register block (ACPI 6.4 section 4.8.3); the board's FADT says the same.  It is as large as an ICH9
 * has it: guests that know the chip compare that with what the DSDT claims.
 */
#define ACPI_PM_BASE 0x600
#define ACPI_PM_SIZE 0x80
#define ACPI_PM1_EVT 0x00 /* status, then enable: 2 bytes each */
#define ACPI_PM1_CNT 0x04 /* 2 bytes */
#define ACPI_PM_TMR  0x08 /* 4 bytes, 32-bit counter at 3.579545 MHz */
#define ACPI_GPE0    0x20 /* status, then enable: 8 bytes each, bits 0 to 7 are there */

#define ACPI_GPE0_BYTES	     16
#define ACPI_GPE_PCI_HOTPLUG 1 /* \_GPE._E01 of the DSDT */

/* SLP_TYP value of S5, as the DSDT's \_S5 says. */
#define ACPI_SLP_TYP_S5 5

/** acpi_pm_new() - The block at ACPI_PM_BASE with its SCI on @gsi; power-off goes to env->power().
 */
struct device *acpi_pm_new(uint32_t gsi);

/** acpi_pm_power_button() - Press the button: PWRBTN_STS and an SCI if the guest enabled it. */
void acpi_pm_power_button(struct device *dev);

/**
 * acpi_pm_plugged() - There is something new in @slot of the root bus: tell the guest
 * acpi_pm_request_eject() - Ask the guest to let go of what is in @slot
 *
 * A guest without a driver for it, or with tables of a release that had no hot plug, hears nothing.
 */
void acpi_pm_plugged(struct device *dev, uint32_t slot);
void acpi_pm_request_eject(struct device *dev, uint32_t slot);

/** acpi_pm_eject_requested() - Slots the guest was asked to empty and has not yet, a bit each. */
uint32_t acpi_pm_eject_requested(struct device *dev);

/**
 * acpi_pm_take_ejected() - What the guest has answered since the last call
 * @ejected:	Slots that it let go of; their functions are hidden from it until they are unplugged
 * @refused:	Slots that it wants to keep
 *
 * Whenever there is something to take, env->power() was called with POWER_EJECT.
 */
void acpi_pm_take_ejected(struct device *dev, uint32_t *ejected, uint32_t *refused);

/** acpi_pm_keep_ejected() - Of what was taken, @slots go later and stay hidden; the others are gone. */
void acpi_pm_keep_ejected(struct device *dev, uint32_t slots);
