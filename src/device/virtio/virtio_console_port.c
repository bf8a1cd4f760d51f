// Ports of the virtio serial bus: a chardev each.
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtio_console_priv.h"

#include <string.h>

#include "base/error.h"

#define NR_ANY "4294967295"

/* clang-format off */
#define ROW(member_) .offset = offsetof(struct virtio_port_props, member_)
static const struct prop port_props[] = {
	{.name = "chardev", .type = PROP_STRING, ROW(chardev), .required = true,
	 .help = "id of the chardev it is connected to"},
	{.name = "name", .type = PROP_STRING, ROW(name),
	 .help = "name that the guest sees (/dev/virtio-ports/NAME)"},
	{.name = "bus", .type = PROP_STRING, ROW(bus),
	 .help = "id of the virtio-serial device, with or without \".0\" (default: the first)"},
	{.name = "nr", .type = PROP_U32, ROW(nr), .def = NR_ANY, .max = UINT32_MAX,
	 .help = "port number (default: the lowest free one)"},
	{0},
};
#undef ROW
/* clang-format on */

static size_t port_can_receive(void *opaque)
{
	struct virtio_port *port = opaque;

	return port->serial ? virtio_serial_room(port) : 0;
}

static void port_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct virtio_port *port = opaque;

	if (port->serial)
		virtio_serial_receive(port, buf, len);
}

static void port_event(void *opaque, enum chardev_event event)
{
	struct virtio_port *port = opaque;

	/* During chardev_attach() there is no link yet, and nobody to tell. */
	if (port->serial && port->link && (event == CHARDEV_OPENED || event == CHARDEV_CLOSED))
		virtio_serial_host_changed(port);
}

static void port_writable(void *opaque)
{
	struct virtio_port *port = opaque;

	if (port->serial)
		virtio_serial_writable(port);
}

static const struct chardev_frontend port_frontend = {
	.can_receive = port_can_receive,
	.receive = port_receive,
	.event = port_event,
	.writable = port_writable,
};

static struct virtio_serial *port_find_bus(const struct virtio_port *port, struct device_env *env,
					   GError **error)
{
	const char *bus = port->props.bus;
	g_autofree char *id = g_strdup(bus ? bus : virtio_serial_ops.driver);
	struct device *dev;

	if (bus && g_str_has_suffix(id, ".0"))
		id[strlen(id) - 2] = '\0';
	dev = env->find_device ? env->find_device(env->opaque, id) : NULL;
	if (dev && dev->ops == &virtio_serial_ops)
		return (struct virtio_serial *)dev;
	if (bus)
		error_set_generic(error, "bus '%s' is not a virtio-serial device", bus);
	else
		error_set_generic(error,
				  "there is no virtio-serial device before it; add -device %s",
				  virtio_serial_ops.driver);
	return NULL;
}

static bool virtio_port_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct virtio_port *port = (struct virtio_port *)dev;
	struct chardev *chardev = env->find_chardev(env->opaque, port->props.chardev);
	struct virtio_serial *serial;

	if (!chardev)
		return error_set_generic(error, "there is no chardev '%s'", port->props.chardev);
	serial = port_find_bus(port, env, error);
	if (!serial)
		return false;
	port->nr = port->props.nr;
	port->console = dev->ops == &virtconsole_ops;
	port->link = chardev_attach(chardev, &port_frontend, port, error);
	if (!port->link || !virtio_serial_plug(serial, port, error))
		return false;
	/* Which bus a port without bus= is on, and its number, follow from an order: the path tells. */
	dev->parent = (struct device *)serial;
	g_free(dev->path);
	dev->path = g_strdup_printf("%s/%u", dev->parent->path, port->nr);
	return true;
}

static void virtio_port_unrealize(struct device *dev)
{
	struct virtio_port *port = (struct virtio_port *)dev;

	virtio_serial_unplug(port);
	if (port->link)
		chardev_detach(port->link);
}

/* What survives of a port, and its life, are the bus's. */
static void virtio_port_reset(struct device *dev)
{
}

const struct device_ops virtconsole_ops = {
	.name = "virtconsole",
	.driver = "virtconsole",
	.bus = DEVICE_BUS_VIRTIO_SERIAL,
	.help = "console on a virtio-serial device (hvc0)",
	.props = port_props,
	.props_offset = offsetof(struct virtio_port, props),
	.size = sizeof(struct virtio_port),
	.realize = virtio_port_realize,
	.reset = virtio_port_reset,
	.unrealize = virtio_port_unrealize,
};

const struct device_ops virtserialport_ops = {
	.name = "virtserialport",
	.driver = "virtserialport",
	.bus = DEVICE_BUS_VIRTIO_SERIAL,
	.help = "byte channel on a virtio-serial device (/dev/virtio-ports/NAME)",
	.props = port_props,
	.props_offset = offsetof(struct virtio_port, props),
	.size = sizeof(struct virtio_port),
	.realize = virtio_port_realize,
	.reset = virtio_port_reset,
	.unrealize = virtio_port_unrealize,
};
