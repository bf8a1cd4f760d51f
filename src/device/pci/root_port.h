// A PCI Express root port: a bridge on the root bus with one slot behind it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/device.h"

extern const struct device_ops root_port_ops;
