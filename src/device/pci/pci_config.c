// A function's configuration space: header, capabilities, writable bits, life cycle.
// SPDX-License-Identifier: Apache-2.0
#include "device/pci/pci_priv.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"

/*
 * I/O, memory, bus master, parity error response, SERR#, interrupt disable.  Interrupt disable is
 * stored although no function has an INTx pin: Linux probes whether it can be written.
 */
#define COMMAND_WRITABLE 0x0547
#define STATUS_W1C	 0xf900

static const struct state_field msix_entry_fields[] = {
	FIELD(struct pci_msix_entry_state, addr, 1),
	FIELD(struct pci_msix_entry_state, data, 2),
	FIELD(struct pci_msix_entry_state, control, 3),
};

static const struct state_desc msix_entry_desc = {
	.name = "msix-entry",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct pci_msix_entry_state, msix_entry_fields),
};

static const struct state_field pci_function_fields[] = {
	FIELD_ARRAY(struct pci_function_state, config, 1),
	FIELD_PAD(struct pci_function_state, pad0),
	FIELD_STRUCT_LIST(struct pci_function_state, msix, n_msix, 2, &msix_entry_desc),
	FIELD(struct pci_function_state, msix_pending, 3),
};

static bool pci_function_check(const void *obj, GError **error)
{
	const struct pci_function_state *state = obj;

	if (state->n_msix < PCI_MSIX_MAX && state->msix_pending >> state->n_msix)
		return error_set_generic(error,
					 "msix_pending: 0x%" PRIx64 " names vectors beyond %u",
					 state->msix_pending, state->n_msix);
	return true;
}

const struct state_desc pci_function_desc = {
	.name = "pci-function",
	.version = 1,
	.min_reader = 1,
	.check = pci_function_check,
	STATE_DESC(struct pci_function_state, pci_function_fields),
};

void pci_function_init(struct pci_function *fn, struct pci_function_state *state,
		       const struct pci_ids *ids)
{
	uint8_t *config = fn->reset_config;

	fn->state = state;
	fn->caps_end = PCI_HEADER_BYTES;
	fn->msix_bar = -1;
	pci_put16(config + PCI_VENDOR, ids->vendor);
	pci_put16(config + PCI_DEVICE, ids->device);
	pci_put32(config + PCI_REVISION, ids->class_code << 8 | ids->revision);
	pci_put16(config + PCI_SUBSYSTEM, ids->subsystem_vendor);
	pci_put16(config + PCI_SUBSYSTEM + 2, ids->subsystem);
	pci_put16(fn->wmask + PCI_COMMAND, COMMAND_WRITABLE);
	pci_put16(fn->w1cmask + PCI_STATUS, STATUS_W1C);
	fn->wmask[PCI_INTERRUPT_LINE] = 0xff;
}

uint8_t pci_function_add_capability(struct pci_function *fn, const void *cap, uint8_t len)
{
	uint8_t at = fn->caps_end;
	uint8_t *config = fn->reset_config;

	memcpy(config + at, cap, len);
	config[at + 1] = config[PCI_CAP_POINTER];
	config[PCI_CAP_POINTER] = at;
	config[PCI_STATUS] |= PCI_STATUS_CAPS;
	fn->caps_end = (at + len + 3) & ~3;
	return at;
}

uint32_t pci_config_read(struct pci_function *fn, uint32_t offset, uint32_t size)
{
	uint32_t value = 0;

	if (offset + size > PCI_CONFIG_BYTES)
		return 0;
	if (fn->config_read)
		fn->config_read(fn, offset, size);
	for (uint32_t i = 0; i < size; i++)
		value |= (uint32_t)fn->state->config[offset + i] << (i * 8);
	return value;
}

static bool touches(uint32_t offset, uint32_t size, uint32_t start, uint32_t len)
{
	return offset < start + len && start < offset + size;
}

void pci_config_write(struct pci_function *fn, uint32_t offset, uint32_t size, uint32_t value)
{
	uint8_t *config = fn->state->config;

	if (offset + size > PCI_CONFIG_BYTES)
		return;
	for (uint32_t i = offset; i < offset + size; i++, value >>= 8) {
		config[i] = (config[i] & ~fn->wmask[i]) | (value & fn->wmask[i]);
		config[i] &= ~(value & fn->w1cmask[i]);
	}
	if (touches(offset, size, PCI_COMMAND, 2) ||
	    touches(offset, size, PCI_BAR0, 4 * PCI_N_BARS))
		pci_bars_update(fn);
	if (fn->vectors && touches(offset, size, fn->msix_cap + PCI_MSIX_CONTROL, 2))
		pci_msix_control_written(fn);
	if (fn->config_written)
		fn->config_written(fn, offset, size);
}

void pci_function_reset(struct pci_function *fn)
{
	pci_bars_unmap(fn);
	memcpy(fn->state->config, fn->reset_config, PCI_CONFIG_BYTES);
	pci_msix_reset(fn);
}

void pci_function_capture(struct pci_function *fn)
{
	pci_msix_capture(fn);
}

/* The hardware must not change under the guest: what it cannot write has to be as it was. */
static bool check_identity(const struct pci_function *fn, GError **error)
{
	for (uint32_t i = 0; i < PCI_CONFIG_BYTES; i++) {
		uint8_t fixed = ~(fn->wmask[i] | fn->w1cmask[i]);

		if ((fn->state->config[i] ^ fn->reset_config[i]) & fixed)
			return error_set_generic(error,
						 "%s: configuration byte 0x%02x is 0x%02x in the "
						 "state and 0x%02x here: another device",
						 fn->dev.path, i, fn->state->config[i],
						 fn->reset_config[i]);
	}
	return true;
}

bool pci_function_apply(struct pci_function *fn, GError **error)
{
	if (!check_identity(fn, error))
		return false;
	pci_bars_update(fn);
	return pci_msix_apply(fn, error);
}

void pci_function_fini(struct pci_function *fn)
{
	if (!fn->state)
		return;
	if (fn->bus)
		pci_bus_unplug(fn->bus, fn);
	pci_bars_unmap(fn);
	pci_msix_fini(fn);
	fn->state = NULL;
}
