// Virtqueues: order, indirect tables, event indices, and every kind of nonsense a driver can write.
// SPDX-License-Identifier: Apache-2.0
#include <glib.h>
#include <string.h>

#include "device/virtio/virtqueue.h"

#define RAM_BYTES  65536
#define HIGH_GPA   RAM_BYTES /* a second block right behind the first */
#define HIGH_BYTES 4096
#define ROM_GPA	   (1U << 20)
#define DESC_GPA   0x1000
#define AVAIL_GPA  0x2000
#define USED_GPA   0x3000
#define TABLE_GPA  0x4000
#define DATA_GPA   0x8000
#define SIZE	   8
#define IOV	   32

struct fixture {
	uint8_t *ram, *high, *rom;
	struct guest_memory memory;
	struct virtqueue_state state;
	struct virtqueue vq;
	struct virtqueue_chain chain;
	struct iovec iov[IOV];
};

static struct vring_desc *table_at(struct fixture *f, uint64_t gpa)
{
	return (struct vring_desc *)(f->ram + gpa);
}

static struct vring_avail *avail_of(struct fixture *f)
{
	return (struct vring_avail *)(f->ram + AVAIL_GPA);
}

static struct vring_used *used_of(struct fixture *f)
{
	return (struct vring_used *)(f->ram + USED_GPA);
}

static void set_up(struct fixture *f, const void *data)
{
	f->ram = g_malloc0(RAM_BYTES);
	f->high = g_malloc0(HIGH_BYTES);
	f->rom = g_malloc0(4096);
	f->memory = (struct guest_memory){
		.n_regions = 3,
		.regions =
			{{.gpa = 0, .size_bytes = RAM_BYTES, .host = f->ram},
			 {.gpa = HIGH_GPA, .size_bytes = HIGH_BYTES, .host = f->high},
			 {.gpa = ROM_GPA, .size_bytes = 4096, .host = f->rom, .read_only = true}},
	};
	f->state = (struct virtqueue_state){
		.desc_gpa = DESC_GPA,
		.avail_gpa = AVAIL_GPA,
		.used_gpa = USED_GPA,
		.size = SIZE,
		.enabled = true,
	};
	f->vq = (struct virtqueue){.s = &f->state, .memory = &f->memory, .indirect = true};
	f->chain = (struct virtqueue_chain){.iov = f->iov, .iov_max = IOV};
	g_assert_true(virtqueue_map(&f->vq));
}

static void tear_down(struct fixture *f, const void *data)
{
	g_free(f->ram);
	g_free(f->high);
	g_free(f->rom);
}

static void offer(struct fixture *f, uint16_t head)
{
	struct vring_avail *avail = avail_of(f);

	avail->ring[avail->idx % SIZE] = head;
	avail->idx++;
}

static void test_order(struct fixture *f, const void *data)
{
	struct vring_desc *desc = table_at(f, DESC_GPA);

	g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_EMPTY);
	/* Three times round the ring, and over the wrap of the 16-bit index. */
	f->state.last_avail = f->state.used_idx = f->vq.seen_avail = 65530;
	avail_of(f)->idx = used_of(f)->idx = 65530;
	for (uint16_t i = 0; i < 3 * SIZE; i++) {
		uint16_t head = i * 3 % SIZE;

		desc[head] = (struct vring_desc){DATA_GPA + head * 64, 16, VRING_DESC_F_NEXT,
						 (head + 1) % SIZE};
		desc[(head + 1) % SIZE] =
			(struct vring_desc){DATA_GPA + 4096, 32, VRING_DESC_F_WRITE, 0};
		offer(f, head);
		g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_CHAIN);
		g_assert_cmpuint(f->chain.head, ==, head);
		g_assert_cmpuint(f->chain.n_out, ==, 1);
		g_assert_cmpuint(f->chain.n_in, ==, 1);
		g_assert_cmpuint(f->chain.out_bytes, ==, 16);
		g_assert_cmpuint(f->chain.in_bytes, ==, 32);
		g_assert_true(f->iov[0].iov_base == f->ram + DATA_GPA + head * 64);
		g_assert_true(f->iov[1].iov_base == f->ram + DATA_GPA + 4096);
		g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_EMPTY);
		virtqueue_push(&f->vq, head, 32);
		g_assert_cmpuint(used_of(f)->idx, ==, (uint16_t)(65530 + i + 1));
		g_assert_cmpuint(used_of(f)->ring[(uint16_t)(65530 + i) % SIZE].id, ==, head);
		g_assert_cmpuint(used_of(f)->ring[(uint16_t)(65530 + i) % SIZE].len, ==, 32);
	}
}

static void test_unpop(struct fixture *f, const void *data)
{
	table_at(f, DESC_GPA)[5] = (struct vring_desc){DATA_GPA, 16, 0, 0};
	offer(f, 5);
	g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_CHAIN);
	virtqueue_unpop(&f->vq);
	g_assert_true(virtqueue_more(&f->vq));
	g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_CHAIN);
	g_assert_cmpuint(f->chain.head, ==, 5);
	g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_EMPTY);
}

static void test_indirect(struct fixture *f, const void *data)
{
	struct vring_desc *table = table_at(f, TABLE_GPA);

	/* Plain descriptors may stand before the table, and it may be longer than the ring. */
	for (int i = 0; i < 20; i++)
		table[i] = (struct vring_desc){
			DATA_GPA + i * 8, 8,
			(i < 19 ? VRING_DESC_F_NEXT : 0) | (i > 9 ? VRING_DESC_F_WRITE : 0), i + 1};
	table_at(f, DESC_GPA)[2] = (struct vring_desc){DATA_GPA, 4, VRING_DESC_F_NEXT, 3};
	table_at(f, DESC_GPA)[3] =
		(struct vring_desc){TABLE_GPA, 20 * sizeof(*table), VRING_DESC_F_INDIRECT, 0};
	offer(f, 2);
	g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_CHAIN);
	g_assert_cmpuint(f->chain.n_out, ==, 11);
	g_assert_cmpuint(f->chain.n_in, ==, 10);
	g_assert_cmpuint(f->chain.out_bytes, ==, 84);
}

/* One descriptor over the seam of two blocks becomes two parts. */
static void test_seam(struct fixture *f, const void *data)
{
	table_at(f, DESC_GPA)[0] = (struct vring_desc){HIGH_GPA - 100, 300, VRING_DESC_F_WRITE, 0};
	offer(f, 0);
	g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_CHAIN);
	g_assert_cmpuint(f->chain.n_in, ==, 2);
	g_assert_cmpuint(f->chain.in_bytes, ==, 300);
	g_assert_true(f->iov[0].iov_base == f->ram + RAM_BYTES - 100);
	g_assert_true(f->iov[1].iov_base == f->high);
	g_assert_cmpuint(f->iov[1].iov_len, ==, 200);
}

static void test_iov(struct fixture *f, const void *data)
{
	uint8_t a[4] = "abcd", b[3] = "efg", out[8] = {0};
	struct iovec iov[2] = {{a, 4}, {b, 3}}, *at = iov;

	g_assert_cmpuint(iov_read(iov, 2, out, 8), ==, 7);
	g_assert_cmpmem(out, 7, "abcdefg", 7);
	g_assert_cmpuint(iov_skip(&at, 2, 5), ==, 1);
	g_assert_cmpuint(iov_write(at, 1, "XYZ", 3), ==, 2);
	g_assert_cmpmem(b, 3, "eXY", 3);
	at = iov;
	g_assert_cmpuint(iov_skip(&at, 2, 100), ==, 0);
}

static void test_notify_flags(struct fixture *f, const void *data)
{
	virtqueue_push(&f->vq, 0, 0);
	g_assert_true(virtqueue_should_notify(&f->vq));
	avail_of(f)->flags = VRING_AVAIL_F_NO_INTERRUPT;
	virtqueue_push(&f->vq, 0, 0);
	g_assert_false(virtqueue_should_notify(&f->vq));
	virtqueue_silence(&f->vq);
	g_assert_cmpuint(used_of(f)->flags, ==, VRING_USED_F_NO_NOTIFY);
	g_assert_false(virtqueue_listen(&f->vq));
	g_assert_cmpuint(used_of(f)->flags, ==, 0);
	offer(f, 0);
	g_assert_true(virtqueue_listen(&f->vq));
}

static void test_notify_event(struct fixture *f, const void *data)
{
	uint16_t *used_event = &avail_of(f)->ring[SIZE];
	uint16_t *avail_event = (uint16_t *)&used_of(f)->ring[SIZE];

	f->vq.event_idx = true;
	*used_event = 0;
	virtqueue_push(&f->vq, 0, 0);
	g_assert_true(virtqueue_should_notify(&f->vq));
	/* The driver wants to hear of the fourth. */
	*used_event = 3;
	virtqueue_push(&f->vq, 0, 0);
	virtqueue_push(&f->vq, 0, 0);
	g_assert_false(virtqueue_should_notify(&f->vq));
	virtqueue_push(&f->vq, 0, 0);
	g_assert_true(virtqueue_should_notify(&f->vq));
	g_assert_false(virtqueue_should_notify(&f->vq));
	/* After an update the driver is told once in any case. */
	f->state.signalled_valid = false;
	virtqueue_push(&f->vq, 0, 0);
	g_assert_true(virtqueue_should_notify(&f->vq));

	offer(f, 0);
	g_assert_true(virtqueue_listen(&f->vq));
	g_assert_cmpuint(*avail_event, ==, 0);
	table_at(f, DESC_GPA)[0] = (struct vring_desc){DATA_GPA, 16, 0, 0};
	g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_CHAIN);
	g_assert_false(virtqueue_listen(&f->vq));
	g_assert_cmpuint(*avail_event, ==, 1);
}

/* ---- nonsense ---- */

struct nonsense {
	const char *name;
	struct vring_desc desc[3];  /* the ring's, from 0 on */
	struct vring_desc table[3]; /* at TABLE_GPA */
	uint16_t head, idx;	    /* idx 0: 1 */
	bool no_indirect;
	const char *says;
};

#define NEXT	 VRING_DESC_F_NEXT
#define WRITE	 VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

static const struct nonsense nonsense[] = {
	{.name = "head-out-of-range", .head = SIZE, .says = "available index"},
	{.name = "head-far-out", .head = 65535, .says = "available index"},
	{.name = "index-jump", .idx = SIZE + 1, .says = "more is available"},
	{.name = "index-back", .idx = 65535, .says = "more is available"},
	{.name = "self-loop", .desc = {{DATA_GPA, 4, NEXT, 0}}, .says = "does not end"},
	{.name = "loop",
	 .desc = {{DATA_GPA, 4, NEXT, 1}, {DATA_GPA, 4, NEXT, 2}, {DATA_GPA, 4, NEXT, 0}},
	 .says = "does not end"},
	{.name = "empty-loop", .desc = {{DATA_GPA, 0, NEXT, 0}}, .says = "does not end"},
	{.name = "next-out", .desc = {{DATA_GPA, 4, NEXT, SIZE}}, .says = "leaves its table"},
	{.name = "next-far-out", .desc = {{DATA_GPA, 4, NEXT, 65535}}, .says = "leaves its table"},
	{.name = "not-ram", .desc = {{0x10000000, 4, 0, 0}}, .says = "not in RAM"},
	{.name = "past-ram", .desc = {{HIGH_GPA + HIGH_BYTES - 4, 8, 0, 0}}, .says = "not in RAM"},
	{.name = "wrap", .desc = {{UINT64_MAX - 3, 8, 0, 0}}, .says = "not in RAM"},
	{.name = "huge", .desc = {{DATA_GPA, UINT32_MAX, WRITE, 0}}, .says = "not in RAM"},
	{.name = "write-rom", .desc = {{ROM_GPA, 4, WRITE, 0}}, .says = "not in RAM"},
	{.name = "read-after-write",
	 .desc = {{DATA_GPA, 4, NEXT | WRITE, 1}, {DATA_GPA, 4, 0, 0}},
	 .says = "follows a writable"},
	{.name = "indirect-not-negotiated",
	 .desc = {{TABLE_GPA, 16, INDIRECT, 0}},
	 .no_indirect = true,
	 .says = "not allowed"},
	{.name = "indirect-next",
	 .desc = {{TABLE_GPA, 16, INDIRECT | NEXT, 1}, {DATA_GPA, 4, 0, 0}},
	 .says = "not allowed"},
	{.name = "indirect-empty",
	 .desc = {{TABLE_GPA, 0, INDIRECT, 0}},
	 .says = "impossible size"},
	{.name = "indirect-odd", .desc = {{TABLE_GPA, 24, INDIRECT, 0}}, .says = "impossible size"},
	{.name = "indirect-long",
	 .desc = {{TABLE_GPA, 16 * 1025, INDIRECT, 0}},
	 .says = "impossible size"},
	{.name = "indirect-not-ram",
	 .desc = {{0x10000000, 16, INDIRECT, 0}},
	 .says = "not in RAM, or misaligned"},
	{.name = "indirect-seam",
	 .desc = {{HIGH_GPA - 16, 32, INDIRECT, 0}},
	 .says = "not in RAM, or misaligned"},
	{.name = "indirect-misaligned",
	 .desc = {{TABLE_GPA + 1, 16, INDIRECT, 0}},
	 .says = "not in RAM, or misaligned"},
	{.name = "indirect-nested",
	 .desc = {{TABLE_GPA, 16, INDIRECT, 0}},
	 .table = {{TABLE_GPA, 16, INDIRECT, 0}},
	 .says = "nested"},
	{.name = "indirect-loop",
	 .desc = {{TABLE_GPA, 32, INDIRECT, 0}},
	 .table = {{DATA_GPA, 4, NEXT, 1}, {DATA_GPA, 4, NEXT, 0}},
	 .says = "does not end"},
	{.name = "indirect-leaves",
	 .desc = {{TABLE_GPA, 32, INDIRECT, 0}},
	 .table = {{DATA_GPA, 4, NEXT, 2}},
	 .says = "leaves its table"},
};

static void test_nonsense(struct fixture *f, const void *data)
{
	const struct nonsense *n = data;
	enum virtqueue_result result;

	memcpy(f->ram + DESC_GPA, n->desc, sizeof(n->desc));
	memcpy(f->ram + TABLE_GPA, n->table, sizeof(n->table));
	f->vq.indirect = !n->no_indirect;
	for (int i = 0; i < SIZE; i++)
		avail_of(f)->ring[i] = n->head;
	avail_of(f)->idx = n->idx ? n->idx : 1;
	result = virtqueue_pop(&f->vq, &f->chain);
	g_assert_cmpint(result, ==, VIRTQUEUE_BROKEN);
	if (!strstr(f->vq.why, n->says))
		g_error("unexpected: %s", f->vq.why);
}

static void test_many_parts(struct fixture *f, const void *data)
{
	f->chain.iov_max = 2;
	for (int i = 0; i < 3; i++)
		table_at(f, DESC_GPA)[i] =
			(struct vring_desc){DATA_GPA, 4, i < 2 ? NEXT : 0, i + 1};
	offer(f, 0);
	g_assert_cmpint(virtqueue_pop(&f->vq, &f->chain), ==, VIRTQUEUE_BROKEN);
	g_assert_nonnull(strstr(f->vq.why, "too many parts"));
}

static void test_map(struct fixture *f, const void *data)
{
	static const struct {
		uint64_t desc, avail, used;
		uint16_t size;
	} bad[] = {
		{DESC_GPA + 8, AVAIL_GPA, USED_GPA, SIZE},
		{DESC_GPA, AVAIL_GPA + 1, USED_GPA, SIZE},
		{DESC_GPA, AVAIL_GPA, USED_GPA + 2, SIZE},
		{0x10000000, AVAIL_GPA, USED_GPA, SIZE},
		{DESC_GPA, UINT64_MAX - 1, USED_GPA, SIZE},
		{DESC_GPA, AVAIL_GPA, ROM_GPA, SIZE},
		{RAM_BYTES - 64, AVAIL_GPA, USED_GPA, SIZE},
		{DESC_GPA, AVAIL_GPA, HIGH_GPA, 512}, /* one element too long */
	};

	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		f->state.desc_gpa = bad[i].desc;
		f->state.avail_gpa = bad[i].avail;
		f->state.used_gpa = bad[i].used;
		f->state.size = bad[i].size;
		g_assert_false(virtqueue_map(&f->vq));
		g_assert_nonnull(f->vq.why);
		g_assert_null(f->vq.desc);
	}
}

static void test_lint_and_check(struct fixture *f, const void *data)
{
	static const struct virtqueue_state bad[] = {
		{.size = 0},
		{.size = 3},
		{.size = 2048},
		{.size = 8, .enabled = true, .desc_gpa = 8},
		{.size = 8, .enabled = true, .avail_gpa = 1},
		{.size = 8, .enabled = true, .used_gpa = 2},
		{.size = 8, .enabled = true, .last_avail = 2, .used_idx = 1},
	};
	g_autoptr(GError) error = NULL;

	g_assert_true(state_desc_lint(&virtqueue_desc, &error));
	g_assert_no_error(error);
	g_assert_true(virtqueue_desc.check(&f->state, NULL));
	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
		g_assert_false(virtqueue_desc.check(&bad[i], NULL));
}

/* Random rings: whatever is in them, the result stays within RAM and within bounds. */
static void test_random(struct fixture *f, const void *data)
{
	for (int round = 0; round < 20000; round++) {
		struct vring_desc *desc = table_at(f, DESC_GPA);

		for (int i = 0; i < SIZE + 16; i++) {
			struct vring_desc *d = i < SIZE ? &desc[i]
							: &table_at(f, TABLE_GPA)[i - SIZE];

			d->addr = g_test_rand_int_range(0, 4)
					  ? TABLE_GPA + 16 * g_test_rand_int_range(0, 4096)
					  : (uint64_t)g_test_rand_int();
			d->len = g_test_rand_int_range(0, 4) ? 16 * g_test_rand_int_range(0, 16)
							     : (uint32_t)g_test_rand_int();
			d->flags = g_test_rand_int() & (round % 3 ? 3 : 7);
			d->next = g_test_rand_int_range(0, SIZE + 2);
		}
		for (int i = 0; i < SIZE; i++)
			avail_of(f)->ring[i] = g_test_rand_int_range(0, SIZE + 1);
		avail_of(f)->idx = f->state.last_avail + g_test_rand_int_range(0, SIZE + 2);
		f->vq.seen_avail = f->state.last_avail;
		while (virtqueue_pop(&f->vq, &f->chain) == VIRTQUEUE_CHAIN) {
			uint64_t sum = 0;

			g_assert_cmpuint(f->chain.n_out + f->chain.n_in, <=, IOV);
			for (uint32_t i = 0; i < f->chain.n_out + f->chain.n_in; i++) {
				uint8_t *base = f->iov[i].iov_base;
				uint8_t *end = base + f->iov[i].iov_len;

				sum += f->iov[i].iov_len;
				g_assert_true((base >= f->ram && end <= f->ram + RAM_BYTES) ||
					      (base >= f->high && end <= f->high + HIGH_BYTES) ||
					      (base >= f->rom && end <= f->rom + 4096));
			}
			g_assert_cmpuint(sum, ==, f->chain.out_bytes + f->chain.in_bytes);
			virtqueue_push(&f->vq, f->chain.head, 0);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct fixture *, const void *);
	} cases[] = {
		{"order", test_order},
		{"unpop", test_unpop},
		{"indirect", test_indirect},
		{"seam", test_seam},
		{"iov", test_iov},
		{"notify-flags", test_notify_flags},
		{"notify-event", test_notify_event},
		{"many-parts", test_many_parts},
		{"map", test_map},
		{"lint-and-check", test_lint_and_check},
		{"random", test_random},
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *name = g_strdup_printf("/virtio/queue/%s", cases[i].name);

		g_test_add(name, struct fixture, NULL, set_up, cases[i].run, tear_down);
	}
	for (size_t i = 0; i < G_N_ELEMENTS(nonsense); i++) {
		g_autofree char *name =
			g_strdup_printf("/virtio/queue/nonsense/%s", nonsense[i].name);

		g_test_add(name, struct fixture, &nonsense[i], set_up, test_nonsense, tear_down);
	}
	return g_test_run();
}
