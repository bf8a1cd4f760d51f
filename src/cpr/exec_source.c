// cpr-exec, the side that has the guest: ask the new program, stop, save, become it.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "cpr/guardian.h"
#include "cpr/internal.h"
#include "cpr/probe.h"

#define PROBE_MS 5000

/* What the guardian says when it has to go back. */
#define PROGRAM_DIED "the new program ended before it took the guest"
#define PROGRAM_HUNG "the new program hung before it took the guest, and was killed"

/**
 * struct exec_source - The update, from this side
 * @path, @argv: What to become
 * @file:	Where the state goes beside the memfd, -1 if nowhere
 * @file_made:	It, if it was not there before
 * @exec_fd:	This program's executable, to come back to
 * @probe:	The new program being asked
 * @guardian:	Keeps the old address space, and knows the way back
 * @store:	What crosses
 * @state_fd, @sessions_fd: Sealed memfds with the VM's state, and the process's
 * @envelope, @envelope_fd, @env: For the new program
 * @env_died, @env_hung: For the old one, should the guardian have to go back
 */
struct exec_source {
	struct outgoing base;
	char *path;
	char **argv;
	int file;
	struct file_made file_made;
	int exec_fd;
	struct probe *probe;
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
	if (!es->argv) {
		es->argv = g_new0(char *, 2);
		es->argv[0] = g_strdup(update->argv[0]);
		es->path = own_path(error);
		return es->path;
	}
	es->path = g_find_program_in_path(es->argv[0]);
	if (!es->path)
		return error_set_generic(error, "cpr-exec-command: there is no executable '%s'",
					 es->argv[0]);
	return true;
}

/* ---- stages, guest running ---- */

static void es_close(void *ctx)
{
	struct exec_source *es = ctx;

	file_unmake(&es->file_made);
	fd_close(&es->file);
	fd_close(&es->exec_fd);
}

static bool open_all(struct exec_source *es, GError **error)
{
	const struct migration_address *address = es->base.channels.main;

	if (!find_command(es, error))
		return false;
	es->exec_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (es->exec_fd < 0)
		return error_set_errno(error, errno, "cannot open this program's executable");
	if (address)
		es->file = channel_create_file(address, &es->file_made, error);
	return !address || es->file >= 0;
}

static enum stage_result es_open(void *ctx, GError **error)
{
	if (open_all(ctx, error))
		return STAGE_DONE;
	es_close(ctx);
	return STAGE_FAILED;
}

static void probe_done(void *opaque, const char *build, uint64_t start_ns, const GError *error)
{
	struct exec_source *es = opaque;

	es->base.run.ahead_ns = start_ns;
	es->base.rehearsal_ns += start_ns;
	g_free(es->base.update->record->new_build);
	es->base.update->record->new_build = g_strdup(build);
	stage_run_continue(&es->base.run, error ? g_error_copy(error) : NULL);
}

static enum stage_result es_probe(void *ctx, GError **error)
{
	struct exec_source *es = ctx;
	json_t *offer = outgoing_offer(&es->base);

	es->probe = probe_start(es->path, es->argv, offer, PROBE_MS, probe_done, es, error);
	json_decref(offer);
	return es->probe ? STAGE_PENDING : STAGE_FAILED;
}

static enum stage_result es_rehearse(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	if (!machine_rehearse_build(es->base.update->machine, error))
		return STAGE_FAILED;
	return source_rehearse(ctx, error);
}

static void es_unguard(void *ctx)
{
	struct exec_source *es = ctx;

	guardian_stop(&es->guardian);
}

static enum stage_result es_guard(void *ctx, GError **error)
{
	struct exec_source *es = ctx;

	es->base.update->progress.connected_ns = clock_now_ns();
	return guardian_start(&es->guardian, error) ? STAGE_DONE : STAGE_FAILED;
}

/* ---- stages, guest paused ---- */

static enum stage_result es_store(void *ctx, GError **error)
{
	struct exec_source *es = ctx;
	gsize len;
	const void *data = g_bytes_get_data(es->base.state, &len);

	if (es->file >= 0 && !channel_write(es->file, data, len, 0, error)) {
		g_prefix_error(error, "'%s': ", es->base.channels.main->path);
		return STAGE_FAILED;
	}
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

static json_t *envelope_json(struct exec_source *es)
{
	struct update *update = es->base.update;

	return json_pack("{s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:I, s:o, s:b, s:o, "
			 "s:s?}",
			 "offer", outgoing_offer(&es->base), "argv", strings_json(update->argv),
			 "environment", strings_json(environ), "state-fd", es->state_fd,
			 "sessions-fd", es->sessions_fd, "exec-fd", es->exec_fd, "guardian-fd",
			 es->guardian.pipe, "guardian-pid", (int)es->guardian.pid, "guardians",
			 pids_json(update->guardians), "record",
			 update_record_to_json(update->record), "begun-ns",
			 (json_int_t)update->progress.begun_ns, "parameters",
			 migration_parameters_query(&update->parameters), "downtime-limit-set",
			 update->parameters.limit_set, "capabilities",
			 migration_capabilities_query(&update->capabilities), "pidfile",
			 update->config->pidfile);
}

static enum stage_result es_export(void *ctx, GError **error)
{
	struct exec_source *es = ctx;
	struct update *update = es->base.update;
	autoptr(fdstore) store = fdstore_new();

	if (!fd_source_offer(&update->fds, store, NULL, NULL, error) ||
	    !owner_add_lock(update->owner, store, error))
		return STAGE_FAILED;
	es->envelope = envelope_json(es);
	if (!envelope_export(es->envelope, store, &es->envelope_fd, error)) {
		g_clear_pointer(&es->envelope, json_decref);
		return STAGE_FAILED;
	}
	es->store = g_steal_pointer(&store);
	es->env = envelope_environ(environ, es->envelope_fd, NULL);
	es->env_died = envelope_environ(environ, es->envelope_fd, PROGRAM_DIED);
	es->env_hung = envelope_environ(environ, es->envelope_fd, PROGRAM_HUNG);
	guardian_arm(&es->guardian, es->exec_fd, update->argv, es->env_died, es->env_hung);
	return STAGE_DONE;
}

static void es_unexport(void *ctx)
{
	struct exec_source *es = ctx;

	if (!es->store)
		return;
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
	execve(es->path, es->argv, es->env);
	error_set_errno(error, errno, "cannot execute '%s'", es->path);
	return STAGE_FAILED;
}

/* clang-format off */
static const struct stage exec_source_stages[] = {
	{ "open",       1000,            false, es_open,           es_close },
	{ "probe",      PROBE_MS + 1000, false, es_probe,          NULL },
	{ "rehearse",   5000,            false, es_rehearse,       NULL },
	{ "guardian",   1000,            false, es_guard,          es_unguard },
	{ "pause",      1000,            false, source_pause,      source_unpause },
	{ "switchover", 0,               false, source_switchover, NULL },
	{ "quiesce",    6000,            false, source_quiesce,    source_unquiesce },
	{ "save",       1000,            false, source_save,       source_unsave },
	{ "store",      5000,            false, es_store,          es_unstore },
	{ "export",     1000,            false, es_export,         es_unexport },
	{ "commit",     0,               true,  es_commit,         NULL },
};
/* clang-format on */

const struct stage_table exec_source_table = STAGE_TABLE("exec-source", exec_source_stages);

/* ---- the run ---- */

static void es_free(struct outgoing *out)
{
	struct exec_source *es = (struct exec_source *)out;

	probe_free(es->probe);
	fd_close(&es->file);
	fd_close(&es->exec_fd);
	outgoing_clear(out);
	g_free(es->path);
	g_strfreev(es->argv);
	g_free(es);
}

/* The only way here is a failure: a success is another program. */
static void es_finished(void *ctx, enum stage_outcome outcome, const GError *error)
{
	outgoing_undone(ctx, error);
}

bool exec_source_start(struct update *update, struct migration_channels *channels, GError **error)
{
	struct exec_source *es = g_new0(struct exec_source, 1);

	es->base.free = es_free;
	es->file = es->exec_fd = es->state_fd = es->sessions_fd = es->envelope_fd = -1;
	es->guardian.pipe = -1;
	if (!outgoing_init(&es->base, update, &exec_source_table, channels, error)) {
		g_free(es);
		return false;
	}
	es->base.with_sessions = true;
	es->base.run.finished = es_finished;
	update->record->new_pid = getpid();
	stage_run_start(&es->base.run);
	/* What went wrong before the first wait is also the command's answer. */
	if (update->progress.status == MIGRATION_FAILED)
		return error_set_generic(error, "%s", update->progress.error_desc);
	return true;
}
