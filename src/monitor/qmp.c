// QMP: greeting, capabilities negotiation, commands, events.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/qmp.h"

#include <string.h>

#include "base/error.h"
#include "monitor/command.h"
#include "monitor/json_stream.h"
#include "monitor/session.h"
#include "options/text.h"

/**
 * struct qmp_session - One client
 * @negotiated:	The peer sent qmp_capabilities
 */
struct qmp_session {
	struct session session;
	struct json_stream *stream;
	bool negotiated;
};

static struct qmp_session *to_qmp(struct session *session)
{
	return (struct qmp_session *)session;
}

json_t *qmp_version(void)
{
	return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "micro", QMP_VERSION_MICRO, "minor",
			 QMP_VERSION_MINOR, "major", QMP_VERSION_MAJOR, "package",
			 "molt-" MOLT_VERSION);
}

/* Takes @json, an object; @id: text of a member that it gets, NULL for none. */
static void qmp_send(struct session *session, json_t *json, const char *id)
{
	size_t flags = JSON_ENSURE_ASCII | (session->pretty ? JSON_INDENT(4) : 0);
	const char *end = session->pretty ? "\n}" : "}";
	char *text = json_dumps(json, flags);
	GString *line = g_string_new_len(text, strlen(text) - strlen(end));

	if (id)
		g_string_append_printf(line, "%s%s",
				       session->pretty ? ",\n    \"id\": " : ", \"id\": ", id);
	g_string_append_printf(line, "%s\r\n", end);
	session_write(session, line->str, line->len);
	g_string_free(line, TRUE);
	free(text);
	json_decref(json);
}

static json_t *qmp_error(const GError *error)
{
	return json_pack("{s:{s:s, s:o}}", "error", "class", error_class_name(error), "desc",
			 json_text(error->message));
}

/* ---- commands ---- */

/* Return: false with @error set unless @request is an object with the members a request may have. */
static bool qmp_check_request(const json_t *request, GError **error)
{
	const json_t *execute = json_object_get(request, "execute");
	const json_t *arguments = json_object_get(request, "arguments");
	const char *key;
	json_t *value;

	if (!json_is_object(request))
		return error_set_generic(error, "QMP input must be a JSON object");
	json_object_foreach((json_t *)request, key, value)
	{
		if (strcmp(key, "execute") != 0 && strcmp(key, "arguments") != 0 &&
		    strcmp(key, "id") != 0) {
			g_autofree char *shown = text_printable(key);

			return error_set_generic(error, "QMP input member '%s' is unexpected",
						 shown);
		}
	}
	if (!execute)
		return error_set_generic(error, "QMP input lacks member 'execute'");
	if (!json_is_string(execute))
		return error_set_generic(error, "QMP input member 'execute' must be a string");
	if (arguments && !json_is_object(arguments))
		return error_set_generic(error, "QMP input member 'arguments' must be an object");
	return true;
}

/* qmp_capabilities opens the session, once; nothing else works before it. */
static bool qmp_check_phase(struct qmp_session *qmp, const char *name, GError **error)
{
	bool opens = strcmp(name, "qmp_capabilities") == 0;

	if (!qmp->negotiated && !opens)
		return error_set(error, MOLT_ERROR_COMMAND_NOT_FOUND,
				 "Expecting capabilities negotiation with 'qmp_capabilities'");
	if (qmp->negotiated && opens)
		return error_set(error, MOLT_ERROR_COMMAND_NOT_FOUND,
				 "Capabilities negotiation is already complete, command ignored");
	return true;
}

static json_t *qmp_dispatch(struct qmp_session *qmp, const json_t *request,
			    struct command_call *call, GError **error)
{
	const struct command *command;
	const char *name;
	json_t *result;

	if (!qmp_check_request(request, error))
		return NULL;
	name = json_string_value(json_object_get(request, "execute"));
	if (!qmp_check_phase(qmp, name, error))
		return NULL;
	command = command_find(name);
	if (!command) {
		g_autofree char *shown = text_printable(name);

		error_set(error, MOLT_ERROR_COMMAND_NOT_FOUND, "The command %s has not been found",
			  shown);
		return NULL;
	}
	result = command_run(command, call, json_object_get(request, "arguments"), error);
	if (result)
		qmp->negotiated = true;
	return result;
}

static void qmp_receive(void *opaque, const json_t *value, const char *id,
			const GError *parse_error)
{
	struct qmp_session *qmp = opaque;
	struct monitors *monitors = qmp->session.monitors;
	struct update *update = monitors_update(monitors);
	struct command_call call = {monitors, update, update_machine(update), NULL};
	g_autoptr(GError) error = parse_error ? g_error_copy(parse_error) : NULL;
	json_t *result, *reply;

	/* What was before the command is told before, what it brings about is told before its reply. */
	monitors_deliver(monitors);
	result = error ? NULL : qmp_dispatch(qmp, value, &call, &error);
	reply = result ? json_pack("{s:o}", "return", result) : qmp_error(error);
	monitors_deliver(monitors);
	qmp_send(&qmp->session, reply, id);
	if (call.after)
		call.after(monitors);
}

/* ---- the protocol ---- */

static void qmp_init(struct session *session)
{
	to_qmp(session)->stream = json_stream_new(qmp_receive, session);
}

static void qmp_clear(struct session *session)
{
	json_stream_free(to_qmp(session)->stream);
}

static void qmp_opened(struct session *session, bool restored)
{
	if (restored)
		return;
	to_qmp(session)->negotiated = false;
	qmp_send(session,
		 json_pack("{s:{s:o, s:[]}}", "QMP", "version", qmp_version(), "capabilities"),
		 NULL);
}

static void qmp_closed(struct session *session)
{
	struct qmp_session *qmp = to_qmp(session);

	qmp->negotiated = false;
	json_stream_reset(qmp->stream);
}

static size_t qmp_input(struct session *session, const uint8_t *data, size_t len)
{
	return json_stream_feed(to_qmp(session)->stream, data, len);
}

static void qmp_event(struct session *session, const json_t *event)
{
	/* Of a predecessor's client it is known before the chardev says that it is there. */
	if (to_qmp(session)->negotiated)
		qmp_send(session, json_incref((json_t *)event), NULL);
}

static void qmp_pending(struct session *session, GByteArray *out)
{
	size_t len;
	const uint8_t *data = json_stream_pending(to_qmp(session)->stream, &len);

	g_byte_array_append(out, data, len);
}

static bool *qmp_negotiated(struct session *session)
{
	return &to_qmp(session)->negotiated;
}

const struct session_ops qmp_session_ops = {
	.size = sizeof(struct qmp_session),
	.init = qmp_init,
	.clear = qmp_clear,
	.opened = qmp_opened,
	.closed = qmp_closed,
	.input = qmp_input,
	.event = qmp_event,
	.pending = qmp_pending,
	.negotiated = qmp_negotiated,
};
