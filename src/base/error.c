// The error domain: what a function that can fail leaves behind.
// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

GQuark molt_error_quark(void)
{
	return g_quark_from_static_string("molt-error");
}

static bool G_GNUC_PRINTF(3, 0)
	error_set_va(GError **error, enum molt_error_code code, const char *fmt, va_list ap)
{
	if (error)
		*error = g_error_new_valist(MOLT_ERROR, code, fmt, ap);
	return false;
}

bool error_set(GError **error, enum molt_error_code code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_set_va(error, code, fmt, ap);
	va_end(ap);
	return false;
}

bool error_set_generic(GError **error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_set_va(error, MOLT_ERROR_GENERIC, fmt, ap);
	va_end(ap);
	return false;
}

bool error_set_errno(GError **error, int errnum, const char *fmt, ...)
{
	g_autofree char *message = NULL;
	va_list ap;

	va_start(ap, fmt);
	message = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	return error_set(error, MOLT_ERROR_GENERIC, "%s: %s", message, g_strerror(errnum));
}

const char *error_class_name(const GError *error)
{
	if (error->domain != MOLT_ERROR)
		return "GenericError";
	switch ((enum molt_error_code)error->code) {
	case MOLT_ERROR_COMMAND_NOT_FOUND:
		return "CommandNotFound";
	case MOLT_ERROR_DEVICE_NOT_FOUND:
		return "DeviceNotFound";
	case MOLT_ERROR_DEVICE_NOT_ACTIVE:
		return "DeviceNotActive";
	case MOLT_ERROR_KVM_MISSING_CAP:
		return "KVMMissingCap";
	case MOLT_ERROR_GENERIC:
	case MOLT_ERROR_TIMEOUT:
	case MOLT_ERROR_REFUSED:
	case MOLT_ERROR_TOLD_TO_END:
		break;
	}
	return "GenericError";
}
