// Kinds of descriptors that survive an update: how to tell one, and how to know it again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "state/state.h"

/**
 * enum fd_kind - What a preserved descriptor is
 * @FD_RAM:	Guest memory: memfd (sealed against shrinking where it takes seals), file, DAX
 * device
 * @FD_IMAGE:	Disk image: regular file or block device
 * @FD_LISTEN:	Listening socket
 * @FD_STREAM:	Connected socket: monitor, chardev, vhost-user, user networking
 * @FD_CHAR:	What else a chardev talks to: terminal, pipe, character device, log file
 * @FD_TAP:	Queue of a tun or tap interface
 * @FD_VFIO:	VFIO group, container, device, or iommufd
 * @FD_EVENT:	eventfd of which a peer or VFIO holds the other end
 * @FD_OWNER:	The memfd whose lock says who may run the vCPUs
 * @FD_EXEC:	The executable an update started from, to go back to
 *
 * The values are on the wire and never change.
 */
enum fd_kind {
	FD_RAM = 1,
	FD_IMAGE = 2,
	FD_LISTEN = 3,
	FD_STREAM = 4,
	FD_CHAR = 5,
	FD_TAP = 6,
	FD_VFIO = 7,
	FD_EVENT = 8,
	FD_OWNER = 9,
	FD_EXEC = 10,
	FD_KIND_COUNT,
};

#define FD_DETAIL_BYTES 32

/**
 * struct fd_identity - By what an open file is known again, in this process or another
 * @dev:	st_dev
 * @ino:	st_ino
 * @rdev:	st_rdev
 * @mode:	The file type bits of st_mode; 0 for anonymous inodes
 * @open_flags:	Access mode and O_APPEND, O_DIRECT, O_PATH; what others may toggle is left out
 * @seals:	F_GET_SEALS, 0 where there are none; more may be added later, none can go
 * @detail:	What the numbers above do not tell: the anonymous inode's type and an eventfd's id
 *		("[eventfd]:17"), a tap queue's interface.  NUL-padded
 *
 * Anonymous inodes share one inode number, hence @detail.  Described by fd_identity_desc.
 */
struct fd_identity {
	uint64_t dev;
	uint64_t ino;
	uint64_t rdev;
	uint32_t mode;
	uint32_t open_flags;
	uint32_t seals;
	uint8_t detail[FD_DETAIL_BYTES];
	uint8_t pad[4];
};

extern const struct state_desc fd_identity_desc;

/** fd_kind_name() - "ram", "image", ...; NULL when @kind is none of ours. */
const char *fd_kind_name(unsigned int kind);

/**
 * fd_identity_read() - Find out what @fd is
 *
 * Reads /proc/self/fd for anonymous inodes and VFIO only.  Asks no store, see fd_look(): the guest may
 * be standing still.
 * Return: false with @error set if that cannot be found out.
 */
bool fd_identity_read(int fd, struct fd_identity *identity, GError **error);

/**
 * fd_identity_match() - Whether @now is the open file that was @then
 * Return: false with @error naming the difference.
 */
bool fd_identity_match(const struct fd_identity *then, const struct fd_identity *now,
		       GError **error);

/**
 * fd_kind_prepare() - Add to @fd what @kind asks for and can be added
 *
 * RAM that takes seals is sealed against shrinking: a peer could otherwise turn guest accesses into
 * SIGBUS.  Nothing is done for other kinds.
 */
void fd_kind_prepare(enum fd_kind kind, int fd);

/**
 * fd_kind_verify() - Whether @fd can be of @kind at all
 * @identity:	Of @fd, just read
 *
 * KVM descriptors fit no kind: the kernel binds a VM to the memory map that made it.
 * Return: false with @error saying what the kind needs and what @fd is.
 */
bool fd_kind_verify(enum fd_kind kind, int fd, const struct fd_identity *identity, GError **error);
