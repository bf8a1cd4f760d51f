// Fault injection: fail, hang, kill or leave out a named stage, in builds made for tests.
// SPDX-License-Identifier: Apache-2.0
#include "cpr/fault.h"

#ifdef MOLT_FAULT_INJECTION

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What @variable asks for at this stage; NULL: nothing. */
static char *asked(const char *variable, const char *table, const char *stage)
{
	const char *spec = g_getenv(variable);
	g_auto(GStrv) parts = spec ? g_strsplit(spec, ":", 3) : NULL;

	if (!parts || g_strv_length(parts) != 3 || strcmp(parts[0], table) != 0 ||
	    strcmp(parts[1], stage) != 0)
		return NULL;
	return g_strdup(parts[2]);
}

enum fault fault_check(const char *table, const char *stage)
{
	g_autofree char *what = asked("MOLT_FAULT", table, stage);

	if (!what)
		return FAULT_NONE;
	g_unsetenv("MOLT_FAULT");
	if (strcmp(what, "kill") == 0)
		raise(SIGKILL);
	if (strcmp(what, "stop") == 0) {
		raise(SIGSTOP);
		return FAULT_NONE;
	}
	if (strcmp(what, "abort") == 0)
		abort();
	if (strcmp(what, "exit") == 0)
		_exit(3);
	while (strcmp(what, "hang") == 0)
		pause();
	return strcmp(what, "stall") == 0 ? FAULT_STALL : FAULT_ERROR;
}

bool fault_mutant(const char *table, const char *stage, enum mutant what)
{
	g_autofree char *wanted = asked("MOLT_MUTANT", table, stage);

	return g_strcmp0(wanted, what == MUTANT_SKIP ? "skip" : "no-undo") == 0;
}

#endif
