// A writer for the few ACPI Machine Language terms that the board's DSDT needs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

/**
 * DOC: AML
 *
 * ACPI 6.4 chapter 20.  Terms are appended to a GByteArray.  A term with a length (PkgLength) is
 * opened by aml_*_begin(), which returns a mark, and closed by aml_end(mark).
 */

/** aml_scope_begin(), aml_device_begin(), aml_method_begin() - Open a named term; "\\_SB" or
 * "PCI0".  Methods are serialized. */
uint32_t aml_scope_begin(GByteArray *aml, const char *name);
uint32_t aml_device_begin(GByteArray *aml, const char *name);
uint32_t aml_method_begin(GByteArray *aml, const char *name, uint8_t n_args);

/** aml_end() - Close the term opened at @mark. */
void aml_end(GByteArray *aml, uint32_t mark);

/** aml_name_int(), aml_name_string(), aml_name_eisa() - Name (NAME, value). */
void aml_name_int(GByteArray *aml, const char *name, uint64_t value);
void aml_name_string(GByteArray *aml, const char *name, const char *value);
void aml_name_eisa(GByteArray *aml, const char *name, const char *eisa_id);

/** aml_name_package() - Name (NAME, Package () {values}). */
void aml_name_package(GByteArray *aml, const char *name, const uint64_t *values, uint8_t n);

/** aml_if_begin() - If (...) {...}: the condition comes first, then what is done. */
uint32_t aml_if_begin(GByteArray *aml);

/** aml_region_io() - OperationRegion (NAME, SystemIO, port, len). */
void aml_region_io(GByteArray *aml, const char *name, uint16_t port, uint16_t len);

/** aml_field_dwords() - Field (REGION, DWordAcc, ...) {names, 32}: one after the other from 0 on. */
void aml_field_dwords(GByteArray *aml, const char *region, const char *const *names, uint32_t n);

/** enum aml_op - Operators; their operands follow, then their target (AML_NOWHERE: none) */
enum aml_op {
	AML_NOWHERE = 0x00,
	AML_STORE = 0x70,
	AML_SHIFT_LEFT = 0x79,
	AML_AND = 0x7b,
	AML_OR = 0x7d,
	AML_NOTIFY = 0x86, /* object, value; no target */
};

/** aml_op(), aml_int(), aml_ref(), aml_arg(), aml_local() - Parts of a term, in prefix order; a
 * method is called by its name, with its arguments following. */
void aml_op(GByteArray *aml, enum aml_op op);
void aml_int(GByteArray *aml, uint64_t value);
void aml_ref(GByteArray *aml, const char *name);
void aml_arg(GByteArray *aml, uint8_t arg);
void aml_local(GByteArray *aml, uint8_t local);

/** aml_return_arg() - Return (ArgN), inside a method. */
void aml_return_arg(GByteArray *aml, uint8_t arg);

/** aml_crs_begin() - Name (_CRS, ResourceTemplate () {...}); close with aml_crs_end(). */
GByteArray *aml_crs_begin(void);
void aml_crs_end(GByteArray *aml, GByteArray *crs);

/* Resource descriptors (ACPI 6.4 section 6.4), appended to a _CRS. */
void aml_crs_io(GByteArray *crs, uint16_t base, uint8_t len);
void aml_crs_irq(GByteArray *crs, uint8_t irq);
void aml_crs_memory32_fixed(GByteArray *crs, uint32_t base, uint32_t len);
void aml_crs_word_bus(GByteArray *crs, uint16_t first, uint16_t last);
void aml_crs_word_io(GByteArray *crs, uint16_t first, uint16_t last);
void aml_crs_dword_memory(GByteArray *crs, uint32_t first, uint32_t last);
void aml_crs_qword_memory(GByteArray *crs, uint64_t first, uint64_t last);
