// kvmclock: where it stands, and letting it stand or run on in another VM.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <x86intrin.h>

#include "accel/kvm_internal.h"
#include "base/clock.h"
#include "base/error.h"

/**
 * DOC: clocks
 *
 * The TSC crosses by its offset to the host's TSC (kvm_vcpu_state.c) and is exact.  kvmclock is a
 * number in the kernel that must be set: to what it would show had it run on.  How long it has been
 * is told by the host's TSC, which no NTP step and no time namespace can change; if the host has
 * been rebooted in between, or its TSC is not stable, CLOCK_REALTIME tells.
 *
 * The successor reads the clock back after setting it and corrects what was lost between the two
 * (an interrupt, a preemption), so that the guest's two clocks keep agreeing to below a
 * microsecond.
 */

#define BOOT_ID_FILE	"/proc/sys/kernel/random/boot_id"
#define CLOCK_MAX_TRIES 4
#define CLOCK_GOOD_NS	500

uint64_t kvm_host_tsc(void)
{
	return __rdtsc();
}

uint64_t kvm_ticks_to_ns(uint64_t ticks, uint32_t tsc_khz)
{
	return (uint64_t)((unsigned __int128)ticks * 1000000 / tsc_khz);
}

uint64_t kvm_ns_to_ticks(uint64_t ns, uint32_t tsc_khz)
{
	return (uint64_t)((unsigned __int128)ns * tsc_khz / 1000000);
}

uint64_t kvm_realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static bool boot_id_parse(const char *text, uint8_t *id)
{
	uint32_t n = 0;

	while (n < KVM_SAVED_BOOT_ID_SIZE && text[0] && text[1]) {
		int hi, lo;

		if (*text == '-') {
			text++;
			continue;
		}
		hi = g_ascii_xdigit_value(text[0]);
		lo = g_ascii_xdigit_value(text[1]);
		if (hi < 0 || lo < 0)
			return false;
		id[n++] = (uint8_t)(hi << 4 | lo);
		text += 2;
	}
	return n == KVM_SAVED_BOOT_ID_SIZE;
}

bool kvm_clock_init(struct kvm_vm *vm, GError **error)
{
	g_autofree char *text = NULL;

	/* Without /proc no state goes elsewhere, so that nobody asks in which boot it was saved. */
	if (!g_file_get_contents(BOOT_ID_FILE, &text, NULL, NULL))
		return true;
	return boot_id_parse(text, vm->boot_id) ||
	       error_set_generic(error, BOOT_ID_FILE ": not a UUID");
}

bool kvm_clock_same_boot(const struct kvm_vm *vm)
{
	return memcmp(vm->saved.clock.boot_id, vm->boot_id, sizeof(vm->boot_id)) == 0;
}

static bool kvm_clock_read(struct kvm_vm *vm, struct kvm_clock_data *data, GError **error)
{
	*data = (struct kvm_clock_data){0};
	return KVM_IOCTL(vm->vm_fd, KVM_GET_CLOCK, data, error);
}

static bool kvm_clock_write(struct kvm_vm *vm, uint64_t clock_ns, GError **error)
{
	struct kvm_clock_data data = {.clock = clock_ns};

	return KVM_IOCTL(vm->vm_fd, KVM_SET_CLOCK, &data, error);
}

bool kvm_clock_capture(struct kvm_vm *vm, GError **error)
{
	struct kvm_saved_clock *s = &vm->saved.clock;
	struct kvm_clock_data data;

	if (!kvm_clock_read(vm, &data, error))
		return false;
	*s = (struct kvm_saved_clock){
		.clock_ns = vm->clock_frozen ? vm->frozen_clock_ns : data.clock,
		.has_host_tsc = data.flags & KVM_CLOCK_HOST_TSC,
		.host_tsc = data.flags & KVM_CLOCK_HOST_TSC ? data.host_tsc : 0,
		.host_tsc_khz = vm->caps.host_tsc_khz,
		.realtime_ns = data.flags & KVM_CLOCK_REALTIME ? data.realtime : kvm_realtime_ns(),
		.frozen = vm->clock_frozen,
	};
	memcpy(s->boot_id, vm->boot_id, sizeof(s->boot_id));
	return true;
}

/* Whether the host's TSC can tell how long ago @s was captured. */
static bool clock_has_tsc(const struct kvm_vm *vm, const struct kvm_saved_clock *s)
{
	return s->has_host_tsc && kvm_clock_same_boot(vm) && kvm_host_tsc() >= s->host_tsc;
}

/* By the host's TSC: set, see where the clock really is, correct. */
static bool kvm_clock_continue_tsc(struct kvm_vm *vm, const struct kvm_saved_clock *s,
				   GError **error)
{
	int64_t correction = 0;

	for (int i = 0; i < CLOCK_MAX_TRIES; i++) {
		uint64_t ticks = kvm_host_tsc() - s->host_tsc;
		uint64_t should = s->clock_ns + kvm_ticks_to_ns(ticks, s->host_tsc_khz);
		struct kvm_clock_data is;
		int64_t late;

		if (!kvm_clock_write(vm, should + (uint64_t)correction, error) ||
		    !kvm_clock_read(vm, &is, error))
			return false;
		if (!(is.flags & KVM_CLOCK_HOST_TSC))
			return true; /* nothing to compare with */
		ticks = is.host_tsc - s->host_tsc;
		late = (int64_t)(s->clock_ns + kvm_ticks_to_ns(ticks, s->host_tsc_khz) - is.clock);
		if (late > -CLOCK_GOOD_NS && late < CLOCK_GOOD_NS)
			return true;
		/* One preemption must not become the next try's error. */
		correction = late > 0 && late < 20 * (int64_t)NS_PER_USEC ? correction + late : 0;
	}
	return true;
}

static bool kvm_clock_continue_realtime(struct kvm_vm *vm, const struct kvm_saved_clock *s,
					GError **error)
{
	uint64_t now = kvm_realtime_ns();
	uint64_t elapsed = now > s->realtime_ns ? now - s->realtime_ns : 0;

	return kvm_clock_write(vm, s->clock_ns + elapsed, error);
}

bool kvm_clock_apply(struct kvm_vm *vm, GError **error)
{
	const struct kvm_saved_clock *s = &vm->saved.clock;

	vm->clock_frozen = s->frozen;
	vm->frozen_clock_ns = s->clock_ns;
	if (s->frozen)
		return true; /* kvm_vm_start_clock() sets it */
	if (clock_has_tsc(vm, s))
		return kvm_clock_continue_tsc(vm, s, error);
	return kvm_clock_continue_realtime(vm, s, error);
}

void kvm_vm_stop_clock(struct kvm_vm *vm)
{
	g_autoptr(GError) error = NULL;
	struct kvm_clock_data data;

	if (vm->clock_frozen || !kvm_clock_read(vm, &data, &error))
		return;
	vm->clock_frozen = true;
	vm->frozen_clock_ns = data.clock;
}

/* Tell a guest with kvmclock that it did not run, so that its watchdogs forgive the gap. */
static bool vcpu_forgive_gap(struct vcpu *vcpu, void *arg, GError **error)
{
	/* EINVAL: this vCPU has no kvmclock (yet). */
	(void)ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
	return true;
}

void kvm_vm_start_clock(struct kvm_vm *vm)
{
	if (!vm->clock_frozen)
		return;
	vm->clock_frozen = false;
	(void)kvm_clock_write(vm, vm->frozen_clock_ns, NULL);
	/* A vCPU that did not park is not waited for; watchdogs may bark then. */
	if (!vm->caps.kvmclock_ctrl || !kvm_vm_parked(vm))
		return;
	vcpus_begin(vm, vcpu_forgive_gap, NULL);
	(void)vcpus_end(vm, NULL);
}
