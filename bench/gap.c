// Watches a counter in a guest's shared RAM from outside and records every time it stood still.
// SPDX-License-Identifier: Apache-2.0

/*
 * usage: gap FILE OFFSET
 *
 * Maps the 64-bit counter at OFFSET of FILE and looks at it every POLL_NS until standard input
 * closes.  Then prints one JSON object: the number of looks, the longest interval between two looks
 * (what this observer itself missed), and every gap above REPORT_NS as [start_ns, length_ns] on
 * CLOCK_MONOTONIC, longest first.  A gap is the time from the last change seen to the next change
 * seen: QEMU stops the guest's clock in its pause, so only an outside observer sees all of it.
 */

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS	    20000
#define REPORT_NS   100000
#define MAX_GAPS    100000
#define STDIN_EVERY 64

struct gap {
	uint64_t start_ns, length_ns;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int by_length(const void *a, const void *b)
{
	const struct gap *x = a, *y = b;

	return (x->length_ns < y->length_ns) - (x->length_ns > y->length_ns);
}

static int stdin_closed(void)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	char c;

	return poll(&p, 1, 0) > 0 && read(STDIN_FILENO, &c, 1) <= 0;
}

int main(int argc, char **argv)
{
	static struct gap gaps[MAX_GAPS];
	struct timespec pause = {.tv_nsec = POLL_NS};
	uint64_t offset, value, changed_ns, look_ns, longest_look_ns = 0, looks = 0;
	volatile uint64_t *counter;
	size_t n = 0;
	char *page;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: gap FILE OFFSET\n");
		return 2;
	}
	offset = strtoull(argv[2], NULL, 0);
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	page = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, offset & ~4095ULL);
	if (page == MAP_FAILED) {
		perror(argv[1]);
		return 1;
	}
	counter = (volatile uint64_t *)(page + (offset & 4095));
	prctl(PR_SET_TIMERSLACK, 1);
	value = *counter;
	changed_ns = look_ns = now_ns();
	while (looks++ % STDIN_EVERY || !stdin_closed()) {
		uint64_t seen, t;

		nanosleep(&pause, NULL);
		seen = *counter;
		t = now_ns();
		if (t - look_ns > longest_look_ns)
			longest_look_ns = t - look_ns;
		look_ns = t;
		if (seen == value)
			continue;
		if (t - changed_ns > REPORT_NS && n < MAX_GAPS)
			gaps[n++] = (struct gap){changed_ns, t - changed_ns};
		value = seen;
		changed_ns = t;
	}
	qsort(gaps, n, sizeof(gaps[0]), by_length);
	printf("{\"looks\": %lu, \"longest-look-ns\": %lu, \"gaps\": [", looks, longest_look_ns);
	for (size_t i = 0; i < n; i++)
		printf("%s[%lu, %lu]", i ? ", " : "", gaps[i].start_ns, gaps[i].length_ns);
	printf("]}\n");
	return 0;
}
