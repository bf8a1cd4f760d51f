// Watches counters in a guest's shared RAM from outside and records every time they stood still.
// SPDX-License-Identifier: Apache-2.0

/*
 * usage: gap FILE OFFSET STRIDE COUNT POLL_US [SERIES_US]
 *
 * Maps COUNT 64-bit counters, STRIDE bytes apart and all in one page, at OFFSET of FILE; looks at
 * them every POLL_US until standard input closes.  Prints the line "watching" when it begins,
 * and in the end one JSON object:
 *
 *   looks, longest-look-ns   how often, and the longest time between two looks: what this observer
 *			      itself may have missed, to be compared with the gaps
 *   eyes, realtime	      how many processors it looks from, and whether as SCHED_FIFO
 *   whole		      gaps in which no counter moved: the VM as a whole stood still
 *   any		      gaps of single counters, of whichever vCPU
 *   series		      with SERIES_US: [ns, value] of the first counter about that often
 *
 * A gap is [start_ns, length_ns, unseen_ns] on CLOCK_MONOTONIC, from the last change seen to the
 * next; unseen_ns is the longest time between two looks in it.  Only those above REPORT_POLLS
 * times POLL_US count, longest first, at most MAX_PRINTED.  One that is still open at the end is
 * left out.  QEMU stops the guest's clock in its pause: only from outside all of it is seen.
 *
 * An observer that a VMM can keep from its processor takes its own absence for a gap.  Priority
 * does not help in a kernel that is not preempted inside a long system call (munmap, populating).
 * So there is an eye on each of several processors, and they take turns.  All of them are kept away
 * only if every processor is inside such a call; on a host with no more processors than eyes the
 * guest then stands still too, and the gap is true.  Busy eyes would leave no processor to the VMM.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES   4096
#define REPORT_POLLS 2
#define MAX_GAPS     100000
#define MAX_PRINTED  100
#define MAX_SERIES   1000000
#define MAX_COUNTERS 64
#define MAX_EYES     4
#define FIFO_PRIO    10
#define NS_PER_SEC   1000000000ULL

struct gap {
	uint64_t start_ns, length_ns, unseen_ns;
};

struct gap_list {
	struct gap *gaps;
	size_t n;
};

/* Something that moves now and then: one counter, or all of them together. */
struct mover {
	uint64_t changed_ns, unseen_ns;
};

struct sample {
	uint64_t at_ns, value;
};

/* What all eyes share; @lock guards what comes after it. */
struct watch {
	const volatile uint64_t *counters;
	size_t stride, n_counters;
	uint64_t poll_ns, series_ns, begin_ns;
	unsigned int n_eyes;
	atomic_bool stop, not_realtime;

	pthread_barrier_t settled;

	pthread_mutex_t lock;
	uint64_t value[MAX_COUNTERS];
	struct mover counter[MAX_COUNTERS], vm;
	uint64_t look_ns, longest_ns, looks;
	struct gap_list whole, any;
	struct sample *series;
	size_t n_series;
};

struct eye {
	struct watch *watch;
	unsigned int number;
	int cpu;
	pthread_t thread;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void mover_unseen(struct mover *mover, uint64_t unseen_ns)
{
	if (unseen_ns > mover->unseen_ns)
		mover->unseen_ns = unseen_ns;
}

static void mover_moved(struct watch *w, struct mover *mover, struct gap_list *list, uint64_t t_ns)
{
	uint64_t length_ns = t_ns - mover->changed_ns;

	if (length_ns > REPORT_POLLS * w->poll_ns && list->n < MAX_GAPS)
		list->gaps[list->n++] =
			(struct gap){mover->changed_ns, length_ns, mover->unseen_ns};
	*mover = (struct mover){.changed_ns = t_ns};
}

static void take_sample(struct watch *w, uint64_t t_ns)
{
	if (!w->series_ns || w->n_series == MAX_SERIES ||
	    (w->n_series && t_ns - w->series[w->n_series - 1].at_ns < w->series_ns))
		return;
	w->series[w->n_series++] = (struct sample){t_ns, w->counters[0]};
}

static void look_first(struct watch *w, uint64_t t_ns)
{
	w->look_ns = w->vm.changed_ns = t_ns;
	for (size_t i = 0; i < w->n_counters; i++) {
		w->value[i] = w->counters[i * w->stride];
		w->counter[i].changed_ns = t_ns;
	}
}

/* Locked. */
static void look(struct watch *w)
{
	uint64_t t_ns = now_ns(), unseen_ns;
	bool moved = false;

	if (!w->looks++)
		look_first(w, t_ns);
	unseen_ns = t_ns - w->look_ns;
	mover_unseen(&w->vm, unseen_ns);
	for (size_t i = 0; i < w->n_counters; i++) {
		uint64_t seen = w->counters[i * w->stride];

		mover_unseen(&w->counter[i], unseen_ns);
		if (seen == w->value[i])
			continue;
		mover_moved(w, &w->counter[i], &w->any, t_ns);
		w->value[i] = seen;
		moved = true;
	}
	if (moved)
		mover_moved(w, &w->vm, &w->whole, t_ns);
	take_sample(w, t_ns);
	if (unseen_ns > w->longest_ns)
		w->longest_ns = unseen_ns;
	w->look_ns = t_ns;
}

static void eye_settle(struct eye *eye)
{
	struct sched_param param = {.sched_priority = FIFO_PRIO};
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(eye->cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
	prctl(PR_SET_TIMERSLACK, 1);
	if (sched_setscheduler(0, SCHED_FIFO, &param) != 0)
		eye->watch->not_realtime = true;
}

/* Every eye has its place in the round; one that comes late goes on with the next round. */
static void *eye_main(void *arg)
{
	struct eye *eye = arg;
	struct watch *w = eye->watch;
	uint64_t round_ns = w->poll_ns * w->n_eyes;

	eye_settle(eye);
	pthread_barrier_wait(&w->settled);
	while (!w->stop) {
		uint64_t rounds = (now_ns() - w->begin_ns) / round_ns + 1;
		uint64_t next_ns = w->begin_ns + rounds * round_ns + eye->number * w->poll_ns;
		struct timespec until = {(time_t)(next_ns / NS_PER_SEC),
					 (long)(next_ns % NS_PER_SEC)};

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		/* Another eye that is looking right now sees the same. */
		if (pthread_mutex_trylock(&w->lock) == 0) {
			look(w);
			pthread_mutex_unlock(&w->lock);
		}
	}
	return NULL;
}

static void watch_begin(struct watch *w)
{
	w->whole.gaps = calloc(MAX_GAPS, sizeof(struct gap));
	w->any.gaps = calloc(MAX_GAPS, sizeof(struct gap));
	w->series = calloc(w->series_ns ? MAX_SERIES : 1, sizeof(struct sample));
	pthread_mutex_init(&w->lock, NULL);
	/* No eye may wait for a page of its own. */
	mlockall(MCL_CURRENT | MCL_FUTURE);
	w->begin_ns = now_ns();
}

/* Open an eye on the first MAX_EYES processors there are for it; none looks before all do. */
static void eyes_open(struct watch *w, struct eye *eyes)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	sched_getaffinity(0, sizeof(set), &set);
	for (int cpu = 0; cpu < CPU_SETSIZE && w->n_eyes < MAX_EYES; cpu++)
		if (CPU_ISSET(cpu, &set))
			eyes[w->n_eyes++] = (struct eye){.watch = w, .cpu = cpu};
	pthread_barrier_init(&w->settled, NULL, w->n_eyes + 1);
	for (unsigned int i = 0; i < w->n_eyes; i++) {
		eyes[i].number = i;
		if (pthread_create(&eyes[i].thread, NULL, eye_main, &eyes[i]) != 0) {
			perror("gap: pthread_create");
			exit(1);
		}
	}
	pthread_barrier_wait(&w->settled);
}

static void eyes_close(struct watch *w, struct eye *eyes)
{
	w->stop = true;
	for (unsigned int i = 0; i < w->n_eyes; i++)
		pthread_join(eyes[i].thread, NULL);
}

static int by_length(const void *a, const void *b)
{
	const struct gap *x = a, *y = b;

	return (x->length_ns < y->length_ns) - (x->length_ns > y->length_ns);
}

static void print_gaps(const char *name, struct gap_list *list)
{
	qsort(list->gaps, list->n, sizeof(list->gaps[0]), by_length);
	printf(", \"%s\": [", name);
	for (size_t i = 0; i < list->n && i < MAX_PRINTED; i++)
		printf("%s[%" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", i ? ", " : "",
		       list->gaps[i].start_ns, list->gaps[i].length_ns, list->gaps[i].unseen_ns);
	printf("]");
}

static void print(struct watch *w)
{
	printf("{\"looks\": %" PRIu64 ", \"longest-look-ns\": %" PRIu64
	       ", \"eyes\": %u, \"realtime\": %s",
	       w->looks, w->longest_ns, w->n_eyes, w->not_realtime ? "false" : "true");
	print_gaps("whole", &w->whole);
	print_gaps("any", &w->any);
	printf(", \"series\": [");
	for (size_t i = 0; i < w->n_series; i++)
		printf("%s[%" PRIu64 ", %" PRIu64 "]", i ? ", " : "", w->series[i].at_ns,
		       w->series[i].value);
	printf("]}\n");
}

static int map_counters(struct watch *w, const char *path, uint64_t offset)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *page = fd < 0 ? MAP_FAILED
			    : mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED | MAP_POPULATE, fd,
				   (off_t)(offset & ~(uint64_t)(PAGE_BYTES - 1)));

	if (page == MAP_FAILED) {
		perror(path);
		return 1;
	}
	w->counters = (const volatile uint64_t *)(page + offset % PAGE_BYTES);
	return 0;
}

int main(int argc, char **argv)
{
	static struct watch w;
	static struct eye eyes[MAX_EYES];
	uint64_t offset, stride, poll_us;
	char byte;

	if (argc != 6 && argc != 7) {
		fprintf(stderr, "usage: gap FILE OFFSET STRIDE COUNT POLL_US [SERIES_US]\n");
		return 2;
	}
	offset = strtoull(argv[2], NULL, 0);
	stride = strtoull(argv[3], NULL, 0);
	w.n_counters = strtoull(argv[4], NULL, 0);
	poll_us = strtoull(argv[5], NULL, 0);
	if (w.n_counters < 1 || w.n_counters > MAX_COUNTERS || poll_us < 1 || poll_us > 100000 ||
	    offset % 8 || stride % 8 || stride > PAGE_BYTES ||
	    offset % PAGE_BYTES + (w.n_counters - 1) * stride + 8 > PAGE_BYTES) {
		fprintf(stderr, "gap: these counters are not in one page\n");
		return 2;
	}
	w.stride = stride / 8;
	w.poll_ns = poll_us * 1000;
	w.series_ns = argc == 7 ? strtoull(argv[6], NULL, 0) * 1000 : 0;
	if (map_counters(&w, argv[1], offset) != 0)
		return 1;
	watch_begin(&w);
	eyes_open(&w, eyes);
	printf("watching\n");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	eyes_close(&w, eyes);
	print(&w);
	return 0;
}
