// One monitor: a protocol engine on a chardev.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/session.h"

#include <string.h>

#include "base/log.h"
#include "base/loop.h"

/* What a session takes in one go; more waits in the chardev. */
#define SESSION_READ_BYTES 4096

/* Commands in one turn of the main loop: other monitors and the guest's devices have theirs too. */
#define SESSION_COMMANDS 8

/* No command is read while the client has left this much of the answers unread. */
#define SESSION_BACKLOG_BYTES (256U << 10)

static const struct state_field monitor_session_fields[] = {
	FIELD(struct monitor_session_state, negotiated, 1),
	FIELD(struct monitor_session_state, input_lost, 2),
	FIELD_PAD(struct monitor_session_state, pad),
	FIELD_LIST(struct monitor_session_state, input, n_input, 3),
};

const struct state_desc monitor_session_desc = {
	.name = "monitor-session",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct monitor_session_state, monitor_session_fields),
};

/* Whether the client has to read first; session_writable() is called when it has. */
static bool session_backlogged(struct session *session)
{
	return chardev_backlog(session->link, SESSION_BACKLOG_BYTES);
}

/* Give the protocol what was received, as far as it takes it and as one turn allows. */
static void session_process(struct session *session)
{
	g_autoptr(GByteArray) input = session->input;
	unsigned int n = 0;
	size_t taken = 0;

	session->input = g_byte_array_new();
	while (taken < input->len && n++ < SESSION_COMMANDS && !session->suspended &&
	       !session_backlogged(session))
		taken += session->ops->input(session, input->data + taken, input->len - taken);
	g_byte_array_append(session->input, input->data + taken, input->len - taken);
	if (n > SESSION_COMMANDS && session->input->len > 0)
		g_source_set_ready_time(session->more, 0);
}

static gboolean session_more(void *opaque)
{
	struct session *session = opaque;

	session_process(session);
	chardev_accept_input(session->link);
	return G_SOURCE_CONTINUE;
}

/* ---- frontend of the chardev ---- */

static size_t session_can_receive(void *opaque)
{
	struct session *session = opaque;

	if (session->suspended || session->input->len > 0 || session_backlogged(session))
		return 0;
	return SESSION_READ_BYTES;
}

/* The client has read what there was. */
static void session_writable(void *opaque)
{
	session_more(opaque);
}

static void session_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct session *session = opaque;

	g_byte_array_append(session->input, buf, len);
	session_process(session);
}

static void session_open(struct session *session)
{
	bool restored = session->restored;

	session->restored = false;
	session->ops->opened(session, restored);
	session_process(session);
}

static void session_event(void *opaque, enum chardev_event event)
{
	struct session *session = opaque;

	switch (event) {
	case CHARDEV_OPENED:
		session_open(session);
		break;
	case CHARDEV_CLOSED:
		session->restored = false;
		g_byte_array_set_size(session->input, 0);
		session->ops->closed(session);
		break;
	case CHARDEV_MUX_IN:
	case CHARDEV_MUX_OUT:
		if (session->ops->focus)
			session->ops->focus(session, event == CHARDEV_MUX_IN);
		break;
	case CHARDEV_BREAK:
		break;
	}
}

static const struct chardev_frontend session_frontend = {
	.can_receive = session_can_receive,
	.receive = session_receive,
	.event = session_event,
	.writable = session_writable,
};

/* ---- life ---- */

struct session *session_new(struct monitors *monitors, const struct monitor_config *config,
			    struct chardev *chardev, GError **error)
{
	const struct session_ops *ops = config->kind == MONITOR_QMP ? &qmp_session_ops
								    : &hmp_session_ops;
	struct session *session = g_malloc0(ops->size);

	session->ops = ops;
	session->monitors = monitors;
	session->chardev = chardev;
	session->pretty = config->pretty;
	session->input = g_byte_array_new();
	session->more = loop_when_told(session_more, session);
	ops->init(session);
	session->link = chardev_attach(chardev, &session_frontend, session, error);
	if (!session->link) {
		session_free(session, 0);
		return NULL;
	}
	return session;
}

void session_free(struct session *session, uint64_t deadline_ns)
{
	if (!session)
		return;
	loop_unwatch(&session->more);
	if (session->link) {
		chardev_flush(session->link, deadline_ns);
		chardev_detach(session->link);
	}
	session->ops->clear(session);
	g_byte_array_unref(session->input);
	g_free(session);
}

void session_write(struct session *session, const char *text, size_t len)
{
	chardev_write_all(session->link, (const uint8_t *)text, len);
}

void session_suspend(struct session *session)
{
	session->suspended = true;
	/* It may have ended while the command ran. */
	monitors_look(session->monitors);
}

void session_go_on(struct session *session)
{
	if (!session->suspended)
		return;
	session->suspended = false;
	if (session->ops->idle)
		session->ops->idle(session);
	session_more(session);
}

/* ---- update ---- */

void session_save(struct session *session, struct monitor_session_state *state)
{
	g_autoptr(GByteArray) input = g_byte_array_new();

	memset(state, 0, sizeof(*state));
	if (session->ops->negotiated)
		state->negotiated = *session->ops->negotiated(session);
	session->ops->pending(session, input);
	g_byte_array_append(input, session->input->data, session->input->len);
	state->input_lost = input->len > SESSION_INPUT_BYTES;
	state->n_input = state->input_lost ? 0 : input->len;
	if (state->n_input)
		memcpy(state->input, input->data, state->n_input);
}

void session_load(struct session *session, const struct monitor_session_state *state)
{
	session->restored = true;
	if (session->ops->negotiated)
		*session->ops->negotiated(session) = state->negotiated;
	g_byte_array_append(session->input, state->input, state->n_input);
	if (state->input_lost)
		log_warn("monitor '%s': half a command was too long to carry over and is lost",
			 chardev_id(session->chardev));
}
