// The offer: what a predecessor tells about its VM before anything is stopped, and its comparison.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/offer.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "backend/chardev/chardev_set.h"
#include "base/error.h"
#include "cpr/frame.h"
#include "machine/machine.h"
#include "state/section.h"

/* The configuration, the tree, and what little there is beside them. */
_Static_assert(VM_CONFIG_BYTES_MAX * 2 <= FRAME_MAX_BYTES, "an offer is one frame");

bool offer_session_new(char session[OFFER_SESSION_BYTES], GError **error)
{
	uint8_t random[(OFFER_SESSION_BYTES - 1) / 2];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return error_set_errno(error, errno, "cannot get random numbers");
	for (size_t i = 0; i < sizeof(random); i++)
		g_snprintf(session + 2 * i, 3, "%02x", random[i]);
	return true;
}

json_t *offer_to_json(const struct vm_config *config, json_t *tree, const char *session,
		      uint64_t generation, const char *mode)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:i, s:o, s:o}", "mode", mode, "build", MOLT_VERSION,
			 "session", session, "generation", (json_int_t)generation,
			 "state-min-reader", STATE_FORMAT_MIN_READER, "config",
			 vm_config_to_json(config), "tree", tree);
}

static bool session_valid(const char *session)
{
	return strlen(session) == OFFER_SESSION_BYTES - 1 &&
	       strspn(session, "0123456789abcdef") == OFFER_SESSION_BYTES - 1;
}

struct offer *offer_from_json(const json_t *json, GError **error)
{
	autoptr(offer) offer = g_new0(struct offer, 1);
	const char *session, *mode, *build;
	json_int_t generation;
	json_t *config, *tree;
	int min_reader;

	if (json_unpack((json_t *)json, "{s:s, s:s, s:s, s:I, s:i, s:o, s:o}", "mode", &mode,
			"build", &build, "session", &session, "generation", &generation,
			"state-min-reader", &min_reader, "config", &config, "tree", &tree) < 0 ||
	    !session_valid(session) || generation <= 0 || min_reader <= 0 || strlen(mode) > 32 ||
	    strlen(build) > 64 || !json_is_object(tree)) {
		error_set_generic(error, "the offer is not understood");
		return NULL;
	}
	offer->config = vm_config_from_json(config, error);
	if (!offer->config) {
		g_prefix_error(error, "the offered configuration: ");
		return NULL;
	}
	offer->tree = json_deep_copy(tree);
	memcpy(offer->session, session, sizeof(offer->session));
	offer->generation = generation;
	offer->build = g_strdup(build);
	offer->mode = g_strdup(mode);
	offer->state_min_reader = min_reader;
	return g_steal_pointer(&offer);
}

void offer_free(struct offer *offer)
{
	if (!offer)
		return;
	vm_config_free(offer->config);
	json_decref(offer->tree);
	g_free(offer->build);
	g_free(offer->mode);
	g_free(offer);
}

/* ---- what does not fit ---- */

static void add_line(GString *out, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

static void add_line(GString *out, const char *fmt, ...)
{
	va_list ap;

	if (out->len)
		g_string_append_c(out, '\n');
	va_start(ap, fmt);
	g_string_append_vprintf(out, fmt, ap);
	va_end(ap);
}

char *offer_config_differences(const struct offer *offer, const struct vm_config *own,
			       bool may_lack)
{
	g_autoptr(GString) out = g_string_new(NULL);
	g_autofree char *config = NULL;
	g_autofree char *moved = NULL;

	if (offer->state_min_reader > STATE_FORMAT_VERSION)
		add_line(
			out,
			"%s writes a state that needs a reader of format %u, this is molt " MOLT_VERSION
			" with format %u",
			offer->build, offer->state_min_reader, STATE_FORMAT_VERSION);
	if (own->explicit_vm)
		config = vm_config_differences(offer->config, own, may_lack);
	if (config)
		add_line(out, "%s", config);
	/* After execve() nothing is opened for the first time. */
	if (own->explicit_vm && g_strcmp0(offer->mode, "cpr-exec") == 0)
		moved = vm_config_moved_chardevs(offer->config, own, false);
	if (moved)
		add_line(out,
			 "%s\nan exec goes on with what is open; cpr-transfer takes other places",
			 moved);
	return out->len ? g_strdup(out->str) : NULL;
}

char *offer_differences(const struct offer *offer, const struct vm_config *own, bool may_lack)
{
	const struct vm_config *config = own->explicit_vm && !may_lack ? own : offer->config;
	g_autofree char *differences = offer_config_differences(offer, own, may_lack);
	g_autoptr(GString) out = g_string_new(differences);
	g_autoptr(GError) error = NULL;

	if (!machine_check_takeover(config, offer->tree, &error))
		add_line(out, "%s", error->message);
	return out->len ? g_strdup(out->str) : NULL;
}

/* ---- trees ---- */

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "?";
}

static json_int_t number_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static bool share_of(const json_t *object)
{
	return json_is_true(json_object_get(object, "share"));
}

/* The entry of @list with the same @key and instance as @entry. */
static const json_t *find_entry(const json_t *list, const json_t *entry, const char *key)
{
	const json_t *other;
	size_t i;

	json_array_foreach(list, i,
			   other) if (strcmp(text_of(other, key), text_of(entry, key)) == 0 &&
				      number_of(other, "instance") ==
					      number_of(entry, "instance")) return other;
	return NULL;
}

static void compare_section(GString *out, const json_t *theirs, const json_t *own)
{
	const char *name = text_of(theirs, "section");

	if (strcmp(text_of(theirs, "state"), text_of(own, "state")) != 0)
		add_line(out, "%s: its state is '%s' there, '%s' here", name,
			 text_of(theirs, "state"), text_of(own, "state"));
	else if (number_of(theirs, "min-reader") > number_of(own, "version"))
		add_line(out,
			 "%s: state version %" JSON_INTEGER_FORMAT
			 " needs a reader of version %" JSON_INTEGER_FORMAT
			 ", here is %" JSON_INTEGER_FORMAT,
			 name, number_of(theirs, "version"), number_of(theirs, "min-reader"),
			 number_of(own, "version"));
}

static void compare_ram(GString *out, const json_t *theirs, const json_t *own)
{
	if (number_of(theirs, "size") != number_of(own, "size"))
		add_line(out,
			 "RAM block %s: %" JSON_INTEGER_FORMAT " bytes there, %" JSON_INTEGER_FORMAT
			 " here",
			 text_of(theirs, "name"), number_of(theirs, "size"),
			 number_of(own, "size"));
	if (share_of(theirs) != share_of(own))
		add_line(out, "RAM block %s: share=%s there, share=%s here",
			 text_of(theirs, "name"), share_of(theirs) ? "on" : "off",
			 share_of(own) ? "on" : "off");
}

/* Every entry of each list has its like in the other, and those compare; own @may_lack some. */
static void compare_lists(GString *out, const json_t *theirs, const json_t *own, const char *key,
			  const char *what, bool may_lack,
			  void (*compare)(GString *out, const json_t *theirs, const json_t *own))
{
	const json_t *entry, *like;
	size_t i;

	json_array_foreach(theirs, i, entry)
	{
		like = find_entry(own, entry, key);
		if (like)
			compare(out, entry, like);
		else if (!may_lack)
			add_line(out, "%s %s: there, not here", what, text_of(entry, key));
	}
	json_array_foreach(own, i, entry) if (!find_entry(theirs, entry, key))
		add_line(out, "%s %s: here, not there", what, text_of(entry, key));
}

char *offer_tree_differences(const json_t *theirs, const json_t *own, bool may_lack)
{
	g_autoptr(GString) out = g_string_new(NULL);

	compare_lists(out, json_object_get(theirs, "devices"), json_object_get(own, "devices"),
		      "section", "device", may_lack, compare_section);
	compare_lists(out, json_object_get(theirs, "ram"), json_object_get(own, "ram"), "name",
		      "RAM block", false, compare_ram);
	return out->len ? g_strdup(out->str) : NULL;
}

/* ---- the configuration to go on with ---- */

/* Move every monitor and every chardev that only monitors use out of @from, into @to if given. */
static void move_monitors(struct vm_config *from, struct vm_config *to)
{
	for (guint i = 0; i < from->chardevs->len;) {
		struct chardev_config *chardev = g_ptr_array_index(from->chardevs, i);

		if (!chardev_is_monitors(from, chardev->id))
			i++;
		else if (to)
			g_ptr_array_add(to->chardevs, g_ptr_array_steal_index(from->chardevs, i));
		else
			g_ptr_array_remove_index(from->chardevs, i);
	}
	while (to && from->monitors->len > 0)
		g_ptr_array_add(to->monitors, g_ptr_array_steal_index(from->monitors, 0));
	g_ptr_array_set_size(from->monitors, 0);
}

/* Swap what belongs to the process, not to the VM. */
static void take_process_part(struct vm_config *to, struct vm_config *from)
{
	GPtrArray *incoming = to->incoming;

	to->incoming = from->incoming;
	from->incoming = incoming;
	g_free(to->pidfile);
	to->pidfile = g_steal_pointer(&from->pidfile);
	to->start_paused = from->start_paused;
	to->daemonize = from->daemonize;
}

struct vm_config *offer_adopt_config(struct offer *offer, struct vm_config *own, bool keep_monitors)
{
	struct vm_config *taken = g_steal_pointer(&offer->config);

	take_process_part(taken, own);
	if (!keep_monitors || own->monitors->len > 0) {
		move_monitors(taken, NULL);
		move_monitors(own, taken);
	}
	return taken;
}

/* ---- hello ---- */

#define HELLO_MAX_FEATURES 64

static const struct {
	const char *name;
	uint32_t bit;
} hello_features[] = {
	{"record", HELLO_RECORD},
};

json_t *hello_to_json(uint32_t features)
{
	json_t *names = json_array();

	for (size_t i = 0; i < G_N_ELEMENTS(hello_features); i++)
		if (features & hello_features[i].bit)
			json_array_append_new(names, json_string(hello_features[i].name));
	return json_pack("{s:i, s:i, s:s, s:o}", "protocol", FRAME_PROTOCOL, "protocol-min",
			 FRAME_PROTOCOL_MIN, "build", MOLT_VERSION, "features", names);
}

static uint32_t feature_by_name(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(hello_features); i++)
		if (strcmp(hello_features[i].name, name) == 0)
			return hello_features[i].bit;
	return 0;
}

/* A newer peer has features that are unknown here; they are not in force. */
static bool features_parse(const json_t *names, uint32_t *features)
{
	const json_t *name;
	size_t i;

	*features = 0;
	if (!json_is_array(names) || json_array_size(names) > HELLO_MAX_FEATURES)
		return false;
	json_array_foreach(names, i, name)
	{
		if (!json_is_string(name))
			return false;
		*features |= feature_by_name(json_string_value(name));
	}
	return true;
}

bool hello_check(const json_t *hello, char **build, uint32_t *features, GError **error)
{
	const char *text;
	int newest, oldest;
	json_t *names;

	if (json_unpack((json_t *)hello, "{s:i, s:i, s:s, s:o}", "protocol", &newest,
			"protocol-min", &oldest, "build", &text, "features", &names) < 0 ||
	    strlen(text) > 64 || !features_parse(names, features))
		return error_set_generic(error, "the peer's greeting is not understood");
	if (newest < FRAME_PROTOCOL_MIN || oldest > FRAME_PROTOCOL)
		return error_set_generic(
			error,
			"molt %s speaks update protocol %d to %d, molt " MOLT_VERSION
			" speaks %d to %d",
			text, oldest, newest, FRAME_PROTOCOL_MIN, FRAME_PROTOCOL);
	*build = g_strdup(text);
	return true;
}
