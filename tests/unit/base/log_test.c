// The log: never waits for a reader, loses by count, keeps the order, one line a message.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define LATE_MS 20000

/** struct sink - A pipe in the place of stderr; @got: what came out of it */
struct sink {
	int saved, fd;
	GString *got;
};

static void sink_open(struct sink *sink)
{
	int ends[2];

	g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
	sink->saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	g_assert_cmpint(dup2(ends[1], STDERR_FILENO), ==, STDERR_FILENO);
	close(ends[1]);
	sink->fd = ends[0];
	sink->got = g_string_new(NULL);
}

/* The standard error stream back, and the pipe's write end gone. */
static void sink_close(struct sink *sink)
{
	log_flush(LATE_MS);
	g_assert_cmpint(dup2(sink->saved, STDERR_FILENO), ==, STDERR_FILENO);
	fd_close(&sink->saved);
	fd_close(&sink->fd);
	g_string_free(sink->got, TRUE);
}

/* Fill the pipe, by another open file that does not block. */
static size_t sink_fill(const struct sink *sink)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", STDERR_FILENO);
	autofd int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	size_t n = 0;

	g_assert_cmpint(fd, >=, 0);
	while (write(fd, "x", 1) == 1)
		n++;
	return n;
}

static void sink_read_until(struct sink *sink, const char *end)
{
	uint64_t deadline_ns = clock_deadline_ms(LATE_MS);
	char buf[4096];

	while (!strstr(sink->got->str, end)) {
		ssize_t n;

		if (fd_poll(sink->fd, POLLIN, deadline_ns) <= 0)
			g_error("'%s' did not come", end);
		n = read(sink->fd, buf, sizeof(buf));
		g_assert_cmpint(n, >, 0);
		g_string_append_len(sink->got, buf, n);
	}
}

static void test_one_line(void)
{
	struct sink sink;

	sink_open(&sink);
	log_error("a\nb\x1b[2J\x7f\n");
	log_warn("%s", "w");
	log_plain("as it is");
	sink_read_until(&sink, "as it is\n");
	g_assert_cmpstr(sink.got->str, ==, "molt: a; b\\x1b[2J\\x7f\nmolt: warning: w\nas it is\n");
	sink_close(&sink);
}

static void test_long_line(void)
{
	g_autofree char *text = g_strnfill(3 * LOG_LINE_BYTES, 'y');
	struct sink sink;

	sink_open(&sink);
	log_info("%s", text);
	sink_read_until(&sink, "\n");
	g_assert_cmpuint(sink.got->len, ==, LOG_LINE_BYTES);
	sink_close(&sink);
}

/* Each line that was said comes out in order, or is counted where it is missing. */
static void test_full_pipe(void)
{
	const unsigned int n = 20000;
	unsigned int next = 0, lost = 0, notes = 0;
	g_auto(GStrv) lines = NULL;
	struct sink sink;
	size_t filled;

	sink_open(&sink);
	filled = sink_fill(&sink);
	for (unsigned int i = 0; i < n; i++)
		log_info("line %u", i);
	/* The reader comes back. */
	while (sink.got->len < filled) {
		char buf[4096];
		ssize_t got = read(sink.fd, buf, MIN(sizeof(buf), filled - sink.got->len));

		g_assert_cmpint(got, >, 0);
		g_string_append_len(sink.got, buf, got);
	}
	g_string_truncate(sink.got, 0);
	sink_read_until(&sink, "lines were lost here\n");
	log_info("the last");
	sink_read_until(&sink, "the last\n");
	lines = g_strsplit(sink.got->str, "\n", -1);
	for (unsigned int i = 0; !g_str_equal(lines[i], "molt: the last"); i++) {
		unsigned int number;

		if (sscanf(lines[i], "molt: line %u", &number) == 1) {
			g_assert_cmpuint(number, ==, next);
			next++;
		} else if (sscanf(lines[i], "molt: warning: %u lines were lost", &number) == 1) {
			lost += number;
			next += number;
			notes++;
		} else {
			g_error("'%s'", lines[i]);
		}
	}
	g_assert_cmpuint(next, ==, n);
	g_assert_cmpuint(lost, >, 0);
	g_assert_cmpuint(notes, ==, 1);
	sink_close(&sink);
}

/* A child of fork() has a log of its own, and what the parent has not written is not its. */
static void test_fork(void)
{
	struct sink sink;
	int status;
	pid_t pid;

	sink_open(&sink);
	log_info("parent");
	sink_read_until(&sink, "parent\n");
	pid = fork();
	if (pid == 0) {
		log_info("child");
		log_flush(LATE_MS);
		_exit(0);
	}
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_cmpint(status, ==, 0);
	sink_read_until(&sink, "child\n");
	log_info("again");
	sink_read_until(&sink, "again\n");
	g_assert_cmpstr(sink.got->str, ==, "molt: parent\nmolt: child\nmolt: again\n");
	sink_close(&sink);
}

/* The last words get out although the process ends at once, and a full pipe does not hold it. */
static void test_exit(void)
{
	uint64_t begin_ns;
	struct sink sink;
	int status;
	pid_t pid;

	for (int full = 0; full < 2; full++) {
		sink_open(&sink);
		if (full)
			sink_fill(&sink);
		begin_ns = clock_now_ns();
		pid = fork();
		if (pid == 0) {
			for (int i = 0; i < 100; i++)
				log_error("last words");
			log_error("the end");
			log_flush(50);
			_exit(7);
		}
		g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
		g_assert_cmpint(WEXITSTATUS(status), ==, 7);
		if (full)
			g_assert_cmpuint(clock_now_ns() - begin_ns, <, 15 * NS_PER_SEC);
		else
			sink_read_until(&sink, "the end\n");
		sink_close(&sink);
	}
}

static void *flood_thread(void *opaque)
{
	for (int i = 0; i < 1000; i++)
		log_guest(opaque, "nonsense \x01");
	return NULL;
}

/* What was not shown is told although nothing follows: all messages are shown or counted. */
static void test_flood(void)
{
	struct log_limit limit = {0};
	unsigned int shown = 0, counted = 0;
	GThread *threads[4];
	struct sink sink;

	sink_open(&sink);
	for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
		threads[i] = g_thread_new("flood", flood_thread, &limit);
	for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
		g_thread_join(threads[i]);
	while (shown + counted < 4000) {
		unsigned int more;
		char *end;

		sink_read_until(&sink, "\n");
		end = strchr(sink.got->str, '\n');
		*end = 0;
		if (g_str_equal(sink.got->str, "molt: guest: nonsense \\x01"))
			shown++;
		else if (sscanf(sink.got->str, "molt: warning: %u more messages", &more) == 1)
			counted += more;
		else
			g_error("'%s'", sink.got->str);
		g_string_erase(sink.got, 0, end + 1 - sink.got->str);
	}
	g_assert_cmpuint(shown + counted, ==, 4000);
	g_assert_cmpuint(shown, >=, 5);
	sink_close(&sink);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/log/one-line", test_one_line);
	g_test_add_func("/log/long-line", test_long_line);
	g_test_add_func("/log/full-pipe", test_full_pipe);
	g_test_add_func("/log/fork", test_fork);
	g_test_add_func("/log/exit", test_exit);
	g_test_add_func("/log/flood", test_flood);
	return g_test_run();
}
