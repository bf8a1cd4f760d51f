// Fuzzing what an update reads from its peer and its user: frames, offers, records, addresses.
// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cpr/link.h"
#include "cpr/offer.h"
#include "cpr/record.h"
#include "fuzz.h"
#include "migration/address.h"
#include "migration/capabilities.h"
#include "migration/parameters.h"

/* What the first octet of an input chooses. */
enum mode {
	MODE_FRAMES,	  /* what a link reads from a socket */
	MODE_OFFER,	  /* an offer's JSON */
	MODE_TREE,	  /* a device tree's JSON */
	MODE_RECORD,	  /* a record's JSON */
	MODE_HELLO,	  /* a hello's JSON */
	MODE_URI,	  /* a URI */
	MODE_INCOMING,	  /* an -incoming argument */
	MODE_MIGRATE,	  /* migrate's arguments */
	MODE_PARAMETERS,  /* migrate-set-parameters' arguments */
	MODE_CAPABILITIES /* migrate-set-capabilities' list */
};

static void on_message(void *opaque, enum frame_type type, json_t *body, GBytes *payload)
{
	if ((type == FRAME_STATE) != (body == NULL))
		abort();
}

static void on_closed(void *opaque, const GError *error)
{
	*(bool *)opaque = true;
	if (!error)
		abort();
}

static void fuzz_frames(struct span wire)
{
	static const struct link_handler handler = {"the peer", on_message, on_closed};
	bool closed = false;
	struct link *link;
	int end[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, end) < 0)
		abort();
	/* What does not fit into the socket is cut off, which is one more truncation. */
	(void)!send(end[0], wire.data, wire.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(end[0]);
	link = link_new(end[1], &handler, &closed);
	while (!closed)
		g_main_context_iteration(NULL, FALSE);
	link_free(link);
}

static void fuzz_tree(const json_t *json)
{
	g_free(offer_tree_differences(json, json, false));
	g_free(offer_tree_differences(json, json_object_get(json, "own"), false));
}

static void fuzz_record(const json_t *json)
{
	autoptr(update_record) record = update_record_new("cpr-exec");

	(void)update_record_merge(record, json, true, NULL);
	(void)update_record_merge(record, json, false, NULL);
	g_free(update_record_text(record));
	json_decref(update_record_to_json(record));
}

static void fuzz_hello(const json_t *json)
{
	uint32_t features = 0;
	char *build = NULL;

	if (hello_check(json, &build, &features, NULL) && features & ~HELLO_ALL)
		abort();
	g_free(build);
}

static void fuzz_migrate(const json_t *json)
{
	struct migration_channels channels = {0};

	for (int cpr = 0; cpr < 2; cpr++) {
		if (migration_channels_from_migrate(json, cpr, &channels, NULL) && !channels.main)
			abort();
		migration_channels_clear(&channels);
	}
	(void)migration_channels_from_incoming(json, &channels, NULL);
	migration_channels_clear(&channels);
}

static void fuzz_parameters(const json_t *json)
{
	struct migration_parameters parameters;
	json_t *values;

	migration_parameters_init(&parameters);
	(void)migration_parameters_set(&parameters, json, NULL);
	g_strfreev(migration_parameters_command(&parameters));
	/* What a query says can be set. */
	values = migration_parameters_query(&parameters);
	if (!migration_parameters_set(&parameters, values, NULL))
		abort();
	json_decref(values);
	migration_parameters_clear(&parameters);
}

static void fuzz_capabilities(const json_t *json)
{
	struct migration_capabilities capabilities = {0};

	(void)migration_capabilities_set(&capabilities, json, NULL);
	json_decref(migration_capabilities_query(&capabilities));
}

static void fuzz_json(enum mode mode, struct span wire)
{
	json_t *json = json_loadb((const char *)wire.data, wire.len, 0, NULL);

	if (!json)
		return;
	if (mode == MODE_OFFER)
		offer_free(offer_from_json(json, NULL));
	else if (mode == MODE_TREE)
		fuzz_tree(json);
	else if (mode == MODE_RECORD)
		fuzz_record(json);
	else if (mode == MODE_HELLO)
		fuzz_hello(json);
	else if (mode == MODE_MIGRATE)
		fuzz_migrate(json);
	else if (mode == MODE_PARAMETERS && json_is_object(json))
		fuzz_parameters(json);
	else if (mode == MODE_CAPABILITIES)
		fuzz_capabilities(json);
	json_decref(json);
}

/* Whatever is accepted says so in a form that is accepted again, and means the same. */
static void fuzz_uri(const char *text)
{
	autoptr(migration_address) address = migration_address_from_uri(text, NULL);
	autoptr(migration_address) again = NULL;
	g_autofree char *uri = NULL;
	g_autofree char *uri_again = NULL;

	if (!address)
		return;
	uri = migration_address_text(address);
	again = migration_address_from_uri(uri, NULL);
	if (!again)
		abort();
	uri_again = migration_address_text(again);
	if (strcmp(uri, uri_again) != 0)
		abort();
}

static void fuzz_incoming(const char *text)
{
	struct migration_channels channels = {0};

	(void)migration_channels_add_option(&channels, text, NULL);
	(void)migration_channels_settle(&channels, NULL);
	migration_channels_clear(&channels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span wire = span_of(data, size);
	g_autofree char *text = NULL;
	uint8_t mode;

	if (!span_read_u8(&wire, &mode))
		return 0;
	/* A digit is easier to write into a corpus file. */
	mode = (mode & 0x0f) % (MODE_CAPABILITIES + 1);
	text = g_strndup((const char *)wire.data, wire.len);
	if (mode == MODE_FRAMES)
		fuzz_frames(wire);
	else if (mode == MODE_URI)
		fuzz_uri(text);
	else if (mode == MODE_INCOMING)
		fuzz_incoming(text);
	else
		fuzz_json(mode, wire);
	return 0;
}
