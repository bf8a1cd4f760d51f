// A PCI Express root port: a bridge on the root bus with one slot behind it.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/root_port.h"

#include "base/error.h"
#include "device/pci/pci_priv.h"

/**
 * DOC: Theory of operation
 *
 * What is behind the port is put there by -device and stays: the slot's capability says that nothing
 * is hot-plugged into it.  The port itself may be.  Its one MSI-X vector is there because a driver
 * for PCI Express services (Linux: portdrv) wants an interrupt; nothing raises it.
 */

/* PCI Express 5.0 section 7.5.3, offsets within the capability. */
#define EXPRESS_ID	     0x10
#define EXPRESS_BYTES	     0x3c
#define EXPRESS_FLAGS	     0x02
#define FLAGS_VERSION_2	     0x0002
#define FLAGS_ROOT_PORT	     0x0040
#define FLAGS_SLOT	     0x0100
#define DEVICE_CAP	     0x04
#define DEVICE_CAP_RBER	     0x8000
#define DEVICE_CONTROL	     0x08
#define DEVICE_CONTROL_BITS  0x000f /* error reporting */
#define DEVICE_STATUS	     0x0a
#define DEVICE_STATUS_W1C    0x000f
#define LINK_CAP	     0x0c
#define LINK_CAP_PORT_SHIFT  24
#define LINK_2_5_GT_X1	     0x0011 /* in LINK_CAP and LINK_STATUS */
#define LINK_CONTROL	     0x10
#define LINK_CONTROL_BITS    0x00c0 /* common clock, extended synch */
#define LINK_STATUS	     0x12
#define SLOT_CAP	     0x14
#define SLOT_CAP_NUM_SHIFT   19
#define SLOT_STATUS	     0x1a
#define SLOT_STATUS_PRESENCE 0x0040
#define ROOT_CONTROL	     0x1c
#define ROOT_CONTROL_BITS    0x000f
#define LINK_CAP_2	     0x2c
#define LINK_CAP_2_2_5_GT    0x0002
#define LINK_CONTROL_2	     0x30
#define LINK_TARGET_2_5_GT   0x0001

#define N_VECTORS 1
#define MSIX_BAR  0
#define SLOT_MAX  0x1fff

/** struct root_port_state - What survives: nothing but configuration space */
struct root_port_state {
	struct pci_function_state pci;
};

/** struct root_port_props - -device pcie-root-port,... */
struct root_port_props {
	uint16_t port;
	uint16_t chassis;
	uint16_t slot;
};

struct root_port {
	struct pci_function fn;
	struct root_port_props props;
	struct root_port_state state;
	uint8_t express;
};

static const struct state_field root_port_fields[] = {
	FIELD_STRUCT(struct root_port_state, pci, 1, &pci_function_desc),
};

static const struct state_desc root_port_desc = {
	.name = "pcie-root-port",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct root_port_state, root_port_fields),
};

/* clang-format off */
#define ROW(member_) .offset = offsetof(struct root_port_props, member_)
static const struct prop root_port_prop_table[] = {
	{.name = "port", .type = PROP_U16, ROW(port), .max = UINT8_MAX,
	 .help = "port number in the link capabilities"},
	{.name = "chassis", .type = PROP_U16, ROW(chassis), .max = UINT8_MAX,
	 .help = "number of the chassis that the slot is in; nothing shows it to the guest"},
	{.name = "slot", .type = PROP_U16, ROW(slot), .max = SLOT_MAX,
	 .help = "physical slot number"},
	{0},
};
#undef ROW
/* clang-format on */

/* Whether something is behind, which changes while the machine is being built. */
static void follow_presence(struct root_port *port)
{
	uint32_t at = port->express + SLOT_STATUS;
	uint8_t present = pci_bus_empty(port->fn.secondary) ? 0 : SLOT_STATUS_PRESENCE;

	port->fn.reset_config[at] = present;
	port->state.pci.config[at] = present;
}

static void root_port_config_read(struct pci_function *fn, uint32_t offset, uint32_t len)
{
	follow_presence((struct root_port *)fn);
}

static void add_express(struct root_port *port)
{
	struct pci_function *fn = &port->fn;
	uint8_t cap[EXPRESS_BYTES] = {EXPRESS_ID};
	uint8_t *wmask;

	pci_put16(cap + EXPRESS_FLAGS, FLAGS_VERSION_2 | FLAGS_ROOT_PORT | FLAGS_SLOT);
	pci_put32(cap + DEVICE_CAP, DEVICE_CAP_RBER);
	pci_put32(cap + LINK_CAP,
		  LINK_2_5_GT_X1 | (uint32_t)port->props.port << LINK_CAP_PORT_SHIFT);
	pci_put16(cap + LINK_STATUS, LINK_2_5_GT_X1);
	pci_put32(cap + SLOT_CAP, (uint32_t)port->props.slot << SLOT_CAP_NUM_SHIFT);
	pci_put32(cap + LINK_CAP_2, LINK_CAP_2_2_5_GT);
	pci_put16(cap + LINK_CONTROL_2, LINK_TARGET_2_5_GT);
	port->express = pci_function_add_capability(fn, cap, sizeof(cap));
	wmask = fn->wmask + port->express;
	pci_put16(wmask + DEVICE_CONTROL, DEVICE_CONTROL_BITS);
	pci_put16(fn->w1cmask + port->express + DEVICE_STATUS, DEVICE_STATUS_W1C);
	pci_put16(wmask + LINK_CONTROL, LINK_CONTROL_BITS);
	pci_put16(wmask + ROOT_CONTROL, ROOT_CONTROL_BITS);
}

static bool root_port_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct root_port *port = (struct root_port *)dev;
	static const struct pci_ids ids = {
		.vendor = 0x1b36,
		.device = 0x000c,
		.class_code = 0x060400,
	};

	pci_bridge_init(&port->fn, &port->state.pci, &ids);
	port->fn.config_read = root_port_config_read;
	add_express(port);
	return pci_function_add_msix(&port->fn, N_VECTORS, MSIX_BAR, error);
}

static void root_port_reset(struct device *dev)
{
	struct root_port *port = (struct root_port *)dev;

	follow_presence(port);
	pci_bridge_reset(&port->fn);
}

static bool root_port_capture(struct device *dev, GError **error)
{
	struct root_port *port = (struct root_port *)dev;

	follow_presence(port);
	pci_function_capture(&port->fn);
	return true;
}

static void root_port_at_rest(struct device *dev, void *state)
{
	struct root_port *port = (struct root_port *)dev;
	struct root_port_state *copy = state;

	copy->pci.config[port->express + SLOT_STATUS] =
		pci_bus_empty(port->fn.secondary) ? 0 : SLOT_STATUS_PRESENCE;
}

/* What was captured is compared with what is here: both know of what is behind. */
static bool root_port_apply(struct device *dev, GError **error)
{
	struct root_port *port = (struct root_port *)dev;
	bool present = port->state.pci.config[port->express + SLOT_STATUS] & SLOT_STATUS_PRESENCE;

	follow_presence(port);
	if (present == pci_bus_empty(port->fn.secondary))
		return error_set_generic(error, "%s: something is behind it %s", dev->path,
					 present ? "there, not here" : "here, not there");
	return pci_bridge_apply(&port->fn, error);
}

static void root_port_unrealize(struct device *dev)
{
	pci_bridge_fini(&((struct root_port *)dev)->fn);
}

const struct device_ops root_port_ops = {
	.name = "pcie-root-port",
	.driver = "pcie-root-port",
	.bus = DEVICE_BUS_PCI,
	.bridge = true,
	.help = "PCI Express root port; bus=ID puts a device behind it",
	.props = root_port_prop_table,
	.props_offset = offsetof(struct root_port, props),
	.size = sizeof(struct root_port),
	.state = &root_port_desc,
	.state_offset = offsetof(struct root_port, state),
	.realize = root_port_realize,
	.reset = root_port_reset,
	.capture = root_port_capture,
	.at_rest = root_port_at_rest,
	.apply = root_port_apply,
	.unrealize = root_port_unrealize,
};
