// Migration addresses: URIs, QMP channel objects and -incoming arguments to one struct.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"

/** enum migration_transport - What carries a channel */
enum migration_transport {
	MIGRATION_INET,
	MIGRATION_UNIX,
	MIGRATION_FD,
	MIGRATION_FILE,
	MIGRATION_EXEC,
};

/**
 * struct migration_address - Where a channel begins or ends
 * @transport:	Decides which of the others are set
 * @path:	UNIX socket path or file name
 * @host, @port: MIGRATION_INET; @host may be empty (any address)
 * @fd_name:	MIGRATION_FD: the number, as text, of an inherited descriptor
 * @offset:	MIGRATION_FILE: octets to skip at the file's start
 * @args:	MIGRATION_EXEC: argv, NULL-ended
 */
struct migration_address {
	enum migration_transport transport;
	char *path;
	char *host;
	char *port;
	char *fd_name;
	uint64_t offset;
	char **args;
};

/** migration_address_free() - Accepts NULL. */
void migration_address_free(struct migration_address *address);
DEFINE_CLEANUP(migration_address, migration_address_free)

/**
 * migration_address_from_uri() - Parse "tcp:HOST:PORT", "unix:PATH", "file:PATH[,offset=N]",
 * "fd:N" or "exec:COMMAND"
 * Return: NULL with @error set, "unknown migration protocol: X" for anything else.
 */
struct migration_address *migration_address_from_uri(const char *uri, GError **error);

/**
 * migration_address_from_json() - Parse QMP's MigrationAddress {transport, ...}
 * @json:	Numbers may be given as text, as dotted keys leave them
 */
struct migration_address *migration_address_from_json(const json_t *json, GError **error);

/** migration_address_text() - The URI form, for messages; owned by the caller. */
char *migration_address_text(const struct migration_address *address);

/** migration_address_streams() - Whether two live processes can talk over it (a file cannot). */
bool migration_address_streams(const struct migration_address *address);

/**
 * struct migration_channels - The channels of one update
 * @main:	Carries the state; NULL if not given
 * @cpr:	Carries descriptors and the dialogue; NULL if not given
 * @deferred:	-incoming defer, or only a cpr channel: migrate-incoming will name the main one
 */
struct migration_channels {
	struct migration_address *main;
	struct migration_address *cpr;
	bool deferred;
};

/** migration_channels_clear() - Free what is in *@channels and zero it. */
void migration_channels_clear(struct migration_channels *channels);

/**
 * migration_channels_from_migrate() - QMP migrate's {uri? | channels?}
 * @need_cpr:	The mode needs a cpr channel (cpr-transfer)
 *
 * *@channels is written on success only.
 */
bool migration_channels_from_migrate(const json_t *args, bool need_cpr,
				     struct migration_channels *channels, GError **error);

/** migration_channels_from_incoming() - QMP migrate-incoming's {uri? | channels?}: a main channel
 */
bool migration_channels_from_incoming(const json_t *args, struct migration_channels *channels,
				      GError **error);

/**
 * migration_channels_add_option() - Add one -incoming argument: URI, "defer", JSON or dotted keys
 *
 * The last one of each channel type wins.  Errors begin with "-incoming TEXT: ".
 */
bool migration_channels_add_option(struct migration_channels *channels, const char *text,
				   GError **error);

/** migration_channels_settle() - After the last -incoming: a cpr channel alone defers the main. */
bool migration_channels_settle(struct migration_channels *channels, GError **error);
