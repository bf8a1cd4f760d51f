// cpr-exec as a model: old program, new program, crash handler and guardian, who share one lock.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "model.h"

/**
 * DOC: What is modelled
 *
 * One process (P) is the old program, then the new one, perhaps the old one again, by itself or by its
 * crash handler.  The guardian (G) hears "done", hears that P has died, or waits too long; then it
 * sends SIGABRT, then SIGKILL, and becomes the old program itself.  The lock is everybody's, so the
 * word alone decides.  What the guardian does about a program that does not get on, in this order:
 *
 *   recall	OFFERED(a) -> RECALLED(a), or it is that already; if neither, the guest runs: it ends
 *   SIGABRT	the crash handler of a new program, which cannot take the guest any more, goes back in
 *		its own process.  A program that is on its way back, or came
 *		back, ignores the signal until the guardian is gone: it may be sent late
 *   claim	RECALLED(a) -> RECALLED(c): now P cannot take the guest back either
 *   SIGKILL, take-back with c
 *
 * Kills, crashes and stops come at any step; a wait may end at any time.
 */

enum { OLD, PAUSED, ARMED, NEW, LOADED, CHECKED, HANDLER, BACK, SAYS, DONE, ENDED };	/* P */
enum { WATCH, RECALLS, ABORTS, GRACE, CLAIMS, KILLS_P, MOURNS, RETURNS, HAS_IT, LEFT }; /* G */
enum { ALIVE, STOPPED, DEAD };
enum { OWNED, OFFERED, RECALLED };
enum { BOOT, ATTEMPT, FRESH_P, CLAIM, FRESH_G }; /* ids */

static enum mutant {
	NONE,
	CHECK_THEN_MARK,  /* the new program looks at the word, then sets it */
	ABORT_UNASKED,	  /* the guardian does not recall before SIGABRT */
	ABORT_KILLS_BACK, /* a program on its way back does not ignore SIGABRT */
	KILL_UNCLAIMED,	  /* the guardian does not claim before SIGKILL */
	BACK_UNASKED,	  /* the guardian's program runs the guest without a take-back */
	HANDLER_UNASKED,  /* the crash handler goes back and runs, whatever the word says */
	UNARMED,	  /* the guardian ends when P dies */
	MUTANTS
} mutant;

/*
 * @back: P is, or was, on its way back.  @abort: SIGABRT is pending.  @runs: 1 P, 2 G.  @harm: the
 * guardian hit a program that ran the guest.
 */
struct exec {
	uint8_t p, p_alive, g, g_alive, word, id, claim;
	uint8_t said_done, back, abort, armed, version, ram, runs, stale, harm, kills, stops;
};

static void run(struct exec *e, int who)
{
	e->runs |= who;
	e->stale |= e->version != e->ram;
	e->ram++;
}

static bool word_is(const struct exec *e, int word, int id)
{
	return e->word == word && e->id == id;
}

static void set_word(struct exec *e, int word, int id)
{
	e->word = word;
	e->id = id;
}

static bool recall(struct exec *e)
{
	if (word_is(e, OFFERED, ATTEMPT))
		set_word(e, RECALLED, ATTEMPT);
	return word_is(e, RECALLED, ATTEMPT);
}

static bool take_back(struct exec *e, int attempt, int fresh)
{
	if (!word_is(e, RECALLED, attempt) && !word_is(e, OFFERED, attempt))
		return false;
	set_word(e, OWNED, fresh);
	return true;
}

/* ---- the process that the manager started ---- */

static void dies(struct exec *e)
{
	e->p_alive = DEAD;
	e->runs &= ~1;
	e->abort = 0;
}

/* SIGABRT of the guardian, for who has no handler any more or none yet. */
static void aborted(const struct exec *e, struct model_steps *steps)
{
	struct exec s = *e;

	s.abort = 0;
	if (e->p >= NEW && e->p <= CHECKED) {
		s.p = HANDLER;
	} else if (e->p != HANDLER && (!e->back || mutant == ABORT_KILLS_BACK)) {
		s.harm |= e->runs & 1;
		dies(&s);
	}
	model_step(steps, &s, "P gets SIGABRT");
}

static void p_takes(const struct exec *e, struct model_steps *steps)
{
	struct exec s = *e;

	if (e->p == LOADED && mutant == CHECK_THEN_MARK && word_is(e, OFFERED, ATTEMPT)) {
		s.p = CHECKED;
	} else if (e->p == CHECKED || word_is(e, OFFERED, ATTEMPT)) {
		set_word(&s, OWNED, ATTEMPT);
		s.p = SAYS;
		run(&s, 1);
	} else {
		s.p = BACK;
		s.back = 1;
	}
	model_step(steps, &s, "P takes");
}

static void p_goes_back(const struct exec *e, struct model_steps *steps)
{
	struct exec s = *e;

	s.p = ENDED;
	s.back = 1;
	if (take_back(&s, ATTEMPT, FRESH_P) || mutant == HANDLER_UNASKED) {
		s.p = SAYS;
		run(&s, 1);
	}
	model_step(steps, &s, "P takes back");
}

static void p_handles_crash(const struct exec *e, struct model_steps *steps)
{
	struct exec s = *e;

	if (recall(&s) || mutant == HANDLER_UNASKED)
		s.p = BACK;
	else
		dies(&s);
	s.back = 1;
	model_step(steps, &s, "P's crash handler");
}

static void p_steps(const struct exec *e, struct model_steps *steps)
{
	struct exec s = *e;

	if (e->abort) {
		aborted(e, steps);
		return;
	}
	switch (e->p) {
	case OLD:
		s.runs = 0;
		s.version = e->ram;
		set_word(&s, OFFERED, ATTEMPT);
		s.p = PAUSED;
		model_step(steps, &s, "P pauses, offers, saves");
		break;
	case PAUSED:
		s.armed = 1;
		s.p = ARMED;
		model_step(steps, &s, "P arms G");
		break;
	case ARMED:
		s.p = NEW;
		model_step(steps, &s, "P execs");
		s.p = BACK;
		s.back = 1;
		model_step(steps, &s, "P cannot exec");
		break;
	case NEW:
		s.p = LOADED;
		model_step(steps, &s, "P loads");
		s.p = BACK;
		s.back = 1;
		model_step(steps, &s, "P cannot load");
		s.back = 0;
		s.p = HANDLER;
		model_fault(steps, &s, "P crashes");
		break;
	case LOADED:
	case CHECKED:
		p_takes(e, steps);
		break;
	case HANDLER:
		p_handles_crash(e, steps);
		break;
	case BACK:
		p_goes_back(e, steps);
		break;
	case SAYS:
		s.said_done = 1;
		s.p = DONE;
		model_step(steps, &s, "P says done");
		break;
	}
	if (e->p == ENDED) {
		dies(&s);
		model_step(steps, &s, "P ends");
	}
}

/* ---- the guardian ---- */

static void g_watches(const struct exec *e, struct model_steps *steps)
{
	struct exec s = *e;

	if (e->said_done) {
		s.g = LEFT;
		model_step(steps, &s, "G hears done");
	} else if (e->p_alive == DEAD) {
		s.g = e->armed && mutant != UNARMED ? MOURNS : LEFT;
		model_step(steps, &s, "G sees P dead");
	} else if (e->armed && e->g == WATCH) {
		s.g = mutant == ABORT_UNASKED ? ABORTS : RECALLS;
		model_step(steps, &s, "G waits no longer");
	} else if (e->g == GRACE) {
		s.g = mutant == KILL_UNCLAIMED ? KILLS_P : CLAIMS;
		s.claim = ATTEMPT;
		model_step(steps, &s, "G waits no longer");
	}
}

static void g_acts(const struct exec *e, struct model_steps *steps)
{
	struct exec s = *e;

	switch (e->g) {
	case RECALLS:
		s.g = recall(&s) ? ABORTS : LEFT;
		model_step(steps, &s, "G recalls");
		break;
	case ABORTS:
		s.abort = e->p_alive != DEAD;
		s.g = GRACE;
		model_step(steps, &s, "G sends SIGABRT");
		break;
	case CLAIMS:
		s.g = LEFT;
		if (word_is(e, RECALLED, ATTEMPT)) {
			set_word(&s, RECALLED, CLAIM);
			s.claim = CLAIM;
			s.g = KILLS_P;
		}
		model_step(steps, &s, "G claims");
		break;
	case KILLS_P:
		s.harm |= e->runs & 1;
		dies(&s);
		s.g = RETURNS;
		model_step(steps, &s, "G sends SIGKILL");
		break;
	case MOURNS:
		s.claim = ATTEMPT;
		s.g = recall(&s) || mutant == BACK_UNASKED ? RETURNS : LEFT;
		model_step(steps, &s, "G recalls");
		break;
	case RETURNS:
		s.g = LEFT;
		if (take_back(&s, e->claim, FRESH_G) || mutant == BACK_UNASKED) {
			s.g = HAS_IT;
			run(&s, 2);
		}
		model_step(steps, &s, "G takes back");
		break;
	}
}

/* ---- all ---- */

#define KILLS 2
#define STOPS 2

static void faults(const struct exec *e, bool is_p, struct model_steps *steps)
{
	struct exec s = *e;
	uint8_t *alive = is_p ? &s.p_alive : &s.g_alive;
	const uint8_t was = *alive;

	if (was == DEAD)
		return;
	if (was == STOPPED) {
		*alive = ALIVE;
		model_fault(steps, &s, is_p ? "P goes on" : "G goes on");
	} else if (e->stops < STOPS) {
		*alive = STOPPED;
		s.stops++;
		model_fault(steps, &s, is_p ? "stop P" : "stop G");
	}
	s = *e;
	if (e->kills == KILLS)
		return;
	*alive = DEAD;
	s.runs &= is_p ? ~1 : ~2;
	s.kills++;
	model_fault(steps, &s, is_p ? "kill P" : "kill G");
}

static void exec_next(const void *state, struct model_steps *steps)
{
	const struct exec *e = state;

	if (e->p_alive == ALIVE)
		p_steps(e, steps);
	if (e->g_alive == ALIVE) {
		g_watches(e, steps);
		g_acts(e, steps);
	}
	faults(e, true, steps);
	faults(e, false, steps);
}

static const char *exec_judge(const void *state, bool final)
{
	const struct exec *e = state;

	if (e->runs == 3)
		return "two run the guest";
	if (e->stale)
		return "an old state on newer RAM";
	if (e->harm)
		return "the guardian hit a program that had the guest";
	/* Who is stopped is waited for, unless it is the guardian's to go on. */
	if (!final || e->runs || e->p_alive == STOPPED || e->g_alive == STOPPED)
		return NULL;
	if (e->version == e->ram && (e->p_alive == ALIVE || (e->g_alive == ALIVE && e->armed)))
		return "nobody runs the guest, and somebody could";
	return NULL;
}

static void exec_init(void *state)
{
	struct exec *e = state;

	e->runs = 1;
	e->ram = 1;
}

static void exec_print(const void *state, GString *out)
{
	const struct exec *e = state;

	g_string_append_printf(out,
			       "P %u/%u G %u/%u word %u:%u done %u abort %u v%u ram %u runs %u",
			       e->p, e->p_alive, e->g, e->g_alive, e->word, e->id, e->said_done,
			       e->abort, e->version, e->ram, e->runs);
}

static const struct model exec_model = {
	.bytes = sizeof(struct exec),
	.init = exec_init,
	.next = exec_next,
	.judge = exec_judge,
	.print = exec_print,
};

static void test_holds(void)
{
	g_autofree char *wrong = NULL;
	size_t n = 0;

	mutant = NONE;
	wrong = model_check(&exec_model, &n);
	g_test_message("%zu states", n);
	g_assert_cmpstr(wrong, ==, NULL);
}

static void test_mutants(void)
{
	for (mutant = NONE + 1; mutant < MUTANTS; mutant++) {
		g_autofree char *wrong = model_check(&exec_model, NULL);

		g_test_message("mutant %d: %s", mutant, wrong ? wrong : "nothing is wrong");
		g_assert_nonnull(wrong);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/model/exec/holds", test_holds);
	g_test_add_func("/model/exec/mutants", test_mutants);
	return g_test_run();
}
