// cpr-transfer as a model: two attempts, three processes, and every kill, stop and delay in between.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "model.h"

/**
 * DOC: What is modelled
 *
 * Old (O) makes two attempts, each with a successor of its own (N1, N2); N1 may be late and wake up
 * in the second.  A process's step is what the code does between two points at which another one
 * could see a difference: one exchange of the word, one change of the lock, one frame.  The frames of
 * the cpr channel and the state on the main one are separate, so that each can be seen first.
 *
 * A kill closes a process's sockets at once and unlocks in a step of its own.  A stopped process makes
 * no step until it goes on, which may be never.  Every wait may time out.
 *
 * Each state of the guest has a version: one saved by an attempt is that of the RAM at that time, and
 * RAM changes when the guest runs.
 */

enum {
	RUNS,
	PAUSED,
	SAVED,
	SENT,
	LOADED_HEARD,
	UNLOCKED,
	SAID_GO,
	TROUBLE,
	RELOCKED,
	UNDO,
	UNDONE,
	AFTER,
	STUCK
};										    /* old */
enum { AWAITS, LOADS, LOADED, TRIES, LOCKED, CHECKED, RUNS_IT, REPORTED, GAVE_UP }; /* new */
enum { ALIVE, STOPPED, KILLED, REAPED };		    /* any process */
enum { OWNED, OFFERED };				    /* the word */
enum { O, N1, N2, NOBODY };				    /* the lock */
enum { STATE = 1, GO = 2, ABORT = 4 };			    /* sent to new */
enum { SAID_LOADED = 1, SAID_RUNNING = 2, SAID_ABORT = 4 }; /* sent to old */

/* What is left out of the protocol, to see that the checker misses it. */
static enum mutant {
	NONE,
	NO_NONCE,	    /* both attempts have the same id */
	NO_EXCHANGE,	    /* new looks at the word, then sets it; and does not lock */
	HANG_UP_FIRST,	    /* new believes a hang-up while the state is unread */
	BROKEN_PIPE_IS_END, /* new ends when it cannot say that it has loaded */
	GO_OR_NOTHING,	    /* new ends when it waited too long for go */
	ABORT_IS_END,	    /* new, told to give up, does not ask the word: no harm */
	NO_RECALL,	    /* old goes on without taking its offer back */
	NO_RECLAIM,	    /* old does not try the lock after the commit */
	NO_SEIZE,	    /* old waits for ever for one that has locked and stands */
	LOCK_IS_ENOUGH,	    /* new, which has locked, does not ask the word any more */
	MUTANTS
} mutant;

struct new_side {
	uint8_t pc, alive, inbox, outbox, closed, unable, version;
};

/*
 * @word, @word_id: the id is 0 for what old booted with, else the attempt's.  @closed: bit for each
 * link that old has closed.  @runs: bit for each process that runs the guest.
 */
struct transfer {
	uint8_t pc, alive, attempt, closed, version;
	uint8_t word, word_id, lock, ram, runs, stale, kills, stops;
	struct new_side n[2];
};

static uint8_t id_of(int attempt)
{
	return mutant == NO_NONCE ? 1 : attempt + 1;
}

static bool gone(uint8_t alive)
{
	return alive >= KILLED;
}

/* The guest goes on in @who, with a state of @version. */
static void run(struct transfer *t, int who, uint8_t version)
{
	t->runs |= 1 << who;
	t->stale |= version != t->ram;
	t->ram++;
}

/* ---- old ---- */

static bool new_hung_up(const struct transfer *t)
{
	const struct new_side *n = &t->n[t->attempt];

	return (gone(n->alive) || n->closed) && !n->outbox;
}

static bool offers(const struct transfer *t, int attempt)
{
	return t->word == OFFERED && t->word_id == id_of(attempt);
}

static void old_waits(const struct transfer *t, struct model_steps *steps)
{
	const uint8_t box = t->n[t->attempt].outbox;
	struct transfer s = *t;

	s.n[s.attempt].outbox = 0;
	if (t->pc == SENT) {
		s.pc = box & SAID_ABORT ? UNDO : LOADED_HEARD;
		if (box)
			model_step(steps, &s, "O reads");
		s.pc = UNDO;
		model_step(steps, &s, new_hung_up(t) ? "O hears hang-up" : "O waits no longer");
		return;
	}
	s.pc = box & SAID_RUNNING ? AFTER : TROUBLE;
	if (box)
		model_step(steps, &s, "O reads");
	s.pc = mutant == NO_RECLAIM ? AFTER : TROUBLE;
	model_step(steps, &s, new_hung_up(t) ? "O hears hang-up" : "O waits no longer");
}

static void old_in_trouble(const struct transfer *t, struct model_steps *steps)
{
	struct transfer s = *t;

	if (t->pc == TROUBLE && t->lock == NOBODY) {
		s.lock = O;
		s.pc = RELOCKED;
		model_step(steps, &s, "O locks again");
	} else if (t->pc == TROUBLE && !offers(t, t->attempt)) {
		s.pc = AFTER;
		model_step(steps, &s, "O: new has it");
	} else if (t->pc == TROUBLE && mutant != NO_SEIZE) {
		/* The lock is that of a new page, which nobody else knows. */
		s.lock = O;
		s.word = OWNED;
		s.word_id = 0;
		s.pc = UNDONE;
		run(&s, O, t->version);
		model_step(steps, &s, "O seizes");
	} else if (t->pc == RELOCKED && offers(t, t->attempt)) {
		s.word = OWNED;
		s.word_id = 0;
		s.pc = UNDONE;
		run(&s, O, t->version);
		model_step(steps, &s, "O recalls");
	} else if (t->pc == RELOCKED) {
		s.lock = NOBODY;
		s.pc = AFTER;
		model_step(steps, &s, "O: it is gone");
	}
}

static void old_undoes(const struct transfer *t, struct model_steps *steps)
{
	struct transfer s = *t;

	if (t->pc == UNDO) {
		s.pc = STUCK;
		if (mutant == NO_RECALL || offers(t, t->attempt)) {
			s.pc = UNDONE;
			if (mutant != NO_RECALL) {
				s.word = OWNED;
				s.word_id = 0;
			}
			run(&s, O, t->version);
		}
		model_step(steps, &s, "O recalls");
		return;
	}
	s.n[s.attempt].inbox |= ABORT;
	s.closed |= 1 << s.attempt;
	s.pc = t->attempt == 0 ? RUNS : AFTER;
	s.attempt = 1;
	model_step(steps, &s, "O hangs up");
}

static void old_steps(const struct transfer *t, struct model_steps *steps)
{
	struct transfer s = *t;

	switch (t->pc) {
	case RUNS:
		s.runs &= ~(1 << O);
		s.version = t->ram;
		s.pc = PAUSED;
		model_step(steps, &s, "O pauses");
		break;
	case PAUSED:
		s.word = OFFERED;
		s.word_id = id_of(t->attempt);
		s.n[s.attempt].version = t->ram;
		s.pc = SAVED;
		model_step(steps, &s, "O offers, saves");
		break;
	case SAVED:
		s.pc = UNDO;
		model_step(steps, &s, "O is cancelled");
		if (new_hung_up(t))
			break;
		s.n[s.attempt].inbox |= STATE;
		s.pc = SENT;
		model_step(steps, &s, "O sends state");
		break;
	case SENT:
	case SAID_GO:
		old_waits(t, steps);
		break;
	case LOADED_HEARD:
		s.lock = NOBODY;
		s.pc = UNLOCKED;
		model_step(steps, &s, "O unlocks");
		break;
	case UNLOCKED:
		s.pc = new_hung_up(t) ? TROUBLE : SAID_GO;
		s.n[s.attempt].inbox |= GO;
		model_step(steps, &s, "O says go");
		break;
	case TROUBLE:
	case RELOCKED:
		old_in_trouble(t, steps);
		break;
	case UNDO:
	case UNDONE:
		old_undoes(t, steps);
		break;
	}
}

/* ---- new ---- */

static const char *const labels[2][8] = {
	{"N1 reads state", "N1 gives up", "N1 loads", "N1 cannot load", "N1 says loaded",
	 "N1 locks", "N1 takes", "N1 reports"},
	{"N2 reads state", "N2 gives up", "N2 loads", "N2 cannot load", "N2 says loaded",
	 "N2 locks", "N2 takes", "N2 reports"},
};

static void give_up(const struct transfer *t, int k, struct model_steps *steps)
{
	struct transfer s = *t;

	s.n[k].pc = GAVE_UP;
	s.n[k].closed = 1;
	model_step(steps, &s, labels[k][1]);
}

static bool old_hung_up(const struct transfer *t, int k)
{
	return gone(t->alive) || (t->closed & 1 << k);
}

static void new_awaits(const struct transfer *t, int k, struct model_steps *steps)
{
	struct transfer s = *t;

	if (t->n[k].inbox & STATE) {
		s.n[k].pc = LOADS;
		model_step(steps, &s, labels[k][0]);
	}
	if (old_hung_up(t, k) && (mutant == HANG_UP_FIRST || !(t->n[k].inbox & STATE)))
		give_up(t, k, steps);
}

static void new_loads(const struct transfer *t, int k, struct model_steps *steps)
{
	struct transfer s = *t;

	s.n[k].pc = LOADED;
	model_step(steps, &s, labels[k][2]);
	s.n[k].pc = GAVE_UP;
	s.n[k].unable = 1;
	s.n[k].closed = 1;
	s.n[k].outbox = SAID_ABORT;
	model_step(steps, &s, labels[k][3]);
}

static void new_says_loaded(const struct transfer *t, int k, struct model_steps *steps)
{
	struct transfer s = *t;

	if (mutant == BROKEN_PIPE_IS_END && old_hung_up(t, k)) {
		give_up(t, k, steps);
		return;
	}
	s.n[k].outbox |= SAID_LOADED;
	s.n[k].pc = TRIES;
	model_step(steps, &s, labels[k][4]);
}

/* The owner's word alone: what is said, or not, changes nothing. */
static void new_tries(const struct transfer *t, int k, struct model_steps *steps)
{
	struct transfer s = *t;

	if (!offers(t, k) || (mutant == GO_OR_NOTHING && !(t->n[k].inbox & GO)) ||
	    (mutant == ABORT_IS_END && t->n[k].inbox & ABORT))
		give_up(t, k, steps);
	if (!offers(t, k))
		return;
	if (mutant == NO_EXCHANGE) {
		s.n[k].pc = CHECKED;
		model_step(steps, &s, labels[k][5]);
	} else if (t->lock == NOBODY) {
		s.lock = N1 + k;
		s.n[k].pc = LOCKED;
		model_step(steps, &s, labels[k][5]);
	}
}

static void new_takes(const struct transfer *t, int k, struct model_steps *steps)
{
	struct transfer s = *t;

	if (t->n[k].pc == LOCKED && !offers(t, k) && mutant != LOCK_IS_ENOUGH) {
		/* Of an old page, if the guest has a new one. */
		s.lock = t->lock == N1 + k ? NOBODY : t->lock;
		s.n[k].pc = TRIES;
	} else {
		s.word = OWNED;
		s.word_id = id_of(k);
		s.n[k].pc = RUNS_IT;
		run(&s, N1 + k, t->n[k].version);
	}
	model_step(steps, &s, labels[k][6]);
}

static void new_steps(const struct transfer *t, int k, struct model_steps *steps)
{
	struct transfer s = *t;

	switch (t->n[k].pc) {
	case AWAITS:
		new_awaits(t, k, steps);
		break;
	case LOADS:
		new_loads(t, k, steps);
		break;
	case LOADED:
		new_says_loaded(t, k, steps);
		break;
	case TRIES:
		new_tries(t, k, steps);
		break;
	case LOCKED:
	case CHECKED:
		new_takes(t, k, steps);
		break;
	case RUNS_IT:
		s.n[k].outbox |= SAID_RUNNING;
		s.n[k].pc = REPORTED;
		model_step(steps, &s, labels[k][7]);
		break;
	}
}

/* ---- faults ---- */

#define KILLS 3
#define STOPS 2

static uint8_t *alive_of(struct transfer *t, int who)
{
	return who == O ? &t->alive : &t->n[who - N1].alive;
}

static void faults(const struct transfer *t, int who, struct model_steps *steps)
{
	static const char *const names[][4] = {
		{"kill O", "O unlocked by death", "stop O", "O goes on"},
		{"kill N1", "N1 unlocked by death", "stop N1", "N1 goes on"},
		{"kill N2", "N2 unlocked by death", "stop N2", "N2 goes on"}};
	struct transfer s = *t;
	uint8_t *alive = alive_of(&s, who);
	const uint8_t was = *alive;

	if (was == KILLED) {
		*alive = REAPED;
		s.lock = t->lock == who ? NOBODY : t->lock;
		model_step(steps, &s, names[who][1]);
	}
	if (was >= KILLED)
		return;
	if (was == STOPPED) {
		*alive = ALIVE;
		model_fault(steps, &s, names[who][3]);
	} else if (t->stops < STOPS) {
		*alive = STOPPED;
		s.stops++;
		model_fault(steps, &s, names[who][2]);
	}
	s = *t;
	if (t->kills < KILLS) {
		*alive = KILLED;
		s.runs &= ~(1 << who);
		s.kills++;
		model_fault(steps, &s, names[who][0]);
	}
}

static void transfer_next(const void *state, struct model_steps *steps)
{
	const struct transfer *t = state;

	if (t->alive == ALIVE)
		old_steps(t, steps);
	for (int k = 0; k < 2; k++)
		if (t->n[k].alive == ALIVE)
			new_steps(t, k, steps);
	for (int who = O; who <= N2; who++)
		faults(t, who, steps);
}

/* ---- what must hold ---- */

/* Whether new @k could run the guest now: it lives or ended by itself, has the state, and that is today's. */
static bool new_could(const struct transfer *t, int k)
{
	const struct new_side *n = &t->n[k];

	return n->alive == ALIVE && !n->unable && n->inbox & STATE && n->version == t->ram;
}

static const char *transfer_judge(const void *state, bool final)
{
	const struct transfer *t = state;
	/* Old is waited for if it is stopped and has the lock. */
	const bool held = t->lock == O && t->alive == STOPPED;

	if (__builtin_popcount(t->runs) > 1)
		return "two run the guest";
	if (t->stale)
		return "an old state on newer RAM";
	if (!final || t->runs || held)
		return NULL;
	if (t->alive == ALIVE && t->version == t->ram)
		return "nobody runs the guest, and old could";
	if (new_could(t, 0) || new_could(t, 1))
		return "nobody runs the guest, and a successor could";
	return NULL;
}

static void transfer_init(void *state)
{
	struct transfer *t = state;

	t->runs = 1 << O;
	t->ram = 1;
	t->lock = O;
}

static void transfer_print(const void *state, GString *out)
{
	const struct transfer *t = state;

	g_string_append_printf(out, "O %u/%u word %u:%u lock %u ram %u runs %x", t->pc, t->alive,
			       t->word, t->word_id, t->lock, t->ram, t->runs);
	for (int k = 0; k < 2; k++)
		g_string_append_printf(out, " | N%d %u/%u in %x out %x v%u", k + 1, t->n[k].pc,
				       t->n[k].alive, t->n[k].inbox, t->n[k].outbox,
				       t->n[k].version);
}

static const struct model transfer_model = {
	.bytes = sizeof(struct transfer),
	.init = transfer_init,
	.next = transfer_next,
	.judge = transfer_judge,
	.print = transfer_print,
};

static void test_holds(void)
{
	g_autofree char *wrong = NULL;
	size_t n = 0;

	mutant = NONE;
	wrong = model_check(&transfer_model, &n);
	g_test_message("%zu states", n);
	g_assert_cmpstr(wrong, ==, NULL);
}

static void test_mutants(void)
{
	static const char *const expected[MUTANTS] = {
		[NO_NONCE] = "an old state on newer RAM",
		[NO_EXCHANGE] = "two run the guest",
		[HANG_UP_FIRST] = "nobody runs the guest, and a successor could",
		[BROKEN_PIPE_IS_END] = "nobody runs the guest, and a successor could",
		[GO_OR_NOTHING] = "nobody runs the guest, and a successor could",
		[NO_RECALL] = "an old state on newer RAM",
		[NO_RECLAIM] = "nobody runs the guest, and old could",
		[NO_SEIZE] = "nobody runs the guest, and old could",
		[LOCK_IS_ENOUGH] = "two run the guest",
	};

	for (mutant = NONE + 1; mutant < MUTANTS; mutant++) {
		g_autofree char *wrong = model_check(&transfer_model, NULL);

		g_test_message("mutant %d: %s", mutant, wrong ? wrong : "nothing is wrong");
		if (!expected[mutant])
			g_assert_cmpstr(wrong, ==, NULL);
		else
			g_assert_true(wrong && g_str_has_prefix(wrong, expected[mutant]));
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/model/transfer/holds", test_holds);
	g_test_add_func("/model/transfer/mutants", test_mutants);
	return g_test_run();
}
