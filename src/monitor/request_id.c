// The id of a QMP request, kept as the text that it is.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/request_id.h"

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#define SPACE "\x20\t\r\n"

/** struct scan - Where in a text one is; @end is behind it */
struct scan {
	const char *at, *end;
};

static void skip_space(struct scan *scan)
{
	while (scan->at < scan->end && *scan->at && strchr(SPACE, *scan->at))
		scan->at++;
}

static bool skip_char(struct scan *scan, char c)
{
	skip_space(scan);
	if (scan->at >= scan->end || *scan->at != c)
		return false;
	scan->at++;
	return true;
}

/* Behind the string that begins here. */
static void skip_string(struct scan *scan)
{
	for (scan->at++; scan->at < scan->end && *scan->at != '"'; scan->at++)
		if (*scan->at == '\\')
			scan->at++;
	scan->at = MIN(scan->at + 1, scan->end);
}

/* Behind the number or word that begins here. */
static void skip_word(struct scan *scan)
{
	while (scan->at < scan->end && *scan->at && !strchr(SPACE ",:[]{}\"", *scan->at))
		scan->at++;
}

/* Behind the value that begins here, whatever is in it. */
static void skip_value(struct scan *scan)
{
	unsigned int depth = 0;

	do {
		char c = scan->at < scan->end ? *scan->at : 0;
		const char *before = scan->at;

		if (c == '"')
			skip_string(scan);
		else if (c == '{' || c == '[' || c == '}' || c == ']' || c == ',' || c == ':')
			scan->at++;
		else
			skip_word(scan);
		depth += c == '{' || c == '[';
		depth -= depth && (c == '}' || c == ']');
		if (depth)
			skip_space(scan);
		if (scan->at == before)
			return;
	} while (depth);
}

/* ---- the id as it goes out ---- */

static bool is_number(const char *text, size_t len)
{
	g_autofree char *copy = g_strndup(text, len);

	return g_regex_match_simple("^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?$", copy,
				    G_REGEX_DOLLAR_ENDONLY, 0);
}

static bool is_json(const char *text, size_t len)
{
	json_t *value = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

	json_decref(value);
	return value;
}

static void put_ascii(GString *out, const char *text, size_t len)
{
	for (const char *p = text; p < text + len; p = g_utf8_next_char(p)) {
		gunichar c = g_utf8_get_char(p);

		if (c < 0x80)
			g_string_append_c(out, c);
		else if (c < 0x10000)
			g_string_append_printf(out, "\\u%04X", c);
		else
			g_string_append_printf(out, "\\u%04X\\u%04X", 0xd7c0 + (c >> 10),
					       0xdc00 + (c & 0x3ff));
	}
}

/*
 * One token of the id to @out, and what stands for it to @shape: strings and numbers are checked
 * one by one, so that the parser sees none that it cannot keep.  Return: whether it is one.
 */
static bool put_token(struct scan *scan, GString *out, GString *shape)
{
	const char *begin = scan->at;
	size_t len;

	if (strchr("{}[],:", *begin) && *begin) {
		scan->at++;
		g_string_append_c(out, *begin);
		g_string_append_c(shape, *begin);
		return true;
	}
	if (*begin == '"')
		skip_string(scan);
	else
		skip_word(scan);
	len = scan->at - begin;
	if (len == 0 || (!is_number(begin, len) && !is_json(begin, len)))
		return false;
	put_ascii(out, begin, len);
	if (*begin == '"')
		g_string_append(shape, "\"\"");
	else
		g_string_append_c(shape, '0');
	return true;
}

/* The value from @begin to @end; NULL if it is no JSON. */
static char *id_text(const char *begin, const char *end)
{
	g_autoptr(GString) out = g_string_new(NULL), shape = g_string_new(NULL);
	struct scan scan = {begin, end};

	for (skip_space(&scan); scan.at < end; skip_space(&scan))
		if (!put_token(&scan, out, shape))
			return NULL;
	if (!is_json(shape->str, shape->len))
		return NULL;
	return g_string_free(g_steal_pointer(&out), FALSE);
}

/* ---- where it is ---- */

static bool is_id_key(const char *text, size_t len)
{
	json_t *key = json_loadb(text, len, JSON_DECODE_ANY, NULL);
	bool is = g_strcmp0(json_string_value(key), "id") == 0;

	json_decref(key);
	return is;
}

char *request_id_take(GString *text)
{
	struct scan scan = {text->str, text->str + text->len};

	if (!skip_char(&scan, '{'))
		return NULL;
	do {
		const char *key, *value;
		bool is_id;

		skip_space(&scan);
		key = scan.at;
		if (key >= scan.end || *key != '"')
			return NULL;
		skip_string(&scan);
		is_id = is_id_key(key, scan.at - key);
		if (!skip_char(&scan, ':'))
			return NULL;
		skip_space(&scan);
		value = scan.at;
		skip_value(&scan);
		if (is_id) {
			char *id = id_text(value, scan.at);
			size_t at = value - text->str, len = scan.at - value;

			if (id) {
				g_string_erase(text, at, len);
				g_string_insert(text, at, "null");
			}
			return id;
		}
	} while (skip_char(&scan, ','));
	return NULL;
}
