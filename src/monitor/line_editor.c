// Editing of one line on a terminal: cursor keys, history, completion.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/line_editor.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define HISTORY_LINES 64

#define CTRL(c) ((c)&0x1f)
#define ESC	0x1b
#define DEL	0x7f

/** enum escape - Where in an escape sequence the input stands */
enum escape { ESCAPE_NONE, ESCAPE_BEGUN, ESCAPE_CSI };

/**
 * struct line_editor - See line_editor.h
 * @pos:	Cursor, in bytes from the start of @line
 * @history:	Finished lines, oldest first
 * @history_pos: Which one is shown; history->len: none
 * @number:	In an escape sequence
 * @after_cr:	A line feed now belongs to the carriage return before it
 */
struct line_editor {
	const char *prompt;
	const struct line_editor_ops *ops;
	void *opaque;
	GString *line;
	size_t pos;
	GPtrArray *history;
	guint history_pos;
	enum escape escape;
	unsigned int number;
	bool after_cr;
};

struct line_editor *line_editor_new(const char *prompt, const struct line_editor_ops *ops,
				    void *opaque)
{
	struct line_editor *editor = g_new0(struct line_editor, 1);

	editor->prompt = prompt;
	editor->ops = ops;
	editor->opaque = opaque;
	editor->line = g_string_new(NULL);
	editor->history = g_ptr_array_new_with_free_func(g_free);
	return editor;
}

void line_editor_free(struct line_editor *editor)
{
	if (!editor)
		return;
	g_string_free(editor->line, TRUE);
	g_ptr_array_unref(editor->history);
	g_free(editor);
}

const char *line_editor_text(const struct line_editor *editor)
{
	return editor->line->str;
}

/* ---- what is seen ---- */

static void editor_write(struct line_editor *editor, const char *text)
{
	editor->ops->write(editor->opaque, text, strlen(text));
}

static void editor_left(struct line_editor *editor, size_t n)
{
	g_autofree char *text = n ? g_strdup_printf("\x1b[%zuD", n) : NULL;

	if (text)
		editor_write(editor, text);
}

void line_editor_show(struct line_editor *editor)
{
	editor_write(editor, editor->prompt);
	editor_write(editor, editor->line->str);
	editor_left(editor, editor->line->len - editor->pos);
}

/* The text from the cursor on has changed. */
static void editor_rewrite_tail(struct line_editor *editor)
{
	editor_write(editor, editor->line->str + editor->pos);
	editor_write(editor, "\x1b[K");
	editor_left(editor, editor->line->len - editor->pos);
}

static void editor_move(struct line_editor *editor, size_t pos)
{
	if (pos < editor->pos)
		editor_left(editor, editor->pos - pos);
	else
		editor->ops->write(editor->opaque, editor->line->str + editor->pos,
				   pos - editor->pos);
	editor->pos = pos;
}

/* ---- what changes the line ---- */

static void editor_insert(struct line_editor *editor, const char *text)
{
	size_t len = strlen(text);

	if (editor->line->len + len > LINE_EDITOR_MAX)
		return;
	g_string_insert(editor->line, editor->pos, text);
	if (editor->pos + len == editor->line->len) {
		editor_write(editor, text);
		editor->pos += len;
		return;
	}
	editor_rewrite_tail(editor);
	editor_move(editor, editor->pos + len);
}

static void editor_erase(struct line_editor *editor, size_t from, size_t to)
{
	if (from == to)
		return;
	editor_move(editor, from);
	g_string_erase(editor->line, from, to - from);
	editor_rewrite_tail(editor);
}

static void editor_replace(struct line_editor *editor, const char *text)
{
	editor_erase(editor, 0, editor->line->len);
	editor_insert(editor, text);
}

static size_t editor_word_start(const struct line_editor *editor)
{
	size_t at = editor->pos;

	while (at > 0 && editor->line->str[at - 1] == ' ')
		at--;
	while (at > 0 && editor->line->str[at - 1] != ' ')
		at--;
	return at;
}

static void editor_recall(struct line_editor *editor, guint index)
{
	if (index > editor->history->len)
		return;
	editor->history_pos = index;
	editor_replace(editor, index < editor->history->len
				       ? (const char *)editor->history->pdata[index]
				       : "");
}

static void editor_remember(struct line_editor *editor, const char *line)
{
	GPtrArray *history = editor->history;

	if (*line && (history->len == 0 || strcmp(history->pdata[history->len - 1], line) != 0))
		g_ptr_array_add(history, g_strdup(line));
	if (history->len > HISTORY_LINES)
		g_ptr_array_remove_index(history, 0);
	editor->history_pos = history->len;
}

static void editor_finish(struct line_editor *editor)
{
	g_autofree char *line = g_strdup(editor->line->str);

	editor_move(editor, editor->line->len);
	editor_write(editor, "\r\n");
	g_string_truncate(editor->line, 0);
	editor->pos = 0;
	editor_remember(editor, line);
	editor->ops->line(editor->opaque, line);
}

/* Insert what all matches have in common; show them if that is nothing new. */
static void editor_complete(struct line_editor *editor)
{
	g_autoptr(GPtrArray) matches = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *prefix = g_strndup(editor->line->str, editor->pos);
	g_autofree char *common = NULL;

	editor->ops->complete(editor->opaque, prefix, matches);
	if (matches->len == 0)
		return;
	common = g_strdup(matches->pdata[0]);
	for (guint i = 1; i < matches->len; i++) {
		const char *other = matches->pdata[i];
		size_t n = 0;

		while (common[n] && common[n] == other[n])
			n++;
		common[n] = '\0';
	}
	if (strlen(common) > strlen(prefix))
		editor_insert(editor, common + strlen(prefix));
	if (matches->len == 1) {
		editor_insert(editor, " ");
	} else if (strlen(common) == strlen(prefix)) {
		for (guint i = 0; i < matches->len; i++) {
			editor_write(editor, i ? "  " : "\r\n");
			editor_write(editor, matches->pdata[i]);
		}
		editor_write(editor, "\r\n");
		line_editor_show(editor);
	}
}

/* ---- keys ---- */

/* The letter, or the number before '~', that ends "ESC [ ..." */
static void editor_key(struct line_editor *editor, uint8_t c)
{
	if (c == 'A')
		editor_recall(editor, editor->history_pos - 1);
	else if (c == 'B')
		editor_recall(editor, editor->history_pos + 1);
	else if (c == 'C' && editor->pos < editor->line->len)
		editor_move(editor, editor->pos + 1);
	else if (c == 'D' && editor->pos > 0)
		editor_move(editor, editor->pos - 1);
	else if (c == 'H' || (c == '~' && (editor->number == 1 || editor->number == 7)))
		editor_move(editor, 0);
	else if (c == 'F' || (c == '~' && (editor->number == 4 || editor->number == 8)))
		editor_move(editor, editor->line->len);
	else if (c == '~' && editor->number == 3 && editor->pos < editor->line->len)
		editor_erase(editor, editor->pos, editor->pos + 1);
}

static void editor_escape(struct line_editor *editor, uint8_t c)
{
	if (editor->escape == ESCAPE_BEGUN) {
		editor->escape = c == '[' || c == 'O' ? ESCAPE_CSI : ESCAPE_NONE;
		editor->number = 0;
	} else if (g_ascii_isdigit(c)) {
		editor->number = (editor->number * 10 + (c - '0')) % 100;
	} else if (c < 0x20 || c >= 0x40) {
		editor->escape = ESCAPE_NONE;
		editor_key(editor, c);
	}
}

static void editor_control(struct line_editor *editor, uint8_t c)
{
	static const struct {
		uint8_t control, key;
	} same_as[] = {
		{CTRL('p'), 'A'}, {CTRL('n'), 'B'}, {CTRL('f'), 'C'},
		{CTRL('b'), 'D'}, {CTRL('a'), 'H'}, {CTRL('e'), 'F'},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(same_as); i++)
		if (same_as[i].control == c)
			editor_key(editor, same_as[i].key);
	if (c == CTRL('h') && editor->pos > 0) {
		editor_erase(editor, editor->pos - 1, editor->pos);
	} else if (c == CTRL('d')) {
		editor->number = 3;
		editor_key(editor, '~');
	} else if (c == CTRL('k')) {
		editor_erase(editor, editor->pos, editor->line->len);
	} else if (c == CTRL('u')) {
		editor_erase(editor, 0, editor->pos);
	} else if (c == CTRL('w')) {
		editor_erase(editor, editor_word_start(editor), editor->pos);
	} else if (c == CTRL('l')) {
		editor_write(editor, "\x1b[2J\x1b[1;1H");
		line_editor_show(editor);
	} else if (c == '\t') {
		editor_complete(editor);
	} else if (c == ESC) {
		editor->escape = ESCAPE_BEGUN;
	}
}

void line_editor_feed(struct line_editor *editor, uint8_t c)
{
	bool after_cr = editor->after_cr;
	const char text[] = {c, '\0'};

	editor->after_cr = c == '\r';
	if (editor->escape != ESCAPE_NONE)
		editor_escape(editor, c);
	else if (c == '\r' || (c == '\n' && !after_cr))
		editor_finish(editor);
	else if (c == DEL)
		editor_control(editor, CTRL('h'));
	else if (c < 0x20)
		editor_control(editor, c);
	else
		editor_insert(editor, text);
}
