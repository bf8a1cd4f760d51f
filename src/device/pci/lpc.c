// The LPC bridge: where a guest looks for the chipset's power management block.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/lpc.h"

#include "device/legacy/acpi_pm.h"
#include "device/pci/pci_priv.h"

/* Intel ICH9 datasheet, section 13.1. */
#define LPC_PMBASE	    0x40
#define LPC_PMBASE_IO	    0x1
#define LPC_ACPI_CNTL	    0x44
#define LPC_ACPI_CNTL_ON    0x80 /* SCI select 0: IRQ 9 */
#define LPC_PIRQ_A	    0x60 /* A to D here, E to H from 0x68 on */
#define LPC_PIRQ_E	    0x68
#define LPC_PIRQ_WRITABLE   0x8f
#define LPC_PIRQ_NOT_ROUTED 0x80

/** struct lpc_state - What survives: nothing but configuration space */
struct lpc_state {
	struct pci_function_state pci;
};

struct lpc {
	struct pci_function fn;
	struct lpc_state state;
};

static const struct state_field lpc_fields[] = {
	FIELD_STRUCT(struct lpc_state, pci, 1, &pci_function_desc),
};

static const struct state_desc lpc_desc = {
	.name = "lpc",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct lpc_state, lpc_fields),
};

static bool lpc_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct lpc *lpc = (struct lpc *)dev;
	uint8_t *config = lpc->fn.reset_config;
	static const struct pci_ids ids = {
		.vendor = 0x8086,
		.device = 0x2918,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
		.revision = 2,
		.class_code = 0x060100,
	};

	pci_function_init(&lpc->fn, &lpc->state.pci, &ids);
	pci_put32(config + LPC_PMBASE, ACPI_PM_BASE | LPC_PMBASE_IO);
	config[LPC_ACPI_CNTL] = LPC_ACPI_CNTL_ON;
	for (uint32_t i = 0; i < 4; i++) {
		config[LPC_PIRQ_A + i] = config[LPC_PIRQ_E + i] = LPC_PIRQ_NOT_ROUTED;
		lpc->fn.wmask[LPC_PIRQ_A + i] = LPC_PIRQ_WRITABLE;
		lpc->fn.wmask[LPC_PIRQ_E + i] = LPC_PIRQ_WRITABLE;
	}
	return true;
}

static void lpc_reset(struct device *dev)
{
	pci_function_reset(&((struct lpc *)dev)->fn);
}

static bool lpc_apply(struct device *dev, GError **error)
{
	return pci_function_apply(&((struct lpc *)dev)->fn, error);
}

static void lpc_unrealize(struct device *dev)
{
	pci_function_fini(&((struct lpc *)dev)->fn);
}

static const struct device_ops lpc_ops = {
	.name = "lpc",
	.bus = DEVICE_BUS_PCI,
	.size = sizeof(struct lpc),
	.state = &lpc_desc,
	.state_offset = offsetof(struct lpc, state),
	.realize = lpc_realize,
	.reset = lpc_reset,
	.apply = lpc_apply,
	.unrealize = lpc_unrealize,
};

struct device *lpc_new(void)
{
	return device_new(&lpc_ops, NULL, NULL, NULL);
}
