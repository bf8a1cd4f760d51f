// The manifest: names, kinds and identities that travel beside descriptors, as described state.
// SPDX-License-Identifier: Apache-2.0
#include "state/fdstore_priv.h"

#include <string.h>

#include "base/error.h"
#include "state/section.h"

#define MANIFEST_SECTION "fd-manifest"

static const struct state_field fd_record_fields[] = {
	FIELD_ARRAY(struct fd_record, name, 1),
	FIELD(struct fd_record, kind, 2),
	FIELD(struct fd_record, number, 3),
	FIELD_STRUCT(struct fd_record, identity, 4, &fd_identity_desc),
};

static bool fd_record_check(const void *obj, GError **error)
{
	const struct fd_record *record = obj;

	if (!memchr(record->name, '\0', sizeof(record->name)))
		return error_set_generic(error, "name is not terminated");
	if (!fd_kind_name(record->kind))
		return error_set_generic(error, "kind %u of descriptor is unknown to this molt",
					 record->kind);
	return true;
}

static const struct state_desc fd_record_desc = {
	.name = "fd-record",
	.version = 1,
	.min_reader = 1,
	.check = fd_record_check,
	STATE_DESC(struct fd_record, fd_record_fields),
};

static const struct state_field fd_manifest_fields[] = {
	FIELD_STRUCT_LIST(struct fd_manifest, records, n_records, 1, &fd_record_desc),
	FIELD_PAD(struct fd_manifest, pad),
};

const struct state_desc fd_manifest_desc = {
	.name = MANIFEST_SECTION,
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct fd_manifest, fd_manifest_fields),
};

GBytes *fdstore_manifest_write(const struct fdstore *store, size_t first, size_t n, bool numbers,
			       GError **error)
{
	autoptr(state_writer) writer = state_writer_begin("molt " MOLT_VERSION);
	g_autofree struct fd_manifest *manifest = g_new0(struct fd_manifest, 1);
	const struct fdstore_entry *entry;

	for (size_t pos = first; pos < first + n && (entry = fdstore_iter(store, &pos));) {
		struct fd_record *record = &manifest->records[manifest->n_records++];

		memcpy(record->name, entry->name, sizeof(record->name));
		record->kind = entry->kind;
		record->number = numbers ? entry->fd : 0;
		record->identity = entry->identity;
	}
	if (!state_writer_add(writer, MANIFEST_SECTION, 0, &fd_manifest_desc, manifest, error))
		return NULL;
	return state_writer_finish(writer, error);
}

struct fd_manifest *fdstore_manifest_read(GBytes *bytes, GError **error)
{
	g_autofree struct fd_manifest *manifest = g_new0(struct fd_manifest, 1);
	autoptr(state_reader) reader = state_reader_open(bytes, error);

	if (!reader ||
	    !state_reader_load(reader, MANIFEST_SECTION, 0, &fd_manifest_desc, NULL, manifest,
			       error) ||
	    !state_reader_finish(reader, error)) {
		g_prefix_error(error, "descriptors: ");
		return NULL;
	}
	return g_steal_pointer(&manifest);
}
