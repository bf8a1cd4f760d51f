// Describe a plain struct once: save, load, check, dump, schema and lint follow from the table.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/span.h"

/**
 * DOC: Theory of operation
 *
 * What of a device survives an update is one plain struct: fixed-width unsigned members, bool,
 * nested structs of the same kind and kernel ABI structs; no pointer, no descriptor, no lock.  A
 * const table of struct state_field beside it names every member once, and struct state_desc names
 * the table.  Everything else is done here from the table, so a device has no save and no load
 * function.
 *
 * A table and its struct cannot drift apart.  The macros take the wire type from the member, so a
 * signed, pointer, floating or bit-field member does not compile; state_desc_lint() fails when a
 * byte of the struct is described twice or not at all.
 *
 * Saving never fails on a live device: it writes what the struct holds.  (Exception: a list whose
 * count exceeds its capacity, which would be a bug of the device and is reported, not truncated.)
 *
 * Loading treats the bytes as hostile.  state_load() parses into a scratch copy of the reset
 * values, lets @check look at every struct, and copies to the object only if all of that went well.
 * Failures name the member by its path and the reason: "queue[2].used_idx: ...".
 *
 * How tables may change between releases, and the bytes, are in docs/format-state.md.
 */

/** STATE_MAX_DEPTH - How deep structs may be nested in one another */
#define STATE_MAX_DEPTH 6

/** STATE_MAX_BYTES - No saved struct and no stream is longer than this */
#define STATE_MAX_BYTES (64U << 20)

/* Octets of the headers on the wire. */
#define STATE_STRUCT_HEADER_BYTES 12
#define STATE_FIELD_HEADER_BYTES  12

/** STATE_OPTIONAL - A reader that does not know this field, or section, may drop it */
#define STATE_OPTIONAL 0x01

/**
 * enum state_type - What an element is, as written on the wire
 *
 * The values are part of the format and never change.
 */
enum state_type {
	STATE_U8 = 1,
	STATE_U16 = 2,
	STATE_U32 = 3,
	STATE_U64 = 4,
	STATE_BOOL = 5,
	STATE_STRUCT = 6,
	STATE_BLOB = 7,
};

/**
 * enum state_shape - How many elements a member holds; known to both sides, not on the wire
 * @STATE_ONE:		One
 * @STATE_FIXED:	As many as the array has
 * @STATE_COUNTED:	As many as a count member says, at most as many as the array has
 * @STATE_PAD:		Padding, not saved
 * @STATE_GONE:		No member: a tag that was used once and never will be again
 */
enum state_shape {
	STATE_ONE,
	STATE_FIXED,
	STATE_COUNTED,
	STATE_PAD,
	STATE_GONE,
};

struct state_desc;

/**
 * struct state_field - One row of a table; written with the FIELD macros only
 * @name:	The member's name
 * @abi:	STATE_BLOB: name of the kernel's struct, for the schema
 * @desc:	STATE_STRUCT: the nested struct's description
 * @offset:	Where the member starts
 * @elem_size:	Octets of one element in memory
 * @capacity:	Elements the member has room for
 * @count_offset: STATE_COUNTED: where its uint32_t count member is
 * @tag:	Its number on the wire: ascending within a table, unique, never reused
 * @since:	The version of the struct that added it; 0: it was always there
 * @type:	enum state_type
 * @shape:	enum state_shape
 * @flags:	0 or STATE_OPTIONAL
 */
struct state_field {
	const char *name;
	const char *abi;
	const struct state_desc *desc;
	uint32_t offset;
	uint32_t elem_size;
	uint32_t capacity;
	uint32_t count_offset;
	uint16_t tag;
	uint16_t since;
	uint8_t type;
	uint8_t shape;
	uint8_t flags;
};

/**
 * struct state_desc - The description of one struct
 * @name:	Stable name of the struct, for errors and for docs/schema/
 * @version:	Grows by one with every change to the table, from 1
 * @min_reader:	The oldest version of this table that can read what this one writes
 * @flags:	STATE_OPTIONAL: a reader that has no such section may drop it
 * @fields:	The table, ascending by tag
 * @n_fields:	Its length
 * @size:	sizeof the struct
 * @reset:	Optional: fill in the values that stand where a writer had no such field.  The
 *		struct is zeroed before.  Needed for elements of lists and where the caller gives no reset values
 * @check:	Optional: the rules a valid struct obeys (indices in range, sizes a power of two).
 *		Pure: looks at the struct and nothing else; false with @error set if a rule is
 *		broken. Called for nested structs too, innermost first
 */
struct state_desc {
	const char *name;
	uint16_t version;
	uint16_t min_reader;
	uint8_t flags;
	const struct state_field *fields;
	uint32_t n_fields;
	uint32_t size;
	void (*reset)(void *obj);
	bool (*check)(const void *obj, GError **error);
};

/* ---- the macros ---- */

/* A member as an operand that is never evaluated. */
#define STATE_MEMBER(type_, member_) (((type_ *)NULL)->member_)

/* 0, or an error at compile time when @cond does not hold. */
#define STATE_REQUIRE(cond, why)            \
	(0 * sizeof(struct {                \
		 _Static_assert(cond, why); \
		 char c;                    \
	 }))

/* Signed, pointer, floating and foreign types have no row here: they do not compile. */
/* clang-format off */
#define STATE_TYPE_OF(elem) _Generic((elem), \
	uint8_t: STATE_U8, uint16_t: STATE_U16, uint32_t: STATE_U32, uint64_t: STATE_U64, \
	bool: STATE_BOOL)

/* A pointer would be indexable too; only an array differs from the address of its first element. */
#define STATE_REQUIRE_ARRAY(array) \
	STATE_REQUIRE(!__builtin_types_compatible_p(__typeof__(array), __typeof__(&(array)[0])), \
		      "this member must be an array")

/* __builtin_classify_type() of a struct is 12, of a union 13. */
#define STATE_REQUIRE_RECORD(member) \
	STATE_REQUIRE(__builtin_classify_type(member) == 12 || \
		      __builtin_classify_type(member) == 13, \
		      "this member must be a struct or a union")

#define STATE_REQUIRE_COUNT(member) \
	STATE_REQUIRE(_Generic((member), uint32_t: 1, default: 0), \
		      "a count member must be a uint32_t")

#define STATE_ARRAY_LEN(array) \
	(sizeof(array) / sizeof((array)[0]) + STATE_REQUIRE_ARRAY(array))

#define STATE_FIELD_HEAD(type_, member_, tag_) \
	.name = #member_, .offset = offsetof(type_, member_), .tag = (tag_)

/** FIELD() - A scalar member: FIELD(struct uart_state, ier, 1) or, with .since = 2, at the end */
#define FIELD(type_, member_, tag_, ...) { \
	STATE_FIELD_HEAD(type_, member_, tag_), .shape = STATE_ONE, .capacity = 1, \
	.type = STATE_TYPE_OF(STATE_MEMBER(type_, member_)), \
	.elem_size = sizeof(STATE_MEMBER(type_, member_)), __VA_ARGS__ }

/** FIELD_ARRAY() - An array of scalars that is always full; its length never changes */
#define FIELD_ARRAY(type_, member_, tag_, ...) { \
	STATE_FIELD_HEAD(type_, member_, tag_), .shape = STATE_FIXED, \
	.type = STATE_TYPE_OF(STATE_MEMBER(type_, member_)[0]), \
	.elem_size = sizeof(STATE_MEMBER(type_, member_)[0]), \
	.capacity = STATE_ARRAY_LEN(STATE_MEMBER(type_, member_)), __VA_ARGS__ }

/**
 * FIELD_LIST() - An array of scalars of which the first @count_ are valid
 *
 * @count_ is a uint32_t member; this row describes it too.  A later version may have more room.
 * A load zeroes the elements past the count.
 */
#define FIELD_LIST(type_, member_, count_, tag_, ...) { \
	STATE_FIELD_HEAD(type_, member_, tag_), .shape = STATE_COUNTED, \
	.type = STATE_TYPE_OF(STATE_MEMBER(type_, member_)[0]), \
	.elem_size = sizeof(STATE_MEMBER(type_, member_)[0]), \
	.capacity = STATE_ARRAY_LEN(STATE_MEMBER(type_, member_)), \
	.count_offset = offsetof(type_, count_) + STATE_REQUIRE_COUNT(STATE_MEMBER(type_, count_)), \
	__VA_ARGS__ }

/** FIELD_STRUCT() - A nested struct that has a description of its own, *@desc_ */
#define FIELD_STRUCT(type_, member_, tag_, desc_, ...) { \
	STATE_FIELD_HEAD(type_, member_, tag_), .shape = STATE_ONE, .capacity = 1, \
	.type = STATE_STRUCT, .desc = (desc_), \
	.elem_size = sizeof(STATE_MEMBER(type_, member_)) + \
		     STATE_REQUIRE_RECORD(STATE_MEMBER(type_, member_)), __VA_ARGS__ }

/** FIELD_STRUCT_LIST() - FIELD_LIST() of nested structs described by *@desc_ */
#define FIELD_STRUCT_LIST(type_, member_, count_, tag_, desc_, ...) { \
	STATE_FIELD_HEAD(type_, member_, tag_), .shape = STATE_COUNTED, \
	.type = STATE_STRUCT, .desc = (desc_), \
	.elem_size = sizeof(STATE_MEMBER(type_, member_)[0]) + \
		     STATE_REQUIRE_RECORD(STATE_MEMBER(type_, member_)[0]), \
	.capacity = STATE_ARRAY_LEN(STATE_MEMBER(type_, member_)), \
	.count_offset = offsetof(type_, count_) + STATE_REQUIRE_COUNT(STATE_MEMBER(type_, count_)), \
	__VA_ARGS__ }

/** FIELD_BLOB() - A struct of the kernel's stable ABI, copied as it is; @abi_ names it */
#define FIELD_BLOB(type_, member_, tag_, abi_, ...) { \
	STATE_FIELD_HEAD(type_, member_, tag_), .shape = STATE_ONE, .capacity = 1, \
	.type = STATE_BLOB, .abi = (abi_), \
	.elem_size = sizeof(STATE_MEMBER(type_, member_)) + \
		     STATE_REQUIRE_RECORD(STATE_MEMBER(type_, member_)), __VA_ARGS__ }

/** FIELD_PAD() - A uint8_t array that only fills a hole; not saved */
#define FIELD_PAD(type_, member_) { \
	.name = #member_, .offset = offsetof(type_, member_), .shape = STATE_PAD, \
	.type = STATE_U8, .elem_size = 1, \
	.capacity = STATE_ARRAY_LEN(STATE_MEMBER(type_, member_)) + \
		    STATE_REQUIRE(_Generic(STATE_MEMBER(type_, member_)[0], uint8_t: 1, default: 0), \
				  "padding must be an array of uint8_t") }

/** FIELD_GONE() - Keeps @tag_ of a removed member from being used again */
#define FIELD_GONE(tag_) { .name = "(gone)", .shape = STATE_GONE, .tag = (tag_) }

/** STATE_DESC() - Ends the initialiser of a struct state_desc: the struct and its table */
#define STATE_DESC(type_, fields_) \
	.fields = (fields_), .n_fields = sizeof(fields_) / sizeof((fields_)[0]), \
	.size = sizeof(type_)
/* clang-format on */

/* ---- what follows from a table ---- */

/**
 * state_save() - Append the struct @obj to @out
 * @desc:	Its description
 * @obj:	The struct; not changed
 * @out:	Grows by one struct in wire form; its former content stays.  On failure it is cut
 * back
 *
 * Context: any thread that may read @obj.
 * Return: false if a list claims more elements than it has room for.
 */
bool state_save(const struct state_desc *desc, const void *obj, GByteArray *out, GError **error);

/**
 * state_parse() - Read one struct in wire form into @scratch
 * @desc:	What this program expects
 * @wire:	Exactly one struct, hostile until read
 * @scratch:	sizeof the struct, filled with the reset values by the caller.  Holds what was read
 *		on success and anything on failure
 *
 * The step under state_load() and struct state_txn, for callers with a scratch of their own.
 * Return: false with @error "member: reason" for anything but a valid struct.
 */
bool state_parse(const struct state_desc *desc, struct span wire, void *scratch, GError **error);

/**
 * state_load() - Read one struct in wire form, all or nothing
 * @desc:	What this program expects
 * @wire:	Exactly one struct, hostile until read
 * @reset:	Values for the fields the writer did not have; NULL: those of @desc's reset, or
 * zeros
 * @obj:	Written on success only
 *
 * Return: false with @error "member: reason", and @obj as it was, for anything but a valid struct.
 */
bool state_load(const struct state_desc *desc, struct span wire, const void *reset, void *obj,
		GError **error);

/**
 * state_scratch_new() - A buffer for state_parse() with the reset values in it
 * @reset:	Copied if given, else @desc's reset is called on zeros, else zeros
 * Return: to be freed with g_free().
 */
void *state_scratch_new(const struct state_desc *desc, const void *reset);

/**
 * state_desc_lint() - Check a description for mistakes the compiler cannot see
 *
 * Every byte of the struct is described exactly once; tags are ascending, unique and not 0;
 * versions make sense (a field that old readers must not drop raises min_reader); nested
 * descriptions fit their members and are linted too.  A unit test calls it for every description.
 * Return: false with the first mistake in @error.
 */
bool state_desc_lint(const struct state_desc *desc, GError **error);

/**
 * state_dump_json() - The struct for human eyes: an object with one entry per member
 *
 * Octets and blobs become hex strings, 64-bit numbers "0x..." strings (JSON's would lose bits).
 * Return: a new reference.
 */
json_t *state_dump_json(const struct state_desc *desc, const void *obj);

/**
 * state_schema_write() - Append the table as text, nested tables after it, each once
 *
 * docs/schema/ holds the result for every section; a test compares.
 */
void state_schema_write(const struct state_desc *desc, GString *out);

/** state_type_name() - "u8", "bool", "struct", ...; NULL when @type is none of ours. */
const char *state_type_name(unsigned int type);

/**
 * state_field_count() - Elements of @field that are valid in @obj
 *
 * What the count member says for a list, even beyond the capacity; 0 for padding and gone tags.
 */
uint32_t state_field_count(const struct state_field *field, const void *obj);
