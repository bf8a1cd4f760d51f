// Locks on images, as QEMU and its tools know them: a byte per permission.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>

#define LOCK_HELD     100 /* + n: permission n is held by somebody */
#define LOCK_UNSHARED 200 /* + n: somebody does not share permission n */
#define LOCK_PERMS    4

static int lock_byte(int fd, short type, unsigned int at)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

	if (TEMP_FAILURE_RETRY(fcntl(fd, F_OFD_SETLK, &lock)) == 0)
		return 0;
	return errno == EACCES ? EAGAIN : errno;
}

/* Return: 0 if no other open file description has byte @at. */
static int lock_look(int fd, unsigned int at)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

	if (TEMP_FAILURE_RETRY(fcntl(fd, F_OFD_GETLK, &lock)) < 0)
		return errno;
	return lock.l_type == F_UNLCK ? 0 : EAGAIN;
}

/* Takes the bytes of @held and of what is not @shared, or lets go of the others. */
static int lock_apply(int fd, unsigned int held, unsigned int shared, bool take)
{
	short type = take ? F_RDLCK : F_UNLCK;
	int err = 0;

	for (unsigned int i = 0; i < LOCK_PERMS && err == 0; i++) {
		const bool has = held & (1U << i), keeps = !(shared & (1U << i));

		if (has == take)
			err = lock_byte(fd, type, LOCK_HELD + i);
		if (err == 0 && keeps == take)
			err = lock_byte(fd, type, LOCK_UNSHARED + i);
	}
	return err;
}

static int lock_check(int fd, unsigned int held, unsigned int shared)
{
	for (unsigned int i = 0; i < LOCK_PERMS; i++) {
		int err = 0;

		if (held & (1U << i))
			err = lock_look(fd, LOCK_UNSHARED + i);
		if (err == 0 && !(shared & (1U << i)))
			err = lock_look(fd, LOCK_HELD + i);
		if (err)
			return err;
	}
	return 0;
}

int block_lock(int fd, unsigned int held, unsigned int shared)
{
	int err = lock_apply(fd, held, shared, true);

	if (err == 0)
		err = lock_check(fd, held, shared);
	return err ? err : lock_apply(fd, held, shared, false);
}
