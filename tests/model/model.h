// A small exhaustive checker: every order of every process's steps, and of faults, from one start.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * A model is a struct of bytes without padding, and a function that names every step that can come
 * next.  All states that can be reached are visited, breadth first, so that what is found wrong is
 * shown by a shortest trace.  A delay needs no step: that another process goes first is one of the
 * orders.  A time-out is a step that can always be made.
 *
 * A state is final when nothing but faults (a kill, a stop, a stopped process that goes on) can come:
 * then it is judged who has the guest for good.
 */

/** MODEL_MAX_BYTES - A model's struct is at most that long */
#define MODEL_MAX_BYTES 48

struct model_steps;

/**
 * struct model - What to check
 * @bytes:	Of a state
 * @init:	Fill the first one, which is zeroed
 * @next:	Call model_step() for everything that can happen in @state
 * @judge:	Return: what is wrong with @state, or NULL; @final: nothing goes on by itself
 * @print:	One line of text, for a trace
 */
struct model {
	size_t bytes;
	void (*init)(void *state);
	void (*next)(const void *state, struct model_steps *steps);
	const char *(*judge)(const void *state, bool final);
	void (*print)(const void *state, GString *out);
};

/** model_step() - @state can come next, by what @label says; one that changes nothing is left out. */
void model_step(struct model_steps *steps, const void *state, const char *label);

/** model_fault() - The same, by something from outside. */
void model_fault(struct model_steps *steps, const void *state, const char *label);

/**
 * model_check() - Visit every state
 * @n_states:	Set to how many there are; may be NULL
 * Return: NULL, or what is wrong and how it came to that; owned by the caller.
 */
char *model_check(const struct model *model, size_t *n_states);
