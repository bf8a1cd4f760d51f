// HMP: a person, or a script that acts like one, at a chardev.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "monitor/hmp.h"
#include "monitor/line_editor.h"
#include "monitor/session.h"

#define HMP_BANNER "molt " MOLT_VERSION " monitor - type 'help' for more information\r\n"
#define HMP_PROMPT "(qemu) "

/**
 * struct hmp_session - One of them
 * @editor:	On terminals
 * @line:	Elsewhere: what was received of the current line
 * @greeted:	The banner was shown to the peer that is there now
 * @ran:	A command was carried out
 */
struct hmp_session {
	struct session session;
	struct line_editor *editor;
	GString *line;
	bool greeted;
	bool ran;
};

static struct hmp_session *to_hmp(struct session *session)
{
	return (struct hmp_session *)session;
}

static void hmp_prompt(struct hmp_session *hmp)
{
	if (hmp->editor)
		line_editor_show(hmp->editor);
	else
		session_write(&hmp->session, HMP_PROMPT, strlen(HMP_PROMPT));
}

static void hmp_line(struct hmp_session *hmp, const char *line)
{
	struct monitors *monitors = hmp->session.monitors;
	g_autoptr(GString) out = g_string_new(NULL);
	struct hmp_outcome outcome = hmp_run_line(monitors, line, out);
	g_autofree char *text = hmp_crlf(out->str);

	hmp->ran = true;
	session_write(&hmp->session, text, strlen(text));
	if (outcome.waits)
		session_suspend(&hmp->session);
	else
		hmp_prompt(hmp);
	if (outcome.after)
		outcome.after(monitors);
}

/* ---- line editor ---- */

static void editor_write(void *opaque, const char *text, size_t len)
{
	session_write(opaque, text, len);
}

static void editor_line(void *opaque, const char *line)
{
	hmp_line(opaque, line);
}

static void editor_complete(void *opaque, const char *prefix, GPtrArray *matches)
{
	hmp_complete(prefix, matches);
}

static const struct line_editor_ops editor_ops = {
	.write = editor_write,
	.line = editor_line,
	.complete = editor_complete,
};

/* ---- the protocol ---- */

static void hmp_init(struct session *session)
{
	to_hmp(session)->line = g_string_new(NULL);
}

static void hmp_clear(struct session *session)
{
	struct hmp_session *hmp = to_hmp(session);

	g_string_free(hmp->line, TRUE);
	line_editor_free(hmp->editor);
}

static void hmp_greet(struct hmp_session *hmp)
{
	session_write(&hmp->session, HMP_BANNER, strlen(HMP_BANNER));
	hmp->greeted = true;
	hmp_prompt(hmp);
}

/* On a console that is shared with a guest nothing is shown before somebody asks for it. */
static void hmp_opened(struct session *session, bool restored)
{
	struct hmp_session *hmp = to_hmp(session);

	if (chardev_link_is_terminal(session->link) && !hmp->editor)
		hmp->editor = line_editor_new(HMP_PROMPT, &editor_ops, hmp);
	if (chardev_link_has_focus(session->link))
		hmp_greet(hmp);
}

static void hmp_closed(struct session *session)
{
	struct hmp_session *hmp = to_hmp(session);

	hmp->greeted = false;
	g_string_truncate(hmp->line, 0);
	g_clear_pointer(&hmp->editor, line_editor_free);
}

static void hmp_focus(struct session *session, bool in)
{
	struct hmp_session *hmp = to_hmp(session);

	session_write(session, "\r\n", 2);
	if (in && hmp->greeted)
		hmp_prompt(hmp);
	else if (in)
		hmp_greet(hmp);
}

static void hmp_plain_byte(struct hmp_session *hmp, uint8_t c)
{
	g_autofree char *line = NULL;

	if (c == '\n') {
		line = g_strndup(hmp->line->str, hmp->line->len);
		g_string_truncate(hmp->line, 0);
		hmp_line(hmp, line);
	} else if (c != '\r' && hmp->line->len < LINE_EDITOR_MAX) {
		g_string_append_c(hmp->line, c);
	}
}

static size_t hmp_input(struct session *session, const uint8_t *data, size_t len)
{
	struct hmp_session *hmp = to_hmp(session);
	size_t i = 0;

	hmp->ran = false;
	while (i < len && !hmp->ran) {
		if (hmp->editor)
			line_editor_feed(hmp->editor, data[i++]);
		else
			hmp_plain_byte(hmp, data[i++]);
	}
	return i;
}

static void hmp_event(struct session *session, const json_t *event)
{
	/* Events are QMP's. */
}

/* The update that migrate waited for has ended: say so if it failed. */
static void hmp_idle(struct session *session)
{
	json_t *state = update_query(monitors_update(session->monitors));
	const char *reason = json_member(state, "error-desc");

	if (*reason) {
		g_autofree char *text = g_strdup_printf("Error: %s\r\n", reason);

		session_write(session, text, strlen(text));
	}
	json_decref(state);
	hmp_prompt(to_hmp(session));
}

static void hmp_pending(struct session *session, GByteArray *out)
{
	struct hmp_session *hmp = to_hmp(session);
	const char *text = hmp->editor ? line_editor_text(hmp->editor) : hmp->line->str;

	g_byte_array_append(out, (const uint8_t *)text, strlen(text));
}

const struct session_ops hmp_session_ops = {
	.size = sizeof(struct hmp_session),
	.init = hmp_init,
	.clear = hmp_clear,
	.opened = hmp_opened,
	.closed = hmp_closed,
	.focus = hmp_focus,
	.input = hmp_input,
	.event = hmp_event,
	.idle = hmp_idle,
	.pending = hmp_pending,
};
