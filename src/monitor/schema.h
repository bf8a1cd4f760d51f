// Types of QMP arguments and results: checked, and shown by query-qmp-schema, from one description.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

/** enum schema_kind - What a value may be */
enum schema_kind {
	SCHEMA_STRING,
	SCHEMA_BOOL,
	SCHEMA_INT,
	SCHEMA_NUMBER,
	SCHEMA_NULL,
	SCHEMA_ENUM,
	SCHEMA_ARRAY,
	SCHEMA_OBJECT,
	SCHEMA_ALTERNATE,
	SCHEMA_ANY,
};

/**
 * struct schema_member - One member of an object; a row without a name ends a table
 * @type:	Of its value
 * @optional:	May be left out
 */
struct schema_member {
	const char *name;
	const struct schema *type;
	bool optional;
};

/**
 * struct schema_variant - More members of an object, for one value of its tag
 * @value:	Of the tag; a row without one ends a table
 * @type:	An object, NULL if it adds no members
 */
struct schema_variant {
	const char *value;
	const struct schema *type;
};

/**
 * struct schema - A type
 * @name:	SCHEMA_INT: what an error message calls it ("uint32")
 * @min, @max:	SCHEMA_INT: bounds
 * @values:	SCHEMA_ENUM: NULL-ended
 * @element:	SCHEMA_ARRAY: type of each element
 * @members:	SCHEMA_OBJECT: table, NULL if it has none
 * @tag:	SCHEMA_OBJECT: name of the member that chooses among @variants
 * @open:	SCHEMA_OBJECT: takes members beyond these, which its user checks
 * @choices:	SCHEMA_ALTERNATE: NULL-ended; at most one per kind
 */
struct schema {
	enum schema_kind kind;
	const char *name;
	int64_t min, max;
	const char *const *values;
	const struct schema *element;
	const struct schema_member *members;
	const char *tag;
	const struct schema_variant *variants;
	bool open;
	const struct schema *const *choices;
};

extern const struct schema schema_string, schema_bool, schema_number, schema_null, schema_any;
extern const struct schema schema_int, schema_uint8, schema_uint16, schema_uint32, schema_uint64;
extern const struct schema schema_string_list, schema_empty;

/** DEFINE_SCHEMA_LIST() - The type "array of @element_" */
#define DEFINE_SCHEMA_LIST(name_, element_) \
	const struct schema name_ = {.kind = SCHEMA_ARRAY, .element = &(element_)}

/**
 * schema_check() - Whether @value is of @type
 * @value:	Hostile until checked
 * @path:	What messages call it; "" for a command's arguments
 *
 * Return: false with QEMU's texts: "Parameter 'x' is missing", "Parameter 'a.b[0]' is unexpected",
 * "Invalid parameter type for 'x', expected: string", ...
 */
bool schema_check(const struct schema *type, const json_t *value, const char *path, GError **error);

/** schema_find_member() - The type of member @name of an object type, variants left out, or NULL */
const struct schema *schema_find_member(const struct schema *type, const char *name);

/** schema_kind_name() - "string", "integer", ...: how messages call a type. */
const char *schema_kind_name(const struct schema *type);

/** struct schema_info - Collects a query-qmp-schema list; types get numbers as they are met */
struct schema_info;

struct schema_info *schema_info_new(void);

/** schema_info_command(), schema_info_event() - Add one; @args and @returns NULL for empty. */
void schema_info_command(struct schema_info *info, const char *name, const struct schema *args,
			 const struct schema *returns);
void schema_info_event(struct schema_info *info, const char *name, const struct schema *args);

/** schema_info_finish() - Free @info and return the list; owned by the caller. */
json_t *schema_info_finish(struct schema_info *info);
