// Counts up in RAM; before that it writes to every page ("touch"), or to some ("sparse").
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

void payload_main(void *info)
{
	payload_begin();
	if (command_line_has("touch"))
		ram_touch();
	if (command_line_has("sparse"))
		ram_touch_sparse();
	serial_puts("ready\n");
	for (;;)
		SHARED->counter++;
}
