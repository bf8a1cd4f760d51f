// Paths in use are claimed by a successor, refused if they are a stranger's, taken in one step, and left
// as they are when nothing comes of it.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "state/fd_paths.h"

/* One process's: a listening socket and a file. */
struct side {
	struct fd_source src;
	struct file_made socket_made, file_made;
	int socket, file;
	bool claimed;
};

static char *dir;

static char *path_of(const char *name)
{
	return g_build_filename(dir, name, NULL);
}

static void side_socket(struct side *side, const char *name, bool replace)
{
	g_autofree char *path = path_of(name);
	g_autoptr(GError) error = NULL;

	side->socket = fd_path_make_socket(&side->src, path, replace, &side->socket_made,
					   &side->claimed, &error);
	g_assert_no_error(error);
	g_assert_cmpint(listen(side->socket, 1), ==, 0);
}

static void side_end(struct side *side)
{
	fd_path_forget(&side->src, &side->socket_made);
	fd_path_forget(&side->src, &side->file_made);
	file_unmake(&side->socket_made);
	file_unmake(&side->file_made);
	fd_close(&side->socket);
	fd_close(&side->file);
	fd_source_clear(&side->src);
}

/* Who answers at the path: the number of the listener whose queue a connection lands in; 0: nobody. */
static int answers(const char *name, const struct side *a, const struct side *b)
{
	g_autofree char *path = path_of(name);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	autofd int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	autofd int at_a = -1, at_b = -1;

	g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return 0;
	at_a = accept4(a->socket, NULL, NULL, SOCK_NONBLOCK);
	at_b = accept4(b->socket, NULL, NULL, SOCK_NONBLOCK);
	return at_a >= 0 ? 1 : at_b >= 0 ? 2 : 0;
}

/* Nothing is left in the directory but @names. */
static void assert_files(const char *const *names)
{
	g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
	unsigned int n = 0;

	for (const char *name = g_dir_read_name(d); name; name = g_dir_read_name(d), n++)
		g_assert_true(g_strv_contains(names, name));
	g_assert_cmpuint(n, ==, g_strv_length((char **)names));
}

static void test_taken(void)
{
	struct side old = {.file = -1}, new = {.src.claiming = true, .file = -1};
	json_t *theirs;

	side_socket(&old, "s", false);
	g_assert_false(old.claimed);
	side_socket(&new, "s", false);
	g_assert_true(new.claimed);
	g_assert_cmpint(answers("s", &old, &new), ==, 1);
	theirs = fd_paths_json(&old.src);
	g_assert_cmpuint(json_array_size(theirs), ==, 1);
	g_assert_true(fd_paths_check(&new.src, theirs, NULL));
	json_decref(theirs);

	fd_paths_take(&new.src);
	g_assert_cmpint(answers("s", &old, &new), ==, 2);
	/* The predecessor's end leaves the path; the successor's does not. */
	side_end(&old);
	g_assert_cmpint(answers("s", &new, &new), ==, 1);
	assert_files((const char *const[]){"s", NULL});
	theirs = fd_paths_json(&new.src);
	g_assert_cmpuint(json_array_size(theirs), ==, 1);
	json_decref(theirs);
	side_end(&new);
	assert_files((const char *const[]){NULL});
}

static void test_given_up(void)
{
	struct side old = {.file = -1}, new = {.src.claiming = true, .file = -1};

	side_socket(&old, "s", false);
	/* reopen-on-cpr takes a path from its own process, not from one that lives. */
	side_socket(&new, "s", true);
	g_assert_true(new.claimed);
	side_end(&new);
	g_assert_cmpint(answers("s", &old, &old), ==, 1);
	assert_files((const char *const[]){"s", NULL});
	side_end(&old);
}

/* The predecessor has not made what is there: whoever has stays where it is. */
static void test_stranger(void)
{
	struct side stranger = {.file = -1}, old = {.file = -1},
		    new = {.src.claiming = true, .file = -1};
	g_autoptr(GError) error = NULL;
	json_t *theirs;

	side_socket(&stranger, "s", false);
	side_socket(&old, "other", false);
	side_socket(&new, "s", false);
	theirs = fd_paths_json(&old.src);
	g_assert_false(fd_paths_check(&new.src, theirs, &error));
	g_assert_nonnull(strstr(error->message, "/s' is in use, and not by the old process"));
	g_assert_false(fd_paths_check(&new.src, NULL, NULL));
	json_decref(theirs);
	side_end(&new);
	g_assert_cmpint(answers("s", &stranger, &old), ==, 1);
	side_end(&old);
	side_end(&stranger);
}

/* A free path, or no predecessor: nothing is claimed. */
static void test_free(void)
{
	struct side old = {.file = -1}, new = {.src.claiming = true, .file = -1};
	g_autoptr(GError) error = NULL;
	g_autofree char *path = path_of("s");
	struct file_made made = {0};
	bool claimed;

	side_socket(&new, "s", false);
	g_assert_false(new.claimed);
	g_assert_cmpint(fd_path_make_socket(&old.src, path, false, &made, &claimed, &error), ==,
			-1);
	g_assert_nonnull(error);
	g_assert_cmpint(fd_path_make_socket(NULL, path, false, &made, &claimed, NULL), ==, -1);
	side_end(&new);
	assert_files((const char *const[]){NULL});
}

static void test_file(void)
{
	struct side new = {.src.claiming = true, .socket = -1};
	g_autofree char *path = path_of("pid"), *link = path_of("link"), *text = NULL;
	g_autoptr(GError) error = NULL;

	g_assert_true(g_file_set_contents(path, "old", -1, NULL));
	g_assert_cmpint(symlink("pid", link), ==, 0);
	new.file = fd_path_claim_file(&new.src, link, &new.file_made, &error);
	g_assert_no_error(error);
	g_assert_cmpint(write(new.file, "new", 3), ==, 3);
	g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
	g_assert_cmpstr(text, ==, "old");
	g_clear_pointer(&text, g_free);
	fd_paths_take(&new.src);
	/* What the link leads to is replaced, not the link. */
	g_assert_true(g_file_test(link, G_FILE_TEST_IS_SYMLINK));
	g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
	g_assert_cmpstr(text, ==, "new");
	side_end(&new);
	assert_files((const char *const[]){"link", NULL});
	unlink(link);
}

/* As long as a socket's address can be: the name beside it needs no more room. */
static void test_long(void)
{
	struct side old = {.file = -1}, new = {.src.claiming = true, .file = -1};
	char name[sizeof(((struct sockaddr_un *)NULL)->sun_path)] = "";
	size_t room = sizeof(name) - 1 - strlen(dir) - 1;

	memset(name, 'x', room);
	side_socket(&old, name, false);
	side_socket(&new, name, false);
	fd_paths_take(&new.src);
	g_assert_cmpint(answers(name, &old, &new), ==, 2);
	side_end(&old);
	side_end(&new);
	assert_files((const char *const[]){NULL});
}

/* The one file in the directory that is not @known; owned by the caller. */
static char *beside(const char *known)
{
	g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
	const char *name = g_dir_read_name(d);

	if (g_strcmp0(name, known) == 0)
		name = g_dir_read_name(d);
	g_assert_nonnull(name);
	return path_of(name);
}

/* Somebody else's file under a claim's name is neither taken for it nor removed. */
static void test_replaced(void)
{
	struct side old = {.file = -1}, new = {.src.claiming = true, .file = -1};
	g_autofree char *name = NULL, *base = NULL;

	side_socket(&old, "s", false);
	side_socket(&new, "s", false);
	name = beside("s");
	base = g_path_get_basename(name);
	/* Where process ids repeat, as in containers, it must not be made of one. */
	g_assert_cmpuint(strlen(base), ==, strlen(".molt-") + 36);
	g_assert_cmpint(g_unlink(name), ==, 0);
	g_assert_true(g_file_set_contents(name, "x", 1, NULL));
	fd_paths_take(&new.src);
	g_assert_cmpint(answers("s", &old, &new), ==, 1);
	side_end(&new);
	assert_files((const char *const[]){"s", base, NULL});
	g_assert_cmpint(g_unlink(name), ==, 0);
	side_end(&old);
	assert_files((const char *const[]){NULL});
}

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	dir = g_dir_make_tmp("molt-paths-XXXXXX", NULL);
	g_test_add_func("/paths/replaced", test_replaced);
	g_test_add_func("/paths/taken", test_taken);
	g_test_add_func("/paths/given-up", test_given_up);
	g_test_add_func("/paths/stranger", test_stranger);
	g_test_add_func("/paths/free", test_free);
	g_test_add_func("/paths/file", test_file);
	g_test_add_func("/paths/long", test_long);
	status = g_test_run();
	rmdir(dir);
	g_free(dir);
	return status;
}
