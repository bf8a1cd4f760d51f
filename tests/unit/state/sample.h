// A made-up device with every kind of field, in two releases: what the state tests work on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string.h>

#include "base/error.h"
#include "state/section.h"
#include "state/state.h"

/* ---- nested ---- */

struct sample_queue {
	uint64_t ring_gpa;
	uint16_t size;
	uint16_t used_idx;
	bool enabled;
	uint8_t pad[3];
};

static const struct state_field sample_queue_fields[] = {
	FIELD(struct sample_queue, ring_gpa, 1), FIELD(struct sample_queue, size, 2),
	FIELD(struct sample_queue, used_idx, 3), FIELD(struct sample_queue, enabled, 4),
	FIELD_PAD(struct sample_queue, pad),
};

static bool sample_queue_check(const void *obj, GError **error)
{
	const struct sample_queue *queue = obj;

	if (queue->size == 0 || (queue->size & (queue->size - 1)))
		return error_set_generic(error, "size %u is not a power of two", queue->size);
	return true;
}

static void sample_queue_reset(void *obj)
{
	((struct sample_queue *)obj)->size = 128;
}

static const struct state_desc sample_queue_desc = {
	.name = "sample-queue",
	.version = 1,
	.min_reader = 1,
	.reset = sample_queue_reset,
	.check = sample_queue_check,
	STATE_DESC(struct sample_queue, sample_queue_fields),
};

/* As if from the kernel's headers. */
struct sample_abi {
	__extension__ unsigned long long cr[2];
	int signed_member;
	char padding[4];
};

struct sample_timer {
	uint64_t deadline_ns;
};

static const struct state_field sample_timer_fields[] = {
	FIELD(struct sample_timer, deadline_ns, 1),
};

static const struct state_desc sample_timer_desc = {
	.name = "sample-timer",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct sample_timer, sample_timer_fields),
};

/* ---- release 1 ---- */

struct sample_v1 {
	uint8_t ier;
	bool irq;
	uint16_t divisor;
	uint32_t n_rx;
	uint8_t rx[13];
	bool lines[3];
	uint32_t regs[3];
	uint32_t n_queues;
	struct sample_queue queue[4];
	struct sample_timer timer;
	struct sample_abi abi;
	uint64_t features;
	uint32_t n_msrs;
	uint32_t scratch;
	uint64_t msrs[8];
};

static const struct state_field sample_v1_fields[] = {
	FIELD(struct sample_v1, ier, 1),
	FIELD(struct sample_v1, irq, 2),
	FIELD(struct sample_v1, divisor, 3),
	FIELD_LIST(struct sample_v1, rx, n_rx, 4),
	FIELD_ARRAY(struct sample_v1, lines, 5),
	FIELD_ARRAY(struct sample_v1, regs, 6),
	FIELD_STRUCT_LIST(struct sample_v1, queue, n_queues, 7, &sample_queue_desc),
	FIELD_STRUCT(struct sample_v1, timer, 8, &sample_timer_desc),
	FIELD_BLOB(struct sample_v1, abi, 9, "sample_abi"),
	FIELD(struct sample_v1, features, 10),
	FIELD(struct sample_v1, scratch, 11, .flags = STATE_OPTIONAL),
	FIELD_LIST(struct sample_v1, msrs, n_msrs, 12),
};

static bool sample_v1_check(const void *obj, GError **error)
{
	if (((const struct sample_v1 *)obj)->divisor == 0xdead)
		return error_set_generic(error, "divisor is dead");
	return true;
}

static const struct state_desc sample_v1_desc = {
	.name = "sample",
	.version = 1,
	.min_reader = 1,
	.check = sample_v1_check,
	STATE_DESC(struct sample_v1, sample_v1_fields),
};

/*
 * ---- release 2 ----
 * One more field, which release 1 may drop, and room for more in a list; scratch is gone.
 */

struct sample_v2 {
	uint8_t ier;
	bool irq;
	uint16_t divisor;
	uint32_t n_rx;
	uint8_t rx[13];
	bool lines[3];
	uint32_t regs[3];
	uint32_t n_queues;
	struct sample_queue queue[6];
	struct sample_timer timer;
	struct sample_abi abi;
	uint64_t features;
	uint32_t n_msrs;
	uint32_t fcr;
	uint64_t msrs[8];
};

static const struct state_field sample_v2_fields[] = {
	FIELD(struct sample_v2, ier, 1),
	FIELD(struct sample_v2, irq, 2),
	FIELD(struct sample_v2, divisor, 3),
	FIELD_LIST(struct sample_v2, rx, n_rx, 4),
	FIELD_ARRAY(struct sample_v2, lines, 5),
	FIELD_ARRAY(struct sample_v2, regs, 6),
	FIELD_STRUCT_LIST(struct sample_v2, queue, n_queues, 7, &sample_queue_desc),
	FIELD_STRUCT(struct sample_v2, timer, 8, &sample_timer_desc),
	FIELD_BLOB(struct sample_v2, abi, 9, "sample_abi"),
	FIELD(struct sample_v2, features, 10),
	FIELD_GONE(11),
	FIELD_LIST(struct sample_v2, msrs, n_msrs, 12),
	FIELD(struct sample_v2, fcr, 13, .since = 2, .flags = STATE_OPTIONAL),
};

static const struct state_desc sample_v2_desc = {
	.name = "sample",
	.version = 2,
	.min_reader = 1,
	STATE_DESC(struct sample_v2, sample_v2_fields),
};

/** sample_fill() - The values of the golden files; never change them. */
static inline void sample_fill(struct sample_v1 *sample)
{
	memset(sample, 0, sizeof(*sample));
	sample->ier = 0x5a;
	sample->irq = true;
	sample->divisor = 0x0102;
	sample->n_rx = 5;
	memcpy(sample->rx, "hello", 5);
	sample->lines[1] = true;
	sample->regs[0] = 0xdeadbeef;
	sample->regs[2] = 7;
	sample->n_queues = 2;
	sample->queue[0] = (struct sample_queue){.ring_gpa = 0x100000, .size = 256};
	sample->queue[1] = (struct sample_queue){
		.ring_gpa = 0xfffffffff000, .size = 64, .used_idx = 65535, .enabled = true};
	sample->timer.deadline_ns = 0x8000000000000001;
	sample->abi.cr[0] = 0x80050033;
	sample->abi.signed_member = -1;
	sample->features = 0x0102030405060708;
	sample->scratch = 0x77;
	sample->n_msrs = 3;
	sample->msrs[0] = 0xc0000080;
	sample->msrs[2] = 0xffffffffffffffff;
}

/** sample_fill_v2() - The same for release 2. */
static inline void sample_fill_v2(struct sample_v2 *sample)
{
	struct sample_v1 v1;

	sample_fill(&v1);
	memset(sample, 0, sizeof(*sample));
	sample->ier = v1.ier;
	sample->irq = v1.irq;
	sample->divisor = v1.divisor;
	sample->n_rx = v1.n_rx;
	memcpy(sample->rx, v1.rx, sizeof(sample->rx));
	memcpy(sample->lines, v1.lines, sizeof(sample->lines));
	memcpy(sample->regs, v1.regs, sizeof(sample->regs));
	sample->n_queues = v1.n_queues;
	memcpy(sample->queue, v1.queue, sizeof(v1.queue));
	sample->timer = v1.timer;
	sample->abi = v1.abi;
	sample->features = v1.features;
	sample->n_msrs = v1.n_msrs;
	sample->fcr = 0xc7;
	memcpy(sample->msrs, v1.msrs, sizeof(sample->msrs));
}

/** sample_stream() - The stream of the golden files: three sections, the last of them optional. */
static inline GBytes *sample_stream(void)
{
	static const struct state_desc optional_desc = {
		.name = "sample-timer",
		.version = 1,
		.min_reader = 1,
		.flags = STATE_OPTIONAL,
		STATE_DESC(struct sample_timer, sample_timer_fields),
	};
	autoptr(state_writer) writer = state_writer_begin("molt golden");
	struct sample_timer timer = {.deadline_ns = 42};
	struct sample_v1 sample;
	GBytes *bytes;

	sample_fill(&sample);
	g_assert_true(state_writer_add(writer, "trace", 0, &optional_desc, &timer, NULL));
	g_assert_true(
		state_writer_add(writer, "pci/00.3/sample", 0, &sample_v1_desc, &sample, NULL));
	g_assert_true(
		state_writer_add(writer, "pci/00.3/sample", 1, &sample_v1_desc, &sample, NULL));
	bytes = state_writer_finish(writer, NULL);
	g_assert_nonnull(bytes);
	return bytes;
}
