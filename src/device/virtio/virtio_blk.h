// The virtio disk, -device virtio-blk-pci.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/device.h"

/** virtio_blk_ops - For device/registry.c */
extern const struct device_ops virtio_blk_ops;
