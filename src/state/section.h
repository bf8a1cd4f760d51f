// The stream: named sections of described structs between a header and an end mark.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "base/cleanup.h"
#include "base/span.h"
#include "state/state.h"

/**
 * DOC: Theory of operation
 *
 * A stream is header, sections, end mark (docs/format-state.md).  A section is one struct under a
 * stable path such as "pci/00.3/virtio-blk" and an instance number.  Sections lie in ascending
 * order of name and instance, whatever the order of the calls was: the same machine gives the same
 * bytes.
 *
 * Happy path, writer: state_writer_begin(), state_writer_add() per struct, state_writer_finish().
 * The result goes over a socket as it is, or through state_bytes_seal() into a memfd that its
 * reader can map and trust not to change.
 *
 * Happy path, reader: state_reader_open() checks everything that can be checked without knowing the
 * machine: header, architecture, length, every checksum, order.  Then state_reader_load() or, to
 * load many objects all or nothing, struct state_txn (state/txn.h) per section, and
 * state_reader_finish(), which fails while a section is left that nobody took.
 *
 * Unhappy path: every failure leaves the objects as they were and names the section.  A reader that
 * failed can only be freed.
 */

/** STATE_FORMAT_VERSION - The stream format this program writes */
#define STATE_FORMAT_VERSION 1

/** STATE_FORMAT_MIN_READER - The oldest program, by format version, that can read it */
#define STATE_FORMAT_MIN_READER 1

#define STATE_HEADER_BYTES   128 /* of the stream header, for ever */
#define STATE_NAME_BYTES     64	 /* of a section name, with its NUL */
#define STATE_ARCH_BYTES     16
#define STATE_BUILD_ID_BYTES 80
#define STATE_MAX_SECTIONS   4096

/**
 * struct state_header - The stream header, decoded
 * @format_version:	Of the stream
 * @min_reader:		The oldest format version whose readers can read it
 * @total_length:	Octets of the whole stream, this header included
 * @n_sections:		Between header and end mark
 * @arch:		Of the program that wrote it, such as "x86_64"
 * @build_id:		Names the program that wrote it, for people
 */
struct state_header {
	uint32_t format_version;
	uint32_t min_reader;
	uint64_t total_length;
	uint32_t n_sections;
	char arch[STATE_ARCH_BYTES];
	char build_id[STATE_BUILD_ID_BYTES];
};

/**
 * state_header_read() - Read and check the first STATE_HEADER_BYTES of a stream
 *
 * For a caller that receives a stream and must know how much is to come.  Says what is wrong: not a
 * state stream, damaged, too new a format, another architecture, too long.
 * Return: false with @error set unless this program can read such a stream.
 */
bool state_header_read(struct span wire, struct state_header *header, GError **error);

/** state_arch_name() - The architecture this program writes and reads. */
const char *state_arch_name(void);

/* ---- writing ---- */

struct state_writer;

/**
 * state_writer_begin() - Start a stream
 * @build_id:	Names this program in error messages of the reader; printable, cut at 79 characters
 * Return: to be freed with state_writer_free().
 */
struct state_writer *state_writer_begin(const char *build_id);

/**
 * state_writer_add() - Add the struct @obj as a section
 * @name:	1 to 63 characters out of A-Z a-z 0-9 . _ / : @ -
 * @instance:	Tells apart sections of one name
 * Return: false for a bad name or a struct that cannot be saved.
 */
bool state_writer_add(struct state_writer *writer, const char *name, uint32_t instance,
		      const struct state_desc *desc, const void *obj, GError **error);

/**
 * state_writer_finish() - The finished stream
 * Return: a new reference; NULL if a section was added twice or the stream is over the limits.
 */
GBytes *state_writer_finish(struct state_writer *writer, GError **error);

/** state_writer_free() - Accepts NULL. */
void state_writer_free(struct state_writer *writer);
DEFINE_CLEANUP(state_writer, state_writer_free)

/* ---- sealed memfds ---- */

/**
 * state_bytes_seal() - Put @bytes into a memfd that nobody can change any more
 * @name:	For /proc/PID/fd
 * Return: the descriptor, close-on-exec, owned by the caller; -1 on failure.
 */
int state_bytes_seal(GBytes *bytes, const char *name, GError **error);

/**
 * state_bytes_map() - Map a memfd that state_bytes_seal() made
 * @fd:		Stays the caller's and may be closed afterwards
 *
 * Refuses a descriptor without all seals: its content could change while it is parsed.
 * Return: a new reference, NULL on failure.
 */
GBytes *state_bytes_map(int fd, GError **error);

/* ---- reading ---- */

struct state_reader;

/**
 * state_reader_open() - Check a stream and list its sections
 * @bytes:	The whole stream; a reference is kept
 * Return: to be freed with state_reader_free(); NULL for anything but a whole, undamaged stream.
 */
struct state_reader *state_reader_open(GBytes *bytes, GError **error);

/** state_reader_header() - Who wrote the stream; valid as long as the reader is. */
const struct state_header *state_reader_header(const struct state_reader *reader);

/**
 * state_reader_get() - The section at @index, in stream order; for dumps
 * @name:	Set to the name, valid as long as the reader is; may be NULL, as the others may
 * Return: false past the last section.
 */
bool state_reader_get(const struct state_reader *reader, uint32_t index, const char **name,
		      uint32_t *instance, struct span *payload);

/**
 * state_reader_find() - Whether there is such a section; it is not taken
 * @payload:	Set to its struct in wire form; may be NULL
 */
bool state_reader_find(const struct state_reader *reader, const char *name, uint32_t instance,
		       struct span *payload);

/**
 * state_reader_take() - Hand out a section's struct in wire form, once
 * Return: false when there is no such section or it was taken before.
 */
bool state_reader_take(struct state_reader *reader, const char *name, uint32_t instance,
		       struct span *payload, GError **error);

/**
 * state_reader_load() - Take a section and state_load() it into @obj
 * Return: false with @error "section: member: reason" and @obj as it was.
 */
bool state_reader_load(struct state_reader *reader, const char *name, uint32_t instance,
		       const struct state_desc *desc, const void *reset, void *obj, GError **error);

/**
 * state_reader_finish() - Make sure that nothing in the stream was left out
 * Return: false with the names of the sections that nobody took and that are not optional.
 */
bool state_reader_finish(const struct state_reader *reader, GError **error);

/** state_reader_free() - Accepts NULL. */
void state_reader_free(struct state_reader *reader);
DEFINE_CLEANUP(state_reader, state_reader_free)

/** state_section_prefix() - Put "name: ", or "name#instance: ", before @error's message. */
void state_section_prefix(GError **error, const char *name, uint32_t instance);

/** state_name_valid() - Whether @name may name a section. */
bool state_name_valid(const char *name);
