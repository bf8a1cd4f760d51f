// Character devices on terminals: stdio and pty.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "backend/chardev/chardev_priv.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"

/* A pty says that nobody has it open, but not when somebody opens it: ask this often. */
#define PTY_POLL_MS 100

/* ---- stdio ---- */

static bool fd_is(int fd, mode_t type)
{
	struct statx st;

	return fd_look(fd, STATX_TYPE, &st) && (st.stx_mode & S_IFMT) == type;
}

/*
 * Our own open file for standard input or output.  Terminals and pipes are opened again through
 * /proc, so that O_NONBLOCK does not reach the shell or the next program in the pipeline; where
 * that is refused, and for files, the descriptor is a duplicate.
 */
static int stdio_open_fd(int std_fd, int access_mode, GError **error)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", std_fd);
	int fd = -1;

	if (isatty(std_fd) || fd_is(std_fd, S_IFIFO))
		fd = open(path, access_mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		fd = fcntl(std_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (fd < 0)
		error_set_errno(error, errno, "standard %s",
				std_fd == STDIN_FILENO ? "input" : "output");
	return fd;
}

static int stdio_open_in(void *opaque, GError **error)
{
	return stdio_open_fd(STDIN_FILENO, O_RDONLY, error);
}

static int stdio_open_out(void *opaque, GError **error)
{
	return stdio_open_fd(STDOUT_FILENO, O_WRONLY, error);
}

/* A socket is another kind to the registry, so it has another name there. */
static int stdio_acquire(struct chardev *chardev, const char *what, int std_fd, fd_open_fn *open_fn,
			 GError **error)
{
	g_autofree char *socket_name = g_strconcat(what, "-socket", NULL);
	g_autoptr(GError) failure = NULL;
	int fd = chardev_inherit(chardev, socket_name, FD_STREAM, &failure);

	if (fd < 0 && !failure)
		fd = chardev_inherit(chardev, what, FD_CHAR, &failure);
	if (failure)
		g_propagate_error(error, g_steal_pointer(&failure));
	else if (fd < 0 && fd_is(std_fd, S_IFSOCK))
		fd = chardev_acquire(chardev, socket_name, FD_STREAM, open_fn, error);
	else if (fd < 0)
		fd = chardev_acquire(chardev, what, FD_CHAR, open_fn, error);
	return fd;
}

/* From a background process group the call would stop us with SIGTTOU, which is no help. */
static int set_modes(int fd, const struct termios *modes)
{
	sigset_t ttou, old;
	int ret;

	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &old);
	ret = tcsetattr(fd, TCSANOW, modes);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

static bool stdio_make_raw(struct chardev *chardev, int fd, GError **error)
{
	struct chardev_state *state = chardev->state;
	struct termios modes;

	if (tcgetattr(fd, &state->termios) < 0)
		return error_set_errno(error, errno, "cannot read the terminal's modes");
	modes = state->termios;
	modes.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	modes.c_oflag |= OPOST;
	modes.c_lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN);
	if (!chardev->config.signal)
		modes.c_lflag &= ~ISIG;
	modes.c_cflag = (modes.c_cflag & ~(CSIZE | PARENB)) | CS8;
	modes.c_cc[VMIN] = 1;
	modes.c_cc[VTIME] = 0;
	if (set_modes(fd, &modes) < 0)
		return error_set_errno(error, errno, "cannot set the terminal's modes");
	state->has_termios = true;
	return true;
}

static bool stdio_open(struct chardev *chardev, GError **error)
{
	autofd int in = stdio_acquire(chardev, "in", STDIN_FILENO, stdio_open_in, error);
	int out;

	if (in < 0)
		return false;
	out = stdio_acquire(chardev, "out", STDOUT_FILENO, stdio_open_out, error);
	if (out < 0)
		return false;
	chardev->terminal = isatty(in);
	chardev_set_peer(chardev, fd_steal(&in), out);
	/* What was inherited is raw already; how it was before comes with the state. */
	return !chardev->terminal || chardev->inherited ||
	       stdio_make_raw(chardev, chardev->in_fd, error);
}

static void stdio_close(struct chardev *chardev, bool owner)
{
	if (owner && chardev->terminal && chardev->state->has_termios)
		set_modes(chardev->in_fd, &chardev->state->termios);
	chardev_withdraw(chardev, "in");
	chardev_withdraw(chardev, "in-socket");
	chardev_withdraw(chardev, "out");
	chardev_withdraw(chardev, "out-socket");
}

const struct chardev_kind_ops chardev_stdio_ops = {
	.name = "stdio",
	.preservable = true,
	.open = stdio_open,
	.close = stdio_close,
};

/* ---- pty ---- */

/** struct pty - @poll: looks for somebody who opens the other side */
struct pty {
	int fd;
	GSource *poll;
};

static int pty_open_master(void *opaque, GError **error)
{
	const struct chardev *chardev = opaque;
	autofd int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct termios modes;
	char path[PATH_MAX];
	autofd int slave = -1;

	if (fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0 &&
	    ptsname_r(fd, path, sizeof(path)) == 0)
		slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || tcgetattr(slave, &modes) < 0) {
		error_set_errno(error, errno, "cannot open a pseudo-terminal");
		return -1;
	}
	cfmakeraw(&modes);
	if (tcsetattr(slave, TCSANOW, &modes) < 0) {
		error_set_errno(error, errno, "cannot set the modes of %s", path);
		return -1;
	}
	log_plain("char device redirected to %s (label %s)", path, chardev->config.id);
	return fd_steal(&fd);
}

/* Hung up until somebody opens it; input left by somebody who closed it again counts too. */
static bool pty_has_peer(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) <= 0 || !(p.revents & POLLHUP) || (p.revents & POLLIN);
}

static void pty_connect(struct chardev *chardev)
{
	struct pty *pty = chardev->priv;

	chardev_set_peer(chardev, pty->fd, pty->fd);
}

static gboolean pty_look(void *opaque)
{
	struct chardev *chardev = opaque;
	struct pty *pty = chardev->priv;

	if (!pty_has_peer(pty->fd))
		return G_SOURCE_CONTINUE;
	loop_unwatch(&pty->poll);
	pty_connect(chardev);
	chardev_notify(chardev);
	chardev_poll_input(chardev);
	return G_SOURCE_REMOVE;
}

static bool pty_open(struct chardev *chardev, GError **error)
{
	int fd = chardev_acquire(chardev, "pty", FD_CHAR, pty_open_master, error);
	struct pty *pty;

	if (fd < 0)
		return false;
	pty = g_new0(struct pty, 1);
	pty->fd = fd;
	chardev->priv = pty;
	chardev->terminal = true;
	if (pty_has_peer(fd))
		pty_connect(chardev);
	return true;
}

static void pty_resume(struct chardev *chardev)
{
	struct pty *pty = chardev->priv;

	if (!chardev->connected && !pty->poll)
		pty->poll = loop_after_ms(PTY_POLL_MS, pty_look, chardev);
}

static void pty_quiesce(struct chardev *chardev)
{
	struct pty *pty = chardev->priv;

	if (pty)
		loop_unwatch(&pty->poll);
}

/* The descriptor stays open: it is what keeps the other side's name. */
static void pty_hangup(struct chardev *chardev)
{
	g_mutex_lock(&chardev->lock);
	chardev->in_fd = chardev->out_fd = -1;
	g_mutex_unlock(&chardev->lock);
	if (!chardev->quiesced)
		pty_resume(chardev);
}

static void pty_close(struct chardev *chardev, bool owner)
{
	struct pty *pty = chardev->priv;

	if (!pty)
		return;
	g_mutex_lock(&chardev->lock);
	chardev->in_fd = chardev->out_fd = -1;
	g_mutex_unlock(&chardev->lock);
	chardev_withdraw(chardev, "pty");
	fd_close(&pty->fd);
	g_free(pty);
	chardev->priv = NULL;
}

static char *pty_filename(struct chardev *chardev)
{
	struct pty *pty = chardev->priv;
	char path[PATH_MAX];

	if (!pty || ptsname_r(pty->fd, path, sizeof(path)) != 0)
		return g_strdup("pty");
	return g_strconcat("pty:", path, NULL);
}

const struct chardev_kind_ops chardev_pty_ops = {
	.name = "pty",
	.preservable = true,
	.open = pty_open,
	.resume = pty_resume,
	.quiesce = pty_quiesce,
	.hangup = pty_hangup,
	.close = pty_close,
	.filename = pty_filename,
};
