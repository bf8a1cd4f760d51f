// The chardevs of a process by id: each is opened once, whoever uses it first.
// SPDX-License-Identifier: Apache-2.0
#include "backend/chardev/chardev_set.h"

#include <jansson.h>

#include "backend/chardev/chardev_priv.h"
#include "base/error.h"

struct chardev_set_entry {
	struct chardev *chardev;
	unsigned int n_users;
};

struct chardev_set {
	GPtrArray *entries; /* struct chardev_set_entry * */
	void (*on_quit)(void *opaque);
	void *on_quit_opaque;
};

static void chardev_set_entry_free(void *opaque)
{
	struct chardev_set_entry *entry = opaque;

	chardev_free(entry->chardev);
	g_free(entry);
}

struct chardev_set *chardev_set_new(void)
{
	struct chardev_set *set = g_new0(struct chardev_set, 1);

	set->entries = g_ptr_array_new_with_free_func(chardev_set_entry_free);
	return set;
}

void chardev_set_free(struct chardev_set *set)
{
	if (!set)
		return;
	g_ptr_array_unref(set->entries);
	g_free(set);
}

struct chardev *chardev_set_get(struct chardev_set *set, unsigned int index)
{
	struct chardev_set_entry *entry;

	if (index >= set->entries->len)
		return NULL;
	entry = set->entries->pdata[index];
	return entry->chardev;
}

void chardev_set_on_quit(struct chardev_set *set, void (*fn)(void *opaque), void *opaque)
{
	set->on_quit = fn;
	set->on_quit_opaque = opaque;
	for (guint i = 0; i < set->entries->len; i++)
		chardev_on_quit(chardev_set_get(set, i), fn, opaque);
}

static struct chardev_set_entry *chardev_set_entry(struct chardev_set *set, const char *id)
{
	for (guint i = 0; i < set->entries->len; i++) {
		struct chardev_set_entry *entry = set->entries->pdata[i];

		if (g_str_equal(chardev_id(entry->chardev), id))
			return entry;
	}
	return NULL;
}

struct chardev *chardev_set_find(struct chardev_set *set, const char *id)
{
	struct chardev_set_entry *entry = chardev_set_entry(set, id);

	return entry ? entry->chardev : NULL;
}

/* Two readers of one terminal would take each other's input. */
static bool chardev_set_check_stdio(struct chardev_set *set, const struct chardev_config *config,
				    GError **error)
{
	for (guint i = 0; config->kind == CHARDEV_STDIO && i < set->entries->len; i++) {
		struct chardev_set_entry *entry = set->entries->pdata[i];

		if (entry->chardev->config.kind == CHARDEV_STDIO)
			return error_set_generic(
				error,
				"chardev '%s': stdio is taken by '%s'; with mux=on "
				"several frontends can share it",
				config->id, chardev_id(entry->chardev));
	}
	return true;
}

struct chardev *chardev_set_open(struct chardev_set *set, const struct vm_config *config,
				 const char *id, struct fd_source *fds, GError **error)
{
	struct chardev_set_entry *entry = chardev_set_entry(set, id);
	const struct chardev_config *description = vm_config_chardev(config, id);
	struct chardev *chardev;

	if (entry) {
		entry->n_users++;
		return entry->chardev;
	}
	if (!description) {
		error_set(error, MOLT_ERROR_DEVICE_NOT_FOUND, "chardev '%s' not found", id);
		return NULL;
	}
	if (!chardev_set_check_stdio(set, description, error))
		return NULL;
	chardev = chardev_new_in(chardev_is_monitors(config, id) ? FD_MONITOR_PREFIX
								 : FD_CHARDEV_PREFIX,
				 description, fds, error);
	if (!chardev)
		return NULL;
	chardev_on_quit(chardev, set->on_quit, set->on_quit_opaque);
	entry = g_new0(struct chardev_set_entry, 1);
	entry->chardev = chardev;
	entry->n_users = 1;
	g_ptr_array_add(set->entries, entry);
	return chardev;
}

void chardev_set_close(struct chardev_set *set, struct chardev *chardev)
{
	struct chardev_set_entry *entry = chardev_set_entry(set, chardev_id(chardev));

	if (--entry->n_users == 0)
		g_ptr_array_remove(set->entries, entry);
}

bool chardev_is_monitors(const struct vm_config *config, const char *id)
{
	bool found = false;

	for (guint i = 0; i < config->monitors->len; i++) {
		const struct monitor_config *monitor = config->monitors->pdata[i];

		found = found || g_strcmp0(monitor->chardev, id) == 0;
	}
	for (guint i = 0; i < config->serials->len; i++) {
		const struct serial_config *serial = config->serials->pdata[i];

		found = found && g_strcmp0(serial->chardev, id) != 0;
	}
	for (guint i = 0; i < config->devices->len; i++) {
		const struct device_config *device = config->devices->pdata[i];
		const char *used = json_string_value(json_object_get(device->props, "chardev"));

		found = found && g_strcmp0(used, id) != 0;
	}
	return found;
}

bool chardev_fd_moved(const struct vm_config *config, const char *name)
{
	for (guint i = 0; i < config->chardevs->len; i++) {
		const struct chardev_config *chardev = config->chardevs->pdata[i];
		g_autofree char *prefix = g_strdup_printf(FD_CHARDEV_PREFIX "%s/", chardev->id);
		g_autofree char *log = g_strconcat(prefix, CHARDEV_LOG_FD, NULL);

		if (g_str_equal(name, log))
			return chardev->log_moved;
		if (g_str_has_prefix(name, prefix))
			return chardev->moved;
	}
	return false;
}
