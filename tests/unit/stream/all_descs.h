// Every section that this program writes, and the description of what is in it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "accel/kvm_state.h"
#include "backend/chardev/chardev.h"
#include "cpr/internal.h"
#include "device/legacy/acpi_pm.h"
#include "device/legacy/i8042.h"
#include "device/legacy/rtc_cmos.h"
#include "device/legacy/uart16550.h"
#include "device/pci/host_bridge.h"
#include "device/pci/lpc.h"
#include "machine/machine_priv.h"
#include "monitor/session.h"
#include "state/fdstore_priv.h"

static inline struct device *all_descs_uart(void)
{
	return uart16550_new(0x3f8, 4, NULL);
}

static inline struct device *all_descs_rtc(void)
{
	return rtc_cmos_new(8, false, 1 << 30, 0);
}

static inline struct device *all_descs_pm(void)
{
	return acpi_pm_new(9);
}

static inline struct device *all_descs_bridge(void)
{
	return host_bridge_new(0xb0000000);
}

/** struct section_kind - One row: sections named @pattern hold @desc, or @driver's or @make's state */
struct section_kind {
	const char *pattern;
	const struct state_desc *desc;
	const char *driver;
	struct device *(*make)(void);
};

/** section_kinds - A section that is new to the program is a new row here, and a new golden file */
static const struct section_kind section_kinds[] = {
	{"chardev/*", &chardev_state_desc},
	{"cpr/update", &update_state_desc},
	{"fd-manifest", &fd_manifest_desc},
	{"isa/*/acpi-pm", .make = all_descs_pm},
	{"isa/*/i8042", .make = i8042_new},
	{"isa/*/rtc-cmos", .make = all_descs_rtc},
	{"isa/*/uart16550", .make = all_descs_uart},
	{"kvm/clock", &kvm_saved_clock_desc},
	{"kvm/irqchip", &kvm_saved_irqchip_desc},
	{"kvm/pit", &kvm_saved_pit_desc},
	{"kvm/vcpu", &kvm_saved_vcpu_desc},
	{"machine", &machine_state_desc},
	{"monitor/*/chardev", &chardev_state_desc},
	{"monitor/*/session", &monitor_session_desc},
	{"pci/*/host-bridge", .make = all_descs_bridge},
	{"pci/*/lpc", .make = lpc_new},
	{"pci/*/pcie-root-port", .driver = "pcie-root-port"},
	{"pci/*/virtio-blk", .driver = "virtio-blk-pci"},
	{"pci/*/virtio-rng", .driver = "virtio-rng-pci"},
	{"pci/*/virtio-serial", .driver = "virtio-serial-pci"},
};

/** section_kind_desc() - What a row's sections hold. */
static inline const struct state_desc *section_kind_desc(const struct section_kind *kind)
{
	const struct state_desc *desc = kind->desc;

	if (kind->driver)
		desc = device_ops_find(kind->driver)->state;
	if (kind->make) {
		struct device *dev = kind->make();

		desc = dev->ops->state;
		device_free(dev);
	}
	g_assert_nonnull(desc);
	return desc;
}

/** section_desc() - What a section named @name holds; fails the test if no row knows it. */
static inline const struct state_desc *section_desc(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(section_kinds); i++)
		if (g_pattern_match_simple(section_kinds[i].pattern, name))
			return section_kind_desc(&section_kinds[i]);
	g_error("section '%s' is not in all_descs.h", name);
}

static inline void all_descs_add(GPtrArray *descs, const struct state_desc *desc)
{
	if (!g_ptr_array_find(descs, desc, NULL))
		g_ptr_array_add(descs, (gpointer)desc);
}

/** all_descs() - Every section's description, once. */
static inline GPtrArray *all_descs(void)
{
	GPtrArray *descs = g_ptr_array_new();

	for (size_t i = 0; i < G_N_ELEMENTS(section_kinds); i++)
		all_descs_add(descs, section_kind_desc(&section_kinds[i]));
	return descs;
}

/** all_descs_nested() - all_descs() and those nested in them. */
static inline GPtrArray *all_descs_nested(void)
{
	GPtrArray *descs = all_descs();

	for (guint i = 0; i < descs->len; i++) {
		const struct state_desc *desc = descs->pdata[i];

		for (uint32_t j = 0; j < desc->n_fields; j++)
			if (desc->fields[j].desc)
				all_descs_add(descs, desc->fields[j].desc);
	}
	return descs;
}

/** source_path() - Of a file or folder of the source tree. */
static inline char *source_path(const char *name)
{
	const char *root = g_getenv("MOLT_SOURCE_ROOT");

	if (!root)
		g_error("MOLT_SOURCE_ROOT is not set: run this by meson test");
	return g_build_filename(root, name, NULL);
}
