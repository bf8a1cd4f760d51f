// Disks: -drive, and -blockdev's layers flattened into one struct block_config per disk.
// SPDX-License-Identifier: Apache-2.0
#include "options/parse.h"

#include <string.h>

#include "base/error.h"
#include "options/text.h"

#define DRIVE_INDEX_MAX 63

enum drive_interface { DRIVE_VIRTIO, DRIVE_NONE };
enum drive_discard { DISCARD_IGNORE, DISCARD_OFF, DISCARD_UNMAP, DISCARD_ON };
enum drive_cache {
	CACHE_WRITEBACK,
	CACHE_NONE,
	CACHE_WRITETHROUGH,
	CACHE_DIRECTSYNC,
	CACHE_UNSAFE,
};

static const char *const interface_names[] = {"virtio", "none", NULL};
static const char *const discard_names[] = {"ignore", "off", "unmap", "on", NULL};
static const char *const media_names[] = {"disk", NULL};
static const char *const format_names[] = {"raw", NULL};
static const char *const aio_names[] = {"io_uring", "threads", NULL};
/* A read needs no space; the places are those of enum block_on_error. */
static const char *const read_error_names[] = {"auto", "report", "ignore", "stop", NULL};
static const char *const cache_names[] = {
	[CACHE_WRITEBACK] = "writeback",
	[CACHE_NONE] = "none",
	[CACHE_WRITETHROUGH] = "writethrough",
	[CACHE_DIRECTSYNC] = "directsync",
	[CACHE_UNSAFE] = "unsafe",
	NULL,
};

struct drive_args {
	char *file;
	char *id;
	enum drive_interface interface;
	uint32_t index;
	int media;
	int format;
	enum drive_cache cache;
	enum on_off_auto cache_direct, cache_no_flush;
	enum block_aio aio;
	bool read_only;
	enum drive_discard discard;
	enum block_on_error werror, rerror;
};

#define DRIVE(key, kind, member, ...)                                       \
	{                                                                   \
		key, kind, offsetof(struct drive_args, member), __VA_ARGS__ \
	}

const struct prop drive_props[] = {
	DRIVE("file", PROP_STRING, file, .required = true, .help = "image or block device"),
	DRIVE("if", PROP_ENUM, interface, .names = interface_names, .def = "virtio",
	      .help = "virtio: with a virtio-blk-pci; none: -device follows"),
	DRIVE("id", PROP_STRING, id, .help = "name for -device drive=ID"),
	DRIVE("index", PROP_U32, index, .max = DRIVE_INDEX_MAX, .help = "if=virtio: its number"),
	DRIVE("media", PROP_ENUM, media, .names = media_names, .def = "disk", .help = "medium"),
	DRIVE("format", PROP_ENUM, format, .names = format_names, .def = "raw",
	      .help = "raw also unless given, but then no other format's header is accepted"),
	DRIVE("cache", PROP_ENUM, cache, .names = cache_names, .def = "writeback",
	      .help = "how the host's page cache and flushes are used"),
	DRIVE("cache.direct", PROP_ON_OFF_AUTO, cache_direct, .def = "auto",
	      .help = "O_DIRECT; auto: as cache= says"),
	DRIVE("cache.no-flush", PROP_ON_OFF_AUTO, cache_no_flush, .def = "auto",
	      .help = "ignore flushes; auto: as cache= says"),
	DRIVE("aio", PROP_ENUM, aio, .names = aio_names, .def = "io_uring",
	      .help = "falls back to threads where the kernel forbids io_uring"),
	DRIVE("read-only", PROP_BOOL, read_only, .def = "off", .help = "also readonly="),
	DRIVE("discard", PROP_ENUM, discard, .names = discard_names, .def = "ignore",
	      .help = "what the guest's discards do to the image"),
	DRIVE("werror", PROP_ENUM, werror, .names = block_on_error_names, .def = "enospc",
	      .help = "writes that fail: stop the VM if no space is left, or as named"),
	DRIVE("rerror", PROP_ENUM, rerror, .names = read_error_names, .def = "report",
	      .help = "reads that fail: the guest gets the error, or as named"),
	{.name = NULL},
};

static bool on_unless_auto(enum on_off_auto given, bool otherwise)
{
	return given == ON_OFF_AUTO ? otherwise : given == ON_OFF_ON;
}

static void drive_add_block(struct parse *p, const struct drive_args *args, bool format_given,
			    const char *id)
{
	struct block_config *block = g_new0(struct block_config, 1);
	bool direct = args->cache == CACHE_NONE || args->cache == CACHE_DIRECTSYNC;

	block->node_name = g_strdup(id);
	block->drive_id = g_strdup(id);
	block->filename = g_strdup(args->file);
	block->read_only = args->read_only;
	block->cache_direct = on_unless_auto(args->cache_direct, direct);
	block->cache_no_flush = on_unless_auto(args->cache_no_flush, args->cache == CACHE_UNSAFE);
	block->writethrough = args->cache == CACHE_WRITETHROUGH || args->cache == CACHE_DIRECTSYNC;
	block->discard = args->discard == DISCARD_UNMAP || args->discard == DISCARD_ON;
	block->aio = args->aio;
	block->guess_raw = !format_given;
	block->werror = args->werror;
	block->rerror = args->rerror;
	vm_config_add(p->config, VM_LIST_BLOCKS, block);
}

static void drive_add_device(struct parse *p, const char *id)
{
	struct device_config *device = g_new0(struct device_config, 1);

	device->driver = g_strdup("virtio-blk-pci");
	device->props = json_pack("{ss}", "drive", id);
	vm_config_add(p->config, VM_LIST_DEVICES, device);
}

/* if=virtio drives are numbered: by index=, or by the first free number. */
static bool drive_take_index(struct parse *p, bool given, uint32_t *index, GError **error)
{
	if (!given)
		*index = __builtin_ctzll(~p->drive_indexes | UINT64_C(1) << DRIVE_INDEX_MAX);
	if (p->drive_indexes & UINT64_C(1) << *index)
		return error_set_generic(error,
					 "%s: index: %u is taken by another -drive; give another",
					 p->what, *index);
	p->drive_indexes |= UINT64_C(1) << *index;
	return true;
}

static bool drive_add(struct parse *p, struct drive_args *args, const json_t *given, GError **error)
{
	bool index_given = json_object_get(given, "index") != NULL;
	g_autofree char *id = g_steal_pointer(&args->id);

	if (*args->file == '\0')
		return error_set_generic(error, "%s: file: the path is empty; give one", p->what);
	if (args->interface == DRIVE_NONE) {
		if (index_given)
			return error_set_generic(
				error, "%s: index: an if=none drive has none; leave it out",
				p->what);
		if (!id)
			id = g_strdup_printf("none%u", p->n_plain_drives++);
	} else {
		if (!drive_take_index(p, index_given, &args->index, error))
			return false;
		if (!id)
			id = g_strdup_printf("virtio%u", args->index);
		drive_add_device(p, id);
	}
	drive_add_block(p, args, json_object_get(given, "format") != NULL, id);
	return true;
}

bool parse_drive(struct parse *p, const char *text, json_t *json, GError **error)
{
	struct drive_args args;
	bool ok;

	if (!json_rename(json, "readonly", "read-only", p->what, error) ||
	    !props_from_json(drive_props, json, &args, p->what, error))
		return false;
	ok = drive_add(p, &args, json, error);
	props_clear(drive_props, &args);
	return ok;
}

enum layer_kind { LAYER_RAW, LAYER_FILE, LAYER_HOST_DEVICE };
enum layer_discard { LAYER_DISCARD_AUTO, LAYER_DISCARD_IGNORE, LAYER_DISCARD_UNMAP };

static const char *const layer_discard_names[] = {"auto", "ignore", "unmap", NULL};

/**
 * struct block_layer - One -blockdev node before flattening
 * @node_name:	NULL for a nested node without one
 * @read_only, @discard: "auto" where not given
 */
struct block_layer {
	enum layer_kind kind;
	char *node_name;
	char *filename;
	enum on_off_auto read_only;
	bool cache_direct;
	bool cache_no_flush;
	enum layer_discard discard;
	enum on_off_auto locking;
	enum block_aio aio;
};

#define LAYER(key, kind, member, ...)                                        \
	{                                                                    \
		key, kind, offsetof(struct block_layer, member), __VA_ARGS__ \
	}

#define LAYER_ROWS                                                                                \
	LAYER("node-name", PROP_STRING, node_name, .help = "name for -device drive=NAME"),        \
		LAYER("read-only", PROP_ON_OFF_AUTO, read_only, .def = "auto",                    \
		      .help = "auto: off"),                                                       \
		LAYER("cache.direct", PROP_BOOL, cache_direct, .def = "off", .help = "O_DIRECT"), \
		LAYER("cache.no-flush", PROP_BOOL, cache_no_flush, .def = "off",                  \
		      .help = "ignore flushes"),                                                  \
		LAYER("discard", PROP_ENUM, discard, .names = layer_discard_names, .def = "auto", \
		      .help = "auto: as the node above says, else ignore")

static const struct prop raw_layer_props[] = {
	LAYER_ROWS,
	{.name = NULL},
};

static const struct prop file_layer_props[] = {
	LAYER_ROWS,
	LAYER("filename", PROP_STRING, filename, .required = true, .help = "path"),
	LAYER("locking", PROP_ON_OFF_AUTO, locking, .def = "auto", .help = "lock the image"),
	LAYER("aio", PROP_ENUM, aio, .names = aio_names, .def = "io_uring",
	      .help = "falls back to threads where the kernel forbids io_uring"),
	{.name = NULL},
};

static const struct kind_table blockdev_kinds[] = {
	{"raw", LAYER_RAW, raw_layer_props, "raw image over a file= node (name, or nested)"},
	{"file", LAYER_FILE, file_layer_props, "regular file"},
	{"host_device", LAYER_HOST_DEVICE, file_layer_props, "block device of the host"},
	{.name = NULL},
};

bool explain_blockdev(const struct parse *p, const char *kind, GString *out, GError **error)
{
	if (!explain_kinds(blockdev_kinds, "-blockdev", kind, out, error))
		return false;
	if (g_strcmp0(kind, "raw") == 0)
		g_string_append(out, "  file=<node>                   "
				     "node-name of a file or host_device node, or file.KEY=VALUE "
				     "(required)\n");
	return true;
}

void block_layer_free(void *layer)
{
	if (!layer)
		return;
	props_clear(file_layer_props, layer);
	g_free(layer);
}
DEFINE_CLEANUP(block_layer, block_layer_free)

/* Reads one node; takes "driver" out of @json. */
static struct block_layer *layer_read(json_t *json, const char *what, GError **error)
{
	const char *driver = json_string_value(json_object_get(json, "driver"));
	const struct kind_table *kind = driver ? kind_find(blockdev_kinds, driver) : NULL;
	g_autofree char *shown = text_printable(driver ? driver : "");
	g_autofree char *known = kind_names(blockdev_kinds);
	struct block_layer *layer;

	if (!kind) {
		error_set_generic(error, "%s: driver: '%s' is not available; give one of: %s", what,
				  shown, known);
		return NULL;
	}
	json_object_del(json, "driver");
	layer = g_new0(struct block_layer, 1);
	if (!props_from_json(kind->props, json, layer, what, error)) {
		g_free(layer);
		return NULL;
	}
	layer->kind = kind->kind;
	return layer;
}

/* The node below a raw one: nested in @file, or named there and given before. */
static struct block_layer *layer_below(struct parse *p, json_t *file, GError **error)
{
	const char *name = json_string_value(file);
	g_autofree char *what = g_strconcat(p->what, ": file", NULL);
	g_autofree char *shown = text_printable(name ? name : "");
	struct block_layer *below;

	if (json_is_object(file)) {
		below = layer_read(file, what, error);
		if (!below || below->kind != LAYER_RAW)
			return below;
		block_layer_free(below);
		error_set_generic(error,
				  "%s: driver: raw over raw is not available; give file or "
				  "host_device",
				  what);
		return NULL;
	}
	for (guint i = 0; name && i < p->protocols->len; i++) {
		below = g_ptr_array_index(p->protocols, i);
		if (g_strcmp0(below->node_name, name) == 0)
			return g_ptr_array_steal_index(p->protocols, i);
	}
	error_set_generic(error,
			  "%s: no free file node '%s' before this option; give one with -blockdev "
			  "driver=file,node-name=NAME,filename=PATH",
			  what, shown);
	return NULL;
}

/* One disk of a file node and, if not NULL, the raw node over it. */
static struct block_config *layers_flatten(struct block_layer *raw, struct block_layer *file)
{
	const struct block_layer *top = raw ? raw : file;
	struct block_config *block = g_new0(struct block_config, 1);

	block->node_name = g_strdup(top->node_name);
	block->protocol_name = raw ? g_strdup(file->node_name) : NULL;
	block->filename = g_strdup(file->filename);
	block->host_device = file->kind == LAYER_HOST_DEVICE;
	block->read_only = top->read_only == ON_OFF_ON || file->read_only == ON_OFF_ON;
	block->cache_direct = top->cache_direct || file->cache_direct;
	block->cache_no_flush = top->cache_no_flush || file->cache_no_flush;
	block->discard = top->discard == LAYER_DISCARD_UNMAP &&
			 file->discard != LAYER_DISCARD_IGNORE;
	block->locking = file->locking;
	block->aio = file->aio;
	return block;
}

void add_protocol_blocks(struct parse *p)
{
	for (guint i = 0; i < p->protocols->len; i++)
		vm_config_add(p->config, VM_LIST_BLOCKS,
			      layers_flatten(NULL, g_ptr_array_index(p->protocols, i)));
	g_ptr_array_set_size(p->protocols, 0);
}

static bool raw_add(struct parse *p, struct block_layer *raw, json_t *file_ref, GError **error)
{
	autoptr(block_layer) file = NULL;

	if (!file_ref)
		return error_set_generic(error, "%s: file= is missing", p->what);
	file = layer_below(p, file_ref, error);
	if (!file)
		return false;
	if (raw->read_only == ON_OFF_OFF && file->read_only == ON_OFF_ON)
		return error_set_generic(
			error, "%s: read-only: off here, on in the node below; make them agree",
			p->what);
	vm_config_add(p->config, VM_LIST_BLOCKS, layers_flatten(raw, file));
	return true;
}

bool parse_blockdev(struct parse *p, const char *text, json_t *json, GError **error)
{
	autoptr(block_layer) layer = NULL;
	json_t *file_ref = NULL;
	bool raw = g_strcmp0(json_string_value(json_object_get(json, "driver")), "raw") == 0;
	bool ok;

	if (raw) {
		file_ref = json_incref(json_object_get(json, "file"));
		json_object_del(json, "file");
	}
	layer = layer_read(json, p->what, error);
	ok = layer != NULL;
	if (ok && !layer->node_name)
		ok = error_set_generic(error, "%s: node-name= is missing", p->what);
	else if (ok && raw)
		ok = raw_add(p, layer, file_ref, error);
	else if (ok)
		g_ptr_array_add(p->protocols, g_steal_pointer(&layer));
	json_decref(file_ref);
	return ok;
}
