// Tests of the store over a socket: 600 descriptors, dribbling peers, liars; nothing leaks.
// SPDX-License-Identifier: Apache-2.0
#include "state/fdstore.h"

#include "fd_util.h"
#include "state/fdstore_priv.h"

#define DEADLINE_MS 10000

/**
 * struct link - Two ends of a socket and what a thread does at one of them
 * @end:	[0] is the thread's
 * @store:	What it sends
 * @bytes:	Or the raw bytes that it sends instead,
 * @fds:	with these descriptors at the first of them
 * @n_fds:	How many
 * @piece:	Bytes per write; 0: all
 */
struct link {
	int end[2];
	struct fdstore *store;
	GByteArray *bytes;
	int *fds;
	size_t n_fds;
	size_t piece;
};

static void link_open(struct link *link)
{
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link->end), ==, 0);
}

static struct fdstore *fill(unsigned int n)
{
	struct fdstore *store = fdstore_new();

	for (unsigned int i = 0; i < n; i++) {
		g_autofree char *name = g_strdup_printf("event/%u", i);
		autofd int fd = eventfd(i, EFD_CLOEXEC);

		g_assert_true(fdstore_add(store, name, FD_EVENT, fd, NULL));
	}
	return store;
}

static gpointer send_thread(gpointer data)
{
	struct link *link = data;
	g_autoptr(GError) error = NULL;

	fdstore_send(link->store, link->end[0], clock_deadline_ms(DEADLINE_MS), &error);
	g_assert_no_error(error);
	return NULL;
}

static void cross(unsigned int n)
{
	unsigned int before = test_count_fds();
	struct fdstore *sent = fill(n);
	struct link link = {.store = sent};
	g_autoptr(GError) error = NULL;
	struct fdstore *received;
	GThread *thread;

	link_open(&link);
	thread = g_thread_new("send", send_thread, &link);
	received = fdstore_receive(link.end[1], clock_deadline_ms(DEADLINE_MS), &error);
	g_thread_join(thread);
	g_assert_no_error(error);
	g_assert_cmpuint(fdstore_count(received), ==, n);
	for (unsigned int i = 0; i < n; i++) {
		g_autofree char *name = g_strdup_printf("event/%u", i);
		autofd int fd = fdstore_take(received, name, FD_EVENT, &error);

		g_assert_no_error(error);
		g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
		if (i > 0)
			g_assert_cmpuint(eventfd_drain(fd), ==, i);
	}
	g_assert_true(fdstore_finish(received, NULL, NULL, NULL));
	fdstore_free(received);
	fdstore_free(sent);
	fd_close(&link.end[0]);
	fd_close(&link.end[1]);
	g_assert_cmpuint(test_count_fds(), ==, before);
}

static void test_counts(void)
{
	cross(0);
	cross(1);
	cross(250);
	cross(251);
	cross(500);
	cross(600);
}

/* What follows the store on the socket is not touched. */
static void test_not_read_past_the_end(void)
{
	autoptr(fdstore) sent = fill(300);
	autoptr(fdstore) received = NULL;
	struct link link = {.store = sent};
	g_autoptr(GError) error = NULL;
	char next[4];
	GThread *thread;

	link_open(&link);
	thread = g_thread_new("send", send_thread, &link);
	received = fdstore_receive(link.end[1], clock_deadline_ms(DEADLINE_MS), &error);
	g_thread_join(thread);
	g_assert_no_error(error);
	g_assert_cmpint(write(link.end[0], "next", 4), ==, 4);
	g_assert_cmpint(read(link.end[1], next, 4), ==, 4);
	g_assert_cmpmem(next, 4, "next", 4);
	fd_close(&link.end[0]);
	fd_close(&link.end[1]);
}

/* ---- raw peers ---- */

static gpointer raw_thread(gpointer data)
{
	struct link *link = data;
	size_t sent = 0;

	while (sent < link->bytes->len) {
		_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(253 * sizeof(int))] = {0};
		struct iovec iov = {.iov_base = link->bytes->data + sent,
				    .iov_len = link->bytes->len - sent};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		if (link->piece && iov.iov_len > link->piece)
			iov.iov_len = link->piece;
		if (sent == 0 && link->n_fds > 0) {
			struct cmsghdr *cmsg = (struct cmsghdr *)control;

			msg.msg_control = control;
			msg.msg_controllen = CMSG_SPACE(link->n_fds * sizeof(int));
			cmsg->cmsg_level = SOL_SOCKET;
			cmsg->cmsg_type = SCM_RIGHTS;
			cmsg->cmsg_len = CMSG_LEN(link->n_fds * sizeof(int));
			memcpy(CMSG_DATA(cmsg), link->fds, link->n_fds * sizeof(int));
		}
		n = sendmsg(link->end[0], &msg, MSG_NOSIGNAL);
		if (n < 0)
			break;
		sent += n;
	}
	fd_close(&link->end[0]);
	return NULL;
}

/* A frame with the manifest of all of @store. */
static GByteArray *frame_make(struct fdstore *store, uint32_t n_total, uint32_t n_before,
			      uint32_t n_here)
{
	g_autoptr(GBytes)
		manifest = fdstore_manifest_write(store, 0, fdstore_count(store), false, NULL);
	struct span payload = span_of_bytes(manifest);
	GByteArray *frame = g_byte_array_new();

	wire_put_le32(frame, 0x5344464d);
	wire_put_le32(frame, 1);
	wire_put_le32(frame, n_total);
	wire_put_le32(frame, n_before);
	wire_put_le32(frame, n_here);
	wire_put_le32(frame, payload.len);
	wire_put(frame, payload.data, payload.len);
	return frame;
}

/* Receive from a raw peer; @expected NULL: it must work.  Nothing may leak either way. */
static void raw_receive(GByteArray *bytes, int *fds, size_t n_fds, size_t piece,
			const char *expected)
{
	struct link link = {.bytes = bytes, .fds = fds, .n_fds = n_fds, .piece = piece};
	unsigned int before = test_count_fds();
	g_autoptr(GError) error = NULL;
	struct fdstore *store;
	GThread *thread;

	link_open(&link);
	thread = g_thread_new("raw", raw_thread, &link);
	store = fdstore_receive(link.end[1], clock_deadline_ms(DEADLINE_MS), &error);
	fd_close(&link.end[1]);
	g_thread_join(thread);
	if (expected) {
		g_assert_null(store);
		test_assert_message(&error, expected);
	} else {
		g_assert_no_error(error);
		g_assert_nonnull(store);
	}
	fdstore_free(store);
	g_assert_cmpuint(test_count_fds(), ==, before);
}

static void test_dribble(void)
{
	autoptr(fdstore) store = fill(2);
	g_autoptr(GByteArray) frame = frame_make(store, 2, 0, 2);
	int fds[2] = {fdstore_find(store, "event/0")->fd, fdstore_find(store, "event/1")->fd};

	raw_receive(frame, fds, 2, 0, NULL);
	raw_receive(frame, fds, 2, 1, NULL);
	raw_receive(frame, fds, 2, 23, NULL);
	raw_receive(frame, fds, 2, 25, NULL);
}

static void test_liars(void)
{
	static const struct {
		uint32_t n_total, n_before, n_here;
		size_t n_fds;
		const char *refusal;
	} cases[] = {
		{2, 0, 2, 1, "2 announced, 1 came"},
		{2, 0, 2, 0, "2 announced, 0 came"},
		{2, 0, 2, 3, "2 announced, 3 came"},
		{3, 0, 3, 3, "3 announced, 2 named"},
		{1, 0, 1, 1, "1 announced, 2 named"},
		{2, 0, 2, 253, "2 announced, 253 came"},
		{4, 2, 2, 2, "a batch was left out: 2 before, 0 received"},
		{1, 0, 2, 2, "counts do not add up"},
		{2, 3, 2, 2, "counts do not add up"},
		{UINT32_MAX, 0, 2, 2, "counts do not add up"},
		{2, 0, 0, 2, "counts do not add up"},
		{900, 0, 251, 2, "counts do not add up"},
		{3, 0, 2, 2, "after 2: the other side closed the connection"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		autoptr(fdstore) store = fill(2);
		g_autoptr(GByteArray) frame =
			frame_make(store, cases[i].n_total, cases[i].n_before, cases[i].n_here);
		int fds[253];

		for (size_t j = 0; j < G_N_ELEMENTS(fds); j++)
			fds[j] = fdstore_find(store, j == 1 ? "event/1" : "event/0")->fd;
		raw_receive(frame, fds, cases[i].n_fds, 0, cases[i].refusal);
	}
}

static void test_damaged_frames(void)
{
	autoptr(fdstore) store = fill(2);
	int fds[2] = {fdstore_find(store, "event/0")->fd, fdstore_find(store, "event/1")->fd};
	int swapped[2] = {fds[1], fds[0]};
	g_autoptr(GByteArray) frame = frame_make(store, 2, 0, 2);
	g_autoptr(GByteArray) bad = g_byte_array_new();

	wire_put(bad, frame->data, frame->len);
	bad->data[0] ^= 1;
	raw_receive(bad, fds, 2, 0, "the other side sent something else");
	bad->data[0] ^= 1;
	bad->data[4] = 2;
	raw_receive(bad, fds, 2, 0, "in version 2; this molt knows version 1");
	bad->data[4] = 1;
	bad->data[23] = 0xff;
	raw_receive(bad, fds, 2, 0, "is too long");
	bad->data[23] = 0;
	bad->data[300] ^= 1;
	raw_receive(bad, fds, 2, 0, "damaged");
	bad->data[300] ^= 1;
	raw_receive(bad, swapped, 2, 0, "descriptor event/0: it is another file");
	for (guint len = 0; len < frame->len; len += 7) {
		g_byte_array_set_size(bad, len);
		raw_receive(bad, fds, 2, 0, "after 0: the other side closed the connection");
	}
}

static void test_two_of_one_name(void)
{
	autoptr(fdstore) store = fdstore_new();
	autofd int fd = test_memfd("ram");
	autofd int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	autofd int other = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	struct fd_record record = {.name = "x", .kind = FD_RAM};
	g_autoptr(GError) error = NULL;

	fd_kind_prepare(FD_RAM, fd);
	g_assert_true(fd_identity_read(fd, &record.identity, NULL));
	g_assert_true(fdstore_adopt(store, &record, &copy, &error));
	g_assert_cmpint(copy, ==, -1);
	g_assert_false(fdstore_adopt(store, &record, &other, &error));
	g_assert_cmpint(other, >=, 0);
	test_assert_message(&error, "there is one of this name already");
}

/* ---- deadlines ---- */

static void test_silent_peer(void)
{
	autoptr(fdstore) store = fill(600);
	struct link link = {0};
	g_autoptr(GError) error = NULL;
	int small = 4096;

	link_open(&link);
	g_assert_null(fdstore_receive(link.end[1], clock_deadline_ms(20), &error));
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_TIMEOUT);
	g_clear_error(&error);
	/* Nobody reads: the socket fills up. */
	setsockopt(link.end[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	g_assert_false(fdstore_send(store, link.end[0], clock_deadline_ms(20), &error));
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_TIMEOUT);
	g_clear_error(&error);
	fd_close(&link.end[1]);
	g_assert_false(fdstore_send(store, link.end[0], clock_deadline_ms(DEADLINE_MS), &error));
	test_assert_message(&error, "cannot send: Broken pipe");
	fd_close(&link.end[0]);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/fdstore-socket/counts", test_counts);
	g_test_add_func("/state/fdstore-socket/not-past-the-end", test_not_read_past_the_end);
	g_test_add_func("/state/fdstore-socket/dribble", test_dribble);
	g_test_add_func("/state/fdstore-socket/liars", test_liars);
	g_test_add_func("/state/fdstore-socket/damaged", test_damaged_frames);
	g_test_add_func("/state/fdstore-socket/two-of-one-name", test_two_of_one_name);
	g_test_add_func("/state/fdstore-socket/silent-peer", test_silent_peer);
	return g_test_run();
}
