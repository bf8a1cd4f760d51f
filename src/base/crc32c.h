// CRC-32C (Castagnoli): the checksum of the state stream.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>
#include <stdint.h>

/**
 * crc32c() - Continue a CRC-32C over @len bytes
 * @crc:	0 to start, else what the previous call returned
 *
 * Polynomial 0x1edc6f41, reflected, initial and final inversion (RFC 3720, appendix B.4).  Uses
 * the SSE 4.2 instruction where the CPU has it.
 * Context: any thread.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

/** crc32c_portable() - The same without special instructions; tests compare the two. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len);
