// Tests of the store over a real fork and exec; this program is its own successor.
// SPDX-License-Identifier: Apache-2.0
#include "state/fdstore.h"

#include <stdio.h>
#include <sys/wait.h>

#include "fd_util.h"
#include "state/fdstore_priv.h"
#include "state/section.h"

#define N_EVENTS 300

/* ---- the successor ---- */

static int child_fail(const char *what, const GError *error)
{
	fprintf(stderr, "successor: %s: %s\n", what, error ? error->message : "failed");
	return 1;
}

/* How many descriptors above the standard ones are open and would survive another exec. */
static unsigned int count_inheritable(void)
{
	unsigned int n = 0;

	for (int fd = 3; fd < 4096; fd++) {
		int flags = fcntl(fd, F_GETFD);

		if (flags >= 0 && !(flags & FD_CLOEXEC))
			n++;
	}
	return n;
}

/**
 * child_main() - Import by the manifest in descriptor @manifest_fd, do @mode, exit
 *
 * Modes: "take" takes everything and answers on the stream; "again" takes everything, exports and
 * becomes a third process in mode "take"; "refuse" expects the import to fail.
 */
static int child_main(const char *mode, int manifest_fd)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(GBytes) bytes = state_bytes_map(manifest_fd, &error);
	autoptr(fdstore) store = NULL;
	unsigned int inheritable;
	int stream;

	if (!bytes)
		return child_fail("map", error);
	fd_set_cloexec(manifest_fd, true);
	inheritable = count_inheritable();
	store = fdstore_import_exec(bytes, &error);
	if (g_str_equal(mode, "refuse")) {
		if (store || count_inheritable() != inheritable)
			return child_fail("imported, or descriptors are gone", NULL);
		return 0;
	}
	if (!store)
		return child_fail("import", error);
	if (inheritable != N_EVENTS + 2 || count_inheritable() != 0)
		return child_fail("close-on-exec", NULL);
	for (int i = 0; i < N_EVENTS; i++) {
		g_autofree char *name = g_strdup_printf("event/%d", i);
		autofd int fd = fdstore_take(store, name, FD_EVENT, &error);

		if (fd < 0 || fdstore_take(store, name, FD_EVENT, NULL) >= 0)
			return child_fail("take", error);
	}
	close(fdstore_take(store, "ram", FD_RAM, &error));
	stream = fdstore_take(store, "stream", FD_STREAM, &error);
	if (stream < 0 || !fdstore_finish(store, NULL, NULL, &error))
		return child_fail("take", error);
	if (g_str_equal(mode, "again")) {
		g_autoptr(GBytes) next = fdstore_export_exec(store, &error);
		int next_fd = next ? state_bytes_seal(next, "manifest", &error) : -1;
		g_autofree char *number = g_strdup_printf("%d", next_fd);

		if (next_fd < 0)
			return child_fail("export", error);
		fd_set_cloexec(next_fd, false);
		execl("/proc/self/exe", "fdstore_exec_test", "--child", "take", number, NULL);
		return child_fail("exec", NULL);
	}
	return write(stream, "alive", 5) == 5 ? 0 : child_fail("write", NULL);
}

/* ---- the predecessor ---- */

static int run_child(const char *mode, int manifest_fd)
{
	g_autofree char *number = g_strdup_printf("%d", manifest_fd);
	pid_t pid = fork();
	int status;

	g_assert_cmpint(pid, >=, 0);
	if (pid == 0) {
		fd_set_cloexec(manifest_fd, false);
		execl("/proc/self/exe", "fdstore_exec_test", "--child", mode, number, NULL);
		_exit(99);
	}
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static struct fdstore *fill(int *peer)
{
	struct fdstore *store = fdstore_new();
	autofd int ram = test_memfd("ram");
	int pair[2];

	for (int i = 0; i < N_EVENTS; i++) {
		g_autofree char *name = g_strdup_printf("event/%d", i);
		autofd int fd = eventfd(0, EFD_CLOEXEC);

		g_assert_true(fdstore_add(store, name, FD_EVENT, fd, NULL));
	}
	g_assert_true(fdstore_add(store, "ram", FD_RAM, ram, NULL));
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
	g_assert_true(fdstore_add(store, "stream", FD_STREAM, pair[0], NULL));
	close(pair[0]);
	*peer = pair[1];
	return store;
}

static void cross(const char *mode)
{
	unsigned int before = test_count_fds();
	unsigned int inheritable = count_inheritable();
	g_autoptr(GError) error = NULL;
	g_autoptr(GBytes) manifest = NULL;
	struct fdstore *store;
	char answer[5];
	int manifest_fd, peer;

	store = fill(&peer);
	manifest = fdstore_export_exec(store, &error);
	g_assert_no_error(error);
	g_assert_cmpuint(count_inheritable(), ==, inheritable + N_EVENTS + 2);
	manifest_fd = state_bytes_seal(manifest, "manifest", &error);
	g_assert_no_error(error);
	g_assert_cmpint(run_child(mode, manifest_fd), ==, 0);
	fdstore_unexport_exec(store);
	g_assert_cmpuint(count_inheritable(), ==, inheritable);
	g_assert_true(fd_read_all(peer, answer, sizeof(answer), clock_deadline_ms(10000), &error));
	g_assert_cmpmem(answer, 5, "alive", 5);
	fdstore_free(store);
	close(manifest_fd);
	close(peer);
	g_assert_cmpuint(test_count_fds(), ==, before);
}

static void test_cross(void)
{
	cross("take");
}

/* A successor that took everything can still hand everything on, or back. */
static void test_cross_twice(void)
{
	cross("again");
}

/* The exec failed: nothing of the store may leak into later children. */
static void test_unexported_does_not_cross(void)
{
	g_autoptr(GBytes) manifest = NULL;
	autoptr(fdstore) store = NULL;
	autofd int peer = -1;
	autofd int manifest_fd = -1;

	store = fill(&peer);
	manifest = fdstore_export_exec(store, NULL);
	fdstore_unexport_exec(store);
	manifest_fd = state_bytes_seal(manifest, "manifest", NULL);
	g_assert_cmpint(run_child("refuse", manifest_fd), ==, 0);
}

/* The predecessor's number holds another file by the time it arrives. */
static void test_mismatch_is_refused(void)
{
	g_autoptr(GBytes) manifest = NULL;
	autoptr(fdstore) store = NULL;
	autofd int peer = -1;
	autofd int manifest_fd = -1;
	autofd int other = test_memfd("other");

	store = fill(&peer);
	manifest = fdstore_export_exec(store, NULL);
	manifest_fd = state_bytes_seal(manifest, "manifest", NULL);
	g_assert_cmpint(dup2(other, fdstore_find(store, "ram")->fd), >=, 0);
	g_assert_cmpint(run_child("refuse", manifest_fd), ==, 0);
}

/* ---- manifests nobody should believe ---- */

static GBytes *manifest_of(const struct fd_manifest *manifest)
{
	autoptr(state_writer) writer = state_writer_begin("test");

	g_assert_true(
		state_writer_add(writer, "fd-manifest", 0, &fd_manifest_desc, manifest, NULL));
	return state_writer_finish(writer, NULL);
}

static void assert_import_fails(const struct fd_manifest *manifest, const char *expected)
{
	g_autoptr(GBytes) bytes = manifest_of(manifest);
	unsigned int before = test_count_fds();
	unsigned int inheritable = count_inheritable();
	g_autoptr(GError) error = NULL;

	g_assert_null(fdstore_import_exec(bytes, &error));
	test_assert_message(&error, expected);
	g_assert_cmpuint(test_count_fds(), ==, before);
	g_assert_cmpuint(count_inheritable(), ==, inheritable);
}

static void test_bad_manifests(void)
{
	g_autofree struct fd_manifest *manifest = g_new0(struct fd_manifest, 1);
	struct fd_record *record = &manifest->records[0];
	g_autoptr(GBytes) junk = g_bytes_new_static("junk", 4);
	g_autoptr(GError) error = NULL;
	autofd int inherited = test_memfd("inherited");
	autofd int own = test_memfd("own");

	fd_kind_prepare(FD_RAM, inherited);
	fd_set_cloexec(inherited, false);
	g_assert_null(fdstore_import_exec(junk, &error));
	test_assert_message(&error, "descriptors: the state stream is cut short");

	manifest->n_records = 1;
	memcpy(record->name, "x", 2);
	record->kind = FD_RAM;
	g_assert_true(fd_identity_read(inherited, &record->identity, NULL));
	record->number = 2;
	assert_import_fails(manifest, "number 2 is out of range");
	record->number = 0x80000000U;
	assert_import_fails(manifest, "number 2147483648 is out of range");
	record->number = 1000000;
	assert_import_fails(manifest, "number 1000000 did not come over");
	record->number = own;
	assert_import_fails(manifest, "is not inherited, but this process's own");
	record->number = inherited;
	record->kind = 77;
	assert_import_fails(manifest, "records[0]: kind 77 of descriptor is unknown");
	record->kind = FD_LISTEN;
	assert_import_fails(manifest, "descriptor x: needs a listening socket");
	record->kind = FD_RAM;
	memset(record->name, 'x', sizeof(record->name));
	assert_import_fails(manifest, "records[0]: name is not terminated");
	memset(record->name, 0, sizeof(record->name));
	assert_import_fails(manifest, "'' cannot name a descriptor");
	memcpy(record->name, "x", 2);
	record->identity.ino++;
	assert_import_fails(manifest, "it is another file");
	record->identity.ino--;
	manifest->records[1] = manifest->records[0];
	memcpy(manifest->records[1].name, "y", 2);
	manifest->n_records = 2;
	assert_import_fails(manifest, "has two names");
}

int main(int argc, char **argv)
{
	if (argc == 4 && g_str_equal(argv[1], "--child"))
		return child_main(argv[2], atoi(argv[3]));
	/* What the test's runner left open is not for the successor. */
	for (int fd = 3; fd < 4096; fd++)
		(void)fd_set_cloexec(fd, true);
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/fdstore-exec/cross", test_cross);
	g_test_add_func("/state/fdstore-exec/cross-twice", test_cross_twice);
	g_test_add_func("/state/fdstore-exec/unexported", test_unexported_does_not_cross);
	g_test_add_func("/state/fdstore-exec/mismatch", test_mismatch_is_refused);
	g_test_add_func("/state/fdstore-exec/bad-manifests", test_bad_manifests);
	return g_test_run();
}
