// Room below the memory limits of cgroups: every ancestor, what can be reclaimed, what is seen of them.
// SPDX-License-Identifier: Apache-2.0
#include "base/memory_room.h"

#include <glib/gstdio.h>

static void put(const char *top, const char *name, const char *text)
{
	g_autofree char *path = g_build_filename(top, name, NULL);
	g_autofree char *dir = g_path_get_dirname(path);

	g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
	g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void drop(const char *top)
{
	const char *argv[] = {"rm", "-r", top, NULL};

	g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL,
				   NULL, NULL, NULL));
}

static void test_ancestors(void)
{
	g_autofree char *top = g_dir_make_tmp("molt-room-XXXXXX", NULL);
	g_autofree char *dir = g_build_filename(top, "a", "b", NULL);
	g_autofree char *middle = g_build_filename(top, "a", NULL);
	struct memory_room room;

	put(top, "a/b/memory.max", "max\n");
	room = memory_room_at(top, dir, 0);
	g_assert_null(room.cgroup);
	put(top, "a/b/memory.max", "9000\n");
	put(top, "a/b/memory.current", "1000\n");
	put(top, "a/memory.max", "5000\n");
	put(top, "a/memory.current", "4500\n");
	put(top, "a/memory.stat",
	    "anon 10\nfile 4000\nshmem 3000\ninactive_file 200\nactive_file 50\n"
	    "slab_reclaimable 7\nslab_unreclaimable 3\n");
	room = memory_room_at(top, dir, 0);
	g_assert_cmpstr(room.cgroup, ==, middle);
	g_assert_cmpuint(room.bytes, ==, 500 + 257);
	g_free(room.cgroup);
	/* One that has been lowered below what is charged has none. */
	put(top, "a/memory.max", "4000\n");
	room = memory_room_at(top, dir, 0);
	g_assert_cmpuint(room.bytes, ==, 0);
	g_free(room.cgroup);
	drop(top);
}

static void test_swap(void)
{
	g_autofree char *top = g_dir_make_tmp("molt-room-XXXXXX", NULL);
	struct memory_room room;

	put(top, "memory.max", "5000\n");
	put(top, "memory.current", "4000\n");
	put(top, "memory.swap.max", "max\n");
	room = memory_room_at(top, top, 100);
	g_assert_cmpuint(room.bytes, ==, 1100);
	g_free(room.cgroup);
	put(top, "memory.swap.max", "70\n");
	put(top, "memory.swap.current", "50\n");
	room = memory_room_at(top, top, 100);
	g_assert_cmpuint(room.bytes, ==, 1020);
	g_free(room.cgroup);
	drop(top);
}

static void assert_dir(const char *mountinfo, const char *cgroup, const char *expected)
{
	g_autofree char *top = NULL;
	g_autofree char *dir = memory_room_dir(mountinfo, cgroup, &top);

	g_assert_cmpstr(dir, ==, expected);
	g_assert_true(!dir || g_str_has_prefix(dir, top));
}

static void test_where(void)
{
	static const char hybrid[] = "20 1 0:19 / /sys rw - sysfs sysfs rw\n"
				     "30 20 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
				     "31 30 0:27 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 c rw\n";
	static const char part[] = "31 30 0:27 /pod/x /sys/fs/cgroup ro shared:1 - cgroup2 c rw\n";

	assert_dir(hybrid, "1:name=systemd:/a\n0::/a/b\n", "/sys/fs/cgroup/uni fied/a/b");
	assert_dir(hybrid, "0::/\n", "/sys/fs/cgroup/uni fied");
	assert_dir(part, "0::/pod/x/y\n", "/sys/fs/cgroup/y");
	assert_dir(part, "0::/pod/x\n", "/sys/fs/cgroup");
	assert_dir(part, "0::/pod/xy\n", NULL);
	assert_dir(part, "0::/../z\n", NULL);
	assert_dir(part, "4:memory:/pod/x\n", NULL);
	assert_dir("", "0::/\n", NULL);
}

static void test_own(void)
{
	g_assert_cmpuint(memory_own_bytes(), >, 64 << 10);
	g_assert_cmpuint(memory_own_bytes(), <, 1ULL << 40);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/base/memory_room/ancestors", test_ancestors);
	g_test_add_func("/base/memory_room/swap", test_swap);
	g_test_add_func("/base/memory_room/where", test_where);
	g_test_add_func("/base/memory_room/own", test_own);
	return g_test_run();
}
