// Character devices and who speaks on them: -chardev, -serial, -monitor, -qmp, -mon.
// SPDX-License-Identifier: Apache-2.0
#include "options/parse.h"

#include <string.h>

#include "base/error.h"
#include "options/check.h"
#include "options/text.h"

#define COMPAT_FORMS \
	"stdio, null, pty, file:PATH, pipe:PATH, unix:PATH, tcp:HOST:PORT, /dev/NAME, chardev:ID, none"

bool explain_chardev(const struct parse *p, const char *kind, GString *out, GError **error)
{
	return explain_kinds(chardev_kinds, "-chardev", kind, out, error);
}

/* "tty" and "parport" are older names of two kinds. */
static void chardev_take_alias(json_t *json)
{
	const char *backend = json_string_value(json_object_get(json, "backend"));

	if (g_strcmp0(backend, "tty") == 0)
		json_object_set_new(json, "backend", json_string("serial"));
	else if (g_strcmp0(backend, "parport") == 0)
		json_object_set_new(json, "backend", json_string("parallel"));
}

/* reconnect= in seconds becomes reconnect-ms=. */
static bool socket_take_reconnect(json_t *json, const char *what, GError **error)
{
	const json_t *given = json_object_get(json, "reconnect");
	uint64_t seconds = 0;
	bool ok = json_is_integer(given) && json_integer_value(given) >= 0;

	if (!given)
		return true;
	if (ok)
		seconds = json_integer_value(given);
	else if (json_is_string(given))
		ok = text_to_u64(json_string_value(given), &seconds);
	if (!ok || seconds > UINT32_MAX / 1000)
		return error_set_generic(error,
					 "%s: reconnect: not a number of seconds; give 0 to %u",
					 what, UINT32_MAX / 1000);
	json_object_set_new(json, "reconnect", json_integer(seconds * 1000));
	return json_rename(json, "reconnect", "reconnect-ms", what, error);
}

/*
 * What a socket's properties may be written as, beside their own names: "nodelay" alone reads as
 * "no delay", that is delay=off.  A server waits unless told otherwise, and an empty host is any
 * address for a server and this host for a client.
 */
static bool socket_take_spellings(json_t *json, const char *what, GError **error)
{
	const char *host = json_string_value(json_object_get(json, "host"));
	bool server = false;
	bool delay;

	if (json_object_get(json, "delay")) {
		if (!json_flag(json, "delay", &delay))
			return error_set_generic(error, "%s: delay: neither on nor off", what);
		json_object_set_new(json, "delay", json_boolean(!delay));
		if (!json_rename(json, "delay", "nodelay", what, error))
			return false;
	}
	if (!socket_take_reconnect(json, what, error))
		return false;
	if (json_flag(json, "server", &server) && server && !json_object_get(json, "wait"))
		json_object_set_new(json, "wait", json_true());
	if (host && *host == '\0')
		json_object_set_new(json, "host", json_string(server ? "0.0.0.0" : "localhost"));
	return true;
}

static bool chardev_add(struct parse *p, json_t *json, GError **error)
{
	struct chardev_config *chardev;

	chardev_take_alias(json);
	if (g_strcmp0(json_string_value(json_object_get(json, "backend")), "socket") == 0 &&
	    !socket_take_spellings(json, p->what, error))
		return false;
	chardev = vm_list_read(VM_LIST_CHARDEVS, json, p->what, error);
	if (!chardev)
		return false;
	vm_config_add(p->config, VM_LIST_CHARDEVS, chardev);
	return chardev_config_check(chardev, p->what, error);
}

bool parse_chardev(struct parse *p, const char *text, json_t *json, GError **error)
{
	return chardev_add(p, json, error);
}

/* "HOST:PORT[,PROPERTIES]"; an IPv6 address is in brackets. */
static json_t *tcp_to_json(const char *text, GError **error)
{
	size_t address_len = strcspn(text, ",");
	g_autofree char *address = g_strndup(text, address_len);
	char *colon = strrchr(address, ':');
	char *host = address;
	json_t *json;

	if (!colon || colon[1] == '\0') {
		error_set_generic(error, "no port; give HOST:PORT");
		return NULL;
	}
	*colon = '\0';
	if (*host == '[' && colon > host + 1 && colon[-1] == ']') {
		host++;
		colon[-1] = '\0';
	}
	json = keyval_parse(text[address_len] ? text + address_len + 1 : "", NULL, error);
	if (!json)
		return NULL;
	json_object_set_new(json, "backend", json_string("socket"));
	json_object_set_new(json, "host", json_string(host));
	json_object_set_new(json, "port", json_string(colon + 1));
	return json;
}

static json_t *unix_to_json(const char *text, GError **error)
{
	json_t *json = *text == '{' ? NULL : keyval_parse(text, "path", error);

	if (json)
		json_object_set_new(json, "backend", json_string("socket"));
	else if (*text == '{')
		error_set_generic(error, "not a path; say ./%s for a file of that name", text);
	return json;
}

/* The short forms of -serial, -monitor and -qmp.  Return: -chardev's object without id, or NULL. */
static json_t *compat_to_json(const char *text, GError **error)
{
	static const struct {
		const char *prefix;
		const char *backend;
		bool keep_prefix; /* it is part of the path */
	} paths[] = {
		{"file:", "file", false},
		{"pipe:", "pipe", false},
		{"/dev/parport", "parallel", true},
		{"/dev/", "serial", true},
	};
	g_autofree char *shown = text_printable(text);

	if (strcmp(text, "null") == 0 || strcmp(text, "pty") == 0 || strcmp(text, "stdio") == 0)
		return json_pack("{ss}", "backend", text);
	for (size_t i = 0; i < G_N_ELEMENTS(paths); i++) {
		size_t len = strlen(paths[i].prefix);

		if (strncmp(text, paths[i].prefix, len) != 0)
			continue;
		if (text[len] == '\0') {
			error_set_generic(error, "no path; give %sPATH", paths[i].prefix);
			return NULL;
		}
		return json_pack("{ssss}", "backend", paths[i].backend, "path",
				 paths[i].keep_prefix ? text : text + len);
	}
	if (g_str_has_prefix(text, "unix:"))
		return unix_to_json(text + strlen("unix:"), error);
	if (g_str_has_prefix(text, "tcp:"))
		return tcp_to_json(text + strlen("tcp:"), error);
	if (strcmp(text, "vc") == 0 || g_str_has_prefix(text, "vc:"))
		error_set_generic(error, "there is no display to show it; give stdio or unix:PATH");
	else
		error_set_generic(error, "'%s' is not available; give one of: %s", shown,
				  COMPAT_FORMS);
	return NULL;
}

static void add_monitor(struct parse *p, const char *chardev, enum monitor_kind kind, bool pretty)
{
	struct monitor_config *monitor = g_new0(struct monitor_config, 1);

	monitor->kind = kind;
	monitor->chardev = g_strdup(chardev);
	monitor->pretty = pretty;
	vm_config_add(p->config, VM_LIST_MONITORS, monitor);
}

/*
 * Makes the chardev @label of a short form.  "mon:" shares it with a monitor; on stdio Ctrl-C then
 * goes to the guest.
 */
static bool compat_add(struct parse *p, const char *label, const char *text, bool *with_monitor,
		       GError **error)
{
	bool mux = g_str_has_prefix(text, "mon:");
	const char *rest = mux ? text + strlen("mon:") : text;
	json_t *json = compat_to_json(rest, error);
	bool ok;

	if (!json) {
		g_prefix_error(error, "%s: ", p->what);
		return false;
	}
	json_object_set_new(json, "id", json_string(label));
	if (mux)
		json_object_set_new(json, "mux", json_true());
	if (mux && strcmp(rest, "stdio") == 0)
		json_object_set_new(json, "signal", json_false());
	ok = chardev_add(p, json, error);
	json_decref(json);
	*with_monitor = mux;
	return ok;
}

static bool serial_add(struct parse *p, const char *text, GError **error)
{
	g_autofree char *label = g_strdup_printf("serial%u", p->config->serials->len);
	struct serial_config *serial;
	const char *id = label;
	bool with_monitor = false;

	if (strcmp(text, "none") == 0)
		id = NULL;
	else if (g_str_has_prefix(text, "chardev:"))
		id = text + strlen("chardev:");
	else if (!compat_add(p, label, text, &with_monitor, error))
		return false;
	serial = g_new0(struct serial_config, 1);
	serial->chardev = g_strdup(id);
	vm_config_add(p->config, VM_LIST_SERIALS, serial);
	if (with_monitor) {
		add_monitor(p, label, MONITOR_HMP, false);
		p->have_monitor = true;
	}
	return true;
}

bool parse_serial(struct parse *p, const char *text, json_t *json, GError **error)
{
	p->have_serial = true;
	return serial_add(p, text, error);
}

/* -monitor, -qmp and -qmp-pretty number their chardevs together. */
static bool monitor_add(struct parse *p, const char *text, enum monitor_kind kind, bool pretty,
			GError **error)
{
	g_autofree char *label = g_strdup_printf("compat_monitor%u", p->n_monitors);
	const char *id = label;
	bool with_monitor;

	p->have_monitor = true;
	if (strcmp(text, "none") == 0)
		return true;
	p->n_monitors++;
	if (g_str_has_prefix(text, "chardev:"))
		id = text + strlen("chardev:");
	else if (!compat_add(p, label, text, &with_monitor, error))
		return false;
	add_monitor(p, id, kind, pretty);
	return true;
}

bool parse_monitor(struct parse *p, const char *text, json_t *json, GError **error)
{
	return monitor_add(p, text, MONITOR_HMP, false, error);
}

bool parse_qmp(struct parse *p, const char *text, json_t *json, GError **error)
{
	return monitor_add(p, text, MONITOR_QMP, false, error);
}

bool parse_qmp_pretty(struct parse *p, const char *text, json_t *json, GError **error)
{
	return monitor_add(p, text, MONITOR_QMP, true, error);
}

bool parse_mon(struct parse *p, const char *text, json_t *json, GError **error)
{
	void *monitor = vm_list_read(VM_LIST_MONITORS, json, p->what, error);

	p->have_monitor = true;
	if (!monitor)
		return false;
	vm_config_add(p->config, VM_LIST_MONITORS, monitor);
	return true;
}

bool add_default_consoles(struct parse *p, GError **error)
{
	if (!p->nographic || p->config->nodefaults)
		return true;
	p->what = "-nographic";
	if (!p->have_serial) {
		p->config->explicit_vm = true;
		return serial_add(p, p->have_monitor ? "stdio" : "mon:stdio", error);
	}
	if (!p->have_monitor)
		return monitor_add(p, "stdio", MONITOR_HMP, false, error);
	return true;
}
