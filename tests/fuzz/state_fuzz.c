// Fuzzing what reads state: streams, structs, manifests and descriptor frames.
// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/fd.h"
#include "fuzz.h"
#include "state/fdstore_priv.h"
#include "state/stream.h"
#include "unit/state/sample.h"

/* What the first octet of an input chooses. */
enum mode {
	MODE_STREAM,	 /* a stream as it is */
	MODE_STRUCT,	 /* a sample struct, read by both releases */
	MODE_STREAM_CRC, /* a stream whose checksums are made right first, to get past them */
	MODE_MANIFEST,	 /* the struct in a manifest of descriptors */
	MODE_FRAMES,	 /* what fdstore_receive() reads from a socket */
};

/* Whatever loads must save, and load again to the same. */
static void fuzz_struct(const struct state_desc *desc, struct span wire)
{
	g_autofree uint8_t *obj = g_malloc0(desc->size);
	g_autofree uint8_t *again = g_malloc0(desc->size);
	g_autoptr(GByteArray) saved = g_byte_array_new();

	if (!state_load(desc, wire, NULL, obj, NULL))
		return;
	if (!state_save(desc, obj, saved, NULL) ||
	    !state_load(desc, span_of(saved->data, saved->len), NULL, again, NULL) ||
	    memcmp(obj, again, desc->size) != 0)
		abort();
	json_decref(state_dump_json(desc, obj));
}

static void fuzz_stream(struct span wire)
{
	g_autoptr(GBytes) bytes = g_bytes_new(wire.data, wire.len);
	autoptr(state_reader) reader = state_reader_open(bytes, NULL);
	struct span payload;

	if (!reader)
		return;
	for (uint32_t i = 0; state_reader_get(reader, i, NULL, NULL, &payload); i++)
		fuzz_struct(&sample_v1_desc, payload);
	state_reader_finish(reader, NULL);
}

static uint32_t read_le32(const uint8_t *at)
{
	struct span span = span_of(at, 4);
	uint32_t value = 0;

	span_read_le32(&span, &value);
	return value;
}

static void fuzz_stream_crc(struct span wire)
{
	g_autofree uint8_t *copy = g_memdup2(wire.data, wire.len);
	size_t at = STATE_HEADER_BYTES;

	if (wire.len < STATE_HEADER_BYTES)
		return;
	wire_store_le32(copy + STREAM_AT_CRC, crc32c(0, copy, STREAM_AT_CRC));
	while (wire.len - at >= SECTION_HEADER_BYTES) {
		uint8_t *header = copy + at;
		uint32_t len = read_le32(header + SECTION_AT_LENGTH);

		at += SECTION_HEADER_BYTES;
		if (len > wire.len - at)
			break;
		wire_store_le32(header + SECTION_AT_CRC, section_crc(header, copy + at, len));
		at += len;
	}
	fuzz_stream(span_of(copy, wire.len));
}

static void fuzz_frames(struct span wire)
{
	int end[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end) < 0)
		abort();
	/* What does not fit into the socket is cut off, which is one more truncation. */
	if (send(end[0], wire.data, wire.len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
		close(end[0]);
		fdstore_free(fdstore_receive(end[1], clock_deadline_ms(1000), NULL));
	} else {
		close(end[0]);
	}
	close(end[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span wire = span_of(data, size);
	uint8_t mode;

	if (!span_read_u8(&wire, &mode))
		return 0;
	switch ((enum mode)mode) {
	case MODE_STREAM:
		fuzz_stream(wire);
		break;
	case MODE_STRUCT:
		fuzz_struct(&sample_v1_desc, wire);
		fuzz_struct(&sample_v2_desc, wire);
		break;
	case MODE_STREAM_CRC:
		fuzz_stream_crc(wire);
		break;
	case MODE_MANIFEST:
		fuzz_struct(&fd_manifest_desc, wire);
		break;
	case MODE_FRAMES:
		fuzz_frames(wire);
		break;
	}
	return 0;
}
