// Every device model that -device can name.
// SPDX-License-Identifier: Apache-2.0
#include "device/device.h"

#include <string.h>

#include "device/legacy/debugcon.h"

/* Sorted by driver name. */
static const struct device_ops *const models[] = {
	&debugcon_ops,
	NULL,
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
