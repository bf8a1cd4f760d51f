// The virtio serial bus: control messages, data both ways, flow control, hand-over.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <glib/gstdio.h>
#include <linux/virtio_console.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/chardev/chardev.h"
#include "device/virtio/virtio_console.h"
#include "virtio_util.h"

#define F(bit) (UINT64_C(1) << (bit))
#define FEATURES \
	(F(VIRTIO_F_VERSION_1) | F(VIRTIO_RING_F_EVENT_IDX) | F(VIRTIO_CONSOLE_F_MULTIPORT))
#define RX0 0
#define TX0 1
#define CRX 2
#define CTX 3
#define RX1 4
#define TX1 5

/**
 * struct serial - A bus with a console on port 0 and a byte channel "org.test" on port 1
 * @peer:	Client of each port's socket, -1 if there is none
 * @ports, @chardevs, @fds: of the machine the bus is in now
 */
struct serial {
	struct drv d;
	char *dir;
	int peer[2];
	struct device *ports[2];
	struct chardev *chardevs[2];
	struct fd_source *fds;
};

static struct chardev *find_chardev(void *opaque, const char *id)
{
	struct serial *s = opaque;

	return g_str_has_prefix(id, "c") && id[1] <= '1' ? s->chardevs[id[1] - '0'] : NULL;
}

static struct device *find_device(void *opaque, const char *id)
{
	struct serial *s = opaque;

	return strcmp(id, "v0") == 0 || strcmp(id, "virtio-serial-pci") == 0 ? s->d.dev : NULL;
}

static char *socket_path(struct serial *s, int i)
{
	g_autofree char *name = g_strdup_printf("c%d", i);

	return g_build_filename(s->dir, name, NULL);
}

static void serial_plug(struct serial *s, struct drv_ram *ram, struct fdstore *inherited)
{
	static const char *const props[] = {"{\"chardev\": \"c0\"}",
					    "{\"chardev\": \"c1\", \"name\": \"org.test\", "
					    "\"bus\": \"v0.0\"}"};
	struct fake_machine *m = drv_machine_new(ram);
	GError *error = NULL;

	s->fds = g_new0(struct fd_source, 1);
	s->fds->inherited = inherited;
	m->env.opaque = s;
	m->env.find_chardev = find_chardev;
	m->env.find_device = find_device;
	for (int i = 0; i < 2; i++) {
		g_autofree char *path = socket_path(s, i);
		const struct chardev_config config = {.kind = CHARDEV_SOCKET,
						      .id = (char *)(i ? "c1" : "c0"),
						      .path = path,
						      .server = true};

		s->chardevs[i] = chardev_new(&config, s->fds, &error);
		g_assert_no_error(error);
	}
	drv_plug(&s->d, m, ram, device_new(&virtio_serial_ops, "v0", NULL, NULL));
	for (int i = 0; i < 2; i++) {
		json_t *json = json_loads(props[i], 0, NULL);

		s->ports[i] = fake_realize(
			m, device_new(i ? &virtserialport_ops : &virtconsole_ops, NULL, json, NULL),
			"virtio-serial/port");
		json_decref(json);
	}
}

static void serial_resume(struct serial *s)
{
	s->d.dev->ops->resume(s->d.dev);
	for (int i = 0; i < 2; i++)
		chardev_resume(s->chardevs[i]);
}

static void serial_unplug(struct serial *s)
{
	for (int i = 0; i < 2; i++)
		device_free(s->ports[i]);
	drv_unplug(&s->d);
	for (int i = 0; i < 2; i++)
		chardev_free(s->chardevs[i]);
	fd_source_clear(s->fds);
	g_free(s->fds);
}

static void serial_connect(struct serial *s, int i)
{
	g_autofree char *path = socket_path(s, i);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
	s->peer[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	g_assert_cmpint(connect(s->peer[i], (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
}

/* ---- the driver's side ---- */

/* Offer a receive buffer of @len bytes.  Return: where it is. */
static uint64_t give(struct serial *s, uint16_t q, uint32_t len)
{
	uint64_t gpa = drv_alloc(s->d.ram, len);
	const struct drv_sg sg = {gpa, len, true};
	uint16_t old = drv_avail(&s->d, q)->idx;

	drv_add(&s->d, q, &sg, 1, 0);
	drv_kick(&s->d, q, old);
	return gpa;
}

static void transmit(struct serial *s, uint16_t q, const void *bytes, uint32_t len, bool wait)
{
	uint64_t gpa = drv_alloc(s->d.ram, len);
	const struct drv_sg sg = {gpa, len, false};
	uint16_t old = drv_avail(&s->d, q)->idx;
	uint32_t used;

	memcpy(drv_ptr(s->d.ram, gpa), bytes, len);
	drv_add(&s->d, q, &sg, 1, 0);
	drv_kick(&s->d, q, old);
	if (wait)
		drv_wait_used(&s->d, q, 1, &used);
}

static void send_control(struct serial *s, uint32_t nr, uint16_t event, uint16_t value)
{
	const struct virtio_console_control message = {nr, event, value};

	transmit(s, CTX, &message, sizeof(message), true);
}

/* Take the next control message, which must be this one; its buffer is given back. */
static void expect_control(struct serial *s, uint32_t nr, uint16_t event, uint16_t value,
			   const char *text)
{
	const struct virtio_console_control *message;
	uint16_t head;
	uint32_t len;

	head = drv_wait_used(&s->d, CRX, 1, &len);
	message = drv_ptr(s->d.ram, drv_desc(&s->d, CRX)[head].addr);
	g_assert_cmpuint(message->id, ==, nr);
	g_assert_cmpuint(message->event, ==, event);
	g_assert_cmpuint(message->value, ==, value);
	g_assert_cmpuint(len, ==, sizeof(*message) + (text ? strlen(text) : 0));
	if (text)
		g_assert_cmpmem(message + 1, strlen(text), text, strlen(text));
	give(s, CRX, 128);
}

static void serial_start(struct serial *s)
{
	drv_pci_set_up(&s->d);
	g_assert_true(drv_negotiate(&s->d, FEATURES));
	for (uint16_t q = 0; q < 6; q++)
		drv_set_up_queue(&s->d, q, 16, 1);
	drv_driver_ok(&s->d);
	for (int i = 0; i < 8; i++)
		give(s, CRX, 128);
	send_control(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	expect_control(s, 0, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
	expect_control(s, 1, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
	send_control(s, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	expect_control(s, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, NULL);
	expect_control(s, 0, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	send_control(s, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	send_control(s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	expect_control(s, 1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.test");
}

static void set_up(struct serial *s, const void *data)
{
	s->dir = g_dir_make_tmp("molt-serial-XXXXXX", NULL);
	s->peer[0] = s->peer[1] = -1;
	serial_plug(s, drv_ram_new(), NULL);
	serial_resume(s);
	serial_start(s);
}

static void tear_down(struct serial *s, const void *data)
{
	struct drv_ram *ram = s->d.ram;

	serial_unplug(s);
	drv_ram_free(ram);
	for (int i = 0; i < 2; i++) {
		g_autofree char *path = socket_path(s, i);

		fd_close(&s->peer[i]);
		g_unlink(path);
	}
	g_assert_cmpint(g_rmdir(s->dir), ==, 0);
	g_free(s->dir);
}

/* Read exactly @len bytes from the client's end while the main loop runs. */
static void peer_read(struct serial *s, int i, void *buf, size_t len)
{
	uint64_t deadline_ns = clock_deadline_ms(DRV_WAIT_MS);

	for (size_t done = 0; done < len;) {
		ssize_t n = recv(s->peer[i], (uint8_t *)buf + done, len - done, MSG_DONTWAIT);

		g_assert_cmpuint(clock_now_ns(), <, deadline_ns);
		if (n > 0)
			done += n;
		else if (!g_main_context_iteration(NULL, FALSE))
			(void)fd_poll(s->peer[i], POLLIN, clock_deadline_ms(10));
	}
}

static void expect_data(struct serial *s, uint16_t q, uint64_t gpa, const char *text)
{
	uint32_t len;

	drv_wait_used(&s->d, q, 1, &len);
	g_assert_cmpmem(drv_ptr(s->d.ram, gpa), len, text, strlen(text));
}

/* ---- tests ---- */

static void test_console(struct serial *s, const void *data)
{
	char buf[16] = {0};
	uint64_t a, b;

	/* With nobody there, output goes nowhere and the guest does not wait. */
	transmit(s, TX0, "lost", 4, true);
	serial_connect(s, 0);
	FAKE_WAIT_FOR(chardev_frontend_open(s->chardevs[0]) &&
		      !g_main_context_iteration(NULL, FALSE));
	transmit(s, TX0, "hello", 5, true);
	peer_read(s, 0, buf, 5);
	g_assert_cmpstr(buf, ==, "hello");
	/* Input before there is a buffer waits; what is longer than a buffer takes two. */
	g_assert_cmpint(write(s->peer[0], "abcdef", 6), ==, 6);
	while (g_main_context_iteration(NULL, FALSE))
		;
	a = give(s, RX0, 4);
	expect_data(s, RX0, a, "abcd");
	b = give(s, RX0, 100);
	expect_data(s, RX0, b, "ef");
}

static void test_channel(struct serial *s, const void *data)
{
	char buf[16] = {0};
	uint64_t a = give(s, RX1, 64);

	serial_connect(s, 1);
	expect_control(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	/* Nothing is given to a port that no program has open. */
	g_assert_cmpint(write(s->peer[1], "early", 5), ==, 5);
	while (g_main_context_iteration(NULL, FALSE))
		;
	g_assert_cmpuint(drv_used(&s->d, RX1)->idx, ==, 0);
	send_control(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	expect_data(s, RX1, a, "early");
	transmit(s, TX1, "reply", 5, true);
	peer_read(s, 1, buf, 5);
	g_assert_cmpstr(buf, ==, "reply");
	/* A chardev reads, and so sees the end, only while there is room for what it reads. */
	give(s, RX1, 64);
	fd_close(&s->peer[1]);
	expect_control(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL);
}

/* Many control messages and few buffers: none is lost. */
static void test_few_buffers(struct serial *s, const void *data)
{
	drv_reset(&s->d);
	s->d.ram->next = 0x1000;
	g_assert_true(drv_negotiate(&s->d, FEATURES));
	for (uint16_t q = 0; q < 6; q++)
		drv_set_up_queue(&s->d, q, 16, 1);
	drv_driver_ok(&s->d);
	send_control(s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	send_control(s, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	give(s, CRX, 128);
	expect_control(s, 0, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
	expect_control(s, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, NULL);
	expect_control(s, 0, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	expect_control(s, 1, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
	/* For ports that are not there, and events that do not exist. */
	send_control(s, 30, VIRTIO_CONSOLE_PORT_READY, 1);
	send_control(s, UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1);
	send_control(s, 0, 1000, 1);
	transmit(s, CTX, "abc", 3, true);
	g_assert_cmpuint(drv_status(&s->d) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
}

static void hand_over(struct serial *s)
{
	struct serial old = *s;
	autoptr(fdstore) store = fdstore_new();
	GError *error = NULL;

	for (int i = 0; i < 2; i++)
		chardev_quiesce(old.chardevs[i]);
	g_assert_true(fd_source_offer(old.fds, store, FD_WAY_EXEC, &error));
	serial_plug(s, old.d.ram, store);
	fake_hand_over(old.d.dev, s->d.dev);
	/* The old machine's look-ups go to the old struct. */
	old.d.m->env.opaque = &old;
	for (int i = 0; i < 2; i++)
		chardev_disown(old.chardevs[i]);
	serial_unplug(&old);
	s->fds->inherited = NULL;
	serial_resume(s);
}

/* A peer that does not read: output stays in the ring, crosses half sent, and arrives once. */
static void test_hand_over(struct serial *s, const void *data)
{
	const uint32_t len = 1 << 20;
	g_autofree uint8_t *want = g_malloc(3 * len), *seen = g_malloc(3 * len);
	uint64_t a;
	uint32_t used;

	serial_connect(s, 1);
	expect_control(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	send_control(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	for (uint32_t i = 0; i < 3 * len; i++)
		want[i] = i * 31 + i / 251;
	transmit(s, TX1, want, len, false);
	transmit(s, TX1, want + len, len, false);
	while (g_main_context_iteration(NULL, FALSE))
		;
	g_assert_cmpuint(drv_used(&s->d, TX1)->idx, ==, 0);
	hand_over(s);
	while (g_main_context_iteration(NULL, FALSE))
		;
	g_assert_cmpuint(drv_used(&s->d, TX1)->idx, ==, 0);
	hand_over(s);
	s->d.ram->next = 3 << 20; /* room for the third */
	peer_read(s, 1, seen, len);
	transmit(s, TX1, want + 2 * len, len / 2, false);
	peer_read(s, 1, seen + len, len + len / 2);
	g_assert_cmpmem(seen, 2 * len + len / 2, want, 2 * len + len / 2);
	for (int i = 0; i < 3; i++)
		drv_wait_used(&s->d, TX1, 1, &used);
	/* The guest was told nothing new about its ports. */
	g_assert_cmpuint(drv_used(&s->d, CRX)->idx, ==, s->d.queues[CRX].seen_used);
	/* And input goes on. */
	g_assert_cmpint(write(s->peer[1], "after", 5), ==, 5);
	s->d.ram->next = 0x80000;
	a = give(s, RX1, 64);
	expect_data(s, RX1, a, "after");
}

/* A peer that leaves during the update: the successor tells the guest. */
static void test_peer_leaves(struct serial *s, const void *data)
{
	give(s, RX1, 64);
	serial_connect(s, 1);
	expect_control(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	send_control(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	for (int i = 0; i < 2; i++)
		chardev_quiesce(s->chardevs[i]);
	fake_rest(s->d.dev);
	fd_close(&s->peer[1]);
	hand_over(s);
	expect_control(s, 1, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL);
}

static void test_nonsense(struct serial *s, const void *data)
{
	struct drv *d = &s->d;

	drv_avail(d, CTX)->ring[drv_avail(d, CTX)->idx % 16] = 77;
	drv_avail(d, CTX)->idx++;
	fake_store(d->m, d->notify + CTX * d->notify_multiplier, 2, CTX);
	FAKE_WAIT_FOR(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	/* Chardevs may go on; nothing comes of it. */
	serial_connect(s, 1);
	g_assert_cmpint(write(s->peer[1], "x", 1), ==, 1);
	while (g_main_context_iteration(NULL, FALSE))
		;
	drv_reset(d);
	d->ram->next = 0x1000;
	g_assert_true(drv_negotiate(d, FEATURES));
	g_assert_true(state_desc_lint(virtio_serial_ops.state, NULL));
}

/* A receive buffer without room would be looked at for ever: the device breaks, the loop goes on. */
static void test_no_room(struct serial *s, const void *data)
{
	for (int i = 0; i < 4; i++) {
		const struct drv_sg sg = {drv_alloc(s->d.ram, 8), 8, false};
		uint16_t old = drv_avail(&s->d, RX0)->idx;

		drv_add(&s->d, RX0, &sg, 1, 0);
		drv_kick(&s->d, RX0, old);
	}
	serial_connect(s, 0);
	g_assert_cmpint(write(s->peer[0], "x", 1), ==, 1);
	FAKE_WAIT_FOR(drv_status(&s->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	while (g_main_context_iteration(NULL, FALSE))
		;
}

/* The same on the control queue: a message has no place in four bytes. */
static void test_no_room_for_control(struct serial *s, const void *data)
{
	drv_reset(&s->d);
	s->d.ram->next = 0x1000;
	g_assert_true(drv_negotiate(&s->d, FEATURES));
	for (uint16_t q = 0; q < 6; q++)
		drv_set_up_queue(&s->d, q, 16, 1);
	drv_driver_ok(&s->d);
	give(s, CRX, 4);
	transmit(s, CTX, &(struct virtio_console_control){0, VIRTIO_CONSOLE_DEVICE_READY, 1},
		 sizeof(struct virtio_console_control), false);
	FAKE_WAIT_FOR(drv_status(&s->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* A megabyte in one buffer: others in the main loop have their turns meanwhile. */
static void test_flood(struct serial *s, const void *data)
{
	g_autofree uint8_t *want = g_malloc0(1 << 20);
	unsigned int n_turns = 0;

	transmit(s, TX0, want, 1 << 20, false);
	FAKE_WAIT_FOR((n_turns++, drv_used(&s->d, TX0)->idx) != 0);
	g_assert_cmpuint(n_turns, >=, (1 << 20) / (64 << 10));
}

static void test_refused(struct serial *s, const void *data)
{
	static const struct {
		const char *props, *says;
	} cases[] = {
		{"{}", "chardev"},
		{"{\"chardev\": \"c9\"}", "there is no chardev 'c9'"},
		{"{\"chardev\": \"c1\", \"bus\": \"v7.0\"}", "bus 'v7.0' is not"},
		{"{\"chardev\": \"c1\"}", "c1"},
		{"{\"chardev\": \"c2\", \"nr\": 31}", "there is no chardev"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		json_t *props = json_loads(cases[i].props, 0, NULL);
		g_autoptr(GError) error = NULL;
		struct device *dev = device_new(&virtserialport_ops, NULL, props, &error);

		if (dev)
			g_assert_false(device_realize(dev, g_strdup("p"), &s->d.m->env, &error));
		g_assert_nonnull(error);
		if (!strstr(error->message, cases[i].says))
			g_error("%s: unexpected: %s", cases[i].props, error->message);
		device_free(dev);
		json_decref(props);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(struct serial *, const void *);
	} cases[] = {
		{"console", test_console},
		{"channel", test_channel},
		{"few-buffers", test_few_buffers},
		{"hand-over", test_hand_over},
		{"peer-leaves", test_peer_leaves},
		{"nonsense", test_nonsense},
		{"refused", test_refused},
		{"no-room", test_no_room},
		{"no-room-for-control", test_no_room_for_control},
		{"flood", test_flood},
	};

	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *name = g_strdup_printf("/virtio/console/%s", cases[i].name);

		g_test_add(name, struct serial, NULL, set_up, cases[i].run, tear_down);
	}
	return g_test_run();
}
