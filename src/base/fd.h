// Ownership of file descriptors: closed by scope, moved in plain sight.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>

/** fd_close() - Close *@fd if it is open and leave -1 behind; errno is kept. */
void fd_close(int *fd);

/** autofd - A local descriptor that is closed when it goes out of scope: autofd int fd = -1; */
#define autofd __attribute__((cleanup(fd_close)))

/**
 * fd_steal() - Move a descriptor out of its owner
 * Return: the descriptor; *@fd is -1 afterwards.
 */
static inline int fd_steal(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

/**
 * fd_reserve_standard() - Open closed standard streams on /dev/null
 *
 * First in main(): what is opened later never gets a number from 0 to 2, so nothing that writes to
 * a standard stream, here or in a child, writes into something else.
 * Return: false with errno set if /dev/null cannot be opened.
 */
bool fd_reserve_standard(void);

struct statx;

/**
 * fd_look() - What an open file is, as far as the kernel knows without asking its store
 * @mask:	STATX_*; what a store would have to be asked for is as old as the kernel's copy
 *
 * fstat() of a file on NFS or FUSE waits for the server.
 * Return: false with errno set on failure.
 */
bool fd_look(int fd, unsigned int mask, struct statx *st);

/**
 * fd_has_store() - Whether a call on @fd, close() too, may wait for storage, and not even a kill ends
 * that wait
 *
 * Block devices and regular files, but for those in memory (tmpfs, hugetlbfs, memfds).
 */
bool fd_has_store(int fd);

/** fd_set_cloexec() - Set or clear FD_CLOEXEC.  Return: false with errno set on failure. */
bool fd_set_cloexec(int fd, bool on);

/**
 * fd_set_nonblock() - Set or clear O_NONBLOCK
 *
 * The flag belongs to the open file description: a process that shares it sees the change.
 * Return: false with errno set on failure.
 */
bool fd_set_nonblock(int fd, bool on);

/**
 * fd_lock() - Lock or unlock the whole file, without waiting
 * @type:	F_RDLCK, F_WRLCK (the descriptor must be open for it) or F_UNLCK
 *
 * The lock belongs to the open file description (F_OFD_SETLK), so it crosses an exec and SCM_RIGHTS
 * with the descriptor, and ends when nobody has that open or mapped any more.
 * Return: 0; EAGAIN if another description's lock is in the way; another errno, from file systems
 * that have no locks (EINVAL, ENOLCK, EOPNOTSUPP, ...) among others.
 */
int fd_lock(int fd, short type);

/**
 * fd_write_all() - Write @len bytes, retrying short writes and EINTR; blocks in poll() on EAGAIN
 * Return: false with @error set when the peer is gone or the write fails.
 */
bool fd_write_all(int fd, const void *data, size_t len, GError **error);

/**
 * fd_read_all() - Read exactly @len bytes before @deadline_ns (clock_now_ns(); 0: no limit)
 * Return: false with @error set (MOLT_ERROR_TIMEOUT when late) on failure or early end of file.
 */
bool fd_read_all(int fd, void *data, size_t len, uint64_t deadline_ns, GError **error);

/**
 * fd_poll() - Wait until one of @events (POLLIN, POLLOUT, ...) holds on @fd
 * @deadline_ns: On clock_now_ns()'s clock; 0 waits for ever
 * Return: the events seen, 0 when the deadline passed, -1 with errno set on failure.
 */
int fd_poll(int fd, short events, uint64_t deadline_ns);

/** fd_poll_any() - The same for @n_fds descriptors at once.  Return: how many are ready. */
int fd_poll_any(struct pollfd *fds, size_t n_fds, uint64_t deadline_ns);

/**
 * eventfd_drain() - Read an eventfd's counter if it is above zero
 * Return: the counter read, 0 if there was none.
 */
uint64_t eventfd_drain(int fd);

/** eventfd_signal() - Add one to an eventfd's counter. */
void eventfd_signal(int fd);

/**
 * struct mapping - A mapped range that its owner unmaps
 * @addr:	Start, NULL when nothing is mapped
 * @size_bytes:	Length
 */
struct mapping {
	void *addr;
	size_t size_bytes;
};

/** mapping_unmap() - Unmap @m if it is mapped and clear it. */
void mapping_unmap(struct mapping *m);
