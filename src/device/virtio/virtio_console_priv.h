// What the virtio serial bus and its ports share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "backend/chardev/chardev.h"
#include "device/virtio/virtio.h"
#include "device/virtio/virtio_console.h"

#define VIRTIO_SERIAL_PORTS_MAX 31
#define VIRTIO_SERIAL_IOV_MAX	256

struct virtio_serial;

/**
 * struct virtio_port - A port, on the bus device that it found by its bus= property
 * @nr:		Its number; a virtconsole takes the lowest free one, a virtserialport the lowest
 *		from 1 on
 * @console:	The guest makes a console of it (hvc0)
 * @link:	Its chardev
 */
struct virtio_port {
	struct device dev;
	struct virtio_port_props {
		char *chardev;
		char *name;
		char *bus;
		uint32_t nr;
	} props;
	struct virtio_serial *serial;
	uint32_t nr;
	bool console;
	struct chardev_link *link;
};

/** virtio_serial_plug() - Put @port on the bus, at @port->nr if that is not UINT32_MAX. */
bool virtio_serial_plug(struct virtio_serial *serial, struct virtio_port *port, GError **error);

/** virtio_serial_unplug() - Undo virtio_serial_plug(). */
void virtio_serial_unplug(struct virtio_port *port);

/* What the port's chardev says.  Context: main thread, no lock held. */

/** virtio_serial_room() - How many bytes the guest takes on @port now. */
size_t virtio_serial_room(struct virtio_port *port);

/** virtio_serial_receive() - Give the guest @len bytes, at most what virtio_serial_room() said. */
void virtio_serial_receive(struct virtio_port *port, const uint8_t *buf, size_t len);

/** virtio_serial_host_changed() - A peer came or went: tell the guest. */
void virtio_serial_host_changed(struct virtio_port *port);

/** virtio_serial_writable() - The chardev takes output again. */
void virtio_serial_writable(struct virtio_port *port);
