// The register file of virtio over PCI: identity, negotiation, selectors, doorbells, properties.
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtio.h"
#include "virtio_disk.h"

#define ALL (F(VIRTIO_BLK_F_FLUSH) | F(VIRTIO_BLK_F_MQ) | F(VIRTIO_BLK_F_CONFIG_WCE))

static void set_up(struct disk *disk, const void *data)
{
	disk_open(disk);
	drv_pci_set_up(&disk->d);
}

static void tear_down(struct disk *disk, const void *data)
{
	disk_close(disk);
}

static void test_identity(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;
	uint64_t capacity = fake_load(d->m, d->config, 4) | fake_load(d->m, d->config + 4, 4) << 32;

	g_assert_cmphex(drv_pci_get(d, PCI_VENDOR_ID, 2), ==, 0x1af4);
	g_assert_cmphex(drv_pci_get(d, PCI_DEVICE_ID, 2), ==, 0x1042);
	g_assert_cmphex(drv_pci_get(d, PCI_CLASS_REVISION, 4) >> 8, ==, 0x010000);
	g_assert_cmpuint(drv_pci_get(d, PCI_REVISION_ID, 1), >=, 1);
	g_assert_cmpuint(capacity, ==, IMAGE_BYTES / 512);
	g_assert_cmpuint(
		fake_load(d->m, d->config + offsetof(struct virtio_blk_config, seg_max), 4), ==,
		254);
	g_assert_cmpuint(
		fake_load(d->m, d->config + offsetof(struct virtio_blk_config, num_queues), 2), ==,
		2);
	g_assert_cmpuint(fake_load(d->m, d->config + 1000, 4), ==, 0);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_NUMQ, 2), ==, 2);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_CFGGENERATION, 1), ==, 0);
	g_assert_cmphex(drv_device_features(d), ==,
			ALL | F(VIRTIO_F_VERSION_1) | F(VIRTIO_RING_F_EVENT_IDX) |
				F(VIRTIO_RING_F_INDIRECT_DESC) | F(VIRTIO_BLK_F_SEG_MAX) |
				F(VIRTIO_BLK_F_BLK_SIZE) | F(VIRTIO_BLK_F_TOPOLOGY) |
				F(VIRTIO_BLK_F_DISCARD) | F(VIRTIO_BLK_F_WRITE_ZEROES));
	drv_put(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_DF, 4), ==, 0);
}

static void test_features(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;

	g_assert_false(drv_negotiate(d, ALL));
	drv_reset(d);
	g_assert_false(drv_negotiate(d, ALL | F(VIRTIO_F_VERSION_1) | F(33)));
	drv_reset(d);
	g_assert_false(drv_negotiate(d, ALL | F(VIRTIO_F_VERSION_1) | F(VIRTIO_BLK_F_RO)));
	drv_reset(d);
	g_assert_true(drv_negotiate(d, ALL | F(VIRTIO_F_VERSION_1)));
	/* Final now; and a third half does not exist. */
	drv_put(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
	drv_put(d, VIRTIO_PCI_COMMON_GF, 4, 0);
	g_assert_cmphex(drv_get(d, VIRTIO_PCI_COMMON_GF, 4), ==, ALL);
	drv_put(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 7);
	drv_put(d, VIRTIO_PCI_COMMON_GF, 4, UINT32_MAX);
	g_assert_cmphex(drv_get(d, VIRTIO_PCI_COMMON_GF, 4), ==, 0);
	/* Bits of the status are only ever added. */
	drv_put(d, VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	g_assert_cmphex(drv_status(d), ==,
			VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
				VIRTIO_CONFIG_S_FEATURES_OK);
	drv_reset(d);
	drv_put(d, VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_DRIVER_OK);
	g_assert_cmphex(drv_status(d), ==, VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void test_queue_registers(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;

	g_assert_true(drv_negotiate(d, ALL | F(VIRTIO_F_VERSION_1)));
	drv_put(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 2);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 0);
	drv_put(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 16);
	drv_put(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 0);
	drv_put(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 256);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_NOFF, 2), ==, 1);
	for (uint32_t bad = 0; bad < 4; bad++) {
		static const uint16_t sizes[] = {0, 3, 512, 65535};

		drv_put(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, sizes[bad]);
		g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 256);
	}
	drv_put(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 32);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 32);
	/* A vector that does not exist reads back as none. */
	drv_put(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 3);
	g_assert_cmphex(drv_get(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), ==, 0xffff);
	drv_put(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	g_assert_cmphex(drv_get(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), ==, 2);
	drv_put(d, VIRTIO_PCI_COMMON_MSIX, 2, 99);
	g_assert_cmphex(drv_get(d, VIRTIO_PCI_COMMON_MSIX, 2), ==, 0xffff);
	/* A ring outside of RAM. */
	drv_put64(d, VIRTIO_PCI_COMMON_Q_DESCLO, UINT64_C(1) << 40);
	drv_put(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 0);
	g_assert_cmphex(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
	drv_reset(d);
	/* Once enabled it stays where it is. */
	disk_start(disk, ALL);
	drv_put(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	drv_put64(d, VIRTIO_PCI_COMMON_Q_DESCLO, 0);
	drv_put(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 4);
	g_assert_cmphex(drv_get(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4), ==, d->queues[0].desc);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, disk->data, 512, true), ==, 0);
}

/* Any register, any size, any value: nothing falls over. */
static void test_random_registers(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;

	for (int i = 0; i < 20000; i++) {
		uint64_t at = DRV_BAR + g_test_rand_int_range(0, 4) * 0x1000 +
			      g_test_rand_int_range(0, 80);
		uint32_t size = 1 << g_test_rand_int_range(0, 4);

		if (g_test_rand_int() & 1)
			fake_store(d->m, at, size,
				   g_test_rand_int_range(0, 2)
					   ? g_test_rand_int_range(0, 16)
					   : (uint64_t)g_test_rand_int() << 32 | g_test_rand_int());
		else
			(void)fake_load(d->m, at, size);
	}
	drv_reset(d);
	disk_start(disk, ALL);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, disk->data, 512, true), ==, 0);
}

/* Section 4.1.4.9: the window in configuration space. */
static void test_cfg_access(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;
	uint8_t cap = drv_pci_get(d, PCI_CAPABILITY_LIST, 1);

	while (drv_pci_get(d, cap, 1) != PCI_CAP_ID_VNDR ||
	       drv_pci_get(d, cap + 3, 1) != VIRTIO_PCI_CAP_PCI_CFG)
		cap = drv_pci_get(d, cap + 1, 1);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_BAR, 1, 4);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_LENGTH, 4, 2);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_NUMQ);
	g_assert_cmpuint(drv_pci_get(d, cap + 16, 2), ==, 2);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_Q_SELECT);
	drv_pci_put(d, cap + 16, 2, 1);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SELECT, 2), ==, 1);
	/* Nonsense does nothing. */
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_LENGTH, 4, 3);
	drv_pci_put(d, cap + 16, 2, 0);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_LENGTH, 4, 2);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_OFFSET, 4, 0xfffffffe);
	drv_pci_put(d, cap + 16, 2, 0);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_Q_SELECT + 1);
	drv_pci_put(d, cap + 16, 2, 0);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_Q_SELECT);
	drv_pci_put(d, cap + VIRTIO_PCI_CAP_BAR, 1, 1);
	drv_pci_put(d, cap + 16, 2, 0);
	g_assert_cmpuint(drv_get(d, VIRTIO_PCI_COMMON_Q_SELECT, 2), ==, 1);
}

/* Kicks while bus mastering is off are not lost. */
static void test_bus_master(struct disk *disk, const void *data)
{
	struct drv *d = &disk->d;
	uint32_t len;

	disk_start(disk, ALL);
	drv_pci_put(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	disk_offer(disk, 0, 0, VIRTIO_BLK_T_IN, 0, disk->data, 512, true);
	fake_store(d->m, d->notify, 2, 0);
	g_assert_cmpuint(drv_used(d, 0)->idx, ==, 0);
	drv_pci_put(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	drv_wait_used(d, 0, 1, &len);
}

/* ---- doorbells ---- */

#define BELLS_MAX 8

static struct bell {
	uint64_t gpa;
	int fd;
} bells[BELLS_MAX];

static bool bell_set(struct accel *accel, uint64_t addr, uint32_t len, bool pio,
		     const uint64_t *match, int eventfd, bool on, GError **error)
{
	for (uint32_t i = 0; i < BELLS_MAX; i++) {
		if (bells[i].gpa != (on ? 0 : addr))
			continue;
		bells[i] = on ? (struct bell){addr, eventfd} : (struct bell){0};
		return true;
	}
	return false;
}

static uint32_t n_bells(uint64_t bar)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < BELLS_MAX; i++) {
		g_assert_true(!bells[i].gpa ||
			      (bells[i].gpa >= bar && bells[i].gpa < bar + 0x4000));
		n += bells[i].gpa != 0;
	}
	return n;
}

static void test_doorbells(void)
{
	struct disk own = {0}, *disk = &own;
	struct drv *d = &disk->d;
	static struct accel_ops ops;
	uint32_t len;

	memset(bells, 0, sizeof(bells));
	ops = fake_accel_ops;
	ops.ioeventfd_set = bell_set;
	disk_open(disk);
	d->m->accel.ops = &ops;
	disk_start(disk, ALL);
	g_assert_cmpuint(n_bells(DRV_BAR), ==, 2);
	disk_offer(disk, 0, 0, VIRTIO_BLK_T_IN, 0, disk->data, 512, true);
	for (uint32_t i = 0; i < BELLS_MAX; i++)
		if (bells[i].gpa == d->notify)
			eventfd_signal(bells[i].fd);
	drv_wait_used(d, 0, 1, &len);
	/* They follow the BAR, and go with it. */
	drv_pci_put(d, PCI_BASE_ADDRESS_4, 4, DRV_BAR + 0x100000);
	g_assert_cmpuint(n_bells(DRV_BAR + 0x100000), ==, 2);
	drv_pci_put(d, PCI_COMMAND, 2, 0);
	g_assert_cmpuint(n_bells(0), ==, 0);
	drv_pci_put(d, PCI_BASE_ADDRESS_4, 4, DRV_BAR);
	drv_pci_put(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	g_assert_cmpuint(n_bells(DRV_BAR), ==, 2);
	g_assert_cmpuint(disk_do(disk, VIRTIO_BLK_T_IN, 0, disk->data, 512, true), ==, 0);
	drv_reset(d);
	g_assert_cmpuint(n_bells(0), ==, 0);
	disk_start(disk, ALL);
	g_assert_cmpuint(n_bells(DRV_BAR), ==, 2);
	disk_close(disk);
	g_assert_cmpuint(n_bells(0), ==, 0);
}

/* ---- properties ---- */

static void test_refused(void)
{
	static const struct {
		const char *props, *says;
	} cases[] = {
		{"{}", "drive"},
		{"{\"drive\": \"d1\"}", "there is no drive 'd1'"},
		{"{\"drive\": \"d0\", \"queue-size\": 100}", "not a power of two"},
		{"{\"drive\": \"d0\", \"queue-size\": 2048}", "queue-size"},
		{"{\"drive\": \"d0\", \"num-queues\": 64}", "num-queues"},
		{"{\"drive\": \"d0\", \"serial\": \"123456789012345678901\"}", "longer than 20"},
		{"{\"drive\": \"d0\", \"iothread\": \"io0\"}", "there is no iothread 'io0'"},
		{"{\"drive\": \"d0\", \"logical_block_size\": 1000}", "block size"},
		{"{\"drive\": \"d0\", \"disable-legacy\": \"off\"}", "disable-legacy=on"},
		{"{\"drive\": \"d0\", \"disable-modern\": \"on\"}", "disable-modern=off"},
		{"{\"drive\": \"d0\", \"colour\": \"red\"}", "colour"},
	};
	struct disk disk = {0};
	struct block_node *node;

	disk_open(&disk);
	node = disk.node;
	block_node_detach(node);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		json_t *props = json_loads(cases[i].props, 0, NULL);
		g_autoptr(GError) error = NULL;
		struct device *dev = device_new(&virtio_blk_ops, NULL, props, &error);

		if (dev)
			g_assert_false(
				device_realize(dev, g_strdup("pci/00.4"), &disk.d.m->env, &error));
		g_assert_nonnull(error);
		if (!strstr(error->message, cases[i].says))
			g_error("%s: unexpected: %s", cases[i].props, error->message);
		device_free(dev);
		json_decref(props);
	}
	g_assert_true(block_node_attach(node, &(struct block_user){.name = "somebody"}, NULL));
	disk_close(&disk);
}

static void test_taken(void)
{
	struct disk disk = {0};
	g_autoptr(GError) error = NULL;
	json_t *props = json_loads("{\"drive\": \"d0\"}", 0, NULL);
	struct device *dev = device_new(&virtio_blk_ops, "vdb", props, NULL);

	disk_open(&disk);
	g_assert_false(device_realize(dev, g_strdup("pci/00.4"), &disk.d.m->env, &error));
	g_assert_nonnull(strstr(error->message,
				"already in use by '/machine/peripheral/vda/virtio-backend'"));
	device_free(dev);
	json_decref(props);
	disk_close(&disk);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct disk *, const void *);
	} cases[] = {
		{"identity", test_identity},
		{"features", test_features},
		{"queue-registers", test_queue_registers},
		{"random-registers", test_random_registers},
		{"cfg-access", test_cfg_access},
		{"bus-master", test_bus_master},
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *name = g_strdup_printf("/virtio/pci/%s", cases[i].name);

		g_test_add(name, struct disk, NULL, set_up, cases[i].run, tear_down);
	}
	g_test_add_func("/virtio/pci/doorbells", test_doorbells);
	g_test_add_func("/virtio/pci/refused", test_refused);
	g_test_add_func("/virtio/pci/taken", test_taken);
	return g_test_run();
}
