// Migration addresses: URIs, QMP channel objects and -incoming arguments to one struct.
// SPDX-License-Identifier: Apache-2.0
#include "migration/address.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/error.h"
#include "options/props.h"

void migration_address_free(struct migration_address *address)
{
	if (!address)
		return;
	g_free(address->path);
	g_free(address->host);
	g_free(address->port);
	g_free(address->fd_name);
	g_strfreev(address->args);
	g_free(address);
}

static struct migration_address *address_new(enum migration_transport transport)
{
	struct migration_address *address = g_new0(struct migration_address, 1);

	address->transport = transport;
	return address;
}

/* ---- text ---- */

static bool port_check(const char *port, GError **error)
{
	char *end;
	long number;

	if (!g_ascii_isdigit(port[0]))
		return error_set_generic(error, "port '%s' is not a number", port);
	number = strtol(port, &end, 10);
	if (*end || number > 65535)
		return error_set_generic(error, "port '%s' is not a number from 0 to 65535", port);
	return true;
}

static struct migration_address *inet_new(const char *host, const char *port, GError **error)
{
	autoptr(migration_address) address = address_new(MIGRATION_INET);

	if (!port_check(port, error))
		return NULL;
	address->host = g_strdup(host);
	address->port = g_strdup(port);
	return g_steal_pointer(&address);
}

/* "HOST:PORT", "[IPV6]:PORT", ":PORT" */
static struct migration_address *inet_from_text(const char *text, GError **error)
{
	const char *colon = strrchr(text, ':');
	g_autofree char *host = NULL;

	if (strchr(text, ',')) {
		error_set_generic(error, "options after 'tcp:HOST:PORT' are not offered: '%s'",
				  strchr(text, ',') + 1);
		return NULL;
	}
	if (!colon) {
		error_set_generic(error, "error parsing address '%s': HOST:PORT expected", text);
		return NULL;
	}
	if (text[0] == '[' && colon > text && colon[-1] == ']')
		host = g_strndup(text + 1, colon - text - 2);
	else
		host = g_strndup(text, colon - text);
	return inet_new(host, colon + 1, error);
}

static struct migration_address *unix_new(const char *path, GError **error)
{
	struct migration_address *address;

	if (!path[0]) {
		error_set_generic(error, "the UNIX socket needs a path");
		return NULL;
	}
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		error_set_generic(error, "UNIX socket path '%s' is too long: at most %zu octets",
				  path, sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
		return NULL;
	}
	address = address_new(MIGRATION_UNIX);
	address->path = g_strdup(path);
	return address;
}

static struct migration_address *fd_new(const char *name, GError **error)
{
	struct migration_address *address;

	if (!name[0] || strlen(name) > 9 || strspn(name, "0123456789") != strlen(name)) {
		error_set_generic(error,
				  "No file descriptor named %s found: only numbers of inherited "
				  "descriptors are offered",
				  name);
		return NULL;
	}
	address = address_new(MIGRATION_FD);
	address->fd_name = g_strdup(name);
	return address;
}

/* A number with an optional suffix k, M, G or T. */
static bool offset_parse(const char *text, uint64_t *offset)
{
	static const char suffixes[] = "KMGT";
	char *end;
	const char *suffix;
	uint64_t value;
	unsigned int shift = 0;

	if (!g_ascii_isdigit(text[0]))
		return false;
	value = g_ascii_strtoull(text, &end, 0);
	if (*end) {
		suffix = strchr(suffixes, g_ascii_toupper(*end));
		if (!suffix || end[1])
			return false;
		shift = 10 * (suffix - suffixes + 1);
	}
	if (value > (uint64_t)INT64_MAX >> shift)
		return false;
	*offset = value << shift;
	return true;
}

static struct migration_address *file_from_text(const char *text, GError **error)
{
	autoptr(migration_address) address = address_new(MIGRATION_FILE);
	const char *option = g_strrstr(text, ",offset=");

	address->path = option ? g_strndup(text, option - text) : g_strdup(text);
	if (option && !offset_parse(option + strlen(",offset="), &address->offset)) {
		error_set_generic(error, "file URI has bad offset %s: Invalid argument",
				  option + strlen(",offset="));
		return NULL;
	}
	if (!address->path[0]) {
		error_set_generic(error, "file URI has no file name");
		return NULL;
	}
	return g_steal_pointer(&address);
}

static struct migration_address *exec_from_text(const char *command)
{
	struct migration_address *address = address_new(MIGRATION_EXEC);

	address->args = g_new0(char *, 4);
	address->args[0] = g_strdup("/bin/sh");
	address->args[1] = g_strdup("-c");
	address->args[2] = g_strdup(command);
	return address;
}

struct migration_address *migration_address_from_uri(const char *uri, GError **error)
{
	if (g_str_has_prefix(uri, "tcp:"))
		return inet_from_text(uri + 4, error);
	if (g_str_has_prefix(uri, "unix:"))
		return unix_new(uri + 5, error);
	if (g_str_has_prefix(uri, "file:"))
		return file_from_text(uri + 5, error);
	if (g_str_has_prefix(uri, "fd:"))
		return fd_new(uri + 3, error);
	if (g_str_has_prefix(uri, "exec:"))
		return exec_from_text(uri + 5);
	if (g_str_has_prefix(uri, "vsock:") || g_str_has_prefix(uri, "rdma:"))
		error_set_generic(error,
				  "migration protocol of '%s' is not offered; use tcp:, unix:, "
				  "file: or fd:",
				  uri);
	else
		error_set_generic(error,
				  "unknown migration protocol: %s; use file:PATH, unix:PATH, "
				  "tcp:HOST:PORT or fd:NAME",
				  uri);
	return NULL;
}

char *migration_address_text(const struct migration_address *address)
{
	switch (address->transport) {
	case MIGRATION_INET:
		if (strchr(address->host, ':'))
			return g_strdup_printf("tcp:[%s]:%s", address->host, address->port);
		return g_strdup_printf("tcp:%s:%s", address->host, address->port);
	case MIGRATION_UNIX:
		return g_strdup_printf("unix:%s", address->path);
	case MIGRATION_FD:
		return g_strdup_printf("fd:%s", address->fd_name);
	case MIGRATION_FILE:
		/* A name that ends like an offset would be read as one. */
		if (!address->offset && !strstr(address->path, ",offset="))
			return g_strdup_printf("file:%s", address->path);
		return g_strdup_printf("file:%s,offset=%" PRIu64, address->path, address->offset);
	case MIGRATION_EXEC:
		break;
	}
	return g_strdup_printf("exec:%s", address->args[2] ? address->args[2] : address->args[0]);
}

bool migration_address_streams(const struct migration_address *address)
{
	return address->transport != MIGRATION_FILE;
}

/* ---- JSON ---- */

/* The string member @key; NULL with @error set if it is missing or something else. */
static const char *json_text(const json_t *json, const char *key, GError **error)
{
	const json_t *value = json_object_get(json, key);

	if (!value)
		error_set_generic(error, "Parameter '%s' is missing", key);
	else if (!json_is_string(value))
		error_set_generic(error, "Invalid parameter type for '%s', expected: string", key);
	else
		return json_string_value(value);
	return NULL;
}

/* Refuse every member that is not in the NULL-ended list @known. */
static bool json_only(const json_t *json, const char *const *known, GError **error)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)json, key, value) if (
		!g_strv_contains(
			known, key)) return error_set_generic(error, "Parameter '%s' is unexpected",
							      key);
	return true;
}

static struct migration_address *inet_from_json(const json_t *json, GError **error)
{
	static const char *const known[] = {"transport", "type", "host", "port", NULL};
	const char *host = json_text(json, "host", error);
	const char *port = host ? json_text(json, "port", error) : NULL;

	if (!port || !json_only(json, known, error))
		return NULL;
	return inet_new(host, port, error);
}

static struct migration_address *unix_from_json(const json_t *json, GError **error)
{
	static const char *const known[] = {"transport", "type", "path", NULL};
	const char *path = json_text(json, "path", error);

	if (!path || !json_only(json, known, error))
		return NULL;
	return unix_new(path, error);
}

static struct migration_address *fd_from_json(const json_t *json, GError **error)
{
	static const char *const known[] = {"transport", "type", "str", NULL};
	const char *name = json_text(json, "str", error);

	if (!name || !json_only(json, known, error))
		return NULL;
	return fd_new(name, error);
}

static struct migration_address *socket_from_json(const json_t *json, GError **error)
{
	const char *type = json_text(json, "type", error);

	if (!type)
		return NULL;
	if (strcmp(type, "inet") == 0)
		return inet_from_json(json, error);
	if (strcmp(type, "unix") == 0)
		return unix_from_json(json, error);
	if (strcmp(type, "fd") == 0)
		return fd_from_json(json, error);
	if (strcmp(type, "vsock") == 0)
		error_set_generic(error, "socket type 'vsock' is not offered for migration");
	else
		error_set_generic(error, "Parameter 'type' does not accept value '%s'", type);
	return NULL;
}

static struct migration_address *file_from_json(const json_t *json, GError **error)
{
	static const char *const known[] = {"transport", "filename", "offset", NULL};
	autoptr(migration_address) address = address_new(MIGRATION_FILE);
	const char *path = json_text(json, "filename", error);
	const json_t *offset = json_object_get(json, "offset");

	if (!path || !json_only(json, known, error))
		return NULL;
	if (!offset) {
		error_set_generic(error, "Parameter 'offset' is missing");
		return NULL;
	}
	if (json_is_integer(offset) && json_integer_value(offset) >= 0) {
		address->offset = json_integer_value(offset);
	} else if (!json_is_string(offset) ||
		   !offset_parse(json_string_value(offset), &address->offset)) {
		error_set_generic(error, "Parameter 'offset' expects a size");
		return NULL;
	}
	address->path = g_strdup(path);
	return g_steal_pointer(&address);
}

static struct migration_address *exec_from_json(const json_t *json, GError **error)
{
	static const char *const known[] = {"transport", "args", NULL};
	autoptr(migration_address) address = address_new(MIGRATION_EXEC);
	const json_t *args = json_object_get(json, "args");
	const json_t *arg;
	size_t i;

	if (!json_is_array(args) || json_array_size(args) == 0) {
		error_set_generic(error, "Parameter 'args' expects a list of strings");
		return NULL;
	}
	if (!json_only(json, known, error))
		return NULL;
	address->args = g_new0(char *, MAX(json_array_size(args), 3) + 1);
	json_array_foreach(args, i, arg)
	{
		if (!json_is_string(arg)) {
			error_set_generic(error, "Parameter 'args' expects a list of strings");
			return NULL;
		}
		address->args[i] = g_strdup(json_string_value(arg));
	}
	return g_steal_pointer(&address);
}

struct migration_address *migration_address_from_json(const json_t *json, GError **error)
{
	const char *transport;

	if (!json_is_object(json)) {
		error_set_generic(error, "Invalid parameter type for 'addr', expected: object");
		return NULL;
	}
	transport = json_text(json, "transport", error);
	if (!transport)
		return NULL;
	if (strcmp(transport, "socket") == 0)
		return socket_from_json(json, error);
	if (strcmp(transport, "file") == 0)
		return file_from_json(json, error);
	if (strcmp(transport, "exec") == 0)
		return exec_from_json(json, error);
	if (strcmp(transport, "rdma") == 0)
		error_set_generic(error, "transport 'rdma' is not offered for migration");
	else
		error_set_generic(error, "Parameter 'transport' does not accept value '%s'",
				  transport);
	return NULL;
}

/* ---- channels ---- */

void migration_channels_clear(struct migration_channels *channels)
{
	migration_address_free(channels->main);
	migration_address_free(channels->cpr);
	memset(channels, 0, sizeof(*channels));
}

/* One {channel-type, addr} object; *@slot is where its address belongs in @channels. */
static struct migration_address *channel_from_json(const json_t *json,
						   struct migration_channels *channels,
						   struct migration_address ***slot, GError **error)
{
	static const char *const known[] = {"channel-type", "addr", NULL};
	const char *type;

	if (!json_is_object(json)) {
		error_set_generic(error, "Invalid parameter type for 'channels', expected: object");
		return NULL;
	}
	type = json_text(json, "channel-type", error);
	if (!type)
		return NULL;
	if (strcmp(type, "main") == 0) {
		*slot = &channels->main;
	} else if (strcmp(type, "cpr") == 0) {
		*slot = &channels->cpr;
	} else {
		error_set_generic(error, "Parameter 'channel-type' does not accept value '%s'",
				  type);
		return NULL;
	}
	if (!json_only(json, known, error))
		return NULL;
	if (!json_object_get(json, "addr")) {
		error_set_generic(error, "Parameter 'addr' is missing");
		return NULL;
	}
	return migration_address_from_json(json_object_get(json, "addr"), error);
}

static bool channels_from_list(const json_t *list, struct migration_channels *channels,
			       GError **error)
{
	const json_t *entry;
	size_t i;

	json_array_foreach(list, i, entry)
	{
		autoptr(migration_address) address = NULL;
		struct migration_address **slot;

		address = channel_from_json(entry, channels, &slot, error);
		if (!address)
			return false;
		if (*slot)
			return error_set_generic(error, "Channel list has more than one %s entry",
						 slot == &channels->main ? "main" : "cpr");
		*slot = g_steal_pointer(&address);
	}
	return true;
}

/* Whatever of uri and channels is in @args, into *@channels, which the caller clears on failure. */
static bool channels_from_args(const json_t *args, struct migration_channels *channels,
			       GError **error)
{
	const json_t *uri = json_object_get(args, "uri");
	const json_t *list = json_object_get(args, "channels");

	if (!uri == !list)
		return error_set_generic(error, "need either 'uri' or 'channels' argument");
	if (list)
		return channels_from_list(list, channels, error);
	if (!json_is_string(uri))
		return error_set_generic(error,
					 "Invalid parameter type for 'uri', expected: string");
	channels->main = migration_address_from_uri(json_string_value(uri), error);
	return channels->main;
}

static bool channels_check_cpr(const struct migration_channels *channels, GError **error)
{
	if (channels->cpr && channels->cpr->transport != MIGRATION_UNIX &&
	    channels->cpr->transport != MIGRATION_FD)
		return error_set_generic(error, "the cpr channel must be a UNIX socket: "
						"descriptors are passed over it");
	return true;
}

static bool channels_check_migrate(const struct migration_channels *channels, bool need_cpr,
				   GError **error)
{
	if (need_cpr && !channels->cpr)
		return error_set_generic(error, "missing 'cpr' migration channel");
	if (!channels->main)
		return error_set_generic(error, "Channel list has no main entry");
	if (need_cpr && !migration_address_streams(channels->main))
		return error_set_generic(error,
					 "Migration requires streamable transport (eg unix)");
	return channels_check_cpr(channels, error);
}

bool migration_channels_from_migrate(const json_t *args, bool need_cpr,
				     struct migration_channels *channels, GError **error)
{
	struct migration_channels parsed = {0};

	if (!channels_from_args(args, &parsed, error) ||
	    !channels_check_migrate(&parsed, need_cpr, error)) {
		migration_channels_clear(&parsed);
		return false;
	}
	*channels = parsed;
	return true;
}

bool migration_channels_from_incoming(const json_t *args, struct migration_channels *channels,
				      GError **error)
{
	struct migration_channels parsed = {0};

	if (json_array_size(json_object_get(args, "channels")) > 1)
		return error_set_generic(error,
					 "Channel list must have only one entry, for type 'main'");
	if (!channels_from_args(args, &parsed, error)) {
		migration_channels_clear(&parsed);
		return false;
	}
	if (!parsed.main) {
		migration_channels_clear(&parsed);
		return error_set_generic(error, "Channel list has no main entry");
	}
	*channels = parsed;
	return true;
}

/* Whether @text begins like "scheme:"; the dotted keys of a channel never do. */
static bool option_is_uri(const char *text)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789");

	return len > 0 && text[len] == ':';
}

static struct migration_address *option_parse(struct migration_channels *channels, const char *text,
					      struct migration_address ***slot, GError **error)
{
	json_t *json;
	struct migration_address *address;

	*slot = &channels->main;
	if (option_is_uri(text))
		return migration_address_from_uri(text, error);
	json = keyval_parse(text, "channel-type", error);
	if (!json)
		return NULL;
	address = channel_from_json(json, channels, slot, error);
	json_decref(json);
	return address;
}

bool migration_channels_add_option(struct migration_channels *channels, const char *text,
				   GError **error)
{
	struct migration_address *address;
	struct migration_address **slot;

	if (strcmp(text, "defer") == 0) {
		g_clear_pointer(&channels->main, migration_address_free);
		channels->deferred = true;
		return true;
	}
	address = option_parse(channels, text, &slot, error);
	if (!address) {
		g_prefix_error(error, "-incoming %s: ", text);
		return false;
	}
	migration_address_free(*slot);
	*slot = address;
	if (slot == &channels->main)
		channels->deferred = false;
	return true;
}

bool migration_channels_settle(struct migration_channels *channels, GError **error)
{
	if (!channels_check_cpr(channels, error)) {
		g_prefix_error(error, "-incoming: ");
		return false;
	}
	if (!channels->cpr)
		return true;
	if (!channels->main)
		channels->deferred = true;
	else if (!migration_address_streams(channels->main))
		return error_set_generic(error, "-incoming: the main channel of an update with a "
						"cpr channel cannot be a file");
	else if (channels->main->transport == MIGRATION_INET &&
		 strtol(channels->main->port, NULL, 10) == 0)
		return error_set_generic(error, "-incoming: with a cpr channel the main channel "
						"needs a fixed port, not 0");
	return true;
}
