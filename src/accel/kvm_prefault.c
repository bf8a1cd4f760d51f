// Making the second-level page tables of a VM before its guest runs, where the kernel can.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <sys/ioctl.h>

#include "accel/kvm_internal.h"
#include "base/clock.h"

/* The guest runs in the predecessor meanwhile; what is not done by then faults as it always did. */
#define PREFAULT_MS	    10000
#define PREFAULT_STEP_BYTES (2ULL << 20)

/**
 * struct prefault - One kvm_vm_prefault()
 * @region:	Being gone through
 * @stop:	See there
 * @done_bytes:	So far
 */
struct prefault {
	struct kvm_vm *vm;
	const struct guest_region *region;
	uint64_t deadline_ns;
	const bool *stop;
	uint64_t done_bytes;
};

/* Small steps: a kernel that is not preemptible keeps guest and monitors waiting for each. */
static bool prefault_range(const struct ram_block *block, uint64_t offset, uint64_t len,
			   void *opaque, GError **error)
{
	struct prefault *p = opaque;
	struct kvm_pre_fault_memory range = {
		.gpa = p->region->gpa + (offset - p->region->offset_bytes),
	};
	const uint64_t end = range.gpa + len;

	while (range.gpa < end) {
		const uint64_t from = range.gpa;

		if (__atomic_load_n(p->stop, __ATOMIC_RELAXED) || clock_now_ns() > p->deadline_ns)
			return false;
		range.size = MIN(end - from, PREFAULT_STEP_BYTES);
		/* It says how far it came, also when a signal ended it. */
		if (ioctl(p->vm->vcpus[0].fd, KVM_PRE_FAULT_MEMORY, &range) < 0 && errno != EINTR &&
		    errno != EAGAIN)
			return false;
		p->done_bytes += range.gpa - from;
	}
	return true;
}

bool kvm_vm_can_prefault(const struct kvm_vm *vm)
{
	return vm->caps.pre_fault;
}

uint64_t kvm_vm_prefault(struct kvm_vm *vm, const bool *stop)
{
	const struct guest_memory *memory = vm->params.memory;
	struct prefault p = {.vm = vm, .stop = stop, .deadline_ns = clock_deadline_ms(PREFAULT_MS)};

	if (!vm->caps.pre_fault)
		return 0;
	for (uint32_t i = 0; i < memory->n_regions; i++) {
		p.region = &memory->regions[i];
		if (!ram_block_each_present(p.region->block, p.region->offset_bytes,
					    p.region->size_bytes, prefault_range, &p, NULL))
			break;
	}
	return p.done_bytes;
}
