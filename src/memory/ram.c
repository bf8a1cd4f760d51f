// RAM blocks: host memory by a stable name, shared with a successor through its descriptor.
// SPDX-License-Identifier: Apache-2.0
#include "memory/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>
#include <linux/memfd.h>

#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"

#define RAM_ALIGN_BYTES (2ULL << 20)
/* Small pieces: a kernel that is not preemptible keeps guest and monitors waiting for each. */
#define RAM_POPULATE_BYTES   (1ULL << 20)
#define RAM_SMALL_PAGE_BYTES 4096ULL
/* do_fault_around() in the kernel's mm/memory.c; if debugfs was used to change it, some pages fault later. */
#define FAULT_AROUND_BYTES 65536ULL

/**
 * struct ram_open - fd_acquire()'s argument
 * @config:	The backend
 * @opened:	The open function was called: there was no predecessor's descriptor
 */
struct ram_open {
	const struct memory_backend_config *config;
	bool opened;
};

/* ---- opening ---- */

static int ram_open_memfd(const struct memory_backend_config *config, GError **error)
{
	unsigned int flags = config->hugetlb ? MFD_HUGETLB : 0;
	autofd int fd = -1;

	if (config->hugetlb && config->hugetlbsize_bytes)
		flags |= (unsigned int)__builtin_ctzll(config->hugetlbsize_bytes) << MFD_HUGE_SHIFT;
	fd = file_make_memfd(config->id, flags);
	if (fd < 0) {
		error_set_errno(error, errno, "'%s': memfd_create%s", config->id,
				config->hugetlb ? " with this huge page size" : "");
		return -1;
	}
	if (ftruncate(fd, (off_t)config->size_bytes) < 0) {
		error_set_errno(error, errno, "'%s': %" PRIu64 " bytes", config->id,
				config->size_bytes);
		return -1;
	}
	if ((config->seal || config->kind == MEMORY_BACKEND_RAM) &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		error_set_errno(error, errno, "'%s': sealing the memfd", config->id);
		return -1;
	}
	return fd_steal(&fd);
}

static int ram_open_path(const char *path, struct file_made *made, GError **error)
{
	if (g_file_test(path, G_FILE_TEST_IS_DIR))
		return file_make_nameless(path, error);
	/* FILE_STREAM for a DAX device; ram_check_fd() refuses the rest. */
	return file_make(path, FILE_READ | FILE_STREAM, made, error);
}

/*
 * Of those who may write into a file's pages one at a time has it.  The lock crosses with the descriptor, so
 * whoever opens the file by its name while a guest has it, be it a rehearsal that does not know that it is
 * one, is not that guest's successor.
 */
static bool ram_lock_file(const struct memory_backend_config *config, int fd, GError **error)
{
	if (!config->share || fd_lock(fd, F_WRLCK) != EAGAIN)
		return true; /* or the file system has no locks */
	return error_set_generic(
		error,
		"RAM file '%s' is in use by another process; end that one, or give "
		"'%s' another file",
		config->mem_path, config->id);
}

static int ram_open_file(const struct memory_backend_config *config, GError **error)
{
	struct file_made made = {0};
	autofd int fd = ram_open_path(config->mem_path, &made, error);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		g_prefix_error(error, "'%s': ", config->id);
		return -1;
	}
	if (!ram_lock_file(config, fd, error)) {
		file_made_clear(&made); /* whoever came between has it now */
		return -1;
	}
	/* The size of a file with content is checked where an inherited one's is. */
	if (S_ISREG(st.st_mode) && st.st_size == 0 &&
	    ftruncate(fd, (off_t)config->size_bytes) < 0) {
		error_set_errno(error, errno, "'%s': %s: resizing to %" PRIu64 " bytes", config->id,
				config->mem_path, config->size_bytes);
		file_unmake(&made);
		return -1;
	}
	file_made_clear(&made);
	return fd_steal(&fd);
}

static int ram_open_fd(void *arg, GError **error)
{
	struct ram_open *open = arg;

	open->opened = true;
	if (open->config->kind == MEMORY_BACKEND_FILE)
		return ram_open_file(open->config, error);
	return ram_open_memfd(open->config, error);
}

/* ---- checking ---- */

static bool ram_page_size(struct ram_block *block, GError **error)
{
	struct statfs fs;

	block->page_size_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	if (block->fd >= 0) {
		if (fstatfs(block->fd, &fs) < 0)
			return error_set_errno(error, errno, "'%s': statfs", block->name);
		if (fs.f_type == HUGETLBFS_MAGIC)
			block->page_size_bytes = (uint64_t)fs.f_bsize;
		else if (block->shared && fs.f_type == TMPFS_MAGIC) /* and every memfd */
			block->fault_bytes = FAULT_AROUND_BYTES;
	}
	block->fault_bytes = MAX(block->fault_bytes, block->page_size_bytes);
	if (block->size_bytes == 0 || block->size_bytes % block->page_size_bytes)
		return error_set_generic(error,
					 "'%s': its size of %" PRIu64
					 " bytes is not a multiple of the page size of %" PRIu64,
					 block->name, block->size_bytes, block->page_size_bytes);
	return true;
}

/* The same for a file that was just opened and a descriptor that a predecessor handed over. */
static bool ram_check_fd(const struct ram_block *block, const struct memory_backend_config *config,
			 GError **error)
{
	bool is_file = config->kind == MEMORY_BACKEND_FILE;
	struct statx st;
	bool fits;

	if (!fd_look(block->fd, STATX_TYPE | STATX_SIZE, &st))
		return error_set_errno(error, errno, "'%s': stat", block->name);
	/* A DAX character device has no size to ask for: mmap() knows. */
	if (is_file && S_ISCHR(st.stx_mode))
		return true;
	if (!S_ISREG(st.stx_mode))
		return error_set_generic(error, "'%s': %s is not a regular file or DAX device",
					 block->name,
					 is_file ? config->mem_path : "its descriptor");
	fits = is_file ? (uint64_t)st.stx_size >= block->size_bytes
		       : (uint64_t)st.stx_size == block->size_bytes;
	if (!fits)
		return error_set_generic(error,
					 "'%s': %s has %" PRIu64 " bytes, the backend %" PRIu64
					 "; make the sizes the same",
					 block->name,
					 block->inherited ? "the predecessor's memory"
					 : is_file	  ? config->mem_path
							  : "its memfd",
					 (uint64_t)st.stx_size, block->size_bytes);
	return true;
}

/* ---- mapping ---- */

/*
 * KVM maps a huge page only where host and guest addresses are congruent; guest RAM starts at
 * multiples of 2 MiB.  So address space is reserved first and the block is placed in it, aligned.
 */
static bool ram_map(struct ram_block *block, GError **error)
{
	uint64_t align = MAX(RAM_ALIGN_BYTES, block->page_size_bytes);
	uint64_t reserved = block->size_bytes + align;
	int flags = MAP_FIXED | (block->shared ? MAP_SHARED : MAP_PRIVATE) |
		    (block->fd < 0 ? MAP_ANONYMOUS : 0);
	uint8_t *area, *start, *end;

	if (reserved < block->size_bytes)
		return error_set_generic(error, "'%s': %" PRIu64 " bytes are too many", block->name,
					 block->size_bytes);
	area = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		return error_set_errno(error, errno, "'%s': address space of %" PRIu64 " bytes",
				       block->name, reserved);
	start = area + (align - (uintptr_t)area % align) % align;
	end = start + block->size_bytes;
	if (mmap(start, block->size_bytes, PROT_READ | PROT_WRITE, flags, block->fd, 0) ==
	    MAP_FAILED) {
		error_set_errno(error, errno, "'%s': mapping %" PRIu64 " bytes%s", block->name,
				block->size_bytes,
				block->page_size_bytes > RAM_ALIGN_BYTES / 512
					? " (are there enough free huge pages?)"
					: "");
		munmap(area, reserved);
		return false;
	}
	if (start > area)
		munmap(area, (size_t)(start - area));
	if (end < area + reserved)
		munmap(end, (size_t)(area + reserved - end));
	block->host = start;
	return true;
}

/* Hints only: a kernel that has no use for one says EINVAL, and nothing is lost. */
static void ram_advise(const struct ram_block *block, const struct memory_backend_config *config)
{
	/* hugetlbfs has its huge pages already. */
	if (block->page_size_bytes < RAM_ALIGN_BYTES)
		(void)madvise(block->host, block->size_bytes, MADV_HUGEPAGE);
	/* KSM merges anonymous pages only. */
	if (config->merge && !block->shared)
		(void)madvise(block->host, block->size_bytes, MADV_MERGEABLE);
	if (!config->dump)
		(void)madvise(block->host, block->size_bytes, MADV_DONTDUMP);
}

static bool ram_acquire_fd(struct ram_block *block, const struct memory_backend_config *config,
			   GError **error)
{
	struct ram_open open = {.config = config};
	g_autofree char *key = g_strdup_printf("ram/%s", block->name);

	block->fd = fd_acquire(block->fds, key, FD_RAM, ram_open_fd, &open, error);
	block->inherited = block->fd >= 0 && !open.opened;
	return block->fd >= 0 && ram_check_fd(block, config, error);
}

struct ram_block *ram_block_new(const struct memory_backend_config *config, struct fd_source *fds,
				GError **error)
{
	autoptr(ram_block) block = g_new0(struct ram_block, 1);

	block->name = g_strdup(config->id);
	block->size_bytes = config->size_bytes;
	block->shared = config->share;
	block->fds = fds;
	block->fd = -1;
	if ((config->kind != MEMORY_BACKEND_RAM || config->share) &&
	    !ram_acquire_fd(block, config, error))
		return NULL;
	if (!ram_page_size(block, error) || !ram_map(block, error))
		return NULL;
	ram_advise(block, config);
	/* A predecessor's memory has its pages; mapping them is the successor's choice of time. */
	if (config->prealloc && !block->inherited && !ram_block_populate(block, NULL, error))
		return NULL;
	return g_steal_pointer(&block);
}

void ram_block_free(struct ram_block *block)
{
	g_autofree char *key = NULL;

	if (!block)
		return;
	if (block->host)
		munmap(block->host, block->size_bytes);
	if (block->fd >= 0) {
		key = g_strdup_printf("ram/%s", block->name);
		fd_withdraw(block->fds, key);
	}
	close_soon(&block->fd);
	g_free(block->name);
	g_free(block);
}

/* ---- populating ---- */

/* On shared memory that has content, a read fault makes a writable entry, and it is the cheaper one. */
static bool reading_maps(const struct ram_block *block)
{
	return block->inherited && block->shared;
}

/* Kernels before 5.14 have no MADV_POPULATE.  Atomic, because a guest may be writing the same bytes. */
static void ram_touch(const struct ram_block *block, uint64_t offset, uint64_t len)
{
	for (uint64_t at = 0; at < len; at += block->page_size_bytes)
		if (reading_maps(block))
			(void)__atomic_load_n(block->host + offset + at, __ATOMIC_RELAXED);
		else
			__atomic_fetch_or(block->host + offset + at, 0, __ATOMIC_RELAXED);
}

static bool ram_populate_range(const struct ram_block *block, uint64_t offset, uint64_t len,
			       GError **error)
{
	int advice = reading_maps(block) ? MADV_POPULATE_READ : MADV_POPULATE_WRITE;
	int failed;

	do
		failed = madvise(block->host + offset, len, advice);
	while (failed && errno == EINTR);
	if (failed && errno != EINVAL)
		return error_set_errno(error, errno, "'%s': populating %" PRIu64 " bytes",
				       block->name, block->size_bytes);
	if (failed)
		ram_touch(block, offset, len);
	return true;
}

/*
 * One piece of ram_block_each_present().  SEEK_HOLE would tell the holes too, but of the whole file
 * in one go: 11 ms per GiB in which a kernel that is not preemptible runs nothing else on this CPU.
 */
static bool each_present(const struct ram_block *block, uint64_t offset, uint64_t len,
			 ram_range_fn fn, void *opaque, GError **error)
{
	uint8_t present[RAM_POPULATE_BYTES / RAM_SMALL_PAGE_BYTES];
	const uint64_t page = block->page_size_bytes, n = len / page;

	/* hugetlbfs counts a page as absent until it is mapped. */
	if (page > RAM_SMALL_PAGE_BYTES || mincore(block->host + offset, len, present) < 0)
		return fn(block, offset, len, opaque, error);
	for (uint64_t from = 0, to; from < n; from = to) {
		for (to = from; to < n && (present[to] & 1) == (present[from] & 1);)
			to++;
		if ((present[from] & 1) &&
		    !fn(block, offset + from * page, (to - from) * page, opaque, error))
			return false;
	}
	return true;
}

bool ram_block_each_present(const struct ram_block *block, uint64_t offset, uint64_t len,
			    ram_range_fn fn, void *opaque, GError **error)
{
	const uint64_t step = MAX(RAM_POPULATE_BYTES, block->page_size_bytes);

	for (uint64_t done = 0; done < len; done += step)
		if (!each_present(block, offset + done, MIN(len - done, step), fn, opaque, error))
			return false;
	return true;
}

static bool go_on(const struct ram_block *block, const bool *stop, GError **error)
{
	if (stop && __atomic_load_n(stop, __ATOMIC_RELAXED))
		return error_set_generic(error, "'%s': populating was stopped", block->name);
	return true;
}

/*
 * ram_range_fn; @opaque is the stop flag of ram_block_populate().  To ask for one page of all that a
 * fault maps takes half as long as to ask for all of them, when the kernel looks at each again.
 */
static bool populate_present(const struct ram_block *block, uint64_t offset, uint64_t len,
			     void *opaque, GError **error)
{
	const uint64_t end = offset + len, step = block->fault_bytes;

	if (!go_on(block, opaque, error))
		return false;
	if (step == block->page_size_bytes)
		return ram_populate_range(block, offset, len, error);
	for (uint64_t at = offset; at < end; at = (at / step + 1) * step)
		if (!ram_populate_range(block, at, block->page_size_bytes, error))
			return false;
	return true;
}

bool ram_block_populate(struct ram_block *block, const bool *stop, GError **error)
{
	const uint64_t step = MAX(RAM_POPULATE_BYTES, block->page_size_bytes);

	if (block->inherited)
		return ram_block_each_present(block, 0, block->size_bytes, populate_present,
					      (void *)stop, error);
	for (uint64_t at = 0; at < block->size_bytes; at += step)
		if (!go_on(block, stop, error) ||
		    !ram_populate_range(block, at, MIN(block->size_bytes - at, step), error))
			return false;
	return true;
}

bool ram_block_preservable(const struct ram_block *block, GError **error)
{
	if (block->shared)
		return true;
	return error_set_generic(error,
				 "RAM '%s' is private to this process; give its memory-backend "
				 "share=on, or use memory-backend-memfd, or -machine "
				 "aux-ram-share=on",
				 block->name);
}
