// Filling a successor's page tables beside its main loop, while the guest runs in its predecessor.
// SPDX-License-Identifier: Apache-2.0
#include "machine/machine_priv.h"

#include "base/loop.h"
#include "base/thread.h"

/**
 * struct population - See machine_populate()
 * @stop:	Set by the main thread, looked at by @thread between small pieces
 * @error:	Why it failed; @thread's until it has ended
 * @ended:	The source by which @thread's end is told, to be undone if nobody wants to know any more
 */
struct population {
	struct machine *machine;
	GThread *thread;
	bool stop;
	GError *error;
	GSource *ended;
	void (*done)(void *opaque, GError *error);
	void *opaque;
};

static void *populate(void *opaque)
{
	struct population *p = opaque;
	bool ok = true;

	for (guint i = 0; ok && i < p->machine->ram_blocks->len; i++) {
		struct ram_block *block = p->machine->ram_blocks->pdata[i];

		ok = !block->shared || ram_block_populate(block, &p->stop, &p->error);
	}
	if (ok)
		(void)kvm_vm_prefault(p->machine->kvm, &p->stop);
	g_source_set_ready_time(p->ended, 0);
	return NULL;
}

static gboolean told(void *opaque)
{
	struct population *p = opaque;
	GError *error;

	g_thread_join(g_steal_pointer(&p->thread));
	loop_unwatch(&p->ended);
	error = g_steal_pointer(&p->error);
	p->done(p->opaque, error);
	return G_SOURCE_REMOVE;
}

struct population *machine_populate(struct machine *machine,
				    void (*done)(void *opaque, GError *error), void *opaque,
				    GError **error)
{
	struct population *p = g_new0(struct population, 1);

	p->machine = machine;
	p->done = done;
	p->opaque = opaque;
	p->ended = loop_when_told(told, p);
	p->thread = thread_new("populate", populate, p, error);
	if (p->thread)
		return p;
	population_free(p);
	return NULL;
}

void population_free(struct population *population)
{
	if (!population)
		return;
	if (population->thread) {
		__atomic_store_n(&population->stop, true, __ATOMIC_RELAXED);
		g_thread_join(population->thread);
	}
	loop_unwatch(&population->ended);
	g_clear_error(&population->error);
	g_free(population);
}
