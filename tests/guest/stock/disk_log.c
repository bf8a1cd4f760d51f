// Numbered, checksummed records on a disk: what the stock guest writes and reads back.
// SPDX-License-Identifier: Apache-2.0
#include "disk_log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RECORD_MAGIC  0x31474f4c544c4f4dULL /* "MOLTLOG1" */
#define FLUSH_EVERY   16
#define PAYLOAD_BYTES (DISK_RECORD_BYTES - 4 * sizeof(uint64_t) - sizeof(uint32_t))

struct record {
	uint64_t magic;
	uint64_t run_id;
	uint64_t seq;
	uint64_t uptime_ns;
	uint8_t payload[PAYLOAD_BYTES];
	uint32_t crc; /* of all bytes before it */
};

_Static_assert(sizeof(struct record) == DISK_RECORD_BYTES, "a record is one sector");

/* O_DIRECT wants alignment; one record is under way at a time. */
static _Alignas(4096) struct record sector;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint32_t crc32(const void *data, size_t size_bytes)
{
	const uint8_t *bytes = data;
	uint32_t crc = ~0u;

	for (size_t i = 0; i < size_bytes; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* Bytes that differ in every record, so that a stale or shifted sector cannot pass. */
static void fill_payload(struct record *record)
{
	uint64_t x = record->seq * 0x9e3779b97f4a7c15ULL ^ record->run_id;

	for (size_t i = 0; i < PAYLOAD_BYTES; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		record->payload[i] = (uint8_t)x;
	}
}

static off_t slot_offset(const struct disk_log *log, uint64_t seq)
{
	return (off_t)((seq - 1) % log->n_slots * DISK_RECORD_BYTES);
}

static void note_time(struct disk_log *log, uint64_t since_ns)
{
	uint64_t took_ns = now_ns() - since_ns;

	if (took_ns > log->max_io_ns)
		log->max_io_ns = took_ns;
}

bool disk_log_open(struct disk_log *log, const char *path)
{
	uint64_t size_bytes = 0;
	int sector_bytes = 0;

	*log = (struct disk_log){.fd = -1};
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (ioctl(fd, BLKGETSIZE64, &size_bytes) < 0 || ioctl(fd, BLKSSZGET, &sector_bytes) < 0 ||
	    sector_bytes != DISK_RECORD_BYTES || size_bytes < DISK_RECORD_BYTES ||
	    getrandom(&log->run_id, sizeof(log->run_id), 0) != sizeof(log->run_id)) {
		close(fd);
		errno = EINVAL;
		return false;
	}
	log->fd = fd;
	log->n_slots = size_bytes / DISK_RECORD_BYTES;
	return true;
}

static void flush(struct disk_log *log)
{
	uint64_t start_ns = now_ns();

	if (fdatasync(log->fd) < 0)
		log->bad++;
	note_time(log, start_ns);
}

void disk_log_append(struct disk_log *log, uint64_t uptime_ns)
{
	if (log->fd < 0)
		return;
	sector = (struct record){
		.magic = RECORD_MAGIC,
		.run_id = log->run_id,
		.seq = log->seq + 1,
		.uptime_ns = uptime_ns,
	};
	fill_payload(&sector);
	sector.crc = crc32(&sector, offsetof(struct record, crc));

	uint64_t start_ns = now_ns();
	ssize_t n = pwrite(log->fd, &sector, sizeof(sector), slot_offset(log, sector.seq));
	note_time(log, start_ns);
	log->seq++;
	if (n != (ssize_t)sizeof(sector))
		log->bad++;
	if (log->seq % FLUSH_EVERY == 0)
		flush(log);
}

static bool record_is_right(const struct disk_log *log, uint64_t seq)
{
	struct record want = {.run_id = log->run_id, .seq = seq};

	fill_payload(&want);
	return sector.magic == RECORD_MAGIC && sector.run_id == log->run_id && sector.seq == seq &&
	       memcmp(sector.payload, want.payload, PAYLOAD_BYTES) == 0 &&
	       sector.crc == crc32(&sector, offsetof(struct record, crc));
}

static void check(struct disk_log *log, uint64_t seq)
{
	uint64_t start_ns = now_ns();

	/* Nothing of the last record may stand in for bytes that were not read. */
	memset(&sector, 0, sizeof(sector));
	ssize_t n = pread(log->fd, &sector, sizeof(sector), slot_offset(log, seq));
	note_time(log, start_ns);
	if (n == (ssize_t)sizeof(sector) && record_is_right(log, seq))
		log->checked++;
	else
		log->bad++;
}

static uint64_t oldest_seq(const struct disk_log *log)
{
	return log->seq > log->n_slots ? log->seq - log->n_slots + 1 : 1;
}

void disk_log_check_next(struct disk_log *log)
{
	if (log->fd < 0 || log->seq == 0)
		return;
	log->cursor++;
	if (log->cursor > log->seq || log->cursor < oldest_seq(log))
		log->cursor = oldest_seq(log);
	check(log, log->cursor);
}

void disk_log_check_all(struct disk_log *log)
{
	if (log->fd < 0)
		return;
	flush(log);
	for (uint64_t seq = oldest_seq(log); seq <= log->seq; seq++)
		check(log, seq);
}
