// Where PCI devices go: the bus and the address of each, told from the configuration alone.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/cleanup.h"
#include "device/device.h"
#include "options/config.h"

/**
 * DOC: placing
 *
 * A device without addr= takes the lowest free slot of its bus, so the place of each depends on those
 * before it.  The board builds by this, and an update is judged by it before anything is built.
 * There is the root bus pcie.0, with the chipset's slots taken, and one bus behind each root port,
 * which is called like the port.
 */
struct placing;

/**
 * struct place - Where a device goes
 * @bus:	Name of its bus; lent by the device's config
 * @devfn:	device << 3 | function
 * @path:	Its stable path, owned by whoever has the struct
 */
struct place {
	const char *bus;
	uint8_t devfn;
	char *path;
};

struct placing *placing_new(void);
void placing_free(struct placing *placing);
DEFINE_CLEANUP(placing, placing_free)

/**
 * placing_take() - Find the place of a device of model @ops, and take it
 *
 * Return: false with @error set if there is no such bus or no such place, or it is taken.
 */
bool placing_take(struct placing *placing, const struct device_ops *ops,
		  const struct device_config *config, struct place *place, GError **error);

/** placing_give() - Give the place of a device back; if it is a bridge, the bus behind it is gone. */
void placing_give(struct placing *placing, const struct device_config *config, uint8_t devfn);
