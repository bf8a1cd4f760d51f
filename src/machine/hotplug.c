// Hot plug: devices that come and go while the machine is there.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "device/legacy/acpi_hotplug.h"
#include "device/legacy/acpi_pm.h"
#include "device/pci/pci.h"
#include "machine/machine_priv.h"
#include "options/text.h"

/**
 * DOC: theory of operation
 *
 * The configuration has every device there is, at every time: it is what an update tells a successor.
 * A device that comes is added to it with the address it got.  When one goes, the addresses of all are
 * written down, because those without one would be placed differently in its absence.
 *
 * A device that comes is complete, and works, before it is on its bus; then the guest is told.  A
 * device that is to go is the guest's until it ejects it (device/legacy/acpi_hotplug.c); then the
 * vCPUs are parked once, so that no access is on its way, and it is freed, as soon as the host has
 * answered what it was asked.  Until then the guest does not see it, and the configuration has it.
 * What is plugged into it (ports of a serial bus, what is behind a root port) goes first: no successor
 * could build it.
 */

#define PERIPHERAL "/machine/peripheral/"

/* A guest that has not answered may be asked again, but not all the time. */
#define ASK_AGAIN_NS (5 * NS_PER_SEC)

/* Before it runs here there is nobody to be asked: it is elsewhere, or has not begun. */
static bool guest_is_here(const struct machine *machine)
{
	return machine->runstate != RUNSTATE_INMIGRATE && machine->runstate != RUNSTATE_PRELAUNCH;
}

/* ---- device_add ---- */

/* The guest is told of slots, on the root bus. */
static bool check_place(const struct vm_config *vm, const struct device_config *config,
			GError **error)
{
	const char *addr = device_config_addr(config);
	const char *bus = device_config_bus(config);
	uint8_t devfn;

	if (vm_config_device(vm, bus))
		return error_set_generic(
			error, "Bus '%s' does not support hotplugging; give bus=pcie.0", bus);
	if (addr && text_to_devfn(addr, &devfn) && devfn & 7)
		return error_set_generic(error,
					 "addr=%s: whole slots are hot-plugged; give addr=0x%x",
					 addr, devfn >> 3);
	return true;
}

static bool check_device(const struct vm_config *vm, const struct device_config *config,
			 GError **error)
{
	const struct device_ops *ops = device_ops_find(config->driver);
	g_autofree char *driver = text_printable(config->driver);

	if (!ops)
		return error_set_generic(error, "'%s' is not a valid device model name", driver);
	if (config->id && vm_config_device(vm, config->id))
		return error_set_generic(error, "Duplicate device ID '%s'", config->id);
	return ops->bus == DEVICE_BUS_PCI ||
	       error_set_generic(error,
				 "Device '%s' does not support hotplugging; give it with -device "
				 "at the start",
				 driver);
}

/* Read @args and add them to the configuration; NULL with @error set. */
static struct device_config *config_add(struct vm_config *vm, const json_t *args, bool guest,
					GError **error)
{
	struct device_config *config = device_config_read(args, "device_add", error);

	if (!config)
		return NULL;
	if (!check_device(vm, config, error) || (guest && !check_place(vm, config, error))) {
		device_config_free(config);
		return NULL;
	}
	return vm_config_plug(vm, config, error) ? config : NULL;
}

static void write_address(struct device *dev)
{
	uint8_t devfn = ((struct pci_function *)dev)->devfn;
	g_autofree char *addr = devfn & 7 ? g_strdup_printf("0x%x.%x", devfn >> 3, devfn & 7)
					  : g_strdup_printf("0x%x", devfn >> 3);

	json_object_set_new(dev->config->props, "addr", json_string(addr));
}

bool machine_device_add(struct machine *machine, const json_t *args, GError **error)
{
	const bool guest = guest_is_here(machine);
	struct device_config *config = config_add(machine->config, args, guest, error);
	struct device *dev;

	if (!config)
		return false;
	dev = board_plug(machine, config, error);
	if (!dev) {
		vm_config_unplug(machine->config, config);
		return false;
	}
	write_address(dev);
	if (guest)
		acpi_pm_plugged(machine->pm, pci_function_root_slot((struct pci_function *)dev));
	else if (machine->runstate == RUNSTATE_PRELAUNCH)
		board_assign_resources(machine);
	return true;
}

bool machine_device_add_early(struct vm_config *vm, const json_t *args, GError **error)
{
	struct device_config *config = config_add(vm, args, false, error);

	if (!config)
		return false;
	if (board_check_devices(vm, error))
		return true;
	vm_config_unplug(vm, config);
	return false;
}

/* ---- a device goes ---- */

static bool is_plugged_pci(const struct device *dev)
{
	return dev->config && dev->ops->bus == DEVICE_BUS_PCI;
}

/* The event's data: the object model is QEMU's, where a device without an id has a number. */
static json_t *event_data(const struct machine *machine, const struct device *dev)
{
	guint index = 0;
	g_autofree char *path = NULL;

	if (dev->id) {
		path = g_strconcat(PERIPHERAL, dev->id, NULL);
		return json_pack("{s:s, s:s}", "device", dev->id, "path", path);
	}
	g_ptr_array_find(machine->config->devices, dev->config, &index);
	path = g_strdup_printf("/machine/peripheral-anon/device[%u]", index);
	return json_pack("{s:s}", "path", path);
}

static void write_addresses(struct machine *machine)
{
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (is_plugged_pci(dev) && !device_config_addr(dev->config))
			write_address(dev);
	}
}

/* Paths by number are numbers in the configuration, which a successor counts anew. */
static void number_paths(struct machine *machine)
{
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (!dev->config || dev->ops->bus == DEVICE_BUS_PCI || dev->parent)
			continue;
		g_free(dev->path);
		dev->path = board_device_path(machine, dev->config);
	}
}

static void unplug(struct machine *machine, struct device *dev);

/* What is plugged into @dev was made after it. */
static void unplug_dependents(struct machine *machine, const struct device *dev)
{
	for (guint i = machine->devices->len; i-- > 0;) {
		struct device *dependent = machine->devices->pdata[i];

		if (dependent->parent == dev)
			unplug(machine, dependent);
	}
}

static void unplug(struct machine *machine, struct device *dev)
{
	struct device_config *config = (struct device_config *)dev->config;
	json_t *data;

	unplug_dependents(machine, dev);
	data = event_data(machine, dev);
	write_addresses(machine);
	board_unplug(machine, dev);
	vm_config_unplug(machine->config, config);
	number_paths(machine);
	machine_emit(machine, MACHINE_EVENT_DEVICE_DELETED, data);
}

static bool is_in(const struct device *dev, uint32_t slots)
{
	return is_plugged_pci(dev) &&
	       slots >> pci_function_root_slot((const struct pci_function *)dev) & 1;
}

/* What is behind a bridge goes before the bridge: it was made after it. */
static void unplug_slots(struct machine *machine, uint32_t slots)
{
	for (guint i = machine->devices->len; i-- > 0;) {
		struct device *dev = machine->devices->pdata[i];

		if (is_in(dev, slots))
			unplug(machine, dev);
	}
	for (uint32_t slot = 0; slot < G_N_ELEMENTS(machine->asked_ns); slot++)
		if (slots >> slot & 1)
			machine->asked_ns[slot] = 0;
}

/* Slots of @slots with a device that has something in flight; what was ejected takes no new work. */
static uint32_t busy_slots(struct machine *machine, uint32_t slots)
{
	uint32_t busy = 0;

	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (is_in(dev, slots) && !hold_retire(&machine->hold, dev))
			busy |= 1u << pci_function_root_slot((struct pci_function *)dev);
	}
	return busy;
}

uint32_t hotplug_take_ejected(struct machine *machine)
{
	uint32_t ejected, refused, busy;

	acpi_pm_take_ejected(machine->pm, &ejected, &refused);
	busy = busy_slots(machine, ejected);
	unplug_slots(machine, ejected & ~busy);
	acpi_pm_keep_ejected(machine->pm, busy);
	if (busy)
		__atomic_fetch_or(&machine->requests, MACHINE_REQUEST_EJECT, __ATOMIC_ACQ_REL);
	return refused;
}

void hotplug_answer(struct machine *machine)
{
	bool was_running = kvm_vm_running(machine->kvm);
	uint32_t refused;

	/* A vCPU that does not park in time reports when it does; then this is tried again. */
	if (!kvm_vm_pause(machine->kvm, NULL)) {
		__atomic_fetch_or(&machine->requests, MACHINE_REQUEST_EJECT, __ATOMIC_ACQ_REL);
		if (was_running)
			kvm_vm_run(machine->kvm);
		return;
	}
	refused = hotplug_take_ejected(machine);
	if (was_running)
		kvm_vm_run(machine->kvm);
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (is_in(dev, refused) && !pci_bus_bridge(((struct pci_function *)dev)->bus))
			machine_emit(machine, MACHINE_EVENT_UNPLUG_GUEST_ERROR,
				     event_data(machine, dev));
	}
}

uint32_t hotplug_before_reset(struct machine *machine)
{
	uint32_t ejected, refused;
	uint32_t slots = acpi_pm_eject_requested(machine->pm);

	acpi_pm_take_ejected(machine->pm, &ejected, &refused);
	slots |= ejected;
	if (machine->plug_holds) {
		hold_reinstate(&machine->hold);
		return slots;
	}
	unplug_slots(machine, slots);
	pci_bus_hide(machine->env.pci, 0);
	return 0;
}

void hotplug_after_reset(struct machine *machine, uint32_t slots)
{
	for (uint32_t slot = ACPI_HOTPLUG_FIRST; slot <= ACPI_HOTPLUG_LAST; slot++)
		if (slots >> slot & 1)
			acpi_pm_request_eject(machine->pm, slot);
}

/* ---- device_del ---- */

static struct device *find_device(const struct machine *machine, const char *id, GError **error)
{
	const char *name = g_str_has_prefix(id, PERIPHERAL) ? id + strlen(PERIPHERAL) : id;
	g_autofree char *shown = text_printable(id);

	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (g_strcmp0(dev->id, name) == 0)
			return dev;
	}
	error_set(error, MOLT_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", shown);
	return NULL;
}

/* The chipset's slots are not the guest's to empty, whatever other function was put into one. */
static bool check_slot(const struct device *dev, GError **error)
{
	uint8_t slot = pci_function_root_slot((const struct pci_function *)dev);

	if (slot >= ACPI_HOTPLUG_FIRST && slot <= ACPI_HOTPLUG_LAST)
		return true;
	return error_set_generic(error,
				 "Device '%s' is in slot %u, the chipset's, which cannot be "
				 "emptied; give it another addr= at the start",
				 dev->id, slot);
}

static bool check_removable(const struct machine *machine, const struct device *dev, GError **error)
{
	if (dev->ops->bus != DEVICE_BUS_PCI)
		return error_set_generic(error, "Device '%s' does not support hotplugging",
					 dev->id);
	if (dev->ops->bridge && !guest_is_here(machine) &&
	    !pci_bus_empty(((const struct pci_function *)dev)->secondary))
		return error_set_generic(error, "Device '%s' has others behind it", dev->id);
	if (!guest_is_here(machine))
		return true;
	if (!pci_bus_bridge(((const struct pci_function *)dev)->bus))
		return check_slot(dev, error);
	return error_set_generic(error, "Bus '%s' does not support hotplugging",
				 device_config_bus(dev->config));
}

bool machine_device_del(struct machine *machine, const char *id, GError **error)
{
	struct device *dev = find_device(machine, id, error);
	uint64_t now_ns = clock_now_ns();
	uint8_t slot;

	if (!dev || !check_removable(machine, dev, error))
		return false;
	if (!guest_is_here(machine)) {
		unplug(machine, dev);
		return true;
	}
	slot = pci_function_root_slot((struct pci_function *)dev);
	if (machine->asked_ns[slot] && now_ns - machine->asked_ns[slot] < ASK_AGAIN_NS &&
	    acpi_pm_eject_requested(machine->pm) >> slot & 1)
		return error_set_generic(error, "Device %s is already in the process of unplug",
					 dev->id);
	machine->asked_ns[slot] = now_ns;
	acpi_pm_request_eject(machine->pm, slot);
	return true;
}
