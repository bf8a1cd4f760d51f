// Image formats that are not raw, known by their first or last bytes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

/**
 * block_format_guess() - Which format but raw the image on @fd is in
 * @end_bytes:	Where it ends
 *
 * Reads both ends.  What cannot be read is no format's header.
 * Return: its name as qemu-img knows it; NULL for raw.
 */
const char *block_format_guess(int fd, uint64_t end_bytes);
