// Watches counters in a guest's shared RAM from outside and records every time they stood still.
// SPDX-License-Identifier: Apache-2.0

/*
 * usage: gap FILE OFFSET STRIDE COUNT POLL_US
 *
 * Maps COUNT 64-bit counters, STRIDE bytes apart and all in one page, at OFFSET of FILE; looks at
 * them every POLL_US until standard input closes; prints one JSON object:
 *
 *   looks, longest-look-ns   how often, and the longest time between two looks: what this observer
 *			      itself may have missed, to be compared with the gaps
 *   realtime		      whether it ran as SCHED_FIFO, so that nothing ordinary delays a look
 *   whole		      gaps in which no counter moved: the VM as a whole stood still
 *   any		      gaps of single counters, of whichever vCPU
 *
 * A gap is [start_ns, length_ns] on CLOCK_MONOTONIC, from the last change seen to the next; only
 * those above REPORT_NS count, longest first, at most MAX_PRINTED.  One that is still open at the
 * end is left out.  QEMU stops the guest's clock in its pause: only from outside all of it is seen.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES   4096
#define REPORT_NS    100000
#define MAX_GAPS     1000000
#define MAX_PRINTED  100
#define MAX_COUNTERS 64
#define STDIN_EVERY  64
#define FIFO_PRIO    10

struct gap {
	uint64_t start_ns, length_ns;
};

struct gap_list {
	struct gap *gaps;
	size_t n;
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

static bool stdin_closed(void)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	char c;

	return poll(&p, 1, 0) > 0 && read(STDIN_FILENO, &c, 1) <= 0;
}

static bool run_realtime(void)
{
	struct sched_param param = {.sched_priority = FIFO_PRIO};

	prctl(PR_SET_TIMERSLACK, 1);
	return sched_setscheduler(0, SCHED_FIFO, &param) == 0;
}

static void add(struct gap_list *list, uint64_t from_ns, uint64_t to_ns)
{
	if (to_ns - from_ns > REPORT_NS && list->n < MAX_GAPS)
		list->gaps[list->n++] = (struct gap){from_ns, to_ns - from_ns};
}

static void print(const char *name, struct gap_list *list)
{
	qsort(list->gaps, list->n, sizeof(list->gaps[0]), by_length);
	printf(", \"%s\": [", name);
	for (size_t i = 0; i < list->n && i < MAX_PRINTED; i++)
		printf("%s[%" PRIu64 ", %" PRIu64 "]", i ? ", " : "", list->gaps[i].start_ns,
		       list->gaps[i].length_ns);
	printf("]");
}

/* @counters: @n of them, @stride apart in 64-bit words. */
static void watch(const volatile uint64_t *counters, size_t stride, size_t n, uint64_t poll_us,
		  bool realtime)
{
	struct timespec pause = {.tv_nsec = (long)poll_us * 1000};
	struct gap_list whole = {calloc(MAX_GAPS, sizeof(struct gap)), 0};
	struct gap_list any = {calloc(MAX_GAPS, sizeof(struct gap)), 0};
	uint64_t value[MAX_COUNTERS], changed_ns[MAX_COUNTERS];
	uint64_t whole_ns = now_ns(), look_ns = whole_ns, longest_ns = 0, looks = 0;

	for (size_t i = 0; i < n; i++) {
		value[i] = counters[i * stride];
		changed_ns[i] = whole_ns;
	}
	while (looks++ % STDIN_EVERY || !stdin_closed()) {
		bool moved = false;
		uint64_t t;

		nanosleep(&pause, NULL);
		t = now_ns();
		for (size_t i = 0; i < n; i++) {
			uint64_t seen = counters[i * stride];

			if (seen == value[i])
				continue;
			add(&any, changed_ns[i], t);
			value[i] = seen;
			changed_ns[i] = t;
			moved = true;
		}
		if (moved) {
			add(&whole, whole_ns, t);
			whole_ns = t;
		}
		if (t - look_ns > longest_ns)
			longest_ns = t - look_ns;
		look_ns = t;
	}
	printf("{\"looks\": %" PRIu64 ", \"longest-look-ns\": %" PRIu64 ", \"realtime\": %s", looks,
	       longest_ns, realtime ? "true" : "false");
	print("whole", &whole);
	print("any", &any);
	printf("}\n");
	free(whole.gaps);
	free(any.gaps);
}

int main(int argc, char **argv)
{
	uint64_t offset, stride, n, poll_us;
	char *page;
	int fd;

	if (argc != 6) {
		fprintf(stderr, "usage: gap FILE OFFSET STRIDE COUNT POLL_US\n");
		return 2;
	}
	offset = strtoull(argv[2], NULL, 0);
	stride = strtoull(argv[3], NULL, 0);
	n = strtoull(argv[4], NULL, 0);
	poll_us = strtoull(argv[5], NULL, 0);
	if (n < 1 || n > MAX_COUNTERS || poll_us < 1 || poll_us > 100000 || offset % 8 ||
	    stride % 8 || stride > PAGE_BYTES ||
	    offset % PAGE_BYTES + (n - 1) * stride + 8 > PAGE_BYTES) {
		fprintf(stderr, "gap: these counters are not in one page\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	page = fd < 0 ? MAP_FAILED
		      : mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd,
			     (off_t)(offset & ~(uint64_t)(PAGE_BYTES - 1)));
	if (page == MAP_FAILED) {
		perror(argv[1]);
		return 1;
	}
	watch((const volatile uint64_t *)(page + offset % PAGE_BYTES), stride / 8, n, poll_us,
	      run_realtime());
	return 0;
}
