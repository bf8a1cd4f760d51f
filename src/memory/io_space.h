// Port and memory-mapped register space: from an address to a device's read and write.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"

/**
 * struct io_ops - Registers of one region
 * @read:	@offset_bytes into the region; @size is one of the implemented sizes
 * @write:	as @read; bits of @value above @size are zero
 * @min_size, @max_size: sizes in bytes that the functions implement (powers of two, up to 8)
 * @rmw:	a write smaller than @min_size reads the register first and changes only the guest's
 *		bytes; without it the other bytes are written as zero
 *
 * The guest may use 1, 2, 4 or 8 bytes at any address.  The functions only ever see naturally
 * aligned offsets and implemented sizes: what is larger or unaligned is split, lowest address
 * first; what is smaller is widened.
 *
 * Context: a vCPU thread, or the main thread; the region's lock is held.  Must not block.
 */
struct io_ops {
	uint64_t (*read)(void *opaque, uint64_t offset_bytes, uint32_t size);
	void (*write)(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value);
	uint8_t min_size;
	uint8_t max_size;
	bool rmw;
};

/**
 * struct io_region - A range of an I/O space, embedded in its device
 * @name:	For traces and `info mtree`-like output
 * @base, @size_bytes: place; @base is set by io_space_add(); the size is a multiple of
 *		@ops->min_size
 * @ops, @opaque: registers
 * @lock:	taken around every access; NULL: @ops need none (they lock for themselves)
 */
struct io_region {
	const char *name;
	uint64_t base;
	uint64_t size_bytes;
	const struct io_ops *ops;
	void *opaque;
	GMutex *lock;
};

/** struct io_space - Sorted regions; look-ups and changes from any thread. */
struct io_space;

struct io_space *io_space_new(const char *name);
void io_space_free(struct io_space *space);
DEFINE_CLEANUP(io_space, io_space_free)

/** io_space_add() - Put @region at @base.  Return: false with @error set if it would overlap. */
bool io_space_add(struct io_space *space, struct io_region *region, uint64_t base, GError **error);

/** io_space_remove() - Take @region out; accepts one that is not in.  An access that has already
 * found it may still be running on another vCPU: it is freed after all have been parked once. */
void io_space_remove(struct io_space *space, struct io_region *region);

/** io_space_name_at() - Name of the region at @addr, NULL if there is none. */
const char *io_space_name_at(struct io_space *space, uint64_t addr);

/** enum io_phase - Where a thread's access is, for who waits for it */
enum io_phase {
	IO_PHASE_NONE,
	IO_PHASE_WAITS, /* for the region's lock */
	IO_PHASE_HOLDS, /* it has it, or the region has none: the device is at work */
};

/** io_space_phase() - The calling thread's enum io_phase, which any thread may read (atomically) while
 * it lives. */
const uint8_t *io_space_phase(void);

/**
 * io_space_read(), io_space_write() - One guest access of 1, 2, 4 or 8 bytes
 *
 * An access that leaves its region is split in halves, each looked up by itself.  No lock of the
 * space is held while a device runs, so a device may add and remove regions.
 *
 * Return: false when nothing is there (reads give all ones).
 */
bool io_space_read(struct io_space *space, uint64_t addr, uint32_t size, uint64_t *value);
bool io_space_write(struct io_space *space, uint64_t addr, uint32_t size, uint64_t value);
