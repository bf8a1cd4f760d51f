// What the tests of QMP and HMP share: monitors on sockets with a fake machine behind, a client.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../backend/chardev_util.h"
#include "backend/chardev/chardev_set.h"
#include "fake_update.h"
#include "monitor/monitors.h"

/** struct bed - Monitors "qmp0" and "hmp0" on UNIX sockets; @quit: reason quit was called with */
struct bed {
	char *dir;
	struct update *update;
	struct monitors *monitors;
	char *quit;
};

static inline void bed_quit(void *opaque, const char *reason)
{
	((struct bed *)opaque)->quit = g_strdup(reason);
}

static inline char *bed_path(const struct bed *bed, const char *name)
{
	return g_build_filename(bed->dir, name, NULL);
}

static inline void bed_add(const struct bed *bed, struct vm_config *config, const char *name,
			   enum monitor_kind kind)
{
	struct chardev_config *chardev = g_new0(struct chardev_config, 1);
	struct monitor_config *monitor = g_new0(struct monitor_config, 1);

	chardev->kind = CHARDEV_SOCKET;
	chardev->id = g_strdup(name);
	chardev->path = bed_path(bed, name);
	chardev->server = true;
	monitor->kind = kind;
	monitor->chardev = g_strdup(name);
	g_ptr_array_add(config->chardevs, chardev);
	g_ptr_array_add(config->monitors, monitor);
}

/* @dir is taken, NULL: a new one */
static inline struct vm_config *bed_prepare(struct bed *bed, char *dir)
{
	struct vm_config *config = vm_config_new();

	*bed = (struct bed){.dir = dir ? dir : scratch_dir_new()};
	bed_add(bed, config, "qmp0", MONITOR_QMP);
	bed_add(bed, config, "hmp0", MONITOR_HMP);
	return config;
}

static inline void bed_open(struct bed *bed)
{
	g_autoptr(GError) error = NULL;

	bed->monitors = monitors_new(bed->update, bed_quit, bed, &error);
	g_assert_no_error(error);
	g_assert_nonnull(bed->monitors);
}

static inline void bed_init(struct bed *bed, bool with_machine)
{
	struct vm_config *config = bed_prepare(bed, NULL);

	bed->update = fake_update_new(config, with_machine);
	bed_open(bed);
	monitors_start(bed->monitors);
}

static inline void bed_clear(struct bed *bed)
{
	monitors_free(bed->monitors);
	update_free(bed->update);
	g_free(bed->quit);
	scratch_dir_free(bed->dir);
}

/** struct client - The other end of a monitor's socket; @in: received and not looked at yet */
struct client {
	int fd;
	GString *in;
	bool closed;
};

static inline void client_init(struct client *client, const struct bed *bed, const char *name)
{
	g_autofree char *path = bed_path(bed, name);

	*client = (struct client){.fd = connect_unix(path), .in = g_string_new(NULL)};
	g_assert_cmpint(fcntl(client->fd, F_SETFL, O_NONBLOCK), ==, 0);
}

static inline void client_clear(struct client *client)
{
	fd_close(&client->fd);
	g_string_free(client->in, TRUE);
}

static inline void client_pump(struct client *client)
{
	char buf[65536];
	ssize_t n;

	g_main_context_iteration(NULL, FALSE);
	n = read(client->fd, buf, sizeof(buf));
	if (n > 0)
		g_string_append_len(client->in, buf, n);
	else
		client->closed = client->closed || n == 0 || errno != EAGAIN;
}

/** client_until() - What comes up to and with @end; the test fails after ten seconds. */
static inline char *client_until(struct client *client, const char *end)
{
	gint64 deadline = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;
	size_t len;
	char *text;

	while (!strstr(client->in->str, end)) {
		client_pump(client);
		if (g_get_monotonic_time() > deadline || client->closed)
			g_error("'%s' did not come, but '%s'", end, client->in->str);
	}
	len = strstr(client->in->str, end) - client->in->str + strlen(end);
	text = g_strndup(client->in->str, len);
	g_string_erase(client->in, 0, len);
	return text;
}

/** client_json() - The next line, parsed; to be freed with json_decref(). */
static inline json_t *client_json(struct client *client)
{
	g_autofree char *line = client_until(client, "\r\n");
	json_error_t why;
	json_t *json = json_loads(line, 0, &why);

	if (!json)
		g_error("not JSON: '%s'", line);
	return json;
}

/** client_expect() - The next line, compact and sorted, is @text. */
static inline void client_expect(struct client *client, const char *text)
{
	json_t *json = client_json(client);
	char *got = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);

	g_assert_cmpstr(got, ==, text);
	free(got);
	json_decref(json);
}

static inline void client_say(struct client *client, const char *text)
{
	send_text(client->fd, text);
}

/** client_ask() - Send @text and expect the answer @answer. */
static inline void client_ask(struct client *client, const char *text, const char *answer)
{
	client_say(client, text);
	client_expect(client, answer);
}

static inline void client_negotiate(struct client *client)
{
	json_t *greeting = client_json(client);

	g_assert_nonnull(json_object_get(greeting, "QMP"));
	json_decref(greeting);
	client_ask(client, "{\"execute\":\"qmp_capabilities\"}", "{\"return\":{}}");
}

/** client_nothing() - Nothing more comes. */
static inline void client_nothing(struct client *client)
{
	settle();
	client_pump(client);
	g_assert_cmpstr(client->in->str, ==, "");
}

/** bed_succeed() - What an exec makes of @old: the same sockets, the saved state. */
static inline void bed_succeed(struct bed *old, struct bed *new, struct fdstore **store)
{
	g_autoptr(GError) error = NULL;
	autoptr(state_writer) writer = state_writer_begin("test");
	autoptr(state_reader) reader = NULL;
	g_autoptr(GBytes) bytes = NULL;
	struct vm_config *config;

	old->update->active = true;
	g_assert_true(old->update->extra.save(old->update->extra.opaque, writer, false, &error));
	bytes = state_writer_finish(writer, &error);
	g_assert_no_error(error);
	*store = hand_over(update_fds(old->update));
	config = bed_prepare(new, g_strdup(old->dir));
	new->update = fake_update_new(config, true);
	new->update->fds.inherited = *store;
	bed_open(new);
	g_assert_true(fdstore_finish(*store, NULL, NULL, &error));
	reader = state_reader_open(bytes, &error);
	g_assert_no_error(error);
	g_assert_true(new->update->extra.load(new->update->extra.opaque, reader, &error));
	g_assert_no_error(error);
}
