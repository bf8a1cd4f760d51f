// What a guardian does about a program that is late: decided by the owner's word, once, for both.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpr/guardian.h"
#include "cpr/owner.h"

#define ATTEMPT 0x123456

static _Atomic uint64_t word;

static void set(uint64_t id, enum owner_state state)
{
	word = owner_word_of(id, state);
}

static void test_offered(void)
{
	set(ATTEMPT, OWNER_OFFERED);
	g_assert_cmpint(guardian_act_on(&word, ATTEMPT, false), ==, GUARDIAN_ABORT);
	/* From then on the new program cannot take it. */
	g_assert_cmphex(word, ==, owner_word_of(ATTEMPT, OWNER_RECALLED));
	g_assert_cmpint(guardian_act_on(&word, ATTEMPT, true), ==, GUARDIAN_KILL);
	/* Nor can a program on its way back. */
	g_assert_cmphex(word, ==, owner_word_of(guardian_claim(ATTEMPT), OWNER_RECALLED));
	g_assert_true(guardian_seize(&word, ATTEMPT));
	g_assert_false(owner_word_recall(&word, ATTEMPT));
}

static void test_taken(void)
{
	for (int aborted = 0; aborted < 2; aborted++) {
		set(ATTEMPT, OWNER_OWNED);
		g_assert_cmpint(guardian_act_on(&word, ATTEMPT, aborted), ==, GUARDIAN_LEAVE);
		g_assert_cmphex(word, ==, owner_word_of(ATTEMPT, OWNER_OWNED));
		g_assert_false(guardian_seize(&word, ATTEMPT));
	}
}

/* The program that came back is late: it knows no SIGABRT, and must not lose the guest by it. */
static void test_on_its_way_back(void)
{
	set(ATTEMPT, OWNER_RECALLED);
	g_assert_cmpint(guardian_act_on(&word, ATTEMPT, false), ==, GUARDIAN_KILL);
	/* It has taken the guest back. */
	set(ATTEMPT + 8, OWNER_OWNED);
	g_assert_cmpint(guardian_act_on(&word, ATTEMPT, false), ==, GUARDIAN_LEAVE);
}

static int status_of(void (*child)(void))
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		child();
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void late_word(void)
{
	guardian_ignore();
	kill(getpid(), SIGABRT);
}

static void heeded_word(void)
{
	guardian_ignore();
	guardian_heed();
	kill(getpid(), SIGABRT);
}

static void own_abort(void)
{
	guardian_ignore();
	abort();
}

/* A SIGABRT that was under way when its receiver went back must not end who has the guest again. */
static void test_late_word(void)
{
	g_assert_cmpint(status_of(late_word), ==, 0);
	g_assert_true(WIFSIGNALED(status_of(heeded_word)));
	g_assert_true(WIFSIGNALED(status_of(own_abort)));
}

/* A real one, armed: its parent says "done" and then stalls, or dies; the guardian has no part in it. */
static void test_done(void)
{
	struct guardian guardian = {0};
	g_autoptr(GError) error = NULL;
	char *const argv[] = {(char *)"/bin/false", NULL};
	int status;
	pid_t pid;

	g_assert_true(guardian_start(&guardian, &error));
	set(ATTEMPT, OWNER_OFFERED);
	guardian_arm(&guardian, &word, ATTEMPT, -1, argv, argv, argv);
	set(ATTEMPT, OWNER_OWNED);
	guardian_tell(guardian.pipe, GUARDIAN_DONE);
	pid = guardian.pid;
	g_assert_cmpint(waitpid(pid, &status, WNOHANG), ==, 0);
	guardian_stop(&guardian);
	g_assert_cmpint(waitpid(pid, &status, WNOHANG), ==, -1);
	g_assert_cmphex(word, ==, owner_word_of(ATTEMPT, OWNER_OWNED));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/guardian/late-word", test_late_word);
	g_test_add_func("/guardian/offered", test_offered);
	g_test_add_func("/guardian/taken", test_taken);
	g_test_add_func("/guardian/on-its-way-back", test_on_its_way_back);
	g_test_add_func("/guardian/done", test_done);
	return g_test_run();
}
