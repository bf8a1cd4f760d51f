// Chardevs that are connected anew for an exec: before the guest is stopped, beside the main loop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

#include "backend/chardev/chardev_set.h"
#include "state/fdstore.h"

/** struct reopen - Every client with reopen-on-cpr, and its new connection */
struct reopen;

/** typedef reopen_fn - All are connected, or @error says which one is not; borrowed.  Main loop. */
typedef void (*reopen_fn)(void *opaque, const GError *error);

/**
 * reopen_start() - Begin to connect them
 * @reopen:	Set; NULL if there are none, and @done is not called then
 *
 * Return: false with @error set if there is no thread to be had.
 */
bool reopen_start(struct reopen **reopen, struct chardev_set *chardevs, reopen_fn done,
		  void *opaque, GError **error);

/** reopen_offer() - Add the new connections to @store; accepts NULL. */
bool reopen_offer(const struct reopen *reopen, struct fdstore *store, GError **error);

/** reopen_free() - Close them, in their own time if they are not connected yet; accepts NULL. */
void reopen_free(struct reopen *reopen);
