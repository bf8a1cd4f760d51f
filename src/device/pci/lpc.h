// The LPC bridge: where a guest looks for the chipset's power management block.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/device.h"

/**
 * lpc_new() - ICH9 LPC interface (8086:2918), to be plugged at 1f.0
 *
 * PMBASE says ACPI_PM_BASE and cannot be moved; interrupt routing registers are storage, as no
 * function here has an INTx pin.
 */
struct device *lpc_new(void);
