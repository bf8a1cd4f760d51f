// Kernel-held state without a kernel: the tables' lint, round trips, and the rules.
// SPDX-License-Identifier: Apache-2.0
#include "accel/kvm_state.h"

#include <string.h>

#define EFER_LME (1ULL << 8)
#define EFER_LMA (1ULL << 10)

static const struct state_desc *const descs[] = {
	&kvm_saved_vcpu_desc,
	&kvm_saved_irqchip_desc,
	&kvm_saved_pit_desc,
	&kvm_saved_clock_desc,
};

static void test_lint(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(descs); i++) {
		g_autoptr(GError) error = NULL;

		g_assert_true(state_desc_lint(descs[i], &error));
		g_assert_no_error(error);
	}
}

static void fill(void *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)p)[i] = (uint8_t)(seed + i * 7);
}

/* A vCPU as one could be, every list partly filled. */
static struct kvm_saved_vcpu *vcpu_sample(void)
{
	struct kvm_saved_vcpu *s = g_new0(struct kvm_saved_vcpu, 1);

	fill(&s->regs, sizeof(s->regs), 1);
	fill(&s->sregs, sizeof(s->sregs), 2);
	fill(&s->debugregs, sizeof(s->debugregs), 3);
	fill(&s->lapic, sizeof(s->lapic), 4);
	fill(&s->events, sizeof(s->events), 5);
	s->xcrs.nr_xcrs = 1;
	s->tsc = 0x123456789abcdef0;
	s->tsc_host = 1;
	s->tsc_offset = UINT64_MAX - 5;
	s->has_tsc_offset = true;
	s->tsc_khz = 2445430;
	s->mp_state = KVM_MP_STATE_HALTED;
	s->n_cpuid = 3 * KVM_SAVED_CPUID_WORDS;
	fill(s->cpuid, s->n_cpuid * sizeof(s->cpuid[0]), 6);
	s->n_msr_index = s->n_msr_value = 40;
	fill(s->msr_index, 40 * sizeof(s->msr_index[0]), 7);
	fill(s->msr_value, 40 * sizeof(s->msr_value[0]), 8);
	s->n_xsave = 4096;
	fill(s->xsave, s->n_xsave, 9);
	s->n_nested = 128;
	fill(s->nested, s->n_nested, 10);
	return s;
}

static void assert_round_trip(const struct state_desc *desc, const void *obj)
{
	g_autoptr(GByteArray) wire = g_byte_array_new(), again = g_byte_array_new();
	g_autofree uint8_t *back = g_malloc(desc->size);
	g_autoptr(GError) error = NULL;

	memset(back, 0xee, desc->size);
	g_assert_true(state_save(desc, obj, wire, &error));
	g_assert_true(state_load(desc, (struct span){wire->data, wire->len}, NULL, back, &error));
	g_assert_no_error(error);
	g_assert_cmpmem(back, desc->size, obj, desc->size);
	g_assert_true(state_save(desc, back, again, &error));
	g_assert_cmpmem(again->data, again->len, wire->data, wire->len);
}

static void test_round_trip(void)
{
	g_autofree struct kvm_saved_vcpu *vcpu = vcpu_sample();
	struct kvm_saved_irqchip irqchip = {
		.ioapic = {.base_address = 0xfec00000, .irr = 0x800001}};
	struct kvm_saved_pit pit = {
		.pit.channels = {{.mode = 2, .count = 0x10000}, {.mode = 0xff}}};
	struct kvm_saved_clock clock = {.clock_ns = 5,
					.host_tsc = 6,
					.has_host_tsc = true,
					.host_tsc_khz = 1,
					.boot_id = {1, 2, 3}};

	assert_round_trip(&kvm_saved_vcpu_desc, vcpu);
	assert_round_trip(&kvm_saved_irqchip_desc, &irqchip);
	assert_round_trip(&kvm_saved_pit_desc, &pit);
	assert_round_trip(&kvm_saved_clock_desc, &clock);
}

static void assert_refused(const struct state_desc *desc, const void *obj, const char *reason)
{
	g_autoptr(GError) error = NULL;

	g_assert_false(desc->check(obj, &error));
	if (!strstr(error->message, reason))
		g_error("'%s' expected, got '%s'", reason, error->message);
}

/* Each rule of the vCPU, broken by itself. */
#define REFUSED(change, reason)                                      \
	do {                                                         \
		g_autofree struct kvm_saved_vcpu *s = vcpu_sample(); \
		g_assert_true(kvm_saved_vcpu_desc.check(s, NULL));   \
		change;                                              \
		assert_refused(&kvm_saved_vcpu_desc, s, reason);     \
	} while (0)

static void test_vcpu_rules(void)
{
	REFUSED(s->n_msr_value--, "MSR indexes");
	REFUSED(s->n_cpuid--, "whole entries");
	REFUSED(s->n_cpuid = 0, "empty");
	REFUSED(s->n_xsave = 575, "XSAVE");
	REFUSED(s->n_nested = 127, "nested");
	REFUSED(s->tsc_khz = 0, "tsc_khz");
	REFUSED(s->mp_state = KVM_MP_STATE_STOPPED, "mp_state");
	REFUSED(s->xcrs.nr_xcrs = KVM_MAX_XCRS + 1, "xcrs");
}

static void test_chip_rules(void)
{
	struct kvm_saved_irqchip irqchip = {.ioapic.base_address = 0xfec00000};
	struct kvm_saved_pit pit = {0};
	struct kvm_saved_clock clock = {0};

	g_assert_true(kvm_saved_irqchip_desc.check(&irqchip, NULL));
	irqchip.ioapic.irr = 1U << 24;
	assert_refused(&kvm_saved_irqchip_desc, &irqchip, "irr");
	irqchip.ioapic = (struct kvm_ioapic_state){.base_address = 0x1000};
	assert_refused(&kvm_saved_irqchip_desc, &irqchip, "base address");

	g_assert_true(kvm_saved_pit_desc.check(&pit, NULL));
	pit.pit.channels[2].mode = 8;
	assert_refused(&kvm_saved_pit_desc, &pit, "channel 2");
	pit.pit.channels[2].mode = 7;
	pit.pit.channels[1].count = 0x10001;
	assert_refused(&kvm_saved_pit_desc, &pit, "channel 1");
	pit.pit.channels[1].count = 0x10000;
	g_assert_true(kvm_saved_pit_desc.check(&pit, NULL));
	pit.pit.flags = KVM_PIT_FLAGS_HPET_LEGACY;
	assert_refused(&kvm_saved_pit_desc, &pit, "HPET");

	g_assert_true(kvm_saved_clock_desc.check(&clock, NULL));
	clock.has_host_tsc = true;
	assert_refused(&kvm_saved_clock_desc, &clock, "host_tsc_khz");
	clock.host_tsc_khz = 1;
	clock.clock_ns = 1ULL << 63;
	assert_refused(&kvm_saved_clock_desc, &clock, "range");
}

/* CS.L outside of long mode goes, and nothing else ever. */
static void test_sregs(void)
{
	static const struct {
		uint64_t efer;
		uint8_t l, l_after;
	} cases[] = {
		{0, 0, 0},
		{0, 1, 0},
		{EFER_LME, 1, 0},
		{EFER_LME | EFER_LMA, 0, 0},
		{EFER_LME | EFER_LMA, 1, 1},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		struct kvm_sregs2 sregs, wanted;

		fill(&sregs, sizeof(sregs), i);
		sregs.efer = cases[i].efer;
		sregs.cs.l = cases[i].l;
		wanted = sregs;
		wanted.cs.l = cases[i].l_after;
		kvm_sregs_make_valid(&sregs);
		g_assert_cmpmem(&sregs, sizeof(sregs), &wanted, sizeof(wanted));
		kvm_sregs_make_valid(&sregs);
		g_assert_cmpmem(&sregs, sizeof(sregs), &wanted, sizeof(wanted));
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/accel/kvm_state/lint", test_lint);
	g_test_add_func("/accel/kvm_state/round_trip", test_round_trip);
	g_test_add_func("/accel/kvm_state/vcpu_rules", test_vcpu_rules);
	g_test_add_func("/accel/kvm_state/chip_rules", test_chip_rules);
	g_test_add_func("/accel/kvm_state/sregs", test_sregs);
	return g_test_run();
}
