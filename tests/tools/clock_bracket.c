// Prints the bounds between which the clocks of tests/guest/clock.c lie from the host's.
// SPDX-License-Identifier: Apache-2.0
/*
 * usage: clock_bracket RAM-FILE READINGS
 *
 * For TSC and kvmclock a line "NAME LOW HIGH": guest minus host, in ticks or nanoseconds, is not
 * below LOW and not above HIGH.  Then "pair NS TSC", kvmclock and TSC of one moment.
 *
 * The payload's sequence number is odd while it reads its clocks.  The host's clocks are read just
 * before it turns odd and just after it is even again, so that the guest's reading lies between.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define SHARED_GPA   0x100000
#define SHARED_BYTES 4096
#define DETAIL	     3 /* index of struct shared's member */
#define NS_PER_SEC   1000000000LL

struct host_clocks {
	int64_t tsc;
	int64_t raw_ns;
	int64_t mono_ns;
};

struct guest_clocks {
	int64_t ns;
	int64_t tsc;
};

struct bounds {
	int64_t low;
	int64_t high;
};

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static struct host_clocks host_now(void)
{
	struct host_clocks now;

	now.raw_ns = clock_ns(CLOCK_MONOTONIC_RAW);
	now.mono_ns = clock_ns(CLOCK_MONOTONIC);
	_mm_lfence();
	now.tsc = (int64_t)__rdtsc();
	_mm_lfence();
	return now;
}

static void narrow(struct bounds *bounds, int64_t guest, int64_t before, int64_t after)
{
	if (guest - after > bounds->low)
		bounds->low = guest - after;
	if (guest - before < bounds->high)
		bounds->high = guest - before;
}

/* One reading of the guest's between two of the host's; 0 if the guest was not seen at it. */
static int bracket(const volatile uint64_t *detail, struct host_clocks *before,
		   struct host_clocks *after, struct guest_clocks *guest)
{
	const volatile uint64_t *seq = &detail[5];
	uint64_t start;

	do
		start = *seq;
	while (start & 1);
	do {
		struct host_clocks now = host_now();

		if (*seq == start)
			*before = now;
	} while (*seq == start);
	while (*seq == start + 1)
		;
	*after = host_now();
	guest->ns = (int64_t)detail[0];
	guest->tsc = (int64_t)detail[1];
	return *seq == start + 2;
}

int main(int argc, char **argv)
{
	struct bounds tsc = {INT64_MIN, INT64_MAX}, raw = tsc, mono = tsc;
	int fd = argc == 3 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	int readings = argc == 3 ? atoi(argv[2]) : 0;
	const uint64_t *shared = mmap(NULL, SHARED_BYTES, PROT_READ, MAP_SHARED, fd, SHARED_GPA);
	struct host_clocks before = {0}, after;
	struct guest_clocks guest = {0};

	if (shared == MAP_FAILED) {
		perror("clock_bracket");
		return EXIT_FAILURE;
	}
	while (readings > 0) {
		before.tsc = 0;
		if (!bracket(shared + DETAIL, &before, &after, &guest) || !before.tsc)
			continue;
		narrow(&tsc, guest.tsc, before.tsc, after.tsc);
		narrow(&raw, guest.ns, before.raw_ns, after.raw_ns);
		narrow(&mono, guest.ns, before.mono_ns, after.mono_ns);
		readings--;
	}
	printf("tsc %ld %ld\nraw %ld %ld\nmono %ld %ld\npair %ld %ld\n", tsc.low, tsc.high, raw.low,
	       raw.high, mono.low, mono.high, guest.ns, guest.tsc);
	return 0;
}
