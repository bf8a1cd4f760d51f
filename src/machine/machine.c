// The machine's life: built, started, stopped, reset, paused for an update, let go.
// SPDX-License-Identifier: Apache-2.0
#include "machine/machine.h"

#include "backend/block/block.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "device/legacy/acpi_pm.h"
#include "machine/machine_priv.h"

/* How long stop and reset wait for requests that a disk has accepted. */
#define MACHINE_DRAIN_MS 30000

void machine_emit(struct machine *machine, enum machine_event event, json_t *data)
{
	for (guint i = 0; i < machine->listeners->len; i++) {
		struct machine_listener *l =
			&g_array_index(machine->listeners, struct machine_listener, i);

		l->fn(l->opaque, event, data);
	}
	json_decref(data);
}

void machine_add_listener(struct machine *machine, machine_event_fn fn, void *opaque)
{
	struct machine_listener listener = {fn, opaque};

	g_array_append_val(machine->listeners, listener);
}

void machine_remove_listener(struct machine *machine, machine_event_fn fn, void *opaque)
{
	for (guint i = 0; i < machine->listeners->len; i++) {
		struct machine_listener *l =
			&g_array_index(machine->listeners, struct machine_listener, i);

		if (l->fn == fn && l->opaque == opaque) {
			g_array_remove_index(machine->listeners, i);
			return;
		}
	}
}

static void resume_chardevs(struct machine *machine)
{
	for (guint i = 0; i < machine->own_chardevs->len; i++)
		chardev_resume(machine->own_chardevs->pdata[i]);
}

struct machine *machine_new(struct vm_config *config, struct fd_source *fds,
			    struct chardev_set *chardevs, bool cold, GError **error)
{
	autoptr(machine) machine = g_new0(struct machine, 1);

	machine->config = config;
	machine->fds = fds;
	machine->chardevs = chardevs;
	machine->runstate = cold ? RUNSTATE_PRELAUNCH : RUNSTATE_INMIGRATE;
	machine->loaded_runstate = RUNSTATE_RUNNING;
	machine->device_holds = 1;
	machine->chardev_holds = cold ? 0 : 1;
	machine->stopped = true;
	machine->listeners = g_array_new(FALSE, FALSE, sizeof(struct machine_listener));
	if (!board_build(machine, error))
		return NULL;
	if (cold && !board_boot(machine, error))
		return NULL;
	if (cold)
		resume_chardevs(machine);
	return g_steal_pointer(&machine);
}

void machine_free(struct machine *machine)
{
	if (!machine)
		return;
	board_teardown(machine, false);
	g_array_unref(machine->listeners);
	g_free(machine);
}

void machine_disown(struct machine *machine)
{
	board_teardown(machine, true);
}

const struct vm_config *machine_config(const struct machine *machine)
{
	return machine->config;
}

struct kvm_vm *machine_kvm(struct machine *machine)
{
	return machine->kvm;
}

void machine_on_quit(struct machine *machine, void (*fn)(void *opaque), void *opaque)
{
	machine->quit = fn;
	machine->quit_opaque = opaque;
}

enum runstate machine_runstate(const struct machine *machine)
{
	return machine->runstate;
}

enum runstate machine_loaded_runstate(const struct machine *machine)
{
	return machine->loaded_runstate;
}

/* ---- quiesce: counts of reasons to stand still ---- */

static void hold_chardevs(struct machine *machine)
{
	if (machine->chardev_holds++ > 0)
		return;
	for (guint i = 0; i < machine->own_chardevs->len; i++)
		chardev_quiesce(machine->own_chardevs->pdata[i]);
}

static void release_chardevs(struct machine *machine)
{
	if (machine->chardev_holds > 0 && --machine->chardev_holds == 0)
		resume_chardevs(machine);
}

static void resume_devices(struct machine *machine, guint n)
{
	while (n-- > 0) {
		struct device *dev = machine->devices->pdata[n];

		if (dev->ops->resume)
			dev->ops->resume(dev);
	}
}

static bool hold_devices(struct machine *machine, uint64_t deadline_ns, GError **error)
{
	for (guint i = 0; machine->device_holds == 0 && i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (!dev->ops->quiesce || dev->ops->quiesce(dev, deadline_ns, error))
			continue;
		g_prefix_error(error, "%s/%s: ", dev->path, dev->ops->name);
		resume_devices(machine, i + 1);
		return false;
	}
	machine->device_holds++;
	return true;
}

static void release_devices(struct machine *machine)
{
	if (machine->device_holds > 0 && --machine->device_holds == 0)
		resume_devices(machine, machine->devices->len);
}

bool machine_quiesce(struct machine *machine, uint64_t deadline_ns, GError **error)
{
	hold_chardevs(machine);
	if (hold_devices(machine, deadline_ns, error))
		return true;
	release_chardevs(machine);
	return false;
}

void machine_unquiesce(struct machine *machine)
{
	release_devices(machine);
	release_chardevs(machine);
}

/* ---- run and stop ---- */

/* A successor takes input from the moment the guest is its own, running or not. */
static void change_runstate(struct machine *machine, enum runstate state)
{
	const bool arrived = machine->runstate == RUNSTATE_INMIGRATE && state != RUNSTATE_INMIGRATE;

	machine->runstate = state;
	if (arrived)
		release_chardevs(machine);
}

bool machine_set_runstate(struct machine *machine, enum runstate state, GError **error)
{
	if (!runstate_allowed(machine->runstate, state))
		return error_set_generic(error, "run state cannot change from '%s' to '%s'",
					 runstate_name(machine->runstate), runstate_name(state));
	change_runstate(machine, state);
	return true;
}

static void handle_requests(void *opaque);

void machine_start(struct machine *machine)
{
	if (machine->runstate == RUNSTATE_RUNNING || !machine->kvm)
		return;
	change_runstate(machine, RUNSTATE_RUNNING);
	if (machine->stopped) {
		machine->stopped = false;
		release_devices(machine);
	}
	kvm_vm_start_clock(machine->kvm);
	kvm_vm_run(machine->kvm);
	machine_emit(machine, MACHINE_EVENT_RESUME, NULL);
	handle_requests(machine);
}

static void drain(struct machine *machine, const char *what)
{
	g_autoptr(GError) error = NULL;

	if (!hold_devices(machine, clock_deadline_ms(MACHINE_DRAIN_MS), &error)) {
		log_warn("%s: going on with requests in flight: %s", what, error->message);
		machine->device_holds++;
	}
}

void machine_stop(struct machine *machine, enum runstate state)
{
	if (machine->runstate != RUNSTATE_RUNNING)
		return;
	kvm_vm_pause(machine->kvm);
	kvm_vm_stop_clock(machine->kvm);
	machine->runstate = state;
	machine->stopped = true;
	drain(machine, "stop");
	machine_emit(machine, MACHINE_EVENT_STOP, NULL);
}

bool machine_pause(struct machine *machine, uint64_t *paused_ns)
{
	bool was_running = kvm_vm_running(machine->kvm);

	machine->paused_from = machine->runstate;
	if (was_running)
		machine_emit(machine, MACHINE_EVENT_STOP, NULL);
	*paused_ns = clock_now_ns();
	kvm_vm_pause_reading(machine->kvm);
	return was_running;
}

void machine_unpause(struct machine *machine, bool was_running)
{
	if (!was_running)
		return;
	machine->runstate = RUNSTATE_RUNNING;
	kvm_vm_run(machine->kvm);
	machine_emit(machine, MACHINE_EVENT_RESUME, NULL);
	handle_requests(machine);
}

/* ---- reset and power ---- */

void machine_shutdown(struct machine *machine, const char *reason, bool guest)
{
	machine_emit(machine, MACHINE_EVENT_SHUTDOWN,
		     json_pack("{s:b, s:s}", "guest", guest, "reason", reason));
	if (guest && machine->config->no_shutdown) {
		machine_stop(machine, RUNSTATE_SHUTDOWN);
		return;
	}
	if (machine->kvm)
		kvm_vm_pause(machine->kvm);
	if (machine->quit)
		machine->quit(machine->quit_opaque);
}

static void reset_now(struct machine *machine, bool guest)
{
	g_autoptr(GError) error = NULL;
	bool was_running = kvm_vm_running(machine->kvm);
	uint32_t wanted_slots;

	kvm_vm_pause(machine->kvm);
	drain(machine, "reset");
	wanted_slots = hotplug_before_reset(machine);
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (dev->ops->reset)
			dev->ops->reset(dev);
	}
	hotplug_after_reset(machine, wanted_slots);
	if (!kvm_vm_reset(machine->kvm, &error) || !board_boot(machine, &error)) {
		log_error("reset: %s", error->message);
		machine->runstate = RUNSTATE_INTERNAL_ERROR;
		machine_emit(machine, MACHINE_EVENT_STOP, NULL);
		return;
	}
	machine_emit(machine, MACHINE_EVENT_RESET,
		     json_pack("{s:b, s:s}", "guest", guest, "reason",
			       guest ? "guest-reset" : "host-qmp-system-reset"));
	release_devices(machine);
	if (was_running)
		kvm_vm_run(machine->kvm);
	else if (machine->runstate == RUNSTATE_SHUTDOWN ||
		 machine->runstate == RUNSTATE_INTERNAL_ERROR)
		machine->runstate = RUNSTATE_PRELAUNCH;
}

static void reset_or_quit(struct machine *machine, bool guest)
{
	if (!machine->kvm || machine->runstate == RUNSTATE_POSTMIGRATE)
		return;
	if (machine->config->no_reboot)
		machine_shutdown(machine, guest ? "guest-reset" : "host-qmp-system-reset", guest);
	else
		reset_now(machine, guest);
}

void machine_reset(struct machine *machine)
{
	reset_or_quit(machine, false);
}

void machine_powerdown(struct machine *machine)
{
	if (machine->pm)
		acpi_pm_power_button(machine->pm);
	machine_emit(machine, MACHINE_EVENT_POWERDOWN, NULL);
}

/*
 * Power requests come from vCPU threads.  They wait in machine->requests until the main thread is
 * between callbacks; while an update has the guest paused they wait on, and cross with the state.
 */
static void handle_requests(void *opaque)
{
	const uint32_t eject = 1u << POWER_EJECT;
	struct machine *machine = opaque;
	uint32_t requests;

	if (machine->runstate != RUNSTATE_RUNNING)
		return;
	requests = __atomic_fetch_and(&machine->requests, machine->plug_holds ? eject : 0,
				      __ATOMIC_ACQ_REL);
	if (requests & eject && !machine->plug_holds)
		hotplug_answer(machine);
	if (requests & MACHINE_REQUEST_ERROR)
		machine_stop(machine, RUNSTATE_INTERNAL_ERROR);
	else if (requests & (1u << POWER_OFF))
		machine_shutdown(machine, "guest-shutdown", true);
	else if (requests & (1u << POWER_RESET))
		reset_or_quit(machine, true);
}

void machine_hold_devices(struct machine *machine)
{
	machine->plug_holds++;
}

void machine_release_devices(struct machine *machine)
{
	machine->plug_holds--;
	handle_requests(machine);
}

void machine_request(struct machine *machine, uint32_t request)
{
	__atomic_fetch_or(&machine->requests, request, __ATOMIC_ACQ_REL);
	loop_call_later(handle_requests, machine);
}

/* ---- look-ups ---- */

struct chardev *machine_find_chardev(struct machine *machine, const char *id)
{
	return chardev_set_find(machine->chardevs, id);
}

GPtrArray *machine_ram_blocks(struct machine *machine)
{
	return machine->ram_blocks;
}

json_t *machine_query_block(struct machine *machine)
{
	json_t *list = json_array();

	for (guint i = 0; machine->blocks && i < machine->blocks->len; i++)
		json_array_append_new(list, block_node_query_json(machine->blocks->pdata[i]));
	return list;
}
