// A machine without KVM, of a configuration: built, told to do things, built again from what it says.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string.h>

#include "../device/fake.h"
#include "machine/machine_priv.h"

/** struct bed - A machine without KVM */
struct bed {
	struct fake_machine *fake;
	struct machine *machine;
	GPtrArray *deleted; /* char *: ids of DEVICE_DELETED, "" for none */
};

static inline void note_deleted(void *opaque, enum machine_event event, json_t *data)
{
	struct bed *bed = opaque;
	const char *id = json_string_value(json_object_get(data, "device"));

	if (event == MACHINE_EVENT_DEVICE_DELETED)
		g_ptr_array_add(bed->deleted, g_strdup(id ? id : ""));
}

/* Takes @config. */
static inline struct bed bed_new(struct vm_config *config, enum runstate runstate)
{
	struct machine *machine = machine_alloc(config, NULL, chardev_set_new(), runstate);
	struct bed bed = {.fake = fake_machine_new(), .machine = machine};
	GError *error = NULL;

	machine->pci64_base = UINT64_C(4) << 30;
	board_init(machine);
	board_init_env(machine, &bed.fake->accel);
	board_build_backends(machine, &error);
	g_assert_no_error(error);
	board_build_devices(machine, &error);
	g_assert_no_error(error);
	bed.deleted = g_ptr_array_new_with_free_func(g_free);
	return bed;
}

static inline void bed_free(struct bed *bed)
{
	struct chardev_set *chardevs = bed->machine->chardevs;
	struct vm_config *config = bed->machine->config;

	machine_free(bed->machine);
	chardev_set_free(chardevs);
	vm_config_free(config);
	fake_machine_free(bed->fake);
	g_ptr_array_unref(bed->deleted);
}

static inline struct vm_config *config_of(const char *text)
{
	GError *error = NULL;
	json_error_t where;
	json_t *json = json_loads(text, 0, &where);
	struct vm_config *config = vm_config_from_json(json, &error);

	g_assert_no_error(error);
	json_decref(json);
	return config;
}

static inline char *device_text(const struct device *dev)
{
	return g_strdup_printf("%s/%s id=%s on %s", dev->path, dev->ops->name, dev->id ?: "",
			       dev->parent ? dev->parent->path : "");
}

static inline int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline char *machine_text(const struct machine *machine)
{
	g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);

	for (guint i = 0; i < machine->devices->len; i++)
		g_ptr_array_add(lines, device_text(machine->devices->pdata[i]));
	g_ptr_array_sort(lines, compare_texts);
	g_ptr_array_add(lines, NULL);
	return g_strjoinv("\n", (char **)lines->pdata);
}

static inline GBytes *save(struct machine *machine)
{
	autoptr(state_writer) writer = state_writer_begin("test");
	GError *error = NULL;
	GBytes *stream;

	machine_save_devices(machine, writer, &error);
	g_assert_no_error(error);
	stream = state_writer_finish(writer, &error);
	g_assert_no_error(error);
	return stream;
}

static inline void load(struct machine *machine, GBytes *stream)
{
	GError *error = NULL;
	autoptr(state_reader) reader = state_reader_open(stream, &error);
	autoptr(state_txn) txn = state_txn_new(reader);

	machine_parse_devices(machine, txn, &error);
	g_assert_no_error(error);
	state_txn_commit(txn, NULL, NULL, &error);
	g_assert_no_error(error);
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		if (dev->ops->apply)
			dev->ops->apply(dev, &error);
		g_assert_no_error(error);
	}
}

/* What a successor is told builds the machine that is here, and takes its state. */
static inline void assert_rebuilds(struct machine *machine)
{
	json_t *json = vm_config_to_json(machine->config);
	GError *error = NULL;
	struct vm_config *config = vm_config_from_json(json, &error);
	g_autofree char *here = machine_text(machine);
	g_autofree char *there = NULL;
	g_autoptr(GBytes) state = NULL;
	struct bed other;

	g_assert_no_error(error);
	json_decref(json);
	board_check_devices(config, &error);
	g_assert_no_error(error);
	other = bed_new(config, RUNSTATE_INMIGRATE);
	there = machine_text(other.machine);
	g_assert_cmpstr(here, ==, there);
	state = save(machine);
	load(other.machine, state);
	bed_free(&other);
}
