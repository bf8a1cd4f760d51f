// Kernel-held state of the whole VM: sections, capture, apply, reset.
// SPDX-License-Identifier: Apache-2.0
#include "accel/kvm_state.h"

#include <string.h>

#include "accel/kvm_internal.h"
#include "base/error.h"

/**
 * DOC: theory of operation
 *
 * The kernel holds most of a VM's state.  kvm_vm_capture() reads it into plain described structs,
 * the sections, which are saved and loaded like any device's; kvm_vm_apply() writes them to a VM
 * that was built the same way.  vCPUs are read and written by their own threads, all at once, so
 * that the time does not grow with their number.
 *
 * After creation everything is captured once: that is the power-on state which a reset applies.
 */

#define N_VM_SECTIONS 3

static const uint32_t irqchip_ids[] = {
	KVM_IRQCHIP_PIC_MASTER,
	KVM_IRQCHIP_PIC_SLAVE,
	KVM_IRQCHIP_IOAPIC,
};

/* The member of @s that belongs to a chip, and its size. */
static void *irqchip_member(struct kvm_saved_irqchip *s, uint32_t chip_id, size_t *size)
{
	switch (chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
		*size = sizeof(s->pic_master);
		return &s->pic_master;
	case KVM_IRQCHIP_PIC_SLAVE:
		*size = sizeof(s->pic_slave);
		return &s->pic_slave;
	}
	*size = sizeof(s->ioapic);
	return &s->ioapic;
}

static bool irqchip_capture(struct kvm_vm *vm, struct kvm_saved_irqchip *s, GError **error)
{
	for (size_t i = 0; i < G_N_ELEMENTS(irqchip_ids); i++) {
		struct kvm_irqchip chip = {.chip_id = irqchip_ids[i]};
		size_t size;
		void *member = irqchip_member(s, chip.chip_id, &size);

		if (!KVM_IOCTL(vm->vm_fd, KVM_GET_IRQCHIP, &chip, error))
			return false;
		memcpy(member, &chip.chip, size);
	}
	return true;
}

static bool irqchip_apply(struct kvm_vm *vm, struct kvm_saved_irqchip *s, GError **error)
{
	for (size_t i = 0; i < G_N_ELEMENTS(irqchip_ids); i++) {
		struct kvm_irqchip chip = {.chip_id = irqchip_ids[i]};
		size_t size;
		const void *member = irqchip_member(s, chip.chip_id, &size);

		memcpy(&chip.chip, member, size);
		if (!KVM_IOCTL(vm->vm_fd, KVM_SET_IRQCHIP, &chip, error))
			return false;
	}
	return true;
}

/* ---- jobs for vCPU threads ---- */

static bool job_capture_early(struct vcpu *vcpu, void *arg, GError **error)
{
	return kvm_vcpu_capture_early(vcpu, error);
}

static bool job_capture(struct vcpu *vcpu, void *arg, GError **error)
{
	return kvm_vcpu_capture_rest(vcpu, error);
}

static bool job_capture_power_on(struct vcpu *vcpu, void *arg, GError **error)
{
	vcpu->fresh = kvm_vcpu_capture(vcpu, vcpu->power_on, error);
	return vcpu->fresh;
}

static bool job_apply(struct vcpu *vcpu, void *arg, GError **error)
{
	return kvm_vcpu_apply(vcpu, vcpu->saved, true, error);
}

static bool job_prove(struct vcpu *vcpu, void *arg, GError **error)
{
	return kvm_vcpu_prove(vcpu, vcpu->saved, error);
}

static bool job_reset(struct vcpu *vcpu, void *arg, GError **error)
{
	return kvm_vcpu_apply(vcpu, vcpu->power_on, false, error);
}

static bool job_set_boot_regs(struct vcpu *vcpu, void *arg, GError **error)
{
	return kvm_vcpu_set_boot_regs(vcpu, arg, error);
}

/* ---- the whole VM ---- */

static void sections_init(struct kvm_vm *vm)
{
	struct kvm_section *section;

	vm->n_sections = vm->n_vcpus + N_VM_SECTIONS;
	vm->sections = g_new0(struct kvm_section, vm->n_sections);
	section = vm->sections;
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		*section++ = (struct kvm_section){"kvm/vcpu", i, &kvm_saved_vcpu_desc,
						  vm->vcpus[i].saved};
	*section++ =
		(struct kvm_section){"kvm/irqchip", 0, &kvm_saved_irqchip_desc, &vm->saved.irqchip};
	*section++ = (struct kvm_section){"kvm/pit", 0, &kvm_saved_pit_desc, &vm->saved.pit};
	*section++ = (struct kvm_section){"kvm/clock", 0, &kvm_saved_clock_desc, &vm->saved.clock};
}

bool kvm_state_init(struct kvm_vm *vm, GError **error)
{
	sections_init(vm);
	vcpus_begin(vm, job_capture_power_on, NULL);
	if (!vcpus_end(vm, error) || !irqchip_capture(vm, &vm->power_on.irqchip, error) ||
	    !KVM_IOCTL(vm->vm_fd, KVM_GET_PIT2, &vm->power_on.pit.pit, error))
		return false;
	/* The last known state, for a rehearsal before anything was captured. */
	vm->saved.irqchip = vm->power_on.irqchip;
	vm->saved.pit = vm->power_on.pit;
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		*vm->vcpus[i].saved = *vm->vcpus[i].power_on;
	return true;
}

const struct kvm_section *kvm_vm_sections(struct kvm_vm *vm, uint32_t *n)
{
	*n = vm->n_sections;
	return vm->sections;
}

static bool kvm_vm_must_be_paused(struct kvm_vm *vm, GError **error)
{
	return !kvm_vm_running(vm) || error_set_generic(error, "the vCPUs are running");
}

bool kvm_vm_pause_reading(struct kvm_vm *vm, uint32_t ms, GError **error)
{
	return vcpus_park(vm, job_capture_early, ms, error);
}

bool kvm_vm_begin_capture(struct kvm_vm *vm, GError **error)
{
	if (!kvm_vm_must_be_paused(vm, error))
		return false;
	vcpus_begin(vm, job_capture, NULL);
	vm->capturing = true;
	return true;
}

/*
 * The chips and the clock are read while the vCPUs are: without a running vCPU they change only by a
 * tick of the PIT, one of those that any pause costs.
 */
bool kvm_vm_capture(struct kvm_vm *vm, GError **error)
{
	bool ok;

	if (!vm->capturing && !kvm_vm_begin_capture(vm, error))
		return false;
	vm->capturing = false;
	ok = irqchip_capture(vm, &vm->saved.irqchip, error) &&
	     KVM_IOCTL(vm->vm_fd, KVM_GET_PIT2, &vm->saved.pit.pit, error) &&
	     kvm_clock_capture(vm, error);
	return vcpus_end(vm, ok ? error : NULL) && ok;
}

static void vcpus_unblock(struct kvm_vm *vm)
{
	g_mutex_lock(&vm->lock);
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		vm->vcpus[i].blocked = false;
	g_mutex_unlock(&vm->lock);
}

/*
 * Each step stands after those it needs; kvm_vcpu_apply() has the order within a vCPU.
 *  - vCPUs before the IOAPIC: setting the IOAPIC delivers the interrupts that wait in it to the
 *    LAPICs; a LAPIC that is written after that would forget them, and a level-triggered one would
 *    never come again.
 *  - IOAPIC and PICs before the PIT: setting the PIT starts its timer, and a tick must find its pin
 *    masked or not, as the guest left it.
 *  - all TSC offsets before the clock: they decide whether KVM computes kvmclock from the TSC.
 *  - the clock before a vCPU runs (the caller's part): a guest that has seen a wrong time keeps it.
 */
bool kvm_vm_apply(struct kvm_vm *vm, GError **error)
{
	if (!kvm_vm_must_be_paused(vm, error))
		return false;
	vcpus_unblock(vm);
	vcpus_begin(vm, job_apply, NULL);
	return vcpus_end(vm, error) && irqchip_apply(vm, &vm->saved.irqchip, error) &&
	       KVM_IOCTL(vm->vm_fd, KVM_SET_PIT2, &vm->saved.pit.pit, error) &&
	       kvm_clock_apply(vm, error);
}

bool kvm_vm_prove(struct kvm_vm *vm, GError **error)
{
	if (!kvm_vm_must_be_paused(vm, error))
		return false;
	vcpus_begin(vm, job_prove, NULL);
	return vcpus_end(vm, error);
}

bool kvm_vm_reset(struct kvm_vm *vm, GError **error)
{
	if (!kvm_vm_must_be_paused(vm, error))
		return false;
	vcpus_unblock(vm);
	vcpus_begin(vm, job_reset, NULL);
	return vcpus_end(vm, error) && irqchip_apply(vm, &vm->power_on.irqchip, error) &&
	       KVM_IOCTL(vm->vm_fd, KVM_SET_PIT2, &vm->power_on.pit.pit, error);
}

bool kvm_vm_set_boot_regs(struct kvm_vm *vm, const struct kvm_boot_regs *regs, GError **error)
{
	return kvm_vm_must_be_paused(vm, error) &&
	       vcpu_run_on(&vm->vcpus[0], job_set_boot_regs, (void *)regs, error);
}
