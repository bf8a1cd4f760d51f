// The keyboard controller, as far as a PC without a keyboard needs it: reset, A20, self test.
// SPDX-License-Identifier: Apache-2.0
#include "device/legacy/i8042.h"

/*
 * Commands answer at once, so the input buffer is never full.  No keyboard and no mouse are
 * plugged in: what a guest sends them is answered with "resend" and the time-out bit, as a
 * controller does after 20 ms of silence.  A20 is stored and has no effect.
 */

#define I8042_DATA    0x60
#define I8042_COMMAND 0x64
#define I8042_PORT92  0x92

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM	   0x04
#define STATUS_COMMAND	   0x08 /* the last write was a command */
#define STATUS_UNLOCKED	   0x10
#define STATUS_TIMEOUT	   0x40

#define CTR_SYSTEM	 0x04
#define CTR_KEYBOARD_OFF 0x10
#define CTR_AUX_OFF	 0x20
#define CTR_WRITABLE	 0x7f

#define OUT_NO_RESET 0x01 /* output port and pulse mask: low resets */
#define OUT_A20	     0x02
#define OUT_FULL     0x10

#define PORT92_RESET 0x01
#define PORT92_A20   0x02

#define REPLY_SELF_TEST_OK 0x55
#define REPLY_TEST_OK	   0x00
#define REPLY_NO_LINE	   0x02 /* clock line stuck high: nothing is plugged in */
#define REPLY_INPUT_PORT   0x80 /* not locked */
#define REPLY_RESEND	   0xfe

/**
 * struct i8042_state - What survives
 * @control:	Controller command byte
 * @output:	Output buffer; valid if @output_full
 * @timeout:	The time-out bit goes with @output
 * @pending:	Command that waits for its data byte, 0 for none
 * @last_was_command: Status bit 3
 * @output_port: As written by 0xd1, with reset high
 * @port92:	System control port A
 */
struct i8042_state {
	uint8_t control;
	uint8_t output;
	uint8_t pending;
	uint8_t output_port;
	uint8_t port92;
	bool output_full;
	bool timeout;
	bool last_was_command;
};

struct i8042 {
	struct device dev;
	struct i8042_state state;
	struct io_region data, command, port92;
};

static const struct state_field i8042_fields[] = {
	FIELD(struct i8042_state, control, 1), FIELD(struct i8042_state, output, 2),
	FIELD(struct i8042_state, pending, 3), FIELD(struct i8042_state, output_port, 4),
	FIELD(struct i8042_state, port92, 5),  FIELD(struct i8042_state, output_full, 6),
	FIELD(struct i8042_state, timeout, 7), FIELD(struct i8042_state, last_was_command, 8),
};

static const struct state_desc i8042_desc = {
	.name = "i8042",
	.version = 1,
	.min_reader = 1,
	STATE_DESC(struct i8042_state, i8042_fields),
};

static void request_reset(struct i8042 *kbc)
{
	struct device_env *env = kbc->dev.env;

	env->power(env->opaque, POWER_RESET);
}

static void reply(struct i8042_state *s, uint8_t byte, bool timeout)
{
	s->output = byte;
	s->output_full = true;
	s->timeout = timeout;
}

static void output_port_write(struct i8042 *kbc, uint8_t value)
{
	kbc->state.output_port = value | OUT_NO_RESET;
	if (!(value & OUT_NO_RESET))
		request_reset(kbc);
}

static uint64_t data_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	struct i8042 *kbc = opaque;

	kbc->state.output_full = false;
	kbc->state.timeout = false;
	return kbc->state.output;
}

static void data_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct i8042 *kbc = opaque;
	struct i8042_state *s = &kbc->state;
	uint8_t command = s->pending;

	s->pending = 0;
	s->last_was_command = false;
	switch (command) {
	case 0: /* to the keyboard */
		reply(s, REPLY_RESEND, true);
		break;
	case 0x60:
		s->control = value & CTR_WRITABLE;
		break;
	case 0xd1:
		output_port_write(kbc, value);
		break;
	case 0xd2: /* as if the keyboard had sent it */
		reply(s, value, false);
		break;
	case 0xd4: /* to the mouse */
		reply(s, REPLY_RESEND, true);
		break;
	default: /* 0xd3, looped through the mouse port: no line, no echo */
		break;
	}
}

static uint64_t status_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	const struct i8042_state *s = &((struct i8042 *)opaque)->state;

	return STATUS_UNLOCKED | (s->output_full ? STATUS_OUTPUT_FULL : 0) |
	       (s->control & CTR_SYSTEM ? STATUS_SYSTEM : 0) |
	       (s->last_was_command ? STATUS_COMMAND : 0) | (s->timeout ? STATUS_TIMEOUT : 0);
}

static void command_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct i8042 *kbc = opaque;
	struct i8042_state *s = &kbc->state;

	s->pending = 0;
	s->last_was_command = true;
	switch (value) {
	case 0x20:
		reply(s, s->control, false);
		break;
	case 0x60:
	case 0xd1 ... 0xd4:
		s->pending = value;
		break;
	case 0xa7:
		s->control |= CTR_AUX_OFF;
		break;
	case 0xa8:
		s->control &= ~CTR_AUX_OFF;
		break;
	case 0xa9:
		reply(s, REPLY_NO_LINE, false);
		break;
	case 0xaa:
		s->control |= CTR_SYSTEM;
		reply(s, REPLY_SELF_TEST_OK, false);
		break;
	case 0xab:
		reply(s, REPLY_TEST_OK, false);
		break;
	case 0xad:
		s->control |= CTR_KEYBOARD_OFF;
		break;
	case 0xae:
		s->control &= ~CTR_KEYBOARD_OFF;
		break;
	case 0xc0:
		reply(s, REPLY_INPUT_PORT, false);
		break;
	case 0xd0:
		reply(s, s->output_port | (s->output_full ? OUT_FULL : 0), false);
		break;
	case 0xdd:
		s->output_port &= ~OUT_A20;
		break;
	case 0xdf:
		s->output_port |= OUT_A20;
		break;
	case 0xf0 ... 0xff:
		if (!(value & OUT_NO_RESET))
			request_reset(kbc);
		break;
	}
}

static uint64_t port92_read(void *opaque, uint64_t offset_bytes, uint32_t size)
{
	return ((struct i8042 *)opaque)->state.port92;
}

static void port92_write(void *opaque, uint64_t offset_bytes, uint32_t size, uint64_t value)
{
	struct i8042 *kbc = opaque;
	bool reset = value & ~kbc->state.port92 & PORT92_RESET;

	kbc->state.port92 = value & (PORT92_RESET | PORT92_A20);
	if (reset)
		request_reset(kbc);
}

static const struct io_ops data_ops = {data_read, data_write, 1, 1, false};
static const struct io_ops command_ops = {status_read, command_write, 1, 1, false};
static const struct io_ops port92_ops = {port92_read, port92_write, 1, 1, false};

static bool i8042_realize(struct device *dev, struct device_env *env, GError **error)
{
	struct i8042 *kbc = (struct i8042 *)dev;

	return device_map_pio(dev, &kbc->data, "i8042-data", I8042_DATA, 1, &data_ops, error) &&
	       device_map_pio(dev, &kbc->command, "i8042-command", I8042_COMMAND, 1, &command_ops,
			      error) &&
	       device_map_pio(dev, &kbc->port92, "port92", I8042_PORT92, 1, &port92_ops, error);
}

static void i8042_reset(struct device *dev)
{
	struct i8042 *kbc = (struct i8042 *)dev;

	kbc->state = (struct i8042_state){
		.control = CTR_SYSTEM | CTR_KEYBOARD_OFF | CTR_AUX_OFF,
		.output_port = OUT_NO_RESET | OUT_A20,
		.port92 = PORT92_A20,
	};
}

static void i8042_unrealize(struct device *dev)
{
	struct i8042 *kbc = (struct i8042 *)dev;

	device_unmap_pio(dev, &kbc->data);
	device_unmap_pio(dev, &kbc->command);
	device_unmap_pio(dev, &kbc->port92);
}

static const struct device_ops i8042_ops = {
	.name = "i8042",
	.size = sizeof(struct i8042),
	.state = &i8042_desc,
	.state_offset = offsetof(struct i8042, state),
	.realize = i8042_realize,
	.reset = i8042_reset,
	.unrealize = i8042_unrealize,
};

struct device *i8042_new(void)
{
	return device_new(&i8042_ops, NULL, NULL, NULL);
}
