// Process 1 of a stock Linux guest: beats on the serial line and proves that nothing was lost.
// SPDX-License-Identifier: Apache-2.0
/*
 * Theory of operation
 *
 * One thread, one poll loop, one beat per timer tick (20 ms, or molt.hb_ms=N on the kernel command
 * line).  A beat moves to the next processor, compares the clocks with those of the last beat,
 * appends a record to /dev/vda, reads an earlier one back, and queues one line:
 *
 *     HB seq=N up_ns=N mono_ns=N disk_seq=N bad=N
 *
 * @seq counts lines queued whole, so a hole in it is output lost on the way out.  A line for which
 * there is no room is not queued, but counted ("dropped"), because waiting for the serial line
 * would look like a pause.  Other lines: READY once, KMSG for unexpected kernel warnings (boot:
 * before READY, new: after it), POWER for the power button, and JSON for the commands it reads:
 * status, verify (reads every record back first), mark (restarts the longest gap), sh COMMAND (runs
 * it in a shell while the heart stands still), clock (as short as can be, for whoever compares it
 * with his own when the first byte arrives), watch and unwatch (a process beside this one that does
 * nothing but read clocks), poweroff, reboot.
 *
 * The line is this program's alone: the kernel is told to print nothing but emergencies.  It is
 * the console, or what molt.line=PATH names.  molt.test=NAME chooses another program from the table
 * at the end.  One of them, "busy", has no beat: it looks at the clock all the time, and keeps the
 * longest time between two looks where the host can read it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/reboot.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "busy.h"
#include "clock_watch.h"
#include "disk_log.h"
#include "kernel_log.h"
#include "shell.h"

#define NS_PER_SEC	  1000000000ULL
#define NS_PER_MSEC	  1000000ULL
#define DEFAULT_BEAT_MS	  20
#define MAX_BEAT_MS	  10000
#define INPUT_DEVICES	  8
#define MAX_LINE	  4096
#define KLOG_CONSOLE_OFF  6 /* SYSLOG_ACTION_CONSOLE_OFF */
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* The serial line; @out is queued output, @in the command line being read. */
struct console {
	int fd;
	char out[16384];
	size_t n_out;
	uint64_t dropped;
	char in[512];
	size_t n_in;
};

/* Readings of the three clocks at one beat. */
struct clocks {
	uint64_t mono_ns;
	uint64_t up_ns;
	uint64_t real_ns;
};

struct heart {
	struct console console;
	struct disk_log disk;
	struct clock_watch watch;
	int timer_fd;
	int kmsg_fd;
	int button_fd;
	int n_cpus;
	uint64_t beats;
	uint64_t seq;
	struct clocks last;
	uint64_t max_gap_ns;
	uint64_t max_gap_seq;
	uint64_t clock_back;
	uint64_t kmsg_boot;
	uint64_t kmsg_new;
	bool ready;
};

static uint64_t read_clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* The value of "NAME=value" on the kernel command line, in @value; false when it is not there. */
static bool kernel_argument(const char *name, char *value, size_t size)
{
	char line[4096];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	char *state = NULL;

	if (fd >= 0)
		close(fd);
	line[n > 0 ? n : 0] = '\0';
	for (char *word = strtok_r(line, " \n", &state); word;
	     word = strtok_r(NULL, " \n", &state)) {
		size_t length = strlen(name);
		if (strncmp(word, name, length) == 0 && word[length] == '=') {
			snprintf(value, size, "%s", word + length + 1);
			return true;
		}
	}
	return false;
}

static void console_open(struct console *console)
{
	char path[64] = "/dev/console";
	struct termios mode;

	kernel_argument("molt.line", path, sizeof(path));
	klogctl(KLOG_CONSOLE_OFF, NULL, 0);
	console->fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (console->fd >= 0 && tcgetattr(console->fd, &mode) == 0) {
		cfmakeraw(&mode);
		tcsetattr(console->fd, TCSANOW, &mode);
	}
}

static void console_flush(struct console *console)
{
	ssize_t n = write(console->fd, console->out, console->n_out);

	if (n <= 0)
		return;
	console->n_out -= (size_t)n;
	memmove(console->out, console->out + n, console->n_out);
}

/* Queue a whole line or nothing. */
__attribute__((format(printf, 2, 3))) static bool console_line(struct console *console,
							       const char *format, ...)
{
	char line[MAX_LINE];
	va_list arguments;

	va_start(arguments, format);
	int n = vsnprintf(line, sizeof(line) - 1, format, arguments);
	va_end(arguments);
	if (n < 0 || (size_t)n >= sizeof(line) - 1)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if ((size_t)n > sizeof(console->out) - console->n_out) {
		console->dropped++;
		return false;
	}
	memcpy(console->out + console->n_out, line, (size_t)n);
	console->n_out += (size_t)n;
	console_flush(console);
	return true;
}

/* Does not return.  What was queued goes out first: whoever reads it waits for the last line. */
static void machine_end(struct console *console, int how)
{
	fcntl(console->fd, F_SETFL, 0);
	for (int tries = 0; tries < 100 && console->n_out > 0; tries++)
		console_flush(console);
	tcdrain(console->fd);
	sync();
	reboot(how);
	for (;;)
		pause();
}

static void report_status(struct heart *heart)
{
	const struct disk_log *disk = &heart->disk;
	const struct clock_counts counts = clock_watch_counts(&heart->watch);

	console_line(&heart->console,
		     "{\"seq\":%lu,\"up_ns\":%lu,\"mono_ns\":%lu,\"real_ns\":%lu,"
		     "\"max_gap_ns\":%lu,\"max_gap_seq\":%lu,\"clock_back\":%lu,"
		     "\"disk\":%s,\"disk_seq\":%lu,\"disk_checked\":%lu,\"disk_bad\":%lu,"
		     "\"max_io_ns\":%lu,\"kmsg_boot\":%lu,\"kmsg_new\":%lu,\"dropped\":%lu,"
		     "\"cpus\":%d,\"watch_reads\":%lu,\"mono_back\":%lu,\"real_back\":%lu,"
		     "\"tsc_back\":%lu}",
		     heart->seq, heart->last.up_ns, heart->last.mono_ns, heart->last.real_ns,
		     heart->max_gap_ns, heart->max_gap_seq, heart->clock_back,
		     disk->fd >= 0 ? "true" : "false", disk->seq, disk->checked, disk->bad,
		     disk->max_io_ns, heart->kmsg_boot, heart->kmsg_new, heart->console.dropped,
		     heart->n_cpus, counts.reads, counts.mono_back, counts.real_back,
		     counts.tsc_back);
}

static void command_clock(struct heart *heart)
{
	const uint64_t mono_ns = read_clock_ns(CLOCK_MONOTONIC);

	console_line(&heart->console, "{\"mono_ns\":%lu,\"real_ns\":%lu}", mono_ns,
		     read_clock_ns(CLOCK_REALTIME));
}

static void command_watch(struct heart *heart)
{
	clock_watch_start(&heart->watch);
	report_status(heart);
}

static void command_unwatch(struct heart *heart)
{
	clock_watch_stop(&heart->watch);
	report_status(heart);
}

static void command_verify(struct heart *heart)
{
	disk_log_check_all(&heart->disk);
	report_status(heart);
	/* Reading may have taken long; that is no pause of the machine. */
	heart->last.mono_ns = 0;
}

static void command_mark(struct heart *heart)
{
	report_status(heart);
	heart->max_gap_ns = 0;
	heart->max_gap_seq = 0;
}

static void command_sh(struct heart *heart, const char *command)
{
	char output[MAX_LINE - 64];
	int status = shell_run(command, output, sizeof(output));

	console_line(&heart->console, "{\"status\":%d,\"output\":\"%s\"}", status, output);
	heart->last.mono_ns = 0;
}

static void command_poweroff(struct heart *heart)
{
	machine_end(&heart->console, RB_POWER_OFF);
}

static void command_reboot(struct heart *heart)
{
	machine_end(&heart->console, RB_AUTOBOOT);
}

static void run_command(struct heart *heart, const char *line)
{
	static const struct {
		const char *name;
		void (*run)(struct heart *heart);
	} commands[] = {
		{"status", report_status},	{"verify", command_verify},
		{"mark", command_mark},		{"clock", command_clock},
		{"watch", command_watch},	{"unwatch", command_unwatch},
		{"poweroff", command_poweroff}, {"reboot", command_reboot},
	};

	if (line[0] == '\0')
		return;
	if (strncmp(line, "sh ", 3) == 0) {
		command_sh(heart, line + 3);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(line, commands[i].name) == 0) {
			commands[i].run(heart);
			return;
		}
	}
	console_line(&heart->console, "{\"error\":\"unknown command\"}");
}

static void read_commands(struct heart *heart)
{
	struct console *console = &heart->console;
	char byte;

	while (read(console->fd, &byte, 1) == 1) {
		if (byte == '\n' || byte == '\r') {
			console->in[console->n_in] = '\0';
			console->n_in = 0;
			run_command(heart, console->in);
		} else if (console->n_in < sizeof(console->in) - 1) {
			console->in[console->n_in++] = byte;
		}
	}
}

static void read_kernel_log(struct heart *heart)
{
	struct kernel_log_entry entry;

	while (kernel_log_next(heart->kmsg_fd, &entry)) {
		if (heart->ready)
			heart->kmsg_new++;
		else
			heart->kmsg_boot++;
		console_line(&heart->console, "KMSG %s level=%u time_us=%lu %s",
			     heart->ready ? "new" : "boot", entry.level, entry.time_us, entry.text);
	}
}

static void read_button(struct heart *heart)
{
	struct input_event event;

	while (read(heart->button_fd, &event, sizeof(event)) == (ssize_t)sizeof(event)) {
		if (event.type != EV_KEY || event.code != KEY_POWER || event.value != 1)
			continue;
		console_line(&heart->console, "POWER button");
		machine_end(&heart->console, RB_POWER_OFF);
	}
}

/* The ACPI power button among the input devices, or -1. */
static int open_power_button(void)
{
	for (int i = 0; i < INPUT_DEVICES; i++) {
		char path[32];
		char name[64] = "";

		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (ioctl(fd, EVIOCGNAME(sizeof(name) - 1), name) > 0 && strstr(name, "Power"))
			return fd;
		close(fd);
	}
	return -1;
}

/* A clock that differs between processors shows only to a program that visits them all. */
static void visit_cpu(uint64_t beat, int n_cpus)
{
	cpu_set_t set;

	if (n_cpus < 2)
		return;
	CPU_ZERO(&set);
	CPU_SET(beat % (size_t)n_cpus, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void check_clocks(struct heart *heart)
{
	struct clocks now = {
		.mono_ns = read_clock_ns(CLOCK_MONOTONIC),
		.up_ns = read_clock_ns(CLOCK_BOOTTIME),
		.real_ns = read_clock_ns(CLOCK_REALTIME),
	};

	if (now.mono_ns < heart->last.mono_ns || now.up_ns < heart->last.up_ns ||
	    now.real_ns < heart->last.real_ns)
		heart->clock_back++;
	else if (heart->last.mono_ns && now.mono_ns - heart->last.mono_ns > heart->max_gap_ns) {
		heart->max_gap_ns = now.mono_ns - heart->last.mono_ns;
		heart->max_gap_seq = heart->seq + 1;
	}
	heart->last = now;
}

static void beat(struct heart *heart)
{
	uint64_t ticks;

	if (read(heart->timer_fd, &ticks, sizeof(ticks)) != (ssize_t)sizeof(ticks))
		return;
	visit_cpu(heart->beats++, heart->n_cpus);
	check_clocks(heart);
	disk_log_append(&heart->disk, heart->last.up_ns);
	disk_log_check_next(&heart->disk);
	if (console_line(&heart->console, "HB seq=%lu up_ns=%lu mono_ns=%lu disk_seq=%lu bad=%lu",
			 heart->seq + 1, heart->last.up_ns, heart->last.mono_ns, heart->disk.seq,
			 heart->disk.bad + heart->clock_back))
		heart->seq++;
}

static uint64_t beat_interval_ns(void)
{
	char text[16];
	unsigned long ms = DEFAULT_BEAT_MS;

	if (kernel_argument("molt.hb_ms", text, sizeof(text)))
		ms = strtoul(text, NULL, 10);
	if (ms < 1 || ms > MAX_BEAT_MS)
		ms = DEFAULT_BEAT_MS;
	return ms * NS_PER_MSEC;
}

static void heart_open(struct heart *heart)
{
	uint64_t interval_ns = beat_interval_ns();
	struct timespec ts = {(time_t)(interval_ns / NS_PER_SEC), (long)(interval_ns % NS_PER_SEC)};
	struct itimerspec every = {.it_value = ts, .it_interval = ts};
	struct utsname kernel;

	heart->kmsg_fd = kernel_log_open();
	if (heart->kmsg_fd >= 0)
		read_kernel_log(heart);
	heart->ready = true;
	if (!disk_log_open(&heart->disk, "/dev/vda"))
		console_line(&heart->console, "NODISK %s", strerror(errno));
	heart->button_fd = open_power_button();
	heart->n_cpus = get_nprocs();
	heart->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	timerfd_settime(heart->timer_fd, 0, &every, NULL);
	uname(&kernel);
	console_line(&heart->console,
		     "READY up_ns=%lu kernel=%s cpus=%d pages=%ld disk_sectors=%lu button=%d",
		     read_clock_ns(CLOCK_BOOTTIME), kernel.release, heart->n_cpus,
		     sysconf(_SC_PHYS_PAGES), heart->disk.n_slots, heart->button_fd >= 0);
}

static void run_heartbeat(struct console *console)
{
	static struct heart heart;

	heart.console = *console;
	heart_open(&heart);
	for (;;) {
		short out = heart.console.n_out > 0 ? POLLOUT : 0;
		struct pollfd fds[] = {
			{.fd = heart.timer_fd, .events = POLLIN},
			{.fd = heart.console.fd, .events = (short)(POLLIN | out)},
			{.fd = heart.kmsg_fd, .events = POLLIN},
			{.fd = heart.button_fd, .events = POLLIN},
		};

		poll(fds, ARRAY_SIZE(fds), -1);
		if (fds[0].revents)
			beat(&heart);
		if (fds[1].revents & POLLOUT)
			console_flush(&heart.console);
		if (fds[1].revents & POLLIN)
			read_commands(&heart);
		if (fds[2].revents)
			read_kernel_log(&heart);
		if (fds[3].revents)
			read_button(&heart);
	}
}

static void run_busy(struct console *console)
{
	uint64_t gpa = 0;
	struct busy *busy = busy_open(&gpa);

	if (!busy) {
		console_line(console, "FAIL no page that the host can watch");
		machine_end(console, RB_POWER_OFF);
	}
	console_line(console, "READY up_ns=%lu page=%lu", read_clock_ns(CLOCK_BOOTTIME), gpa);
	busy_run(busy);
}

static void run_poweroff(struct console *console)
{
	console_line(console, "READY up_ns=%lu", read_clock_ns(CLOCK_BOOTTIME));
	machine_end(console, RB_POWER_OFF);
}

static void run_reboot(struct console *console)
{
	console_line(console, "READY up_ns=%lu", read_clock_ns(CLOCK_BOOTTIME));
	machine_end(console, RB_AUTOBOOT);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(struct console *console);
	} tests[] = {
		{"heartbeat", run_heartbeat},
		{"busy", run_busy},
		{"poweroff", run_poweroff},
		{"reboot", run_reboot},
	};
	static struct console console;
	char name[32] = "heartbeat";

	console_open(&console);
	kernel_argument("molt.test", name, sizeof(name));
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		if (strcmp(name, tests[i].name) == 0)
			tests[i].run(&console);
	}
	console_line(&console, "FAIL no test named %s", name);
	machine_end(&console, RB_POWER_OFF);
}
