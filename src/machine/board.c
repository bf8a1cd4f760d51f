// The q35 board: the only place that creates devices and wires them to memory, KVM and back-ends.
// SPDX-License-Identifier: Apache-2.0
#include "machine/machine_priv.h"

#include <string.h>

#include "backend/block/block.h"
#include "base/error.h"
#include "base/loop.h"
#include "device/legacy/acpi_pm.h"
#include "device/legacy/i8042.h"
#include "device/legacy/rtc_cmos.h"
#include "device/legacy/uart16550.h"
#include "device/pci/host_bridge.h"
#include "device/pci/lpc.h"
#include "device/pci/pci.h"
#include "machine/layout.h"

/* ---- memory ---- */

static bool add_ram_block(struct machine *machine, const struct memory_backend_config *config,
			  GError **error)
{
	struct ram_block *block = ram_block_new(config, machine->fds, error);

	if (!block)
		return false;
	g_ptr_array_add(machine->ram_blocks, block);
	return true;
}

/* Explicit back-ends in the order given; implicit RAM, a memfd with aux-ram-share=on, comes last.
 */
static bool build_ram_blocks(struct machine *machine, GError **error)
{
	const struct vm_config *config = machine->config;
	struct memory_backend_config implicit = {
		.kind = MEMORY_BACKEND_RAM,
		.id = (char *)"pc.ram",
		.size_bytes = config->ram_size_bytes,
		.share = config->machine.aux_ram_share,
		.seal = true,
		.merge = true,
		.dump = true,
	};
	const char *main_ram = config->machine.memory_backend;

	for (guint i = 0; i < config->memory_backends->len; i++)
		if (!add_ram_block(machine, config->memory_backends->pdata[i], error))
			return false;
	if (!main_ram) {
		main_ram = implicit.id;
		if (!add_ram_block(machine, &implicit, error))
			return false;
	}
	for (guint i = 0; i < machine->ram_blocks->len; i++) {
		struct ram_block *block = machine->ram_blocks->pdata[i];

		if (strcmp(block->name, main_ram) == 0)
			machine->main_ram = block;
	}
	return machine->main_ram ||
	       error_set_generic(error, "-machine memory-backend=%s: no such object", main_ram);
}

/* Split RAM around the hole below 4 GiB that the PCI window and interrupt controllers need. */
static bool map_ram(struct machine *machine, GError **error)
{
	uint64_t size = machine->main_ram->size_bytes;
	uint64_t low = size <= LAYOUT_LOW_RAM_MAX ? size : LAYOUT_LOW_RAM_SPLIT;

	if (size < 2 * MIB)
		return error_set_generic(error, "-m: the q35 machine needs at least 2 MiB");
	machine->low_ram_end = low;
	machine->high_ram_size_bytes = size - low;
	machine->pci64_base = (LAYOUT_HIGH_RAM + machine->high_ram_size_bytes + GIB - 1) &
			      ~(GIB - 1);
	if (!guest_memory_add(&machine->memory, 0, machine->main_ram, 0, low, false, error))
		return false;
	return size == low || guest_memory_add(&machine->memory, LAYOUT_HIGH_RAM, machine->main_ram,
					       low, size - low, false, error);
}

/* ---- what devices may use ---- */

static struct chardev *env_find_chardev(void *opaque, const char *id)
{
	return machine_find_chardev(opaque, id);
}

static struct block_node *env_find_block(void *opaque, const char *id)
{
	return machine_find_block(opaque, id, id);
}

static const char *env_find_rng_path(void *opaque, const char *id)
{
	const struct machine *machine = opaque;

	for (guint i = 0; i < machine->config->rngs->len; i++) {
		const struct rng_config *rng = machine->config->rngs->pdata[i];

		if (strcmp(rng->id, id) == 0)
			return rng->filename;
	}
	return NULL;
}

static struct io_thread *env_find_iothread(void *opaque, const char *id)
{
	const struct machine *machine = opaque;

	for (guint i = 0; i < machine->config->iothreads->len; i++) {
		const struct iothread_config *iothread = machine->config->iothreads->pdata[i];

		if (strcmp(iothread->id, id) == 0)
			return machine->io_threads->pdata[i];
	}
	return NULL;
}

static struct device *env_find_device(void *opaque, const char *id)
{
	const struct machine *machine = opaque;

	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (g_strcmp0(dev->id, id) == 0 || g_strcmp0(dev->ops->driver, id) == 0)
			return dev;
	}
	return NULL;
}

static void env_power(void *opaque, enum power_request request)
{
	static const uint32_t requests[] = {
		[POWER_RESET] = MACHINE_REQUEST_RESET,
		[POWER_OFF] = MACHINE_REQUEST_OFF,
		[POWER_EJECT] = MACHINE_REQUEST_EJECT,
	};

	machine_request(opaque, requests[request]);
}

static void env_io_error(void *opaque, json_t *event, bool stop)
{
	machine_io_error(opaque, event, stop);
}

static void env_drained(void *opaque)
{
	struct machine *machine = opaque;

	hold_reported(&machine->hold);
}

static void vcpu_event(void *opaque, uint32_t cpu_index, enum vcpu_event event)
{
	struct machine *machine = opaque;

	(void)cpu_index;
	if (event == VCPU_EVENT_PARKED)
		g_source_set_ready_time(machine->told, 0);
	else
		machine_request(machine, event == VCPU_EVENT_ERROR ? MACHINE_REQUEST_ERROR
								   : MACHINE_REQUEST_RESET);
}

static bool build_kvm(struct machine *machine, GError **error)
{
	const struct vm_config *config = machine->config;
	struct kvm_params params = {
		.n_cpus = config->n_cpus,
		.n_cores = config->n_cores,
		.n_threads = config->n_threads,
		.memory = &machine->memory,
		.pio = machine->pio,
		.mmio = machine->mmio,
		.event = vcpu_event,
		.opaque = machine,
	};

	machine->kvm = kvm_vm_new(&params, error);
	if (machine->kvm)
		board_init_env(machine, kvm_vm_accel(machine->kvm));
	return machine->kvm;
}

void board_init_env(struct machine *machine, struct accel *accel)
{
	machine->env = (struct device_env){
		.fds = machine->fds,
		.memory = &machine->memory,
		.pio = machine->pio,
		.mmio = machine->mmio,
		.accel = accel,
		.find_chardev = env_find_chardev,
		.find_block = env_find_block,
		.find_rng_path = env_find_rng_path,
		.find_iothread = env_find_iothread,
		.find_device = env_find_device,
		.n_cpus = machine->config->n_cpus,
		.power = env_power,
		.io_error = env_io_error,
		.drained = env_drained,
		.opaque = machine,
	};
}

/* ---- back-ends ---- */

bool board_build_backends(struct machine *machine, GError **error)
{
	const struct vm_config *config = machine->config;

	for (guint i = 0; i < config->iothreads->len; i++) {
		const struct iothread_config *iothread = config->iothreads->pdata[i];
		g_autofree char *name = g_strdup_printf("IO %.12s", iothread->id);
		struct io_thread *thread = io_thread_new(name, error);

		if (!thread)
			return false;
		g_ptr_array_add(machine->io_threads, thread);
	}

	for (guint i = 0; i < config->chardevs->len; i++) {
		const struct chardev_config *chardev_config = config->chardevs->pdata[i];
		struct chardev *chardev;

		if (chardev_is_monitors(config, chardev_config->id))
			continue;
		chardev = chardev_set_open(machine->chardevs, config, chardev_config->id,
					   machine->fds, error);
		if (!chardev)
			return false;
		g_ptr_array_add(machine->own_chardevs, chardev);
	}
	for (guint i = 0; i < config->blocks->len; i++) {
		struct block_node *node =
			block_node_new(config->blocks->pdata[i], machine->fds, error);

		if (!node)
			return false;
		g_ptr_array_add(machine->blocks, node);
	}
	return true;
}

/* ---- devices ---- */

/* Realize @dev at @path and keep it; takes both. */
static bool add_device(struct machine *machine, struct device *dev, char *path, GError **error)
{
	if (!dev) {
		g_free(path);
		return false;
	}
	g_ptr_array_add(machine->devices, dev);
	return device_realize(dev, path, &machine->env, error);
}

static bool add_chip(struct machine *machine, struct device *dev, uint8_t devfn, GError **error)
{
	return add_device(machine, dev, pci_path(NULL, devfn), error) &&
	       pci_bus_plug(machine->env.pci, (struct pci_function *)dev, devfn, error);
}

static bool build_chipset(struct machine *machine, GError **error)
{
	const struct vm_config *config = machine->config;

	if (!add_chip(machine, host_bridge_new(LAYOUT_ECAM), 0, error) ||
	    !add_chip(machine, lpc_new(), 0x1f << 3, error))
		return false;
	machine->pm = acpi_pm_new(LAYOUT_IRQ_SCI);
	return add_device(machine, machine->pm, g_strdup("isa/600"), error) &&
	       add_device(machine,
			  rtc_cmos_new(LAYOUT_IRQ_RTC, config->rtc_localtime, machine->low_ram_end,
				       machine->high_ram_size_bytes),
			  g_strdup("isa/70"), error) &&
	       add_device(machine, i8042_new(), g_strdup("isa/60"), error);
}

static bool build_serials(struct machine *machine, GError **error)
{
	static const struct {
		uint16_t port;
		uint8_t irq;
		const char *path;
	} com[VM_SERIALS_MAX] = {
		{0x3f8, LAYOUT_IRQ_COM1, "isa/3f8"},
		{0x2f8, LAYOUT_IRQ_COM2, "isa/2f8"},
	};

	for (guint i = 0; i < machine->config->serials->len; i++) {
		const struct serial_config *serial = machine->config->serials->pdata[i];
		struct chardev *chardev;

		if (!serial->chardev)
			continue;
		chardev = machine_find_chardev(machine, serial->chardev);
		if (!add_device(machine, uart16550_new(com[i].port, com[i].irq, chardev),
				g_strdup(com[i].path), error))
			return false;
	}
	return true;
}

struct device *board_make_device(const struct device_config *config, GError **error)
{
	const struct device_ops *ops = device_ops_find(config->driver);
	json_t *props = config->props ? json_copy(config->props) : json_object();
	struct device *dev = NULL;

	if (ops && ops->bus == DEVICE_BUS_PCI) {
		json_object_del(props, "bus");
		json_object_del(props, "addr");
	}
	if (ops)
		dev = device_new(ops, config->id, props, error);
	else
		error_set_generic(error, "no such device; -device help lists them");
	json_decref(props);
	if (dev)
		dev->config = config;
	return dev;
}

static struct pci_bus *find_bus(struct machine *machine, const char *name)
{
	struct pci_bus *bus = machine->env.pci;

	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (dev->ops->bridge && g_strcmp0(dev->id, name) == 0)
			bus = ((struct pci_function *)dev)->secondary;
	}
	return bus;
}

/* Forget and free a device that could not be plugged, or is not any more. */
static void remove_device(struct machine *machine, struct device *dev)
{
	g_ptr_array_remove(machine->devices, dev);
	device_free(dev);
}

/* Complete before the guest can find it: in a running machine it takes work from its first access. */
static bool plug_pci(struct machine *machine, struct device *dev, struct place *place,
		     GError **error)
{
	struct pci_bus *bus = find_bus(machine, place->bus);

	if (!add_device(machine, dev, g_steal_pointer(&place->path), error))
		return false;
	hold_admit(&machine->hold, dev);
	return pci_bus_plug(bus, (struct pci_function *)dev, place->devfn, error);
}

static bool plug_placed(struct machine *machine, struct device *dev, GError **error)
{
	struct place place = {0};

	if (!placing_take(machine->placing, dev->ops, dev->config, &place, error))
		return false;
	if (plug_pci(machine, dev, &place, error))
		return true;
	placing_give(machine->placing, dev->config, place.devfn);
	return false;
}

char *board_device_path(const struct machine *machine, const struct device_config *config)
{
	guint index = 0;

	if (config->id)
		return g_strdup_printf("dev/%s", config->id);
	g_ptr_array_find(machine->config->devices, config, &index);
	return g_strdup_printf("dev/%u", index);
}

struct device *board_plug(struct machine *machine, const struct device_config *config,
			  GError **error)
{
	struct device *dev = board_make_device(config, error);
	bool ok;

	if (!dev)
		return NULL;
	if (dev->ops->bus == DEVICE_BUS_PCI)
		ok = plug_placed(machine, dev, error);
	else
		ok = add_device(machine, dev, board_device_path(machine, config), error);
	if (ok)
		return dev;
	remove_device(machine, dev);
	return NULL;
}

void board_unplug(struct machine *machine, struct device *dev)
{
	if (dev->ops->bus == DEVICE_BUS_PCI)
		placing_give(machine->placing, dev->config, ((struct pci_function *)dev)->devfn);
	remove_device(machine, dev);
}

static bool build_devices(struct machine *machine, GError **error)
{
	const GPtrArray *devices = machine->config->devices;

	for (guint i = 0; i < devices->len; i++) {
		const struct device_config *config = devices->pdata[i];

		if (board_plug(machine, config, error))
			continue;
		g_prefix_error(error, "-device %s%s%s: ", config->driver, config->id ? ",id=" : "",
			       config->id ? config->id : "");
		return false;
	}
	return true;
}

bool board_build_devices(struct machine *machine, GError **error)
{
	return build_chipset(machine, error) && build_serials(machine, error) &&
	       build_devices(machine, error);
}

void board_init(struct machine *machine)
{
	machine->ram_blocks = g_ptr_array_new();
	machine->blocks = g_ptr_array_new();
	machine->io_threads = g_ptr_array_new_with_free_func((GDestroyNotify)io_thread_free);
	machine->placing = placing_new();
	machine->pio = io_space_new("pio");
	machine->mmio = io_space_new("mmio");
}

bool board_build(struct machine *machine, GError **error)
{
	board_init(machine);
	if (!build_ram_blocks(machine, error) || !map_ram(machine, error))
		return false;
	machine->loader = loader_open(machine->config, machine->fds, error);
	return machine->loader && board_build_backends(machine, error) &&
	       build_kvm(machine, error) && board_build_devices(machine, error);
}

static void close_chardev(struct machine *machine, struct chardev *chardev, bool disown)
{
	if (disown)
		chardev_disown(chardev);
	chardev_set_close(machine->chardevs, chardev);
}

void board_teardown(struct machine *machine, bool disown)
{
	while (machine->devices->len > 0) {
		device_free(machine->devices->pdata[machine->devices->len - 1]);
		g_ptr_array_set_size(machine->devices, machine->devices->len - 1);
	}
	machine->pm = NULL;
	for (guint i = 0; machine->blocks && i < machine->blocks->len; i++)
		block_node_free(machine->blocks->pdata[i]);
	for (guint i = 0; i < machine->own_chardevs->len; i++)
		close_chardev(machine, machine->own_chardevs->pdata[i], disown);
	g_ptr_array_set_size(machine->own_chardevs, 0);
	g_clear_pointer(&machine->kvm, kvm_vm_free);
	g_clear_pointer(&machine->loader, loader_free);
	for (guint i = 0; machine->ram_blocks && i < machine->ram_blocks->len; i++)
		ram_block_free(machine->ram_blocks->pdata[i]);
	machine->main_ram = NULL;
	machine->memory = (struct guest_memory){0};
	g_clear_pointer(&machine->blocks, g_ptr_array_unref);
	g_clear_pointer(&machine->ram_blocks, g_ptr_array_unref);
	g_clear_pointer(&machine->io_threads, g_ptr_array_unref);
	g_clear_pointer(&machine->placing, placing_free);
	g_clear_pointer(&machine->pio, io_space_free);
	g_clear_pointer(&machine->mmio, io_space_free);
}
