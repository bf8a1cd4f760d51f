// ACPI and SMBIOS tables: reachable from their entry points, whole, with right checksums.
// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi.h"

#include <string.h>
#include <glib.h>

#include "device/legacy/acpi_pm.h"
#include "machine/layout.h"
#include "machine/smbios.h"

static uint64_t le(const uint8_t *p, uint32_t len)
{
	uint64_t value = 0;

	for (uint32_t i = 0; i < len; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s += *p++;
	return s;
}

/* The table at guest address @gpa, checked. */
static const uint8_t *table_at(const GByteArray *block, uint64_t gpa, const char *signature)
{
	const uint8_t *table;
	uint64_t offset = gpa - LAYOUT_ACPI;

	g_assert_cmpuint(offset + 36, <=, block->len);
	table = block->data + offset;
	g_assert_cmpmem(table, 4, signature, 4);
	g_assert_cmpuint(offset + le(table + 4, 4), <=, block->len);
	if (strcmp(signature, "FACS") != 0)
		g_assert_cmpuint(sum(table, le(table + 4, 4)), ==, 0);
	return table;
}

static const uint8_t *find_in_xsdt(const GByteArray *block, const char *signature)
{
	const uint8_t *xsdt = table_at(block, le(block->data + 24, 8), "XSDT");

	for (uint32_t i = 36; i < le(xsdt + 4, 4); i += 8)
		if (memcmp(block->data + le(xsdt + i, 8) - LAYOUT_ACPI, signature, 4) == 0)
			return table_at(block, le(xsdt + i, 8), signature);
	g_error("no %s", signature);
}

static void test_every_cpu_count(void)
{
	for (uint32_t n_cpus = 1; n_cpus <= 255; n_cpus++) {
		struct acpi_params params = {
			.n_cpus = n_cpus, .pci64_base = 5 * GIB, .serials = n_cpus & 3};
		g_autoptr(GByteArray) block = acpi_build(&params, LAYOUT_ACPI);
		const uint8_t *fadt, *madt;
		uint32_t found = 0;

		g_assert_cmpuint(LAYOUT_ACPI + block->len, <=, LAYOUT_ACPI_END);
		g_assert_cmpmem(block->data, 8, "RSD PTR ", 8);
		g_assert_cmpuint(sum(block->data, 20), ==, 0);
		g_assert_cmpuint(sum(block->data, 36), ==, 0);
		fadt = find_in_xsdt(block, "FACP");
		table_at(block, le(fadt + 140, 8), "DSDT");
		table_at(block, le(fadt + 36, 4), "FACS");
		find_in_xsdt(block, "MCFG");
		madt = find_in_xsdt(block, "APIC");
		for (uint32_t i = 44; i < le(madt + 4, 4); i += madt[i + 1]) {
			g_assert_cmpuint(madt[i + 1], >=, 2);
			if (madt[i] == 0) {
				g_assert_cmpuint(madt[i + 3], ==, found);
				found++;
			}
		}
		g_assert_cmpuint(found, ==, n_cpus);
	}
}

static bool contains(const uint8_t *table, const char *bytes, size_t len)
{
	return memmem(table, le(table + 4, 4), bytes, len);
}

/* The event and its registers are where the device has them, and every slot has its object. */
static void test_hotplug(void)
{
	struct acpi_params params = {.n_cpus = 1, .pci64_base = 5 * GIB};
	g_autoptr(GByteArray) block = acpi_build(&params, LAYOUT_ACPI);
	const uint8_t *fadt = find_in_xsdt(block, "FACP");
	const uint8_t *dsdt = table_at(block, le(fadt + 140, 8), "DSDT");

	g_assert_cmphex(le(fadt + 80, 4), ==, ACPI_PM_BASE + ACPI_GPE0);
	g_assert_cmpuint(fadt[92], ==, ACPI_GPE0_BYTES);
	g_assert_cmphex(le(fadt + 220 + 4, 8), ==, ACPI_PM_BASE + ACPI_GPE0);
	g_assert_true(contains(dsdt, "_E01", 4));
	for (uint32_t slot = 0; slot < 32; slot++) {
		g_autofree char *name = g_strdup_printf("S%02X_", slot);

		g_assert_cmpint(contains(dsdt, name, 4), ==, slot >= 1 && slot <= 30);
	}
}

static void test_smbios(void)
{
	struct vm_config config = {.uuid = (char *)"00112233-4455-6677-8899-aabbccddeeff"};
	static const uint8_t uuid[] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
				       0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
	g_autoptr(GByteArray) block = smbios_build(&config, 3 * GIB, LAYOUT_SMBIOS);
	const uint8_t *p = block->data + 32, *end = block->data + block->len;
	int types = 0;

	g_assert_cmpmem(block->data, 5, "_SM3_", 5);
	g_assert_cmpuint(sum(block->data, 24), ==, 0);
	g_assert_cmpuint(le(block->data + 16, 8), ==, LAYOUT_SMBIOS + 32);
	g_assert_cmpuint(le(block->data + 12, 4), ==, block->len - 32);
	for (; p < end; types++) {
		uint8_t type = p[0];

		if (type == 1)
			g_assert_cmpmem(p + 8, 16, uuid, 16);
		if (type == 17)
			g_assert_cmpuint(le(p + 28, 4), ==, 3072);
		p += p[1];
		while (p[0] || p[1])
			p++;
		p += 2;
		if (type == 127)
			break;
	}
	g_assert_true(p == end);
	g_assert_cmpint(types, >=, 5);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/acpi/every-cpu-count", test_every_cpu_count);
	g_test_add_func("/acpi/hotplug", test_hotplug);
	g_test_add_func("/smbios/structures", test_smbios);
	return g_test_run();
}
