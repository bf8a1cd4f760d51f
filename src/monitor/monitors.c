// The monitors of a process: sessions on chardevs, and what they all are told.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/monitors.h"

#include <string.h>

#include "backend/chardev/chardev_set.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "machine/machine.h"
#include "monitor/session.h"

/* How soon after a failed update the sessions go on. */
#define MONITORS_ASK_MS 10

/**
 * struct monitors - See monitors.h
 * @sessions:	struct session *
 * @machine:	Whose events are listened to; NULL: none yet
 * @started:	monitors_start() was called
 * @ask:	After saving: looks whether the update that saved has failed
 */
struct monitors {
	struct update *update;
	struct chardev_set *chardevs;
	void (*quit)(void *opaque, const char *reason);
	void *quit_opaque;
	GPtrArray *sessions;
	struct machine *machine;
	bool started;
	GSource *ask;
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
	if (own && monitors->started)
		chardev_resume(chardev);
	return true;
}

/* Open what can be opened and is not open yet: shared chardevs need the machine. */
static bool monitors_open_all(struct monitors *monitors, GError **error)
{
	const struct vm_config *config = update_config(monitors->update);

	for (guint i = 0; i < config->monitors->len; i++) {
		const struct monitor_config *monitor = config->monitors->pdata[i];
		bool own = chardev_is_monitors(config, monitor->chardev);
		unsigned int instance = 0;

		for (guint k = 0; k < i; k++) {
			const struct monitor_config *other = config->monitors->pdata[k];

			instance += strcmp(other->chardev, monitor->chardev) == 0;
		}
		if (monitors_find(monitors, monitor->chardev, instance) ||
		    (!own && !update_machine(monitors->update)))
			continue;
		if (!monitors_open(monitors, monitor, instance, own, error)) {
			g_prefix_error(error, "monitor: ");
			return false;
		}
	}
	return true;
}

static void monitors_machine_ready(void *opaque, struct machine *machine)
{
	struct monitors *monitors = opaque;
	g_autoptr(GError) error = NULL;

	monitors->machine = machine;
	machine_add_listener(machine, monitors_machine_event, monitors);
	/* The guest is worth more than a monitor: go on without. */
	if (!monitors_open_all(monitors, &error))
		log_error("%s", error->message);
}

/* ---- update ---- */

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

static gboolean monitors_ask(void *opaque)
{
	struct monitors *monitors = opaque;

	if (update_active(monitors->update))
		return G_SOURCE_CONTINUE;
	loop_unwatch(&monitors->ask);
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

static bool monitors_save(void *opaque, struct state_writer *writer, GError **error)
{
	struct monitors *monitors = opaque;

	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];

		if (session->own)
			chardev_quiesce(session->chardev);
	}
	if (!monitors->ask)
		monitors->ask = loop_after_ms(MONITORS_ASK_MS, monitors_ask, monitors);
	for (guint i = 0; i < monitors->sessions->len; i++)
		if (!session_write_sections(monitors->sessions->pdata[i], writer, error))
			return false;
	return true;
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
	session_load(session, state);
	return true;
}

static bool monitors_load(void *opaque, struct state_reader *reader, GError **error)
{
	struct monitors *monitors = opaque;

	for (guint i = 0; i < monitors->sessions->len; i++)
		if (!session_read_sections(monitors->sessions->pdata[i], reader, error))
			return false;
	return true;
}

/* ---- life ---- */

struct monitors *monitors_new(struct update *update, void (*quit)(void *opaque, const char *reason),
			      void *opaque, GError **error)
{
	autoptr(monitors) monitors = g_new0(struct monitors, 1);
	const struct update_extra extra = {monitors_save, monitors_load, monitors};

	monitors->update = update;
	monitors->chardevs = update_chardevs(update);
	monitors->quit = quit;
	monitors->quit_opaque = opaque;
	monitors->sessions = g_ptr_array_new();
	if (!monitors_open_all(monitors, error))
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
