// Linux bzImage by the 64-bit boot protocol.
// SPDX-License-Identifier: Apache-2.0
#include "machine/loader.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "machine/layout.h"

/**
 * DOC: boot protocol
 *
 * Linux Documentation/arch/x86/boot.rst, "64-bit boot protocol": long mode, identity-mapped page
 * tables, flat segments, boot_params' address in RSI, entry 0x200 bytes into the protected-mode
 * code.
 */

#define SETUP_HEADER_OFFSET 0x1f1
#define SETUP_MAGIC	    0x53726448 /* "HdrS" */
#define BOOT_FLAG	    0xaa55
#define PROTOCOL_64BIT	    0x020c /* xloadflags since 2.12 */
#define ENTRY_64	    0x200
#define LOADER_UNDEFINED    0xff
#define PTE_PRESENT_RW	    0x3
#define PDE_LARGE	    0x80

bool loader_is_linux(const uint8_t *head, size_t len)
{
	struct setup_header header;

	if (len < SETUP_HEADER_OFFSET + sizeof(header))
		return false;
	memcpy(&header, head + SETUP_HEADER_OFFSET, sizeof(header));
	return header.boot_flag == BOOT_FLAG && header.header == SETUP_MAGIC;
}

/* The segments of the protocol: __BOOT_CS is 0x10, __BOOT_DS 0x18. */
static const uint64_t boot_gdt[] = {0, 0, 0x00af9b000000ffffULL, 0x00cf93000000ffffULL};

/* Identity map of the first 4 GiB with 2 MiB pages, and the GDT. */
static bool write_cpu_tables(const struct loader_target *target, GError **error)
{
	uint64_t *tables = guest_memory_map(target->memory, LAYOUT_PAGE_TABLES, 6 * 4 * KIB, true);

	if (!tables || !guest_memory_write(target->memory, LAYOUT_GDT, boot_gdt, sizeof(boot_gdt)))
		return error_set_generic(error, "no RAM below 640 KiB for the boot tables");
	memset(tables, 0, 6 * 4 * KIB);
	tables[0] = (LAYOUT_PAGE_TABLES + 0x1000) | PTE_PRESENT_RW;
	for (uint64_t i = 0; i < 4; i++)
		tables[512 + i] = (LAYOUT_PAGE_TABLES + (2 + i) * 0x1000) | PTE_PRESENT_RW;
	for (uint64_t i = 0; i < 4 * 512; i++)
		tables[1024 + i] = (i * 2 * MIB) | PTE_PRESENT_RW | PDE_LARGE;
	return true;
}

/* Where the kernel wants to be and how much room it needs while it unpacks itself. */
static bool choose_address(const struct setup_header *header, const struct loader_target *target,
			   const char *name, uint64_t *address, GError **error)
{
	uint64_t alignment = MAX(header->kernel_alignment, 4096);

	*address = header->pref_address;
	if (*address >= MIB && *address + header->init_size <= target->low_end)
		return true;
	if (header->relocatable_kernel) {
		*address = (MIB + alignment - 1) / alignment * alignment;
		if (*address + header->init_size <= target->low_end)
			return true;
	}
	return error_set_generic(
		error,
		"-kernel %s: needs %u MiB of RAM below 4 GiB to unpack itself; give "
		"the guest more memory (-m)",
		name, (unsigned int)((*address + header->init_size) / MIB + 1));
}

static void fill_memory_map(struct boot_params *params, const struct loader_target *target)
{
	struct loader_range map[LOADER_MAX_MAP];
	uint32_t n = loader_memory_map(target, map);

	for (uint32_t i = 0; i < n; i++)
		params->e820_table[i] = (struct boot_e820_entry){
			.addr = map[i].start,
			.size = map[i].size_bytes,
			.type = map[i].type,
		};
	params->e820_entries = n;
}

static bool check_header(const struct setup_header *header, const struct loader *loader,
			 GError **error)
{
	if (header->version < PROTOCOL_64BIT || !(header->xloadflags & XLF_KERNEL_64))
		return error_set_generic(
			error, "-kernel %s: not a 64-bit kernel (boot protocol %u.%02u)",
			loader->kernel_name, header->version >> 8, header->version & 0xff);
	if (strlen(loader->cmdline) > header->cmdline_size)
		return error_set_generic(error,
					 "-append: %zu characters; this kernel takes at most %u",
					 strlen(loader->cmdline), header->cmdline_size);
	return true;
}

bool loader_load_linux(struct loader *loader, const struct loader_target *target,
		       struct kvm_boot_regs *regs, GError **error)
{
	struct boot_params params = {0};
	struct setup_header *header = &params.hdr;
	uint64_t address, code_offset, file_size, initrd, initrd_size, initrd_limit;

	file_size = loader_file_size(loader->kernel_fd, loader->kernel_name, error);
	if (file_size == 0)
		return false;
	if (pread(loader->kernel_fd, header, sizeof(*header), SETUP_HEADER_OFFSET) !=
	    sizeof(*header))
		return error_set_generic(error, "-kernel %s: file is cut short",
					 loader->kernel_name);
	if (!check_header(header, loader, error) ||
	    !choose_address(header, target, loader->kernel_name, &address, error))
		return false;
	code_offset = ((header->setup_sects ? header->setup_sects : 4) + 1) * 512;
	if (code_offset >= file_size || file_size - code_offset > header->init_size)
		return error_set_generic(error, "-kernel %s: header and file size do not match",
					 loader->kernel_name);
	if (!loader_read(loader->kernel_fd, loader->kernel_name, code_offset, target, address,
			 file_size - code_offset, error))
		return false;
	initrd_limit = (uint64_t)header->initrd_addr_max + 1;
	if (!loader_place_initrd(loader, target, address + header->init_size, initrd_limit, &initrd,
				 &initrd_size, error))
		return false;
	header->type_of_loader = LOADER_UNDEFINED;
	header->loadflags |= LOADED_HIGH;
	header->cmd_line_ptr = LAYOUT_CMDLINE;
	header->ramdisk_image = initrd;
	header->ramdisk_size = initrd_size;
	header->code32_start = address;
	params.acpi_rsdp_addr = target->rsdp;
	fill_memory_map(&params, target);
	if (!write_cpu_tables(target, error))
		return false;
	if (!guest_memory_write(target->memory, LAYOUT_CMDLINE, loader->cmdline,
				strlen(loader->cmdline) + 1) ||
	    !guest_memory_write(target->memory, LAYOUT_BOOT_PARAMS, &params, sizeof(params)))
		return error_set_generic(error, "no RAM below 640 KiB for the boot parameters");
	*regs = (struct kvm_boot_regs){
		.rip = address + ENTRY_64,
		.rsp = LAYOUT_STACK,
		.rsi = LAYOUT_BOOT_PARAMS,
		.cr3 = LAYOUT_PAGE_TABLES,
		.gdt_gpa = LAYOUT_GDT,
		.gdt_bytes = sizeof(boot_gdt),
		.long_mode = true,
	};
	return true;
}
