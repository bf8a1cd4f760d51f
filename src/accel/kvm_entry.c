// The first entry into a guest, gone through before there is one.
// SPDX-License-Identifier: Apache-2.0
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "accel/kvm_internal.h"
#include "base/clock.h"
#include "base/crc32c.h"

/**
 * DOC: rehearsing an entry
 *
 * A vCPU's first KVM_RUN finds nothing in place: KVM fills its caches of page-table pages, makes the
 * root, and all of that code and data is cold.  It costs 100 us more than the second one, inside the
 * pause.  So a warm successor's vCPUs are run once where there is nothing to run: at the IOAPIC's
 * page, where no memory can be.  KVM finds that it cannot fetch an instruction and gives up
 * (KVM_EXIT_INTERNAL_ERROR); the guest's memory is not touched.  Then the vCPU is put back to where
 * it was.
 *
 * A vCPU that has run takes no other CPUID any more (Documentation/virt/kvm/x86/errata.rst), so this
 * is only for a successor whose CPUID is the predecessor's: kvm_vm_cpuid_digest().
 */

/* Linux and every PC have the IOAPIC there; KVM's is in the kernel and never memory. */
static const struct kvm_boot_regs nowhere = {.rip = 0xfec00000};

/* If KVM did not give up after all. */
#define ENTRY_MS 20

/* A kick, should KVM_RUN last.  Return: false if there are no timers left (RLIMIT_SIGPENDING). */
static bool arm_kick(timer_t *timer)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = VCPU_KICK_SIGNAL};
	const struct itimerspec when = {.it_value.tv_nsec = ENTRY_MS * NS_PER_MSEC,
					.it_interval.tv_nsec = ENTRY_MS * NS_PER_MSEC};

	event._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &event, timer) < 0)
		return false;
	if (timer_settime(*timer, 0, &when, NULL) == 0)
		return true;
	timer_delete(*timer);
	return false;
}

static bool job_enter(struct vcpu *vcpu, void *arg, GError **error)
{
	timer_t timer;
	bool ok;

	/* Without a kick it is left to the real entry, which takes longer then. */
	if (!vcpu->fresh || !arm_kick(&timer))
		return true;
	ok = kvm_vcpu_set_boot_regs(vcpu, &nowhere, error);
	/* However it ends: it has been tried. */
	if (ok)
		(void)ioctl(vcpu->fd, KVM_RUN, 0);
	timer_delete(timer);
	vcpu->fresh = ok && kvm_vcpu_apply(vcpu, vcpu->power_on, false, error);
	return vcpu->fresh;
}

bool kvm_vm_rehearse_entry(struct kvm_vm *vm, GError **error)
{
	vcpus_begin(vm, job_enter, NULL);
	return vcpus_end(vm, error);
}

uint32_t kvm_vm_cpuid_digest(const struct kvm_vm *vm)
{
	uint32_t crc = 0;

	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		crc = crc32c(crc, vm->vcpus[i].cpuid, sizeof(*vm->vcpus[i].cpuid));
	return crc;
}
