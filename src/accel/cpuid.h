// CPUID of a vCPU: what KVM supports on this host, made to tell the VM's topology.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <linux/kvm.h>

#define CPUID_MAX_ENTRIES 256

/**
 * struct cpuid_table - The CPUID leaves of a vCPU
 * @n:		Entries in use
 * @entries:	As KVM_SET_CPUID2 takes them
 */
struct cpuid_table {
	uint32_t n;
	struct kvm_cpuid_entry2 entries[CPUID_MAX_ENTRIES];
};

/**
 * struct cpuid_params - Who asks
 * @apic_id:	The vCPU's index: ids are contiguous
 * @n_cores, @n_threads: cores of a socket, threads of a core
 * @tsc_deadline: KVM has KVM_CAP_TSC_DEADLINE_TIMER
 * @nested:	KVM can save nested state, so the guest may have VMX or SVM
 */
struct cpuid_params {
	uint32_t apic_id;
	uint32_t n_cores, n_threads;
	bool tsc_deadline;
	bool nested;
};

/**
 * cpuid_finish() - Turn KVM_GET_SUPPORTED_CPUID's answer into what one vCPU shows (-cpu host)
 *
 * Adds the hypervisor bit, APIC ids and the topology leaves 1, 4, 0xb, 0x1f, 0x80000008, 0x8000001d
 * and 0x8000001e; drops what this program cannot carry or does not emulate.  Pure.  Leaves that do
 * not fit any more (CPUID_MAX_ENTRIES) are left out.
 */
void cpuid_finish(struct cpuid_table *table, const struct cpuid_params *params);

/** cpuid_find() - An entry by leaf and subleaf, NULL if there is none. */
struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *table, uint32_t function, uint32_t index);
