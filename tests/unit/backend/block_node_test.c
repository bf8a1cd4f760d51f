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

/* ---- locks ---- */

static const struct block_user user_vda = {.name = "vda"};
static const struct block_user user_sharing = {.name = "vda", .share_rw = true};

/** struct holder - A node with its descriptors, as in a process of its own */
struct holder {
	struct fd_source fds;
	struct block_node *node;
};

/* Return: whether @user got the image; a second open is another open file description. */
static bool hold(struct holder *h, struct block_config *config, bool read_only,
		 const struct block_user *user, GError **error)
{
	config->read_only = read_only;
	h->node = block_node_new(config, &h->fds, error);
	return h->node && block_node_attach(h->node, user, error);
}

static void let_go(struct holder *h)
{
	block_node_free(g_steal_pointer(&h->node));
	fd_source_clear(&h->fds);
}

/* Both open the same image, one after the other: what the second one hears. */
static void test_locks(void)
{
	static const struct {
		bool first_ro, first_shares, second_ro, second_shares;
		enum on_off_auto locking;
		const char *says; /* NULL: it gets the image */
	} cases[] = {
		{false, false, false, false, ON_OFF_AUTO,
		 "*cannot lock*for writing*another process*"},
		{false, false, true, false, ON_OFF_AUTO,
		 "*cannot lock*for reading*another process*"},
		{true, false, false, false, ON_OFF_ON, "*cannot lock*for writing*another process*"},
		{true, false, true, false, ON_OFF_AUTO, NULL},
		{false, false, false, false, ON_OFF_OFF, NULL},
		{false, true, false, false, ON_OFF_AUTO,
		 "*cannot lock*for writing*another process*"},
		{false, false, false, true, ON_OFF_AUTO,
		 "*cannot lock*for writing*another process*"},
		{false, true, false, true, ON_OFF_AUTO, NULL},
		{false, true, true, true, ON_OFF_AUTO, NULL},
		{false, true, true, false, ON_OFF_AUTO,
		 "*cannot lock*for reading*another process*"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *path = image_make("locked", 4096);
		struct block_config config = config_for(path);
		struct holder a = {0}, b = {0};
		g_autoptr(GError) error = NULL;

		g_assert_true(hold(&a, &config, cases[i].first_ro,
				   cases[i].first_shares ? &user_sharing : &user_vda, &error));
		config.locking = cases[i].locking;
		if (hold(&b, &config, cases[i].second_ro,
			 cases[i].second_shares ? &user_sharing : &user_vda,
			 &error) != !cases[i].says ||
		    (error && !g_pattern_match_simple(cases[i].says, error->message)))
			g_error("case %zu: %s", i, error ? error->message : "no message");
		let_go(&b);
		let_go(&a);
	}
}

/* The bytes that other programs look at: 100 + n for what is held, 200 + n for what is not shared. */
static void expect_locks(const char *path, const char *expected)
{
	g_autoptr(GString) seen = g_string_new("");
	autofd int fd = open(path, O_RDWR | O_CLOEXEC);

	for (int at = 0; at < 300; at++) {
		struct flock lock = {.l_type = F_WRLCK, .l_start = at, .l_len = 1};

		g_assert_cmpint(fcntl(fd, F_OFD_GETLK, &lock), ==, 0);
		if (lock.l_type != F_UNLCK)
			g_string_append_printf(seen, "%d%s ", at,
					       lock.l_type == F_RDLCK ? "r" : "w");
	}
	g_assert_cmpstr(seen->str, ==, expected);
}

static void test_lock_bytes(void)
{
	g_autofree char *path = image_make("bytes", 4096);
	struct block_config config = config_for(path);
	struct holder h = {0};

	/* As qemu-system-x86_64 7.2 does it: see /proc/locks beside one. */
	g_assert_true(hold(&h, &config, false, &user_vda, NULL));
	expect_locks(path, "100r 101r 201r ");
	/* While nobody is attached they stay; the next one has them as it wants them. */
	block_node_detach(h.node);
	expect_locks(path, "100r 101r 201r ");
	g_assert_true(block_node_attach(h.node, &user_sharing, NULL));
	expect_locks(path, "100r 101r ");
	let_go(&h);
	g_assert_true(hold(&h, &config, true, &user_vda, NULL));
	expect_locks(path, "100r 201r ");
	let_go(&h);
	expect_locks(path, "");
	/* An image that nobody works with is not locked. */
	config.read_only = false;
	h.node = block_node_new(&config, &h.fds, NULL);
	expect_locks(path, "");
	let_go(&h);
}

/* Who is refused leaves nothing behind on an image that stays open. */
static void test_lock_refused(void)
{
	g_autofree char *path = image_make("refused", 4096);
	struct block_config config = config_for(path);
	autofd int fd = open(path, O_RDWR | O_CLOEXEC);
	struct flock writes = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
	struct holder h = {0};

	g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &writes), ==, 0);
	g_assert_false(hold(&h, &config, false, &user_vda, NULL));
	writes.l_type = F_UNLCK;
	g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &writes), ==, 0);
	expect_locks(path, "");
	let_go(&h);
}

/* Hand the descriptor over; the lock must hold at every instant, also when the old one closes. */
static void test_lock_crosses(void)
{
	g_autofree char *path = image_make("crossing", 4096);
	struct block_config config = config_for(path);
	struct holder old = {0}, new = {0}, other = {0};
	autoptr(fdstore) store = fdstore_new();
	g_autoptr(GError) error = NULL;

	g_assert_true(hold(&old, &config, false, &user_vda, &error));
	g_assert_true(fd_source_offer(&old.fds, store, FD_WAY_EXEC, &error));
	g_assert_nonnull(fdstore_find(store, "block/disk0"));
	new.fds.inherited = store;
	g_assert_true(hold(&new, &config, false, &user_vda, &error));
	g_assert_true(fdstore_finish(store, NULL, NULL, &error));
	fdstore_free(g_steal_pointer(&store));
	new.fds.inherited = NULL;

	expect_locks(path, "100r 101r 201r ");
	g_assert_false(hold(&other, &config, false, &user_vda, NULL));
	let_go(&other);
	/* A successor that gives up takes nothing with it. */
	block_node_detach(new.node);
	expect_locks(path, "100r 101r 201r ");
	g_assert_true(block_node_attach(new.node, &user_vda, NULL));
	let_go(&old);
	g_assert_false(hold(&other, &config, false, &user_vda, NULL));
	let_go(&other);
	let_go(&new);
	g_assert_true(hold(&other, &config, false, &user_vda, &error));
	let_go(&other);
}

/* ---- images that change under a guest ---- */

/* An image is opened with care, and inherited as it is: a guest is using it. */
static void test_inherited_size(void)
{
	static const off_t sizes[] = {0, 100, 4096, 1 << 20};

	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		g_autofree char *path = image_make("inherited", 8192);
		struct block_config config = config_for(path);
		struct holder old = {0}, new = {0};
		autoptr(fdstore) store = fdstore_new();
		g_autoptr(GError) error = NULL;

		config.guess_raw = true;
		g_assert_true(hold(&old, &config, false, &user_vda, &error));
		g_assert_true(fd_source_offer(&old.fds, store, FD_WAY_EXEC, &error));
		g_assert_cmpint(truncate(path, sizes[i]), ==, 0);
		if (sizes[i])
			g_assert_true(g_file_set_contents_full(
				path, "QFI\xfb", 4, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
		new.fds.inherited = store;
		g_assert_true(hold(&new, &config, false, &user_vda, &error));
		g_assert_no_error(error);
		g_assert_cmpuint(block_node_size_bytes(new.node), ==, (sizes[i] + 511) & ~511);
		new.fds.inherited = NULL;
		let_go(&new);
		let_go(&old);
	}
}

static void note_size(void *opaque, uint64_t end_bytes)
{
	*(uint64_t *)opaque = end_bytes;
}

static void test_resize(void)
{
	g_autofree char *path = image_make("resize", 8192);
	struct block_config config = config_for(path);
	uint64_t told = 0;
	struct block_user user = {.name = "vda", .resized = note_size, .opaque = &told};
	g_autoptr(GError) error = NULL;
	struct holder h = {0};
	struct stat st;

	g_assert_true(hold(&h, &config, false, &user, &error));
	g_assert_true(block_node_resize(h.node, 1 << 20, &error));
	g_assert_cmpint(stat(path, &st), ==, 0);
	g_assert_cmpint(st.st_size, ==, 1 << 20);
	g_assert_cmpuint(told, ==, 1 << 20);
	/* The user says when. */
	g_assert_cmpuint(block_node_size_bytes(h.node), ==, 8192);
	block_node_set_end(h.node, told);
	g_assert_true(block_node_resize(h.node, 4096, &error));
	g_assert_cmpuint(told, ==, 4096);
	g_assert_false(block_node_resize(h.node, 0, NULL));
	g_assert_false(block_node_resize(h.node, UINT64_MAX, NULL));
	g_assert_cmpuint(told, ==, 4096);
	expect_locks(path, "100r 101r 201r ");
	/* Without a user the node itself takes it. */
	block_node_detach(h.node);
	g_assert_true(block_node_resize(h.node, 12288, &error));
	g_assert_cmpuint(block_node_size_bytes(h.node), ==, 12288);
	let_go(&h);
	g_assert_true(hold(&h, &config, true, &user, &error));
	g_assert_false(block_node_resize(h.node, 4096, &error));
	g_assert_nonnull(strstr(error->message, "read-only"));
	let_go(&h);
}

/* Somebody who relies on the size keeps it. */
static void test_resize_refused(void)
{
	struct flock fixed = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 203, .l_len = 1};
	g_autofree char *path = image_make("fixed", 8192);
	struct block_config config = config_for(path);
	autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
	g_autoptr(GError) error = NULL;
	struct holder h = {0};
	struct stat st;

	g_assert_true(hold(&h, &config, false, &user_vda, &error));
	g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &fixed), ==, 0);
	g_assert_false(block_node_resize(h.node, 4096, &error));
	g_assert_nonnull(strstr(error->message, "another process"));
	g_assert_cmpint(stat(path, &st), ==, 0);
	g_assert_cmpint(st.st_size, ==, 8192);
	let_go(&h);
}

/* ---- formats ---- */

static void test_formats(void)
{
	static const struct {
		const char *name;
		uint32_t at;
		const char *bytes;
		uint32_t len;
	} cases[] = {
		{"qcow2", 0, "QFI\xfb\0\0\0\3", 8},
		{"qed", 0, "QED\0", 4},
		{"vmdk", 0, "KDMV", 4},
		{"vmdk", 0, "COWD", 4},
		{"vmdk", 0, "# Disk DescriptorFile\nversion=1", 31},
		{"vdi", 64, "\x7f\x10\xda\xbe", 4},
		{"vhdx", 0, "vhdxfile", 8},
		{"vpc", 0, "conectix", 8},
		{"luks", 0, "LUKS\xba\xbe", 6},
		{"parallels", 0, "WithoutFreeSpace", 16},
		{"parallels", 0, "WithouFreSpacExt", 16},
		{"bochs", 0, "Bochs Virtual HD Image", 22},
		{"cloop", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0", 45},
		{"dmg", 8192 + 100 - 512, "koly", 4},
		/* Not one of them. */
		{NULL, 0, "\xeb\x63\x90", 3},
		{NULL, 1, "QFI\xfb", 4},
		{NULL, 0, "koly", 4},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *path = image_make("format", 8192 + 100);
		struct block_config config = config_for(path);
		autofd int fd = open(path, O_RDWR | O_CLOEXEC);
		g_autoptr(GError) error = NULL;
		struct holder h = {0};

		g_assert_cmpint(pwrite(fd, cases[i].bytes, cases[i].len, cases[i].at), ==,
				cases[i].len);
		config.guess_raw = true;
		g_assert_cmpint(hold(&h, &config, false, &user_vda, &error), ==, !cases[i].name);
		if (cases[i].name) {
			g_autofree char *says =
				g_strdup_printf("looks like a %s image", cases[i].name);

			g_assert_nonnull(strstr(error->message, says));
			g_assert_nonnull(strstr(error->message, "format=raw"));
		}
		let_go(&h);
		config.guess_raw = false;
		g_assert_true(hold(&h, &config, false, &user_vda, NULL));
		let_go(&h);
	}
}

/* ---- errors ---- */

static void test_error_actions(void)
{
	static const struct {
		enum block_on_error drive, device;
		bool read;
		int err;
		enum block_action action;
	} cases[] = {
		{BLOCK_ON_ERROR_AUTO, BLOCK_ON_ERROR_AUTO, false, ENOSPC, BLOCK_ACTION_STOP},
		{BLOCK_ON_ERROR_AUTO, BLOCK_ON_ERROR_AUTO, false, EIO, BLOCK_ACTION_REPORT},
		{BLOCK_ON_ERROR_AUTO, BLOCK_ON_ERROR_AUTO, true, EIO, BLOCK_ACTION_REPORT},
		{BLOCK_ON_ERROR_AUTO, BLOCK_ON_ERROR_AUTO, true, ENOSPC, BLOCK_ACTION_REPORT},
		{BLOCK_ON_ERROR_STOP, BLOCK_ON_ERROR_AUTO, false, EIO, BLOCK_ACTION_STOP},
		{BLOCK_ON_ERROR_STOP, BLOCK_ON_ERROR_AUTO, true, EIO, BLOCK_ACTION_STOP},
		{BLOCK_ON_ERROR_IGNORE, BLOCK_ON_ERROR_AUTO, false, ENOSPC, BLOCK_ACTION_IGNORE},
		{BLOCK_ON_ERROR_REPORT, BLOCK_ON_ERROR_AUTO, false, ENOSPC, BLOCK_ACTION_REPORT},
		{BLOCK_ON_ERROR_REPORT, BLOCK_ON_ERROR_STOP, false, EIO, BLOCK_ACTION_STOP},
		{BLOCK_ON_ERROR_STOP, BLOCK_ON_ERROR_REPORT, true, EIO, BLOCK_ACTION_REPORT},
		{BLOCK_ON_ERROR_STOP, BLOCK_ON_ERROR_ENOSPC, true, EIO, BLOCK_ACTION_REPORT},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *path = image_make("errors", 4096);
		struct block_config config = config_for(path);
		struct block_user user = {.name = "vda"};
		struct holder h = {0};

		*(cases[i].read ? &config.rerror : &config.werror) = cases[i].drive;
		*(cases[i].read ? &user.rerror : &user.werror) = cases[i].device;
		g_assert_true(hold(&h, &config, false, &user, NULL));
		g_assert_cmpint(block_node_error_action(h.node, cases[i].read, cases[i].err), ==,
				cases[i].action);
		let_go(&h);
	}
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
	g_assert_true(fd_source_offer(&old_fds, store, FD_WAY_EXEC, &error));
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
	g_assert_true(block_node_attach(node, &user_vda, &error));
	g_assert_false(block_node_attach(node, &user_sharing, &error));
	g_assert_cmpstr(error->message, ==, "drive 'disk0' is already in use by 'vda'");
	block_node_detach(node);
	g_assert_true(block_node_attach(node, &user_sharing, NULL));
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
	g_assert_true(block_node_attach(node, &user_vda, NULL));
	info = block_node_query_json(node);
	g_assert_cmpstr(json_string_value(json_object_get(info, "device")), ==, "d0");
	g_assert_cmpstr(json_string_value(json_object_get(info, "qdev")), ==, "vda");
	g_assert_true(json_is_false(json_object_get(info, "removable")));
	g_assert_cmpstr(json_string_value(json_object_get(info, "io-status")), ==, "ok");
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
	block_node_set_io_status(node, BLOCK_IO_NOSPACE);
	info = block_node_query_json(node);
	g_assert_cmpstr(json_string_value(json_object_get(info, "io-status")), ==, "nospace");
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
	g_test_add_func("/block/node/lock-refused", test_lock_refused);
	g_test_add_func("/block/node/lock-crosses", test_lock_crosses);
	g_test_add_func("/block/node/inherited-size", test_inherited_size);
	g_test_add_func("/block/node/resize", test_resize);
	g_test_add_func("/block/node/resize-refused", test_resize_refused);
	g_test_add_func("/block/node/formats", test_formats);
	g_test_add_func("/block/node/error-actions", test_error_actions);
	g_test_add_func("/block/node/inherited-mode", test_inherited_mode);
	g_test_add_func("/block/node/attach", test_attach);
	g_test_add_func("/block/node/query", test_query);
	result = g_test_run();
	remove_dir();
	return result;
}
