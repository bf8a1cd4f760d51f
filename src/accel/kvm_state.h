// Kernel-held state as described plain data: what of KVM crosses an update.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <linux/kvm.h>

#include "accel/cpuid.h"
#include "state/state.h"

#define KVM_SAVED_MSRS_MAX     512
#define KVM_SAVED_XSAVE_BYTES  16384
#define KVM_SAVED_NESTED_BYTES 16384
#define KVM_SAVED_CPUID_WORDS  7
#define KVM_SAVED_BOOT_ID_SIZE 16

/**
 * struct kvm_saved_vcpu - One vCPU
 * @regs .. @events: the kernel's structs.  @sregs is converted where the kernel has KVM_GET_SREGS
 *		only: flags are 0 and the PDPTRs are read from memory again then
 * @tsc, @tsc_host: guest and host TSC at one instant
 * @tsc_offset:	guest TSC minus (scaled) host TSC; valid if @has_tsc_offset
 * @tsc_khz:	the guest's TSC frequency
 * @mp_state:	KVM_MP_STATE_*
 * @cpuid:	KVM_SAVED_CPUID_WORDS per entry: function, index, flags, eax, ebx, ecx, edx
 * @msr_index, @msr_value: two lists of one length, because a list of structs would cost a
 *		header per MSR inside the pause
 * @xsave, @nested: as KVM_GET_XSAVE2 and KVM_GET_NESTED_STATE give them
 */
struct kvm_saved_vcpu {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	uint64_t tsc;
	uint64_t tsc_host;
	uint64_t tsc_offset;
	uint32_t tsc_khz;
	uint32_t mp_state;
	bool has_tsc_offset;
	uint8_t pad0[3];
	uint32_t n_cpuid;
	uint32_t n_msr_index;
	uint32_t n_msr_value;
	uint32_t n_xsave;
	uint32_t n_nested;
	uint32_t cpuid[CPUID_MAX_ENTRIES * KVM_SAVED_CPUID_WORDS];
	uint32_t msr_index[KVM_SAVED_MSRS_MAX];
	uint64_t msr_value[KVM_SAVED_MSRS_MAX];
	uint8_t xsave[KVM_SAVED_XSAVE_BYTES];
	uint8_t nested[KVM_SAVED_NESTED_BYTES];
};

/** struct kvm_saved_irqchip - Both PICs and the IOAPIC */
struct kvm_saved_irqchip {
	struct kvm_pic_state pic_master;
	struct kvm_pic_state pic_slave;
	struct kvm_ioapic_state ioapic;
};

/** struct kvm_saved_pit - The PIT with its speaker bits */
struct kvm_saved_pit {
	struct kvm_pit_state2 pit;
};

/**
 * struct kvm_saved_clock - kvmclock, and when it said so
 * @clock_ns:	kvmclock
 * @host_tsc, @host_tsc_khz: the host's TSC at that instant; valid if @has_host_tsc
 * @realtime_ns: CLOCK_REALTIME at that instant
 * @frozen:	The guest was stopped: @clock_ns is where the clock stands until it continues
 * @boot_id:	The host's boot: its TSC means something in this boot only
 */
struct kvm_saved_clock {
	uint64_t clock_ns;
	uint64_t host_tsc;
	uint64_t realtime_ns;
	uint32_t host_tsc_khz;
	bool has_host_tsc;
	bool frozen;
	uint8_t pad0[2];
	uint8_t boot_id[KVM_SAVED_BOOT_ID_SIZE];
};

/**
 * kvm_sregs_make_valid() - Clear what KVM reports but refuses to set, and no processor looks at
 *
 * A guest outside of long mode may load a code segment whose descriptor has bit L, reserved there:
 * KVM_GET_SREGS shows it, KVM_SET_SREGS calls it invalid.  Who could not write back what was read
 * would lose the guest.  All else that the kernel checks (kvm_is_valid_sregs(): PAE and EFER.LMA go
 * with paging in long mode; CR0; CR4) it has enforced on the guest already.
 */
void kvm_sregs_make_valid(struct kvm_sregs2 *sregs);

extern const struct state_desc kvm_saved_vcpu_desc;
extern const struct state_desc kvm_saved_irqchip_desc;
extern const struct state_desc kvm_saved_pit_desc;
extern const struct state_desc kvm_saved_clock_desc;
