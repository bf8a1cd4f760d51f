// ACPI tables that tell the guest what the q35 board has.
// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi.h"

#include <stddef.h>
#include <string.h>

#include "device/legacy/acpi_hotplug.h"
#include "device/legacy/acpi_pm.h"
#include "machine/acpi_dsdt_hotplug.h"
#include "machine/aml.h"
#include "machine/layout.h"

/**
 * DOC: ACPI tables
 *
 * ACPI 6.4 chapter 5 for the tables, PCI Firmware 3.2 section 4.1.2 for MCFG.  Everything is built
 * into one block; tables are written before the table that points to them.
 */

struct acpi_header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct acpi_gas {
	uint8_t space; /* 1: system I/O */
	uint8_t bit_width;
	uint8_t bit_offset;
	uint8_t access;
	uint64_t address;
} __attribute__((packed));

struct acpi_fadt {
	struct acpi_header header;
	uint32_t facs, dsdt;
	uint8_t reserved0;
	uint8_t preferred_pm_profile;
	uint16_t sci_int;
	uint32_t smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base;
	uint8_t cst_cnt;
	uint16_t p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
	uint16_t iapc_boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct acpi_gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_version;
	uint64_t x_facs, x_dsdt;
	struct acpi_gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0,
		x_gpe1;
	struct acpi_gas sleep_control, sleep_status;
	uint64_t hypervisor_vendor;
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_fadt) == 276, "FADT revision 6 is 276 bytes");

#define FADT_WBINVD	   (1u << 0)
#define FADT_PROC_C1	   (1u << 2)
#define FADT_SLP_BUTTON	   (1u << 5) /* no fixed sleep button */
#define FADT_RTC_S4	   (1u << 7)
#define FADT_TMR_VAL_EXT   (1u << 8)
#define FADT_RESET_REG_SUP (1u << 10)

#define BOOT_ARCH_LEGACY_DEVICES (1u << 0)
#define BOOT_ARCH_NO_VGA	 (1u << 2)

/* A block of tables under construction and where it will be. */
struct acpi_block {
	GByteArray *bytes;
	uint64_t gpa;
};

static void put(GByteArray *bytes, const void *data, size_t len)
{
	g_byte_array_append(bytes, data, len);
}

static void put_u64(GByteArray *bytes, uint64_t value, uint32_t len)
{
	value = GUINT64_TO_LE(value);
	put(bytes, &value, len);
}

static uint8_t checksum(const uint8_t *data, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += data[i];
	return -sum;
}

static uint32_t align_block(struct acpi_block *block, uint32_t alignment)
{
	while (block->bytes->len % alignment)
		put_u64(block->bytes, 0, 1);
	return block->bytes->len;
}

/* Begin a table; return its offset, for table_end(). */
static uint32_t table_begin(struct acpi_block *block, const char *signature, uint8_t revision)
{
	uint32_t start = align_block(block, 16);
	struct acpi_header header = {
		.revision = revision,
		.oem_revision = 1,
		.creator_revision = 1,
	};

	memcpy(header.signature, signature, 4);
	memcpy(header.oem_id, "MOLT  ", 6);
	memcpy(header.oem_table_id, "MOLTQ35 ", 8);
	memcpy(header.creator_id, "MOLT", 4);
	put(block->bytes, &header, sizeof(header));
	return start;
}

/* Fill in length and checksum; return the table's address. */
static uint64_t table_end(struct acpi_block *block, uint32_t start)
{
	struct acpi_header *header = (void *)(block->bytes->data + start);

	header->length = block->bytes->len - start;
	header->checksum = checksum(block->bytes->data + start, header->length);
	return block->gpa + start;
}

static void dsdt_motherboard(GByteArray *aml)
{
	uint32_t device = aml_device_begin(aml, "MBRS");
	GByteArray *crs = aml_crs_begin();

	aml_name_eisa(aml, "_HID", "PNP0C02");
	aml_name_int(aml, "_UID", 1);
	aml_crs_memory32_fixed(crs, LAYOUT_ECAM, LAYOUT_ECAM_SIZE);
	aml_crs_io(crs, ACPI_PM_BASE, ACPI_PM_SIZE);
	aml_crs_io(crs, ACPI_HOTPLUG_BASE, ACPI_HOTPLUG_SIZE);
	aml_crs_end(aml, crs);
	aml_end(aml, device);
}

static void dsdt_serial(GByteArray *aml, const char *name, uint32_t uid, uint16_t port, uint8_t irq)
{
	uint32_t device = aml_device_begin(aml, name);
	GByteArray *crs = aml_crs_begin();

	aml_name_eisa(aml, "_HID", "PNP0501");
	aml_name_int(aml, "_UID", uid);
	aml_crs_io(crs, port, 8);
	aml_crs_irq(crs, irq);
	aml_crs_end(aml, crs);
	aml_end(aml, device);
}

static void dsdt_rtc(GByteArray *aml)
{
	uint32_t device = aml_device_begin(aml, "RTC");
	GByteArray *crs = aml_crs_begin();

	aml_name_eisa(aml, "_HID", "PNP0B00");
	aml_crs_io(crs, 0x70, 2);
	aml_crs_irq(crs, LAYOUT_IRQ_RTC);
	aml_crs_end(aml, crs);
	aml_end(aml, device);
}

static void dsdt_host_bridge(GByteArray *aml, const struct acpi_params *params)
{
	uint32_t bridge = aml_device_begin(aml, "PCI0");
	GByteArray *crs = aml_crs_begin();
	uint32_t method, isa;

	aml_name_eisa(aml, "_HID", "PNP0A08");
	aml_name_eisa(aml, "_CID", "PNP0A03");
	aml_name_int(aml, "_UID", 0);
	aml_name_int(aml, "_BBN", 0);
	aml_name_int(aml, "_SEG", 0);
	aml_crs_word_bus(crs, 0, 0xff);
	aml_crs_io(crs, 0xcf8, 8);
	aml_crs_word_io(crs, 0, 0xcf7);
	aml_crs_word_io(crs, LAYOUT_PCI_IO, LAYOUT_PCI_IO_END - 1);
	aml_crs_dword_memory(crs, LAYOUT_PCI32, LAYOUT_PCI32_END - 1);
	aml_crs_qword_memory(crs, params->pci64_base, params->pci64_base + LAYOUT_PCI64_SIZE - 1);
	aml_crs_end(aml, crs);

	/* _OSC grants what the OS asks for: there is no firmware that would keep anything. */
	method = aml_method_begin(aml, "_OSC", 4);
	aml_return_arg(aml, 3);
	aml_end(aml, method);

	isa = aml_device_begin(aml, "ISA");
	aml_name_int(aml, "_ADR", 0x1f0000);
	if (params->serials & 1)
		dsdt_serial(aml, "COM1", 1, 0x3f8, LAYOUT_IRQ_COM1);
	if (params->serials & 2)
		dsdt_serial(aml, "COM2", 2, 0x2f8, LAYOUT_IRQ_COM2);
	dsdt_rtc(aml);
	aml_end(aml, isa);
	acpi_dsdt_hotplug_slots(aml);
	aml_end(aml, bridge);
}

static uint64_t build_dsdt(struct acpi_block *block, const struct acpi_params *params)
{
	static const uint64_t s5[] = {ACPI_SLP_TYP_S5, ACPI_SLP_TYP_S5, 0, 0};
	uint32_t start = table_begin(block, "DSDT", 2);
	uint32_t scope;

	scope = aml_scope_begin(block->bytes, "\\_SB");
	dsdt_motherboard(block->bytes);
	dsdt_host_bridge(block->bytes, params);
	aml_end(block->bytes, scope);
	acpi_dsdt_hotplug_event(block->bytes);
	aml_name_package(block->bytes, "_S5", s5, G_N_ELEMENTS(s5));
	return table_end(block, start);
}

static uint64_t build_facs(struct acpi_block *block)
{
	uint32_t start = align_block(block, 64);
	uint8_t facs[64] = "FACS";

	facs[4] = sizeof(facs);
	facs[32] = 2; /* version */
	put(block->bytes, facs, sizeof(facs));
	return block->gpa + start;
}

static struct acpi_gas io_gas(uint16_t port, uint8_t bytes)
{
	return (struct acpi_gas){
		.space = 1,
		.bit_width = 8 * bytes,
		.access = bytes == 4  ? 3
			  : bytes > 4 ? 1
				      : bytes,
		.address = GUINT64_TO_LE(port),
	};
}

static uint64_t build_fadt(struct acpi_block *block, uint64_t dsdt, uint64_t facs)
{
	uint32_t start = table_begin(block, "FACP", 6);
	struct acpi_fadt fadt = {
		.facs = facs,
		.dsdt = dsdt,
		.preferred_pm_profile = 4, /* enterprise server */
		.sci_int = LAYOUT_IRQ_SCI,
		.pm1a_evt = ACPI_PM_BASE + ACPI_PM1_EVT,
		.pm1a_cnt = ACPI_PM_BASE + ACPI_PM1_CNT,
		.pm_tmr = ACPI_PM_BASE + ACPI_PM_TMR,
		.gpe0 = ACPI_PM_BASE + ACPI_GPE0,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.gpe0_len = ACPI_GPE0_BYTES,
		.p_lvl2_lat = 0xfff, /* no C2 or C3 */
		.p_lvl3_lat = 0xfff,
		.century = 0x32,
		.iapc_boot_arch = BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_NO_VGA,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_RTC_S4 |
			 FADT_TMR_VAL_EXT | FADT_RESET_REG_SUP,
		.reset_reg = io_gas(0xcf9, 1),
		.reset_value = 0x06,
		.minor_version = 4,
		.x_dsdt = dsdt,
		.x_pm1a_evt = io_gas(ACPI_PM_BASE + ACPI_PM1_EVT, 4),
		.x_pm1a_cnt = io_gas(ACPI_PM_BASE + ACPI_PM1_CNT, 2),
		.x_pm_tmr = io_gas(ACPI_PM_BASE + ACPI_PM_TMR, 4),
		.x_gpe0 = io_gas(ACPI_PM_BASE + ACPI_GPE0, ACPI_GPE0_BYTES),
	};

	put(block->bytes, (uint8_t *)&fadt + sizeof(fadt.header),
	    sizeof(fadt) - sizeof(fadt.header));
	return table_end(block, start);
}

/* Interrupt source override: ISA @irq is @gsi with MPS INTI @flags. */
static void madt_override(GByteArray *bytes, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	put_u64(bytes, 2 | 10 << 8 | 0 << 16 | (uint32_t)irq << 24, 4);
	put_u64(bytes, gsi, 4);
	put_u64(bytes, flags, 2);
}

static uint64_t build_madt(struct acpi_block *block, const struct acpi_params *params)
{
	uint32_t start = table_begin(block, "APIC", 4);
	GByteArray *bytes = block->bytes;

	put_u64(bytes, LAYOUT_LAPIC, 4);
	put_u64(bytes, 1, 4); /* PCAT_COMPAT: there are 8259s as well */
	for (uint32_t i = 0; i < params->n_cpus; i++) {
		put_u64(bytes, 0 | 8 << 8 | i << 16 | i << 24, 4); /* processor local APIC */
		put_u64(bytes, 1, 4);				   /* enabled */
	}
	put_u64(bytes, 1 | 12 << 8, 4); /* I/O APIC with id 0, GSI base 0 */
	put_u64(bytes, LAYOUT_IOAPIC, 4);
	put_u64(bytes, 0, 4);
	madt_override(bytes, 0, 2, 0);				   /* PIT */
	madt_override(bytes, LAYOUT_IRQ_SCI, LAYOUT_IRQ_SCI, 0xd); /* level, active high */
	put_u64(bytes, 4 | 6 << 8 | 0xff << 16, 3);		   /* NMI on LINT1 of every CPU */
	put_u64(bytes, 0, 2);
	put_u64(bytes, 1, 1);
	return table_end(block, start);
}

static uint64_t build_mcfg(struct acpi_block *block)
{
	uint32_t start = table_begin(block, "MCFG", 1);

	put_u64(block->bytes, 0, 8);
	put_u64(block->bytes, LAYOUT_ECAM, 8);
	put_u64(block->bytes, 0, 2);		 /* segment */
	put_u64(block->bytes, 0 | 0xff << 8, 2); /* buses 0 to 255 */
	put_u64(block->bytes, 0, 4);
	return table_end(block, start);
}

static uint64_t build_xsdt(struct acpi_block *block, const uint64_t *tables, uint32_t n)
{
	uint32_t start = table_begin(block, "XSDT", 1);

	for (uint32_t i = 0; i < n; i++)
		put_u64(block->bytes, tables[i], 8);
	return table_end(block, start);
}

/* Root System Description Pointer, at offset 0 (5.2.5.3). */
static void fill_rsdp(uint8_t *rsdp, uint64_t xsdt)
{
	memcpy(rsdp, "RSD PTR ", 8);
	memcpy(rsdp + 9, "MOLT  ", 6);
	rsdp[15] = 2;
	rsdp[20] = 36;
	xsdt = GUINT64_TO_LE(xsdt);
	memcpy(rsdp + 24, &xsdt, sizeof(xsdt));
	rsdp[8] = checksum(rsdp, 20);
	rsdp[32] = checksum(rsdp, 36);
}

GByteArray *acpi_build(const struct acpi_params *params, uint64_t gpa)
{
	struct acpi_block block = {.bytes = g_byte_array_new(), .gpa = gpa};
	uint8_t rsdp[36] = {0};
	uint64_t dsdt, facs, tables[3];

	put(block.bytes, rsdp, sizeof(rsdp));
	dsdt = build_dsdt(&block, params);
	facs = build_facs(&block);
	tables[0] = build_fadt(&block, dsdt, facs);
	tables[1] = build_madt(&block, params);
	tables[2] = build_mcfg(&block);
	fill_rsdp(block.bytes->data, build_xsdt(&block, tables, G_N_ELEMENTS(tables)));
	return block.bytes;
}
