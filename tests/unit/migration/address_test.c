// Addresses: every spelling of the documents, and the texts clients match on.
// SPDX-License-Identifier: Apache-2.0
#include <glib.h>
#include <jansson.h>
#include <string.h>

#include "migration/address.h"

static struct migration_address *parse(const char *uri)
{
	g_autoptr(GError) error = NULL;
	struct migration_address *address = migration_address_from_uri(uri, &error);

	g_assert_no_error(error);
	g_assert_nonnull(address);
	return address;
}

static void check_refused(const char *uri, const char *words)
{
	g_autoptr(GError) error = NULL;

	g_assert_null(migration_address_from_uri(uri, &error));
	g_assert_nonnull(error);
	if (!strstr(error->message, words))
		g_error("%s: '%s' does not say '%s'", uri, error->message, words);
}

static void test_uris(void)
{
	static const struct {
		const char *uri, *text;
		enum migration_transport transport;
	} rows[] = {
		{"tcp:0:44444", "tcp:0:44444", MIGRATION_INET},
		{"tcp::44444", "tcp::44444", MIGRATION_INET},
		{"tcp:localhost:1", "tcp:localhost:1", MIGRATION_INET},
		{"tcp:[::1]:44", "tcp:[::1]:44", MIGRATION_INET},
		{"unix:main.sock", "unix:main.sock", MIGRATION_UNIX},
		{"unix:/run/vm7/main,x.sock", "unix:/run/vm7/main,x.sock", MIGRATION_UNIX},
		{"file:vm.state", "file:vm.state", MIGRATION_FILE},
		{"file:/srv/vm7.state,offset=4096", "file:/srv/vm7.state,offset=4096",
		 MIGRATION_FILE},
		{"file:/a,offset=0x1000", "file:/a,offset=4096", MIGRATION_FILE},
		{"file:/a,offset=4k", "file:/a,offset=4096", MIGRATION_FILE},
		{"fd:7", "fd:7", MIGRATION_FD},
		{"exec:cat > /tmp/x", "exec:cat > /tmp/x", MIGRATION_EXEC},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		autoptr(migration_address) address = parse(rows[i].uri);
		g_autofree char *text = migration_address_text(address);

		g_assert_cmpint(address->transport, ==, rows[i].transport);
		g_assert_cmpstr(text, ==, rows[i].text);
		g_assert_cmpint(migration_address_streams(address), ==,
				rows[i].transport != MIGRATION_FILE);
	}
}

static void test_bad_uris(void)
{
	static const struct {
		const char *uri, *words;
	} rows[] = {
		{"", "unknown migration protocol: "},
		{"foo", "unknown migration protocol: foo; use file:PATH"},
		{"teleport:here", "unknown migration protocol: teleport:here"},
		{"vsock:3:4", "not offered"},
		{"rdma:a:1", "not offered"},
		{"tcp:44444", "HOST:PORT expected"},
		{"tcp:host:", "port '' is not a number"},
		{"tcp:host:http", "port 'http' is not a number"},
		{"tcp:host:65536", "from 0 to 65535"},
		{"tcp:host:99999999999999999999", "from 0 to 65535"},
		{"tcp:host:1,to=9", "'to=9'"},
		{"unix:", "needs a path"},
		{"unix:/123456789/123456789/123456789/123456789/123456789/123456789/123456789/"
		 "123456789/123456789/123456789/12345678",
		 "too long"},
		{"file:", "no file name"},
		{"file:,offset=1", "no file name"},
		{"file:/a,offset=x", "file URI has bad offset x: Invalid argument"},
		{"file:/a,offset=-1", "bad offset -1"},
		{"file:/a,offset=1Q", "bad offset 1Q"},
		{"file:/a,offset=9999999999999T", "bad offset"},
		{"fd:", "No file descriptor named"},
		{"fd:mon", "No file descriptor named mon found"},
		{"fd:99999999999", "No file descriptor named"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
		check_refused(rows[i].uri, rows[i].words);
}

static json_t *json_of(const char *text)
{
	json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);

	g_assert_nonnull(json);
	return json;
}

#define MAIN_INET                                                                          \
	"{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\",\"type\":\"inet\"," \
	"\"host\":\"0\",\"port\":\"44444\"}}"
#define CPR_UNIX                                                                          \
	"{\"channel-type\":\"cpr\",\"addr\":{\"transport\":\"socket\",\"type\":\"unix\"," \
	"\"path\":\"cpr.sock\"}}"
#define MAIN_FILE                                                                         \
	"{\"channel-type\":\"main\",\"addr\":{\"transport\":\"file\",\"filename\":\"f\"," \
	"\"offset\":8}}"

static void test_migrate_arguments(void)
{
	static const struct {
		const char *args, *words;
		bool need_cpr;
	} rows[] = {
		{"{\"channels\":[" MAIN_INET "," CPR_UNIX "]}", NULL, true},
		{"{\"channels\":[" CPR_UNIX "," MAIN_INET "]}", NULL, true},
		{"{\"uri\":\"file:vm.state\"}", NULL, false},
		{"{\"channels\":[" MAIN_FILE "]}", NULL, false},
		{"{}", "need either 'uri' or 'channels' argument", false},
		{"{\"uri\":\"unix:a\",\"channels\":[]}", "need either 'uri' or 'channels'", false},
		{"{\"channels\":[]}", "Channel list has no main entry", false},
		{"{\"channels\":[]}", "missing 'cpr' migration channel", true},
		{"{\"uri\":\"unix:a\"}", "missing 'cpr' migration channel", true},
		{"{\"channels\":[" MAIN_INET "," MAIN_INET "]}",
		 "Channel list has more than one main entry", true},
		{"{\"channels\":[" CPR_UNIX "," CPR_UNIX "]}",
		 "Channel list has more than one cpr entry", true},
		{"{\"channels\":[" CPR_UNIX "]}", "Channel list has no main entry", true},
		{"{\"channels\":[" MAIN_FILE "," CPR_UNIX "]}",
		 "Migration requires streamable transport (eg unix)", true},
		{"{\"channels\":[{\"channel-type\":\"foo\",\"addr\":{}}]}",
		 "Parameter 'channel-type' does not accept value 'foo'", false},
		{"{\"channels\":[{\"channel-type\":\"main\"}]}", "Parameter 'addr' is missing",
		 false},
		{"{\"channels\":[{\"addr\":{}}]}", "Parameter 'channel-type' is missing", false},
		{"{\"channels\":[7]}", "expected: object", false},
		{"{\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"pigeon\"}}]}",
		 "Parameter 'transport' does not accept value 'pigeon'", false},
		{"{\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\","
		 "\"type\":\"inet\",\"host\":\"h\",\"port\":1}}]}",
		 "'port', expected: string", false},
		{"{\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\","
		 "\"type\":\"inet\",\"host\":\"h\",\"port\":\"1\",\"keep-alive\":true}}]}",
		 "Parameter 'keep-alive' is unexpected", false},
		{"{\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"file\","
		 "\"filename\":\"f\"}}]}",
		 "Parameter 'offset' is missing", false},
		{"{\"channels\":[" MAIN_INET ",{\"channel-type\":\"cpr\",\"addr\":{\"transport\":"
		 "\"socket\",\"type\":\"inet\",\"host\":\"h\",\"port\":\"1\"}}]}",
		 "must be a UNIX socket", true},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		json_t *args = json_of(rows[i].args);
		g_autoptr(GError) error = NULL;
		struct migration_channels channels = {0};
		bool ok =
			migration_channels_from_migrate(args, rows[i].need_cpr, &channels, &error);

		json_decref(args);
		if (!rows[i].words) {
			g_assert_no_error(error);
			g_assert_true(ok && channels.main);
			g_assert_cmpint(channels.cpr != NULL, ==, rows[i].need_cpr);
		} else {
			g_assert_false(ok);
			g_assert_null(channels.main);
			if (!strstr(error->message, rows[i].words))
				g_error("row %zu: '%s'", i, error->message);
		}
		migration_channels_clear(&channels);
	}
}

static void test_migrate_incoming(void)
{
	static const struct {
		const char *args, *words;
	} rows[] = {
		{"{\"uri\":\"tcp:0:44444\"}", NULL},
		{"{\"channels\":[" MAIN_INET "]}", NULL},
		{"{\"channels\":[" MAIN_INET "," CPR_UNIX "]}",
		 "Channel list must have only one entry, for type 'main'"},
		{"{\"channels\":[" CPR_UNIX "]}", "Channel list has no main entry"},
		{"{}", "need either 'uri' or 'channels' argument"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		json_t *args = json_of(rows[i].args);
		g_autoptr(GError) error = NULL;
		struct migration_channels channels = {0};
		bool ok = migration_channels_from_incoming(args, &channels, &error);

		json_decref(args);
		g_assert_cmpint(ok, ==, rows[i].words == NULL);
		if (rows[i].words)
			g_assert_cmpstr(error->message, ==, rows[i].words);
		migration_channels_clear(&channels);
	}
}

static void add(struct migration_channels *channels, const char *text)
{
	g_autoptr(GError) error = NULL;

	g_assert_true(migration_channels_add_option(channels, text, &error));
	g_assert_no_error(error);
}

static void test_incoming_options(void)
{
	struct migration_channels channels = {0};

	add(&channels, "tcp:0:44444");
	add(&channels, "{\"channel-type\": \"cpr\", \"addr\": { \"transport\": \"socket\", "
		       "\"type\": \"unix\", \"path\": \"cpr.sock\"}}");
	g_assert_true(migration_channels_settle(&channels, NULL));
	g_assert_cmpstr(channels.main->port, ==, "44444");
	g_assert_cmpstr(channels.cpr->path, ==, "cpr.sock");
	g_assert_false(channels.deferred);

	/* The last of each type wins, and defer counts as main. */
	add(&channels, "defer");
	add(&channels, "cpr,addr.transport=socket,addr.type=unix,addr.path=other.sock");
	g_assert_true(channels.deferred);
	g_assert_null(channels.main);
	g_assert_cmpstr(channels.cpr->path, ==, "other.sock");
	add(&channels, "unix:m.sock");
	g_assert_false(channels.deferred);
	migration_channels_clear(&channels);

	/* A cpr channel alone defers the main one. */
	add(&channels, "channel-type=cpr,addr.transport=socket,addr.type=fd,addr.str=9");
	g_assert_true(migration_channels_settle(&channels, NULL));
	g_assert_true(channels.deferred);
	migration_channels_clear(&channels);
}

static void test_bad_incoming_options(void)
{
	struct migration_channels channels = {0};
	g_autoptr(GError) error = NULL;

	g_assert_false(migration_channels_add_option(&channels, "foo", &error));
	g_assert_cmpstr(error->message, ==,
			"-incoming foo: Parameter 'channel-type' does not accept value 'foo'");
	g_clear_error(&error);
	g_assert_false(migration_channels_add_option(&channels, "teleport:x", &error));
	g_assert_cmpstr(error->message, ==,
			"-incoming teleport:x: unknown migration protocol: teleport:x; use "
			"file:PATH, unix:PATH, tcp:HOST:PORT or fd:NAME");
	g_clear_error(&error);

	add(&channels, CPR_UNIX);
	add(&channels, "file:x");
	g_assert_false(migration_channels_settle(&channels, &error));
	g_clear_error(&error);
	add(&channels, "tcp:0:0");
	g_assert_false(migration_channels_settle(&channels, &error));
	g_assert_nonnull(strstr(error->message, "port"));
	migration_channels_clear(&channels);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/address/uris", test_uris);
	g_test_add_func("/address/bad-uris", test_bad_uris);
	g_test_add_func("/address/migrate", test_migrate_arguments);
	g_test_add_func("/address/migrate-incoming", test_migrate_incoming);
	g_test_add_func("/address/incoming", test_incoming_options);
	g_test_add_func("/address/bad-incoming", test_bad_incoming_options);
	return g_test_run();
}
