// What keeps a successor from taking over: two configurations compared as their guests see them.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "options/config.h"
#include "options/tables.h"
#include "options/text.h"

/* One line: "-m: 2G here, 4G in the successor". */
static void add_difference(GString *out, const char *what, const char *ours, const char *theirs)
{
	g_autofree char *a = text_printable(ours ? ours : "none");
	g_autofree char *b = text_printable(theirs ? theirs : "none");

	g_string_append_printf(out, "%s%s: %s here, %s in the successor", out->len ? "\n" : "",
			       what, a, b);
}

static void compare_text(GString *out, const char *what, const char *ours, const char *theirs)
{
	if (g_strcmp0(ours, theirs) != 0)
		add_difference(out, what, ours, theirs);
}

static void compare_size(GString *out, const char *what, uint64_t ours, uint64_t theirs)
{
	g_autofree char *a = text_from_size(ours);
	g_autofree char *b = text_from_size(theirs);

	compare_text(out, what, a, b);
}

static void compare_number(GString *out, const char *what, uint32_t ours, uint32_t theirs)
{
	g_autofree char *a = g_strdup_printf("%u", ours);
	g_autofree char *b = g_strdup_printf("%u", theirs);

	compare_text(out, what, a, b);
}

static void compare_flag(GString *out, const char *what, bool ours, bool theirs)
{
	compare_text(out, what, ours ? "on" : "off", theirs ? "on" : "off");
}

static const char *known(const void *thing)
{
	return thing ? "defined" : NULL;
}

static void compare_machine(GString *out, const struct vm_config *ours,
			    const struct vm_config *theirs)
{
	compare_text(out, "-machine type", ours->machine.type, theirs->machine.type);
	compare_text(out, "-machine memory-backend", ours->machine.memory_backend,
		     theirs->machine.memory_backend);
	compare_flag(out, "-machine aux-ram-share", ours->machine.aux_ram_share,
		     theirs->machine.aux_ram_share);
	compare_text(out, "-cpu", ours->cpu_model, theirs->cpu_model);
	compare_number(out, "-smp cpus", ours->n_cpus, theirs->n_cpus);
	compare_number(out, "-smp sockets", ours->n_sockets, theirs->n_sockets);
	compare_number(out, "-smp cores", ours->n_cores, theirs->n_cores);
	compare_number(out, "-smp threads", ours->n_threads, theirs->n_threads);
	compare_size(out, "-m", ours->ram_size_bytes, theirs->ram_size_bytes);
	compare_text(out, "-uuid", ours->uuid, theirs->uuid);
}

static void compare_backend(GString *out, const struct memory_backend_config *a,
			    const struct memory_backend_config *b)
{
	g_autofree char *what = g_strdup_printf("-object id=%s", a->id);
	g_autofree char *size = g_strconcat(what, ": size", NULL);
	g_autofree char *share = g_strconcat(what, ": share", NULL);
	g_autofree char *page = g_strconcat(what, ": hugetlbsize", NULL);

	if (!b) {
		add_difference(out, what, known(a), NULL);
		return;
	}
	compare_text(out, what, kind_by_number(memory_backend_kinds, a->kind)->name,
		     kind_by_number(memory_backend_kinds, b->kind)->name);
	compare_size(out, size, a->size_bytes, b->size_bytes);
	compare_flag(out, share, a->share, b->share);
	compare_size(out, page, a->hugetlbsize_bytes, b->hugetlbsize_bytes);
}

/* Objects are found by id, so their order does not matter. */
static void compare_objects(GString *out, const struct vm_config *ours,
			    const struct vm_config *theirs)
{
	for (guint i = 0; i < ours->memory_backends->len; i++) {
		const struct memory_backend_config *a = g_ptr_array_index(ours->memory_backends, i);

		compare_backend(out, a, vm_config_memory_backend(theirs, a->id));
	}
	for (guint i = 0; i < theirs->memory_backends->len; i++) {
		const struct memory_backend_config *b =
			g_ptr_array_index(theirs->memory_backends, i);
		g_autofree char *what = g_strdup_printf("-object id=%s", b->id);

		if (!vm_config_memory_backend(ours, b->id))
			add_difference(out, what, NULL, known(b));
	}
}

static void compare_chardev(GString *out, const char *user, const struct vm_config *ours,
			    const struct vm_config *theirs, const char *id)
{
	const struct chardev_config *a = vm_config_chardev(ours, id);
	const struct chardev_config *b = vm_config_chardev(theirs, id);
	g_autofree char *what = g_strdup_printf("%s: chardev %s", user, id);

	if (!a || !b)
		return; /* the ids differ, which the caller has reported */
	compare_text(out, what, kind_by_number(chardev_kinds, a->kind)->name,
		     kind_by_number(chardev_kinds, b->kind)->name);
}

static void compare_serials(GString *out, const struct vm_config *ours,
			    const struct vm_config *theirs)
{
	guint n = MAX(ours->serials->len, theirs->serials->len);

	for (guint i = 0; i < n; i++) {
		const struct serial_config *a =
			i < ours->serials->len ? g_ptr_array_index(ours->serials, i) : NULL;
		const struct serial_config *b =
			i < theirs->serials->len ? g_ptr_array_index(theirs->serials, i) : NULL;
		const char *ours_id = a ? a->chardev : NULL;
		const char *theirs_id = b ? b->chardev : NULL;
		g_autofree char *what = g_strdup_printf("-serial (COM%u)", i + 1);

		compare_text(out, what, ours_id, theirs_id);
		if (ours_id)
			compare_chardev(out, what, ours, theirs, ours_id);
	}
}

static void compare_block(GString *out, const char *user, const struct vm_config *ours,
			  const struct vm_config *theirs, const char *name)
{
	const struct block_config *a = vm_config_block(ours, name);
	const struct block_config *b = vm_config_block(theirs, name);
	g_autofree char *kind = g_strdup_printf("%s: drive %s: host device", user, name);
	g_autofree char *ro = g_strdup_printf("%s: drive %s: read-only", user, name);

	if (!a || !b)
		return; /* the names differ, which the caller has reported */
	compare_flag(out, kind, a->host_device, b->host_device);
	compare_flag(out, ro, a->read_only, b->read_only);
}

/* A scalar as command-line text, so that 2 and "2", true and "on" are the same. */
static char *scalar_text(const json_t *value)
{
	if (json_is_string(value))
		return g_strdup(json_string_value(value));
	if (json_is_boolean(value))
		return g_strdup(json_is_true(value) ? "on" : "off");
	if (json_is_integer(value))
		return g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	return NULL;
}

static void compare_values(GString *out, const char *what, const json_t *a, const json_t *b)
{
	g_autofree char *ours = scalar_text(a);
	g_autofree char *theirs = scalar_text(b);

	if ((ours && theirs) ? strcmp(ours, theirs) == 0 : json_equal(a, b))
		return;
	add_difference(out, what, ours ? ours : known(a), theirs ? theirs : known(b));
}

/* An address is settled where it is not given, which only the machine that is built knows. */
static bool is_place(const char *key)
{
	return strcmp(key, "addr") == 0 || strcmp(key, "bus") == 0;
}

static void compare_props(GString *out, const char *user, const json_t *ours, const json_t *theirs)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)ours, key, value)
	{
		g_autofree char *shown = text_printable(key);
		g_autofree char *what = g_strdup_printf("%s: %s", user, shown);

		if (!is_place(key))
			compare_values(out, what, value, json_object_get(theirs, key));
	}
	json_object_foreach((json_t *)theirs, key, value)
	{
		g_autofree char *shown = text_printable(key);
		g_autofree char *what = g_strdup_printf("%s: %s", user, shown);

		if (!json_object_get(ours, key) && !is_place(key))
			compare_values(out, what, NULL, value);
	}
}

static char *device_text(const struct device_config *device)
{
	if (!device)
		return NULL;
	return g_strconcat(device->driver, device->id ? ",id=" : NULL, device->id, NULL);
}

static void compare_places(GString *out, const char *user, const struct device_config *a,
			   const struct device_config *b)
{
	g_autofree char *bus = g_strconcat(user, ": bus", NULL);
	g_autofree char *addr = g_strconcat(user, ": addr", NULL);
	const char *ours = device_config_addr(a), *theirs = device_config_addr(b);
	uint8_t devfn_a, devfn_b;

	compare_text(out, bus, device_config_bus(a), device_config_bus(b));
	if (!ours || !theirs)
		return;
	if (!text_to_devfn(ours, &devfn_a) || !text_to_devfn(theirs, &devfn_b) ||
	    devfn_a != devfn_b)
		compare_text(out, addr, ours, theirs);
}

/* A device and its counterpart: the same driver and id. */
static void compare_device(GString *out, const struct vm_config *ours,
			   const struct device_config *a, const struct vm_config *theirs,
			   const struct device_config *b)
{
	g_autofree char *text = device_text(a);
	g_autofree char *user = g_strdup_printf("-device %s", text);
	const char *drive = json_string_value(json_object_get(a->props, "drive"));
	const char *chardev = json_string_value(json_object_get(a->props, "chardev"));

	compare_places(out, user, a, b);
	compare_props(out, user, a->props, b->props);
	if (drive)
		compare_block(out, user, ours, theirs, drive);
	if (chardev)
		compare_chardev(out, user, ours, theirs, chardev);
}

static bool same_device(const struct device_config *a, const struct device_config *b)
{
	return strcmp(a->driver, b->driver) == 0 && g_strcmp0(a->id, b->id) == 0;
}

static bool same_addr(const struct device_config *a, const struct device_config *b)
{
	uint8_t devfn_a, devfn_b;

	return text_to_devfn(device_config_addr(a), &devfn_a) &&
	       text_to_devfn(device_config_addr(b), &devfn_b) && devfn_a == devfn_b;
}

/**
 * struct pairing - Which of @theirs is the counterpart of which of ours
 * @theirs:	Their devices
 * @used:	Those that are one
 * @next:	Devices whose place follows from their order are looked for from here on
 */
struct pairing {
	const GPtrArray *theirs;
	bool *used;
	guint next;
};

/* The same address if both have one; else the first in order, or anywhere if the address is given. */
static const struct device_config *pair_device(struct pairing *pairing,
					       const struct device_config *a)
{
	const bool placed = device_config_addr(a);

	for (guint i = 0; i < pairing->theirs->len; i++) {
		const struct device_config *b = g_ptr_array_index(pairing->theirs, i);
		const bool both = placed && device_config_addr(b);

		if (pairing->used[i] || !same_device(a, b) || (both && !a->id && !same_addr(a, b)))
			continue;
		if (!placed && !device_config_addr(b)) {
			if (i < pairing->next)
				continue;
			pairing->next = i + 1;
		}
		pairing->used[i] = true;
		return b;
	}
	return NULL;
}

static void report_unpaired(GString *out, guint number, const struct device_config *a,
			    const struct device_config *b)
{
	g_autofree char *place = g_strdup_printf("-device number %u", number);
	g_autofree char *ours = device_text(a);
	g_autofree char *theirs = device_text(b);

	if (g_strcmp0(ours, theirs) == 0)
		add_difference(out, place, ours, "in another order");
	else
		add_difference(out, place, ours, theirs);
}

/* The next of @pairing's that is no counterpart, from *@at on; *@at is its number then. */
static const struct device_config *next_unpaired(const struct pairing *pairing, guint *at)
{
	while (*at < pairing->theirs->len)
		if (!pairing->used[(*at)++])
			return g_ptr_array_index(pairing->theirs, *at - 1);
	return NULL;
}

static void compare_devices(GString *out, const struct vm_config *ours,
			    const struct vm_config *theirs, bool may_lack)
{
	g_autofree bool *used = g_new0(bool, theirs->devices->len);
	struct pairing pairing = {theirs->devices, used, 0};
	g_autofree const struct device_config **pairs =
		g_new0(const struct device_config *, ours->devices->len);
	const struct device_config *b;
	guint at = 0;

	for (guint i = 0; i < ours->devices->len; i++)
		pairs[i] = pair_device(&pairing, g_ptr_array_index(ours->devices, i));
	for (guint i = 0; i < ours->devices->len; i++) {
		const struct device_config *a = g_ptr_array_index(ours->devices, i);

		if (pairs[i])
			compare_device(out, ours, a, theirs, pairs[i]);
		else if ((b = next_unpaired(&pairing, &at)) || !may_lack)
			report_unpaired(out, i + 1, a, b);
	}
	while ((b = next_unpaired(&pairing, &at)))
		report_unpaired(out, at, NULL, b);
}

char *vm_config_differences(const struct vm_config *ours, const struct vm_config *theirs,
			    bool may_lack)
{
	GString *out = g_string_new(NULL);

	compare_machine(out, ours, theirs);
	compare_objects(out, ours, theirs);
	compare_serials(out, ours, theirs);
	compare_devices(out, ours, theirs, may_lack);
	return g_string_free(out, out->len == 0);
}

/* ---- chardevs that lead elsewhere ---- */

/* "unix:/path", "tcp:host:port,server=on": where it leads; the caller's. */
static char *chardev_place(const struct chardev_config *chardev)
{
	const char *server = chardev->server ? ",server=on" : "";

	if (chardev->host || chardev->port)
		return g_strdup_printf("%s:%s%s", chardev->host ? chardev->host : "",
				       chardev->port ? chardev->port : "", server);
	return g_strdup_printf("%s%s%s%s", chardev->path ? chardev->path : "",
			       chardev->in_path ? ",input-path=" : "",
			       chardev->in_path ? chardev->in_path : "", server);
}

char *vm_config_moved_chardevs(const struct vm_config *ours, const struct vm_config *theirs,
			       bool mark)
{
	GString *out = g_string_new(NULL);

	for (guint i = 0; i < theirs->chardevs->len; i++) {
		struct chardev_config *b = g_ptr_array_index(theirs->chardevs, i);
		const struct chardev_config *a = vm_config_chardev(ours, b->id);
		g_autofree char *what = g_strdup_printf("chardev %s", b->id);
		g_autofree char *log = g_strdup_printf("chardev %s: logfile", b->id);
		g_autofree char *here = a ? chardev_place(a) : NULL;
		g_autofree char *there = chardev_place(b);

		if (!a || a->kind != b->kind)
			continue;
		compare_text(out, what, here, there);
		compare_text(out, log, a->logfile, b->logfile);
		if (mark) {
			b->moved = strcmp(here, there) != 0;
			b->log_moved = g_strcmp0(a->logfile, b->logfile) != 0;
		}
	}
	return g_string_free(out, out->len == 0);
}
