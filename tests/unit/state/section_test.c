// Tests of the stream: every truncation and every flipped bit is refused, sections, transactions.
// SPDX-License-Identifier: Apache-2.0
#include "state/section.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "base/crc32c.h"
#include "base/fd.h"
#include "sample.h"
#include "state/stream.h"
#include "state/txn.h"

static struct state_reader *open_copy(const uint8_t *data, size_t len, GError **error)
{
	g_autoptr(GBytes) bytes = g_bytes_new(data, len);

	return state_reader_open(bytes, error);
}

static void assert_open_fails(const uint8_t *data, size_t len, const char *expected)
{
	g_autoptr(GError) error = NULL;
	struct state_reader *reader = open_copy(data, len, &error);

	g_assert_null(reader);
	g_assert_nonnull(error);
	if (expected && !strstr(error->message, expected))
		g_error("'%s' expected, got '%s'", expected, error->message);
}

/* Make the header's checksum right again after a change. */
static void header_resum(uint8_t *stream)
{
	wire_store_le32(stream + STREAM_AT_CRC, crc32c(0, stream, STREAM_AT_CRC));
}

static void test_round_trip(void)
{
	g_autoptr(GBytes) bytes = sample_stream();
	g_autoptr(GError) error = NULL;
	autoptr(state_reader) reader = state_reader_open(bytes, &error);
	struct sample_v1 in, out;

	g_assert_no_error(error);
	sample_fill(&in);
	for (uint32_t instance = 0; instance < 2; instance++) {
		memset(&out, 0, sizeof(out));
		g_assert_true(state_reader_load(reader, "pci/00.3/sample", instance,
						&sample_v1_desc, NULL, &out, &error));
		g_assert_cmpmem(&in, sizeof(in), &out, sizeof(out));
	}
	/* "trace" is optional and stays. */
	g_assert_true(state_reader_finish(reader, &error));
	g_assert_cmpstr(state_reader_header(reader)->build_id, ==, "molt golden");
	g_assert_cmpuint(state_reader_header(reader)->n_sections, ==, 3);
}

static void test_every_truncation(void)
{
	g_autoptr(GBytes) bytes = sample_stream();
	struct span span = span_of_bytes(bytes);

	for (size_t len = 0; len < span.len; len++)
		assert_open_fails(span.data, len, NULL);
}

static void test_every_flipped_bit(void)
{
	g_autoptr(GBytes) bytes = sample_stream();
	struct span span = span_of_bytes(bytes);
	g_autofree uint8_t *data = g_memdup2(span.data, span.len);

	for (size_t bit = 0; bit < span.len * 8; bit++) {
		data[bit / 8] ^= 1 << bit % 8;
		assert_open_fails(data, span.len, NULL);
		data[bit / 8] ^= 1 << bit % 8;
	}
}

static void test_headers(void)
{
	g_autoptr(GBytes) bytes = sample_stream();
	struct span span = span_of_bytes(bytes);
	g_autofree uint8_t *data = g_memdup2(span.data, span.len);

	assert_open_fails((const uint8_t *)"{\"execute\":\"quit\"}", 18, "cut short in its header");
	memcpy(data, "QEVM", 4);
	header_resum(data);
	assert_open_fails(data, span.len, "not a state stream of molt");

	memcpy(data, span.data, span.len);
	wire_store_le32(data + STREAM_AT_FORMAT, 7);
	wire_store_le32(data + STREAM_AT_MIN_READER, 5);
	header_resum(data);
	assert_open_fails(data, span.len,
			  "is in format 7 (written by molt golden), which needs a reader of "
			  "format 5; this molt reads format 1");
	/* A newer format that says old readers can read it is read. */
	wire_store_le32(data + STREAM_AT_MIN_READER, 1);
	header_resum(data);
	state_reader_free(open_copy(data, span.len, NULL));

	memcpy(data, span.data, span.len);
	memset(data + STREAM_AT_ARCH, 0, STATE_ARCH_BYTES);
	memcpy(data + STREAM_AT_ARCH, "m68k", 4);
	header_resum(data);
	assert_open_fails(data, span.len, "is of a m68k machine (written by molt golden)");

	memcpy(data, span.data, span.len);
	wire_store_le64(data + STREAM_AT_TOTAL, (uint64_t)STATE_MAX_BYTES + 1);
	header_resum(data);
	assert_open_fails(data, span.len, "the limit is 67108864");
	wire_store_le64(data + STREAM_AT_TOTAL, span.len + 1);
	header_resum(data);
	assert_open_fails(data, span.len, "its header says");

	memcpy(data, span.data, span.len);
	wire_store_le32(data + STREAM_AT_N_SECTIONS, UINT32_MAX);
	header_resum(data);
	assert_open_fails(data, span.len, "claims 4294967295 sections");
	wire_store_le32(data + STREAM_AT_N_SECTIONS, 2);
	header_resum(data);
	assert_open_fails(data, span.len, "end mark");
	wire_store_le32(data + STREAM_AT_N_SECTIONS, 4);
	header_resum(data);
	assert_open_fails(data, span.len, "ends in the header of section 3");
}

/* A newer format stays recognisable even if everything behind the header changed. */
static void test_newer_header_alone(void)
{
	uint8_t header[STATE_HEADER_BYTES] = {0};
	g_autoptr(GError) error = NULL;
	struct state_header decoded;

	memcpy(header, STREAM_MAGIC, 8);
	wire_store_le32(header + STREAM_AT_FORMAT, 1000);
	wire_store_le32(header + STREAM_AT_MIN_READER, 1000);
	wire_store_le64(header + STREAM_AT_TOTAL, 1ULL << 40);
	memcpy(header + STREAM_AT_ARCH, "x86_64", 6);
	memcpy(header + STREAM_AT_BUILD_ID, "molt 99", 7);
	header_resum(header);
	g_assert_false(state_header_read(span_of(header, sizeof(header)), &decoded, &error));
	g_assert_nonnull(strstr(error->message, "is in format 1000 (written by molt 99)"));
}

static void test_order_of_calls_does_not_matter(void)
{
	static const char *const names[] = {"a", "b", "b/c"};
	static const uint8_t orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}};
	g_autoptr(GBytes) first = NULL;
	struct sample_timer timer = {.deadline_ns = 1};

	for (size_t i = 0; i < G_N_ELEMENTS(orders); i++) {
		autoptr(state_writer) writer = state_writer_begin("test");
		g_autoptr(GBytes) bytes = NULL;

		for (size_t j = 0; j < 3; j++)
			g_assert_true(state_writer_add(writer, names[orders[i][j]], 0,
						       &sample_timer_desc, &timer, NULL));
		bytes = state_writer_finish(writer, NULL);
		if (!first)
			first = g_bytes_ref(bytes);
		g_assert_true(g_bytes_equal(first, bytes));
	}
}

static void test_names(void)
{
	autoptr(state_writer) writer = state_writer_begin("test \xff\n build");
	struct sample_timer timer = {0};
	g_autofree char *longest = g_strnfill(63, 'x');
	g_autofree char *too_long = g_strnfill(64, 'x');
	g_autoptr(GError) error = NULL;
	g_autoptr(GBytes) bytes = NULL;
	autoptr(state_reader) reader = NULL;

	g_assert_true(state_writer_add(writer, longest, 0, &sample_timer_desc, &timer, NULL));
	g_assert_false(state_writer_add(writer, too_long, 0, &sample_timer_desc, &timer, NULL));
	g_assert_false(state_writer_add(writer, "", 0, &sample_timer_desc, &timer, NULL));
	g_assert_false(state_writer_add(writer, "two words", 0, &sample_timer_desc, &timer, NULL));
	bytes = state_writer_finish(writer, NULL);
	reader = state_reader_open(bytes, &error);
	g_assert_no_error(error);
	g_assert_cmpstr(state_reader_header(reader)->build_id, ==, "test ?? build");
	g_assert_true(state_reader_find(reader, longest, 0, NULL));
	g_assert_false(state_reader_find(reader, longest, 1, NULL));
	g_assert_false(state_reader_find(reader, "x", 0, NULL));
}

static void test_added_twice(void)
{
	autoptr(state_writer) writer = state_writer_begin("test");
	struct sample_timer timer = {0};
	g_autoptr(GError) error = NULL;

	state_writer_add(writer, "a", 1, &sample_timer_desc, &timer, NULL);
	state_writer_add(writer, "b", 0, &sample_timer_desc, &timer, NULL);
	state_writer_add(writer, "a", 1, &sample_timer_desc, &timer, NULL);
	g_assert_null(state_writer_finish(writer, &error));
	g_assert_cmpstr(error->message, ==, "section a was added twice");
}

static void test_sections_missing_and_left(void)
{
	g_autoptr(GBytes) bytes = sample_stream();
	autoptr(state_reader) reader = state_reader_open(bytes, NULL);
	g_autoptr(GError) error = NULL;
	struct span payload;

	g_assert_false(state_reader_take(reader, "rtc", 0, &payload, &error));
	g_assert_cmpstr(error->message, ==, "rtc: the stream has no such section");
	g_clear_error(&error);
	g_assert_true(state_reader_take(reader, "pci/00.3/sample", 0, &payload, &error));
	g_assert_false(state_reader_take(reader, "pci/00.3/sample", 0, &payload, &error));
	g_assert_cmpstr(error->message, ==, "pci/00.3/sample: this section was taken before");
	g_clear_error(&error);
	g_assert_false(state_reader_finish(reader, &error));
	g_assert_cmpstr(error->message, ==,
			"the stream has state of what this machine does not have: "
			"pci/00.3/sample#1");
}

static void test_memfd(void)
{
	g_autoptr(GBytes) bytes = sample_stream();
	g_autoptr(GBytes) mapped = NULL;
	g_autoptr(GError) error = NULL;
	autofd int open_fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	autofd int fd = state_bytes_seal(bytes, "state", &error);

	g_assert_no_error(error);
	g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
	g_assert_cmpint(pwrite(fd, "x", 1, 0), ==, -1);
	g_assert_cmpint(ftruncate(fd, 1), ==, -1);
	mapped = state_bytes_map(fd, &error);
	g_assert_no_error(error);
	fd_close(&fd);
	g_assert_true(g_bytes_equal(bytes, mapped));

	g_assert_null(state_bytes_map(open_fd, &error));
	g_assert_nonnull(strstr(error->message, "is not a sealed memfd"));
	g_clear_error(&error);
	g_assert_cmpint(fcntl(open_fd, F_ADD_SEALS, 0xf), ==, 0);
	g_assert_null(state_bytes_map(open_fd, &error));
	g_assert_nonnull(strstr(error->message, "has 0 bytes"));
}

/* ---- transactions ---- */

static void fill_timers(GBytes **bytes, uint64_t a, uint64_t b)
{
	autoptr(state_writer) writer = state_writer_begin("test");
	struct sample_timer timer = {.deadline_ns = a};
	struct sample_queue queue = {.ring_gpa = b, .size = b == 3 ? 3 : 4};

	state_writer_add(writer, "timer", 0, &sample_timer_desc, &timer, NULL);
	state_writer_add(writer, "queue", 2, &sample_queue_desc, &queue, NULL);
	*bytes = state_writer_finish(writer, NULL);
}

static bool check_sum(const struct state_txn *txn, void *arg, GError **error)
{
	const struct sample_timer *timer = state_txn_peek(txn, "timer", 0);
	const struct sample_queue *queue = state_txn_peek(txn, "queue", 2);

	g_assert_null(state_txn_peek(txn, "queue", 0));
	g_assert_nonnull(queue);
	if (timer->deadline_ns + queue->ring_gpa != *(uint64_t *)arg)
		return error_set_generic(error, "the sum is wrong");
	return true;
}

static void test_txn_commits_all(void)
{
	struct sample_timer timer = {.deadline_ns = 100};
	struct sample_queue queue = {.ring_gpa = 100};
	g_autoptr(GBytes) bytes = NULL;
	autoptr(state_reader) reader = NULL;
	autoptr(state_txn) txn = NULL;
	g_autoptr(GError) error = NULL;
	uint64_t sum = 7;

	fill_timers(&bytes, 5, 2);
	reader = state_reader_open(bytes, NULL);
	txn = state_txn_new(reader);
	g_assert_true(state_txn_add(txn, "timer", 0, &sample_timer_desc, &timer, &timer, &error));
	g_assert_true(state_txn_add(txn, "queue", 2, &sample_queue_desc, NULL, &queue, &error));
	g_assert_cmpuint(timer.deadline_ns, ==, 100);
	g_assert_true(state_txn_commit(txn, check_sum, &sum, &error));
	g_assert_cmpuint(timer.deadline_ns, ==, 5);
	g_assert_cmpuint(queue.ring_gpa, ==, 2);
}

/* Fails in turn: a member, the cross check, a section that was left. */
static void test_txn_changes_nothing_on_failure(void)
{
	for (int fault = 0; fault < 3; fault++) {
		struct sample_timer timer = {.deadline_ns = 100};
		struct sample_queue queue = {.ring_gpa = 100};
		g_autoptr(GBytes) bytes = NULL;
		autoptr(state_reader) reader = NULL;
		autoptr(state_txn) txn = NULL;
		g_autoptr(GError) error = NULL;
		uint64_t sum = 6;

		fill_timers(&bytes, 5, fault == 0 ? 3 : 2);
		reader = state_reader_open(bytes, NULL);
		txn = state_txn_new(reader);
		g_assert_true(
			state_txn_add(txn, "timer", 0, &sample_timer_desc, NULL, &timer, NULL));
		if (fault == 0) {
			g_assert_false(state_txn_add(txn, "queue", 2, &sample_queue_desc, NULL,
						     &queue, &error));
			g_assert_cmpstr(error->message, ==,
					"queue#2: size 3 is not a power of two");
		} else if (fault == 1) {
			g_assert_true(state_txn_add(txn, "queue", 2, &sample_queue_desc, NULL,
						    &queue, NULL));
			g_assert_false(state_txn_commit(txn, check_sum, &sum, &error));
			g_assert_cmpstr(error->message, ==, "the sum is wrong");
		} else {
			g_assert_false(state_txn_commit(txn, NULL, NULL, &error));
			g_assert_nonnull(strstr(error->message, "queue#2"));
		}
		g_assert_cmpuint(timer.deadline_ns, ==, 100);
		g_assert_cmpuint(queue.ring_gpa, ==, 100);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/section/round-trip", test_round_trip);
	g_test_add_func("/state/section/every-truncation", test_every_truncation);
	g_test_add_func("/state/section/every-flipped-bit", test_every_flipped_bit);
	g_test_add_func("/state/section/headers", test_headers);
	g_test_add_func("/state/section/newer-header-alone", test_newer_header_alone);
	g_test_add_func("/state/section/order-of-calls", test_order_of_calls_does_not_matter);
	g_test_add_func("/state/section/names", test_names);
	g_test_add_func("/state/section/added-twice", test_added_twice);
	g_test_add_func("/state/section/missing-and-left", test_sections_missing_and_left);
	g_test_add_func("/state/section/memfd", test_memfd);
	g_test_add_func("/state/txn/commits-all", test_txn_commits_all);
	g_test_add_func("/state/txn/changes-nothing", test_txn_changes_nothing_on_failure);
	return g_test_run();
}
