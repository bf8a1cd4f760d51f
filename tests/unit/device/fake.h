// A machine for device tests: recorded interrupts, real register spaces, a clock that tests set.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "device/device.h"
#include "device/pci/pci.h"

#define FAKE_GSIS      24
#define FAKE_ROUTES    256
#define FAKE_RAM_BYTES (1U << 20)

/** struct fake_route - One MSI route: GSI is FAKE_GSIS plus its index */
struct fake_route {
	bool used;
	uint64_t addr;
	uint32_t data;
	int eventfd; /* -1: no irqfd */
	uint32_t delivered;
};

/**
 * struct fake_machine - What a device is given, and what it did with it
 * @n_set_irq:	Calls of set_irq per GSI
 * @raised:	Changes from low to high per GSI
 * @n_power:	Requests by kind
 * @routes_full: Let msi_route_add() fail
 */
struct fake_machine {
	struct accel accel;
	struct device_env env;
	struct guest_memory memory;
	struct ram_block ram;
	bool level[FAKE_GSIS];
	uint32_t raised[FAKE_GSIS], n_set_irq[FAKE_GSIS];
	struct fake_route routes[FAKE_ROUTES];
	uint32_t n_route_set;
	bool routes_full;
	uint32_t n_power[POWER_EJECT + 1];
};

/* Test time; 0: the host's clock. */
static uint64_t fake_clock_ns, fake_wall_ns;

static inline uint64_t fake_clock(void)
{
	return fake_clock_ns ? fake_clock_ns : clock_now_ns();
}

static inline uint64_t fake_wall(void)
{
	return fake_wall_ns ? fake_wall_ns : (uint64_t)g_get_real_time() * NS_PER_USEC;
}

static inline struct fake_machine *fake_of(struct accel *accel)
{
	return (struct fake_machine *)accel; /* its first member */
}

static inline void fake_set_irq(struct accel *accel, uint32_t gsi, bool level)
{
	struct fake_machine *m = fake_of(accel);

	g_assert_cmpuint(gsi, <, FAKE_GSIS);
	m->raised[gsi] += level && !m->level[gsi];
	m->n_set_irq[gsi]++;
	m->level[gsi] = level;
}

static inline bool fake_send_msi(struct accel *accel, uint64_t addr, uint32_t data)
{
	return true;
}

static inline struct fake_route *fake_route(struct accel *accel, int gsi)
{
	struct fake_route *route;

	g_assert_cmpint(gsi, >=, FAKE_GSIS);
	g_assert_cmpint(gsi, <, FAKE_GSIS + FAKE_ROUTES);
	route = &fake_of(accel)->routes[gsi - FAKE_GSIS];
	g_assert_true(route->used);
	return route;
}

static inline int fake_route_add(struct accel *accel, uint64_t addr, uint32_t data, GError **error)
{
	struct fake_machine *m = fake_of(accel);

	for (int i = 0; i < FAKE_ROUTES && !m->routes_full; i++) {
		if (m->routes[i].used)
			continue;
		m->routes[i] = (struct fake_route){true, addr, data, -1, 0};
		return FAKE_GSIS + i;
	}
	g_set_error_literal(error, G_FILE_ERROR, 0, "routes are full");
	return -1;
}

static inline bool fake_route_set(struct accel *accel, int gsi, uint64_t addr, uint32_t data,
				  GError **error)
{
	struct fake_route *route = fake_route(accel, gsi);

	route->addr = addr;
	route->data = data;
	fake_of(accel)->n_route_set++;
	return true;
}

static inline void fake_route_remove(struct accel *accel, int gsi)
{
	struct fake_route *route = fake_route(accel, gsi);

	g_assert_cmpint(route->eventfd, ==, -1);
	route->used = false;
}

/* As KVM: what the counter holds is delivered, at once or when the irqfd is attached. */
static inline void fake_deliver(struct fake_machine *m)
{
	for (uint32_t i = 0; i < FAKE_ROUTES; i++)
		if (m->routes[i].used && m->routes[i].eventfd >= 0)
			m->routes[i].delivered += eventfd_drain(m->routes[i].eventfd) > 0;
}

static inline bool fake_irqfd_set(struct accel *accel, int gsi, int eventfd, bool on,
				  GError **error)
{
	struct fake_route *route = fake_route(accel, gsi);

	g_assert_cmpint(route->eventfd, ==, on ? -1 : eventfd);
	fake_deliver(fake_of(accel));
	route->eventfd = on ? eventfd : -1;
	fake_deliver(fake_of(accel));
	return true;
}

static inline bool fake_ioeventfd_set(struct accel *accel, uint64_t addr, uint32_t len, bool pio,
				      const uint64_t *match, int eventfd, bool on, GError **error)
{
	return true;
}

static const struct accel_ops fake_accel_ops = {
	.set_irq = fake_set_irq,
	.send_msi = fake_send_msi,
	.msi_route_add = fake_route_add,
	.msi_route_set = fake_route_set,
	.msi_route_remove = fake_route_remove,
	.irqfd_set = fake_irqfd_set,
	.ioeventfd_set = fake_ioeventfd_set,
};

/* The first used route; NULL if there is none. */
static inline struct fake_route *fake_first_route(struct fake_machine *m)
{
	for (uint32_t i = 0; i < FAKE_ROUTES; i++)
		if (m->routes[i].used)
			return &m->routes[i];
	return NULL;
}

static inline void fake_power(void *opaque, enum power_request request)
{
	((struct fake_machine *)opaque)->n_power[request]++;
}

/* device_env.drained, of all machines. */
static GMutex fake_drain_lock;
static GCond fake_drain_cond;
static uint32_t fake_n_drained;

static inline void fake_drained(void *opaque)
{
	g_mutex_lock(&fake_drain_lock);
	fake_n_drained++;
	g_cond_signal(&fake_drain_cond);
	g_mutex_unlock(&fake_drain_lock);
}

static inline struct fake_machine *fake_machine_new(void)
{
	struct fake_machine *m = g_new0(struct fake_machine, 1);

	m->accel.ops = &fake_accel_ops;
	m->ram.host = g_malloc0(FAKE_RAM_BYTES);
	m->memory.n_regions = 1;
	m->memory.regions[0] = (struct guest_region){
		.size_bytes = FAKE_RAM_BYTES, .host = m->ram.host, .block = &m->ram};
	m->env = (struct device_env){
		.memory = &m->memory,
		.pio = io_space_new("pio"),
		.mmio = io_space_new("mmio"),
		.accel = &m->accel,
		.power = fake_power,
		.drained = fake_drained,
		.opaque = m,
		.clock_ns = fake_clock,
		.wall_ns = fake_wall,
	};
	return m;
}

static inline void fake_machine_free(struct fake_machine *m)
{
	io_space_free(m->env.pio);
	io_space_free(m->env.mmio);
	g_free(m->ram.host);
	g_free(m);
}
DEFINE_CLEANUP(fake_machine, fake_machine_free)

/* Realize @dev at @path; it stays quiesced. */
static inline struct device *fake_realize(struct fake_machine *m, struct device *dev,
					  const char *path)
{
	GError *error = NULL;

	g_assert_nonnull(dev);
	device_realize(dev, g_strdup(path), &m->env, &error);
	g_assert_no_error(error);
	return dev;
}

/* ... and let it run. */
static inline struct device *fake_start(struct fake_machine *m, struct device *dev,
					const char *path)
{
	fake_realize(m, dev, path);
	if (dev->ops->resume)
		dev->ops->resume(dev);
	return dev;
}

static inline uint64_t fake_in(struct fake_machine *m, uint16_t port, uint32_t size)
{
	uint64_t value;

	io_space_read(m->env.pio, port, size, &value);
	return value;
}

static inline void fake_out(struct fake_machine *m, uint16_t port, uint32_t size, uint64_t value)
{
	io_space_write(m->env.pio, port, size, value);
}

static inline uint64_t fake_load(struct fake_machine *m, uint64_t gpa, uint32_t size)
{
	uint64_t value;

	io_space_read(m->env.mmio, gpa, size, &value);
	return value;
}

static inline void fake_store(struct fake_machine *m, uint64_t gpa, uint32_t size, uint64_t value)
{
	io_space_write(m->env.mmio, gpa, size, value);
}

/* No new work, and wait for the old; then quiet in every way. */
static inline void fake_rest(struct device *dev)
{
	const int64_t end = g_get_monotonic_time() + 10 * G_TIME_SPAN_SECOND;
	const uint32_t seen = fake_n_drained;

	if (dev->ops->drain && !dev->ops->drain(dev)) {
		g_mutex_lock(&fake_drain_lock);
		while (fake_n_drained == seen)
			g_assert_true(g_cond_wait_until(&fake_drain_cond, &fake_drain_lock, end));
		g_mutex_unlock(&fake_drain_lock);
		g_assert_cmpuint(dev->ops->in_flight(dev, NULL), ==, 0);
	}
	if (dev->ops->quiesce)
		dev->ops->quiesce(dev);
}

/* Quiesce, capture, save: as an update does. */
static inline GByteArray *fake_save(struct device *dev)
{
	GByteArray *bytes = g_byte_array_new();
	GError *error = NULL;

	fake_rest(dev);
	if (dev->ops->capture)
		g_assert_true(dev->ops->capture(dev, &error));
	state_save(dev->ops->state, device_state(dev), bytes, &error);
	g_assert_no_error(error);
	return bytes;
}

/* Load and apply into a realized device; it stays quiesced. */
static inline bool fake_restore(struct device *dev, const GByteArray *bytes, GError **error)
{
	return state_load(dev->ops->state, span_of(bytes->data, bytes->len), device_state(dev),
			  device_state(dev), error) &&
	       (!dev->ops->apply || dev->ops->apply(dev, error));
}

/* Save @old, restore to @new (its twin in another machine), and check that @new saves the same. */
static inline void fake_hand_over(struct device *old, struct device *new)
{
	g_autoptr(GByteArray) before = fake_save(old);
	g_autoptr(GByteArray) after = NULL;
	GError *error = NULL;

	fake_restore(new, before, &error);
	g_assert_no_error(error);
	after = fake_save(new);
	g_assert_cmpmem(before->data, before->len, after->data, after->len);
}

static inline gboolean fake_late(void *opaque)
{
	g_test_message("nothing happened before the deadline");
	g_test_fail();
	abort();
}

/* Run the main loop until @condition holds, for five seconds at most. */
#define FAKE_WAIT_FOR(condition)                                        \
	do {                                                            \
		guint late = g_timeout_add_seconds(5, fake_late, NULL); \
		while (!(condition))                                    \
			g_main_context_iteration(NULL, TRUE);           \
		g_source_remove(late);                                  \
	} while (0)
