// The signals that end the process: blocked everywhere, read from a descriptor in the main loop.
// SPDX-License-Identifier: Apache-2.0
#include "base/signals.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"

static const int ending[] = {SIGTERM, SIGINT, SIGHUP};
static const int ignored[] = {SIGPIPE, SIGXFSZ};

void signals_mask(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < G_N_ELEMENTS(ending); i++)
		sigaddset(set, ending[i]);
}

void signals_hold(void)
{
	sigset_t set;

	signals_mask(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(ignored); i++)
		signal(ignored[i], SIG_IGN);
}

void signals_release(void)
{
	sigset_t set;

	for (size_t i = 0; i < G_N_ELEMENTS(ignored); i++)
		signal(ignored[i], SIG_DFL);
	signals_mask(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

bool signals_pending(void)
{
	sigset_t set;
	bool pending = false;

	if (sigpending(&set) < 0)
		return false;
	for (size_t i = 0; i < G_N_ELEMENTS(ending); i++)
		pending = pending || sigismember(&set, ending[i]) == 1;
	return pending;
}

static int open_signalfd(GError **error)
{
	sigset_t set;
	int fd;

	signals_mask(&set);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		error_set_errno(error, errno, "signalfd");
	return fd;
}

/** struct watch - signals_watch()'s */
struct watch {
	int fd;
	void (*fn)(void *opaque);
	void *opaque;
};

static gboolean readable(int fd, GIOCondition condition, void *opaque)
{
	const struct watch *watch = opaque;
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) == sizeof(info))
		watch->fn(watch->opaque);
	return G_SOURCE_CONTINUE;
}

static void watch_free(void *opaque)
{
	struct watch *watch = opaque;

	fd_close(&watch->fd);
	g_free(watch);
}

GSource *signals_watch(void (*fn)(void *opaque), void *opaque, GError **error)
{
	int fd = open_signalfd(error);
	struct watch *watch;
	GSource *source;

	if (fd < 0)
		return NULL;
	watch = g_new(struct watch, 1);
	*watch = (struct watch){fd, fn, opaque};
	source = g_unix_fd_source_new(fd, G_IO_IN);
	g_source_set_callback(source, G_SOURCE_FUNC(readable), watch, watch_free);
	g_source_attach(source, NULL);
	return source;
}

int signals_poll(int fd, short events, uint64_t deadline_ns)
{
	autofd int told = open_signalfd(NULL);
	struct pollfd fds[] = {{fd, events, 0}, {told, POLLIN, 0}};
	int n = fd_poll_any(fds, G_N_ELEMENTS(fds), deadline_ns);

	if (n <= 0)
		return n;
	if (fds[0].revents)
		return fds[0].revents;
	errno = EINTR;
	return -1;
}
