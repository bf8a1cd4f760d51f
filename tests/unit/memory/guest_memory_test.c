// The guest-physical map: bounds, ROM, ranges that span regions.
// SPDX-License-Identifier: Apache-2.0
#include "memory/guest_memory.h"

#include <string.h>

#define PAGE 4096ULL

struct fixture {
	uint8_t bytes[4][PAGE];
	struct ram_block block;
	struct guest_memory memory;
};

/* RAM at 0 and, right after it, another part of the block; ROM; RAM above 4 GiB. */
static void setup(struct fixture *f, gconstpointer unused)
{
	(void)unused;
	f->block = (struct ram_block){
		.name = (char *)"test",
		.host = f->bytes[0],
		.size_bytes = sizeof(f->bytes),
	};
	g_assert_true(
		guest_memory_add(&f->memory, 1ULL << 32, &f->block, 3 * PAGE, PAGE, false, NULL));
	g_assert_true(guest_memory_add(&f->memory, PAGE, &f->block, 2 * PAGE, PAGE, false, NULL));
	g_assert_true(guest_memory_add(&f->memory, 0, &f->block, 0, PAGE, false, NULL));
	g_assert_true(guest_memory_add(&f->memory, 0xfffff000, &f->block, PAGE, PAGE, true, NULL));
}

static void teardown(struct fixture *f, gconstpointer unused)
{
	(void)f;
	(void)unused;
}

static void test_map(struct fixture *f, gconstpointer unused)
{
	const struct guest_memory *m = &f->memory;

	(void)unused;
	g_assert_true(guest_memory_map(m, 0, PAGE, true) == f->bytes[0]);
	g_assert_true(guest_memory_map(m, PAGE + 1, 1, true) == f->bytes[2] + 1);
	g_assert_true(guest_memory_map(m, 1ULL << 32, PAGE, true) == f->bytes[3]);
	g_assert_null(guest_memory_map(m, 0, 0, false));
	/* adjacent for the guest, not for the host */
	g_assert_null(guest_memory_map(m, PAGE - 1, 2, false));
	g_assert_null(guest_memory_map(m, 2 * PAGE, 1, false));
	g_assert_null(guest_memory_map(m, 0, UINT64_MAX, false));
	g_assert_null(guest_memory_map(m, UINT64_MAX, 2, false));
	/* ROM */
	g_assert_true(guest_memory_map(m, 0xfffff000, PAGE, false) == f->bytes[1]);
	g_assert_null(guest_memory_map(m, 0xfffff000, PAGE, true));
	/* every window over the end of a region */
	for (uint64_t len = 1; len <= 16; len++) {
		g_assert_nonnull(guest_memory_map(m, 2 * PAGE - len, len, true));
		g_assert_null(guest_memory_map(m, 2 * PAGE - len, len + 1, true));
	}
}

static void test_copy(struct fixture *f, gconstpointer unused)
{
	const struct guest_memory *m = &f->memory;
	uint8_t buf[8] = {1, 2, 3, 4, 5, 6, 7, 8}, back[8] = {0};

	(void)unused;
	g_assert_true(guest_memory_write(m, PAGE - 3, buf, sizeof(buf)));
	g_assert_cmpmem(f->bytes[0] + PAGE - 3, 3, buf, 3);
	g_assert_cmpmem(f->bytes[2], 5, buf + 3, 5);
	g_assert_true(guest_memory_read(m, PAGE - 3, back, sizeof(back)));
	g_assert_cmpmem(back, sizeof(back), buf, sizeof(buf));
	/* from ROM into the RAM above it */
	g_assert_true(guest_memory_read(m, (1ULL << 32) - 4, back, sizeof(back)));
	g_assert_false(guest_memory_write(m, (1ULL << 32) - 4, buf, sizeof(buf)));
	g_assert_cmpuint(f->bytes[3][0], ==, 0);
	/* all or nothing */
	g_assert_false(guest_memory_write(m, 2 * PAGE - 4, buf, sizeof(buf)));
	g_assert_cmpuint(f->bytes[2][PAGE - 4], ==, 0);
	g_assert_false(guest_memory_read(m, UINT64_MAX - 3, back, sizeof(back)));
	g_assert_true(guest_memory_read(m, 0x12345678900, back, 0));
}

static void test_add_refuses(struct fixture *f, gconstpointer unused)
{
	static const struct {
		uint64_t gpa, offset, size;
		const char *reason;
	} bad[] = {
		{0, 0, PAGE, "would overlap"},
		{2 * PAGE - 1, 0, PAGE, "would overlap"},
		{8 * PAGE, 0, 0, "not a range"},
		{UINT64_MAX - PAGE + 1, 0, PAGE, "not a range"},
		{UINT64_MAX, 0, PAGE, "not a range"},
		{8 * PAGE, PAGE, 4 * PAGE, "exceed the block"},
		{8 * PAGE, UINT64_MAX, PAGE, "exceed the block"},
	};

	(void)unused;
	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_autoptr(GError) error = NULL;

		g_assert_false(guest_memory_add(&f->memory, bad[i].gpa, &f->block, bad[i].offset,
						bad[i].size, false, &error));
		g_assert_nonnull(strstr(error->message, bad[i].reason));
	}
	g_assert_cmpuint(f->memory.n_regions, ==, 4);
	for (uint32_t i = 4; i < GUEST_MEMORY_MAX_REGIONS; i++)
		g_assert_true(guest_memory_add(&f->memory, i * 0x10000ULL, &f->block, 0, PAGE,
					       false, NULL));
	g_assert_false(guest_memory_add(&f->memory, 0x1000000, &f->block, 0, PAGE, false, NULL));
}

static void test_sorted(struct fixture *f, gconstpointer unused)
{
	(void)unused;
	for (uint32_t i = 1; i < f->memory.n_regions; i++)
		g_assert_cmphex(f->memory.regions[i - 1].gpa, <, f->memory.regions[i].gpa);
}

#define ADD(name, fn) g_test_add(name, struct fixture, NULL, setup, fn, teardown)

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	ADD("/memory/guest_memory/map", test_map);
	ADD("/memory/guest_memory/copy", test_copy);
	ADD("/memory/guest_memory/add_refuses", test_add_refuses);
	ADD("/memory/guest_memory/sorted", test_sorted);
	return g_test_run();
}
