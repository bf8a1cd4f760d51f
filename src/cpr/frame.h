// Frames on the cpr channel and on the main channel of an update: header, bound, checksum.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/span.h"

/**
 * DOC: this interface is a contract
 *
 * Two programs of different releases speak it to each other.  A frame is, little endian:
 *
 *   u32 magic 0x544c4f4d ("MOLT") | u16 type | u16 zero | u32 length | u32 crc32c of the payload
 *
 * and @length octets of payload: one JSON object (UTF-8), for every type but FRAME_STATE.  The
 * header and the types FRAME_HELLO, FRAME_WELCOME, FRAME_REFUSE and FRAME_ABORT never change;
 * everything else may with the protocol version that HELLO and WELCOME settle.
 */

#define FRAME_MAGIC	   0x544c4f4dU
#define FRAME_HEADER_BYTES 16
#define FRAME_MAX_BYTES	   (4U << 20)

/** FRAME_PROTOCOL - The version of the dialogue that this program speaks, and the oldest it does */
#define FRAME_PROTOCOL	   2
#define FRAME_PROTOCOL_MIN 2

/** enum dialogue_station - The steps that both sides of a transfer go through, in this order; 0: none */
enum dialogue_station {
	STATION_HELLO = 1,
	STATION_OFFER,
	STATION_FDS,
	STATION_REHEARSE,
	STATION_READY,
	STATION_MAIN,
	STATION_JOIN,
	STATION_STATE,
	STATION_LOADED,
	STATION_COMMIT,
	STATION_RUNNING,
	STATION_RECORD,
	STATION_END,
};

/**
 * enum frame_type - What a frame says; the values are on the wire
 * @FRAME_HELLO:	old: versions, features, build
 * @FRAME_WELCOME:	new: version and features in force, build
 * @FRAME_OFFER:	old: configuration, device tree, session, generation
 * @FRAME_ACCEPT:	new: the offer fits
 * @FRAME_REFUSE:	new: it does not; every difference in one text
 * @FRAME_FDS:		old: descriptors follow (fdstore_send())
 * @FRAME_READY:	new: the machine is built and warm
 * @FRAME_MAIN_READY:	new: the main channel can be connected
 * @FRAME_JOIN:		old, first on the main channel: session
 * @FRAME_JOINED:	new: the main channel stands
 * @FRAME_STATE:	old, on the main channel: the state stream
 * @FRAME_LOADED:	new: state is loaded and checked
 * @FRAME_GO:		old: the guest is yours
 * @FRAME_RUNNING:	new: it runs; times
 * @FRAME_ABORT:	either: the update is off; why
 * @FRAME_RECORD:	old, answer to "running": its record
 */
enum frame_type {
	FRAME_HELLO = 1,
	FRAME_WELCOME = 2,
	FRAME_OFFER = 3,
	FRAME_ACCEPT = 4,
	FRAME_REFUSE = 5,
	FRAME_FDS = 6,
	FRAME_READY = 7,
	FRAME_MAIN_READY = 8,
	FRAME_JOIN = 9,
	FRAME_JOINED = 10,
	FRAME_STATE = 11,
	FRAME_LOADED = 12,
	FRAME_GO = 13,
	FRAME_RUNNING = 14,
	FRAME_ABORT = 15,
	FRAME_RECORD = 16,
	FRAME_TYPE_COUNT,
};

/** frame_type_name() - "hello", ...; "frame N" is "unknown" */
const char *frame_type_name(unsigned int type);

/**
 * struct frame_header - A header, decoded
 * @type:	enum frame_type, in range
 * @length:	Of the payload, at most what the type allows
 * @crc:	Of the payload
 */
struct frame_header {
	unsigned int type;
	uint32_t length;
	uint32_t crc;
};

/** frame_encode() - Append a whole frame to @out. */
void frame_encode(GByteArray *out, enum frame_type type, const void *payload, size_t len);

/** frame_header_parse() - Decode and check FRAME_HEADER_BYTES octets from outside. */
bool frame_header_parse(struct span wire, struct frame_header *header, GError **error);

/** frame_check() - Whether @payload, of the header's length, has the header's checksum. */
bool frame_check(const struct frame_header *header, const void *payload, GError **error);
