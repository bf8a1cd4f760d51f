// One line per message on stderr, never waiting for its reader; a rate limit for what repeats.
// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/stuck.h"

#define LOG_PER_SEC 5

/* How long exit() waits for a reader. */
#define LOG_EXIT_MS 200

/* How often it does so again where the reader has room and only the writer is late. */
#define LOG_EXIT_TRIES 20

/* How soon a thread that could not be made is tried again. */
#define LOG_AGAIN_MS 1000

/* Sources whose suppressed messages are counted at the same time. */
#define LOG_FLOODS 8

/**
 * struct log_flood - Messages of one source that were not said
 * @key:	Its limit; compared, never looked into: it may be gone.  NULL: the entry is free
 * @n:		How many
 * @due_ns:	When the count is told
 * @text:	The last of them
 */
struct log_flood {
	const struct log_limit *key;
	uint32_t n;
	uint64_t due_ns;
	char text[160];
};

/**
 * struct log_queue - What is said and not yet written
 * @lock:	Guards all that follows; never held while something is written
 * @work:	There is something for the writer
 * @done:	The writer has written a line
 * @bytes:	Whole lines, the first at @start
 * @lost:	Lines dropped after the last one in @bytes
 * @running:	The writer's thread is there; else it is made when @again_ns has come
 * @write_ns:	When the write in progress began, 0 without one
 */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t work;
	pthread_cond_t done;
	char bytes[LOG_QUEUE_BYTES];
	size_t start, len;
	uint64_t lost;
	bool running;
	uint64_t again_ns;
	uint64_t write_ns;
	struct log_flood floods[LOG_FLOODS];
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- lines ---- */

/* Append @c to a line of @len bytes, visible; room for the newline stays. */
static size_t line_put(char *line, size_t len, unsigned char c)
{
	static const char digits[] = "0123456789abcdef";
	const char hex[] = {'\\', 'x', digits[c >> 4], digits[c & 15]};
	const char *text = (const char *)&c;
	size_t n = 1;

	if (c == '\n') {
		text = "; ";
		n = 2;
	} else if (c < 0x20 || c == 0x7f) {
		text = hex;
		n = sizeof(hex);
	}
	if (len + n >= LOG_LINE_BYTES)
		return len;
	memcpy(line + len, text, n);
	return len + n;
}

static size_t G_GNUC_PRINTF(3, 0)
	line_format(char *line, const char *level, const char *fmt, va_list ap)
{
	char text[LOG_LINE_BYTES];
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	size_t len = level ? snprintf(line, LOG_LINE_BYTES, "molt: %s", level) : 0;

	n = CLAMP(n, 0, (int)sizeof(text) - 1);
	while (n > 0 && text[n - 1] == '\n')
		n--;
	for (int i = 0; i < n; i++)
		len = line_put(line, len, text[i]);
	line[len++] = '\n';
	return len;
}

/* ---- the queue; its lock is held ---- */

static void queue_append(const char *line, size_t len)
{
	size_t end = (queue.start + queue.len) % LOG_QUEUE_BYTES;
	size_t first = MIN(len, LOG_QUEUE_BYTES - end);

	memcpy(queue.bytes + end, line, first);
	memcpy(queue.bytes, line + first, len - first);
	queue.len += len;
}

/* What was lost is said before the next line that has room, and both or none. */
static void queue_line(const char *line, size_t len)
{
	char note[80];
	size_t note_len = 0;

	if (queue.lost)
		note_len = snprintf(note, sizeof(note),
				    "molt: warning: %" G_GUINT64_FORMAT " lines were lost here\n",
				    queue.lost);
	if (queue.len + note_len + len > LOG_QUEUE_BYTES) {
		queue.lost += len > 0;
		return;
	}
	queue_append(note, note_len);
	queue_append(line, len);
	queue.lost = 0;
}

/* Take the first line out of the queue. */
static size_t queue_take(char *line)
{
	size_t len = 0;

	do {
		line[len] = queue.bytes[queue.start];
		queue.start = (queue.start + 1) % LOG_QUEUE_BYTES;
		queue.len--;
	} while (line[len++] != '\n');
	return len;
}

/* ---- floods; the lock is held ---- */

static void flood_tell(struct log_flood *flood)
{
	char line[LOG_LINE_BYTES];
	size_t len = snprintf(line, sizeof(line),
			      "molt: warning: %u more messages like this were not shown: %s\n",
			      flood->n, flood->text);

	flood->key = NULL;
	queue_line(line, len);
}

/* Tell the counts that are due.  Return: when the next one is, 0 for none. */
static uint64_t floods_tell(uint64_t now_ns)
{
	uint64_t next_ns = 0;

	for (size_t i = 0; i < LOG_FLOODS; i++) {
		struct log_flood *flood = &queue.floods[i];

		if (flood->key && flood->due_ns <= now_ns)
			flood_tell(flood);
		else if (flood->key && (!next_ns || flood->due_ns < next_ns))
			next_ns = flood->due_ns;
	}
	return next_ns;
}

static void flood_count(const struct log_limit *limit, const char *line, size_t len)
{
	const size_t head = strlen("molt: ");
	struct log_flood *flood = NULL;

	for (size_t i = 0; i < LOG_FLOODS; i++)
		if (queue.floods[i].key == limit)
			flood = &queue.floods[i];
	for (size_t i = 0; i < LOG_FLOODS && !flood; i++)
		if (!queue.floods[i].key)
			flood = &queue.floods[i];
	if (!flood)
		flood_tell(flood = &queue.floods[0]);
	if (!flood->key) {
		flood->key = limit;
		flood->n = 0;
		flood->due_ns = limit->window_ns + NS_PER_SEC;
	}
	flood->n++;
	g_snprintf(flood->text, sizeof(flood->text), "%.*s", (int)(len - head - 1), line + head);
}

/* Whether @limit lets this one through, else it is counted. */
static bool limit_passes(struct log_limit *limit, const char *line, size_t len)
{
	uint64_t now_ns = clock_now_ns();

	if (!limit)
		return true;
	floods_tell(now_ns);
	if (now_ns - limit->window_ns >= NS_PER_SEC) {
		limit->window_ns = now_ns;
		limit->n = 0;
	}
	if (limit->n++ < LOG_PER_SEC)
		return true;
	flood_count(limit, line, len);
	return false;
}

/* ---- the writer ---- */

/* A line that cannot be written (EPIPE, ENOSPC) is gone: nobody could be told. */
static void write_line(const char *line, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(STDERR_FILENO, line + done, len - done);
		struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

		if (n > 0)
			done += n;
		else if (n < 0 && errno == EAGAIN)
			(void)poll(&p, 1, -1);
		else if (n < 0 && errno != EINTR)
			return;
	}
}

/* Until there is a line to write. */
static void await_line(void)
{
	while (queue.len == 0) {
		uint64_t due_ns = floods_tell(clock_now_ns());
		struct timespec until = {due_ns / NS_PER_SEC, due_ns % NS_PER_SEC};

		/* What was lost before everything went silent. */
		if (queue.len == 0 && queue.lost)
			queue_line("", 0);
		if (queue.len > 0)
			return;
		if (due_ns)
			pthread_cond_timedwait(&queue.work, &queue.lock, &until);
		else
			pthread_cond_wait(&queue.work, &queue.lock);
	}
}

static void *writer(void *unused)
{
	const bool file = fd_has_store(STDERR_FILENO);
	char line[LOG_LINE_BYTES];

	pthread_mutex_lock(&queue.lock);
	for (;;) {
		size_t len;
		int call;

		await_line();
		len = queue_take(line);
		queue.write_ns = clock_now_ns();
		pthread_mutex_unlock(&queue.lock);
		call = file ? stuck_begin("the log") : -1;
		write_line(line, len);
		stuck_end(call);
		pthread_mutex_lock(&queue.lock);
		queue.write_ns = 0;
		pthread_cond_broadcast(&queue.done);
	}
	return NULL;
}

/* Without a thread: as much as can be written now. */
static void write_what_fits(void)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	char line[LOG_LINE_BYTES];

	while (queue.len > 0 && poll(&p, 1, 0) > 0)
		write_line(line, queue_take(line));
}

/* ---- life ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&queue.lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&queue.lock);
}

static void init_conditions(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&queue.work, &attr);
	pthread_cond_init(&queue.done, &attr);
	pthread_condattr_destroy(&attr);
}

/* Threads stay in the parent, and so does what waits there to be written. */
static void in_child(void)
{
	queue.running = false;
	queue.again_ns = 0;
	queue.start = queue.len = queue.lost = queue.write_ns = 0;
	init_conditions();
	pthread_mutex_unlock(&queue.lock);
}

/* Whether it is not the reader that the writer waits for, but its turn on a processor. */
static bool reader_reads(void)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&p, 1, 0) > 0;
}

static void at_exit(void)
{
	for (int i = 0; i < LOG_EXIT_TRIES; i++)
		if (log_flush(LOG_EXIT_MS) || !reader_reads())
			return;
}

static void init_once(void)
{
	init_conditions();
	pthread_atfork(before_fork, after_fork, in_child);
	atexit(at_exit);
}

/* The lock is held.  The thread takes no signals: those are the main thread's. */
static bool start_writer(void)
{
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_t thread;

	if (queue.running || clock_now_ns() < queue.again_ns)
		return queue.running;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 128U << 10);
	queue.running = pthread_create(&thread, &attr, writer, NULL) == 0;
	queue.again_ns = clock_deadline_ms(LOG_AGAIN_MS);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (queue.running)
		pthread_setname_np(thread, "log");
	return queue.running;
}

static void G_GNUC_PRINTF(3, 0)
	log_line(struct log_limit *limit, const char *level, const char *fmt, va_list ap)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	char line[LOG_LINE_BYTES];
	size_t len = line_format(line, level, fmt, ap);

	pthread_once(&once, init_once);
	pthread_mutex_lock(&queue.lock);
	if (limit_passes(limit, line, len))
		queue_line(line, len);
	if (start_writer())
		pthread_cond_signal(&queue.work);
	else
		write_what_fits();
	pthread_mutex_unlock(&queue.lock);
}

bool log_flush(uint32_t ms)
{
	bool all;
	uint64_t deadline_ns = clock_deadline_ms(ms);
	struct timespec until = {deadline_ns / NS_PER_SEC, deadline_ns % NS_PER_SEC};
	int r = 0;

	pthread_mutex_lock(&queue.lock);
	floods_tell(UINT64_MAX);
	while (queue.running && r == 0 && (queue.len > 0 || queue.write_ns) &&
	       (!queue.write_ns || queue.write_ns + ms * NS_PER_MSEC > clock_now_ns())) {
		pthread_cond_signal(&queue.work);
		r = pthread_cond_timedwait(&queue.done, &queue.lock, &until);
	}
	all = queue.len == 0 && !queue.write_ns;
	pthread_mutex_unlock(&queue.lock);
	return all;
}

/* ---- messages ---- */

void log_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(NULL, "", fmt, ap);
	va_end(ap);
}

void log_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(NULL, "warning: ", fmt, ap);
	va_end(ap);
}

void log_info(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(NULL, "", fmt, ap);
	va_end(ap);
}

void log_plain(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(NULL, NULL, fmt, ap);
	va_end(ap);
}

void log_guest(struct log_limit *limit, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(limit, "guest: ", fmt, ap);
	va_end(ap);
}

void log_rated(struct log_limit *limit, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_line(limit, "warning: ", fmt, ap);
	va_end(ap);
}
