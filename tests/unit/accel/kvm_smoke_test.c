// A tiny guest on real KVM: runs, is parked at any moment, and goes on in a second VM.
// SPDX-License-Identifier: Apache-2.0
#include "accel/kvm.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/eventfd.h>

#include "accel/kvm_state.h"
#include "base/clock.h"
#include "base/fd.h"
#include "state/section.h"
#include "state/txn.h"

/*
 * The guest: 64-bit code in 1 MiB of RAM, with a 2 MiB identity map, so that ROM at 1 MiB and a
 * device at 1.5 MiB are in reach.  Each round it counts, looks at the TSC, and now and then touches
 * every kind of exit.  Its LAPIC timer, in TSC-deadline mode, interrupts it every 100 000 ticks.
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
/* clang-format off */
__asm__(
	".pushsection .rodata\n"
	".balign 16\n"
	"guest_code:\n"
	"	lidt 0x9030\n"
	"	mov $0xff, %al\n"		/* PICs masked */
	"	out %al, $0x21\n"
	"	out %al, $0xa1\n"
	"	mov $0x1b, %ecx\n"		/* x2APIC on */
	"	rdmsr\n"
	"	or $0xc00, %eax\n"
	"	wrmsr\n"
	"	xor %edx, %edx\n"
	"	mov $0x80f, %ecx\n"		/* software enable */
	"	mov $0x1ff, %eax\n"
	"	wrmsr\n"
	"	mov $0x832, %ecx\n"		/* LVT timer: TSC deadline, vector 0x40 */
	"	mov $0x40040, %eax\n"
	"	wrmsr\n"
	"	call arm\n"
	"	sti\n"
	"round:\n"
	"	incq 0x9000\n"
	"	cli\n"				/* the handler reads the TSC too */
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	cmp 0x9008, %rax\n"
	"	jae forwards\n"
	"	incq 0x9010\n"
	"forwards:\n"
	"	mov %rax, 0x9008\n"
	"	sti\n"
	"	testb $15, 0x9000\n"
	"	jnz round\n"
	"	mov 0x9000, %eax\n"
	"	mov $0x510, %edx\n"
	"	out %eax, %dx\n"
	"	mov %eax, 0x180000\n"
	"	mov 0x180004, %ebx\n"
	"	mov %rbx, 0x9018\n"
	"	mov %eax, 0x100000\n"		/* ROM: no effect */
	"	mov 0x100000, %ebx\n"
	"	mov %rbx, 0x9028\n"
	"	mov $0xa000, %esi\n"
	"	mov $16, %ecx\n"
	"	mov $0x514, %edx\n"
	"	cld\n"
	"	rep outsb\n"
	"	mov $0x518, %edx\n"		/* doorbell */
	"	out %ax, %dx\n"
	"	jmp round\n"
	"arm:\n"
	"	rdtsc\n"
	"	add $100000, %eax\n"
	"	adc $0, %edx\n"
	"	mov $0x6e0, %ecx\n"
	"	wrmsr\n"
	"	ret\n"
	"guest_isr:\n"
	"	push %rax\n"
	"	push %rcx\n"
	"	push %rdx\n"
	"	incq 0x9020\n"
	"	xor %eax, %eax\n"
	"	xor %edx, %edx\n"
	"	mov $0x80b, %ecx\n"		/* EOI */
	"	wrmsr\n"
	"	call arm\n"
	"	pop %rdx\n"
	"	pop %rcx\n"
	"	pop %rax\n"
	"	iretq\n"
	"guest_fault:\n"
	"	ud2\n"				/* no IDT: triple fault */
	"guest_end:\n"
	".popsection\n");
/* clang-format on */

/* ---- the host's side of the guest ---- */

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

static uint64_t host_read(void *opaque, uint64_t offset, uint32_t size)
{
	(void)opaque;
	(void)size;
	return offset == 4 ? 0xcafe0004 : 0;
}

static void host_write_port(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
	struct host *h = opaque;

	g_assert_cmpuint(size, ==, 4);
	g_assert_cmpuint(offset, ==, 0);
	g_mutex_lock(&h->lock);
	h->n_out++;
	h->last_out = value;
	g_cond_broadcast(&h->cond);
	g_mutex_unlock(&h->lock);
}

/* One byte at a time, in order, none lost or repeated, whenever the vCPU was parked. */
static void host_write_string(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
	struct host *h = opaque;

	g_assert_cmpuint(size, ==, 1);
	g_mutex_lock(&h->lock);
	if ((uint8_t)value != (uint8_t)h->string_buf[h->n_string % 16])
		h->string_broken = true;
	h->n_string++;
	g_mutex_unlock(&h->lock);
}

static void host_write_mmio(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
	struct host *h = opaque;

	g_assert_cmpuint(size, ==, 4);
	g_mutex_lock(&h->lock);
	h->n_mmio_writes++;
	g_mutex_unlock(&h->lock);
}

static const struct io_ops port_ops = {host_read, host_write_port, .min_size = 1, .max_size = 4};
static const struct io_ops string_ops = {host_read, host_write_string, .min_size = 1,
					 .max_size = 1};
static const struct io_ops mmio_ops = {host_read, host_write_mmio, .min_size = 4, .max_size = 4};

static void host_event(void *opaque, uint32_t cpu_index, enum vcpu_event event)
{
	struct host *h = opaque;

	g_assert_cmpuint(cpu_index, ==, 0);
	g_mutex_lock(&h->lock);
	h->have_event = true;
	h->event = event;
	g_cond_broadcast(&h->cond);
	g_mutex_unlock(&h->lock);
}

static void put_u64(struct host *h, uint64_t gpa, uint64_t value)
{
	g_assert_true(guest_memory_write(&h->memory, gpa, &value, sizeof(value)));
}

static void host_load_guest(struct host *h)
{
	uint64_t isr = CODE + (uint64_t)(guest_isr - guest_code);
	struct guest_data data = {.idt_limit = 0xfff, .idt_base = IDT};

	put_u64(h, PML4, PDPT | 3);
	put_u64(h, PDPT, PD | 3);
	put_u64(h, PD, 0x83);
	put_u64(h, GDT + 0x10, 0x00af9b000000ffff);
	put_u64(h, GDT + 0x18, 0x00cf93000000ffff);
	put_u64(h, IDT + VECTOR * 16,
		(isr & 0xffff) | 0x10 << 16 | 0x8e00ULL << 32 | (isr >> 16 & 0xffff) << 48);
	put_u64(h, IDT + VECTOR * 16 + 8, isr >> 32);
	g_assert_true(
		guest_memory_write(&h->memory, CODE, guest_code, (size_t)(guest_end - guest_code)));
	g_assert_true(guest_memory_write(&h->memory, DATA, &data, sizeof(data)));
	memcpy(h->string_buf, "0123456789abcdef", 16);
	g_assert_true(guest_memory_write(&h->memory, STRING, h->string_buf, 16));
	memset(h->rom->host, 0x77, ROM_BYTES);
}

static void host_add_ram(struct host *h)
{
	struct memory_backend_config ram = {.kind = MEMORY_BACKEND_MEMFD,
					    .id = (char *)"pc.ram",
					    .size_bytes = RAM_BYTES,
					    .share = true,
					    .seal = true,
					    .dump = true};
	struct memory_backend_config rom = ram;

	rom.id = (char *)"pc.rom";
	rom.size_bytes = ROM_BYTES;
	h->ram = ram_block_new(&ram, &h->fds, NULL);
	h->rom = ram_block_new(&rom, &h->fds, NULL);
	g_assert_nonnull(h->ram);
	g_assert_nonnull(h->rom);
	g_assert_true(guest_memory_add(&h->memory, 0, h->ram, 0, RAM_BYTES, false, NULL));
	g_assert_true(guest_memory_add(&h->memory, ROM, h->rom, 0, ROM_BYTES, true, NULL));
	h->data = guest_memory_map(&h->memory, DATA, sizeof(*h->data), true);
}

static void host_setup(struct host *h, gconstpointer unused)
{
	(void)unused;
	host_add_ram(h);
	host_load_guest(h);
	h->pio = io_space_new("pio");
	h->mmio = io_space_new("mmio");
	h->port = (struct io_region){"port", 0, 4, &port_ops, h, NULL};
	h->string = (struct io_region){"string", 0, 4, &string_ops, h, NULL};
	h->reg = (struct io_region){"reg", 0, 8, &mmio_ops, h, NULL};
	g_assert_true(io_space_add(h->pio, &h->port, PORT, NULL));
	g_assert_true(io_space_add(h->pio, &h->string, PORT + 4, NULL));
	g_assert_true(io_space_add(h->mmio, &h->reg, MMIO, NULL));
	g_mutex_init(&h->lock);
	g_cond_init(&h->cond);
	h->params = (struct kvm_params){
		.n_cpus = 2,
		.n_cores = 2,
		.n_threads = 1,
		.memory = &h->memory,
		.pio = h->pio,
		.mmio = h->mmio,
		.event = host_event,
		.opaque = h,
	};
}

static void host_teardown(struct host *h, gconstpointer unused)
{
	(void)unused;
	io_space_free(h->pio);
	io_space_free(h->mmio);
	ram_block_free(h->ram);
	ram_block_free(h->rom);
	fd_source_clear(&h->fds);
	g_mutex_clear(&h->lock);
	g_cond_clear(&h->cond);
}

/* Wait until the guest has written to its port @n more times. */
static void host_wait_rounds(struct host *h, uint64_t n)
{
	gint64 deadline = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;
	uint64_t target;

	g_mutex_lock(&h->lock);
	target = h->n_out + n;
	while (h->n_out < target) {
		g_assert_false(h->have_event);
		g_assert_true(g_cond_wait_until(&h->cond, &h->lock, deadline));
	}
	g_mutex_unlock(&h->lock);
}

static void host_wait_event(struct host *h)
{
	gint64 deadline = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;

	g_mutex_lock(&h->lock);
	while (!h->have_event)
		g_assert_true(g_cond_wait_until(&h->cond, &h->lock, deadline));
	h->have_event = false;
	g_mutex_unlock(&h->lock);
}

#define ASSERT_OK(call)                          \
	do {                                     \
		g_autoptr(GError) error_ = NULL; \
		bool ok_ = call;                 \
		g_assert_no_error(error_);       \
		g_assert_true(ok_);              \
	} while (0)

static struct kvm_vm *vm_new(struct host *h)
{
	g_autoptr(GError) error = NULL;
	struct kvm_vm *vm = kvm_vm_new(&h->params, &error);

	g_assert_no_error(error);
	return vm;
}

static void vm_boot(struct kvm_vm *vm, uint64_t rip)
{
	struct kvm_boot_regs regs = {
		.rip = rip,
		.rsp = STACK,
		.cr3 = PML4,
		.gdt_gpa = GDT,
		.gdt_bytes = 0x20,
		.long_mode = true,
	};

	ASSERT_OK(kvm_vm_set_boot_regs(vm, &regs, &error_));
}

static GBytes *vm_save(struct kvm_vm *vm)
{
	autoptr(state_writer) writer = state_writer_begin("test");
	const struct kvm_section *sections;
	uint32_t n;
	GBytes *bytes;

	sections = kvm_vm_sections(vm, &n);
	for (uint32_t i = 0; i < n; i++)
		ASSERT_OK(state_writer_add(writer, sections[i].name, sections[i].instance,
					   sections[i].desc, sections[i].state, &error_));
	bytes = state_writer_finish(writer, NULL);
	g_assert_nonnull(bytes);
	return bytes;
}

static void vm_load(struct kvm_vm *vm, GBytes *bytes)
{
	autoptr(state_reader) reader = state_reader_open(bytes, NULL);
	autoptr(state_txn) txn = state_txn_new(reader);
	const struct kvm_section *sections;
	uint32_t n;

	sections = kvm_vm_sections(vm, &n);
	for (uint32_t i = 0; i < n; i++)
		ASSERT_OK(state_txn_add(txn, sections[i].name, sections[i].instance,
					sections[i].desc, NULL, sections[i].state, &error_));
	ASSERT_OK(state_txn_commit(txn, NULL, NULL, &error_));
}

static const void *vm_section(struct kvm_vm *vm, const char *name, uint32_t instance)
{
	const struct kvm_section *sections;
	uint32_t n;

	sections = kvm_vm_sections(vm, &n);
	for (uint32_t i = 0; i < n; i++) {
		if (!strcmp(sections[i].name, name) && sections[i].instance == instance)
			return sections[i].state;
	}
	g_assert_not_reached();
}

/* Costs, as diagnostics. */
static uint64_t step(const char *what, uint64_t since_ns)
{
	g_test_message("%-28s %8.1f us", what, (double)(clock_now_ns() - since_ns) / 1000);
	return clock_now_ns();
}

/* ---- tests ---- */

static void test_update(struct host *h, gconstpointer unused)
{
	uint64_t t = clock_now_ns();
	autoptr(kvm_vm) old = vm_new(h);
	const struct kvm_saved_vcpu *before, *after;
	const struct kvm_saved_clock *clock_before, *clock_after;
	autoptr(kvm_vm) next = NULL;
	g_autoptr(GBytes) bytes = NULL;
	uint64_t counter, ticks, n_string;
	int64_t clock_error;

	(void)unused;
	t = step("create a VM, 2 vCPUs", t);
	vm_boot(old, CODE);
	t = step("set boot registers", t);
	kvm_vm_run(old);
	host_wait_rounds(h, 1);
	t = step("run, first round", t);
	host_wait_rounds(h, 30);
	next = vm_new(h);
	host_wait_rounds(h, 30);
	t = clock_now_ns();
	kvm_vm_pause(old);
	t = step("pause", t);
	counter = h->data->counter;
	ASSERT_OK(kvm_vm_capture(old, &error_));
	t = step("capture", t);
	bytes = vm_save(old);
	t = step("save", t);
	vm_load(next, bytes);
	t = step("load", t);
	ASSERT_OK(kvm_vm_apply(next, &error_));
	t = step("apply", t);
	g_test_message("%zu bytes of state", g_bytes_get_size(bytes));
	g_assert_cmpuint(h->data->counter, ==, counter);
	ticks = h->data->ticks;
	n_string = h->n_string;

	kvm_vm_run(next);
	host_wait_rounds(h, 60);
	kvm_vm_pause(next);
	g_assert_cmpuint(h->data->counter, >, counter);
	g_assert_cmpuint(h->data->backwards, ==, 0);
	g_assert_cmpuint(h->data->ticks, >, ticks);
	g_assert_cmpuint(ticks, >, 0);
	g_assert_cmpuint(h->n_string, >, n_string);
	g_assert_false(h->string_broken);
	g_test_message("%" G_GUINT64_FORMAT " rounds, %" G_GUINT64_FORMAT " timer interrupts",
		       h->data->counter, h->data->ticks);

	/* The TSC is the host's plus the same number; kvmclock is where it would have been. */
	before = vm_section(old, "kvm/vcpu", 0);
	after = vm_section(next, "kvm/vcpu", 0);
	clock_before = vm_section(old, "kvm/clock", 0);
	clock_after = vm_section(next, "kvm/clock", 0);
	ASSERT_OK(kvm_vm_capture(next, &error_));
	g_assert_cmpuint(after->tsc_khz, ==, before->tsc_khz);
	if (before->has_tsc_offset)
		g_assert_cmphex(after->tsc_offset, ==, before->tsc_offset);
	g_assert_true(kvm_vm_running(next) == false);
	g_test_message("TSC offset %s, clock by %s", before->has_tsc_offset ? "exact" : "computed",
		       clock_before->has_host_tsc ? "host TSC" : "CLOCK_REALTIME");
	if (clock_before->has_host_tsc && clock_after->has_host_tsc) {
		__int128 ticks_passed = clock_after->host_tsc - clock_before->host_tsc;

		clock_error = (int64_t)(clock_after->clock_ns - clock_before->clock_ns) -
			      (int64_t)(ticks_passed * 1000000 / clock_before->host_tsc_khz);
		g_test_message("kvmclock is off by %" G_GINT64_FORMAT " ns", clock_error);
		g_assert_cmpint(ABS(clock_error), <, 100000);
	} else {
		g_assert_cmpuint(clock_after->clock_ns, >, clock_before->clock_ns);
	}
}

/* What was captured and applied is what is captured again, but for time. */
static void test_same_state(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) old = vm_new(h);
	autoptr(kvm_vm) next = vm_new(h);
	g_autoptr(GBytes) bytes = NULL;

	(void)unused;
	vm_boot(old, CODE);
	kvm_vm_run(old);
	host_wait_rounds(h, 10);
	kvm_vm_pause(old);
	ASSERT_OK(kvm_vm_capture(old, &error_));
	bytes = vm_save(old);
	vm_load(next, bytes);
	ASSERT_OK(kvm_vm_apply(next, &error_));
	ASSERT_OK(kvm_vm_capture(next, &error_));
	for (uint32_t i = 0; i < 2; i++) {
		const struct kvm_saved_vcpu *a = vm_section(old, "kvm/vcpu", i);
		const struct kvm_saved_vcpu *b = vm_section(next, "kvm/vcpu", i);

		g_assert_cmpmem(&b->regs, sizeof(b->regs), &a->regs, sizeof(a->regs));
		g_assert_cmpmem(&b->sregs, sizeof(b->sregs), &a->sregs, sizeof(a->sregs));
		g_assert_cmpmem(&b->xcrs, sizeof(b->xcrs), &a->xcrs, sizeof(a->xcrs));
		g_assert_cmpmem(&b->lapic, 0x380, &a->lapic, 0x380); /* up to the timer's */
		g_assert_cmpmem(b->cpuid, sizeof(b->cpuid), a->cpuid, sizeof(a->cpuid));
		g_assert_cmpmem(b->xsave, sizeof(b->xsave), a->xsave, sizeof(a->xsave));
		g_assert_cmpmem(b->msr_index, sizeof(b->msr_index), a->msr_index,
				sizeof(a->msr_index));
		for (uint32_t k = 0; k < a->n_msr_index; k++) {
			/* the deadline may have passed */
			if (a->msr_value[k] != b->msr_value[k] && a->msr_index[k] != 0x6e0)
				g_error("vCPU %u: MSR 0x%x was 0x%" G_GINT64_MODIFIER
					"x, is 0x%" G_GINT64_MODIFIER "x",
					i, a->msr_index[k], a->msr_value[k], b->msr_value[k]);
		}
		g_assert_cmpuint(b->mp_state, ==, a->mp_state);
		g_assert_cmpuint(b->mp_state, ==,
				 i == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED);
	}
	g_assert_cmpmem(vm_section(next, "kvm/irqchip", 0), sizeof(struct kvm_saved_irqchip),
			vm_section(old, "kvm/irqchip", 0), sizeof(struct kvm_saved_irqchip));
}

/* Parked again and again, at whatever it is doing: no byte of a string is lost or repeated. */
static void test_pause_storm(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	uint64_t longest = 0, t;

	(void)unused;
	vm_boot(vm, CODE);
	for (int i = 0; i < 300; i++) {
		uint64_t counter;

		kvm_vm_run(vm);
		kvm_vm_run(vm);
		host_wait_rounds(h, 1 + (uint64_t)i % 2);
		t = clock_now_ns();
		kvm_vm_pause(vm);
		longest = MAX(longest, clock_now_ns() - t);
		kvm_vm_pause(vm);
		g_assert_false(kvm_vm_running(vm));
		counter = h->data->counter;
		ASSERT_OK(kvm_vm_capture(vm, &error_));
		g_assert_cmpuint(h->data->counter, ==, counter);
	}
	/* not even entered yet */
	for (int i = 0; i < 300; i++) {
		kvm_vm_run(vm);
		kvm_vm_pause(vm);
	}
	g_test_message("longest of 300 pauses %.1f us", (double)longest / 1000);
	g_assert_false(h->string_broken);
	g_assert_cmpuint(h->n_string, >, 16);
	g_assert_cmpuint(h->n_mmio_writes, >, 0);
	g_assert_cmphex(h->data->mmio_read, ==, 0xcafe0004);
	g_assert_cmphex(h->data->rom, ==, 0x77777777);
	g_assert_cmpuint(h->data->backwards, ==, 0);
}

/* Two VMs over the same memory, the guest in one of them at a time. */
static void test_back_and_forth(struct host *h, gconstpointer unused)
{
	struct kvm_vm *vm = vm_new(h);

	(void)unused;
	vm_boot(vm, CODE);
	for (int i = 0; i < 20; i++) {
		g_autoptr(GBytes) bytes = NULL;
		struct kvm_vm *next = vm_new(h);
		uint64_t counter;

		kvm_vm_run(vm);
		host_wait_rounds(h, 3);
		kvm_vm_pause(vm);
		counter = h->data->counter;
		ASSERT_OK(kvm_vm_capture(vm, &error_));
		bytes = vm_save(vm);
		vm_load(next, bytes);
		ASSERT_OK(kvm_vm_apply(next, &error_));
		kvm_vm_free(vm);
		vm = next;
		g_assert_cmpuint(h->data->counter, ==, counter);
	}
	kvm_vm_run(vm);
	host_wait_rounds(h, 3);
	kvm_vm_free(vm);
	g_assert_cmpuint(h->data->backwards, ==, 0);
	g_assert_false(h->string_broken);
}

static void test_reset(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	struct kvm_saved_vcpu *power_on;
	const struct kvm_saved_vcpu *now;
	g_autoptr(GError) error = NULL;

	(void)unused;
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	now = vm_section(vm, "kvm/vcpu", 0);
	power_on = g_memdup2(now, sizeof(*now));
	vm_boot(vm, CODE);
	kvm_vm_run(vm);
	host_wait_rounds(h, 5);
	g_assert_false(kvm_vm_reset(vm, &error));
	g_assert_nonnull(strstr(error->message, "running"));
	kvm_vm_pause(vm);
	ASSERT_OK(kvm_vm_reset(vm, &error_));
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	g_assert_cmpmem(&now->regs, sizeof(now->regs), &power_on->regs, sizeof(now->regs));
	g_assert_cmpmem(&now->sregs, sizeof(now->sregs), &power_on->sregs, sizeof(now->sregs));
	g_assert_cmpmem(&now->lapic, sizeof(now->lapic), &power_on->lapic, sizeof(now->lapic));
	g_assert_cmpmem(now->msr_value, sizeof(now->msr_value), power_on->msr_value,
			sizeof(now->msr_value));
	g_assert_cmphex(now->tsc_offset, ==, power_on->tsc_offset);
	g_free(power_on);
	vm_boot(vm, CODE);
	kvm_vm_run(vm);
	/* its string starts anew */
	g_mutex_lock(&h->lock);
	h->n_string = 0;
	h->string_broken = false;
	g_mutex_unlock(&h->lock);
	host_wait_rounds(h, 5);
	kvm_vm_pause(vm);
	g_assert_false(h->string_broken);
	g_assert_cmpuint(h->data->backwards, ==, 0);
}

static void test_triple_fault(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);

	(void)unused;
	vm_boot(vm, CODE + (uint64_t)(guest_fault - guest_code));
	kvm_vm_run(vm);
	host_wait_event(h);
	g_assert_cmpint(h->event, ==, VCPU_EVENT_SHUTDOWN);
	/* it stays where it is until a reset */
	kvm_vm_pause(vm);
	kvm_vm_run(vm);
	kvm_vm_pause(vm);
	g_assert_false(h->have_event);
	ASSERT_OK(kvm_vm_reset(vm, &error_));
	vm_boot(vm, CODE);
	kvm_vm_run(vm);
	host_wait_rounds(h, 2);
	kvm_vm_pause(vm);
}

static void test_stopped_clock(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) old = vm_new(h);
	autoptr(kvm_vm) next = vm_new(h);
	const struct kvm_saved_clock *a = vm_section(old, "kvm/clock", 0);
	const struct kvm_saved_clock *b = vm_section(next, "kvm/clock", 0);
	g_autoptr(GBytes) bytes = NULL;
	uint64_t frozen, t;

	(void)unused;
	vm_boot(old, CODE);
	kvm_vm_run(old);
	host_wait_rounds(h, 5);
	kvm_vm_pause(old);
	kvm_vm_stop_clock(old);
	ASSERT_OK(kvm_vm_capture(old, &error_));
	g_assert_true(a->frozen);
	frozen = a->clock_ns;
	kvm_vm_stop_clock(old);
	ASSERT_OK(kvm_vm_capture(old, &error_));
	g_assert_cmpuint(a->clock_ns, ==, frozen);
	bytes = vm_save(old);
	vm_load(next, bytes);
	ASSERT_OK(kvm_vm_apply(next, &error_));
	ASSERT_OK(kvm_vm_capture(next, &error_));
	g_assert_true(b->frozen);
	g_assert_cmpuint(b->clock_ns, ==, frozen);
	t = clock_now_ns();
	kvm_vm_start_clock(next);
	kvm_vm_start_clock(next);
	ASSERT_OK(kvm_vm_capture(next, &error_));
	g_assert_false(b->frozen);
	g_assert_cmpuint(b->clock_ns, >=, frozen);
	g_assert_cmpuint(b->clock_ns - frozen, <, clock_now_ns() - t + 1000000);
	kvm_vm_run(next);
	host_wait_rounds(h, 2);
	kvm_vm_pause(next);
}

static void test_doorbell_and_routes(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	struct accel *accel = kvm_vm_accel(vm);
	autofd int doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	autofd int irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g_autoptr(GError) error = NULL;
	int gsi[64];
	uint64_t t;

	(void)unused;
	ASSERT_OK(
		accel->ops->ioeventfd_set(accel, PORT + 8, 0, true, NULL, doorbell, true, &error_));
	g_assert_false(
		accel->ops->ioeventfd_set(accel, PORT + 8, 0, true, NULL, doorbell, true, &error));
	g_assert_nonnull(strstr(error->message, "0x518"));
	vm_boot(vm, CODE);
	kvm_vm_run(vm);
	host_wait_rounds(h, 3);
	g_assert_cmpuint(eventfd_drain(doorbell), >=, 2);
	t = clock_now_ns();
	for (size_t i = 0; i < G_N_ELEMENTS(gsi); i++) {
		gsi[i] = accel->ops->msi_route_add(accel, 0xfee00000, 0x4000 | VECTOR, NULL);
		g_assert_cmpint(gsi[i], ==, 24 + (int)i);
	}
	t = step("64 routes, one by one", t);
	kvm_vm_hold_routes(vm);
	for (size_t i = 0; i < G_N_ELEMENTS(gsi); i++)
		ASSERT_OK(accel->ops->msi_route_set(accel, gsi[i], 0xfee00000, VECTOR, &error_));
	ASSERT_OK(kvm_vm_release_routes(vm, &error_));
	t = step("64 routes, at once", t);
	for (uint32_t i = 0; i < 16; i++)
		ASSERT_OK(accel->ops->ioeventfd_set(accel, MMIO + 0x1000 + i * 4, 0, false, NULL,
						    doorbell, true, &error_));
	t = step("16 doorbells", t);
	for (uint32_t i = 0; i < 16; i++)
		ASSERT_OK(accel->ops->ioeventfd_set(accel, MMIO + 0x1000 + i * 4, 0, false, NULL,
						    doorbell, false, &error_));
	step("16 doorbells, off", t);
	t = clock_now_ns();
	ASSERT_OK(accel->ops->irqfd_set(accel, gsi[5], irq, true, &error_));
	step("an irqfd", t);
	eventfd_signal(irq);
	g_assert_true(accel->ops->send_msi(accel, 0xfee00000, VECTOR));
	g_assert_false(accel->ops->send_msi(accel, 0x1000, VECTOR));
	accel->ops->set_irq(accel, 4, true);
	accel->ops->set_irq(accel, 4, false);
	accel->ops->set_irq(accel, 2, true);
	ASSERT_OK(accel->ops->irqfd_set(accel, gsi[5], irq, false, &error_));
	/* the guest takes these interrupts for its timer's */
	host_wait_rounds(h, 3);
	kvm_vm_pause(vm);
	accel->ops->msi_route_remove(accel, gsi[7]);
	g_assert_cmpint(accel->ops->msi_route_add(accel, 0xfee00000, VECTOR, NULL), ==, gsi[7]);
	ASSERT_OK(accel->ops->ioeventfd_set(accel, PORT + 8, 0, true, NULL, doorbell, false,
					    &error_));
}

static void test_routes_run_out(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	struct accel *accel = kvm_vm_accel(vm);
	g_autoptr(GError) error = NULL;
	int gsi;

	(void)unused;
	kvm_vm_hold_routes(vm);
	do
		gsi = accel->ops->msi_route_add(accel, 0, 0, &error);
	while (gsi >= 0);
	g_assert_nonnull(strstr(error->message, "1000 interrupt routes"));
	ASSERT_OK(kvm_vm_release_routes(vm, &error_));
}

/* A state that this KVM cannot have is refused with the reason. */
static void test_apply_refuses(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	g_autoptr(GError) error = NULL;
	struct kvm_saved_vcpu *s;

	(void)unused;
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	s = (struct kvm_saved_vcpu *)vm_section(vm, "kvm/vcpu", 1);
	s->sregs.cr0 = 1ULL << 31; /* paging without protection */
	g_assert_false(kvm_vm_apply(vm, &error));
	g_assert_nonnull(strstr(error->message, "vCPU 1: KVM_SET_SREGS"));
	g_clear_error(&error);
	ASSERT_OK(kvm_vm_reset(vm, &error_));
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	s->msr_index[0] = 0x12345;
	s->msr_value[0] = 1;
	g_assert_false(kvm_vm_apply(vm, &error));
	g_assert_nonnull(strstr(error->message, "vCPU 1: MSR 0x12345"));
	s->msr_value[0] = 0;
	ASSERT_OK(kvm_vm_apply(vm, &error_));
}

static uint32_t count_entries(const char *path)
{
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	uint32_t n = 0;

	while (g_dir_read_name(dir))
		n++;
	return n;
}

static void test_no_leaks(struct host *h, gconstpointer unused)
{
	uint32_t fds = count_entries("/proc/self/fd");
	uint32_t threads = count_entries("/proc/self/task");

	(void)unused;
	for (int i = 0; i < 5; i++) {
		struct kvm_vm *vm = vm_new(h);

		g_assert_cmpuint(count_entries("/proc/self/task"), ==, threads + 2);
		g_assert_cmpint(kvm_vm_vcpu_tid(vm, 0), >, 0);
		g_assert_cmpint(kvm_vm_vcpu_tid(vm, 0), !=, kvm_vm_vcpu_tid(vm, 1));
		vm_boot(vm, CODE);
		kvm_vm_run(vm);
		host_wait_rounds(h, 1);
		kvm_vm_free(vm);
	}
	g_assert_cmpuint(count_entries("/proc/self/fd"), ==, fds);
	g_assert_cmpuint(count_entries("/proc/self/task"), ==, threads);
}

static void test_skipped(void)
{
	g_test_skip("no usable /dev/kvm");
}

#define ADD(name, fn) \
	g_test_add("/accel/kvm_smoke/" name, struct host, NULL, host_setup, fn, host_teardown)

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		g_test_add_func("/accel/kvm_smoke", test_skipped);
		return g_test_run();
	}
	ADD("update", test_update);
	ADD("same_state", test_same_state);
	ADD("pause_storm", test_pause_storm);
	ADD("back_and_forth", test_back_and_forth);
	ADD("reset", test_reset);
	ADD("triple_fault", test_triple_fault);
	ADD("stopped_clock", test_stopped_clock);
	ADD("doorbell_and_routes", test_doorbell_and_routes);
	ADD("routes_run_out", test_routes_run_out);
	ADD("apply_refuses", test_apply_refuses);
	ADD("no_leaks", test_no_leaks);
	return g_test_run();
}
