// Kinds of descriptors that survive an update: how to tell one, and how to know it again.
// SPDX-License-Identifier: Apache-2.0
#include "state/fd_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"

/* What tells open files apart and does not change by itself while they are open. */
#define IDENTITY_OPEN_FLAGS (O_ACCMODE | O_APPEND | O_DIRECT | O_PATH)

/* /dev/net/tun, from the kernel's list of devices. */
#define TUN_MAJOR 10
#define TUN_MINOR 200

#define ANON_PREFIX "anon_inode:"

static const struct state_field fd_identity_fields[] = {
	FIELD(struct fd_identity, dev, 1),	    FIELD(struct fd_identity, ino, 2),
	FIELD(struct fd_identity, rdev, 3),	    FIELD(struct fd_identity, mode, 4),
	FIELD(struct fd_identity, open_flags, 5),   FIELD(struct fd_identity, seals, 6),
	FIELD_ARRAY(struct fd_identity, detail, 7), FIELD_PAD(struct fd_identity, pad),
};

static bool fd_identity_check(const void *obj, GError **error)
{
	const struct fd_identity *identity = obj;

	if (!memchr(identity->detail, '\0', sizeof(identity->detail)))
		return error_set_generic(error, "detail is not terminated");
	return true;
}

const struct state_desc fd_identity_desc = {
	.name = "fd-identity",
	.version = 1,
	.min_reader = 1,
	.check = fd_identity_check,
	STATE_DESC(struct fd_identity, fd_identity_fields),
};

/* ---- identity ---- */

/* What /proc calls the open file: a path, "socket:[7]", "anon_inode:[eventfd]", ... */
static bool fd_read_link(int fd, char *link, size_t size, GError **error)
{
	char path[sizeof("/proc/self/fd/") + 11];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, link, size - 1);
	if (len < 0)
		return error_set_errno(error, errno, "cannot read %s", path);
	link[len] = '\0';
	return true;
}

/* The line "eventfd-id: N" of fdinfo, which tells eventfds apart; 0 where the kernel has none. */
static unsigned int eventfd_id(int fd)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fdinfo/%d", fd);
	g_autofree char *info = NULL;
	unsigned int id = 0;
	const char *line;

	if (!g_file_get_contents(path, &info, NULL, NULL))
		return 0;
	line = strstr(info, "eventfd-id:");
	if (line && sscanf(line, "eventfd-id: %u", &id) != 1)
		return 0;
	return id;
}

static bool identity_read_anon(int fd, struct fd_identity *identity, GError **error)
{
	char *detail = (char *)identity->detail;
	char link[PATH_MAX];

	if (!fd_read_link(fd, link, sizeof(link), error))
		return false;
	if (g_str_equal(link, ANON_PREFIX "[eventfd]"))
		snprintf(detail, FD_DETAIL_BYTES, "[eventfd]:%u", eventfd_id(fd));
	else
		g_strlcpy(detail,
			  g_str_has_prefix(link, ANON_PREFIX) ? link + strlen(ANON_PREFIX) : link,
			  FD_DETAIL_BYTES);
	return true;
}

static bool is_tun(const struct fd_identity *identity)
{
	return S_ISCHR(identity->mode) && identity->rdev == makedev(TUN_MAJOR, TUN_MINOR);
}

bool fd_identity_read(int fd, struct fd_identity *identity, GError **error)
{
	int flags = fcntl(fd, F_GETFL);
	struct ifreq ifr = {0};
	struct statx st;
	int seals;

	memset(identity, 0, sizeof(*identity));
	if (flags < 0 || !fd_look(fd, STATX_TYPE | STATX_INO, &st))
		return error_set_errno(error, errno, "cannot look at descriptor %d", fd);
	identity->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	identity->ino = st.stx_ino;
	identity->rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor);
	identity->mode = st.stx_mode & S_IFMT;
	identity->open_flags = flags & IDENTITY_OPEN_FLAGS;
	seals = fcntl(fd, F_GET_SEALS);
	identity->seals = seals < 0 ? 0 : seals;
	if (identity->mode == 0)
		return identity_read_anon(fd, identity, error);
	/* Every queue of every interface is the same device node. */
	if (is_tun(identity) && ioctl(fd, TUNGETIFF, &ifr) == 0)
		memcpy(identity->detail, ifr.ifr_name, strnlen(ifr.ifr_name, IFNAMSIZ));
	return true;
}

static bool match_number(const char *what, uint64_t then, uint64_t now, GError **error)
{
	if (then == now)
		return true;
	return error_set_generic(error,
				 "it is another file than was handed over: %s 0x%" G_GINT64_MODIFIER
				 "x, was 0x%" G_GINT64_MODIFIER "x",
				 what, now, then);
}

bool fd_identity_match(const struct fd_identity *then, const struct fd_identity *now,
		       GError **error)
{
	if (!match_number("type", then->mode, now->mode, error) ||
	    !match_number("device", then->dev, now->dev, error) ||
	    !match_number("inode", then->ino, now->ino, error) ||
	    !match_number("device number", then->rdev, now->rdev, error) ||
	    !match_number("open flags", then->open_flags, now->open_flags, error) ||
	    !match_number("seals", then->seals, now->seals & then->seals, error))
		return false;
	if (memcmp(then->detail, now->detail, FD_DETAIL_BYTES) == 0)
		return true;
	return error_set_generic(error, "it is another file than was handed over: %.*s, was %.*s",
				 FD_DETAIL_BYTES, (const char *)now->detail, FD_DETAIL_BYTES,
				 (const char *)then->detail);
}

/* ---- kinds ---- */

static bool verify_ram(int fd, const struct fd_identity *identity)
{
	/* Seals that can still be added, and none against shrinking: a memfd left open to SIGBUS.
	 * Plain files, and memfds made without seals, say F_SEAL_SEAL and nothing else. */
	bool unsealed = fcntl(fd, F_GET_SEALS) >= 0 &&
			!(identity->seals & (F_SEAL_SHRINK | F_SEAL_SEAL));

	return (S_ISREG(identity->mode) && !unsealed) || S_ISCHR(identity->mode);
}

static bool verify_image(int fd, const struct fd_identity *identity)
{
	return S_ISREG(identity->mode) || S_ISBLK(identity->mode);
}

static bool verify_socket(int fd, const struct fd_identity *identity, int listening)
{
	socklen_t size = sizeof(int);
	int accepts = -1;
	int type = -1;

	return S_ISSOCK(identity->mode) && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
	       (type == SOCK_STREAM || type == SOCK_SEQPACKET) &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) == 0 &&
	       accepts == listening;
}

static bool verify_listen(int fd, const struct fd_identity *identity)
{
	return verify_socket(fd, identity, 1);
}

static bool verify_stream(int fd, const struct fd_identity *identity)
{
	return verify_socket(fd, identity, 0);
}

static bool verify_char(int fd, const struct fd_identity *identity)
{
	return S_ISCHR(identity->mode) || S_ISFIFO(identity->mode) || S_ISREG(identity->mode);
}

static bool verify_tap(int fd, const struct fd_identity *identity)
{
	struct ifreq ifr = {0};

	/* macvtap queues are other character devices that answer the same call. */
	return S_ISCHR(identity->mode) && ioctl(fd, TUNGETIFF, &ifr) == 0;
}

static bool verify_vfio(int fd, const struct fd_identity *identity)
{
	char link[PATH_MAX];

	if (identity->mode == 0)
		return g_str_has_prefix((const char *)identity->detail, "[vfio-device]");
	return S_ISCHR(identity->mode) && fd_read_link(fd, link, sizeof(link), NULL) &&
	       (g_str_has_prefix(link, "/dev/vfio/") || g_str_equal(link, "/dev/iommu"));
}

static bool verify_event(int fd, const struct fd_identity *identity)
{
	return identity->mode == 0 && g_str_has_prefix((const char *)identity->detail, "[eventfd]");
}

static bool verify_owner(int fd, const struct fd_identity *identity)
{
	return S_ISREG(identity->mode) && fcntl(fd, F_GET_SEALS) >= 0;
}

static bool verify_exec(int fd, const struct fd_identity *identity)
{
	struct statx st;

	return S_ISREG(identity->mode) && fd_look(fd, STATX_MODE, &st) && (st.stx_mode & 0111);
}

/**
 * struct kind - How to verify a kind of descriptor
 * @name:	In manifests and messages
 * @needs:	What it must be, for the message
 * @verify:	Whether a descriptor with this identity is that
 */
static const struct kind {
	const char *name;
	const char *needs;
	bool (*verify)(int fd, const struct fd_identity *identity);
} kinds[FD_KIND_COUNT] = {
	[FD_RAM] = {"ram", "a file, a memfd sealed against shrinking or a DAX device", verify_ram},
	[FD_IMAGE] = {"image", "a regular file or a block device", verify_image},
	[FD_LISTEN] = {"listen", "a listening socket", verify_listen},
	[FD_STREAM] = {"stream", "a connected stream socket", verify_stream},
	[FD_CHAR] = {"char", "a character device, a pipe or a regular file", verify_char},
	[FD_TAP] = {"tap", "a queue of a tun or tap interface", verify_tap},
	[FD_VFIO] = {"vfio", "a VFIO or iommufd descriptor", verify_vfio},
	[FD_EVENT] = {"event", "an eventfd", verify_event},
	[FD_OWNER] = {"owner", "a memfd", verify_owner},
	[FD_EXEC] = {"exec", "an executable file", verify_exec},
};

void fd_kind_prepare(enum fd_kind kind, int fd)
{
	int seals = kind == FD_RAM ? fcntl(fd, F_GET_SEALS) : -1;

	/* Where this is refused, verify_ram() says so. */
	if (seals >= 0 && !(seals & (F_SEAL_SHRINK | F_SEAL_SEAL)))
		(void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
}

const char *fd_kind_name(unsigned int kind)
{
	return kind < FD_KIND_COUNT ? kinds[kind].name : NULL;
}

static const char *identity_describe(const struct fd_identity *identity)
{
	switch (identity->mode) {
	case S_IFREG:
		return "a regular file";
	case S_IFBLK:
		return "a block device";
	case S_IFCHR:
		return "a character device";
	case S_IFIFO:
		return "a pipe";
	case S_IFSOCK:
		return "a socket";
	case S_IFDIR:
		return "a directory";
	default:
		return "an anonymous inode";
	}
}

bool fd_kind_verify(enum fd_kind kind, int fd, const struct fd_identity *identity, GError **error)
{
	const char *detail = (const char *)identity->detail;

	if (!fd_kind_name(kind))
		return error_set_generic(error, "there is no kind %u of descriptor", kind);
	if (kinds[kind].verify(fd, identity))
		return true;
	if (g_str_has_prefix(detail, "kvm"))
		return error_set_generic(error, "a KVM descriptor cannot go into another process: "
						"the kernel ties the VM to this one's memory");
	return error_set_generic(error, "needs %s, but is %s%s%s", kinds[kind].needs,
				 identity_describe(identity), *detail ? " " : "", detail);
}
