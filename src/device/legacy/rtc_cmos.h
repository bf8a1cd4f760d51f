// The battery-backed clock and memory of a PC (MC146818).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

#include "device/device.h"

/**
 * rtc_cmos_new() - Ports 0x70 and 0x71
 * @gsi:	Interrupt line, edge triggered (8)
 * @localtime:	The clock starts with the host's local time instead of UTC
 * @low_ram_bytes, @high_ram_bytes: RAM below and from 4 GiB on, told in CMOS bytes as PC firmware
 *		does (0x15 to 0x18, 0x30, 0x31, 0x34, 0x35, 0x5b to 0x5d)
 *
 * The clock is the host's time of day plus an offset that the guest may change and that survives.
 */
struct device *rtc_cmos_new(uint32_t gsi, bool localtime, uint64_t low_ram_bytes,
			    uint64_t high_ram_bytes);
