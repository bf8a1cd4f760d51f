// Prints numbered lines on COM1 and echoes what it receives in between, in upper case.
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

void payload_main(void *info)
{
	uint64_t spin = command_line_u64("spin", 2000);
	char text[2] = "";

	payload_begin();
	serial_puts("ready\n");
	for (uint64_t n = 1;; n++) {
		int c;

		serial_puts("HB ");
		serial_put_u64(n);
		serial_puts("\n");
		while ((c = serial_getc()) >= 0) {
			text[0] = c >= 'a' && c <= 'z' ? c - 32 : c;
			serial_puts("<");
			serial_puts(text);
			serial_puts(">\n");
			SHARED->detail[0]++;
		}
		for (uint64_t i = 0; i < spin; i++)
			SHARED->counter++;
	}
}
