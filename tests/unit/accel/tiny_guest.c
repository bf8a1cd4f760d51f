// A tiny guest for tests on real KVM, and the host's side of it.
// SPDX-License-Identifier: Apache-2.0
#include "tiny_guest.h"

#include <string.h>

#include "state/txn.h"

/* clang-format off */
__asm__(
	".pushsection .rodata\n"
	".balign 16\n"
	".globl guest_code, guest_isr, guest_fault, guest_end\n"
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
	"	call .Larm\n"
	"	sti\n"
	".Lround:\n"
	"	incq 0x9000\n"
	"	cli\n"				/* the handler reads the TSC too */
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	cmp 0x9008, %rax\n"
	"	jae .Lforwards\n"
	"	incq 0x9010\n"
	".Lforwards:\n"
	"	mov %rax, 0x9008\n"
	"	sti\n"
	"	testb $15, 0x9000\n"
	"	jnz .Lround\n"
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
	"	jmp .Lround\n"
	".Larm:\n"
	"	rdtsc\n"
	"	add $1000000, %eax\n"
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
	"	call .Larm\n"
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

void host_setup(struct host *h, gconstpointer unused)
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

void host_teardown(struct host *h, gconstpointer unused)
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

void host_wait_rounds(struct host *h, uint64_t n)
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

void host_wait_event(struct host *h)
{
	gint64 deadline = g_get_monotonic_time() + 20 * G_TIME_SPAN_SECOND;

	g_mutex_lock(&h->lock);
	while (!h->have_event)
		g_assert_true(g_cond_wait_until(&h->cond, &h->lock, deadline));
	h->have_event = false;
	g_mutex_unlock(&h->lock);
}

struct kvm_vm *vm_new(struct host *h)
{
	g_autoptr(GError) error = NULL;
	struct kvm_vm *vm = kvm_vm_new(&h->params, &error);

	g_assert_no_error(error);
	return vm;
}

void vm_boot(struct kvm_vm *vm, uint64_t rip)
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

GBytes *vm_save(struct kvm_vm *vm)
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

void vm_load(struct kvm_vm *vm, GBytes *bytes)
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

void *vm_section(struct kvm_vm *vm, const char *name, uint32_t instance)
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
