// cpr-exec, the side that has the guest: ask the new program, stop, save, become it.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/chardev/reopen.h"
#include "base/clock.h"
#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/stuck.h"
#include "cpr/guardian.h"
#include "cpr/internal.h"
#include "cpr/memory_need.h"
#include "cpr/probe.h"
#include "cpr/state_file.h"
#include "state/fd_paths.h"

/* How often the time until the next try doubles. */
#define TRY_DOUBLINGS 5

/* How long a program that rehearses may make no progress. */
#define REHEARSAL_MS 5000

/* The state that is saved may be longer than the rehearsed one: output that is not sent yet. */
#define STATE_SPARE_BYTES (1U << 20)

/* How long a thread may have waited for its store, before the guest stands and in the last moment. */
#define STUCK_MS      1000
#define STUCK_LAST_MS 50

/* Why a program on its way back would be there, in a rehearsal of that. */
#define WAY_BACK_REASON "rehearsal"

/* What the guardian says when it has to go back. */
#define PROGRAM_DIED "the new program ended before it took the guest"
#define PROGRAM_HUNG "the new program hung before it took the guest, and was killed"

/**
 * struct rehearsal_kit - What a program that rehearses finds
 * @store:	What will cross
 * @state_fd, @sessions_fd: Sealed memfds, saved while the guest runs
 * @envelope:	The envelope, a sealed memfd
 * @fds:	int: all that the child inherits
 */
struct rehearsal_kit {
	struct fdstore *store;
	int state_fd;
	int sessions_fd;
	int envelope;
	GArray *fds;
};

/**
 * struct exec_source - The update, from this side
 * @n_try:	Which try of one migrate this is, from 1
 * @path, @argv: What to become
 * @program_fd, @program: The file at @path, held so that no other one gets its inode number, and what it
 *		was before the rehearsal
 * @own_command: No command was set: @path is where this program came from
 * @file:	Where the state goes beside the memfd; NULL: nowhere
 * @reopen:	Chardevs that are connected anew; NULL: there are none
 * @state_bytes: How long the rehearsed one was
 * @exec_fd:	This program's executable, to come back to
 * @kit:	What a rehearsal finds
 * @probe:	The program that rehearses, new or old
 * @memory_bytes: What it needs, as the new one said; see memory_need.h
 * @guardian:	Keeps the old address space, and knows the way back
 * @store:	What crosses
 * @state_fd, @sessions_fd: Sealed memfds with the VM's state, and the process's
 * @envelope, @envelope_fd, @env: For the new program
 * @env_died, @env_hung: For the old one, should the guardian have to go back
 */
struct exec_source {
	struct outgoing base;
	unsigned int n_try;
	char *path;
	char **argv;
	int program_fd;
	struct stat program;
	bool own_command;
	struct state_file *file;
	uint64_t state_bytes;
	struct reopen *reopen;
	int exec_fd;
	struct rehearsal_kit kit;
	struct probe *probe;
	uint64_t memory_bytes;
	struct guardian guardian;
	struct fdstore *store;
	int state_fd;
	int sessions_fd;
	json_t *envelope;
	int envelope_fd;
	char **env;
	char **env_died;
	char **env_hung;
};

/* ---- what to become ---- */

/* This program's path; a new release may have replaced the file. */
static char *own_path(GError **error)
{
	static const char deleted[] = " (deleted)";
	g_autoptr(GError) local = NULL;
	g_autofree char *path = g_file_read_link("/proc/self/exe", &local);

	if (!path) {
		error_set_generic(error, "cannot find out this program's path: %s", local->message);
		return NULL;
	}
	if (g_str_has_suffix(path, deleted))
		path[strlen(path) - strlen(deleted)] = 0;
	return g_steal_pointer(&path);
}

static bool find_command(struct exec_source *es, GError **error)
{
	struct update *update = es->base.update;

	es->argv = migration_parameters_command(&update->parameters);
	es->own_command = !es->argv;
	if (!es->argv) {
		es->argv = g_new0(char *, 2);
		es->argv[0] = g_strdup(update->argv[0]);
		es->path = own_path(error);
		return es->path;
	}
	es->path = g_find_program_in_path(es->argv[0]);
	if (!es->path)
		return error_set_generic(
			error, "cpr-exec-command: '%s' %s", es->argv[0],
			g_file_test(es->argv[0], G_FILE_TEST_EXISTS)
				? "cannot be executed (is it a file with execute permission?)"
				: "is not there, nor in PATH");
	return true;
}

/* ---- threads that execve() would wait for ---- */

static bool check_threads(uint64_t min_ms, GError **error)
{
	char what[STUCK_NAME_BYTES];
	const uint64_t ns = stuck_oldest(min_ms * NS_PER_MSEC, what);

	return ns == 0 || error_set(error, MOLT_ERROR_TIMEOUT,
				    "a thread waits for '%s' since %.1f s; cpr-exec would wait for "
				    "it: free the storage, or use cpr-transfer",
				    what, (double)ns / NS_PER_SEC);
}

/* ---- stages, guest running ---- */

/* What was waited for is done, or has failed with @error. */
static void stage_ended(void *opaque, const GError *error)
{
	struct exec_source *es = opaque;

	stage_run_continue(&es->base.run, error ? g_error_copy(error) : NULL);
}

static void es_close(void *ctx)
{
	struct exec_source *es = ctx;

	fd_close(&es->program_fd); /* O_PATH: there is nothing to flush */
	close_soon(&es->exec_fd);
}

static bool remember_program(struct exec_source *es, GError **error)
{
	es->program_fd = open(es->path, O_PATH | O_CLOEXEC);
	if (es->program_fd >= 0 && fstat(es->program_fd, &es->program) == 0)
		return true;
	return error_set_errno(error, errno, "cannot execute '%s'", es->path);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Whether execve() will find the file that has rehearsed: a package upgrade may come between. */
static bool program_stayed(const struct exec_source *es, GError **error)
{
	const struct stat *then = &es->program;
	struct stat now;

	if (stat(es->path, &now) < 0)
		return error_set_errno(error, errno, "cannot execute '%s'", es->path);
	return (now.st_dev == then->st_dev && now.st_ino == then->st_ino &&
		now.st_size == then->st_size && same_time(&now.st_mtim, &then->st_mtim) &&
		same_time(&now.st_ctim, &then->st_ctim)) ||
	       error_set_generic(error, "'%s' was replaced during the update; migrate again",
				 es->path);
}

static enum stage_result es_open(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	/* At once too: to close what was duplicated of a file waits for who writes to it. */
	if (!check_threads(STUCK_MS, error) || !find_command(es, error) ||
	    !remember_program(es, error))
		return STAGE_FAILED;
	es->exec_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (es->exec_fd >= 0)
		return STAGE_DONE;
	error_set_errno(error, errno, "cannot open this program's executable (is /proc mounted?)");
	return STAGE_FAILED;
}

/* ---- the rehearsals ---- */

static json_t *envelope_json(struct exec_source *es, int state_fd, int sessions_fd);

static void kit_clear(struct rehearsal_kit *kit)
{
	g_clear_pointer(&kit->store, fdstore_free);
	g_clear_pointer(&kit->fds, g_array_unref);
	fd_close(&kit->state_fd);
	fd_close(&kit->sessions_fd);
	fd_close(&kit->envelope);
}

/* Everything that will cross, as far as it can be known before the guest is stopped. */
static bool offer_descriptors(struct exec_source *es, struct fdstore *store, GError **error)
{
	struct update *update = es->base.update;

	return fd_source_offer(&update->fds, store, FD_WAY_EXEC, error) &&
	       reopen_offer(es->reopen, store, error) &&
	       owner_add_lock(update->owner, store, error);
}

static bool seal_running(struct exec_source *es, struct rehearsal_kit *kit, GError **error)
{
	g_autoptr(GBytes) state = NULL;
	g_autoptr(GBytes) sessions = NULL;

	if (!outgoing_save_running(&es->base, &state, &sessions, error))
		return false;
	es->state_bytes = g_bytes_get_size(state);
	kit->state_fd = state_bytes_seal(state, "molt-rehearsal", error);
	if (kit->state_fd >= 0)
		kit->sessions_fd = state_bytes_seal(sessions, "molt-rehearsal-sessions", error);
	return kit->sessions_fd >= 0;
}

/* @back: for the old program on its way back. */
static bool kit_fill(struct exec_source *es, bool back, GError **error)
{
	const uint64_t counted_ns = es->base.rehearsal_ns;
	struct rehearsal_kit *kit = &es->kit;
	json_t *json;

	*kit = (struct rehearsal_kit){.store = fdstore_new_view(),
				      .state_fd = -1,
				      .sessions_fd = -1,
				      .envelope = -1,
				      .fds = g_array_new(FALSE, FALSE, sizeof(int))};
	if (!offer_descriptors(es, kit->store, error) || !seal_running(es, kit, error)) {
		kit_clear(kit);
		return false;
	}
	json = envelope_json(es, kit->state_fd, kit->sessions_fd);
	if (back) {
		/* The pause has one save: the new program's rehearsal has counted it. */
		es->base.rehearsal_ns = counted_ns;
		json_object_set_new(json, "rollback", json_string(WAY_BACK_REASON));
	}
	kit->envelope = envelope_describe(json, kit->store, kit->fds, error);
	json_decref(json);
	if (kit->envelope < 0)
		kit_clear(kit);
	return kit->envelope >= 0;
}

static void es_unrehearse(void *ctx)
{
	struct exec_source *es = ctx;

	g_clear_pointer(&es->probe, probe_free);
	kit_clear(&es->kit);
}

static enum stage_result rehearse(struct exec_source *es, const char *path, char *const *argv,
				  bool back, probe_done_fn done, GError **error)
{
	if (!kit_fill(es, back, error))
		return STAGE_FAILED;
	es->probe = probe_start(&(struct probe_params){.path = path,
						       .argv = argv,
						       .env = environ,
						       .fds = es->kit.fds,
						       .envelope = es->kit.envelope,
						       .budget_ms = REHEARSAL_MS,
						       .children = es->base.update->children},
				done, es, error);
	if (es->probe)
		return STAGE_PENDING;
	kit_clear(&es->kit);
	return STAGE_FAILED;
}

static void new_done(void *opaque, const struct probe_answer *answer, const GError *error)
{
	struct exec_source *es = opaque;

	if (answer) {
		es->base.run.ahead_ns = answer->start_ns;
		es->base.rehearsal_ns += answer->start_ns;
		es->memory_bytes = answer->memory_bytes;
		g_free(es->base.update->record->new_build);
		es->base.update->record->new_build = g_strdup(answer->build);
	}
	stage_ended(es, error);
}

static enum stage_result es_rehearse(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	return rehearse(es, es->path, es->argv, false, new_done, error);
}

static void back_done(void *opaque, const struct probe_answer *answer, const GError *error)
{
	struct exec_source *es = opaque;
	GError *failure = error ? g_error_copy(error) : NULL;

	g_prefix_error(&failure, "there would be no way back: ");
	stage_run_continue(&es->base.run, failure);
}

/* Whether what would come back is the program that has just shown, with no words of its own, that it can. */
static bool same_program(const struct exec_source *es)
{
	struct stat ours;

	return es->own_command && fstat(es->exec_fd, &ours) == 0 &&
	       ours.st_dev == es->program.st_dev && ours.st_ino == es->program.st_ino;
}

static enum stage_result es_rehearse_back(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	es_unrehearse(es);
	if (same_program(es))
		return STAGE_DONE;
	return rehearse(es, "/proc/self/exe", es->base.update->argv, true, back_done, error);
}

/* ---- chardevs that are connected anew ---- */

static enum stage_result es_reopen(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	if (!reopen_start(&es->reopen, es->base.update->chardevs, stage_ended, es, error))
		return STAGE_FAILED;
	return es->reopen ? STAGE_PENDING : STAGE_DONE;
}

static void es_unreopen(void *ctx)
{
	struct exec_source *es = ctx;

	g_clear_pointer(&es->reopen, reopen_free);
}

/* ---- the state file ---- */

static void es_discard(void *ctx)
{
	struct exec_source *es = ctx;

	g_clear_pointer(&es->file, state_file_discard);
}

static enum stage_result es_file(void *ctx, GError **error)
{
	struct exec_source *es = ctx;
	const struct migration_address *address = es->base.channels.main;

	es_unrehearse(es);
	if (!address)
		return STAGE_DONE;
	es->file = state_file_reserve(address, es->state_bytes + STATE_SPARE_BYTES, stage_ended, es,
				      error);
	return es->file ? STAGE_PENDING : STAGE_FAILED;
}

static void es_unguard(void *ctx)
{
	struct exec_source *es = ctx;

	guardian_stop(&es->guardian);
	guardian_heed();
}

static enum stage_result es_guard(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	es->base.update->progress.connected_ns = clock_now_ns();
	if (!check_threads(STUCK_MS, error) || !memory_need_check(es->memory_bytes, error))
		return STAGE_FAILED;
	return guardian_start(&es->guardian, error) ? STAGE_DONE : STAGE_FAILED;
}

/* ---- stages, guest paused ---- */

static enum stage_result es_store(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	/* In a manager's window others may have taken what there was. */
	if (es->base.update->capabilities.on[MIGRATION_CAP_PAUSE_BEFORE_SWITCHOVER] &&
	    !memory_need_check(es->memory_bytes, error))
		return STAGE_FAILED;

	es->state_fd = state_bytes_seal(es->base.state, "molt-state", error);
	if (es->state_fd < 0)
		return STAGE_FAILED;
	es->sessions_fd = state_bytes_seal(es->base.sessions, "molt-sessions", error);
	if (es->sessions_fd >= 0)
		return STAGE_DONE;
	fd_close(&es->state_fd);
	return STAGE_FAILED;
}

static void es_unstore(void *ctx)
{
	struct exec_source *es = ctx;

	fd_close(&es->state_fd);
	fd_close(&es->sessions_fd);
}

/* What is not UTF-8 is left out: JSON cannot hold it, and a variable more or less is no reason. */
static json_t *strings_json(char *const *strings)
{
	json_t *list = json_array();

	for (; *strings; strings++)
		(void)json_array_append_new(list, json_string(*strings));
	return list;
}

static json_t *pids_json(const GArray *pids)
{
	json_t *list = json_array();

	for (guint i = 0; i < pids->len; i++)
		json_array_append_new(list, json_integer(g_array_index(pids, pid_t, i)));
	return list;
}

/* In a rehearsal it is not made yet. */
static json_t *file_json(const struct exec_source *es)
{
	const struct migration_address *address = es->base.channels.main;

	if (es->file)
		return state_file_describe(es->file);
	return address ? json_pack("{s:s, s:I}", "path", address->path, "offset",
				   (json_int_t)address->offset)
		       : NULL;
}

/* Without a guardian (-1) it is a rehearsal's. */
static json_t *envelope_json(struct exec_source *es, int state_fd, int sessions_fd)
{
	struct update *update = es->base.update;

	return json_pack(
		"{s:o, s:o, s:o, s:I, s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:I, s:o, "
		"s:o, s:s?, s:i, s:o?, s:o}",
		"offer", outgoing_offer(&es->base), "argv", strings_json(update->argv),
		"environment", strings_json(environ), "attempt",
		(json_int_t)outgoing_attempt(&es->base), "state-fd", state_fd, "sessions-fd",
		sessions_fd, "exec-fd", es->exec_fd, "guardian-fd", es->guardian.pipe,
		"guardian-pid", (int)es->guardian.pid, "children", pids_json(update->children),
		"record", update_record_to_json(update->record), "begun-ns",
		(json_int_t)update->progress.begun_ns, "parameters",
		migration_parameters_changed(&update->parameters), "capabilities",
		migration_capabilities_changed(&update->capabilities), "pidfile",
		update->config->pidfile, "file-fd", es->file ? state_file_fd(es->file) : -1, "file",
		file_json(es), "paths", fd_paths_describe(&update->fds));
}

static enum stage_result es_export(void *ctx, GError **error)
{
	struct exec_source *es = ctx;
	struct update *update = es->base.update;
	/* The very descriptors: of two, execve() would close one. */
	autoptr(fdstore) store = fdstore_new_view();

	if (!offer_descriptors(es, store, error))
		return STAGE_FAILED;
	es->envelope = envelope_json(es, es->state_fd, es->sessions_fd);
	if (!envelope_export(es->envelope, store, &es->envelope_fd, error)) {
		g_clear_pointer(&es->envelope, json_decref);
		return STAGE_FAILED;
	}
	es->store = g_steal_pointer(&store);
	es->env = envelope_environ(environ, es->envelope_fd, es->envelope, NULL);
	es->env_died = envelope_environ(environ, es->envelope_fd, es->envelope, PROGRAM_DIED);
	es->env_hung = envelope_environ(environ, es->envelope_fd, es->envelope, PROGRAM_HUNG);
	guardian_arm(&es->guardian, owner_word(update->owner), es->base.attempt, es->exec_fd,
		     update->argv, es->env_died, es->env_hung);
	return STAGE_DONE;
}

static void es_unexport(void *ctx)
{
	struct exec_source *es = ctx;

	if (!es->store)
		return;
	/* Until it has ended: what it may have sent already is not for who goes on. */
	guardian_ignore();
	guardian_disarm(&es->guardian);
	envelope_unexport(es->envelope, es->store, &es->envelope_fd);
	g_clear_pointer(&es->store, fdstore_free);
	g_clear_pointer(&es->envelope, json_decref);
	g_clear_pointer(&es->env, g_strfreev);
	g_clear_pointer(&es->env_died, g_strfreev);
	g_clear_pointer(&es->env_hung, g_strfreev);
}

static enum stage_result es_commit(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	log_flush(LOG_EXEC_MS);
	if (!program_stayed(es, error) || !check_threads(STUCK_LAST_MS, error))
		return STAGE_FAILED;
	execve(es->path, es->argv, es->env);
	error_set_errno(error, errno, "cannot execute '%s'", es->path);
	return STAGE_FAILED;
}

/* clang-format off */
static const struct stage exec_source_stages[] = {
	{ "open",       1000, false, es_open,           es_close },
	{ "disks",      0,    false, source_disks,      source_undrain },
	{ "reopen",     5000, false, es_reopen,         es_unreopen },
	{ "rehearse",   0,    false, es_rehearse,       es_unrehearse },
	{ "way-back",   0,    false, es_rehearse_back,  es_unrehearse },
	{ "file",       5000, false, es_file,           es_discard },
	{ "guardian",   1000, false, es_guard,          es_unguard },
	{ "drain",      0,    false, source_drain,      source_undrain },
	{ "pause",      1000, false, source_pause,      source_unpause },
	{ "switchover", 0,    false, source_switchover, NULL },
	{ "quiesce",    1000, false, source_quiesce,    source_unquiesce },
	{ "save",       1000, false, source_save,       source_unsave },
	{ "store",      5000, false, es_store,          es_unstore },
	{ "export",     1000, false, es_export,         es_unexport },
	{ "commit",     0,    true,  es_commit,         NULL },
};
/* clang-format on */

const struct stage_table exec_source_table = STAGE_TABLE("exec-source", exec_source_stages);

/* ---- the run ---- */

static void es_free(struct outgoing *out)
{
	struct exec_source *es = (struct exec_source *)out;

	es_unrehearse(es);
	es_unreopen(es);
	es_discard(es);
	es_close(es);
	outgoing_clear(out);
	g_free(es->path);
	g_strfreev(es->argv);
	g_free(es);
}

static bool begin(struct update *update, struct migration_channels *channels, unsigned int n_try,
		  GError **error);

/* Whether it failed for want of time, and whoever asked for it wants it tried again. */
static bool wants_another(const struct exec_source *es, const GError *error)
{
	const struct update *update = es->base.update;

	return g_error_matches(error, MOLT_ERROR, MOLT_ERROR_TIMEOUT) && !es->base.cancelled &&
	       !update->ending && es->n_try < migration_parameters_attempts(&update->parameters);
}

static gboolean try_again(void *opaque)
{
	struct update *update = opaque;
	struct next_try next = update->next_try;
	g_autoptr(GError) failure = NULL;

	loop_unwatch(&update->next_try.timer);
	update->next_try = (struct next_try){0};
	if (!update_check_blockers(update, MIGRATION_MODE_CPR_EXEC, &failure) ||
	    !begin(update, &next.channels, next.n, &failure))
		migration_progress_fail(&update->progress, failure->message);
	migration_channels_clear(&next.channels);
	return G_SOURCE_REMOVE;
}

/* What had too little time gets more of it, after 1, 2, 4 s and so on; the VM is free meanwhile. */
static void conclude_this_try(struct exec_source *es, const GError *error)
{
	struct update *update = es->base.update;
	const unsigned int wait_ms = 1000U << MIN(es->n_try - 1, TRY_DOUBLINGS);

	outgoing_conclude(&es->base, error);
	log_warn("try %u of %u: %s; the next follows in %u s", es->n_try,
		 migration_parameters_attempts(&update->parameters), error->message,
		 wait_ms / 1000);
	update->next_try = (struct next_try){.timer = loop_after_ms(wait_ms, try_again, update),
					     .channels = es->base.channels,
					     .n = es->n_try + 1};
	es->base.channels = (struct migration_channels){0};
	es_free(&es->base);
	migration_progress_begin(&update->progress, false);
	update_set_idle(update);
}

bool exec_source_drop_next_try(struct update *update)
{
	const bool waited = update->next_try.timer;

	loop_unwatch(&update->next_try.timer);
	migration_channels_clear(&update->next_try.channels);
	return waited;
}

/* The only way here is a failure: a success is another program. */
static void es_finished(void *ctx, enum stage_outcome outcome, const GError *error)
{
	if (wants_another(ctx, error))
		conclude_this_try(ctx, error);
	else
		outgoing_undone(ctx, error);
}

static bool begin(struct update *update, struct migration_channels *channels, unsigned int n_try,
		  GError **error)
{
	struct exec_source *es = g_new0(struct exec_source, 1);

	es->n_try = n_try;
	es->base.free = es_free;
	es->program_fd = es->exec_fd = es->state_fd = es->sessions_fd = es->envelope_fd = -1;
	es->kit = (struct rehearsal_kit){.state_fd = -1, .sessions_fd = -1, .envelope = -1};
	es->guardian.pipe = -1;
	if (!outgoing_init(&es->base, update, MIGRATION_MODE_CPR_EXEC, &exec_source_table, channels,
			   error)) {
		g_free(es);
		return false;
	}
	es->base.with_sessions = es->base.prove = true;
	es->base.run.finished = es_finished;
	update->record->new_pid = getpid();
	stage_run_start(&es->base.run);
	return true;
}

bool exec_source_start(struct update *update, struct migration_channels *channels, GError **error)
{
	if (!begin(update, channels, 1, error))
		return false;
	/* What went wrong before the first wait is also the command's answer. */
	if (update->progress.status == MIGRATION_FAILED)
		return error_set_generic(error, "%s", update->progress.error_desc);
	return true;
}
