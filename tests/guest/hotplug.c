// Watches the hot-plug registers and the root bus; ejects, refuses or keeps as its command line says.
// SPDX-License-Identifier: Apache-2.0
#include "payload.h"

#define ECAM 0xb0000000ULL

/* GPE block 0 of the ACPI device (0x600), and the slots' registers. */
#define GPE_STATUS 0x620
#define GPE_ENABLE 0x628
#define GPE_BIT	   0x02
#define UP	   0xcc0
#define DOWN	   0xcc4
#define EJECT	   0xcc8
#define OST	   0xccc

static uint64_t occupied_slots(void)
{
	uint64_t slots = 0;

	for (uint64_t slot = 0; slot < 32; slot++)
		if (*(volatile uint32_t *)(ECAM + (slot << 15)) != 0xffffffff)
			slots |= 1ULL << slot;
	return slots;
}

static void refuse(uint32_t slots)
{
	for (uint32_t slot = 0; slot < 32; slot++)
		if (slots >> slot & 1)
			outl(OST, slot | 0x81 << 8 | 3 << 16); /* in use; eject request */
}

/* detail: 0 slots announced, 1 slots to be emptied, 2 slots with something, 3 events; 4 to 6 are the
 * test's: reset the machine; slots to eject unasked, once and without end */
void payload_main(void *info)
{
	payload_begin();
	outb(GPE_ENABLE, GPE_BIT);
	for (;; SHARED->counter++) {
		SHARED->detail[2] = occupied_slots();
		if (SHARED->detail[4])
			outb(0xcf9, 6);
		if (SHARED->detail[5]) {
			outl(EJECT, SHARED->detail[5]);
			SHARED->detail[5] = 0;
		}
		if (SHARED->detail[6])
			outl(EJECT, SHARED->detail[6]);
		if (!(inb(GPE_STATUS) & GPE_BIT))
			continue;
		outb(GPE_STATUS, GPE_BIT);
		SHARED->detail[0] |= inl(UP);
		SHARED->detail[1] = inl(DOWN);
		if (SHARED->detail[1] && command_line_has("eject"))
			outl(EJECT, SHARED->detail[1]);
		if (SHARED->detail[1] && command_line_has("refuse"))
			refuse(SHARED->detail[1]);
		SHARED->detail[3]++;
	}
}
