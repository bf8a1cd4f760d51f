// The octets around sections, shared by the stream's writer and reader.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdint.h>

#include "state/section.h"

/* Stream header: where its parts are.  Fixed for every version to come. */
#define STREAM_MAGIC	     "MOLTSTAT"
#define STREAM_AT_FORMAT     8
#define STREAM_AT_MIN_READER 12
#define STREAM_AT_TOTAL	     16
#define STREAM_AT_N_SECTIONS 24
#define STREAM_AT_ARCH	     28
#define STREAM_AT_BUILD_ID   44
#define STREAM_AT_CRC	     124

/* Section header. */
#define SECTION_MARK	     0x54434553U /* "SECT" */
#define SECTION_AT_MARK	     0
#define SECTION_AT_INSTANCE  4
#define SECTION_AT_FLAGS     8
#define SECTION_AT_LENGTH    12
#define SECTION_AT_NAME	     16
#define SECTION_AT_CRC	     80
#define SECTION_HEADER_BYTES 84

/* End mark: the mark and the number of sections once more. */
#define END_MARK  0x2e444e45U /* "END." */
#define END_BYTES 8

/** section_crc() - The checksum of a section: its header up to the checksum, then its struct. */
uint32_t section_crc(const uint8_t *header, const void *payload, size_t len);
