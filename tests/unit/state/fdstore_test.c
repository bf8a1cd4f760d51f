// Tests of the store's laws: what goes in comes out once, is what it says, and nothing leaks.
// SPDX-License-Identifier: Apache-2.0
#include "state/fdstore.h"

#include <pty.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include "fd_util.h"
#include "state/fd_acquire.h"

static void test_add_take_finish(void)
{
	unsigned int before = test_count_fds();
	struct fdstore *store = fdstore_new();
	g_autoptr(GError) error = NULL;
	int fd = test_memfd("ram");
	int taken;

	g_assert_true(fdstore_add(store, "ram/pc.ram", FD_RAM, fd, &error));
	g_assert_cmpuint(fdstore_count(store), ==, 1);
	g_assert_cmpint(fdstore_find(store, "ram/pc.ram")->fd, !=, fd);
	g_assert_cmpint(fdstore_find(store, "ram/pc.ram")->fd, >=, 3);
	g_assert_null(fdstore_find(store, "ram"));

	g_assert_false(fdstore_finish(store, NULL, NULL, &error));
	test_assert_message(&error, "has no use for: ram/pc.ram");
	taken = fdstore_take(store, "ram/pc.ram", FD_RAM, &error);
	g_assert_no_error(error);
	g_assert_cmpint(fcntl(taken, F_GETFD), ==, FD_CLOEXEC);
	g_assert_true(test_same_file(fd, taken));
	g_assert_true(fdstore_finish(store, NULL, NULL, &error));

	g_assert_cmpint(fdstore_take(store, "ram/pc.ram", FD_RAM, &error), ==, -1);
	test_assert_message(&error, "descriptor ram/pc.ram: was taken before");
	g_assert_cmpint(fdstore_take(store, "ram/pc.bios", FD_RAM, &error), ==, -1);
	test_assert_message(&error, "descriptor ram/pc.bios: was not handed over");

	fdstore_free(store);
	g_assert_cmpint(fcntl(fd, F_GETFD), >=, 0);
	g_assert_cmpint(fcntl(taken, F_GETFD), >=, 0);
	close(fd);
	close(taken);
	g_assert_cmpuint(test_count_fds(), ==, before);
}

static void test_names(void)
{
	autoptr(fdstore) store = fdstore_new();
	g_autofree char *longest = g_strnfill(95, 'x');
	g_autofree char *too_long = g_strnfill(96, 'x');
	g_autoptr(GError) error = NULL;
	autofd int fd = test_memfd("ram");

	g_assert_true(fdstore_add(store, longest, FD_RAM, fd, &error));
	g_assert_false(fdstore_add(store, longest, FD_RAM, fd, &error));
	test_assert_message(&error, "there is one of this name already");
	g_assert_false(fdstore_add(store, too_long, FD_RAM, fd, &error));
	test_assert_message(&error, "cannot name a descriptor");
	g_assert_false(fdstore_add(store, "", FD_RAM, fd, NULL));
	g_assert_false(fdstore_add(store, "two words", FD_RAM, fd, NULL));
	g_assert_false(fdstore_add(store, "new\nline", FD_RAM, fd, NULL));
	g_assert_cmpuint(fdstore_count(store), ==, 1);
}

static void test_bounded(void)
{
	autoptr(fdstore) store = fdstore_new();
	g_autoptr(GError) error = NULL;
	autofd int fd = eventfd(0, EFD_CLOEXEC);
	size_t pos = 0;

	for (int i = 0; i < FDSTORE_MAX; i++) {
		g_autofree char *name = g_strdup_printf("event/%d", i);

		fdstore_add(store, name, FD_EVENT, fd, &error);
		g_assert_no_error(error);
	}
	g_assert_false(fdstore_add(store, "event/more", FD_EVENT, fd, &error));
	test_assert_message(&error, "more than 1024 cannot be handed over");
	for (int i = 0; i < FDSTORE_MAX; i++) {
		g_autofree char *name = g_strdup_printf("event/%d", i);

		g_assert_cmpstr(fdstore_iter(store, &pos)->name, ==, name);
	}
	g_assert_null(fdstore_iter(store, &pos));
}

/* ---- kinds ---- */

static int make_ram(void)
{
	return test_memfd("ram");
}

static int make_file(void)
{
	char path[] = "/tmp/molt-fdstore-test-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	unlink(path);
	return fd;
}

static int make_listen(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* Only the family: the kernel picks an abstract name. */
	g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(sa_family_t)), ==, 0);
	g_assert_cmpint(listen(fd, 1), ==, 0);
	return fd;
}

static int make_stream(void)
{
	int pair[2];

	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
	close(pair[1]);
	return pair[0];
}

static int make_dgram(void)
{
	return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static int make_pipe(void)
{
	int ends[2];

	g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
	close(ends[1]);
	return ends[0];
}

static int make_null(void)
{
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int make_event(void)
{
	return eventfd(0, EFD_CLOEXEC);
}

static int make_epoll(void)
{
	return epoll_create1(EPOLL_CLOEXEC);
}

static int make_timer(void)
{
	return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
}

static int make_exec(void)
{
	return open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static int make_dir(void)
{
	return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

#define KIND(k) (1U << (k))

static void test_kinds(void)
{
	static const struct {
		const char *what;
		int (*make)(void);
		unsigned int fits;
	} cases[] = {
		/* A memfd is executable unless it was made otherwise. */
		{"memfd", make_ram,
		 KIND(FD_RAM) | KIND(FD_IMAGE) | KIND(FD_CHAR) | KIND(FD_OWNER) | KIND(FD_EXEC)},
		{"file", make_file, KIND(FD_RAM) | KIND(FD_IMAGE) | KIND(FD_CHAR)},
		{"listening socket", make_listen, KIND(FD_LISTEN)},
		{"connected socket", make_stream, KIND(FD_STREAM)},
		{"datagram socket", make_dgram, 0},
		{"pipe", make_pipe, KIND(FD_CHAR)},
		{"/dev/null", make_null, KIND(FD_CHAR) | KIND(FD_RAM)},
		{"eventfd", make_event, KIND(FD_EVENT)},
		{"epoll", make_epoll, 0},
		{"timerfd", make_timer, 0},
		{"executable", make_exec,
		 KIND(FD_EXEC) | KIND(FD_RAM) | KIND(FD_IMAGE) | KIND(FD_CHAR)},
		{"directory", make_dir, 0},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		for (unsigned int kind = 0; kind <= FD_KIND_COUNT; kind++) {
			autoptr(fdstore) store = fdstore_new();
			autofd int fd = cases[i].make();
			g_autoptr(GError) error = NULL;
			bool fits = kind < FD_KIND_COUNT && (cases[i].fits & KIND(kind));
			bool added;

			g_assert_cmpint(fd, >=, 0);
			/* tmpfs files answer F_GET_SEALS too: /tmp may be one. */
			if (cases[i].make == make_file && kind == FD_OWNER)
				continue;
			added = fdstore_add(store, "x", kind, fd, &error);
			if (added != fits)
				g_error("%s as %s: %s", cases[i].what, fd_kind_name(kind),
					error ? error->message : "accepted");
		}
	}
}

static void test_kind_messages(void)
{
	autoptr(fdstore) store = fdstore_new();
	autofd int epoll = make_epoll();
	autofd int file = make_file();
	g_autoptr(GError) error = NULL;

	g_assert_false(fdstore_add(store, "net/tap0", FD_TAP, file, &error));
	test_assert_message(&error, "descriptor net/tap0: needs a queue of a tun or tap interface, "
				    "but is a regular file");
	g_assert_false(fdstore_add(store, "x", FD_EVENT, epoll, &error));
	test_assert_message(&error, "needs an eventfd, but is an anonymous inode [eventpoll]");
	g_assert_false(fdstore_add(store, "x", FD_EVENT, -1, &error));
	test_assert_message(&error, "descriptor x: cannot look at descriptor -1: Bad file");
}

static void test_kvm_is_refused(void)
{
	static const struct fd_identity identity = {.detail = "kvm-vm"};
	g_autoptr(GError) error = NULL;

	for (unsigned int kind = 1; kind < FD_KIND_COUNT; kind++) {
		g_assert_false(fd_kind_verify(kind, -1, &identity, &error));
		test_assert_message(&error, "a KVM descriptor cannot go into another process");
	}
}

static void test_terminal(void)
{
	autoptr(fdstore) store = fdstore_new();
	g_autoptr(GError) error = NULL;
	int master, slave;

	if (openpty(&master, &slave, NULL, NULL, NULL) < 0) {
		g_test_skip("no pseudo terminals here");
		return;
	}
	fdstore_add(store, "chardev/serial0", FD_CHAR, master, &error);
	g_assert_no_error(error);
	g_assert_false(fdstore_add(store, "x", FD_TAP, slave, NULL));
	close(master);
	close(slave);
}

static void test_ram_is_sealed(void)
{
	autoptr(fdstore) store = fdstore_new();
	autofd int sealable = test_memfd("ram");
	autofd int plain = memfd_create("plain", MFD_CLOEXEC);
	g_autoptr(GError) error = NULL;

	g_assert_true(fdstore_add(store, "a", FD_RAM, sealable, NULL));
	g_assert_cmpint(fcntl(sealable, F_GET_SEALS), ==, F_SEAL_SHRINK);
	g_assert_cmpint(ftruncate(sealable, 0), ==, -1);
	g_assert_true(fdstore_add(store, "b", FD_RAM, plain, &error));
	/* A seal more than when it was added is the same file still. */
	g_assert_cmpint(fcntl(sealable, F_ADD_SEALS, F_SEAL_GROW), ==, 0);
	fd_close(&sealable);
	sealable = fdstore_take(store, "a", FD_RAM, &error);
	g_assert_no_error(error);
}

/* ---- identity ---- */

/* Put another file under the store's number, as a bug elsewhere in the process would. */
static void test_replaced_file_is_noticed(void)
{
	static int (*const makes[])(void) = {make_ram, make_event, make_stream, make_pipe};
	static const enum fd_kind kinds[] = {FD_RAM, FD_EVENT, FD_STREAM, FD_CHAR};

	for (size_t i = 0; i < G_N_ELEMENTS(makes); i++) {
		autoptr(fdstore) store = fdstore_new();
		autofd int one = makes[i]();
		autofd int two = makes[i]();
		g_autoptr(GError) error = NULL;

		g_assert_true(fdstore_add(store, "x", kinds[i], one, NULL));
		dup3(two, fdstore_find(store, "x")->fd, O_CLOEXEC);
		g_assert_cmpint(fdstore_take(store, "x", kinds[i], &error), ==, -1);
		test_assert_message(&error, "it is another file than was handed over");
	}
}

static void test_identity_differences(void)
{
	struct fd_identity then = {.dev = 1, .ino = 2, .rdev = 3, .mode = S_IFREG, .seals = 1};
	g_autoptr(GError) error = NULL;
	struct fd_identity now;

#define DIFFER(member, value, message)                          \
	now = then;                                             \
	now.member = value;                                     \
	g_assert_false(fd_identity_match(&then, &now, &error)); \
	test_assert_message(&error, message)

	now = then;
	g_assert_true(fd_identity_match(&then, &now, &error));
	DIFFER(dev, 9, "device 0x9, was 0x1");
	DIFFER(ino, 9, "inode 0x9, was 0x2");
	DIFFER(rdev, 9, "device number 0x9, was 0x3");
	DIFFER(mode, S_IFBLK, "type 0x6000, was 0x8000");
	DIFFER(open_flags, O_WRONLY, "open flags 0x1, was 0x0");
	DIFFER(seals, 2, "seals 0x0, was 0x1");
	DIFFER(detail[0], 'x', "x, was ");
	now = then;
	now.seals = 3;
	g_assert_true(fd_identity_match(&then, &now, &error));
}

static void test_take_as_another_kind(void)
{
	autoptr(fdstore) store = fdstore_new();
	autofd int fd = test_memfd("ram");
	g_autoptr(GError) error = NULL;

	fdstore_add(store, "x", FD_RAM, fd, NULL);
	g_assert_cmpint(fdstore_take(store, "x", FD_IMAGE, &error), ==, -1);
	test_assert_message(&error, "was handed over as ram, but image is needed");
	g_assert_false(fdstore_find(store, "x")->taken);
}

/* ---- the door ---- */

static int n_opened;

static int open_event(void *arg, GError **error)
{
	n_opened++;
	return eventfd(0, EFD_CLOEXEC);
}

static int open_fails(void *arg, GError **error)
{
	error_set_generic(error, "cannot open %s", (const char *)arg);
	return -1;
}

static void test_acquire_both_ways(void)
{
	autoptr(fdstore) store = fdstore_new();
	struct fd_source cold = {0};
	struct fd_source warm = {.inherited = store};
	g_autoptr(GError) error = NULL;
	autofd int first = -1;
	autofd int second = -1;
	autofd int new_device = -1;

	n_opened = 0;
	first = fd_acquire(&cold, "dev/event", FD_EVENT, open_event, NULL, &error);
	g_assert_no_error(error);
	g_assert_cmpint(n_opened, ==, 1);
	g_assert_true(fd_source_offer(&cold, store, FD_WAY_EXEC, &error));

	second = fd_acquire(&warm, "dev/event", FD_EVENT, open_event, NULL, &error);
	g_assert_no_error(error);
	g_assert_cmpint(n_opened, ==, 1);
	eventfd_signal(first);
	g_assert_cmpuint(eventfd_drain(second), ==, 1);

	/* A device the predecessor did not have. */
	new_device = fd_acquire(&warm, "dev/other", FD_EVENT, open_event, NULL, &error);
	g_assert_no_error(error);
	g_assert_cmpint(n_opened, ==, 2);
	g_assert_true(fdstore_finish(store, NULL, NULL, NULL));
	/* Its owner is gone before the commit: somebody has to take it again. */
	fd_withdraw(&warm, "dev/event");
	fd_close(&second);
	g_assert_false(fdstore_finish(store, NULL, NULL, NULL));
	second = fd_acquire(&warm, "dev/event", FD_EVENT, open_event, NULL, &error);
	g_assert_no_error(error);
	g_assert_cmpint(n_opened, ==, 2);
	g_assert_true(fdstore_finish(store, NULL, NULL, NULL));
	/* Not while the predecessor is to have handed over all there is. */
	warm.complete = true;
	g_assert_cmpint(fd_acquire(&warm, "dev/third", FD_EVENT, open_event, NULL, &error), ==, -1);
	test_assert_message(&error, "descriptor dev/third: was not handed over");
	g_assert_cmpint(n_opened, ==, 2);
	fd_source_clear(&cold);
	fd_source_clear(&warm);
}

static void test_acquire_failures(void)
{
	autoptr(fdstore) store = fdstore_new();
	struct fd_source source = {.inherited = store};
	g_autoptr(GError) error = NULL;
	autofd int ram = test_memfd("ram");
	unsigned int before;

	g_assert_true(fdstore_add(store, "image", FD_RAM, ram, NULL));
	before = test_count_fds();
	g_assert_cmpint(fd_acquire(&source, "x", FD_IMAGE, open_fails, (void *)"disk", &error), ==,
			-1);
	test_assert_message(&error, "cannot open disk");
	g_assert_cmpint(fd_acquire(NULL, "x", FD_IMAGE, open_event, NULL, &error), ==, -1);
	test_assert_message(&error, "x: needs a regular file or a block device, but is an "
				    "anonymous inode [eventfd]");
	/* Inherited as something else: an error, not a reason to open another. */
	n_opened = 0;
	g_assert_cmpint(fd_acquire(&source, "image", FD_IMAGE, open_event, NULL, &error), ==, -1);
	test_assert_message(&error, "was handed over as ram");
	g_assert_cmpint(n_opened, ==, 0);
	g_assert_cmpuint(test_count_fds(), ==, before);
	fd_source_clear(&source);
}

/* What a store would refuse is known without a store, and while it is only asked for nothing is opened. */
static void test_check(void)
{
	struct fd_source source = {0};
	g_autoptr(GError) error = NULL;
	autofd int fd = make_event();
	unsigned int before;

	g_assert_true(fd_source_check(&source, &error));
	g_assert_true(fd_publish(&source, "good", FD_EVENT, fd, &error));
	before = test_count_fds();
	g_assert_true(fd_source_check(&source, &error));
	g_assert_true(fd_publish(&source, "bad", FD_IMAGE, fd, &error));
	g_assert_false(fd_source_check(&source, &error));
	test_assert_message(&error, "descriptor bad: needs a regular file or a block device");
	fd_withdraw(&source, "bad");
	g_assert_true(fd_publish(&source, "bad name", FD_EVENT, fd, &error));
	g_assert_false(fd_source_check(&source, &error));
	test_assert_message(&error, "'bad name' cannot name a descriptor");
	fd_withdraw(&source, "bad name");
	for (int i = 0; i < FDSTORE_MAX; i++) {
		g_autofree char *name = g_strdup_printf("n%d", i);

		g_assert_true(fd_publish(&source, name, FD_EVENT, fd, &error));
	}
	g_assert_false(fd_source_check(&source, &error));
	test_assert_message(&error, "more than 1024");
	g_assert_cmpuint(test_count_fds(), ==, before);
	fd_source_clear(&source);
}

static void test_live(void)
{
	autoptr(fdstore) store = fdstore_new();
	autoptr(fdstore) all = fdstore_new();
	struct fd_source source = {0};
	g_autoptr(GError) error = NULL;
	autofd int fd = make_event();

	g_assert_true(fd_publish(&source, "b", FD_EVENT, fd, &error));
	g_assert_true(fd_publish(&source, "a", FD_EVENT, fd, &error));
	g_assert_true(fd_publish(&source, "gone", FD_EVENT, fd, &error));
	g_assert_true(fd_publish(&source, "monitor/hmp/connection", FD_EVENT, fd, &error));
	g_assert_false(fd_publish(&source, "a", FD_EVENT, fd, &error));
	test_assert_message(&error, "the name is in use");
	fd_withdraw(&source, "gone");
	fd_withdraw(&source, "never");
	g_assert_cmpint(fd_inherit(&source, "a", FD_EVENT, &error), ==, -1);
	g_assert_no_error(error);
	g_assert_true(fd_source_offer(&source, store, FD_WAY_TRANSFER, &error));
	g_assert_cmpuint(fdstore_count(store), ==, 2);
	g_assert_nonnull(fdstore_find(store, "a"));
	g_assert_nonnull(fdstore_find(store, "b"));
	g_assert_true(fd_source_offer(&source, all, FD_WAY_EXEC, &error));
	g_assert_cmpuint(fdstore_count(all), ==, 3);
	fd_source_clear(&source);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/state/fdstore/add-take-finish", test_add_take_finish);
	g_test_add_func("/state/fdstore/names", test_names);
	g_test_add_func("/state/fdstore/bounded", test_bounded);
	g_test_add_func("/state/fdstore/kinds", test_kinds);
	g_test_add_func("/state/fdstore/kind-messages", test_kind_messages);
	g_test_add_func("/state/fdstore/kvm", test_kvm_is_refused);
	g_test_add_func("/state/fdstore/terminal", test_terminal);
	g_test_add_func("/state/fdstore/ram-sealed", test_ram_is_sealed);
	g_test_add_func("/state/fdstore/replaced", test_replaced_file_is_noticed);
	g_test_add_func("/state/fdstore/identity", test_identity_differences);
	g_test_add_func("/state/fdstore/take-as-another-kind", test_take_as_another_kind);
	g_test_add_func("/state/fd-acquire/both-ways", test_acquire_both_ways);
	g_test_add_func("/state/fd-acquire/failures", test_acquire_failures);
	g_test_add_func("/state/fd-acquire/check", test_check);
	g_test_add_func("/state/fd-acquire/live", test_live);
	return g_test_run();
}
