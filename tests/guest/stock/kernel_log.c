// Watch the guest kernel's log for warnings that nobody expects.
// SPDX-License-Identifier: Apache-2.0
#include "kernel_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WORST_HARMLESS_LEVEL 5 /* KERN_NOTICE */

/* Warnings that a healthy stock kernel gives on any small virtual machine, with the reason. */
static const char *const expected[] = {
	/* This program opens the log while others write to it. */
	"printk: ",
	/* Debian's kernel says so of every module the initramfs loads unsigned by its own key. */
	"module verification failed",
	/* A guest without a firmware TPM. */
	"ima: No TPM chip found",
	/* No firmware interface for processor performance on a virtual machine. */
	"amd_pstate: ",
	/* The administrator's choice on the command line of the tests. */
	"mitigations=off",
	/* The processor model is what the host has, its bugs included. */
	"Spectre V2 : ",
	"MDS CPU bug present",
	"TAA CPU bug present",
	"MMIO Stale Data CPU bug present",
	"RETBleed: ",
	"Speculative Return Stack Overflow: ",
	"Transient Scheduler Attacks: ",
	"VMSCAPE: ",
};

int kernel_log_open(void)
{
	return open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static bool is_expected(const char *text)
{
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		if (strstr(text, expected[i]))
			return true;
	}
	return false;
}

/* A record is "prefix,seq,time_us,flags;text\n key=value\n..."; the prefix is facility * 8 + level.
 */
static bool parse(const char *record, struct kernel_log_entry *entry)
{
	unsigned int prefix;
	const char *text = strchr(record, ';');

	if (!text || sscanf(record, "%u,%*u,%lu", &prefix, &entry->time_us) != 2)
		return false;
	/* Another facility is a user's program, such as init. */
	if (prefix >> 3 != 0)
		return false;
	entry->level = prefix & 7;
	snprintf(entry->text, sizeof(entry->text), "%.*s", (int)strcspn(text + 1, "\n"), text + 1);
	return true;
}

bool kernel_log_next(int fd, struct kernel_log_entry *entry)
{
	char record[8192];

	for (;;) {
		ssize_t n = read(fd, record, sizeof(record) - 1);
		if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue; /* EPIPE: older records were overwritten */
		if (n <= 0)
			return false;
		record[n] = '\0';
		if (parse(record, entry) && entry->level < WORST_HARMLESS_LEVEL &&
		    !is_expected(entry->text))
			return true;
	}
}
