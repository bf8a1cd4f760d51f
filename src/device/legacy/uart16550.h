// The 16550A serial port.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

#include "device/device.h"

/**
 * uart16550_new() - A serial port
 * @port:	First of its eight ports (COM1: 0x3f8)
 * @gsi:	Its interrupt line (COM1: 4), edge triggered
 * @chardev:	Other end of the cable; not owned, outlives the device.  NULL: nothing is plugged in
 */
struct device *uart16550_new(uint16_t port, uint32_t gsi, struct chardev *chardev);
