// The store crosses an execve(): the numbers stay, the flag that would close them goes.
// SPDX-License-Identifier: Apache-2.0
#include "state/fdstore.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "state/fdstore_priv.h"

GBytes *fdstore_describe_exec(const struct fdstore *store, GError **error)
{
	return fdstore_manifest_write(store, 0, fdstore_count(store), true, error);
}

GBytes *fdstore_export_exec(struct fdstore *store, GError **error)
{
	g_autoptr(GBytes) manifest = fdstore_describe_exec(store, error);
	const struct fdstore_entry *entry;

	if (!manifest)
		return NULL;
	for (size_t pos = 0; (entry = fdstore_iter(store, &pos));) {
		if (!fd_set_cloexec(entry->fd, false)) {
			error_set_errno(error, errno, "descriptor %s: cannot keep over exec",
					entry->name);
			fdstore_unexport_exec(store);
			return NULL;
		}
	}
	return g_steal_pointer(&manifest);
}

void fdstore_unexport_exec(struct fdstore *store)
{
	const struct fdstore_entry *entry;

	for (size_t pos = 0; (entry = fdstore_iter(store, &pos));)
		(void)fd_set_cloexec(entry->fd, true);
}

/* A number that is closed, or that this process opened itself, was not inherited. */
static bool import_claim(const struct fd_record *record, GHashTable *seen, GError **error)
{
	const char *name = (const char *)record->name;
	int flags;

	if (record->number <= STDERR_FILENO || record->number > INT_MAX)
		return error_set_generic(error, "descriptor %s: number %u is out of range", name,
					 record->number);
	if (!g_hash_table_add(seen, GUINT_TO_POINTER(record->number)))
		return error_set_generic(error, "descriptor %s: number %u has two names", name,
					 record->number);
	flags = fcntl(record->number, F_GETFD);
	if (flags < 0)
		return error_set_errno(error, errno, "descriptor %s: number %u did not come over",
				       name, record->number);
	if (flags & FD_CLOEXEC)
		return error_set_generic(error,
					 "descriptor %s: number %u is not inherited, but this "
					 "process's own",
					 name, record->number);
	return true;
}

static void import_arm(const struct fd_manifest *manifest, bool cloexec)
{
	for (uint32_t i = 0; i < manifest->n_records; i++)
		(void)fd_set_cloexec(manifest->records[i].number, cloexec);
}

static bool import_claim_all(const struct fd_manifest *manifest, GError **error)
{
	g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

	for (uint32_t i = 0; i < manifest->n_records; i++) {
		if (!import_claim(&manifest->records[i], seen, error))
			return false;
	}
	return true;
}

struct fdstore *fdstore_import_exec(GBytes *bytes, GError **error)
{
	g_autofree struct fd_manifest *manifest = fdstore_manifest_read(bytes, error);
	autoptr(fdstore) store = NULL;

	if (!manifest || !import_claim_all(manifest, error))
		return NULL;
	import_arm(manifest, true);
	store = fdstore_new();
	for (uint32_t i = 0; i < manifest->n_records; i++) {
		int fd = manifest->records[i].number;

		if (!fdstore_adopt(store, &manifest->records[i], &fd, error)) {
			fdstore_disown(store);
			import_arm(manifest, false);
			return NULL;
		}
	}
	return g_steal_pointer(&store);
}
