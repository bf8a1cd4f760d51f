// CPUID: topology leaves for several shapes, and what is dropped.
// SPDX-License-Identifier: Apache-2.0
#include "accel/cpuid.h"

#include <string.h>
#include <glib.h>

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX

/* A host's answer: the parts that are changed, everything else set. */
static const struct kvm_cpuid_entry2 intel_host[] = {
	{.function = 0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
	{.function = 1, .eax = 0x806f8, .ebx = 0x07400800, .ecx = 0x7fffffff, .edx = 0xffffffff},
	{.function = 4, .index = 0, .flags = INDEXED, .eax = 0xfc004121},
	{.function = 4, .index = 1, .flags = INDEXED, .eax = 0xfc01c163},
	{.function = 4, .index = 2, .flags = INDEXED, .eax = 0},
	{.function = 7, .index = 0, .flags = INDEXED, .ebx = 0xffffffff, .ecx = 0xffffffff},
	{.function = 0xb, .index = 0, .flags = INDEXED, .edx = 99},
	{.function = 0x12, .index = 0, .flags = INDEXED, .eax = 1},
	{.function = 0x12, .index = 1, .flags = INDEXED, .eax = 1},
	{.function = 0x1f, .index = 0, .flags = INDEXED, .edx = 99},
	{.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b},
	{.function = 0x40000001, .eax = 0x01007efb},
	{.function = 0x80000001, .ecx = 0x121, .edx = 0x2c100800},
	{.function = 0x80000008, .eax = 0x302e, .ecx = 0},
};

static const struct kvm_cpuid_entry2 amd_host[] = {
	{.function = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
	{.function = 1, .ebx = 0x00020800, .ecx = 0x81202000, .edx = 0x078bfbff},
	{.function = 0x80000001, .ecx = 0x00400397, .edx = 0x23d3fbff},
	{.function = 0x80000008, .eax = 0x3030, .ecx = 0x7001},
	{.function = 0x8000000a, .eax = 1},
	{.function = 0x8000001d, .index = 0, .flags = INDEXED, .eax = 0x121},
	{.function = 0x8000001d, .index = 3, .flags = INDEXED, .eax = 0x4163},
	{.function = 0x8000001e, .eax = 7, .ebx = 0x103, .ecx = 0x2},
	{.function = 0x80000026, .index = 0, .flags = INDEXED, .eax = 1},
};

static struct cpuid_table *table_new(const struct kvm_cpuid_entry2 *entries, size_t n)
{
	struct cpuid_table *table = g_new0(struct cpuid_table, 1);

	memcpy(table->entries, entries, n * sizeof(entries[0]));
	table->n = (uint32_t)n;
	return table;
}

static const struct kvm_cpuid_entry2 *get(struct cpuid_table *table, uint32_t function,
					  uint32_t index)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(table, function, index);

	g_assert_nonnull(e);
	return e;
}

struct shape {
	uint32_t apic_id, n_cores, n_threads;
	uint32_t thread_bits, core_bits, core_id;
};

static const struct shape shapes[] = {
	{0, 1, 1, 0, 0, 0},	  {3, 4, 1, 0, 2, 3}, {5, 4, 2, 1, 3, 2},
	{254, 255, 1, 0, 8, 254}, {2, 3, 1, 0, 2, 2}, {7, 2, 2, 1, 2, 3},
};

static void check_x2apic(struct cpuid_table *table, const struct shape *s, uint32_t function)
{
	const struct kvm_cpuid_entry2 *e = get(table, function, 0);

	g_assert_cmpuint(e->eax, ==, s->thread_bits);
	g_assert_cmpuint(e->ebx, ==, s->n_threads);
	g_assert_cmphex(e->ecx, ==, 0x100);
	g_assert_cmpuint(e->edx, ==, s->apic_id);
	e = get(table, function, 1);
	g_assert_cmpuint(e->eax, ==, s->core_bits);
	g_assert_cmpuint(e->ebx, ==, s->n_cores * s->n_threads);
	g_assert_cmphex(e->ecx, ==, 0x201);
	e = get(table, function, 2);
	g_assert_cmpuint(e->ebx, ==, 0);
	g_assert_cmphex(e->ecx, ==, 2);
	g_assert_cmpuint(e->edx, ==, s->apic_id);
}

static void test_intel_topology(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
		const struct shape *s = &shapes[i];
		struct cpuid_params params = {s->apic_id, s->n_cores, s->n_threads, true, true};
		g_autofree struct cpuid_table *t = table_new(intel_host, G_N_ELEMENTS(intel_host));
		uint32_t n_logical = s->n_cores * s->n_threads;

		cpuid_finish(t, &params);
		g_assert_cmphex(get(t, 1, 0)->ebx, ==, s->apic_id << 24 | n_logical << 16 | 0x0800);
		g_assert_cmpuint(get(t, 1, 0)->edx >> 28 & 1, ==, n_logical > 1);
		check_x2apic(t, s, 0xb);
		check_x2apic(t, s, 0x1f);
		/* level 1 is shared by a core's threads, level 3 by the package */
		g_assert_cmpuint(get(t, 4, 0)->eax >> 14 & 0xfff, ==, s->n_threads - 1);
		g_assert_cmpuint(get(t, 4, 1)->eax >> 14 & 0xfff, ==, n_logical - 1);
		g_assert_cmphex(get(t, 4, 0)->eax & 0x3fff, ==, 0x121);
		g_assert_cmphex(get(t, 4, 2)->eax, ==, 0);
		/* not AMD: left alone */
		g_assert_cmphex(get(t, 0x80000008, 0)->ecx, ==, 0);
		g_assert_cmphex(get(t, 0x80000001, 0)->ecx & 2, ==, 0);
	}
}

static void test_amd_topology(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
		const struct shape *s = &shapes[i];
		struct cpuid_params params = {s->apic_id, s->n_cores, s->n_threads, true, true};
		g_autofree struct cpuid_table *t = table_new(amd_host, G_N_ELEMENTS(amd_host));
		uint32_t n_logical = s->n_cores * s->n_threads;

		cpuid_finish(t, &params);
		check_x2apic(t, s, 0xb);
		g_assert_null(cpuid_find(t, 0x1f, 0)); /* beyond leaf 0's maximum */
		g_assert_cmphex(get(t, 0x80000008, 0)->ecx, ==,
				s->core_bits << 12 | (n_logical - 1));
		g_assert_cmpuint(get(t, 0x80000001, 0)->ecx >> 1 & 1, ==, n_logical > 1);
		g_assert_cmpuint(get(t, 0x8000001e, 0)->eax, ==, s->apic_id);
		g_assert_cmphex(get(t, 0x8000001e, 0)->ebx, ==,
				(s->n_threads - 1) << 8 | s->core_id);
		g_assert_cmphex(get(t, 0x8000001e, 0)->ecx, ==, 0);
		g_assert_cmpuint(get(t, 0x8000001d, 0)->eax >> 14 & 0xfff, ==, s->n_threads - 1);
		g_assert_cmpuint(get(t, 0x8000001d, 3)->eax >> 14 & 0xfff, ==, n_logical - 1);
		g_assert_null(cpuid_find(t, 0x80000026, 0));
	}
}

static void test_features(void)
{
	struct cpuid_params params = {0, 1, 1, .tsc_deadline = true, .nested = true};
	g_autofree struct cpuid_table *t = table_new(intel_host, G_N_ELEMENTS(intel_host));

	cpuid_finish(t, &params);
	/* MONITOR, SMX, OSXSAVE go; the hypervisor bit comes */
	g_assert_cmphex(get(t, 1, 0)->ecx, ==, 0xf7ffffb7);
	g_assert_cmphex(get(t, 7, 0)->ebx, ==, ~4U);
	g_assert_cmphex(get(t, 7, 0)->ecx, ==, ~(1U << 30 | 1U << 4));
	g_assert_null(cpuid_find(t, 0x12, 0));
	g_assert_null(cpuid_find(t, 0x12, 1));
	g_assert_cmphex(get(t, 0x40000001, 0)->eax, ==, 0x01007efb);
}

static void test_no_nested_no_deadline(void)
{
	struct cpuid_params params = {0, 1, 1, .tsc_deadline = false, .nested = false};
	g_autofree struct cpuid_table *intel = table_new(intel_host, G_N_ELEMENTS(intel_host));
	g_autofree struct cpuid_table *amd = table_new(amd_host, G_N_ELEMENTS(amd_host));

	cpuid_finish(intel, &params);
	g_assert_cmphex(get(intel, 1, 0)->ecx & (1U << 5 | 1U << 24), ==, 0);
	cpuid_finish(amd, &params);
	g_assert_cmphex(get(amd, 0x80000001, 0)->ecx & 4, ==, 0);
	g_assert_null(cpuid_find(amd, 0x8000000a, 0));
}

/* A full table loses the leaves that do not fit, not its memory. */
static void test_full(void)
{
	struct cpuid_params params = {0, 1, 1, true, true};
	g_autofree struct cpuid_table *t = g_new0(struct cpuid_table, 1);

	t->n = CPUID_MAX_ENTRIES;
	t->entries[0].eax = 0x1f;
	for (uint32_t i = 1; i < t->n; i++)
		t->entries[i].function = 0x1000 + i;
	cpuid_finish(t, &params);
	g_assert_cmpuint(t->n, ==, CPUID_MAX_ENTRIES);
	t->n = 0;
	cpuid_finish(t, &params);
	g_assert_cmpuint(t->n, ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/accel/cpuid/intel_topology", test_intel_topology);
	g_test_add_func("/accel/cpuid/amd_topology", test_amd_topology);
	g_test_add_func("/accel/cpuid/features", test_features);
	g_test_add_func("/accel/cpuid/no_nested_no_deadline", test_no_nested_no_deadline);
	g_test_add_func("/accel/cpuid/full", test_full);
	return g_test_run();
}
