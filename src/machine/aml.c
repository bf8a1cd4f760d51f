// A writer for the few ACPI Machine Language terms that the board's DSDT needs.
// SPDX-License-Identifier: Apache-2.0
#include "machine/aml.h"

#include <string.h>

#define AML_EXT_PREFIX 0x5b
#define AML_NAME       0x08
#define AML_SCOPE      0x10
#define AML_BUFFER     0x11
#define AML_PACKAGE    0x12
#define AML_METHOD     0x14
#define AML_DEVICE     0x82 /* after AML_EXT_PREFIX */
#define AML_REGION     0x80 /* after AML_EXT_PREFIX */
#define AML_FIELD      0x81 /* after AML_EXT_PREFIX */
#define AML_MULTI_NAME 0x2f
#define AML_LOCAL0     0x60
#define AML_ARG0       0x68
#define AML_IF	       0xa0
#define AML_RETURN     0xa4

#define FIELD_DWORD_ACCESS 3
#define METHOD_SERIALIZED  0x08
#define SPACE_IO	   1

static void put8(GByteArray *aml, uint8_t value)
{
	g_byte_array_append(aml, &value, 1);
}

/* Little endian; @len bytes of @value. */
static void put_le(GByteArray *aml, uint64_t value, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		put8(aml, value >> (8 * i));
}

/* A NameSeg is four characters, padded with '_'. */
static void put_seg(GByteArray *aml, const char *seg)
{
	for (uint32_t i = 0; i < 4; i++)
		put8(aml, i < strlen(seg) ? seg[i] : '_');
}

/* A NameString of up to 255 segments with dots between; a leading '\' is the root. */
static void put_name(GByteArray *aml, const char *name)
{
	g_auto(GStrv) segs = g_strsplit(*name == '\\' ? name + 1 : name, ".", -1);
	guint n = g_strv_length(segs);

	if (*name == '\\')
		put8(aml, '\\');
	if (n > 1) {
		put8(aml, AML_MULTI_NAME);
		put8(aml, n);
	}
	for (guint i = 0; i < n; i++)
		put_seg(aml, segs[i]);
}

static void put_int(GByteArray *aml, uint64_t value)
{
	if (value <= 1) {
		put8(aml, value); /* ZeroOp, OneOp */
	} else if (value <= UINT8_MAX) {
		put8(aml, 0x0a);
		put_le(aml, value, 1);
	} else if (value <= UINT16_MAX) {
		put8(aml, 0x0b);
		put_le(aml, value, 2);
	} else if (value <= UINT32_MAX) {
		put8(aml, 0x0c);
		put_le(aml, value, 4);
	} else {
		put8(aml, 0x0e);
		put_le(aml, value, 8);
	}
}

/* PkgLength (20.2.4) counts itself.  Three bytes, filled in by aml_end(), are enough for 1 MiB. */
#define PKG_LENGTH_BYTES 3

static uint32_t pkg_begin(GByteArray *aml)
{
	uint32_t mark = aml->len;

	put_le(aml, 0, PKG_LENGTH_BYTES);
	return mark;
}

void aml_end(GByteArray *aml, uint32_t mark)
{
	uint32_t len = aml->len - mark;

	aml->data[mark] = (PKG_LENGTH_BYTES - 1) << 6 | (len & 0xf);
	aml->data[mark + 1] = len >> 4;
	aml->data[mark + 2] = len >> 12;
}

uint32_t aml_scope_begin(GByteArray *aml, const char *name)
{
	uint32_t mark;

	put8(aml, AML_SCOPE);
	mark = pkg_begin(aml);
	put_name(aml, name);
	return mark;
}

uint32_t aml_device_begin(GByteArray *aml, const char *name)
{
	uint32_t mark;

	put8(aml, AML_EXT_PREFIX);
	put8(aml, AML_DEVICE);
	mark = pkg_begin(aml);
	put_name(aml, name);
	return mark;
}

uint32_t aml_method_begin(GByteArray *aml, const char *name, uint8_t n_args)
{
	uint32_t mark;

	put8(aml, AML_METHOD);
	mark = pkg_begin(aml);
	put_name(aml, name);
	put8(aml, n_args | METHOD_SERIALIZED);
	return mark;
}

uint32_t aml_if_begin(GByteArray *aml)
{
	put8(aml, AML_IF);
	return pkg_begin(aml);
}

void aml_region_io(GByteArray *aml, const char *name, uint16_t port, uint16_t len)
{
	put8(aml, AML_EXT_PREFIX);
	put8(aml, AML_REGION);
	put_name(aml, name);
	put8(aml, SPACE_IO);
	put_int(aml, port);
	put_int(aml, len);
}

void aml_field_dwords(GByteArray *aml, const char *region, const char *const *names, uint32_t n)
{
	uint32_t mark;

	put8(aml, AML_EXT_PREFIX);
	put8(aml, AML_FIELD);
	mark = pkg_begin(aml);
	put_name(aml, region);
	put8(aml, FIELD_DWORD_ACCESS);
	for (uint32_t i = 0; i < n; i++) {
		put_seg(aml, names[i]);
		put8(aml, 32); /* bits, as a PkgLength */
	}
	aml_end(aml, mark);
}

void aml_op(GByteArray *aml, enum aml_op op)
{
	put8(aml, op);
}

void aml_int(GByteArray *aml, uint64_t value)
{
	put_int(aml, value);
}

void aml_ref(GByteArray *aml, const char *name)
{
	put_name(aml, name);
}

void aml_arg(GByteArray *aml, uint8_t arg)
{
	put8(aml, AML_ARG0 + arg);
}

void aml_local(GByteArray *aml, uint8_t local)
{
	put8(aml, AML_LOCAL0 + local);
}

void aml_name_int(GByteArray *aml, const char *name, uint64_t value)
{
	put8(aml, AML_NAME);
	put_name(aml, name);
	put_int(aml, value);
}

void aml_name_string(GByteArray *aml, const char *name, const char *value)
{
	put8(aml, AML_NAME);
	put_name(aml, name);
	put8(aml, 0x0d);
	g_byte_array_append(aml, (const uint8_t *)value, strlen(value) + 1);
}

void aml_name_eisa(GByteArray *aml, const char *name, const char *eisa_id)
{
	uint32_t id = (eisa_id[0] - 0x40) << 26 | (eisa_id[1] - 0x40) << 21 |
		      (eisa_id[2] - 0x40) << 16 | (uint32_t)strtoul(eisa_id + 3, NULL, 16);

	put8(aml, AML_NAME);
	put_name(aml, name);
	put8(aml, 0x0c);
	put_le(aml, GUINT32_SWAP_LE_BE(id), 4);
}

void aml_name_package(GByteArray *aml, const char *name, const uint64_t *values, uint8_t n)
{
	uint32_t mark;

	put8(aml, AML_NAME);
	put_name(aml, name);
	put8(aml, AML_PACKAGE);
	mark = pkg_begin(aml);
	put8(aml, n);
	for (uint8_t i = 0; i < n; i++)
		put_int(aml, values[i]);
	aml_end(aml, mark);
}

void aml_return_arg(GByteArray *aml, uint8_t arg)
{
	put8(aml, AML_RETURN);
	aml_arg(aml, arg);
}

GByteArray *aml_crs_begin(void)
{
	return g_byte_array_new();
}

void aml_crs_end(GByteArray *aml, GByteArray *crs)
{
	uint32_t mark;

	put_le(crs, 0x0079, 2); /* end tag; checksum 0: not computed (6.4.2.9) */
	put8(aml, AML_NAME);
	put_name(aml, "_CRS");
	put8(aml, AML_BUFFER);
	mark = pkg_begin(aml);
	put_int(aml, crs->len);
	g_byte_array_append(aml, crs->data, crs->len);
	aml_end(aml, mark);
	g_byte_array_unref(crs);
}

void aml_crs_io(GByteArray *crs, uint16_t base, uint8_t len)
{
	put8(crs, 0x47); /* I/O port descriptor, 6.4.2.5 */
	put8(crs, 1);	 /* 16-bit decode */
	put_le(crs, base, 2);
	put_le(crs, base, 2);
	put8(crs, 1);
	put8(crs, len);
}

void aml_crs_irq(GByteArray *crs, uint8_t irq)
{
	put8(crs, 0x22); /* IRQ descriptor without flags: edge, active high (6.4.2.1) */
	put_le(crs, 1u << irq, 2);
}

void aml_crs_memory32_fixed(GByteArray *crs, uint32_t base, uint32_t len)
{
	put8(crs, 0x86); /* 6.4.3.4 */
	put_le(crs, 9, 2);
	put8(crs, 1); /* writeable */
	put_le(crs, base, 4);
	put_le(crs, len, 4);
}

/* Address space descriptors (6.4.3.5): @width is the size of each address field in bytes. */
static void crs_address_space(GByteArray *crs, uint8_t tag, uint8_t type, uint8_t type_flags,
			      uint32_t width, uint64_t first, uint64_t last)
{
	put8(crs, tag);
	put_le(crs, 3 + 5 * width, 2);
	put8(crs, type);
	put8(crs, 0x0c); /* minimum and maximum are fixed; produced by the bridge */
	put8(crs, type_flags);
	put_le(crs, 0, width); /* granularity */
	put_le(crs, first, width);
	put_le(crs, last, width);
	put_le(crs, 0, width); /* translation */
	put_le(crs, last - first + 1, width);
}

void aml_crs_word_bus(GByteArray *crs, uint16_t first, uint16_t last)
{
	crs_address_space(crs, 0x88, 2, 0, 2, first, last);
}

void aml_crs_word_io(GByteArray *crs, uint16_t first, uint16_t last)
{
	crs_address_space(crs, 0x88, 1, 3, 2, first, last);
}

void aml_crs_dword_memory(GByteArray *crs, uint32_t first, uint32_t last)
{
	crs_address_space(crs, 0x87, 0, 1, 4, first, last);
}

void aml_crs_qword_memory(GByteArray *crs, uint64_t first, uint64_t last)
{
	crs_address_space(crs, 0x8a, 0, 1, 8, first, last);
}
