// SMBIOS tables: how the guest learns its UUID and what it runs on.
// SPDX-License-Identifier: Apache-2.0
#include "machine/smbios.h"

#include <string.h>

/**
 * DOC: SMBIOS
 *
 * DSP0134 3.0.  A structure is a formatted area {type, length, handle, ...} and its strings, each
 * NUL-ended, with one more NUL after the last.
 */

#define ENTRY_POINT_BYTES 24

static void put(GByteArray *bytes, uint64_t value, uint32_t len)
{
	value = GUINT64_TO_LE(value);
	g_byte_array_append(bytes, (const uint8_t *)&value, len);
}

static void put_header(GByteArray *bytes, uint8_t type, uint8_t len)
{
	put(bytes, type, 1);
	put(bytes, len, 1);
	put(bytes, 0x100 + type, 2); /* handle: one structure of each type */
}

/* The strings of a structure, in the order its formatted area numbers them. */
static void put_strings(GByteArray *bytes, const char *const *strings)
{
	if (!strings[0])
		put(bytes, 0, 1);
	for (uint32_t i = 0; strings[i]; i++)
		g_byte_array_append(bytes, (const uint8_t *)strings[i], strlen(strings[i]) + 1);
	put(bytes, 0, 1);
}

/* 7.2.1: the first three fields of a UUID are little endian. */
static void put_uuid(GByteArray *bytes, const char *uuid)
{
	static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
	uint8_t raw[16] = {0};

	for (uint32_t digit = 0; uuid && *uuid && digit < 32; uuid++)
		if (g_ascii_isxdigit(*uuid)) {
			raw[digit / 2] = raw[digit / 2] << 4 | g_ascii_xdigit_value(*uuid);
			digit++;
		}
	for (uint32_t i = 0; i < 16; i++)
		put(bytes, raw[order[i]], 1);
}

static void put_bios(GByteArray *bytes)
{
	put_header(bytes, 0, 24);
	put(bytes, 1 | 2 << 8, 2); /* vendor, version */
	put(bytes, 0xe000, 2);	   /* segment */
	put(bytes, 3, 1);	   /* release date */
	put(bytes, 0, 1);	   /* ROM size: 64 KiB */
	put(bytes, 0x08, 8);	   /* characteristics are not supported */
	put(bytes, 0x1400, 2);	   /* a virtual machine, targeted content distribution */
	put(bytes, 0xff00, 2);	   /* release 0.255 */
	put(bytes, 0xffff, 2);	   /* no embedded controller */
	put_strings(bytes, (const char *const[]){"molt", MOLT_VERSION, "11/21/2026", NULL});
}

static void put_system(GByteArray *bytes, const struct vm_config *config)
{
	put_header(bytes, 1, 27);
	put(bytes, 1 | 2 << 8 | 3 << 16, 4); /* manufacturer, product, version; no serial number */
	put_uuid(bytes, config->uuid);
	put(bytes, 6, 1); /* woken by the power switch */
	put(bytes, 0, 2);
	put_strings(bytes, (const char *const[]){"molt", "q35", MOLT_VERSION, NULL});
}

static void put_chassis(GByteArray *bytes)
{
	put_header(bytes, 3, 21);
	put(bytes, 1, 1);
	put(bytes, 1, 1); /* type: other */
	put(bytes, 0, 3);
	put(bytes, 0x030303, 3); /* states: safe */
	put(bytes, 2, 1);	 /* security: unknown */
	put(bytes, 0, 8);
	put_strings(bytes, (const char *const[]){"molt", NULL});
}

static void put_memory(GByteArray *bytes, uint64_t ram_size_bytes)
{
	put_header(bytes, 16, 23);
	put(bytes, 1 | 3 << 8 | 3 << 16, 3); /* other location, system memory, no ECC */
	put(bytes, 0x80000000, 4);	     /* capacity: in the extended field */
	put(bytes, 0xfffe, 2);
	put(bytes, 1, 2);
	put(bytes, ram_size_bytes, 8);
	put_strings(bytes, (const char *const[]){NULL});

	put_header(bytes, 17, 40);
	put(bytes, 0x110, 2);  /* the array above */
	put(bytes, 0xfffe, 2); /* no error information */
	put(bytes, 64, 2);
	put(bytes, 64, 2);
	put(bytes, 0x7fff, 2); /* size: in the extended field, MiB */
	put(bytes, 9, 1);      /* DIMM */
	put(bytes, 0, 1);
	put(bytes, 1, 1); /* locator */
	put(bytes, 0, 1);
	put(bytes, 7, 1); /* RAM */
	put(bytes, 2, 2); /* type detail: other */
	put(bytes, 0, 2);
	put(bytes, 0, 4);
	put(bytes, 0, 1);
	put(bytes, ram_size_bytes >> 20, 4);
	put(bytes, 0, 8);
	put_strings(bytes, (const char *const[]){"DIMM 0", NULL});
}

GByteArray *smbios_build(const struct vm_config *config, uint64_t ram_size_bytes, uint64_t gpa)
{
	GByteArray *bytes = g_byte_array_new();
	uint8_t entry[ENTRY_POINT_BYTES] = "_SM3_", sum = 0;
	uint32_t max_size;
	uint64_t table = gpa + 32;

	g_byte_array_set_size(bytes, 32);
	memset(bytes->data, 0, 32);
	put_bios(bytes);
	put_system(bytes, config);
	put_chassis(bytes);
	put_memory(bytes, ram_size_bytes);
	put_header(bytes, 127, 4);
	put_strings(bytes, (const char *const[]){NULL});

	entry[6] = ENTRY_POINT_BYTES;
	entry[7] = 3; /* version 3.0 */
	entry[10] = 1;
	max_size = GUINT32_TO_LE(bytes->len - 32);
	memcpy(entry + 12, &max_size, sizeof(max_size));
	table = GUINT64_TO_LE(table);
	memcpy(entry + 16, &table, sizeof(table));
	for (uint32_t i = 0; i < sizeof(entry); i++)
		sum += entry[i];
	entry[5] = -sum;
	memcpy(bytes->data, entry, sizeof(entry));
	return bytes;
}
