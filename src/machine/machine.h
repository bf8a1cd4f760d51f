// The machine: the one object that owns memory, KVM, devices and backends, and wires them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "accel/kvm.h"
#include "backend/chardev/chardev.h"
#include "backend/chardev/chardev_set.h"
#include "base/cleanup.h"
#include "device/device.h"
#include "machine/hold.h"
#include "machine/runstate.h"
#include "options/config.h"
#include "state/fd_acquire.h"
#include "state/section.h"

struct machine;

/**
 * enum machine_event - What monitors and the migration code are told; Context: main thread
 */
enum machine_event {
	MACHINE_EVENT_STOP,	      /* QMP STOP: vCPUs parked, guest visible change of state */
	MACHINE_EVENT_RESUME,	      /* QMP RESUME */
	MACHINE_EVENT_RESET,	      /* QMP RESET; data: guest, reason */
	MACHINE_EVENT_SHUTDOWN,	      /* QMP SHUTDOWN; data: guest, reason */
	MACHINE_EVENT_POWERDOWN,      /* QMP POWERDOWN */
	MACHINE_EVENT_DEVICE_DELETED, /* QMP DEVICE_DELETED; data: device, path */
	MACHINE_EVENT_UNPLUG_GUEST_ERROR, /* QMP DEVICE_UNPLUG_GUEST_ERROR; data: device, path */
	MACHINE_EVENT_BLOCK_IO_ERROR,	  /* QMP BLOCK_IO_ERROR; data: as the device gave it */
};

/**
 * typedef machine_event_fn - A listener
 * @data: the QMP event's data object, NULL if it has none; borrowed
 */
typedef void (*machine_event_fn)(void *opaque, enum machine_event event, json_t *data);

/**
 * machine_new() - Build the whole machine, quiesced: RAM, KVM VM, backends, devices, tables
 * @config:	Owned by the caller, outlives the machine; hot plug adds and removes devices in it
 * @fds:	Door for descriptors; with a predecessor's store in it the machine goes on with
 *		those
 * @chardevs:	Shared with the monitors; the machine opens in it what its frontends use
 * @cold:	load kernel and tables into guest memory and reset; false: memory and state come
 *		from a predecessor.  Only the board reads it, once, to decide whether the loaders run
 *
 * One path for cold boot and takeover.  Nothing runs and no guest memory is touched when !@cold.
 * Return: NULL with @error set, nothing left behind.
 */
struct machine *machine_new(struct vm_config *config, struct fd_source *fds,
			    struct chardev_set *chardevs, bool cold, GError **error);
void machine_free(struct machine *machine);
DEFINE_CLEANUP(machine, machine_free)

const struct vm_config *machine_config(const struct machine *machine);
struct kvm_vm *machine_kvm(struct machine *machine);

/** machine_add_listener() - Call @fn on every event until machine_remove_listener(). */
void machine_add_listener(struct machine *machine, machine_event_fn fn, void *opaque);
void machine_remove_listener(struct machine *machine, machine_event_fn fn, void *opaque);

/* Run state.  Context: main thread. */
enum runstate machine_runstate(const struct machine *machine);

/**
 * machine_enter() - A change of the run state, which starts or stops nothing
 *
 * One that the table does not have is a mistake of this program: it is logged and not made.
 */
void machine_enter(struct machine *machine, enum runstate state);

/**
 * machine_arrive() - The guest of another process is this one's: go on with it as it was there
 * @run:	If it ran there; false: it is paused here
 *
 * Input is taken from now on, running or not.
 */
void machine_arrive(struct machine *machine, bool run);

/** machine_start() - Resume devices and vCPUs, run state running, RESUME event. */
void machine_start(struct machine *machine);

/**
 * machine_stop() - Park vCPUs, stop the guest's clock, run state @state, STOP event; no-op if stopped
 *
 * Devices take no new work; a request that the host does not answer within a moment may still write
 * guest memory, until it does.  Return: false with @error, which names it, if a vCPU does not park; the
 * guest runs on.
 */
bool machine_stop(struct machine *machine, enum runstate state, GError **error);

/** machine_halt() - The same for reasons that are no command: a vCPU that is late parks when it can. */
void machine_halt(struct machine *machine, enum runstate state);

/**
 * machine_reset(), machine_powerdown(), machine_shutdown() - system_reset, the power button, the end
 * @reason:	Of the end, as the event SHUTDOWN has it
 * @guest:	The guest asked for it
 */
void machine_reset(struct machine *machine);
void machine_powerdown(struct machine *machine);
void machine_shutdown(struct machine *machine, const char *reason, bool guest);

/**
 * machine_device_add() - device_add: a device that comes while the machine is there
 * @args:	driver, id, bus, and the driver's properties
 *
 * The machine's configuration has it from then on, with its address.  A guest that is there is told; a
 * machine that waits for its state, or for cont, has the device as if it had been built with it.
 * Return: false with @error set, nothing changed.
 */
bool machine_device_add(struct machine *machine, const json_t *args, GError **error);

/**
 * machine_device_add_early() - device_add before there is a machine: one more -device
 *
 * Return: false with @error set, @vm as it was.  What only the host knows shows when it is built.
 */
bool machine_device_add_early(struct vm_config *vm, const json_t *args, GError **error);

/**
 * machine_device_del() - device_del: ask the guest to let go of a device
 * @id:		Its id, or "/machine/peripheral/ID"
 *
 * MACHINE_EVENT_DEVICE_DELETED follows when it is gone, also from the configuration: when the guest
 * has ejected it, at the next reset, or at once where no guest is there yet.
 */
bool machine_device_del(struct machine *machine, const char *id, GError **error);

/* The pieces of an update.  Each forward step has its undo.  Context: main thread. */

/**
 * machine_pause() - Park vCPUs, run state finish-migrate; the clock runs on: the pause is guest time
 * @limit_ns:	How long that may take at most, 0: see kvm_vm_pause()
 *
 * Return: false with @error if a vCPU does not park (it is named, and the guest runs on), or a reset
 * is under way.
 */
bool machine_pause(struct machine *machine, uint64_t limit_ns, GError **error);

/** machine_unpause() - As it was before machine_pause(); the guest runs if it ran. */
void machine_unpause(struct machine *machine);

/** machine_paused_ns() - When machine_pause() stopped the guest; 0 if it has not. */
uint64_t machine_paused_ns(const struct machine *machine);

/** machine_hold_devices() - No device comes or goes until machine_release_devices(): a successor is
 * being told which there are.  What the guest ejects meanwhile is hidden from it, and waits. */
void machine_hold_devices(struct machine *machine);
void machine_release_devices(struct machine *machine);

/**
 * machine_drain() - Devices take no new work; the guest may run, and finds that they take their time
 * @limit_ns:	How long what they have may take; 0: see hold_await()
 * @done:	Called from the main loop, with an error that names device and queue if it was not
 *		done in time.  Not called if machine_drain() returns true
 *
 * machine_undrain() undoes it, also while it is under way.  Return: whether nothing is in flight.
 */
bool machine_drain(struct machine *machine, uint64_t limit_ns, hold_done_fn done, void *opaque);
void machine_undrain(struct machine *machine);

/**
 * machine_quiesce() - Devices and chardevs stand still, at once; the guest is paused
 *
 * Return: false with @error, nothing changed, if a device has not drained.  machine_unquiesce() undoes it.
 */
bool machine_quiesce(struct machine *machine, GError **error);
void machine_unquiesce(struct machine *machine);

/** machine_save() - Capture and add every section to @writer; guest paused and quiesced. */
bool machine_save(struct machine *machine, struct state_writer *writer, GError **error);

/** machine_load() - Parse all into scratch, check, copy, apply; all or nothing up to apply. */
bool machine_load(struct machine *machine, struct state_reader *reader, GError **error);

/**
 * machine_save_running() - Add every section as it is at the moment, the guest running
 *
 * For a rehearsal: the structure is that of machine_save(), the values are of different moments, those
 * of KVM the last known.  Nothing is stopped or changed.
 */
bool machine_save_running(struct machine *machine, struct state_writer *writer, GError **error);

/** machine_check_stream() - Whether machine_load() would parse and accept it; nothing is changed. */
bool machine_check_stream(struct machine *machine, struct state_reader *reader, GError **error);

/** machine_prove() - Whether KVM takes back what machine_save() got of it; the guest stands, and can go on. */
bool machine_prove(struct machine *machine, GError **error);

/**
 * machine_rehearse_takeover() - machine_load() of a machine_save_running(); the guest runs elsewhere
 *
 * Of a machine that is freed, or whose process ends, afterwards.  Guest memory is not written.
 */
bool machine_rehearse_takeover(struct machine *machine, struct state_reader *reader,
			       GError **error);

/**
 * machine_rehearse_save(), machine_rehearse_load() - Go once over what the pause will be spent on
 *
 * Code, heap and what the kernel makes at first use are in place afterwards.  Save: the guest may
 * run; KVM's last known state is encoded and dropped.  Load: of a machine that has not run; its own
 * state is saved and loaded again, which changes nothing, and fails if this program cannot read what
 * it writes; before that its vCPUs enter the guest, where there is none, if @tree, the predecessor's
 * machine_device_tree(), says that they have the same CPUID.
 */
bool machine_rehearse_save(struct machine *machine, GError **error);
bool machine_rehearse_load(struct machine *machine, const json_t *tree, GError **error);

/**
 * machine_disown() - Let go of everything after another process has become the guest's owner
 *
 * Frees the KVM VM, devices, RAM mappings and backends without disturbing what both processes have:
 * no path is unlinked, no connection shut down.  Queries about devices answer with nothing then.
 */
void machine_disown(struct machine *machine);

/** machine_on_quit() - @fn(@opaque) is called once, when this process has nothing left to do (quit,
 * power-off without -no-shutdown, reset with -no-reboot); at once if that is so already. */
void machine_on_quit(struct machine *machine, void (*fn)(void *opaque), void *opaque);
bool machine_ended(const struct machine *machine);

/** machine_add_blockers() - To @reasons, a string each: RAM and chardevs that cannot cross. */
void machine_add_blockers(struct machine *machine, GPtrArray *reasons);

/** machine_device_tree() - Devices, RAM blocks, state versions as JSON: what a handshake compares.
 */
json_t *machine_device_tree(struct machine *machine);

/**
 * machine_check_takeover() - Whether this program could go on with a VM, from its description alone
 * @config:	What it would be built from
 * @tree:	machine_device_tree() of its owner, hostile until checked
 *
 * Knows every device and its properties, puts each where it is there, and can read every section's
 * state.  Nothing on the host is touched.  Return: false with every difference in @error, one a line.
 */
bool machine_check_takeover(const struct vm_config *config, const json_t *tree, GError **error);

struct population;

/**
 * machine_populate() - Fill the page tables of shared RAM, and KVM's where the kernel can, on a thread
 * @done:	Called from the main loop at the end, unless population_free() came first; @error is
 *		taken, NULL if all went well
 *
 * The machine must not run or be freed before that.
 * Return: to be freed with population_free(), also after @done; NULL with @error set.
 */
struct population *machine_populate(struct machine *machine,
				    void (*done)(void *opaque, GError *error), void *opaque,
				    GError **error);

/** population_free() - Stop it, which takes milliseconds, and free it; accepts NULL. */
void population_free(struct population *population);

/* Look-ups for monitors; borrowed. */
struct chardev *machine_find_chardev(struct machine *machine, const char *id);
GPtrArray *machine_ram_blocks(struct machine *machine); /* struct ram_block *; NULL once disowned */
json_t *machine_query_block(struct machine *machine); /* query-block's list; owned by the caller */

/**
 * machine_block_resize() - block_resize: another size for a disk, which its guest is told
 * @device, @node_name: a -drive's id or a node name; the other one is NULL
 */
bool machine_block_resize(struct machine *machine, const char *device, const char *node_name,
			  uint64_t size_bytes, GError **error);
