// Frames and links: every truncation, every flipped bit, too much, too late.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "cpr/frame.h"
#include "cpr/link.h"
#include "state/state.h"

static void test_header(void)
{
	for (unsigned int type = 1; type < FRAME_TYPE_COUNT; type++) {
		g_autoptr(GByteArray) frame = g_byte_array_new();
		struct frame_header header;

		frame_encode(frame, type, "abc", 3);
		g_assert_cmpmem(frame->data + FRAME_HEADER_BYTES, frame->len - FRAME_HEADER_BYTES,
				"abc", 3);
		g_assert_true(frame_header_parse(span_of(frame->data, FRAME_HEADER_BYTES), &header,
						 NULL));
		g_assert_cmpuint(header.type, ==, type);
		g_assert_cmpuint(header.length, ==, 3);
		g_assert_true(frame_check(&header, "abc", NULL));
		g_assert_false(frame_check(&header, "abd", NULL));
		for (size_t cut = 0; cut < FRAME_HEADER_BYTES; cut++)
			g_assert_false(
				frame_header_parse(span_of(frame->data, cut), &header, NULL));
	}
}

static void test_bounds(void)
{
	static const struct {
		uint32_t magic;
		uint16_t type, zero;
		uint32_t length;
		bool ok;
	} rows[] = {
		{FRAME_MAGIC, FRAME_HELLO, 0, FRAME_MAX_BYTES, true},
		{FRAME_MAGIC, FRAME_HELLO, 0, FRAME_MAX_BYTES + 1, false},
		{FRAME_MAGIC, FRAME_HELLO, 0, UINT32_MAX, false},
		{FRAME_MAGIC, FRAME_STATE, 0, STATE_MAX_BYTES, true},
		{FRAME_MAGIC, FRAME_STATE, 0, STATE_MAX_BYTES + 1, false},
		{FRAME_MAGIC, 0, 0, 0, false},
		{FRAME_MAGIC, FRAME_TYPE_COUNT, 0, 0, false},
		{FRAME_MAGIC, FRAME_HELLO, 1, 0, false},
		{FRAME_MAGIC ^ 1, FRAME_HELLO, 0, 0, false},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		uint8_t head[FRAME_HEADER_BYTES] = {0};
		struct frame_header header;
		g_autoptr(GError) error = NULL;

		wire_store_le32(head, rows[i].magic);
		wire_store_le16(head + 4, rows[i].type);
		wire_store_le16(head + 6, rows[i].zero);
		wire_store_le32(head + 8, rows[i].length);
		g_assert_cmpint(frame_header_parse(span_of(head, sizeof(head)), &header, &error),
				==, rows[i].ok);
		g_assert_cmpint(error == NULL, ==, rows[i].ok);
	}
}

/* ---- links ---- */

struct ends {
	struct link *link;
	int peer;
	unsigned int type;
	unsigned int messages;
	json_t *body;
	char *closed;
};

static void on_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload)
{
	struct ends *e = opaque;

	e->type = type;
	e->messages++;
	json_decref(e->body);
	e->body = json_incref(body);
}

static void on_closed(void *opaque, const GError *error)
{
	struct ends *e = opaque;

	g_assert_null(e->closed);
	e->closed = g_strdup(error->message);
}

static const struct link_handler handler = {"the peer", on_message, on_closed};

static void ends_open(struct ends *e)
{
	int pair[2];

	memset(e, 0, sizeof(*e));
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
			==, 0);
	e->link = link_new(pair[0], &handler, e);
	e->peer = pair[1];
}

static void ends_close(struct ends *e)
{
	link_free(e->link);
	fd_close(&e->peer);
	json_decref(e->body);
	g_free(e->closed);
}

static void turn(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		;
}

static GByteArray *hello_frame(void)
{
	GByteArray *out = g_byte_array_new();

	frame_encode(out, FRAME_HELLO, "{\"a\":1}", 7);
	return out;
}

/* A frame in pieces of one octet is one message; cut anywhere it is none. */
static void test_pieces(void)
{
	g_autoptr(GByteArray) frame = hello_frame();
	struct ends e;

	ends_open(&e);
	for (guint i = 0; i < frame->len; i++) {
		g_assert_cmpuint(e.messages, ==, 0);
		g_assert_cmpint(write(e.peer, frame->data + i, 1), ==, 1);
		turn();
	}
	g_assert_cmpuint(e.messages, ==, 1);
	g_assert_cmpuint(e.type, ==, FRAME_HELLO);
	g_assert_cmpint(json_integer_value(json_object_get(e.body, "a")), ==, 1);
	ends_close(&e);

	for (guint cut = 0; cut < frame->len; cut++) {
		ends_open(&e);
		g_assert_cmpint(write(e.peer, frame->data, cut), ==, cut);
		fd_close(&e.peer);
		turn();
		g_assert_cmpuint(e.messages, ==, 0);
		g_assert_cmpstr(e.closed, ==, "the peer closed the connection");
		ends_close(&e);
	}
}

static void test_bit_flips(void)
{
	g_autoptr(GByteArray) frame = hello_frame();

	for (guint bit = 0; bit < frame->len * 8; bit++) {
		struct ends e;

		frame->data[bit / 8] ^= 1 << (bit % 8);
		ends_open(&e);
		g_assert_cmpint(write(e.peer, frame->data, frame->len), ==, frame->len);
		fd_close(&e.peer);
		turn();
		/* A type changed into another valid one is caught by whoever awaits a type. */
		if (e.messages)
			g_assert_true(bit / 8 == 4 && e.type != FRAME_HELLO);
		g_assert_nonnull(e.closed);
		ends_close(&e);
		frame->data[bit / 8] ^= 1 << (bit % 8);
	}
}

static void test_not_json(void)
{
	static const char *const payloads[] = {"", "7", "[]", "{", "{\"a\":1,\"a\":2}", "\xff"};

	for (size_t i = 0; i < G_N_ELEMENTS(payloads); i++) {
		g_autoptr(GByteArray) frame = g_byte_array_new();
		struct ends e;

		frame_encode(frame, FRAME_OFFER, payloads[i], strlen(payloads[i]));
		ends_open(&e);
		g_assert_cmpint(write(e.peer, frame->data, frame->len), ==, frame->len);
		turn();
		g_assert_cmpuint(e.messages, ==, 0);
		g_assert_nonnull(strstr(e.closed, "JSON"));
		ends_close(&e);
	}
}

static struct link *peer_link(struct ends *e)
{
	static const struct link_handler nobody = {.peer = "the peer"};

	return link_new(fd_steal(&e->peer), &nobody, NULL);
}

static void test_wait(void)
{
	struct ends e;
	autoptr(link) peer = NULL;
	g_autoptr(GError) error = NULL;
	json_t *body;

	ends_open(&e);
	peer = peer_link(&e);
	g_assert_null(link_wait(e.link, FRAME_GO, clock_deadline_ms(20), &error));
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_TIMEOUT);
	g_clear_error(&error);

	g_assert_true(link_send(peer, FRAME_GO, json_pack("{s:i}", "n", 5), &error));
	body = link_wait(e.link, FRAME_GO, clock_deadline_ms(1000), &error);
	g_assert_cmpint(json_integer_value(json_object_get(body, "n")), ==, 5);
	json_decref(body);

	g_assert_true(
		link_send(peer, FRAME_ABORT, json_pack("{s:s}", "reason", "no milk"), &error));
	g_assert_null(link_wait(e.link, FRAME_GO, clock_deadline_ms(1000), &error));
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_REFUSED);
	g_assert_nonnull(strstr(error->message, "no milk"));
	g_clear_error(&error);

	g_assert_true(link_send(peer, FRAME_READY, NULL, &error));
	g_assert_null(link_wait(e.link, FRAME_GO, clock_deadline_ms(1000), &error));
	g_assert_cmpstr(error->message, ==, "the peer sent 'ready' where 'go' was due");
	g_clear_error(&error);

	g_clear_pointer(&peer, link_free);
	g_assert_null(link_wait(e.link, FRAME_GO, clock_deadline_ms(1000), &error));
	g_assert_nonnull(strstr(error->message, "closed"));
	ends_close(&e);
}

/* A peer that refuses and hangs up: who is still sending hears why, not "Broken pipe". */
static void test_last_words(void)
{
	struct ends e;
	autoptr(link) peer = NULL;
	g_autoptr(GError) error = NULL;

	ends_open(&e);
	peer = peer_link(&e);
	g_assert_true(link_send(peer, FRAME_READY, NULL, &error));
	g_assert_true(
		link_send(peer, FRAME_REFUSE, json_pack("{s:s}", "reason", "no milk"), &error));
	g_clear_pointer(&peer, link_free);
	g_assert_false(link_send(e.link, FRAME_GO, NULL, &error));
	g_assert_error(error, MOLT_ERROR, MOLT_ERROR_REFUSED);
	g_assert_cmpstr(error->message, ==, "the peer refuses this VM: no milk");
	g_clear_error(&error);
	/* said once; from now on there is only the broken connection */
	g_assert_false(link_send(e.link, FRAME_GO, NULL, &error));
	g_assert_nonnull(strstr(error->message, "go: "));
	g_assert_false(link_send(e.link, FRAME_GO, NULL, NULL));
	ends_close(&e);
}

static void test_big_payload(void)
{
	g_autoptr(GBytes) state = g_bytes_new_take(g_malloc0(1 << 20), 1 << 20);
	struct ends e;
	autoptr(link) peer = NULL;
	g_autoptr(GError) error = NULL;

	/* Nobody reads: the sender does not wait longer than it wants; the rest goes from the main loop. */
	ends_open(&e);
	peer = peer_link(&e);
	g_assert_true(link_send_bytes(peer, FRAME_STATE, state, &error));
	g_assert_true(link_send(peer, FRAME_GO, NULL, &error));
	g_assert_false(link_flush(peer, clock_deadline_ms(20)));
	while (e.messages < 2)
		g_main_context_iteration(NULL, TRUE);
	g_assert_cmpuint(e.type, ==, FRAME_GO);
	g_assert_true(link_flush(peer, clock_deadline_ms(20)));
	ends_close(&e);
}

/* A peer that dies with the last octets on the way: they are heard before its end. */
static void test_rest_then_end(void)
{
	g_autoptr(GBytes) state = g_bytes_new_take(g_malloc0(1 << 16), 1 << 16);
	struct ends e;
	struct link *peer;

	ends_open(&e);
	peer = peer_link(&e);
	g_assert_true(link_send_bytes(peer, FRAME_STATE, state, NULL));
	/* It never read this: its end is a reset. */
	g_assert_true(link_send(e.link, FRAME_JOINED, NULL, NULL));
	link_free(peer);
	g_main_context_iteration(NULL, TRUE);
	g_assert_cmpuint(e.messages, ==, 1);
	g_assert_null(e.closed);
	turn();
	g_assert_nonnull(e.closed);
	ends_close(&e);
}

static void test_trusted(void)
{
	struct ends e;

	ends_open(&e);
	g_assert_true(link_peer_trusted(e.link, NULL));
	ends_close(&e);
}

static void test_fds(void)
{
	struct ends e;
	autoptr(link) peer = NULL;
	autoptr(fdstore) store = fdstore_new();
	struct fdstore *arrived;
	g_autoptr(GError) error = NULL;
	autofd int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	ends_open(&e);
	peer = peer_link(&e);
	g_assert_true(fdstore_add(store, "chardev/n/file", FD_CHAR, null_fd, &error));
	/* Frames right behind the descriptors must not be swallowed with them. */
	g_assert_true(link_send_fds(peer, store, &error));
	g_assert_true(link_send(peer, FRAME_GO, NULL, &error));
	g_main_context_iteration(NULL, FALSE);
	g_assert_cmpuint(e.type, ==, FRAME_FDS);
	arrived = link_receive_fds(e.link, &error);
	g_assert_no_error(error);
	g_assert_cmpuint(fdstore_count(arrived), ==, 1);
	fdstore_free(arrived);
	turn();
	g_assert_cmpuint(e.type, ==, FRAME_GO);
	ends_close(&e);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/frame/header", test_header);
	g_test_add_func("/frame/bounds", test_bounds);
	g_test_add_func("/link/pieces", test_pieces);
	g_test_add_func("/link/bit-flips", test_bit_flips);
	g_test_add_func("/link/not-json", test_not_json);
	g_test_add_func("/link/wait", test_wait);
	g_test_add_func("/link/last-words", test_last_words);
	g_test_add_func("/link/big-payload", test_big_payload);
	g_test_add_func("/link/rest-then-end", test_rest_then_end);
	g_test_add_func("/link/trusted", test_trusted);
	g_test_add_func("/link/fds", test_fds);
	return g_test_run();
}
