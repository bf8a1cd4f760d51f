// The probe: asking another executable, as a child, whether it would take this VM over.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"
#include "cpr/link.h"

#define PROBE_FD	   3
#define PROBE_OUTPUT_BYTES 4096
#define PROBE_ANSWER_MS	   10000

/**
 * struct probe - A child being asked
 * @command:	For messages
 * @pid:	The child, leader of its process group; 0 once reaped
 * @pidfd:	Readable when it has ended
 * @output:	Read end of what it prints, never blocked on
 * @link:	To it
 * @exit_watch, @deadline: Sources
 */
struct probe {
	char *command;
	probe_done_fn done;
	void *opaque;
	pid_t pid;
	int pidfd;
	int output;
	uint32_t timeout_ms;
	struct link *link;
	GSource *exit_watch;
	GSource *deadline;
};

/* ---- the child's end ---- */

/* Kill what is left of the child's group and reap the child.  Return: its wait status. */
static int probe_reap(struct probe *probe)
{
	int status = 0;

	if (!probe->pid)
		return 0;
	kill(-probe->pid, SIGKILL);
	while (waitpid(probe->pid, &status, 0) < 0 && errno == EINTR)
		;
	probe->pid = 0;
	return status;
}

/* The last line the child printed, "" if there is none. */
static char *last_line(struct probe *probe)
{
	char buf[PROBE_OUTPUT_BYTES + 1];
	size_t have = 0;
	ssize_t n;
	char *start;

	while ((n = read(probe->output, buf + have, PROBE_OUTPUT_BYTES - have)) > 0)
		have += n;
	buf[have] = 0;
	g_strchomp(buf);
	start = strrchr(buf, '\n');
	start = start ? start + 1 : buf;
	for (char *p = start; *p; p++)
		if (!g_ascii_isprint(*p))
			*p = '?';
	return *start ? g_strdup_printf("; it said: %.200s", start) : g_strdup("");
}

/* @accept: its answer, borrowed; NULL with @error, which is taken */
static void probe_end(struct probe *probe, const json_t *accept, GError *error)
{
	g_autoptr(GError) owned = error;
	g_autofree char *build = g_strdup(json_string_value(json_object_get(accept, "build")));
	json_int_t start_ns = json_integer_value(json_object_get(accept, "start-ns"));

	loop_unwatch(&probe->exit_watch);
	loop_unwatch(&probe->deadline);
	g_clear_pointer(&probe->link, link_free);
	probe_reap(probe);
	probe->done(probe->opaque, build, start_ns > 0 ? start_ns : 0, owned);
}

static void probe_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload)
{
	struct probe *probe = opaque;
	const char *reason = json_string_value(json_object_get(body, "reason"));
	GError *error = NULL;

	if (type == FRAME_ACCEPT && json_is_string(json_object_get(body, "build"))) {
		probe_end(probe, body, NULL);
		return;
	}
	if (type == FRAME_REFUSE && reason)
		error_set(&error, MOLT_ERROR_REFUSED, "%s refuses this VM: %s", probe->command,
			  reason);
	else
		error_set_generic(&error, "%s answered with nonsense ('%s')", probe->command,
				  frame_type_name(type));
	probe_end(probe, NULL, error);
}

/* The socket closes just before the process ends: the exit watch tells more. */
static void probe_closed(void *opaque, const GError *error)
{
}

static gboolean probe_exited(int fd, GIOCondition condition, void *opaque)
{
	struct probe *probe = opaque;
	g_autofree char *said = NULL;
	GError *error = NULL;
	json_t *body;
	int status;

	/* Its answer may lie in the socket still. */
	body = link_wait(probe->link, FRAME_ACCEPT, clock_now_ns(), &error);
	if (body || g_error_matches(error, MOLT_ERROR, MOLT_ERROR_REFUSED)) {
		if (error)
			g_prefix_error(&error, "%s: ", probe->command);
		probe_end(probe, body, error);
		json_decref(body);
		return G_SOURCE_REMOVE;
	}
	g_clear_error(&error);
	status = probe_reap(probe);
	said = last_line(probe);
	if (WIFSIGNALED(status))
		error_set_generic(&error, "%s was killed by signal %d (%s) without answering%s",
				  probe->command, WTERMSIG(status), strsignal(WTERMSIG(status)),
				  said);
	else
		error_set_generic(&error,
				  "%s ended with status %d without answering: is it molt?%s",
				  probe->command, WEXITSTATUS(status), said);
	probe_end(probe, NULL, error);
	return G_SOURCE_REMOVE;
}

static gboolean probe_late(void *opaque)
{
	struct probe *probe = opaque;
	g_autofree char *said = last_line(probe);

	probe_end(probe, NULL,
		  g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT,
			      "%s did not answer within %u ms and was killed%s", probe->command,
			      probe->timeout_ms, said));
	return G_SOURCE_REMOVE;
}

/* ---- starting it ---- */

static char **probe_environment(void)
{
	char **env = g_get_environ();
	g_autofree char *number = g_strdup_printf("%d", PROBE_FD);

	return g_environ_setenv(env, PROBE_ENV, number, TRUE);
}

/* Default signal actions and an empty mask: what the child would have at a start of its own. */
static void reset_signals(posix_spawnattr_t *attr)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(attr, &none);
	posix_spawnattr_setsigdefault(attr, &all);
	posix_spawnattr_setpgroup(attr, 0);
	posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
					       POSIX_SPAWN_SETPGROUP);
}

/* posix_spawn() does not copy page tables, so a VM with much RAM pays nothing. */
static int spawn(struct probe *probe, char *const *argv, int sock, int output)
{
	g_auto(GStrv) env = probe_environment();
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	reset_signals(&attr);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
	posix_spawn_file_actions_adddup2(&actions, sock, PROBE_FD);
	r = posix_spawn(&probe->pid, probe->command, &actions, &attr, argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	if (r)
		probe->pid = 0;
	return r;
}

static const struct link_handler probe_handler = {probe_message, probe_closed};

/* The child with its socket and its output; the parent's ends go into @probe. */
static bool start_child(struct probe *probe, char *const *argv, GError **error)
{
	autofd int ours = -1, theirs = -1, output = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_set_errno(error, errno, "cannot make the probe's socket");
	ours = pair[0];
	theirs = pair[1];
	if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_set_errno(error, errno, "cannot make the probe's pipe");
	probe->output = pair[0];
	output = pair[1];
	/* The child gets a pipe that blocks: O_NONBLOCK would surprise it. */
	(void)fd_set_nonblock(output, false);
	r = spawn(probe, argv, theirs, output);
	if (r)
		return error_set_errno(error, r, "cannot run '%s'", probe->command);
	if (!fd_set_nonblock(ours, true))
		return error_set_errno(error, errno, "cannot make the probe's socket nonblocking");
	probe->link = link_new(fd_steal(&ours), &probe_handler, probe);
	probe->pidfd = syscall(SYS_pidfd_open, probe->pid, 0);
	if (probe->pidfd < 0)
		return error_set_errno(error, errno, "cannot watch the probe");
	return true;
}

struct probe *probe_start(const char *path, char *const *argv, const json_t *offer,
			  uint32_t timeout_ms, probe_done_fn done, void *opaque, GError **error)
{
	autoptr(probe) probe = g_new0(struct probe, 1);
	g_autoptr(GError) ignored = NULL;

	*probe = (struct probe){.done = done,
				.opaque = opaque,
				.pidfd = -1,
				.output = -1,
				.timeout_ms = timeout_ms,
				.command = g_strdup(path)};
	if (!start_child(probe, argv, error))
		return NULL;
	probe->exit_watch = loop_watch_fd(NULL, probe->pidfd, G_IO_IN, probe_exited, probe);
	probe->deadline = loop_after_ms(timeout_ms, probe_late, probe);
	/* A child that has ended already is reported by the exit watch. */
	(void)link_send(probe->link, FRAME_OFFER, json_deep_copy(offer), &ignored);
	return g_steal_pointer(&probe);
}

void probe_free(struct probe *probe)
{
	if (!probe)
		return;
	loop_unwatch(&probe->exit_watch);
	loop_unwatch(&probe->deadline);
	link_free(probe->link);
	probe_reap(probe);
	fd_close(&probe->pidfd);
	fd_close(&probe->output);
	g_free(probe->command);
	g_free(probe);
}

/* ---- the other side ---- */

bool probe_requested(void)
{
	return g_getenv(PROBE_ENV) != NULL;
}

int probe_answer(char *(*judge)(void *opaque, const json_t *offer), void *opaque)
{
	static const struct link_handler nobody = {0};
	int fd = atoi(g_getenv(PROBE_ENV));
	autoptr(link) link = link_new(fd, &nobody, NULL);
	g_autoptr(GError) error = NULL;
	g_autofree char *reason = NULL;
	json_t *offer = link_wait(link, FRAME_OFFER, clock_deadline_ms(PROBE_ANSWER_MS), &error);
	bool sent;

	g_unsetenv(PROBE_ENV);
	if (!offer)
		return EXIT_FAILURE;
	reason = judge(opaque, offer);
	json_decref(offer);
	if (reason)
		sent = link_send(link, FRAME_REFUSE, json_pack("{s:s}", "reason", reason), &error);
	else
		sent = link_send(link, FRAME_ACCEPT,
				 json_pack("{s:s, s:I}", "build", MOLT_VERSION, "start-ns",
					   (json_int_t)clock_process_ns()),
				 &error);
	return sent ? EXIT_SUCCESS : EXIT_FAILURE;
}
