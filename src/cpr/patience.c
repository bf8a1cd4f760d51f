// Patience: how long to wait for a peer that may be slow, frozen, or hung.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/patience.h"

#include <inttypes.h>

static uint32_t next_tick(struct patience *p)
{
	p->tick_ms = MIN(PATIENCE_TICK_MS, p->budget_ms - p->idle_ms);
	return p->tick_ms;
}

uint32_t patience_begin(struct patience *patience, uint32_t budget_ms,
			uint64_t (*progress)(void *opaque), void *opaque)
{
	*patience = (struct patience){
		.budget_ms = budget_ms,
		.progress = progress,
		.opaque = opaque,
		.seen = progress ? progress(opaque) : 0,
	};
	return next_tick(patience);
}

uint32_t patience_tick(struct patience *patience)
{
	uint64_t seen = patience->progress ? patience->progress(patience->opaque) : 0;

	patience->all_ms += patience->tick_ms;
	patience->idle_ms = seen == patience->seen ? patience->idle_ms + patience->tick_ms : 0;
	patience->seen = seen;
	if (patience->idle_ms >= patience->budget_ms ||
	    patience->all_ms >= (uint64_t)patience->budget_ms * PATIENCE_TIMES)
		return 0;
	return next_tick(patience);
}

char *patience_text(const struct patience *patience)
{
	if (patience->idle_ms >= patience->budget_ms)
		return g_strdup_printf("no answer within %u ms", patience->budget_ms);
	return g_strdup_printf("no answer within %" PRIu64 " ms, although the peer works",
			       patience->all_ms);
}
