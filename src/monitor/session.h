// One monitor: a protocol engine on a chardev.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "backend/chardev/chardev.h"
#include "base/cleanup.h"
#include "monitor/monitors.h"
#include "options/config.h"
#include "state/state.h"

/* Half a command that is longer does not cross an update. */
#define SESSION_INPUT_BYTES (64U << 10)

/**
 * struct monitor_session_state - What of a session survives an exec
 * @negotiated:	QMP: qmp_capabilities was answered
 * @input_lost:	there was more input than @input has room for; it is dropped
 * @input:	bytes received that are not a whole command yet, or wait for one to end
 */
struct monitor_session_state {
	bool negotiated;
	bool input_lost;
	uint8_t pad[2];
	uint32_t n_input;
	uint8_t input[SESSION_INPUT_BYTES];
};

extern const struct state_desc monitor_session_desc;

struct session;

/**
 * struct session_ops - A protocol
 * @size:	Of its struct, which begins with struct session
 * @init, @clear: At the session's beginning and end
 * @opened:	A peer is there.  @restored: the predecessor's, which knows us already
 * @closed:	The peer is gone: forget what it said
 * @focus:	Optional: a multiplexed chardev gave this session the input, or took it
 * @input:	Take bytes, up to the end of one command.  Return: how many, at least one
 * @event:	An event as QMP has it
 * @idle:	Optional: the update that a command waited for has ended
 * @pending:	Append to @out what was taken of a command that is not whole
 * @negotiated:	Optional: of the protocol's struct; NULL where there is nothing to negotiate
 */
struct session_ops {
	size_t size;
	void (*init)(struct session *session);
	void (*clear)(struct session *session);
	void (*opened)(struct session *session, bool restored);
	void (*closed)(struct session *session);
	void (*focus)(struct session *session, bool in);
	size_t (*input)(struct session *session, const uint8_t *data, size_t len);
	void (*event)(struct session *session, const json_t *event);
	void (*idle)(struct session *session);
	void (*pending)(struct session *session, GByteArray *out);
	bool *(*negotiated)(struct session *session);
};

extern const struct session_ops qmp_session_ops, hmp_session_ops;

/**
 * struct session - Common part, first member of each protocol's struct
 * @chardev:	Its chardev, of the shared set; @own: only monitors use it
 * @instance:	Counts the monitors on one chardev
 * @pretty:	QMP: indent
 * @suspended:	Takes no input until the update in progress has ended
 * @restored:	State of a predecessor was loaded
 * @input:	Received while suspended, or more than one turn of the main loop is for
 * @more:	Goes on with it in the next turn
 */
struct session {
	const struct session_ops *ops;
	struct monitors *monitors;
	struct chardev *chardev;
	struct chardev_link *link;
	unsigned int instance;
	bool own;
	bool pretty;
	bool suspended;
	bool restored;
	GByteArray *input;
	GSource *more;
};

/** session_new() - Attach a session to @chardev; it is silent until the chardev is resumed. */
struct session *session_new(struct monitors *monitors, const struct monitor_config *config,
			    struct chardev *chardev, GError **error);

/** session_free() - Flush until @deadline_ns, and end; accepts NULL. */
void session_free(struct session *session, uint64_t deadline_ns);

/** session_write() - Send @text. */
void session_write(struct session *session, const char *text, size_t len);

/** session_suspend() - Take no input until the update in progress has ended. */
void session_suspend(struct session *session);

/** session_go_on() - It has ended: undo session_suspend(), if it was called. */
void session_go_on(struct session *session);

/** session_save(), session_load() - To and from what crosses an exec. */
void session_save(struct session *session, struct monitor_session_state *state);
void session_load(struct session *session, const struct monitor_session_state *state);
