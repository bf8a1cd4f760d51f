// Whether this VM, as it is now, can be updated, in each mode: one table, asked by everybody.
// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/memory_room.h"
#include "cpr/internal.h"
#include "cpr/memory_need.h"

/**
 * DOC: theory of operation
 *
 * At the start the answer is a warning, or the end with -only-migratable; at hot plug it is asked for
 * one device more; query-migrate shows it as blocked-reasons; migrate begins with it.  Files of the VM
 * are not touched, for to close a mere duplicate waits for its store; this program's own is opened
 * (check_program()).  Names, counts and texts that no wire carries are not here: a configuration that
 * has them is refused as a whole (options/check.c).
 */

/* What an update opens beside the duplicates of what crosses: files, pipes, sockets, sealed state. */
#define OWN_DESCRIPTORS 16
/* What a device may add: its image, eventfds of its queues and vectors, counted largely. */
#define PLUG_DESCRIPTORS 160
/* Room for twice the state of a machine with 64 vCPUs and every device, a second KVM VM and thread
 * stacks. */
#define ADDRESS_SPACE (64U << 20)

#define MODE(mode) (1u << (mode))
#define EVERY_MODE (MODE(MIGRATION_MODE_CPR_TRANSFER) | MODE(MIGRATION_MODE_CPR_EXEC))

static void blocked(GPtrArray *reasons, GError *reason)
{
	g_ptr_array_add(reasons, g_strdup(reason->message));
	g_error_free(reason);
}

static void check_machine(struct update *update, uint32_t more, GPtrArray *reasons)
{
	machine_add_blockers(update->machine, reasons);
}

/* The lock of the owner page is taken on a description of its own, which only /proc makes. */
static void check_proc(struct update *update, uint32_t more, GPtrArray *reasons)
{
	if (owner_stays(update->owner))
		g_ptr_array_add(reasons, g_strdup("/proc was not there when this VM was started; "
						  "mount /proc before"));
	else if (access("/proc/self/fd", R_OK | X_OK) < 0)
		g_ptr_array_add(reasons,
				g_strdup_printf("/proc/self/fd: %s; mount /proc", strerror(errno)));
}

/* How many descriptors more can be opened; counted, since to try would take them from threads. */
static uint64_t count_free_descriptors(void)
{
	struct rlimit limit;
	struct dirent *entry;
	uint64_t n_open = 0;
	DIR *dir = opendir("/proc/self/fd");

	getrlimit(RLIMIT_NOFILE, &limit);
	/* Where there is no /proc, check_proc() says so. */
	if (!dir)
		return errno == EMFILE || errno == ENFILE ? 0 : limit.rlim_cur;
	while ((entry = readdir(dir)))
		n_open += g_ascii_isdigit(entry->d_name[0]) &&
			  g_ascii_strtoull(entry->d_name, NULL, 10) < limit.rlim_cur;
	closedir(dir);
	return limit.rlim_cur - n_open;
}

/* Counted, and as they were found when they were opened. */
static void check_descriptors(struct update *update, uint32_t more, GPtrArray *reasons)
{
	uint32_t n = (update->fds.live ? g_hash_table_size(update->fds.live) : 0) +
		     OWN_DESCRIPTORS + more;
	GError *reason = NULL;

	if (count_free_descriptors() < n)
		g_ptr_array_add(reasons, g_strdup_printf("%u descriptors more are needed: %s; "
							 "raise the limit (RLIMIT_NOFILE)",
							 n, strerror(EMFILE)));
	else if (!fd_source_check(&update->fds, &reason))
		blocked(reasons, reason);
}

/* A failed allocation ends the process, so the memory an update needs must be there before it begins. */
static void check_address_space(struct update *update, uint32_t more, GPtrArray *reasons)
{
	void *room = mmap(NULL, ADDRESS_SPACE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room != MAP_FAILED)
		munmap(room, ADDRESS_SPACE);
	else
		g_ptr_array_add(reasons,
				g_strdup_printf("%u MiB of address space are needed: %s; raise the "
						"limit (RLIMIT_AS)",
						ADDRESS_SPACE >> 20, strerror(errno)));
}

/* The rehearsal builds the machine once more: no less than this process has for it. */
static void check_memory(struct update *update, uint32_t more, GPtrArray *reasons)
{
	GError *reason = NULL;

	if (!memory_need_check(memory_own_bytes(), &reason))
		blocked(reasons, reason);
}

/* A way back needs the program that is to come back. */
static void check_program(struct update *update, uint32_t more, GPtrArray *reasons)
{
	autofd int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		g_ptr_array_add(reasons,
				g_strdup_printf("cannot open this program's executable: %s",
						strerror(errno)));
}

/**
 * struct blocker - One thing that can stand in the way
 * @modes:	In which modes it does
 * @passing:	Says something of the moment only, so a promise is not judged by it: at the start the
 *		guest's RAM is not charged to its cgroup yet
 * @check:	Add a reason each; @more descriptors are to be free beside those of the update
 */
static const struct blocker {
	uint32_t modes;
	bool passing;
	void (*check)(struct update *update, uint32_t more, GPtrArray *reasons);
} blockers[] = {
	{EVERY_MODE, false, check_machine},
	{EVERY_MODE, false, check_proc},
	{EVERY_MODE, false, check_descriptors},
	{EVERY_MODE, false, check_address_space},
	{MODE(MIGRATION_MODE_CPR_EXEC), true, check_memory},
	{MODE(MIGRATION_MODE_CPR_EXEC), false, check_program},
};

static GPtrArray *find_blockers(struct update *update, uint32_t modes, bool with_passing,
				uint32_t more)
{
	GPtrArray *reasons = g_ptr_array_new_with_free_func(g_free);

	for (size_t i = 0; i < G_N_ELEMENTS(blockers); i++)
		if ((blockers[i].modes & modes) && (with_passing || !blockers[i].passing))
			blockers[i].check(update, more, reasons);
	return reasons;
}

GPtrArray *update_blockers(struct update *update, enum migration_mode mode)
{
	return find_blockers(update, MODE(mode), true, 0);
}

bool update_check_blockers(struct update *update, enum migration_mode mode, GError **error)
{
	g_autoptr(GPtrArray) reasons = update_blockers(update, mode);

	return reasons->len == 0 ||
	       error_set_generic(error, "%s", (char *)g_ptr_array_index(reasons, 0));
}

/* ---- promises of the command line ---- */

/* What -only-migratable and -only-migratable-modes ask for. */
static uint32_t promised_modes(const struct vm_config *config)
{
	uint32_t modes = config->only_migratable ? EVERY_MODE : 0;

	if (config->only_migratable_transfer)
		modes |= MODE(MIGRATION_MODE_CPR_TRANSFER);
	if (config->only_migratable_exec)
		modes |= MODE(MIGRATION_MODE_CPR_EXEC);
	return modes;
}

/* Refuse what was promised not to be, warn of the rest.  @what: "-only-migratable" or the like */
static bool judge(struct update *update, uint32_t more, const char *what, GError **error)
{
	const uint32_t promised = promised_modes(update->config);
	g_autoptr(GPtrArray)
		reasons = find_blockers(update, promised ? promised : EVERY_MODE, false, more);
	const char *first = reasons->len ? g_ptr_array_index(reasons, 0) : NULL;

	if (!first)
		return true;
	if (promised)
		return error_set_generic(error, "-only-migratable%s: %s%s",
					 update->config->only_migratable ? "" : "-modes", what,
					 first);
	log_warn("%sthis VM cannot be updated as it is: %s%s", what, first,
		 reasons->len > 1 ? " (query-migrate has all reasons)" : "");
	return true;
}

bool update_judge_start(struct update *update, GError **error)
{
	return judge(update, 0, "", error);
}

bool update_judge_plug(struct update *update, GError **error)
{
	return judge(update, PLUG_DESCRIPTORS, "device_add: ", error);
}
