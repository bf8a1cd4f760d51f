// Counts up in RAM as fast as it can; with "touch" it writes to every page first.
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

void payload_main(void *info)
{
	payload_begin();
	if (command_line_has("touch"))
		ram_touch();
	serial_puts("ready\n");
	for (;;)
		SHARED->counter++;
}
