// The device interface: what every device model provides, and what it is given.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "accel/accel.h"
#include "memory/guest_memory.h"
#include "memory/io_space.h"
#include "options/config.h"
#include "options/props.h"
#include "state/fd_acquire.h"
#include "state/state.h"

struct device;
struct chardev;
struct block_node;
struct io_thread;
struct pci_bus;

/** enum power_request - What a device asks of the machine on the guest's behalf */
enum power_request {
	POWER_RESET, /* i8042, 0xCF9, ACPI reset register */
	POWER_OFF,   /* ACPI S5 */
	POWER_EJECT, /* ACPI hot plug: the guest has answered, see acpi_pm_take_ejected() */
};

/** enum device_bus - What a device is plugged into: what its struct begins with, who places it */
enum device_bus {
	DEVICE_BUS_BOARD,	  /* made by the board only: ISA and host devices */
	DEVICE_BUS_PCI,		  /* the run-time struct begins with struct pci_function */
	DEVICE_BUS_ISA,		  /* -device that decodes ports by itself (isa-debugcon) */
	DEVICE_BUS_VIRTIO_SERIAL, /* a port of a virtio-serial device */
};

/**
 * struct device_env - Everything a device may use; one per machine, outlives its devices
 * @fds:	Door for host descriptors (fd_acquire())
 * @memory:	Guest-physical map
 * @pio, @mmio:	Register spaces
 * @accel:	Interrupts and doorbells
 * @pci:	The root bus, NULL until the host bridge is realized
 * @find_chardev, @find_block, @find_rng_path, @opaque: backends by id, NULL if there is none
 * @find_iothread: -object iothread by id; NULL if the machine has none to offer
 * @find_device: a device by its id, or the first one of a driver; NULL if there is none
 * @n_cpus:	vCPUs: how many queues a device has by default; 0 counts as 1
 * @power:	Ask for reset, power-off, suspend.  Any thread; the machine acts on the main thread
 * @io_error:	A request on the host failed: @event is BLOCK_IO_ERROR's data (taken); with @stop the
 *		machine stops with run state io-error, and the device keeps the request, in order,
 *		until it is resumed: then it repeats it (virtio_shelve()).  Any thread, also with
 *		the device's lock held.  NULL: nobody to tell
 * @drained:	See device_drained(); NULL: nobody waits
 * @clock_ns:	Time that only goes forward; NULL: clock_now_ns().  For tests
 * @wall_ns:	Time of day, ns since 1970 UTC; NULL: CLOCK_REALTIME.  For tests
 */
struct device_env {
	struct fd_source *fds;
	const struct guest_memory *memory;
	struct io_space *pio, *mmio;
	struct accel *accel;
	struct pci_bus *pci;
	struct chardev *(*find_chardev)(void *opaque, const char *id);
	struct block_node *(*find_block)(void *opaque, const char *id);
	const char *(*find_rng_path)(void *opaque, const char *id);
	struct io_thread *(*find_iothread)(void *opaque, const char *id);
	struct device *(*find_device)(void *opaque, const char *id_or_driver);
	uint32_t n_cpus;
	void (*power)(void *opaque, enum power_request request);
	void (*io_error)(void *opaque, json_t *event, bool stop);
	void (*drained)(void *opaque);
	void *opaque;
	uint64_t (*clock_ns)(void);
	uint64_t (*wall_ns)(void);
};

/**
 * struct device_ops - What a device model provides
 * @name:	Stable type name; last part of the section name ("virtio-blk", "uart16550")
 * @driver:	-device's name for it ("virtio-blk-pci"); NULL: only the board makes it
 * @bus:	What it is plugged into
 * @bridge:	PCI: there is a bus behind it, which is called like the device
 * @help:	One line for -device help
 * @props:	Its -device properties, read into the device's config struct; NULL: none
 * @props_offset: of that struct in the device's run-time struct
 * @size:	Of the run-time struct, whose first member is struct device
 * @state:	Description of the surviving struct; NULL if nothing survives
 * @state_offset: of that struct in the run-time struct
 * @realize:	Acquire descriptors, map regions, start threads.  Same call at cold boot and at a
 *		takeover; must not touch guest memory, raise interrupts or start I/O
 * @reset:	Put the state struct to its power-on value and stop what was going on; cannot fail
 * @drain:	For models that hand work to the host: take no new work from now on.  The guest may
 *		run, and finds a device that takes its time.  Does not wait.  Return: whether nothing
 *		is in flight; if something is, device_drained() is called once it is not
 * @in_flight:	With @drain: how much is, told in @text ("queue 0: 3 requests") if that is not NULL
 * @quiesce:	Optional: stand still in every other way (timers, input); the guest is stopped, and
 *		nothing is in flight.  Does not wait, cannot fail
 * @resume:	Optional: undo @drain and @quiesce; after realize or takeover, too.  Must look
 *		for work that was signalled while nobody listened (kick every queue once); cannot fail
 * @capture:	Optional: read state held elsewhere (kernel, backend) into the state struct
 * @at_rest:	Optional: @state is a copy of the state struct, taken while the device works, under
 *		its lock: make of it what a quiesced device could have (nothing in flight).  For
 *		rehearsals; the device itself is not changed
 * @apply:	Optional: push the loaded state struct where it takes effect (BARs, routes, timers)
 * @unrealize:	Undo @realize; accepts a half-realized device
 *
 * Context: main thread; vCPUs parked for @reset, @quiesce, @capture and @apply.  A device begins its
 * life quiesced: realize, reset, then apply (takeover only), then resume when the machine first runs.
 * @reset and @unrealize find nothing in flight.
 */
struct device_ops {
	const char *name;
	const char *driver;
	enum device_bus bus;
	bool bridge;
	const char *help;
	const struct prop *props;
	size_t props_offset;
	size_t size;
	const struct state_desc *state;
	size_t state_offset;
	bool (*realize)(struct device *dev, struct device_env *env, GError **error);
	void (*reset)(struct device *dev);
	bool (*drain)(struct device *dev);
	uint32_t (*in_flight)(struct device *dev, GString *text);
	void (*quiesce)(struct device *dev);
	void (*resume)(struct device *dev);
	bool (*capture)(struct device *dev, GError **error);
	void (*at_rest)(struct device *dev, void *state);
	bool (*apply)(struct device *dev, GError **error);
	void (*unrealize)(struct device *dev);
};

/**
 * struct device - Common part, first member of every run-time struct
 * @ops:	Its model
 * @id:		-device id=, NULL if none
 * @config:	What asked for it, borrowed; NULL: the board
 * @path:	Stable name that does not depend on creation order: "isa/3f8", "pci/00.3"; the
 *		section name is "<path>/<ops->name>".  A model that is placed by another device than
 *		the board appends to that one's in its realize
 * @parent:	The device that it is plugged into, where that is no PCI bus (set by its realize): it
 *		cannot be without it, so it goes first
 * @lock:	Guards the state struct: held around register accesses (io_region.lock points here)
 *		and taken by the device's own threads and main-thread callbacks
 * @env:	What it was realized with
 * @still:	What it has been told: drain, quiesce (machine/hold.c's own)
 * @leaving:	It is on its way out and not resumed any more
 * @draining:	It was told to drain and has not; @drained: it says that it has, any thread, atomic
 */
struct device {
	const struct device_ops *ops;
	char *id;
	const struct device_config *config;
	char *path;
	struct device *parent;
	GMutex lock;
	struct device_env *env;
	struct {
		bool drained, quiesced;
	} still;
	bool leaving;
	bool draining;
	int drained;
};

/**
 * device_drained() - What was in flight when device_ops.drain returned false has ended
 *
 * Any thread, also with the device's lock held; once for each such return, and not after resume.
 */
void device_drained(struct device *dev);

/**
 * device_new() - Allocate a device and read its properties
 * @ops:	The model
 * @id:		copied; may be NULL
 * @props:	-device properties ("addr", "bus" removed by the board), NULL for none
 *
 * Return: NULL with @error "DRIVER: reason" on an unknown or bad property.
 */
struct device *device_new(const struct device_ops *ops, const char *id, const json_t *props,
			  GError **error);

/**
 * device_realize() - Set the path and env and call the model's realize, then its reset
 * @path:	Taken, on failure too
 *
 * Return: false with @error set; the device may then only be freed.
 */
bool device_realize(struct device *dev, char *path, struct device_env *env, GError **error);

/** device_free() - Unrealize and free; nothing is in flight.  Accepts NULL and what was never realized. */
void device_free(struct device *dev);

/** device_state() - The state struct, NULL if the model has none. */
void *device_state(struct device *dev);

/**
 * device_map_pio() - Put @size_bytes registers at @port, accessed under the device's lock
 * @region:	In the run-time struct; to be given to device_unmap_pio() by unrealize
 */
bool device_map_pio(struct device *dev, struct io_region *region, const char *name, uint16_t port,
		    uint32_t size_bytes, const struct io_ops *ops, GError **error);

/** device_unmap_pio() - Undo device_map_pio(); accepts a region that was never mapped. */
void device_unmap_pio(struct device *dev, struct io_region *region);

/** device_clock_ns(), device_wall_ns() - The environment's clocks; any thread. */
uint64_t device_clock_ns(const struct device *dev);
uint64_t device_wall_ns(const struct device *dev);

/** device_ops_find() - A model by its -device driver name, NULL if unknown (device/registry.c). */
const struct device_ops *device_ops_find(const char *driver);

/** device_ops_list() - Every model with a driver name, NULL-ended, sorted by name. */
const struct device_ops *const *device_ops_list(void);

/**
 * device_help() - Append the list of drivers, or the properties of @driver, to @out
 * @driver: NULL for the list
 */
bool device_help(const char *driver, GString *out, GError **error);
