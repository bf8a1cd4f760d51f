// A new program that crashes before it has taken the guest becomes the old one again.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/crash.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/signals.h"
#include "cpr/envelope.h"
#include "cpr/guardian.h"
#include "cpr/owner.h"

#define CRASH_STACK_BYTES (64U << 10)

static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGABRT};

/**
 * struct way_back - What the handler needs
 * @env:	Its last entry but the NULL is @reason
 * @fds:	int
 * @word, @attempt: See crash_set_word()
 * @stack:	The handler's, should the crash be a stack that overflowed
 */
struct way_back {
	int exec_fd;
	char **argv;
	char **env;
	GArray *fds;
	_Atomic uint64_t *word;
	uint64_t attempt;
	char reason[128];
	void *stack;
};

static struct way_back way_back = {.exec_fd = -1};

static const char *signal_says(const siginfo_t *info)
{
	if (info->si_signo == SIGABRT && info->si_code == SI_USER)
		return "the new program did not get on, and was stopped";
	switch (info->si_signo) {
	case SIGSEGV:
		return "the new program crashed (SIGSEGV)";
	case SIGBUS:
		return "the new program crashed (SIGBUS)";
	case SIGABRT:
		return "the new program crashed (SIGABRT)";
	}
	return "the new program crashed";
}

/* Async-signal-safe, as all here: system calls and string functions on memory that is there. */
static void go_back(const siginfo_t *info)
{
	sigset_t held;

	strcpy(way_back.reason, ENVELOPE_ROLLBACK_ENV "=");
	strcat(way_back.reason, signal_says(info));
	guardian_ignore();
	for (guint i = 0; i < way_back.fds->len; i++)
		(void)fcntl(g_array_index(way_back.fds, int, i), F_SETFD, 0);
	/* This signal's block goes; what the process is to end of stays pending for the old program. */
	signals_mask(&held);
	pthread_sigmask(SIG_SETMASK, &held, NULL);
	execveat(way_back.exec_fd, "", way_back.argv, way_back.env, AT_EMPTY_PATH);
}

static void crashed(int sig, siginfo_t *info, void *context)
{
	if (!way_back.word || owner_word_recall(way_back.word, way_back.attempt))
		go_back(info);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void handle(void (*fn)(int, siginfo_t *, void *))
{
	struct sigaction action = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < G_N_ELEMENTS(crash_signals); i++) {
		if (fn)
			sigaction(crash_signals[i], &action, NULL);
		else
			signal(crash_signals[i], SIG_DFL);
	}
}

/* @env with room for the reason; taken. */
static char **with_reason(char **env, char *reason)
{
	const guint n = g_strv_length(env);

	env = g_renew(char *, env, n + 2);
	env[n] = reason;
	env[n + 1] = NULL;
	return env;
}

void crash_arm(int exec_fd, char **argv, char **env, GArray *fds)
{
	stack_t stack = {.ss_size = CRASH_STACK_BYTES};

	way_back.exec_fd = exec_fd;
	way_back.argv = argv;
	way_back.env = with_reason(env, way_back.reason);
	way_back.fds = fds;
	way_back.stack = mmap(NULL, CRASH_STACK_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (way_back.stack != MAP_FAILED) {
		stack.ss_sp = way_back.stack;
		sigaltstack(&stack, NULL);
	}
	handle(crashed);
}

void crash_set_word(_Atomic uint64_t *word, uint64_t attempt)
{
	way_back.attempt = attempt;
	way_back.word = word;
}

void crash_disarm(void)
{
	const stack_t none = {.ss_flags = SS_DISABLE};

	if (!way_back.fds)
		return;
	handle(NULL);
	sigaltstack(&none, NULL);
	if (way_back.stack != MAP_FAILED)
		munmap(way_back.stack, CRASH_STACK_BYTES);
	/* The reason is not the array's to free. */
	way_back.env[g_strv_length(way_back.env) - 1] = NULL;
	g_strfreev(way_back.argv);
	g_strfreev(way_back.env);
	g_array_unref(way_back.fds);
	way_back = (struct way_back){.exec_fd = -1};
}
