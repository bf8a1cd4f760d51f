// The host bridge: the way from the processor to PCI configuration space, and the root bus.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

#include "device/device.h"

#define HOST_BRIDGE_ECAM_BYTES 0x10000000ULL /* buses 0 to 255 */

/**
 * host_bridge_new() - Q35 MCH (8086:29c0)
 * @ecam_gpa:	Where configuration space is memory-mapped; a multiple of 256 MiB below 4 GiB
 *
 * Decodes ports 0xcf8 to 0xcff: configuration address, the reset control register 0xcf9 that lies
 * within it, configuration data.  Its realize makes the root bus and sets env->pci; the board plugs
 * it at 00.0 first of all, and frees it last.
 */
struct device *host_bridge_new(uint64_t ecam_gpa);
