// A tiny guest for tests on real KVM, and the host's side of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "accel/kvm.h"
#include "accel/kvm_state.h"
#include "memory/ram.h"
#include "state/section.h"

/*
 * The guest: 64-bit code in 1 MiB of RAM, with a 2 MiB identity map, so that ROM at 1 MiB and a
 * device at 1.5 MiB are in reach.  Each round it counts, looks at the TSC, and now and then touches
 * every kind of exit.  Its LAPIC timer, in TSC-deadline mode, interrupts it every million ticks:
 * rarely enough that on a slow host it does more than take interrupts.
 */
#define RAM_BYTES 0x100000
#define ROM_BYTES 0x1000
#define PML4	  0x1000
#define PDPT	  0x2000
#define PD	  0x3000
#define GDT	  0x4000
#define STACK	  0x8000
#define CODE	  0x8000
#define DATA	  0x9000
#define STRING	  0xa000
#define IDT	  0xb000
#define ROM	  0x100000
#define MMIO	  0x180000
#define PORT	  0x510
#define VECTOR	  0x40

/* At DATA.  The offsets are used in the assembly below. */
struct guest_data {
	uint64_t counter;   /* 0x9000 */
	uint64_t tsc;	    /* 0x9008 */
	uint64_t backwards; /* 0x9010: times the TSC went back */
	uint64_t mmio_read; /* 0x9018 */
	uint64_t ticks;	    /* 0x9020: timer interrupts */
	uint64_t rom;	    /* 0x9028 */
	uint16_t idt_limit; /* 0x9030 */
	uint64_t idt_base;
} __attribute__((packed));

extern const uint8_t guest_code[], guest_isr[], guest_fault[], guest_end[];

/**
 * struct host - The fixture: RAM with the guest in it, its devices, what they saw
 * @lock:	Guards all members after @cond
 * @string_broken: a byte of the guest's string was lost, repeated or wrong
 */
struct host {
	struct fd_source fds;
	struct ram_block *ram, *rom;
	struct guest_memory memory;
	struct io_space *pio, *mmio;
	struct io_region port, string, reg;
	struct kvm_params params;
	volatile struct guest_data *data;
	char string_buf[17];

	GMutex lock;
	GCond cond;
	uint64_t n_out, last_out; /* guarded by lock, as all below */
	uint64_t n_mmio_writes;
	uint64_t n_string;
	bool string_broken;
	bool have_event;
	enum vcpu_event event;
};

void host_setup(struct host *h, gconstpointer unused);
void host_teardown(struct host *h, gconstpointer unused);

/** host_wait_rounds() - Wait until the guest has written to its port @n more times. */
void host_wait_rounds(struct host *h, uint64_t n);

/** host_wait_event() - Wait for a vCPU's event and take it. */
void host_wait_event(struct host *h);

struct kvm_vm *vm_new(struct host *h);
void vm_boot(struct kvm_vm *vm, uint64_t rip);

/** vm_save(), vm_load() - The sections to a stream and back; vm_section() finds one's struct. */
GBytes *vm_save(struct kvm_vm *vm);
void vm_load(struct kvm_vm *vm, GBytes *bytes);
void *vm_section(struct kvm_vm *vm, const char *name, uint32_t instance);

#define ASSERT_OK(call)                          \
	do {                                     \
		g_autoptr(GError) error_ = NULL; \
		bool ok_ = call;                 \
		g_assert_no_error(error_);       \
		g_assert_true(ok_);              \
	} while (0)
