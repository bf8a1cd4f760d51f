// Sinks: bounded, in order, nobody waits; what a full, slow or failing one costs is counted.
// SPDX-License-Identifier: Apache-2.0
#include "chardev_util.h"

#include <sys/ioctl.h>
#include <sys/resource.h>

#include "backend/chardev/sink.h"
#include "base/clock.h"
#include "base/loop.h"

#define SIZE 4096

/* Two pages: while the first has room, poll() calls it writable. */
#define PIPE_BYTES 8192

/** struct bench - A sink on the write end of a pipe that blocks, or on a file */
struct bench {
	int fd, reader;
	struct sink *sink;
	GSource *progress;
	unsigned int n_progress;
	uint32_t put, got; /* bytes so far: the n-th is n * 7 */
};

static gboolean noted(void *opaque)
{
	((struct bench *)opaque)->n_progress++;
	return G_SOURCE_CONTINUE;
}

static void bench_sink(struct bench *b)
{
	g_autoptr(GError) error = NULL;

	b->sink = sink_new("sink", b->fd, SIZE, b->progress, &error);
	g_assert_no_error(error);
}

static void bench_pipe(struct bench *b)
{
	int ends[2];

	*b = (struct bench){0};
	g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
	g_assert_cmpint(fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES), ==, PIPE_BYTES);
	b->reader = ends[0];
	b->fd = ends[1];
	b->progress = loop_when_told(noted, b);
	g_assert_true(sink_needed(b->fd));
	bench_sink(b);
}

static void bench_clear(struct bench *b)
{
	sink_free(b->sink, 0);
	loop_unwatch(&b->progress);
	fd_close(&b->fd);
	fd_close(&b->reader);
}

/* Put up to @len more bytes.  Return: how many were taken. */
static size_t bench_put(struct bench *b, size_t len, bool may_wait)
{
	g_autofree uint8_t *buf = g_malloc(len);
	size_t n;

	for (size_t i = 0; i < len; i++)
		buf[i] = (b->put + i) * 7;
	n = sink_write(b->sink, buf, len, may_wait);
	b->put += n;
	return n;
}

/* The next @len bytes are the right ones. */
static void bench_get(struct bench *b, size_t len)
{
	uint64_t deadline_ns = clock_deadline_ms(10000);

	while (len > 0) {
		uint8_t buf[512];
		ssize_t n;

		g_assert_cmpint(fd_poll(b->reader, POLLIN, deadline_ns), >, 0);
		n = read(b->reader, buf, MIN(sizeof(buf), len));
		g_assert_cmpint(n, >, 0);
		for (ssize_t i = 0; i < n; i++)
			g_assert_cmpuint(buf[i], ==, (uint8_t)((b->got + i) * 7));
		b->got += n;
		len -= n;
	}
}

/* How much was written and not read. */
static uint32_t bench_waiting(const struct bench *b)
{
	int n = 0;

	g_assert_cmpint(ioctl(b->reader, FIONREAD, &n), ==, 0);
	return n;
}

/* A pipe that nobody reads: bounded, nothing lost at first, told when there is room. */
static void test_full(void)
{
	struct bench b;
	size_t n = 1;

	bench_pipe(&b);
	sink_release(b.sink);
	while (n > 0)
		n = bench_put(&b, 1000, true);
	g_assert_cmpuint(b.put, <=, SIZE + PIPE_BYTES);
	g_assert_false(sink_has_room(b.sink));
	settle();
	b.n_progress = 0;
	bench_get(&b, 4096);
	WAIT_FOR(b.n_progress > 0);
	g_assert_true(sink_has_room(b.sink));
	bench_get(&b, b.put - b.got);
	g_assert_cmpuint(sink_lost_bytes(b.sink), ==, 0);
	bench_clear(&b);
}

/* A reader that stays away costs what does not fit, by count, and goes on where it was. */
static void test_stall(void)
{
	uint64_t deadline_ns = clock_deadline_ms(10000);
	struct bench b;
	uint32_t kept;

	bench_pipe(&b);
	sink_release(b.sink);
	while (sink_lost_bytes(b.sink) == 0) {
		g_assert_cmpuint(clock_now_ns(), <, deadline_ns);
		bench_put(&b, 1000, true);
	}
	kept = b.put - sink_lost_bytes(b.sink);
	g_assert_true(sink_has_room(b.sink));
	g_assert_cmpuint(bench_put(&b, 5000, true), ==, 5000);
	g_assert_cmpuint(sink_lost_bytes(b.sink), ==, b.put - kept);
	bench_get(&b, kept);
	b.got = b.put;
	g_assert_cmpuint(bench_put(&b, 10, true), ==, 10);
	bench_get(&b, 10);
	bench_clear(&b);
}

/* What cannot be kept by the caller is dropped at once where there is no room. */
static void test_copy(void)
{
	struct bench b;

	bench_pipe(&b);
	g_assert_cmpuint(bench_put(&b, SIZE + 100, false), ==, SIZE + 100);
	g_assert_cmpuint(sink_lost_bytes(b.sink), ==, 100);
	sink_release(b.sink);
	bench_get(&b, SIZE);
	bench_clear(&b);
}

/* Held at any moment, what was written and what is unsent make the whole; a successor goes on. */
static void test_hold(void)
{
	struct bench b;

	bench_pipe(&b);
	sink_release(b.sink);
	for (int i = 0; i < 300; i++) {
		uint8_t unsent[SIZE];
		struct sink *old = b.sink;
		size_t n;

		bench_put(&b, 1 + i * 13 % 900, true);
		if (i % 3 == 0)
			bench_get(&b, MIN(300, b.put - b.got));
		sink_hold(old, clock_deadline_ms(10000));
		n = sink_unsent(old, unsent, sizeof(unsent));
		for (int looks = 0; looks < 100; looks++) {
			g_assert_cmpuint(bench_waiting(&b) + b.got + n, ==, b.put);
			g_thread_yield();
		}
		bench_sink(&b);
		bench_put(&b, 5, true);
		sink_prepend(b.sink, unsent, n);
		sink_free(old, 0);
		sink_release(b.sink);
		/* Held and released again without a successor. */
		sink_hold(b.sink, clock_deadline_ms(10000));
		sink_release(b.sink);
		g_assert_cmpuint(sink_lost_bytes(b.sink), ==, 0);
		if (b.put - b.got > SIZE / 2)
			bench_get(&b, b.put - b.got);
	}
	bench_get(&b, b.put - b.got);
	bench_clear(&b);
}

/* The end: what was taken is written; a sink that takes nothing does not hold the end up. */
static void test_free(void)
{
	struct bench b;

	bench_pipe(&b);
	bench_put(&b, 2000, true);
	sink_free(g_steal_pointer(&b.sink), 10000);
	bench_get(&b, 2000);
	bench_sink(&b);
	sink_release(b.sink);
	while (bench_put(&b, 1000, true) > 0)
		;
	sink_free(g_steal_pointer(&b.sink), 1);
	bench_clear(&b);
}

static void limit_file_size(rlim_t bytes)
{
	struct rlimit limit;

	g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &limit), ==, 0);
	limit.rlim_cur = bytes;
	g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
}

/* A file that is full once goes on when it takes something again; all is written or counted. */
static void test_full_file(void)
{
	char *dir = scratch_dir_new();
	g_autofree char *path = g_build_filename(dir, "out", NULL);
	g_autofree char *content = NULL;
	struct chardev_config config = {.kind = CHARDEV_FILE, .id = (char *)"f", .path = path};
	autoptr(recorder) r = recorder_new(1);
	uint64_t deadline_ns = clock_deadline_ms(30000);
	struct chardev *c = open_chardev(&config, NULL);
	struct chardev_link *link = attach(c, r);
	uint64_t put = 0, lost;
	gsize len;

	chardev_resume(c);
	limit_file_size(100000);
	/* The guest goes on all the same. */
	while (chardev_lost_bytes(c) < 1000) {
		static const uint8_t dots[1000] = {[0 ... 999] = '.'};

		g_assert_cmpuint(clock_now_ns(), <, deadline_ns);
		put += chardev_write(link, dots, sizeof(dots));
		g_main_context_iteration(NULL, FALSE);
	}
	limit_file_size(RLIM_INFINITY);
	lost = chardev_lost_bytes(c);
	say(link, "");
	while (g_file_get_contents(path, &content, &len, NULL) && len < put - lost) {
		g_assert_cmpuint(clock_now_ns(), <, deadline_ns);
		g_clear_pointer(&content, g_free);
		g_thread_yield();
	}
	g_assert_cmpuint(len, ==, put - lost);
	say(link, "after");
	chardev_free(c);
	g_clear_pointer(&content, g_free);
	g_assert_true(g_file_get_contents(path, &content, &len, NULL));
	g_assert_cmpuint(len, ==, put - lost + 5);
	g_assert_cmpstr(content + len - 5, ==, "after");
	scratch_dir_free(dir);
}

/* A console on a pipe that nobody reads and that must not get O_NONBLOCK: its frontend goes on. */
static void test_frontend_goes_on(void)
{
	struct chardev_config config = {
		.kind = CHARDEV_FILE, .id = (char *)"f", .path = (char *)"/dev/full"};
	autoptr(recorder) r = recorder_new(1);
	autoptr(chardev) c = open_chardev(&config, NULL);
	struct chardev_link *link = attach(c, r);
	uint8_t byte = 'x';

	chardev_resume(c);
	for (uint32_t i = 0; i < 3 * (128U << 10); i++)
		while (chardev_write(link, &byte, 1) == 0)
			WAIT_FOR(r->n_writable > 0 || chardev_lost_bytes(c) > 0);
	g_assert_cmpuint(chardev_lost_bytes(c), >, 0);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/sink/full", test_full);
	g_test_add_func("/sink/stall", test_stall);
	g_test_add_func("/sink/copy", test_copy);
	g_test_add_func("/sink/hold", test_hold);
	g_test_add_func("/sink/free", test_free);
	g_test_add_func("/sink/full-file", test_full_file);
	g_test_add_func("/sink/frontend-goes-on", test_frontend_goes_on);
	return g_test_run();
}
