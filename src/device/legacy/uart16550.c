// The 16550A serial port.
// SPDX-License-Identifier: Apache-2.0
#include "device/legacy/uart16550.h"

#include <string.h>

#include "backend/chardev/chardev.h"
#include "base/error.h"

/**
 * DOC: Theory of operation
 *
 * Registers as in the National PC16550D and TI TL16C550C datasheets.  There is no line speed: a
 * byte is sent when the chardev takes it, and received as soon as there is room.
 *
 * Sending: a written byte goes to the chardev at once.  What the chardev does not take stays in the
 * FIFO and THRE stays clear until it has, so a guest that waits for THRE loses nothing however slow
 * the peer is.
 *
 * Receiving: the chardev delivers what there is in one piece, so bytes that stay below the trigger
 * level are already late: the time-out interrupt stands for them without a timer.
 *
 * The interrupt line is a function of the state and is not saved: after a takeover the kernel's
 * interrupt controllers hold what was raised, and only the next change is reported to them.
 */

#define UART_FIFO 16

/* Offsets; the first two are the divisor latch while LCR_DLAB is set. */
enum { UART_DATA, UART_IER, UART_IIR_FCR, UART_LCR, UART_MCR, UART_LSR, UART_MSR, UART_SCR };

#define IER_RDI	     0x01 /* received data */
#define IER_THRI     0x02 /* transmitter empty */
#define IER_RLSI     0x04 /* line status */
#define IER_MSI	     0x08 /* modem status */
#define IIR_NONE     0x01
#define IIR_MSI	     0x00
#define IIR_THRI     0x02
#define IIR_RDI	     0x04
#define IIR_RLSI     0x06
#define IIR_TIMEOUT  0x0c
#define IIR_FIFO     0xc0
#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04
#define FCR_STORED   0xc9
#define LCR_DLAB     0x80
#define MCR_DTR	     0x01
#define MCR_RTS	     0x02
#define MCR_OUT1     0x04
#define MCR_OUT2     0x08
#define MCR_LOOP     0x10
#define MCR_WRITABLE 0x1f
#define LSR_DR	     0x01
#define LSR_OE	     0x02
#define LSR_BI	     0x10
#define LSR_ERRORS   (LSR_OE | LSR_BI)
#define LSR_THRE     0x20
#define LSR_TEMT     0x40
#define MSR_DELTAS   0x0f
#define MSR_CTS	     0x10
#define MSR_DSR	     0x20
#define MSR_RI	     0x40
#define MSR_DCD	     0x80

#define DIVISOR_9600 12

/**
 * struct uart16550_state - What survives
 * @lsr_errors:	Line status error bits that were not read yet
 * @msr:	Modem status, lines and deltas
 * @thr_empty:	The transmitter-empty interrupt is pending
 * @rx, @tx:	FIFOs, oldest byte first; one byte deep while FIFOs are off
 */
struct uart16550_state {
	uint8_t ier, fcr, lcr, mcr, scr, lsr_errors, msr;
	bool thr_empty;
	uint16_t divisor;
	uint8_t pad0[2];
	uint32_t n_rx;
	uint32_t n_tx;
	uint8_t rx[UART_FIFO];
	uint8_t tx[UART_FIFO];
};

/**
 * struct uart16550 - Run-time part
 * @raised:	What the interrupt line was last set to
 * @rx_refused:	The chardev holds bytes back: tell it when there is room
 * @quiesced:	Neither take from the chardev nor give to it
 */
struct uart16550 {
	struct device dev;
	struct uart16550_state state;
	uint16_t port;
	uint32_t gsi;
	struct chardev *chardev;
	struct chardev_link *link;
	struct io_region region;
	bool raised;
	bool rx_refused;
	bool quiesced;
};

static const struct state_field uart16550_fields[] = {
	FIELD(struct uart16550_state, ier, 1),
	FIELD(struct uart16550_state, fcr, 2),
	FIELD(struct uart16550_state, lcr, 3),
	FIELD(struct uart16550_state, mcr, 4),
	FIELD(struct uart16550_state, scr, 5),
	FIELD(struct uart16550_state, lsr_errors, 6),
	FIELD(struct uart16550_state, msr, 7),
	FIELD(struct uart16550_state, thr_empty, 8),
	FIELD(struct uart16550_state, divisor, 9),
	FIELD_PAD(struct uart16550_state, pad0),
	FIELD_LIST(struct uart16550_state, rx, n_rx, 10),
	FIELD_LIST(struct uart16550_state, tx, n_tx, 11),
};

static uint32_t fifo_depth(const struct uart16550_state *s)
{
	return s->fcr & FCR_ENABLE ? UART_FIFO : 1;
}

static bool uart16550_check(const void *obj, GError **error)
{
	const struct uart16550_state *s = obj;

	if (s->ier & ~0x0f || s->fcr & ~FCR_STORED || s->mcr & ~MCR_WRITABLE ||
	    s->lsr_errors & ~LSR_ERRORS)
		return error_set_generic(error, "reserved register bits are set");
	if (s->n_rx > fifo_depth(s) || s->n_tx > fifo_depth(s))
		return error_set_generic(error, "%u and %u bytes in FIFOs of %u", s->n_rx, s->n_tx,
					 fifo_depth(s));
	return true;
}

static const struct state_desc uart16550_desc = {
	.name = "uart16550",
	.version = 1,
	.min_reader = 1,
	.check = uart16550_check,
	STATE_DESC(struct uart16550_state, uart16550_fields),
};

/* ---- interrupts ---- */

static uint32_t rx_trigger(const struct uart16550_state *s)
{
	static const uint8_t levels[4] = {1, 4, 8, 14};

	return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* The pending interrupt of the highest priority (PC16550D, table III). */
static uint8_t interrupt_id(const struct uart16550_state *s)
{
	if (s->ier & IER_RLSI && s->lsr_errors)
		return IIR_RLSI;
	if (s->ier & IER_RDI && s->n_rx > 0)
		return s->n_rx >= rx_trigger(s) ? IIR_RDI : IIR_TIMEOUT;
	if (s->ier & IER_THRI && s->thr_empty)
		return IIR_THRI;
	if (s->ier & IER_MSI && s->msr & MSR_DELTAS)
		return IIR_MSI;
	return IIR_NONE;
}

static void update_irq(struct uart16550 *uart)
{
	struct accel *accel = uart->dev.env->accel;
	bool level = interrupt_id(&uart->state) != IIR_NONE;

	if (level != uart->raised)
		accel->ops->set_irq(accel, uart->gsi, level);
	uart->raised = level;
}

/* ---- data ---- */

static void drop_front(uint8_t *fifo, uint32_t *n, uint32_t count)
{
	*n -= count;
	memmove(fifo, fifo + count, *n);
}

/* Give the chardev what it takes; when the last byte is gone, the transmitter is empty again. */
static void transmit(struct uart16550 *uart)
{
	struct uart16550_state *s = &uart->state;
	size_t taken;

	if (s->n_tx == 0 || uart->quiesced)
		return;
	taken = uart->link ? chardev_write(uart->link, s->tx, s->n_tx) : s->n_tx;
	drop_front(s->tx, &s->n_tx, taken);
	if (s->n_tx == 0)
		s->thr_empty = true;
	update_irq(uart);
}

static void receive_byte(struct uart16550_state *s, uint8_t byte)
{
	if (s->n_rx < fifo_depth(s))
		s->rx[s->n_rx++] = byte;
	else
		s->lsr_errors |= LSR_OE;
}

static void data_write(struct uart16550 *uart, uint8_t byte)
{
	struct uart16550_state *s = &uart->state;

	/* Line down and up again: an edge for every byte, as the handler may not read IIR. */
	s->thr_empty = false;
	update_irq(uart);
	if (s->mcr & MCR_LOOP) {
		receive_byte(s, byte);
		s->thr_empty = true;
		update_irq(uart);
		return;
	}
	if (s->n_tx < fifo_depth(s))
		s->tx[s->n_tx++] = byte;
	transmit(uart);
}

/* There may be room in the receiver: let the chardev go on if it was held. */
static void receiver_freed(struct uart16550 *uart)
{
	if (!uart->rx_refused || uart->quiesced || !uart->link)
		return;
	uart->rx_refused = false;
	chardev_accept_input(uart->link);
}

static uint8_t data_read(struct uart16550 *uart)
{
	struct uart16550_state *s = &uart->state;
	uint8_t byte = s->rx[0];

	if (s->n_rx == 0)
		return 0;
	drop_front(s->rx, &s->n_rx, 1);
	update_irq(uart);
	receiver_freed(uart);
	return byte;
}

/* ---- the other registers ---- */

static void ier_write(struct uart16550 *uart, uint8_t value)
{
	struct uart16550_state *s = &uart->state;

	/* Enabling the interrupt while the transmitter is empty raises it, each time. */
	if (~s->ier & value & IER_THRI)
		s->thr_empty = s->n_tx == 0;
	s->ier = value & 0x0f;
	update_irq(uart);
}

static void fcr_write(struct uart16550 *uart, uint8_t value)
{
	struct uart16550_state *s = &uart->state;

	if ((s->fcr ^ value) & FCR_ENABLE)
		value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
	else if (!(value & FCR_ENABLE))
		value = 0;
	if (value & FCR_CLEAR_RX)
		s->n_rx = 0;
	if (value & FCR_CLEAR_TX && s->n_tx > 0) {
		s->n_tx = 0;
		s->thr_empty = true;
	}
	s->fcr = value & FCR_ENABLE ? value & FCR_STORED : 0;
	update_irq(uart);
	receiver_freed(uart);
}

static uint8_t modem_lines(uint8_t mcr)
{
	uint8_t lines = 0;

	if (!(mcr & MCR_LOOP))
		return MSR_DCD | MSR_DSR | MSR_CTS;
	lines |= mcr & MCR_RTS ? MSR_CTS : 0;
	lines |= mcr & MCR_DTR ? MSR_DSR : 0;
	lines |= mcr & MCR_OUT1 ? MSR_RI : 0;
	lines |= mcr & MCR_OUT2 ? MSR_DCD : 0;
	return lines;
}

static void mcr_write(struct uart16550 *uart, uint8_t value)
{
	struct uart16550_state *s = &uart->state;
	uint8_t before = s->msr & 0xf0, after;

	s->mcr = value & MCR_WRITABLE;
	after = modem_lines(s->mcr);
	/* Delta bits are four below their lines; RI counts only when it goes away. */
	s->msr = after | (s->msr & MSR_DELTAS) | ((before ^ after) & ~(after & MSR_RI) & 0xf0) >> 4;
	update_irq(uart);
	receiver_freed(uart);
}

static uint8_t iir_read(struct uart16550 *uart)
{
	struct uart16550_state *s = &uart->state;
	uint8_t id = interrupt_id(s);

	if (id == IIR_THRI) {
		s->thr_empty = false;
		update_irq(uart);
	}
	return id | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t lsr_read(struct uart16550 *uart)
{
	struct uart16550_state *s = &uart->state;
	uint8_t value = s->lsr_errors;

	value |= s->n_rx > 0 ? LSR_DR : 0;
	value |= s->n_tx == 0 ? LSR_THRE | LSR_TEMT : 0;
	s->lsr_errors = 0;
	update_irq(uart);
	return value;
}

static uint8_t msr_read(struct uart16550 *uart)
{
	uint8_t value = uart->state.msr;

	uart->state.msr &= ~MSR_DELTAS;
	update_irq(uart);
	return value;
}

static uint64_t uart16550_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	struct uart16550 *uart = opaque;
	struct uart16550_state *s = &uart->state;

	switch (offset_bytes) {
	case UART_DATA:
		return s->lcr & LCR_DLAB ? s->divisor & 0xff : data_read(uart);
	case UART_IER:
		return s->lcr & LCR_DLAB ? s->divisor >> 8 : s->ier;
	case UART_IIR_FCR:
		return iir_read(uart);
	case UART_LCR:
		return s->lcr;
	case UART_MCR:
		return s->mcr;
	case UART_LSR:
		return lsr_read(uart);
	case UART_MSR:
		return msr_read(uart);
	default:
		return s->scr;
	}
}

static void uart16550_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct uart16550 *uart = opaque;
	struct uart16550_state *s = &uart->state;

	switch (offset_bytes) {
	case UART_DATA:
		if (s->lcr & LCR_DLAB)
			s->divisor = (s->divisor & 0xff00) | value;
		else
			data_write(uart, value);
		break;
	case UART_IER:
		if (s->lcr & LCR_DLAB)
			s->divisor = (s->divisor & 0x00ff) | value << 8;
		else
			ier_write(uart, value);
		break;
	case UART_IIR_FCR:
		fcr_write(uart, value);
		break;
	case UART_LCR:
		s->lcr = value;
		break;
	case UART_MCR:
		mcr_write(uart, value);
		break;
	case UART_SCR:
		s->scr = value;
		break;
	}
}

static const struct io_ops uart16550_io_ops = {
	.read = uart16550_read,
	.write = uart16550_write,
	.min_size = 1,
	.max_size = 1,
};

/* ---- chardev; main thread ---- */

static size_t uart16550_can_receive(void *opaque)
{
	struct uart16550 *uart = opaque;
	size_t room;

	g_mutex_lock(&uart->dev.lock);
	room = fifo_depth(&uart->state) - uart->state.n_rx;
	if (uart->quiesced || uart->state.mcr & MCR_LOOP)
		room = 0;
	uart->rx_refused = room == 0;
	g_mutex_unlock(&uart->dev.lock);
	return room;
}

static void uart16550_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct uart16550 *uart = opaque;

	g_mutex_lock(&uart->dev.lock);
	for (size_t i = 0; i < len; i++)
		receive_byte(&uart->state, buf[i]);
	uart->rx_refused = uart->state.n_rx == fifo_depth(&uart->state);
	update_irq(uart);
	g_mutex_unlock(&uart->dev.lock);
}

static void uart16550_writable(void *opaque)
{
	struct uart16550 *uart = opaque;

	g_mutex_lock(&uart->dev.lock);
	transmit(uart);
	g_mutex_unlock(&uart->dev.lock);
}

/* A break is a zero byte with BI (PC16550D, section 8.6.4); it may overrun a full FIFO. */
static void uart16550_break(struct uart16550 *uart)
{
	g_mutex_lock(&uart->dev.lock);
	if (!(uart->state.mcr & MCR_LOOP)) {
		receive_byte(&uart->state, 0);
		uart->state.lsr_errors |= LSR_BI;
		update_irq(uart);
	}
	g_mutex_unlock(&uart->dev.lock);
}

/* A peer that went away takes everything: bytes that waited for it must not block the guest. */
static void uart16550_event(void *opaque, enum chardev_event event)
{
	if (event == CHARDEV_OPENED || event == CHARDEV_CLOSED)
		uart16550_writable(opaque);
	else if (event == CHARDEV_BREAK)
		uart16550_break(opaque);
}

static const struct chardev_frontend uart16550_frontend = {
	.can_receive = uart16550_can_receive,
	.receive = uart16550_receive,
	.event = uart16550_event,
	.writable = uart16550_writable,
};

/* ---- life ---- */

static bool uart16550_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct uart16550 *uart = (struct uart16550 *)dev;

	uart->quiesced = true;
	if (!device_map_pio(dev, &uart->region, "uart16550", uart->port, 8, &uart16550_io_ops,
			    error))
		return false;
	if (!uart->chardev)
		return true;
	uart->link = chardev_attach(uart->chardev, &uart16550_frontend, uart, error);
	return uart->link != NULL;
}

static void uart16550_reset(struct device *dev)
{
	struct uart16550 *uart = (struct uart16550 *)dev;

	g_mutex_lock(&dev->lock);
	uart->state = (struct uart16550_state){
		.msr = modem_lines(0),
		.thr_empty = true,
		.divisor = DIVISOR_9600,
	};
	update_irq(uart);
	g_mutex_unlock(&dev->lock);
}

static void uart16550_quiesce(struct device *dev)
{
	struct uart16550 *uart = (struct uart16550 *)dev;

	g_mutex_lock(&dev->lock);
	uart->quiesced = true;
	g_mutex_unlock(&dev->lock);
}

static void uart16550_resume(struct device *dev)
{
	struct uart16550 *uart = (struct uart16550 *)dev;

	g_mutex_lock(&dev->lock);
	uart->quiesced = false;
	transmit(uart);
	g_mutex_unlock(&dev->lock);
	if (uart->link)
		chardev_accept_input(uart->link);
}

static bool uart16550_apply(struct device *dev, GError **error)
{
	struct uart16550 *uart = (struct uart16550 *)dev;

	uart->raised = interrupt_id(&uart->state) != IIR_NONE;
	return true;
}

static void uart16550_unrealize(struct device *dev)
{
	struct uart16550 *uart = (struct uart16550 *)dev;

	device_unmap_pio(dev, &uart->region);
	if (uart->link)
		chardev_detach(uart->link);
	uart->link = NULL;
}

static const struct device_ops uart16550_ops = {
	.name = "uart16550",
	.size = sizeof(struct uart16550),
	.state = &uart16550_desc,
	.state_offset = offsetof(struct uart16550, state),
	.realize = uart16550_realize,
	.reset = uart16550_reset,
	.quiesce = uart16550_quiesce,
	.resume = uart16550_resume,
	.apply = uart16550_apply,
	.unrealize = uart16550_unrealize,
};

struct device *uart16550_new(uint16_t port, uint32_t gsi, struct chardev *chardev)
{
	struct device *dev = device_new(&uart16550_ops, NULL, NULL, NULL);
	struct uart16550 *uart = (struct uart16550 *)dev;

	uart->port = port;
	uart->gsi = gsi;
	uart->chardev = chardev;
	return dev;
}
