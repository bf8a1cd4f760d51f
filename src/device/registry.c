// Every device model that -device can name.
// SPDX-License-Identifier: Apache-2.0
#include "device/device.h"

#include <string.h>

#include "base/error.h"
#include "device/legacy/debugcon.h"
#include "device/pci/root_port.h"
#include "device/virtio/virtio_blk.h"
#include "device/virtio/virtio_console.h"
#include "device/virtio/virtio_rng.h"

/* Sorted by driver name. */
static const struct device_ops *const models[] = {
	&debugcon_ops,	 &root_port_ops,     &virtconsole_ops,	  &virtio_blk_ops,
	&virtio_rng_ops, &virtio_serial_ops, &virtserialport_ops, NULL,
};

const struct device_ops *device_ops_find(const char *driver)
{
	for (uint32_t i = 0; models[i]; i++)
		if (strcmp(models[i]->driver, driver) == 0)
			return models[i];
	return NULL;
}

const struct device_ops *const *device_ops_list(void)
{
	return models;
}

bool device_help(const char *driver, GString *out, GError **error)
{
	const struct device_ops *ops = driver ? device_ops_find(driver) : NULL;

	if (driver && !ops)
		return error_set_generic(
			error, "-device %s: no such device; -device help lists them", driver);
	if (ops) {
		g_string_append_printf(out, "%s: %s\n", ops->driver, ops->help);
		if (ops->props)
			props_help(ops->props, out);
		return true;
	}
	for (uint32_t i = 0; models[i]; i++)
		g_string_append_printf(out, "  %-20s %s\n", models[i]->driver, models[i]->help);
	return true;
}
