// Writes golden state files that do not exist yet; it never touches one that does.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/fd.h"
#include "sample.h"

/* Return: false with @error set if the file is new and could not be written. */
static bool golden_write(const char *dir, const char *name, struct span bytes, GError **error)
{
	g_autofree char *path = g_build_filename(dir, name, NULL);
	autofd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0 && errno == EEXIST) {
		printf("%s is there, left as it is\n", path);
		return true;
	}
	if (fd < 0)
		return error_set_errno(error, errno, "cannot create %s", path);
	printf("%s written, %zu bytes\n", path, bytes.len);
	return fd_write_all(fd, bytes.data, bytes.len, error);
}

static bool golden_write_all(const char *dir, GError **error)
{
	g_autoptr(GByteArray) v1_bytes = g_byte_array_new();
	g_autoptr(GByteArray) v2_bytes = g_byte_array_new();
	g_autoptr(GBytes) stream = sample_stream();
	struct sample_v1 v1;
	struct sample_v2 v2;

	sample_fill(&v1);
	sample_fill_v2(&v2);
	return state_save(&sample_v1_desc, &v1, v1_bytes, error) &&
	       state_save(&sample_v2_desc, &v2, v2_bytes, error) &&
	       golden_write(dir, "sample.v1.bin", span_of(v1_bytes->data, v1_bytes->len), error) &&
	       golden_write(dir, "sample.v2.bin", span_of(v2_bytes->data, v2_bytes->len), error) &&
	       golden_write(dir, "stream.v1.bin", span_of_bytes(stream), error);
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;

	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		return 2;
	}
	if (!golden_write_all(argv[1], &error)) {
		fprintf(stderr, "%s\n", error->message);
		return 1;
	}
	return 0;
}
