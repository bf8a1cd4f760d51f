// The KVM virtual machine: opening KVM, creating the VM, its memslots and its vCPUs.
// SPDX-License-Identifier: Apache-2.0
#include "accel/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "accel/kvm_internal.h"
#include "base/error.h"
#include "base/fd.h"

#define KVM_DEVICE	"/dev/kvm"
#define XSAVE_OLD_BYTES 4096

/* What no VM of ours can do without; all are in every kernel since 4.13 that has an irqchip. */
static const struct {
	int cap;
	const char *name;
} kvm_needed[] = {
	{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
	{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
	{KVM_CAP_PIT2, "KVM_CAP_PIT2"},
	{KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2"},
	{KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
	{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
	{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
	{KVM_CAP_IOEVENTFD_ANY_LENGTH, "KVM_CAP_IOEVENTFD_ANY_LENGTH"},
	{KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
	{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
	{KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
	{KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
	{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
	{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
	{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
	{KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
	{KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
	{KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
	{KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ"},
	{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

bool kvm_ioctl(int fd, unsigned long request, void *arg, const char *name, GError **error)
{
	int ret;

	do
		ret = ioctl(fd, request, arg);
	while (ret < 0 && errno == EINTR);
	return ret >= 0 || error_set_errno(error, errno, "%s", name);
}

static int kvm_cap(const struct kvm_vm *vm, int cap)
{
	int ret = ioctl(vm->vm_fd >= 0 ? vm->vm_fd : vm->kvm_fd, KVM_CHECK_EXTENSION, cap);

	return MAX(ret, 0);
}

static const char *kvm_open_remedy(int errnum)
{
	switch (errnum) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return "load the kernel module kvm_intel or kvm_amd; in a container or VM, pass the "
		       "device in";
	case EACCES:
	case EPERM:
		return "add the user to the group that owns the device (often 'kvm')";
	}
	return "see the kernel log";
}

static bool kvm_open(struct kvm_vm *vm, GError **error)
{
	int version;

	vm->kvm_fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		return error_set_generic(error, KVM_DEVICE ": %s; %s", g_strerror(errno),
					 kvm_open_remedy(errno));
	version = ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION)
		return error_set(error, MOLT_ERROR_KVM_MISSING_CAP,
				 KVM_DEVICE ": API version %d, version %d is needed", version,
				 KVM_API_VERSION);
	for (size_t i = 0; i < G_N_ELEMENTS(kvm_needed); i++) {
		if (kvm_cap(vm, kvm_needed[i].cap) == 0)
			return error_set(error, MOLT_ERROR_KVM_MISSING_CAP,
					 KVM_DEVICE
					 ": this kernel's KVM has no %s; a newer kernel is needed",
					 kvm_needed[i].name);
	}
	return true;
}

/* Off or on, but the same in every release: it shows in the format of saved state. */
static bool kvm_enable(struct kvm_vm *vm, int cap, uint64_t arg)
{
	struct kvm_enable_cap enable = {.cap = (uint32_t)cap, .args = {arg}};

	return kvm_cap(vm, cap) > 0 && ioctl(vm->vm_fd, KVM_ENABLE_CAP, &enable) == 0;
}

static bool kvm_read_caps(struct kvm_vm *vm, GError **error)
{
	struct kvm_caps *caps = &vm->caps;

	caps->xcrs = kvm_cap(vm, KVM_CAP_XCRS) > 0;
	caps->sregs2 = kvm_cap(vm, KVM_CAP_SREGS2) > 0;
	caps->kvmclock_ctrl = kvm_cap(vm, KVM_CAP_KVMCLOCK_CTRL) > 0;
	caps->tsc_deadline = kvm_cap(vm, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	caps->pre_fault = kvm_cap(vm, KVM_CAP_PRE_FAULT_MEMORY) > 0;
	caps->xsave_bytes = (uint32_t)kvm_cap(vm, KVM_CAP_XSAVE2);
	caps->xsave2 = caps->xsave_bytes > 0;
	caps->xsave_bytes = MAX(caps->xsave_bytes, XSAVE_OLD_BYTES);
	caps->nested_bytes = (uint32_t)kvm_cap(vm, KVM_CAP_NESTED_STATE);
	caps->x2apic_format =
		kvm_enable(vm, KVM_CAP_X2APIC_API,
			   KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
	caps->exception_payload = kvm_enable(vm, KVM_CAP_EXCEPTION_PAYLOAD, 1);
	caps->triple_fault = kvm_enable(vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
	if (caps->xsave_bytes > KVM_SAVED_XSAVE_BYTES ||
	    caps->nested_bytes > KVM_SAVED_NESTED_BYTES)
		return error_set_generic(
			error,
			KVM_DEVICE ": a vCPU's state (%u bytes of XSAVE, %u nested) is larger "
				   "than this program can carry (%u)",
			caps->xsave_bytes, caps->nested_bytes, KVM_SAVED_XSAVE_BYTES);
	return true;
}

static bool kvm_create_vm(struct kvm_vm *vm, GError **error)
{
	/* On Intel, KVM keeps a page table and a TSS for real mode in guest-physical space. */
	uint64_t identity_map = KVM_RESERVED_GPA;
	int fd;

	do
		fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	while (fd < 0 && errno == EINTR);
	if (fd < 0)
		return error_set_errno(error, errno, KVM_DEVICE ": KVM_CREATE_VM");
	vm->vm_fd = fd;
	return kvm_read_caps(vm, error) &&
	       KVM_IOCTL(fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, error) &&
	       KVM_IOCTL(fd, KVM_SET_TSS_ADDR, (void *)(KVM_RESERVED_GPA + 0x1000), error);
}

static bool kvm_create_irqchip(struct kvm_vm *vm, GError **error)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

	return KVM_IOCTL(vm->vm_fd, KVM_CREATE_IRQCHIP, NULL, error) &&
	       KVM_IOCTL(vm->vm_fd, KVM_CREATE_PIT2, &pit, error);
}

static bool kvm_add_memslots(struct kvm_vm *vm, GError **error)
{
	const struct guest_memory *memory = vm->params.memory;

	for (uint32_t i = 0; i < memory->n_regions; i++) {
		const struct guest_region *r = &memory->regions[i];
		struct kvm_userspace_memory_region slot = {
			.slot = i,
			.flags = r->read_only ? KVM_MEM_READONLY : 0,
			.guest_phys_addr = r->gpa,
			.memory_size = r->size_bytes,
			.userspace_addr = (uintptr_t)r->host,
		};

		if (!KVM_IOCTL(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot, error)) {
			g_prefix_error(error, "RAM '%s' at 0x%llx: ", r->block->name,
				       slot.guest_phys_addr);
			return false;
		}
	}
	return true;
}

/* ---- vCPUs ---- */

static bool kvm_read_cpuid(struct kvm_vm *vm, struct cpuid_table *table, GError **error)
{
	g_autofree struct kvm_cpuid2 *supported =
		g_malloc0(sizeof(*supported) + sizeof(table->entries));

	supported->nent = CPUID_MAX_ENTRIES;
	if (!KVM_IOCTL(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, supported, error))
		return false;
	table->n = MIN(supported->nent, CPUID_MAX_ENTRIES);
	memcpy(table->entries, supported->entries, table->n * sizeof(table->entries[0]));
	return true;
}

bool kvm_vcpu_set_cpuid(struct vcpu *vcpu, const struct cpuid_table *table, GError **error)
{
	g_autofree struct kvm_cpuid2 *cpuid = g_malloc0(sizeof(*cpuid) + sizeof(table->entries));

	cpuid->nent = table->n;
	memcpy(cpuid->entries, table->entries, table->n * sizeof(table->entries[0]));
	if (!KVM_IOCTL(vcpu->fd, KVM_SET_CPUID2, cpuid, error))
		return false;
	*vcpu->cpuid = *table;
	return true;
}

static bool kvm_create_vcpu(struct kvm_vm *vm, uint32_t index, const struct cpuid_table *supported,
			    GError **error)
{
	struct vcpu *vcpu = &vm->vcpus[index];
	struct cpuid_params params = {
		.apic_id = index,
		.n_cores = vm->params.n_cores,
		.n_threads = vm->params.n_threads,
		.tsc_deadline = vm->caps.tsc_deadline,
		.nested = vm->caps.nested_bytes > 0,
	};
	g_autofree struct cpuid_table *table = g_memdup2(supported, sizeof(*supported));
	struct kvm_run *run;

	vcpu->fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, index);
	if (vcpu->fd < 0)
		return error_set_errno(error, errno, "KVM_CREATE_VCPU");
	run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return error_set_errno(error, errno, "mapping struct kvm_run");
	vcpu->run = run;
	cpuid_finish(table, &params);
	return kvm_vcpu_set_cpuid(vcpu, table, error) && vcpu_start(vcpu, error);
}

static void kvm_alloc_vcpus(struct kvm_vm *vm)
{
	vm->n_vcpus = vm->params.n_cpus;
	vm->vcpus = g_new0(struct vcpu, vm->n_vcpus);
	for (uint32_t i = 0; i < vm->n_vcpus; i++) {
		struct vcpu *vcpu = &vm->vcpus[i];

		vcpu->vm = vm;
		vcpu->index = i;
		vcpu->fd = -1;
		vcpu->parked = true;
		g_cond_init(&vcpu->wake);
		vcpu->cpuid = g_new0(struct cpuid_table, 1);
		vcpu->saved = g_new0(struct kvm_saved_vcpu, 1);
		vcpu->power_on = g_new0(struct kvm_saved_vcpu, 1);
	}
}

static bool kvm_create_vcpus(struct kvm_vm *vm, GError **error)
{
	g_autofree struct cpuid_table *supported = g_new0(struct cpuid_table, 1);
	int max = kvm_cap(vm, KVM_CAP_MAX_VCPUS);
	int run_bytes = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	int khz;

	if (vm->params.n_cpus > (uint32_t)max)
		return error_set_generic(error, KVM_DEVICE ": %u vCPUs are more than its %d",
					 vm->params.n_cpus, max);
	if (run_bytes < (int)sizeof(struct kvm_run))
		return error_set_generic(error, KVM_DEVICE ": KVM_GET_VCPU_MMAP_SIZE: %d",
					 run_bytes);
	vm->run_bytes = (uint32_t)run_bytes;
	if (!kvm_read_cpuid(vm, supported, error))
		return false;
	kvm_alloc_vcpus(vm);
	for (uint32_t i = 0; i < vm->n_vcpus; i++) {
		if (!kvm_create_vcpu(vm, i, supported, error)) {
			g_prefix_error(error, "vCPU %u: ", i);
			return false;
		}
	}
	khz = ioctl(vm->vcpus[0].fd, KVM_GET_TSC_KHZ, 0);
	if (khz <= 0)
		return error_set_generic(error, "KVM_GET_TSC_KHZ: the host's TSC has no frequency");
	vm->caps.host_tsc_khz = (uint32_t)khz;
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		vm->vcpus[i].tsc_khz = vm->caps.host_tsc_khz;
	return true;
}

static void kvm_vcpu_done(struct kvm_vm *vm, struct vcpu *vcpu)
{
	if (vcpu->run)
		munmap(vcpu->run, vm->run_bytes);
	fd_close(&vcpu->fd);
	g_cond_clear(&vcpu->wake);
	g_clear_error(&vcpu->job_error);
	g_free(vcpu->cpuid);
	g_free(vcpu->saved);
	g_free(vcpu->power_on);
}

/* ---- life ---- */

static struct kvm_vm *kvm_vm_alloc(const struct kvm_params *params)
{
	struct kvm_vm *vm = g_new0(struct kvm_vm, 1);

	vm->params = *params;
	vm->kvm_fd = -1;
	vm->vm_fd = -1;
	g_mutex_init(&vm->lock);
	g_cond_init(&vm->parked);
	return vm;
}

struct kvm_vm *kvm_vm_new(const struct kvm_params *params, GError **error)
{
	autoptr(kvm_vm) vm = kvm_vm_alloc(params);

	kvm_irqs_init(vm);
	/*
	 * Memslots come before the interrupt controllers: once something is registered on the kernel's
	 * I/O buses, a memslot waits for a grace period (5 to 8 ms measured, against 0.5 ms).
	 */
	if (!kvm_open(vm, error) || !kvm_create_vm(vm, error) || !kvm_add_memslots(vm, error) ||
	    !kvm_create_irqchip(vm, error) || !kvm_irqs_start(vm, error) ||
	    !kvm_create_vcpus(vm, error) || !kvm_msrs_probe(vm, error) ||
	    !kvm_clock_init(vm, error) || !kvm_state_init(vm, error))
		return NULL;
	return g_steal_pointer(&vm);
}

void kvm_vm_free(struct kvm_vm *vm)
{
	if (!vm)
		return;
	(void)kvm_vm_pause(vm, NULL);
	vcpus_stop(vm);
	for (uint32_t i = 0; i < vm->n_vcpus; i++)
		kvm_vcpu_done(vm, &vm->vcpus[i]);
	kvm_irqs_done(vm);
	fd_close(&vm->vm_fd);
	fd_close(&vm->kvm_fd);
	g_mutex_clear(&vm->lock);
	g_cond_clear(&vm->parked);
	g_free(vm->sections);
	g_free(vm->vcpus);
	g_free(vm);
}

struct accel *kvm_vm_accel(struct kvm_vm *vm)
{
	return &vm->accel;
}

int kvm_vm_vcpu_tid(const struct kvm_vm *vm, uint32_t index)
{
	return vm->vcpus[index].tid;
}
