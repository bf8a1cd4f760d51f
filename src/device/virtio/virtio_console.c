// The virtio serial bus (virtio 1.2 section 5.3): queues, control messages, data.
// SPDX-License-Identifier: Apache-2.0
#include "device/virtio/virtio_console_priv.h"

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <string.h>

#include "base/error.h"

/**
 * DOC: Theory of operation
 *
 * One PCI function carries up to 31 ports, each a device of its own with a chardev.  Queues 0 and 1
 * are port 0's receive and transmit queue, 2 and 3 the control queues, then two per further port.
 * All are handled in the main thread, where chardevs live, so nothing is ever in flight.
 *
 * Towards the guest.  A chardev asks how much a port takes: the size of its next receive buffer.
 * Output of the guest that a chardev does not take stays in the transmit queue, with the number of
 * bytes that were taken (@tx_sent), until the chardev says that it is writable.
 *
 * What a guest can repeat without end has bounds per turn of the main loop, in buffers and in bytes:
 * one buffer may be as large as the guest's memory many times over.  What is left has the next turn,
 * after everybody else's.  A receive buffer without room is nonsense and breaks the device: it would
 * have to be looked at again and again.
 *
 * Control messages to the guest (a port is there, is a console, has a name, is open) are bits per
 * port (@announce), sent when there are buffers on the control queue.  Bits do not pile up and
 * cross an update as they are.  After an update the bus compares what the guest was told of each
 * peer (@host_open) with what is so.
 */

#define CLASS_SERIAL  0x078000
#define QUEUE_SIZE    128
#define N_VECTORS     2
#define CONTROL_RX    2
#define CONTROL_TX    3
#define BUFFERS_MAX   128	  /* of one queue per turn of the main loop */
#define BYTES_MAX     (64U << 10) /* of one port's output per turn */
#define CONTROL_BYTES sizeof(struct virtio_console_control)
#define CONFIG_BYTES  offsetof(struct virtio_console_config, emerg_wr)
#define NAME_BYTES    64

#define ANNOUNCE_ADD	 0x01
#define ANNOUNCE_CONSOLE 0x02
#define ANNOUNCE_NAME	 0x04
#define ANNOUNCE_OPEN	 0x08
#define ANNOUNCE_ALL	 0x0f

/**
 * struct virtio_serial_port_state - What survives of a port
 * @guest_open:	A program in the guest has it open
 * @host_open:	What the guest was told of the host's side
 * @announce:	Control messages to be sent
 * @tx_sent:	Bytes of the next transmit buffer that the chardev has already taken
 */
struct virtio_serial_port_state {
	bool guest_open;
	bool host_open;
	uint8_t announce;
	uint8_t pad0[1];
	uint32_t tx_sent;
};

/** struct virtio_serial_state - What survives; @guest_ready: the driver takes control messages */
struct virtio_serial_state {
	struct virtio_pci_state common;
	bool guest_ready;
	uint8_t pad0[3];
	uint32_t n_ports;
	struct virtio_serial_port_state ports[VIRTIO_SERIAL_PORTS_MAX];
};

static const struct state_field port_fields[] = {
	FIELD(struct virtio_serial_port_state, guest_open, 1),
	FIELD(struct virtio_serial_port_state, host_open, 2),
	FIELD(struct virtio_serial_port_state, announce, 3),
	FIELD_PAD(struct virtio_serial_port_state, pad0),
	FIELD(struct virtio_serial_port_state, tx_sent, 4),
};

static bool port_check(const void *obj, GError **error)
{
	const struct virtio_serial_port_state *s = obj;

	if (s->announce & ~ANNOUNCE_ALL)
		return error_set_generic(error, "announce: 0x%02x has unknown bits", s->announce);
	return true;
}

static const struct state_desc port_desc = {
	.name = "virtio-serial-port",
	.version = 1,
	.min_reader = 1,
	.check = port_check,
	STATE_DESC(struct virtio_serial_port_state, port_fields),
};

static const struct state_field virtio_serial_fields[] = {
	FIELD_STRUCT(struct virtio_serial_state, common, 1, &virtio_pci_desc),
	FIELD(struct virtio_serial_state, guest_ready, 2),
	FIELD_PAD(struct virtio_serial_state, pad0),
	FIELD_STRUCT_LIST(struct virtio_serial_state, ports, n_ports, 3, &port_desc),
};

static const struct state_desc virtio_serial_desc = {
	.name = "virtio-serial",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct virtio_serial_state, virtio_serial_fields),
};

/** struct virtio_serial_props - -device virtio-serial-pci,... */
struct virtio_serial_props {
	struct virtio_props common;
	uint32_t max_ports;
};

/** struct virtio_serial - The bus device; @ports are not owned, NULL where there is none */
struct virtio_serial {
	struct virtio_device vdev;
	struct virtio_serial_props props;
	struct virtio_serial_state state;
	struct virtio_port *ports[VIRTIO_SERIAL_PORTS_MAX];
	struct iovec iov[VIRTIO_SERIAL_IOV_MAX];
};

static const struct prop serial_props[] = {
	{.name = "max_ports",
	 .type = PROP_U32,
	 .offset = offsetof(struct virtio_serial_props, max_ports),
	 .def = "31",
	 .min = 1,
	 .max = VIRTIO_SERIAL_PORTS_MAX,
	 .help = "ports the bus has room for"},
	VIRTIO_PROPS(struct virtio_serial_props, common, "off"),
	{0},
};

static uint32_t rx_queue(uint32_t nr)
{
	return nr == 0 ? 0 : 2 + 2 * nr;
}

static uint32_t queue_port(uint32_t q)
{
	return q < 2 ? 0 : (q - 2) / 2;
}

static struct virtqueue_chain serial_chain(struct virtio_serial *serial)
{
	return (struct virtqueue_chain){.iov = serial->iov, .iov_max = VIRTIO_SERIAL_IOV_MAX};
}

/* ---- control messages to the guest ---- */

/* Return: false if there is no buffer for it. */
static bool control_send(struct virtio_serial *serial, uint32_t nr, uint16_t event, uint16_t value,
			 const char *text)
{
	struct virtqueue_chain chain = serial_chain(serial);
	struct {
		struct virtio_console_control head;
		char text[NAME_BYTES];
	} message = {.head = {.id = nr, .event = event, .value = value}};
	size_t text_len = text ? strlen(text) : 0;
	size_t len;

	if (!virtio_pop(&serial->vdev, CONTROL_RX, &chain))
		return false;
	if (chain.in_bytes < CONTROL_BYTES) {
		virtio_unpop(&serial->vdev, CONTROL_RX);
		virtio_break(&serial->vdev, CONTROL_RX, "a buffer has no room for a message");
		return false;
	}
	memcpy(message.text, text ? text : "", text_len);
	len = iov_write(chain.iov + chain.n_out, chain.n_in, &message, CONTROL_BYTES + text_len);
	virtio_push(&serial->vdev, CONTROL_RX, chain.head, len);
	return true;
}

static bool port_host_open(const struct virtio_port *port)
{
	/* A console has somebody to talk to, or does not care. */
	return port->console || chardev_link_connected(port->link);
}

/* Return: false if there was no buffer for one of them. */
static bool port_announce(struct virtio_serial *serial, uint32_t nr)
{
	struct virtio_serial_port_state *s = &serial->state.ports[nr];
	const struct virtio_port *port = serial->ports[nr];
	static const struct {
		uint8_t bit;
		uint16_t event;
	} messages[] = {
		{ANNOUNCE_ADD, VIRTIO_CONSOLE_PORT_ADD},
		{ANNOUNCE_CONSOLE, VIRTIO_CONSOLE_CONSOLE_PORT},
		{ANNOUNCE_NAME, VIRTIO_CONSOLE_PORT_NAME},
		{ANNOUNCE_OPEN, VIRTIO_CONSOLE_PORT_OPEN},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(messages); i++) {
		bool is_open = messages[i].bit == ANNOUNCE_OPEN;
		bool open = is_open && port_host_open(port);

		if (!(s->announce & messages[i].bit))
			continue;
		if (!control_send(serial, nr, messages[i].event, is_open ? open : 1,
				  messages[i].bit == ANNOUNCE_NAME ? port->props.name : NULL))
			return false;
		s->announce &= ~messages[i].bit;
		if (is_open)
			s->host_open = open;
	}
	return true;
}

/* Return: false if a message waits for a buffer. */
static bool serial_announce_all(struct virtio_serial *serial)
{
	for (uint32_t nr = 0; nr < serial->props.max_ports; nr++)
		if (serial->ports[nr] && serial->state.ports[nr].announce &&
		    !port_announce(serial, nr))
			return false;
	return true;
}

static void serial_announce(struct virtio_serial *serial)
{
	struct virtio_device *vdev = &serial->vdev;
	struct virtqueue *ring = &vdev->queues[CONTROL_RX].ring;
	bool all = false;

	while (!all && serial->state.guest_ready && virtio_queue_live(vdev, CONTROL_RX)) {
		all = serial_announce_all(serial);
		virtio_notify(vdev, CONTROL_RX);
		/* The next buffer is to be announced, unless it is there by now. */
		if (!all && virtio_queue_live(vdev, CONTROL_RX) && !virtqueue_listen(ring))
			break;
	}
}

/* ---- control messages from the guest ---- */

static void port_ready(struct virtio_serial *serial, uint32_t nr)
{
	const struct virtio_port *port = serial->ports[nr];
	struct virtio_serial_port_state *s = &serial->state.ports[nr];

	if (port->console)
		s->announce |= ANNOUNCE_CONSOLE;
	if (port->props.name)
		s->announce |= ANNOUNCE_NAME;
	if (port_host_open(port))
		s->announce |= ANNOUNCE_OPEN;
}

static void control_received(struct virtio_serial *serial,
			     const struct virtio_console_control *message)
{
	struct virtio_serial_state *s = &serial->state;
	uint32_t nr = message->id;

	if (message->event == VIRTIO_CONSOLE_DEVICE_READY) {
		s->guest_ready = message->value == 1;
		for (nr = 0; nr < serial->props.max_ports && s->guest_ready; nr++)
			s->ports[nr].announce = serial->ports[nr] ? ANNOUNCE_ADD : 0;
		return;
	}
	if (nr >= serial->props.max_ports || !serial->ports[nr])
		return;
	if (message->event == VIRTIO_CONSOLE_PORT_READY && message->value == 1) {
		port_ready(serial, nr);
	} else if (message->event == VIRTIO_CONSOLE_PORT_OPEN) {
		s->ports[nr].guest_open = message->value != 0;
		chardev_accept_input(serial->ports[nr]->link);
	}
}

static bool control_take(struct virtio_serial *serial)
{
	struct virtqueue_chain chain = serial_chain(serial);
	struct virtio_console_control message;

	if (!virtio_pop(&serial->vdev, CONTROL_TX, &chain))
		return false;
	if (iov_read(chain.iov, chain.n_out, &message, sizeof(message)) == sizeof(message))
		control_received(serial, &message);
	virtio_push(&serial->vdev, CONTROL_TX, chain.head, 0);
	return true;
}

/* ---- data ---- */

/* Send at most *@budget_bytes, which gets less.  Return: false if something is left of the buffer. */
static bool port_send(struct virtio_port *port, struct virtio_serial_port_state *s,
		      struct virtqueue_chain *chain, uint32_t *budget_bytes)
{
	struct iovec *iov = chain->iov;
	uint32_t n = iov_skip(&iov, chain->n_out, s->tx_sent);

	for (uint32_t i = 0; i < n; i++) {
		size_t want = MIN(iov[i].iov_len, *budget_bytes);
		size_t taken = chardev_write(port->link, iov[i].iov_base, want);

		s->tx_sent += taken;
		*budget_bytes -= taken;
		if (taken < iov[i].iov_len)
			return false;
	}
	s->tx_sent = 0;
	return true;
}

/* Return: false if there is nothing to send, no room for it (@blocked), or no budget left. */
static bool data_take(struct virtio_serial *serial, uint32_t q, uint32_t *budget_bytes,
		      bool *blocked)
{
	struct virtqueue_chain chain = serial_chain(serial);
	uint32_t nr = queue_port(q);
	struct virtio_port *port = serial->ports[nr];

	if (*budget_bytes == 0 || !virtio_pop(&serial->vdev, q, &chain))
		return false;
	if (chain.out_bytes > UINT32_MAX) {
		virtio_unpop(&serial->vdev, q);
		virtio_break(&serial->vdev, q, "a buffer is larger than 4 GiB");
		return false;
	}
	/* What is sent to a port that is not there is gone. */
	if (port && !port_send(port, &serial->state.ports[nr], &chain, budget_bytes)) {
		virtio_unpop(&serial->vdev, q);
		*blocked = *budget_bytes > 0;
		return false;
	}
	virtio_push(&serial->vdev, q, chain.head, 0);
	return true;
}

static void serial_handle_tx(struct virtio_serial *serial, uint32_t q)
{
	struct virtio_device *vdev = &serial->vdev;
	struct virtqueue *ring = &vdev->queues[q].ring;
	uint32_t budget_bytes = BYTES_MAX;
	bool blocked = false;
	uint32_t n = 0;

	virtqueue_silence(ring);
	while (n < BUFFERS_MAX && (q == CONTROL_TX ? control_take(serial)
						   : data_take(serial, q, &budget_bytes, &blocked)))
		n++;
	if (n)
		virtio_notify(vdev, q);
	/* A chardev that is full says itself when to go on.  Else what came since, or did not fit
	 * into this turn, has the next. */
	if (!blocked && virtio_queue_live(vdev, q) && virtqueue_listen(ring))
		virtio_kick(vdev, q);
}

static void serial_handle_queue(struct virtio_device *vdev, uint32_t q)
{
	struct virtio_serial *serial = (struct virtio_serial *)vdev;
	uint32_t nr = queue_port(q);

	if (q & 1)
		serial_handle_tx(serial, q);
	else if (q != CONTROL_RX && serial->ports[nr])
		chardev_accept_input(serial->ports[nr]->link);
	/* Either control queue may have made it possible. */
	if (q == CONTROL_RX || q == CONTROL_TX)
		serial_announce(serial);
}

static bool port_receives(const struct virtio_port *port)
{
	const struct virtio_serial *serial = port->serial;

	return virtio_queue_live(&serial->vdev, rx_queue(port->nr)) &&
	       (serial->state.ports[port->nr].guest_open ||
		!virtio_has_feature(&serial->vdev, VIRTIO_CONSOLE_F_MULTIPORT));
}

size_t virtio_serial_room(struct virtio_port *port)
{
	struct virtio_serial *serial = port->serial;
	struct virtqueue_chain chain = serial_chain(serial);
	struct virtio_device *vdev = &serial->vdev;
	uint32_t q = rx_queue(port->nr);

	g_mutex_lock(&vdev->fn.dev.lock);
	if (port_receives(port) && virtio_pop(vdev, q, &chain)) {
		virtio_unpop(vdev, q);
		if (!chain.in_bytes)
			virtio_break(vdev, q, "a receive buffer has no room");
	} else {
		chain.in_bytes = 0;
	}
	/* Nothing there: ask for a kick, and look again if one is late. */
	if (!chain.in_bytes && port_receives(port) && virtqueue_listen(&vdev->queues[q].ring))
		virtio_kick(vdev, q);
	g_mutex_unlock(&vdev->fn.dev.lock);
	return chain.in_bytes;
}

void virtio_serial_receive(struct virtio_port *port, const uint8_t *buf, size_t len)
{
	struct virtio_serial *serial = port->serial;
	struct virtqueue_chain chain = serial_chain(serial);
	struct virtio_device *vdev = &serial->vdev;
	uint32_t q = rx_queue(port->nr);

	g_mutex_lock(&vdev->fn.dev.lock);
	/* The driver may have reset the device since: then nobody is there to receive. */
	while (len > 0 && port_receives(port) && virtio_pop(vdev, q, &chain)) {
		size_t n = iov_write(chain.iov + chain.n_out, chain.n_in, buf, len);

		if (n == 0) {
			virtio_unpop(vdev, q);
			virtio_break(vdev, q, "a receive buffer has no room");
			break;
		}
		virtio_push(vdev, q, chain.head, n);
		buf += n;
		len -= n;
	}
	virtio_notify(vdev, q);
	g_mutex_unlock(&vdev->fn.dev.lock);
}

/* ---- ports ---- */

static void port_compare_host(struct virtio_serial *serial, uint32_t nr)
{
	struct virtio_serial_port_state *s = &serial->state.ports[nr];

	if (serial->state.guest_ready && s->host_open != port_host_open(serial->ports[nr]))
		s->announce |= ANNOUNCE_OPEN;
}

void virtio_serial_host_changed(struct virtio_port *port)
{
	struct virtio_serial *serial = port->serial;

	g_mutex_lock(&serial->vdev.fn.dev.lock);
	/* While quiesced the guest is told nothing; resume compares. */
	if (!serial->vdev.quiesced) {
		port_compare_host(serial, port->nr);
		serial_announce(serial);
	}
	g_mutex_unlock(&serial->vdev.fn.dev.lock);
}

void virtio_serial_writable(struct virtio_port *port)
{
	virtio_kick(&port->serial->vdev, rx_queue(port->nr) + 1);
}

static bool serial_choose_nr(const struct virtio_serial *serial, struct virtio_port *port,
			     GError **error)
{
	uint32_t first = port->console ? 0 : 1;

	if (port->nr == UINT32_MAX) {
		for (port->nr = first; port->nr < serial->props.max_ports; port->nr++)
			if (!serial->ports[port->nr])
				return true;
		return error_set_generic(error, "'%s' has no free port (max_ports=%u)",
					 serial->vdev.fn.dev.path, serial->props.max_ports);
	}
	if (port->nr >= serial->props.max_ports)
		return error_set_generic(error, "nr=%u: '%s' has %u ports", port->nr,
					 serial->vdev.fn.dev.path, serial->props.max_ports);
	if (port->nr == 0 && !port->console)
		return error_set_generic(error, "nr=0 is for a virtconsole");
	if (serial->ports[port->nr])
		return error_set_generic(error, "nr=%u: that port is taken", port->nr);
	return true;
}

bool virtio_serial_plug(struct virtio_serial *serial, struct virtio_port *port, GError **error)
{
	if (!serial_choose_nr(serial, port, error))
		return false;
	if (port->props.name && strlen(port->props.name) > NAME_BYTES)
		return error_set_generic(error, "name '%s' is longer than %u characters",
					 port->props.name, NAME_BYTES);
	g_mutex_lock(&serial->vdev.fn.dev.lock);
	serial->ports[port->nr] = port;
	port->serial = serial;
	g_mutex_unlock(&serial->vdev.fn.dev.lock);
	return true;
}

void virtio_serial_unplug(struct virtio_port *port)
{
	struct virtio_serial *serial = port->serial;

	if (!serial)
		return;
	g_mutex_lock(&serial->vdev.fn.dev.lock);
	serial->ports[port->nr] = NULL;
	port->serial = NULL;
	g_mutex_unlock(&serial->vdev.fn.dev.lock);
}

/* ---- life cycle ---- */

static void serial_forget(struct virtio_device *vdev)
{
	struct virtio_serial *serial = (struct virtio_serial *)vdev;
	struct virtio_serial_state *s = &serial->state;

	s->guest_ready = false;
	s->n_ports = serial->props.max_ports;
	memset(s->ports, 0, sizeof(s->ports));
}

static void serial_resumed(struct virtio_device *vdev)
{
	struct virtio_serial *serial = (struct virtio_serial *)vdev;

	for (uint32_t nr = 0; nr < serial->props.max_ports; nr++) {
		if (!serial->ports[nr])
			continue;
		port_compare_host(serial, nr);
		chardev_accept_input(serial->ports[nr]->link);
	}
	serial_announce(serial);
}

static const struct virtio_ops serial_virtio_ops = {
	.type = VIRTIO_ID_CONSOLE,
	.class_code = CLASS_SERIAL,
	.handle_queue = serial_handle_queue,
	.reset = serial_forget,
	.resumed = serial_resumed,
};

static bool virtio_serial_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct virtio_serial *serial = (struct virtio_serial *)dev;
	const struct virtio_console_config config = {.max_nr_ports = serial->props.max_ports};
	const struct virtio_params params = {
		.ops = &serial_virtio_ops,
		.state = &serial->state.common,
		.props = &serial->props.common,
		.features = UINT64_C(1) << VIRTIO_CONSOLE_F_MULTIPORT,
		.n_queues = (serial->props.max_ports + 1) * 2,
		.queue_size = QUEUE_SIZE,
		.n_vectors = N_VECTORS,
		.config_bytes = CONFIG_BYTES,
	};

	memcpy(serial->vdev.config, &config, CONFIG_BYTES);
	return virtio_realize(&serial->vdev, &params, error);
}

static bool virtio_serial_apply(struct device *dev, GError **error)
{
	struct virtio_serial *serial = (struct virtio_serial *)dev;

	if (serial->state.n_ports != serial->props.max_ports)
		return error_set_generic(error, "%s: %u ports in the state, %u here", dev->path,
					 serial->state.n_ports, serial->props.max_ports);
	return virtio_apply(dev, error);
}

static void virtio_serial_unrealize(struct device *dev)
{
	struct virtio_serial *serial = (struct virtio_serial *)dev;

	virtio_unrealize(&serial->vdev);
}

const struct device_ops virtio_serial_ops = {
	.name = "virtio-serial",
	.driver = "virtio-serial-pci",
	.bus = DEVICE_BUS_PCI,
	.help = "virtio serial bus: up to 31 virtconsole and virtserialport devices",
	.props = serial_props,
	.props_offset = offsetof(struct virtio_serial, props),
	.size = sizeof(struct virtio_serial),
	.state = &virtio_serial_desc,
	.state_offset = offsetof(struct virtio_serial, state),
	.realize = virtio_serial_realize,
	.reset = virtio_reset,
	.drain = virtio_drain,
	.in_flight = virtio_in_flight,
	.resume = virtio_resume,
	.capture = virtio_capture,
	.at_rest = virtio_at_rest,
	.apply = virtio_serial_apply,
	.unrealize = virtio_serial_unrealize,
};
