// The keyboard controller, as far as a PC without a keyboard needs it: reset, A20, self test.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/device.h"

/** i8042_new() - Ports 0x60 and 0x64, and the system control port 0x92; uses no interrupt. */
struct device *i8042_new(void);
