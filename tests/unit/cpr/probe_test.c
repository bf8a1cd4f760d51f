// The probe against programs of every kind: a clear reason, no zombie, no descriptor left.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cpr/probe.h"

static const char *self;

struct answer {
	bool done;
	char *build;
	uint64_t memory_bytes;
	char *error;
};

static GArray *children; /* pid_t */

static void on_done(void *opaque, const struct probe_answer *result, const GError *error)
{
	struct answer *answer = opaque;

	g_assert_false(answer->done);
	answer->done = true;
	answer->build = result ? g_strdup(result->build) : NULL;
	answer->memory_bytes = result ? result->memory_bytes : 0;
	answer->error = error ? g_strdup(error->message) : NULL;
}

static unsigned int count_fds(void)
{
	GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
	unsigned int n = 0;

	while (g_dir_read_name(dir))
		n++;
	g_dir_close(dir);
	return n;
}

/* One that was killed is reaped from the loop. */
static void check_no_children(void)
{
	while (children->len)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpint(waitpid(-1, NULL, WNOHANG), ==, -1);
	g_assert_cmpint(errno, ==, ECHILD);
}

static struct probe *start(const char *const *argv, uint32_t budget_ms, struct answer *answer,
			   GError **error)
{
	const struct probe_params params = {
		.path = argv[0],
		.argv = (char *const *)argv,
		.env = environ,
		.envelope = 77,
		.budget_ms = budget_ms,
		.children = children,
	};

	return probe_start(&params, on_done, answer, error);
}

/* Ask @argv; @words must be in the reason, or NULL if it accepts. */
static void ask(const char *const *argv, uint32_t budget_ms, const char *words)
{
	struct answer answer = {0};
	unsigned int fds = count_fds();
	g_autoptr(GError) error = NULL;
	struct probe *probe = start(argv, budget_ms, &answer, &error);

	if (probe) {
		while (!answer.done)
			g_main_context_iteration(NULL, TRUE);
		probe_free(probe);
	} else {
		answer.error = g_strdup(error->message);
	}
	g_assert_cmpint(answer.build == NULL, ==, words != NULL);
	if (words && !strstr(answer.error, words))
		g_error("%s: '%s' does not say '%s'", argv[0], answer.error, words);
	g_test_message("%s", answer.error ? answer.error : answer.build);
	check_no_children();
	g_assert_cmpuint(count_fds(), ==, fds);
	g_free(answer.build);
	g_free(answer.error);
}

#define ASK(budget_ms, words, ...) ask((const char *const[]){__VA_ARGS__, NULL}, budget_ms, words)

static void test_not_ours(void)
{
	ASK(5000, "ended with status 0 without answering", "/bin/true");
	ASK(5000, "ended with status 1 without answering", "/bin/false");
	ASK(5000, "No such file or directory", "/does/not/exist/molt");
	ASK(5000, "Permission denied", "/etc/passwd");
	ASK(5000, "it said: hello", "/bin/sh", "-c", "echo one; echo hello >&2");
	ASK(5000, "was killed by signal 11", "/bin/sh", "-c", "kill -SEGV $$");
}

static void test_silent(void)
{
	ASK(50, "no answer within 50 ms", "/bin/sleep", "1000");
	/* A child of the child is killed with it. */
	ASK(50, "no answer within 50 ms", "/bin/sh", "-c", "sleep 1000; true");
	/* One that works, or prints, without end is not waited for for ever. */
	ASK(500, "although the peer works", "/bin/sh", "-c", "while :; do :; done");
}

static void test_nonsense(void)
{
	ASK(5000, "without answering", "/bin/sh", "-c", "cat /bin/true >&$MOLT_CPR_PROBE");
	ASK(5000, "without answering", "/bin/sh", "-c",
	    "head -c 16 /dev/zero >&$MOLT_CPR_PROBE; exec 3>&-");
	ASK(200, "no answer within 200 ms", "/bin/sh", "-c",
	    "head -c 10 /dev/zero >&$MOLT_CPR_PROBE; sleep 1000");
}

static void test_ours(void)
{
	ASK(5000, NULL, self, "--accept");
	ASK(5000, "refuses this VM: not today", self, "--refuse");
	/* A prefix command that runs the real one. */
	ASK(5000, NULL, "/usr/bin/env", self, "--accept");
}

static void test_abandoned(void)
{
	const char *argv[] = {"/bin/sleep", "1000", NULL};
	unsigned int fds = count_fds();
	struct answer answer = {0};
	struct probe *probe = start(argv, 5000, &answer, NULL);

	g_assert_nonnull(probe);
	probe_free(probe);
	g_assert_false(answer.done);
	check_no_children();
	g_assert_cmpuint(count_fds(), ==, fds);
}

/* What the child inherits has the same number there, and nothing else is inheritable here. */
static void test_inherits(void)
{
	const char *argv[] = {self, "--inherits", NULL};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
	struct answer answer = {0};
	const struct probe_params params = {
		.path = self,
		.argv = (char *const *)argv,
		.env = environ,
		.fds = fds,
		.envelope = fd,
		.budget_ms = 5000,
		.children = children,
	};
	struct probe *probe;

	g_array_append_val(fds, fd);
	probe = probe_start(&params, on_done, &answer, NULL);
	g_assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	while (!answer.done)
		g_main_context_iteration(NULL, TRUE);
	g_assert_null(answer.error);
	g_assert_cmpuint(answer.memory_bytes, >, 0);
	probe_free(probe);
	close(fd);
	g_free(answer.build);
}

static int rehearse(const char *how)
{
	if (!probe_begin(NULL))
		return EXIT_FAILURE;
	g_assert_true(probe_active());
	if (strcmp(how, "--refuse") == 0)
		probe_refuse("not today");
	if (strcmp(how, "--inherits") == 0 && fcntl(probe_envelope(), F_GETFD) != 0)
		probe_refuse("the envelope did not come over");
	if (strcmp(how, "--inherits") != 0 && probe_envelope() != 77)
		probe_refuse("wrong offer");
	probe_accept();
}

int main(int argc, char **argv)
{
	g_autofree char *path = g_file_read_link("/proc/self/exe", NULL);

	if (probe_requested())
		return rehearse(argv[1]);
	children = g_array_new(FALSE, FALSE, sizeof(pid_t));
	self = path;
	g_test_init(&argc, &argv, NULL);
	/* The loop's own descriptor is not one that a probe leaves. */
	g_main_context_iteration(NULL, FALSE);
	g_test_add_func("/probe/not-ours", test_not_ours);
	g_test_add_func("/probe/silent", test_silent);
	g_test_add_func("/probe/nonsense", test_nonsense);
	g_test_add_func("/probe/ours", test_ours);
	g_test_add_func("/probe/abandoned", test_abandoned);
	g_test_add_func("/probe/inherits", test_inherits);
	return g_test_run();
}
