// Ownership: every call in every state of the word, alone and with others awake at the wrong time; and
// with real processes, each killed at every step.  One owner is left, or none that could run.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "cpr/owner.h"

/* What a successor in this same process would have: the locks are by description, so it works. */
static struct owner *inherit(struct fd_source *old, struct fd_source *new, bool with_lock,
			     struct owner *owner)
{
	struct fdstore *store = fdstore_new();
	g_autoptr(GError) error = NULL;
	struct owner *heir;

	g_assert_true(fd_source_offer(old, store, FD_WAY_EXEC, &error));
	if (with_lock)
		g_assert_true(owner_add_lock(owner, store, &error));
	new->inherited = store;
	heir = owner_inherit(new, &error);
	g_assert_no_error(error);
	new->inherited = NULL;
	fdstore_free(store);
	return heir;
}

/* A process that has the guest, and one that may get it. */
struct pair {
	struct fd_source a, b;
	struct owner *old, *new;
};

static struct pair *pair_new(bool by_exec)
{
	struct pair *p = g_new0(struct pair, 1);

	p->old = owner_new(&p->a, NULL);
	g_assert_nonnull(p->old);
	p->new = inherit(&p->a, &p->b, by_exec, p->old);
	return p;
}

static void pair_free(struct pair *p)
{
	owner_free(p->new);
	owner_free(p->old);
	fd_source_clear(&p->a);
	fd_source_clear(&p->b);
	g_free(p);
}

static uint64_t offer(struct owner *owner)
{
	uint64_t attempt = owner_id_new(NULL);

	g_assert_cmpuint(attempt, !=, 0);
	g_assert_true(owner_offer(owner, attempt, NULL));
	return attempt;
}

static void set_word(struct owner *owner, uint64_t id, enum owner_state state)
{
	atomic_store(owner_word(owner), owner_word_of(id, state));
}

static uint64_t get_word(struct owner *owner)
{
	return atomic_load(owner_word(owner));
}

/* Another description of the page, for a process that stops when it has locked it. */
static int open_page(struct fd_source *fds)
{
	struct fdstore *store = fdstore_new();
	g_autofree char *path = NULL;
	autofd int handle = -1;
	int fd;

	g_assert_true(fd_source_offer(fds, store, FD_WAY_EXEC, NULL));
	handle = fdstore_take(store, "cpr/owner", FD_OWNER, NULL);
	path = g_strdup_printf("/proc/self/fd/%d", handle);
	fd = open(path, O_RDWR | O_CLOEXEC);
	g_assert_cmpint(fd, >=, 0);
	fdstore_free(store);
	return fd;
}

/* ---- every call in every state ---- */

/* The words there can be, for somebody who asks about attempt `a`; `m` is what the caller booted with. */
enum word { OWNED_MINE, OWNED_A, OWNED_X, OFFERED_A, OFFERED_X, RECALLED_A, RECALLED_X, WORDS };

static const enum owner_state state_of[WORDS] = {
	OWNER_OWNED,   OWNER_OWNED,    OWNER_OWNED,    OWNER_OFFERED,
	OWNER_OFFERED, OWNER_RECALLED, OWNER_RECALLED,
};

/* One call.  Return: whether it says that the caller has the guest (or, for a guardian, may go back). */
static bool call_recall(struct owner *owner, uint64_t attempt)
{
	return owner_recall(owner, attempt);
}

static bool call_take(struct owner *owner, uint64_t attempt)
{
	g_autoptr(GError) error = NULL;
	bool ok = owner_take(owner, attempt, &error);

	g_assert_true(ok || g_error_matches(error, MOLT_ERROR, MOLT_ERROR_REFUSED));
	return ok;
}

static bool call_take_back(struct owner *owner, uint64_t attempt)
{
	g_autoptr(GError) error = NULL;
	bool ok = owner_take_back(owner, attempt, &error);

	g_assert_true(ok || error);
	return ok;
}

static bool call_word_recall(struct owner *owner, uint64_t attempt)
{
	return owner_word_recall(owner_word(owner), attempt);
}

static bool call_word_taken(struct owner *owner, uint64_t attempt)
{
	return owner_word_taken(owner_word(owner), attempt);
}

static bool call_offer(struct owner *owner, uint64_t attempt)
{
	return owner_offer(owner, owner_id_new(NULL), NULL);
}

static bool call_reclaim(struct owner *owner, uint64_t attempt)
{
	owner_release(owner);
	return owner_reclaim(owner, attempt) == OWNER_OURS;
}

/*
 * What each call says and leaves: a letter for yes, and after it what the word is then, `.` for
 * unchanged, `m` OWNED(mine), `a` OWNED(a), `r` RECALLED(a), `f` OWNED(fresh), `o` OFFERED(fresh).
 */
static const struct row {
	const char *name;
	bool (*call)(struct owner *owner, uint64_t attempt);
	const char *says[WORDS];
} rows[] = {
	{"offer", call_offer, {"yo", "n.", "n.", "n.", "n.", "n.", "n."}},
	{"recall", call_recall, {"y.", "n.", "n.", "ym", "n.", "ym", "n."}},
	{"reclaim", call_reclaim, {"y.", "n.", "n.", "ym", "n.", "ym", "n."}},
	{"take", call_take, {"n.", "n.", "n.", "ya", "n.", "n.", "n."}},
	{"take-back", call_take_back, {"n.", "n.", "n.", "yf", "n.", "yf", "n."}},
	{"word-recall", call_word_recall, {"n.", "n.", "n.", "yr", "n.", "y.", "n."}},
	{"word-taken", call_word_taken, {"n.", "y.", "n.", "n.", "n.", "n.", "n."}},
};

static void check_word(struct owner *owner, char left, uint64_t before, uint64_t mine, uint64_t a)
{
	const uint64_t word = get_word(owner);

	if (left == '.')
		g_assert_cmpuint(word, ==, before);
	if (left == 'm')
		g_assert_cmpuint(word, ==, owner_word_of(mine, OWNER_OWNED));
	if (left == 'a')
		g_assert_cmpuint(word, ==, owner_word_of(a, OWNER_OWNED));
	if (left == 'r')
		g_assert_cmpuint(word, ==, owner_word_of(a, OWNER_RECALLED));
	if (left == 'f' || left == 'o') {
		g_assert_cmpuint(word & 3, ==, left == 'f' ? OWNER_OWNED : OWNER_OFFERED);
		g_assert_cmpuint(word >> 2, !=, mine);
		g_assert_cmpuint(word >> 2, !=, a);
	}
}

static void test_table(void)
{
	for (size_t r = 0; r < G_N_ELEMENTS(rows); r++) {
		for (int w = 0; w < WORDS; w++) {
			struct pair *p = pair_new(false);
			const uint64_t mine = get_word(p->old) >> 2;
			const uint64_t a = offer(p->old), x = a ^ 1;
			const uint64_t id = w == OWNED_MINE ? mine
					    : w == OWNED_X || w == OFFERED_X || w == RECALLED_X ? x
												: a;
			uint64_t before;
			bool says;

			set_word(p->old, id, state_of[w]);
			before = get_word(p->old);
			says = rows[r].call(p->old, a);
			g_test_message("%s, word %d: %c", rows[r].name, w, says ? 'y' : 'n');
			g_assert_cmpint(says ? 'y' : 'n', ==, rows[r].says[w][0]);
			check_word(p->old, rows[r].says[w][1], before, mine, a);
			pair_free(p);
		}
	}
}

/* Who does not hold the lock changes nothing, and may not go on. */
static void test_unlocked(void)
{
	struct pair *p = pair_new(false);
	uint64_t a = offer(p->old), word = get_word(p->old);
	g_autoptr(GError) error = NULL;

	g_assert_false(owner_held(p->new));
	g_assert_false(owner_recall(p->new, a));
	g_assert_false(owner_take_back(p->new, a, NULL));
	g_assert_false(owner_offer(p->new, owner_id_new(NULL), NULL));
	g_assert_cmpint(owner_reclaim(p->new, a), ==, OWNER_ELSEWHERE);
	g_assert_false(owner_take(p->new, a, &error));
	g_assert_true(g_error_matches(error, MOLT_ERROR, MOLT_ERROR_TIMEOUT));
	g_assert_cmpuint(get_word(p->old), ==, word);
	/* Whoever gave the guest away does not take it back without the lock. */
	owner_release(p->old);
	g_assert_false(owner_recall(p->old, a));
	g_assert_cmpuint(get_word(p->old), ==, word);
	pair_free(p);
}

/* A successor that was stopped between lock and exchange: the guest goes on, and can be updated again. */
static void test_seized(void)
{
	struct pair *p = pair_new(false);
	const uint64_t mine = get_word(p->old) >> 2, a = offer(p->old);
	autofd int standing = open_page(&p->a);
	struct fd_source c = {0};
	struct owner *next;
	g_autoptr(GError) error = NULL;

	owner_release(p->old);
	g_assert_cmpint(fd_lock(standing, F_WRLCK), ==, 0);
	g_assert_cmpint(owner_reclaim(p->old, a), ==, OWNER_ELSEWHERE);
	g_assert_cmpint(owner_seize(p->old, a, &error), ==, OWNER_OURS);
	g_assert_no_error(error);
	g_assert_true(owner_held(p->old));
	g_assert_cmpuint(get_word(p->old), ==, owner_word_of(mine, OWNER_OWNED));
	/* It goes on, with the lock of a page that nobody counts on. */
	g_assert_cmpint(fd_lock(standing, F_UNLCK), ==, 0);
	g_assert_false(owner_take(p->new, a, &error));
	g_assert_nonnull(strstr(error->message, "called the state back"));
	/* Another successor. */
	next = inherit(&p->a, &c, false, p->old);
	g_assert_false(owner_held(next));
	g_assert_cmpuint(owner_generation(next), ==, 1);
	owner_free(next);
	fd_source_clear(&c);
	pair_free(p);
}

/* It went on at the last moment. */
static void test_seized_too_late(void)
{
	struct pair *p = pair_new(false);
	const uint64_t a = offer(p->old);
	g_autoptr(GError) error = NULL;

	owner_release(p->old);
	g_assert_true(owner_take(p->new, a, NULL));
	g_assert_cmpint(owner_seize(p->old, a, &error), ==, OWNER_ELSEWHERE);
	g_assert_nonnull(strstr(error->message, "took the guest"));
	g_assert_false(owner_held(p->old));
	g_assert_true(owner_word_taken(owner_word(p->new), a));
	pair_free(p);
}

static void test_handover(void)
{
	struct pair *p = pair_new(false);
	uint64_t a = offer(p->old);

	owner_release(p->old);
	g_assert_false(owner_word_used(owner_word(p->old), a));
	g_assert_false(owner_take(p->new, a ^ 1, NULL));
	g_assert_false(owner_held(p->new));
	g_assert_true(owner_take(p->new, a, NULL));
	g_assert_true(owner_held(p->new));
	g_assert_cmpuint(owner_generation(p->new), ==, 2);
	g_assert_true(owner_word_taken(owner_word(p->old), a));
	g_assert_cmpint(owner_reclaim(p->old, a), ==, OWNER_ELSEWHERE);
	/* The successor is the next one's predecessor. */
	g_assert_cmpuint(offer(p->new), !=, a);
	g_assert_false(owner_word_taken(owner_word(p->old), a));
	g_assert_true(owner_word_used(owner_word(p->old), a));
	owner_release(p->new);
	g_assert_cmpint(owner_reclaim(p->old, a), ==, OWNER_GONE);
	g_assert_false(owner_held(p->old));
	pair_free(p);
}

/* A successor with stale state must not run, whenever its predecessor dies. */
static void test_called_back(void)
{
	struct pair *p = pair_new(false);
	uint64_t a = offer(p->old);
	g_autoptr(GError) error = NULL;

	g_assert_true(owner_recall(p->old, a));
	g_clear_pointer(&p->old, owner_free);
	g_assert_false(owner_take(p->new, a, &error));
	g_assert_nonnull(strstr(error->message, "called the state back"));
	g_assert_false(owner_held(p->new));
	pair_free(p);
}

/* A successor of attempt 1 that wakes up in the commit of attempt 2 finds the lock free. */
static void test_late_waker(void)
{
	struct pair *p = pair_new(false);
	struct fd_source c = {0};
	struct owner *second = inherit(&p->a, &c, false, p->old);
	uint64_t first = offer(p->old), a;
	g_autoptr(GError) error = NULL;

	g_assert_true(owner_recall(p->old, first));
	a = offer(p->old);
	owner_release(p->old);
	g_assert_false(owner_take(p->new, first, &error));
	g_assert_true(g_error_matches(error, MOLT_ERROR, MOLT_ERROR_REFUSED));
	g_assert_true(owner_take(second, a, NULL));
	g_assert_false(owner_take(p->new, first, NULL));
	g_assert_false(owner_take(p->new, a, NULL));
	owner_free(second);
	fd_source_clear(&c);
	pair_free(p);
}

/* Old program, new program, guardian share one locked description: the word alone decides. */
static void test_exec(void)
{
	struct pair *p = pair_new(true);
	uint64_t a = offer(p->old);

	g_assert_true(owner_held(p->new));
	g_assert_true(owner_take(p->new, a, NULL));
	g_assert_false(owner_word_recall(owner_word(p->old), a));
	g_assert_false(owner_recall(p->old, a));
	g_assert_false(owner_take_back(p->old, a, NULL));
	g_assert_cmpuint(owner_generation(p->new), ==, 2);
	pair_free(p);

	p = pair_new(true);
	a = offer(p->old);
	g_assert_true(owner_word_recall(owner_word(p->old), a));
	g_assert_false(owner_take(p->new, a, NULL));
	g_assert_false(owner_word_claim(owner_word(p->old), a ^ 1, a ^ 2));
	/* It had the lock before; a failure does not unlock it for the others. */
	g_assert_true(owner_held(p->new));
	g_assert_true(owner_take_back(p->new, a, NULL));
	g_assert_false(owner_take_back(p->old, a, NULL));
	g_assert_cmpuint(offer(p->new), !=, a);
	pair_free(p);
}

/* A guardian that kills claims the way back first; a program that was sooner keeps the guest. */
static void test_claim(void)
{
	struct pair *p = pair_new(true);
	uint64_t a = offer(p->old), claim = owner_id_new(NULL);

	g_assert_false(owner_word_claim(owner_word(p->old), a, claim));
	g_assert_true(owner_word_recall(owner_word(p->old), a));
	g_assert_true(owner_word_claim(owner_word(p->old), a, claim));
	g_assert_false(owner_take_back(p->new, a, NULL));
	g_assert_true(owner_take_back(p->new, claim, NULL));
	pair_free(p);

	p = pair_new(true);
	a = offer(p->old);
	g_assert_true(owner_word_recall(owner_word(p->old), a));
	g_assert_true(owner_take_back(p->new, a, NULL));
	g_assert_false(owner_word_claim(owner_word(p->old), a, claim));
	pair_free(p);
}

static void test_ids(void)
{
	struct pair *p = pair_new(false);
	g_autoptr(GHashTable)
		seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);

	for (int i = 0; i < 1000; i++) {
		uint64_t a = offer(p->old);

		g_assert_cmpuint(a >> 62, ==, 0);
		g_assert_true(g_hash_table_add(seen, g_memdup2(&a, sizeof(a))));
		g_assert_true(owner_recall(p->old, a));
	}
	pair_free(p);
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

/* ---- a race for one word: exactly one wins, each time ---- */

#define RACES 300

struct racer {
	struct owner *owner;
	uint64_t attempt;
	bool (*call)(struct owner *owner, uint64_t attempt);
	int *ready;
	bool won;
};

static void *race(void *opaque)
{
	struct racer *r = opaque;

	g_atomic_int_inc(r->ready);
	while (g_atomic_int_get(r->ready) < 2)
		;
	r->won = r->call(r->owner, r->attempt);
	return NULL;
}

static void test_race(void)
{
	int wins[2] = {0};

	for (int i = 0; i < RACES; i++) {
		struct pair *p = pair_new(true);
		uint64_t a = offer(p->old);
		int ready = 0;
		struct racer r[2] = {{p->new, a, call_take, &ready},
				     {p->old, a, call_word_recall, &ready}};
		GThread *other = g_thread_new("racer", race, &r[0]);

		race(&r[1]);
		g_thread_join(other);
		g_assert_cmpint(r[0].won + r[1].won, ==, 1);
		wins[r[1].won]++;
		pair_free(p);
	}
	g_test_message("taken %d times, recalled %d times", wins[0], wins[1]);
}

/* ---- two processes and a killer ---- */

enum step {
	STEP_NONE,
	OLD_BEFORE_OFFER,
	OLD_OFFERED,
	OLD_SENT,
	OLD_HEARD, /* that the successor has loaded */
	OLD_RELEASED,
	NEW_GOT_STATE,
	NEW_LOADED,
	NEW_GOT_GO,
	NEW_TOOK,
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

	uint64_t attempt;

	die_at(OLD_BEFORE_OFFER, step);
	attempt = offer(owner);
	die_at(OLD_OFFERED, step);
	if (send(sock, &attempt, sizeof(attempt), MSG_NOSIGNAL) != sizeof(attempt))
		return owner_recall(owner, attempt);
	die_at(OLD_SENT, step);
	if (hear(sock) != 'l')
		return owner_recall(owner, attempt);
	die_at(OLD_HEARD, step);
	owner_release(owner);
	die_at(OLD_RELEASED, step);
	say(sock, 'g');
	if (hear(sock) == 'r')
		return false;
	/* A process that is killed loses its sockets before its locks. */
	for (int i = 0; i < 200 && verdict == OWNER_ELSEWHERE; i++) {
		verdict = owner_reclaim(owner, attempt);
		g_usleep(1000);
	}
	return verdict == OWNER_OURS;
}

/* A predecessor that is killed loses its sockets before its lock. */
static bool take_when_free(struct owner *owner, uint64_t attempt)
{
	const uint64_t deadline_ns = clock_deadline_ms(5000);
	g_autoptr(GError) error = NULL;

	while (!owner_take(owner, attempt, &error)) {
		if (error->code != MOLT_ERROR_TIMEOUT || clock_now_ns() > deadline_ns)
			return false;
		g_clear_error(&error);
		g_usleep(1000);
	}
	return true;
}

static bool new_process(int sock, struct owner *owner, enum step step)
{
	uint64_t attempt;

	if (recv(sock, &attempt, sizeof(attempt), MSG_WAITALL) != sizeof(attempt))
		return false;
	die_at(NEW_GOT_STATE, step);
	/* Who is not there to hear it has died: the lock will tell. */
	(void)say(sock, 'l');
	die_at(NEW_LOADED, step);
	(void)hear(sock);
	die_at(NEW_GOT_GO, step);
	if (!take_when_free(owner, attempt))
		return false;
	die_at(NEW_TOOK, step);
	say(sock, 'r');
	return true;
}

static bool old_begins(int sock, enum step step)
{
	struct fd_source fds = {0};
	struct owner *owner = owner_new(&fds, NULL);
	struct fdstore *store = fdstore_new();

	g_assert_true(fd_source_offer(&fds, store, FD_WAY_EXEC, NULL));
	g_assert_true(fdstore_send(store, sock, clock_deadline_ms(10000), NULL));
	return old_process(sock, owner, step);
}

static bool new_begins(int sock, enum step step)
{
	struct fd_source fds = {.inherited = fdstore_receive(sock, clock_deadline_ms(10000), NULL)};
	struct owner *owner = owner_inherit(&fds, NULL);

	g_assert_nonnull(owner);
	return new_process(sock, owner, step);
}

/* Fork a process that begins as an owner, or as its heir.  Its verdict is its status. */
static pid_t start(bool is_old, int sock, int other, enum step step)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	close(other);
	_exit(is_old ? old_begins(sock, step) : new_begins(sock, step));
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

static void test_kill(void)
{
	/* Who owns afterwards: 'o'ld, 'n'ew, or nobody, the guest having died with its process. */
	static const char expected[STEP_COUNT] = {
		[STEP_NONE] = 'n',     [OLD_BEFORE_OFFER] = '-', [OLD_OFFERED] = '-',
		[OLD_SENT] = 'n',      [OLD_HEARD] = 'n',	 [OLD_RELEASED] = 'n',
		[NEW_GOT_STATE] = 'o', [NEW_LOADED] = 'o',	 [NEW_GOT_GO] = 'o',
		[NEW_TOOK] = '-',
	};

	for (int step = STEP_NONE; step < STEP_COUNT; step++) {
		int pair[2], old_owns, new_owns;
		pid_t old, new;

		g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
		old = start(true, pair[0], pair[1], step);
		new = start(false, pair[1], pair[0], step);
		close(pair[0]);
		close(pair[1]);
		old_owns = verdict_of(old);
		new_owns = verdict_of(new);
		g_test_message("step %d: old %d, new %d", step, old_owns, new_owns);
		g_assert_false(old_owns == 1 && new_owns == 1);
		g_assert_cmpint(old_owns == 1, ==, expected[step] == 'o');
		g_assert_cmpint(new_owns == 1, ==, expected[step] == 'n');
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/owner/table", test_table);
	g_test_add_func("/owner/unlocked", test_unlocked);
	g_test_add_func("/owner/handover", test_handover);
	g_test_add_func("/owner/seized", test_seized);
	g_test_add_func("/owner/seized-too-late", test_seized_too_late);
	g_test_add_func("/owner/called-back", test_called_back);
	g_test_add_func("/owner/late-waker", test_late_waker);
	g_test_add_func("/owner/exec", test_exec);
	g_test_add_func("/owner/claim", test_claim);
	g_test_add_func("/owner/ids", test_ids);
	g_test_add_func("/owner/not-a-page", test_not_a_page);
	g_test_add_func("/owner/race", test_race);
	g_test_add_func("/owner/kill", test_kill);
	return g_test_run();
}
