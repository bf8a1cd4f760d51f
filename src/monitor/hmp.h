// HMP: lines that people type, as calls of the same commands that QMP has.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

#include "monitor/command.h"

/**
 * struct hmp_outcome - What is left to do after a line
 * @waits:	The monitor takes no input until the update in progress has ended
 * @after:	To be called when the output is on its way; may be NULL
 */
struct hmp_outcome {
	bool waits;
	void (*after)(struct monitors *monitors);
};

/** hmp_run_line() - Carry out @line and append what it prints, errors too, to @out. */
struct hmp_outcome hmp_run_line(struct monitors *monitors, const char *line, GString *out);

/** hmp_complete() - Add the command names that begin with @prefix to @matches (to be freed). */
void hmp_complete(const char *prefix, GPtrArray *matches);

/** hmp_crlf() - Put "\r" before every newline; the caller's. */
char *hmp_crlf(const char *text);
