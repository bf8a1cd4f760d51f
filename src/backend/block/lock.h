// Locks on images, as QEMU and its tools know them: a byte per permission.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>

/**
 * enum block_perm - What one may do with an image, or lets others do; bits as in QEMU
 * @BLOCK_PERM_READ:	Read, and rely on what is read
 * @BLOCK_PERM_WRITE:	Write
 * @BLOCK_PERM_REWRITE:	Write what is there already
 * @BLOCK_PERM_RESIZE:	Change the size
 */
enum block_perm {
	BLOCK_PERM_READ = 1 << 0,
	BLOCK_PERM_WRITE = 1 << 1,
	BLOCK_PERM_REWRITE = 1 << 2,
	BLOCK_PERM_RESIZE = 1 << 3,
};

/**
 * block_lock() - Hold @held on the image, and share @shared with other open file descriptions
 *
 * Replaces what @fd's open file description held before: first more is taken, then what others have
 * is looked at, then the rest is let go, so that of two that ask at once never both succeed.
 * Return: 0; EAGAIN if another has what is not shared, or does not share what is asked for;
 * another errno if locks do not work there.
 */
int block_lock(int fd, unsigned int held, unsigned int shared);
