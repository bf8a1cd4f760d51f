// Hot plug: whatever comes and goes in whatever order, the configuration builds the same machine again.
// SPDX-License-Identifier: Apache-2.0
#include "bed.h"
#include "device/legacy/acpi_hotplug.h"
#include "device/legacy/acpi_pm.h"

#define SEQUENCES 40
#define STEPS	  30

/* Two serial buses with ports on either, by name and by default; a port before a port; what is on no PCI
 * bus; and functions that share a slot. */
#define CONFIG                                                                                        \
	"{\"chardevs\": [{\"backend\": \"null\", \"id\": \"c0\"}, {\"backend\": \"null\", \"id\": "   \
	"\"c1\"}, {\"backend\": \"null\", \"id\": \"c2\"}, {\"backend\": \"null\", \"id\": \"c3\"}, " \
	"{\"backend\": \"null\", \"id\": \"c4\"}], \"devices\": ["                                    \
	"{\"driver\": \"virtio-rng-pci\", \"id\": \"first\"},"                                        \
	"{\"driver\": \"virtio-serial-pci\", \"id\": \"vs\"},"                                        \
	"{\"driver\": \"pcie-root-port\", \"id\": \"rp\"},"                                           \
	"{\"driver\": \"virtio-serial-pci\", \"id\": \"far\", \"props\": {\"bus\": \"rp\"}},"         \
	"{\"driver\": \"virtserialport\", \"id\": \"p0\", \"props\": {\"chardev\": \"c0\"}},"         \
	"{\"driver\": \"virtserialport\", \"props\": {\"chardev\": \"c1\", \"bus\": \"far.0\"}},"     \
	"{\"driver\": \"isa-debugcon\", \"props\": {\"chardev\": \"c2\"}},"                           \
	"{\"driver\": \"virtconsole\", \"props\": {\"chardev\": \"c3\"}},"                            \
	"{\"driver\": \"virtio-rng-pci\", \"id\": \"chipset\", \"props\": {\"addr\": \"1f.2\"}},"     \
	"{\"driver\": \"virtio-rng-pci\", \"id\": \"zero\", \"props\": {\"addr\": \"0.3\"}},"         \
	"{\"driver\": \"virtio-rng-pci\", \"props\": {\"addr\": \"9\"}},"                             \
	"{\"driver\": \"virtio-rng-pci\", \"id\": \"nine\", \"props\": {\"addr\": \"9.1\"}}]}"

/* ---- steps ---- */

/* Of devices that may be there. */
static const char *const ids[] = {"first", "vs",   "rp",   "far",  "p0",  "chipset",
				  "zero",  "nine", "new0", "new1", "new2"};

static const char *any_id(void)
{
	return ids[g_test_rand_int_range(0, G_N_ELEMENTS(ids))];
}

static void step_add(struct machine *machine)
{
	static const char *const drivers[] = {"virtio-rng-pci", "virtio-serial-pci",
					      "pcie-root-port"};
	static const char *const buses[] = {"pcie.0", "rp", "new0"};
	json_t *args = json_pack("{s:s}", "driver", drivers[g_test_rand_int_range(0, 3)]);

	if (g_test_rand_bit())
		json_object_set_new(args, "id", json_string(any_id()));
	if (g_test_rand_bit())
		json_object_set_new(args, "bus", json_string(buses[g_test_rand_int_range(0, 3)]));
	if (g_test_rand_bit()) {
		g_autofree char *addr = g_strdup_printf("%x", g_test_rand_int_range(0, 32));

		json_object_set_new(args, "addr", json_string(addr));
	}
	(void)machine_device_add(machine, args, NULL);
	json_decref(args);
}

static void step_eject(struct machine *machine)
{
	io_space_write(machine->pio, ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_EJECT, 4,
		       1u << g_test_rand_int_range(0, 32) | 1u << g_test_rand_int_range(0, 32));
	/* It may be that the main thread is not there yet when the update comes. */
	if (g_test_rand_bit())
		(void)hotplug_take_ejected(machine);
}

static void step_reset(struct machine *machine)
{
	uint32_t slots;

	machine->plug_holds = g_test_rand_bit();
	slots = hotplug_before_reset(machine);
	for (guint i = 0; i < machine->devices->len; i++) {
		struct device *dev = machine->devices->pdata[i];

		dev->ops->reset(dev);
	}
	hotplug_after_reset(machine, slots);
	machine->plug_holds = 0;
	board_assign_resources(machine);
}

static void step(struct machine *machine)
{
	switch (g_test_rand_int_range(0, machine->runstate == RUNSTATE_PRELAUNCH ? 4 : 7)) {
	case 0:
	case 1:
		step_add(machine);
		break;
	case 2:
	case 3:
		(void)machine_device_del(machine, any_id(), NULL);
		break;
	case 4:
	case 5:
		step_eject(machine);
		break;
	default:
		step_reset(machine);
	}
}

static void test_any_sequence(void)
{
	for (int i = 0; i < SEQUENCES; i++) {
		struct bed bed = bed_new(config_of(CONFIG),
					 g_test_rand_bit() ? RUNSTATE_RUNNING : RUNSTATE_PRELAUNCH);

		board_assign_resources(bed.machine);
		assert_rebuilds(bed.machine);
		for (int n = 0; n < STEPS; n++) {
			step(bed.machine);
			assert_rebuilds(bed.machine);
		}
		bed_free(&bed);
	}
}

/* ---- one by one ---- */

static void assert_deleted(struct bed *bed, const char *expected)
{
	g_autofree char *text = NULL;

	g_ptr_array_add(bed->deleted, NULL);
	text = g_strjoinv(" ", (char **)bed->deleted->pdata);
	g_assert_cmpstr(text, ==, expected);
	g_ptr_array_set_size(bed->deleted, 0);
}

/* Asked for or not: what is plugged into a device goes with it, first. */
static void test_dependents(void)
{
	struct bed bed = bed_new(config_of(CONFIG), RUNSTATE_RUNNING);

	machine_add_listener(bed.machine, note_deleted, &bed);
	g_assert_true(machine_device_del(bed.machine, "vs", NULL));
	io_space_write(bed.machine->pio, ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_EJECT, 4, 1u << 2);
	(void)hotplug_take_ejected(bed.machine);
	assert_deleted(&bed, " p0 vs"); /* the console has no id */
	assert_rebuilds(bed.machine);
	io_space_write(bed.machine->pio, ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_EJECT, 4, 1u << 3);
	(void)hotplug_take_ejected(bed.machine);
	assert_deleted(&bed, " far rp");
	assert_rebuilds(bed.machine);
	g_assert_null(vm_config_device(bed.machine->config, "p0"));
	bed_free(&bed);
}

static void test_before_the_guest(void)
{
	struct bed bed = bed_new(config_of(CONFIG), RUNSTATE_PRELAUNCH);

	machine_add_listener(bed.machine, note_deleted, &bed);
	g_assert_true(machine_device_del(bed.machine, "vs", NULL));
	assert_deleted(&bed, " p0 vs");
	g_assert_true(machine_device_del(bed.machine, "zero", NULL));
	g_assert_true(machine_device_del(bed.machine, "chipset", NULL));
	assert_deleted(&bed, "zero chipset");
	assert_rebuilds(bed.machine);
	bed_free(&bed);
}

/* No bit is set that a successor would refuse. */
static void test_slots_of_the_chipset(void)
{
	static const char *const in_them[] = {"zero", "chipset"};
	struct bed bed = bed_new(config_of(CONFIG), RUNSTATE_RUNNING);

	for (size_t i = 0; i < G_N_ELEMENTS(in_them); i++) {
		g_autoptr(GError) error = NULL;

		g_assert_false(machine_device_del(bed.machine, in_them[i], &error));
		g_assert_nonnull(strstr(error->message, "the chipset's, which cannot be emptied"));
	}
	g_assert_cmphex(acpi_pm_eject_requested(bed.machine->pm), ==, 0);
	io_space_write(bed.machine->pio, ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_EJECT, 4, UINT32_MAX);
	(void)hotplug_take_ejected(bed.machine);
	g_assert_nonnull(vm_config_device(bed.machine->config, "zero"));
	g_assert_nonnull(vm_config_device(bed.machine->config, "chipset"));
	g_assert_null(vm_config_device(bed.machine->config, "nine"));
	assert_rebuilds(bed.machine);
	bed_free(&bed);
}

/* A guest that ejects what is not there, or is gone already, keeps nobody busy. */
static void test_empty_slots_are_quiet(void)
{
	struct bed bed = bed_new(config_of(CONFIG), RUNSTATE_RUNNING);

	io_space_write(bed.machine->pio, ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_EJECT, 4, 1u << 20);
	g_assert_cmphex(bed.machine->requests, ==, 0);
	io_space_write(bed.machine->pio, ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_EJECT, 4, 1u << 9);
	g_assert_cmphex(bed.machine->requests, ==, MACHINE_REQUEST_EJECT);
	bed.machine->requests = 0;
	io_space_write(bed.machine->pio, ACPI_HOTPLUG_BASE + ACPI_HOTPLUG_EJECT, 4, 1u << 9);
	g_assert_cmphex(bed.machine->requests, ==, 0);
	bed_free(&bed);
}

/* A request that a later release makes is refused, not carried along. */
static void test_unknown_request(void)
{
	const struct state_desc *desc = &machine_state_desc;
	g_autofree uint8_t *state = g_malloc0(desc->size);
	uint32_t *requests = NULL;
	g_autoptr(GError) error = NULL;

	for (uint32_t i = 0; i < desc->n_fields; i++)
		if (strcmp(desc->fields[i].name, "requests") == 0)
			requests = (uint32_t *)(state + desc->fields[i].offset);
	g_assert_nonnull(requests);
	strcpy((char *)state, "running");
	*requests = MACHINE_REQUEST_KNOWN;
	g_assert_true(desc->check(state, &error));
	*requests |= 1U << 2;
	g_assert_false(desc->check(state, &error));
	g_assert_nonnull(strstr(error->message, "requests: 0x4 is not known here"));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/hotplug/dependents", test_dependents);
	g_test_add_func("/hotplug/before_the_guest", test_before_the_guest);
	g_test_add_func("/hotplug/slots_of_the_chipset", test_slots_of_the_chipset);
	g_test_add_func("/hotplug/empty_slots_are_quiet", test_empty_slots_are_quiet);
	g_test_add_func("/hotplug/any_sequence", test_any_sequence);
	g_test_add_func("/hotplug/unknown-request", test_unknown_request);
	return g_test_run();
}
