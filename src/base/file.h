// Files that molt makes: opened, made, bound and removed under one rule.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>

/**
 * DOC: files that molt makes
 *
 * State files, RAM files, pid files, logs, outputs of chardevs, UNIX sockets.  The rule, for users
 * in docs/files.md:
 *
 * - What is made has mode 0600, whatever the umask says; a socket's 0600 less the umask.
 * - What is there already must be a regular file with one name, or, where the caller says so, a
 *   character device or a FIFO.  Its mode stays.
 * - What is there already, and a symbolic link on the way to it as the last component of a path,
 *   must belong to this process's user, to root, or to the owner of the directory that it lies in.
 *   The last could put anything there, so trusting him with it adds nothing; the link or file that
 *   a stranger left in /tmp or /dev/shm is refused.  It is what Linux asks for in sticky
 *   directories (fs.protected_symlinks, fs.protected_regular), asked for everywhere, because those
 *   can be switched off.
 * - Directories on the way are not looked at: users have links there, and whoever can change them
 *   can change what lies below.  So is a link in /proc, such as /dev/stdout leads to.
 * - No open waits: a FIFO that nobody reads is an error.
 * - Only what this process made is removed, and only while it is still what lies at its path.
 *
 * What is only read (images, kernels, states) is none of these files.
 */

/**
 * enum file_flags - What to open a file for, beside writing
 * @FILE_READ:		Reading
 * @FILE_APPEND:	Every write goes to the end
 * @FILE_TRUNCATE:	What is in it goes, after it was found to be acceptable
 * @FILE_STREAM:	A character device, or a FIFO that somebody reads, will do too; the
 *			descriptor of such a one is nonblocking
 * @FILE_UNLOCKED:	Nobody holds a lock on it, this process included: an image, RAM or pid file
 *			that is in use is no place for anything else
 */
enum file_flags {
	FILE_READ = 1 << 0,
	FILE_APPEND = 1 << 1,
	FILE_TRUNCATE = 1 << 2,
	FILE_STREAM = 1 << 3,
	FILE_UNLOCKED = 1 << 4,
};

/**
 * struct file_made - A path that this process made and may have to remove
 * @path:	Absolute, because -daemonize changes directory; NULL when nothing was made
 * @dev, @ino, @born_ns: what lies there; inode numbers are used again, so the time of birth counts
 *		too, where the file system knows it (0 where not)
 */
struct file_made {
	char *path;
	dev_t dev;
	ino_t ino;
	uint64_t born_ns;
};

/** file_made_clear() - Forget it; the file stays. */
void file_made_clear(struct file_made *made);

/** file_made_is_there() - Whether what was made is still what lies at its path. */
bool file_made_is_there(const struct file_made *made);

/** file_unmake() - Remove what was made if it is still there, and forget it; errno is kept. */
void file_unmake(struct file_made *made);

/** file_absolute() - @path from the root on, as text: no store is asked.  Return: to be freed. */
char *file_absolute(const char *path);

/** file_canonical() - The same without "." and "..", to compare or to keep. */
char *file_canonical(const char *path);

/**
 * file_made_adopt() - Take over what lies at @path now, as if this process had made it
 * @fd:		The open file: another one at the path is not taken over; -1 for a socket, which
 *		cannot be compared
 *
 * For a path whose open file came from a predecessor.  Nothing taken over: nothing is removed.
 */
void file_made_adopt(struct file_made *made, const char *path, int fd);

/**
 * file_make() - Open a file for writing, making it if it is not there
 * @flags:	enum file_flags
 * @made:	Filled if the file was not there before, else cleared; may be NULL
 *
 * Never blocks but for the file system itself.  On failure nothing is left behind.
 * Return: a descriptor, close-on-exec; -1 with @error, which begins with the path in quotes.
 */
int file_make(const char *path, unsigned int flags, struct file_made *made, GError **error);

/**
 * file_make_nameless() - A file without a name in the directory @dir
 * Return: a descriptor for reading and writing; -1 with @error, which begins with the path.
 */
int file_make_nameless(const char *dir, GError **error);

/**
 * file_make_memfd() - A file in memory that can be sealed, and is never executed
 * @name:	For /proc
 * @flags:	MFD_* beside those
 * Return: a descriptor, close-on-exec; -1 with errno set.
 */
int file_make_memfd(const char *name, unsigned int flags);

/** FILE_SEALED - All seals of a memfd that nobody can change any more */
#define FILE_SEALED (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/**
 * file_copy_sealed() - A sealed memfd with what the regular file @fd holds now
 * @name:	For /proc and messages
 * Return: a descriptor, close-on-exec; -1 with @error, which begins with @name.
 */
int file_copy_sealed(int fd, const char *name, GError **error);

/**
 * file_make_socket() - A UNIX stream socket bound to @path, not listening yet
 * @replace:	Take the path even if somebody listens on it, who keeps his clients
 * @made:	Filled; may be NULL
 *
 * A socket that nobody has open any more is replaced; anything else at the path is an error.
 * Return: a descriptor, nonblocking and close-on-exec; -1 with @error.
 */
int file_make_socket(const char *path, bool replace, struct file_made *made, GError **error);
