// A disk image on a file system that hangs or fails on command: what storage does on a bad day.
// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * hungfs DIRECTORY BYTES mounts a FUSE file system on DIRECTORY whose only file is "img", a disk image
 * in this program's memory.  It speaks the kernel's protocol itself (linux/fuse.h), so nothing else is
 * needed but the right to mount.  Commands come on stdin, one a line, and are answered on stdout, one a
 * line; with stdin it ends and unmounts.
 *
 *	hang [OP]	hold requests of that kind (read, write, flush; all three) back; also close, which
 *		is what a close() waits for, attr, for fstat() and ftruncate(), and dir, for whatever
 *		follows a path or looks at the directory
 *	hang-hard [OP]	the same, and even a process that is killed waits for them
 *	go		answer what is held, hold no more
 *	fail OP ERRNO	let requests of that kind fail with that number; 0: no more
 *	wait N		answer when N requests are held
 *	held		answer with the number of requests that are held
 *	count		answer with how many reads, writes and flushes have been carried out
 *
 * Single-threaded: a request that hangs is one that is not answered yet.
 */

#define MESSAGE_BYTES (1U << 18)
#define WRITE_MAX     (128U << 10)
#define HELD_MAX      1024
#define IMAGE_NODE    2

enum kind { KIND_READ, KIND_WRITE, KIND_FLUSH, KIND_CLOSE, KIND_ATTR, KIND_DIR, KIND_N };

static const char *const kinds[KIND_N] = {"read", "write", "flush", "close", "attr", "dir"};

static int fuse_fd;
static uint8_t *image;
static uint64_t image_bytes;
static bool hangs[KIND_N], hard;
static int fails[KIND_N];
static unsigned long n_done[KIND_N];
static uint8_t *held[HELD_MAX];
static unsigned int n_held, n_awaited;

static void die(const char *what)
{
	fprintf(stderr, "hungfs: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void reply(uint64_t unique, int error, const void *data, size_t len)
{
	static uint8_t out[sizeof(struct fuse_out_header) + MESSAGE_BYTES];
	struct fuse_out_header header = {
		.len = sizeof(header) + len, .error = -error, .unique = unique};

	memcpy(out, &header, sizeof(header));
	if (len)
		memcpy(out + sizeof(header), data, len);
	/* ENOENT: whoever asked has been killed. */
	if (write(fuse_fd, out, header.len) < 0 && errno != ENOENT)
		die("write");
}

static void fill_attr(struct fuse_attr *attr, uint64_t node)
{
	*attr = (struct fuse_attr){
		.ino = node,
		.size = node == IMAGE_NODE ? image_bytes : 0,
		.blocks = node == IMAGE_NODE ? image_bytes / 512 : 0,
		.mode = node == IMAGE_NODE ? S_IFREG | 0644 : S_IFDIR | 0755,
		.nlink = 1,
		.blksize = 4096,
	};
}

static void init(const struct fuse_in_header *in)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = 31,
		.max_readahead = WRITE_MAX,
		.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES,
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = WRITE_MAX,
		.time_gran = 1,
	};

	reply(in->unique, 0, &out, sizeof(out));
}

static void look_up(const struct fuse_in_header *in)
{
	struct fuse_entry_out out = {.nodeid = IMAGE_NODE, .entry_valid = 1};

	fill_attr(&out.attr, IMAGE_NODE);
	if (strcmp((const char *)(in + 1), "img") == 0)
		reply(in->unique, 0, &out, sizeof(out));
	else
		reply(in->unique, ENOENT, NULL, 0);
}

static void get_attr(const struct fuse_in_header *in)
{
	struct fuse_attr_out out = {0};

	fill_attr(&out.attr, in->nodeid);
	reply(in->unique, 0, &out, sizeof(out));
}

static void read_image(const struct fuse_in_header *in)
{
	const struct fuse_read_in *arg = (const void *)(in + 1);
	uint64_t left = arg->offset < image_bytes ? image_bytes - arg->offset : 0;

	reply(in->unique, 0, image + arg->offset, arg->size < left ? arg->size : left);
}

static void write_image(const struct fuse_in_header *in)
{
	const struct fuse_write_in *arg = (const void *)(in + 1);
	struct fuse_write_out out = {.size = arg->size};

	if (arg->offset > image_bytes || arg->size > image_bytes - arg->offset) {
		reply(in->unique, ENOSPC, NULL, 0);
		return;
	}
	memcpy(image + arg->offset, arg + 1, arg->size);
	reply(in->unique, 0, &out, sizeof(out));
}

static void carry_out(const struct fuse_in_header *in, enum kind kind)
{
	n_done[kind]++;
	if (fails[kind])
		reply(in->unique, fails[kind], NULL, 0);
	else if (kind == KIND_READ)
		read_image(in);
	else if (kind == KIND_WRITE)
		write_image(in);
	else if (in->opcode == FUSE_LOOKUP)
		look_up(in);
	else if (kind == KIND_ATTR || kind == KIND_DIR)
		get_attr(in);
	else
		reply(in->unique, 0, NULL, 0);
}

static enum kind kind_of(const struct fuse_in_header *in)
{
	switch (in->opcode) {
	case FUSE_READ:
		return KIND_READ;
	case FUSE_WRITE:
		return KIND_WRITE;
	case FUSE_FSYNC:
		return KIND_FLUSH;
	case FUSE_FLUSH:
		return KIND_CLOSE;
	case FUSE_LOOKUP:
		return KIND_DIR;
	default:
		return in->nodeid == IMAGE_NODE ? KIND_ATTR : KIND_DIR;
	}
}

static void answer_or_hold(const struct fuse_in_header *in)
{
	const enum kind kind = kind_of(in);

	if (!hangs[kind]) {
		carry_out(in, kind);
		return;
	}
	if (n_held == HELD_MAX) {
		reply(in->unique, ENOMEM, NULL, 0);
		return;
	}
	held[n_held] = malloc(in->len);
	memcpy(held[n_held++], in, in->len);
	if (n_awaited && n_held >= n_awaited) {
		n_awaited = 0;
		puts("ok");
	}
}

/* Who asked was killed, or got a signal. */
static void interrupt(const struct fuse_in_header *in)
{
	const struct fuse_interrupt_in *arg = (const void *)(in + 1);

	for (unsigned int i = 0; i < n_held && !hard; i++) {
		const struct fuse_in_header *other = (const void *)held[i];

		if (other->unique != arg->unique)
			continue;
		reply(other->unique, EINTR, NULL, 0);
		free(held[i]);
		held[i] = held[--n_held];
		return;
	}
}

static void serve(const struct fuse_in_header *in)
{
	struct fuse_open_out open_out = {.fh = 1, .open_flags = FOPEN_DIRECT_IO};
	struct fuse_statfs_out statfs_out = {.st = {.blocks = 1 << 20,
						    .bfree = 1 << 20,
						    .bavail = 1 << 20,
						    .bsize = 4096,
						    .namelen = 255,
						    .frsize = 4096}};

	switch (in->opcode) {
	case FUSE_INIT:
		init(in);
		break;
	case FUSE_LOOKUP:
	case FUSE_GETATTR:
	case FUSE_SETATTR:
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_FSYNC:
	case FUSE_FLUSH:
		answer_or_hold(in);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		open_out.open_flags = in->opcode == FUSE_OPEN ? FOPEN_DIRECT_IO : 0;
		reply(in->unique, 0, &open_out, sizeof(open_out));
		break;
	case FUSE_STATFS:
		reply(in->unique, 0, &statfs_out, sizeof(statfs_out));
		break;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_READDIR:
		reply(in->unique, 0, NULL, 0);
		break;
	case FUSE_INTERRUPT:
		interrupt(in);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		break;
	case FUSE_FALLOCATE:
		reply(in->unique, EOPNOTSUPP, NULL, 0);
		break;
	default:
		reply(in->unique, ENOSYS, NULL, 0);
	}
}

static void release_held(void)
{
	memset(hangs, 0, sizeof(hangs));
	for (unsigned int i = 0; i < n_held; i++) {
		const struct fuse_in_header *in = (const void *)held[i];

		carry_out(in, kind_of(in));
		free(held[i]);
	}
	n_held = 0;
}

/* Bits of the kinds that @name means; "" means those of a disk. */
static unsigned int kinds_named(const char *name)
{
	unsigned int bits = 0;

	for (int kind = 0; kind < KIND_N; kind++)
		if (*name ? strcmp(name, kinds[kind]) == 0 : kind <= KIND_FLUSH)
			bits |= 1u << kind;
	return bits;
}

static void hang(const char *name)
{
	for (int kind = 0; kind < KIND_N; kind++)
		hangs[kind] |= kinds_named(name) >> kind & 1;
}

static void fail(const char *name, int error)
{
	for (int kind = 0; kind < KIND_N; kind++)
		if (kinds_named(name) >> kind & 1)
			fails[kind] = error;
}

static void command(const char *line)
{
	char word[16] = "", name[16] = "";
	unsigned int number = 0;
	int n = sscanf(line, "%15s %15s %u", word, name, &number);

	if (strcmp(word, "hang") == 0 || strcmp(word, "hang-hard") == 0) {
		hard = word[4];
		hang(n > 1 ? name : "");
	} else if (strcmp(word, "go") == 0) {
		release_held();
	} else if (strcmp(word, "fail") == 0 && n == 3) {
		fail(name, (int)number);
	} else if (strcmp(word, "wait") == 0 && n > 1) {
		n_awaited = (unsigned int)strtoul(name, NULL, 10);
		if (n_held < n_awaited)
			return;
		n_awaited = 0;
	} else if (strcmp(word, "held") == 0) {
		printf("%u\n", n_held);
		return;
	} else if (strcmp(word, "count") == 0) {
		printf("%lu %lu %lu\n", n_done[0], n_done[1], n_done[2]);
		return;
	} else {
		puts("what?");
		return;
	}
	puts("ok");
}

/* Return: false at the end of stdin. */
static bool commands(void)
{
	static char buf[256];
	static size_t len;
	ssize_t n = read(STDIN_FILENO, buf + len, sizeof(buf) - 1 - len);
	char *end;

	if (n <= 0)
		return false;
	len += (size_t)n;
	buf[len] = 0;
	while ((end = strchr(buf, '\n'))) {
		*end++ = 0;
		command(buf);
		len -= (size_t)(end - buf);
		memmove(buf, end, len + 1);
	}
	return len < sizeof(buf) - 1;
}

static void loop(void)
{
	static uint8_t message[MESSAGE_BYTES] __attribute__((aligned(8)));
	struct pollfd fds[2] = {{.fd = fuse_fd, .events = POLLIN},
				{.fd = STDIN_FILENO, .events = POLLIN}};

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			die("poll");
		if (fds[1].revents && !commands())
			return;
		if (!fds[0].revents)
			continue;
		if (read(fuse_fd, message, sizeof(message)) > 0)
			serve((const void *)message);
		else if (errno == ENODEV)
			return;
	}
}

int main(int argc, char **argv)
{
	char options[96];

	if (argc != 3) {
		fprintf(stderr, "usage: hungfs DIRECTORY BYTES\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	image_bytes = strtoull(argv[2], NULL, 10);
	image = calloc(1, image_bytes + 1);
	fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (!image || fuse_fd < 0)
		die("/dev/fuse");
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other", fuse_fd, getuid(),
		 getgid());
	if (mount("hungfs", argv[1], "fuse", MS_NOSUID | MS_NODEV, options) < 0)
		die("mount");
	puts("ready");
	loop();
	umount2(argv[1], MNT_DETACH);
	return 0;
}
