// The monitors of a process: sessions on chardevs, and what they all are told.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/monitors.h"

#include <string.h>

#include "backend/chardev/chardev_set.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "machine/machine.h"
#include "monitor/session.h"

/* The stream with the sessions' state, in the fd registry beside their connections. */
#define MONITORS_STATE CHARDEV_MONITOR_PREFIX "state"

/* How soon after a failed update the sessions go on. */
#define MONITORS_ASK_MS 10

/**
 * struct monitors - See monitors.h
 * @sessions:	struct session *
 * @machine:	Whose events are listened to; NULL: none yet
 * @started:	monitors_start() was called
 * @state_fd:	The stream that a successor reads, -1 but between saving and exec
 * @ask:	After saving: looks whether the update that saved has failed
 * @handed:	What a predecessor left, for sessions as they are opened; NULL: nothing
 */
struct monitors {
	struct update *update;
	struct chardev_set *chardevs;
	void (*quit)(void *opaque, const char *reason);
	void *quit_opaque;
	GPtrArray *sessions;
	struct machine *machine;
	bool started;
	int state_fd;
	GSource *ask;
	struct state_reader *handed;
};

struct update *monitors_update(struct monitors *monitors)
{
	return monitors->update;
}

void monitors_request_quit(struct monitors *monitors)
{
	monitors->quit(monitors->quit_opaque, "host-qmp-quit");
}

/* ---- events ---- */

static json_t *event_new(const char *name, json_t *data)
{
	int64_t now_us = g_get_real_time();
	json_t *event = json_pack("{s:{s:I, s:I}, s:s}", "timestamp", "seconds",
				  (json_int_t)(now_us / G_USEC_PER_SEC), "microseconds",
				  (json_int_t)(now_us % G_USEC_PER_SEC), "event", name);

	if (data)
		json_object_set(event, "data", data);
	return event;
}

void monitors_emit(struct monitors *monitors, const char *name, json_t *data)
{
	json_t *event = event_new(name, data);

	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];

		session->ops->event(session, event);
	}
	json_decref(event);
}

static void monitors_machine_event(void *opaque, enum machine_event event, json_t *data)
{
	static const char *const names[] = {
		[MACHINE_EVENT_STOP] = "STOP",		 [MACHINE_EVENT_RESUME] = "RESUME",
		[MACHINE_EVENT_RESET] = "RESET",	 [MACHINE_EVENT_SHUTDOWN] = "SHUTDOWN",
		[MACHINE_EVENT_POWERDOWN] = "POWERDOWN",
	};

	monitors_emit(opaque, names[event], data);
}

static void monitors_update_event(void *opaque, const char *event, json_t *data)
{
	monitors_emit(opaque, event, data);
}

/* ---- what crosses an exec ---- */

static char *section_name(const struct session *session, const char *what)
{
	return g_strdup_printf("monitor/%s/%s", chardev_id(session->chardev), what);
}

static struct state_desc chardev_desc(void)
{
	struct state_desc desc = chardev_state_desc;

	/* A successor may have other monitors. */
	desc.flags |= STATE_OPTIONAL;
	return desc;
}

static bool session_read_sections(struct session *session, struct state_reader *reader,
				  GError **error)
{
	g_autofree struct monitor_session_state *state = g_new0(struct monitor_session_state, 1);
	g_autofree char *session_section = section_name(session, "session");
	g_autofree char *chardev_section = section_name(session, "chardev");
	struct state_desc desc = chardev_desc();

	if (session->own && session->instance == 0 &&
	    state_reader_find(reader, chardev_section, 0, NULL) &&
	    !state_reader_load(reader, chardev_section, 0, &desc, NULL,
			       chardev_state(session->chardev), error))
		return false;
	if (!state_reader_find(reader, session_section, session->instance, NULL))
		return true;
	if (!state_reader_load(reader, session_section, session->instance, &monitor_session_desc,
			       NULL, state, error))
		return false;
	/* State of a client that is not there any more is of no use to the next one. */
	if (chardev_link_continues(session->link))
		session_load(session, state);
	return true;
}

/* ---- sessions ---- */

static struct session *monitors_find(struct monitors *monitors, const char *chardev,
				     unsigned int instance)
{
	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];

		if (strcmp(chardev_id(session->chardev), chardev) == 0 &&
		    session->instance == instance)
			return session;
	}
	return NULL;
}

static bool monitors_open(struct monitors *monitors, const struct monitor_config *config,
			  unsigned int instance, bool own, GError **error)
{
	struct update *update = monitors->update;
	struct chardev *chardev = chardev_set_open(monitors->chardevs, update_config(update),
						   config->chardev, update_fds(update), error);
	g_autoptr(GError) ignored = NULL;
	struct session *session;

	if (!chardev)
		return false;
	session = session_new(monitors, config, chardev, error);
	if (!session) {
		chardev_set_close(monitors->chardevs, chardev);
		return false;
	}
	session->instance = instance;
	session->own = own;
	g_ptr_array_add(monitors->sessions, session);
	if (monitors->handed && !session_read_sections(session, monitors->handed, &ignored))
		log_warn("a monitor's client has to begin anew: %s", ignored->message);
	if (own && monitors->started)
		chardev_resume(chardev);
	return true;
}

/* Open the configuration's monitor @index, unless it is open.  Those on shared chardevs have to
 * wait for the machine, and only those are left to be opened when it comes. */
static bool monitors_open_index(struct monitors *monitors, guint index, GError **error)
{
	const struct vm_config *config = update_config(monitors->update);
	const struct monitor_config *monitor = config->monitors->pdata[index];
	bool own = chardev_is_monitors(config, monitor->chardev);
	unsigned int instance = 0;

	for (guint i = 0; i < index; i++) {
		const struct monitor_config *other = config->monitors->pdata[i];

		instance += strcmp(other->chardev, monitor->chardev) == 0;
	}
	if (monitors_find(monitors, monitor->chardev, instance) ||
	    (own ? monitors->machine != NULL : !update_machine(monitors->update)) ||
	    monitors_open(monitors, monitor, instance, own, error))
		return true;
	g_prefix_error(error, "monitor: ");
	return false;
}

/* The guest of a predecessor is worth more than a monitor: with @keep_going failures are logged. */
static bool monitors_open_all(struct monitors *monitors, bool keep_going, GError **error)
{
	const GPtrArray *configs = update_config(monitors->update)->monitors;

	for (guint i = 0; i < configs->len; i++) {
		g_autoptr(GError) failure = NULL;

		if (monitors_open_index(monitors, i, &failure))
			continue;
		if (!keep_going) {
			g_propagate_error(error, g_steal_pointer(&failure));
			return false;
		}
		log_error("%s", failure->message);
	}
	return true;
}

static void monitors_machine_ready(void *opaque, struct machine *machine)
{
	struct monitors *monitors = opaque;

	monitors->machine = machine;
	machine_add_listener(machine, monitors_machine_event, monitors);
	monitors_open_all(monitors, true, NULL);
}

/* ---- update ---- */

static void monitors_unsave(struct monitors *monitors)
{
	fd_withdraw(update_fds(monitors->update), MONITORS_STATE);
	fd_close(&monitors->state_fd);
}

static gboolean monitors_ask(void *opaque)
{
	struct monitors *monitors = opaque;

	if (update_active(monitors->update))
		return G_SOURCE_CONTINUE;
	loop_unwatch(&monitors->ask);
	monitors_unsave(monitors);
	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];

		if (session->own)
			chardev_resume(session->chardev);
	}
	return G_SOURCE_REMOVE;
}

static bool session_write_sections(struct session *session, struct state_writer *writer,
				   GError **error)
{
	g_autofree struct monitor_session_state *state = g_new0(struct monitor_session_state, 1);
	g_autofree char *session_section = section_name(session, "session");
	g_autofree char *chardev_section = section_name(session, "chardev");
	struct state_desc desc = chardev_desc();

	session_save(session, state);
	if (!state_writer_add(writer, session_section, session->instance, &monitor_session_desc,
			      state, error))
		return false;
	return !session->own || session->instance > 0 ||
	       state_writer_add(writer, chardev_section, 0, &desc, chardev_state(session->chardev),
				error);
}

static GBytes *monitors_stream(struct monitors *monitors, GError **error)
{
	autoptr(state_writer) writer = state_writer_begin("molt " MOLT_VERSION);

	for (guint i = 0; i < monitors->sessions->len; i++)
		if (!session_write_sections(monitors->sessions->pdata[i], writer, error))
			return NULL;
	return state_writer_finish(writer, error);
}

/*
 * A stream of their own in a descriptor, not sections among the machine's: a successor that waits
 * for migrate-incoming needs its clients' state before it loads the machine's.
 */
static bool monitors_save(void *opaque, struct state_writer *writer, GError **error)
{
	struct monitors *monitors = opaque;
	g_autoptr(GBytes) stream = NULL;

	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];

		if (session->own)
			chardev_quiesce(session->chardev);
	}
	if (!monitors->ask)
		monitors->ask = loop_after_ms(MONITORS_ASK_MS, monitors_ask, monitors);
	stream = monitors_stream(monitors, error);
	if (!stream)
		return false;
	monitors_unsave(monitors);
	monitors->state_fd = state_bytes_seal(stream, "molt-monitors", error);
	return monitors->state_fd >= 0 && fd_publish(update_fds(monitors->update), MONITORS_STATE,
						     FD_CHAR, monitors->state_fd, error);
}

/* A stream that is missing or damaged costs the clients a greeting, not the guest its life. */
static void monitors_take_handed(struct monitors *monitors)
{
	g_autoptr(GError) error = NULL;
	autofd int fd = fd_inherit(update_fds(monitors->update), MONITORS_STATE, FD_CHAR, &error);
	g_autoptr(GBytes) stream = NULL;

	if (fd >= 0) {
		fd_withdraw(update_fds(monitors->update), MONITORS_STATE);
		stream = state_bytes_map(fd, &error);
	}
	if (stream)
		monitors->handed = state_reader_open(stream, &error);
	if (error)
		log_warn("the monitors' clients have to begin anew: %s", error->message);
}

/* ---- life ---- */

struct monitors *monitors_new(struct update *update, void (*quit)(void *opaque, const char *reason),
			      void *opaque, GError **error)
{
	autoptr(monitors) monitors = g_new0(struct monitors, 1);
	const struct update_extra extra = {monitors_save, NULL, monitors};

	monitors->update = update;
	monitors->chardevs = update_chardevs(update);
	monitors->quit = quit;
	monitors->quit_opaque = opaque;
	monitors->sessions = g_ptr_array_new();
	monitors->state_fd = -1;
	monitors_take_handed(monitors);
	if (!monitors_open_all(monitors, update_fds(update)->inherited, error))
		return NULL;
	update_set_extra(update, &extra);
	update_add_listener(update, monitors_update_event, monitors);
	update_on_machine(update, monitors_machine_ready, monitors);
	return g_steal_pointer(&monitors);
}

void monitors_start(struct monitors *monitors)
{
	monitors->started = true;
	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];

		if (session->own)
			chardev_resume(session->chardev);
	}
}

void monitors_free(struct monitors *monitors)
{
	if (!monitors)
		return;
	loop_unwatch(&monitors->ask);
	monitors_unsave(monitors);
	state_reader_free(monitors->handed);
	if (monitors->machine)
		machine_remove_listener(monitors->machine, monitors_machine_event, monitors);
	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];
		struct chardev *chardev = session->chardev;

		session_free(session);
		chardev_set_close(monitors->chardevs, chardev);
	}
	g_ptr_array_unref(monitors->sessions);
	g_free(monitors);
}
