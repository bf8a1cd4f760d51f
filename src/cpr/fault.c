// Fault injection: fail, hang or kill a named stage, in builds made for tests.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/fault.h"

#ifdef MOLT_FAULT_INJECTION

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum fault fault_check(const char *table, const char *stage)
{
	const char *spec = g_getenv("MOLT_FAULT");
	g_auto(GStrv) parts = NULL;

	if (!spec)
		return FAULT_NONE;
	parts = g_strsplit(spec, ":", 3);
	if (g_strv_length(parts) != 3 || strcmp(parts[0], table) != 0 ||
	    strcmp(parts[1], stage) != 0)
		return FAULT_NONE;
	g_unsetenv("MOLT_FAULT");
	if (strcmp(parts[2], "kill") == 0)
		raise(SIGKILL);
	if (strcmp(parts[2], "stop") == 0) {
		raise(SIGSTOP);
		return FAULT_NONE;
	}
	if (strcmp(parts[2], "abort") == 0)
		abort();
	if (strcmp(parts[2], "exit") == 0)
		_exit(3);
	while (strcmp(parts[2], "hang") == 0)
		pause();
	return strcmp(parts[2], "stall") == 0 ? FAULT_STALL : FAULT_ERROR;
}

#endif
