// The guardian: a child that keeps the old address space over an exec, and goes back if need be.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/patience.h"
#include "cpr/children.h"
#include "cpr/owner.h"

#define GUARDIAN_STACK_BYTES (64U << 10)

/* Less processor time than this from tick to tick is no progress. */
#define GUARDIAN_IDLE_NS 20000

/* The processor time of all threads of a process (the kernel's include/linux/posix-timers_types.h). */
#define PROCESS_CLOCK(pid) ((long)((~(unsigned long)(pid) << 3) | 2))

/**
 * struct guardian_plan - What the child needs, at the low end of its stack; parent and child share it
 * @pipe:	Read end
 * @parent:	pidfd
 * @parent_pid:	The same, for its clock
 * @word, @attempt, @exec_fd, @argv, @died, @hung: See guardian_arm(); @argv is NULL while it is not armed
 * @signals:	The mask to give back before becoming a program again
 */
struct guardian_plan {
	int pipe;
	int parent;
	pid_t parent_pid;
	_Atomic uint64_t *word;
	uint64_t attempt;
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

/* A number that changes while the parent works. */
static uint64_t parent_progress(void *opaque)
{
	const struct guardian_plan *plan = opaque;
	struct timespec used = {0, 0};

	raw_syscall(SYS_clock_gettime, PROCESS_CLOCK(plan->parent_pid), (long)&used, 0, 0, 0);
	return (used.tv_sec * 1000000000ULL + used.tv_nsec) / GUARDIAN_IDLE_NS;
}

bool guardian_seize(_Atomic uint64_t *word, uint64_t attempt)
{
	const uint64_t claim = guardian_claim(attempt);

	(void)owner_word_recall(word, attempt);
	return owner_word_claim(word, attempt, claim) ||
	       atomic_load(word) == owner_word_of(claim, OWNER_RECALLED);
}

enum guardian_act guardian_act_on(_Atomic uint64_t *word, uint64_t attempt, bool aborted)
{
	uint64_t offered = owner_word_of(attempt, OWNER_OFFERED);

	/* Only who has it offered still is a new program that can be told to go back. */
	if (!aborted &&
	    atomic_compare_exchange_strong(word, &offered, owner_word_of(attempt, OWNER_RECALLED)))
		return GUARDIAN_ABORT;
	return guardian_seize(word, attempt) ? GUARDIAN_KILL : GUARDIAN_LEAVE;
}

/* The parent is gone: be the program that it was, unless it had taken the guest. */
static void become_old(const struct guardian_plan *plan, bool hung)
{
	char *const *argv = __atomic_load_n(&plan->argv, __ATOMIC_ACQUIRE);

	if (!argv || !guardian_seize(plan->word, plan->attempt))
		return;
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&plan->signals, 0, _NSIG / 8, 0);
	raw_syscall(SYS_execveat, plan->exec_fd, (long)"", (long)argv,
		    (long)(hung ? plan->hung : plan->died), AT_EMPTY_PATH);
}

/* Read one word.  Return: GUARDIAN_END if there is none. */
static char read_word(const struct guardian_plan *plan)
{
	char word = GUARDIAN_END;

	raw_syscall(SYS_read, plan->pipe, (long)&word, 1, 0, 0);
	return word;
}

/*
 * The parent is late.
 * Return: how long it has now, in ms; -1: it has the guest, and all is well.
 */
static int act_on_late(const struct guardian_plan *plan, bool *aborted, bool *killed)
{
	switch (guardian_act_on(plan->word, plan->attempt, *aborted)) {
	case GUARDIAN_ABORT:
		raw_syscall(SYS_pidfd_send_signal, plan->parent, SIGABRT, 0, 0, 0);
		*aborted = true;
		return GUARDIAN_ABORT_MS;
	case GUARDIAN_KILL:
		raw_syscall(SYS_pidfd_send_signal, plan->parent, SIGKILL, 0, 0, 0);
		*killed = true;
		return GUARDIAN_KILL_MS;
	case GUARDIAN_LEAVE:
		break;
	}
	return -1;
}

/* From "done" on only the moment of the teardown is waited for. */
static void wait_for_end(const struct guardian_plan *plan)
{
	struct pollfd fds[] = {{plan->pipe, POLLIN, 0}, {plan->parent, POLLIN, 0}};

	do
		raw_syscall(SYS_poll, (long)fds, 2, -1, 0, 0);
	while (!fds[1].revents && !(fds[0].revents && read_word(plan) == GUARDIAN_END));
}

/* A word, the parent's end, or neither within @tick_ms (-1: for ever).  Return: the word, or 0. */
static char wait_word(const struct guardian_plan *plan, int tick_ms, bool *gone)
{
	struct pollfd fds[] = {{plan->pipe, POLLIN, 0}, {plan->parent, POLLIN, 0}};

	raw_syscall(SYS_poll, (long)fds, 2, tick_ms, 0, 0);
	*gone = fds[1].revents != 0;
	return fds[0].revents ? read_word(plan) : 0;
}

static int guardian_main(void *arg)
{
	struct guardian_plan *plan = arg;
	struct patience patience;
	bool aborted = false, killed = false, gone = false, hung = false;
	int tick_ms = -1, budget_ms = 0;

	while (budget_ms >= 0) {
		char word = wait_word(plan, tick_ms, &gone);

		if (word == GUARDIAN_DONE)
			wait_for_end(plan);
		if (word == GUARDIAN_DONE || word == GUARDIAN_END)
			break;
		if (word) {
			aborted = killed = hung = false;
			budget_ms = word == GUARDIAN_STEP ? GUARDIAN_STEP_MS : 0;
		} else if (gone) {
			become_old(plan, hung);
			break;
		} else {
			tick_ms = patience_tick(&patience);
			if (tick_ms)
				continue;
			if (killed) {
				become_old(plan, true);
				break;
			}
			hung = true;
			budget_ms = act_on_late(plan, &aborted, &killed);
		}
		tick_ms = -1;
		if (budget_ms > 0) {
			patience = (struct patience){.budget_ms = budget_ms,
						     .progress = parent_progress,
						     .opaque = plan};
			tick_ms = patience_begin(&patience);
		}
	}
	raw_exit();
	return 0;
}

/* ---- the parent ---- */

void guardian_ignore(void)
{
	signal(SIGABRT, SIG_IGN);
}

void guardian_heed(void)
{
	signal(SIGABRT, SIG_DFL);
}

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
	*plan = (struct guardian_plan){
		.pipe = read_end, .parent = parent, .parent_pid = getpid(), .exec_fd = -1};
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
	/* Not by a word: one that is stopped would not hear it. */
	kill(guardian->pid, SIGKILL);
	while (waitpid(guardian->pid, NULL, 0) < 0 && errno == EINTR)
		;
	fd_close(&guardian->pipe);
	fd_close(&plan->pipe);
	fd_close(&plan->parent);
	munmap(guardian->stack, GUARDIAN_STACK_BYTES);
	*guardian = (struct guardian){.pipe = -1};
}

void guardian_arm(struct guardian *guardian, _Atomic uint64_t *word, uint64_t attempt, int exec_fd,
		  char *const *argv, char *const *died, char *const *hung)
{
	struct guardian_plan *plan = guardian->stack;

	plan->word = word;
	plan->attempt = attempt;
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

void guardian_beat(int pipe_fd)
{
	int unread = 0;

	if (ioctl(pipe_fd, FIONREAD, &unread) == 0 && unread == 0)
		guardian_tell(pipe_fd, GUARDIAN_STEP);
}

/* ---- after the exec ---- */

void guardian_release(GArray *children, pid_t pid, int pipe_fd)
{
	guardian_tell(pipe_fd, GUARDIAN_END);
	fd_close(&pipe_fd);
	children_reap(children, pid, guardian_heed);
}
