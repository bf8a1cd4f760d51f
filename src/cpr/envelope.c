// The envelope: what a process leaves for the program that execve() makes of it.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/envelope.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "cpr/crash.h"
#include "cpr/guardian.h"
#include "cpr/probe.h"
#include "state/section.h"

#define ENVELOPE_PROTOCOL 4

#define NONCE_CHARS 32

/* Members that are numbers of descriptors outside the store. */
static const char *const fd_members[] = {"state-fd", "sessions-fd", "exec-fd", "file-fd",
					 "guardian-fd"};

bool envelope_found(void)
{
	return probe_active() || secure_getenv(ENVELOPE_ENV);
}

void envelope_clean_environ(void)
{
	g_unsetenv(ENVELOPE_ROLLBACK_ENV);
	g_unsetenv(ENVELOPE_SEIZED_ENV);
}

bool envelope_check_privileges(GError **error)
{
	static const char *const names[] = {PROBE_ENV, ENVELOPE_ENV};

	for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
		if (getenv(names[i]) && !secure_getenv(names[i]))
			return error_set_generic(error,
						 "%s is set, but a program with raised privileges "
						 "(set-user-ID, file capabilities) cannot take a "
						 "guest over by exec",
						 names[i]);
	return true;
}

void envelope_free(struct envelope *envelope)
{
	if (!envelope)
		return;
	offer_free(envelope->offer);
	g_clear_pointer(&envelope->manifest, g_bytes_unref);
	json_decref(envelope->json);
	fd_close(&envelope->state_fd);
	fd_close(&envelope->sessions_fd);
	fd_close(&envelope->guardian_fd);
	fd_close(&envelope->fd);
	/* Files, whose stores may hang. */
	g_array_append_val(envelope->leftovers, envelope->exec_fd);
	g_array_append_val(envelope->leftovers, envelope->file_fd);
	close_later(envelope->leftovers);
	g_array_unref(envelope->leftovers);
	g_free(envelope);
}

/* ---- reading ---- */

/* Take over an inherited number.  Return: -1 with @error set if it is not one. */
static int claim_number(const json_t *value, const char *member, GError **error)
{
	json_int_t number = json_integer_value(value);
	int flags = number > STDERR_FILENO && number <= INT_MAX ? fcntl(number, F_GETFD) : -1;

	if (flags < 0 || (flags & FD_CLOEXEC)) {
		error_set_generic(error,
				  "%s: descriptor %" JSON_INTEGER_FORMAT " did not come over",
				  member, number);
		return -1;
	}
	(void)fd_set_cloexec(number, true);
	return number;
}

static int claim_fd(const json_t *json, const char *member, GError **error)
{
	return claim_number(json_object_get(json, member), member, error);
}

/* One that a thread closed after it was listed, or whose number is another's now, needs no closing. */
static void claim_leftovers(struct envelope *envelope)
{
	const json_t *value;
	size_t i;

	json_array_foreach(json_object_get(envelope->json, "leftovers"), i, value)
	{
		int fd = claim_number(value, "leftovers", NULL);

		if (fd >= 0)
			g_array_append_val(envelope->leftovers, fd);
	}
}

/*
 * The number that the environment names, and the nonce that proves it.
 * Return: -1 with @error set; without a valid one this process must not start, for somebody may count
 * on it to take a guest over.
 */
static int named_by_environment(char **nonce, GError **error)
{
	const char *text = secure_getenv(ENVELOPE_ENV);
	const size_t digits = text ? strspn(text, "0123456789") : 0;
	int fd = -1;

	if (digits > 0 && digits <= 9 && text[digits] == ':') {
		fd = atoi(text);
		*nonce = g_strdup(text + digits + 1);
	}
	g_unsetenv(ENVELOPE_ENV);
	if (fd > STDERR_FILENO)
		return fd;
	error_set_generic(error, ENVELOPE_ENV " names no envelope; unset it");
	return -1;
}

static bool check_nonce(const json_t *json, const char *nonce, GError **error)
{
	const char *own = json_string_value(json_object_get(json, "nonce"));

	return (own && strlen(own) == NONCE_CHARS && g_strcmp0(own, nonce) == 0) ||
	       error_set_generic(error, ENVELOPE_ENV " names another envelope; unset it");
}

static json_t *parse_object(GBytes *bytes, GError **error)
{
	gsize len;
	const char *data = g_bytes_get_data(bytes, &len);
	json_error_t why;
	json_t *json = json_loadb(data, len, JSON_REJECT_DUPLICATES, &why);

	if (json_is_object(json))
		return json;
	error_set_generic(error, ENVELOPE_ENV ": not a JSON object");
	json_decref(json);
	return NULL;
}

static json_t *read_json(int *envelope_fd, GError **error)
{
	g_autofree char *nonce = NULL;
	g_autoptr(GBytes) bytes = NULL;
	autofd int fd = -1;
	json_t *json;

	fd = probe_active() ? probe_envelope() : named_by_environment(&nonce, error);
	if (fd < 0)
		return NULL;
	(void)fd_set_cloexec(fd, true);
	bytes = state_bytes_map(fd, error);
	if (!bytes) {
		g_prefix_error(error, ENVELOPE_ENV ": ");
		return NULL;
	}
	json = parse_object(bytes, error);
	if (!json)
		return NULL;
	if (!probe_active() && !check_nonce(json, nonce, error)) {
		json_decref(json);
		return NULL;
	}
	*envelope_fd = fd_steal(&fd);
	return json;
}

/* The reason of one who could not write it into the envelope. */
static void take_reason(json_t *json)
{
	const char *reason = secure_getenv(ENVELOPE_ROLLBACK_ENV);
	uint64_t attempt = json_integer_value(json_object_get(json, "attempt"));

	if (reason)
		json_object_set_new(json, "rollback", json_string(reason));
	if (secure_getenv(ENVELOPE_SEIZED_ENV))
		json_object_set_new(json, "attempt", json_integer(guardian_claim(attempt)));
	envelope_clean_environ();
}

static GBytes *read_manifest(const json_t *json, GError **error)
{
	const char *text = json_string_value(json_object_get(json, "fds"));
	guchar *data;
	gsize len;

	if (!text) {
		error_set_generic(error, "the envelope has no manifest of descriptors");
		return NULL;
	}
	data = g_base64_decode(text, &len);
	return g_bytes_new_take(data, len);
}

static bool envelope_fill(struct envelope *envelope, GError **error)
{
	const json_t *json = envelope->json;

	/* First, so that they are closed with the envelope whatever else is wrong. */
	envelope->state_fd = claim_fd(json, "state-fd", error);
	if (envelope->state_fd < 0)
		return false;
	envelope->sessions_fd = claim_fd(json, "sessions-fd", error);
	if (envelope->sessions_fd < 0)
		return false;
	envelope->exec_fd = claim_fd(json, "exec-fd", error);
	if (envelope->exec_fd < 0)
		return false;
	if (json_integer_value(json_object_get(json, "file-fd")) >= 0) {
		envelope->file_fd = claim_fd(json, "file-fd", error);
		if (envelope->file_fd < 0)
			return false;
	}
	if (!probe_active()) {
		envelope->guardian_fd = claim_fd(json, "guardian-fd", error);
		if (envelope->guardian_fd < 0)
			return false;
	}
	claim_leftovers(envelope);
	envelope->guardian_pid = json_integer_value(json_object_get(json, "guardian-pid")) &
				 INT32_MAX;
	envelope->begun_ns = json_integer_value(json_object_get(json, "begun-ns"));
	envelope->attempt = json_integer_value(json_object_get(json, "attempt"));
	envelope->rollback = json_string_value(json_object_get(json, "rollback"));
	envelope->manifest = read_manifest(json, error);
	if (!envelope->manifest)
		return false;
	if (json_integer_value(json_object_get(json, "protocol")) != ENVELOPE_PROTOCOL)
		return error_set_generic(error, "the envelope is of another protocol");
	if (!json_is_array(json_object_get(json, "argv")) ||
	    !json_is_array(json_object_get(json, "environment")))
		return error_set_generic(error, "the envelope has no argv or environment");
	envelope->offer = offer_from_json(json_object_get(json, "offer"), error);
	return envelope->offer;
}

struct envelope *envelope_read(GError **error)
{
	autoptr(envelope) envelope = g_new0(struct envelope, 1);

	envelope->fd = envelope->state_fd = envelope->sessions_fd = -1;
	envelope->exec_fd = envelope->file_fd = envelope->guardian_fd = -1;
	envelope->leftovers = g_array_new(FALSE, FALSE, sizeof(int));
	envelope->json = read_json(&envelope->fd, error);
	if (!envelope->json)
		return NULL;
	take_reason(envelope->json);
	if (!envelope_fill(envelope, error))
		return NULL;
	return g_steal_pointer(&envelope);
}

/* ---- writing ---- */

static void arm(const json_t *json, bool cloexec)
{
	for (size_t i = 0; i < G_N_ELEMENTS(fd_members); i++)
		(void)fd_set_cloexec(json_integer_value(json_object_get(json, fd_members[i])),
				     cloexec);
}

static void arm_leftovers(const json_t *json, bool cloexec)
{
	const json_t *value;
	size_t i;

	json_array_foreach(json_object_get(json, "leftovers"), i, value)
	{
		(void)fd_set_cloexec(json_integer_value(value), cloexec);
	}
}

/*
 * execve() closes what is close-on-exec, and waits for the store of each file: list those.  Other threads
 * may open and close files meanwhile, and without /proc there is no list: then execve() may wait.
 */
static void list_leftovers(json_t *json)
{
	DIR *dir = opendir("/proc/self/fd");
	json_t *list = json_array();
	const struct dirent *entry;

	json_object_set_new(json, "leftovers", list);
	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name), flags;

		if (fd <= STDERR_FILENO)
			continue;
		flags = fcntl(fd, F_GETFD);
		if (flags >= 0 && (flags & FD_CLOEXEC) && fd_has_store(fd))
			json_array_append_new(list, json_integer(fd));
	}
	closedir(dir);
}

/* Unguessable, and never the same twice. */
static bool set_nonce(json_t *json, GError **error)
{
	uint8_t bytes[NONCE_CHARS / 2];
	char text[NONCE_CHARS + 1];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return error_set_errno(error, errno, "no random numbers");
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	json_object_set_new(json, "nonce", json_string(text));
	return true;
}

static int seal_json(json_t *json, GError **error)
{
	char *text = set_nonce(json, error) ? json_dumps(json, JSON_COMPACT) : NULL;
	g_autoptr(GBytes) bytes = NULL;

	if (!text) {
		if (error && !*error)
			error_set_generic(error, "cannot write the envelope");
		return -1;
	}
	bytes = g_bytes_new_with_free_func(text, strlen(text), free, text);
	return state_bytes_seal(bytes, "molt-envelope", error);
}

/* All but the store: the members' descriptors, files that nobody needs any more, and the envelope itself. */
static int export_members(json_t *json, GError **error)
{
	int fd = -1;

	arm(json, false);
	list_leftovers(json);
	fd = seal_json(json, error);
	if (fd < 0) {
		arm(json, true);
		return -1;
	}
	arm_leftovers(json, false);
	(void)fd_set_cloexec(fd, false);
	return fd;
}

char **envelope_environ(char *const *env, int fd, const json_t *json, const char *reason)
{
	const char *nonce = json_string_value(json_object_get(json, "nonce"));
	g_autofree char *name = g_strdup_printf("%d:%s", fd, nonce);
	char **copy = g_environ_setenv(g_strdupv((char **)env), ENVELOPE_ENV, name, TRUE);

	if (!reason)
		return copy;
	copy = g_environ_setenv(copy, ENVELOPE_SEIZED_ENV, "1", TRUE);
	return g_environ_setenv(copy, ENVELOPE_ROLLBACK_ENV, reason, TRUE);
}

static void set_manifest(json_t *json, GBytes *manifest)
{
	g_autofree char *text =
		g_base64_encode(g_bytes_get_data(manifest, NULL), g_bytes_get_size(manifest));

	json_object_set_new(json, "protocol", json_integer(ENVELOPE_PROTOCOL));
	json_object_set_new(json, "fds", json_string(text));
}

/* Every number that a program needs to go on with @json. */
static void list_fds(const json_t *json, const struct fdstore *store, int envelope_fd, GArray *fds)
{
	const struct fdstore_entry *entry;
	const json_t *value;
	size_t i;

	g_array_append_val(fds, envelope_fd);
	for (i = 0; i < G_N_ELEMENTS(fd_members); i++) {
		int fd = json_integer_value(json_object_get(json, fd_members[i]));

		if (fd >= 0)
			g_array_append_val(fds, fd);
	}
	json_array_foreach(json_object_get(json, "leftovers"), i, value)
	{
		int fd = json_integer_value(value);

		g_array_append_val(fds, fd);
	}
	for (size_t pos = 0; (entry = fdstore_iter(store, &pos));)
		g_array_append_val(fds, entry->fd);
}

int envelope_describe(json_t *json, const struct fdstore *store, GArray *fds, GError **error)
{
	g_autoptr(GBytes) manifest = fdstore_describe_exec(store, error);
	int fd;

	if (!manifest)
		return -1;
	set_manifest(json, manifest);
	fd = seal_json(json, error);
	if (fd >= 0)
		list_fds(json, store, fd, fds);
	return fd;
}

bool envelope_export(json_t *json, struct fdstore *store, int *fd, GError **error)
{
	g_autoptr(GBytes) manifest = fdstore_export_exec(store, error);

	if (!manifest)
		return false;
	set_manifest(json, manifest);
	*fd = export_members(json, error);
	if (*fd < 0)
		fdstore_unexport_exec(store);
	return *fd >= 0;
}

void envelope_unexport(json_t *json, struct fdstore *store, int *fd)
{
	arm(json, true);
	arm_leftovers(json, true);
	fdstore_unexport_exec(store);
	fd_close(fd);
}

static char **strings_of(const json_t *list)
{
	char **strings = g_new0(char *, json_array_size(list) + 1);
	const json_t *text;
	size_t i;

	json_array_foreach(list, i, text)
		strings[i] = g_strdup(json_is_string(text) ? json_string_value(text) : "");
	return strings;
}

static char **argv_of(const json_t *list)
{
	static const char *const nameless[] = {"molt", NULL};

	return json_array_size(list) > 0 ? strings_of(list) : g_strdupv((char **)nameless);
}

void envelope_arm_crash(const struct envelope *envelope, const struct fdstore *store)
{
	GArray *fds = g_array_new(FALSE, FALSE, sizeof(int));
	g_auto(GStrv) env = strings_of(json_object_get(envelope->json, "environment"));

	list_fds(envelope->json, store, envelope->fd, fds);
	crash_arm(envelope->exec_fd, argv_of(json_object_get(envelope->json, "argv")),
		  envelope_environ(env, envelope->fd, envelope->json, NULL), fds);
}

bool envelope_exec_back(struct envelope *envelope, struct fdstore *store, const json_t *record,
			const char *reason, GError **error)
{
	g_auto(GStrv) argv = argv_of(json_object_get(envelope->json, "argv"));
	g_auto(GStrv) plain = strings_of(json_object_get(envelope->json, "environment"));
	g_auto(GStrv) env = NULL;
	int fd = -1, saved;

	if (probe_active())
		probe_refuse(reason);
	if (envelope->rollback)
		return error_set_generic(error, "%s; that came after a return from: %s", reason,
					 envelope->rollback);
	json_object_set_new(envelope->json, "rollback", json_string(reason));
	if (record)
		json_object_set_new(envelope->json, "record", json_deep_copy(record));
	if (store && !envelope_export(envelope->json, store, &fd, error))
		return false;
	if (!store) {
		fd = export_members(envelope->json, error);
		if (fd < 0)
			return false;
	}
	env = envelope_environ(plain, fd, envelope->json, NULL);
	log_flush(LOG_EXEC_MS);
	guardian_ignore();
	execveat(envelope->exec_fd, "", argv, env, AT_EMPTY_PATH);
	saved = errno;
	guardian_heed();
	fd_close(&fd);
	return error_set_errno(error, saved, "cannot return to the old program");
}
