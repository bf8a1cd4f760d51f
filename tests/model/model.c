// A small exhaustive checker: every order of every process's steps, and of faults, from one start.
// SPDX-License-Identifier: Apache-2.0
#include "model.h"

#include <string.h>

/**
 * struct model_steps - The search
 * @states:	All that were seen, model->bytes each, in the order of their distance
 * @cameby:	For each: the state before, and the label
 * @slots:	Hash of a state to its index + 1; a power of two
 * @at:		The one whose steps are being asked for
 * @moves:	Whether it has a step that is no fault
 */
struct model_steps {
	const struct model *model;
	GByteArray *states;
	GArray *cameby;
	uint32_t *slots;
	size_t n_slots;
	uint32_t at;
	bool moves;
};

struct came_by {
	uint32_t from;
	const char *label;
};

static const void *state_at(const struct model_steps *s, uint32_t index)
{
	return s->states->data + (size_t)index * s->model->bytes;
}

static size_t hash(const struct model_steps *s, const uint8_t *state)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < s->model->bytes; i++)
		h = (h ^ state[i]) * 0x100000001b3ULL;
	return (h ^ h >> 32) & (s->n_slots - 1);
}

/* The slot that holds @state, or the one to put it into. */
static uint32_t *slot_of(const struct model_steps *s, const void *state)
{
	size_t slot = hash(s, state);

	while (s->slots[slot] &&
	       memcmp(state_at(s, s->slots[slot] - 1), state, s->model->bytes) != 0)
		slot = (slot + 1) & (s->n_slots - 1);
	return &s->slots[slot];
}

static void grow(struct model_steps *s)
{
	g_free(s->slots);
	s->n_slots = s->n_slots ? s->n_slots * 2 : 1 << 16;
	s->slots = g_new0(uint32_t, s->n_slots);
	for (guint i = 0; i < s->cameby->len; i++)
		*slot_of(s, state_at(s, i)) = i + 1;
}

static void visit(struct model_steps *s, const void *state, const char *label)
{
	const struct came_by by = {s->at, label};
	uint32_t *slot;

	if (s->cameby->len * 2 >= s->n_slots)
		grow(s);
	slot = slot_of(s, state);
	if (*slot)
		return;
	g_byte_array_append(s->states, state, s->model->bytes);
	g_array_append_val(s->cameby, by);
	*slot = s->cameby->len;
}

void model_step(struct model_steps *s, const void *state, const char *label)
{
	if (memcmp(state_at(s, s->at), state, s->model->bytes) == 0)
		return;
	s->moves = true;
	visit(s, state, label);
}

void model_fault(struct model_steps *s, const void *state, const char *label)
{
	visit(s, state, label);
}

static void trace(const struct model_steps *s, uint32_t index, GString *out)
{
	const struct came_by *by = &g_array_index(s->cameby, struct came_by, index);

	if (index != 0)
		trace(s, by->from, out);
	g_string_append_printf(out, "  %-24s ", index ? by->label : "");
	s->model->print(state_at(s, index), out);
	g_string_append_c(out, '\n');
}

static char *explain(const struct model_steps *s, uint32_t index, const char *wrong)
{
	GString *out = g_string_new(wrong);

	g_string_append_c(out, '\n');
	trace(s, index, out);
	return g_string_free(out, FALSE);
}

char *model_check(const struct model *model, size_t *n_states)
{
	struct model_steps s = {.model = model,
				.states = g_byte_array_new(),
				.cameby = g_array_new(FALSE, FALSE, sizeof(struct came_by))};
	uint8_t state[MODEL_MAX_BYTES] = {0};
	const char *wrong = NULL;
	char *text = NULL;

	g_assert_cmpuint(model->bytes, <=, sizeof(state));
	model->init(state);
	visit(&s, state, "");
	for (s.at = 0; !wrong && s.at < s.cameby->len; s.at++) {
		/* A copy: the array moves while it grows. */
		memcpy(state, state_at(&s, s.at), model->bytes);
		s.moves = false;
		model->next(state, &s);
		wrong = model->judge(state, !s.moves);
		if (wrong)
			text = explain(&s, s.at, wrong);
	}
	if (n_states)
		*n_states = s.cameby->len;
	g_byte_array_unref(s.states);
	g_array_unref(s.cameby);
	g_free(s.slots);
	return text;
}
