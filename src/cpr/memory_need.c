// Whether a program has room to start beside this one: asked before it could cost the guest.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/memory_need.h"

#include "base/error.h"
#include "base/memory_room.h"

/* Rounded up. */
static unsigned int in_mib(uint64_t bytes)
{
	return (bytes + (1U << 20) - 1) >> 20;
}

bool memory_need_check(uint64_t need_bytes, GError **error)
{
	const struct memory_room room = memory_room_find();
	g_autofree char *cgroup = room.cgroup;

	need_bytes += MEMORY_SPARE_BYTES;
	return !cgroup || room.bytes >= need_bytes ||
	       error_set_generic(error,
				 "the new program needs %u MiB of memory beside this one, and the "
				 "cgroup '%s' has room for %u MiB; raise its memory.max, or use "
				 "cpr-transfer with a successor in another cgroup",
				 in_mib(need_bytes), cgroup, (unsigned int)(room.bytes >> 20));
}
