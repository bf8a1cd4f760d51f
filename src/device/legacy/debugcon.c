// A byte port to a chardev, for firmware and test payloads: -device isa-debugcon.
// SPDX-License-Identifier: Apache-2.0
#include "device/legacy/debugcon.h"

#include "backend/chardev/chardev.h"
#include "base/error.h"

/** struct debugcon_config - Properties of isa-debugcon */
struct debugcon_config {
	char *chardev;
	uint32_t iobase;
	uint32_t readback;
};

struct debugcon {
	struct device dev;
	struct debugcon_config config;
	struct chardev_link *link;
	struct io_region region;
};

static const struct prop debugcon_props[] = {
	{.name = "chardev",
	 .type = PROP_STRING,
	 .offset = offsetof(struct debugcon_config, chardev),
	 .required = true,
	 .help = "id of the chardev that gets the bytes"},
	{.name = "iobase",
	 .type = PROP_U32,
	 .offset = offsetof(struct debugcon_config, iobase),
	 .def = "0xe9",
	 .max = 0xffff,
	 .help = "its port"},
	{.name = "readback",
	 .type = PROP_U32,
	 .offset = offsetof(struct debugcon_config, readback),
	 .def = "0xe9",
	 .max = 0xff,
	 .help = "what a read of the port gives"},
	{0},
};

static uint64_t debugcon_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	return ((struct debugcon *)opaque)->config.readback;
}

/* The port has no "busy": what the peer does not take yet the chardev keeps, up to a bound. */
static void debugcon_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct debugcon *con = opaque;
	uint8_t byte = value;

	chardev_write_some(con->link, &byte, 1);
}

static const struct io_ops debugcon_io_ops = {
	.read = debugcon_read,
	.write = debugcon_write,
	.min_size = 1,
	.max_size = 1,
};

static size_t debugcon_can_receive(void *opaque)
{
	return 0;
}

static void debugcon_receive(void *opaque, const uint8_t *buf, size_t len)
{
}

static const struct chardev_frontend debugcon_frontend = {
	.can_receive = debugcon_can_receive,
	.receive = debugcon_receive,
};

static bool debugcon_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct debugcon *con = (struct debugcon *)dev;
	struct chardev *chardev = env->find_chardev(env->opaque, con->config.chardev);

	if (!chardev)
		return error_set_generic(error, "chardev '%s' not found", con->config.chardev);
	con->link = chardev_attach(chardev, &debugcon_frontend, con, error);
	return con->link &&
	       device_map_pio(dev, &con->region, "debugcon", (uint16_t)con->config.iobase, 1,
			      &debugcon_io_ops, error);
}

/* Nothing survives, so there is nothing to reset. */
static void debugcon_reset(struct device *dev)
{
}

static void debugcon_unrealize(struct device *dev)
{
	struct debugcon *con = (struct debugcon *)dev;

	device_unmap_pio(dev, &con->region);
	if (con->link)
		chardev_detach(con->link);
	con->link = NULL;
}

const struct device_ops debugcon_ops = {
	.name = "debugcon",
	.driver = "isa-debugcon",
	.help = "byte port to a chardev",
	.bus = DEVICE_BUS_ISA,
	.props = debugcon_props,
	.props_offset = offsetof(struct debugcon, config),
	.size = sizeof(struct debugcon),
	.realize = debugcon_realize,
	.reset = debugcon_reset,
	.unrealize = debugcon_unrealize,
};
