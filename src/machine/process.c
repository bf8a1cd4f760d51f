// What the process is to its host, beside the VM: daemon, pid file, name.
// SPDX-License-Identifier: Apache-2.0
#include "machine/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/job.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/stuck.h"
#include "state/fd_paths.h"

/* How long a daemon's last words on the terminal may take. */
#define READY_FLUSH_MS 100

#define PIDFILE_FD FD_PROCESS_PREFIX "pidfile"

/* Of its text: a number, a newline. */
#define PID_BYTES 16

/* The parent's exit status: 0 once the daemon says it is up, else the daemon's own. */
static int wait_for_daemon(pid_t pid, int fd)
{
	char byte;
	ssize_t n;
	int status;

	do
		n = read(fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		return 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1;
}

enum process_role process_daemonize(int *ready_fd, int *status, GError **error)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		error_set_errno(error, errno, "-daemonize: pipe");
		return PROCESS_FAILED;
	}
	pid = fork();
	if (pid < 0) {
		error_set_errno(error, errno, "-daemonize: fork");
		fd_close(&fds[0]);
		fd_close(&fds[1]);
		return PROCESS_FAILED;
	}
	if (pid > 0) {
		fd_close(&fds[1]);
		*status = wait_for_daemon(pid, fds[0]);
		fd_close(&fds[0]);
		return PROCESS_PARENT;
	}
	fd_close(&fds[0]);
	setsid();
	*ready_fd = fds[1];
	return PROCESS_SELF;
}

void process_ready(int *ready_fd)
{
	autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	ssize_t n;

	if (*ready_fd < 0)
		return;
	log_flush(READY_FLUSH_MS);
	/* It stays in its directory, by which the command line's paths mean the same to later programs. */
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
	}
	do
		n = write(*ready_fd, "", 1);
	while (n < 0 && errno == EINTR);
	fd_close(ready_fd);
}

void process_set_name(const struct vm_config *config)
{
	if (config->process_name)
		prctl(PR_SET_NAME, config->process_name);
}

struct pidfile {
	struct fd_source *fds;
	int fd;
	char *path;
	bool opened;
	struct file_made made;
};

static int pidfile_open(void *arg, GError **error)
{
	struct pidfile *pidfile = arg;
	const char *path = pidfile->path;
	autofd int fd = file_make(path, FILE_READ, NULL, error);

	pidfile->opened = true;
	if (fd < 0) {
		g_prefix_error(error, "-pidfile ");
		return -1;
	}
	if (fd_lock(fd, F_WRLCK) != 0 && fd_paths_claiming(pidfile->fds)) {
		fd_close(&fd);
		fd = fd_path_claim_file(pidfile->fds, path, &pidfile->made, error);
		if (fd < 0)
			return -1;
	}
	if (fd_lock(fd, F_WRLCK) != 0) {
		error_set_generic(error, "-pidfile %s: another process has it locked", path);
		return -1;
	}
	return fd_steal(&fd);
}

/* Written over what is there, so that nobody ever reads an empty file. */
static bool write_pid(int fd, const char *path, GError **error)
{
	char text[PID_BYTES], old[PID_BYTES];
	const int len = snprintf(text, sizeof(text), "%d\n", getpid());

	if (pread(fd, old, sizeof(old), 0) == len && memcmp(old, text, len) == 0)
		return true;
	return (pwrite(fd, text, len, 0) == len && ftruncate(fd, len) == 0) ||
	       error_set_errno(error, errno, "-pidfile %s", path);
}

bool pidfile_write(const struct pidfile *pidfile, GError **error)
{
	return write_pid(pidfile->fd, pidfile->path, error);
}

/** struct pid_writing - One pidfile_write_later(); @fd: its own */
struct pid_writing {
	int fd;
	char *path;
	GError *error;
};

static void job_write(void *opaque)
{
	struct pid_writing *writing = opaque;
	int call = stuck_begin(writing->path);

	(void)write_pid(writing->fd, writing->path, &writing->error);
	fd_close(&writing->fd);
	stuck_end(call);
}

static void written(void *opaque)
{
	struct pid_writing *writing = opaque;

	if (writing->error)
		log_error("%s", writing->error->message);
	g_clear_error(&writing->error);
	fd_close(&writing->fd);
	g_free(writing->path);
	g_free(writing);
}

void pidfile_write_later(const struct pidfile *pidfile)
{
	struct pid_writing *writing = g_new0(struct pid_writing, 1);

	writing->path = g_strdup(pidfile->path);
	writing->fd = fcntl(pidfile->fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (writing->fd < 0)
		error_set_errno(&writing->error, errno, "-pidfile %s", pidfile->path);
	if (writing->error)
		written(writing);
	else
		job_insist("pid file", job_write, written, writing);
}

bool pidfile_check(const struct vm_config *config, GError **error)
{
	g_autofree char *dir = config->pidfile ? g_path_get_dirname(config->pidfile) : NULL;

	if (!dir || access(config->pidfile, W_OK) == 0 ||
	    (errno == ENOENT && access(dir, W_OK | X_OK) == 0))
		return true;
	return error_set_errno(error, errno, "-pidfile %s", config->pidfile);
}

/* The path of the pid file that came over an exec: the configuration that travels has none. */
static char *inherited_path(int fd)
{
	char link[32], path[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	return n > 0 ? g_strndup(path, n) : NULL;
}

struct pidfile *pidfile_new(const struct vm_config *config, struct fd_source *fds, GError **error)
{
	autoptr(pidfile) pidfile = g_new0(struct pidfile, 1);

	pidfile->fds = fds;
	if (config->pidfile) {
		pidfile->path = file_canonical(config->pidfile);
		pidfile->fd = fd_acquire(fds, PIDFILE_FD, FD_CHAR, pidfile_open, pidfile, error);
	} else {
		pidfile->fd = fd_inherit(fds, PIDFILE_FD, FD_CHAR, error);
		if (pidfile->fd >= 0)
			pidfile->path = inherited_path(pidfile->fd);
	}
	if (pidfile->fd < 0) {
		fd_path_forget(fds, &pidfile->made);
		return NULL;
	}
	if (!pidfile->opened && pidfile->path)
		fd_path_inherit(fds, pidfile->path, pidfile->fd, &pidfile->made);
	/* Not if the path is claimed only: another file lies there. */
	if (pidfile->opened)
		file_made_adopt(&pidfile->made, pidfile->path, pidfile->fd);
	if (pidfile->opened)
		fd_path_add(fds, &pidfile->made);
	return g_steal_pointer(&pidfile);
}

void pidfile_free(struct pidfile *pidfile)
{
	if (!pidfile)
		return;
	fd_path_forget(pidfile->fds, &pidfile->made);
	if (pidfile->fd >= 0) {
		fd_withdraw(pidfile->fds, PIDFILE_FD);
		file_unmake(&pidfile->made);
	}
	file_made_clear(&pidfile->made);
	close_soon(&pidfile->fd);
	g_free(pidfile->path);
	g_free(pidfile);
}
