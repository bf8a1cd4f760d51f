// Fuzzing what reads monitors' input: the JSON splitter, QMP, HMP, the line editor.
// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "monitor/line_editor.h"
#include "monitor/session.h"
#include "unit/monitor/fake_update.h"

/* What the first octet of an input chooses. */
enum mode {
	MODE_QMP,	 /* a client before it has negotiated */
	MODE_NEGOTIATED, /* one that has */
	MODE_HMP,	 /* lines */
	MODE_EDITOR,	 /* keys */
	MODE_STATE,	 /* what a predecessor left of a session */
};

static void quit(void *opaque, const char *reason)
{
}

/* A session whose output goes nowhere, on a machine that is a fake. */
static void fuzz_session(enum monitor_kind kind, const char *greeting, struct span input)
{
	static const struct chardev_config null = {.kind = CHARDEV_NULL, .id = (char *)"null"};
	const struct monitor_config config = {.kind = kind, .chardev = (char *)"null"};
	struct update *update = fake_update_new(vm_config_new(), true);
	struct monitors *monitors = monitors_new(update, quit, NULL, NULL);
	struct chardev *chardev = chardev_new(&null, NULL, NULL);
	struct session *session = session_new(monitors, &config, chardev, NULL);

	chardev_resume(chardev);
	session->ops->input(session, (const uint8_t *)greeting, strlen(greeting));
	while (input.len > 0 && !session->suspended) {
		size_t taken = session->ops->input(session, input.data, input.len);

		if (taken == 0 || taken > input.len)
			abort();
		input.data += taken;
		input.len -= taken;
	}
	session_free(session, 0);
	chardev_free(chardev);
	monitors_free(monitors);
	update_free(update);
}

static void editor_write(void *opaque, const char *text, size_t len)
{
	if (memchr(text, '\0', len))
		abort();
}

static void editor_line(void *opaque, const char *line)
{
	if (strlen(line) > LINE_EDITOR_MAX)
		abort();
}

static void editor_complete(void *opaque, const char *prefix, GPtrArray *matches)
{
	g_ptr_array_add(matches, g_strdup_printf("%.10sa", prefix));
	g_ptr_array_add(matches, g_strdup_printf("%.10sab", prefix));
}

static void fuzz_editor(struct span input)
{
	static const struct line_editor_ops ops = {editor_write, editor_line, editor_complete};
	struct line_editor *editor = line_editor_new("> ", &ops, NULL);

	for (size_t i = 0; i < input.len; i++)
		line_editor_feed(editor, input.data[i]);
	line_editor_free(editor);
}

static void fuzz_state(struct span input)
{
	g_autofree struct monitor_session_state *state = g_new0(struct monitor_session_state, 1);

	if (state_load(&monitor_session_desc, input, NULL, state, NULL) &&
	    state->n_input > SESSION_INPUT_BYTES)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span input = span_of(data, size);
	uint8_t mode;

	if (!span_read_u8(&input, &mode))
		return 0;
	switch (mode % 5) {
	case MODE_QMP:
		fuzz_session(MONITOR_QMP, "", input);
		break;
	case MODE_NEGOTIATED:
		fuzz_session(MONITOR_QMP, "{\"execute\":\"qmp_capabilities\"}", input);
		break;
	case MODE_HMP:
		fuzz_session(MONITOR_HMP, "", input);
		break;
	case MODE_EDITOR:
		fuzz_editor(input);
		break;
	case MODE_STATE:
		fuzz_state(input);
		break;
	}
	return 0;
}
