// MSI-X: table, pending bits, and one eventfd per vector between a device and KVM.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/pci_priv.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "base/error.h"
#include "base/fd.h"

/**
 * DOC: Theory of operation
 *
 * Every vector owns an eventfd.  A device raises the vector by adding to the eventfd's counter,
 * from any thread and without looking at masks (pci_msix_notify()).
 *
 * While the vector may fire (MSI-X enabled, neither function nor vector masked) the eventfd is
 * attached to KVM as an irqfd, on a route that holds the vector's address and data: the kernel
 * takes the counter and delivers.  When it may not, the eventfd is detached, which waits for
 * deliveries under way, and what is raised from then on stays in the counter.  So the counter *is*
 * the pending bit: the PBA is read by polling the eventfds, and unmasking needs no check, because
 * the kernel looks at the counter when an irqfd is attached.  There is no moment at which an
 * interrupt can fall between a mask bit and its pending bit.
 *
 * For an update the counters of detached vectors are captured as @msix_pending without being taken
 * (the update may be undone), and added to the successor's eventfds before those are attached.
 *
 * Unhappy paths: a route that KVM refuses (table full, nonsense address) leaves the vector
 * detached and therefore pending; the next change of its entry tries again.
 */

#define MSIX_CAP_ID	 0x11
#define MSIX_CAP_BYTES	 12
#define MSIX_BAR_BYTES	 4096
#define MSIX_PBA	 0x800
#define MSIX_ENTRY_BYTES 16
#define MSIX_ENTRY_MASK	 0x1

/**
 * struct pci_msix_vector - Run-time part of one vector
 * @eventfd:	Raised by the device
 * @gsi:	Its route, -1 while it has none; kept over masking
 * @addr, @data: what the route delivers
 * @attached:	@eventfd is an irqfd of @gsi
 */
struct pci_msix_vector {
	int eventfd;
	int gsi;
	uint64_t addr;
	uint32_t data;
	bool attached;
};

static uint16_t msix_control(const struct pci_function *fn)
{
	return pci_get16(fn->state->config + fn->msix_cap + PCI_MSIX_CONTROL);
}

static bool vector_route(struct pci_function *fn, struct pci_msix_vector *vector,
			 const struct pci_msix_entry_state *entry, GError **error)
{
	struct accel *accel = fn->dev.env->accel;

	if (vector->gsi < 0)
		vector->gsi = accel->ops->msi_route_add(accel, entry->addr, entry->data, error);
	else if ((vector->addr != entry->addr || vector->data != entry->data) &&
		 !accel->ops->msi_route_set(accel, vector->gsi, entry->addr, entry->data, error))
		return false;
	if (vector->gsi < 0)
		return false;
	vector->addr = entry->addr;
	vector->data = entry->data;
	return true;
}

static void vector_detach(struct pci_function *fn, struct pci_msix_vector *vector)
{
	struct accel *accel = fn->dev.env->accel;

	if (!vector->attached)
		return;
	(void)accel->ops->irqfd_set(accel, vector->gsi, vector->eventfd, false, NULL);
	vector->attached = false;
}

/* Bring vector @index to what enable, masks and its entry say now. */
static void vector_update(struct pci_function *fn, uint32_t index)
{
	const struct pci_msix_entry_state *entry = &fn->state->msix[index];
	struct pci_msix_vector *vector = &fn->vectors[index];
	struct accel *accel = fn->dev.env->accel;
	g_autoptr(GError) error = NULL;

	if (!fn->msix_enabled || (msix_control(fn) & PCI_MSIX_CONTROL_MASK) ||
	    (entry->control & MSIX_ENTRY_MASK)) {
		vector_detach(fn, vector);
		return;
	}
	if (!vector_route(fn, vector, entry, &error)) {
		vector_detach(fn, vector);
	} else if (!vector->attached) {
		vector->attached =
			accel->ops->irqfd_set(accel, vector->gsi, vector->eventfd, true, &error);
	}
	if (error)
		log_guest(&fn->guest_log, "%s: MSI-X vector %u: %s", fn->dev.path, index,
			  error->message);
}

static void vectors_update(struct pci_function *fn)
{
	for (uint32_t i = 0; i < fn->n_vectors; i++)
		vector_update(fn, i);
}

static void vectors_drain(struct pci_function *fn)
{
	for (uint32_t i = 0; i < fn->n_vectors; i++)
		(void)eventfd_drain(fn->vectors[i].eventfd);
}

static void set_enabled(struct pci_function *fn, bool on)
{
	__atomic_store_n(&fn->msix_enabled, on, __ATOMIC_RELEASE);
}

void pci_msix_notify(struct pci_function *fn, uint32_t vector)
{
	if (vector < fn->n_vectors && __atomic_load_n(&fn->msix_enabled, __ATOMIC_ACQUIRE))
		eventfd_signal(fn->vectors[vector].eventfd);
}

void pci_msix_control_written(struct pci_function *fn)
{
	bool on = msix_control(fn) & PCI_MSIX_CONTROL_ON;

	/* What a device raised just before it saw the disable is not for the next user. */
	if (on && !fn->msix_enabled)
		vectors_drain(fn);
	set_enabled(fn, on);
	vectors_update(fn);
}

/* Pending bits are counters that nobody takes: those of detached vectors. */
static uint64_t pending_bits(const struct pci_function *fn)
{
	uint64_t bits = 0;

	for (uint32_t i = 0; i < fn->n_vectors; i++) {
		const struct pci_msix_vector *vector = &fn->vectors[i];
		struct pollfd poll_fd = {.fd = vector->eventfd, .events = POLLIN};

		if (fn->msix_enabled && !vector->attached && poll(&poll_fd, 1, 0) == 1)
			bits |= 1ULL << i;
	}
	return bits;
}

static uint64_t msix_region_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	struct pci_function *fn = opaque;
	const struct pci_msix_entry_state *entry;
	uint32_t index = offset_bytes / MSIX_ENTRY_BYTES;

	if (offset_bytes == MSIX_PBA || offset_bytes == MSIX_PBA + 4)
		return (uint32_t)(pending_bits(fn) >> (offset_bytes == MSIX_PBA ? 0 : 32));
	if (index >= fn->n_vectors)
		return 0;
	entry = &fn->state->msix[index];
	switch (offset_bytes % MSIX_ENTRY_BYTES) {
	case 0:
		return (uint32_t)entry->addr;
	case 4:
		return entry->addr >> 32;
	case 8:
		return entry->data;
	default:
		return entry->control;
	}
}

static void msix_region_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct pci_function *fn = opaque;
	struct pci_msix_entry_state *entry;
	uint32_t index = offset_bytes / MSIX_ENTRY_BYTES;

	if (index >= fn->n_vectors)
		return;
	entry = &fn->state->msix[index];
	switch (offset_bytes % MSIX_ENTRY_BYTES) {
	case 0:
		entry->addr = (entry->addr & ~0xffffffffULL) | (value & ~3ULL);
		break;
	case 4:
		entry->addr = (uint32_t)entry->addr | value << 32;
		break;
	case 8:
		entry->data = value;
		break;
	default:
		entry->control = value & MSIX_ENTRY_MASK;
	}
	vector_update(fn, index);
}

static const struct io_ops msix_region_ops = {
	.read = msix_region_read,
	.write = msix_region_write,
	.min_size = 4,
	.max_size = 4,
	.rmw = true,
};

bool pci_function_add_msix(struct pci_function *fn, uint32_t n_vectors, uint32_t bar,
			   GError **error)
{
	uint8_t cap[MSIX_CAP_BYTES] = {MSIX_CAP_ID};

	if (n_vectors < 1 || n_vectors > PCI_MSIX_MAX)
		return error_set_generic(error, "%u MSI-X vectors: 1 to %d are possible", n_vectors,
					 PCI_MSIX_MAX);
	fn->vectors = g_new0(struct pci_msix_vector, n_vectors);
	for (uint32_t i = 0; i < n_vectors; i++) {
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		if (fd < 0)
			return error_set_errno(error, errno, "eventfd of MSI-X vector %u", i);
		fn->vectors[i] = (struct pci_msix_vector){.eventfd = fd, .gsi = -1};
		fn->n_vectors = i + 1;
	}
	pci_put16(cap + PCI_MSIX_CONTROL, n_vectors - 1);
	pci_put32(cap + 4, bar);
	pci_put32(cap + 8, MSIX_PBA | bar);
	pci_function_add_bar(fn, bar, MSIX_BAR_BYTES, false, false, &msix_region_ops, fn, NULL);
	fn->msix_bar = (int8_t)bar;
	fn->msix_cap = pci_function_add_capability(fn, cap, sizeof(cap));
	pci_put16(fn->wmask + fn->msix_cap + PCI_MSIX_CONTROL,
		  PCI_MSIX_CONTROL_ON | PCI_MSIX_CONTROL_MASK);
	return true;
}

void pci_msix_reset(struct pci_function *fn)
{
	struct pci_function_state *state = fn->state;

	set_enabled(fn, false);
	state->n_msix = fn->n_vectors;
	state->msix_pending = 0;
	for (uint32_t i = 0; i < fn->n_vectors; i++)
		state->msix[i] = (struct pci_msix_entry_state){.control = MSIX_ENTRY_MASK};
	vectors_update(fn);
	vectors_drain(fn);
}

void pci_msix_capture(struct pci_function *fn)
{
	fn->state->msix_pending = pending_bits(fn);
}

bool pci_msix_apply(struct pci_function *fn, GError **error)
{
	struct pci_function_state *state = fn->state;

	if (state->n_msix != fn->n_vectors)
		return error_set_generic(error, "%s: %u MSI-X vectors in the state, %u here",
					 fn->dev.path, state->n_msix, fn->n_vectors);
	if (!fn->vectors)
		return true;
	for (uint32_t i = 0; i < fn->n_vectors; i++)
		if (state->msix_pending >> i & 1)
			eventfd_signal(fn->vectors[i].eventfd);
	set_enabled(fn, msix_control(fn) & PCI_MSIX_CONTROL_ON);
	vectors_update(fn);
	return true;
}

void pci_msix_fini(struct pci_function *fn)
{
	struct accel *accel = fn->dev.env->accel;

	for (uint32_t i = 0; i < fn->n_vectors; i++) {
		struct pci_msix_vector *vector = &fn->vectors[i];

		vector_detach(fn, vector);
		if (vector->gsi >= 0)
			accel->ops->msi_route_remove(accel, vector->gsi);
		fd_close(&vector->eventfd);
	}
	fn->n_vectors = 0;
	g_clear_pointer(&fn->vectors, g_free);
}
