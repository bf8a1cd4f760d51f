// RAM blocks: host memory by a stable name, shared with a successor through its descriptor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"
#include "options/config.h"
#include "state/fd_acquire.h"

/**
 * struct ram_block - One range of host memory that the guest sees
 * @name:	Stable: the backend object's id, or "pc.ram", "pc.rom", ...; the descriptor is
 *		"ram/<name>" in the fd registry
 * @host:	Its mapping in this process
 * @size_bytes:	Length, a multiple of the page size
 * @fd:		memfd or file behind it, -1 for private anonymous memory
 * @shared:	MAP_SHARED: what a successor maps is the same memory
 * @page_size_bytes: of the backing (hugetlbfs may be larger than 4 KiB)
 * @fault_bytes: What one read fault maps of what is there, aligned; a page where that is not known
 * @inherited:	@fd is the predecessor's: the memory has content
 * @fds:	Where @fd is registered
 *
 * @host is aligned to 2 MiB (or the huge page size) so that KVM can map huge pages.
 */
struct ram_block {
	char *name;
	uint8_t *host;
	uint64_t size_bytes;
	int fd;
	bool shared;
	uint64_t page_size_bytes;
	uint64_t fault_bytes;
	bool inherited;
	struct fd_source *fds;
};

/**
 * ram_block_new() - Map a backend's memory: new, or the predecessor's where @fds has it
 * @config:	Kind, size and flags; not referenced after the call
 * @fds:	Where the descriptor comes from and is registered; outlives the block
 *
 * A memfd is sealed against shrinking, which would turn guest accesses into SIGBUS; against
 * growing, so that its size stays what a successor checks; and against more seals, because a peer
 * that has the descriptor (vhost-user) could add one that forbids a successor to map it for
 * writing.
 *
 * A shared file that is opened is locked (fd_lock()) before anything else is done to it, and another one's
 * lock refuses it; an inherited descriptor has its lock already.
 *
 * A file of 0 bytes or a new one gets the size; a file that has content is never resized.
 *
 * Does not populate pages unless config->prealloc; see ram_block_populate().
 * Context: main thread.
 * Return: NULL with @error set (size differs from the inherited descriptor's, no space, ...).
 */
struct ram_block *ram_block_new(const struct memory_backend_config *config, struct fd_source *fds,
				GError **error);

/**
 * ram_block_free() - Unmap, withdraw the descriptor from its source and close it; accepts NULL
 *
 * Context: main thread.
 */
void ram_block_free(struct ram_block *block);
DEFINE_CLEANUP(ram_block, ram_block_free)

/** typedef ram_range_fn - Work on [@offset, +@len) of @block.  Return: false to stop. */
typedef bool (*ram_range_fn)(const struct ram_block *block, uint64_t offset, uint64_t len,
			     void *opaque, GError **error);

/**
 * ram_block_each_present() - Call @fn for what is not a hole in [@offset, +@len), in small pieces
 *
 * Pages of 4 KiB only: of larger ones everything counts as present.  Context: any thread.
 * Return: false as soon as @fn does.
 */
bool ram_block_each_present(const struct ram_block *block, uint64_t offset, uint64_t len,
			    ram_range_fn fn, void *opaque, GError **error);

/**
 * ram_block_populate() - Make page-table entries for the whole block
 * @stop:	Looked at between small pieces; when another thread sets it, the call fails.  NULL: never
 *
 * New memory is allocated (130-190 ms per GiB).  A predecessor's is only mapped where it has
 * content (60 ms per GiB): holes stay holes, and the guest may run in the predecessor meanwhile.
 * Context: any thread.
 */
bool ram_block_populate(struct ram_block *block, const bool *stop, GError **error);

/** ram_block_preservable() - Whether the block can cross in the CPR modes; says why not in @error.
 */
bool ram_block_preservable(const struct ram_block *block, GError **error);
