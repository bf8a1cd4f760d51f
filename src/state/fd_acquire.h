// The one door through which host descriptors come, at cold boot and at takeover alike.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>

#include "state/fdstore.h"

/**
 * struct fd_source - Where fd_acquire() gets descriptors from
 * @inherited:	What the predecessor handed over; NULL at a cold boot.  Not owned
 */
struct fd_source {
	struct fdstore *inherited;
};

/**
 * typedef fd_open_fn - Open the resource anew
 * @arg:	fd_acquire()'s
 * Return: a descriptor, close-on-exec; -1 with @error set.
 */
typedef int fd_open_fn(void *arg, GError **error);

/**
 * fd_acquire() - Get the descriptor called @name
 * @src:	NULL is a source without a predecessor
 * @name:	Stable path of the owner and what it is to it, such as "pci/00.3/image"
 * @kind:	What it must be; checked on both ways
 * @open_fn:	Called if there is no predecessor, or if the predecessor had no such descriptor (a
 *		resource that is reopened by intent)
 * @arg:	For @open_fn
 *
 * The caller cannot tell which way it went, and does not ask.
 * Context: main thread.
 * Return: a descriptor owned by the caller; -1 with @error naming it.
 */
int fd_acquire(struct fd_source *src, const char *name, enum fd_kind kind, fd_open_fn *open_fn,
	       void *arg, GError **error);
