// The common part of devices: birth from properties, realize, death.
// SPDX-License-Identifier: Apache-2.0
#include "device/device.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"

static void *device_props(struct device *dev)
{
	return (uint8_t *)dev + dev->ops->props_offset;
}

/* A model without properties takes none: name the first that was given. */
static bool refuse_props(const json_t *props, const char *what, GError **error)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)props, key, value) return error_set_generic(
		error, "%s: there is no property '%s'", what, key);
	return true;
}

static bool read_props(struct device *dev, const json_t *props, GError **error)
{
	const struct device_ops *ops = dev->ops;
	const char *what = ops->driver ? ops->driver : ops->name;
	json_t *none;
	bool ok;

	if (!ops->props)
		return refuse_props(props, what, error);
	if (props)
		return props_from_json(ops->props, props, device_props(dev), what, error);
	none = json_object();
	ok = props_from_json(ops->props, none, device_props(dev), what, error);
	json_decref(none);
	return ok;
}

struct device *device_new(const struct device_ops *ops, const char *id, const json_t *props,
			  GError **error)
{
	struct device *dev = g_malloc0(ops->size);

	dev->ops = ops;
	dev->still.drained = ops->drain;
	dev->still.quiesced = true;
	dev->id = g_strdup(id);
	g_mutex_init(&dev->lock);
	if (read_props(dev, props, error))
		return dev;
	device_free(dev);
	return NULL;
}

bool device_realize(struct device *dev, char *path, struct device_env *env, GError **error)
{
	dev->path = path;
	dev->env = env;
	if (!dev->ops->realize(dev, env, error)) {
		g_prefix_error(error, "%s: ", dev->ops->driver ? dev->ops->driver : dev->ops->name);
		return false;
	}
	dev->ops->reset(dev);
	return true;
}

void device_drained(struct device *dev)
{
	__atomic_store_n(&dev->drained, 1, __ATOMIC_RELEASE);
	if (dev->env->drained)
		dev->env->drained(dev->env->opaque);
}

void device_free(struct device *dev)
{
	if (!dev)
		return;
	if (dev->env)
		dev->ops->unrealize(dev);
	if (dev->ops->props)
		props_clear(dev->ops->props, device_props(dev));
	g_mutex_clear(&dev->lock);
	g_free(dev->path);
	g_free(dev->id);
	g_free(dev);
}

void *device_state(struct device *dev)
{
	return dev->ops->state ? (uint8_t *)dev + dev->ops->state_offset : NULL;
}

bool device_map_pio(struct device *dev, struct io_region *region, const char *name, uint16_t port,
		    uint32_t size_bytes, const struct io_ops *ops, GError **error)
{
	*region = (struct io_region){
		.name = name,
		.size_bytes = size_bytes,
		.ops = ops,
		.opaque = dev,
		.lock = &dev->lock,
	};
	return io_space_add(dev->env->pio, region, port, error);
}

void device_unmap_pio(struct device *dev, struct io_region *region)
{
	io_space_remove(dev->env->pio, region);
}

uint64_t device_clock_ns(const struct device *dev)
{
	return dev->env->clock_ns ? dev->env->clock_ns() : clock_now_ns();
}

uint64_t device_wall_ns(const struct device *dev)
{
	struct timespec now;

	if (dev->env->wall_ns)
		return dev->env->wall_ns();
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}
