// Splits a byte stream into JSON values as they arrive.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/json_stream.h"

#include <string.h>

#include "base/error.h"
#include "monitor/request_id.h"
#include "options/text.h"

#define JSON_FLUSH 0xff

/**
 * struct json_stream - Where in a value the input stands
 * @raw:	The value's octets so far
 * @closers:	What each open bracket waits for, innermost last
 * @depth:	Open brackets
 * @quote:	The quote that ends the current string, 0 outside of one
 * @escaped:	The previous octet of the string was a backslash
 * @scalar:	In a number or word outside of any bracket
 * @skipping:	Dropping the rest of the line after an oversized value
 * @told:	@fn was called
 */
struct json_stream {
	json_stream_fn fn;
	void *opaque;
	GByteArray *raw;
	char closers[JSON_STREAM_MAX_DEPTH];
	unsigned int depth;
	char quote;
	bool escaped;
	bool scalar;
	bool skipping;
	bool told;
};

struct json_stream *json_stream_new(json_stream_fn fn, void *opaque)
{
	struct json_stream *stream = g_new0(struct json_stream, 1);

	stream->fn = fn;
	stream->opaque = opaque;
	stream->raw = g_byte_array_new();
	return stream;
}

void json_stream_free(struct json_stream *stream)
{
	if (!stream)
		return;
	g_byte_array_unref(stream->raw);
	g_free(stream);
}

void json_stream_reset(struct json_stream *stream)
{
	g_byte_array_set_size(stream->raw, 0);
	stream->depth = 0;
	stream->quote = 0;
	stream->escaped = false;
	stream->scalar = false;
}

const uint8_t *json_stream_pending(const struct json_stream *stream, size_t *len)
{
	*len = stream->raw->len;
	return stream->raw->data;
}

static void json_stream_fail_id(struct json_stream *stream, const char *id, const char *reason)
{
	g_autoptr(GError) error = NULL;

	json_stream_reset(stream);
	stream->told = true;
	error_set_generic(&error, "JSON parse error, %s", reason);
	stream->fn(stream->opaque, NULL, id, error);
}

static void json_stream_fail(struct json_stream *stream, const char *reason)
{
	json_stream_fail_id(stream, NULL, reason);
}

/* What the parser found wrong; the caller's. */
static char *json_stream_reason(const json_error_t *why)
{
	g_autofree char *valid = g_utf8_make_valid(why->text, -1);

	switch (json_error_code(why)) {
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return g_strdup("a string contains \\u0000");
	case json_error_numeric_overflow:
		return g_strdup("a number is too large");
	default:
		return text_printable(valid);
	}
}

/*
 * The value with its single-quoted strings in double quotes.  Strings are balanced here: the
 * splitter saw their ends.
 */
static GString *json_requote(const GByteArray *raw)
{
	GString *out = g_string_sized_new(raw->len + 16);
	char quote = 0;

	for (guint i = 0; i < raw->len; i++) {
		char c = raw->data[i];

		if (quote && c == '\\' && i + 1 < raw->len) {
			char next = raw->data[++i];

			if (next != '\'')
				g_string_append_c(out, '\\');
			g_string_append_c(out, next);
		} else if (c == quote || (!quote && (c == '"' || c == '\''))) {
			quote = quote ? 0 : c;
			g_string_append_c(out, '"');
		} else if (quote == '\'' && c == '"') {
			g_string_append(out, "\\\"");
		} else {
			g_string_append_c(out, c);
		}
	}
	return out;
}

/* The value is whole.  The stream is ready for the next one before anybody is told. */
static void json_stream_complete(struct json_stream *stream)
{
	const size_t flags = JSON_DECODE_ANY | JSON_REJECT_DUPLICATES;
	g_autoptr(GByteArray) raw = stream->raw;
	g_autoptr(GString) text = json_requote(raw);
	g_autofree char *id = request_id_take(text);
	json_error_t why = {0};
	json_t *value;

	stream->raw = g_byte_array_new();
	json_stream_reset(stream);
	value = json_loadb(text->str, text->len, flags, &why);
	if (value) {
		stream->told = true;
		stream->fn(stream->opaque, value, id, NULL);
		json_decref(value);
	} else {
		g_autofree char *reason = json_stream_reason(&why);

		json_stream_fail_id(stream, id, reason);
	}
}

static void json_stream_keep(struct json_stream *stream, uint8_t c)
{
	if (stream->raw->len >= JSON_STREAM_MAX_BYTES) {
		stream->skipping = c != '\n';
		json_stream_fail(stream, "value is longer than 4 MiB");
		return;
	}
	g_byte_array_append(stream->raw, &c, 1);
}

static void json_stream_string(struct json_stream *stream, uint8_t c)
{
	if (c < 0x20) {
		json_stream_fail(stream, "control character in a string");
		return;
	}
	if (stream->escaped) {
		stream->escaped = false;
	} else if (c == '\\') {
		stream->escaped = true;
	} else if (c == (uint8_t)stream->quote) {
		stream->quote = 0;
	}
	json_stream_keep(stream, c);
	if (!stream->quote && stream->depth == 0 && stream->raw->len > 0)
		json_stream_complete(stream);
}

static void json_stream_open(struct json_stream *stream, uint8_t c)
{
	if (stream->depth == JSON_STREAM_MAX_DEPTH) {
		stream->skipping = true;
		json_stream_fail(stream, "value is nested deeper than 1024 levels");
		return;
	}
	stream->closers[stream->depth++] = c == '{' ? '}' : ']';
	json_stream_keep(stream, c);
}

static void json_stream_close(struct json_stream *stream, uint8_t c)
{
	if (stream->depth == 0 || stream->closers[stream->depth - 1] != c) {
		const char reason[] = {'s', 't', 'r', 'a', 'y', ' ', '\'', c, '\'', 0};

		json_stream_fail(stream, reason);
		return;
	}
	stream->depth--;
	json_stream_keep(stream, c);
	if (stream->depth == 0 && stream->raw->len > 0)
		json_stream_complete(stream);
}

static void json_stream_plain(struct json_stream *stream, uint8_t c)
{
	bool top = stream->depth == 0;

	if (top && stream->scalar && strchr("{}[],:\"' \t\r\n", c) && c)
		json_stream_complete(stream);
	switch (c) {
	case '{':
	case '[':
		json_stream_open(stream, c);
		break;
	case '}':
	case ']':
		json_stream_close(stream, c);
		break;
	case '"':
	case '\'':
		stream->quote = c;
		json_stream_keep(stream, c);
		break;
	case ' ':
	case '\t':
	case '\r':
	case '\n':
		if (!top)
			json_stream_keep(stream, c);
		break;
	case ',':
	case ':':
		if (top)
			json_stream_fail(stream, "stray punctuation");
		else
			json_stream_keep(stream, c);
		break;
	default:
		if (top)
			stream->scalar = true;
		json_stream_keep(stream, c);
		break;
	}
}

size_t json_stream_feed(struct json_stream *stream, const uint8_t *data, size_t len)
{
	size_t i;

	stream->told = false;
	for (i = 0; i < len && !stream->told; i++) {
		uint8_t c = data[i];

		if (c == JSON_FLUSH) {
			stream->skipping = false;
			json_stream_fail(stream, "invalid octet 0xff");
		} else if (stream->skipping) {
			stream->skipping = c != '\n';
		} else if (stream->quote) {
			json_stream_string(stream, c);
		} else {
			json_stream_plain(stream, c);
		}
	}
	return i;
}
