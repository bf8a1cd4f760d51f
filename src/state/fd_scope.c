// Whose a descriptor is, by the first part of its name: what decides how far it crosses.
// SPDX-License-Identifier: Apache-2.0
#include "state/fd_scope.h"

#include <glib.h>

bool fd_is_vms(const char *name)
{
	return !g_str_has_prefix(name, FD_MONITOR_PREFIX) &&
	       !g_str_has_prefix(name, FD_REOPEN_PREFIX) &&
	       !g_str_has_prefix(name, FD_PROCESS_PREFIX);
}

bool fd_crosses(const char *name, enum fd_way way)
{
	return way == FD_WAY_EXEC || fd_is_vms(name);
}
