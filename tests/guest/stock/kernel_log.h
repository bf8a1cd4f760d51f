// Watch the guest kernel's log for warnings that nobody expects.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * kernel_log_open() - Open the log at its oldest record.
 *
 * Return: a non-blocking descriptor that is readable when there are records, -1 with errno set.
 */
int kernel_log_open(void);

/**
 * struct kernel_log_entry - One unexpected warning
 * @level:   0 (emergency) to 4 (warning)
 * @time_us: kernel time stamp
 * @text:    the message, without its newline
 */
struct kernel_log_entry {
	unsigned int level;
	uint64_t time_us;
	char text[256];
};

/**
 * kernel_log_next() - Read on to the next warning or worse that is not on the list of expected
 * ones.
 *
 * Return: false when there is none for now.
 */
bool kernel_log_next(int fd, struct kernel_log_entry *entry);
