// Types of the migrate family.
// SPDX-License-Identifier: Apache-2.0
#include "monitor/types.h"

const struct schema type_migration_status = {
	.kind = SCHEMA_ENUM,
	.values = (const char *const[]){"none", "setup", "cancelling", "cancelled", "active",
					"pre-switchover", "device", "completed", "failing",
					"failed", NULL},
};

/* ---- addresses ---- */

ENUM_TYPE(socket_kind, "inet", "unix", "fd");
ENUM_TYPE(transport_kind, "socket", "exec", "file");
ENUM_TYPE(channel_kind, "main", "cpr");
OBJECT_TYPE(inet_address, {"host", &schema_string}, {"port", &schema_string},
	    {"numeric", &schema_bool, true}, {"ipv4", &schema_bool, true},
	    {"ipv6", &schema_bool, true});
OBJECT_TYPE(unix_address, {"path", &schema_string});
OBJECT_TYPE(fd_address, {"str", &schema_string});
OBJECT_TYPE(exec_address, {"args", &schema_string_list});
OBJECT_TYPE(file_address, {"filename", &schema_string}, {"offset", &schema_uint64});

static const struct schema socket_address = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"type", &socket_kind}, {NULL}},
	.tag = "type",
	.variants = (const struct schema_variant[]){{"inet", &inet_address},
						    {"unix", &unix_address},
						    {"fd", &fd_address},
						    {NULL}},
};

static const struct schema channel_address = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"transport", &transport_kind}, {NULL}},
	.tag = "transport",
	.variants = (const struct schema_variant[]){{"socket", &socket_address},
						    {"exec", &exec_address},
						    {"file", &file_address},
						    {NULL}},
};

OBJECT_TYPE(channel, {"channel-type", &channel_kind}, {"addr", &channel_address});
LIST_TYPE(channels, channel);

const struct schema type_migrate = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"uri", &schema_string, true},
						  {"channels", &channels, true},
						  {"resume", &schema_bool, true},
						  {NULL}},
};

const struct schema type_migrate_incoming = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"uri", &schema_string, true},
						  {"channels", &channels, true},
						  {"exit-on-error", &schema_bool, true},
						  {NULL}},
};

const struct schema type_migrate_continue = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"state", &type_migration_status}, {NULL}},
};

/* ---- parameters ---- */

ENUM_TYPE(mode, "normal", "cpr-reboot", "cpr-transfer", "cpr-exec");
ENUM_TYPE(compression, "none", "zlib", "zstd");
ENUM_TYPE(zero_page, "none", "legacy", "multifd");

static const struct schema string_or_null = {
	.kind = SCHEMA_ALTERNATE,
	.choices = (const struct schema *const[]){&schema_string, &schema_null, NULL},
};

LIST_TYPE(any_list, schema_any);

#define PARAMETERS(tls_)                                                                      \
	{"announce-initial", &schema_uint64, true}, {"announce-max", &schema_uint64, true},   \
		{"announce-rounds", &schema_uint64, true},                                    \
		{"announce-step", &schema_uint64, true},                                      \
		{"throttle-trigger-threshold", &schema_uint8, true},                          \
		{"cpu-throttle-initial", &schema_uint8, true},                                \
		{"cpu-throttle-increment", &schema_uint8, true},                              \
		{"cpu-throttle-tailslow", &schema_bool, true}, {"tls-creds", &(tls_), true},  \
		{"tls-hostname", &(tls_), true}, {"tls-authz", &(tls_), true},                \
		{"max-bandwidth", &schema_uint64, true},                                      \
		{"avail-switchover-bandwidth", &schema_uint64, true},                         \
		{"downtime-limit", &schema_uint64, true},                                     \
		{"x-checkpoint-delay", &schema_uint32, true},                                 \
		{"multifd-channels", &schema_uint8, true},                                    \
		{"multifd-compression", &compression, true},                                  \
		{"multifd-zlib-level", &schema_uint8, true},                                  \
		{"multifd-qatzip-level", &schema_uint8, true},                                \
		{"multifd-zstd-level", &schema_uint8, true},                                  \
		{"xbzrle-cache-size", &schema_uint64, true},                                  \
		{"max-postcopy-bandwidth", &schema_uint64, true},                             \
		{"max-cpu-throttle", &schema_uint8, true},                                    \
		{"block-bitmap-mapping", &any_list, true},                                    \
		{"x-vcpu-dirty-limit-period", &schema_uint64, true},                          \
		{"vcpu-dirty-limit", &schema_uint64, true}, {"mode", &mode, true},            \
		{"zero-page-detection", &zero_page, true}, {"direct-io", &schema_bool, true}, \
		{"x-rdma-chunk-size", &schema_uint64, true},                                  \
		{"cpr-exec-attempts", &schema_uint8, true},                                   \
	{                                                                                     \
		"cpr-exec-command", &schema_string_list, true                                 \
	}

/* cpr-exec-args is the older spelling of cpr-exec-command. */
const struct schema type_migrate_set_parameters = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){PARAMETERS(string_or_null),
						  {"cpr-exec-args", &schema_string_list, true},
						  {NULL}},
};

const struct schema type_migrate_parameters = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){PARAMETERS(string_or_null), {NULL}},
};

/* ---- capabilities ---- */

ENUM_TYPE(capability, "xbzrle", "rdma-pin-all", "auto-converge", "events", "postcopy-ram", "x-colo",
	  "release-ram", "return-path", "pause-before-switchover", "multifd", "dirty-bitmaps",
	  "postcopy-blocktime", "late-block-activate", "x-ignore-shared", "validate-uuid",
	  "background-snapshot", "zero-copy-send", "postcopy-preempt", "switchover-ack",
	  "dirty-limit", "mapped-ram", "cpr-two-step");
OBJECT_TYPE(capability_status, {"capability", &capability}, {"state", &schema_bool});

const struct schema type_migrate_capabilities = {.kind = SCHEMA_ARRAY,
						 .element = &capability_status};

const struct schema type_migrate_set_capabilities = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"capabilities", &type_migrate_capabilities},
						  {NULL}},
};

/* ---- query-migrate ---- */

OBJECT_TYPE(ram_counters, {"transferred", &schema_int}, {"remaining", &schema_int},
	    {"total", &schema_int}, {"duplicate", &schema_int}, {"normal", &schema_int},
	    {"normal-bytes", &schema_int}, {"dirty-pages-rate", &schema_int},
	    {"mbps", &schema_number}, {"dirty-sync-count", &schema_int},
	    {"dirty-sync-missed-zero-copy", &schema_uint64}, {"postcopy-requests", &schema_int},
	    {"page-size", &schema_int}, {"multifd-bytes", &schema_uint64},
	    {"pages-per-second", &schema_uint64}, {"precopy-bytes", &schema_uint64},
	    {"downtime-bytes", &schema_uint64}, {"postcopy-bytes", &schema_uint64});
LIST_TYPE(socket_addresses, socket_address);

ENUM_TYPE(update_result, "in-progress", "committed", "rolled-back", "unchanged", "lost");
ENUM_TYPE(update_process, "old", "new");
OBJECT_TYPE(update_phase, {"process", &update_process}, {"name", &schema_string},
	    {"begin-ns", &schema_int}, {"ns", &schema_int});
LIST_TYPE(update_phases, update_phase);

const struct schema type_update_record = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"result", &update_result},
						  {"reason", &schema_string, true},
						  {"mode", &schema_string},
						  {"old-build", &schema_string, true},
						  {"new-build", &schema_string, true},
						  {"old-pid", &schema_int, true},
						  {"new-pid", &schema_int, true},
						  {"paused-at-ns", &schema_int, true},
						  {"running-at-ns", &schema_int, true},
						  {"pause-ns", &schema_int},
						  {"phases", &update_phases},
						  {NULL}},
};

/*
 * "ready": with capability cpr-two-step, the successor is built and waits for migrate with resume.
 * "update-stage": what an update under way waits in (docs/live-update.md has the tables).
 * "update-record" is the record of the last update: result and phases, which have no place in QEMU's.
 */
const struct schema type_migration_info = {
	.kind = SCHEMA_OBJECT,
	.members = (const struct schema_member[]){{"status", &type_migration_status, true},
						  {"ram", &ram_counters, true},
						  {"total-time", &schema_int, true},
						  {"expected-downtime", &schema_int, true},
						  {"downtime", &schema_int, true},
						  {"setup-time", &schema_int, true},
						  {"error-desc", &schema_string, true},
						  {"blocked-reasons", &schema_string_list, true},
						  {"socket-address", &socket_addresses, true},
						  {"ready", &schema_bool, true},
						  {"update-stage", &schema_string, true},
						  {"update-record", &type_update_record, true},
						  {NULL}},
};
