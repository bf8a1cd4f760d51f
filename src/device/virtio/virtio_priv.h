// What virtio.c and virtio_pci.c share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/virtio/virtio.h"

#define VIRTIO_PCI_BAR	    4
#define VIRTIO_PCI_MSIX_BAR 1

/* virtio_pci.c */

/** virtio_pci_init() - PCI identity, capabilities, BARs. */
bool virtio_pci_init(struct virtio_device *vdev, const struct virtio_params *params,
		     GError **error);

/** virtio_pci_update_doorbells() - Register ioeventfds for the queues that are live, no others. */
void virtio_pci_update_doorbells(struct virtio_device *vdev);

/** virtio_pci_bus_master() - Whether the guest lets the function read and write memory. */
bool virtio_pci_bus_master(const struct virtio_device *vdev);

/* virtio.c; the device's lock is held */

/** virtio_write_status() - The driver wrote @value to the status register. */
void virtio_write_status(struct virtio_device *vdev, uint8_t value);

/** virtio_write_features() - The driver wrote a half of its features. */
void virtio_write_features(struct virtio_device *vdev, uint32_t value);

/** virtio_enable_queue() - The driver wrote 1 to queue_enable. */
void virtio_enable_queue(struct virtio_device *vdev, uint32_t q);
