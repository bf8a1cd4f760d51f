// The host bridge: the way from the processor to PCI configuration space, and the root bus.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/host_bridge.h"

#include "base/error.h"
#include "device/pci/pci_priv.h"

/* Intel 3 Series Express Chipset datasheet, section 5.1.15: PCIEXBAR. */
#define PCIEXBAR	0x60
#define PCIEXBAR_ENABLE 0x1 /* length bits 2:1 zero: 256 MiB */

/* PCI 3.0 section 3.2.2.3.2. */
#define CONFIG_PORT	0xcf8
#define CONFIG_ENABLE	0x80000000U
#define CONFIG_WRITABLE 0x80fffffcU

/* Intel ICH9 datasheet, section 13.7.5: reset control, a byte at 0xcf9. */
#define RESET_OFFSET  1
#define RESET_CPU     0x04
#define RESET_STORED  0x0a /* system reset, full reset */
#define ADDRESS_BYTES 4

/**
 * struct host_bridge_state - What survives
 * @config_address: Port 0xcf8
 * @reset_control: Port 0xcf9 but for the bit that acts
 */
struct host_bridge_state {
	struct pci_function_state pci;
	uint32_t config_address;
	uint8_t reset_control;
	uint8_t pad0[3];
};

struct host_bridge {
	struct pci_function fn;
	struct host_bridge_state state;
	struct pci_bus *bus;
	uint64_t ecam_gpa;
	struct io_region ports;
	struct io_region ecam;
};

static const struct state_field host_bridge_fields[] = {
	FIELD_STRUCT(struct host_bridge_state, pci, 1, &pci_function_desc),
	FIELD(struct host_bridge_state, config_address, 2),
	FIELD(struct host_bridge_state, reset_control, 3),
	FIELD_PAD(struct host_bridge_state, pad0),
};

static const struct state_desc host_bridge_desc = {
	.name = "host-bridge",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct host_bridge_state, host_bridge_fields),
};

static void reset_control_write(struct host_bridge *bridge, uint8_t value)
{
	struct device_env *env = bridge->fn.dev.env;

	bridge->state.reset_control = value & RESET_STORED;
	if (value & RESET_CPU)
		env->power(env->opaque, POWER_RESET);
}

/* The address register takes and gives whole dwords; the reset register is a byte within it. */
static uint64_t address_read(struct host_bridge *bridge, uint64_t offset_bytes, uint32_t size)
{
	uint64_t value = UINT32_MAX >> (32 - 8 * size);

	g_mutex_lock(&bridge->fn.dev.lock);
	if (size == 4)
		value = bridge->state.config_address;
	else if (size == 1 && offset_bytes == RESET_OFFSET)
		value = bridge->state.reset_control;
	g_mutex_unlock(&bridge->fn.dev.lock);
	return value;
}

static void address_write(struct host_bridge *bridge, uint64_t offset_bytes, uint32_t size,
			  uint32_t value)
{
	g_mutex_lock(&bridge->fn.dev.lock);
	if (size == 4)
		bridge->state.config_address = value & CONFIG_WRITABLE;
	else if (size == 1 && offset_bytes == RESET_OFFSET)
		reset_control_write(bridge, value);
	g_mutex_unlock(&bridge->fn.dev.lock);
}

/* The function addressed by 0xcf8.  Return: false when the address is not enabled. */
static bool selected(struct host_bridge *bridge, uint16_t *bdf, uint32_t *offset)
{
	uint32_t address;

	g_mutex_lock(&bridge->fn.dev.lock);
	address = bridge->state.config_address;
	g_mutex_unlock(&bridge->fn.dev.lock);
	*bdf = address >> 8 & 0xffff;
	*offset = address & 0xfc;
	return address & CONFIG_ENABLE;
}

static uint64_t ports_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	struct host_bridge *bridge = opaque;
	uint32_t reg;
	uint16_t bdf;

	if (offset_bytes < ADDRESS_BYTES)
		return address_read(bridge, offset_bytes, size);
	if (!selected(bridge, &bdf, &reg))
		return UINT32_MAX >> (32 - 8 * size);
	return pci_bus_config_read(bridge->bus, bdf, reg + (offset_bytes & 3), size);
}

static void ports_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct host_bridge *bridge = opaque;
	uint32_t reg;
	uint16_t bdf;

	if (offset_bytes < ADDRESS_BYTES)
		address_write(bridge, offset_bytes, size, value);
	else if (selected(bridge, &bdf, &reg))
		pci_bus_config_write(bridge->bus, bdf, reg + (offset_bytes & 3), size, value);
}

static const struct io_ops ports_ops = {
	.read = ports_read,
	.write = ports_write,
	.min_size = 1,
	.max_size = 4,
};

/* PCI Express base specification 5.0, section 7.2.2. */
static uint64_t ecam_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	struct host_bridge *bridge = opaque;

	return pci_bus_config_read(bridge->bus, offset_bytes >> 12, offset_bytes & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct host_bridge *bridge = opaque;

	pci_bus_config_write(bridge->bus, offset_bytes >> 12, offset_bytes & 0xfff, size, value);
}

static const struct io_ops ecam_ops = {
	.read = ecam_read,
	.write = ecam_write,
	.min_size = 1,
	.max_size = 4,
};

static bool host_bridge_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct host_bridge *bridge = (struct host_bridge *)dev;
	static const struct pci_ids ids = {
		.vendor = 0x8086,
		.device = 0x29c0,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
		.class_code = 0x060000,
	};

	pci_function_init(&bridge->fn, &bridge->state.pci, &ids);
	pci_put32(bridge->fn.reset_config + PCIEXBAR, bridge->ecam_gpa | PCIEXBAR_ENABLE);
	bridge->bus = pci_bus_new(NULL);
	env->pci = bridge->bus;
	if (!device_map_pio(dev, &bridge->ports, "pci-config", CONFIG_PORT, 8, &ports_ops, error))
		return false;
	/* Not the region's lock: an access may be to this very function, which takes it. */
	bridge->ports.lock = NULL;
	bridge->ecam = (struct io_region){
		.name = "pci-ecam",
		.size_bytes = HOST_BRIDGE_ECAM_BYTES,
		.ops = &ecam_ops,
		.opaque = bridge,
	};
	return io_space_add(env->mmio, &bridge->ecam, bridge->ecam_gpa, error);
}

static void host_bridge_reset(struct device *dev)
{
	struct host_bridge *bridge = (struct host_bridge *)dev;

	pci_function_reset(&bridge->fn);
	bridge->state.config_address = 0;
	bridge->state.reset_control = 0;
}

static bool host_bridge_apply(struct device *dev, GError **error)
{
	return pci_function_apply(&((struct host_bridge *)dev)->fn, error);
}

static void host_bridge_unrealize(struct device *dev)
{
	struct host_bridge *bridge = (struct host_bridge *)dev;

	io_space_remove(dev->env->mmio, &bridge->ecam);
	device_unmap_pio(dev, &bridge->ports);
	pci_function_fini(&bridge->fn);
	dev->env->pci = NULL;
	g_clear_pointer(&bridge->bus, pci_bus_free);
}

static const struct device_ops host_bridge_ops = {
	.name = "host-bridge",
	.bus = DEVICE_BUS_PCI,
	.size = sizeof(struct host_bridge),
	.state = &host_bridge_desc,
	.state_offset = offsetof(struct host_bridge, state),
	.realize = host_bridge_realize,
	.reset = host_bridge_reset,
	.apply = host_bridge_apply,
	.unrealize = host_bridge_unrealize,
};

struct device *host_bridge_new(uint64_t ecam_gpa)
{
	struct device *dev = device_new(&host_bridge_ops, NULL, NULL, NULL);

	((struct host_bridge *)dev)->ecam_gpa = ecam_gpa;
	return dev;
}
