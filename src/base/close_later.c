// Closing files whose store may hang: on a thread, whenever that comes to its end.
// SPDX-License-Identifier: Apache-2.0
#include "base/close_later.h"

#include "base/fd.h"
#include "base/stuck.h"

static void *close_all(void *opaque)
{
	g_autoptr(GArray) files = opaque;

	for (guint i = 0; i < files->len; i++) {
		int call = stuck_begin("a file to be closed");

		fd_close(&g_array_index(files, int, i));
		stuck_end(call);
	}
	return NULL;
}

void close_later(const GArray *fds)
{
	GArray *files = g_array_new(FALSE, FALSE, sizeof(int));
	GThread *thread = NULL;

	for (guint i = 0; i < fds->len; i++) {
		int fd = g_array_index(fds, int, i);

		if (fd >= 0 && fd_has_store(fd))
			g_array_append_val(files, fd);
		else
			fd_close(&fd);
	}
	if (files->len)
		thread = g_thread_try_new("close", close_all, files, NULL);
	if (thread)
		g_thread_unref(thread);
	else
		close_all(files);
}
