// Loaders: good images end up where the protocol says, bad ones are refused in one line.
// SPDX-License-Identifier: Apache-2.0
#include "machine/loader.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "machine/layout.h"

struct fixture {
	struct guest_memory memory;
	struct ram_block *block;
	struct fd_source fds;
	struct loader_target target;
	char *path;
	char *initrd_path;
};

static void setup(struct fixture *f, gconstpointer data)
{
	struct memory_backend_config config = {
		.kind = MEMORY_BACKEND_RAM, .id = (char *)"ram", .size_bytes = 64 * MIB};
	int fd;

	f->block = ram_block_new(&config, &f->fds, NULL);
	g_assert_nonnull(f->block);
	g_assert_true(guest_memory_add(&f->memory, 0, f->block, 0, 64 * MIB, false, NULL));
	f->target = (struct loader_target){
		.memory = &f->memory, .low_end = 64 * MIB, .rsdp = LAYOUT_ACPI};
	f->path = g_strdup("/dev/shm/molt-loader-XXXXXX");
	f->initrd_path = g_strdup("/dev/shm/molt-initrd-XXXXXX");
	fd = mkstemp(f->path);
	close(fd);
	fd = mkstemp(f->initrd_path);
	g_assert_cmpint(write(fd, "initrd", 6), ==, 6);
	close(fd);
}

static void teardown(struct fixture *f, gconstpointer data)
{
	ram_block_free(f->block);
	fd_source_clear(&f->fds);
	unlink(f->path);
	unlink(f->initrd_path);
	g_free(f->path);
	g_free(f->initrd_path);
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *file = fopen(path, "w");

	g_assert_nonnull(file);
	g_assert_cmpuint(fwrite(data, 1, len, file), ==, len);
	fclose(file);
}

static bool load(struct fixture *f, const void *image, size_t len, bool initrd,
		 struct kvm_boot_regs *regs, GError **error)
{
	struct vm_config config = {.kernel = f->path, .append = (char *)"console=ttyS0"};
	autoptr(loader) loader = NULL;

	write_file(f->path, image, len);
	if (initrd)
		config.initrd = f->initrd_path;
	loader = loader_open(&config, &f->fds, error);
	return loader && loader_load(loader, &f->target, regs, error);
}

static uint8_t *make_bzimage(size_t *len)
{
	uint8_t *image;
	struct setup_header header = {
		.setup_sects = 1,
		.boot_flag = 0xaa55,
		.header = 0x53726448,
		.version = 0x020f,
		.loadflags = LOADED_HIGH,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 0x200000,
		.relocatable_kernel = 1,
		.xloadflags = XLF_KERNEL_64,
		.cmdline_size = 2047,
		.pref_address = 0x1000000,
		.init_size = 0x100000,
	};

	*len = 1024 + 4096;
	image = g_malloc0(*len);
	memcpy(image + 0x1f1, &header, sizeof(header));
	memset(image + 1024, 0xcc, 4096);
	return image;
}

static void test_linux(struct fixture *f, gconstpointer data)
{
	size_t len;
	g_autofree uint8_t *image = make_bzimage(&len);
	const struct boot_params *params = (void *)(f->block->host + LAYOUT_BOOT_PARAMS);
	struct kvm_boot_regs regs;
	const uint64_t *pml4 = (void *)(f->block->host + LAYOUT_PAGE_TABLES);

	g_assert_true(load(f, image, len, true, &regs, NULL));
	g_assert_cmpuint(regs.rip, ==, 0x1000200);
	g_assert_cmpuint(regs.rsi, ==, LAYOUT_BOOT_PARAMS);
	g_assert_true(regs.long_mode);
	g_assert_cmpuint(f->block->host[0x1000000], ==, 0xcc);
	g_assert_cmpstr((char *)f->block->host + LAYOUT_CMDLINE, ==, "console=ttyS0");
	g_assert_cmpuint(params->hdr.cmd_line_ptr, ==, LAYOUT_CMDLINE);
	g_assert_cmpuint(params->hdr.ramdisk_size, ==, 6);
	g_assert_cmpmem(f->block->host + params->hdr.ramdisk_image, 6, "initrd", 6);
	g_assert_cmpuint(params->acpi_rsdp_addr, ==, LAYOUT_ACPI);
	g_assert_cmpuint(params->e820_entries, ==, 5);
	g_assert_cmpuint(pml4[0] & ~0xfffULL, ==, LAYOUT_PAGE_TABLES + 0x1000);
}

/* Cut short at every length, it is refused or (only the kernel's code missing) loaded, never worse.
 */
static void test_linux_truncated(struct fixture *f, gconstpointer data)
{
	size_t len;
	g_autofree uint8_t *image = make_bzimage(&len);

	for (size_t n = 0; n <= 1024; n++) {
		g_autoptr(GError) error = NULL;
		struct kvm_boot_regs regs;

		g_assert_false(load(f, image, n, false, &regs, &error));
		g_assert_nonnull(strstr(error->message, f->path));
	}
}

static void test_linux_bad(struct fixture *f, gconstpointer data)
{
	static const struct {
		size_t offset;
		uint32_t value, bytes;
		const char *reason;
	} bad[] = {
		{offsetof(struct setup_header, version), 0x020b, 2, "not a 64-bit kernel"},
		{offsetof(struct setup_header, xloadflags), 0, 2, "not a 64-bit kernel"},
		{offsetof(struct setup_header, init_size), 0x10000000, 4, "needs 25"},
		{offsetof(struct setup_header, init_size), 16, 4, "do not match"},
		{offsetof(struct setup_header, cmdline_size), 4, 4, "takes at most 4"},
		{offsetof(struct setup_header, initrd_addr_max), 0xfff, 4, "do not fit"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		size_t len;
		g_autofree uint8_t *image = make_bzimage(&len);
		g_autoptr(GError) error = NULL;
		struct kvm_boot_regs regs;

		memcpy(image + 0x1f1 + bad[i].offset, &bad[i].value, bad[i].bytes);
		g_assert_false(load(f, image, len, true, &regs, &error));
		g_test_message("%s", error->message);
		g_assert_nonnull(strstr(error->message, bad[i].reason));
	}
}

struct elf_image {
	Elf64_Ehdr ehdr;
	Elf64_Phdr load, note;
	Elf64_Nhdr nhdr;
	char name[4];
	uint32_t entry;
	uint8_t code[64];
};

static struct elf_image make_elf(void)
{
	struct elf_image image = {
		.ehdr = {.e_machine = EM_X86_64,
			 .e_phoff = offsetof(struct elf_image, load),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 2},
		.load = {.p_type = PT_LOAD,
			 .p_offset = offsetof(struct elf_image, code),
			 .p_paddr = 0x200000,
			 .p_filesz = 64,
			 .p_memsz = 4096},
		.note = {.p_type = PT_NOTE,
			 .p_offset = offsetof(struct elf_image, nhdr),
			 .p_filesz = sizeof(Elf64_Nhdr) + 8},
		.nhdr = {.n_namesz = 4, .n_descsz = 4, .n_type = 18},
		.name = "Xen",
		.entry = 0x200010,
	};

	memcpy(image.ehdr.e_ident, ELFMAG, SELFMAG);
	image.ehdr.e_ident[EI_CLASS] = ELFCLASS64;
	memset(image.code, 0x90, sizeof(image.code));
	return image;
}

static void test_pvh(struct fixture *f, gconstpointer data)
{
	struct elf_image image = make_elf();
	struct kvm_boot_regs regs;

	memset(f->block->host + 0x200000, 0xff, 4096);
	g_assert_true(load(f, &image, sizeof(image), true, &regs, NULL));
	g_assert_cmpuint(regs.rip, ==, 0x200010);
	g_assert_cmpuint(regs.rbx, ==, LAYOUT_PVH_INFO);
	g_assert_false(regs.long_mode);
	g_assert_cmpuint(f->block->host[0x200000], ==, 0x90);
	g_assert_cmpuint(f->block->host[0x200000 + 64], ==, 0);
}

/* Every byte of the headers set to nonsense: refused, or loaded, but nothing out of bounds. */
static void test_pvh_fuzz(struct fixture *f, gconstpointer data)
{
	static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	size_t refused = 0;

	for (size_t i = SELFMAG; i < offsetof(struct elf_image, code); i++) {
		for (size_t v = 0; v < sizeof(values); v++) {
			struct elf_image image = make_elf();
			g_autoptr(GError) error = NULL;
			struct kvm_boot_regs regs;

			((uint8_t *)&image)[i] = values[v];
			if (!load(f, &image, sizeof(image), false, &regs, &error)) {
				refused++;
				g_assert_nonnull(error);
			}
		}
	}
	g_assert_cmpuint(refused, >, 100);
}

/* A reset finds what was there at the start: in a file that was cut, overwritten, or removed. */
static void test_file_changes(struct fixture *f, gconstpointer data)
{
	struct elf_image image = make_elf();
	struct vm_config config = {.kernel = f->path};
	autoptr(loader) loader = NULL;
	struct kvm_boot_regs regs;
	g_autoptr(GError) error = NULL;

	write_file(f->path, &image, sizeof(image));
	loader = loader_open(&config, &f->fds, &error);
	g_assert_no_error(error);
	g_assert_cmpint(fcntl(loader->kernel_fd, F_GET_SEALS) & FILE_SEALED, ==, FILE_SEALED);
	for (int i = 0; i < 3; i++) {
		if (i == 0)
			g_assert_cmpint(truncate(f->path, 100), ==, 0);
		else if (i == 1)
			write_file(f->path, "something else", 14);
		else
			unlink(f->path);
		memset(guest_memory_map(&f->memory, 0x200000, 64, true), 0, 64);
		g_assert_true(loader_load(loader, &f->target, &regs, &error));
		g_assert_cmpmem(guest_memory_map(&f->memory, 0x200000, 64, true), 64, image.code,
				sizeof(image.code));
	}
}

static void test_not_a_file(struct fixture *f, gconstpointer data)
{
	struct vm_config config = {.kernel = f->path};
	g_autoptr(GError) error = NULL;

	unlink(f->path);
	g_assert_cmpint(mkfifo(f->path, 0600), ==, 0);
	g_assert_null(loader_open(&config, &f->fds, &error));
	g_assert_nonnull(strstr(error->message, "not a regular file"));
}

static void test_no_file(struct fixture *f, gconstpointer data)
{
	struct vm_config config = {.kernel = (char *)"/does/not/exist"};
	struct vm_config lone = {.initrd = f->initrd_path};
	g_autoptr(GError) error = NULL;

	g_assert_null(loader_open(&config, &f->fds, &error));
	g_assert_cmpstr(error->message, ==, "-kernel /does/not/exist: No such file or directory");
	g_clear_error(&error);
	g_assert_null(loader_open(&lone, &f->fds, &error));
	g_assert_nonnull(error);
}

int main(int argc, char **argv)
{
#define ADD(name, fn) g_test_add(name, struct fixture, NULL, setup, fn, teardown)
	g_test_init(&argc, &argv, NULL);
	ADD("/loader/linux", test_linux);
	ADD("/loader/linux-truncated", test_linux_truncated);
	ADD("/loader/linux-bad", test_linux_bad);
	ADD("/loader/pvh", test_pvh);
	ADD("/loader/pvh-fuzz", test_pvh_fuzz);
	ADD("/loader/file_changes", test_file_changes);
	ADD("/loader/not_a_file", test_not_a_file);
	ADD("/loader/no-file", test_no_file);
	return g_test_run();
}
