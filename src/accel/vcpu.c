// One vCPU: its thread, how it is parked, and the exits it handles.
// SPDX-License-Identifier: Apache-2.0
#include "accel/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "accel/kvm_internal.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/patience.h"
#include "base/thread.h"

/**
 * DOC: parking
 *
 * A vCPU's thread is parked (waits on its condition), runs a job for the main thread, or is in the
 * guest.  Who wants it parked takes the VM's lock, clears kvm_vm.running and sets immediate_exit in
 * the vCPU's struct kvm_run, then lets the lock go and sends the kick signal:
 *
 *  - in KVM_RUN, the signal ends it with EINTR;
 *  - on the way to KVM_RUN, the kernel sees immediate_exit and returns EINTR at once;
 *  - handling an exit, the next KVM_RUN completes the access and then sees immediate_exit.
 *
 * immediate_exit is cleared under the same lock, on the way into the guest, and only while
 * kvm_vm.running is set, so no kick is lost.  The thread leaves the guest through EINTR only: a
 * port or MMIO access (a string instruction's next element too) is complete by then, and the
 * registers are those between two instructions.
 */

/**
 * DOC: waiting
 *
 * A hand-over from one thread to another costs a wake-up, 30 to 100 us where an idle processor sleeps
 * deeply or belongs to a hypervisor.  Some are near enough to be waited for awake: the main thread
 * waits for a park or a job that takes that long; a vCPU that has just parked is about to be asked
 * for its state; and kvm_vm_expect() says that vCPUs are about to get theirs.  Who waits so looks
 * again and again, offering the processor to others at each look.  More of that does harm: on a
 * host with few processors who spins takes one from who works, and who offers its processor may
 * get it back late.
 */
#define SPIN_NS (200 * NS_PER_USEC)

/* One look at whether vCPUs have parked. */
#define PARK_SLICE_MS 50

/* vcpu.where */
#define VCPU_IN_GUEST	  UINT64_MAX
#define WHERE_REASON_BITS 48

/*
 * Until @seq moves, or @until_ns.  Who moved it may still hold the lock, for less time than it would
 * take to sleep until it is free.  Context: the VM's lock is held, but not meanwhile.
 */
static void wait_awake(struct kvm_vm *vm, const uint32_t *seq, uint64_t until_ns)
{
	const uint32_t seen = *seq;

	g_mutex_unlock(&vm->lock);
	do {
		if (__atomic_load_n(seq, __ATOMIC_RELAXED) != seen && g_mutex_trylock(&vm->lock))
			return;
		sched_yield();
	} while (clock_now_ns() < until_ns);
	g_mutex_lock(&vm->lock);
}

/* For the main thread: until a vCPU's thread has called tell_main().  The VM's lock is held. */
static void wait_for_vcpu(struct kvm_vm *vm)
{
	const uint32_t seen = vm->done_seq;

	wait_awake(vm, &vm->done_seq, clock_now_ns() + SPIN_NS);
	if (vm->done_seq == seen)
		g_cond_wait(&vm->parked, &vm->lock);
}

/* For a vCPU's thread: until there may be something to do.  The VM's lock is held. */
static void wait_for_work(struct vcpu *vcpu)
{
	struct kvm_vm *vm = vcpu->vm;

	if (clock_now_ns() < vm->awake_until_ns)
		wait_awake(vm, &vm->work_seq, vm->awake_until_ns);
	else
		g_cond_wait(&vcpu->wake, &vm->lock);
}

/* A vCPU's thread has done something that the main thread may wait for.  The VM's lock is held. */
static void tell_main(struct kvm_vm *vm)
{
	__atomic_store_n(&vm->done_seq, vm->done_seq + 1, __ATOMIC_RELAXED);
	g_cond_signal(&vm->parked);
}

/*
 * There is something to do for vCPUs' threads [@first, @end), or there may be: who waits awake looks
 * when work_seq has moved.  Context: the VM's lock is held; it is let go first, for otherwise who
 * wakes would have to wait for it.
 */
static void unlock_and_wake(struct kvm_vm *vm, uint32_t first, uint32_t end)
{
	__atomic_store_n(&vm->work_seq, vm->work_seq + 1, __ATOMIC_RELAXED);
	g_mutex_unlock(&vm->lock);
	for (uint32_t i = first; i < end; i++)
		g_cond_signal(&vm->vcpus[i].wake);
}

static void kick_handler(int sig)
{
	(void)sig;
}

/* Everything goes to the main thread but the kick, and faults of this thread's own. */
static bool vcpu_thread_signals(void)
{
	struct sigaction action = {.sa_handler = kick_handler, .sa_flags = SA_RESTART};
	static const int ours[] = {VCPU_KICK_SIGNAL, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	sigset_t set;

	sigemptyset(&action.sa_mask);
	sigfillset(&set);
	for (size_t i = 0; i < G_N_ELEMENTS(ours); i++)
		sigdelset(&set, ours[i]);
	return sigaction(VCPU_KICK_SIGNAL, &action, NULL) == 0 &&
	       pthread_sigmask(SIG_SETMASK, &set, NULL) == 0;
}

/* ---- what a vCPU is doing ---- */

static void vcpu_note(struct vcpu *vcpu, uint64_t where)
{
	__atomic_store_n(&vcpu->where, where, __ATOMIC_RELAXED);
}

static uint64_t exit_where(const struct kvm_run *run)
{
	uint64_t addr = 0;

	if (run->exit_reason == KVM_EXIT_IO)
		addr = run->io.port;
	else if (run->exit_reason == KVM_EXIT_MMIO)
		addr = run->mmio.phys_addr & ((UINT64_C(1) << WHERE_REASON_BITS) - 1);
	return (uint64_t)run->exit_reason << WHERE_REASON_BITS | addr;
}

static char *vcpu_describe(const struct vcpu *vcpu)
{
	const uint64_t where = __atomic_load_n(&vcpu->where, __ATOMIC_RELAXED);
	const uint32_t reason = where >> WHERE_REASON_BITS;
	const uint64_t addr = where & ((UINT64_C(1) << WHERE_REASON_BITS) - 1);
	const bool pio = reason == KVM_EXIT_IO;
	struct io_space *space = pio ? vcpu->vm->params.pio : vcpu->vm->params.mmio;
	const char *name, *phase;

	if (where == VCPU_IN_GUEST)
		return g_strdup("it is in the guest, waiting for memory or for processor time");
	if (!pio && reason != KVM_EXIT_MMIO)
		return g_strdup_printf("it handles exit reason %u", reason);
	name = io_space_name_at(space, addr);
	phase = __atomic_load_n(vcpu->phase, __ATOMIC_RELAXED) == IO_PHASE_WAITS
			? "waits for the lock of"
			: "is at work in";
	return g_strdup_printf("it accesses %s 0x%" PRIx64 " and %s '%s'", pio ? "port" : "address",
			       addr, phase, name ? name : "nothing");
}

/* ---- exits ---- */

static void vcpu_pio(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)vcpu->run + run->io.data_offset;
	struct io_space *pio = vcpu->vm->params.pio;

	/* String instructions: several elements, all at the same port. */
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		uint64_t value = 0;

		if (run->io.direction == KVM_EXIT_IO_IN) {
			io_space_read(pio, run->io.port, run->io.size, &value);
			memcpy(data, &value, run->io.size);
		} else {
			memcpy(&value, data, run->io.size);
			io_space_write(pio, run->io.port, run->io.size, value);
		}
	}
}

/* An access that crosses a page arrives in parts of any length. */
static void vcpu_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct io_space *mmio = vcpu->vm->params.mmio;
	uint32_t len = MIN(run->mmio.len, sizeof(run->mmio.data));

	for (uint32_t done = 0; done < len;) {
		uint64_t addr = run->mmio.phys_addr + done;
		uint32_t size = 8;
		uint64_t value = 0;

		while (size > len - done)
			size /= 2;
		if (run->mmio.is_write) {
			memcpy(&value, run->mmio.data + done, size);
			io_space_write(mmio, addr, size, value);
		} else {
			io_space_read(mmio, addr, size, &value);
			memcpy(run->mmio.data + done, &value, size);
		}
		done += size;
	}
}

/* The thread will park, and stay so until a reset, before the main thread hears of it. */
static void vcpu_report(struct vcpu *vcpu, enum vcpu_event event)
{
	struct kvm_vm *vm = vcpu->vm;

	g_mutex_lock(&vm->lock);
	vcpu->blocked = true;
	g_mutex_unlock(&vm->lock);
	vm->params.event(vm->params.opaque, vcpu->index, event);
}

static void vcpu_fail(struct vcpu *vcpu, const char *what)
{
	struct kvm_regs regs = {0};

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0)
		log_error("vCPU %u: %s", vcpu->index, what);
	else
		log_error("vCPU %u: %s (rip 0x%llx)", vcpu->index, what, regs.rip);
	vcpu_report(vcpu, VCPU_EVENT_ERROR);
}

static void vcpu_system_event(struct vcpu *vcpu)
{
	switch (vcpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		vcpu_report(vcpu, VCPU_EVENT_SHUTDOWN);
		return;
	case KVM_SYSTEM_EVENT_RESET:
		vcpu_report(vcpu, VCPU_EVENT_RESET);
		return;
	}
	vcpu_fail(vcpu, "KVM reports a crash of the guest");
}

/* Return: false when the vCPU must not enter the guest again before a reset. */
static bool vcpu_handle_exit(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	char what[96];

	vcpu_note(vcpu, exit_where(run));
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		vcpu_pio(vcpu);
		return true;
	case KVM_EXIT_MMIO:
		vcpu_mmio(vcpu);
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return true;
	case KVM_EXIT_SHUTDOWN:
		vcpu_report(vcpu, VCPU_EVENT_SHUTDOWN);
		return false;
	case KVM_EXIT_SYSTEM_EVENT:
		vcpu_system_event(vcpu);
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(what, sizeof(what), "KVM internal error, suberror %u%s",
			 run->internal.suberror,
			 run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
				 ? " (an instruction it cannot emulate)"
				 : "");
		break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(what, sizeof(what), "KVM cannot enter the guest, hardware reason 0x%llx",
			 run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		snprintf(what, sizeof(what), "unexpected KVM exit reason %u", run->exit_reason);
		break;
	}
	vcpu_fail(vcpu, what);
	return false;
}

/* Run the guest until it is to park; see DOC: parking. */
static void vcpu_enter_guest(struct vcpu *vcpu)
{
	char what[96];

	for (;;) {
		vcpu_note(vcpu, VCPU_IN_GUEST);
		if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
			if (!vcpu_handle_exit(vcpu))
				return;
			continue;
		}
		/* EAGAIN: an application processor got its INIT or SIPI; enter again. */
		if (errno != EINTR && errno != EAGAIN)
			break;
		if (__atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_RELAXED))
			return;
	}
	snprintf(what, sizeof(what), "KVM_RUN: %s", g_strerror(errno));
	vcpu_fail(vcpu, what);
}

/* ---- the thread ---- */

static void vcpu_run_job(struct vcpu *vcpu)
{
	struct kvm_vm *vm = vcpu->vm;
	GError *error = NULL;
	bool ok;

	g_mutex_unlock(&vm->lock);
	ok = vcpu->job(vcpu, vcpu->job_arg, &error);
	g_mutex_lock(&vm->lock);
	vcpu->job = NULL;
	vcpu->job_ok = ok;
	vcpu->job_error = error;
	tell_main(vm);
}

/* What an earlier job that nobody waited for complained about does not matter any more. */
static void vcpu_begin(struct vcpu *vcpu, vcpu_fn fn, void *arg)
{
	g_clear_error(&vcpu->job_error);
	vcpu->job_arg = arg;
	vcpu->job = fn;
}

static bool all_parked(const struct kvm_vm *vm)
{
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		if (!vm->vcpus[i].parked)
			return false;
	return true;
}

/* Context: the VM's lock is held. */
static void vcpu_park(struct vcpu *vcpu)
{
	struct kvm_vm *vm = vcpu->vm;

	__atomic_store_n(&vcpu->parked, true, __ATOMIC_RELAXED);
	vm->awake_until_ns = clock_now_ns() + SPIN_NS;
	if (vm->when_parked && all_parked(vm)) {
		for (uint32_t i = 0; i < vm->n_vcpus; i++)
			vcpu_begin(&vm->vcpus[i], vm->when_parked, NULL);
		vm->when_parked = NULL;
		unlock_and_wake(vm, 0, vm->n_vcpus);
		g_mutex_lock(&vm->lock);
	}
	if (vcpu->late)
		vm->params.event(vm->params.opaque, vcpu->index, VCPU_EVENT_PARKED);
	vcpu->late = false;
	tell_main(vm);
}

/* From the parking place into the guest and back.  Context: the VM's lock is held. */
static void vcpu_leave_park(struct vcpu *vcpu)
{
	struct kvm_vm *vm = vcpu->vm;

	__atomic_store_n(&vcpu->parked, false, __ATOMIC_RELAXED);
	vcpu->fresh = vcpu->early = false;
	if (!vm->entered_ns)
		vm->entered_ns = clock_now_ns();
	__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
	g_mutex_unlock(&vm->lock);
	vcpu_enter_guest(vcpu);
	g_mutex_lock(&vm->lock);
	vcpu_park(vcpu);
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu *vcpu = opaque;
	struct kvm_vm *vm = vcpu->vm;

	vcpu->phase = io_space_phase();
	g_mutex_lock(&vm->lock);
	vcpu->tid = vcpu_thread_signals() ? (int)gettid() : -1;
	tell_main(vm);
	while (!vm->quit) {
		if (vcpu->job)
			vcpu_run_job(vcpu);
		else if (vm->running && !vcpu->blocked)
			vcpu_leave_park(vcpu);
		else
			wait_for_work(vcpu);
	}
	g_mutex_unlock(&vm->lock);
	return NULL;
}

bool vcpu_start(struct vcpu *vcpu, GError **error)
{
	struct kvm_vm *vm = vcpu->vm;
	char name[16];

	snprintf(name, sizeof(name), "CPU %u/KVM", vcpu->index);
	vcpu->thread = thread_new(name, vcpu_thread, vcpu, error);
	if (!vcpu->thread)
		return false;
	g_mutex_lock(&vm->lock);
	while (vcpu->tid == 0)
		g_cond_wait(&vm->parked, &vm->lock);
	g_mutex_unlock(&vm->lock);
	if (vcpu->tid < 0)
		return error_set_generic(error, "vCPU %u: its signals cannot be set up",
					 vcpu->index);
	return true;
}

void vcpus_stop(struct kvm_vm *vm)
{
	g_mutex_lock(&vm->lock);
	vm->quit = true;
	unlock_and_wake(vm, 0, vm->n_vcpus);
	for (uint32_t i = 0; i < vm->n_vcpus; i++) {
		if (vm->vcpus[i].thread)
			g_thread_join(vm->vcpus[i].thread);
		vm->vcpus[i].thread = NULL;
	}
}

/* ---- run, pause, jobs: the main thread's side ---- */

uint64_t kvm_vm_entered_ns(struct kvm_vm *vm)
{
	uint64_t entered_ns;

	g_mutex_lock(&vm->lock);
	entered_ns = vm->entered_ns;
	g_mutex_unlock(&vm->lock);
	return entered_ns;
}

void kvm_vm_run(struct kvm_vm *vm)
{
	g_mutex_lock(&vm->lock);
	if (!vm->running) {
		vm->running = true;
		vm->entered_ns = 0;
		unlock_and_wake(vm, 0, vm->n_vcpus);
	} else {
		g_mutex_unlock(&vm->lock);
	}
}

/* For the main thread: until the vCPU's thread has no job.  The VM's lock is held. */
static void vcpu_await(struct vcpu *vcpu)
{
	while (vcpu->job)
		wait_for_vcpu(vcpu->vm);
}

/* Tell those that are not parked; they will see it before they enter the guest again. */
static void tell_to_park(struct kvm_vm *vm, vcpu_fn then)
{
	g_mutex_lock(&vm->lock);
	/* One that parks may begin a job for all: none may be left from an earlier pause. */
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		vcpu_await(&vm->vcpus[i]);
	vm->running = false;
	vm->when_parked = then;
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		if (!vm->vcpus[i].parked)
			__atomic_store_n(&vm->vcpus[i].run->immediate_exit, 1, __ATOMIC_RELAXED);
	g_mutex_unlock(&vm->lock);
}

/**
 * struct park_watch - What @vm's late vCPUs do
 * @begun:	The first slice has passed
 * @n_ready:	How often one of them would have run
 */
struct park_watch {
	const struct kvm_vm *vm;
	bool begun;
	uint64_t n_ready;
};

/* A vCPU that could go on if the host had a processor for it is not late.  The VM's lock is held. */
static uint64_t park_progress(void *opaque)
{
	struct park_watch *watch = opaque;
	const struct kvm_vm *vm = watch->vm;

	/* Before, nobody is late, and a look at /proc would make the pause longer. */
	for (uint32_t i = 0; i < vm->n_vcpus && watch->begun; i++) {
		if (!vm->vcpus[i].parked && thread_runs(vm->vcpus[i].tid)) {
			watch->n_ready++;
			break;
		}
	}
	watch->begun = true;
	return watch->n_ready;
}

/*
 * For the main thread, the VM's lock held: until all have parked, or nobody did in @ms; 0: KVM_PARK_MS.
 * Who has agreed on a time wants to know then, whatever the vCPUs do.
 */
static bool await_parked(struct kvm_vm *vm, uint32_t ms)
{
	struct park_watch watch = {.vm = vm};
	struct patience patience = {.budget_ms = ms ?: KVM_PARK_MS,
				    .tick_ms = PARK_SLICE_MS,
				    .max_ms = ms,
				    .progress = park_progress,
				    .opaque = &watch};
	uint32_t slice_ms = patience_begin(&patience);

	while (slice_ms && !all_parked(vm)) {
		const uint32_t seen = vm->done_seq;

		wait_awake(vm, &vm->done_seq, clock_now_ns() + SPIN_NS);
		if (vm->done_seq == seen &&
		    !g_cond_wait_until(&vm->parked, &vm->lock,
				       g_get_monotonic_time() + slice_ms * G_TIME_SPAN_MILLISECOND))
			slice_ms = patience_tick(&patience);
	}
	return all_parked(vm);
}

/* The first that has not parked, and what it is doing. */
static bool name_late(struct kvm_vm *vm, GError **error)
{
	struct vcpu *first = NULL;
	g_autofree char *what = NULL;

	for (uint32_t i = vm->n_vcpus; i-- > 0;) {
		if (vm->vcpus[i].parked)
			continue;
		vm->vcpus[i].late = true;
		first = &vm->vcpus[i];
	}
	what = vcpu_describe(first);
	return error_set(error, MOLT_ERROR_TIMEOUT, "vCPU %u does not stop: %s", first->index,
			 what);
}

bool vcpus_park(struct kvm_vm *vm, vcpu_fn then, uint32_t ms, GError **error)
{
	const pid_t pid = getpid();
	bool ok;

	tell_to_park(vm, then);
	/* Without the lock, which each of them takes to park.  One that has parked does not mind. */
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		if (!__atomic_load_n(&vm->vcpus[i].parked, __ATOMIC_RELAXED))
			syscall(SYS_tgkill, pid, vm->vcpus[i].tid, VCPU_KICK_SIGNAL);
	g_mutex_lock(&vm->lock);
	ok = await_parked(vm, ms) || name_late(vm, error);
	vm->when_parked = NULL;
	g_mutex_unlock(&vm->lock);
	return ok;
}

bool kvm_vm_pause(struct kvm_vm *vm, GError **error)
{
	return vcpus_park(vm, NULL, 0, error);
}

bool kvm_vm_parked(struct kvm_vm *vm)
{
	bool parked;

	g_mutex_lock(&vm->lock);
	parked = !vm->running && all_parked(vm);
	g_mutex_unlock(&vm->lock);
	return parked;
}

void kvm_vm_expect(struct kvm_vm *vm, uint64_t ns)
{
	g_mutex_lock(&vm->lock);
	vm->awake_until_ns = clock_now_ns() + ns;
	unlock_and_wake(vm, 0, vm->n_vcpus);
}

bool kvm_vm_running(const struct kvm_vm *vm)
{
	struct kvm_vm *unconst = (struct kvm_vm *)vm;
	bool running;

	g_mutex_lock(&unconst->lock);
	running = vm->running;
	g_mutex_unlock(&unconst->lock);
	return running;
}

/* Context: the VM's lock is held. */
static bool vcpu_end(struct vcpu *vcpu, GError **error)
{
	GError *job_error;

	vcpu_await(vcpu);
	job_error = g_steal_pointer(&vcpu->job_error);
	if (!vcpu->job_ok)
		g_propagate_prefixed_error(error, job_error, "vCPU %u: ", vcpu->index);
	return vcpu->job_ok;
}

/*
 * For vCPUs [@first, @end), after whatever they were told to do before.  It is what they waited for;
 * what comes after it is worth a wake-up, which lets them go before whom they would have yielded to.
 * Context: takes the VM's lock.
 */
static void begin_some(struct kvm_vm *vm, uint32_t first, uint32_t end, vcpu_fn fn, void *arg)
{
	g_mutex_lock(&vm->lock);
	vm->awake_until_ns = 0;
	for (uint32_t i = first; i < end; i++) {
		vcpu_await(&vm->vcpus[i]);
		vcpu_begin(&vm->vcpus[i], fn, arg);
	}
	unlock_and_wake(vm, first, end);
}

void vcpus_begin(struct kvm_vm *vm, vcpu_fn fn, void *arg)
{
	begin_some(vm, 0, vm->n_vcpus, fn, arg);
}

bool vcpus_end(struct kvm_vm *vm, GError **error)
{
	bool ok = true;

	g_mutex_lock(&vm->lock);
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		ok = vcpu_end(&vm->vcpus[i], ok ? error : NULL) && ok;
	g_mutex_unlock(&vm->lock);
	return ok;
}

bool vcpu_run_on(struct vcpu *vcpu, vcpu_fn fn, void *arg, GError **error)
{
	bool ok;

	begin_some(vcpu->vm, vcpu->index, vcpu->index + 1, fn, arg);
	g_mutex_lock(&vcpu->vm->lock);
	ok = vcpu_end(vcpu, error);
	g_mutex_unlock(&vcpu->vm->lock);
	return ok;
}
