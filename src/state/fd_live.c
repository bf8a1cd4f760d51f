// Which descriptors are in use: what an update hands over.
// SPDX-License-Identifier: Apache-2.0
#include "state/fd_acquire.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fd.h"

/**
 * struct fd_live - A descriptor in use
 * @kind:	What it was acquired as
 * @fd:		Borrowed from its owner
 * @unfit:	Why it could not be handed over when it was published; NULL: it could
 */
struct fd_live {
	enum fd_kind kind;
	int fd;
	char *unfit;
};

static void live_free(void *opaque)
{
	struct fd_live *live = opaque;

	g_free(live->unfit);
	g_free(live);
}

/* Asked when it was just opened: later its store may hang.  Return: NULL if it can be handed over. */
static char *why_unfit(const char *name, enum fd_kind kind, int fd)
{
	g_autoptr(GError) reason = NULL;
	struct fd_identity identity;

	fd_kind_prepare(kind, fd);
	if (fdstore_check_name(name, &reason) && fd_identity_read(fd, &identity, &reason) &&
	    fd_kind_verify(kind, fd, &identity, &reason))
		return NULL;
	return g_strdup(reason->message);
}

void fd_source_clear(struct fd_source *src)
{
	g_clear_pointer(&src->live, g_hash_table_unref);
	g_clear_pointer(&src->paths, g_ptr_array_unref);
	g_clear_pointer(&src->left, g_hash_table_unref);
}

static bool check_unused(struct fd_source *src, const char *name, GError **error)
{
	if (src->live && g_hash_table_contains(src->live, name))
		return error_set_generic(error, "descriptor '%s': the name is in use", name);
	return true;
}

/* Takes @unfit. */
static void insert(struct fd_source *src, const char *name, enum fd_kind kind, int fd, char *unfit)
{
	struct fd_live *live = g_new(struct fd_live, 1);

	*live = (struct fd_live){kind, fd, unfit};
	if (!src->live)
		src->live = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, live_free);
	g_hash_table_insert(src->live, g_strdup(name), live);
}

bool fd_publish(struct fd_source *src, const char *name, enum fd_kind kind, int fd, GError **error)
{
	if (!src)
		return true;
	if (!check_unused(src, name, error))
		return false;
	insert(src, name, kind, fd, why_unfit(name, kind, fd));
	return true;
}

void fd_withdraw(struct fd_source *src, const char *name)
{
	if (!src || !src->live || !g_hash_table_remove(src->live, name))
		return;
	/* A device that is unplugged while its machine waits for the state may be plugged again. */
	if (src->inherited)
		fdstore_give_back(src->inherited, name);
}

int fd_inherit(struct fd_source *src, const char *name, enum fd_kind kind, GError **error)
{
	autofd int fd = -1;

	if (!src || !src->inherited || !fdstore_find(src->inherited, name))
		return -1;
	if (!check_unused(src, name, error))
		return -1;
	fd = fdstore_take(src->inherited, name, kind, error);
	/* It was handed over just now, and checked when it was taken. */
	if (fd >= 0)
		insert(src, name, kind, fd, NULL);
	return fd_steal(&fd);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool fd_source_check(const struct fd_source *src, GError **error)
{
	GHashTableIter iter;
	void *name, *value;

	if (!src->live)
		return true;
	if (g_hash_table_size(src->live) > FDSTORE_MAX)
		return error_set_generic(error, "more than %d descriptors cannot be handed over",
					 FDSTORE_MAX);
	g_hash_table_iter_init(&iter, src->live);
	while (g_hash_table_iter_next(&iter, &name, &value)) {
		const struct fd_live *live = value;

		if (live->unfit)
			return error_set_generic(error, "descriptor %s: %s", (char *)name,
						 live->unfit);
	}
	return true;
}

bool fd_source_offer(struct fd_source *src, struct fdstore *store, enum fd_way way, GError **error)
{
	g_autofree const char **names = NULL;
	guint n;

	if (!src->live)
		return true;
	names = (const char **)g_hash_table_get_keys_as_array(src->live, &n);
	qsort(names, n, sizeof(names[0]), compare_names);
	for (guint i = 0; i < n; i++) {
		const char *name = names[i];
		const struct fd_live *live = g_hash_table_lookup(src->live, name);

		if (!fd_crosses(name, way))
			continue;
		if (!fdstore_add(store, name, live->kind, live->fd, error))
			return false;
	}
	return true;
}
