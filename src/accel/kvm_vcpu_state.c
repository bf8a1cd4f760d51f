// One vCPU's kernel-held state: reading it, and writing it back in an order that works.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "accel/kvm_internal.h"
#include "base/error.h"

/* Newer than the oldest headers this is built with. */
#ifndef KVM_VCPU_TSC_CTRL
#define KVM_VCPU_TSC_CTRL   0
#define KVM_VCPU_TSC_OFFSET 0
#endif

#define CR0_PE	 (1ULL << 0)
#define CR0_ET	 (1ULL << 4)
#define CR0_PG	 (1ULL << 31)
#define CR4_PAE	 (1ULL << 5)
#define EFER_LME (1ULL << 8)
#define EFER_LMA (1ULL << 10)

/* ---- special registers: KVM_GET_SREGS2 where there is one ---- */

void kvm_sregs_make_valid(struct kvm_sregs2 *sregs)
{
	if (!(sregs->efer & EFER_LMA))
		sregs->cs.l = 0;
}

static bool sregs_read(struct vcpu *vcpu, struct kvm_sregs2 *sregs, GError **error)
{
	struct kvm_sregs old;

	if (vcpu->vm->caps.sregs2)
		return KVM_IOCTL(vcpu->fd, KVM_GET_SREGS2, sregs, error);
	if (!KVM_IOCTL(vcpu->fd, KVM_GET_SREGS, &old, error))
		return false;
	/* Alike up to here; a pending interrupt (the bitmap) is in the events too. */
	memset(sregs, 0, sizeof(*sregs));
	memcpy(sregs, &old, offsetof(struct kvm_sregs, interrupt_bitmap));
	return true;
}

static bool sregs_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	if (!sregs_read(vcpu, &s->sregs, error))
		return false;
	kvm_sregs_make_valid(&s->sregs);
	return true;
}

static bool sregs_apply(struct vcpu *vcpu, const struct kvm_sregs2 *sregs, GError **error)
{
	struct kvm_sregs old = {0};

	if (vcpu->vm->caps.sregs2)
		return KVM_IOCTL(vcpu->fd, KVM_SET_SREGS2, (void *)sregs, error);
	memcpy(&old, sregs, offsetof(struct kvm_sregs, interrupt_bitmap));
	return KVM_IOCTL(vcpu->fd, KVM_SET_SREGS, &old, error);
}

/* ---- FPU and vector registers ---- */

static bool xsave_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	s->n_xsave = vcpu->vm->caps.xsave_bytes;
	if (vcpu->vm->caps.xsave2)
		return KVM_IOCTL(vcpu->fd, KVM_GET_XSAVE2, s->xsave, error);
	return KVM_IOCTL(vcpu->fd, KVM_GET_XSAVE, s->xsave, error);
}

static bool xsave_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	for (uint32_t i = vcpu->vm->caps.xsave_bytes; i < s->n_xsave; i++) {
		if (s->xsave[i])
			return error_set_generic(error,
						 "the guest uses %u bytes of XSAVE state, this "
						 "host's KVM takes %u",
						 s->n_xsave, vcpu->vm->caps.xsave_bytes);
	}
	return KVM_IOCTL(vcpu->fd, KVM_SET_XSAVE, (void *)s->xsave, error);
}

/* A processor without XSAVE has no XCR0. */
static bool xcrs_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	s->xcrs.nr_xcrs = 0;
	return !vcpu->vm->caps.xcrs || KVM_IOCTL(vcpu->fd, KVM_GET_XCRS, &s->xcrs, error);
}

static bool xcrs_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	if (!vcpu->vm->caps.xcrs && s->xcrs.nr_xcrs == 0)
		return true;
	return KVM_IOCTL(vcpu->fd, KVM_SET_XCRS, (void *)&s->xcrs, error);
}

/* ---- nested virtualization ---- */

static bool nested_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	struct kvm_nested_state header = {.size = vcpu->vm->caps.nested_bytes};

	/* Without it the guest has no VMX or SVM (cpuid.c), so there is nothing to save. */
	s->n_nested = 0;
	if (vcpu->vm->caps.nested_bytes == 0)
		return true;
	memcpy(s->nested, &header, sizeof(header));
	if (!KVM_IOCTL(vcpu->fd, KVM_GET_NESTED_STATE, s->nested, error))
		return false;
	memcpy(&header, s->nested, sizeof(header));
	s->n_nested = MIN(header.size, vcpu->vm->caps.nested_bytes);
	return true;
}

static bool nested_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	struct kvm_nested_state header;

	if (s->n_nested == 0)
		return true;
	memcpy(&header, s->nested, sizeof(header));
	if (header.size > s->n_nested)
		return error_set_generic(error, "nested state of %u bytes claims to have %u",
					 s->n_nested, header.size);
	if (vcpu->vm->caps.nested_bytes == 0)
		return error_set_generic(error, "the guest may run nested guests; this host's KVM "
						"has no KVM_CAP_NESTED_STATE");
	return KVM_IOCTL(vcpu->fd, KVM_SET_NESTED_STATE, (void *)s->nested, error);
}

/* ---- TSC ---- */

static struct kvm_device_attr tsc_offset_attr(uint64_t *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)offset,
	};
}

static bool tsc_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	struct kvm_device_attr attr = tsc_offset_attr(&s->tsc_offset);

	s->tsc_khz = vcpu->tsc_khz;
	s->tsc_offset = 0;
	s->has_tsc_offset = ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) == 0;
	s->tsc_host = kvm_host_tsc();
	s->tsc = s->tsc_host + s->tsc_offset;
	if (s->has_tsc_offset && s->tsc_khz == vcpu->vm->caps.host_tsc_khz)
		return true;
	return kvm_msr_read(vcpu, KVM_MSR_TSC, &s->tsc, error);
}

static bool tsc_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	const struct kvm_saved_clock *clock = &vcpu->vm->saved.clock;
	uint64_t offset = s->tsc_offset;
	struct kvm_device_attr attr = tsc_offset_attr(&offset);
	uint64_t elapsed, now;

	/* Exact: the guest's TSC is the host's plus this, whenever it is set. */
	if (kvm_clock_same_boot(vcpu->vm)) {
		if (s->has_tsc_offset && ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr) == 0)
			return true;
		now = kvm_host_tsc();
		elapsed = now > s->tsc_host ? now - s->tsc_host : 0;
		elapsed = kvm_ticks_to_ns(elapsed, vcpu->vm->caps.host_tsc_khz);
	} else {
		now = kvm_realtime_ns();
		elapsed = now > clock->realtime_ns ? now - clock->realtime_ns : 0;
	}
	/* KVM notices that all vCPUs are given the same time and keeps them in step. */
	return kvm_msr_write(vcpu, KVM_MSR_TSC, s->tsc + kvm_ns_to_ticks(elapsed, s->tsc_khz),
			     error);
}

/* Only this program sets it, so that it need not be asked for. */
static bool tsc_khz_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	if (vcpu->tsc_khz == s->tsc_khz)
		return true;
	if (ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)s->tsc_khz) < 0)
		return error_set_generic(
			error,
			"the guest's TSC runs at %u kHz, this host's at %u, and its "
			"processor cannot scale it",
			s->tsc_khz, vcpu->tsc_khz);
	vcpu->tsc_khz = s->tsc_khz;
	return true;
}

/* ---- CPUID ---- */

static void cpuid_capture(const struct vcpu *vcpu, struct kvm_saved_vcpu *s)
{
	uint32_t *word = s->cpuid;

	for (uint32_t i = 0; i < vcpu->cpuid->n; i++) {
		const struct kvm_cpuid_entry2 *e = &vcpu->cpuid->entries[i];

		*word++ = e->function;
		*word++ = e->index;
		*word++ = e->flags;
		*word++ = e->eax;
		*word++ = e->ebx;
		*word++ = e->ecx;
		*word++ = e->edx;
	}
	s->n_cpuid = vcpu->cpuid->n * KVM_SAVED_CPUID_WORDS;
}

/* Setting CPUID is slow and a successor's is nearly always the same. */
static bool cpuid_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	g_autofree struct cpuid_table *table = g_new0(struct cpuid_table, 1);
	const uint32_t *word = s->cpuid;

	table->n = s->n_cpuid / KVM_SAVED_CPUID_WORDS;
	for (uint32_t i = 0; i < table->n; i++, word += KVM_SAVED_CPUID_WORDS)
		table->entries[i] = (struct kvm_cpuid_entry2){
			.function = word[0],
			.index = word[1],
			.flags = word[2],
			.eax = word[3],
			.ebx = word[4],
			.ecx = word[5],
			.edx = word[6],
		};
	if (memcmp(table, vcpu->cpuid, sizeof(*table)) == 0)
		return true;
	return kvm_vcpu_set_cpuid(vcpu, table, error);
}

/* ---- all of it ---- */

static bool mp_state_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	struct kvm_mp_state mp = {0};

	if (!KVM_IOCTL(vcpu->fd, KVM_GET_MP_STATE, &mp, error))
		return false;
	s->mp_state = mp.mp_state;
	return true;
}

/*
 * What a fresh vCPU holds already need not be written, and most guests leave these alone: a call to
 * the kernel is 5 us of the pause.
 */
#define HOLDS(vcpu, s, member) \
	((vcpu)->fresh && memcmp(&(s)->member, &(vcpu)->power_on->member, sizeof((s)->member)) == 0)

static bool mp_state_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	struct kvm_mp_state mp = {.mp_state = s->mp_state};

	return HOLDS(vcpu, s, mp_state) || KVM_IOCTL(vcpu->fd, KVM_SET_MP_STATE, &mp, error);
}

static bool debugregs_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	return HOLDS(vcpu, s, debugregs) ||
	       KVM_IOCTL(vcpu->fd, KVM_SET_DEBUGREGS, (void *)&s->debugregs, error);
}

static bool events_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	return HOLDS(vcpu, s, events) ||
	       KVM_IOCTL(vcpu->fd, KVM_SET_VCPU_EVENTS, (void *)&s->events, error);
}

/*
 * The order matters in three places:
 *  - MP state first: reading it makes KVM act on a pending INIT or SIPI, which changes registers.
 *  - events next: reading them settles what a pending exception does to other registers.
 *  - MSRs, and among them the TSC deadline, before the LAPIC: a timer that expires in between shows
 *    as an interrupt in the LAPIC and is delivered twice at worst; the other way round it would be
 *    in neither.
 */
static bool capture_registers(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	cpuid_capture(vcpu, s);
	return mp_state_capture(vcpu, s, error) &&
	       KVM_IOCTL(vcpu->fd, KVM_GET_VCPU_EVENTS, &s->events, error) &&
	       KVM_IOCTL(vcpu->fd, KVM_GET_REGS, &s->regs, error) &&
	       sregs_capture(vcpu, s, error) && xcrs_capture(vcpu, s, error) &&
	       xsave_capture(vcpu, s, error) &&
	       KVM_IOCTL(vcpu->fd, KVM_GET_DEBUGREGS, &s->debugregs, error) &&
	       tsc_capture(vcpu, s, error) && kvm_msrs_capture(vcpu, s, error) &&
	       nested_capture(vcpu, s, error);
}

bool kvm_vcpu_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	return capture_registers(vcpu, s, error) &&
	       KVM_IOCTL(vcpu->fd, KVM_GET_LAPIC, &s->lapic, error);
}

/* No vCPU runs, but devices may still interrupt this one, until they are drained. */
bool kvm_vcpu_capture_early(struct vcpu *vcpu, GError **error)
{
	vcpu->early = capture_registers(vcpu, vcpu->saved, error);
	return vcpu->early;
}

/*
 * An interrupt changes the LAPIC; an NMI or SMI, the events.  One that is an INIT changes all, and
 * the MP state shows it.
 */
bool kvm_vcpu_capture_rest(struct vcpu *vcpu, GError **error)
{
	struct kvm_saved_vcpu *s = vcpu->saved;
	const uint32_t mp_state = s->mp_state;
	const bool early = vcpu->early;

	vcpu->early = false;
	if (!early || !mp_state_capture(vcpu, s, NULL) || s->mp_state != mp_state)
		return kvm_vcpu_capture(vcpu, s, error);
	return KVM_IOCTL(vcpu->fd, KVM_GET_VCPU_EVENTS, &s->events, error) &&
	       KVM_IOCTL(vcpu->fd, KVM_GET_LAPIC, &s->lapic, error);
}

/*
 * Each step stands after those it needs:
 *  - CPUID first: it decides which bits of CR4, XCR0, EFER and MSRs the kernel takes.
 *  - TSC frequency before anything that is counted in its ticks.
 *  - special registers (CR0, CR4, EFER, APIC base) before nested state, which needs EFER.SVME or
 *    CR4.VMXE, and before the LAPIC, whose layout depends on the APIC base (xAPIC or x2APIC).
 *  - feature control before nested state (VMXON needs it); nested state before general registers
 *    and other MSRs, because it loads them with the nested guest's.
 *  - XCR0 before the XSAVE area that it enables parts of.
 *  - general registers before events: writing them drops a pending exception.
 *  - TSC offset before the TSC deadline, which would fire too early or too late; the LAPIC before
 *    the deadline too, which the kernel ignores outside of the LAPIC timer's deadline mode.
 *  - events after all they may refer to (SMM, nested guest, interrupt shadow).
 *  - MP state last: writing special registers may make the boot vCPU runnable.
 * The IOAPIC and the clock come after all vCPUs: kvm_vm_apply().
 */
bool kvm_vcpu_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, bool set_time,
		    GError **error)
{
	bool ok = cpuid_apply(vcpu, s, error) && (!set_time || tsc_khz_apply(vcpu, s, error)) &&
		  sregs_apply(vcpu, &s->sregs, error) &&
		  kvm_msr_apply_one(vcpu, s, KVM_MSR_FEAT_CTL, error) &&
		  nested_apply(vcpu, s, error) &&
		  KVM_IOCTL(vcpu->fd, KVM_SET_REGS, (void *)&s->regs, error) &&
		  xcrs_apply(vcpu, s, error) && xsave_apply(vcpu, s, error) &&
		  KVM_IOCTL(vcpu->fd, KVM_SET_LAPIC, (void *)&s->lapic, error) &&
		  (!set_time || tsc_apply(vcpu, s, error)) && kvm_msrs_apply(vcpu, s, error) &&
		  debugregs_apply(vcpu, s, error) && events_apply(vcpu, s, error) &&
		  mp_state_apply(vcpu, s, error);

	vcpu->early = false;
	vcpu->fresh = vcpu->fresh && HOLDS(vcpu, s, debugregs) && HOLDS(vcpu, s, events) &&
		      HOLDS(vcpu, s, mp_state) && HOLDS(vcpu, s, msr_value);
	return ok;
}

/* What differs from the power-on state is all that a successor's vCPU is given, too. */
bool kvm_vcpu_prove(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	const bool fresh = vcpu->fresh;
	bool ok;

	vcpu->fresh = true;
	ok = kvm_vcpu_apply(vcpu, s, false, error);
	/* It goes on: KVM_SET_REGS drops an exception that is pending. */
	if (!ok)
		(void)events_apply(vcpu, s, NULL);
	vcpu->fresh = vcpu->fresh && fresh;
	return ok;
}

/* ---- where a loader starts the boot vCPU ---- */

/* Flat: base 0, 4 GiB.  Access byte and granularity as in a descriptor (SDM vol. 3, 3.4.5). */
static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool code, bool long_mode)
{
	return (struct kvm_segment){
		.selector = selector,
		.limit = 0xffffffff,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = code && long_mode,
		.db = !(code && long_mode),
	};
}

bool kvm_vcpu_set_boot_regs(struct vcpu *vcpu, const struct kvm_boot_regs *boot, GError **error)
{
	struct kvm_segment data = flat_segment(0x18, 3, false, boot->long_mode);
	struct kvm_regs regs = {
		.rip = boot->rip,
		.rsp = boot->rsp,
		.rsi = boot->rsi,
		.rbx = boot->rbx,
		.rflags = 2, /* bit 1 is always one */
	};
	struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
	struct kvm_sregs sregs;

	if (boot->long_mode && !boot->cr3)
		return error_set_generic(error, "boot registers: long mode needs page tables");
	if (!KVM_IOCTL(vcpu->fd, KVM_GET_SREGS, &sregs, error))
		return false;
	sregs.cs = flat_segment(0x10, 11, true, boot->long_mode);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	/* VM entry wants a busy TSS of the mode's kind, 32 or 64 bits: type 11 for both. */
	sregs.tr = (struct kvm_segment){.limit = 0x67, .type = 11, .present = 1};
	sregs.ldt = (struct kvm_segment){.type = 2, .unusable = 1};
	sregs.gdt = (struct kvm_dtable){
		.base = boot->gdt_gpa,
		.limit = boot->gdt_bytes ? boot->gdt_bytes - 1 : 0,
	};
	sregs.idt = (struct kvm_dtable){0};
	sregs.cr0 = CR0_PE | CR0_ET | (boot->cr3 ? CR0_PG : 0);
	sregs.cr3 = boot->cr3;
	sregs.cr4 = boot->long_mode ? CR4_PAE : 0;
	sregs.efer = boot->long_mode ? EFER_LME | EFER_LMA : 0;
	vcpu->fresh = vcpu->early = false;
	return KVM_IOCTL(vcpu->fd, KVM_SET_SREGS, &sregs, error) &&
	       KVM_IOCTL(vcpu->fd, KVM_SET_REGS, &regs, error) &&
	       KVM_IOCTL(vcpu->fd, KVM_SET_MP_STATE, &runnable, error);
}
