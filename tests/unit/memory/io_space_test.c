// Port and memory-mapped register space: look-up, overlap, splitting and widening of accesses.
// SPDX-License-Identifier: Apache-2.0
#include "memory/io_space.h"

#include <string.h>

/* A device that has plain bytes for registers and writes down what it was asked. */
struct fake {
	struct io_region region;
	uint8_t bytes[32];
	GString *trace;
	GMutex lock;
	struct io_space *move_in; /* write to offset 0: move the region by 0x100 in this space */
};

static uint64_t fake_read(void *opaque, uint64_t offset, uint32_t size)
{
	struct fake *fake = opaque;
	uint64_t value = 0;

	g_assert_cmpuint(offset % size, ==, 0);
	g_assert_cmpuint(offset + size, <=, fake->region.size_bytes);
	g_string_append_printf(fake->trace, "r%u@%x ", size, (unsigned int)offset);
	memcpy(&value, fake->bytes + offset, size);
	return value;
}

static void fake_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
	struct fake *fake = opaque;

	g_assert_cmpuint(offset % size, ==, 0);
	g_assert_cmpuint(offset + size, <=, fake->region.size_bytes);
	g_string_append_printf(fake->trace, "w%u@%x=%" G_GINT64_MODIFIER "x ", size,
			       (unsigned int)offset, value);
	memcpy(fake->bytes + offset, &value, size);
	if (fake->move_in && offset == 0) {
		uint64_t base = fake->region.base;

		io_space_remove(fake->move_in, &fake->region);
		g_assert_true(io_space_add(fake->move_in, &fake->region, base + 0x100, NULL));
	}
}

static const struct io_ops ops_1_to_4 = {fake_read, fake_write, .min_size = 1, .max_size = 4};
static const struct io_ops ops_1 = {fake_read, fake_write, .min_size = 1, .max_size = 1};
static const struct io_ops ops_4 = {fake_read, fake_write, .min_size = 4, .max_size = 4};
static const struct io_ops ops_4_rmw = {fake_read, fake_write, .min_size = 4, .max_size = 4,
					.rmw = true};
static const struct io_ops ops_8 = {fake_read, fake_write, .min_size = 1, .max_size = 8};

static void fake_init(struct fake *fake, const struct io_ops *ops, uint64_t size)
{
	*fake = (struct fake){
		.region = {.name = "fake", .size_bytes = size, .ops = ops, .opaque = fake},
		.trace = g_string_new(NULL),
	};
	g_mutex_init(&fake->lock);
	fake->region.lock = &fake->lock;
	for (size_t i = 0; i < sizeof(fake->bytes); i++)
		fake->bytes[i] = (uint8_t)(0x10 + i);
}

static void fake_clear(struct fake *fake)
{
	g_string_free(fake->trace, TRUE);
	g_mutex_clear(&fake->lock);
}

struct access {
	const struct io_ops *ops;
	bool write;
	uint64_t offset;
	uint32_t size;
	uint64_t value;
	const char *trace;
};

static const struct access accesses[] = {
	{&ops_1_to_4, false, 4, 4, 0x17161514, "r4@4 "},
	{&ops_1_to_4, false, 1, 1, 0x11, "r1@1 "},
	/* larger than implemented: lowest address first */
	{&ops_1, false, 0, 4, 0x13121110, "r1@0 r1@1 r1@2 r1@3 "},
	{&ops_1_to_4, false, 8, 8, 0x1f1e1d1c1b1a1918, "r4@8 r4@c "},
	{&ops_8, false, 8, 8, 0x1f1e1d1c1b1a1918, "r8@8 "},
	/* unaligned */
	{&ops_1_to_4, false, 3, 4, 0x16151413, "r1@3 r2@4 r1@6 "},
	{&ops_4, false, 3, 2, 0x1413, "r4@0 r4@4 "},
	/* smaller than implemented */
	{&ops_4, false, 6, 2, 0x1716, "r4@4 "},
	{&ops_4, true, 6, 2, 0xffffbeef, "w4@4=beef0000 "},
	{&ops_4_rmw, true, 6, 2, 0xbeef, "r4@4 w4@4=beef1514 "},
	{&ops_4_rmw, true, 4, 4, 0xdeadbeef, "w4@4=deadbeef "},
	/* bits above the size never arrive */
	{&ops_1_to_4, true, 2, 1, 0x1234, "w1@2=34 "},
	{&ops_1, true, 4, 2, 0x1234, "w1@4=34 w1@5=12 "},
	{&ops_1_to_4, true, 8, 8, 0x1122334455667788, "w4@8=55667788 w4@c=11223344 "},
};

static void test_sizes(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(accesses); i++) {
		const struct access *a = &accesses[i];
		autoptr(io_space) space = io_space_new("test");
		struct fake fake;
		uint64_t value;

		fake_init(&fake, a->ops, 32);
		g_assert_true(io_space_add(space, &fake.region, 0x1000, NULL));
		if (a->write) {
			g_assert_true(io_space_write(space, 0x1000 + a->offset, a->size, a->value));
		} else {
			g_assert_true(io_space_read(space, 0x1000 + a->offset, a->size, &value));
			g_assert_cmphex(value, ==, a->value);
		}
		g_assert_cmpstr(fake.trace->str, ==, a->trace);
		fake_clear(&fake);
	}
}

static void test_nothing_there(void)
{
	autoptr(io_space) space = io_space_new("test");
	uint64_t value = 0;

	g_assert_false(io_space_read(space, 0x80, 1, &value));
	g_assert_cmphex(value, ==, 0xff);
	g_assert_false(io_space_read(space, 0x80, 4, &value));
	g_assert_cmphex(value, ==, 0xffffffff);
	g_assert_false(io_space_read(space, UINT64_MAX, 8, &value));
	g_assert_cmphex(value, ==, UINT64_MAX);
	g_assert_false(io_space_write(space, 0x80, 2, 0));
	g_assert_false(io_space_read(space, 0x80, 3, &value));
	g_assert_false(io_space_write(space, 0x80, 0, 0));
}

/* A 4-byte access at the last two bytes of one region and the first two of nothing. */
static void test_crosses_the_end(void)
{
	autoptr(io_space) space = io_space_new("test");
	struct fake a, b;
	uint64_t value;

	fake_init(&a, &ops_1_to_4, 8);
	fake_init(&b, &ops_1_to_4, 8);
	g_assert_true(io_space_add(space, &a.region, 0x100, NULL));
	g_assert_true(io_space_read(space, 0x106, 4, &value));
	g_assert_cmphex(value, ==, 0xffff1716);
	g_assert_cmpstr(a.trace->str, ==, "r2@6 ");
	g_assert_true(io_space_add(space, &b.region, 0x108, NULL));
	g_assert_true(io_space_read(space, 0x106, 4, &value));
	g_assert_cmphex(value, ==, 0x11101716);
	g_assert_true(io_space_write(space, 0x107, 2, 0xbbaa));
	g_assert_cmphex(a.bytes[7], ==, 0xaa);
	g_assert_cmphex(b.bytes[0], ==, 0xbb);
	fake_clear(&a);
	fake_clear(&b);
}

static void test_overlap(void)
{
	autoptr(io_space) space = io_space_new("test");
	g_autoptr(GError) error = NULL;
	struct fake a, b, huge;
	uint64_t value;

	fake_init(&a, &ops_1_to_4, 8);
	fake_init(&b, &ops_1_to_4, 8);
	g_assert_true(io_space_add(space, &a.region, 0x100, NULL));
	for (uint64_t base = 0xf9; base <= 0x107; base++) {
		g_assert_false(io_space_add(space, &b.region, base, &error));
		g_assert_nonnull(strstr(error->message, "would overlap 'fake'"));
		g_clear_error(&error);
	}
	g_assert_true(io_space_add(space, &b.region, 0xf8, NULL));
	io_space_remove(space, &b.region);
	io_space_remove(space, &b.region);
	g_assert_false(io_space_read(space, 0xf8, 1, &value));
	g_assert_true(io_space_add(space, &b.region, 0x108, NULL));
	/* the very end of the space, and past it */
	io_space_remove(space, &b.region);
	g_assert_true(io_space_add(space, &b.region, UINT64_MAX - 7, NULL));
	g_assert_true(io_space_read(space, UINT64_MAX, 1, &value));
	g_assert_cmphex(value, ==, 0x17);
	fake_init(&huge, &ops_1_to_4, 16);
	g_assert_false(io_space_add(space, &huge.region, UINT64_MAX - 7, NULL));
	huge.region.size_bytes = 0;
	g_assert_false(io_space_add(space, &huge.region, 0, NULL));
	huge.region.size_bytes = 6;
	huge.region.ops = &ops_4;
	g_assert_false(io_space_add(space, &huge.region, 0, NULL));
	fake_clear(&a);
	fake_clear(&b);
	fake_clear(&huge);
}

/* Many regions, added in a scrambled order: each address finds its own. */
static void test_sorted(void)
{
	enum { N = 64 };
	autoptr(io_space) space = io_space_new("test");
	struct fake fakes[N];
	uint64_t value;

	for (uint32_t i = 0; i < N; i++) {
		uint32_t k = i * 37 % N;

		fake_init(&fakes[k], &ops_1_to_4, 8);
		fakes[k].bytes[0] = (uint8_t)k;
		g_assert_true(io_space_add(space, &fakes[k].region, 0x100 + k * 16, NULL));
	}
	for (uint32_t k = 0; k < N; k++) {
		g_assert_true(io_space_read(space, 0x100 + k * 16, 1, &value));
		g_assert_cmpuint(value, ==, k);
		g_assert_false(io_space_read(space, 0x108 + k * 16, 1, &value));
	}
	for (uint32_t k = 0; k < N; k++)
		fake_clear(&fakes[k]);
}

/* As a guest does that moves a BAR: the space changes from inside an access. */
static void test_moved_by_its_own_access(void)
{
	autoptr(io_space) space = io_space_new("test");
	struct fake fake;
	uint64_t value;

	fake_init(&fake, &ops_1_to_4, 8);
	fake.move_in = space;
	g_assert_true(io_space_add(space, &fake.region, 0x100, NULL));
	g_assert_true(io_space_write(space, 0x100, 1, 0x55));
	g_assert_false(io_space_read(space, 0x100, 1, &value));
	g_assert_true(io_space_read(space, 0x200, 1, &value));
	g_assert_cmphex(value, ==, 0x55);
	fake_clear(&fake);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/memory/io_space/sizes", test_sizes);
	g_test_add_func("/memory/io_space/nothing_there", test_nothing_there);
	g_test_add_func("/memory/io_space/crosses_the_end", test_crosses_the_end);
	g_test_add_func("/memory/io_space/overlap", test_overlap);
	g_test_add_func("/memory/io_space/sorted", test_sorted);
	g_test_add_func("/memory/io_space/moved_by_its_own_access", test_moved_by_its_own_access);
	return g_test_run();
}
