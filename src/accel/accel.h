// What devices need of the hypervisor: interrupts and doorbells.  KVM provides it, tests fake it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

struct accel;

/**
 * struct accel_ops - Interrupts and doorbells
 * @set_irq:	Level of a GSI (0-23: IOAPIC pins, 0-15 also the PICs'; wiring: kvm_vm_accel())
 * @send_msi:	Deliver one MSI message now; false if the guest's address or data are nonsense
 * @msi_route_add: A GSI number (24 and up) that delivers (addr, data); -1 with @error when full
 * @msi_route_set: Change where it delivers
 * @msi_route_remove: Give the number back.  Each of the three costs a grace period of the kernel, a
 *		few ms on a busy host, unless collected: kvm_vm_hold_routes().  An address that is no
 *		interrupt message's is taken and delivers nothing of use
 * @irqfd_set:	Let @eventfd raise @gsi (@on), or stop that
 * @ioeventfd_set: Let a guest write of @len bytes (0: any length) to the address @addr (@pio: port)
 *		signal @eventfd instead of exiting (@on), or stop that.  @match, if not NULL: only
 *		writes of this value
 *
 * Context: any thread.
 */
struct accel_ops {
	void (*set_irq)(struct accel *accel, uint32_t gsi, bool level);
	bool (*send_msi)(struct accel *accel, uint64_t addr, uint32_t data);
	int (*msi_route_add)(struct accel *accel, uint64_t addr, uint32_t data, GError **error);
	bool (*msi_route_set)(struct accel *accel, int gsi, uint64_t addr, uint32_t data,
			      GError **error);
	void (*msi_route_remove)(struct accel *accel, int gsi);
	bool (*irqfd_set)(struct accel *accel, int gsi, int eventfd, bool on, GError **error);
	bool (*ioeventfd_set)(struct accel *accel, uint64_t addr, uint32_t len, bool pio,
			      const uint64_t *match, int eventfd, bool on, GError **error);
};

/** struct accel - Embedded in struct kvm_vm (accel/kvm.h) or in a test's fake */
struct accel {
	const struct accel_ops *ops;
};
