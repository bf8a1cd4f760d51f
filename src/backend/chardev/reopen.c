// Chardevs that are connected anew for an exec: before the guest is stopped, beside the main loop.
// SPDX-License-Identifier: Apache-2.0
#include "backend/chardev/reopen.h"

#include "backend/chardev/chardev_priv.h"
#include "base/job.h"

/**
 * struct reopen - See reopen.h
 * @clients:	struct chardev_reopening *
 * @job:	Which connects them; NULL: not any more.  Until then it is the job's
 */
struct reopen {
	GPtrArray *clients;
	struct job *job;
	GError *error;
	reopen_fn done;
	void *opaque;
};

static void free_client(void *opaque)
{
	chardev_reopening_free(opaque);
}

static void free_now(void *opaque)
{
	struct reopen *reopen = opaque;

	g_ptr_array_unref(reopen->clients);
	g_clear_error(&reopen->error);
	g_free(reopen);
}

static void job_connect(void *opaque)
{
	struct reopen *reopen = opaque;

	for (guint i = 0; !reopen->error && i < reopen->clients->len; i++)
		(void)chardev_reopening_connect(reopen->clients->pdata[i], &reopen->error);
}

static void connected(void *opaque)
{
	struct reopen *reopen = opaque;

	reopen->job = NULL;
	reopen->done(reopen->opaque, reopen->error);
}

bool reopen_start(struct reopen **reopen, struct chardev_set *chardevs, reopen_fn done,
		  void *opaque, GError **error)
{
	struct reopen *r = g_new0(struct reopen, 1);
	struct chardev *chardev;
	bool none;

	*reopen = NULL;
	r->clients = g_ptr_array_new_with_free_func(free_client);
	r->done = done;
	r->opaque = opaque;
	for (unsigned int i = 0; (chardev = chardev_set_get(chardevs, i)); i++) {
		struct chardev_reopening *client = chardev_reopening_new(chardev);

		if (client)
			g_ptr_array_add(r->clients, client);
	}
	if (r->clients->len)
		r->job = job_start("reopen", job_connect, connected, r, error);
	if (r->job) {
		*reopen = r;
		return true;
	}
	none = r->clients->len == 0;
	free_now(r);
	return none;
}

bool reopen_offer(const struct reopen *reopen, struct fdstore *store, GError **error)
{
	for (guint i = 0; reopen && i < reopen->clients->len; i++)
		if (!chardev_reopening_offer(reopen->clients->pdata[i], store, error))
			return false;
	return true;
}

void reopen_free(struct reopen *reopen)
{
	if (!reopen)
		return;
	if (reopen->job)
		job_abandon(reopen->job, free_now);
	else
		free_now(reopen);
}
