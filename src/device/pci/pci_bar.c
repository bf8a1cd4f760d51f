// Base address registers: from what the guest writes there to regions in the I/O spaces.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/pci_priv.h"

#include <inttypes.h>

#include "base/error.h"

/* Interrupt controllers and the reset vector: nothing of a function may appear there. */
#define PLATFORM_GPA	 0xfec00000ULL
#define PLATFORM_GPA_END 0x100000000ULL

void pci_function_add_bar(struct pci_function *fn, uint32_t index, uint64_t size_bytes, bool is_io,
			  bool is_64, const struct io_ops *ops, void *opaque,
			  void (*moved)(struct pci_function *, uint32_t, uint64_t))
{
	struct pci_bar *bar = &fn->bars[index];
	uint32_t at = PCI_BAR0 + 4 * index;
	uint64_t size = is_io ? 4 : 16;

	while (size < size_bytes)
		size *= 2;
	*bar = (struct pci_bar){
		.region = {.name = fn->dev.ops->name,
			   .size_bytes = size,
			   .ops = ops,
			   .opaque = opaque,
			   .lock = &fn->dev.lock},
		.is_io = is_io,
		.is_64 = is_64,
		.moved = moved,
	};
	fn->reset_config[at] = is_io ? PCI_BAR_IO : is_64 ? PCI_BAR_MEM_64 : 0;
	pci_put32(fn->wmask + at, (uint32_t) ~(size - 1));
	if (is_64)
		pci_put32(fn->wmask + at + 4, (uint32_t)(~(size - 1) >> 32));
}

/*
 * Where the guest wants BAR @index; 0 for nowhere.  An address whose range ends at the top of its
 * space is what a guest leaves there while it sizes the BAR: no complaint about that one.
 */
static uint64_t wanted_base(const struct pci_function *fn, uint32_t index)
{
	const struct pci_bar *bar = &fn->bars[index];
	const uint8_t *config = fn->state->config;
	uint16_t command = pci_get16(config + PCI_COMMAND);
	uint32_t at = PCI_BAR0 + 4 * index;
	uint64_t base = pci_get32(config + at), last, top = UINT32_MAX;

	if (!bar->region.ops || !(command & (bar->is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return 0;
	if (bar->is_64) {
		base |= (uint64_t)pci_get32(config + at + 4) << 32;
		top = UINT64_MAX;
	}
	base &= ~(bar->region.size_bytes - 1);
	last = base + (bar->region.size_bytes - 1);
	return last == top ? 0 : base;
}

static bool overlaps(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
	return a < b_end && b < a_end;
}

static bool may_appear_at(const struct pci_function *fn, const struct pci_bar *bar, uint64_t base,
			  GError **error)
{
	const struct guest_memory *memory = fn->dev.env->memory;
	uint64_t end = base + bar->region.size_bytes;

	if (bar->is_io)
		return end <= 0x10000 || error_set_generic(error, "beyond the last port");
	if (overlaps(base, end, PLATFORM_GPA, PLATFORM_GPA_END))
		return error_set_generic(error, "over the interrupt controllers");
	for (uint32_t i = 0; memory && i < memory->n_regions; i++) {
		const struct guest_region *ram = &memory->regions[i];

		if (overlaps(base, end, ram->gpa, ram->gpa + ram->size_bytes))
			return error_set_generic(error, "over RAM");
	}
	return true;
}

static void bar_unmap(struct pci_function *fn, uint32_t index)
{
	struct pci_bar *bar = &fn->bars[index];

	if (!bar->mapped)
		return;
	io_space_remove(bar->is_io ? fn->dev.env->pio : fn->dev.env->mmio, &bar->region);
	bar->mapped = false;
	if (bar->moved)
		bar->moved(fn, index, 0);
}

/* A BAR at a place it cannot have decodes nothing: the guest reads ones, the operator a line. */
static void bar_map(struct pci_function *fn, uint32_t index, uint64_t base)
{
	struct pci_bar *bar = &fn->bars[index];
	struct io_space *space = bar->is_io ? fn->dev.env->pio : fn->dev.env->mmio;
	g_autoptr(GError) error = NULL;

	if (!may_appear_at(fn, bar, base, &error) ||
	    !io_space_add(space, &bar->region, base, &error)) {
		log_guest(&fn->guest_log, "%s: BAR %u at 0x%" PRIx64 ": %s", fn->dev.path, index,
			  base, error->message);
		return;
	}
	bar->mapped = true;
	if (bar->moved)
		bar->moved(fn, index, base);
}

void pci_bars_update(struct pci_function *fn)
{
	/* Two passes: a BAR may be put where another one of this function was. */
	for (uint32_t i = 0; i < PCI_N_BARS; i++)
		if (fn->bars[i].mapped && fn->bars[i].region.base != wanted_base(fn, i))
			bar_unmap(fn, i);
	for (uint32_t i = 0; i < PCI_N_BARS; i++) {
		uint64_t base = wanted_base(fn, i);

		if (base && !fn->bars[i].mapped)
			bar_map(fn, i, base);
	}
}

void pci_bars_unmap(struct pci_function *fn)
{
	for (uint32_t i = 0; i < PCI_N_BARS; i++)
		bar_unmap(fn, i);
}
