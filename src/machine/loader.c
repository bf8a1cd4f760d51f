// Puts a kernel into guest memory and says where the boot vCPU starts.
// SPDX-License-Identifier: Apache-2.0
#include "machine/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "machine/layout.h"

struct image_path {
	const char *option;
	const char *path;
};

/*
 * A copy: a guest that resets gets the image it was started with, whatever has become of the file.  What
 * is no regular file is not copied, because it may have no end; nonblocking, because it may be a FIFO.
 */
static int image_open(void *arg, GError **error)
{
	const struct image_path *image = arg;
	autofd int fd = open(image->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	g_autofree char *what = g_strdup_printf("%s %s", image->option, image->path);
	struct stat st;
	int copy;

	if (fd < 0 || fstat(fd, &st) < 0) {
		error_set_errno(error, errno, "%s", what);
		return -1;
	}
	if (!S_ISREG(st.st_mode)) {
		error_set_generic(error, "%s: not a regular file", what);
		return -1;
	}
	copy = file_copy_sealed(fd, image->option, error);
	if (copy < 0)
		g_prefix_error(error, "%s: ", image->path);
	return copy;
}

static int loader_acquire(struct loader *loader, const char *name, const char *option,
			  const char *path, GError **error)
{
	struct image_path image = {option, path};

	return fd_acquire(loader->fds, name, FD_IMAGE, image_open, &image, error);
}

struct loader *loader_open(const struct vm_config *config, struct fd_source *fds, GError **error)
{
	autoptr(loader) loader = g_new0(struct loader, 1);

	*loader = (struct loader){.fds = fds, .kernel_fd = -1, .initrd_fd = -1};
	loader->kernel_name = g_strdup(config->kernel);
	loader->initrd_name = g_strdup(config->initrd);
	loader->cmdline = g_strdup(config->append ? config->append : "");
	if (!config->kernel) {
		if (config->initrd || config->append) {
			error_set_generic(error, "-initrd and -append go with -kernel");
			return NULL;
		}
		return g_steal_pointer(&loader);
	}
	if (strlen(loader->cmdline) >= LAYOUT_CMDLINE_MAX) {
		error_set_generic(error, "-append: %zu characters are too many (most: %d)",
				  strlen(loader->cmdline), LAYOUT_CMDLINE_MAX - 1);
		return NULL;
	}
	loader->kernel_fd = loader_acquire(loader, "rom/kernel", "-kernel", config->kernel, error);
	if (loader->kernel_fd < 0)
		return NULL;
	if (config->initrd) {
		loader->initrd_fd =
			loader_acquire(loader, "rom/initrd", "-initrd", config->initrd, error);
		if (loader->initrd_fd < 0)
			return NULL;
	}
	return g_steal_pointer(&loader);
}

void loader_free(struct loader *loader)
{
	if (!loader)
		return;
	if (loader->kernel_fd >= 0)
		fd_withdraw(loader->fds, "rom/kernel");
	if (loader->initrd_fd >= 0)
		fd_withdraw(loader->fds, "rom/initrd");
	close_soon(&loader->kernel_fd);
	close_soon(&loader->initrd_fd);
	g_free(loader->kernel_name);
	g_free(loader->initrd_name);
	g_free(loader->cmdline);
	g_free(loader);
}

uint64_t loader_file_size(int fd, const char *name, GError **error)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		error_set_errno(error, errno, "%s", name);
		return 0;
	}
	if (!S_ISREG(st.st_mode) || st.st_size == 0) {
		error_set_generic(error, "%s: not a file with anything in it", name);
		return 0;
	}
	return st.st_size;
}

bool loader_read(int fd, const char *name, uint64_t offset, const struct loader_target *target,
		 uint64_t gpa, uint64_t len, GError **error)
{
	uint8_t *p = guest_memory_map(target->memory, gpa, len, true);

	if (!p)
		return error_set_generic(error,
					 "%s: %" G_GUINT64_FORMAT
					 " bytes do not fit into RAM at 0x%" G_GINT64_MODIFIER
					 "x; give the guest more memory (-m)",
					 name, len, gpa);
	while (len > 0) {
		ssize_t n = pread(fd, p, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set_errno(error, errno, "%s", name);
		if (n == 0)
			return error_set_generic(error, "%s: file is cut short", name);
		p += n;
		offset += n;
		len -= n;
	}
	return true;
}

bool loader_place_initrd(struct loader *loader, const struct loader_target *target, uint64_t floor,
			 uint64_t limit, uint64_t *gpa, uint64_t *size_bytes, GError **error)
{
	uint64_t size, top = MIN(limit, target->low_end);

	*gpa = 0;
	*size_bytes = 0;
	if (loader->initrd_fd < 0)
		return true;
	size = loader_file_size(loader->initrd_fd, loader->initrd_name, error);
	if (size == 0)
		return false;
	if (top < size || top - size < floor)
		return error_set_generic(error,
					 "-initrd %s: %" G_GUINT64_FORMAT
					 " bytes do not fit beside the kernel; give the guest more "
					 "memory (-m)",
					 loader->initrd_name, size);
	*gpa = (top - size) & ~0xfffULL;
	if (*gpa < floor)
		*gpa = floor;
	*size_bytes = size;
	return loader_read(loader->initrd_fd, loader->initrd_name, 0, target, *gpa, size, error);
}

uint32_t loader_memory_map(const struct loader_target *target, struct loader_range *map)
{
	uint32_t n = 0;

	map[n++] = (struct loader_range){0, LAYOUT_EBDA, LOADER_RAM};
	map[n++] = (struct loader_range){LAYOUT_ACPI, MIB - LAYOUT_ACPI, LOADER_RESERVED};
	map[n++] = (struct loader_range){MIB, target->low_end - MIB, LOADER_RAM};
	map[n++] = (struct loader_range){LAYOUT_ECAM, LAYOUT_ECAM_SIZE, LOADER_RESERVED};
	map[n++] = (struct loader_range){KVM_RESERVED_GPA, KVM_RESERVED_GPA_BYTES, LOADER_RESERVED};
	if (target->high_size_bytes)
		map[n++] =
			(struct loader_range){LAYOUT_HIGH_RAM, target->high_size_bytes, LOADER_RAM};
	return n;
}

bool loader_load(struct loader *loader, const struct loader_target *target,
		 struct kvm_boot_regs *regs, GError **error)
{
	uint8_t head[4096];
	ssize_t n = pread(loader->kernel_fd, head, sizeof(head), 0);

	if (n < 0)
		return error_set_errno(error, errno, "-kernel %s", loader->kernel_name);
	if (loader_is_linux(head, n))
		return loader_load_linux(loader, target, regs, error);
	if (loader_is_elf(head, n))
		return loader_load_pvh(loader, target, regs, error);
	return error_set_generic(error,
				 "-kernel %s: neither a Linux bzImage nor an ELF file with a PVH "
				 "entry point",
				 loader->kernel_name);
}
