// Image formats that are not raw, known by their first or last bytes.
// SPDX-License-Identifier: Apache-2.0
#include "backend/block/format.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <glib.h>

/* For O_DIRECT: a store's largest unit, and two of them: the last sector may lie in both. */
#define FORMAT_ALIGN_BYTES 4096
#define FORMAT_READ_BYTES  8192
#define FORMAT_TRAILER	   512

/**
 * struct format_mark - By what a format is known
 * @at:		Offset of @bytes in the first sector, or in the last one
 * @bytes, @len: what stands there
 * @at_end:	In the last sector
 */
struct format_mark {
	const char *name;
	uint32_t at;
	const char *bytes;
	uint32_t len;
	bool at_end;
};

#define MARK(name_, at_, bytes_, ...)                                \
	{                                                            \
		.name = name_, .at = at_, .bytes = bytes_,           \
		.len = sizeof(bytes_) - 1 /* its NUL */, __VA_ARGS__ \
	}

/* A VHD of fixed size has its mark at the end only, and is a raw image but for that: it is taken. */
static const struct format_mark format_marks[] = {
	MARK("qcow2", 0, "QFI\xfb"),
	MARK("qed", 0, "QED\0"),
	MARK("vmdk", 0, "KDMV"),
	MARK("vmdk", 0, "COWD"),
	MARK("vmdk", 0, "# Disk DescriptorFile"),
	MARK("vdi", 64, "\x7f\x10\xda\xbe"),
	MARK("vhdx", 0, "vhdxfile"),
	MARK("vpc", 0, "conectix"),
	MARK("luks", 0, "LUKS\xba\xbe"),
	MARK("parallels", 0, "WithoutFreeSpace"),
	MARK("parallels", 0, "WithouFreSpacExt"),
	MARK("bochs", 0, "Bochs Virtual HD Image"),
	MARK("cloop", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
	MARK("dmg", 0, "koly", .at_end = true),
};

/* Return: how many bytes are at @at. */
static ssize_t format_read(int fd, void *buf, uint64_t at)
{
	ssize_t n;

	memset(buf, 0, FORMAT_READ_BYTES);
	n = TEMP_FAILURE_RETRY(pread(fd, buf, FORMAT_READ_BYTES, at));
	return MAX(n, 0);
}

static const char *format_match(const uint8_t *bytes, ssize_t n, bool at_end)
{
	for (size_t i = 0; i < G_N_ELEMENTS(format_marks); i++) {
		const struct format_mark *mark = &format_marks[i];

		if (mark->at_end == at_end && n >= (ssize_t)(mark->at + mark->len) &&
		    memcmp(bytes + mark->at, mark->bytes, mark->len) == 0)
			return mark->name;
	}
	return NULL;
}

const char *block_format_guess(int fd, uint64_t end_bytes)
{
	uint8_t *buf = aligned_alloc(FORMAT_ALIGN_BYTES, FORMAT_READ_BYTES);
	uint64_t trailer, block;
	const char *name;
	ssize_t n;

	g_assert(buf);
	name = format_match(buf, format_read(fd, buf, 0), false);
	if (!name && end_bytes >= FORMAT_TRAILER) {
		trailer = end_bytes - FORMAT_TRAILER;
		block = trailer & ~(uint64_t)(FORMAT_ALIGN_BYTES - 1);
		n = format_read(fd, buf, block);
		if (n >= (ssize_t)(trailer - block + FORMAT_TRAILER))
			name = format_match(buf + (trailer - block), FORMAT_TRAILER, true);
	}
	free(buf);
	return name;
}
