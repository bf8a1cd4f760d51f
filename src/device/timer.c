// A one-shot timer of a device: armed from any thread, fires on the main thread, free while off.
// SPDX-License-Identifier: Apache-2.0
#include "device/timer.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"

static gboolean timer_ready(int fd, GIOCondition condition, void *opaque)
{
	struct device_timer *timer = opaque;
	uint64_t n;

	/* ECANCELED says that somebody set the wall clock: as good a reason to look as an expiry.
	 */
	if (read(fd, &n, sizeof(n)) < 0 && errno == EAGAIN)
		return G_SOURCE_CONTINUE;
	timer->fired(timer->opaque);
	return G_SOURCE_CONTINUE;
}

bool device_timer_init(struct device_timer *timer, clockid_t clock, void (*fired)(void *opaque),
		       void *opaque, GError **error)
{
	int fd = timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0)
		return error_set_errno(error, errno, "timerfd");
	timer->fd = fd;
	timer->fired = fired;
	timer->opaque = opaque;
	timer->watch = loop_watch_fd(NULL, fd, G_IO_IN, timer_ready, timer);
	return true;
}

void device_timer_set(struct device_timer *timer, uint64_t expires_ns)
{
	struct itimerspec spec = {
		.it_value.tv_sec = (time_t)(expires_ns / NS_PER_SEC),
		.it_value.tv_nsec = (long)(expires_ns % NS_PER_SEC),
	};

	if (!expires_ns && !timer->armed)
		return;
	timer->armed = expires_ns != 0;
	/* TFD_TIMER_CANCEL_ON_SET means nothing to a CLOCK_MONOTONIC timer.  The call reports an
	 * earlier cancellation as ECANCELED, and has armed the timer all the same. */
	(void)timerfd_settime(timer->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &spec, NULL);
}

void device_timer_fini(struct device_timer *timer)
{
	if (!timer->watch)
		return;
	loop_unwatch(&timer->watch);
	fd_close(&timer->fd);
}
