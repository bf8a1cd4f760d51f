// Small readers and writers of text that the option parsers share: sizes, safe quoting.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/**
 * text_to_u64() - Read "123" or "0x7b", nothing before or after it
 * Return: false where @text is anything else or does not fit; no error is set.
 */
bool text_to_u64(const char *text, uint64_t *value);

/**
 * text_to_size() - Read a size: a number and one of the suffixes b k M G T P E (either case)
 * @unit_bytes:	What a number without suffix counts in: 1, or MIB for -m
 *
 * Return: false where @text is anything else or the size exceeds 64 bits; no error is set.
 */
bool text_to_size(const char *text, uint64_t unit_bytes, uint64_t *size_bytes);

/** text_from_size() - The shortest form that text_to_size() reads back: "2G"; caller owns it. */
char *text_from_size(uint64_t size_bytes);

/** text_to_bool() - Read on|yes|true|y or off|no|false|n.  Return: false for anything else. */
bool text_to_bool(const char *text, bool *value);

/**
 * text_to_devfn() - Read a PCI address on a bus: SLOT[.FUNCTION] in hexadecimal, as QEMU has it
 * @devfn:	device << 3 | function
 *
 * Return: false where @text is anything else; no error is set.
 */
bool text_to_devfn(const char *text, uint8_t *devfn);

/**
 * text_printable() - @text as it may appear in a one-line message; caller owns it
 *
 * Control characters become '?', and what is longer than 120 bytes is cut with "...".
 */
char *text_printable(const char *text);
