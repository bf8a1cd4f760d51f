// SMBIOS tables: how the guest learns its UUID and what it runs on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>
#include <glib.h>

#include "options/config.h"

/**
 * smbios_build() - Entry point and structures as one block that starts at @gpa (16-byte aligned)
 * @ram_size_bytes: for the memory device
 *
 * SMBIOS 3.0: entry point "_SM3_" at offset 0; types 0, 1, 3, 16, 17, 32, 127.  Caller owns it.
 */
GByteArray *smbios_build(const struct vm_config *config, uint64_t ram_size_bytes, uint64_t gpa);
