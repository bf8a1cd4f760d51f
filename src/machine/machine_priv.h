// struct machine and what the files of this folder tell each other.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machine/loader.h"
#include "machine/machine.h"
#include "machine/placing.h"
#include "state/state.h"
#include "state/txn.h"

/** struct io_errors - What devices said of failed requests, until it is told; any thread */
struct io_errors {
	GMutex lock;
	GPtrArray *events; /* json_t *, NULL: none */
	uint32_t n_dropped;
};

/** struct machine_listener - One machine_add_listener() */
struct machine_listener {
	machine_event_fn fn;
	void *opaque;
};

/**
 * struct machine - See machine.h; owner of everything below
 * @hold:	why devices and chardevs stand still: built with HOLD_STOPPED and HOLD_INCOMING
 * @reset_pending: a reset waits until nothing is in flight; @reset_by_guest: who asked
 * @ended:	this process has nothing left to do, and has said so
 * @requests:	enum machine_request, from any thread, atomic; carried
 *		out in the main thread while the guest runs, so that they cross an update
 * @told:	The source that carries them out
 * @loaded_runstate: what the guest was when its state was saved
 * @paused_from, @paused_ns: what the guest was, and when, at machine_pause(); 0: it is not paused
 * @devices:	in realize order; freed last to first
 * @pm:	the device that the board needs to find again
 * @placing:	which places on PCI buses are taken
 * @plug_holds:	how many reasons there are for devices not to come and go (an update)
 * @asked_ns:	when the guest was last asked to empty each slot of the root bus, 0: never
 */
struct machine {
	struct vm_config *config;
	struct fd_source *fds;
	struct chardev_set *chardevs;
	GPtrArray *ram_blocks;
	struct ram_block *main_ram;
	struct guest_memory memory;
	uint64_t low_ram_end, high_ram_size_bytes, pci64_base;
	struct io_space *pio, *mmio;
	struct kvm_vm *kvm;
	struct device_env env;
	GPtrArray *blocks;	 /* struct block_node * */
	GPtrArray *devices;	 /* struct device * */
	GPtrArray *io_threads;	 /* struct io_thread *, as config->iothreads */
	GPtrArray *own_chardevs; /* struct chardev *, of the set: those with frontends here */
	struct device *pm;
	struct placing *placing;
	struct loader *loader;

	enum runstate runstate;
	enum runstate loaded_runstate;
	enum runstate paused_from;
	uint64_t paused_ns;
	struct hold hold;
	bool reset_pending, reset_by_guest;
	bool ended;
	uint32_t plug_holds;
	uint64_t asked_ns[32];
	uint32_t requests;
	GSource *told;
	struct io_errors io_errors;
	GArray *listeners; /* struct machine_listener */
	void (*quit)(void *opaque);
	void *quit_opaque;
};

/** machine_emit() - Tell every listener; @data is taken and may be NULL. */
void machine_emit(struct machine *machine, enum machine_event event, json_t *data);

/** machine_alloc() - One that has nothing yet; see machine_new() */
struct machine *machine_alloc(struct vm_config *config, struct fd_source *fds,
			      struct chardev_set *chardevs, enum runstate runstate);

/** machine_settle() - A device has drained: go on with what waited for it, reset and unplug. */
void machine_settle(struct machine *machine);

/* power.c */

/**
 * enum machine_request - Bits of machine->requests; on the wire, so that a number keeps its meaning
 * @MACHINE_REQUEST_RESET: By the guest
 * @MACHINE_REQUEST_OFF: ACPI S5
 * @MACHINE_REQUEST_EJECT: The guest has answered to hot plug
 * @MACHINE_REQUEST_IO_ERROR: A device keeps a failed request; the machine is to stop
 * @MACHINE_REQUEST_ERROR: A vCPU cannot go on
 */
enum machine_request {
	MACHINE_REQUEST_RESET = 1U << 0,
	MACHINE_REQUEST_OFF = 1U << 1,
	MACHINE_REQUEST_EJECT = 1U << 3,
	MACHINE_REQUEST_IO_ERROR = 1U << 30,
	MACHINE_REQUEST_ERROR = 1U << 31,
	MACHINE_REQUEST_KNOWN = MACHINE_REQUEST_RESET | MACHINE_REQUEST_OFF |
				MACHINE_REQUEST_EJECT | MACHINE_REQUEST_IO_ERROR |
				MACHINE_REQUEST_ERROR,
};

/** machine_request() - Note a request and have the main thread carry it out.  Any thread. */
void machine_request(struct machine *machine, uint32_t request);

/** machine_handle_requests() - Carry out what was asked, if the guest runs; main thread */
void machine_handle_requests(struct machine *machine);

/** machine_io_error() - device_env.io_error. */
void machine_io_error(struct machine *machine, json_t *event, bool stop);

/** machine_requests_init(), machine_requests_clear() - First and last thing in a machine's life */
void machine_requests_init(struct machine *machine);
void machine_requests_clear(struct machine *machine);

/** board_build() - Memory, KVM VM, backends and devices, wired; everything is left quiesced. */
bool board_build(struct machine *machine, GError **error);

/*
 * The parts of board_build() that need no KVM: empty lists and spaces; chardevs, disks and I/O threads;
 * what devices may use; devices.
 */
void board_init(struct machine *machine);
bool board_build_backends(struct machine *machine, GError **error);
void board_init_env(struct machine *machine, struct accel *accel);
bool board_build_devices(struct machine *machine, GError **error);

/** board_make_device() - The device of @config, not realized; its place is not its own property. */
struct device *board_make_device(const struct device_config *config, GError **error);

/**
 * board_plug() - Make the device of @config, at its place, and let it work as far as others do
 *
 * @config is in the machine's configuration.  The guest is not told.
 * Return: NULL with @error set, nothing left behind.
 */
struct device *board_plug(struct machine *machine, const struct device_config *config,
			  GError **error);

/** board_check_devices() - Whether every device of @config would be made, and has a place; nothing of
 * the host is touched (takeover.c). */
bool board_check_devices(const struct vm_config *config, GError **error);

/** board_unplug() - Undo board_plug(); vCPUs are parked, and nothing is plugged into it. */
void board_unplug(struct machine *machine, struct device *dev);

/** board_device_path() - Path of a device that is on no PCI bus: its id, or its number among all. */
char *board_device_path(const struct machine *machine, const struct device_config *config);

/** board_boot() - What firmware would do: assign BARs, write tables, load the kernel, set
 * registers. At cold boot and after each reset. */
bool board_boot(struct machine *machine, GError **error);

/** board_assign_resources() - The part of board_boot() for PCI: bus numbers, BARs, windows; before the
 * guest runs. */
void board_assign_resources(struct machine *machine);

/** board_teardown() - Undo board_build(); accepts a half-built board.  @disown: see
 * machine_disown(). */
void board_teardown(struct machine *machine, bool disown);

/** machine_find_block() - A disk's node by its drive's id or by its own name; NULL if there is none. */
struct block_node *machine_find_block(const struct machine *machine, const char *device,
				      const char *node_name);

/* hotplug.c; context: main thread */

/** hotplug_answer() - Carry out what the guest said: take away what it let go of and is drained; the rest
 * is hidden from it, and has its turn when it is. */
void hotplug_answer(struct machine *machine);

/** hotplug_take_ejected() - The part of it that needs parked vCPUs.  Return: the slots it refused. */
uint32_t hotplug_take_ejected(struct machine *machine);

/**
 * hotplug_before_reset() - What the guest was asked for goes; vCPUs parked, devices drained
 *
 * In the middle of an update nothing does: the guest that boots is asked again.
 * Return: slots for hotplug_after_reset(), when the devices have been reset.
 */
uint32_t hotplug_before_reset(struct machine *machine);
void hotplug_after_reset(struct machine *machine, uint32_t slots);

/*
 * machine_save_devices(), machine_parse_devices() - The part of machine_save() and machine_load() that is
 * devices and chardevs
 */
bool machine_save_devices(struct machine *machine, struct state_writer *writer, GError **error);
bool machine_parse_devices(struct machine *machine, struct state_txn *txn, GError **error);

/** machine_state_desc - The machine's own section, of a struct that only machine_state.c knows */
extern const struct state_desc machine_state_desc;
