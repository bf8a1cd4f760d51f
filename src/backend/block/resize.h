// Another size for an image, on a thread: its store may not answer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * struct block_resize_what - What is to be done
 * @fd:		Of the image; stays open until it is done, or block_resize_forget() takes it
 * @filename:	For messages; copied
 * @size_bytes:	The size that is asked for
 * @is_device:	It was resized by other means: only measured
 * @locks:	Ask others, by the image's locks, whether they rely on its size
 * @held, @shared: The permissions that are locked, see lock.h
 */
struct block_resize_what {
	int fd;
	const char *filename;
	uint64_t size_bytes;
	bool is_device;
	bool locks;
	unsigned int held, shared;
};

struct block_resize;

/**
 * typedef block_resize_late_fn - What was not waited for has come to its end
 * @end_bytes:	Where the image ends; not if @error is set, which is borrowed
 */
typedef void (*block_resize_late_fn)(void *opaque, uint64_t end_bytes, const GError *error);

/**
 * block_resize_start() - Do it on a thread
 *
 * What it works on is freed from the main loop, after it came to its end.  Context: main thread, for all
 * functions here.
 * Return: NULL with @error if there is no thread to be had.
 */
struct block_resize *block_resize_start(const struct block_resize_what *what, GError **error);

/**
 * block_resize_wait() - Wait for it without the main loop, @ms at most
 * @late:	Called from the main loop if it was not done in time, unless block_resize_forget() comes
 *		before
 *
 * Return: whether it is done: then block_resize_take() is next, and @late will not be called.
 */
bool block_resize_wait(struct block_resize *resize, uint32_t ms, block_resize_late_fn late,
		       void *opaque);

/** block_resize_take() - The result; @resize is gone for the caller.  Return: false with @error set. */
bool block_resize_take(struct block_resize *resize, uint64_t *end_bytes, GError **error);

/** block_resize_forget() - Nobody wants to know any more; *@fd is taken, and closed when it is done.  Accepts
 * NULL, and takes nothing then. */
void block_resize_forget(struct block_resize *resize, int *fd);
