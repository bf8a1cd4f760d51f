// Run a command in the guest's busybox shell for whoever is at the other end of the serial line.
// SPDX-License-Identifier: Apache-2.0
#include "shell.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUSYBOX	       "/bin/busybox"
#define LONGEST_ESCAPE 6 /* \u00xx */

static void run_child(const char *command, int out)
{
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	execl(BUSYBOX, "sh", "-c", command, (char *)NULL);
	_exit(127);
}

/* Append @byte to @text, which has room for it. */
static size_t escape(char *text, unsigned char byte)
{
	if (byte == '"' || byte == '\\')
		return (size_t)sprintf(text, "\\%c", byte);
	if (byte == '\n')
		return (size_t)sprintf(text, "\\n");
	if (byte < ' ' || byte > '~')
		return (size_t)sprintf(text, "\\u%04x", byte);
	text[0] = (char)byte;
	return 1;
}

static void collect(int in, char *output, size_t size)
{
	unsigned char bytes[512];
	size_t used = 0;
	ssize_t n;

	while ((n = read(in, bytes, sizeof(bytes))) > 0) {
		for (ssize_t i = 0; i < n && used + LONGEST_ESCAPE < size; i++)
			used += escape(output + used, bytes[i]);
	}
	output[used] = '\0';
}

int shell_run(const char *command, char *output, size_t size)
{
	int ends[2];
	int status;

	output[0] = '\0';
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	pid_t child = fork();
	if (child == 0)
		run_child(command, ends[1]);
	close(ends[1]);
	if (child > 0)
		collect(ends[0], output, size);
	close(ends[0]);
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}
