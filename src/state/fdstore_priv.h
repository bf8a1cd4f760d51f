// Inside the store: what its crossings share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "state/fdstore.h"

/**
 * struct fd_record - One line of a manifest
 * @name:	The entry's name, NUL-padded
 * @kind:	enum fd_kind
 * @number:	The descriptor's number, for exec; 0 over a socket
 * @identity:	The entry's
 */
struct fd_record {
	uint8_t name[FDSTORE_NAME_BYTES];
	uint32_t kind;
	uint32_t number;
	struct fd_identity identity;
};

/**
 * struct fd_manifest - What crosses beside the descriptors
 * @n_records:	Valid ones
 * @records:	In the order of the descriptors
 */
struct fd_manifest {
	uint32_t n_records;
	uint8_t pad[4];
	struct fd_record records[FDSTORE_MAX];
};

extern const struct state_desc fd_manifest_desc;

/**
 * fdstore_manifest_write() - A state stream with the manifest of @n entries from @first on
 * @numbers:	Whether to write descriptor numbers
 */
GBytes *fdstore_manifest_write(const struct fdstore *store, size_t first, size_t n, bool numbers,
			       GError **error);

/** fdstore_manifest_read() - Return: to be freed with g_free(); NULL unless names and kinds are. */
struct fd_manifest *fdstore_manifest_read(GBytes *bytes, GError **error);

/**
 * fdstore_adopt() - Make *@fd an entry, after checking that it is what @record says
 * @fd:		Moved into the store, and -1 afterwards, on success only
 */
bool fdstore_adopt(struct fdstore *store, const struct fd_record *record, int *fd, GError **error);

/** fdstore_disown() - Forget all descriptors without closing them; the store can only be freed. */
void fdstore_disown(struct fdstore *store);
