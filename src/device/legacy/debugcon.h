// A byte port to a chardev, for firmware and test payloads: -device isa-debugcon.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/device.h"

extern const struct device_ops debugcon_ops;
