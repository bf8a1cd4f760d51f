// Devices that stand still: slow ones, one that never answers, two at once, and every reason's undo.
// SPDX-License-Identifier: Apache-2.0
#include "machine/hold.h"

#include "../device/fake.h"
#include "base/error.h"

#define N_DEVICES 3

/** struct toy - A device that has @n requests at the host */
struct toy {
	struct device dev;
	uint32_t n;
	bool told;
	uint32_t n_drain, n_quiesce, n_resume;
};

/** struct rig - A hold on some toys, and on one that has nothing to drain (the last) */
struct rig {
	struct hold hold;
	struct device_env env;
	GPtrArray *devices;
	GPtrArray *chardevs;
	struct toy toys[N_DEVICES];
	uint32_t n_reported, n_done;
	GError *error;
};

static bool toy_drain(struct device *dev)
{
	struct toy *toy = (struct toy *)dev;

	toy->n_drain++;
	toy->told = toy->n > 0;
	return toy->n == 0;
}

static uint32_t toy_in_flight(struct device *dev, GString *text)
{
	struct toy *toy = (struct toy *)dev;

	if (text)
		g_string_append_printf(text, "queue 0: %u requests", toy->n);
	return toy->n;
}

static void toy_quiesce(struct device *dev)
{
	((struct toy *)dev)->n_quiesce++;
}

static void toy_resume(struct device *dev)
{
	struct toy *toy = (struct toy *)dev;

	toy->told = false;
	toy->n_resume++;
}

static const struct device_ops disk_ops = {
	.name = "toy",
	.drain = toy_drain,
	.in_flight = toy_in_flight,
	.resume = toy_resume,
};

static const struct device_ops timer_ops = {
	.name = "timer",
	.quiesce = toy_quiesce,
	.resume = toy_resume,
};

static void note_report(void *opaque)
{
	((struct rig *)opaque)->n_reported++;
}

static void note_done(void *opaque, GError *error)
{
	struct rig *rig = opaque;

	rig->n_done++;
	rig->error = error;
}

static void env_drained(void *opaque)
{
	hold_reported(opaque);
}

static struct toy *timer_of(struct rig *rig)
{
	return &rig->toys[N_DEVICES - 1];
}

static void rig_init(struct rig *rig, const void *unused)
{
	rig->devices = g_ptr_array_new();
	rig->chardevs = g_ptr_array_new();
	rig->env = (struct device_env){.drained = env_drained, .opaque = &rig->hold};
	hold_init(&rig->hold, rig->devices, rig->chardevs, HOLD_STOPPED, note_report, rig);
	for (uint32_t i = 0; i < N_DEVICES; i++) {
		struct device *dev = &rig->toys[i].dev;

		dev->ops = i + 1 < N_DEVICES ? &disk_ops : &timer_ops;
		dev->env = &rig->env;
		dev->path = g_strdup_printf("toy/%u", i);
		dev->still.drained = dev->ops->drain;
		dev->still.quiesced = true;
		g_ptr_array_add(rig->devices, dev);
		hold_admit(&rig->hold, dev);
		g_assert_cmpuint(rig->toys[i].n_resume, ==, 0);
	}
	hold_drop(&rig->hold, HOLD_STOPPED);
	for (uint32_t i = 0; i < N_DEVICES; i++)
		g_assert_cmpuint(rig->toys[i].n_resume, ==, 1);
}

static void rig_clear(struct rig *rig, const void *unused)
{
	hold_clear(&rig->hold);
	for (uint32_t i = 0; i < N_DEVICES; i++)
		g_free(rig->toys[i].dev.path);
	g_ptr_array_unref(rig->devices);
	g_ptr_array_unref(rig->chardevs);
	g_clear_error(&rig->error);
}

/* The host has answered one request. */
static void answer(struct toy *toy)
{
	if (--toy->n == 0 && toy->told)
		device_drained(&toy->dev);
}

static void *answer_thread(void *opaque)
{
	answer(opaque);
	return NULL;
}

/* Nothing in flight: held at once, nobody is waited for. */
static void test_idle(struct rig *rig, const void *unused)
{
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_NONE);
	hold_add(&rig->hold, HOLD_DRAIN);
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_HELD);
	/* The guest runs: its timer does, too. */
	g_assert_cmpuint(timer_of(rig)->n_quiesce, ==, 0);
	hold_add(&rig->hold, HOLD_UPDATE);
	g_assert_cmpuint(timer_of(rig)->n_quiesce, ==, 1);
	g_assert_cmpuint(rig->toys[0].n_drain, ==, 1);
	hold_drop(&rig->hold, HOLD_UPDATE);
	g_assert_cmpuint(timer_of(rig)->n_resume, ==, 2);
	g_assert_cmpuint(rig->toys[0].n_resume, ==, 1);
	hold_drop(&rig->hold, HOLD_DRAIN);
	g_assert_cmpuint(timer_of(rig)->n_resume, ==, 2);
	g_assert_cmpuint(rig->toys[0].n_resume, ==, 2);
	g_assert_null(hold_error(&rig->hold));
}

/* Two slow ones: both are told before either is waited for, and the wait is over with the second. */
static void test_two_at_once(struct rig *rig, const void *unused)
{
	rig->toys[0].n = 1;
	rig->toys[1].n = 2;
	hold_add(&rig->hold, HOLD_DRAIN);
	g_assert_true(rig->toys[0].told && rig->toys[1].told);
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_DRAINING);
	hold_await(&rig->hold, 0, note_done, rig);
	answer(&rig->toys[1]);
	g_thread_join(g_thread_new("answer", answer_thread, &rig->toys[0]));
	FAKE_WAIT_FOR(rig->n_reported == 1);
	g_assert_cmpuint(rig->n_done, ==, 0);
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_DRAINING);
	answer(&rig->toys[1]);
	FAKE_WAIT_FOR(rig->n_done == 1);
	g_assert_no_error(rig->error);
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_HELD);
}

/* Two that never answer: one deadline for both, both named; nothing is held, the next attempt asks anew. */
static void test_never(struct rig *rig, const void *limit)
{
	const uint64_t limit_ns = GPOINTER_TO_UINT(limit) * NS_PER_MSEC, begun_ns = clock_now_ns();

	rig->toys[0].n = 2;
	rig->toys[1].n = 3;
	hold_add(&rig->hold, HOLD_DRAIN);
	hold_await(&rig->hold, limit_ns, note_done, rig);
	FAKE_WAIT_FOR(rig->n_done == 1);
	g_assert_cmpuint(clock_now_ns() - begun_ns, >=,
			 limit_ns ? limit_ns : (HOLD_PATIENCE_MS - 50) * NS_PER_MSEC);
	g_assert_error(rig->error, MOLT_ERROR, MOLT_ERROR_TIMEOUT);
	g_assert_nonnull(strstr(rig->error->message, "toy/0/toy (queue 0: 2 requests)"));
	g_assert_nonnull(strstr(rig->error->message, "toy/1/toy (queue 0: 3 requests)"));
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_DRAINING);
	hold_drop(&rig->hold, HOLD_DRAIN);
	g_assert_cmpuint(rig->toys[0].n_resume, ==, 2);
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_NONE);
	hold_add(&rig->hold, HOLD_DRAIN);
	g_assert_cmpuint(rig->toys[0].n_drain, ==, 2);
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_DRAINING);
}

static gboolean answer_one(void *opaque)
{
	answer(opaque);
	return ((struct toy *)opaque)->n > 0;
}

/* Slow, but at work: as long as requests end, nobody is given up. */
static void test_progress(struct rig *rig, const void *unused)
{
	const uint64_t begun_ns = clock_now_ns();
	guint timer = g_timeout_add(HOLD_PATIENCE_MS / 2, answer_one, &rig->toys[0]);

	g_assert_cmpuint(timer, >, 0);
	rig->toys[0].n = 4;
	hold_add(&rig->hold, HOLD_DRAIN);
	hold_await(&rig->hold, 0, note_done, rig);
	FAKE_WAIT_FOR(rig->n_done == 1);
	g_assert_no_error(rig->error);
	g_assert_cmpuint(clock_now_ns() - begun_ns, >, HOLD_PATIENCE_MS * NS_PER_MSEC);
}

/* A reason that goes does not undo another's; what was told once is not told twice. */
static void test_reasons(struct rig *rig, const void *unused)
{
	rig->toys[0].n = 1;
	hold_add(&rig->hold, HOLD_STOPPED);
	hold_add(&rig->hold, HOLD_DRAIN);
	hold_add(&rig->hold, HOLD_RESET);
	g_assert_cmpuint(rig->toys[0].n_drain, ==, 1);
	hold_drop(&rig->hold, HOLD_DRAIN);
	hold_drop(&rig->hold, HOLD_RESET);
	g_assert_cmpuint(rig->toys[0].n_resume, ==, 1);
	g_assert_cmpuint(timer_of(rig)->n_resume, ==, 1);
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_DRAINING);
	answer(&rig->toys[0]);
	g_assert_cmpint(hold_state(&rig->hold), ==, HOLD_STATE_HELD);
	hold_drop(&rig->hold, HOLD_STOPPED);
	g_assert_cmpuint(rig->toys[0].n_resume, ==, 2);
}

/* Without the main loop: over as soon as the last has answered, or when the time is. */
static void test_wait(struct rig *rig, const void *unused)
{
	GThread *thread;

	rig->toys[0].n = 1;
	hold_add(&rig->hold, HOLD_STOPPED);
	g_assert_false(hold_wait(&rig->hold, 10));
	thread = g_thread_new("answer", answer_thread, &rig->toys[0]);
	g_assert_true(hold_wait(&rig->hold, 10000));
	g_thread_join(thread);
}

/* A device on its way out takes no new work, whatever becomes of the others. */
static void test_retire(struct rig *rig, const void *unused)
{
	rig->toys[0].n = 1;
	g_assert_true(hold_retire(&rig->hold, &rig->toys[1].dev));
	g_assert_false(hold_retire(&rig->hold, &rig->toys[0].dev));
	hold_add(&rig->hold, HOLD_STOPPED);
	hold_drop(&rig->hold, HOLD_STOPPED);
	g_assert_cmpuint(rig->toys[0].n_resume, ==, 1);
	answer(&rig->toys[0]);
	FAKE_WAIT_FOR(rig->n_reported == 1);
	g_assert_true(hold_retire(&rig->hold, &rig->toys[0].dev));
	/* A reset in the middle of an update puts it back. */
	hold_add(&rig->hold, HOLD_RESET);
	hold_reinstate(&rig->hold);
	hold_drop(&rig->hold, HOLD_RESET);
	g_assert_cmpuint(rig->toys[0].n_resume, ==, 2);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
#define ADD(name_, fn_, data_) \
	g_test_add("/hold/" name_, struct rig, GUINT_TO_POINTER(data_), rig_init, fn_, rig_clear)
	ADD("idle", test_idle, 0);
	ADD("two-at-once", test_two_at_once, 0);
	ADD("never", test_never, 0);
	ADD("never-limit", test_never, 30);
	ADD("progress", test_progress, 0);
	ADD("reasons", test_reasons, 0);
	ADD("wait", test_wait, 0);
	ADD("dismiss", test_retire, 0);
	return g_test_run();
}
