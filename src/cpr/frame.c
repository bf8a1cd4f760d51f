// Frames on the cpr channel and on the main channel of an update: header, bound, checksum.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/frame.h"

#include "base/crc32c.h"
#include "base/error.h"
#include "state/state.h"

static const char *const type_names[] = {
	[FRAME_HELLO] = "hello",   [FRAME_WELCOME] = "welcome",	      [FRAME_OFFER] = "offer",
	[FRAME_ACCEPT] = "accept", [FRAME_REFUSE] = "refuse",	      [FRAME_FDS] = "fds",
	[FRAME_READY] = "ready",   [FRAME_MAIN_READY] = "main-ready", [FRAME_JOIN] = "join",
	[FRAME_JOINED] = "joined", [FRAME_STATE] = "state",	      [FRAME_LOADED] = "loaded",
	[FRAME_GO] = "go",	   [FRAME_RUNNING] = "running",	      [FRAME_ABORT] = "abort",
	[FRAME_RECORD] = "record",
};
_Static_assert(G_N_ELEMENTS(type_names) == FRAME_TYPE_COUNT, "a name for every frame type");

const char *frame_type_name(unsigned int type)
{
	return type > 0 && type < FRAME_TYPE_COUNT ? type_names[type] : "unknown";
}

void frame_encode(GByteArray *out, enum frame_type type, const void *payload, size_t len)
{
	uint8_t *header = wire_grow(out, FRAME_HEADER_BYTES);

	wire_store_le32(header, FRAME_MAGIC);
	wire_store_le16(header + 4, type);
	wire_store_le16(header + 6, 0);
	wire_store_le32(header + 8, len);
	wire_store_le32(header + 12, crc32c(0, payload, len));
	wire_put(out, payload, len);
}

bool frame_header_parse(struct span wire, struct frame_header *header, GError **error)
{
	struct frame_header parsed;
	uint32_t magic, max;
	uint16_t type, zero;

	if (!span_read_le32(&wire, &magic) || !span_read_le16(&wire, &type) ||
	    !span_read_le16(&wire, &zero) || !span_read_le32(&wire, &parsed.length) ||
	    !span_read_le32(&wire, &parsed.crc) || wire.len)
		return error_set_generic(error, "frame header: wrong length");
	if (magic != FRAME_MAGIC)
		return error_set_generic(error, "frame header: the peer does not speak this "
						"protocol");
	if (type == 0 || type >= FRAME_TYPE_COUNT || zero)
		return error_set_generic(error, "frame header: unknown type %u", type);
	parsed.type = type;
	max = type == FRAME_STATE ? STATE_MAX_BYTES : FRAME_MAX_BYTES;
	if (parsed.length > max)
		return error_set_generic(error, "frame '%s': %u octets are more than %u",
					 frame_type_name(type), parsed.length, max);
	*header = parsed;
	return true;
}

bool frame_check(const struct frame_header *header, const void *payload, GError **error)
{
	if (crc32c(0, payload, header->length) != header->crc)
		return error_set_generic(error, "frame '%s' is damaged: wrong checksum",
					 frame_type_name(header->type));
	return true;
}
