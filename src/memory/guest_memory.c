// The guest-physical map: where each RAM block appears, and checked access to it.
// SPDX-License-Identifier: Apache-2.0
#include "memory/guest_memory.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"

static bool range_overlaps(const struct guest_region *r, uint64_t gpa, uint64_t size_bytes)
{
	return gpa < r->gpa + r->size_bytes && r->gpa < gpa + size_bytes;
}

static bool region_fits(const struct guest_memory *memory, uint64_t gpa,
			const struct ram_block *block, uint64_t offset_bytes, uint64_t size_bytes,
			GError **error)
{
	if (memory->n_regions == GUEST_MEMORY_MAX_REGIONS)
		return error_set_generic(error, "'%s': the guest-physical map is full (%d regions)",
					 block->name, GUEST_MEMORY_MAX_REGIONS);
	/* An end of exactly 2^64 is refused too: gpa + size_bytes below never wraps. */
	if (size_bytes == 0 || gpa > UINT64_MAX - size_bytes)
		return error_set_generic(error,
					 "'%s': %" PRIu64 " bytes at 0x%" PRIx64 " are not a range",
					 block->name, size_bytes, gpa);
	if (offset_bytes > block->size_bytes || size_bytes > block->size_bytes - offset_bytes)
		return error_set_generic(error,
					 "'%s': %" PRIu64 " bytes from %" PRIu64
					 " on exceed the block's %" PRIu64,
					 block->name, size_bytes, offset_bytes, block->size_bytes);
	for (uint32_t i = 0; i < memory->n_regions; i++) {
		if (range_overlaps(&memory->regions[i], gpa, size_bytes))
			return error_set_generic(error, "'%s' at 0x%" PRIx64 " would overlap '%s'",
						 block->name, gpa, memory->regions[i].block->name);
	}
	return true;
}

bool guest_memory_add(struct guest_memory *memory, uint64_t gpa, struct ram_block *block,
		      uint64_t offset_bytes, uint64_t size_bytes, bool read_only, GError **error)
{
	uint32_t at = memory->n_regions;

	if (!region_fits(memory, gpa, block, offset_bytes, size_bytes, error))
		return false;
	while (at > 0 && memory->regions[at - 1].gpa > gpa) {
		memory->regions[at] = memory->regions[at - 1];
		at--;
	}
	memory->regions[at] = (struct guest_region){
		.gpa = gpa,
		.size_bytes = size_bytes,
		.host = block->host + offset_bytes,
		.block = block,
		.offset_bytes = offset_bytes,
		.read_only = read_only,
	};
	memory->n_regions++;
	return true;
}

/* NULL when no region holds @gpa.  A handful of regions: a linear search beats anything clever. */
static const struct guest_region *guest_memory_find(const struct guest_memory *memory, uint64_t gpa)
{
	for (uint32_t i = 0; i < memory->n_regions; i++) {
		const struct guest_region *r = &memory->regions[i];

		if (gpa - r->gpa < r->size_bytes)
			return r;
	}
	return NULL;
}

void *guest_memory_map(const struct guest_memory *memory, uint64_t gpa, uint64_t len, bool write)
{
	const struct guest_region *r = guest_memory_find(memory, gpa);

	if (!r || len == 0 || len > r->size_bytes - (gpa - r->gpa) || (write && r->read_only))
		return NULL;
	return r->host + (gpa - r->gpa);
}

/* Call for each piece of the range, in order; @buf is NULL to check only. */
static bool guest_memory_copy(const struct guest_memory *memory, uint64_t gpa, uint8_t *buf,
			      size_t len, bool write)
{
	while (len > 0) {
		const struct guest_region *r = guest_memory_find(memory, gpa);
		uint64_t offset, piece;

		if (!r || (write && r->read_only))
			return false;
		offset = gpa - r->gpa;
		piece = MIN((uint64_t)len, r->size_bytes - offset);
		if (buf && write)
			memcpy(r->host + offset, buf, piece);
		else if (buf)
			memcpy(buf, r->host + offset, piece);
		buf = buf ? buf + piece : NULL;
		gpa += piece;
		len -= piece;
	}
	return true;
}

bool guest_memory_read(const struct guest_memory *memory, uint64_t gpa, void *buf, size_t len)
{
	return guest_memory_copy(memory, gpa, NULL, len, false) &&
	       guest_memory_copy(memory, gpa, buf, len, false);
}

bool guest_memory_write(const struct guest_memory *memory, uint64_t gpa, const void *buf,
			size_t len)
{
	/* The cast is undone by write = true: copy only reads from the buffer then. */
	return guest_memory_copy(memory, gpa, NULL, len, true) &&
	       guest_memory_copy(memory, gpa, (uint8_t *)buf, len, true);
}
