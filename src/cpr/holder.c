// The holder: a child that keeps the old address space and KVM VM alive over an exec.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/holder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"

#define HOLDER_STACK_BYTES (64U << 10)

/**
 * struct holder_plan - What the child needs, made by the parent beforehand, on the child's stack
 * @pipe:	Read end to wait on; one of @keep
 * @n_keep:	Length of @keep
 * @keep:	Descriptors to keep, ascending
 */
struct holder_plan {
	int pipe;
	unsigned int n_keep;
	unsigned int keep[];
};

/* A system call that cannot touch errno, which the child would share with its parent. */
static long raw_syscall(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
}

/* The child.  Signals are blocked, so the read ends with the pipe only. */
static int holder_main(void *arg)
{
	const struct holder_plan *plan = arg;
	unsigned int from = 0;
	long failed = 0;
	char byte;

	for (unsigned int i = 0; i < plan->n_keep; i++) {
		if (plan->keep[i] > from)
			failed |= raw_syscall(SYS_close_range, from, plan->keep[i] - 1, 0);
		from = plan->keep[i] + 1;
	}
	failed |= raw_syscall(SYS_close_range, from, ~0U, 0);
	if (!failed)
		raw_syscall(SYS_read, plan->pipe, (long)&byte, 1);
	/* Returning would do as well: clone()'s wrapper exits.  But that is libc's business. */
	raw_syscall(SYS_exit_group, 0, 0, 0);
	return 0;
}

/* Whether the descriptor called @name in /proc/self/fd belongs to KVM. */
static bool is_kvm(int dir_fd, const char *name)
{
	char target[64] = {0};

	if (readlinkat(dir_fd, name, target, sizeof(target) - 1) < 0)
		return false;
	return g_str_has_prefix(target, "anon_inode:kvm") || strcmp(target, "/dev/kvm") == 0;
}

static int compare_numbers(const void *a, const void *b)
{
	const unsigned int x = *(const unsigned int *)a, y = *(const unsigned int *)b;

	return x < y ? -1 : x > y;
}

/* KVM's descriptors and @pipe, ascending. */
static GArray *list_kept(int pipe_fd, GError **error)
{
	g_autoptr(GArray) kept = g_array_new(FALSE, FALSE, sizeof(unsigned int));
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned int number = pipe_fd;

	if (!dir) {
		error_set_errno(error, errno, "cannot list descriptors");
		return NULL;
	}
	g_array_append_val(kept, number);
	while ((entry = readdir(dir))) {
		number = strtoul(entry->d_name, NULL, 10);
		if (g_ascii_isdigit(entry->d_name[0]) && is_kvm(dirfd(dir), entry->d_name))
			g_array_append_val(kept, number);
	}
	closedir(dir);
	g_array_sort(kept, compare_numbers);
	return g_steal_pointer(&kept);
}

/* Clone with every signal blocked, so that the child never runs one of our handlers. */
static pid_t clone_holder(uint8_t *stack, struct holder_plan *plan)
{
	sigset_t all, before;
	pid_t pid;
	int saved;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = clone(holder_main, stack + HOLDER_STACK_BYTES, CLONE_VM | SIGCHLD, plan);
	saved = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	return pid;
}

bool holder_start(struct holder *holder, GError **error)
{
	g_autoptr(GArray) kept = NULL;
	autofd int read_end = -1, write_end = -1;
	struct holder_plan *plan;
	int ends[2];
	void *stack;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set_errno(error, errno, "cannot make the holder's pipe");
	read_end = ends[0];
	write_end = ends[1];
	kept = list_kept(read_end, error);
	if (!kept)
		return false;
	if (sizeof(*plan) + kept->len * sizeof(unsigned int) > HOLDER_STACK_BYTES / 2)
		return error_set_generic(error, "too many KVM descriptors (%u)", kept->len);
	stack = mmap(NULL, HOLDER_STACK_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return error_set_errno(error, errno, "cannot map the holder's stack");
	/* The plan lies at the stack's low end, which the child's few calls never reach. */
	plan = stack;
	plan->pipe = read_end;
	plan->n_keep = kept->len;
	memcpy(plan->keep, kept->data, kept->len * sizeof(unsigned int));
	pid = clone_holder(stack, plan);
	if (pid < 0) {
		error_set_errno(error, errno, "cannot start the holder");
		munmap(stack, HOLDER_STACK_BYTES);
		return false;
	}
	*holder = (struct holder){.pid = pid, .pipe = fd_steal(&write_end), .stack = stack};
	return true;
}

void holder_stop(struct holder *holder)
{
	if (!holder->pid)
		return;
	fd_close(&holder->pipe);
	while (waitpid(holder->pid, NULL, 0) < 0 && errno == EINTR)
		;
	munmap(holder->stack, HOLDER_STACK_BYTES);
	*holder = (struct holder){.pipe = -1};
}

/**
 * struct holder_watch - A holder that was released and is to be reaped
 * @holders:	Where its pid is listed
 */
struct holder_watch {
	GArray *holders;
	pid_t pid;
};

static gboolean holder_gone(int fd, GIOCondition condition, void *opaque)
{
	struct holder_watch *watch = opaque;

	(void)waitpid(watch->pid, NULL, WNOHANG);
	for (guint i = 0; i < watch->holders->len; i++)
		if (g_array_index(watch->holders, pid_t, i) == watch->pid)
			g_array_remove_index(watch->holders, i--);
	g_array_unref(watch->holders);
	g_free(watch);
	close(fd);
	return G_SOURCE_REMOVE;
}

void holder_release(GArray *holders, pid_t pid, int pipe_fd)
{
	int fd = syscall(SYS_pidfd_open, pid, 0);
	struct holder_watch *watch;

	fd_close(&pipe_fd);
	if (fd < 0)
		return;
	watch = g_new(struct holder_watch, 1);
	*watch = (struct holder_watch){g_array_ref(holders), pid};
	g_array_append_val(holders, pid);
	g_source_unref(loop_watch_fd(NULL, fd, G_IO_IN, holder_gone, watch));
}
