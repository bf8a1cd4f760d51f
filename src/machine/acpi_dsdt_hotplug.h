// The DSDT's part in PCI hot plug: an object per slot, and what the event does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machine/aml.h"

/** acpi_dsdt_hotplug_slots() - Registers, slot objects and methods; inside the object of the root bus. */
void acpi_dsdt_hotplug_slots(GByteArray *aml);

/** acpi_dsdt_hotplug_event() - The method of the general-purpose event ACPI_GPE_PCI_HOTPLUG. */
void acpi_dsdt_hotplug_event(GByteArray *aml);
