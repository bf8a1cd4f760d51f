// A stand-in for src/cpr and src/machine: remembers what monitors ask of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>
#include <jansson.h>

#include "cpr/update.h"
#include "machine/machine.h"

/**
 * struct update - The fake
 * @machine:	What update_machine() returns; fake_update_machine_appears() sets it
 * @calls:	Names of the functions called that change something, with their arguments
 * @fail:	Message that the next changing call fails with; NULL: none
 */
struct update {
	struct vm_config *config;
	struct fd_source fds;
	struct chardev_set *chardevs;
	struct machine *machine;
	enum runstate runstate;
	bool active;
	struct update_extra extra;
	update_event_fn event_fn;
	void *event_opaque;
	void (*machine_fn)(void *opaque, struct machine *machine);
	void *machine_opaque;
	void (*idle_fn)(void *opaque);
	void *idle_opaque;
	GString *calls;
	const char *fail;
	const char *error_desc;
};

/** struct machine - The fake one */
struct machine {
	struct update *update;
	machine_event_fn fn;
	void *opaque;
};

/** fake_update_new() - With @config (taken) and, if asked, a machine. */
struct update *fake_update_new(struct vm_config *config, bool with_machine);

/** fake_update_machine_appears() - As when a predecessor's offer has arrived. */
void fake_update_machine_appears(struct update *update);

/** fake_update_ends() - As when the update in progress has ended. */
void fake_update_ends(struct update *update);

/** fake_machine_event() - Tell the listener; @data taken. */
void fake_machine_event(struct update *update, enum machine_event event, json_t *data);
