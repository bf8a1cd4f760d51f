// Loading many objects all or nothing: parse all, check all, then copy.
// SPDX-License-Identifier: Apache-2.0
#include "state/txn.h"

#include <string.h>

/**
 * struct pending - One object that waits for the commit
 * @section:	The section's name
 * @instance:	Its instance
 * @desc:	Of the struct
 * @scratch:	The struct as parsed and checked
 * @obj:	Where it will be copied to
 */
struct pending {
	char section[STATE_NAME_BYTES];
	uint32_t instance;
	const struct state_desc *desc;
	void *scratch;
	void *obj;
};

/**
 * struct state_txn - Objects that change together or not at all
 * @reader:	Where they come from
 * @pending:	struct pending
 */
struct state_txn {
	struct state_reader *reader;
	GArray *pending;
};

static void pending_clear(gpointer data)
{
	struct pending *pending = data;

	g_free(pending->scratch);
}

struct state_txn *state_txn_new(struct state_reader *reader)
{
	struct state_txn *txn = g_new0(struct state_txn, 1);

	txn->reader = reader;
	txn->pending = g_array_sized_new(FALSE, FALSE, sizeof(struct pending), 64);
	g_array_set_clear_func(txn->pending, pending_clear);
	return txn;
}

bool state_txn_add(struct state_txn *txn, const char *name, uint32_t instance,
		   const struct state_desc *desc, const void *reset, void *obj, GError **error)
{
	struct pending pending = {.instance = instance, .desc = desc, .obj = obj};
	g_autofree void *scratch = NULL;
	struct span payload;

	if (!state_reader_take(txn->reader, name, instance, &payload, error))
		return false;
	scratch = state_scratch_new(desc, reset);
	if (!state_parse(desc, payload, scratch, error)) {
		state_section_prefix(error, name, instance);
		return false;
	}
	g_strlcpy(pending.section, name, sizeof(pending.section));
	pending.scratch = g_steal_pointer(&scratch);
	g_array_append_val(txn->pending, pending);
	return true;
}

const void *state_txn_peek(const struct state_txn *txn, const char *name, uint32_t instance)
{
	for (guint i = 0; i < txn->pending->len; i++) {
		const struct pending *pending = &g_array_index(txn->pending, struct pending, i);

		if (pending->instance == instance && strcmp(pending->section, name) == 0)
			return pending->scratch;
	}
	return NULL;
}

bool state_txn_commit(struct state_txn *txn, state_txn_check_fn *check, void *arg, GError **error)
{
	if (!state_reader_finish(txn->reader, error))
		return false;
	if (check && !check(txn, arg, error))
		return false;
	for (guint i = 0; i < txn->pending->len; i++) {
		const struct pending *pending = &g_array_index(txn->pending, struct pending, i);

		memcpy(pending->obj, pending->scratch, pending->desc->size);
	}
	g_array_set_size(txn->pending, 0);
	return true;
}

void state_txn_free(struct state_txn *txn)
{
	if (!txn)
		return;
	g_array_unref(txn->pending);
	g_free(txn);
}
