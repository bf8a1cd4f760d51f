// A tiny guest on real KVM: runs, is parked at any moment, and goes on in a second VM.
// SPDX-License-Identifier: Apache-2.0
#include "accel/kvm.h"

#include <string.h>
#include <unistd.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "tiny_guest.h"

/* Costs, as diagnostics. */
static uint64_t step(const char *what, uint64_t since_ns)
{
	g_test_message("%-28s %8.1f us", what, (double)(clock_now_ns() - since_ns) / 1000);
	return clock_now_ns();
}

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
	ASSERT_OK(kvm_vm_pause(old, &error_));
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
	ASSERT_OK(kvm_vm_pause(next, &error_));
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
	ASSERT_OK(kvm_vm_pause(old, &error_));
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
	for (int i = 0; i < 100; i++) {
		uint64_t counter;

		kvm_vm_run(vm);
		kvm_vm_run(vm);
		host_wait_rounds(h, 1 + (uint64_t)i % 2);
		t = clock_now_ns();
		ASSERT_OK(kvm_vm_pause(vm, &error_));
		longest = MAX(longest, clock_now_ns() - t);
		ASSERT_OK(kvm_vm_pause(vm, &error_));
		g_assert_false(kvm_vm_running(vm));
		counter = h->data->counter;
		ASSERT_OK(kvm_vm_capture(vm, &error_));
		g_assert_cmpuint(h->data->counter, ==, counter);
	}
	/* not even entered yet */
	for (int i = 0; i < 100; i++) {
		kvm_vm_run(vm);
		ASSERT_OK(kvm_vm_pause(vm, &error_));
	}
	g_test_message("longest of 100 pauses %.1f us", (double)longest / 1000);
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
	for (int i = 0; i < 10; i++) {
		g_autoptr(GBytes) bytes = NULL;
		struct kvm_vm *next = vm_new(h);
		uint64_t counter;

		if (i % 2)
			ASSERT_OK(kvm_vm_rehearse_entry(next, &error_));
		kvm_vm_run(vm);
		host_wait_rounds(h, 3);
		if (i % 3)
			ASSERT_OK(kvm_vm_pause_reading(vm, 0, &error_));
		else
			ASSERT_OK(kvm_vm_pause(vm, &error_));
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

static void assert_same_registers(const struct kvm_saved_vcpu *a, const struct kvm_saved_vcpu *b)
{
	g_assert_cmpmem(&a->regs, sizeof(a->regs), &b->regs, sizeof(b->regs));
	g_assert_cmpmem(&a->sregs, sizeof(a->sregs), &b->sregs, sizeof(b->sregs));
	g_assert_cmpmem(&a->events, sizeof(a->events), &b->events, sizeof(b->events));
	g_assert_cmpmem(&a->debugregs, sizeof(a->debugregs), &b->debugregs, sizeof(b->debugregs));
	g_assert_cmpmem(a->xsave, sizeof(a->xsave), b->xsave, sizeof(b->xsave));
	g_assert_cmpmem(a->msr_value, sizeof(a->msr_value), b->msr_value, sizeof(b->msr_value));
	g_assert_cmpuint(a->mp_state, ==, b->mp_state);
}

/* What vCPUs read when they have parked is what is there; what they read before they ran on is not used. */
static void test_early_reading(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	g_autofree struct kvm_saved_vcpu *early = g_new(struct kvm_saved_vcpu, 1);
	const struct kvm_saved_vcpu *now = vm_section(vm, "kvm/vcpu", 0);

	(void)unused;
	vm_boot(vm, CODE);
	for (int i = 0; i < 50; i++) {
		kvm_vm_run(vm);
		host_wait_rounds(h, 1);
		ASSERT_OK(kvm_vm_pause_reading(vm, 0, &error_));
		if (i % 2) {
			kvm_vm_run(vm);
			host_wait_rounds(h, 1);
			ASSERT_OK(kvm_vm_pause(vm, &error_));
		}
		if (i % 3)
			ASSERT_OK(kvm_vm_begin_capture(vm, &error_));
		ASSERT_OK(kvm_vm_capture(vm, &error_));
		*early = *now;
		ASSERT_OK(kvm_vm_capture(vm, &error_));
		assert_same_registers(early, now);
	}
	/* nobody ran, so that nobody parks */
	ASSERT_OK(kvm_vm_pause_reading(vm, 0, &error_));
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	g_assert_cmpuint(h->data->backwards, ==, 0);
}

/* A rehearsed vCPU is as it was, memory too, and its guest boots. */
static void test_rehearsed_entry(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	g_autofree struct kvm_saved_vcpu *before = g_new(struct kvm_saved_vcpu, 2);
	const struct guest_data data = *(const struct guest_data *)h->data;

	(void)unused;
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	for (uint32_t i = 0; i < 2; i++)
		before[i] = *(const struct kvm_saved_vcpu *)vm_section(vm, "kvm/vcpu", i);
	ASSERT_OK(kvm_vm_rehearse_entry(vm, &error_));
	ASSERT_OK(kvm_vm_rehearse_entry(vm, &error_));
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	for (uint32_t i = 0; i < 2; i++)
		assert_same_registers(&before[i], vm_section(vm, "kvm/vcpu", i));
	g_assert_cmpmem((void *)h->data, sizeof(data), &data, sizeof(data));
	g_assert_false(h->have_event);
	vm_boot(vm, CODE);
	/* it has something to lose now, and is left alone */
	ASSERT_OK(kvm_vm_rehearse_entry(vm, &error_));
	kvm_vm_run(vm);
	host_wait_rounds(h, 3);
	ASSERT_OK(kvm_vm_pause(vm, &error_));
	g_assert_cmpuint(h->data->backwards, ==, 0);
}

/* Of another release, say.  A rehearsed vCPU takes no other CPUID, so both sides compare digests before. */
static void test_other_cpuid(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	autoptr(kvm_vm) same = vm_new(h);
	struct kvm_saved_vcpu *s = (void *)vm_section(vm, "kvm/vcpu", 0);
	const uint32_t digest = kvm_vm_cpuid_digest(vm);

	(void)unused;
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	for (uint32_t *word = s->cpuid; word < s->cpuid + s->n_cpuid; word += KVM_SAVED_CPUID_WORDS)
		if (word[0] == 0x80000002) /* the name */
			word[3] ^= 1;
	ASSERT_OK(kvm_vm_apply(vm, &error_));
	g_assert_cmphex(kvm_vm_cpuid_digest(vm), !=, digest);
	g_assert_cmphex(kvm_vm_cpuid_digest(same), ==, digest);
}

/* What a new vCPU holds already is not written; once it was given something else, it is. */
static void test_applied_twice(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	struct kvm_saved_vcpu *s = (void *)vm_section(vm, "kvm/vcpu", 1);

	(void)unused;
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	for (int i = 0; i < 4; i++) {
		const uint64_t address = i % 2 ? 0 : 0x1000;
		const uint32_t mp_state = i % 2 ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_HALTED;

		s->debugregs.db[0] = address;
		s->mp_state = mp_state;
		ASSERT_OK(kvm_vm_apply(vm, &error_));
		memset(s->debugregs.db, 0xff, sizeof(s->debugregs.db));
		s->mp_state = UINT32_MAX;
		ASSERT_OK(kvm_vm_capture(vm, &error_));
		g_assert_cmphex(s->debugregs.db[0], ==, address);
		g_assert_cmpuint(s->mp_state, ==, mp_state);
	}
}

/* Where this kernel can: all of memory that is there, and a guest in it goes on. */
static void test_prefault(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	const bool can = kvm_vm_can_prefault(vm);
	bool stop = true;
	uint64_t bytes;

	(void)unused;
	g_assert_cmpuint(kvm_vm_prefault(vm, &stop), ==, 0);
	stop = false;
	bytes = kvm_vm_prefault(vm, &stop);
	g_test_message("%" G_GUINT64_FORMAT " KiB of page tables' worth; KVM_PRE_FAULT_MEMORY %s",
		       bytes >> 10, can ? "there" : "absent");
	g_assert_true(can == (bytes > 0));
	vm_boot(vm, CODE);
	kvm_vm_run(vm);
	host_wait_rounds(h, 3);
	ASSERT_OK(kvm_vm_pause(vm, &error_));
	g_assert_cmpuint(h->data->backwards, ==, 0);
}

/* Each register that differs is named. */
static void assert_same_lapic(const struct kvm_lapic_state *now, const struct kvm_lapic_state *then)
{
	for (size_t at = 0; at < sizeof(*now); at += 16) {
		uint32_t is, was;

		memcpy(&is, now->regs + at, sizeof(is));
		memcpy(&was, then->regs + at, sizeof(was));
		if (is != was)
			g_test_message("LAPIC 0x%zx: 0x%x, was 0x%x", at, is, was);
	}
	g_assert_cmpmem(now, sizeof(*now), then, sizeof(*then));
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
	ASSERT_OK(kvm_vm_pause(vm, &error_));
	ASSERT_OK(kvm_vm_reset(vm, &error_));
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	g_assert_cmpmem(&now->regs, sizeof(now->regs), &power_on->regs, sizeof(now->regs));
	g_assert_cmpmem(&now->sregs, sizeof(now->sregs), &power_on->sregs, sizeof(now->sregs));
	assert_same_lapic(&now->lapic, &power_on->lapic);
	g_assert_cmpmem(now->msr_value, sizeof(now->msr_value), power_on->msr_value,
			sizeof(now->msr_value));
	g_assert_cmphex(now->tsc_offset, ==, power_on->tsc_offset);
	g_free(power_on);
	vm_boot(vm, CODE);
	/* its string starts anew */
	g_mutex_lock(&h->lock);
	h->n_string = 0;
	h->string_broken = false;
	g_mutex_unlock(&h->lock);
	kvm_vm_run(vm);
	host_wait_rounds(h, 5);
	ASSERT_OK(kvm_vm_pause(vm, &error_));
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
	ASSERT_OK(kvm_vm_pause(vm, &error_));
	kvm_vm_run(vm);
	ASSERT_OK(kvm_vm_pause(vm, &error_));
	g_assert_false(h->have_event);
	ASSERT_OK(kvm_vm_reset(vm, &error_));
	vm_boot(vm, CODE);
	kvm_vm_run(vm);
	host_wait_rounds(h, 2);
	ASSERT_OK(kvm_vm_pause(vm, &error_));
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
	ASSERT_OK(kvm_vm_pause(old, &error_));
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
	ASSERT_OK(kvm_vm_pause(next, &error_));
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
	ASSERT_OK(kvm_vm_pause(vm, &error_));
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
	s = vm_section(vm, "kvm/vcpu", 1);
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

/* The guest is given what it has, many times, and notices nothing; nor of what KVM does not take. */
static void test_prove(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = vm_new(h);
	struct kvm_saved_vcpu *s = vm_section(vm, "kvm/vcpu", 1);
	uint64_t ticks;

	(void)unused;
	vm_boot(vm, CODE);
	g_assert_false(h->string_broken);
	for (int i = 0; i < 20; i++) {
		g_autoptr(GError) error = NULL;

		kvm_vm_run(vm);
		host_wait_rounds(h, 3);
		g_assert_false(kvm_vm_prove(vm, &error));
		g_assert_nonnull(strstr(error->message, "vCPUs are running"));
		g_clear_error(&error);
		ASSERT_OK(kvm_vm_pause(vm, &error_));
		ASSERT_OK(kvm_vm_capture(vm, &error_));
		ASSERT_OK(kvm_vm_prove(vm, &error_));
		if (i % 2 == 0)
			continue;
		s->sregs.cr0 = 1ULL << 31; /* paging without protection */
		g_assert_false(kvm_vm_prove(vm, &error));
		g_assert_nonnull(strstr(error->message, "vCPU 1: KVM_SET_SREGS"));
	}
	ticks = h->data->ticks;
	kvm_vm_run(vm);
	host_wait_rounds(h, 30);
	ASSERT_OK(kvm_vm_pause(vm, &error_));
	g_assert_cmpuint(h->data->ticks, >, ticks);
	g_assert_cmpuint(h->data->backwards, ==, 0);
	g_assert_false(h->string_broken);
}

static void test_new_refuses(struct host *h, gconstpointer unused)
{
	struct guest_memory odd = {.regions[0] = h->memory.regions[0], .n_regions = 1};
	g_autoptr(GError) error = NULL;

	(void)unused;
	h->params.n_cpus = 100000;
	g_assert_null(kvm_vm_new(&h->params, &error));
	g_assert_nonnull(strstr(error->message, "100000 vCPUs"));
	g_clear_error(&error);
	h->params.n_cpus = 1;
	odd.regions[0].size_bytes++;
	h->params.memory = &odd;
	g_assert_null(kvm_vm_new(&h->params, &error));
	g_assert_nonnull(strstr(error->message, "RAM 'pc.ram' at 0x0: KVM_SET_USER_MEMORY_REGION"));
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

/* Until the vCPU is where @gate, which is held, stops it: then a pause names it, and goes on without. */
static void pause_late(struct kvm_vm *vm, const char *says)
{
	g_autoptr(GError) error = NULL;

	while (kvm_vm_pause(vm, &error))
		kvm_vm_run(vm);
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_TIMEOUT);
	if (!strstr(error->message, says))
		g_error("unexpected: %s", error->message);
	g_assert_false(kvm_vm_parked(vm));
}

/* A vCPU that does not park: named with what it is doing; it is told of when it has, or runs on. */
static void test_late(struct host *h, gconstpointer unused)
{
	autoptr(kvm_vm) vm = NULL;
	GMutex gate;

	g_mutex_init(&gate);
	h->port.lock = &gate;
	vm = vm_new(h);
	vm_boot(vm, CODE);
	kvm_vm_run(vm);
	host_wait_rounds(h, 1);
	g_mutex_lock(&gate);
	pause_late(vm, "vCPU 0 does not stop: it accesses port 0x510 and waits for the lock of "
		       "'port'");
	g_mutex_unlock(&gate);
	host_wait_event(h);
	g_assert_cmpint(h->event, ==, VCPU_EVENT_PARKED);
	g_assert_true(kvm_vm_parked(vm));
	ASSERT_OK(kvm_vm_capture(vm, &error_));
	kvm_vm_run(vm);
	host_wait_rounds(h, 3);
	/* The device itself; and the guest goes on as if nothing had been. */
	g_mutex_lock(&h->lock);
	pause_late(vm, "is at work in '");
	kvm_vm_run(vm);
	g_mutex_unlock(&h->lock);
	host_wait_event(h);
	host_wait_rounds(h, 3);
	ASSERT_OK(kvm_vm_pause(vm, &error_));
	g_assert_true(kvm_vm_parked(vm));
	g_mutex_clear(&gate);
}

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
	ADD("late", test_late);
	ADD("early_reading", test_early_reading);
	ADD("rehearsed_entry", test_rehearsed_entry);
	ADD("other_cpuid", test_other_cpuid);
	ADD("applied_twice", test_applied_twice);
	ADD("prefault", test_prefault);
	ADD("reset", test_reset);
	ADD("triple_fault", test_triple_fault);
	ADD("stopped_clock", test_stopped_clock);
	ADD("doorbell_and_routes", test_doorbell_and_routes);
	ADD("routes_run_out", test_routes_run_out);
	ADD("apply_refuses", test_apply_refuses);
	ADD("prove", test_prove);
	ADD("new_refuses", test_new_refuses);
	ADD("no_leaks", test_no_leaks);
	return g_test_run();
}
