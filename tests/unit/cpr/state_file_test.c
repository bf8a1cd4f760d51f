// The state file: made and given room, then written; undone without a trace; refused before anything stops.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <glib/gstdio.h>

#include "base/fd.h"
#include "base/signals.h"
#include "cpr/state_file.h"

struct fixture {
	char *dir;
	char *path;
};

static unsigned int n_done;
static char *failure;

static void on_done(void *opaque, const GError *error)
{
	g_clear_pointer(&failure, g_free);
	failure = error ? g_strdup(error->message) : NULL;
	n_done++;
}

static void wait_done(unsigned int n)
{
	while (n_done < n)
		g_main_context_iteration(NULL, TRUE);
}

static void setup(struct fixture *f, const void *data)
{
	f->dir = g_dir_make_tmp("molt-test-XXXXXX", NULL);
	f->path = g_build_filename(f->dir, "state", NULL);
	n_done = 0;
}

static void teardown(struct fixture *f, const void *data)
{
	g_unlink(f->path);
	g_rmdir(f->dir);
	g_free(f->path);
	g_free(f->dir);
}

static struct state_file *reserve(const char *path, uint64_t offset, uint64_t size_bytes)
{
	struct migration_address address = {
		.transport = MIGRATION_FILE, .path = (char *)path, .offset = offset};
	struct state_file *file = state_file_reserve(&address, size_bytes, on_done, NULL, NULL);

	g_assert_nonnull(file);
	wait_done(1);
	return file;
}

/* Until a discard, which tells nobody, has done its work. */
static void wait_gone(const char *path)
{
	while (access(path, F_OK) == 0)
		g_main_context_iteration(NULL, FALSE);
}

static void test_written(struct fixture *f, const void *data)
{
	struct state_file *file = reserve(f->path, 512, 65536);
	g_autoptr(GBytes) state = g_bytes_new_static("state", 5);
	json_t *json = state_file_describe(file);
	g_autofree char *text = NULL;
	struct state_file *heir;
	struct stat st;
	gsize len;

	g_assert_null(failure);
	g_assert_cmpint(stat(f->path, &st), ==, 0);
	g_assert_cmpint(st.st_mode & 0777, ==, 0600);
	g_assert_cmpint(st.st_size, ==, 512 + 65536);
	heir = state_file_inherit(json, state_file_fd(file));
	state_file_write(heir, state, on_done, NULL);
	wait_done(2);
	g_assert_null(failure);
	g_assert_true(g_file_get_contents(f->path, &text, &len, NULL));
	g_assert_cmpuint(len, ==, 512 + 5);
	g_assert_cmpmem(text + 512, 5, "state", 5);
	state_file_discard(file);
	wait_gone(f->path);
	json_decref(json);
}

static void test_discarded(struct fixture *f, const void *data)
{
	struct state_file *file;
	struct migration_address address = {.transport = MIGRATION_FILE, .path = f->path};
	g_autofree char *text = NULL;

	/* Before it was reserved, too. */
	file = state_file_reserve(&address, 65536, on_done, NULL, NULL);
	state_file_discard(file);
	while (g_main_context_iteration(NULL, FALSE) || access(f->path, F_OK) == 0)
		;
	g_assert_cmpuint(n_done, ==, 0);
	/* What was there has its content again. */
	g_assert_true(g_file_set_contents(f->path, "mine", 4, NULL));
	file = reserve(f->path, 0, 65536);
	state_file_discard(file);
	do {
		g_main_context_iteration(NULL, FALSE);
		g_clear_pointer(&text, g_free);
		g_assert_true(g_file_get_contents(f->path, &text, NULL, NULL));
	} while (strlen(text) != 4);
	g_assert_cmpstr(text, ==, "mine");
}

static void refused(const char *path, const char *words)
{
	struct state_file *file = reserve(path, 0, 65536);

	g_assert_nonnull(failure);
	if (!strstr(failure, words))
		g_error("'%s' does not say '%s'", failure, words);
	state_file_discard(file);
	n_done = 0;
}

static void test_refused(struct fixture *f, const void *data)
{
	const struct rlimit small = {1024, RLIM_INFINITY};
	struct rlimit before;

	refused("/does/not/exist", "No such file");
	g_assert_cmpint(mkfifo(f->path, 0600), ==, 0);
	refused(f->path, "not a regular file");
	g_unlink(f->path);
	signals_hold();
	getrlimit(RLIMIT_FSIZE, &before);
	setrlimit(RLIMIT_FSIZE, &small);
	refused(f->path, "File too large");
	setrlimit(RLIMIT_FSIZE, &before);
	wait_gone(f->path);
}

#define ADD(name, fn) g_test_add(name, struct fixture, NULL, setup, fn, teardown)

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	ADD("/state-file/written", test_written);
	ADD("/state-file/discarded", test_discarded);
	ADD("/state-file/refused", test_refused);
	return g_test_run();
}
