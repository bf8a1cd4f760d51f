// The KVM virtual machine: /dev/kvm, the VM descriptor, memslots, in-kernel interrupt controllers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "accel/accel.h"
#include "base/cleanup.h"
#include "memory/guest_memory.h"
#include "memory/io_space.h"
#include "state/state.h"

struct vcpu;

/** KVM_PARK_MS - How long vCPUs get to park, which takes microseconds */
#define KVM_PARK_MS 1000

/**
 * enum vcpu_event - What a vCPU tells the machine; Context: that vCPU's thread
 * @VCPU_EVENT_SHUTDOWN: triple fault: the machine resets
 * @VCPU_EVENT_RESET:	KVM_SYSTEM_EVENT_RESET
 * @VCPU_EVENT_ERROR:	KVM cannot go on; the vCPU stays parked (run state internal-error)
 * @VCPU_EVENT_PARKED:	one that kvm_vm_pause() gave up waiting for has parked after all; the VM's
 *		lock is held
 */
enum vcpu_event { VCPU_EVENT_SHUTDOWN, VCPU_EVENT_RESET, VCPU_EVENT_ERROR, VCPU_EVENT_PARKED };

/**
 * struct kvm_params - What a VM is made from
 * @n_cpus:	vCPUs, APIC ids 0 .. n_cpus - 1 following the topology
 * @n_cores, @n_threads: topology for CPUID
 * @memory:	The guest-physical map, complete; becomes memslots
 * @pio, @mmio:	Where exits go
 * @event, @opaque: see enum vcpu_event
 */
struct kvm_params {
	uint32_t n_cpus, n_cores, n_threads;
	const struct guest_memory *memory;
	struct io_space *pio, *mmio;
	void (*event)(void *opaque, uint32_t cpu_index, enum vcpu_event event);
	void *opaque;
};

/**
 * KVM_RESERVED_GPA - Guest-physical pages that KVM itself uses below 4 GiB
 *
 * No RAM or device there; the firmware memory map must list them as reserved.
 */
#define KVM_RESERVED_GPA       0xfeffc000ULL
#define KVM_RESERVED_GPA_BYTES 0x4000ULL

/** struct kvm_vm - A VM, its vCPUs (each with a parked thread), irqchip and PIT */
struct kvm_vm;

/**
 * kvm_vm_new() - Create VM, irqchip, PIT, memslots, vCPUs with CPUID, and their parked threads
 *
 * Everything that takes time happens here, so that a warm successor has only state left to load.
 * SIGUSR1 is taken: it kicks vCPU threads out of the guest.  Context: main thread.
 * Error messages name the ioctl, the reason and a remedy ("/dev/kvm: Permission denied; ...").
 */
struct kvm_vm *kvm_vm_new(const struct kvm_params *params, GError **error);
void kvm_vm_free(struct kvm_vm *vm);
DEFINE_CLEANUP(kvm_vm, kvm_vm_free)

/**
 * kvm_vm_rehearse_entry() - Let each vCPU enter the guest once, where there is none (kvm_entry.c)
 * kvm_vm_cpuid_digest() - Of all vCPUs' CPUID: after a rehearsal they take no other
 *
 * For a VM whose vCPUs have neither run nor been given a state, and are as before afterwards.
 * Context: main thread, VM paused.
 */
bool kvm_vm_rehearse_entry(struct kvm_vm *vm, GError **error);
uint32_t kvm_vm_cpuid_digest(const struct kvm_vm *vm);

/**
 * kvm_vm_prefault() - Make the page tables that the guest's accesses would make, one fault at a time
 * @stop:	Looked at between small steps; another thread may set it
 *
 * Of memory that is there only: holes stay holes.  A kernel without KVM_PRE_FAULT_MEMORY, or whose
 * KVM has no second-level page tables, does nothing.  Bounded in time.
 * Context: any thread; no vCPU runs, and nobody else uses vCPU 0.
 * Return: how much was gone through, in bytes.
 *
 * kvm_vm_can_prefault() - Whether this KVM can
 */
bool kvm_vm_can_prefault(const struct kvm_vm *vm);
uint64_t kvm_vm_prefault(struct kvm_vm *vm, const bool *stop);

/**
 * kvm_vm_accel() - Its interrupts and doorbells, for devices
 *
 * GSIs are wired as in a PC: GSI 0 (the PIT) is the PIC's pin 0 and the IOAPIC's pin 2, so the MADT
 * needs the source override "ISA 0 is GSI 2"; GSI 2 is not connected; others go straight.
 */
struct accel *kvm_vm_accel(struct kvm_vm *vm);

/**
 * kvm_vm_hold_routes(), kvm_vm_release_routes() - Collect changes of interrupt routes
 *
 * Every change costs a grace period in the kernel.  Between the two, which nest, changes are
 * collected; the last release makes them with one call.  For the machine, around realizing,
 * applying and unrealizing many devices.  Any thread. Return (release): false with @error set if
 * the kernel refuses the table.
 */
void kvm_vm_hold_routes(struct kvm_vm *vm);
bool kvm_vm_release_routes(struct kvm_vm *vm, GError **error);

/** kvm_vm_vcpu_tid() - Kernel thread id of vCPU @index (query-cpus-fast). */
int kvm_vm_vcpu_tid(const struct kvm_vm *vm, uint32_t index);

/**
 * kvm_vm_run() - Unpark every vCPU.  kvm_vm_pause() - Park them and wait until the last has parked
 * kvm_vm_pause_reading() - The same, when kvm_vm_capture() will follow: vCPUs do most of it at once
 *
 * A parked vCPU has completed its last port or MMIO access: its registers are consistent.  One that
 * does not come within @ms, counted in slices in which none came, so that time which this process did
 * not get does not count, is named in @error with what it is doing.  With @ms 0 it has KVM_PARK_MS, and
 * up to five times that if it could run but the host has no processor for it.  The others stay
 * parked, it is told to park as soon as it can, and VCPU_EVENT_PARKED says when: the caller either
 * waits for that or calls kvm_vm_run().  Only kvm_vm_parked() vCPUs have a state.  A vCPU
 * that reported an event stays parked until kvm_vm_reset() or kvm_vm_apply().
 * Context: main thread, which must hold no lock that a device's register access takes.  Both are
 * cheap no-ops in the state they lead to.
 */
void kvm_vm_run(struct kvm_vm *vm);
bool kvm_vm_pause(struct kvm_vm *vm, GError **error);
bool kvm_vm_pause_reading(struct kvm_vm *vm, uint32_t ms, GError **error);
bool kvm_vm_parked(struct kvm_vm *vm);
bool kvm_vm_running(const struct kvm_vm *vm);

/**
 * kvm_vm_expect() - kvm_vm_apply() is due within @ns: vCPUs' threads wait for it awake
 *
 * Otherwise it costs a wake-up.  Context: main thread, VM paused.
 */
void kvm_vm_expect(struct kvm_vm *vm, uint64_t ns);

/** kvm_vm_entered_ns() - When the first vCPU left its parking place after the last kvm_vm_run() that
 * found them parked; 0 if none has yet.  The main thread may be late to ask: the vCPUs want its CPU. */
uint64_t kvm_vm_entered_ns(struct kvm_vm *vm);

/**
 * kvm_vm_stop_clock(), kvm_vm_start_clock() - Freeze kvmclock for a stopped guest (stop and cont)
 *
 * An update does not use them: its pause is part of guest time.  That the clock is frozen is part
 * of the saved state: a guest that is updated while it is stopped finds the clock where it stood
 * when the successor starts it.  Both are no-ops in the state they lead to.
 *
 * Order: kvm_vm_pause(), kvm_vm_stop_clock(); kvm_vm_start_clock(), kvm_vm_run().
 */
void kvm_vm_stop_clock(struct kvm_vm *vm);
void kvm_vm_start_clock(struct kvm_vm *vm);

/**
 * kvm_vm_reset() - Power-on state of vCPUs, irqchip and PIT; parked vCPUs only
 *
 * TSC and kvmclock run on.
 */
bool kvm_vm_reset(struct kvm_vm *vm, GError **error);

/**
 * struct kvm_boot_regs - Where the boot vCPU starts, as a loader wants it (loader_*.c)
 * @rip, @rsp, @rsi, @rbx: general registers
 * @cr3:	page tables; 0: no paging (must be set for @long_mode)
 * @gdt_gpa, @gdt_bytes: a GDT in guest memory, 0: none; segments work without one until reloaded.
 *		Selectors: code 0x10, data 0x18
 * @long_mode:	64-bit flat segments (Linux boot protocol); false: 32-bit flat, no paging (PVH)
 */
struct kvm_boot_regs {
	uint64_t rip, rsp, rsi, rbx;
	uint64_t cr3;
	uint64_t gdt_gpa;
	uint16_t gdt_bytes;
	bool long_mode;
};

/** kvm_vm_set_boot_regs() - Start vCPU 0 there; the others wait for INIT/SIPI.  Parked only. */
bool kvm_vm_set_boot_regs(struct kvm_vm *vm, const struct kvm_boot_regs *regs, GError **error);

/**
 * struct kvm_section - One piece of kernel-held state as described plain data
 * @name:	Section name: "kvm/vcpu", "kvm/irqchip", "kvm/pit", "kvm/clock"
 * @instance:	vCPU index
 */
struct kvm_section {
	const char *name;
	uint32_t instance;
	const struct state_desc *desc;
	void *state;
};

/** kvm_vm_sections() - All of them, in load order; owned by @vm.  Sets *@n. */
const struct kvm_section *kvm_vm_sections(struct kvm_vm *vm, uint32_t *n);

/**
 * kvm_vm_begin_capture() - Give kvm_vm_capture() a start, so that other work can be done meanwhile
 * kvm_vm_capture() - Read the kernel's state into the sections; vCPUs in parallel on their threads
 * kvm_vm_apply() - Write the sections to the kernel, in the order that kvm_state.c gives reasons
 * for
 *
 * Parked vCPUs only.  After kvm_vm_apply() the guest's TSC and kvmclock are as if it had run on.
 */
bool kvm_vm_begin_capture(struct kvm_vm *vm, GError **error);
bool kvm_vm_capture(struct kvm_vm *vm, GError **error);
bool kvm_vm_apply(struct kvm_vm *vm, GError **error);

/**
 * kvm_vm_prove() - Whether KVM takes from the vCPUs what it gave of them
 *
 * After kvm_vm_capture(), before anybody depends on the result: there are registers that KVM shows and
 * does not let in.  Each vCPU is given what it has, as far as that differs from its power-on state,
 * so the guest can go on; times are left out.  Parked vCPUs only.
 */
bool kvm_vm_prove(struct kvm_vm *vm, GError **error);
