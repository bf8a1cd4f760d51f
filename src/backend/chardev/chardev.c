// Character devices: what all kinds share: life, frontends, input, update.
// SPDX-License-Identifier: Apache-2.0
#include "backend/chardev/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/chardev/chardev_priv.h"
#include "backend/chardev/chardev_set.h"
#include "base/clock.h"
#include "base/close_later.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"

#define CHARDEV_READ_BYTES 4096

/* How long a write to a file may take to end when an update begins. */
#define CHARDEV_HOLD_MS 20

static const struct chardev_kind_ops *const kinds[] = {
	[CHARDEV_NULL] = &chardev_null_ops,	    [CHARDEV_STDIO] = &chardev_stdio_ops,
	[CHARDEV_SOCKET] = &chardev_socket_ops,	    [CHARDEV_FILE] = &chardev_file_ops,
	[CHARDEV_PIPE] = &chardev_pipe_ops,	    [CHARDEV_SERIAL] = &chardev_serial_ops,
	[CHARDEV_PARALLEL] = &chardev_parallel_ops, [CHARDEV_PTY] = &chardev_pty_ops,
	[CHARDEV_RINGBUF] = &chardev_ringbuf_ops,
};

static const struct state_field chardev_state_fields[] = {
	FIELD(struct chardev_state, mux_focus, 1),
	FIELD(struct chardev_state, mux_escape, 2),
	FIELD(struct chardev_state, has_termios, 3),
	FIELD(struct chardev_state, unsent_lost, 4),
	FIELD_PAD(struct chardev_state, pad),
	FIELD_ARRAY(struct chardev_state, n_mux_in, 5),
	FIELD_ARRAY(struct chardev_state, mux_in, 6),
	FIELD_BLOB(struct chardev_state, termios, 7, "termios"),
	FIELD_LIST(struct chardev_state, unsent, n_unsent, 8),
	FIELD(struct chardev_state, lost_bytes, 9, .since = 2, .flags = STATE_OPTIONAL),
	FIELD_LIST(struct chardev_state, log_unsent, n_log_unsent, 10, .since = 2,
		   .flags = STATE_OPTIONAL),
	FIELD_PAD(struct chardev_state, pad1),
};

static bool chardev_state_check(const void *obj, GError **error)
{
	const struct chardev_state *state = obj;

	if (state->mux_focus >= CHARDEV_MAX_LINKS)
		return error_set_generic(error, "mux_focus: there is no frontend %u",
					 state->mux_focus);
	for (unsigned int i = 0; i < CHARDEV_MAX_LINKS; i++)
		if (state->n_mux_in[i] > CHARDEV_MUX_BYTES)
			return error_set_generic(error, "n_mux_in: %u is more than %d",
						 state->n_mux_in[i], CHARDEV_MUX_BYTES);
	return true;
}

const struct state_desc chardev_state_desc = {
	.name = "chardev",
	.version = 2,
	.min_reader = 1,
	.check = chardev_state_check,
	STATE_DESC(struct chardev_state, chardev_state_fields),
};

/* ---- life ---- */

static struct chardev_config chardev_config_copy(const struct chardev_config *config)
{
	struct chardev_config copy = *config;

	copy.id = g_strdup(config->id);
	copy.path = g_strdup(config->path);
	copy.in_path = g_strdup(config->in_path);
	copy.host = g_strdup(config->host);
	copy.port = g_strdup(config->port);
	copy.logfile = g_strdup(config->logfile);
	return copy;
}

static void chardev_config_clear(struct chardev_config *config)
{
	g_free(config->id);
	g_free(config->path);
	g_free(config->in_path);
	g_free(config->host);
	g_free(config->port);
	g_free(config->logfile);
}

static int chardev_open_log(void *opaque, GError **error)
{
	const struct chardev_config *config = &((struct chardev *)opaque)->config;
	int fd = file_make(config->logfile,
			   FILE_STREAM | FILE_UNLOCKED |
				   (config->logappend ? FILE_APPEND : FILE_TRUNCATE),
			   NULL, error);

	if (fd < 0)
		g_prefix_error(error, "logfile ");
	return fd;
}

static bool chardev_open(struct chardev *chardev, GError **error)
{
	if (chardev->config.logfile) {
		chardev->log_fd =
			chardev_acquire(chardev, CHARDEV_LOG_FD, FD_CHAR, chardev_open_log, error);
		if (chardev->log_fd < 0)
			return false;
	}
	return chardev->ops->open(chardev, error) && chardev_open_sinks(chardev, error);
}

struct chardev *chardev_new_in(const char *prefix, const struct chardev_config *config,
			       struct fd_source *fds, GError **error)
{
	autoptr(chardev) chardev = g_new0(struct chardev, 1);

	chardev->ops = kinds[config->kind];
	chardev->config = chardev_config_copy(config);
	chardev->prefix =
		g_strconcat(config->reopen_on_cpr ? FD_REOPEN_PREFIX : prefix, config->id, NULL);
	chardev->fds = fds;
	chardev->paths = fds;
	chardev->in_fd = chardev->out_fd = chardev->log_fd = -1;
	chardev->pending = g_byte_array_new();
	chardev->quiesced = true;
	chardev->state = g_new0(struct chardev_state, 1);
	g_mutex_init(&chardev->lock);
	chardev->kick = loop_when_told(chardev_woken, chardev);
	chardev->stall = loop_when_told(chardev_woken, chardev);
	if (!chardev_open(chardev, error)) {
		g_prefix_error(error, "chardev '%s': ", config->id);
		return NULL;
	}
	return g_steal_pointer(&chardev);
}

struct chardev *chardev_new(const struct chardev_config *config, struct fd_source *fds,
			    GError **error)
{
	return chardev_new_in(FD_CHARDEV_PREFIX, config, fds, error);
}

static void chardev_stop(struct chardev *chardev)
{
	loop_unwatch(&chardev->in_watch);
	chardev_output_stop(chardev);
	if (chardev->ops->quiesce)
		chardev->ops->quiesce(chardev);
}

static void chardev_close(struct chardev *chardev, bool owner)
{
	chardev_stop(chardev);
	g_mutex_lock(&chardev->lock);
	chardev->connected = false;
	chardev->lost = false;
	g_mutex_unlock(&chardev->lock);
	chardev_close_sinks(chardev, owner);
	if (chardev->ops->close)
		chardev->ops->close(chardev, owner);
	chardev_close_fds(chardev);
	chardev_withdraw(chardev, CHARDEV_LOG_FD);
	close_soon(&chardev->log_fd);
}

void chardev_free(struct chardev *chardev)
{
	if (!chardev)
		return;
	if (!chardev->disowned)
		chardev_close(chardev, chardev->started || !chardev->inherited);
	loop_unwatch(&chardev->kick);
	loop_unwatch(&chardev->stall);
	for (unsigned int i = 0; i < chardev->n_links; i++)
		g_free(chardev->links[i]);
	g_byte_array_unref(chardev->pending);
	g_mutex_clear(&chardev->lock);
	chardev_config_clear(&chardev->config);
	g_free(chardev->prefix);
	g_free(chardev->filename);
	g_free(chardev->state);
	g_free(chardev);
}

void chardev_disown(struct chardev *chardev)
{
	if (chardev->disowned)
		return;
	chardev->disowned = true;
	chardev_close(chardev, false);
	chardev_notify(chardev);
}

void chardev_on_quit(struct chardev *chardev, void (*fn)(void *opaque), void *opaque)
{
	chardev->on_quit = fn;
	chardev->on_quit_opaque = opaque;
}

/* ---- descriptors ---- */

char *chardev_fd_name(const struct chardev *chardev, const char *what)
{
	return g_strconcat(chardev->prefix, "/", what, NULL);
}

/* Whether the predecessor's is another one than the configuration asks for. */
static bool chardev_moved(const struct chardev *chardev, const char *what)
{
	return strcmp(what, CHARDEV_LOG_FD) == 0 ? chardev->config.log_moved
						 : chardev->config.moved;
}

int chardev_acquire(struct chardev *chardev, const char *what, enum fd_kind kind,
		    fd_open_fn *open_fn, GError **error)
{
	g_autofree char *name = chardev_fd_name(chardev, what);
	g_autoptr(GError) failure = NULL;
	int fd;

	if (chardev_moved(chardev, what))
		return fd_acquire_new(chardev->fds, name, kind, open_fn, chardev, error);
	fd = fd_inherit(chardev->fds, name, kind, &failure);
	if (failure) {
		g_propagate_error(error, g_steal_pointer(&failure));
		return -1;
	}
	if (fd >= 0) {
		chardev->inherited = true;
		return fd;
	}
	return fd_acquire(chardev->fds, name, kind, open_fn, chardev, error);
}

int chardev_inherit(struct chardev *chardev, const char *what, enum fd_kind kind, GError **error)
{
	g_autofree char *name = chardev_fd_name(chardev, what);
	int fd;

	if (chardev_moved(chardev, what))
		return -1;
	fd = fd_inherit(chardev->fds, name, kind, error);
	if (fd >= 0)
		chardev->inherited = true;
	return fd;
}

bool chardev_publish(struct chardev *chardev, const char *what, enum fd_kind kind, int fd,
		     GError **error)
{
	g_autofree char *name = chardev_fd_name(chardev, what);

	return fd_publish(chardev->fds, name, kind, fd, error);
}

void chardev_withdraw(struct chardev *chardev, const char *what)
{
	g_autofree char *name = chardev_fd_name(chardev, what);

	fd_withdraw(chardev->fds, name);
}

void chardev_set_peer(struct chardev *chardev, int in_fd, int out_fd)
{
	g_mutex_lock(&chardev->lock);
	chardev->in_fd = in_fd;
	chardev->out_fd = out_fd;
	chardev->connected = true;
	chardev->closing = false;
	chardev->lost = false;
	g_mutex_unlock(&chardev->lock);
	chardev->input_over = false;
}

void chardev_close_fds(struct chardev *chardev)
{
	int in_fd, out_fd;

	g_mutex_lock(&chardev->lock);
	in_fd = fd_steal(&chardev->in_fd);
	out_fd = fd_steal(&chardev->out_fd);
	g_mutex_unlock(&chardev->lock);
	if (out_fd != in_fd)
		close_soon(&out_fd);
	close_soon(&in_fd);
}

/* ---- frontends ---- */

/* A frontend may detach itself, or the peer may go, while another one is being told. */
void chardev_notify(struct chardev *chardev)
{
	bool connected = chardev->connected;

	for (unsigned int i = 0; i < chardev->n_links; i++) {
		struct chardev_link *link = chardev->links[i];

		if (link->told == connected)
			continue;
		link->told = connected;
		if (link->frontend->event)
			link->frontend->event(link->opaque,
					      connected ? CHARDEV_OPENED : CHARDEV_CLOSED);
	}
}

struct chardev_link *chardev_attach(struct chardev *chardev,
				    const struct chardev_frontend *frontend, void *opaque,
				    GError **error)
{
	unsigned int max = chardev->config.mux ? CHARDEV_MAX_LINKS : 1;
	struct chardev_link *link;

	if (chardev->n_links == max) {
		error_set_generic(error, "chardev '%s' is in use%s", chardev->config.id,
				  max == 1 ? "; with mux=on up to four can share it" : "");
		return NULL;
	}
	link = g_new0(struct chardev_link, 1);
	*link = (struct chardev_link){chardev, frontend, opaque, false};
	chardev->links[chardev->n_links++] = link;
	/* Told from the main loop: the caller does not have its link yet. */
	g_mutex_lock(&chardev->lock);
	if (chardev->started)
		chardev_wake(chardev);
	g_mutex_unlock(&chardev->lock);
	return link;
}

void chardev_detach(struct chardev_link *link)
{
	struct chardev *chardev = link->chardev;
	unsigned int i = 0;

	while (chardev->links[i] != link)
		i++;
	mux_forget(chardev, i);
	chardev->n_links--;
	memmove(&chardev->links[i], &chardev->links[i + 1],
		(chardev->n_links - i) * sizeof(chardev->links[0]));
	g_free(link);
	chardev_poll_input(chardev);
}

size_t chardev_write(struct chardev_link *link, const uint8_t *buf, size_t len)
{
	return chardev_output(link->chardev, buf, len, CHARDEV_KEEP_NONE);
}

void chardev_write_some(struct chardev_link *link, const uint8_t *buf, size_t len)
{
	chardev_output(link->chardev, buf, len, CHARDEV_KEEP_SOME);
}

void chardev_write_all(struct chardev_link *link, const uint8_t *buf, size_t len)
{
	chardev_output(link->chardev, buf, len, CHARDEV_KEEP_ALL);
}

void chardev_accept_input(struct chardev_link *link)
{
	struct chardev *chardev = link->chardev;

	g_mutex_lock(&chardev->lock);
	if (chardev->input_blocked)
		chardev_wake(chardev);
	g_mutex_unlock(&chardev->lock);
}

bool chardev_link_connected(const struct chardev_link *link)
{
	struct chardev *chardev = link->chardev;
	bool connected;

	g_mutex_lock(&chardev->lock);
	connected = chardev->connected;
	g_mutex_unlock(&chardev->lock);
	return connected;
}

bool chardev_link_continues(const struct chardev_link *link)
{
	const struct chardev *chardev = link->chardev;

	return chardev->inherited && chardev->connected && !chardev->started;
}

bool chardev_link_has_focus(const struct chardev_link *link)
{
	const struct chardev *chardev = link->chardev;

	return chardev->links[MIN(chardev->state->mux_focus, chardev->n_links - 1)] == link;
}

bool chardev_link_is_terminal(const struct chardev_link *link)
{
	return link->chardev->terminal;
}

const char *chardev_id(const struct chardev *chardev)
{
	return chardev->config.id;
}

const char *chardev_filename(struct chardev *chardev)
{
	g_free(chardev->filename);
	chardev->filename = chardev->ops->filename ? chardev->ops->filename(chardev)
						   : g_strdup(chardev->ops->name);
	return chardev->filename;
}

uint64_t chardev_lost_bytes(struct chardev *chardev)
{
	uint64_t n;

	g_mutex_lock(&chardev->lock);
	n = chardev->lost_bytes + (chardev->sink ? sink_lost_bytes(chardev->sink) : 0) +
	    (chardev->log_sink ? sink_lost_bytes(chardev->log_sink) : 0);
	g_mutex_unlock(&chardev->lock);
	return n;
}

bool chardev_frontend_open(const struct chardev *chardev)
{
	return chardev->n_links > 0;
}

/* ---- input ---- */

static void chardev_set_blocked(struct chardev *chardev, bool blocked)
{
	g_mutex_lock(&chardev->lock);
	chardev->input_blocked = blocked;
	g_mutex_unlock(&chardev->lock);
}

/* How much input can be taken now. */
static size_t chardev_room(struct chardev *chardev)
{
	if (chardev->n_links == 0)
		return 0;
	if (chardev->config.mux)
		return mux_room(chardev);
	return chardev->links[0]->frontend->can_receive(chardev->links[0]->opaque);
}

/* No more will come, but what was written before may still have to go out. */
static void chardev_input_end(struct chardev *chardev)
{
	bool drained;

	chardev->input_over = true;
	if (!chardev->ops->hangup)
		return;
	g_mutex_lock(&chardev->lock);
	drained = chardev->pending->len == chardev->pending_start;
	chardev->closing = !drained;
	g_mutex_unlock(&chardev->lock);
	if (drained)
		chardev_hangup(chardev);
}

static gboolean chardev_readable(int fd, GIOCondition condition, void *opaque)
{
	struct chardev *chardev = opaque;
	uint8_t buf[CHARDEV_READ_BYTES];
	size_t room = chardev_room(chardev);
	ssize_t n = 0;

	if (room > 0)
		n = read(fd, buf, MIN(room, sizeof(buf)));
	if (n > 0 && chardev->config.mux)
		mux_receive(chardev, buf, n);
	else if (n > 0)
		chardev->links[0]->frontend->receive(chardev->links[0]->opaque, buf, n);
	else if (room > 0 && (n == 0 || (errno != EAGAIN && errno != EINTR)))
		chardev_input_end(chardev);
	chardev_poll_input(chardev);
	return G_SOURCE_CONTINUE;
}

/* The flag goes up first: room that a frontend makes right after it was asked wakes us again. */
void chardev_poll_input(struct chardev *chardev)
{
	bool kept = false;
	bool want;

	if (chardev->quiesced) {
		loop_unwatch(&chardev->in_watch);
		return;
	}
	chardev_set_blocked(chardev, true);
	if (chardev->config.mux)
		kept = !mux_deliver(chardev);
	want = chardev->connected && chardev->in_fd >= 0 && !chardev->input_over &&
	       chardev_room(chardev) > 0;
	if (want && !kept)
		chardev_set_blocked(chardev, false);
	if (want && !chardev->in_watch)
		chardev->in_watch =
			loop_watch_fd(NULL, chardev->in_fd, G_IO_IN, chardev_readable, chardev);
	if (!want)
		loop_unwatch(&chardev->in_watch);
}

void chardev_hangup(struct chardev *chardev)
{
	chardev_output_stop(chardev);
	loop_unwatch(&chardev->in_watch);
	g_mutex_lock(&chardev->lock);
	chardev->lost = false;
	chardev->closing = false;
	chardev->connected = false;
	chardev_output_drop(chardev);
	g_mutex_unlock(&chardev->lock);
	if (chardev->ops->hangup)
		chardev->ops->hangup(chardev);
	chardev_notify(chardev);
}

/* ---- update ---- */

bool chardev_preservable(const struct chardev *chardev, GError **error)
{
	const char *filename;

	if (chardev->ops->preservable || chardev->config.reopen_on_cpr)
		return true;
	filename = chardev_filename((struct chardev *)chardev);
	return error_set_generic(error, "chardev %s -> %s is not capable of cpr. See reopen-on-cpr",
				 chardev->config.id, filename);
}

static void chardev_capture(struct chardev *chardev)
{
	struct chardev_state *state = chardev->state;
	size_t n, room, kept = 0;

	if (chardev->sink)
		kept = sink_unsent(chardev->sink, state->unsent, CHARDEV_UNSENT_BYTES);
	if (chardev->log_sink)
		state->n_log_unsent =
			sink_unsent(chardev->log_sink, state->log_unsent, CHARDEV_LOG_BYTES);
	state->lost_bytes = chardev_lost_bytes(chardev);
	g_mutex_lock(&chardev->lock);
	n = chardev->pending->len - chardev->pending_start;
	room = CHARDEV_UNSENT_BYTES - kept;
	/* Only who can be disconnected, and so knows that something is missing, loses all. */
	state->unsent_lost = n > room && chardev->ops->hangup;
	if (n > room)
		state->lost_bytes += n - room;
	n = state->unsent_lost ? 0 : MIN(n, room);
	if (n)
		memcpy(state->unsent + kept, chardev->pending->data + chardev->pending_start, n);
	state->n_unsent = kept + n;
	g_mutex_unlock(&chardev->lock);
}

/* Both are told before one is waited for. */
static void chardev_hold_sinks(struct chardev *chardev)
{
	uint64_t deadline_ns = clock_deadline_ms(CHARDEV_HOLD_MS);

	if (chardev->sink)
		sink_hold(chardev->sink, deadline_ns);
	if (chardev->log_sink)
		sink_hold(chardev->log_sink, deadline_ns);
}

static void chardev_release_sinks(struct chardev *chardev)
{
	if (chardev->sink)
		sink_release(chardev->sink);
	if (chardev->log_sink)
		sink_release(chardev->log_sink);
}

void chardev_quiesce(struct chardev *chardev)
{
	if (chardev->quiesced)
		return;
	chardev->quiesced = true;
	chardev_stop(chardev);
	chardev_output(chardev, NULL, 0, CHARDEV_KEEP_ALL);
	chardev_hold_sinks(chardev);
	chardev_capture(chardev);
}

/* The first time: what the predecessor left unsent goes before what was written since. */
static void chardev_take_state(struct chardev *chardev)
{
	struct chardev_state *state = chardev->state;

	g_mutex_lock(&chardev->lock);
	g_byte_array_prepend(chardev->pending, state->unsent, state->n_unsent);
	if (chardev->log_sink)
		sink_prepend(chardev->log_sink, state->log_unsent, state->n_log_unsent);
	chardev->lost_bytes += state->lost_bytes;
	chardev->lost = state->unsent_lost;
	chardev->started = true;
	g_mutex_unlock(&chardev->lock);
	if (state->unsent_lost)
		log_warn("chardev '%s': the peer left too much unread to carry it over",
			 chardev->config.id);
	/* Whoever has the peer's state, loaded, hears that the peer is gone, and forgets it. */
	for (unsigned int i = 0; i < chardev->n_links && state->unsent_lost; i++)
		chardev->links[i]->told = true;
	if (chardev->n_links > 0)
		state->mux_focus = MIN(state->mux_focus, chardev->n_links - 1);
}

void chardev_resume(struct chardev *chardev)
{
	if (!chardev->quiesced || chardev->disowned)
		return;
	chardev->quiesced = false;
	if (!chardev->started)
		chardev_take_state(chardev);
	chardev_release_sinks(chardev);
	if (chardev->lost)
		chardev_hangup(chardev);
	if (chardev->ops->resume)
		chardev->ops->resume(chardev);
	chardev_notify(chardev);
	chardev_output_start(chardev);
	chardev_poll_input(chardev);
}

void *chardev_state(struct chardev *chardev)
{
	return chardev->state;
}
