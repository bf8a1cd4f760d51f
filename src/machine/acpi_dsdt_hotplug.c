// The DSDT's part in PCI hot plug: an object per slot, and what the event does.
// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi_dsdt_hotplug.h"

#include "device/legacy/acpi_hotplug.h"

/* ACPI 6.4 section 5.6.6. */
#define NOTIFY_DEVICE_CHECK  1
#define NOTIFY_EJECT_REQUEST 3

/* Fields of the register block, in its order. */
#define UP    "HPUP"
#define DOWN  "HPDN"
#define EJECT "HPEJ"
#define OST   "HPOS"

static void slot_name(char name[8], uint32_t slot)
{
	g_snprintf(name, 8, "S%02X", slot);
}

static void registers(GByteArray *aml)
{
	static const char *const fields[] = {UP, DOWN, EJECT, OST};

	aml_region_io(aml, "HPRG", ACPI_HOTPLUG_BASE, ACPI_HOTPLUG_SIZE);
	aml_field_dwords(aml, "HPRG", fields, G_N_ELEMENTS(fields));
}

/* Store (slot | (Arg1 & 0xff) << 8 | Arg0 << 16, OST): event in Arg0, status in Arg1. */
static void slot_ost(GByteArray *aml, uint32_t slot)
{
	uint32_t method = aml_method_begin(aml, "_OST", 3);

	aml_op(aml, AML_OR);
	aml_op(aml, AML_OR);
	aml_int(aml, slot);
	aml_op(aml, AML_SHIFT_LEFT);
	aml_op(aml, AML_AND);
	aml_arg(aml, 1);
	aml_int(aml, 0xff);
	aml_op(aml, AML_NOWHERE);
	aml_int(aml, 8);
	aml_op(aml, AML_NOWHERE);
	aml_op(aml, AML_NOWHERE);
	aml_op(aml, AML_SHIFT_LEFT);
	aml_arg(aml, 0);
	aml_int(aml, 16);
	aml_op(aml, AML_NOWHERE);
	aml_ref(aml, OST);
	aml_end(aml, method);
}

static void slot_object(GByteArray *aml, uint32_t slot)
{
	uint32_t device, method;
	char name[8];

	slot_name(name, slot);
	device = aml_device_begin(aml, name);
	aml_name_int(aml, "_ADR", slot << 16);
	aml_name_int(aml, "_SUN", slot);
	method = aml_method_begin(aml, "_EJ0", 1);
	aml_op(aml, AML_STORE);
	aml_int(aml, 1u << slot);
	aml_ref(aml, EJECT);
	aml_end(aml, method);
	slot_ost(aml, slot);
	aml_end(aml, device);
}

/* HPNT (slots, value): notify the object of every slot in a mask. */
static void notify_method(GByteArray *aml)
{
	uint32_t method = aml_method_begin(aml, "HPNT", 2);

	for (uint32_t slot = ACPI_HOTPLUG_FIRST; slot <= ACPI_HOTPLUG_LAST; slot++) {
		uint32_t if_set = aml_if_begin(aml);
		char name[8];

		slot_name(name, slot);
		aml_op(aml, AML_AND);
		aml_arg(aml, 0);
		aml_int(aml, 1u << slot);
		aml_op(aml, AML_NOWHERE);
		aml_op(aml, AML_NOTIFY);
		aml_ref(aml, name);
		aml_arg(aml, 1);
		aml_end(aml, if_set);
	}
	aml_end(aml, method);
}

/* Reading UP takes its bits, so a register is read once. */
static void notify_slots_in(GByteArray *aml, const char *reg, uint32_t value)
{
	aml_op(aml, AML_STORE);
	aml_ref(aml, reg);
	aml_local(aml, 0);
	aml_ref(aml, "HPNT");
	aml_local(aml, 0);
	aml_int(aml, value);
}

void acpi_dsdt_hotplug_slots(GByteArray *aml)
{
	uint32_t method;

	registers(aml);
	for (uint32_t slot = ACPI_HOTPLUG_FIRST; slot <= ACPI_HOTPLUG_LAST; slot++)
		slot_object(aml, slot);
	notify_method(aml);
	method = aml_method_begin(aml, "HPEV", 0);
	notify_slots_in(aml, UP, NOTIFY_DEVICE_CHECK);
	notify_slots_in(aml, DOWN, NOTIFY_EJECT_REQUEST);
	aml_end(aml, method);
}

void acpi_dsdt_hotplug_event(GByteArray *aml)
{
	uint32_t scope = aml_scope_begin(aml, "\\_GPE");
	uint32_t method = aml_method_begin(aml, "_E01", 0);

	aml_ref(aml, "\\_SB.PCI0.HPEV");
	aml_end(aml, method);
	aml_end(aml, scope);
}
