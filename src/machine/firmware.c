// What firmware would do before the kernel: PCI resources, tables, loading, registers.
// SPDX-License-Identifier: Apache-2.0
#include "machine/machine_priv.h"

#include <string.h>

#include "base/error.h"
#include "device/pci/pci.h"
#include "machine/acpi.h"
#include "machine/layout.h"
#include "machine/smbios.h"

#define PCI_COMMAND	   0x04
#define PCI_COMMAND_IO	   0x1
#define PCI_COMMAND_MEMORY 0x2
#define PCI_BAR0	   0x10

/* PCI-to-PCI Bridge 1.2 section 3.2.5. */
#define BRIDGE_BUSES	     0x18 /* primary, secondary, subordinate: a byte each */
#define BRIDGE_IO	     0x1c /* base and limit: a byte each */
#define BRIDGE_IO_ALIGN	     0x1000
#define BRIDGE_IO_CLOSED     0x00f0
#define BRIDGE_MEMORY	     0x20 /* base and limit: 16 bits each */
#define BRIDGE_MEMORY_ALIGN  0x100000
#define BRIDGE_MEMORY_CLOSED 0x0000fff0

/* Bump allocators over the windows that the DSDT names, and over the numbers of buses. */
struct pci_windows {
	uint64_t io, memory32, memory64;
	uint8_t bus;
};

static void align(uint64_t *next, uint64_t alignment)
{
	*next = (*next + alignment - 1) & ~(alignment - 1);
}

static uint64_t take(uint64_t *next, uint64_t size_bytes)
{
	uint64_t base;

	align(next, size_bytes);
	base = *next;
	*next += size_bytes;
	return base;
}

/* A bridge passes on 64-bit addresses only where they may be prefetched, and no BAR here may be. */
static void assign_bar(struct machine *machine, uint16_t bdf, struct pci_function *fn,
		       uint32_t index, struct pci_windows *windows)
{
	struct pci_bus *root = machine->env.pci;
	struct pci_bar *bar = &fn->bars[index];
	uint32_t offset = PCI_BAR0 + 4 * index;
	uint64_t base;

	if (bar->is_io)
		base = take(&windows->io, bar->region.size_bytes);
	else if (bar->is_64 && fn->bus == root)
		base = take(&windows->memory64, MAX(bar->region.size_bytes, 4096));
	else
		base = take(&windows->memory32, MAX(bar->region.size_bytes, 4096));
	pci_bus_config_write(root, bdf, offset, 4, base);
	if (bar->is_64)
		pci_bus_config_write(root, bdf, offset + 4, 4, base >> 32);
}

static void assign_function(struct machine *machine, uint8_t bus, struct pci_function *fn,
			    struct pci_windows *windows)
{
	const uint16_t bdf = bus << 8 | fn->devfn;

	for (uint32_t bar = 0; bar < PCI_N_BARS; bar++)
		if (fn->bars[bar].region.size_bytes)
			assign_bar(machine, bdf, fn, bar, windows);
	pci_bus_config_write(machine->env.pci, bdf, PCI_COMMAND, 2,
			     PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
}

static void assign_bus(struct machine *machine, const struct pci_bus *bus, uint8_t number,
		       struct pci_windows *windows)
{
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];
		struct pci_function *fn = (struct pci_function *)dev;

		if (dev->ops->bus == DEVICE_BUS_PCI && fn->bus == bus)
			assign_function(machine, number, fn, windows);
	}
}

/*
 * Number the bus behind, then open the bridge's windows as far as something behind has got addresses.
 * Base and limit hold the upper bits of both; a base above the limit closes a window.
 */
static void assign_bridge(struct machine *machine, struct pci_function *bridge,
			  struct pci_windows *windows)
{
	struct pci_bus *root = machine->env.pci;
	const uint8_t number = ++windows->bus;
	uint32_t io = BRIDGE_IO_CLOSED, memory = BRIDGE_MEMORY_CLOSED;
	uint64_t io_base, memory_base;

	align(&windows->io, BRIDGE_IO_ALIGN);
	align(&windows->memory32, BRIDGE_MEMORY_ALIGN);
	io_base = windows->io;
	memory_base = windows->memory32;
	pci_bus_config_write(root, bridge->devfn, BRIDGE_BUSES, 2, number << 8);
	pci_bus_config_write(root, bridge->devfn, BRIDGE_BUSES + 2, 1, number);
	assign_bus(machine, bridge->secondary, number, windows);
	if (windows->io > io_base)
		io = io_base >> 8 | ((windows->io - 1) & 0xf000);
	if (windows->memory32 > memory_base)
		memory = memory_base >> 16 | ((windows->memory32 - 1) & 0xfff00000);
	align(&windows->io, BRIDGE_IO_ALIGN);
	align(&windows->memory32, BRIDGE_MEMORY_ALIGN);
	pci_bus_config_write(root, bridge->devfn, BRIDGE_IO, 2, io);
	pci_bus_config_write(root, bridge->devfn, BRIDGE_MEMORY, 4, memory);
}

void board_assign_resources(struct machine *machine)
{
	struct pci_windows windows = {
		.io = LAYOUT_PCI_IO,
		.memory32 = LAYOUT_PCI32,
		.memory64 = machine->pci64_base,
	};

	assign_bus(machine, machine->env.pci, 0, &windows);
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (dev->ops->bridge)
			assign_bridge(machine, (struct pci_function *)dev, &windows);
	}
}

static bool write_tables(struct machine *machine, GError **error)
{
	struct acpi_params params = {
		.n_cpus = machine->config->n_cpus,
		.pci64_base = machine->pci64_base,
	};
	g_autoptr(GByteArray) acpi = NULL;
	g_autoptr(GByteArray) smbios = NULL;

	for (guint i = 0; i < machine->config->serials->len; i++) {
		const struct serial_config *serial = machine->config->serials->pdata[i];

		if (serial->chardev)
			params.serials |= 1u << i;
	}
	acpi = acpi_build(&params, LAYOUT_ACPI);
	smbios = smbios_build(machine->config, machine->main_ram->size_bytes, LAYOUT_SMBIOS);
	if (LAYOUT_ACPI + acpi->len > LAYOUT_ACPI_END ||
	    LAYOUT_SMBIOS + smbios->len > LAYOUT_SMBIOS_END)
		return error_set_generic(error, "firmware tables do not fit below 1 MiB");
	return (guest_memory_write(&machine->memory, LAYOUT_ACPI, acpi->data, acpi->len) &&
		guest_memory_write(&machine->memory, LAYOUT_SMBIOS, smbios->data, smbios->len)) ||
	       error_set_generic(error, "no RAM below 1 MiB for firmware tables");
}

bool board_boot(struct machine *machine, GError **error)
{
	struct loader_target target = {
		.memory = &machine->memory,
		.low_end = machine->low_ram_end,
		.high_size_bytes = machine->high_ram_size_bytes,
		.rsdp = LAYOUT_ACPI,
	};
	struct kvm_boot_regs regs;

	if (machine->loader->kernel_fd < 0)
		return error_set_generic(error, "nothing to boot: give a kernel with -kernel "
						"(there is no firmware)");
	board_assign_resources(machine);
	return write_tables(machine, error) &&
	       loader_load(machine->loader, &target, &regs, error) &&
	       kvm_vm_set_boot_regs(machine->kvm, &regs, error);
}
