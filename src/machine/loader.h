// Puts a kernel into guest memory and says where the boot vCPU starts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "accel/kvm.h"
#include "base/cleanup.h"
#include "memory/guest_memory.h"
#include "options/config.h"
#include "state/fd_acquire.h"

/**
 * DOC: loaders
 *
 * There is no firmware: the loader plays its part.  The images stay open as descriptors
 * ("rom/kernel", "rom/initrd"), which cross an update, so that a guest that reboots gets the same
 * kernel again wherever the successor runs.
 */

/**
 * struct loader - The images of -kernel and -initrd
 * @kernel_fd, @initrd_fd: open images, -1 where there is none
 * @kernel_name, @initrd_name: as given, for messages
 * @cmdline:	-append, "" if none
 */
struct loader {
	struct fd_source *fds;
	int kernel_fd, initrd_fd;
	char *kernel_name, *initrd_name;
	char *cmdline;
};

/**
 * struct loader_target - The memory a kernel is loaded into
 * @memory:	Guest memory
 * @low_end:	End of RAM below 4 GiB
 * @high_size_bytes: RAM from 4 GiB on
 * @rsdp:	Address of the ACPI RSDP
 */
struct loader_target {
	const struct guest_memory *memory;
	uint64_t low_end;
	uint64_t high_size_bytes;
	uint64_t rsdp;
};

/** struct loader_range - One row of the memory map given to the kernel (e820 types) */
struct loader_range {
	uint64_t start, size_bytes;
	uint32_t type;
};

#define LOADER_RAM	1
#define LOADER_RESERVED 2
#define LOADER_MAX_MAP	8

/** loader_open() - Open the images that @config names; without -kernel the loader is empty. */
struct loader *loader_open(const struct vm_config *config, struct fd_source *fds, GError **error);
void loader_free(struct loader *loader);
DEFINE_CLEANUP(loader, loader_free)

/**
 * loader_load() - Load the kernel, by what it is: Linux bzImage or ELF with a PVH note
 * Return: false with @error set; guest memory may have been written then.
 */
bool loader_load(struct loader *loader, const struct loader_target *target,
		 struct kvm_boot_regs *regs, GError **error);

/* For the loaders of one format (loader_linux.c, loader_pvh.c). */

/** loader_is_linux(), loader_is_elf() - By magic numbers in the first @len bytes. */
bool loader_is_linux(const uint8_t *head, size_t len);
bool loader_is_elf(const uint8_t *head, size_t len);
bool loader_load_linux(struct loader *loader, const struct loader_target *target,
		       struct kvm_boot_regs *regs, GError **error);
bool loader_load_pvh(struct loader *loader, const struct loader_target *target,
		     struct kvm_boot_regs *regs, GError **error);

/** loader_memory_map() - Rows for the kernel; Return: how many (at most LOADER_MAX_MAP). */
uint32_t loader_memory_map(const struct loader_target *target, struct loader_range *map);

/** loader_read() - pread() @len bytes of an image into guest memory at @gpa. */
bool loader_read(int fd, const char *name, uint64_t offset, const struct loader_target *target,
		 uint64_t gpa, uint64_t len, GError **error);

/** loader_file_size() - Size of an image in bytes; 0 with @error set on failure. */
uint64_t loader_file_size(int fd, const char *name, GError **error);

/** loader_place_initrd() - Read the initrd below @limit and above @floor, as high as it fits.
 * Sets *@gpa and *@size_bytes, both 0 if there is none. */
bool loader_place_initrd(struct loader *loader, const struct loader_target *target, uint64_t floor,
			 uint64_t limit, uint64_t *gpa, uint64_t *size_bytes, GError **error);
