// 16550A: registers by table, the FIFOs against a real socket, update in mid-transfer.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/chardev/chardev.h"
#include "device/legacy/uart16550.h"
#include "fake.h"

#define COM1 0x3f8
#define IRQ  4

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

/** struct uart_rig - A port whose other end is a socket */
struct uart_rig {
	struct fake_machine *m;
	struct chardev *chardev;
	struct device *uart;
	char *path;
	int peer;
};

static void rig_connect(struct uart_rig *rig)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	g_strlcpy(addr.sun_path, rig->path, sizeof(addr.sun_path));
	rig->peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	g_assert_cmpint(connect(rig->peer, (void *)&addr, sizeof(addr)), ==, 0);
	g_assert_true(fd_set_nonblock(rig->peer, true));
}

static struct uart_rig uart_rig_new(bool connected)
{
	struct uart_rig rig = {.m = fake_machine_new(), .peer = -1};
	g_autofree char *dir = g_dir_make_tmp("molt-uart-XXXXXX", NULL);
	GError *error = NULL;
	struct chardev_config config = {
		.kind = CHARDEV_SOCKET, .id = (char *)"serial0", .server = true};

	rig.path = g_build_filename(dir, "sock", NULL);
	config.path = rig.path;
	rig.chardev = chardev_new(&config, NULL, &error);
	g_assert_no_error(error);
	rig.uart = fake_realize(rig.m, uart16550_new(COM1, IRQ, rig.chardev), "isa/3f8");
	chardev_resume(rig.chardev);
	rig.uart->ops->resume(rig.uart);
	if (connected) {
		rig_connect(&rig);
		FAKE_WAIT_FOR(g_str_has_prefix(chardev_filename(rig.chardev), "unix:") &&
			      !g_main_context_pending(NULL));
	}
	return rig;
}

static void uart_rig_free(struct uart_rig *rig)
{
	g_autofree char *dir = g_path_get_dirname(rig->path);

	device_free(rig->uart);
	chardev_free(rig->chardev);
	fd_close(&rig->peer);
	g_unlink(rig->path);
	g_rmdir(dir);
	g_free(rig->path);
	fake_machine_free(rig->m);
}

static uint8_t in(struct uart_rig *rig, uint32_t reg)
{
	return fake_in(rig->m, COM1 + reg, 1);
}

static void out(struct uart_rig *rig, uint32_t reg, uint8_t value)
{
	fake_out(rig->m, COM1 + reg, 1, value);
}

static void say(struct uart_rig *rig, const char *text, size_t len)
{
	g_assert_cmpint(write(rig->peer, text, len), ==, len);
}

/* ---- without a peer: registers ---- */

struct step {
	bool write;
	uint8_t reg, value; /* written, or expected */
	bool irq;	    /* line after the access */
};

#define W(reg, value, irq)            \
	{                             \
		true, reg, value, irq \
	}
#define R(reg, value, irq)             \
	{                              \
		false, reg, value, irq \
	}

static void run_steps(struct uart_rig *rig, const struct step *steps, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (steps[i].write)
			out(rig, steps[i].reg, steps[i].value);
		else if (in(rig, steps[i].reg) != steps[i].value)
			g_error("step %zu: register %u is not 0x%02x", i, steps[i].reg,
				steps[i].value);
		if (rig->m->level[IRQ] != steps[i].irq)
			g_error("step %zu: the line is not %d", i, steps[i].irq);
	}
}

static void test_registers(void)
{
	static const struct step steps[] = {
		/* power-on */
		R(IER, 0, 0),
		R(IIR, 0x01, 0),
		R(LCR, 0, 0),
		R(MCR, 0, 0),
		R(LSR, 0x60, 0),
		R(MSR, 0xb0, 0),
		R(SCR, 0, 0),
		R(DATA, 0, 0),
		/* reserved bits */
		W(IER, 0xf0, 0),
		R(IER, 0, 0),
		W(MCR, 0xe0, 0),
		R(MCR, 0, 0),
		W(SCR, 0xa5, 0),
		R(SCR, 0xa5, 0),
		W(LSR, 0, 0),
		R(LSR, 0x60, 0),
		W(MSR, 0, 0),
		R(MSR, 0xb0, 0),
		/* divisor latch */
		W(LCR, 0x83, 0),
		R(DATA, 12, 0),
		R(IER, 0, 0),
		W(DATA, 0x34, 0),
		W(IER, 0x12, 0),
		R(DATA, 0x34, 0),
		R(IER, 0x12, 0),
		W(LCR, 0x03, 0),
		R(IER, 0, 0),
		/* transmitter-empty: each enable raises it, reading IIR or writing clears it */
		W(IER, 0x02, 1),
		R(IIR, 0x02, 0),
		R(IIR, 0x01, 0),
		W(IER, 0, 0),
		W(IER, 0x02, 1),
		R(LSR, 0x60, 1),
		W(DATA, 'x', 1),
		R(IIR, 0x02, 0),
		W(IER, 0, 0),
		/* FIFO bits: only as much as a 16550A */
		W(FCR, 0x01, 0),
		R(IIR, 0xc1, 0),
		W(FCR, 0x21, 0),
		R(IIR, 0xc1, 0),
		W(FCR, 0xe0, 0),
		R(IIR, 0x01, 0),
	};
	struct uart_rig rig = uart_rig_new(false);

	run_steps(&rig, steps, G_N_ELEMENTS(steps));
	uart_rig_free(&rig);
}

static void test_loopback(void)
{
	static const struct step steps[] = {
		/* modem lines: DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD, with deltas */
		W(MCR, 0x10, 0),
		R(MSR, 0x0b, 0),
		R(MSR, 0x00, 0),
		W(MCR, 0x1a, 0),
		R(MSR, 0x99, 0),
		W(MCR, 0x15, 0),
		R(MSR, 0x6b, 0),
		W(MCR, 0x11, 0),
		R(MSR, 0x24, 0),
		W(IER, 0x08, 0),
		W(MCR, 0x13, 1),
		R(IIR, 0x00, 1),
		R(MSR, 0x31, 0),
		W(IER, 0, 0),
		/* data: one byte deep, then an overrun that LSR reports once */
		W(IER, 0x05, 0),
		W(DATA, 'a', 1),
		R(IIR, 0x04, 1),
		R(LSR, 0x61, 1),
		W(DATA, 'b', 1),
		R(IIR, 0x06, 1),
		R(LSR, 0x63, 1),
		R(LSR, 0x61, 1),
		R(DATA, 'a', 0),
		R(LSR, 0x60, 0),
		/* FIFO: trigger level 4, time-out below it, data above */
		W(FCR, 0x41, 0),
		W(DATA, '1', 1),
		R(IIR, 0xcc, 1),
		W(DATA, '2', 1),
		W(DATA, '3', 1),
		R(IIR, 0xcc, 1),
		W(DATA, '4', 1),
		R(IIR, 0xc4, 1),
		R(DATA, '1', 1),
		R(IIR, 0xcc, 1),
		R(DATA, '2', 1),
		R(DATA, '3', 1),
		R(DATA, '4', 0),
		R(IIR, 0xc1, 0),
		/* clearing the receiver */
		W(DATA, '5', 1),
		W(FCR, 0x43, 0),
		R(LSR, 0x60, 0),
		W(DATA, '6', 1),
		W(FCR, 0x00, 0),
		R(LSR, 0x60, 0),
	};
	struct uart_rig rig = uart_rig_new(false);

	run_steps(&rig, steps, G_N_ELEMENTS(steps));
	uart_rig_free(&rig);
}

/* A handler that writes without reading IIR gets an edge per byte. */
static void test_edges(void)
{
	struct uart_rig rig = uart_rig_new(false);

	out(&rig, IER, 0x02);
	rig.m->raised[IRQ] = 0;
	for (int i = 0; i < 3; i++)
		out(&rig, DATA, 'x');
	g_assert_cmpuint(rig.m->raised[IRQ], ==, 3);
	rig.uart->ops->reset(rig.uart);
	g_assert_false(rig.m->level[IRQ]);
	uart_rig_free(&rig);
}

/* ---- with a peer ---- */

static void test_receive(void)
{
	struct uart_rig rig = uart_rig_new(true);
	char got[41] = "";

	out(&rig, FCR, 0x81);
	out(&rig, IER, 0x01);
	say(&rig, "abc", 3);
	FAKE_WAIT_FOR(rig.m->level[IRQ]);
	g_assert_cmphex(in(&rig, IIR), ==, 0xcc);
	for (uint32_t i = 0; i < 3; i++)
		g_assert_cmphex(in(&rig, DATA), ==, 'a' + i);
	g_assert_false(rig.m->level[IRQ]);
	/* More than the FIFO: the rest waits in the socket, nothing is lost or overrun. */
	say(&rig, "0123456789abcdefghijABCDEFGHIJ!@#$%^&*()", 40);
	for (uint32_t i = 0; i < 40; i++) {
		FAKE_WAIT_FOR(rig.m->level[IRQ]);
		g_assert_cmphex(in(&rig, LSR), ==, 0x61);
		got[i] = in(&rig, DATA);
	}
	g_assert_cmpstr(got, ==, "0123456789abcdefghijABCDEFGHIJ!@#$%^&*()");
	uart_rig_free(&rig);
}

/* Take all that is there: a socket becomes writable only when most of it has been read. */
static void drain_peer(struct uart_rig *rig, GByteArray *got)
{
	uint8_t buf[4096];
	ssize_t n;

	while ((n = read(rig->peer, buf, sizeof(buf))) > 0)
		g_byte_array_append(got, buf, n);
}

/* Write as a driver does, sixteen bytes per THRE, until the peer's socket is full. */
static uint32_t fill(struct uart_rig *rig)
{
	uint32_t n = 0;

	while (in(rig, LSR) & 0x20)
		for (uint32_t i = 0; i < 16; i++)
			out(rig, DATA, n++);
	return n;
}

static void assert_sequence(const GByteArray *got, uint32_t n)
{
	g_assert_cmpuint(got->len, ==, n);
	for (uint32_t i = 0; i < n; i++)
		g_assert_cmphex(got->data[i], ==, (uint8_t)i);
}

static void test_slow_peer(void)
{
	struct uart_rig rig = uart_rig_new(true);
	g_autoptr(GByteArray) got = g_byte_array_new();
	uint32_t n;

	out(&rig, FCR, 0x01);
	n = fill(&rig);
	g_assert_cmphex(in(&rig, LSR), ==, 0x00);
	out(&rig, IER, 0x02);
	g_assert_false(rig.m->level[IRQ]);
	drain_peer(&rig, got);
	FAKE_WAIT_FOR(rig.m->level[IRQ]);
	g_assert_cmphex(in(&rig, IIR), ==, 0xc2);
	g_assert_cmphex(in(&rig, LSR), ==, 0x60);
	drain_peer(&rig, got);
	assert_sequence(got, n);
	uart_rig_free(&rig);
}

/* The peer hangs up with bytes waiting for it: the guest is not left without THRE. */
static void test_peer_gone(void)
{
	struct uart_rig rig = uart_rig_new(true);

	out(&rig, FCR, 0x01);
	fill(&rig);
	g_assert_cmphex(in(&rig, LSR), ==, 0x00);
	fd_close(&rig.peer);
	FAKE_WAIT_FOR(in(&rig, LSR) == 0x60);
	uart_rig_free(&rig);
}

/* An update with both FIFOs in use: the successor goes on with every byte and the same line. */
static void test_hand_over(void)
{
	struct uart_rig old = uart_rig_new(true), new = uart_rig_new(true);
	g_autoptr(GByteArray) sent = g_byte_array_new();
	uint32_t n;

	out(&old, LCR, 0x1b);
	out(&old, FCR, 0xc1);
	out(&old, IER, 0x01);
	say(&old, "in", 2);
	FAKE_WAIT_FOR(old.m->level[IRQ]);
	out(&old, IER, 0x03);
	n = fill(&old);
	fake_rest(new.uart);
	fake_hand_over(old.uart, new.uart);
	/* The kernel's controllers carry the level: it is not raised a second time. */
	g_assert_cmpuint(new.m->n_set_irq[IRQ], ==, 0);
	g_assert_cmphex(in(&new, LSR), ==, 0x01);
	g_assert_cmphex(in(&new, IIR), ==, 0xcc);
	new.uart->ops->resume(new.uart);
	g_assert_cmphex(in(&new, LSR), ==, 0x61);
	g_assert_cmphex(in(&new, DATA), ==, 'i');
	g_assert_cmphex(in(&new, DATA), ==, 'n');
	g_assert_cmphex(in(&new, IIR), ==, 0xc2);
	g_assert_cmpuint(new.m->raised[IRQ], ==, 0);
	g_assert_cmpuint(new.m->n_set_irq[IRQ], ==, 1);
	g_assert_cmphex(in(&new, LCR), ==, 0x1b);
	drain_peer(&old, sent);
	g_assert_cmpuint(sent->len, <, n);
	drain_peer(&new, sent);
	assert_sequence(sent, n);
	uart_rig_free(&old);
	uart_rig_free(&new);
}

/* Quiesced, nothing moves in either direction; resume looks for both. */
static void test_quiesce(void)
{
	struct uart_rig rig = uart_rig_new(true);

	out(&rig, IER, 0x01);
	fake_rest(rig.uart);
	say(&rig, "x", 1);
	for (int i = 0; i < 10; i++)
		g_main_context_iteration(NULL, FALSE);
	g_assert_false(rig.m->level[IRQ]);
	rig.uart->ops->resume(rig.uart);
	FAKE_WAIT_FOR(rig.m->level[IRQ]);
	g_assert_cmphex(in(&rig, DATA), ==, 'x');
	uart_rig_free(&rig);
}

static void test_no_chardev(void)
{
	autoptr(fake_machine) m = fake_machine_new();
	struct device *uart = fake_start(m, uart16550_new(COM1, IRQ, NULL), "isa/3f8");

	fake_out(m, COM1 + DATA, 1, 'x');
	g_assert_cmphex(fake_in(m, COM1 + LSR, 1), ==, 0x60);
	device_free(uart);
}

static void test_bad_state(void)
{
	struct uart_rig rig = uart_rig_new(false);
	const struct state_desc *desc = rig.uart->ops->state;
	uint8_t *state = device_state(rig.uart);

	g_assert_true(desc->check(state, NULL));
	state[0] = 0x10; /* IER, a reserved bit */
	g_assert_false(desc->check(state, NULL));
	state[0] = 0;
	state[12] = 2; /* n_rx, FIFOs off */
	g_assert_false(desc->check(state, NULL));
	state[12] = 0;
	uart_rig_free(&rig);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/uart/registers", test_registers);
	g_test_add_func("/uart/loopback", test_loopback);
	g_test_add_func("/uart/edges", test_edges);
	g_test_add_func("/uart/receive", test_receive);
	g_test_add_func("/uart/slow-peer", test_slow_peer);
	g_test_add_func("/uart/peer-gone", test_peer_gone);
	g_test_add_func("/uart/hand-over", test_hand_over);
	g_test_add_func("/uart/quiesce", test_quiesce);
	g_test_add_func("/uart/no-chardev", test_no_chardev);
	g_test_add_func("/uart/bad-state", test_bad_state);
	return g_test_run();
}
