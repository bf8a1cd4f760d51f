// Ends the way its command line says: S5, a reset by each of the known ways, or a triple fault.
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

/* Survives a reset, unlike the shared page's other fields: RAM is kept, payload_begin() clears. */
#define BOOTS ((volatile uint64_t *)0x180000)

void payload_main(void *info)
{
	uint64_t boots = ++*BOOTS;

	payload_begin();
	SHARED->detail[0] = boots;
	serial_puts("boot ");
	serial_put_u64(boots);
	serial_puts("\n");
	/* Until the test says when. */
	while (command_line_has("wait") && !SHARED->detail[1])
		SHARED->counter++;
	if (boots > command_line_u64("resets", 1) || command_line_has("off")) {
		if (command_line_has("stay"))
			for (;;)
				SHARED->counter++;
		outw(0x604, 5 << 10 | 1 << 13); /* SLP_TYP of S5, SLP_EN */
	} else if (command_line_has("cf9")) {
		outb(0xcf9, 2);
		outb(0xcf9, 6);
	} else if (command_line_has("i8042")) {
		outb(0x64, 0xfe);
	} else if (command_line_has("port92")) {
		outb(0x92, 1);
	} else {
		static const struct {
			uint16_t limit;
			uint64_t base;
		} __attribute__((packed)) none = {0, 0};

		__asm__ volatile("lidt %0; ud2" : : "m"(none));
	}
	for (;;)
		__asm__ volatile("hlt");
}
