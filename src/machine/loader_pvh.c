// ELF kernels by the PVH entry point.
// SPDX-License-Identifier: Apache-2.0
#include "machine/loader.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "machine/layout.h"

/**
 * DOC: PVH
 *
 * Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h: 32-bit protected mode without
 * paging, EBX points to hvm_start_info; the entry point is in an ELF note.
 */

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define PVH_MAGIC		 0x336ec578
#define PVH_MAX_PHDRS		 64
#define PVH_MAX_NOTES_BYTES	 (64 * KIB)

struct hvm_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_paddr;
	uint64_t cmdline_paddr;
	uint64_t rsdp_paddr;
	uint64_t memmap_paddr;
	uint32_t memmap_entries;
	uint32_t reserved;
};

struct hvm_modlist_entry {
	uint64_t paddr;
	uint64_t size;
	uint64_t cmdline_paddr;
	uint64_t reserved;
};

struct hvm_memmap_entry {
	uint64_t addr;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};

/* What is written at LAYOUT_PVH_INFO. */
struct pvh_info {
	struct hvm_start_info start;
	struct hvm_modlist_entry module;
	struct hvm_memmap_entry map[LOADER_MAX_MAP];
};

bool loader_is_elf(const uint8_t *head, size_t len)
{
	return len >= sizeof(Elf64_Ehdr) && memcmp(head, ELFMAG, SELFMAG) == 0;
}

static bool read_at(const struct loader *loader, void *buf, size_t len, uint64_t offset,
		    GError **error)
{
	if (pread(loader->kernel_fd, buf, len, offset) != (ssize_t)len)
		return error_set_generic(error, "-kernel %s: file is cut short",
					 loader->kernel_name);
	return true;
}

/* Look for the entry point among the notes of one PT_NOTE segment; 0 if it is not there. */
static uint32_t find_entry(const uint8_t *notes, size_t len)
{
	size_t pos = 0;

	while (len - pos >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		uint64_t name, desc, next;

		memcpy(&note, notes + pos, sizeof(note));
		name = pos + sizeof(note);
		desc = name + ((note.n_namesz + 3ULL) & ~3ULL);
		next = desc + ((note.n_descsz + 3ULL) & ~3ULL);
		if (next > len)
			return 0;
		if (note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && note.n_namesz == 4 &&
		    memcmp(notes + name, "Xen", 4) == 0 && note.n_descsz >= 4) {
			uint32_t entry;

			memcpy(&entry, notes + desc, sizeof(entry));
			return entry;
		}
		pos = next;
	}
	return 0;
}

static bool read_entry(const struct loader *loader, const Elf64_Phdr *phdr, uint32_t *entry,
		       GError **error)
{
	g_autofree uint8_t *notes = NULL;

	if (phdr->p_filesz > PVH_MAX_NOTES_BYTES)
		return error_set_generic(error, "-kernel %s: notes of %" G_GUINT64_FORMAT " bytes",
					 loader->kernel_name, phdr->p_filesz);
	notes = g_malloc(phdr->p_filesz + 1);
	if (!read_at(loader, notes, phdr->p_filesz, phdr->p_offset, error))
		return false;
	if (*entry == 0)
		*entry = find_entry(notes, phdr->p_filesz);
	return true;
}

static bool load_segment(const struct loader *loader, const struct loader_target *target,
			 const Elf64_Phdr *phdr, uint64_t *end, GError **error)
{
	uint64_t bss = phdr->p_memsz - phdr->p_filesz;
	void *p;

	if (phdr->p_filesz > phdr->p_memsz || phdr->p_paddr > UINT32_MAX ||
	    phdr->p_memsz > UINT32_MAX)
		return error_set_generic(
			error, "-kernel %s: segment at 0x%" G_GINT64_MODIFIER "x is malformed",
			loader->kernel_name, phdr->p_paddr);
	if (phdr->p_filesz && !loader_read(loader->kernel_fd, loader->kernel_name, phdr->p_offset,
					   target, phdr->p_paddr, phdr->p_filesz, error))
		return false;
	if (bss) {
		p = guest_memory_map(target->memory, phdr->p_paddr + phdr->p_filesz, bss, true);
		if (!p)
			return error_set_generic(
				error,
				"-kernel %s: does not fit into RAM; give the guest "
				"more memory (-m)",
				loader->kernel_name);
		memset(p, 0, bss);
	}
	*end = MAX(*end, phdr->p_paddr + phdr->p_memsz);
	return true;
}

static bool load_segments(const struct loader *loader, const struct loader_target *target,
			  uint32_t *entry, uint64_t *end, GError **error)
{
	Elf64_Ehdr ehdr;

	if (!read_at(loader, &ehdr, sizeof(ehdr), 0, error))
		return false;
	if (ehdr.e_ident[EI_CLASS] != ELFCLASS64 || ehdr.e_machine != EM_X86_64 ||
	    ehdr.e_phentsize != sizeof(Elf64_Phdr) || ehdr.e_phnum > PVH_MAX_PHDRS)
		return error_set_generic(error, "-kernel %s: not a 64-bit x86 ELF file",
					 loader->kernel_name);
	for (uint32_t i = 0; i < ehdr.e_phnum; i++) {
		Elf64_Phdr phdr;

		if (!read_at(loader, &phdr, sizeof(phdr), ehdr.e_phoff + i * sizeof(phdr), error))
			return false;
		if (phdr.p_type == PT_NOTE && !read_entry(loader, &phdr, entry, error))
			return false;
		if (phdr.p_type == PT_LOAD && !load_segment(loader, target, &phdr, end, error))
			return false;
	}
	if (*entry == 0)
		return error_set_generic(error,
					 "-kernel %s: ELF file without a PVH entry point (note "
					 "XEN_ELFNOTE_PHYS32_ENTRY)",
					 loader->kernel_name);
	return true;
}

bool loader_load_pvh(struct loader *loader, const struct loader_target *target,
		     struct kvm_boot_regs *regs, GError **error)
{
	struct loader_range map[LOADER_MAX_MAP];
	struct pvh_info info = {0};
	uint64_t end = MIB;
	uint32_t entry = 0, n;

	if (!load_segments(loader, target, &entry, &end, error))
		return false;
	end = (end + 0xfff) & ~0xfffULL;
	if (!loader_place_initrd(loader, target, end, LAYOUT_LOW_RAM_MAX, &info.module.paddr,
				 &info.module.size, error))
		return false;
	n = loader_memory_map(target, map);
	for (uint32_t i = 0; i < n; i++)
		info.map[i] =
			(struct hvm_memmap_entry){map[i].start, map[i].size_bytes, map[i].type, 0};
	info.start = (struct hvm_start_info){
		.magic = PVH_MAGIC,
		.version = 1,
		.nr_modules = info.module.size ? 1 : 0,
		.modlist_paddr = LAYOUT_PVH_INFO + offsetof(struct pvh_info, module),
		.cmdline_paddr = LAYOUT_CMDLINE,
		.rsdp_paddr = target->rsdp,
		.memmap_paddr = LAYOUT_PVH_INFO + offsetof(struct pvh_info, map),
		.memmap_entries = n,
	};
	if (!guest_memory_write(target->memory, LAYOUT_PVH_INFO, &info, sizeof(info)) ||
	    !guest_memory_write(target->memory, LAYOUT_CMDLINE, loader->cmdline,
				strlen(loader->cmdline) + 1))
		return error_set_generic(error, "no RAM below 640 KiB for the start info");
	*regs = (struct kvm_boot_regs){
		.rip = entry,
		.rsp = LAYOUT_STACK,
		.rbx = LAYOUT_PVH_INFO,
	};
	return true;
}
