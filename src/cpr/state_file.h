// The state file of an exec: reserved before the guest is stopped, written once it has run again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "migration/address.h"

/**
 * DOC: Theory of operation
 *
 * The state crosses an exec in a sealed memfd; a file is for people who ask for one.  So nothing that
 * happens to it may hold the guest: whatever touches it runs on a thread (base/job.h).
 *
 *   state_file_reserve()	before the pause: the file is made (base/file.h has the rules) and gets as
 *			much room as the state will need.  A store that is full, hangs or is limited fails the
 *			update then, and the guest was never stopped
 *   (execve)		descriptor and description cross in the envelope
 *   state_file_write()	when the guest runs, or while a manager is waited for: the state is copied
 *			from the memfd, and the file gets its size.  What fails now is told, and does no harm
 *   state_file_discard()	the update was undone: a file that was made is removed, one that was there keeps
 *			its content
 *
 * A program that is told to load the very file that was reserved takes the memfd: it is the same.
 */
struct state_file;

/** typedef state_file_fn - @error is NULL if all went well; borrowed.  From the main loop. */
typedef void (*state_file_fn)(void *opaque, const GError *error);

/**
 * state_file_reserve() - Make, or open, the file of @address with room for @size_bytes
 * @done:	Called once, unless state_file_discard() comes first
 *
 * Return: NULL with @error set if there is no thread to be had.
 */
struct state_file *state_file_reserve(const struct migration_address *address, uint64_t size_bytes,
				      state_file_fn done, void *opaque, GError **error);

/** state_file_discard() - Undo it, in its own time; accepts NULL and one that is not reserved yet. */
void state_file_discard(struct state_file *file);

/** state_file_fd() - The reserved file's descriptor; stays @file's. */
int state_file_fd(const struct state_file *file);

/** state_file_describe() - For the envelope, beside the descriptor; owned by the caller. */
json_t *state_file_describe(const struct state_file *file);

/**
 * state_file_inherit() - The other side of state_file_describe()
 * @fd:		Stays the caller's: a program that goes back needs it
 *
 * Return: NULL if @json describes none.
 */
struct state_file *state_file_inherit(const json_t *json, int fd);

/**
 * state_file_write() - Write @state into it, and free it in the end; @file is taken
 * @done:	Called once
 */
void state_file_write(struct state_file *file, GBytes *state, state_file_fn done, void *opaque);
