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

/**
 * DOC: parking
 *
 * A vCPU's thread is parked (waits on its condition), runs a job for the main thread, or is in the
 * guest.  Who wants it parked takes the VM's lock, clears kvm_vm.running, sets immediate_exit in
 * the vCPU's struct kvm_run and sends the kick signal:
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

#define KICK_SIGNAL SIGUSR1

/**
 * DOC: waiting
 *
 * A hand-over from one thread to another costs a wake-up, 30 to 100 us where an idle processor sleeps
 * deeply or belongs to a hypervisor.  Two are near enough to be waited for awake: the main thread
 * waits for a park or a job that takes that long, and a vCPU that has just parked is about to be
 * asked for its state.  They look again for SPIN_NS, offering the processor to others at each look.
 * More of that does harm: on a host with few processors who spins takes one from who works.
 */
#define SPIN_NS (200 * NS_PER_USEC)

/* Wait until @seq, which changes with @cond, moves.  Context: the VM's lock is held. */
static void spin_wait(struct kvm_vm *vm, GCond *cond, const uint32_t *seq)
{
	const uint32_t seen = *seq;
	const uint64_t until_ns = clock_now_ns() + SPIN_NS;

	g_mutex_unlock(&vm->lock);
	while (__atomic_load_n(seq, __ATOMIC_RELAXED) == seen && clock_now_ns() < until_ns)
		sched_yield();
	g_mutex_lock(&vm->lock);
	if (*seq == seen)
		g_cond_wait(cond, &vm->lock);
}

/* A vCPU's thread has done something that the main thread may wait for.  The VM's lock is held. */
static void tell_main(struct kvm_vm *vm)
{
	__atomic_store_n(&vm->done_seq, vm->done_seq + 1, __ATOMIC_RELAXED);
	g_cond_signal(&vm->parked);
}

/* There is something to do for vCPUs' threads [@first, @end).  The VM's lock is held. */
static void wake_vcpus(struct kvm_vm *vm, uint32_t first, uint32_t end)
{
	__atomic_store_n(&vm->work_seq, vm->work_seq + 1, __ATOMIC_RELAXED);
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
	static const int ours[] = {KICK_SIGNAL, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	sigset_t set;

	sigemptyset(&action.sa_mask);
	sigfillset(&set);
	for (size_t i = 0; i < G_N_ELEMENTS(ours); i++)
		sigdelset(&set, ours[i]);
	return sigaction(KICK_SIGNAL, &action, NULL) == 0 &&
	       pthread_sigmask(SIG_SETMASK, &set, NULL) == 0;
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

static void *vcpu_thread(void *opaque)
{
	struct vcpu *vcpu = opaque;
	struct kvm_vm *vm = vcpu->vm;
	bool just_parked = false;

	g_mutex_lock(&vm->lock);
	vcpu->tid = vcpu_thread_signals() ? (int)gettid() : -1;
	tell_main(vm);
	while (!vm->quit) {
		if (vcpu->job) {
			just_parked = false;
			vcpu_run_job(vcpu);
		} else if (vm->running && !vcpu->blocked) {
			vcpu->parked = false;
			vcpu->ran = true;
			if (!vm->entered_ns)
				vm->entered_ns = clock_now_ns();
			__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
			g_mutex_unlock(&vm->lock);
			vcpu_enter_guest(vcpu);
			g_mutex_lock(&vm->lock);
			vcpu->parked = just_parked = true;
			tell_main(vm);
		} else if (just_parked) {
			just_parked = false;
			spin_wait(vm, &vcpu->wake, &vm->work_seq);
		} else {
			g_cond_wait(&vcpu->wake, &vm->lock);
		}
	}
	g_mutex_unlock(&vm->lock);
	return NULL;
}

bool vcpu_start(struct vcpu *vcpu, GError **error)
{
	struct kvm_vm *vm = vcpu->vm;
	char name[16];

	snprintf(name, sizeof(name), "CPU %u/KVM", vcpu->index);
	vcpu->thread = g_thread_try_new(name, vcpu_thread, vcpu, error);
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
	wake_vcpus(vm, 0, vm->n_vcpus);
	g_mutex_unlock(&vm->lock);
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
		wake_vcpus(vm, 0, vm->n_vcpus);
	}
	g_mutex_unlock(&vm->lock);
}

void kvm_vm_pause(struct kvm_vm *vm)
{
	pid_t pid = getpid();

	g_mutex_lock(&vm->lock);
	vm->running = false;
	for (uint32_t i = 0; i < vm->n_vcpus; i++) {
		struct vcpu *vcpu = &vm->vcpus[i];

		if (vcpu->parked)
			continue;
		__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
		syscall(SYS_tgkill, pid, vcpu->tid, KICK_SIGNAL);
	}
	for (uint32_t i = 0; i < vm->n_vcpus; i++) {
		while (!vm->vcpus[i].parked)
			spin_wait(vm, &vm->parked, &vm->done_seq);
	}
	g_mutex_unlock(&vm->lock);
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

static void vcpu_begin(struct vcpu *vcpu, vcpu_fn fn, void *arg)
{
	vcpu->job_arg = arg;
	vcpu->job = fn;
	wake_vcpus(vcpu->vm, vcpu->index, vcpu->index + 1);
}

/* Context: the VM's lock is held. */
static bool vcpu_end(struct vcpu *vcpu, GError **error)
{
	GError *job_error;

	while (vcpu->job)
		spin_wait(vcpu->vm, &vcpu->vm->parked, &vcpu->vm->done_seq);
	job_error = g_steal_pointer(&vcpu->job_error);
	if (!vcpu->job_ok)
		g_propagate_prefixed_error(error, job_error, "vCPU %u: ", vcpu->index);
	return vcpu->job_ok;
}

void vcpus_begin(struct kvm_vm *vm, vcpu_fn fn, void *arg)
{
	g_mutex_lock(&vm->lock);
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		vcpu_begin(&vm->vcpus[i], fn, arg);
	g_mutex_unlock(&vm->lock);
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

	g_mutex_lock(&vcpu->vm->lock);
	vcpu_begin(vcpu, fn, arg);
	ok = vcpu_end(vcpu, error);
	g_mutex_unlock(&vcpu->vm->lock);
	return ok;
}
