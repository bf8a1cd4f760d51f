// A process that does nothing but read the clocks and counts how often one goes back.
// SPDX-License-Identifier: Apache-2.0
#include "clock_watch.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define NS_PER_SEC 1000000000ULL

/* The rest of the guest wants to live, too. */
#define BURST	  100
#define BREATH_US 1000

static uint64_t now_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Whether the clock went back; *@last becomes @now. */
static uint64_t went_back(uint64_t *last, uint64_t now)
{
	uint64_t back = now < *last;

	*last = now;
	return back;
}

static void watch_for_ever(volatile struct clock_counts *counts)
{
	uint64_t mono_ns = 0, real_ns = 0, tsc = 0;

	for (uint64_t n = 1;; n++) {
		counts->mono_back += went_back(&mono_ns, now_ns(CLOCK_MONOTONIC));
		counts->real_back += went_back(&real_ns, now_ns(CLOCK_REALTIME));
		_mm_lfence();
		counts->tsc_back += went_back(&tsc, __rdtsc());
		counts->reads++;
		if (n % BURST == 0)
			usleep(BREATH_US);
	}
}

void clock_watch_start(struct clock_watch *watch)
{
	if (!watch->counts) {
		void *page = mmap(NULL, sizeof(*watch->counts), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			abort();
		watch->counts = page;
	}
	if (watch->pid > 0)
		return;
	watch->pid = fork();
	if (watch->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	watch_for_ever(watch->counts);
}

void clock_watch_stop(struct clock_watch *watch)
{
	if (watch->pid <= 0)
		return;
	kill(watch->pid, SIGKILL);
	waitpid(watch->pid, NULL, 0);
	watch->pid = 0;
}

struct clock_counts clock_watch_counts(const struct clock_watch *watch)
{
	return watch->counts ? *watch->counts : (struct clock_counts){0};
}
