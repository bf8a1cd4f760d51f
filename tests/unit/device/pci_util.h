// A PCI function for tests, on a root bus behind a real host bridge.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "device/pci/host_bridge.h"
#include "fake.h"

#define ECAM 0xb0000000ULL

#define TOY_VECTORS  4
#define TOY_DEVFN    (3 << 3)
#define TOY_MEM_BAR  0 /* 8 KiB, 32-bit */
#define TOY_MSIX_BAR 1
#define TOY_IO_BAR   2 /* 32 ports */
#define TOY_64_BAR   4 /* 1 MiB, 64-bit */

struct toy_state {
	struct pci_function_state pci;
};

struct toy {
	struct pci_function fn;
	struct toy_state state;
	uint64_t base[PCI_N_BARS]; /* as told by moved() */
	uint32_t n_moved;
};

static const struct state_field toy_fields[] = {
	FIELD_STRUCT(struct toy_state, pci, 1, &pci_function_desc),
};

static const struct state_desc toy_desc = {
	.name = "toy",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct toy_state, toy_fields),
};

static inline uint64_t toy_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	return 0x1000 + offset_bytes;
}

static inline void toy_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
}

static const struct io_ops toy_io_ops = {
	.read = toy_read,
	.write = toy_write,
	.min_size = 1,
	.max_size = 4,
};

static inline void toy_moved(struct pci_function *fn, uint32_t bar, uint64_t base)
{
	struct toy *toy = (struct toy *)fn;

	toy->base[bar] = base;
	toy->n_moved++;
}

static inline bool toy_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct toy *toy = (struct toy *)dev;
	struct pci_ids ids = {0x1af4, 0x1234, 0x1af4, 0x5678, 9, 0x020000};

	pci_function_init(&toy->fn, &toy->state.pci, &ids);
	pci_function_add_bar(&toy->fn, TOY_MEM_BAR, 5000, false, false, &toy_io_ops, toy,
			     toy_moved);
	pci_function_add_bar(&toy->fn, TOY_IO_BAR, 32, true, false, &toy_io_ops, toy, toy_moved);
	pci_function_add_bar(&toy->fn, TOY_64_BAR, 1 << 20, false, true, &toy_io_ops, toy,
			     toy_moved);
	return pci_function_add_msix(&toy->fn, TOY_VECTORS, TOY_MSIX_BAR, error);
}

static inline void toy_reset(struct device *dev)
{
	pci_function_reset(&((struct toy *)dev)->fn);
}

static inline bool toy_capture(struct device *dev, GError **error)
{
	pci_function_capture(&((struct toy *)dev)->fn);
	return true;
}

static inline bool toy_apply(struct device *dev, GError **error)
{
	return pci_function_apply(&((struct toy *)dev)->fn, error);
}

static inline void toy_unrealize(struct device *dev)
{
	pci_function_fini(&((struct toy *)dev)->fn);
}

static const struct device_ops toy_ops = {
	.name = "toy",
	.bus = DEVICE_BUS_PCI,
	.size = sizeof(struct toy),
	.state = &toy_desc,
	.state_offset = offsetof(struct toy, state),
	.realize = toy_realize,
	.reset = toy_reset,
	.capture = toy_capture,
	.apply = toy_apply,
	.unrealize = toy_unrealize,
};

/** struct pci_rig - A machine with a host bridge at 00.0 and a toy at 00.3 */
struct pci_rig {
	struct fake_machine *m;
	struct device *bridge;
	struct toy *toy;
};

static inline void fake_plug(struct fake_machine *m, struct device *dev, uint8_t devfn)
{
	GError *error = NULL;

	pci_bus_plug(m->env.pci, (struct pci_function *)dev, devfn, &error);
	g_assert_no_error(error);
}

static inline struct pci_rig pci_rig_new(void)
{
	struct pci_rig rig = {.m = fake_machine_new()};

	rig.bridge = fake_start(rig.m, host_bridge_new(ECAM), "pci/00.0");
	fake_plug(rig.m, rig.bridge, 0);
	rig.toy =
		(struct toy *)fake_start(rig.m, device_new(&toy_ops, NULL, NULL, NULL), "pci/00.3");
	fake_plug(rig.m, &rig.toy->fn.dev, TOY_DEVFN);
	return rig;
}

static inline void pci_rig_free(struct pci_rig *rig)
{
	device_free(&rig->toy->fn.dev);
	device_free(rig->bridge);
	fake_machine_free(rig->m);
}

static inline uint64_t ecam_of(uint8_t devfn, uint32_t reg)
{
	return ECAM + ((uint64_t)devfn << 12) + reg;
}

/* The toy's registers. */
static inline uint64_t toy_get(struct pci_rig *rig, uint32_t reg, uint32_t size)
{
	return fake_load(rig->m, ecam_of(TOY_DEVFN, reg), size);
}

static inline void toy_put(struct pci_rig *rig, uint32_t reg, uint32_t size, uint64_t value)
{
	fake_store(rig->m, ecam_of(TOY_DEVFN, reg), size, value);
}
