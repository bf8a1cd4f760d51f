// Numbered, checksummed records on a disk: what the stock guest writes and reads back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DISK_RECORD_BYTES 512

/**
 * struct disk_log - A disk being filled with records, one per 512-byte sector, round and round
 * @fd:          the disk, O_DIRECT; -1 when there is none, and then every call does nothing
 * @n_slots:     sectors used
 * @run_id:      tells this run's records from those of an earlier one
 * @seq:         number of the last record written, from 1; 0 before the first
 * @cursor:      number of the record checked last
 * @checked:     records read back and found right
 * @bad:         failed writes and flushes, and records that did not read back right
 * @max_io_ns:   longest single write, flush or read
 */
struct disk_log {
	int fd;
	uint64_t n_slots;
	uint64_t run_id;
	uint64_t seq;
	uint64_t cursor;
	uint64_t checked;
	uint64_t bad;
	uint64_t max_io_ns;
};

/**
 * disk_log_open() - Start a log on the block device @path.
 *
 * Return: false with errno set when it cannot be used; @log is then a log without a disk.
 */
bool disk_log_open(struct disk_log *log, const char *path);

/** disk_log_append() - Write the next record; every 16th is followed by a flush. */
void disk_log_append(struct disk_log *log, uint64_t uptime_ns);

/** disk_log_check_next() - Read one earlier record back, walking round those still on the disk. */
void disk_log_check_next(struct disk_log *log);

/** disk_log_check_all() - Flush, then read back every record still on the disk. */
void disk_log_check_all(struct disk_log *log);
