// One vCPU: its thread, how it is parked, and the exits it handles.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <linux/kvm.h>

/* Ends KVM_RUN in the thread that gets it. */
#define VCPU_KICK_SIGNAL SIGUSR1

struct cpuid_table;
struct kvm_saved_vcpu;
struct kvm_vm;
struct vcpu;

/** typedef vcpu_fn - Work for a parked vCPU's own thread */
typedef bool (*vcpu_fn)(struct vcpu *vcpu, void *arg, GError **error);

/**
 * struct vcpu - A vCPU
 * @fd, @run:	The kernel's side; @run->immediate_exit is set under the VM's lock
 * @tid:	Kernel thread id
 * @cpuid:	What KVM_SET_CPUID2 was given
 * @saved, @power_on: section and reset values
 * @wake:	Signalled when the thread has something to do
 * @parked:	Not in KVM_RUN and not handling an exit
 * @late:	A pause has given up waiting for it
 * @where:	What it is doing: VCPU_IN_GUEST, or exit reason << 48 | address; any thread, atomic
 * @phase:	Its thread's io_space_phase()
 * @fresh:	What @power_on says need not be written: the kernel holds it (the vCPU never ran and was
 *		given no other state), or is being given what it holds (kvm_vm_prove())
 * @early:	@saved has what kvm_vcpu_capture_early() read, since the vCPU has parked
 * @tsc_khz:	The guest's TSC frequency
 * @blocked:	Ended by a triple fault or an error: not run again before a reset
 * @job ..:	Work handed over by vcpu_begin()
 *
 * @parked, @blocked and @job* are guarded by the VM's lock; @fresh, @early and @tsc_khz are for the
 * vCPU's thread.
 */
struct vcpu {
	struct kvm_vm *vm;
	uint32_t index;
	int fd;
	struct kvm_run *run;
	GThread *thread;
	int tid;
	struct cpuid_table *cpuid;
	struct kvm_saved_vcpu *saved;
	struct kvm_saved_vcpu *power_on;

	GCond wake;
	bool parked;
	bool late;
	bool blocked;
	uint64_t where;
	const uint8_t *phase;
	bool fresh;
	bool early;
	uint32_t tsc_khz;
	vcpu_fn job;
	void *job_arg;
	bool job_ok;
	GError *job_error;
};

/** vcpu_start() - Create the vCPU's thread, parked.  Undone by vcpus_stop(). */
bool vcpu_start(struct vcpu *vcpu, GError **error);

/** vcpus_stop() - End and join the threads there are; the VM must be paused. */
void vcpus_stop(struct kvm_vm *vm);

/**
 * vcpus_park() - kvm_vm_pause(), and @then, if not NULL, is begun on all threads by the last one to park
 *
 * So that the main thread, which has other things to do first, need not be waited for.
 * vcpus_end() waits for it; vcpus_begin() does, too, before it begins something else.  Return: false
 * with @error, and @then will not be begun, if not all have parked within @ms.
 */
bool vcpus_park(struct kvm_vm *vm, vcpu_fn then, uint32_t ms, GError **error);

/**
 * vcpus_begin() - Let every parked vCPU's thread call @fn; vcpus_end() waits for the last
 *
 * Between the two the main thread may do work of its own.  Context: main thread, VM paused.
 * Return (vcpus_end): false with the first vCPU's error if any failed.
 */
void vcpus_begin(struct kvm_vm *vm, vcpu_fn fn, void *arg);
bool vcpus_end(struct kvm_vm *vm, GError **error);

/** vcpu_run_on() - Call @fn on one parked vCPU's thread and wait for it. */
bool vcpu_run_on(struct vcpu *vcpu, vcpu_fn fn, void *arg, GError **error);
