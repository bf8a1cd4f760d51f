// The envelope: what was listed is found again, and what is not there any more costs nothing.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/envelope.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "offers.h"
#include "state/stream.h"

/**
 * struct letter - An envelope between its writer and its reader, which are one process here
 * @leftover:	A file that nobody needs, open when the envelope was written
 */
struct letter {
	struct fdstore *store;
	json_t *json;
	int fd;
	int leftover;
};

static int sealed(const char *name)
{
	g_autoptr(GBytes) bytes = g_bytes_new_static("x", 1);
	int fd = state_bytes_seal(bytes, name, NULL);

	g_assert_cmpint(fd, >, STDERR_FILENO);
	return fd;
}

static int open_file(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	g_assert_cmpint(fd, >, STDERR_FILENO);
	g_assert_true(fd_has_store(fd));
	return fd;
}

static void letter_write(struct letter *letter)
{
	autoptr(vm_config) config = config_of(VM);
	const char *nonce;
	g_autofree char *name = NULL;
	g_autoptr(GError) error = NULL;
	int ends[2];

	g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
	fd_close(&ends[0]);
	letter->leftover = open_file();
	letter->store = fdstore_new();
	letter->json = json_pack("{s:o, s:[s], s:[], s:i, s:i, s:i, s:i, s:i, s:i}", "offer",
				 offer_of(config), "argv", "molt", "environment", "attempt", 7,
				 "state-fd", sealed("state"), "sessions-fd", sealed("sessions"),
				 "exec-fd", open_file(), "file-fd", -1, "guardian-fd", ends[1]);
	g_assert_nonnull(letter->json);
	g_assert_true(envelope_export(letter->json, letter->store, &letter->fd, &error));
	g_assert_no_error(error);
	nonce = json_string_value(json_object_get(letter->json, "nonce"));
	name = g_strdup_printf("%d:%s", letter->fd, nonce);
	g_setenv(ENVELOPE_ENV, name, TRUE);
}

static struct envelope *letter_read(struct letter *letter)
{
	g_autoptr(GError) error = NULL;
	struct envelope *envelope = envelope_read(&error);

	g_assert_no_error(error);
	g_assert_cmpuint(envelope->attempt, ==, 7);
	json_decref(letter->json);
	fdstore_free(letter->store);
	return envelope;
}

static bool has_leftover(const struct envelope *envelope, int fd)
{
	for (guint i = 0; i < envelope->leftovers->len; i++)
		if (g_array_index(envelope->leftovers, int, i) == fd)
			return true;
	return false;
}

static void test_leftover_is_taken(void)
{
	struct letter letter;
	autoptr(envelope) envelope = NULL;

	letter_write(&letter);
	g_assert_false(fcntl(letter.leftover, F_GETFD) & FD_CLOEXEC);
	envelope = letter_read(&letter);
	g_assert_true(has_leftover(envelope, letter.leftover));
	g_assert_true(fcntl(letter.leftover, F_GETFD) & FD_CLOEXEC);
}

/* By a thread, after it was listed: the guest is worth more than a number. */
static void test_leftover_is_closed_meanwhile(void)
{
	struct letter letter;
	autoptr(envelope) envelope = NULL;

	letter_write(&letter);
	close(letter.leftover);
	envelope = letter_read(&letter);
	g_assert_false(has_leftover(envelope, letter.leftover));
}

/* The number is the new program's own, which is not closed. */
static void test_leftover_is_another_file(void)
{
	struct letter letter;
	autoptr(envelope) envelope = NULL;
	autofd int own = -1;

	letter_write(&letter);
	close(letter.leftover);
	own = open_file();
	g_assert_cmpint(own, ==, letter.leftover);
	envelope = letter_read(&letter);
	g_assert_false(has_leftover(envelope, own));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/envelope/leftover/taken", test_leftover_is_taken);
	g_test_add_func("/envelope/leftover/closed", test_leftover_is_closed_meanwhile);
	g_test_add_func("/envelope/leftover/another", test_leftover_is_another_file);
	return g_test_run();
}
