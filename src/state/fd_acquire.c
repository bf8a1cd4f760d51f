// The one door through which host descriptors come, at cold boot and at takeover alike.
// SPDX-License-Identifier: Apache-2.0
#include "state/fd_acquire.h"

#include "base/error.h"
#include "base/fd.h"

static int acquire_open(const char *name, enum fd_kind kind, fd_open_fn *open_fn, void *arg,
			GError **error)
{
	autofd int fd = open_fn(arg, error);
	struct fd_identity identity;

	if (fd < 0)
		return -1;
	fd_kind_prepare(kind, fd);
	/* What could not be handed over is refused now, not when an update is due. */
	if (!fd_identity_read(fd, &identity, error) ||
	    !fd_kind_verify(kind, fd, &identity, error)) {
		g_prefix_error(error, "%s: ", name);
		return -1;
	}
	return fd_steal(&fd);
}

bool fd_expected(const struct fd_source *src, const char *name)
{
	return src && src->inherited && fd_crosses(name, src->way);
}

int fd_acquire(struct fd_source *src, const char *name, enum fd_kind kind, fd_open_fn *open_fn,
	       void *arg, GError **error)
{
	if (src && src->inherited && fdstore_find(src->inherited, name))
		return fd_inherit(src, name, kind, error);
	if (fd_expected(src, name) && src->complete) {
		error_set_generic(error, "descriptor %s: was not handed over", name);
		return -1;
	}
	return fd_acquire_new(src, name, kind, open_fn, arg, error);
}

int fd_acquire_new(struct fd_source *src, const char *name, enum fd_kind kind, fd_open_fn *open_fn,
		   void *arg, GError **error)
{
	autofd int fd = acquire_open(name, kind, open_fn, arg, error);

	if (fd < 0 || !fd_publish(src, name, kind, fd, error))
		return -1;
	return fd_steal(&fd);
}
