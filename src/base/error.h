// The error domain: what a function that can fail leaves behind.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <glib.h>

/**
 * DOC: errors
 *
 * Functions that can fail return bool (or NULL) and take GError **error last.  A message names the
 * thing, the reason and, where there is one, the remedy; callers add context with g_prefix_error().
 * Library code does not log what it returns: the entry point (main, a monitor, an update) does,
 * once.
 */

/**
 * enum molt_error_code - The classes a monitor can tell apart
 * @MOLT_ERROR_GENERIC:		Everything that needs no class of its own
 * @MOLT_ERROR_COMMAND_NOT_FOUND: QMP class CommandNotFound
 * @MOLT_ERROR_DEVICE_NOT_FOUND: QMP class DeviceNotFound
 * @MOLT_ERROR_DEVICE_NOT_ACTIVE: QMP class DeviceNotActive
 * @MOLT_ERROR_KVM_MISSING_CAP:	QMP class KVMMissingCap
 * @MOLT_ERROR_TIMEOUT:		A deadline passed
 * @MOLT_ERROR_REFUSED:		The peer answered and said no
 * @MOLT_ERROR_TOLD_TO_END:	The process was told to end meanwhile
 */
enum molt_error_code {
	MOLT_ERROR_GENERIC,
	MOLT_ERROR_COMMAND_NOT_FOUND,
	MOLT_ERROR_DEVICE_NOT_FOUND,
	MOLT_ERROR_DEVICE_NOT_ACTIVE,
	MOLT_ERROR_KVM_MISSING_CAP,
	MOLT_ERROR_TIMEOUT,
	MOLT_ERROR_REFUSED,
	MOLT_ERROR_TOLD_TO_END,
};

#define MOLT_ERROR molt_error_quark()
GQuark molt_error_quark(void);

/**
 * error_set() - Set an error of class @code
 * Return: false, so that callers can write return error_set(...).
 */
bool error_set(GError **error, enum molt_error_code code, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/**
 * error_set_generic() - error_set() with MOLT_ERROR_GENERIC
 * Return: false.
 */
bool error_set_generic(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/**
 * error_set_errno() - Set a generic error whose message ends in ": strerror(@errnum)"
 * Return: false.
 */
bool error_set_errno(GError **error, int errnum, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/** error_class_name() - The QMP class of @error, "GenericError" where it has none of its own. */
const char *error_class_name(const GError *error);
