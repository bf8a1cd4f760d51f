// Port and memory-mapped register space: from an address to a device's read and write.
// SPDX-License-Identifier: Apache-2.0
#include "memory/io_space.h"

#include <inttypes.h>

#include "base/error.h"

/*
 * An access looks its region up under the reader lock, drops that lock, takes the region's own and
 * dispatches.  In this order a BAR that a guest moves (writer lock, from inside a dispatch) cannot
 * deadlock against an access on another vCPU.
 */
struct io_space {
	char *name;
	GRWLock lock;
	GPtrArray *regions; /* struct io_region *, not owned, sorted by base, disjoint */
};

struct io_space *io_space_new(const char *name)
{
	struct io_space *space = g_new0(struct io_space, 1);

	space->name = g_strdup(name);
	space->regions = g_ptr_array_new();
	g_rw_lock_init(&space->lock);
	return space;
}

void io_space_free(struct io_space *space)
{
	if (!space)
		return;
	g_rw_lock_clear(&space->lock);
	g_ptr_array_unref(space->regions);
	g_free(space->name);
	g_free(space);
}

static uint64_t region_last(const struct io_region *region)
{
	return region->base + (region->size_bytes - 1);
}

/* Index of the first region whose last byte is at or after @addr.  Context: @space->lock held. */
static guint io_space_lower_bound(const struct io_space *space, uint64_t addr)
{
	guint lo = 0, hi = space->regions->len;

	while (lo < hi) {
		guint mid = lo + (hi - lo) / 2;

		if (region_last(g_ptr_array_index(space->regions, mid)) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool size_is_valid(uint32_t size)
{
	return size == 1 || size == 2 || size == 4 || size == 8;
}

static bool region_is_sane(const struct io_region *region, uint64_t base)
{
	const struct io_ops *ops = region->ops;

	return size_is_valid(ops->min_size) && size_is_valid(ops->max_size) &&
	       ops->min_size <= ops->max_size && region->size_bytes > 0 &&
	       region->size_bytes % ops->min_size == 0 &&
	       base <= UINT64_MAX - (region->size_bytes - 1);
}

bool io_space_add(struct io_space *space, struct io_region *region, uint64_t base, GError **error)
{
	const struct io_region *there = NULL;
	guint i;

	if (!region_is_sane(region, base))
		return error_set_generic(error,
					 "%s: region '%s' of 0x%" PRIx64 " bytes does not fit at "
					 "0x%" PRIx64,
					 space->name, region->name, region->size_bytes, base);
	g_rw_lock_writer_lock(&space->lock);
	i = io_space_lower_bound(space, base);
	if (i < space->regions->len)
		there = g_ptr_array_index(space->regions, i);
	if (!there || there->base > base + (region->size_bytes - 1)) {
		region->base = base;
		g_ptr_array_insert(space->regions, (gint)i, region);
		there = NULL;
	}
	g_rw_lock_writer_unlock(&space->lock);
	if (there)
		return error_set_generic(error,
					 "%s: region '%s' at 0x%" PRIx64 " would overlap '%s'",
					 space->name, region->name, base, there->name);
	return true;
}

void io_space_remove(struct io_space *space, struct io_region *region)
{
	g_rw_lock_writer_lock(&space->lock);
	g_ptr_array_remove(space->regions, region);
	g_rw_lock_writer_unlock(&space->lock);
}

/*
 * The offset is computed under the lock too: the guest may move the region the moment after.
 * Return: NULL when nothing is at @addr.
 */
static struct io_region *io_space_find(struct io_space *space, uint64_t addr, uint64_t *offset)
{
	struct io_region *region = NULL;
	guint i;

	g_rw_lock_reader_lock(&space->lock);
	i = io_space_lower_bound(space, addr);
	if (i < space->regions->len)
		region = g_ptr_array_index(space->regions, i);
	if (region && region->base > addr)
		region = NULL;
	if (region)
		*offset = addr - region->base;
	g_rw_lock_reader_unlock(&space->lock);
	return region;
}

const char *io_space_name_at(struct io_space *space, uint64_t addr)
{
	uint64_t offset;
	const struct io_region *region = io_space_find(space, addr, &offset);

	return region ? region->name : NULL;
}

static __thread uint8_t phase;

const uint8_t *io_space_phase(void)
{
	return &phase;
}

static void region_enter(const struct io_region *region)
{
	__atomic_store_n(&phase, IO_PHASE_WAITS, __ATOMIC_RELAXED);
	if (region->lock)
		g_mutex_lock(region->lock);
	__atomic_store_n(&phase, IO_PHASE_HOLDS, __ATOMIC_RELAXED);
}

static void region_leave(const struct io_region *region)
{
	if (region->lock)
		g_mutex_unlock(region->lock);
	__atomic_store_n(&phase, IO_PHASE_NONE, __ATOMIC_RELAXED);
}

static uint64_t size_mask(uint32_t size)
{
	return size == 8 ? UINT64_MAX : (1ULL << (size * 8)) - 1;
}

/* Largest naturally aligned piece at @offset of at most @left bytes that @ops take at once. */
static uint32_t piece_size(const struct io_ops *ops, uint64_t offset, uint32_t left)
{
	uint32_t size = ops->max_size;

	while (size > left || offset % size)
		size /= 2;
	return size;
}

static uint64_t region_read(const struct io_region *region, uint64_t offset, uint32_t size)
{
	const struct io_ops *ops = region->ops;
	uint64_t value = 0;

	for (uint32_t done = 0; done < size;) {
		uint64_t at = offset + done;
		uint32_t piece = piece_size(ops, at, size - done);
		uint32_t wide = MAX(piece, ops->min_size);
		uint32_t skip = at % wide;
		uint64_t part = ops->read(region->opaque, at - skip, wide) >> (skip * 8);

		value |= (part & size_mask(piece)) << (done * 8);
		done += piece;
	}
	return value;
}

static void region_write(const struct io_region *region, uint64_t offset, uint32_t size,
			 uint64_t value)
{
	const struct io_ops *ops = region->ops;

	for (uint32_t done = 0; done < size;) {
		uint64_t at = offset + done;
		uint32_t piece = piece_size(ops, at, size - done);
		uint32_t wide = MAX(piece, ops->min_size);
		uint32_t skip = at % wide;
		uint64_t part = ((value >> (done * 8)) & size_mask(piece)) << (skip * 8);

		if (piece < wide && ops->rmw)
			part |= ops->read(region->opaque, at - skip, wide) & size_mask(wide) &
				~(size_mask(piece) << (skip * 8));
		ops->write(region->opaque, at - skip, wide, part);
		done += piece;
	}
}

bool io_space_read(struct io_space *space, uint64_t addr, uint32_t size, uint64_t *value)
{
	uint64_t offset = 0, low, high;
	struct io_region *region;

	*value = size_is_valid(size) ? size_mask(size) : UINT64_MAX;
	if (!size_is_valid(size))
		return false;
	region = io_space_find(space, addr, &offset);
	if (!region || size > region->size_bytes - offset) {
		bool found;

		if (size == 1)
			return false;
		found = io_space_read(space, addr, size / 2, &low);
		found |= io_space_read(space, addr + size / 2, size / 2, &high);
		*value = low | high << (size * 4);
		return found;
	}
	region_enter(region);
	*value = region_read(region, offset, size);
	region_leave(region);
	return true;
}

bool io_space_write(struct io_space *space, uint64_t addr, uint32_t size, uint64_t value)
{
	struct io_region *region;
	uint64_t offset = 0;

	if (!size_is_valid(size))
		return false;
	region = io_space_find(space, addr, &offset);
	if (!region || size > region->size_bytes - offset) {
		bool found;

		if (size == 1)
			return false;
		found = io_space_write(space, addr, size / 2, value & size_mask(size / 2));
		found |= io_space_write(space, addr + size / 2, size / 2, value >> (size * 4));
		return found;
	}
	region_enter(region);
	region_write(region, offset, size, value & size_mask(size));
	region_leave(region);
	return true;
}
