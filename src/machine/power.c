// Reset, power-off, and what else devices and vCPUs ask of the machine, from any thread.
// SPDX-License-Identifier: Apache-2.0
#include "accel/kvm.h"
#include "base/log.h"
#include "base/loop.h"
#include "device/legacy/acpi_pm.h"
#include "machine/machine_priv.h"

/**
 * DOC: requests
 *
 * What is asked waits in machine->requests, one bit a kind, until the main thread is between
 * callbacks: one source that is told, so that a guest that repeats a request without end costs nothing
 * but its own time.  While an update has the guest stopped the bits wait on, and cross with the state.
 */

/* Failed requests whose events wait for the main thread; a guest cannot make more of them than this. */
#define IO_ERRORS_MAX 64

/* ---- reset ---- */

/* Requests made before the vCPUs were parked belong to the life that ends here; but power-off prevails. */
static bool powered_off_instead(struct machine *machine)
{
	const uint32_t of_this_life = MACHINE_REQUEST_RESET | MACHINE_REQUEST_OFF |
				      MACHINE_REQUEST_ERROR | MACHINE_REQUEST_IO_ERROR;
	const uint32_t before =
		__atomic_fetch_and(&machine->requests, ~of_this_life, __ATOMIC_ACQ_REL);

	if (!(before & MACHINE_REQUEST_OFF) || machine->runstate != RUNSTATE_RUNNING)
		return false;
	machine_shutdown(machine, "guest-shutdown", true);
	return true;
}

static bool reset_all(struct machine *machine, GError **error)
{
	const uint32_t wanted_slots = hotplug_before_reset(machine);

	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (dev->ops->reset)
			dev->ops->reset(dev);
	}
	hotplug_after_reset(machine, wanted_slots);
	return kvm_vm_reset(machine->kvm, error) && board_boot(machine, error);
}

static void reset_failed(struct machine *machine, const GError *error)
{
	log_error("reset: %s", error->message);
	hold_add(&machine->hold, HOLD_STOPPED);
	hold_drop(&machine->hold, HOLD_RESET);
	machine_enter(machine, RUNSTATE_INTERNAL_ERROR);
	machine_emit(machine, MACHINE_EVENT_STOP, NULL);
}

/* vCPUs are parked, and nothing is in flight. */
static void finish_reset(struct machine *machine)
{
	const bool guest = machine->reset_by_guest;
	g_autoptr(GError) error = NULL;

	machine->reset_pending = false;
	if (powered_off_instead(machine)) {
		hold_drop(&machine->hold, HOLD_RESET);
		return;
	}
	if (!reset_all(machine, &error)) {
		reset_failed(machine, error);
		return;
	}
	machine_emit(machine, MACHINE_EVENT_RESET,
		     json_pack("{s:b, s:s}", "guest", guest, "reason",
			       guest ? "guest-reset" : "host-qmp-system-reset"));
	hold_drop(&machine->hold, HOLD_RESET);
	if (machine->runstate == RUNSTATE_RUNNING)
		kvm_vm_run(machine->kvm);
	else if (machine->runstate == RUNSTATE_SHUTDOWN ||
		 machine->runstate == RUNSTATE_INTERNAL_ERROR ||
		 machine->runstate == RUNSTATE_IO_ERROR)
		machine_enter(machine, RUNSTATE_PRELAUNCH);
}

/*
 * Guest memory is the devices' until they say otherwise: a reset waits for what is in flight, without
 * the main thread.  Until then the vCPUs are parked, and the next reset is the same one.
 */
static void begin_reset(struct machine *machine, bool guest)
{
	g_autoptr(GError) error = NULL;

	if (machine->reset_pending)
		return;
	hold_add(&machine->hold, HOLD_RESET);
	machine->reset_pending = true;
	machine->reset_by_guest = guest;
	if (kvm_vm_pause(machine->kvm, &error))
		error = hold_error(&machine->hold);
	if (error)
		log_warn("the reset waits: %s", error->message);
	else
		finish_reset(machine);
}

void machine_settle(struct machine *machine)
{
	if (machine->reset_pending && kvm_vm_parked(machine->kvm) &&
	    hold_state(&machine->hold) == HOLD_STATE_HELD)
		finish_reset(machine);
	machine_handle_requests(machine);
}

static void reset_or_quit(struct machine *machine, bool guest)
{
	/* Before it has come, and once it is gone, the guest and its memory are another process's. */
	if (!machine->kvm || machine->runstate == RUNSTATE_POSTMIGRATE ||
	    machine->runstate == RUNSTATE_INMIGRATE)
		return;
	if (machine->config->no_reboot)
		machine_shutdown(machine, guest ? "guest-reset" : "host-qmp-system-reset", guest);
	else
		begin_reset(machine, guest);
}

void machine_reset(struct machine *machine)
{
	reset_or_quit(machine, false);
}

/* ---- power ---- */

void machine_shutdown(struct machine *machine, const char *reason, bool guest)
{
	if (machine->ended)
		return;
	machine_emit(machine, MACHINE_EVENT_SHUTDOWN,
		     json_pack("{s:b, s:s}", "guest", guest, "reason", reason));
	if (machine->kvm)
		(void)kvm_vm_pause(machine->kvm, NULL);
	/* A guest that asks again and again does so until it is parked. */
	__atomic_fetch_and(&machine->requests, ~(MACHINE_REQUEST_OFF | MACHINE_REQUEST_RESET),
			   __ATOMIC_ACQ_REL);
	if (guest && machine->config->no_shutdown) {
		machine_halt(machine, RUNSTATE_SHUTDOWN);
		return;
	}
	machine->ended = true;
	if (machine->quit)
		machine->quit(machine->quit_opaque);
}

bool machine_ended(const struct machine *machine)
{
	return machine->ended;
}

void machine_powerdown(struct machine *machine)
{
	if (machine->pm)
		acpi_pm_power_button(machine->pm);
	machine_emit(machine, MACHINE_EVENT_POWERDOWN, NULL);
}

/* ---- requests ---- */

static void tell_io_errors(struct machine *machine)
{
	struct io_errors *errors = &machine->io_errors;
	g_autoptr(GPtrArray) events = NULL;
	uint32_t n_dropped;

	g_mutex_lock(&errors->lock);
	events = g_steal_pointer(&errors->events);
	n_dropped = errors->n_dropped;
	errors->n_dropped = 0;
	g_mutex_unlock(&errors->lock);
	for (guint i = 0; events && i < events->len; i++)
		machine_emit(machine, MACHINE_EVENT_BLOCK_IO_ERROR, events->pdata[i]);
	if (n_dropped)
		log_warn("%u more requests failed on the host in the same moment", n_dropped);
}

void machine_handle_requests(struct machine *machine)
{
	const uint32_t eject = MACHINE_REQUEST_EJECT;
	uint32_t kept = machine->plug_holds ? eject : 0, requests;

	if (machine->runstate != RUNSTATE_RUNNING || machine->ended)
		return;
	/* A reset under way takes the others. */
	if (machine->reset_pending)
		kept |= ~eject;
	requests = __atomic_fetch_and(&machine->requests, kept, __ATOMIC_ACQ_REL) & ~kept;
	if (requests & eject)
		hotplug_answer(machine);
	if (requests & MACHINE_REQUEST_ERROR)
		machine_halt(machine, RUNSTATE_INTERNAL_ERROR);
	else if (requests & MACHINE_REQUEST_OFF)
		machine_shutdown(machine, "guest-shutdown", true);
	else if (requests & MACHINE_REQUEST_RESET)
		reset_or_quit(machine, true);
	else if (requests & MACHINE_REQUEST_IO_ERROR)
		machine_halt(machine, RUNSTATE_IO_ERROR);
}

static gboolean requests_told(void *opaque)
{
	struct machine *machine = opaque;

	tell_io_errors(machine);
	machine_settle(machine);
	return G_SOURCE_CONTINUE;
}

void machine_request(struct machine *machine, uint32_t request)
{
	const uint32_t before = __atomic_fetch_or(&machine->requests, request, __ATOMIC_ACQ_REL);

	if (~before & request)
		g_source_set_ready_time(machine->told, 0);
}

void machine_io_error(struct machine *machine, json_t *event, bool stop)
{
	struct io_errors *errors = &machine->io_errors;

	g_mutex_lock(&errors->lock);
	if (!errors->events)
		errors->events = g_ptr_array_new();
	if (errors->events->len < IO_ERRORS_MAX)
		g_ptr_array_add(errors->events, g_steal_pointer(&event));
	else
		errors->n_dropped++;
	g_mutex_unlock(&errors->lock);
	json_decref(event);
	if (stop)
		machine_request(machine, MACHINE_REQUEST_IO_ERROR);
	g_source_set_ready_time(machine->told, 0);
}

void machine_requests_init(struct machine *machine)
{
	g_mutex_init(&machine->io_errors.lock);
	machine->told = loop_when_told(requests_told, machine);
}

void machine_requests_clear(struct machine *machine)
{
	struct io_errors *errors = &machine->io_errors;

	loop_unwatch(&machine->told);
	for (guint i = 0; errors->events && i < errors->events->len; i++)
		json_decref(errors->events->pdata[i]);
	g_clear_pointer(&errors->events, g_ptr_array_unref);
	g_mutex_clear(&errors->lock);
}
