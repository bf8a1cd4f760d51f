// The probe against programs of every kind: a clear reason, no zombie, no descriptor left.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
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
	char *error;
};

static void on_done(void *opaque, const char *build, uint64_t start_ns, const GError *error)
{
	struct answer *answer = opaque;

	g_assert_false(answer->done);
	answer->done = true;
	answer->build = g_strdup(build);
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

static void check_no_children(void)
{
	g_assert_cmpint(waitpid(-1, NULL, WNOHANG), ==, -1);
	g_assert_cmpint(errno, ==, ECHILD);
}

/* Ask @argv; @words must be in the reason, or NULL if it accepts. */
static void ask(const char *const *argv, uint32_t timeout_ms, const char *words)
{
	struct answer answer = {0};
	json_t *offer = json_pack("{s:s}", "vm", "test");
	unsigned int fds = count_fds();
	g_autoptr(GError) error = NULL;
	struct probe *probe = probe_start(argv[0], (char *const *)argv, offer, timeout_ms, on_done,
					  &answer, &error);

	json_decref(offer);
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

#define ASK(timeout_ms, words, ...) ask((const char *const[]){__VA_ARGS__, NULL}, timeout_ms, words)

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
	uint64_t begun = clock_now_ns();

	ASK(50, "did not answer within 50 ms", "/bin/sleep", "1000");
	/* A child of the child is killed with it. */
	ASK(50, "did not answer within 50 ms", "/bin/sh", "-c", "sleep 1000; true");
	/* One that prints without end is killed as well. */
	ASK(200, "200 ms", "/bin/sh", "-c", "while :; do echo garbage; done");
	g_assert_cmpuint(clock_now_ns() - begun, <, 20 * NS_PER_SEC);
}

static void test_nonsense(void)
{
	ASK(5000, "without answering", "/bin/sh", "-c", "cat /bin/true >&3");
	ASK(5000, "without answering", "/bin/sh", "-c", "head -c 16 /dev/zero >&3; exec 3>&-");
	ASK(200, "200 ms", "/bin/sh", "-c", "head -c 10 /dev/zero >&3; sleep 1000");
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
	json_t *offer = json_object();
	unsigned int fds = count_fds();
	struct answer answer = {0};
	struct probe *probe =
		probe_start(argv[0], (char *const *)argv, offer, 5000, on_done, &answer, NULL);

	json_decref(offer);
	g_assert_nonnull(probe);
	probe_free(probe);
	g_assert_false(answer.done);
	check_no_children();
	g_assert_cmpuint(count_fds(), ==, fds);
}

static char not_today[] = "not today";

static char *judge(void *opaque, const json_t *offer)
{
	const char *verdict = opaque;

	if (g_strcmp0(json_string_value(json_object_get(offer, "vm")), "test") != 0)
		return g_strdup("wrong offer");
	return verdict ? g_strdup(verdict) : NULL;
}

int main(int argc, char **argv)
{
	g_autofree char *path = g_file_read_link("/proc/self/exe", NULL);

	if (probe_requested())
		return probe_answer(judge, strcmp(argv[1], "--refuse") == 0 ? not_today : NULL);
	self = path;
	g_test_init(&argc, &argv, NULL);
	/* The loop's own descriptor is not one that a probe leaves. */
	g_main_context_iteration(NULL, FALSE);
	g_test_add_func("/probe/not-ours", test_not_ours);
	g_test_add_func("/probe/silent", test_silent);
	g_test_add_func("/probe/nonsense", test_nonsense);
	g_test_add_func("/probe/ours", test_ours);
	g_test_add_func("/probe/abandoned", test_abandoned);
	return g_test_run();
}
