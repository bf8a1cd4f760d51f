// Images: what is opened, what is refused and how it is said, locks, query-block.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block/block.h"
#include "base/fd.h"

static char *test_dir;

static char *image_make(const char *name, off_t size)
{
	char *path = g_build_filename(test_dir, name, NULL);
	autofd int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(ftruncate(fd, size), ==, 0);
	return path;
}

static struct block_config config_for(char *path)
{
	return (struct block_config){.node_name = (char *)"disk0", .filename = path};
}

static void test_measure(void)
{
	g_autofree char *path = image_make("plain", 1 << 20);
	struct block_config config = config_for(path);
	struct fd_source fds = {0};
	g_autoptr(GError) error = NULL;
	struct block_node *node = block_node_new(&config, &fds, &error);

	g_assert_no_error(error);
	g_assert_cmpuint(block_node_size_bytes(node), ==, 1 << 20);
	g_assert_cmpuint(block_node_sector_bytes(node), ==, 512);
	g_assert_cmpuint(block_node_align_bytes(node), ==, 512);
	g_assert_false(block_node_read_only(node));
	g_assert_cmpstr(block_node_name(node), ==, "disk0");
	g_assert_cmpstr(block_node_filename(node), ==, path);
	block_node_free(node);
	fd_source_clear(&fds);
}

struct refusal {
	const char *name;
	off_t size;
	bool missing, fifo, directory, host_device;
	mode_t mode;
	const char *says;
};

static void test_refused(void)
{
	static const struct refusal cases[] = {
		{.name = "absent", .missing = true, .says = "*absent*No such file*"},
		{.name = "empty", .size = 0, .says = "*empty*is empty*"},
		{.name = "odd", .size = 1000, .says = "*odd*1000 bytes*not a multiple of 512*"},
		{.name = "fifo", .fifo = true, .says = "*fifo*neither a regular file nor*"},
		{.name = "dir", .directory = true, .says = "*dir*neither a regular file nor*"},
		{.name = "nodev", .size = 512, .host_device = true, .says = "*not a block device*"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *path = g_build_filename(test_dir, cases[i].name, NULL);
		struct block_config config = config_for(path);
		g_autoptr(GError) error = NULL;
		struct fd_source fds = {0};

		config.host_device = cases[i].host_device;
		if (cases[i].fifo)
			g_assert_cmpint(mkfifo(path, 0600), ==, 0);
		else if (cases[i].directory)
			g_assert_cmpint(mkdir(path, 0700), ==, 0);
		else if (!cases[i].missing)
			g_free(image_make(cases[i].name, cases[i].size));
		g_assert_null(block_node_new(&config, &fds, &error));
		g_assert_nonnull(error);
		if (!g_pattern_match_simple(cases[i].says, error->message))
			g_error("%s: unexpected message: %s", cases[i].name, error->message);
		fd_source_clear(&fds);
	}
}

/* A second open of the same file is another open file description, as in another process. */
static void lock_pair(bool first_ro, bool second_ro, enum on_off_auto second, const char *says)
{
	g_autofree char *path = image_make("locked", 4096);
	struct block_config config = config_for(path);
	struct fd_source fds_a = {0}, fds_b = {0};
	g_autoptr(GError) error = NULL;
	autoptr(block_node) a = NULL;
	autoptr(block_node) b = NULL;

	config.read_only = first_ro;
	a = block_node_new(&config, &fds_a, &error);
	g_assert_no_error(error);
	config.read_only = second_ro;
	config.locking = second;
	b = block_node_new(&config, &fds_b, &error);
	if (!says) {
		g_assert_no_error(error);
	} else {
		g_assert_null(b);
		if (!g_pattern_match_simple(says, error->message))
			g_error("unexpected message: %s", error->message);
		g_assert_nonnull(strstr(error->message, path));
	}
	block_node_free(g_steal_pointer(&b));
	block_node_free(g_steal_pointer(&a));
	fd_source_clear(&fds_a);
	fd_source_clear(&fds_b);
}

static void test_locks(void)
{
	lock_pair(false, false, ON_OFF_AUTO, "*cannot lock*for writing*another process*");
	lock_pair(false, true, ON_OFF_AUTO, "*cannot lock*for reading*another process*");
	lock_pair(true, false, ON_OFF_ON, "*cannot lock*for writing*another process*");
	lock_pair(true, true, ON_OFF_AUTO, NULL);
	lock_pair(false, false, ON_OFF_OFF, NULL);
}

/* Another program's locks in the style of QEMU: one byte per permission. */
static void test_lock_bytes(void)
{
	struct flock writes = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
	g_autofree char *path = image_make("foreign", 4096);
	struct block_config config = config_for(path);
	autofd int fd = open(path, O_RDWR | O_CLOEXEC);
	g_autoptr(GError) error = NULL;
	struct fd_source fds = {0};

	g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &writes), ==, 0);
	config.read_only = true;
	g_assert_null(block_node_new(&config, &fds, &error));
	g_assert_nonnull(strstr(error->message, "another process"));
	g_clear_error(&error);
	config.read_only = false;
	g_assert_null(block_node_new(&config, &fds, &error));
	g_assert_nonnull(strstr(error->message, "another process"));
	fd_source_clear(&fds);
}

/* Hand the descriptor over; the lock must hold at every instant, also when the old one closes. */
static void test_lock_crosses(void)
{
	g_autofree char *path = image_make("crossing", 4096);
	struct block_config config = config_for(path);
	struct fd_source old_fds = {0}, new_fds = {0}, other_fds = {0};
	autoptr(fdstore) store = fdstore_new();
	g_autoptr(GError) error = NULL;
	struct block_node *old_node = block_node_new(&config, &old_fds, &error);
	struct block_node *new_node;

	g_assert_no_error(error);
	g_assert_true(fd_source_offer(&old_fds, store, NULL, NULL, &error));
	g_assert_nonnull(fdstore_find(store, "block/disk0"));
	new_fds.inherited = store;
	new_node = block_node_new(&config, &new_fds, &error);
	g_assert_no_error(error);
	g_assert_true(fdstore_finish(store, NULL, NULL, &error));
	fdstore_free(g_steal_pointer(&store));
	new_fds.inherited = NULL;

	g_assert_null(block_node_new(&config, &other_fds, NULL));
	block_node_free(old_node);
	g_assert_null(block_node_new(&config, &other_fds, NULL));
	block_node_free(new_node);
	new_node = block_node_new(&config, &other_fds, &error);
	g_assert_no_error(error);
	block_node_free(new_node);
	fd_source_clear(&old_fds);
	fd_source_clear(&new_fds);
	fd_source_clear(&other_fds);
}

static void test_inherited_mode(void)
{
	g_autofree char *path = image_make("mode", 4096);
	struct block_config config = config_for(path);
	struct fd_source old_fds = {0}, new_fds = {0};
	autoptr(fdstore) store = fdstore_new();
	g_autoptr(GError) error = NULL;
	struct block_node *node;

	config.read_only = true;
	node = block_node_new(&config, &old_fds, &error);
	g_assert_no_error(error);
	g_assert_true(fd_source_offer(&old_fds, store, NULL, NULL, &error));
	new_fds.inherited = store;
	config.read_only = false;
	g_assert_null(block_node_new(&config, &new_fds, &error));
	g_assert_nonnull(strstr(error->message, "read-only"));
	block_node_free(node);
	fd_source_clear(&old_fds);
	fd_source_clear(&new_fds);
}

static void test_attach(void)
{
	g_autofree char *path = image_make("attach", 4096);
	struct block_config config = config_for(path);
	struct fd_source fds = {0};
	g_autoptr(GError) error = NULL;
	struct block_node *node = block_node_new(&config, &fds, &error);

	g_assert_no_error(error);
	g_assert_true(block_node_attach(node, "vda", &error));
	g_assert_false(block_node_attach(node, "vdb", &error));
	g_assert_cmpstr(error->message, ==, "drive 'disk0' is already in use by 'vda'");
	block_node_detach(node);
	g_assert_true(block_node_attach(node, "vdb", NULL));
	block_node_free(node);
	fd_source_clear(&fds);
}

static void test_query(void)
{
	g_autofree char *path = image_make("query", 1 << 16);
	struct block_config config = config_for(path);
	struct fd_source fds = {0};
	struct block_node *node;
	json_t *info, *inserted;

	config.drive_id = (char *)"d0";
	config.read_only = true;
	node = block_node_new(&config, &fds, NULL);
	g_assert_nonnull(node);
	g_assert_true(block_node_attach(node, "vda", NULL));
	info = block_node_query_json(node);
	g_assert_cmpstr(json_string_value(json_object_get(info, "device")), ==, "d0");
	g_assert_cmpstr(json_string_value(json_object_get(info, "qdev")), ==, "vda");
	g_assert_true(json_is_false(json_object_get(info, "removable")));
	inserted = json_object_get(info, "inserted");
	g_assert_cmpstr(json_string_value(json_object_get(inserted, "file")), ==, path);
	g_assert_cmpstr(json_string_value(json_object_get(inserted, "node-name")), ==, "disk0");
	g_assert_cmpstr(json_string_value(json_object_get(inserted, "drv")), ==, "raw");
	g_assert_true(json_is_true(json_object_get(inserted, "ro")));
	g_assert_true(json_is_integer(json_object_get(inserted, "iops_wr")));
	g_assert_cmpint(json_integer_value(json_object_get(json_object_get(inserted, "image"),
							   "virtual-size")),
			==, 1 << 16);
	json_decref(info);
	block_node_free(node);
	fd_source_clear(&fds);
}

static void remove_dir(void)
{
	GDir *dir = g_dir_open(test_dir, 0, NULL);
	const char *name;

	while ((name = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(test_dir, name, NULL);

		g_remove(path);
	}
	g_dir_close(dir);
	g_rmdir(test_dir);
	g_free(test_dir);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	test_dir = g_dir_make_tmp("molt-block-XXXXXX", NULL);
	g_assert_nonnull(test_dir);
	g_test_add_func("/block/node/measure", test_measure);
	g_test_add_func("/block/node/refused", test_refused);
	g_test_add_func("/block/node/locks", test_locks);
	g_test_add_func("/block/node/lock-bytes", test_lock_bytes);
	g_test_add_func("/block/node/lock-crosses", test_lock_crosses);
	g_test_add_func("/block/node/inherited-mode", test_inherited_mode);
	g_test_add_func("/block/node/attach", test_attach);
	g_test_add_func("/block/node/query", test_query);
	result = g_test_run();
	remove_dir();
	return result;
}
