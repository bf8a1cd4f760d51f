// QMP as clients see it.
// SPDX-License-Identifier: Apache-2.0
#include "monitor_util.h"

#include "monitor/command.h"
#include "monitor/session.h"

#define QMP_ERROR(class_, text_) "{\"error\":{\"class\":\"" class_ "\",\"desc\":\"" text_ "\"}}"

static void test_greeting(void)
{
	struct bed bed;
	struct client c;
	json_t *greeting;
	const char *package;
	int major, minor, micro;
	json_t *capabilities;

	bed_init(&bed, true);
	client_init(&c, &bed, "qmp0");
	greeting = client_json(&c);
	g_assert_cmpint(json_unpack(greeting, "{s:{s:{s:{s:i,s:i,s:i},s:s},s:o}}", "QMP", "version",
				    "qemu", "major", &major, "minor", &minor, "micro", &micro,
				    "package", &package, "capabilities", &capabilities),
			==, 0);
	g_assert_cmpint(major, ==, 10);
	g_assert_cmpint(json_array_size(capabilities), ==, 0);
	g_assert_true(g_str_has_prefix(package, "molt-"));
	json_decref(greeting);
	client_ask(&c, "{\"execute\":\"query-status\"}",
		   QMP_ERROR("CommandNotFound",
			     "Expecting capabilities negotiation with 'qmp_capabilities'"));
	client_ask(&c, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}",
		   QMP_ERROR("GenericError", "Capability 'oob' is not available"));
	client_ask(&c, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"x\"]}}",
		   QMP_ERROR("GenericError", "Parameter 'enable[0]' does not accept value 'x'"));
	client_ask(&c, "{\"execute\":\"qmp_capabilities\",\"id\":1}", "{\"id\":1,\"return\":{}}");
	client_ask(&c, "{\"execute\":\"qmp_capabilities\"}",
		   QMP_ERROR("CommandNotFound",
			     "Capabilities negotiation is already complete, command ignored"));
	client_ask(&c, "{\"execute\":\"query-status\"}\r\n",
		   "{\"return\":{\"running\":true,\"status\":\"running\"}}");
	client_clear(&c);
	/* The next client starts from the beginning. */
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	client_clear(&c);
	bed_clear(&bed);
}

static void test_requests(void)
{
	static const struct {
		const char *request, *answer;
	} cases[] = {
		{"[]", QMP_ERROR("GenericError", "QMP input must be a JSON object")},
		{"42 ", QMP_ERROR("GenericError", "QMP input must be a JSON object")},
		{"{}", QMP_ERROR("GenericError", "QMP input lacks member 'execute'")},
		{"{\"execute\":1}",
		 QMP_ERROR("GenericError", "QMP input member 'execute' must be a string")},
		{"{\"execute\":\"stop\",\"arguments\":[]}",
		 QMP_ERROR("GenericError", "QMP input member 'arguments' must be an object")},
		{"{\"execute\":\"stop\",\"more\":1}",
		 QMP_ERROR("GenericError", "QMP input member 'more' is unexpected")},
		{"{\"exec-oob\":\"stop\"}",
		 QMP_ERROR("GenericError", "QMP input member 'exec-oob' is unexpected")},
		{"{\"execute\":\"no-such\",\"id\":[1,{\"a\":null}]}",
		 "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command no-such has not "
		 "been found\"},\"id\":[1,{\"a\":null}]}"},
		{"{\"execute\":\"stop\",\"arguments\":{\"x\":1}}",
		 QMP_ERROR("GenericError", "Parameter 'x' is unexpected")},
		{"{\"execute\":\"device-list-properties\"}",
		 QMP_ERROR("GenericError", "Parameter 'typename' is missing")},
		{"{\"execute\":\"device-list-properties\",\"arguments\":{\"typename\":3}}",
		 QMP_ERROR("GenericError", "Invalid parameter type for 'typename', expected: "
					   "string")},
		{"{\"execute\":\"device-list-properties\",\"arguments\":{\"typename\":\"x\"}}",
		 QMP_ERROR("DeviceNotFound", "Device 'x' not found")},
		{"{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"mode\":\"x\"}}",
		 QMP_ERROR("GenericError", "Parameter 'mode' does not accept value 'x'")},
		{"{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"multifd-channels\":256}}",
		 QMP_ERROR("GenericError", "Parameter 'multifd-channels' expects uint8")},
		{"{\"execute\":\"migrate\",\"arguments\":{\"channels\":[{\"channel-type\":\"main\","
		 "\"addr\":{\"transport\":\"socket\",\"type\":\"unix\"}}]}}",
		 QMP_ERROR("GenericError", "Parameter 'channels[0].addr.path' is missing")},
		{"{\"execute\":\"migrate\",\"arguments\":{\"channels\":[{\"channel-type\":\"main\","
		 "\"addr\":{\"transport\":\"exec\",\"args\":[],\"path\":\"x\"}}]}}",
		 QMP_ERROR("GenericError", "Parameter 'channels[0].addr.path' is unexpected")},
		{"{\"execute\":\"device_add\",\"arguments\":{\"id\":\"a\"}}",
		 QMP_ERROR("GenericError", "Parameter 'driver' is missing")},
		{"{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"d\",\"bus\":1}}",
		 QMP_ERROR("GenericError", "Invalid parameter type for 'bus', expected: string")},
		{"{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"d\",\"own\":[1]}}",
		 "{\"return\":{}}"},
		{"{\"execute\":\"device_del\",\"arguments\":{\"id\":\"a\",\"x\":1}}",
		 QMP_ERROR("GenericError", "Parameter 'x' is unexpected")},
		{"{\"execute\":\"query-name\",\"id\":\"\xc3\xa4\"}",
		 "{\"id\":\"\xc3\xa4\",\"return\":{}}"},
		{"{'execute':'query-kvm'}", "{\"return\":{\"enabled\":true,\"present\":true}}"},
	};
	struct bed bed;
	struct client c;

	bed_init(&bed, true);
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
		client_ask(&c, cases[i].request, cases[i].answer);
	client_nothing(&c);
	client_clear(&c);
	bed_clear(&bed);
}

/* Many commands in one write, and one command in many. */
static void test_framing(void)
{
	static const char text[] = "{\"execute\":\"query-status\",\"id\":1}"
				   "{\"execute\":\"query-name\",\"id\":2}\r\n"
				   "{ \"id\" : 3 , \"execute\" : \"query-target\" }";
	struct bed bed;
	struct client c;

	bed_init(&bed, true);
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	for (int round = 0; round < 2; round++) {
		for (const char *p = text; round == 0 && *p; p++) {
			g_assert_cmpint(write(c.fd, p, 1), ==, 1);
			settle();
		}
		if (round == 1)
			client_say(&c, text);
		client_expect(&c,
			      "{\"id\":1,\"return\":{\"running\":true,\"status\":\"running\"}}");
		client_expect(&c, "{\"id\":2,\"return\":{}}");
		client_expect(&c, "{\"id\":3,\"return\":{\"arch\":\"x86_64\"}}");
	}
	client_say(&c, "}{\"execute\":\"query-target\"}");
	client_expect(&c, QMP_ERROR("GenericError", "JSON parse error, stray '}'"));
	client_expect(&c, "{\"return\":{\"arch\":\"x86_64\"}}");
	client_clear(&c);
	bed_clear(&bed);
}

static void test_events(void)
{
	struct bed bed;
	struct client c;
	json_t *event, *data;
	json_int_t seconds, microseconds;
	const char *name;

	bed_init(&bed, true);
	client_init(&c, &bed, "qmp0");
	json_decref(client_json(&c));
	fake_machine_event(bed.update, MACHINE_EVENT_STOP, NULL);
	client_ask(&c, "{\"execute\":\"qmp_capabilities\"}", "{\"return\":{}}");
	fake_machine_event(bed.update, MACHINE_EVENT_SHUTDOWN,
			   json_pack("{s:b,s:s}", "guest", 1, "reason", "guest-shutdown"));
	event = client_json(&c);
	g_assert_cmpint(json_unpack(event, "{s:{s:I,s:I},s:s,s:o}", "timestamp", "seconds",
				    &seconds, "microseconds", &microseconds, "event", &name, "data",
				    &data),
			==, 0);
	g_assert_cmpint(llabs(seconds - g_get_real_time() / G_USEC_PER_SEC), <, 60);
	g_assert_cmpint(microseconds, <, G_USEC_PER_SEC);
	g_assert_cmpstr(name, ==, "SHUTDOWN");
	g_assert_cmpstr(json_string_value(json_object_get(data, "reason")), ==, "guest-shutdown");
	json_decref(event);
	fake_machine_event(bed.update, MACHINE_EVENT_POWERDOWN, NULL);
	event = client_json(&c);
	g_assert_cmpstr(json_string_value(json_object_get(event, "event")), ==, "POWERDOWN");
	g_assert_null(json_object_get(event, "data"));
	json_decref(event);
	fake_machine_event(bed.update, MACHINE_EVENT_DEVICE_DELETED,
			   json_pack("{s:s}", "path", "/x"));
	event = client_json(&c);
	g_assert_cmpstr(json_string_value(json_object_get(event, "event")), ==, "DEVICE_DELETED");
	json_decref(event);
	data = json_pack("{s:s}", "status", "setup");
	bed.update->event_fn(bed.update->event_opaque, "MIGRATION", data);
	json_decref(data);
	event = client_json(&c);
	g_assert_cmpstr(json_string_value(json_object_get(event, "event")), ==, "MIGRATION");
	json_decref(event);
	client_clear(&c);
	bed_clear(&bed);
}

static json_t *call(struct bed *bed, const struct command *command, const json_t *args,
		    GError **error)
{
	struct command_call call = {bed->monitors, bed->update, bed->update->machine, NULL};

	return command_run(command, &call, args, error);
}

/* A value that is of no type a parameter may have, but for those that take anything. */
static json_t *wrong_value(const struct schema *type)
{
	return type->kind == SCHEMA_OBJECT ? json_integer(1) : json_object();
}

static void check_bad_arguments(struct bed *bed, const struct command *command)
{
	const struct schema_member *m = command->args ? command->args->members : NULL;
	json_t *args = json_pack("{s:i}", "no-such-argument", 1);
	g_autoptr(GError) error = NULL;

	g_assert_null(call(bed, command, args, &error));
	g_assert_true(strstr(error->message, "'no-such-argument' is unexpected") ||
		      g_str_has_suffix(error->message, "is missing"));
	json_decref(args);
	for (; m && m->name; m++) {
		g_clear_error(&error);
		args = json_object();
		json_object_set_new(args, m->name, wrong_value(m->type));
		g_assert_null(call(bed, command, args, &error));
		g_assert_true(strstr(error->message, "Invalid parameter type for") ||
			      g_str_has_suffix(error->message, "is missing"));
		json_decref(args);
	}
}

/* Every row refuses bad arguments, and what it returns without any is what it says. */
static void test_every_command(void)
{
	struct bed bed;
	unsigned int n = 0;

	bed_init(&bed, true);
	for (const struct command *c = command_next(NULL); c; c = command_next(c), n++) {
		g_autoptr(GError) error = NULL;
		json_t *result;

		g_test_message("%s", c->name ? c->name : c->hmp.name);
		check_bad_arguments(&bed, c);
		result = call(&bed, c, NULL, &error);
		if (!result) {
			g_assert_true(g_str_has_suffix(error->message, "is missing"));
			continue;
		}
		g_assert_true(schema_check(c->returns ? c->returns : &schema_empty, result,
					   "result", &error));
		g_assert_no_error(error);
		json_decref(result);
	}
	g_assert_cmpuint(n, >, 30);
	bed_clear(&bed);
}

/* Each name is there once, whatever C has for it. */
static void test_schema_names(void)
{
	g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GError) error = NULL;
	struct bed bed;
	json_t *list, *entry;
	size_t i;

	bed_init(&bed, true);
	list = call(&bed, command_find("query-qmp-schema"), NULL, &error);
	g_assert_no_error(error);
	json_array_foreach(list, i, entry)
	{
		const char *name = json_string_value(json_object_get(entry, "name"));

		if (!g_hash_table_add(names, (void *)name))
			g_error("'%s' is listed twice", name);
	}
	json_decref(list);
	bed_clear(&bed);
}

static void test_without_machine(void)
{
	struct bed bed;
	struct client c;

	bed_init(&bed, false);
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	client_ask(&c, "{\"execute\":\"query-status\"}",
		   "{\"return\":{\"running\":false,\"status\":\"inmigrate\"}}");
	client_ask(
		&c, "{\"execute\":\"query-cpus-fast\"}",
		QMP_ERROR("GenericError", "no machine yet: waiting for the predecessor's offer"));
	client_ask(&c, "{\"execute\":\"cont\"}", "{\"return\":{}}");
	fake_update_machine_appears(bed.update);
	/* Before the guest is here, and while its state is on the way, it cannot be asked. */
	client_ask(&c, "{\"execute\":\"system_powerdown\"}",
		   QMP_ERROR("GenericError", "Guest is waiting for an incoming migration"));
	bed.update->runstate = RUNSTATE_FINISH_MIGRATE;
	client_ask(&c, "{\"execute\":\"system_powerdown\"}",
		   QMP_ERROR("GenericError", "There's a migration process in progress"));
	bed.update->runstate = RUNSTATE_RUNNING;
	client_ask(&c, "{\"execute\":\"system_powerdown\"}", "{\"return\":{}}");
	g_assert_cmpstr(bed.update->calls->str, ==, "cont();powerdown();");
	fake_machine_event(bed.update, MACHINE_EVENT_RESUME, NULL);
	json_decref(client_json(&c));
	bed.update->active = true;
	client_ask(&c, "{\"execute\":\"system_reset\"}",
		   QMP_ERROR("GenericError", "There's a migration process in progress"));
	bed.update->active = false;
	bed.update->runstate = RUNSTATE_POSTMIGRATE;
	client_ask(&c, "{\"execute\":\"system_reset\"}",
		   QMP_ERROR("GenericError", "another process has taken over the guest"));
	client_clear(&c);
	bed_clear(&bed);
}

static void test_quit(void)
{
	struct bed bed;
	struct client c;

	bed_init(&bed, false);
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	client_say(&c, "{\"execute\":\"quit\"}");
	WAIT_FOR(bed.quit);
	g_assert_cmpstr(bed.quit, ==, "host-qmp-quit");
	g_clear_pointer(&bed.monitors, monitors_free);
	client_expect(&c, "{\"return\":{}}");
	client_clear(&c);
	bed_clear(&bed);
}

/* Who asks and does not read waits, others do not; and no answer is lost when it reads. */
static void test_slow_reader(void)
{
	static const char request[] = "{\"execute\":\"query-commands\"}";
	unsigned int n_asked = 0, n_answered = 0;
	struct client c, other;
	struct bed bed;

	bed_init(&bed, true);
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	while (write(c.fd, request, strlen(request)) == (ssize_t)strlen(request)) {
		g_main_context_iteration(NULL, FALSE);
		g_assert_cmpuint(++n_asked, <, 100000);
	}
	g_assert_cmpint(errno, ==, EAGAIN);
	settle();
	client_init(&other, &bed, "hmp0");
	g_free(client_until(&other, "(qemu) "));
	client_say(&other, "info kvm\n");
	g_free(client_until(&other, "kvm support: enabled"));
	client_clear(&other);
	while (n_answered < n_asked) {
		json_t *answer = client_json(&c);

		g_assert_true(json_is_array(json_object_get(answer, "return")));
		json_decref(answer);
		n_answered++;
	}
	client_clear(&c);
	bed_clear(&bed);
}

/* Commands in one write: every monitor has its turn between them. */
static void test_flood(void)
{
	g_autoptr(GString) many = g_string_new(NULL);
	unsigned int n_turns = 0;
	struct client c;
	struct bed bed;

	bed_init(&bed, true);
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	for (int i = 0; i < 100; i++)
		g_string_append(many, "{\"execute\":\"cont\"}\n");
	client_say(&c, many->str);
	while (bed.update->calls->len < 100 * strlen("cont();")) {
		size_t before = bed.update->calls->len;

		g_main_context_iteration(NULL, TRUE);
		g_assert_cmpuint(bed.update->calls->len - before, <=, 20 * strlen("cont();"));
		n_turns++;
	}
	g_assert_cmpuint(n_turns, >=, 5);
	client_clear(&c);
	bed_clear(&bed);
}

static void ask_id(struct client *c, const char *id, const char *expect)
{
	g_autofree char *request = g_strdup_printf("{\"execute\":\"query-name\",\"id\":%s}", id);
	g_autofree char *answer =
		g_strdup_printf("{\"return\": {}, \"id\": %s}\r\n", expect ? expect : id);
	g_autofree char *got = NULL;

	client_say(c, request);
	got = client_until(c, "\r\n");
	g_assert_cmpstr(got, ==, answer);
}

/* Whatever JSON the id is, the reply has it as it was. */
static void test_ids(void)
{
	static const struct {
		const char *id, *expect;
	} cases[] = {
		{"0"},
		{"-1.50e+3"},
		{"9223372036854775807"},
		{"9223372036854775808"},
		{"18446744073709551615"},
		{"123456789012345678901234567890.10"},
		{"1e999"},
		{"null"},
		{"true"},
		{"\"\""},
		{"\"a\\u0000b\""},
		{"\"\\\" } ,\\\\\""},
		{"{\"a\\u0000\":1,\"a\\u0000\":2}"},
		{" [ 1 ,\n{ \"b\" : [ ] } ] ", "[1,{\"b\":[]}]"},
		{"\"\xc3\xa4\xf0\x9f\x98\x80\"", "\"\\u00E4\\uD83D\\uDE00\""},
		{"'it\\'s'", "\"it's\""},
	};
	g_autoptr(GString) deep = g_string_new(NULL);
	struct bed bed;
	struct client c;

	bed_init(&bed, true);
	client_init(&c, &bed, "qmp0");
	client_negotiate(&c);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
		ask_id(&c, cases[i].id, cases[i].expect);
	for (int i = 0; i < 100; i++)
		g_string_append_c(deep, '[');
	for (int i = 0; i < 100; i++)
		g_string_append_c(deep, ']');
	ask_id(&c, deep->str, NULL);
	/* The key as another spelling of it; errors have it too, those of the parser as well. */
	client_ask(
		&c, "{\"\\u0069d\":7,\"execute\":\"no\"}",
		"{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command no has not been "
		"found\"},\"id\":7}");
	client_ask(&c, "{\"execute\":\"\\u0000\",\"id\":8}",
		   "{\"error\":{\"class\":\"GenericError\",\"desc\":\"JSON parse error, a string "
		   "contains \\\\u0000\"},\"id\":8}");
	client_ask(
		&c, "{\"id\":9,\"execute\":18446744073709551616}",
		"{\"error\":{\"class\":\"GenericError\",\"desc\":\"JSON parse error, a number is "
		"too large\"},\"id\":9}");
	client_ask(&c, "{\"id\":01,\"execute\":\"query-name\"}",
		   QMP_ERROR("GenericError", "JSON parse error, invalid token near '0'"));
	client_clear(&c);
	bed_clear(&bed);
}

static void test_exec(void)
{
	static const char half[] = "{\"execute\":\"query-t";
	struct bed old, new;
	struct fdstore *store;
	struct client c;
	json_t *event;

	bed_init(&old, true);
	client_init(&c, &old, "qmp0");
	client_negotiate(&c);
	client_say(&c, half);
	settle();
	bed_succeed(&old, &new, &store);
	/* Said while nobody listens. */
	client_say(&c, "arget\"}{\"execute\":\"query-kvm\"}");
	settle();
	/* The guest goes on before the monitors do: the client hears of it all the same. */
	fake_machine_event(new.update, MACHINE_EVENT_RESUME, NULL);
	monitors_start(new.monitors);
	event = client_json(&c);
	g_assert_cmpstr(json_string_value(json_object_get(event, "event")), ==, "RESUME");
	json_decref(event);
	client_expect(&c, "{\"return\":{\"arch\":\"x86_64\"}}");
	client_expect(&c, "{\"return\":{\"enabled\":true,\"present\":true}}");
	client_nothing(&c);
	client_clear(&c);
	/* The listener too has crossed: who comes now is greeted. */
	client_init(&c, &new, "qmp0");
	client_negotiate(&c);
	client_clear(&c);
	bed_clear(&new);
	fdstore_free(store);
	bed_clear(&old);
}

/* A client that comes after the exec, to a listener that had nobody before it. */
/* Who left too much unread is cut off by an exec, and the next client is one like any other. */
static void test_exec_unread(void)
{
	static const char request[] = "{\"execute\":\"query-qmp-schema\"}";
	struct bed old, new;
	struct fdstore *store;
	struct client c;

	bed_init(&old, true);
	client_init(&c, &old, "qmp0");
	client_negotiate(&c);
	for (int i = 0; i < 100; i++)
		client_say(&c, request);
	settle();
	bed_succeed(&old, &new, &store);
	monitors_start(new.monitors);
	client_clear(&c);
	client_init(&c, &new, "qmp0");
	client_negotiate(&c);
	client_ask(&c, "{\"execute\":\"query-target\"}", "{\"return\":{\"arch\":\"x86_64\"}}");
	client_clear(&c);
	bed_clear(&new);
	fdstore_free(store);
	bed_clear(&old);
}

static void test_exec_without_client(void)
{
	struct bed old, new;
	struct fdstore *store;
	struct client c;

	bed_init(&old, true);
	bed_succeed(&old, &new, &store);
	monitors_start(new.monitors);
	client_init(&c, &new, "qmp0");
	client_negotiate(&c);
	client_clear(&c);
	bed_clear(&new);
	fdstore_free(store);
	bed_clear(&old);
}

/* A cold start refuses what a successor goes on without. */
static void test_cannot_open(void)
{
	struct bed bed;
	struct vm_config *config = bed_prepare(&bed, NULL);
	struct chardev_config *qmp = config->chardevs->pdata[0];
	g_autoptr(GError) error = NULL;
	struct fdstore *empty = fdstore_new();
	struct client c;

	g_free(qmp->path);
	qmp->path = g_strdup("/nonexistent/qmp");
	bed.update = fake_update_new(config, true);
	g_assert_null(monitors_new(bed.update, bed_quit, &bed, &error));
	g_assert_cmpstr(error->message, ==,
			"monitor: chardev 'qmp0': Failed to bind socket to /nonexistent/qmp: No "
			"such file or directory");
	bed.update->fds.inherited = empty;
	bed_open(&bed);
	monitors_start(bed.monitors);
	client_init(&c, &bed, "hmp0");
	g_free(client_until(&c, "(qemu) "));
	client_clear(&c);
	bed_clear(&bed);
	fdstore_free(empty);
}

static void test_exec_fails(void)
{
	struct bed old, new;
	struct fdstore *store;
	struct client c;

	bed_init(&old, true);
	client_init(&c, &old, "qmp0");
	client_negotiate(&c);
	bed_succeed(&old, &new, &store);
	client_say(&c, "{\"execute\":\"query-target\"}");
	settle();
	client_nothing(&c);
	monitors_free(g_steal_pointer(&new.monitors));
	update_free(g_steal_pointer(&new.update));
	g_free(new.dir);
	fdstore_free(store);
	fake_update_ends(old.update);
	client_expect(&c, "{\"return\":{\"arch\":\"x86_64\"}}");
	client_clear(&c);
	client_init(&c, &old, "qmp0");
	client_negotiate(&c);
	client_clear(&c);
	bed_clear(&old);
}

static void test_state_is_described(void)
{
	g_autoptr(GError) error = NULL;

	g_assert_true(state_desc_lint(&monitor_session_desc, &error));
	g_assert_no_error(error);
}

static void test_pretty(void)
{
	struct bed bed;
	struct client c;
	struct vm_config *config = bed_prepare(&bed, NULL);
	g_autofree char *answer = NULL;

	((struct monitor_config *)config->monitors->pdata[0])->pretty = true;
	bed.update = fake_update_new(config, true);
	bed_open(&bed);
	monitors_start(bed.monitors);
	client_init(&c, &bed, "qmp0");
	g_free(client_until(&c, "\n}\r\n"));
	client_say(&c, "{\"execute\":\"qmp_capabilities\"}");
	answer = client_until(&c, "\r\n");
	g_assert_cmpstr(answer, ==, "{\n    \"return\": {}\n}\r\n");
	client_clear(&c);
	bed_clear(&bed);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/qmp/greeting", test_greeting);
	g_test_add_func("/qmp/requests", test_requests);
	g_test_add_func("/qmp/framing", test_framing);
	g_test_add_func("/qmp/events", test_events);
	g_test_add_func("/qmp/every-command", test_every_command);
	g_test_add_func("/qmp/schema-names", test_schema_names);
	g_test_add_func("/qmp/without-machine", test_without_machine);
	g_test_add_func("/qmp/quit", test_quit);
	g_test_add_func("/qmp/slow-reader", test_slow_reader);
	g_test_add_func("/qmp/flood", test_flood);
	g_test_add_func("/qmp/ids", test_ids);
	g_test_add_func("/qmp/exec", test_exec);
	g_test_add_func("/qmp/exec-unread", test_exec_unread);
	g_test_add_func("/qmp/exec-without-client", test_exec_without_client);
	g_test_add_func("/qmp/cannot-open", test_cannot_open);
	g_test_add_func("/qmp/exec-fails", test_exec_fails);
	g_test_add_func("/qmp/state", test_state_is_described);
	g_test_add_func("/qmp/pretty", test_pretty);
	return g_test_run();
}
