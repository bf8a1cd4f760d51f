// RAM blocks: kinds of backing, size checks, seals, and inheriting a predecessor's memory.
// SPDX-License-Identifier: Apache-2.0
#include "memory/ram.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <glib/gstdio.h>

#include "base/fd.h"
#include "state/fdstore.h"

#define MIB (1ULL << 20)

static struct memory_backend_config memfd_config(uint64_t size_bytes)
{
	return (struct memory_backend_config){
		.kind = MEMORY_BACKEND_MEMFD,
		.id = (char *)"m0",
		.size_bytes = size_bytes,
		.share = true,
		.seal = true,
		.merge = true,
		.dump = true,
	};
}

/* A source as a successor of @old has it. */
static struct fdstore *inherit(struct fd_source *old, struct fd_source *next)
{
	struct fdstore *store = fdstore_new();

	g_assert_true(fd_source_offer(old, store, FD_WAY_EXEC, NULL));
	next->inherited = store;
	return store;
}

static uint64_t resident_bytes(const struct ram_block *block)
{
	struct stat st;

	g_assert_cmpint(fstat(block->fd, &st), ==, 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_private(void)
{
	struct memory_backend_config config = {
		.kind = MEMORY_BACKEND_RAM, .id = (char *)"pc.ram", .size_bytes = 4 * MIB};
	struct fd_source fds = {0};
	g_autoptr(GError) error = NULL;
	autoptr(ram_block) block = ram_block_new(&config, &fds, &error);

	g_assert_no_error(error);
	g_assert_cmpint(block->fd, ==, -1);
	g_assert_false(block->shared);
	g_assert_cmpuint((uintptr_t)block->host % (2 * MIB), ==, 0);
	block->host[4 * MIB - 1] = 1;
	g_assert_false(ram_block_preservable(block, &error));
	g_assert_nonnull(strstr(error->message, "'pc.ram' is private"));
	g_assert_nonnull(strstr(error->message, "share=on"));
	g_assert_null(fds.live);
	g_assert_true(ram_block_populate(block, NULL, NULL));
}

static void test_shared_ram_is_a_memfd(void)
{
	struct memory_backend_config config = {.kind = MEMORY_BACKEND_RAM,
					       .id = (char *)"pc.ram",
					       .size_bytes = 2 * MIB,
					       .share = true};
	struct fd_source fds = {0};
	autoptr(ram_block) block = ram_block_new(&config, &fds, NULL);

	g_assert_nonnull(block);
	g_assert_cmpint(fcntl(block->fd, F_GET_SEALS) & F_SEAL_SHRINK, ==, F_SEAL_SHRINK);
	g_assert_true(ram_block_preservable(block, NULL));
	g_assert_true(g_hash_table_contains(fds.live, "ram/pc.ram"));
	g_clear_pointer(&block, ram_block_free);
	g_assert_false(g_hash_table_contains(fds.live, "ram/pc.ram"));
	fd_source_clear(&fds);
}

static void test_memfd_is_sealed(void)
{
	struct memory_backend_config config = memfd_config(2 * MIB);
	struct fd_source fds = {0};
	autoptr(ram_block) block = ram_block_new(&config, &fds, NULL);

	g_assert_nonnull(block);
	g_assert_cmpint(ftruncate(block->fd, (off_t)MIB), ==, -1);
	g_assert_cmpint(ftruncate(block->fd, (off_t)(4 * MIB)), ==, -1);
	g_assert_cmpint(fcntl(block->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), ==, -1);
	g_assert_cmpint(fcntl(block->fd, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
	g_assert_cmpuint(block->page_size_bytes, ==, (uint64_t)sysconf(_SC_PAGESIZE));
	g_clear_pointer(&block, ram_block_free);
	fd_source_clear(&fds);
}

static void test_inherited(void)
{
	struct memory_backend_config config = memfd_config(8 * MIB);
	struct fd_source old_fds = {0}, new_fds = {0};
	autoptr(ram_block) old = ram_block_new(&config, &old_fds, NULL);
	autoptr(fdstore) store = NULL;
	autoptr(ram_block) next = NULL;

	memcpy(old->host + 3 * MIB, "still here", 11);
	g_assert_false(old->inherited);
	store = inherit(&old_fds, &new_fds);
	next = ram_block_new(&config, &new_fds, NULL);
	g_assert_nonnull(next);
	g_assert_true(next->inherited);
	g_assert_true(fdstore_finish(store, NULL, NULL, NULL));
	g_assert_cmpstr((const char *)next->host + 3 * MIB, ==, "still here");
	next->host[0] = 0x5a;
	g_assert_cmpuint(old->host[0], ==, 0x5a);
	/* populating maps what is there and allocates nothing */
	g_assert_cmpuint(resident_bytes(next), <, MIB);
	g_assert_true(ram_block_populate(next, NULL, NULL));
	g_assert_cmpuint(resident_bytes(next), <, MIB);
	g_assert_false(ram_block_populate(next, &(const bool){true}, NULL));
	/* the old one's fills the holes */
	g_assert_true(ram_block_populate(old, NULL, NULL));
	g_assert_cmpuint(resident_bytes(old), ==, 8 * MIB);
	g_assert_cmpstr((const char *)old->host + 3 * MIB, ==, "still here");
	g_clear_pointer(&old, ram_block_free);
	g_assert_cmpuint(next->host[0], ==, 0x5a);
	g_clear_pointer(&next, ram_block_free);
	fd_source_clear(&old_fds);
	fd_source_clear(&new_fds);
}

/* Whether this process has a page-table entry for it (Documentation/admin-guide/mm/pagemap.rst). */
static bool is_mapped(int pagemap, const uint8_t *page)
{
	uint64_t entry;

	g_assert_cmpint(pread(pagemap, &entry, sizeof(entry),
			      (off_t)((uintptr_t)page / 4096 * sizeof(entry))),
			==, sizeof(entry));
	return entry >> 63;
}

/* All of it, also what lies beside a hole or across what one fault maps. */
static void test_populates_what_is_there(void)
{
	struct memory_backend_config config = memfd_config(8 * MIB);
	struct fd_source old_fds = {0}, new_fds = {0};
	autoptr(ram_block) old = ram_block_new(&config, &old_fds, NULL);
	autoptr(ram_block) next = NULL;
	autoptr(fdstore) store = NULL;
	g_autoptr(GRand) random = g_rand_new_with_seed(1);
	bool there[8 * MIB / 4096];
	autofd int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	g_assert_cmpint(pagemap, >=, 0);
	for (size_t i = 0, end = 0; i < G_N_ELEMENTS(there); i++) {
		there[i] = i == 0 || (i == end) != there[i - 1];
		if (i == end)
			end += (size_t)g_rand_int_range(random, 1, 40);
		if (there[i])
			old->host[i * 4096] = 1;
	}
	store = inherit(&old_fds, &new_fds);
	next = ram_block_new(&config, &new_fds, NULL);
	g_assert_nonnull(next);
	g_assert_true(fdstore_finish(store, NULL, NULL, NULL));
	g_assert_true(ram_block_populate(next, NULL, NULL));
	for (size_t i = 0; i < G_N_ELEMENTS(there); i++)
		g_assert_true(!there[i] || is_mapped(pagemap, next->host + i * 4096));
	g_clear_pointer(&old, ram_block_free);
	g_clear_pointer(&next, ram_block_free);
	fd_source_clear(&old_fds);
	fd_source_clear(&new_fds);
}

static void test_inherited_of_another_size(void)
{
	struct memory_backend_config config = memfd_config(8 * MIB);
	struct fd_source old_fds = {0}, new_fds = {0};
	autoptr(ram_block) old = ram_block_new(&config, &old_fds, NULL);
	g_autoptr(GError) error = NULL;
	autoptr(fdstore) store = inherit(&old_fds, &new_fds);

	g_assert_cmpuint(fdstore_count(store), ==, 1);
	config.size_bytes = 4 * MIB;
	g_assert_null(ram_block_new(&config, &new_fds, &error));
	g_assert_nonnull(strstr(error->message, "8388608"));
	g_assert_nonnull(strstr(error->message, "4194304"));
	g_assert_nonnull(strstr(error->message, "predecessor"));
	g_clear_pointer(&old, ram_block_free);
	fd_source_clear(&old_fds);
	fd_source_clear(&new_fds);
}

static void test_prealloc(void)
{
	struct memory_backend_config config = memfd_config(4 * MIB);
	autoptr(ram_block) block = NULL;

	config.prealloc = true;
	block = ram_block_new(&config, NULL, NULL);
	g_assert_nonnull(block);
	g_assert_cmpuint(resident_bytes(block), ==, 4 * MIB);
}

static void test_private_memfd(void)
{
	struct memory_backend_config config = memfd_config(2 * MIB);
	autoptr(ram_block) block = NULL;
	uint8_t byte = 0xff;

	config.share = false;
	block = ram_block_new(&config, NULL, NULL);
	g_assert_nonnull(block);
	block->host[0] = 1;
	g_assert_cmpint(pread(block->fd, &byte, 1, 0), ==, 1);
	g_assert_cmpuint(byte, ==, 0);
	g_assert_false(ram_block_preservable(block, NULL));
}

static void test_odd_size(void)
{
	struct memory_backend_config config = memfd_config(2 * MIB + 1);
	g_autoptr(GError) error = NULL;

	g_assert_null(ram_block_new(&config, NULL, &error));
	g_assert_nonnull(strstr(error->message, "2097153"));
	g_assert_nonnull(strstr(error->message, "page size"));
	g_clear_error(&error);
	config.size_bytes = UINT64_MAX & ~4095ULL;
	g_assert_null(ram_block_new(&config, NULL, &error));
	g_assert_nonnull(error);
}

/* ---- files ---- */

struct file_fixture {
	char *dir;
	char *path;
	struct memory_backend_config config;
};

static void file_setup(struct file_fixture *f, gconstpointer unused)
{
	(void)unused;
	f->dir = g_dir_make_tmp("molt-ram-test-XXXXXX", NULL);
	g_assert_nonnull(f->dir);
	f->path = g_build_filename(f->dir, "ram", NULL);
	f->config = memfd_config(2 * MIB);
	f->config.kind = MEMORY_BACKEND_FILE;
	f->config.mem_path = f->path;
}

static void file_teardown(struct file_fixture *f, gconstpointer unused)
{
	(void)unused;
	g_unlink(f->path);
	g_assert_cmpint(g_rmdir(f->dir), ==, 0);
	g_free(f->path);
	g_free(f->dir);
}

static void file_make(const char *path, uint64_t size)
{
	autofd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(ftruncate(fd, (off_t)size), ==, 0);
}

static uint64_t file_size(const char *path)
{
	struct stat st;

	g_assert_cmpint(stat(path, &st), ==, 0);
	return (uint64_t)st.st_size;
}

static void test_file_new(struct file_fixture *f, gconstpointer unused)
{
	autoptr(ram_block) block = ram_block_new(&f->config, NULL, NULL);
	uint8_t byte = 0;

	(void)unused;
	g_assert_nonnull(block);
	g_assert_cmpuint(file_size(f->path), ==, 2 * MIB);
	block->host[5] = 0x77;
	g_assert_cmpint(pread(block->fd, &byte, 1, 5), ==, 1);
	g_assert_cmpuint(byte, ==, 0x77);
	g_assert_true(ram_block_preservable(block, NULL));
}

static void test_file_empty_is_sized(struct file_fixture *f, gconstpointer unused)
{
	autoptr(ram_block) block = NULL;

	(void)unused;
	file_make(f->path, 0);
	block = ram_block_new(&f->config, NULL, NULL);
	g_assert_nonnull(block);
	g_assert_cmpuint(file_size(f->path), ==, 2 * MIB);
}

static void test_file_too_small(struct file_fixture *f, gconstpointer unused)
{
	g_autoptr(GError) error = NULL;

	(void)unused;
	file_make(f->path, MIB);
	g_assert_null(ram_block_new(&f->config, NULL, &error));
	g_assert_nonnull(strstr(error->message, "1048576"));
	g_assert_nonnull(strstr(error->message, "2097152"));
	g_assert_nonnull(strstr(error->message, f->path));
	g_assert_cmpuint(file_size(f->path), ==, MIB);
}

static void test_file_larger(struct file_fixture *f, gconstpointer unused)
{
	autoptr(ram_block) block = NULL;

	(void)unused;
	file_make(f->path, 3 * MIB);
	block = ram_block_new(&f->config, NULL, NULL);
	g_assert_nonnull(block);
	g_assert_cmpuint(file_size(f->path), ==, 3 * MIB);
}

/* One guest at a time: who opens it by name is not its successor, even with nothing in it yet. */
static void test_file_of_another(struct file_fixture *f, gconstpointer unused)
{
	struct fd_source old_fds = {0}, new_fds = {0};
	autoptr(ram_block) block = ram_block_new(&f->config, &old_fds, NULL);
	autoptr(fdstore) store = NULL;
	autoptr(ram_block) next = NULL;
	g_autoptr(GError) error = NULL;

	(void)unused;
	g_assert_nonnull(block);
	g_assert_null(ram_block_new(&f->config, NULL, &error));
	g_assert_nonnull(strstr(error->message, f->path));
	g_assert_nonnull(strstr(error->message, "is in use by another process"));
	g_clear_error(&error);
	/* its own descriptor goes on, and what that leaves is held as before */
	store = inherit(&old_fds, &new_fds);
	next = ram_block_new(&f->config, &new_fds, &error);
	g_assert_no_error(error);
	g_assert_true(next->inherited);
	g_assert_true(fdstore_finish(store, NULL, NULL, NULL));
	g_clear_pointer(&store, fdstore_free);
	new_fds.inherited = NULL;
	g_clear_pointer(&block, ram_block_free);
	g_assert_null(ram_block_new(&f->config, NULL, NULL));
	g_clear_pointer(&next, ram_block_free);
	block = ram_block_new(&f->config, NULL, &error);
	g_assert_no_error(error);
	g_clear_pointer(&block, ram_block_free);
	fd_source_clear(&old_fds);
	fd_source_clear(&new_fds);
}

/* Refused before anything is done to it. */
static void test_file_of_another_is_not_resized(struct file_fixture *f, gconstpointer unused)
{
	autofd int fd = -1;

	(void)unused;
	file_make(f->path, 0);
	fd = open(f->path, O_RDWR | O_CLOEXEC);
	g_assert_cmpint(fd_lock(fd, F_WRLCK), ==, 0);
	g_assert_null(ram_block_new(&f->config, NULL, NULL));
	g_assert_cmpuint(file_size(f->path), ==, 0);
}

/* What is written stays private, so any number may begin with what a file holds. */
static void test_file_private(struct file_fixture *f, gconstpointer unused)
{
	autoptr(ram_block) shared = ram_block_new(&f->config, NULL, NULL);
	autoptr(ram_block) first = NULL;
	autoptr(ram_block) second = NULL;

	(void)unused;
	g_assert_nonnull(shared);
	f->config.share = false;
	first = ram_block_new(&f->config, NULL, NULL);
	second = ram_block_new(&f->config, NULL, NULL);
	g_assert_nonnull(first);
	g_assert_nonnull(second);
	first->host[0] = 1;
	g_assert_cmpuint(shared->host[0] + second->host[0], ==, 0);
}

static void test_file_in_directory(struct file_fixture *f, gconstpointer unused)
{
	autoptr(ram_block) block = NULL;
	g_autoptr(GDir) dir = NULL;
	struct stat st;

	(void)unused;
	f->config.mem_path = f->dir;
	block = ram_block_new(&f->config, NULL, NULL);
	g_assert_nonnull(block);
	g_assert_cmpint(fstat(block->fd, &st), ==, 0);
	g_assert_cmpint(st.st_nlink, ==, 0);
	dir = g_dir_open(f->dir, 0, NULL);
	g_assert_null(g_dir_read_name(dir));
}

static void test_file_nowhere(struct file_fixture *f, gconstpointer unused)
{
	g_autofree char *path = g_build_filename(f->dir, "no", "such", NULL);
	g_autoptr(GError) error = NULL;

	(void)unused;
	f->config.mem_path = path;
	g_assert_null(ram_block_new(&f->config, NULL, &error));
	g_assert_nonnull(strstr(error->message, path));
	g_assert_nonnull(strstr(error->message, "No such file"));
}

#define ADD_FILE(name, fn) \
	g_test_add("/memory/ram/" name, struct file_fixture, NULL, file_setup, fn, file_teardown)

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/memory/ram/private", test_private);
	g_test_add_func("/memory/ram/shared_ram_is_a_memfd", test_shared_ram_is_a_memfd);
	g_test_add_func("/memory/ram/memfd_is_sealed", test_memfd_is_sealed);
	g_test_add_func("/memory/ram/inherited", test_inherited);
	g_test_add_func("/memory/ram/populates_what_is_there", test_populates_what_is_there);
	g_test_add_func("/memory/ram/inherited_of_another_size", test_inherited_of_another_size);
	g_test_add_func("/memory/ram/prealloc", test_prealloc);
	g_test_add_func("/memory/ram/private_memfd", test_private_memfd);
	g_test_add_func("/memory/ram/odd_size", test_odd_size);
	ADD_FILE("file_new", test_file_new);
	ADD_FILE("file_empty_is_sized", test_file_empty_is_sized);
	ADD_FILE("file_too_small", test_file_too_small);
	ADD_FILE("file_larger", test_file_larger);
	ADD_FILE("file_of_another", test_file_of_another);
	ADD_FILE("file_of_another_is_not_resized", test_file_of_another_is_not_resized);
	ADD_FILE("file_private", test_file_private);
	ADD_FILE("file_in_directory", test_file_in_directory);
	ADD_FILE("file_nowhere", test_file_nowhere);
	return g_test_run();
}
