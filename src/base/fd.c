// Ownership of file descriptors: closed by scope, moved in plain sight.
// SPDX-License-Identifier: Apache-2.0
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

void fd_close(int *fd)
{
	int saved_errno = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved_errno;
}

bool fd_reserve_standard(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR | O_NOCTTY) != fd)
			return false;
	return true;
}

bool fd_look(int fd, unsigned int mask, struct statx *st)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask, st) == 0;
}

bool fd_has_store(int fd)
{
	struct statx st;

	/* Only files in memory can be asked for seals; O_PATH has no file to be flushed. */
	return fd_look(fd, STATX_TYPE, &st) &&
	       (S_ISBLK(st.stx_mode) ||
		(S_ISREG(st.stx_mode) && fcntl(fd, F_GET_SEALS) < 0 && errno == EINVAL));
}

static bool fd_update_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);

	if (flags < 0)
		return false;
	flags = on ? flags | flag : flags & ~flag;
	return fcntl(fd, set, flags) == 0;
}

bool fd_set_cloexec(int fd, bool on)
{
	return fd_update_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

bool fd_set_nonblock(int fd, bool on)
{
	return fd_update_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int fd_lock(int fd, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (TEMP_FAILURE_RETRY(fcntl(fd, F_OFD_SETLK, &lock)) == 0)
		return 0;
	return errno == EACCES ? EAGAIN : errno;
}

int fd_poll_any(struct pollfd *fds, size_t n_fds, uint64_t deadline_ns)
{
	for (;;) {
		struct timespec left = {0};
		int n;

		if (deadline_ns) {
			uint64_t now = clock_now_ns();
			uint64_t rest = deadline_ns > now ? deadline_ns - now : 0;

			left.tv_sec = rest / NS_PER_SEC;
			left.tv_nsec = rest % NS_PER_SEC;
		}
		n = ppoll(fds, n_fds, deadline_ns ? &left : NULL, NULL);
		if (n >= 0 || errno != EINTR)
			return n;
	}
}

int fd_poll(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n = fd_poll_any(&p, 1, deadline_ns);

	return n > 0 ? p.revents : n;
}

bool fd_write_all(int fd, const void *data, size_t len, GError **error)
{
	const uint8_t *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN && fd_poll(fd, POLLOUT, 0) > 0)
			continue;
		if (n < 0)
			return error_set_errno(error, errno, "write");
		p += n;
		len -= n;
	}
	return true;
}

bool fd_read_all(int fd, void *data, size_t len, uint64_t deadline_ns, GError **error)
{
	uint8_t *p = data;

	while (len > 0) {
		ssize_t n;

		if (deadline_ns) {
			int ready = fd_poll(fd, POLLIN, deadline_ns);

			if (ready < 0)
				return error_set_errno(error, errno, "poll");
			if (ready == 0)
				return error_set(error, MOLT_ERROR_TIMEOUT,
						 "no answer within the time limit");
		}
		n = read(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN && fd_poll(fd, POLLIN, deadline_ns) > 0)
			continue;
		if (n < 0)
			return error_set_errno(error, errno, "read");
		if (n == 0)
			return error_set_generic(error, "the other side closed the connection");
		p += n;
		len -= n;
	}
	return true;
}

uint64_t eventfd_drain(int fd)
{
	uint64_t count = 0;
	ssize_t n = read(fd, &count, sizeof(count));

	return n == sizeof(count) ? count : 0;
}

void eventfd_signal(int fd)
{
	uint64_t one = 1;
	ssize_t n;

	/* EAGAIN means the counter is at its maximum: the reader is woken all the same. */
	do
		n = write(fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
}

void mapping_unmap(struct mapping *m)
{
	if (m->addr)
		munmap(m->addr, m->size_bytes);
	*m = (struct mapping){0};
}
