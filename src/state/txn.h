// Loading many objects all or nothing: parse all, check all, then copy.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"
#include "state/section.h"

/**
 * DOC: Theory of operation
 *
 * state_txn_add() parses a section into a scratch struct of the transaction and runs the struct's
 * own check.  state_txn_commit() makes sure that no section was left, lets the caller check across
 * objects (it sees the scratch structs through state_txn_peek()), and only then copies scratch to
 * objects, which cannot fail.  Until then no object has changed; freeing the transaction undoes it.
 */
struct state_txn;

/**
 * typedef state_txn_check_fn - Rules that no single struct can check
 *
 * Pure: looks at state_txn_peek() and at configuration, changes nothing.
 * Return: false with @error set if the objects do not fit together.
 */
typedef bool state_txn_check_fn(const struct state_txn *txn, void *arg, GError **error);

/**
 * state_txn_new() - Start a transaction on an opened stream
 * @reader:	Must outlive the transaction
 */
struct state_txn *state_txn_new(struct state_reader *reader);

/**
 * state_txn_add() - Parse a section for @obj
 * @obj:	Written by state_txn_commit(); must live until then
 * @reset:	Values for the fields the writer did not have; NULL: those of @desc's reset, or
 *		zeros.  May be @obj itself when that was just reset
 *
 * Return: false with @error "section: member: reason".
 */
bool state_txn_add(struct state_txn *txn, const char *name, uint32_t instance,
		   const struct state_desc *desc, const void *reset, void *obj, GError **error);

/** state_txn_peek() - The struct parsed for a section, as it will be; NULL if none was added. */
const void *state_txn_peek(const struct state_txn *txn, const char *name, uint32_t instance);

/**
 * state_txn_commit() - Check the whole and copy to all objects
 * @check:	Called once when everything is parsed; NULL for none
 * Return: false, and no object has changed, if a section was left or @check refuses.
 */
bool state_txn_commit(struct state_txn *txn, state_txn_check_fn *check, void *arg, GError **error);

/** state_txn_free() - Accepts NULL; objects keep what they have. */
void state_txn_free(struct state_txn *txn);
DEFINE_CLEANUP(state_txn, state_txn_free)
