// Ownership with real processes: each of the two is killed at every step; one owner is left, or none
// that could run.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cpr/owner.h"

static void test_alone(void)
{
	struct fd_source fds = {0};
	g_autoptr(GError) error = NULL;
	autoptr(owner) owner = owner_new(&fds, &error);

	g_assert_no_error(error);
	g_assert_true(owner_held(owner));
	g_assert_cmpuint(owner_generation(owner), ==, 1);
	g_assert_cmpuint(owner_offer(owner), ==, 2);
	owner_revoke(owner);
	owner_release(owner);
	g_assert_false(owner_held(owner));
	g_assert_cmpint(owner_reclaim(owner), ==, OWNER_OURS);
	g_assert_true(owner_held(owner));
	g_clear_pointer(&owner, owner_free);
	fd_source_clear(&fds);
}

/* What a successor in this same process would have: the locks are by description, so it works. */
static struct owner *inherit(struct fd_source *old, struct fd_source *new, bool with_lock,
			     struct owner *owner)
{
	struct fdstore *store = fdstore_new();
	g_autoptr(GError) error = NULL;
	struct owner *heir;

	g_assert_true(fd_source_offer(old, store, NULL, NULL, &error));
	if (with_lock)
		g_assert_true(owner_add_lock(owner, store, &error));
	new->inherited = store;
	heir = owner_inherit(new, &error);
	g_assert_no_error(error);
	new->inherited = NULL;
	fdstore_free(store);
	return heir;
}

static void test_handover(void)
{
	struct fd_source a = {0}, b = {0};
	autoptr(owner) old = owner_new(&a, NULL);
	autoptr(owner) new = inherit(&a, &b, false, old);
	uint64_t offered = owner_offer(old);

	g_assert_false(owner_held(new));
	g_assert_false(owner_lock(new, offered, NULL));
	owner_release(old);
	g_assert_false(owner_lock(new, offered + 1, NULL));
	g_assert_true(owner_lock(new, offered, NULL));
	g_assert_cmpint(owner_reclaim(old), ==, OWNER_ELSEWHERE);
	g_assert_false(owner_moved(old));
	owner_mark(new, offered);
	g_assert_true(owner_moved(old));
	g_assert_cmpint(owner_reclaim(old), ==, OWNER_ELSEWHERE);
	owner_release(new);
	g_assert_cmpint(owner_reclaim(old), ==, OWNER_GONE);
	g_assert_false(owner_held(old));
	g_clear_pointer(&new, owner_free);
	g_clear_pointer(&old, owner_free);
	fd_source_clear(&a);
	fd_source_clear(&b);
}

/* A successor with stale state must not run, whenever its predecessor dies. */
static void test_called_back(void)
{
	struct fd_source a = {0}, b = {0};
	struct owner *old = owner_new(&a, NULL);
	autoptr(owner) new = inherit(&a, &b, false, old);
	uint64_t offered = owner_offer(old);
	g_autoptr(GError) error = NULL;

	owner_revoke(old);
	owner_free(old);
	g_assert_false(owner_lock(new, offered, &error));
	g_assert_nonnull(strstr(error->message, "called the state back"));
	g_assert_false(owner_held(new));
	g_clear_pointer(&new, owner_free);
	fd_source_clear(&a);
	fd_source_clear(&b);
}

static void test_exec(void)
{
	struct fd_source a = {0}, b = {0};
	struct owner *old = owner_new(&a, NULL);
	autoptr(owner) new = inherit(&a, &b, true, old);
	uint64_t offered = owner_offer(old);

	/* The old view goes without unlocking, as an execve() does. */
	g_assert_true(owner_held(new));
	g_assert_true(owner_lock(new, offered, NULL));
	owner_mark(new, offered);
	g_assert_cmpuint(owner_generation(new), ==, 2);
	owner_free(old);
	g_clear_pointer(&new, owner_free);
	fd_source_clear(&a);
	fd_source_clear(&b);
}

static void test_not_a_page(void)
{
	struct fd_source src = {0};
	g_autoptr(GError) error = NULL;

	g_assert_null(owner_inherit(&src, &error));
	g_assert_nonnull(error);
	src.inherited = fdstore_new();
	g_clear_error(&error);
	g_assert_null(owner_inherit(&src, &error));
	g_assert_nonnull(strstr(error->message, "cpr/owner"));
	fdstore_free(src.inherited);
}

/* ---- two processes and a killer ---- */

enum step {
	STEP_NONE,
	OLD_BEFORE_OFFER,
	OLD_OFFERED,
	OLD_LOADED, /* the successor has said that it loaded */
	OLD_RELEASED,
	NEW_GOT_STATE,
	NEW_LOADED,
	NEW_GOT_GO,
	NEW_LOCKED,
	NEW_MARKED,
	STEP_COUNT,
};

static void die_at(enum step here, enum step step)
{
	if (here == step)
		raise(SIGKILL);
}

static bool say(int fd, char c)
{
	return send(fd, &c, 1, MSG_NOSIGNAL) == 1;
}

static char hear(int fd)
{
	char c;

	return read(fd, &c, 1) == 1 ? c : 0;
}

/* The old process.  Return: whether it owns the guest in the end and may let it go on. */
static bool old_process(int sock, struct owner *owner, enum step step)
{
	enum owner_verdict verdict = OWNER_ELSEWHERE;

	die_at(OLD_BEFORE_OFFER, step);
	owner_offer(owner);
	die_at(OLD_OFFERED, step);
	if (!say(sock, 's') || hear(sock) != 'l') {
		owner_revoke(owner);
		return true;
	}
	die_at(OLD_LOADED, step);
	owner_release(owner);
	die_at(OLD_RELEASED, step);
	say(sock, 'g');
	if (hear(sock) == 'r')
		return false;
	/* A process that is killed loses its sockets before its locks. */
	for (int i = 0; i < 200 && verdict == OWNER_ELSEWHERE; i++) {
		verdict = owner_reclaim(owner);
		g_usleep(1000);
	}
	return verdict == OWNER_OURS;
}

static bool new_process(int sock, struct owner *owner, enum step step)
{
	bool locked = false;

	if (hear(sock) != 's')
		return false;
	die_at(NEW_GOT_STATE, step);
	if (!say(sock, 'l'))
		locked = false;
	die_at(NEW_LOADED, step);
	(void)hear(sock);
	die_at(NEW_GOT_GO, step);
	for (int i = 0; i < 200 && !locked; i++) {
		locked = owner_lock(owner, 2, NULL);
		g_usleep(1000);
	}
	if (!locked)
		return false;
	die_at(NEW_LOCKED, step);
	owner_mark(owner, 2);
	die_at(NEW_MARKED, step);
	say(sock, 'r');
	return true;
}

/* Fork a process that begins as an owner, or as the heir of @page. Its verdict is its status. */
static pid_t start(bool is_old, int sock, int other, int page, enum step step)
{
	pid_t pid = fork();
	struct fd_source fds = {0};
	struct owner *owner;

	if (pid)
		return pid;
	close(other);
	fds.inherited = fdstore_new();
	if (!fdstore_add(fds.inherited, "cpr/owner", FD_OWNER, page, NULL))
		_exit(2);
	owner = owner_inherit(&fds, NULL);
	if (!owner)
		_exit(2);
	if (is_old) {
		if (owner_reclaim(owner) != OWNER_OURS)
			_exit(2);
		say(sock, 'h');
		_exit(old_process(sock, owner, step));
	}
	if (hear(sock) != 'h')
		_exit(2);
	_exit(new_process(sock, owner, step));
}

/* Return: 1 owns, 0 does not, -1 was killed. */
static int verdict_of(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		g_assert_cmpint(errno, ==, EINTR);
	if (WIFSIGNALED(status))
		return -1;
	g_assert_cmpint(WEXITSTATUS(status), <, 2);
	return WEXITSTATUS(status);
}

static int make_page(void)
{
	struct fd_source fds = {0};
	struct owner *owner = owner_new(&fds, NULL);
	struct fdstore *store = fdstore_new();
	int fd;

	g_assert_true(fd_source_offer(&fds, store, NULL, NULL, NULL));
	fd = dup(fdstore_find(store, "cpr/owner")->fd);
	fdstore_free(store);
	owner_free(owner);
	fd_source_clear(&fds);
	return fd;
}

static void test_kill(void)
{
	/* Who owns afterwards: 'o'ld, 'n'ew, or nobody, the guest having died with its process. */
	static const char expected[STEP_COUNT] = {
		[STEP_NONE] = 'n',  [OLD_BEFORE_OFFER] = '-', [OLD_OFFERED] = '-',
		[OLD_LOADED] = 'n', [OLD_RELEASED] = 'n',     [NEW_GOT_STATE] = 'o',
		[NEW_LOADED] = 'o', [NEW_GOT_GO] = 'o',	      [NEW_LOCKED] = 'o',
		[NEW_MARKED] = '-',
	};

	for (int step = STEP_NONE; step < STEP_COUNT; step++) {
		int page = make_page();
		int pair[2], old_owns, new_owns;
		pid_t old, new;

		g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
		old = start(true, pair[0], pair[1], page, step);
		new = start(false, pair[1], pair[0], page, step);
		close(pair[0]);
		close(pair[1]);
		old_owns = verdict_of(old);
		new_owns = verdict_of(new);
		close(page);
		g_test_message("step %d: old %d, new %d", step, old_owns, new_owns);
		g_assert_false(old_owns == 1 && new_owns == 1);
		g_assert_cmpint(old_owns == 1, ==, expected[step] == 'o');
		g_assert_cmpint(new_owns == 1, ==, expected[step] == 'n');
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/owner/alone", test_alone);
	g_test_add_func("/owner/handover", test_handover);
	g_test_add_func("/owner/called-back", test_called_back);
	g_test_add_func("/owner/exec", test_exec);
	g_test_add_func("/owner/not-a-page", test_not_a_page);
	g_test_add_func("/owner/kill", test_kill);
	return g_test_run();
}
