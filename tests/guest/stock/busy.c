// A loop that looks at the clock as often as it can, and keeps the longest time between two looks.
// SPDX-License-Identifier: Apache-2.0
#include "busy.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define PFN_BITS   55 /* of an entry of /proc/self/pagemap */

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* 0 if it is not known. */
static uint64_t physical_address(const void *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;
	off_t at = (off_t)((uintptr_t)page / PAGE_BYTES * sizeof(entry));

	if (fd < 0 || pread(fd, &entry, sizeof(entry), at) != (ssize_t)sizeof(entry))
		entry = 0;
	if (fd >= 0)
		close(fd);
	return (entry & ((1ULL << PFN_BITS) - 1)) * PAGE_BYTES;
}

struct busy *busy_open(uint64_t *gpa)
{
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);

	if (page == MAP_FAILED)
		return NULL;
	*gpa = physical_address(page);
	return *gpa ? page : NULL;
}

void busy_run(struct busy *busy)
{
	for (;;) {
		uint64_t now_ns = monotonic_ns();

		if (busy->restart) {
			busy->max_gap_ns = 0;
			busy->restart = 0;
		} else if (busy->last_ns && now_ns - busy->last_ns > busy->max_gap_ns) {
			busy->max_gap_ns = now_ns - busy->last_ns;
		}
		busy->last_ns = now_ns;
		busy->looks++;
	}
}
