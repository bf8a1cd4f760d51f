// The store of named descriptors that cross into the next process.
// SPDX-License-Identifier: Apache-2.0
#include "state/fdstore.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "state/fdstore_priv.h"

/* 0 to 2 belong to whoever reads and writes standard streams. */
#define FD_LOWEST 3

/**
 * struct fdstore - Named descriptors
 * @entries:	struct fdstore_entry, in the order they were added
 * @by_name:	The same by name
 * @view:	Their descriptors are not the store's, and stay open
 */
struct fdstore {
	GPtrArray *entries;
	GHashTable *by_name;
	bool view;
};

static void entry_free(gpointer data)
{
	struct fdstore_entry *entry = data;

	fd_close(&entry->fd);
	g_free(entry);
}

struct fdstore *fdstore_new(void)
{
	struct fdstore *store = g_new0(struct fdstore, 1);

	store->entries = g_ptr_array_new_with_free_func(entry_free);
	store->by_name = g_hash_table_new(g_str_hash, g_str_equal);
	return store;
}

struct fdstore *fdstore_new_view(void)
{
	struct fdstore *store = fdstore_new();

	store->view = true;
	return store;
}

void fdstore_free(struct fdstore *store)
{
	if (!store)
		return;
	if (store->view)
		fdstore_disown(store);
	g_hash_table_unref(store->by_name);
	g_ptr_array_unref(store->entries);
	g_free(store);
}

void fdstore_leave(struct fdstore *store)
{
	g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));

	for (guint i = 0; store && i < store->entries->len; i++) {
		struct fdstore_entry *entry = g_ptr_array_index(store->entries, i);

		g_array_append_val(fds, entry->fd);
		entry->fd = -1;
	}
	close_later(fds);
	fdstore_free(store);
}

static bool name_valid(const char *name)
{
	size_t len = strnlen(name, FDSTORE_NAME_BYTES);

	if (len == 0 || len == FDSTORE_NAME_BYTES)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!g_ascii_isgraph(name[i]))
			return false;
	}
	return true;
}

bool fdstore_check_name(const char *name, GError **error)
{
	return name_valid(name) || error_set_generic(error, "'%.*s' cannot name a descriptor",
						     FDSTORE_NAME_BYTES, name);
}

static bool fdstore_check_room(const struct fdstore *store, const char *name, GError **error)
{
	if (!fdstore_check_name(name, error))
		return false;
	if (g_hash_table_contains(store->by_name, name))
		return error_set_generic(error, "descriptor %s: there is one of this name already",
					 name);
	if (store->entries->len >= FDSTORE_MAX)
		return error_set_generic(error, "descriptor %s: more than %d cannot be handed over",
					 name, FDSTORE_MAX);
	return true;
}

static void fdstore_insert(struct fdstore *store, const char *name, enum fd_kind kind,
			   const struct fd_identity *identity, int fd)
{
	struct fdstore_entry *entry = g_new0(struct fdstore_entry, 1);

	g_strlcpy(entry->name, name, sizeof(entry->name));
	entry->kind = kind;
	entry->identity = *identity;
	entry->fd = fd;
	g_ptr_array_add(store->entries, entry);
	g_hash_table_insert(store->by_name, entry->name, entry);
}

bool fdstore_add(struct fdstore *store, const char *name, enum fd_kind kind, int fd, GError **error)
{
	struct fd_identity identity;
	autofd int own = -1;

	if (!fdstore_check_room(store, name, error))
		return false;
	fd_kind_prepare(kind, fd);
	if (!fd_identity_read(fd, &identity, error) ||
	    !fd_kind_verify(kind, fd, &identity, error)) {
		g_prefix_error(error, "descriptor %s: ", name);
		return false;
	}
	own = store->view ? fd : fcntl(fd, F_DUPFD_CLOEXEC, FD_LOWEST);
	if (own < 0)
		return error_set_errno(error, errno, "descriptor %s: cannot duplicate", name);
	fdstore_insert(store, name, kind, &identity, fd_steal(&own));
	return true;
}

static bool fdstore_recheck(int fd, enum fd_kind kind, const struct fd_identity *then,
			    GError **error)
{
	struct fd_identity now;

	return fd_identity_read(fd, &now, error) && fd_identity_match(then, &now, error) &&
	       fd_kind_verify(kind, fd, &now, error);
}

bool fdstore_adopt(struct fdstore *store, const struct fd_record *record, int *fd, GError **error)
{
	const char *name = (const char *)record->name;

	if (!fdstore_check_room(store, name, error))
		return false;
	if (!fdstore_recheck(*fd, record->kind, &record->identity, error)) {
		g_prefix_error(error, "descriptor %s: ", name);
		return false;
	}
	if (*fd < FD_LOWEST) {
		int high = fcntl(*fd, F_DUPFD_CLOEXEC, FD_LOWEST);

		if (high < 0)
			return error_set_errno(error, errno, "descriptor %s: cannot duplicate",
					       name);
		fd_close(fd);
		*fd = high;
	}
	fdstore_insert(store, name, record->kind, &record->identity, fd_steal(fd));
	return true;
}

void fdstore_disown(struct fdstore *store)
{
	for (guint i = 0; i < store->entries->len; i++) {
		struct fdstore_entry *entry = g_ptr_array_index(store->entries, i);

		entry->fd = -1;
	}
}

const struct fdstore_entry *fdstore_find(const struct fdstore *store, const char *name)
{
	return g_hash_table_lookup(store->by_name, name);
}

static int entry_take(struct fdstore_entry *entry, enum fd_kind kind, GError **error)
{
	int fd;

	if (entry->taken) {
		error_set_generic(error, "was taken before");
		return -1;
	}
	if (entry->kind != kind) {
		error_set_generic(error, "was handed over as %s, but %s is needed",
				  fd_kind_name(entry->kind), fd_kind_name(kind));
		return -1;
	}
	if (!fdstore_recheck(entry->fd, kind, &entry->identity, error))
		return -1;
	fd = fcntl(entry->fd, F_DUPFD_CLOEXEC, FD_LOWEST);
	if (fd < 0)
		error_set_errno(error, errno, "cannot duplicate");
	else
		entry->taken = true;
	return fd;
}

int fdstore_take(struct fdstore *store, const char *name, enum fd_kind kind, GError **error)
{
	struct fdstore_entry *entry = g_hash_table_lookup(store->by_name, name);
	int fd;

	if (!entry) {
		error_set_generic(error, "descriptor %s: was not handed over", name);
		return -1;
	}
	fd = entry_take(entry, kind, error);
	if (fd < 0)
		g_prefix_error(error, "descriptor %s: ", name);
	return fd;
}

void fdstore_give_back(struct fdstore *store, const char *name)
{
	struct fdstore_entry *entry = g_hash_table_lookup(store->by_name, name);

	if (entry)
		entry->taken = false;
}

bool fdstore_finish(const struct fdstore *store, bool (*may_stay)(void *opaque, const char *name),
		    void *opaque, GError **error)
{
	g_autoptr(GString) left = g_string_new(NULL);

	for (guint i = 0; i < store->entries->len; i++) {
		const struct fdstore_entry *entry = g_ptr_array_index(store->entries, i);

		if (!entry->taken && !(may_stay && may_stay(opaque, entry->name)))
			g_string_append_printf(left, "%s%s", left->len > 0 ? ", " : "",
					       entry->name);
	}
	if (left->len == 0)
		return true;
	return error_set_generic(
		error, "descriptors were handed over that this machine has no use for: %s",
		left->str);
}

size_t fdstore_count(const struct fdstore *store)
{
	return store->entries->len;
}

const struct fdstore_entry *fdstore_iter(const struct fdstore *store, size_t *pos)
{
	if (*pos >= store->entries->len)
		return NULL;
	return g_ptr_array_index(store->entries, (*pos)++);
}
