// Starts every other vCPU; each counts in its own cache line.  "touch" as counter.c.
// SPDX-License-Identifier: Apache-2.0
#include "cpus.h"

void cpu_main(uint32_t cpu)
{
	for (;;)
		SHARED->per_cpu[cpu * 8]++;
}

void payload_main(void *info)
{
	payload_begin();
	if (command_line_has("touch"))
		ram_touch();
	cpus_start(command_line_u64("cpus", 1));
	serial_puts("ready\n");
	for (;;) {
		SHARED->per_cpu[0]++;
		SHARED->counter++;
	}
}
