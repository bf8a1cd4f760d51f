// System calls of threads that may not come back: who waits for what, and since when.
// SPDX-License-Identifier: Apache-2.0
#include "base/stuck.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/thread.h"

/* In place of a time, while the name is written. */
#define CLAIMED 1

/**
 * struct stuck_call - One slot
 * @since_ns:	When it began; 0: free, CLAIMED: not to be read yet
 * @tid:	The thread's; valid while @since_ns is a time
 * @what:	Valid while @since_ns is a time; each byte atomic, because the slot may be used anew while
 *		somebody reads it, who then finds another time and looks away
 */
static struct stuck_call {
	_Atomic uint64_t since_ns;
	_Atomic pid_t tid;
	_Atomic char what[STUCK_NAME_BYTES];
} calls[STUCK_CALLS];

/* Threads stay in the parent. */
static void in_child(void)
{
	for (int i = 0; i < STUCK_CALLS; i++)
		atomic_store_explicit(&calls[i].since_ns, 0, memory_order_relaxed);
}

static void init_once(void)
{
	pthread_atfork(NULL, NULL, in_child);
}

static void write_name(struct stuck_call *call, const char *what)
{
	size_t len = strnlen(what, STUCK_NAME_BYTES - 1);

	/* No half of a character in UTF-8. */
	while (len > 0 && (what[len] & 0xc0) == 0x80)
		len--;
	for (size_t i = 0; i < len; i++)
		atomic_store_explicit(&call->what[i], what[i], memory_order_relaxed);
	atomic_store_explicit(&call->what[len], 0, memory_order_relaxed);
}

int stuck_begin(const char *what)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_once);
	for (int i = 0; i < STUCK_CALLS; i++) {
		uint64_t free_ns = 0;

		if (atomic_load_explicit(&calls[i].since_ns, memory_order_relaxed) ||
		    !atomic_compare_exchange_strong(&calls[i].since_ns, &free_ns, CLAIMED))
			continue;
		/* A reader who sees a byte of the new name will see that the time is another. */
		atomic_thread_fence(memory_order_release);
		write_name(&calls[i], what);
		atomic_store_explicit(&calls[i].tid, gettid(), memory_order_relaxed);
		atomic_store_explicit(&calls[i].since_ns, clock_now_ns(), memory_order_release);
		return i;
	}
	return -1;
}

void stuck_end(int call)
{
	if (call >= 0)
		atomic_store_explicit(&calls[call].since_ns, 0, memory_order_release);
}

/* Return: false if it has become another call meanwhile, or waits for nothing but a processor. */
static bool look(struct stuck_call *call, uint64_t since_ns, char *what)
{
	const pid_t tid = atomic_load_explicit(&call->tid, memory_order_relaxed);
	char name[STUCK_NAME_BYTES];

	for (size_t i = 0; i < STUCK_NAME_BYTES; i++)
		name[i] = atomic_load_explicit(&call->what[i], memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(&call->since_ns, memory_order_relaxed) != since_ns)
		return false;
	if (tid != gettid() && thread_runs(tid))
		return false;
	memcpy(what, name, STUCK_NAME_BYTES);
	return true;
}

uint64_t stuck_oldest(uint64_t min_ns, char what[STUCK_NAME_BYTES])
{
	const uint64_t now_ns = clock_now_ns();
	uint64_t longest_ns = 0;

	for (int i = 0; i < STUCK_CALLS; i++) {
		const uint64_t since_ns =
			atomic_load_explicit(&calls[i].since_ns, memory_order_acquire);
		const uint64_t ns = since_ns > CLAIMED && since_ns < now_ns ? now_ns - since_ns : 0;

		if (ns > longest_ns && ns >= min_ns && look(&calls[i], since_ns, what))
			longest_ns = ns;
	}
	return longest_ns;
}
