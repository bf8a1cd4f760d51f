// The guardian: a child that keeps the old address space over an exec, and goes back if the new
// program dies or hangs. SPDX-License-Identifier: Apache-2.0
#include "cpr/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"

#define GUARDIAN_STACK_BYTES (64U << 10)

/* How long a program that was sent SIGABRT has until it is killed. */
#define GUARDIAN_ABORT_MS 2000

/**
 * struct guardian_plan - What the child needs, at the low end of its stack; parent and child share it
 * @pipe:	Read end
 * @parent:	pidfd
 * @exec_fd, @argv, @died, @hung: See guardian_arm(); @argv is NULL while it is not armed
 * @signals:	The mask to give back before becoming a program again
 */
struct guardian_plan {
	int pipe;
	int parent;
	int exec_fd;
	char *const *argv;
	char *const *died;
	char *const *hung;
	sigset_t signals;
};

/* ---- the child: signals are blocked, nothing of libc is called ---- */

/* A system call that cannot touch errno, which the child shares with its parent. */
static long raw_syscall(long number, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

static void raw_exit(void)
{
	/* Returning would do as well: clone()'s wrapper exits.  But that is libc's business. */
	raw_syscall(SYS_exit_group, 0, 0, 0, 0, 0);
}

/* The parent is gone: be the program that it was. */
static void become_old(const struct guardian_plan *plan, bool hung)
{
	if (!plan->argv)
		return;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&plan->signals, 0, _NSIG / 8, 0);
	raw_syscall(SYS_execveat, plan->exec_fd, (long)"", (long)plan->argv,
		    (long)(hung ? plan->hung : plan->died), AT_EMPTY_PATH);
}

/* Obey one word.  Return: how long to wait for the next, in ms; -1: for ever; 0: for none. */
static int take_word(const struct guardian_plan *plan)
{
	char word = GUARDIAN_DONE;

	if (raw_syscall(SYS_read, plan->pipe, (long)&word, 1, 0, 0) != 1)
		return 0;
	if (word == GUARDIAN_DONE)
		return 0;
	return word == GUARDIAN_STEP ? GUARDIAN_STEP_MS : -1;
}

static int guardian_main(void *arg)
{
	const struct guardian_plan *plan = arg;
	int timeout_ms = -1, sig = SIGABRT;

	for (;;) {
		struct pollfd fds[] = {{plan->pipe, POLLIN, 0}, {plan->parent, POLLIN, 0}};
		long n = raw_syscall(SYS_poll, (long)fds, 2, timeout_ms, 0, 0);

		if (n == 0) {
			raw_syscall(SYS_pidfd_send_signal, plan->parent, sig, 0, 0, 0);
			timeout_ms = sig == SIGABRT ? GUARDIAN_ABORT_MS : -1;
			sig = SIGKILL;
		} else if (fds[0].revents) {
			timeout_ms = take_word(plan);
			sig = SIGABRT;
			if (timeout_ms == 0)
				break;
		} else if (fds[1].revents) {
			become_old(plan, sig == SIGKILL);
			break;
		}
	}
	raw_exit();
	return 0;
}

/* ---- the parent ---- */

/* Clone with every signal blocked, so that the child never runs one of our handlers. */
static pid_t clone_child(uint8_t *stack, struct guardian_plan *plan)
{
	sigset_t all;
	pid_t pid;
	int saved;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &plan->signals);
	pid = clone(guardian_main, stack + GUARDIAN_STACK_BYTES, CLONE_VM | CLONE_FILES | SIGCHLD,
		    plan);
	saved = errno;
	pthread_sigmask(SIG_SETMASK, &plan->signals, NULL);
	errno = saved;
	return pid;
}

bool guardian_start(struct guardian *guardian, GError **error)
{
	autofd int read_end = -1, write_end = -1, parent = -1;
	struct guardian_plan *plan;
	int ends[2];
	void *stack;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set_errno(error, errno, "cannot make the guardian's pipe");
	read_end = ends[0];
	write_end = ends[1];
	parent = syscall(SYS_pidfd_open, getpid(), 0);
	if (parent < 0)
		return error_set_errno(error, errno, "guardian: pidfd_open (Linux 5.3)");
	stack = mmap(NULL, GUARDIAN_STACK_BYTES, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return error_set_errno(error, errno, "cannot map the guardian's stack");
	/* The child's few calls never reach that far down. */
	plan = stack;
	*plan = (struct guardian_plan){.pipe = read_end, .parent = parent, .exec_fd = -1};
	pid = clone_child(stack, plan);
	if (pid < 0) {
		error_set_errno(error, errno, "cannot start the guardian");
		munmap(stack, GUARDIAN_STACK_BYTES);
		return false;
	}
	*guardian = (struct guardian){.pid = pid, .pipe = fd_steal(&write_end), .stack = stack};
	/* The table is shared: they are the child's, closed by guardian_stop() or by the exec. */
	(void)fd_steal(&read_end);
	(void)fd_steal(&parent);
	return true;
}

void guardian_stop(struct guardian *guardian)
{
	struct guardian_plan *plan = guardian->stack;

	if (!guardian->pid)
		return;
	guardian_tell(guardian->pipe, GUARDIAN_DONE);
	while (waitpid(guardian->pid, NULL, 0) < 0 && errno == EINTR)
		;
	fd_close(&guardian->pipe);
	fd_close(&plan->pipe);
	fd_close(&plan->parent);
	munmap(guardian->stack, GUARDIAN_STACK_BYTES);
	*guardian = (struct guardian){.pipe = -1};
}

void guardian_arm(struct guardian *guardian, int exec_fd, char *const *argv, char *const *died,
		  char *const *hung)
{
	struct guardian_plan *plan = guardian->stack;

	plan->exec_fd = exec_fd;
	plan->died = died;
	plan->hung = hung;
	/* Last: it is what the child looks at if this process dies here. */
	__atomic_store_n(&plan->argv, argv, __ATOMIC_RELEASE);
	guardian_tell(guardian->pipe, GUARDIAN_STEP);
}

void guardian_disarm(struct guardian *guardian)
{
	struct guardian_plan *plan = guardian->stack;

	__atomic_store_n(&plan->argv, NULL, __ATOMIC_RELEASE);
	guardian_tell(guardian->pipe, GUARDIAN_WAIT);
}

void guardian_tell(int pipe_fd, enum guardian_word word)
{
	const char byte = word;
	ssize_t n;

	do
		n = write(pipe_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
}

/* ---- after the exec ---- */

/**
 * struct guardian_watch - A guardian that was released and is to be reaped
 * @guardians:	Where its pid is listed
 */
struct guardian_watch {
	GArray *guardians;
	pid_t pid;
};

static gboolean guardian_gone(int fd, GIOCondition condition, void *opaque)
{
	struct guardian_watch *watch = opaque;

	(void)waitpid(watch->pid, NULL, WNOHANG);
	for (guint i = 0; i < watch->guardians->len; i++)
		if (g_array_index(watch->guardians, pid_t, i) == watch->pid)
			g_array_remove_index(watch->guardians, i--);
	g_array_unref(watch->guardians);
	g_free(watch);
	close(fd);
	return G_SOURCE_REMOVE;
}

void guardian_release(GArray *guardians, pid_t pid, int pipe_fd)
{
	/* One that became this program is nobody's child to wait for. */
	int fd = pid == getpid() ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	struct guardian_watch *watch;

	if (pipe_fd >= 0)
		guardian_tell(pipe_fd, GUARDIAN_DONE);
	fd_close(&pipe_fd);
	if (fd < 0)
		return;
	watch = g_new(struct guardian_watch, 1);
	*watch = (struct guardian_watch){g_array_ref(guardians), pid};
	g_array_append_val(guardians, pid);
	g_source_unref(loop_watch_fd(NULL, fd, G_IO_IN, guardian_gone, watch));
}
