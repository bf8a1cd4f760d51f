// The property tables of struct vm_config's parts, for parsing, JSON and help alike.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <glib.h>
#include <jansson.h>

#include "options/config.h"
#include "options/props.h"

/**
 * struct kind_table - One kind of a thing, chosen by the value of a key
 * @name:	That value: "socket", "memory-backend-memfd"; NULL ends an array of these
 * @kind:	The kind's number in its enum
 * @props:	Its properties
 * @help:	One line for help output
 */
struct kind_table {
	const char *name;
	int kind;
	const struct prop *props;
	const char *help;
};

extern const struct kind_table chardev_kinds[];
extern const struct kind_table memory_backend_kinds[];
extern const struct prop rng_props[];
extern const struct prop iothread_props[];
extern const struct prop machine_props[];
extern const struct prop monitor_props[];
extern const struct prop vm_props[]; /* what struct vm_config itself holds and travels */

/** kind_find() - The kind called @name, NULL if there is none. */
const struct kind_table *kind_find(const struct kind_table *kinds, const char *name);

/** kind_by_number() - The kind with number @kind, NULL if there is none. */
const struct kind_table *kind_by_number(const struct kind_table *kinds, int kind);

/** kind_names() - "null, stdio, socket" for messages; caller owns it. */
char *kind_names(const struct kind_table *kinds);

/** enum vm_list_index - Which array of struct vm_config: index of vm_lists */
enum vm_list_index {
	VM_LIST_MEMORY_BACKENDS,
	VM_LIST_RNGS,
	VM_LIST_IOTHREADS,
	VM_LIST_CHARDEVS,
	VM_LIST_BLOCKS,
	VM_LIST_DEVICES,
	VM_LIST_SERIALS,
	VM_LIST_MONITORS,
	VM_LIST_COUNT,
};

/**
 * struct vm_list - One of struct vm_config's arrays of described structs
 * @name:	Its key in a configuration's JSON
 * @offset:	offsetof() the GPtrArray in struct vm_config
 * @size:	sizeof() an element
 * @props:	Table of an element, NULL where @kinds has one per kind
 * @kind_key:	With @kinds: the key that chooses the kind
 * @kind_offset: With @kinds: offsetof() the kind, an int-sized enum, in an element
 * @kinds:	The kinds' tables
 * @json_key:	Key of an object that is kept as JSON, NULL if there is none
 * @json_offset: With @json_key: offsetof() the json_t * in an element
 * @free:	Frees an element; accepts NULL
 */
struct vm_list {
	const char *name;
	size_t offset;
	size_t size;
	const struct prop *props;
	const char *kind_key;
	size_t kind_offset;
	const struct kind_table *kinds;
	const char *json_key;
	size_t json_offset;
	void (*free)(void *element);
};

/** vm_lists - Every array of struct vm_config that travels, by enum vm_list_index */
extern const struct vm_list vm_lists[VM_LIST_COUNT];

/** vm_list_array() - The array of @config that @index names. */
GPtrArray *vm_list_array(const struct vm_config *config, enum vm_list_index index);

/**
 * vm_list_read() - Make an element from its JSON form, which is hostile until checked
 * @what:	Prefix of messages: "-chardev socket,id=c0"
 * Return: the element, the caller's; NULL with @error set.
 */
void *vm_list_read(enum vm_list_index index, const json_t *json, const char *what, GError **error);

/** vm_list_write() - The inverse; owned by the caller. */
json_t *vm_list_write(enum vm_list_index index, const void *element);
