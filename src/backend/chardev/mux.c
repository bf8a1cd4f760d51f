// Character devices: several frontends on one terminal, switched with Ctrl-A c.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "backend/chardev/chardev_priv.h"

#define MUX_ESCAPE 0x01 /* Ctrl-A */

static const char mux_help[] = "\r\n"
			       "Ctrl-A h       print this help\r\n"
			       "Ctrl-A x       end the virtual machine\r\n"
			       "Ctrl-A b       send a break\r\n"
			       "Ctrl-A c       switch to the next frontend\r\n"
			       "Ctrl-A Ctrl-A  send Ctrl-A\r\n";

static void mux_event(struct chardev *chardev, unsigned int index, enum chardev_event event)
{
	struct chardev_link *link = chardev->links[index];

	if (link->frontend->event)
		link->frontend->event(link->opaque, event);
}

static void mux_set_focus(struct chardev *chardev, unsigned int index)
{
	unsigned int old = chardev->state->mux_focus;

	if (old == index)
		return;
	mux_event(chardev, old, CHARDEV_MUX_OUT);
	chardev->state->mux_focus = index;
	mux_event(chardev, index, CHARDEV_MUX_IN);
}

static void mux_say(struct chardev *chardev, const char *text)
{
	chardev_output(chardev, (const uint8_t *)text, strlen(text), CHARDEV_KEEP_SOME);
}

/* The byte after Ctrl-A.  Return: whether it is input after all. */
static bool mux_command(struct chardev *chardev, uint8_t c)
{
	switch (c) {
	case MUX_ESCAPE:
		return true;
	case 'h':
	case '?':
		mux_say(chardev, mux_help);
		break;
	case 'x':
		mux_say(chardev, "molt: terminated\r\n");
		if (chardev->on_quit)
			chardev->on_quit(chardev->on_quit_opaque);
		break;
	case 'b':
		mux_event(chardev, chardev->state->mux_focus, CHARDEV_BREAK);
		break;
	case 'c':
		mux_set_focus(chardev, (chardev->state->mux_focus + 1) % chardev->n_links);
		break;
	default:
		break;
	}
	return false;
}

size_t mux_room(const struct chardev *chardev)
{
	uint32_t most = 0;

	/* The focus may change with any byte. */
	for (unsigned int i = 0; i < chardev->n_links; i++)
		most = MAX(most, chardev->state->n_mux_in[i]);
	return CHARDEV_MUX_BYTES - most;
}

void mux_receive(struct chardev *chardev, const uint8_t *buf, size_t len)
{
	struct chardev_state *state = chardev->state;

	for (size_t i = 0; i < len; i++) {
		bool input = true;

		if (state->mux_escape) {
			state->mux_escape = false;
			input = mux_command(chardev, buf[i]);
		} else if (buf[i] == MUX_ESCAPE) {
			state->mux_escape = true;
			input = false;
		}
		if (input) {
			uint32_t f = state->mux_focus;

			state->mux_in[f * CHARDEV_MUX_BYTES + state->n_mux_in[f]++] = buf[i];
		}
	}
}

static bool mux_deliver_one(struct chardev *chardev, unsigned int index)
{
	struct chardev_link *link = chardev->links[index];
	uint32_t *n = &chardev->state->n_mux_in[index];
	uint8_t *in = &chardev->state->mux_in[index * CHARDEV_MUX_BYTES];

	while (*n > 0) {
		size_t room = link->frontend->can_receive(link->opaque);
		uint8_t buf[CHARDEV_MUX_BYTES];
		size_t len = MIN(room, *n);

		if (len == 0)
			return false;
		memcpy(buf, in, len);
		*n -= len;
		memmove(in, in + len, *n);
		link->frontend->receive(link->opaque, buf, len);
	}
	return true;
}

bool mux_deliver(struct chardev *chardev)
{
	bool all = true;

	for (unsigned int i = 0; i < chardev->n_links; i++)
		all = mux_deliver_one(chardev, i) && all;
	return all;
}

void mux_forget(struct chardev *chardev, unsigned int index)
{
	struct chardev_state *state = chardev->state;

	for (unsigned int i = index; i + 1 < CHARDEV_MAX_LINKS; i++) {
		state->n_mux_in[i] = state->n_mux_in[i + 1];
		memcpy(&state->mux_in[i * CHARDEV_MUX_BYTES],
		       &state->mux_in[(i + 1) * CHARDEV_MUX_BYTES], CHARDEV_MUX_BYTES);
	}
	state->n_mux_in[CHARDEV_MAX_LINKS - 1] = 0;
	if (state->mux_focus >= index && state->mux_focus > 0)
		state->mux_focus--;
}
