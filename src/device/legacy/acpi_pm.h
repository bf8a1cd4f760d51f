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

/* SLP_TYP value of S5, as the DSDT's \_S5 says. */
#define ACPI_SLP_TYP_S5 5

/** acpi_pm_new() - The block at ACPI_PM_BASE with its SCI on @gsi; power-off goes to env->power().
 */
struct device *acpi_pm_new(uint32_t gsi);

/** acpi_pm_power_button() - Press the button: PWRBTN_STS and an SCI if the guest enabled it. */
void acpi_pm_power_button(struct device *dev);
