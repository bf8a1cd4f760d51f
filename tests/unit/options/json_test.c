// Configurations as JSON: the round trip, hostile input, and what differs between two of them.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "options/command_line.h"
#include "options/props.h"

/* One of everything. */
static const char *const big[] = {
	"-machine",
	"q35,memory-backend=ram0,aux-ram-share=on",
	"-object",
	"memory-backend-memfd,id=ram0,size=4G,hugetlb=on,hugetlbsize=2M,seal=off",
	"-object",
	"memory-backend-file,id=extra,size=1M,mem-path=/dev/shm/x,share=on,prealloc=on",
	"-object",
	"memory-backend-ram,id=more,size=8k,merge=off,dump=off",
	"-object",
	"rng-random,id=rng0,filename=/dev/hwrng",
	"-object",
	"iothread,id=io0",
	"-smp",
	"8,sockets=2,cores=2,threads=2",
	"-kernel",
	"/boot/vmlinuz",
	"-initrd",
	"/boot/initrd",
	"-append",
	"console=ttyS0 \"a\" \\ \xc3\xa4",
	"-name",
	"guest=vm7,process=molt-vm7",
	"-uuid",
	"12345678-abcd-ef01-2345-6789abcdef01",
	"-no-reboot",
	"-no-shutdown",
	"-rtc",
	"base=localtime",
	"-nodefaults",
	"-only-migratable",
	"-chardev",
	"socket,id=c0,path=/run/s,server=on,wait=off,logfile=/l,logappend=on",
	"-chardev",
	"socket,id=c1,host=h,port=1,nodelay=on,reconnect-ms=1500,mux=on",
	"-chardev",
	"file,id=c2,path=/f,input-path=/i,append=on",
	"-chardev",
	"ringbuf,id=c3,size=4k",
	"-chardev",
	"stdio,id=c4,signal=off,reopen-on-cpr=on",
	"-serial",
	"chardev:c0",
	"-serial",
	"none",
	"-mon",
	"c1",
	"-mon",
	"c4,mode=control,pretty=on",
	"-drive",
	"file=/d,id=disk,cache=directsync,readonly=on,discard=unmap,aio=threads",
	"-blockdev",
	"file,node-name=f0,filename=/img,locking=off,cache.no-flush=on",
	"-blockdev",
	"raw,node-name=d0,file=f0",
	"-blockdev",
	"host_device,node-name=h0,filename=/dev/sdx",
	"-device",
	"virtio-blk-pci,id=blk0,drive=d0,num-queues=4,iothread=io0",
	"-device",
	"{\"driver\":\"virtio-rng-pci\",\"rng\":\"rng0\",\"nested\":{\"a\":[1,true,\"x\"]}}",
	"-device",
	"virtconsole,chardev=c2",
	NULL,
};

#define ARGS_MAX 96

/* The command line @args, with the pairs of @more appended. */
static struct vm_config *parse(const char *const *args, const char *const *more)
{
	struct command_line_action action = {0};
	char *argv[ARGS_MAX] = {(char *)"molt"};
	g_autoptr(GError) error = NULL;
	struct vm_config *config;
	int argc = 1;

	for (; *args; args++)
		argv[argc++] = (char *)*args;
	for (; more && *more; more++)
		argv[argc++] = (char *)*more;
	g_assert_cmpint(argc, <, ARGS_MAX);
	config = command_line_parse(argc, argv, &action, &error);
	g_assert_no_error(error);
	g_assert_nonnull(config);
	return config;
}

static void test_round_trip(void)
{
	static const char *const nothing[] = {NULL};
	const char *const *lines[] = {nothing, big};

	for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
		g_autoptr(GError) error = NULL;
		autoptr(vm_config) config = parse(lines[i], NULL);
		json_t *json = vm_config_to_json(config);
		char *text = json_dumps(json, JSON_COMPACT);
		json_t *read = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
		autoptr(vm_config) copy = vm_config_from_json(read, &error);
		json_t *again;

		g_assert_no_error(error);
		again = vm_config_to_json(copy);
		g_assert_true(json_equal(json, again));
		g_assert_null(vm_config_differences(config, copy, false));
		free(text);
		json_decref(json);
		json_decref(read);
		json_decref(again);
	}
}

/* Identity of JSON alone would not notice a member that is neither written nor read. */
static void test_members(void)
{
	autoptr(vm_config) config = parse(big, NULL);
	json_t *json = vm_config_to_json(config);
	autoptr(vm_config) copy = vm_config_from_json(json, NULL);
	const struct chardev_config *c1 = vm_config_chardev(copy, "c1");
	const struct block_config *disk = vm_config_block(copy, "disk");
	const struct block_config *d0 = vm_config_block(copy, "d0");
	const struct memory_backend_config *extra = vm_config_memory_backend(copy, "extra");
	const struct serial_config *none = g_ptr_array_index(copy->serials, 1);
	const struct monitor_config *qmp = g_ptr_array_index(copy->monitors, 1);

	g_assert_cmpuint(copy->ram_size_bytes, ==, UINT64_C(4) << 30);
	g_assert_cmpuint(copy->n_cpus, ==, 8);
	g_assert_cmpuint(copy->n_threads, ==, 2);
	g_assert_cmpstr(copy->append, ==, config->append);
	g_assert_true(copy->no_reboot && copy->no_shutdown);
	g_assert_true(copy->rtc_localtime && copy->nodefaults && copy->only_migratable);
	g_assert_cmpint(c1->kind, ==, CHARDEV_SOCKET);
	g_assert_true(c1->mux && c1->nodelay && !c1->server && !c1->wait);
	g_assert_cmpuint(c1->reconnect_ms, ==, 1500);
	g_assert_true(vm_config_chardev(copy, "c4")->reopen_on_cpr);
	g_assert_false(vm_config_chardev(copy, "c4")->signal);
	g_assert_true(disk->read_only && disk->cache_direct && disk->writethrough && disk->discard);
	g_assert_cmpint(disk->aio, ==, BLOCK_AIO_THREADS);
	g_assert_cmpstr(d0->protocol_name, ==, "f0");
	g_assert_null(d0->drive_id);
	g_assert_true(d0->cache_no_flush);
	g_assert_cmpint(d0->locking, ==, ON_OFF_OFF);
	g_assert_true(vm_config_block(copy, "h0")->host_device);
	g_assert_true(extra->share && extra->prealloc && extra->merge);
	g_assert_false(vm_config_memory_backend(copy, "ram0")->seal);
	g_assert_null(none->chardev);
	g_assert_true(qmp->kind == MONITOR_QMP && qmp->pretty);
	g_assert_nonnull(vm_config_rng(copy, "rng0"));
	g_assert_nonnull(vm_config_iothread(copy, "io0"));
	g_assert_nonnull(vm_config_device(copy, "blk0"));
	g_assert_null(vm_config_device(copy, "blk1"));
	json_decref(json);
}

/* What belongs to this process stays here. */
static void test_process_part(void)
{
	static const char *const args[] = {"-S",    "-daemonize", "-pidfile", "p", "-incoming",
					   "defer", "-m",	  "1G",	      NULL};
	autoptr(vm_config) config = parse(args, NULL);
	json_t *json = vm_config_to_json(config);
	autoptr(vm_config) copy = vm_config_from_json(json, NULL);

	g_assert_true(config->explicit_vm);
	g_assert_false(copy->explicit_vm || copy->start_paused || copy->daemonize);
	g_assert_null(copy->pidfile);
	g_assert_cmpuint(copy->incoming->len, ==, 0);
	json_decref(json);
}

static void expect_refusal(const json_t *json, const char *message)
{
	g_autoptr(GError) error = NULL;
	autoptr(vm_config) config = vm_config_from_json(json, &error);

	g_assert_null(config);
	g_assert_nonnull(error);
	if (!strstr(error->message, message) || strchr(error->message, '\n')) {
		g_test_message("'%s' lacks '%s'", error->message, message);
		g_test_fail();
	}
}

static void test_hostile(void)
{
	static const struct {
		const char *json;
		const char *message;
	} cases[] = {
		{"[]", "configuration: not a JSON object"},
		{"{\"frob\":1}", "configuration: unknown property 'frob'"},
		{"{\"machine\":7}", "configuration: machine: not a JSON object"},
		{"{\"machine\":{\"type\":\"pc\"}}", "'pc' is not available"},
		{"{\"cpu\":\"evil\"}", "-cpu evil: not available"},
		{"{\"cpus\":0}", "cpus: 0 is out of bounds"},
		{"{\"cpus\":4}", "-smp 4: sockets=1 * cores=1 * threads=1 is 1"},
		{"{\"ram-size\":-1}", "ram-size: the number is negative"},
		{"{\"ram-size\":\"18446744073709551615\"}",
		 "ram-size: 18446744073709551615 is out"},
		{"{\"ram-size\":4097}", "not a multiple of 4k"},
		{"{\"uuid\":\"12345678-ABCD-ef01-2345-6789abcdef01\"}", "not a UUID"},
		{"{\"chardevs\":{}}", "configuration: chardevs: not a JSON array"},
		{"{\"chardevs\":[7]}", "configuration: chardevs[0]: not a JSON object"},
		{"{\"chardevs\":[{}]}", "chardevs[0]: backend: '' is not available"},
		{"{\"chardevs\":[{\"backend\":\"null\"}]}", "chardevs[0]: id= is missing"},
		{"{\"chardevs\":[{\"backend\":\"null\",\"id\":\"a\\nb\"}]}", "'a?b' is not an id"},
		{"{\"chardevs\":[{\"backend\":\"socket\",\"id\":\"a\"}]}", "no address"},
		{"{\"serials\":[{\"chardev\":\"x\"}]}", "there is no chardev 'x'"},
		{"{\"monitors\":[{\"chardev\":\"x\"}]}", "there is no chardev 'x'"},
		{"{\"memory-backends\":[{\"qom-type\":\"memory-backend-ram\",\"id\":\"r\","
		 "\"size\":0}]}",
		 "size: 0 is out of bounds"},
		{"{\"machine\":{\"memory-backend\":\"r\"}}", "there is no such object"},
		{"{\"devices\":[{\"props\":{}}]}", "devices[0]: driver= is missing"},
		{"{\"devices\":[{\"driver\":\"x\",\"props\":[]}]}", "props: not a JSON object"},
		{"{\"devices\":[{\"driver\":\"x\",\"props\":{\"drive\":\"y\"}}]}",
		 "there is no block node 'y'"},
		{"{\"devices\":[{\"driver\":\"x\",\"props\":{\"a\":[[[[[[[[[1]]]]]]]]]}}]}",
		 "props: nests deeper than 8"},
		{"{\"devices\":[{\"driver\":\"x\",\"props\":{\"a\":\"\\u0000\"}}]}", "NUL"},
		{"{\"blocks\":[{\"node-name\":\"a\"}]}", "blocks[0]: filename= is missing"},
		{"{\"blocks\":[{\"node-name\":\"a\",\"filename\":\"f\"},"
		 "{\"node-name\":\"a\",\"filename\":\"f\"}]}",
		 "the id is taken"},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		json_t *json = json_loads(cases[i].json, JSON_ALLOW_NUL, NULL);

		g_assert_nonnull(json);
		expect_refusal(json, cases[i].message);
		json_decref(json);
	}
}

static void test_bounds(void)
{
	g_autofree char *text = g_strnfill(4097, 'x');
	json_t *many = json_array();
	json_t *json;

	for (int i = 0; i < 257; i++)
		json_array_append_new(many, json_pack("{ss+}", "id", "i", "d"));
	json = json_pack("{so}", "iothreads", many);
	expect_refusal(json, "iothreads: more than 256 elements");
	json_decref(json);

	json = json_pack("{ss}", "kernel", text);
	expect_refusal(json, "kernel: the text is longer than 4096 bytes");
	json_decref(json);

	json = json_pack("{s[{sss{ss}}]}", "devices", "driver", "x", "props", "a", text);
	expect_refusal(json, "a text is longer than 4096 bytes");
	json_decref(json);

	json = json_pack("{s[{sss{si}}]}", "devices", "driver", "x", "props", text, 1);
	expect_refusal(json, "a key is longer than 4096 bytes");
	json_decref(json);
}

/* Every leaf of a good configuration replaced by something of another type: no crash, no leak. */
static void mutate(json_t *root, json_t *node)
{
	static const char *const values[] = {"null",  "[]",   "{}",   "-1",
					     "1e300", "\"\"", "true", "9223372036854775807"};
	const char *key;
	json_t *child;
	void *next;

	json_object_foreach_safe(node, next, key, child)
	{
		json_incref(child);
		if (json_is_object(child))
			mutate(root, child);
		for (size_t i = 0; json_is_array(child) && i < json_array_size(child); i++)
			mutate(root, json_array_get(child, i));
		for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
			g_autoptr(GError) error = NULL;
			autoptr(vm_config) config = NULL;

			json_object_set_new(node, key,
					    json_loads(values[i], JSON_DECODE_ANY, NULL));
			config = vm_config_from_json(root, &error);
			g_assert_true((config == NULL) == (error != NULL));
		}
		json_object_set_new(node, key, child);
	}
}

static void test_mutations(void)
{
	autoptr(vm_config) config = parse(big, NULL);
	json_t *json = vm_config_to_json(config);

	mutate(json, json);
	json_decref(json);
}

static const char *const base[] = {
	"-object",   "memory-backend-memfd,id=ram0,size=1G",
	"-machine",  "memory-backend=ram0",
	"-serial",   "unix:/a,server=on,wait=off",
	"-chardev",  "null,id=c",
	"-blockdev", "file,node-name=d0,filename=/a",
	"-device",   "virtio-blk-pci,id=blk,drive=d0,num-queues=2",
	NULL,
};

/* @what differs where @change (pairs) is put in place of the same options of @base. */
static void expect_difference(const char *option, const char *value, const char *what)
{
	autoptr(vm_config) ours = parse(base, NULL);
	const char *args[ARGS_MAX];
	const char *more[] = {NULL, NULL, NULL};
	size_t n = 0;
	bool replaced = false;

	for (size_t i = 0; base[i]; i += 2) {
		bool same = strcmp(base[i], option) == 0;

		args[n++] = base[i];
		args[n++] = same ? value : base[i + 1];
		replaced = replaced || same;
	}
	args[n] = NULL;
	if (!replaced) {
		more[0] = option;
		more[1] = value;
	}
	{
		autoptr(vm_config) theirs = parse(args, more);
		g_autofree char *text = vm_config_differences(ours, theirs, false);

		if (g_strcmp0(text, what) != 0) {
			g_test_message("'%s' is not '%s'", text ? text : "none",
				       what ? what : "none");
			g_test_fail();
		}
	}
}

static void test_differences(void)
{
	expect_difference("-smp", "2",
			  "-smp cpus: 1 here, 2 in the successor\n"
			  "-smp cores: 1 here, 2 in the successor");
	expect_difference(
		"-uuid", "12345678-abcd-ef01-2345-6789abcdef01",
		"-uuid: none here, 12345678-abcd-ef01-2345-6789abcdef01 in the successor");
	expect_difference("-object", "memory-backend-memfd,id=ram0,size=2G",
			  "-m: 1G here, 2G in the successor\n"
			  "-object id=ram0: size: 1G here, 2G in the successor");
	expect_difference("-object", "memory-backend-ram,id=ram0,size=1G",
			  "-object id=ram0: memory-backend-memfd here, memory-backend-ram in the "
			  "successor\n-object id=ram0: share: on here, off in the successor");
	expect_difference("-machine", "memory-backend=ram0,aux-ram-share=on",
			  "-machine aux-ram-share: off here, on in the successor");
	expect_difference("-serial", "null",
			  "-serial (COM1): chardev serial0: socket here, null in the successor");
	expect_difference("-serial", "none", "-serial (COM1): serial0 here, none in the successor");
	expect_difference("-serial", "chardev:c",
			  "-serial (COM1): serial0 here, c in the successor");
	expect_difference("-blockdev", "file,node-name=d0,filename=/a,read-only=on",
			  "-device virtio-blk-pci,id=blk: drive d0: read-only: off here, on in the "
			  "successor");
	expect_difference("-device", "virtio-blk-pci,id=blk,drive=d0,num-queues=3",
			  "-device virtio-blk-pci,id=blk: num-queues: 2 here, 3 in the successor");
	expect_difference(
		"-device", "virtio-blk-pci,id=blk,drive=d0",
		"-device virtio-blk-pci,id=blk: num-queues: 2 here, none in the successor");
	expect_difference("-device", "virtio-blk-pci,id=blk,drive=d0,num-queues=2,x=1",
			  "-device virtio-blk-pci,id=blk: x: none here, 1 in the successor");
	expect_difference("-device", "virtio-blk-pci,drive=d0,num-queues=2",
			  "-device number 1: virtio-blk-pci,id=blk here, virtio-blk-pci in the "
			  "successor");
	expect_difference("-drive", "file=x",
			  "-device number 2: none here, virtio-blk-pci in the successor");
}

/* A successor's own place is told, and marked so that it is used. */
static void test_moved_chardevs(void)
{
	const char *const first[] = {"-serial", "file:/old", "-chardev",
				     "file,id=l,path=/p,logfile=/l", NULL};
	const char *const second[] = {"-serial", "file:/new", "-chardev",
				      "file,id=l,path=/p,logfile=/m", NULL};
	autoptr(vm_config) a = parse(first, NULL);
	autoptr(vm_config) b = parse(second, NULL);
	g_autofree char *text = NULL;

	g_assert_null(vm_config_moved_chardevs(a, a, false));
	text = vm_config_moved_chardevs(a, b, true);
	g_assert_cmpstr(text, ==,
			"chardev serial0: /old here, /new in the successor\n"
			"chardev l: logfile: /l here, /m in the successor");
	g_assert_true(vm_config_chardev(b, "serial0")->moved);
	g_assert_false(vm_config_chardev(b, "l")->moved);
	g_assert_true(vm_config_chardev(b, "l")->log_moved);
}

static void test_allowed_differences(void)
{
	/* Other paths, another spelling, other monitors, another process. */
	expect_difference("-serial", "unix:/b,server=on,wait=off", NULL);
	expect_difference("-blockdev", "file,node-name=d0,filename=/b", NULL);
	expect_difference("-device",
			  "{\"driver\":\"virtio-blk-pci\",\"id\":\"blk\",\"drive\":\"d0\","
			  "\"num-queues\":2}",
			  NULL);
	expect_difference("-qmp", "unix:/q,server=on,wait=off", NULL);
	expect_difference("-pidfile", "p", NULL);
	expect_difference("-name", "other", NULL);
}

/* ---- devices that come and go ---- */

/* @ours and @theirs: lists of devices, with blanks between. */
static void expect_devices(const char *ours, const char *theirs, bool may_lack, const char *what)
{
	struct vm_config *configs[2] = {vm_config_new(), vm_config_new()};
	const char *lists[] = {ours, theirs};
	g_autofree char *text = NULL;

	for (int side = 0; side < 2; side++) {
		g_auto(GStrv) devices = g_strsplit(lists[side], " ", -1);

		for (char **d = devices; *d; d++) {
			json_t *args = keyval_parse(*d, "driver", NULL);
			struct device_config *config = device_config_read(args, "test", NULL);

			json_decref(args);
			g_assert_true(vm_config_plug(configs[side], config, NULL));
		}
	}
	text = vm_config_differences(configs[0], configs[1], may_lack);
	if (g_strcmp0(text, what) != 0)
		g_error("'%s' is not '%s'", text ? text : "none", what ? what : "none");
	vm_config_free(configs[0]);
	vm_config_free(configs[1]);
}

static void test_device_differences(void)
{
	/* An address is compared where both sides give it, whichever way it is written. */
	expect_devices("a,addr=0x3", "a", false, NULL);
	expect_devices("a,addr=0x3", "a,addr=03.0,bus=pcie.0", false, NULL);
	expect_devices("a,id=x,addr=3", "a,id=x,addr=4", false,
		       "-device a,id=x: addr: 3 here, 4 in the successor");
	expect_devices("a,bus=rp", "a", false, "-device a: bus: rp here, pcie.0 in the successor");
	/* Order decides where there is none. */
	expect_devices("a b", "b a", false,
		       "-device number 2: b here, in another order in the successor");
	expect_devices("a,addr=1 b,addr=2", "b,addr=2 a,addr=1", false, NULL);
	expect_devices("a,n=1 a,n=2", "a,n=2 a,n=1", false,
		       "-device a: n: 1 here, 2 in the successor\n"
		       "-device a: n: 2 here, 1 in the successor");
	expect_devices("a,addr=1,n=1 a,addr=2,n=2", "a,addr=2,n=2 a,addr=1,n=1", false, NULL);
	/* A device may still be added, others may not be there. */
	expect_devices("a b c", "a", false,
		       "-device number 2: b here, none in the successor\n"
		       "-device number 3: c here, none in the successor");
	expect_devices("a b c", "b", true, NULL);
	expect_devices("a b c", "", true, NULL);
	expect_devices("a b", "a x", true, "-device number 2: b here, x in the successor");
	expect_devices("a", "a b", true, "-device number 2: none here, b in the successor");
	expect_devices("", "", true, NULL);
}

static void test_plug(void)
{
	autoptr(vm_config) config = vm_config_new();
	json_t *args = json_pack("{s:s, s:s, s:s}", "driver", "a", "id", "x", "drive", "none");
	struct device_config *device;
	g_autoptr(GError) error = NULL;

	/* What makes the whole wrong is not added, whoever refers to whom. */
	g_assert_false(vm_config_plug(config, device_config_read(args, "test", NULL), &error));
	g_assert_nonnull(strstr(error->message, "there is no block node 'none'"));
	g_assert_cmpuint(config->devices->len, ==, 0);
	json_object_del(args, "drive");
	device = device_config_read(args, "test", NULL);
	g_assert_true(vm_config_plug(config, device, NULL));
	g_assert_false(vm_config_plug(config, device_config_read(args, "test", NULL), NULL));
	g_assert_cmpuint(config->devices->len, ==, 1);
	vm_config_unplug(config, device);
	g_assert_cmpuint(config->devices->len, ==, 0);
	json_object_set_new(args, "driver", json_integer(7));
	g_assert_null(device_config_read(args, "test", NULL));
	json_decref(args);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/options/json/round-trip", test_round_trip);
	g_test_add_func("/options/json/members", test_members);
	g_test_add_func("/options/json/process-part", test_process_part);
	g_test_add_func("/options/json/hostile", test_hostile);
	g_test_add_func("/options/json/bounds", test_bounds);
	g_test_add_func("/options/json/mutations", test_mutations);
	g_test_add_func("/options/json/differences", test_differences);
	g_test_add_func("/options/json/allowed-differences", test_allowed_differences);
	g_test_add_func("/options/json/moved-chardevs", test_moved_chardevs);
	g_test_add_func("/options/json/device-differences", test_device_differences);
	g_test_add_func("/options/json/plug", test_plug);
	return g_test_run();
}
