// What the payloads share: ports, the serial line, the command line, a place the host can watch.
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

#define COM1 0x3f8

struct hvm_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};

struct hvm_memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};

extern uint32_t start_info;

static const struct hvm_start_info *info(void)
{
	return (const void *)(uintptr_t)start_info;
}

void *memset(void *p, int c, size_t n)
{
	uint8_t *b = p;

	while (n--)
		*b++ = c;
	return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
	uint8_t *d = to;
	const uint8_t *s = from;

	while (n--)
		*d++ = *s++;
	return to;
}

void serial_puts(const char *s)
{
	for (; *s; s++) {
		while (!(inb(COM1 + 5) & 0x20))
			;
		outb(COM1, *s);
	}
}

void serial_put_u64(uint64_t value)
{
	char text[21], *p = text + sizeof(text) - 1;

	*p = '\0';
	do
		*--p = '0' + value % 10;
	while (value /= 10);
	serial_puts(p);
}

int serial_getc(void)
{
	return inb(COM1 + 5) & 1 ? inb(COM1) : -1;
}

static const char *find_word(const char *word)
{
	const char *p = (const char *)(uintptr_t)info()->cmdline_paddr;

	while (*p) {
		const char *a = p, *b = word;

		while (*b && *a == *b)
			a++, b++;
		if (!*b)
			return a;
		while (*p && *p != ' ')
			p++;
		while (*p == ' ')
			p++;
	}
	return NULL;
}

bool command_line_has(const char *word)
{
	return find_word(word);
}

uint64_t command_line_u64(const char *key, uint64_t def)
{
	const char *p = find_word(key);
	uint64_t value = 0;

	if (!p || *p++ != '=')
		return def;
	while (*p >= '0' && *p <= '9')
		value = value * 10 + (*p++ - '0');
	return value;
}

bool ram_range(uint32_t i, uint64_t *from, uint64_t *end)
{
	const struct hvm_memmap_entry *map = (const void *)(uintptr_t)info()->memmap_paddr;

	if (i >= info()->memmap_entries)
		return false;
	*from = map[i].addr > RAM_FREE_GPA ? map[i].addr : RAM_FREE_GPA;
	*end = map[i].type == 1 ? map[i].addr + map[i].size : 0;
	return true;
}

uint64_t ram_end(void)
{
	uint64_t from, end;

	for (uint32_t i = 0; ram_range(i, &from, &end); i++)
		if (from == RAM_FREE_GPA && end > from)
			return end;
	return RAM_FREE_GPA;
}

/* One instruction for a page wherever possible: KVM may emulate each, at microseconds apiece. */
void ram_touch(void)
{
	uint64_t p, end;

	for (uint32_t i = 0; ram_range(i, &p, &end); i++) {
		for (; p + 16 * 4096 <= end; p += 16 * 4096)
			TOUCH_16(p, 4096);
		for (; p < end; p += 4096)
			*(volatile uint64_t *)p = p;
	}
}

void ram_touch_sparse(void)
{
	uint64_t p, end;

	for (uint32_t i = 0; ram_range(i, &p, &end); i++)
		for (; p < end; p += 2UL << 20)
			*(volatile uint64_t *)p = p;
}

void payload_begin(void)
{
	SHARED->counter = 0;
	SHARED->errors = 0;
	for (uint32_t i = 0; i < 61; i++)
		SHARED->detail[i] = 0;
	for (uint32_t i = 0; i < 64 * 8; i++)
		SHARED->per_cpu[i] = 0;
	SHARED->magic = SHARED_MAGIC;
}
