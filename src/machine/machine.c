// The machine's life: built, started, stopped, reset, paused for an update, let go.
// SPDX-License-Identifier: Apache-2.0
#include "machine/machine.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "machine/machine_priv.h"

/* How long a stop waits for requests in flight; nearly always enough. */
#define STOP_WAIT_MS 100

/* How long the end of the process does. */
#define END_WAIT_MS 1000

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

static void drained(void *opaque)
{
	machine_settle(opaque);
}

struct machine *machine_alloc(struct vm_config *config, struct fd_source *fds,
			      struct chardev_set *chardevs, enum runstate runstate)
{
	struct machine *machine = g_new0(struct machine, 1);

	machine->config = config;
	machine->fds = fds;
	machine->chardevs = chardevs;
	machine->runstate = runstate;
	machine->loaded_runstate = RUNSTATE_RUNNING;
	machine->devices = g_ptr_array_new();
	machine->own_chardevs = g_ptr_array_new();
	hold_init(&machine->hold, machine->devices, machine->own_chardevs,
		  HOLD_STOPPED | HOLD_INCOMING, drained, machine);
	machine_requests_init(machine);
	machine->listeners = g_array_new(FALSE, FALSE, sizeof(struct machine_listener));
	return machine;
}

struct machine *machine_new(struct vm_config *config, struct fd_source *fds,
			    struct chardev_set *chardevs, bool cold, GError **error)
{
	autoptr(machine) machine = machine_alloc(config, fds, chardevs,
						 cold ? RUNSTATE_PRELAUNCH : RUNSTATE_INMIGRATE);

	if (!board_build(machine, error))
		return NULL;
	if (cold && !board_boot(machine, error))
		return NULL;
	if (cold)
		hold_drop(&machine->hold, HOLD_INCOMING);
	return g_steal_pointer(&machine);
}

/*
 * Whether all may be freed.  A request that the host does not answer has its device, its thread and guest
 * memory in use, a vCPU that does not park even more; the process does not wait for them, but ends, and
 * the kernel frees the rest.
 */
static bool come_to_rest(struct machine *machine)
{
	g_autoptr(GError) error = NULL;

	hold_add(&machine->hold, HOLD_STOPPED);
	if ((!machine->kvm || kvm_vm_pause(machine->kvm, &error)) &&
	    hold_wait(&machine->hold, END_WAIT_MS))
		return true;
	if (!error)
		error = hold_error(&machine->hold);
	log_warn("%s; left behind", error->message);
	return false;
}

void machine_free(struct machine *machine)
{
	if (!machine || !come_to_rest(machine))
		return;
	board_teardown(machine, false);
	machine_requests_clear(machine);
	hold_clear(&machine->hold);
	g_ptr_array_unref(machine->devices);
	g_ptr_array_unref(machine->own_chardevs);
	g_array_unref(machine->listeners);
	g_free(machine);
}

void machine_disown(struct machine *machine)
{
	if (come_to_rest(machine))
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
	if (machine->ended)
		fn(opaque);
}

enum runstate machine_runstate(const struct machine *machine)
{
	return machine->runstate;
}

/* ---- standing still ---- */

bool machine_drain(struct machine *machine, uint64_t limit_ns, hold_done_fn done, void *opaque)
{
	hold_add(&machine->hold, HOLD_DRAIN);
	if (hold_state(&machine->hold) == HOLD_STATE_HELD)
		return true;
	hold_await(&machine->hold, limit_ns, done, opaque);
	return false;
}

void machine_undrain(struct machine *machine)
{
	hold_await_stop(&machine->hold);
	hold_drop(&machine->hold, HOLD_DRAIN);
}

bool machine_quiesce(struct machine *machine, GError **error)
{
	GError *busy;

	hold_add(&machine->hold, HOLD_UPDATE);
	busy = hold_error(&machine->hold);
	if (!busy)
		return true;
	g_propagate_error(error, busy);
	machine_unquiesce(machine);
	return false;
}

void machine_unquiesce(struct machine *machine)
{
	hold_drop(&machine->hold, HOLD_UPDATE);
}

/* ---- run and stop ---- */

void machine_enter(struct machine *machine, enum runstate state)
{
	g_autoptr(GError) error = NULL;

	if (!runstate_change(&machine->runstate, state, &error))
		log_error("%s", error->message);
}

/* A reset that waits for its devices lets them run when it is done. */
static void run_vcpus(struct machine *machine)
{
	if (!machine->reset_pending)
		kvm_vm_run(machine->kvm);
}

void machine_start(struct machine *machine)
{
	if (machine->runstate == RUNSTATE_RUNNING || !machine->kvm)
		return;
	/* A request that failed before is about to be repeated; a predecessor's is yet to be told. */
	if (machine->runstate != RUNSTATE_INMIGRATE)
		__atomic_fetch_and(&machine->requests, ~MACHINE_REQUEST_IO_ERROR, __ATOMIC_ACQ_REL);
	machine_enter(machine, RUNSTATE_RUNNING);
	hold_drop(&machine->hold, HOLD_STOPPED);
	kvm_vm_start_clock(machine->kvm);
	run_vcpus(machine);
	machine_emit(machine, MACHINE_EVENT_RESUME, NULL);
	machine_handle_requests(machine);
}

void machine_arrive(struct machine *machine, bool run)
{
	const bool ran = machine->loaded_runstate == RUNSTATE_RUNNING;

	hold_drop(&machine->hold, HOLD_INCOMING);
	if (ran && run)
		machine_start(machine);
	else
		machine_enter(machine, ran ? RUNSTATE_PAUSED : machine->loaded_runstate);
}

/* vCPUs are parked, or will be when they can. */
static void stopped(struct machine *machine, enum runstate state)
{
	kvm_vm_stop_clock(machine->kvm);
	machine_enter(machine, state);
	hold_add(&machine->hold, HOLD_STOPPED);
	if (!hold_wait(&machine->hold, STOP_WAIT_MS)) {
		g_autoptr(GError) error = hold_error(&machine->hold);

		log_warn("stop: %s; it may still write guest memory", error->message);
	}
	machine_emit(machine, MACHINE_EVENT_STOP, NULL);
}

bool machine_stop(struct machine *machine, enum runstate state, GError **error)
{
	if (machine->runstate != RUNSTATE_RUNNING)
		return true;
	if (!kvm_vm_pause(machine->kvm, error)) {
		run_vcpus(machine);
		return false;
	}
	stopped(machine, state);
	return true;
}

void machine_halt(struct machine *machine, enum runstate state)
{
	g_autoptr(GError) error = NULL;

	if (machine->runstate != RUNSTATE_RUNNING)
		return;
	if (!kvm_vm_pause(machine->kvm, &error))
		log_warn("%s: %s", runstate_name(state), error->message);
	stopped(machine, state);
}

bool machine_pause(struct machine *machine, uint64_t limit_ns, GError **error)
{
	const uint32_t ms = limit_ns ? CLAMP(limit_ns / NS_PER_MSEC, 1, KVM_PARK_MS) : 0;

	/* It waits for a vCPU, and is made when that has parked: the state would be without it. */
	if (machine->reset_pending)
		return error_set(error, MOLT_ERROR_TIMEOUT, "the guest is being reset");
	machine->paused_from = machine->runstate;
	if (!runstate_change(&machine->runstate, RUNSTATE_FINISH_MIGRATE, error))
		return false;
	if (machine->paused_from == RUNSTATE_RUNNING)
		machine_emit(machine, MACHINE_EVENT_STOP, NULL);
	machine->paused_ns = clock_now_ns();
	if (kvm_vm_pause_reading(machine->kvm, ms, error))
		return true;
	machine_unpause(machine);
	return false;
}

void machine_unpause(struct machine *machine)
{
	machine->paused_ns = 0;
	machine_enter(machine, machine->paused_from);
	if (machine->paused_from != RUNSTATE_RUNNING)
		return;
	kvm_vm_run(machine->kvm);
	machine_emit(machine, MACHINE_EVENT_RESUME, NULL);
	machine_handle_requests(machine);
}

uint64_t machine_paused_ns(const struct machine *machine)
{
	return machine->paused_ns;
}

/* ---- devices come and go ---- */

void machine_hold_devices(struct machine *machine)
{
	machine->plug_holds++;
}

void machine_release_devices(struct machine *machine)
{
	machine->plug_holds--;
	machine_handle_requests(machine);
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
