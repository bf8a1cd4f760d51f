// How much memory this process and others like it may still take: the limits of its cgroups.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * DOC: Theory of operation
 *
 * Every cgroup (version 2) that a process is in, up to the root as far as it can be seen, may have a
 * memory.max.  What is charged to it beyond that is first reclaimed: caches of files, and what can be
 * swapped; then somebody in it is killed, all of it with memory.oom.group.  The room is what can be
 * charged before that: the limit, less what is charged, plus what can be reclaimed.  Guest RAM in
 * files in memory is charged and no cache.
 *
 * What the kernel could do without being asked is all counted, so that there is less room than is said
 * only if a store does not take what is to be written back.
 */

/**
 * struct memory_room - The tightest limit
 * @bytes:	Room below it
 * @cgroup:	Its directory, owned; NULL: there is no limit, or none can be seen
 */
struct memory_room {
	uint64_t bytes;
	char *cgroup;
};

/** memory_room_find() - For this process.  Reads /proc and the cgroups' files.  Context: any thread. */
struct memory_room memory_room_find(void);

/**
 * memory_room_at() - The same for a cgroup's directory
 * @top:	The directory where the hierarchy is mounted; the last one that is asked
 * @dir:	@top, or below it
 * @swap_bytes:	What the host has free
 */
struct memory_room memory_room_at(const char *top, const char *dir, uint64_t swap_bytes);

/**
 * memory_room_dir() - The directory of a process's cgroup
 * @mountinfo, @cgroup: what /proc/PID/mountinfo and /proc/PID/cgroup say
 * @top:	Set to where the hierarchy is mounted, owned by the caller
 *
 * Return: NULL if it cannot be seen from here; else owned by the caller.
 */
char *memory_room_dir(const char *mountinfo, const char *cgroup, char **top);

/**
 * memory_own_bytes() - What is charged for this process alone: private pages, page tables, stacks of its
 * threads in the kernel; 0 where /proc is not mounted
 */
uint64_t memory_own_bytes(void);
