// Property tables: one row per key gives parsing, JSON both ways, defaults and help.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

enum prop_type {
	PROP_BOOL,	  /* bool: on|off, true|false in JSON */
	PROP_U16,	  /* uint16_t */
	PROP_U32,	  /* uint32_t */
	PROP_U64,	  /* uint64_t */
	PROP_SIZE,	  /* uint64_t bytes; text takes the suffixes k M G T (powers of 1024) */
	PROP_STRING,	  /* char *, owned by the struct */
	PROP_ENUM,	  /* int-sized enum; @names lists the values' names, NULL-ended */
	PROP_ON_OFF_AUTO, /* enum on_off_auto */
};

/**
 * struct prop - One property of a struct
 * @name:	Key, dots for nesting ("cache.direct")
 * @type:	How the member is read and written
 * @offset:	offsetof() the member
 * @def:	Default as text, NULL for zero / none
 * @names:	PROP_ENUM: value names
 * @min, @max:	Bounds of numbers; both 0: none but the type's
 * @required:	The key must be given
 * @help:	One line for help output
 */
struct prop {
	const char *name;
	enum prop_type type;
	size_t offset;
	const char *def;
	const char *const *names;
	uint64_t min, max;
	bool required;
	const char *help;
};

/**
 * props_from_json() - Fill *@obj from @json by @table (ended by a row with a NULL name)
 * @what:	Prefix of messages: "-device virtio-blk-pci"
 *
 * Values may be JSON-typed or text (as keyval parsing leaves them).  Defaults are applied; unknown
 * keys, wrong types and values out of bounds are refused.  On failure *@obj is left cleared.
 */
bool props_from_json(const struct prop *table, const json_t *json, void *obj, const char *what,
		     GError **error);

/** props_to_json() - The inverse: every property that differs from its default.  Caller owns it. */
json_t *props_to_json(const struct prop *table, const void *obj);

/** props_clear() - Free the strings of *@obj and zero its described members. */
void props_clear(const struct prop *table, void *obj);

/** props_help() - Append "  name=<type>  help (default: ...)" lines to @out. */
void props_help(const struct prop *table, GString *out);

/**
 * keyval_parse() - QEMU's "a=b,c.d=e,flag" syntax to a JSON object of strings
 * @implied_key: Key of a first item that has no '=', NULL if none is allowed
 *
 * ",," is a comma in a value; "key" alone is "key=on", "nokey" "key=off"; dots nest, numeric parts
 * make lists; text that starts with '{' is JSON.  Return: caller owns it; NULL with @error set.
 */
json_t *keyval_parse(const char *text, const char *implied_key, GError **error);
