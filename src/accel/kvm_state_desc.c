// Field tables and rules of the kernel-held state; no KVM needed, so unit tests can have them.
// SPDX-License-Identifier: Apache-2.0
#include "accel/kvm_state.h"

#include "base/error.h"

/* The legacy x87/SSE area and the XSAVE header: no kernel gives less. */
#define XSAVE_MIN_BYTES 576

static const struct state_field vcpu_fields[] = {
	FIELD_BLOB(struct kvm_saved_vcpu, regs, 1, "kvm_regs"),
	FIELD_BLOB(struct kvm_saved_vcpu, sregs, 2, "kvm_sregs2"),
	FIELD_BLOB(struct kvm_saved_vcpu, xcrs, 3, "kvm_xcrs"),
	FIELD_BLOB(struct kvm_saved_vcpu, debugregs, 4, "kvm_debugregs"),
	FIELD_BLOB(struct kvm_saved_vcpu, lapic, 5, "kvm_lapic_state"),
	FIELD_BLOB(struct kvm_saved_vcpu, events, 6, "kvm_vcpu_events"),
	FIELD(struct kvm_saved_vcpu, tsc, 7),
	FIELD(struct kvm_saved_vcpu, tsc_host, 8),
	FIELD(struct kvm_saved_vcpu, tsc_offset, 9),
	FIELD(struct kvm_saved_vcpu, tsc_khz, 10),
	FIELD(struct kvm_saved_vcpu, mp_state, 11),
	FIELD(struct kvm_saved_vcpu, has_tsc_offset, 12),
	FIELD_PAD(struct kvm_saved_vcpu, pad0),
	FIELD_LIST(struct kvm_saved_vcpu, cpuid, n_cpuid, 13),
	FIELD_LIST(struct kvm_saved_vcpu, msr_index, n_msr_index, 14),
	FIELD_LIST(struct kvm_saved_vcpu, msr_value, n_msr_value, 15),
	FIELD_LIST(struct kvm_saved_vcpu, xsave, n_xsave, 16),
	FIELD_LIST(struct kvm_saved_vcpu, nested, n_nested, 17),
};

/* What the kernel checks by itself (reserved bits of registers, LAPIC ids) is left to it. */
static bool vcpu_check(const void *obj, GError **error)
{
	const struct kvm_saved_vcpu *s = obj;

	if (s->n_msr_index != s->n_msr_value)
		return error_set_generic(error, "%u MSR indexes but %u values", s->n_msr_index,
					 s->n_msr_value);
	if (s->n_cpuid % KVM_SAVED_CPUID_WORDS != 0)
		return error_set_generic(error, "cpuid: %u words are not whole entries",
					 s->n_cpuid);
	if (s->n_cpuid == 0)
		return error_set_generic(error, "cpuid: empty");
	if (s->n_xsave < XSAVE_MIN_BYTES)
		return error_set_generic(error, "xsave: %u bytes are not an XSAVE area",
					 s->n_xsave);
	if (s->n_nested > 0 && s->n_nested < sizeof(struct kvm_nested_state))
		return error_set_generic(error, "nested: %u bytes are not a nested state",
					 s->n_nested);
	if (s->tsc_khz == 0)
		return error_set_generic(error, "tsc_khz: 0");
	if (s->mp_state > KVM_MP_STATE_SIPI_RECEIVED)
		return error_set_generic(error, "mp_state: %u is not one of x86's", s->mp_state);
	if (s->xcrs.nr_xcrs > KVM_MAX_XCRS)
		return error_set_generic(error, "xcrs: %u entries", s->xcrs.nr_xcrs);
	return true;
}

const struct state_desc kvm_saved_vcpu_desc = {
	.name = "kvm-vcpu",
	.version = 1,
	.min_reader = 1,
	.check = vcpu_check,
	STATE_DESC(struct kvm_saved_vcpu, vcpu_fields),
};

static const struct state_field irqchip_fields[] = {
	FIELD_BLOB(struct kvm_saved_irqchip, pic_master, 1, "kvm_pic_state"),
	FIELD_BLOB(struct kvm_saved_irqchip, pic_slave, 2, "kvm_pic_state"),
	FIELD_BLOB(struct kvm_saved_irqchip, ioapic, 3, "kvm_ioapic_state"),
};

/* The kernel takes whatever is in here: the register space it is found at is ours to guard. */
static bool irqchip_check(const void *obj, GError **error)
{
	const struct kvm_saved_irqchip *s = obj;

	if (s->ioapic.base_address != 0xfec00000)
		return error_set_generic(error, "ioapic: base address 0x%llx",
					 (unsigned long long)s->ioapic.base_address);
	if (s->ioapic.irr >> KVM_IOAPIC_NUM_PINS)
		return error_set_generic(error, "ioapic: irr 0x%x has bits above pin %d",
					 s->ioapic.irr, KVM_IOAPIC_NUM_PINS - 1);
	return true;
}

const struct state_desc kvm_saved_irqchip_desc = {
	.name = "kvm-irqchip",
	.version = 1,
	.min_reader = 1,
	.check = irqchip_check,
	STATE_DESC(struct kvm_saved_irqchip, irqchip_fields),
};

static const struct state_field pit_fields[] = {
	FIELD_BLOB(struct kvm_saved_pit, pit, 1, "kvm_pit_state2"),
};

/* Three bits the guest writes, or 0xff from power-on until it does. */
static bool pit_mode_is_valid(uint8_t mode)
{
	return mode <= 7 || mode == 0xff;
}

static bool pit_check(const void *obj, GError **error)
{
	const struct kvm_saved_pit *s = obj;

	for (int i = 0; i < 3; i++) {
		const struct kvm_pit_channel_state *c = &s->pit.channels[i];

		if (!pit_mode_is_valid(c->mode) || c->count > 0x10000)
			return error_set_generic(error, "pit: channel %d has mode %u, count %u", i,
						 c->mode, c->count);
	}
	if (s->pit.flags & KVM_PIT_FLAGS_HPET_LEGACY)
		return error_set_generic(error, "pit: an HPET has its interrupt");
	return true;
}

const struct state_desc kvm_saved_pit_desc = {
	.name = "kvm-pit",
	.version = 1,
	.min_reader = 1,
	.check = pit_check,
	STATE_DESC(struct kvm_saved_pit, pit_fields),
};

static const struct state_field clock_fields[] = {
	FIELD(struct kvm_saved_clock, clock_ns, 1),
	FIELD(struct kvm_saved_clock, host_tsc, 2),
	FIELD(struct kvm_saved_clock, realtime_ns, 3),
	FIELD(struct kvm_saved_clock, host_tsc_khz, 4),
	FIELD(struct kvm_saved_clock, has_host_tsc, 5),
	FIELD(struct kvm_saved_clock, frozen, 6),
	FIELD_PAD(struct kvm_saved_clock, pad0),
	FIELD_ARRAY(struct kvm_saved_clock, boot_id, 7),
};

static bool clock_check(const void *obj, GError **error)
{
	const struct kvm_saved_clock *s = obj;

	if (s->clock_ns > INT64_MAX || s->realtime_ns > INT64_MAX)
		return error_set_generic(error, "a time is out of range");
	if (s->has_host_tsc && s->host_tsc_khz == 0)
		return error_set_generic(error, "host_tsc_khz: 0");
	return true;
}

const struct state_desc kvm_saved_clock_desc = {
	.name = "kvm-clock",
	.version = 1,
	.min_reader = 1,
	.check = clock_check,
	STATE_DESC(struct kvm_saved_clock, clock_fields),
};
