// The virtio serial bus and its ports: -device virtio-serial-pci, virtconsole, virtserialport.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/device.h"

/* For device/registry.c */
extern const struct device_ops virtio_serial_ops;
extern const struct device_ops virtconsole_ops;
extern const struct device_ops virtserialport_ops;
