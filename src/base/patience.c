// Patience: how long to wait for a peer that may be slow, frozen, or hung.
// SPDX-License-Identifier: Apache-2.0
#include "base/patience.h"

#include <inttypes.h>

static uint64_t progress_of(const struct patience *p)
{
	return p->progress ? p->progress(p->opaque) : 0;
}

static uint32_t next_tick(struct patience *p)
{
	p->next_ms = MIN(p->tick_ms, p->budget_ms - p->idle_ms);
	return p->next_ms;
}

uint32_t patience_begin(struct patience *patience)
{
	patience->tick_ms = patience->tick_ms ?: PATIENCE_TICK_MS;
	patience->max_ms = patience->max_ms ?: patience->budget_ms * PATIENCE_TIMES;
	patience->seen = progress_of(patience);
	patience->idle_ms = patience->all_ms = 0;
	return next_tick(patience);
}

uint32_t patience_tick(struct patience *patience)
{
	const uint64_t seen = progress_of(patience);

	patience->all_ms += patience->next_ms;
	patience->idle_ms = seen == patience->seen ? patience->idle_ms + patience->next_ms : 0;
	patience->seen = seen;
	if (patience->idle_ms >= patience->budget_ms || patience->all_ms >= patience->max_ms)
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
