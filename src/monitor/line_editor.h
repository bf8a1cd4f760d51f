// Editing of one line on a terminal: cursor keys, history, completion.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"

/**
 * DOC: why not libedit
 *
 * libedit edits only where its input descriptor is a terminal, and then sets that terminal's modes
 * for itself, around each line.  Here bytes come from a chardev, which may be multiplexed with a
 * guest's console; the terminal's modes belong to the chardev and have to stay untouched while one
 * process hands it to the next; and what was typed so far has to be read and put back.
 */

/** LINE_EDITOR_MAX - Characters a line may have; more are not taken */
#define LINE_EDITOR_MAX 4095

/**
 * struct line_editor_ops - What an editor asks of its owner
 * @write:	Send to the terminal
 * @line:	A line was finished; the editor is ready for the next one
 * @complete:	Add every way to complete @prefix, a first word, to @matches (of char *, to be freed)
 */
struct line_editor_ops {
	void (*write)(void *opaque, const char *text, size_t len);
	void (*line)(void *opaque, const char *line);
	void (*complete)(void *opaque, const char *prefix, GPtrArray *matches);
};

struct line_editor;

/** line_editor_new() - @prompt is borrowed for its life. */
struct line_editor *line_editor_new(const char *prompt, const struct line_editor_ops *ops,
				    void *opaque);
void line_editor_free(struct line_editor *editor);
DEFINE_CLEANUP(line_editor, line_editor_free)

/** line_editor_show() - Write prompt and text: at the start, and after other output. */
void line_editor_show(struct line_editor *editor);

/** line_editor_feed() - Take one byte typed. */
void line_editor_feed(struct line_editor *editor, uint8_t c);

/** line_editor_text() - What was typed of the current line; borrowed until the next call. */
const char *line_editor_text(const struct line_editor *editor);
