// PCI functions and their bus: configuration space, BARs, MSI-X, INTx-free.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/log.h"
#include "device/device.h"

#define PCI_N_BARS	 6
#define PCI_MSIX_MAX	 64
#define PCI_CONFIG_BYTES 256 /* + extended space up to 4 KiB reads as zero */

/**
 * struct pci_function_state - What survives of a function; first in the state of every PCI device
 * @config:	Configuration space as the guest sees it
 * @msix_*:	The MSI-X table, and pending bits as of pci_function_capture()
 */
struct pci_function_state {
	uint8_t config[PCI_CONFIG_BYTES];
	uint32_t n_msix;
	uint8_t pad0[4];
	struct pci_msix_entry_state {
		uint64_t addr;
		uint32_t data;
		uint32_t control;
	} msix[PCI_MSIX_MAX];
	uint64_t msix_pending;
};

extern const struct state_desc pci_function_desc;

struct pci_function;

/**
 * struct pci_bar - One base address register of a function
 * @region:	Its registers; mapped by the bus while memory or I/O space is enabled
 * @is_io:	I/O space BAR; otherwise 64-bit memory if @is_64, else 32-bit memory
 * @moved:	optional: called after the BAR was mapped at @base, or unmapped (base 0), so that
 *		doorbells (ioeventfd) can follow.  Context: function's device lock held
 */
struct pci_bar {
	struct io_region region;
	bool is_io;
	bool is_64;
	bool mapped;
	void (*moved)(struct pci_function *fn, uint32_t bar, uint64_t base);
};

/**
 * struct pci_ids - Identity of a function (PCI 3.0 section 6.2.1)
 */
struct pci_ids {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint8_t revision;
	uint32_t class_code; /* 24 bits: class, subclass, programming interface */
};

/**
 * struct pci_function - A function; first member of every PCI device's run-time struct
 * @dev:	The device
 * @state:	Its surviving part, inside the device's state struct; set before pci_function_init()
 * @bus:	Where it is plugged; NULL while it is not
 * @devfn:	device << 3 | function
 * @secondary:	A bridge's other side; NULL: no bridge
 * @reset_config: Configuration space at power-on; the functions below fill it, realize may add
 *		more.  pci_function_reset() copies it to the state: set bytes here, not there
 * @wmask:	Bits the guest may write
 * @w1cmask:	Bits cleared by writing one
 * @config_written: optional: after a configuration write was stored; lock held
 * @config_read: optional: before a configuration read, to refresh the bytes; lock held
 * @vectors, @n_vectors, @msix_enabled: see pci_msix.c
 */
struct pci_function {
	struct device dev;
	struct pci_function_state *state;
	struct pci_bus *bus;
	uint8_t devfn;
	struct pci_bus *secondary;
	struct pci_bar bars[PCI_N_BARS];
	uint8_t reset_config[PCI_CONFIG_BYTES];
	uint8_t wmask[PCI_CONFIG_BYTES];
	uint8_t w1cmask[PCI_CONFIG_BYTES];
	uint8_t caps_end;
	uint8_t msix_cap;
	int8_t msix_bar;
	void (*config_written)(struct pci_function *fn, uint32_t offset, uint32_t len);
	void (*config_read)(struct pci_function *fn, uint32_t offset, uint32_t len);
	struct pci_msix_vector *vectors;
	uint32_t n_vectors;
	bool msix_enabled;
	struct log_limit guest_log;
};

/**
 * pci_bus_new() - A bus without functions
 * @bridge:	The function it is behind, which makes it and has it as @secondary; NULL: the root bus,
 *		made by the host bridge, which puts it in env->pci
 */
struct pci_bus *pci_bus_new(struct pci_function *bridge);
void pci_bus_free(struct pci_bus *bus);

/** pci_bus_bridge() - The bridge the bus is behind; NULL for the root bus. */
struct pci_function *pci_bus_bridge(const struct pci_bus *bus);

/** pci_bus_set_number() - The number by which the guest addresses it; 0: none yet.  Any thread. */
void pci_bus_set_number(struct pci_bus *bus, uint8_t number);

/** pci_bus_slots() - Slots with a function in them, a bit each, hidden or not.  Any thread. */
uint32_t pci_bus_slots(struct pci_bus *bus);

/** pci_bus_empty() - Whether no function is on it. */
bool pci_bus_empty(struct pci_bus *bus);

/**
 * pci_bus_hide() - Let the guest find nothing in @slots of the root bus, a bit each
 *
 * What it has ejected is gone for it before the devices are.  Any thread.
 */
void pci_bus_hide(struct pci_bus *bus, uint32_t slots);

/** pci_function_root_slot() - The slot of the root bus by which @fn is reached; it is plugged. */
uint8_t pci_function_root_slot(const struct pci_function *fn);

/**
 * pci_bus_plug() - Put @fn at @devfn, where the guest can see it; refuses a taken one
 *
 * The board calls it after device_realize(), never the device.  pci_function_fini() unplugs.
 */
bool pci_bus_plug(struct pci_bus *bus, struct pci_function *fn, uint8_t devfn, GError **error);
void pci_bus_unplug(struct pci_bus *bus, struct pci_function *fn);

/**
 * pci_path() - The stable path of what is at @devfn: "pci/00.3", or "pci/00.3.1" for function 1
 * @bridge:	Path of the bridge that it is behind: "pci/00.3/0"; NULL: on the root bus
 *
 * Return: owned by the caller.
 */
char *pci_path(const char *bridge, uint8_t devfn);

/**
 * pci_bus_config_read(), pci_bus_config_write() - For the host bridge's ECAM and CF8/CFC
 * @bus:	The root bus
 * @bdf:	bus << 8 | device << 3 | function
 * @offset:	0 to 4095, a multiple of nothing
 * @size:	1, 2 or 4
 *
 * Context: any thread, no device lock held.
 */
uint32_t pci_bus_config_read(struct pci_bus *bus, uint16_t bdf, uint32_t offset, uint32_t size);
void pci_bus_config_write(struct pci_bus *bus, uint16_t bdf, uint32_t offset, uint32_t size,
			  uint32_t value);

/** pci_function_init() - Identity, header; in realize, before BARs and capabilities are added. */
void pci_function_init(struct pci_function *fn, struct pci_function_state *state,
		       const struct pci_ids *ids);

/**
 * pci_bridge_init() - pci_function_init() of a PCI-to-PCI bridge: header type 1, a bus behind it
 *
 * The bus is found by the number that the guest writes.  Windows are stored and not enforced: what
 * a function behind it decodes, it decodes.  A bridge calls pci_bridge_apply() and pci_bridge_fini()
 * instead of pci_function_apply() and pci_function_fini(), and pci_bridge_reset() likewise.
 */
void pci_bridge_init(struct pci_function *fn, struct pci_function_state *state,
		     const struct pci_ids *ids);
void pci_bridge_reset(struct pci_function *fn);
bool pci_bridge_apply(struct pci_function *fn, GError **error);
void pci_bridge_fini(struct pci_function *fn);

/**
 * pci_function_add_bar() - Register BAR @index; in realize
 * @size_bytes:	Rounded up to a power of two
 * @is_64:	Takes the next BAR register too
 *
 * Accesses take the device's lock; a device whose registers need none sets
 * fn->bars[@index].region.lock to NULL after this call.
 */
void pci_function_add_bar(struct pci_function *fn, uint32_t index, uint64_t size_bytes, bool is_io,
			  bool is_64, const struct io_ops *ops, void *opaque,
			  void (*moved)(struct pci_function *, uint32_t, uint64_t));

/** pci_function_add_capability() - Append @len bytes (id and next included, next is filled in).
 * Return: its offset in configuration space, for wmask and the like. */
uint8_t pci_function_add_capability(struct pci_function *fn, const void *cap, uint8_t len);

/** pci_function_add_msix() - Table and PBA in BAR @bar, which this call adds (32-bit, 4 KiB);
 * @n_vectors is 1 to PCI_MSIX_MAX.  In realize. */
bool pci_function_add_msix(struct pci_function *fn, uint32_t n_vectors, uint32_t bar,
			   GError **error);

/**
 * pci_function_reset() - Power-on header, BARs unmapped, vectors masked
 * pci_function_capture() - Bring the MSI-X pending bits into the state
 * pci_function_apply() - Map BARs and route vectors as the loaded state says; false with @error set
 *	if the state is of another function (its read-only bits differ, ...)
 * pci_function_fini() - Unplug, unmap and free; accepts a function that was never initialised
 *
 * Every PCI device calls them from its reset, capture, apply and unrealize.
 * Context: main thread, vCPUs parked.  They take no lock: the caller may hold the device's or not.
 */
void pci_function_reset(struct pci_function *fn);
void pci_function_capture(struct pci_function *fn);
bool pci_function_apply(struct pci_function *fn, GError **error);
void pci_function_fini(struct pci_function *fn);

/**
 * pci_msix_notify() - Raise vector @vector (it becomes pending when masked); any thread, no lock
 *
 * One eventfd write to the vector's irqfd.  Without effect while MSI-X is disabled, and for a
 * @vector that does not exist (virtio's 0xffff).
 */
void pci_msix_notify(struct pci_function *fn, uint32_t vector);
