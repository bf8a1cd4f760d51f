// Model-specific registers: which of them are state, and reading and writing them in bulk.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "accel/kvm_internal.h"
#include "base/error.h"

#define MSR_LIST_MAX 2048

#define MSR_KVM_WALL_CLOCK	 0x11
#define MSR_KVM_WALL_CLOCK_NEW	 0x4b564d00
#define MSR_HYPERV_FIRST	 0x40000000
#define MSR_HYPERV_LAST		 0x40000fff
#define MSR_MTRR_PHYS_FIRST	 0x200 /* 8 pairs of base and mask */
#define MSR_MTRR_PHYS_LAST	 0x20f
#define MSR_MCG_CAP		 0x179
#define MSR_MCG_CAP_BANKS_MASK	 0xff
#define MSR_MC0_CTL		 0x400 /* four registers for each bank */
#define MSR_MC_MAX_BANKS	 32
#define MSR_PERF_GLOBAL_CTRL	 0x38f
#define MSR_AMD_PERF_GLOBAL_CTRL 0xc0000301

/* State that KVM keeps but does not name in KVM_GET_MSR_INDEX_LIST (of older kernels). */
static const uint32_t msr_fixed_mtrrs[] = {
	0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x2ff,
};

/* What KVM_GET_MSRS and KVM_SET_MSRS take, with room; the kernel refuses 256 and more. */
#define MSR_BATCH 255U
union msr_batch {
	struct kvm_msrs msrs;
	uint8_t room[sizeof(struct kvm_msrs) + MSR_BATCH * sizeof(struct kvm_msr_entry)];
};

/*
 * IA32_TSC: the TSC crosses as an offset or is computed (kvm_vcpu_state.c).
 * Wall clock: writing it makes KVM write guest memory at once, which is the predecessor's until the
 * commit.  It is a request, not state; what it wrote is in guest memory and stays right.
 * Hyper-V: not offered to guests.
 */
static bool msr_is_state(uint32_t index)
{
	return index != KVM_MSR_TSC && index != MSR_KVM_WALL_CLOCK &&
	       index != MSR_KVM_WALL_CLOCK_NEW &&
	       (index < MSR_HYPERV_FIRST || index > MSR_HYPERV_LAST);
}

/*
 * Enabling counters comes after their values.  The deadline comes last: the kernel ignores it
 * unless the LAPIC's timer is in deadline mode, and it fires at once if the TSC is past it.
 */
static int msr_rank(uint32_t index)
{
	if (index == KVM_MSR_TSC_DEADLINE)
		return 2;
	return index == MSR_PERF_GLOBAL_CTRL || index == MSR_AMD_PERF_GLOBAL_CTRL;
}

/* ---- which ---- */

static bool msr_list_has(const GArray *list, uint32_t index)
{
	for (guint i = 0; i < list->len; i++) {
		if (g_array_index(list, uint32_t, i) == index)
			return true;
	}
	return false;
}

static void msr_list_add(GArray *list, uint32_t index)
{
	if (msr_is_state(index) && !msr_list_has(list, index))
		g_array_append_val(list, index);
}

static bool msr_list_kernel(const struct kvm_vm *vm, GArray *list, GError **error)
{
	g_autofree struct kvm_msr_list *kernel =
		g_malloc0(sizeof(*kernel) + MSR_LIST_MAX * sizeof(kernel->indices[0]));

	kernel->nmsrs = MSR_LIST_MAX;
	if (!KVM_IOCTL(vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, kernel, error))
		return false;
	for (uint32_t i = 0; i < kernel->nmsrs; i++)
		msr_list_add(list, kernel->indices[i]);
	return true;
}

/* Return: false if this vCPU does not have it. */
static bool msr_read(const struct vcpu *vcpu, uint32_t index, uint64_t *value)
{
	union msr_batch one = {.msrs.nmsrs = 1};

	one.msrs.entries[0].index = index;
	if (ioctl(vcpu->fd, KVM_GET_MSRS, &one) != 1)
		return false;
	*value = one.msrs.entries[0].data;
	return true;
}

static bool msr_write(const struct vcpu *vcpu, uint32_t index, uint64_t value)
{
	union msr_batch one = {.msrs.nmsrs = 1};

	one.msrs.entries[0].index = index;
	one.msrs.entries[0].data = value;
	return ioctl(vcpu->fd, KVM_SET_MSRS, &one) == 1;
}

static void msr_list_extra(const struct vcpu *vcpu, GArray *list)
{
	uint64_t mcg_cap = 0;
	uint32_t n_banks;

	for (size_t i = 0; i < G_N_ELEMENTS(msr_fixed_mtrrs); i++)
		msr_list_add(list, msr_fixed_mtrrs[i]);
	for (uint32_t i = MSR_MTRR_PHYS_FIRST; i <= MSR_MTRR_PHYS_LAST; i++)
		msr_list_add(list, i);
	if (!msr_read(vcpu, MSR_MCG_CAP, &mcg_cap))
		return;
	n_banks = MIN(mcg_cap & MSR_MCG_CAP_BANKS_MASK, MSR_MC_MAX_BANKS);
	for (uint32_t i = 0; i < n_banks * 4; i++)
		msr_list_add(list, MSR_MC0_CTL + i);
}

static gint msr_compare(gconstpointer a, gconstpointer b)
{
	return msr_rank(*(const uint32_t *)a) - msr_rank(*(const uint32_t *)b);
}

/*
 * The kernel names what it knows, not what this vCPU has: keep what can be read.  KVM_GET_MSRS stops
 * at the first that cannot, so the list is gone through in as few calls as that allows.
 */
bool kvm_msrs_probe(struct kvm_vm *vm, GError **error)
{
	g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(uint32_t));

	if (!msr_list_kernel(vm, list, error))
		return false;
	msr_list_extra(&vm->vcpus[0], list);
	g_array_sort(list, msr_compare); /* stable: the kernel's order otherwise */
	for (guint i = 0; i < list->len; i++) {
		const uint32_t n = MIN(list->len - i, MSR_BATCH);
		union msr_batch batch = {.msrs.nmsrs = n};
		int n_read;

		for (uint32_t k = 0; k < n; k++)
			batch.msrs.entries[k].index = g_array_index(list, uint32_t, i + k);
		n_read = MAX(ioctl(vm->vcpus[0].fd, KVM_GET_MSRS, &batch), 0);
		if (vm->n_msrs + n_read > KVM_SAVED_MSRS_MAX)
			return error_set_generic(error,
						 "this kernel's KVM has more than %d MSRs to save",
						 KVM_SAVED_MSRS_MAX);
		for (int k = 0; k < n_read; k++)
			vm->msr_index[vm->n_msrs++] = batch.msrs.entries[k].index;
		i += (uint32_t)n_read - ((uint32_t)n_read == n); /* skip the one that stopped it */
	}
	return true;
}

/* ---- reading and writing ---- */

static bool msr_batch_read(const struct vcpu *vcpu, const uint32_t *index, uint64_t *value,
			   uint32_t n, GError **error)
{
	union msr_batch batch = {.msrs.nmsrs = n};
	int ret;

	for (uint32_t i = 0; i < n; i++)
		batch.msrs.entries[i].index = index[i];
	ret = ioctl(vcpu->fd, KVM_GET_MSRS, &batch);
	if (ret < 0)
		return error_set_errno(error, errno, "KVM_GET_MSRS");
	if ((uint32_t)ret != n)
		return error_set_generic(error, "KVM_GET_MSRS: MSR 0x%x cannot be read any more",
					 index[ret]);
	for (uint32_t i = 0; i < n; i++)
		value[i] = batch.msrs.entries[i].data;
	return true;
}

bool kvm_msrs_capture(struct vcpu *vcpu, struct kvm_saved_vcpu *s, GError **error)
{
	const struct kvm_vm *vm = vcpu->vm;

	memcpy(s->msr_index, vm->msr_index, vm->n_msrs * sizeof(s->msr_index[0]));
	s->n_msr_index = vm->n_msrs;
	s->n_msr_value = vm->n_msrs;
	for (uint32_t i = 0; i < vm->n_msrs; i += MSR_BATCH) {
		if (!msr_batch_read(vcpu, s->msr_index + i, s->msr_value + i,
				    MIN(vm->n_msrs - i, MSR_BATCH), error))
			return false;
	}
	return true;
}

/* A register the kernel did not take matters unless it already holds that value, or none. */
static bool msr_settle(const struct vcpu *vcpu, uint32_t index, uint64_t value, GError **error)
{
	uint64_t current = 0;

	if (msr_read(vcpu, index, &current) ? current == value : value == 0)
		return true;
	return error_set_generic(error,
				 "MSR 0x%x of the guest is 0x%" PRIx64
				 ", which this host's KVM does not accept",
				 index, value);
}

/* Write up to a batch of @list; *@n is how many the kernel took before it refused one. */
static bool msr_batch_write(const struct vcpu *vcpu, const struct kvm_msr_entry *list, uint32_t len,
			    uint32_t *n, GError **error)
{
	union msr_batch batch = {.msrs.nmsrs = MIN(len, MSR_BATCH)};
	int ret;

	memcpy(batch.msrs.entries, list, batch.msrs.nmsrs * sizeof(*list));
	ret = ioctl(vcpu->fd, KVM_SET_MSRS, &batch);
	if (ret < 0)
		return error_set_errno(error, errno, "KVM_SET_MSRS");
	*n = (uint32_t)ret;
	return true;
}

/*
 * What has to be written.  A fresh vCPU has its power-on values, and most of the guest's are
 * the same: some 300 writes less in an update's pause.
 */
static uint32_t msrs_to_write(const struct vcpu *vcpu, const struct kvm_saved_vcpu *s,
			      struct kvm_msr_entry *list)
{
	const struct kvm_saved_vcpu *now = vcpu->power_on;
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->n_msr_index; i++) {
		if (vcpu->fresh && i < now->n_msr_index && now->msr_index[i] == s->msr_index[i] &&
		    now->msr_value[i] == s->msr_value[i])
			continue;
		list[n++] =
			(struct kvm_msr_entry){.index = s->msr_index[i], .data = s->msr_value[i]};
	}
	return n;
}

bool kvm_msrs_apply(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, GError **error)
{
	g_autofree struct kvm_msr_entry *list = g_new0(struct kvm_msr_entry, KVM_SAVED_MSRS_MAX);
	const uint32_t len = msrs_to_write(vcpu, s, list);
	uint32_t n;

	for (uint32_t i = 0; i < s->n_msr_index; i++) {
		if (!msr_is_state(s->msr_index[i]))
			return error_set_generic(error, "MSR 0x%x does not belong in saved state",
						 s->msr_index[i]);
	}
	for (uint32_t i = 0; i < len; i += n) {
		if (!msr_batch_write(vcpu, list + i, len - i, &n, error))
			return false;
		if (n == MIN(len - i, MSR_BATCH))
			continue;
		if (!msr_settle(vcpu, list[i + n].index, list[i + n].data, error))
			return false;
		n++;
	}
	return true;
}

bool kvm_msr_apply_one(struct vcpu *vcpu, const struct kvm_saved_vcpu *s, uint32_t index,
		       GError **error)
{
	for (uint32_t i = 0; i < s->n_msr_index; i++) {
		if (s->msr_index[i] == index && !msr_write(vcpu, index, s->msr_value[i]))
			return msr_settle(vcpu, index, s->msr_value[i], error);
	}
	return true;
}

bool kvm_msr_write(struct vcpu *vcpu, uint32_t index, uint64_t value, GError **error)
{
	return msr_write(vcpu, index, value) ||
	       error_set_generic(error, "MSR 0x%x does not take 0x%" PRIx64, index, value);
}

bool kvm_msr_read(struct vcpu *vcpu, uint32_t index, uint64_t *value, GError **error)
{
	return msr_read(vcpu, index, value) ||
	       error_set_generic(error, "MSR 0x%x cannot be read", index);
}
