// The child's side of a probe: how a process learns that it only rehearses, and how it answers.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/memory_room.h"
#include "cpr/link.h"
#include "cpr/probe.h"

#define PROBE_OFFER_MS 10000

/** struct rehearsal - @link: to the process that has the guest; NULL: this is no rehearsal */
static struct rehearsal {
	struct link *link;
	int envelope;
} rehearsal = {.envelope = -1};

bool probe_requested(void)
{
	return secure_getenv(PROBE_ENV) != NULL;
}

bool probe_active(void)
{
	return rehearsal.link != NULL;
}

int probe_envelope(void)
{
	return rehearsal.envelope;
}

/* The number in the environment, if it is a socket of our own user's making. */
static int take_socket(GError **error)
{
	const char *text = secure_getenv(PROBE_ENV);
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);
	int fd = text ? atoi(text) : -1;

	if (fd <= STDERR_FILENO || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
	    cred.uid != geteuid()) {
		error_set_generic(error, PROBE_ENV " names no socket of this user's");
		return -1;
	}
	g_unsetenv(PROBE_ENV);
	(void)fd_set_cloexec(fd, true);
	(void)fd_set_nonblock(fd, true);
	return fd;
}

bool probe_begin(GError **error)
{
	static const struct link_handler nobody = {.peer = "the running process"};
	int fd = take_socket(error);
	json_t *offer;

	if (fd < 0)
		return false;
	/* Whoever asks may die; nobody wants an answer then. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rehearsal.link = link_new(fd, &nobody, NULL);
	offer = link_wait(rehearsal.link, FRAME_OFFER, clock_deadline_ms(PROBE_OFFER_MS), error);
	if (!offer)
		return false;
	rehearsal.envelope = json_integer_value(json_object_get(offer, "envelope"));
	json_decref(offer);
	return true;
}

static void answer(enum frame_type type, json_t *body)
{
	bool sent = link_send(rehearsal.link, type, body, NULL);

	/* Not exit(): what it would tidy up belongs to the process that has the guest. */
	_exit(sent ? EXIT_SUCCESS : EXIT_FAILURE);
}

void probe_accept(void)
{
	answer(FRAME_ACCEPT, json_pack("{s:s, s:I, s:I}", "build", MOLT_VERSION, "start-ns",
				       (json_int_t)clock_process_ns(), "memory-bytes",
				       (json_int_t)memory_own_bytes()));
	_exit(EXIT_FAILURE);
}

void probe_refuse(const char *reason)
{
	answer(FRAME_REFUSE, json_pack("{s:s}", "reason", reason));
	_exit(EXIT_FAILURE);
}
