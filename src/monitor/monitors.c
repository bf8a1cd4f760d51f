// The monitors of a process: sessions on chardevs, and what they all are told.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/monitors.h"

#include <string.h>

#include "backend/chardev/chardev_set.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "machine/machine.h"
#include "monitor/session.h"

/* How long the last words of all monitors may take at the end of the process. */
#define MONITORS_FLUSH_MS 500

/*
 * How long an event may wait.  Longer than a pause: an old process that wrote to sockets as soon as it has
 * said "go" would do so on the processor that its successor wants.
 */
#define MONITORS_DELIVER_US 2000

/**
 * struct monitors - See monitors.h
 * @sessions:	struct session *
 * @machine:	Whose events are listened to; NULL: none yet
 * @started:	monitors_start() was called
 * @saved:	The own chardevs are quiesced since monitors_save()
 * @idle:	Lets sessions go on when no update is in progress any more
 * @events:	Emitted and not yet delivered
 * @deliver:	Does so from the main loop
 * @handed:	What a predecessor left: section and instance to its struct in wire form.  Kept for
 *		sessions on shared chardevs, which are opened when the machine has come
 */
struct monitors {
	struct update *update;
	struct chardev_set *chardevs;
	void (*quit)(void *opaque, const char *reason);
	void *quit_opaque;
	GPtrArray *sessions;
	struct machine *machine;
	bool started;
	bool saved;
	GSource *idle;
	GPtrArray *events; /* json_t * */
	GSource *deliver;
	GHashTable *handed; /* char * to GBytes */
};

struct update *monitors_update(struct monitors *monitors)
{
	return monitors->update;
}

void monitors_request_quit(struct monitors *monitors)
{
	monitors->quit(monitors->quit_opaque, "host-qmp-quit");
}

/* Ctrl-A x on a multiplexed chardev. */
static void monitors_console_quit(void *opaque)
{
	struct monitors *monitors = opaque;

	monitors->quit(monitors->quit_opaque, "host-ui");
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
	g_ptr_array_add(monitors->events, event_new(name, data));
	g_source_set_ready_time(monitors->deliver, g_get_monotonic_time() + MONITORS_DELIVER_US);
}

void monitors_deliver(struct monitors *monitors)
{
	/* One that is being delivered may bring about the next. */
	while (monitors->events->len > 0) {
		json_t *event = g_ptr_array_steal_index(monitors->events, 0);

		for (guint i = 0; i < monitors->sessions->len; i++) {
			struct session *session = monitors->sessions->pdata[i];

			session->ops->event(session, event);
		}
		json_decref(event);
	}
}

static gboolean monitors_deliver_now(void *opaque)
{
	monitors_deliver(opaque);
	return G_SOURCE_CONTINUE;
}

static void monitors_machine_event(void *opaque, enum machine_event event, json_t *data)
{
	static const char *const names[] = {
		[MACHINE_EVENT_STOP] = "STOP",
		[MACHINE_EVENT_RESUME] = "RESUME",
		[MACHINE_EVENT_RESET] = "RESET",
		[MACHINE_EVENT_SHUTDOWN] = "SHUTDOWN",
		[MACHINE_EVENT_POWERDOWN] = "POWERDOWN",
		[MACHINE_EVENT_DEVICE_DELETED] = "DEVICE_DELETED",
		[MACHINE_EVENT_UNPLUG_GUEST_ERROR] = "DEVICE_UNPLUG_GUEST_ERROR",
		[MACHINE_EVENT_BLOCK_IO_ERROR] = "BLOCK_IO_ERROR",
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

static char *handed_key(const char *name, uint32_t instance)
{
	return g_strdup_printf("%s#%u", name, instance);
}

/* Return: whether @obj was loaded from what was handed over. */
static bool read_section(struct session *session, const char *what, const struct state_desc *desc,
			 GHashTable *handed, void *obj)
{
	g_autofree char *name = section_name(session, what);
	g_autofree char *key = handed_key(name, session->instance);
	GBytes *bytes = g_hash_table_lookup(handed, key);
	g_autoptr(GError) error = NULL;

	if (!bytes)
		return false;
	if (!state_load(desc, span_of_bytes(bytes), NULL, obj, &error))
		log_warn("a client has to begin anew: %s: %s", name, error->message);
	return !error;
}

static void session_read_sections(struct session *session, GHashTable *handed)
{
	g_autofree struct monitor_session_state *state = g_new0(struct monitor_session_state, 1);

	if (session->own && session->instance == 0)
		read_section(session, "chardev", &chardev_state_desc, handed,
			     chardev_state(session->chardev));
	/* State of a client that is not there any more is of no use to the next one. */
	if (read_section(session, "session", &monitor_session_desc, handed, state) &&
	    chardev_link_continues(session->link))
		session_load(session, state);
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
	session_read_sections(session, monitors->handed);
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
	    (own ? monitors->machine && !monitors->started : !update_machine(monitors->update)) ||
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
		/* What a predecessor had not is opened when there is time: monitors_start(). */
		if (!update_fds(monitors->update)->complete)
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

/* The update failed that the sessions were saved for, or the one that some wait for has ended. */
static gboolean monitors_go_on(void *opaque)
{
	struct monitors *monitors = opaque;

	if (update_active(monitors->update))
		return G_SOURCE_CONTINUE;
	for (guint i = 0; i < monitors->sessions->len && monitors->saved; i++) {
		struct session *session = monitors->sessions->pdata[i];

		if (session->own)
			chardev_resume(session->chardev);
	}
	monitors->saved = false;
	for (guint i = 0; i < monitors->sessions->len; i++)
		session_go_on(monitors->sessions->pdata[i]);
	return G_SOURCE_CONTINUE;
}

void monitors_look(struct monitors *monitors)
{
	g_source_set_ready_time(monitors->idle, 0);
}

static void monitors_update_idle(void *opaque)
{
	monitors_look(opaque);
}

static bool session_write_sections(struct session *session, struct state_writer *writer,
				   GError **error)
{
	g_autofree struct monitor_session_state *state = g_new0(struct monitor_session_state, 1);
	g_autofree char *session_section = section_name(session, "session");
	g_autofree char *chardev_section = section_name(session, "chardev");

	session_save(session, state);
	if (!state_writer_add(writer, session_section, session->instance, &monitor_session_desc,
			      state, error))
		return false;
	return !session->own || session->instance > 0 ||
	       state_writer_add(writer, chardev_section, 0, &chardev_state_desc,
				chardev_state(session->chardev), error);
}

static bool monitors_write(struct monitors *monitors, struct state_writer *writer, GError **error)
{
	for (guint i = 0; i < monitors->sessions->len; i++)
		if (!session_write_sections(monitors->sessions->pdata[i], writer, error))
			return false;
	return true;
}

static bool monitors_save(void *opaque, struct state_writer *writer, bool running, GError **error)
{
	struct monitors *monitors = opaque;

	if (running)
		return monitors_write(monitors, writer, error);
	monitors_deliver(monitors);
	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];

		if (session->own)
			chardev_quiesce(session->chardev);
	}
	monitors->saved = true;
	return monitors_write(monitors, writer, error);
}

/* A section that is damaged costs a client its session, not the guest its life. */
static bool monitors_load(void *opaque, struct state_reader *reader, GError **error)
{
	struct monitors *monitors = opaque;
	struct span payload;
	uint32_t instance;
	const char *name;

	for (uint32_t i = 0; state_reader_get(reader, i, &name, &instance, &payload); i++)
		g_hash_table_insert(monitors->handed, handed_key(name, instance),
				    g_bytes_new(payload.data, payload.len));
	for (guint i = 0; i < monitors->sessions->len; i++)
		session_read_sections(monitors->sessions->pdata[i], monitors->handed);
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
	monitors->events = g_ptr_array_new();
	monitors->deliver = loop_when_told(monitors_deliver_now, monitors);
	monitors->idle = loop_when_told(monitors_go_on, monitors);
	monitors->handed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
						 (GDestroyNotify)g_bytes_unref);
	if (!monitors_open_all(monitors, update_fds(update)->inherited, error))
		return NULL;
	chardev_set_on_quit(monitors->chardevs, monitors_console_quit, monitors);
	update_set_extra(update, &extra);
	update_add_listener(update, monitors_update_event, monitors);
	update_on_idle(update, monitors_update_idle, monitors);
	update_on_machine(update, monitors_machine_ready, monitors);
	return g_steal_pointer(&monitors);
}

void monitors_start(struct monitors *monitors)
{
	monitors->started = true;
	/* After an exec, those that are new: nothing is bound before the guest runs, or is waited for. */
	monitors_open_all(monitors, true, NULL);
	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];

		if (session->own)
			chardev_resume(session->chardev);
	}
}

void monitors_free(struct monitors *monitors)
{
	uint64_t deadline_ns;

	if (!monitors)
		return;
	deadline_ns = clock_deadline_ms(MONITORS_FLUSH_MS);
	loop_unwatch(&monitors->idle);
	loop_unwatch(&monitors->deliver);
	monitors_deliver(monitors);
	g_ptr_array_unref(monitors->events);
	g_hash_table_unref(monitors->handed);
	if (monitors->machine)
		machine_remove_listener(monitors->machine, monitors_machine_event, monitors);
	for (guint i = 0; i < monitors->sessions->len; i++) {
		struct session *session = monitors->sessions->pdata[i];
		struct chardev *chardev = session->chardev;

		session_free(session, deadline_ns);
		chardev_set_close(monitors->chardevs, chardev);
	}
	g_ptr_array_unref(monitors->sessions);
	g_free(monitors);
}
