// Run a command in the guest's busybox shell for whoever is at the other end of the serial line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stddef.h>

/**
 * shell_run() - Run @command and wait until nobody holds its output open any more
 * @output:	What it printed, as the inside of a JSON string, cut off at @size bytes
 *
 * Return: its exit status, -1 if it could not be started or was killed by a signal.
 */
int shell_run(const char *command, char *output, size_t size);
