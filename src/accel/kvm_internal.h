// What the files of accel/ share: the VM's insides.  Nobody else includes this.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <linux/kvm.h>

#include "accel/cpuid.h"
#include "accel/kvm.h"
#include "accel/kvm_state.h"
#include "accel/vcpu.h"

/* Linux 6.11, newer than the oldest headers this is built with: include/uapi/linux/kvm.h. */
#ifndef KVM_CAP_PRE_FAULT_MEMORY
#define KVM_CAP_PRE_FAULT_MEMORY 236
struct kvm_pre_fault_memory {
	uint64_t gpa, size, flags, padding[5];
};
#define KVM_PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
#endif

#define KVM_FIRST_MSI_GSI 24
#define KVM_MAX_GSI	  1024

/**
 * struct kvm_caps - What this host's KVM offers beyond what every VM needs
 * @xcrs:	KVM_GET_XCRS: the processor has XSAVE
 * @sregs2:	KVM_GET_SREGS2
 * @x2apic_format: 32-bit APIC ids are on: MSI address bits 39:32 must be zero
 * @exception_payload, @triple_fault: shown in struct kvm_vcpu_events
 * @kvmclock_ctrl: KVM_KVMCLOCK_CTRL
 * @xsave_bytes: of KVM_GET_XSAVE2 (4096 where the kernel has KVM_GET_XSAVE only)
 * @xsave2:	KVM_GET_XSAVE2
 * @tsc_deadline: the LAPIC's TSC-deadline mode
 * @pre_fault:	KVM_PRE_FAULT_MEMORY
 * @nested_bytes: of KVM_GET_NESTED_STATE, 0 if the kernel cannot save it
 * @host_tsc_khz: the frequency that new vCPUs get
 */
struct kvm_caps {
	bool xcrs;
	bool sregs2;
	bool x2apic_format;
	bool exception_payload;
	bool triple_fault;
	bool kvmclock_ctrl;
	bool xsave2;
	bool tsc_deadline;
	bool pre_fault;
	uint32_t xsave_bytes;
	uint32_t nested_bytes;
	uint32_t host_tsc_khz;
};

/** struct kvm_msi_route - Where a GSI delivers */
struct kvm_msi_route {
	uint64_t addr;
	uint32_t data;
	bool used;
};

/**
 * struct kvm_irqs - The GSI routing table
 * @lock:	Guards all members and the order of KVM_SET_GSI_ROUTING calls
 * @msi:	By GSI; only KVM_FIRST_MSI_GSI and up
 * @n_gsis:	How many the kernel takes, at most KVM_MAX_GSI
 * @table:	What is given to the kernel
 * @hold:	kvm_vm_hold_routes() calls not yet undone
 * @dirty:	The kernel's table is older than @msi
 */
struct kvm_irqs {
	GMutex lock;
	struct kvm_msi_route msi[KVM_MAX_GSI];
	uint32_t n_gsis;
	struct kvm_irq_routing *table;
	uint32_t hold;
	bool dirty;
};

/**
 * struct kvm_vm - The VM
 * @accel:	What devices see
 * @params:	Copied; the pointers in it are the machine's
 * @kvm_fd, @vm_fd: never given away: the kernel binds a VM to the mm that made it
 * @lock:	Guards what follows up to @quit, and what struct vcpu says it does
 * @parked:	Signalled when a vCPU parks or a job ends
 * @done_seq:	Goes up with each signal of @parked
 * @work_seq:	Goes up with each signal of a struct vcpu.wake
 * @awake_until_ns: vCPUs' threads wait awake, see DOC: waiting
 * @when_parked: What all vCPUs' threads do once the last of them has parked
 * @running:	vCPUs may run
 * @irqs:	Routing
 * @msr_index, @n_msrs: MSRs that this KVM can read and that are saved
 * @power_on:	What the sections held right after creation; vCPUs keep their own
 * @saved:	The sections
 * @capturing:	kvm_vm_begin_capture() was called, and not yet kvm_vm_capture()
 * @boot_id:	The host's
 * @clock_frozen, @frozen_clock_ns: kvm_vm_stop_clock()
 */
struct kvm_vm {
	struct accel accel;
	struct kvm_params params;
	int kvm_fd;
	int vm_fd;
	struct kvm_caps caps;
	uint32_t run_bytes;

	GMutex lock;
	GCond parked;
	uint32_t done_seq, work_seq;
	uint64_t awake_until_ns;
	vcpu_fn when_parked;
	bool running;
	uint64_t entered_ns; /* see kvm_vm_entered_ns() */
	bool quit;
	struct vcpu *vcpus;
	uint32_t n_vcpus;

	struct kvm_irqs irqs;

	uint32_t msr_index[KVM_SAVED_MSRS_MAX];
	uint32_t n_msrs;

	struct {
		struct kvm_saved_irqchip irqchip;
		struct kvm_saved_pit pit;
	} power_on;
	struct {
		struct kvm_saved_irqchip irqchip;
		struct kvm_saved_pit pit;
		struct kvm_saved_clock clock;
	} saved;
	struct kvm_section *sections;
	uint32_t n_sections;
	bool capturing;

	uint8_t boot_id[KVM_SAVED_BOOT_ID_SIZE];
	bool clock_frozen;
	uint64_t frozen_clock_ns;
};

/** kvm_ioctl() - ioctl() with @name, the request's, in the error.  Return: false with @error set.
 */
bool kvm_ioctl(int fd, unsigned long request, void *arg, const char *name, GError **error);
#define KVM_IOCTL(fd, request, arg, error) kvm_ioctl(fd, request, arg, #request, error)

/* kvm.c */
bool kvm_vcpu_set_cpuid(struct vcpu *vcpu, const struct cpuid_table *table, GError **error);

/* kvm_irq.c */
void kvm_irqs_init(struct kvm_vm *vm);
bool kvm_irqs_start(struct kvm_vm *vm, GError **error);
void kvm_irqs_done(struct kvm_vm *vm);

/* kvm_msr.c; Context: the vCPU's thread, or before it runs */
#define KVM_MSR_TSC	     0x10
#define KVM_MSR_FEAT_CTL     0x3a
#define KVM_MSR_TSC_DEADLINE 0x6e0
bool kvm_msrs_probe(struct kvm_vm *vm, GError **error);
bool kvm_msrs_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error);
bool kvm_msrs_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error);
bool kvm_msr_apply_one(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, uint32_t index,
		       GError **error);
bool kvm_msr_read(struct vcpu *vcpu, uint32_t index, uint64_t *value, GError **error);
bool kvm_msr_write(struct vcpu *vcpu, uint32_t index, uint64_t value, GError **error);

/* kvm_vcpu_state.c; Context: the vCPU's thread */
bool kvm_vcpu_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error);
bool kvm_vcpu_capture_early(struct vcpu *vcpu, GError **error);
bool kvm_vcpu_capture_rest(struct vcpu *vcpu, GError **error);
bool kvm_vcpu_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, bool set_time,
		    GError **error);
bool kvm_vcpu_prove(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error);
bool kvm_vcpu_set_boot_regs(struct vcpu *vcpu, const struct kvm_boot_regs *regs, GError **error);

/* kvm_clock.c */
bool kvm_clock_init(struct kvm_vm *vm, GError **error);
bool kvm_clock_same_boot(const struct kvm_vm *vm);
bool kvm_clock_capture(struct kvm_vm *vm, GError **error);
bool kvm_clock_apply(struct kvm_vm *vm, GError **error);
uint64_t kvm_host_tsc(void);
uint64_t kvm_ticks_to_ns(uint64_t ticks, uint32_t tsc_khz);
uint64_t kvm_ns_to_ticks(uint64_t ns, uint32_t tsc_khz);
uint64_t kvm_realtime_ns(void);

/* kvm_state.c */
bool kvm_state_init(struct kvm_vm *vm, GError **error);
