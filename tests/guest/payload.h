// What the payloads share: ports, the serial line, the command line, a place the host can watch.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The shared page at 1 MiB.  Tests map the RAM backend's file and look at it.
 *
 * @magic: SHARED_MAGIC once the payload has begun
 * @counter: goes up as fast as the payload can
 * @errors: what the payload found wrong, counted
 * @detail: payload's own figures
 */
#define SHARED_GPA   0x100000
#define SHARED_MAGIC 0x6d6f6c742d6f6b21ULL

struct shared {
	volatile uint64_t magic;
	volatile uint64_t counter;
	volatile uint64_t errors;
	volatile uint64_t detail[61];
	volatile uint64_t per_cpu[64 * 8]; /* one cache line per vCPU */
};

#define SHARED ((struct shared *)SHARED_GPA)

/* Set to 1 by the very first guest instruction (start.S), for whoever measures start-up. */
#define SHARED_FIRST_GPA 0x101000

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

/* Write to 16 places, @step bytes apart (a constant), from @p on: 16 instructions and no more. */
#define TOUCH_16(p, step)                        \
	__asm__ volatile(".set at, 0\n\t"        \
			 ".rept 16\n\t"          \
			 "movq %0, at(%0)\n\t"   \
			 ".set at, at + %c1\n\t" \
			 ".endr"                 \
			 :                       \
			 : "r"(p), "i"(step)     \
			 : "memory")

/* lib.c */

/** serial_puts(), serial_put_u64() - To COM1, waiting for room. */
void serial_puts(const char *s);
void serial_put_u64(uint64_t value);

/** serial_getc() - A byte from COM1, -1 if there is none. */
int serial_getc(void);

/** command_line_has() - Whether the kernel command line has the word @word. */
bool command_line_has(const char *word);

/** command_line_u64() - The number after "@key=" on the command line, @def if it is not there. */
uint64_t command_line_u64(const char *key, uint64_t def);

/** RAM_FREE_GPA - From here to the end of RAM, no payload and no table of the firmware's lies. */
#define RAM_FREE_GPA 0x400000ULL

/** ram_range() - Where range @i of the RAM that no payload uses begins and ends. */
bool ram_range(uint32_t i, uint64_t *from, uint64_t *end);

/** ram_end() - End of the range that begins at RAM_FREE_GPA. */
uint64_t ram_end(void);

/** ram_touch() - Write to every page of RAM that no payload uses. */
void ram_touch(void);

/** ram_touch_sparse() - Write to a page in each 2 MiB of that RAM. */
void ram_touch_sparse(void);

/** payload_begin() - Clear and announce the shared page: first thing in payload_main(). */
void payload_begin(void);

void payload_main(void *info);
void ap_main(void);
