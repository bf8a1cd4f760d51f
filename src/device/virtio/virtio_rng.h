// The virtio entropy device, -device virtio-rng-pci.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/device.h"

/** virtio_rng_ops - For device/registry.c */
extern const struct device_ops virtio_rng_ops;
