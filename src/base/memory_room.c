// How much memory this process and others like it may still take: the limits of its cgroups.
// SPDX-License-Identifier: Apache-2.0
#include "base/memory_room.h"

#include <stdio.h>
#include <string.h>

#define KERNEL_STACK_BYTES (16U << 10)

static char *read_file(const char *dir, const char *name)
{
	g_autofree char *path = g_build_filename(dir, name, NULL);
	char *text = NULL;

	return g_file_get_contents(path, &text, NULL, NULL) ? text : NULL;
}

/* The number in a file of one number.  Return: false for "max", and where there is no such file. */
static bool read_limit(const char *dir, const char *name, uint64_t *value)
{
	g_autofree char *text = read_file(dir, name);

	return text && g_ascii_isdigit(*text) &&
	       g_ascii_string_to_unsigned(g_strchomp(text), 10, 0, UINT64_MAX, value, NULL);
}

/* The sum of the lines "NAME NUMBER", or "NAME: NUMBER", for every name in @names, which NULL ends. */
static uint64_t sum_lines(const char *text, const char *const *names)
{
	uint64_t sum = 0;

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		for (size_t i = 0; names[i]; i++) {
			const size_t len = strlen(names[i]);

			if (strncmp(line, names[i], len) == 0 && strchr(" :\t", line[len]))
				sum += g_ascii_strtoull(line + len + strspn(line + len, " :\t"),
							NULL, 10);
		}
	}
	return sum;
}

/* ---- one cgroup ---- */

static uint64_t swap_room(const char *dir, uint64_t free_bytes)
{
	uint64_t max, current = 0;

	if (!read_limit(dir, "memory.swap.max", &max))
		return free_bytes;
	(void)read_limit(dir, "memory.swap.current", &current);
	return MIN(free_bytes, max > current ? max - current : 0);
}

static uint64_t room_of(const char *dir, uint64_t max, uint64_t swap_bytes)
{
	static const char *const caches[] = {"inactive_file", "active_file", "slab_reclaimable",
					     NULL};
	g_autofree char *stat = read_file(dir, "memory.stat");
	const uint64_t cached = sum_lines(stat, caches);
	uint64_t used = 0;

	(void)read_limit(dir, "memory.current", &used);
	used -= MIN(used, cached);
	return (max > used ? max - used : 0) + swap_room(dir, swap_bytes);
}

struct memory_room memory_room_at(const char *top, const char *dir, uint64_t swap_bytes)
{
	struct memory_room tightest = {UINT64_MAX, NULL};
	g_autofree char *at = g_strdup(dir);

	while (g_str_has_prefix(at, top)) {
		uint64_t max, room;

		if (read_limit(at, "memory.max", &max)) {
			room = room_of(at, max, swap_bytes);
			if (room < tightest.bytes) {
				tightest.bytes = room;
				g_free(tightest.cgroup);
				tightest.cgroup = g_strdup(at);
			}
		}
		if (strlen(at) <= strlen(top))
			break;
		*strrchr(at, '/') = 0;
	}
	return tightest;
}

/* ---- where it is ---- */

/* Fields 4 and 5 of a line of mountinfo, if it is a cgroup2 one. */
static bool parse_mount(const char *line, char **root, char **mount)
{
	g_auto(GStrv) fields = g_strsplit(line, " ", 6);

	if (g_strv_length(fields) < 6 || !strstr(line, " - cgroup2 "))
		return false;
	*root = g_strcompress(fields[3]);
	*mount = g_strcompress(fields[4]);
	return true;
}

/* The path in the hierarchy: the line "0::/a/b". */
static char *own_path(const char *cgroup)
{
	const char *line = g_str_has_prefix(cgroup, "0::") ? cgroup : strstr(cgroup, "\n0::");

	if (!line)
		return NULL;
	line = strchr(line, '/');
	return line ? g_strndup(line, strcspn(line, "\n")) : NULL;
}

char *memory_room_dir(const char *mountinfo, const char *cgroup, char **top)
{
	g_auto(GStrv) lines = g_strsplit(mountinfo, "\n", -1);
	g_autofree char *path = own_path(cgroup);
	char *dir = NULL;

	for (char **line = lines; path && *line && !dir; line++) {
		g_autofree char *root = NULL;
		g_autofree char *mount = NULL;
		size_t skip;

		if (!parse_mount(*line, &root, &mount))
			continue;
		/* Of a container's mount the root may lie below the hierarchy's. */
		skip = strcmp(root, "/") == 0 ? 0 : strlen(root);
		if (g_str_has_prefix(path, "/..") || strncmp(path, root, skip) != 0 ||
		    (path[skip] && path[skip] != '/'))
			continue;
		dir = g_strconcat(mount, strcmp(path + skip, "/") == 0 ? "" : path + skip, NULL);
		*top = g_steal_pointer(&mount);
	}
	return dir;
}

struct memory_room memory_room_find(void)
{
	static const char *const swap_names[] = {"SwapFree", NULL};
	g_autofree char *mountinfo = read_file("/proc/self", "mountinfo");
	g_autofree char *cgroup = read_file("/proc/self", "cgroup");
	g_autofree char *meminfo = read_file("/proc", "meminfo");
	g_autofree char *top = NULL;
	g_autofree char *dir = NULL;

	if (mountinfo && cgroup)
		dir = memory_room_dir(mountinfo, cgroup, &top);
	if (!dir)
		return (struct memory_room){UINT64_MAX, NULL};
	return memory_room_at(top, dir, sum_lines(meminfo, swap_names) << 10);
}

/* ---- what a process takes ---- */

uint64_t memory_own_bytes(void)
{
	static const char *const sizes[] = {"RssAnon", "VmPTE", "VmSwap", NULL};
	static const char *const threads[] = {"Threads", NULL};
	g_autofree char *status = read_file("/proc/self", "status");

	return (sum_lines(status, sizes) << 10) + sum_lines(status, threads) * KERNEL_STACK_BYTES;
}
