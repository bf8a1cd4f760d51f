// The chardevs of a process by id: each is opened once, whoever uses it first.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

#include "backend/chardev/chardev.h"
#include "base/cleanup.h"
#include "options/config.h"

/**
 * struct chardev_set - Open chardevs, with a count of users each
 *
 * Made by main; the machine and the monitors open in it what their frontends use.
 * Context: main thread.
 */
struct chardev_set;

struct chardev_set *chardev_set_new(void);

/** chardev_set_free() - Close what is still open; accepts NULL. */
void chardev_set_free(struct chardev_set *set);
DEFINE_CLEANUP(chardev_set, chardev_set_free)

/** chardev_set_on_quit() - What Ctrl-A x on any of them calls, now or opened later. */
void chardev_set_on_quit(struct chardev_set *set, void (*fn)(void *opaque), void *opaque);

/**
 * chardev_set_open() - The chardev called @id, opened if nobody has it yet
 * @config:	Where its description is
 * @fds:	For chardev_new(); outlives the chardev
 *
 * Return: borrowed until chardev_set_close(); NULL with @error set.
 */
struct chardev *chardev_set_open(struct chardev_set *set, const struct vm_config *config,
				 const char *id, struct fd_source *fds, GError **error);

/** chardev_set_close() - One user less; the last one closes it. */
void chardev_set_close(struct chardev_set *set, struct chardev *chardev);

/** chardev_set_find() - The chardev called @id, NULL if it is not open; borrowed. */
struct chardev *chardev_set_find(struct chardev_set *set, const char *id);

/** chardev_set_get() - The open chardev at @index in order of opening, NULL past the last. */
struct chardev *chardev_set_get(struct chardev_set *set, unsigned int index);

/**
 * chardev_is_monitors() - Whether only monitors use the chardev called @id
 *
 * Then it does not cross in a transfer: the old process keeps its monitors.
 */
bool chardev_is_monitors(const struct vm_config *config, const char *id);

/**
 * chardev_fd_moved() - Whether the inherited descriptor @name is one that a chardev does not take
 *
 * Because @config, the successor's, has it lead elsewhere (chardev_config.moved).
 */
bool chardev_fd_moved(const struct vm_config *config, const char *name);
