// QMP: the version that is presented.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <jansson.h>

/* The release of the interface that is followed.  Managers read it to know what to expect. */
#define QMP_VERSION_MAJOR 10
#define QMP_VERSION_MINOR 2
#define QMP_VERSION_MICRO 0

/** qmp_version() - query-version's object, also in the greeting; owned by the caller. */
json_t *qmp_version(void);
