// Small readers and writers of text that the option parsers share: sizes, safe quoting.
// SPDX-License-Identifier: Apache-2.0
#include "options/text.h"

#include <string.h>

/* Longest excerpt of user input in a message, in bytes. */
#define PRINTABLE_MAX 120

static const char suffixes[] = "bkmgtpe";

bool text_to_u64(const char *text, uint64_t *value)
{
	bool hex = g_ascii_strncasecmp(text, "0x", 2) == 0;
	guint64 v;

	if (!g_ascii_string_to_unsigned(hex ? text + 2 : text, hex ? 16 : 10, 0, G_MAXUINT64, &v,
					NULL))
		return false;
	*value = v;
	return true;
}

bool text_to_size(const char *text, uint64_t unit_bytes, uint64_t *size_bytes)
{
	size_t n_digits = strspn(text, "0123456789");
	g_autofree char *digits = NULL;
	uint64_t number;

	if (text[n_digits] == 'x' || text[n_digits] == 'X') {
		if (!text_to_u64(text, &number))
			return false;
	} else if (text[n_digits] != '\0') {
		const char *suffix = strchr(suffixes, g_ascii_tolower(text[n_digits]));

		if (!suffix || text[n_digits + 1] != '\0')
			return false;
		digits = g_strndup(text, n_digits);
		if (!text_to_u64(digits, &number))
			return false;
		unit_bytes = UINT64_C(1) << (10 * (suffix - suffixes));
	} else if (!text_to_u64(text, &number)) {
		return false;
	}
	return !__builtin_mul_overflow(number, unit_bytes, size_bytes);
}

char *text_from_size(uint64_t size_bytes)
{
	int i = 0;

	while (size_bytes != 0 && size_bytes % KIB == 0) {
		size_bytes /= KIB;
		i++;
	}
	if (i == 0)
		return g_strdup_printf("%" G_GUINT64_FORMAT, size_bytes);
	return g_strdup_printf("%" G_GUINT64_FORMAT "%c", size_bytes,
			       i == 1 ? 'k' : g_ascii_toupper(suffixes[i]));
}

bool text_to_bool(const char *text, bool *value)
{
	static const char *const yes[] = {"on", "yes", "true", "y", NULL};
	static const char *const no[] = {"off", "no", "false", "n", NULL};

	*value = g_strv_contains(yes, text);
	return *value || g_strv_contains(no, text);
}

char *text_printable(const char *text)
{
	size_t len = strlen(text);
	g_autofree char *copy = g_utf8_make_valid(text, MIN(len, PRINTABLE_MAX));

	for (char *p = copy; *p; p++)
		if (g_ascii_iscntrl(*p))
			*p = '?';
	return g_strconcat(copy, len > PRINTABLE_MAX ? "..." : "", NULL);
}

bool text_to_devfn(const char *text, uint8_t *devfn)
{
	char *end;
	unsigned long slot = strtoul(text, &end, 16), function = 0;

	if (end == text || slot > 31)
		return false;
	if (*end == '.') {
		const char *start = end + 1;

		function = strtoul(start, &end, 16);
		if (end == start || function > 7)
			return false;
	}
	*devfn = slot << 3 | function;
	return *end == '\0';
}
