// Interrupts and doorbells: the GSI routing table, MSIs, irqfds and ioeventfds.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <sys/ioctl.h>

#include "accel/kvm_internal.h"
#include "base/error.h"

#define N_IOAPIC_PINS 24
#define N_PIC_PINS    16
/* GSIs 0-23 go to at most two chips each. */
#define MAX_ROUTES (N_IOAPIC_PINS + N_PIC_PINS + KVM_MAX_GSI)

static struct kvm_vm *vm_of(struct accel *accel)
{
	return (struct kvm_vm *)((char *)accel - offsetof(struct kvm_vm, accel));
}

static void route_pin(struct kvm_irq_routing *table, uint32_t gsi, uint32_t chip, uint32_t pin)
{
	table->entries[table->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin},
	};
}

/*
 * As a PC is wired: GSI 0, the PIT, arrives at IOAPIC pin 2 (the MADT must say so) and GSI 2, the
 * PICs' cascade, nowhere.
 */
static void route_pins(struct kvm_irq_routing *table)
{
	for (uint32_t gsi = 0; gsi < N_IOAPIC_PINS; gsi++) {
		if (gsi == 2)
			continue;
		if (gsi < N_PIC_PINS)
			route_pin(table, gsi,
				  gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
				  gsi % 8);
		route_pin(table, gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi);
	}
}

/* Give the kernel the whole table, unless somebody collects changes.  Context: irqs.lock held. */
static bool kvm_irqs_commit(struct kvm_vm *vm, GError **error)
{
	struct kvm_irqs *irqs = &vm->irqs;
	struct kvm_irq_routing *table = irqs->table;

	irqs->dirty = true;
	if (irqs->hold > 0)
		return true;
	table->nr = 0;
	table->flags = 0;
	route_pins(table);
	for (uint32_t gsi = KVM_FIRST_MSI_GSI; gsi < irqs->n_gsis; gsi++) {
		const struct kvm_msi_route *msi = &irqs->msi[gsi];

		if (!msi->used)
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = (uint32_t)msi->addr,
				  .address_hi = (uint32_t)(msi->addr >> 32),
				  .data = msi->data},
		};
	}
	if (!KVM_IOCTL(vm->vm_fd, KVM_SET_GSI_ROUTING, table, error))
		return false;
	irqs->dirty = false;
	return true;
}

void kvm_vm_hold_routes(struct kvm_vm *vm)
{
	g_mutex_lock(&vm->irqs.lock);
	vm->irqs.hold++;
	g_mutex_unlock(&vm->irqs.lock);
}

bool kvm_vm_release_routes(struct kvm_vm *vm, GError **error)
{
	bool ok = true;

	g_mutex_lock(&vm->irqs.lock);
	vm->irqs.hold--;
	if (vm->irqs.hold == 0 && vm->irqs.dirty)
		ok = kvm_irqs_commit(vm, error);
	g_mutex_unlock(&vm->irqs.lock);
	return ok;
}

/* ---- accel_ops ---- */

static void kvm_set_irq(struct accel *accel, uint32_t gsi, bool level)
{
	struct kvm_irq_level irq = {.irq = gsi, .level = level};

	/* Fails for a GSI without a route only (2): there is no such wire. */
	(void)ioctl(vm_of(accel)->vm_fd, KVM_IRQ_LINE, &irq);
}

/*
 * Interrupt messages are writes to 0xfeexxxxx; with 32-bit APIC ids, KVM takes address bits 63:40
 * as part of the id and wants 39:32 to be zero.
 */
static bool msi_is_valid(const struct kvm_vm *vm, uint64_t addr)
{
	return (addr & 0xfff00000) == 0xfee00000 && !(vm->caps.x2apic_format && addr >> 32 & 0xff);
}

static bool kvm_send_msi(struct accel *accel, uint64_t addr, uint32_t data)
{
	struct kvm_vm *vm = vm_of(accel);
	struct kvm_msi msi = {
		.address_lo = (uint32_t)addr,
		.address_hi = (uint32_t)(addr >> 32),
		.data = data,
	};

	return msi_is_valid(vm, addr) && ioctl(vm->vm_fd, KVM_SIGNAL_MSI, &msi) >= 0;
}

/* A vector that the guest has not set up yet may hold anything; it is never raised then. */
static struct kvm_msi_route msi_route(const struct kvm_vm *vm, uint64_t addr, uint32_t data)
{
	if (!msi_is_valid(vm, addr))
		return (struct kvm_msi_route){.used = true, .addr = 0xfee00000};
	return (struct kvm_msi_route){.used = true, .addr = addr, .data = data};
}

static int kvm_msi_route_add(struct accel *accel, uint64_t addr, uint32_t data, GError **error)
{
	struct kvm_vm *vm = vm_of(accel);
	struct kvm_irqs *irqs = &vm->irqs;
	uint32_t gsi = KVM_FIRST_MSI_GSI;
	bool ok;

	g_mutex_lock(&irqs->lock);
	while (gsi < irqs->n_gsis && irqs->msi[gsi].used)
		gsi++;
	if (gsi == irqs->n_gsis) {
		g_mutex_unlock(&irqs->lock);
		error_set_generic(error,
				  "all %u interrupt routes are in use; give devices fewer "
				  "vectors",
				  irqs->n_gsis - KVM_FIRST_MSI_GSI);
		return -1;
	}
	irqs->msi[gsi] = msi_route(vm, addr, data);
	ok = kvm_irqs_commit(vm, error);
	if (!ok)
		irqs->msi[gsi] = (struct kvm_msi_route){0};
	g_mutex_unlock(&irqs->lock);
	return ok ? (int)gsi : -1;
}

static bool kvm_msi_route_set(struct accel *accel, int gsi, uint64_t addr, uint32_t data,
			      GError **error)
{
	struct kvm_vm *vm = vm_of(accel);
	struct kvm_irqs *irqs = &vm->irqs;
	struct kvm_msi_route route, old;
	bool ok = true;

	g_mutex_lock(&irqs->lock);
	route = msi_route(vm, addr, data);
	old = irqs->msi[gsi];
	if (route.addr != old.addr || route.data != old.data) {
		irqs->msi[gsi] = route;
		ok = kvm_irqs_commit(vm, error);
	}
	if (!ok)
		irqs->msi[gsi] = old;
	g_mutex_unlock(&irqs->lock);
	return ok;
}

static void kvm_msi_route_remove(struct accel *accel, int gsi)
{
	struct kvm_vm *vm = vm_of(accel);

	g_mutex_lock(&vm->irqs.lock);
	vm->irqs.msi[gsi] = (struct kvm_msi_route){0};
	/* A shorter table cannot fail for lack of room; if it did, a stale route harms nobody. */
	(void)kvm_irqs_commit(vm, NULL);
	g_mutex_unlock(&vm->irqs.lock);
}

static bool kvm_irqfd_set(struct accel *accel, int gsi, int eventfd, bool on, GError **error)
{
	struct kvm_irqfd irqfd = {
		.fd = (uint32_t)eventfd,
		.gsi = (uint32_t)gsi,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return KVM_IOCTL(vm_of(accel)->vm_fd, KVM_IRQFD, &irqfd, error);
}

static bool kvm_ioeventfd_set(struct accel *accel, uint64_t addr, uint32_t len, bool pio,
			      const uint64_t *match, int eventfd, bool on, GError **error)
{
	struct kvm_ioeventfd io = {
		.datamatch = match ? *match : 0,
		.addr = addr,
		.len = len,
		.fd = eventfd,
		.flags = (pio ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
			 (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	if (KVM_IOCTL(vm_of(accel)->vm_fd, KVM_IOEVENTFD, &io, error))
		return true;
	g_prefix_error(error, "doorbell at 0x%" PRIx64 ": ", addr);
	return false;
}

static const struct accel_ops kvm_accel_ops = {
	.set_irq = kvm_set_irq,
	.send_msi = kvm_send_msi,
	.msi_route_add = kvm_msi_route_add,
	.msi_route_set = kvm_msi_route_set,
	.msi_route_remove = kvm_msi_route_remove,
	.irqfd_set = kvm_irqfd_set,
	.ioeventfd_set = kvm_ioeventfd_set,
};

/* ---- life ---- */

void kvm_irqs_init(struct kvm_vm *vm)
{
	vm->accel.ops = &kvm_accel_ops;
	g_mutex_init(&vm->irqs.lock);
	vm->irqs.table = g_malloc0(sizeof(struct kvm_irq_routing) +
				   MAX_ROUTES * sizeof(struct kvm_irq_routing_entry));
}

bool kvm_irqs_start(struct kvm_vm *vm, GError **error)
{
	int max = ioctl(vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQ_ROUTING);
	bool ok;

	vm->irqs.n_gsis = (uint32_t)CLAMP(max, KVM_FIRST_MSI_GSI, KVM_MAX_GSI);
	g_mutex_lock(&vm->irqs.lock);
	ok = kvm_irqs_commit(vm, error);
	g_mutex_unlock(&vm->irqs.lock);
	return ok;
}

void kvm_irqs_done(struct kvm_vm *vm)
{
	g_free(vm->irqs.table);
	g_mutex_clear(&vm->irqs.lock);
}
