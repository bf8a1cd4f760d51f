// struct vm_config: everything the command line or a predecessor says about a VM, read-only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <jansson.h>

#include "base/cleanup.h"

/**
 * DOC: configuration
 *
 * argv (and JSON forms in it) are parsed once, into a struct vm_config that nothing changes
 * afterwards but hot plug, which adds and removes devices.  Decisions taken from it live in struct
 * machine.  vm_config_to_json() and vm_config_from_json() are exact inverses: that is how a
 * configuration travels to a successor.  Every struct below is filled and written by a property table
 * in options/tables.c; help text comes from the same rows.  Strings are owned by the config and NULL
 * where the option was not given.
 */

/*
 * What a successor can be told, and what therefore is refused when it is made: at the start, and at hot
 * plug.  What the ends of the wire hold is compared with these where they are defined.
 *
 * VM_ID_MAX:	characters of the id of anything: it becomes part of names of sections and descriptors
 * VM_LIST_MAX:	things of a kind: devices, chardevs, disks, ...
 * VM_MEMORY_BACKENDS_MAX: memory back-ends, beside implicit RAM
 * VM_CONFIG_BYTES_MAX: of the whole as JSON
 */
#define VM_ID_MAX	       47
#define VM_LIST_MAX	       256
#define VM_MEMORY_BACKENDS_MAX 15
#define VM_CONFIG_BYTES_MAX    (1U << 20)

/* What the kernel keeps of a process's name. */
#define PROCESS_NAME_MAX 15

/** enum on_off_auto - A property that may be left to the program */
enum on_off_auto { ON_OFF_AUTO, ON_OFF_ON, ON_OFF_OFF };

/**
 * struct machine_config - -machine
 * @type:	"q35" (aliases such as "pc-q35-*" are refused with the remedy in the message)
 * @memory_backend: id of the memory-backend object that is guest RAM; NULL: implicit RAM
 * @aux_ram_share: implicit RAM is a shared memfd (also memfd-alloc=on, anon-alloc=memfd)
 * @vmport, @hpet, ...: not offered: unknown properties are refused
 */
struct machine_config {
	char *type;
	char *memory_backend;
	bool aux_ram_share;
};

/** enum memory_backend_kind - memory-backend-{ram,memfd,file} */
enum memory_backend_kind { MEMORY_BACKEND_RAM, MEMORY_BACKEND_MEMFD, MEMORY_BACKEND_FILE };

/**
 * struct memory_backend_config - -object memory-backend-*
 * @id:		object id; also the RAM block's stable name
 * @size_bytes:	size
 * @share:	MAP_SHARED; defaults: memfd on, ram and file off
 * @prealloc:	populate before the guest starts
 * @mem_path:	file backend: a file, or a directory in which an unlinked file is made
 * @hugetlb:	memfd backend: MFD_HUGETLB
 * @hugetlbsize_bytes: its page size, 0 for the system's default
 * @seal:	memfd backend: seal against shrinking (default on)
 * @merge:	MADV_MERGEABLE, default on as in QEMU
 * @dump:	false adds MADV_DONTDUMP
 */
struct memory_backend_config {
	enum memory_backend_kind kind;
	char *id;
	uint64_t size_bytes;
	bool share;
	bool prealloc;
	char *mem_path;
	bool hugetlb;
	uint64_t hugetlbsize_bytes;
	bool seal;
	bool merge;
	bool dump;
};

/** struct rng_config - -object rng-random */
struct rng_config {
	char *id;
	char *filename;
};

/** struct iothread_config - -object iothread */
struct iothread_config {
	char *id;
};

enum chardev_kind {
	CHARDEV_NULL,
	CHARDEV_STDIO,
	CHARDEV_SOCKET,
	CHARDEV_FILE,
	CHARDEV_PIPE,
	CHARDEV_SERIAL,
	CHARDEV_PARALLEL,
	CHARDEV_PTY,
	CHARDEV_RINGBUF,
};

/**
 * struct chardev_config - -chardev, and what -serial, -monitor, -qmp make of their argument
 * @id:		label: "serial0", "compat_monitor0", or the user's id=
 * @path:	unix socket, file (out), pipe, serial or parallel device
 * @in_path:	file: input-path=
 * @append:	file: append=on
 * @host, @port: TCP socket; @path is NULL then
 * @server, @wait, @nodelay, @reconnect_ms: socket
 * @signal:	stdio: Ctrl-C reaches the process (default on)
 * @size_bytes:	ringbuf
 * @mux:	several frontends may share it, switched with Ctrl-A c
 * @logfile, @logappend: copy of the output
 * @reopen_on_cpr: close and reopen instead of preserving it across an update
 * @moved:	run-time: a successor's leads elsewhere than the predecessor's of the same id, whose
 *		descriptors it therefore does not take; see vm_config_moved_chardevs()
 * @log_moved:	the same for @logfile
 */
struct chardev_config {
	enum chardev_kind kind;
	char *id;
	char *path;
	char *in_path;
	bool append;
	char *host;
	char *port;
	bool server;
	bool wait;
	bool nodelay;
	uint32_t reconnect_ms;
	bool signal;
	uint64_t size_bytes;
	bool mux;
	char *logfile;
	bool logappend;
	bool reopen_on_cpr;
	bool moved;
	bool log_moved;
};

enum block_aio { BLOCK_AIO_IO_URING, BLOCK_AIO_THREADS };

/** enum block_on_error - werror=, rerror=: what becomes of a request that the storage failed */
enum block_on_error {
	BLOCK_ON_ERROR_AUTO, /* a device: as its drive says; a drive: enospc, rerror report */
	BLOCK_ON_ERROR_REPORT,
	BLOCK_ON_ERROR_IGNORE,
	BLOCK_ON_ERROR_STOP,
	BLOCK_ON_ERROR_ENOSPC, /* stop if there is no space left, else report */
};

/** block_on_error_names - In the order of enum block_on_error, for property tables */
extern const char *const block_on_error_names[];

/**
 * struct block_config - One disk node, from -blockdev (raw over file/host_device, flattened) or
 * -drive
 * @node_name:	-blockdev's node-name, or the drive's id
 * @protocol_name: node name of the file layer if it had one of its own, else NULL
 * @drive_id:	-drive id= (query-block's "device"), NULL for -blockdev
 * @filename:	image path or block device
 * @host_device: the file driver was host_device: refuse a regular file (and the reverse).  A -drive says
 *		nothing of what its file is, and the file is not looked at to find out: the guest of a
 *		predecessor may be standing still, and the store hang
 * @read_only:	read-only=on / readonly=on
 * @cache_direct: O_DIRECT (cache=none, cache=directsync, cache.direct=on)
 * @cache_no_flush: flushes are ignored (cache=unsafe, cache.no-flush=on)
 * @writethrough: every write is flushed (cache=writethrough, directsync)
 * @discard:	discard=unmap
 * @locking:	locking=on|off|auto: OFD lock on the image
 * @aio:	io_uring (default; falls back to threads where the kernel forbids it) or threads
 * @guess_raw:	No format was named: an image with the header of another one is refused
 * @werror, @rerror: what failed writes (flushes, discards) and reads lead to
 */
struct block_config {
	char *node_name;
	char *protocol_name;
	char *drive_id;
	char *filename;
	bool host_device;
	bool read_only;
	bool cache_direct;
	bool cache_no_flush;
	bool writethrough;
	bool discard;
	enum on_off_auto locking;
	enum block_aio aio;
	bool guess_raw;
	enum block_on_error werror, rerror;
};

/**
 * struct device_config - One -device
 * @driver:	"virtio-blk-pci", ...
 * @id:		id=, NULL if none
 * @props:	the other properties as a JSON object: the device's own property table reads them
 */
struct device_config {
	char *driver;
	char *id;
	json_t *props;
};

/** enum monitor_kind - What speaks on a monitor's chardev */
enum monitor_kind { MONITOR_HMP, MONITOR_QMP };

/** struct monitor_config - -mon, -qmp, -qmp-pretty, -monitor */
struct monitor_config {
	enum monitor_kind kind;
	char *chardev;
	bool pretty;
};

/** VM_SERIALS_MAX - Serial ports that the board has */
#define VM_SERIALS_MAX 2

/**
 * struct serial_config - One legacy serial port, in order: COM1, COM2, ...
 * @chardev: its chardev's id, NULL for -serial none
 */
struct serial_config {
	char *chardev;
};

/**
 * struct incoming_config - One -incoming
 * @text: as given (a URI, "defer", JSON or dotted keys); parsed by migration/address.c
 */
struct incoming_config {
	char *text;
};

/**
 * struct vm_config - The whole of it
 *
 * What describes the VM and travels to a successor comes first; what belongs to this process (how
 * it starts, where it writes its pid) comes last and does not travel.
 *
 * @explicit_vm: at least one VM-describing option was given: the command line is the VM's
 *		description.  False with -incoming: take the predecessor's.
 */
struct vm_config {
	struct machine_config machine;
	char *cpu_model; /* -cpu: "host" is the only model; features are refused */
	uint32_t n_cpus; /* -smp, 1 to 255 */
	uint32_t n_sockets, n_cores, n_threads; /* topology; product is n_cpus */
	uint64_t ram_size_bytes;		/* -m, default 128 MiB */
	char *kernel, *initrd, *append;
	char *name;	    /* -name guest= */
	char *process_name; /* -name process=, at most PROCESS_NAME_MAX */
	char *uuid;	    /* -uuid, canonical lower case */
	bool no_reboot;	    /* -no-reboot, -action reboot=shutdown */
	bool no_shutdown;   /* -no-shutdown */
	bool rtc_localtime; /* -rtc base=localtime */
	bool nodefaults;
	bool only_migratable; /* -only-migratable: in every mode there is */
	bool only_migratable_transfer, only_migratable_exec; /* -only-migratable-modes */
	GPtrArray *memory_backends;			     /* struct memory_backend_config * */
	GPtrArray *rngs;				     /* struct rng_config * */
	GPtrArray *iothreads;				     /* struct iothread_config * */
	GPtrArray *chardevs;				     /* struct chardev_config * */
	GPtrArray *blocks;				     /* struct block_config * */
	GPtrArray *devices;				     /* struct device_config * */
	GPtrArray *serials;				     /* struct serial_config * */
	GPtrArray *monitors;				     /* struct monitor_config * */

	bool explicit_vm;
	bool start_paused; /* -S */
	bool daemonize;
	char *pidfile;
	GPtrArray *incoming; /* struct incoming_config * */
};

/** vm_config_new() - A config with every default and nothing in its arrays; the caller's. */
struct vm_config *vm_config_new(void);

/** vm_config_free() - Free a config; accepts NULL. */
void vm_config_free(struct vm_config *config);
DEFINE_CLEANUP(vm_config, vm_config_free)

/**
 * device_config_read() - What -device and device_add take: driver, id, and the driver's properties
 * @args:	In one object, hostile until checked
 * @what:	Prefix of messages: "-device virtio-rng-pci"
 *
 * Return: to be freed with device_config_free(); NULL with @error set.
 */
struct device_config *device_config_read(const json_t *args, const char *what, GError **error);

/** device_config_free() - Accepts NULL. */
void device_config_free(struct device_config *device);

/**
 * vm_config_plug() - Append @device, which is taken in any case, if the whole is still right
 *
 * Devices of a running machine are all that changes in a configuration.
 * Return: false with @error set, @config as it was.
 */
bool vm_config_plug(struct vm_config *config, struct device_config *device, GError **error);

/** vm_config_unplug() - Remove @device, and free it. */
void vm_config_unplug(struct vm_config *config, struct device_config *device);

/** device_config_bus() - Its bus=, "pcie.0" if it has none; device_config_addr(): addr= or NULL. */
const char *device_config_bus(const struct device_config *device);
const char *device_config_addr(const struct device_config *device);

/** vm_config_to_json() - Everything that travels, as one JSON object; owned by the caller. */
json_t *vm_config_to_json(const struct vm_config *config);

/**
 * vm_config_from_json() - The inverse; the input is hostile until checked
 * Return: a config with the process's part left at its defaults, or NULL with @error set.
 */
struct vm_config *vm_config_from_json(const json_t *json, GError **error);

/**
 * vm_config_differences() - What keeps a successor described by @theirs from taking over @ours
 * @may_lack:	Devices may still be added to @theirs: those that it lacks are no difference
 *
 * Host paths of things that cross as descriptors (images, sockets) may differ; ids, kinds, sizes,
 * devices and their order may not, though the order of devices with an address does not matter.  An
 * address that only one of the two names shows in the devices' paths, not here.
 * Return: one line per difference, separated by newlines; NULL if they describe the same machine.
 * Owned by the caller.
 */
char *vm_config_differences(const struct vm_config *ours, const struct vm_config *theirs,
			    bool may_lack);

/**
 * vm_config_moved_chardevs() - Which chardevs of @theirs lead elsewhere than ours of the same id
 * @mark:	Set chardev_config.moved and log_moved in @theirs
 *
 * Another path, address or role: the descriptor that crosses is not what the successor asks for.
 * Return: one line each, separated by newlines; NULL if there is none.  Owned by the caller.
 */
char *vm_config_moved_chardevs(const struct vm_config *ours, const struct vm_config *theirs,
			       bool mark);

/*
 * Lookups by id; NULL if there is none.  vm_config_block() takes a node name or a -drive's id.
 */
const struct memory_backend_config *vm_config_memory_backend(const struct vm_config *config,
							     const char *id);
const struct rng_config *vm_config_rng(const struct vm_config *config, const char *id);
const struct iothread_config *vm_config_iothread(const struct vm_config *config, const char *id);
const struct chardev_config *vm_config_chardev(const struct vm_config *config, const char *id);
const struct block_config *vm_config_block(const struct vm_config *config, const char *name);
const struct device_config *vm_config_device(const struct vm_config *config, const char *id);
