// Splits a byte stream into JSON values as they arrive.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"

/** JSON_STREAM_MAX_DEPTH - How deep objects and arrays of one value may nest */
#define JSON_STREAM_MAX_DEPTH 1024

/** JSON_STREAM_MAX_BYTES - No value is longer than this */
#define JSON_STREAM_MAX_BYTES (4U << 20)

/**
 * struct json_stream - Finds where values end; jansson parses them
 *
 * Values may be separated by white space, or by nothing where that is unambiguous.  A string may be
 * written in single quotes, as people do at a shell prompt.  After an error the next octet begins a
 * new value; after an oversized value everything up to the end of the line is dropped.  The octet
 * 0xFF ends whatever went before with an error: a client that does not know where its peer stands
 * sends it to start afresh.
 */
struct json_stream;

/**
 * typedef json_stream_fn - A value arrived, or something that is none
 * @value:	Borrowed; NULL if @error says what was wrong.  Its member "id" is null
 * @id:		Text of that member, see request_id_take(); NULL if there is none
 * @error:	"JSON parse error, ..."; borrowed
 */
typedef void (*json_stream_fn)(void *opaque, const json_t *value, const char *id,
			       const GError *error);

/** json_stream_new() - A splitter that calls @fn(@opaque) from within json_stream_feed(). */
struct json_stream *json_stream_new(json_stream_fn fn, void *opaque);

/** json_stream_free() - Accepts NULL. */
void json_stream_free(struct json_stream *stream);
DEFINE_CLEANUP(json_stream, json_stream_free)

/**
 * json_stream_feed() - Take the next octets, hostile until parsed
 * @len:	1 or more
 *
 * Return: how many were taken: those up to the first value or error that was told, if there was one.
 */
size_t json_stream_feed(struct json_stream *stream, const uint8_t *data, size_t len);

/**
 * json_stream_pending() - The octets of a value that has not ended yet
 * @len:	Set to their number
 *
 * Fed to a new stream they lead to where this one is.  Borrowed until the next call.
 */
const uint8_t *json_stream_pending(const struct json_stream *stream, size_t *len);

/** json_stream_reset() - Forget a value that has not ended yet. */
void json_stream_reset(struct json_stream *stream);
