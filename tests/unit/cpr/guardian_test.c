// What a guardian does about a program that is late: decided by the owner's word, once, for both.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

/* ---- a real one, whose parent ends: in a process of its own ---- */

static _Atomic uint64_t *shared;

static struct guardian armed(void)
{
	static char *const argv[] = {(char *)"/bin/false", NULL};
	struct guardian guardian = {0};
	g_autoptr(GError) error = NULL;

	g_assert_true(guardian_start(&guardian, &error));
	guardian_arm(&guardian, shared, ATTEMPT, -1, argv, argv, argv);
	return guardian;
}

static void ends(void)
{
	(void)armed();
}

static void ends_after_done(void)
{
	struct guardian guardian = armed();

	guardian_tell(guardian.pipe, GUARDIAN_DONE);
}

static void stops_it(void)
{
	struct guardian guardian = armed();

	guardian_stop(&guardian);
	g_assert_cmpint(waitpid(-1, NULL, 0), ==, -1);
}

static void stops_a_stopped_one(void)
{
	struct guardian guardian = armed();
	siginfo_t info;

	g_assert_cmpint(kill(guardian.pid, SIGSTOP), ==, 0);
	g_assert_cmpint(waitid(P_PID, guardian.pid, &info, WSTOPPED), ==, 0);
	/* More than a pipe takes: whoever waits for a manager for a day does not wait for the guardian. */
	alarm(60);
	for (int i = 0; i < 100000; i++)
		guardian_beat(guardian.pipe);
	guardian_tell(guardian.pipe, GUARDIAN_STEP);
	guardian_stop(&guardian);
	g_assert_cmpint(waitpid(-1, NULL, 0), ==, -1);
}

/* What a guardian leaves in the word of an attempt that nobody has taken, once its @parent has ended. */
static uint64_t left_by(void (*parent)(void), bool outlives)
{
	int status = 0;

	*shared = owner_word_of(ATTEMPT, OWNER_OFFERED);
	g_assert_cmpint(status_of(parent), ==, 0);
	g_assert_cmpint(waitpid(-1, &status, 0) > 0, ==, outlives);
	g_assert_cmpint(status, ==, 0);
	return *shared;
}

/* It goes back, and no further than the program that there is not; after "done" it has no part in it. */
static void test_parent_ends(void)
{
	const uint64_t offered = owner_word_of(ATTEMPT, OWNER_OFFERED);

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	g_assert_true(shared != MAP_FAILED);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	g_assert_cmphex(left_by(ends, true), ==,
			owner_word_of(guardian_claim(ATTEMPT), OWNER_RECALLED));
	g_assert_cmphex(left_by(ends_after_done, true), ==, offered);
	g_assert_cmphex(left_by(stops_it, false), ==, offered);
	g_assert_cmphex(left_by(stops_a_stopped_one, false), ==, offered);
	munmap(shared, sizeof(*shared));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/guardian/late-word", test_late_word);
	g_test_add_func("/guardian/offered", test_offered);
	g_test_add_func("/guardian/taken", test_taken);
	g_test_add_func("/guardian/on-its-way-back", test_on_its_way_back);
	g_test_add_func("/guardian/parent-ends", test_parent_ends);
	return g_test_run();
}
