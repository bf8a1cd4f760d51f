// The offer: what a predecessor tells about its VM before anything is stopped, and its comparison.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"
#include "options/config.h"

/** OFFER_SESSION_BYTES - Of a session's name (32 hex digits), with its NUL */
#define OFFER_SESSION_BYTES 33

/**
 * struct offer - An offer, checked
 * @config:	The VM as its owner runs it; hot-plugged changes included
 * @tree:	machine_device_tree() of the owner
 * @session:	Names this update: the main channel and the state stream must name the same
 * @generation:	The successor's, if it comes to that (owner.h)
 * @build:	The owner's version
 * @mode:	"cpr-transfer" or "cpr-exec"
 * @state_min_reader: Oldest stream format version whose readers read what it writes
 */
struct offer {
	struct vm_config *config;
	json_t *tree;
	char session[OFFER_SESSION_BYTES];
	uint64_t generation;
	char *build;
	char *mode;
	uint32_t state_min_reader;
};

/** offer_session_new() - A new, unguessable session name. */
bool offer_session_new(char session[OFFER_SESSION_BYTES], GError **error);

/** offer_to_json() - An offer's message; @tree is taken; owned by the caller. */
json_t *offer_to_json(const struct vm_config *config, json_t *tree, const char *session,
		      uint64_t generation, const char *mode);

/**
 * offer_from_json() - Check a message from outside
 * Return: to be freed with offer_free(), NULL with @error set.
 */
struct offer *offer_from_json(const json_t *json, GError **error);

/** offer_free() - Accepts NULL. */
void offer_free(struct offer *offer);
DEFINE_CLEANUP(offer, offer_free)

/**
 * offer_config_differences() - Why a process described by @own cannot take the offer
 *
 * A process whose command line describes no VM takes whatever is offered.
 * @may_lack:	Devices may still be added to it: those that it lacks are no reason
 *
 * Return: one line per difference, to be freed; NULL if it fits.
 */
char *offer_config_differences(const struct offer *offer, const struct vm_config *own,
			       bool may_lack);

/**
 * offer_differences() - The same, and which of the states offered this program cannot read
 *
 * All that can be told before there is a machine.
 */
char *offer_differences(const struct offer *offer, const struct vm_config *own, bool may_lack);

/**
 * offer_tree_differences() - Why a machine with the tree @own cannot load the state of @theirs
 *
 * RAM blocks must be the same.  Sections must be the same, and of a version that the state can be
 * read by.
 * @may_lack:	Devices may still be added to it: those that it lacks are no reason
 *
 * Return: one line per difference, to be freed; NULL if it fits.
 */
char *offer_tree_differences(const json_t *theirs, const json_t *own, bool may_lack);

/**
 * offer_adopt_config() - The offered configuration, for a process whose command line describes no VM
 * @own:	Its parsed command line; what belongs to the process, and to its monitors, is moved
 *		out of it
 * @keep_monitors: Monitors cross (exec), unless the command line has some
 *
 * Return: the configuration to go on with, no longer @offer's.
 */
struct vm_config *offer_adopt_config(struct offer *offer, struct vm_config *own,
				     bool keep_monitors);

/**
 * HELLO_RECORD, ... - Features: what a side may leave out, or send, if both know it; bits of a set
 *
 * HELLO_RECORD ("record"): the frame "running" carries the new process's record, and is answered by the
 * frame "record" with the old one's, so that both have all of it.
 */
#define HELLO_RECORD (1U << 0)
#define HELLO_ALL    HELLO_RECORD

/**
 * hello_to_json() - What each side says first: versions, features, build; owned by the caller
 * @features:	HELLO_ALL from the old process; from the new one those that are in force
 */
json_t *hello_to_json(uint32_t features);

/**
 * hello_check() - Whether the dialogue can go on with such a peer
 * @build:	Set to its version, to be freed
 * @features:	Set to those that both know: these and no others are in force
 *
 * Versions overlap where each side's newest is at least the other's oldest.
 */
bool hello_check(const json_t *hello, char **build, uint32_t *features, GError **error);
