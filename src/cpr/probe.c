// The probe: another executable, as a child, rehearses taking this VM over while the guest runs.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/patience.h"
#include "cpr/children.h"
#include "cpr/link.h"

#define PROBE_OUTPUT_BYTES 4096

/* Less processor time than this from tick to tick is none: a process that is looked at may use some. */
#define PROBE_IDLE_NS 20000

/**
 * struct probe - A child that rehearses
 * @command:	For messages
 * @pid:	The child, leader of its process group; 0 once reaped
 * @pidfd:	Readable when it has ended
 * @output:	Read end of what it prints, never blocked on
 * @link:	To it
 * @answer:	FRAME_ACCEPT's body, once it came; @refusal: or why not
 * @exit_watch, @tick: Sources
 * @patience:	How long it may make no progress
 */
struct probe {
	char *command;
	probe_done_fn done;
	void *opaque;
	GArray *children;
	pid_t pid;
	int pidfd;
	int output;
	struct link *link;
	json_t *answer;
	GError *refusal;
	GSource *exit_watch;
	GSource *tick;
	struct patience patience;
};

/* ---- the child's end ---- */

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

static void probe_unwatch(struct probe *probe)
{
	loop_unwatch(&probe->exit_watch);
	loop_unwatch(&probe->tick);
	g_clear_pointer(&probe->link, link_free);
}

/* Kill what is left of the child's group; the child itself is reaped when it is gone. */
static void probe_kill(struct probe *probe)
{
	if (!probe->pid)
		return;
	kill(-probe->pid, SIGKILL);
	children_reap(probe->children, probe->pid, NULL);
	probe->pid = 0;
}

/* @error is taken; NULL: the answer counts. */
static void probe_end(struct probe *probe, GError *error)
{
	g_autoptr(GError) owned = error;
	const json_t *body = probe->answer;
	const struct probe_answer answer = {
		.build = json_string_value(json_object_get(body, "build")),
		.start_ns = MAX(json_integer_value(json_object_get(body, "start-ns")), 0),
		.memory_bytes = MAX(json_integer_value(json_object_get(body, "memory-bytes")), 0),
	};

	probe_unwatch(probe);
	probe_kill(probe);
	probe->done(probe->opaque, owned ? NULL : &answer, owned);
}

/* What it says counts; its end is waited for, so that no KVM VM is torn down in the pause. */
static void probe_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload)
{
	struct probe *probe = opaque;

	if (probe->answer || probe->refusal)
		return;
	if (type == FRAME_ACCEPT && json_is_string(json_object_get(body, "build")))
		probe->answer = json_incref(body);
	else if (!link_gave_up(probe->link, type, body, &probe->refusal))
		error_set_generic(&probe->refusal, "%s answered with nonsense ('%s')",
				  probe->command, frame_type_name(type));
}

/* The socket closes just before the process ends: the exit watch tells more. */
static void probe_closed(void *opaque, const GError *error)
{
}

/* It has ended, and its answer may lie in the socket still. */
static void take_last_words(struct probe *probe)
{
	g_autoptr(GError) error = NULL;
	json_t *body;

	if (probe->answer || probe->refusal)
		return;
	body = link_wait(probe->link, FRAME_ACCEPT, clock_now_ns(), &error);
	if (body)
		probe_message(probe, FRAME_ACCEPT, body, NULL);
	else if (g_error_matches(error, MOLT_ERROR, MOLT_ERROR_REFUSED))
		probe->refusal = g_steal_pointer(&error);
	json_decref(body);
}

static GError *ended_silently(struct probe *probe, int status)
{
	g_autofree char *said = last_line(probe);

	if (WIFSIGNALED(status))
		return g_error_new(MOLT_ERROR, MOLT_ERROR_GENERIC,
				   "%s was killed by signal %d (%s) without answering%s%s",
				   probe->command, WTERMSIG(status), strsignal(WTERMSIG(status)),
				   WTERMSIG(status) == SIGKILL
					   ? ", as the kernel does where memory is short (see "
					     "memory.events of its cgroup, and the kernel's log)"
					   : "",
				   said);
	return g_error_new(MOLT_ERROR, MOLT_ERROR_GENERIC,
			   "%s ended with status %d without answering: is it molt?%s",
			   probe->command, WEXITSTATUS(status), said);
}

static gboolean probe_exited(int fd, GIOCondition condition, void *opaque)
{
	struct probe *probe = opaque;
	int status = 0;

	take_last_words(probe);
	/* Others of its group may be there still. */
	kill(-probe->pid, SIGKILL);
	while (waitpid(probe->pid, &status, 0) < 0 && errno == EINTR)
		;
	children_remove(probe->children, probe->pid);
	probe->pid = 0;
	probe_end(probe, probe->answer	  ? NULL
			 : probe->refusal ? g_steal_pointer(&probe->refusal)
					  : ended_silently(probe, status));
	return G_SOURCE_REMOVE;
}

/* ---- progress ---- */

/* A number that changes while the child works: its processor time. */
static uint64_t child_progress(void *opaque)
{
	const struct probe *probe = opaque;
	struct timespec used;
	clockid_t clock;

	if (clock_getcpuclockid(probe->pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
		return 0;
	return (used.tv_sec * NS_PER_SEC + used.tv_nsec) / PROBE_IDLE_NS;
}

static gboolean probe_tick(void *opaque)
{
	struct probe *probe = opaque;
	const uint32_t next_ms = patience_tick(&probe->patience);
	g_autofree char *said = NULL;
	g_autofree char *text = NULL;

	loop_unwatch(&probe->tick);
	if (next_ms) {
		probe->tick = loop_after_ms(next_ms, probe_tick, probe);
		return G_SOURCE_REMOVE;
	}
	said = last_line(probe);
	text = patience_text(&probe->patience);
	probe_end(probe, probe->answer ? NULL
			 : probe->refusal
				 ? g_steal_pointer(&probe->refusal)
				 : g_error_new(MOLT_ERROR, MOLT_ERROR_TIMEOUT,
					       "%s was killed: %s%s", probe->command, text, said));
	return G_SOURCE_REMOVE;
}

/* ---- starting it ---- */

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

/* Copied to itself, a descriptor is inherited, in the child only. */
static void inherit(posix_spawn_file_actions_t *actions, const GArray *fds, int sock)
{
	posix_spawn_file_actions_adddup2(actions, sock, sock);
	for (guint i = 0; fds && i < fds->len; i++) {
		int fd = g_array_index(fds, int, i);

		posix_spawn_file_actions_adddup2(actions, fd, fd);
	}
}

/* posix_spawn() does not copy page tables, so a VM with much RAM pays nothing. */
static int spawn(struct probe *probe, const struct probe_params *params, int sock, int output)
{
	g_autofree char *number = g_strdup_printf("%d", sock);
	g_auto(GStrv)
		env = g_environ_setenv(g_strdupv((char **)params->env), PROBE_ENV, number, TRUE);
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	reset_signals(&attr);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
	inherit(&actions, params->fds, sock);
	r = posix_spawn(&probe->pid, params->path, &actions, &attr, params->argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	if (r)
		probe->pid = 0;
	return r;
}

/* Where memory is short, it is the child that goes; without /proc nobody is asked. */
static void offer_to_oom_killer(pid_t pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/oom_score_adj", pid);
	autofd int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t ignored = fd < 0 ? 0 : write(fd, "1000", 4);

	(void)ignored;
}

/* The child with its socket and its output; the parent's ends go into @probe. */
static bool start_child(struct probe *probe, const struct probe_params *params, GError **error)
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
	r = spawn(probe, params, theirs, output);
	if (r)
		return error_set_errno(error, r, "cannot run '%s'", probe->command);
	children_add(probe->children, probe->pid);
	offer_to_oom_killer(probe->pid);
	if (!fd_set_nonblock(ours, true))
		return error_set_errno(error, errno, "cannot make the probe's socket nonblocking");
	probe->link = link_new(fd_steal(&ours),
			       &(struct link_handler){probe->command, probe_message, probe_closed},
			       probe);
	probe->pidfd = syscall(SYS_pidfd_open, probe->pid, 0);
	if (probe->pidfd < 0)
		return error_set_errno(error, errno, "cannot watch the probe");
	return true;
}

struct probe *probe_start(const struct probe_params *params, probe_done_fn done, void *opaque,
			  GError **error)
{
	autoptr(probe) probe = g_new0(struct probe, 1);
	g_autoptr(GError) ignored = NULL;

	*probe = (struct probe){.done = done,
				.opaque = opaque,
				.children = g_array_ref(params->children),
				.pidfd = -1,
				.output = -1,
				.patience = {.budget_ms = params->budget_ms,
					     .progress = child_progress,
					     .opaque = probe},
				.command = g_strdup(params->path)};
	if (!start_child(probe, params, error))
		return NULL;
	probe->exit_watch = loop_watch_fd(NULL, probe->pidfd, G_IO_IN, probe_exited, probe);
	probe->tick = loop_after_ms(patience_begin(&probe->patience), probe_tick, probe);
	/* A child that has ended already is reported by the exit watch. */
	(void)link_send(probe->link, FRAME_OFFER, json_pack("{s:i}", "envelope", params->envelope),
			&ignored);
	return g_steal_pointer(&probe);
}

void probe_free(struct probe *probe)
{
	if (!probe)
		return;
	probe_unwatch(probe);
	probe_kill(probe);
	fd_close(&probe->pidfd);
	fd_close(&probe->output);
	json_decref(probe->answer);
	g_clear_error(&probe->refusal);
	g_array_unref(probe->children);
	g_free(probe->command);
	g_free(probe);
}
