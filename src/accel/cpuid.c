// CPUID of a vCPU: what KVM supports on this host, made to tell the VM's topology.
// SPDX-License-Identifier: Apache-2.0
#include "accel/cpuid.h"

#include <glib.h>

#define BIT(n) (1U << (n))

/* Leaf 1 */
#define CPUID_1_ECX_MONITOR	 BIT(3)
#define CPUID_1_ECX_VMX		 BIT(5)
#define CPUID_1_ECX_SMX		 BIT(6)
#define CPUID_1_ECX_TSC_DEADLINE BIT(24)
#define CPUID_1_ECX_OSXSAVE	 BIT(27)
#define CPUID_1_ECX_HYPERVISOR	 BIT(31)
#define CPUID_1_EDX_HTT		 BIT(28)
/* Leaf 7, subleaf 0 */
#define CPUID_7_EBX_SGX	   BIT(2)
#define CPUID_7_ECX_OSPKE  BIT(4)
#define CPUID_7_ECX_SGX_LC BIT(30)
/* Leaf 0x80000001 */
#define CPUID_8000_0001_ECX_CMP_LEGACY BIT(1)
#define CPUID_8000_0001_ECX_SVM	       BIT(2)

/* Types of topology levels in leaves 0xb and 0x1f, shifted into place */
#define CPUID_LEVEL_THREAD (1U << 8)
#define CPUID_LEVEL_CORE   (2U << 8)

struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *table, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < table->n; i++) {
		struct kvm_cpuid_entry2 *e = &table->entries[i];

		if (e->function == function &&
		    (e->index == index || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
			return e;
	}
	return NULL;
}

static void cpuid_remove(struct cpuid_table *table, uint32_t function)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < table->n; i++) {
		if (table->entries[i].function != function)
			table->entries[kept++] = table->entries[i];
	}
	table->n = kept;
}

static void cpuid_add(struct cpuid_table *table, struct kvm_cpuid_entry2 entry)
{
	if (table->n < CPUID_MAX_ENTRIES)
		table->entries[table->n++] = entry;
}

/* Bits of an APIC id field that tells @n things apart. */
static uint32_t id_bits(uint32_t n)
{
	uint32_t bits = 0;

	while ((1U << bits) < n)
		bits++;
	return bits;
}

static bool cpuid_is_amd(struct cpuid_table *table)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(table, 0, 0);

	/* "Auth"enticAMD and "Hygo"nGenuine */
	return e && (e->ebx == 0x68747541 || e->ebx == 0x6f677948);
}

static void set_leaf_1(struct cpuid_table *table, const struct cpuid_params *p)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(table, 1, 0);
	uint32_t n_logical = p->n_cores * p->n_threads;

	if (!e)
		return;
	e->ebx = (e->ebx & 0xffff) | MIN(n_logical, 255) << 16 | p->apic_id << 24;
	e->ecx |= CPUID_1_ECX_HYPERVISOR;
	/* OSXSAVE follows CR4 and KVM keeps it up; MWAIT would need exits to be off; SMX is not
	 * emulated. */
	e->ecx &= ~(CPUID_1_ECX_OSXSAVE | CPUID_1_ECX_MONITOR | CPUID_1_ECX_SMX |
		    CPUID_1_ECX_TSC_DEADLINE);
	if (p->tsc_deadline)
		e->ecx |= CPUID_1_ECX_TSC_DEADLINE;
	if (!p->nested)
		e->ecx &= ~CPUID_1_ECX_VMX;
	e->edx &= ~CPUID_1_EDX_HTT;
	if (n_logical > 1)
		e->edx |= CPUID_1_EDX_HTT;
}

/*
 * Cache leaves: 4 (Intel) and 0x8000001d (AMD) share the layout of EAX: type 0-4, level 5-7, ids
 * that share the cache minus one 14-25, and in leaf 4 core ids of the package minus one 26-31.
 */
static void set_cache_leaves(struct cpuid_table *table, const struct cpuid_params *p)
{
	uint32_t core_ids = (1U << id_bits(p->n_cores)) - 1;

	for (uint32_t i = 0; i < table->n; i++) {
		struct kvm_cpuid_entry2 *e = &table->entries[i];
		uint32_t level = e->eax >> 5 & 7;
		uint32_t sharing = level >= 3 ? p->n_cores * p->n_threads : p->n_threads;

		if ((e->function != 4 && e->function != 0x8000001d) || (e->eax & 0x1f) == 0)
			continue;
		e->eax = (e->eax & 0x3fff) | (MIN(sharing, 4096) - 1) << 14;
		if (e->function == 4)
			e->eax |= MIN(core_ids, 63) << 26;
	}
}

static void set_x2apic_leaf(struct cpuid_table *table, const struct cpuid_params *p,
			    uint32_t function)
{
	const struct kvm_cpuid_entry2 *max = cpuid_find(table, 0, 0);
	uint32_t thread_bits = id_bits(p->n_threads);
	struct kvm_cpuid_entry2 e = {
		.function = function,
		.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		.edx = p->apic_id,
	};

	cpuid_remove(table, function);
	if (!max || max->eax < function)
		return;
	e.eax = thread_bits;
	e.ebx = p->n_threads;
	e.ecx = CPUID_LEVEL_THREAD;
	cpuid_add(table, e);
	e.index = 1;
	e.eax = thread_bits + id_bits(p->n_cores);
	e.ebx = p->n_cores * p->n_threads;
	e.ecx = CPUID_LEVEL_CORE | 1;
	cpuid_add(table, e);
	e.index = 2;
	e.eax = 0;
	e.ebx = 0;
	e.ecx = 2;
	cpuid_add(table, e);
}

static void set_amd_leaves(struct cpuid_table *table, const struct cpuid_params *p)
{
	uint32_t n_logical = p->n_cores * p->n_threads;
	uint32_t thread_bits = id_bits(p->n_threads);
	struct kvm_cpuid_entry2 *e = cpuid_find(table, 0x80000001, 0);

	if (e) {
		e->ecx &= ~CPUID_8000_0001_ECX_CMP_LEGACY;
		if (n_logical > 1)
			e->ecx |= CPUID_8000_0001_ECX_CMP_LEGACY;
	}
	e = cpuid_find(table, 0x80000008, 0);
	if (e) {
		uint32_t bits = thread_bits + id_bits(p->n_cores);

		e->ecx = (e->ecx & ~0xf0ffU) | MIN(n_logical - 1, 255) | bits << 12;
	}
	e = cpuid_find(table, 0x8000001e, 0);
	if (e) {
		e->eax = p->apic_id;
		e->ebx = (p->apic_id >> thread_bits & 0xff) | (p->n_threads - 1) << 8;
		e->ecx = 0; /* one node */
		e->edx = 0;
	}
}

/* What KVM reports but this program does not set up, or could not carry to a successor. */
static void drop_unsupported(struct cpuid_table *table, const struct cpuid_params *p)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(table, 7, 0);

	if (e) {
		e->ebx &= ~CPUID_7_EBX_SGX;
		e->ecx &= ~(CPUID_7_ECX_SGX_LC | CPUID_7_ECX_OSPKE);
	}
	cpuid_remove(table, 0x12);
	/* The host's own layout of dies and clusters: the leaves above tell the guest's. */
	cpuid_remove(table, 0x80000026);
	if (p->nested)
		return;
	e = cpuid_find(table, 0x80000001, 0);
	if (e)
		e->ecx &= ~CPUID_8000_0001_ECX_SVM;
	cpuid_remove(table, 0x8000000a);
}

void cpuid_finish(struct cpuid_table *table, const struct cpuid_params *params)
{
	drop_unsupported(table, params);
	set_leaf_1(table, params);
	set_cache_leaves(table, params);
	set_x2apic_leaf(table, params, 0xb);
	set_x2apic_leaf(table, params, 0x1f);
	if (cpuid_is_amd(table))
		set_amd_leaves(table, params);
}
