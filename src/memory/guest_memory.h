// The guest-physical map: where each RAM block appears, and checked access to it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"
#include "memory/ram.h"

#define GUEST_MEMORY_MAX_REGIONS 32

/**
 * struct guest_region - RAM at a guest-physical address
 * @gpa:	First address
 * @size_bytes:	Length
 * @host:	The same bytes in this process
 * @block, @offset_bytes: which part of which block
 * @read_only:	ROM: the guest's writes are dropped
 */
struct guest_region {
	uint64_t gpa;
	uint64_t size_bytes;
	uint8_t *host;
	struct ram_block *block;
	uint64_t offset_bytes;
	bool read_only;
};

/**
 * struct guest_memory - The map; built before the first vCPU runs and constant from then on
 *
 * That is why look-ups take no lock and may come from any thread.  Blocks are not owned.
 */
struct guest_memory {
	struct guest_region regions[GUEST_MEMORY_MAX_REGIONS];
	uint32_t n_regions;
};

/** guest_memory_add() - Map @size_bytes of @block from @offset_bytes on at @gpa; no overlaps. */
bool guest_memory_add(struct guest_memory *memory, uint64_t gpa, struct ram_block *block,
		      uint64_t offset_bytes, uint64_t size_bytes, bool read_only, GError **error);

/**
 * guest_memory_map() - Host address of [gpa, gpa + len)
 * Return: NULL unless the range is not empty and lies within one region (and, for @write, is not
 * ROM).  The guest may change the bytes at any time: read each once, then check.
 */
void *guest_memory_map(const struct guest_memory *memory, uint64_t gpa, uint64_t len, bool write);

/** guest_memory_read(), guest_memory_write() - Copy; false when any byte is outside of RAM. */
bool guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *buf, size_t len);
bool guest_memory_write(const struct guest_memory *memory, uint64_t gpa, const void *buf,
			size_t len);
