// Every option's good and bad forms: an argv and the configuration or the message it gives.
// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "options/command_line.h"

#define ARGS_MAX 24

/**
 * struct argv_case - One command line
 * @args:	Without argv[0]; NULL-ended
 * @expect:	A good one: JSON that the config's JSON must contain.  A bad one: a part of the
 * message
 */
struct argv_case {
	const char *args[ARGS_MAX];
	const char *expect;
};

static bool fake_device_help(const char *driver, GString *out, GError **error)
{
	if (driver && strcmp(driver, "virtio-blk-pci") != 0) {
		g_set_error(error, g_quark_from_static_string("test"), 0, "no driver '%s'", driver);
		return false;
	}
	g_string_append_printf(out, "help of %s\n", driver ? driver : "all");
	return true;
}

static struct vm_config *parse(const char *const *args, struct command_line_action *action,
			       GError **error)
{
	char *argv[ARGS_MAX + 2] = {(char *)"molt"};
	int argc = 1;

	for (; args[argc - 1]; argc++)
		argv[argc] = (char *)args[argc - 1];
	action->device_help = fake_device_help;
	return command_line_parse(argc, argv, action, error);
}

static struct vm_config *parse_good(const char *const *args)
{
	struct command_line_action action = {0};
	g_autoptr(GError) error = NULL;
	struct vm_config *config = parse(args, &action, &error);

	g_assert_no_error(error);
	g_assert_nonnull(config);
	g_assert_cmpint(action.verb, ==, COMMAND_LINE_RUN);
	return config;
}

/* Objects may have more keys than expected, arrays must have as many elements. */
static bool contains(const json_t *json, const json_t *part)
{
	const char *key;
	json_t *child;
	size_t i;

	if (json_is_object(part)) {
		json_object_foreach((json_t *)part, key, child)
		{
			if (!contains(json_object_get(json, key), child))
				return false;
		}
		return json_is_object(json);
	}
	if (json_is_array(part)) {
		json_array_foreach((json_t *)part, i, child)
		{
			if (!contains(json_array_get(json, i), child))
				return false;
		}
		return json_array_size(json) == json_array_size(part);
	}
	return json_equal(json, part);
}

static void check_good(const struct argv_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		autoptr(vm_config) config = parse_good(cases[i].args);
		json_t *json = vm_config_to_json(config);
		json_t *part = json_loads(cases[i].expect, 0, NULL);
		char *text = json_dumps(json, JSON_COMPACT);

		g_assert_nonnull(part);
		if (!contains(json, part)) {
			g_test_message("%s %s: %s lacks %s", cases[i].args[0],
				       cases[i].args[0] ? cases[i].args[1] : "", text,
				       cases[i].expect);
			g_test_fail();
		}
		free(text);
		json_decref(part);
		json_decref(json);
	}
}

static void check_bad(const struct argv_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct command_line_action action = {0};
		g_autoptr(GError) error = NULL;
		autoptr(vm_config) config = parse(cases[i].args, &action, &error);
		const char *message = error ? error->message : "(accepted)";

		if (config || !strstr(message, cases[i].expect) || strchr(message, '\n') ||
		    *message != *cases[i].args[0]) {
			g_test_message("%s %s: '%s' lacks '%s'", cases[i].args[0], cases[i].args[1],
				       message, cases[i].expect);
			g_test_fail();
		}
		g_free(action.text);
	}
}

static void test_machine(void)
{
	static const struct argv_case good[] = {
		{{NULL}, "{\"machine\":{},\"devices\":[],\"serials\":[],\"monitors\":[]}"},
		{{"-machine", "q35"}, "{\"machine\":{}}"},
		{{"--machine", "type=q35,accel=kvm"}, "{\"machine\":{}}"},
		{{"-M", "aux-ram-share=on"}, "{\"machine\":{\"aux-ram-share\":true}}"},
		{{"-machine", "memfd-alloc=on"}, "{\"machine\":{\"aux-ram-share\":true}}"},
		{{"-machine", "anon-alloc=memfd"}, "{\"machine\":{\"aux-ram-share\":true}}"},
		{{"-M", "aux-ram-share=on", "-M", "anon-alloc=mmap"}, "{\"machine\":{}}"},
		{{"-object", "memory-backend-memfd,id=ram0,size=2G", "-machine",
		  "memory-backend=ram0", "-machine", "aux-ram-share=on"},
		 "{\"machine\":{\"memory-backend\":\"ram0\",\"aux-ram-share\":true},"
		 "\"ram-size\":2147483648}"},
		{{"-accel", "kvm", "-enable-kvm", "-cpu", "host"}, "{}"},
		{{"-no-hpet", "-no-user-config", "-nodefaults", "-display", "none", "-vga", "none"},
		 "{\"nodefaults\":true}"},
		{{"-boot", "menu=off"}, "{}"},
	};
	static const struct argv_case bad[] = {
		{{"-machine", "pc"},
		 "-machine pc: type: 'pc' is not available; the machine type "
		 "is q35"},
		{{"-machine", "pc-q35-9.2"}, "there are no versioned machine types; give q35"},
		{{"-machine", "q35,accel=tcg"},
		 "accel: 'tcg' is not available; the accelerator "
		 "is kvm"},
		{{"-machine", "q35,accel=kvm:tcg"}, "accel: 'kvm:tcg' is not available"},
		{{"-machine", "q35,vmport=off"}, "unknown property 'vmport'; known are: type, "},
		{{"-machine", "anon-alloc=hugetlb"}, "anon-alloc: not a value it takes"},
		{{"-machine", "memfd-alloc=on,aux-ram-share=on"},
		 "memfd-alloc and aux-ram-share "
		 "are the same"},
		{{"-machine", "memory-backend=ram9"},
		 "-machine memory-backend=ram9: there is no such object; define it with -object"},
		{{"-machine"}, "-machine: needs an argument: [type=]q35"},
		{{"-accel", "tcg"}, "-accel tcg: accel: 'tcg' is not a value it takes"},
		{{"-cpu", "Skylake-Server"},
		 "-cpu Skylake-Server: this CPU model is not "
		 "available; give -cpu host"},
		{{"-cpu", "host,-vmx"}, "features cannot be chosen"},
		{{"-display", "gtk"}, "-display gtk: there is no display; give none"},
		{{"-vga", "std"}, "give none"},
		{{"-boot", "c"}, "no firmware"},
		{{"-boot", "order=nc"}, "no firmware"},
		{{"-boot", "menu=on"}, "'on' is not a value it takes"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_smp(void)
{
	static const struct argv_case good[] = {
		{{"-smp", "4"}, "{\"cpus\":4,\"cores\":4}"},
		{{"-smp", "cpus=8,sockets=2,cores=2,threads=2"},
		 "{\"cpus\":8,\"sockets\":2,\"cores\":2,\"threads\":2}"},
		{{"-smp", "sockets=2,cores=3"}, "{\"cpus\":6,\"sockets\":2,\"cores\":3}"},
		{{"-smp", "8,threads=2"}, "{\"cpus\":8,\"cores\":4,\"threads\":2}"},
		{{"-smp", "8,cores=2"}, "{\"cpus\":8,\"sockets\":4,\"cores\":2}"},
		{{"-smp", "8,sockets=2,cores=2"}, "{\"threads\":2}"},
		{{"-smp", "2,maxcpus=2,dies=1,clusters=1"}, "{\"cpus\":2}"},
		{{"-smp", "2", "-smp", "4"}, "{\"cpus\":4}"},
		{{"-smp", "255"}, "{\"cpus\":255}"},
	};
	static const struct argv_case bad[] = {
		{{"-smp", "0"}, "-smp 0: cpus: 0 is out of bounds; give 1 to 255"},
		{{"-smp", "256"}, "give 1 to 255"},
		{{"-smp", "two"}, "'two' is not a number"},
		{{"-smp", "2,maxcpus=4"}, "-smp 2,maxcpus=4: maxcpus: vCPUs are not hot-plugged"},
		{{"-smp", "6,sockets=4"}, "sockets=4 * cores=1 * threads=1 is not cpus=6"},
		{{"-smp", "sockets=255,cores=255,threads=255"}, "there are at most 255"},
		{{"-smp", "4,dies=2"}, "dies: 2 is out of bounds"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_ram(void)
{
	static const struct argv_case good[] = {
		{{"-m", "512"}, "{\"ram-size\":536870912}"},
		{{"-m", "4G"}, "{\"ram-size\":4294967296}"},
		{{"-m", "size=1048576k"}, "{\"ram-size\":1073741824}"},
		{{"-m", "2G", "-object", "memory-backend-ram,id=r,size=2048M", "-machine",
		  "memory-backend=r"},
		 "{\"ram-size\":2147483648}"},
		{{"-object", "memory-backend-ram,id=r,size=2048M"}, "{\"memory-backends\":[{}]}"},
		{{"-object",
		  "{\"qom-type\":\"memory-backend-file\",\"id\":\"r\",\"size\":1073741824,"
		  "\"mem-path\":\"/dev/shm/x\",\"share\":true,\"prealloc\":true}"},
		 "{\"memory-backends\":[{\"qom-type\":\"memory-backend-file\",\"id\":\"r\","
		 "\"size\":1073741824,\"mem-path\":\"/dev/shm/x\",\"share\":true,"
		 "\"prealloc\":true}]}"},
		{{"-object",
		  "memory-backend-memfd,id=r,size=1G,hugetlb=on,hugetlbsize=2M,seal=off,share=off,"
		  "merge=off,dump=off"},
		 "{\"memory-backends\":[{\"hugetlb\":true,\"hugetlbsize\":2097152,\"seal\":false,"
		 "\"share\":false,\"merge\":false,\"dump\":false}]}"},
		{{"-object", "rng-random,id=rng0,filename=/dev/hwrng", "-object", "iothread,id=t0"},
		 "{\"rngs\":[{\"id\":\"rng0\",\"filename\":\"/dev/hwrng\"}],"
		 "\"iothreads\":[{\"id\":\"t0\"}]}"},
	};
	static const struct argv_case bad[] = {
		{{"-m", "4Q"}, "-m 4Q: size: not a size"},
		{{"-m", "0"}, "size: not between 1M and 64T"},
		{{"-m", "65T"}, "size: not between 1M and 64T"},
		{{"-m", "1025k"}, "in steps of 4k"},
		{{"-m", "16777216T"}, "size: not a size"},
		{{"-m", "1G,slots=2,maxmem=4G"}, "slots: memory is not hot-plugged"},
		{{"-m", "4G", "-object", "memory-backend-ram,id=ram0,size=2G", "-machine",
		  "memory-backend=ram0"},
		 "-m 4G: does not match memory backend ram0 of 2G; leave -m out or give -m 2G"},
		{{"-object", "memory-backend-ram,id=a,size=1G", "-object", "iothread,id=a"},
		 "-object id=a: the id is taken; choose another"},
		{{"-object", "memory-backend-ram,id=a"},
		 "-object memory-backend-ram,id=a: size= "
		 "is missing"},
		{{"-object", "memory-backend-file,id=a,size=1G"}, "mem-path= is missing"},
		{{"-object", "memory-backend-ram,id=a,size=1G,mem-path=/x"},
		 "unknown property 'mem-path'"},
		{{"-object", "memory-backend-ram,id=a,size=4097"}, "size: not a multiple of 4k"},
		{{"-object", "memory-backend-memfd,id=a,size=1G,hugetlbsize=2M"},
		 "hugetlbsize: huge pages are off; add hugetlb=on"},
		{{"-object", "memory-backend-memfd,id=a,size=1G,hugetlb=on,hugetlbsize=3M"},
		 "hugetlbsize: not a page size"},
		{{"-object", "memory-backend-epc,id=a,size=1G"},
		 "qom-type: 'memory-backend-epc' is not available; give one of: "
		 "memory-backend-ram, "},
		{{"-object", "id=a"}, "qom-type: '' is not available"},
		{{"-object", "iothread,id=9a"}, "'9a' is not an id; begin with a letter"},
		{{"-object", "{\"qom-type\":\"iothread\",\"id\":"}, "not valid JSON"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_boot_and_process(void)
{
	static const struct argv_case good[] = {
		{{"-kernel", "k", "-initrd", "i", "-append", "a=b,c  d"},
		 "{\"kernel\":\"k\",\"initrd\":\"i\",\"append\":\"a=b,c  d\"}"},
		{{"-kernel", "k", "-append", ""}, "{\"append\":\"\"}"},
		{{"-name", "vm7"}, "{\"name\":\"vm7\"}"},
		{{"-name", "guest=vm7,process=molt-vm7"},
		 "{\"name\":\"vm7\",\"process-name\":\"molt-vm7\"}"},
		{{"-uuid", "12345678-ABCD-ef01-2345-6789abcdef01"},
		 "{\"uuid\":\"12345678-abcd-ef01-2345-6789abcdef01\"}"},
		{{"-no-reboot", "-no-shutdown"}, "{\"no-reboot\":true,\"no-shutdown\":true}"},
		{{"-action", "reboot=shutdown,shutdown=pause"},
		 "{\"no-reboot\":true,\"no-shutdown\":true}"},
		{{"-rtc", "base=localtime,clock=host,driftfix=none"}, "{\"rtc-localtime\":true}"},
		{{"-rtc", "base=utc"}, "{}"},
		{{"-only-migratable"}, "{\"only-migratable\":true}"},
		{{"-only-migratable-modes", "cpr-exec"}, "{\"only-migratable-exec\":true}"},
		{{"-only-migratable-modes", "cpr-exec,cpr-transfer"},
		 "{\"only-migratable-transfer\":true,\"only-migratable-exec\":true}"},
	};
	static const struct argv_case bad[] = {
		{{"-append", "x"}, "-append: there is no kernel to pass it to; add -kernel"},
		{{"-initrd", "x"}, "-initrd: there is no kernel"},
		{{"-kernel", "\xff"}, "-kernel: the argument is not UTF-8"},
		{{"-uuid", "x"}, "-uuid x: not a UUID"},
		{{"-rtc", "base=2024-01-01"}, "give one of: utc, localtime"},
		{{"-rtc", "clock=vm"}, "clock: 'vm' is not a value it takes"},
		{{"-action", "panic=none"},
		 "unknown property 'panic'; known are: reboot, shutdown"},
		{{"-name", "x,debug-threads=off"}, "give one of: on"},
		{{"-name", "process=0123456789abcdef"}, "-name process=: give 1 to 15 bytes"},
		{{"-only-migratable-modes", "normal"}, "mode 'normal' is not offered"},
		{{"-foo"}, "-foo: unknown option; see molt --help"},
		{{"--foo\nbar"}, "--foo?bar: unknown option"},
		{{"disk.img"}, "disk.img: not an option; for a disk give -drive file=disk.img"},
		{{"-m"}, "-m: needs an argument"},
		{{"-msg", "timestamp=on"}, "-msg: unknown option"},
	};
	static const char *const process[] = {
		"-S",	     "-daemonize",  "-pidfile",	 "/run/x.pid",
		"-incoming", "tcp:0:44444", "-incoming", "{\"channel-type\": \"cpr\"}",
		NULL};
	autoptr(vm_config) config = parse_good(process);
	const struct incoming_config *second = g_ptr_array_index(config->incoming, 1);
	g_autofree char *text = g_strnfill(4097, 'x');
	const struct argv_case too_long[] = {{{"-kernel", text}, "longer than 4096 bytes"}};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
	check_bad(too_long, 1);
	g_assert_true(config->start_paused);
	g_assert_true(config->daemonize);
	g_assert_cmpstr(config->pidfile, ==, "/run/x.pid");
	g_assert_cmpuint(config->incoming->len, ==, 2);
	g_assert_cmpstr(second->text, ==, "{\"channel-type\": \"cpr\"}");
}

static void test_chardev(void)
{
	static const struct argv_case good[] = {
		{{"-chardev", "null,id=c"}, "{\"chardevs\":[{\"backend\":\"null\",\"id\":\"c\"}]}"},
		{{"-chardev", "stdio,id=c,signal=off,mux=on,logfile=/l,logappend=on"},
		 "{\"chardevs\":[{\"signal\":false,\"mux\":true,\"logfile\":\"/l\","
		 "\"logappend\":true}]}"},
		{{"-chardev", "socket,id=c,path=/s,server=on,wait=off,reopen-on-cpr=on"},
		 "{\"chardevs\":[{\"path\":\"/s\",\"server\":true,\"reopen-on-cpr\":true}]}"},
		{{"-chardev", "socket,id=c,path=/s,server"},
		 "{\"chardevs\":[{\"server\":true,\"wait\":true}]}"},
		{{"-chardev", "socket,id=c,host=h,port=1,reconnect=2,nodelay"},
		 "{\"chardevs\":[{\"host\":\"h\",\"port\":\"1\",\"nodelay\":true,"
		 "\"reconnect-ms\":2000}]}"},
		{{"-chardev", "socket,id=c,host=,port=1,reconnect-ms=5,nodelay=on"},
		 "{\"chardevs\":[{\"host\":\"localhost\",\"nodelay\":true,\"reconnect-ms\":5}]}"},
		{{"-chardev", "{\"backend\":\"socket\",\"id\":\"c\",\"path\":\"/s\","
			      "\"server\":true,\"wait\":false}"},
		 "{\"chardevs\":[{\"server\":true}]}"},
		{{"-chardev", "file,id=c,path=/f,input-path=/i,append=on"},
		 "{\"chardevs\":[{\"path\":\"/f\",\"input-path\":\"/i\",\"append\":true}]}"},
		{{"-chardev", "pipe,id=c,path=/p", "-chardev", "pty,id=d"},
		 "{\"chardevs\":[{\"backend\":\"pipe\",\"path\":\"/p\"},{\"backend\":\"pty\"}]}"},
		{{"-chardev", "tty,id=c,path=/dev/ttyS0", "-chardev",
		  "parport,id=d,path=/dev/parport0"},
		 "{\"chardevs\":[{\"backend\":\"serial\"},{\"backend\":\"parallel\"}]}"},
		{{"-chardev", "ringbuf,id=c,size=128k"}, "{\"chardevs\":[{\"size\":131072}]}"},
	};
	static const struct argv_case bad[] = {
		{{"-chardev", "vc,id=c"},
		 "-chardev vc,id=c: backend: 'vc' is not available; give "
		 "one of: null, stdio, "},
		{{"-chardev", "null"}, "-chardev null: id= is missing"},
		{{"-chardev", "null,id=c", "-chardev", "null,id=c"},
		 "-chardev id=c: the id is "
		 "taken"},
		{{"-chardev", "null,id=c,path=/x"}, "unknown property 'path'"},
		{{"-chardev", "socket,id=c"}, "no address; give path=, or host= and port="},
		{{"-chardev", "socket,id=c,host=h"}, "no address"},
		{{"-chardev", "socket,id=c,path=/s,port=1"}, "exclude each other"},
		{{"-chardev", "socket,id=c,path=/s,wait=on"}, "wait: a client cannot wait"},
		{{"-chardev", "socket,id=c,path=/s,nodelay"}, "nodelay: a UNIX socket"},
		{{"-chardev", "socket,id=c,path=/s,server=on,reconnect=1"}, "reconnect: a server"},
		{{"-chardev", "socket,id=c,path=/s,reconnect=1,reconnect-ms=1"}, "are the same"},
		{{"-chardev", "socket,id=c,path=/s,reconnect=x"}, "reconnect: not a number"},
		{{"-chardev", "socket,id=c,path=/s,reconnect=4294968"}, "reconnect: not a number"},
		{{"-chardev", "socket,id=c,path=/s,delay=x"}, "delay: neither on nor off"},
		{{"-chardev", "socket,id=c,path=/s,telnet=on"}, "unknown property 'telnet'"},
		{{"-chardev", "ringbuf,id=c,size=3k"}, "size: not a power of two"},
		{{"-chardev", "file,id=c"}, "path= is missing"},
		{{"-chardev", "stdio,id=c", "-serial", "stdio"}, "stdio is 'c' already"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_serial(void)
{
	static const struct argv_case good[] = {
		{{"-serial", "none", "-serial", "pty"},
		 "{\"serials\":[{},{\"chardev\":\"serial1\"}],"
		 "\"chardevs\":[{\"backend\":\"pty\",\"id\":\"serial1\"}],\"monitors\":[]}"},
		{{"-serial", "null", "-serial", "null"},
		 "{\"serials\":[{\"chardev\":\"serial0\"},{\"chardev\":\"serial1\"}]}"},
		{{"-serial", "stdio"}, "{\"chardevs\":[{\"backend\":\"stdio\"}]}"},
		{{"-serial", "file:/a,b"},
		 "{\"chardevs\":[{\"backend\":\"file\","
		 "\"path\":\"/a,b\"}]}"},
		{{"-serial", "pipe:/p"}, "{\"chardevs\":[{\"backend\":\"pipe\",\"path\":\"/p\"}]}"},
		{{"-serial", "unix:/s,server=on,wait=off"},
		 "{\"chardevs\":[{\"path\":\"/s\",\"server\":true}]}"},
		{{"-serial", "unix:/a,,b,server"},
		 "{\"chardevs\":[{\"path\":\"/a,b\",\"server\":true,\"wait\":true}]}"},
		{{"-serial", "tcp:h:99,server=on,wait=off,nodelay"},
		 "{\"chardevs\":[{\"host\":\"h\",\"port\":\"99\",\"server\":true,"
		 "\"nodelay\":true}]}"},
		{{"-serial", "tcp::99,server,nowait"},
		 "{\"chardevs\":[{\"host\":\"0.0.0.0\",\"port\":\"99\",\"server\":true}]}"},
		{{"-serial", "tcp:[::1]:99"}, "{\"chardevs\":[{\"host\":\"::1\"}]}"},
		{{"-serial", "/dev/ttyS1", "-serial", "/dev/parport0"},
		 "{\"chardevs\":[{\"backend\":\"serial\",\"path\":\"/dev/ttyS1\"},"
		 "{\"backend\":\"parallel\",\"path\":\"/dev/parport0\"}]}"},
		{{"-chardev", "null,id=c", "-serial", "chardev:c"},
		 "{\"serials\":[{\"chardev\":\"c\"}]}"},
		{{"-serial", "mon:stdio"},
		 "{\"serials\":[{\"chardev\":\"serial0\"}],"
		 "\"chardevs\":[{\"backend\":\"stdio\",\"mux\":true,\"signal\":false}],"
		 "\"monitors\":[{\"chardev\":\"serial0\"}]}"},
		{{"-nographic"},
		 "{\"serials\":[{\"chardev\":\"serial0\"}],"
		 "\"chardevs\":[{\"backend\":\"stdio\",\"mux\":true,\"signal\":false}],"
		 "\"monitors\":[{\"chardev\":\"serial0\"}]}"},
		{{"-nographic", "-monitor", "none"},
		 "{\"chardevs\":[{\"backend\":\"stdio\",\"id\":\"serial0\"}],\"monitors\":[]}"},
		{{"-nographic", "-serial", "null"},
		 "{\"serials\":[{}],\"chardevs\":[{},{\"backend\":\"stdio\","
		 "\"id\":\"compat_monitor0\"}],\"monitors\":[{\"chardev\":\"compat_monitor0\"}]}"},
		{{"-nographic", "-serial", "mon:stdio"}, "{\"serials\":[{}],\"monitors\":[{}]}"},
		{{"-nographic", "-nodefaults"}, "{\"serials\":[],\"monitors\":[]}"},
	};
	static const struct argv_case bad[] = {
		{{"-serial", "vc"}, "-serial vc: there is no display to show it"},
		{{"-serial", "telnet:h:1"}, "'telnet:h:1' is not available; give one of: stdio"},
		{{"-serial", "file:"}, "-serial file:: no path; give file:PATH"},
		{{"-serial", "tcp:h"}, "no port; give HOST:PORT"},
		{{"-serial", "tcp:h:"}, "no port"},
		{{"-serial", "tcp:h:1,frob=on"}, "unknown property 'frob'"},
		{{"-serial", "unix:{x"}, "not a path; say ./{x"},
		{{"-serial", "unix:"}, "no address"},
		{{"-serial", "chardev:c"}, "-serial (COM1): chardev: there is no chardev 'c'"},
		{{"-serial", ""}, "'' is not available"},
		{{"-serial", "null", "-serial", "null", "-serial", "null"},
		 "the board has 2 serial ports"},
		{{"-serial", "none", "-serial", "none", "-serial", "none"},
		 "the board has 2 serial ports"},
		{{"-chardev", "null,id=c", "-serial", "chardev:c", "-mon", "c"},
		 "-mon c: chardev: -serial (COM1) uses 'c' already; add mux=on"},
		{{"-chardev", "null,id=serial0", "-serial", "null"}, "id=serial0: the id is taken"},
		{{"-nographic", "-daemonize"}, "-daemonize: chardev serial0 needs stdio"},
		{{"-serial", "stdio", "-monitor", "stdio"}, "stdio is 'serial0' already"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_monitor(void)
{
	static const struct argv_case good[] = {
		{{"-monitor", "stdio"},
		 "{\"chardevs\":[{\"backend\":\"stdio\",\"id\":\"compat_monitor0\"}],"
		 "\"monitors\":[{\"chardev\":\"compat_monitor0\"}],\"serials\":[]}"},
		{{"-qmp", "unix:/q,server=on,wait=off", "-monitor", "null", "-qmp-pretty", "stdio"},
		 "{\"monitors\":[{\"chardev\":\"compat_monitor0\",\"mode\":\"control\"},"
		 "{\"chardev\":\"compat_monitor1\"},"
		 "{\"chardev\":\"compat_monitor2\",\"mode\":\"control\",\"pretty\":true}]}"},
		{{"-chardev", "null,id=c", "-mon", "c,mode=control,pretty=on"},
		 "{\"monitors\":[{\"chardev\":\"c\",\"mode\":\"control\",\"pretty\":true}]}"},
		{{"-chardev", "null,id=c", "-mon", "chardev=c,mode=readline"},
		 "{\"monitors\":[{\"chardev\":\"c\"}]}"},
		{{"-chardev", "null,id=c", "-qmp", "chardev:c"},
		 "{\"monitors\":[{\"chardev\":\"c\",\"mode\":\"control\"}]}"},
		{{"-chardev", "stdio,id=c,mux=on", "-mon", "c", "-serial", "chardev:c"},
		 "{\"monitors\":[{\"chardev\":\"c\"}],\"serials\":[{\"chardev\":\"c\"}]}"},
	};
	static const struct argv_case bad[] = {
		{{"-mon", "c"}, "-mon c: chardev: there is no chardev 'c'; define it with"},
		{{"-mon", "mode=control"}, "-mon mode=control: chardev= is missing"},
		{{"-chardev", "null,id=c", "-mon", "c,mode=both"}, "mode: 'both' is not a value"},
		{{"-chardev", "null,id=c", "-mon", "c", "-mon", "c"}, "-mon c uses 'c' already"},
		{{"-qmp", "frob"}, "-qmp frob: 'frob' is not available"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_drive(void)
{
	static const struct argv_case good[] = {
		{{"-drive", "file=a.img"},
		 "{\"blocks\":[{\"node-name\":\"virtio0\",\"drive-id\":\"virtio0\","
		 "\"filename\":\"a.img\"}],\"devices\":[{\"driver\":\"virtio-blk-pci\","
		 "\"props\":{\"drive\":\"virtio0\"}}]}"},
		{{"-drive", "file=a,if=virtio,index=0", "-drive", "file=b", "-drive",
		  "file=c,id=third,format=raw,media=disk"},
		 "{\"blocks\":[{\"node-name\":\"virtio0\"},{\"node-name\":\"virtio1\"},"
		 "{\"node-name\":\"third\"}],\"devices\":[{},{},{\"props\":{\"drive\":\"third\"}}]}"},
		{{"-drive", "file=a,if=none"},
		 "{\"blocks\":[{\"node-name\":\"none0\"}],\"devices\":[]}"},
		{{"-drive", "file=a,,b,if=none,id=d,cache=none,aio=threads,readonly,discard=unmap"},
		 "{\"blocks\":[{\"node-name\":\"d\",\"filename\":\"a,b\",\"cache\":"
		 "{\"direct\":true},\"aio\":\"threads\",\"read-only\":true,\"discard\":true}]}"},
		{{"-drive", "file=a,werror=stop,rerror=ignore,format=raw"},
		 "{\"blocks\":[{\"werror\":\"stop\",\"rerror\":\"ignore\"}]}"},
		{{"-drive", "file=a"},
		 "{\"blocks\":[{\"guess-raw\":true,\"werror\":\"enospc\",\"rerror\":\"report\"}]}"},
		{{"-drive", "file=a,cache=directsync"},
		 "{\"blocks\":[{\"cache\":{\"direct\":true,\"writethrough\":true}}]}"},
		{{"-drive", "file=a,cache=writethrough"},
		 "{\"blocks\":[{\"cache\":{\"writethrough\":true}}]}"},
		{{"-drive", "file=a,cache=unsafe"},
		 "{\"blocks\":[{\"cache\":{\"no-flush\":true}}]}"},
		{{"-drive", "file=a,cache.direct=on,cache.no-flush=on,read-only=on"},
		 "{\"blocks\":[{\"cache\":{\"direct\":true,\"no-flush\":true},"
		 "\"read-only\":true}]}"},
		{{"-drive", "file=a,if=none,id=d", "-device", "virtio-blk-pci,drive=d"},
		 "{\"devices\":[{\"props\":{\"drive\":\"d\"}}]}"},
	};
	static const struct argv_case bad[] = {
		{{"-drive", "if=virtio"}, "-drive if=virtio: file= is missing"},
		{{"-drive", "file="}, "file: the path is empty"},
		{{"-drive", "file=a,format=qcow2"},
		 "format: 'qcow2' is not a value it takes; give "
		 "one of: raw"},
		{{"-drive", "file=a,if=ide"},
		 "if: 'ide' is not a value it takes; give one of: "
		 "virtio, none"},
		{{"-drive", "file=a,media=cdrom"}, "media: 'cdrom' is not"},
		{{"-drive", "file=a,aio=native"},
		 "aio: 'native' is not a value it takes; give one "
		 "of: io_uring, threads"},
		{{"-drive", "file=a,cache=fast"}, "cache: 'fast' is not"},
		{{"-drive", "file=a,werror=retry"}, "werror: 'retry' is not"},
		{{"-drive", "file=a,rerror=enospc"}, "rerror: 'enospc' is not"},
		{{"-drive", "file=a,readonly=on,read-only=on"}, "are the same; give one"},
		{{"-drive", "file=a,index=1", "-drive", "file=b,index=1"}, "index: 1 is taken"},
		{{"-drive", "file=a,index=64"}, "index: 64 is out of bounds"},
		{{"-drive", "file=a,if=none,index=0"}, "index: an if=none drive has none"},
		{{"-drive", "file=a,snapshot=on"}, "unknown property 'snapshot'"},
		{{"-drive", "file=a,id=d", "-drive", "file=b,id=d"},
		 "-drive id=d: the id is "
		 "taken"},
		{{"-drive", "file=a,id=d", "-device", "virtio-blk-pci,id=x,drive=d"},
		 "-device virtio-blk-pci,id=x: drive: -device virtio-blk-pci uses 'd' already"},
		{{"-device", "virtio-blk-pci,drive=d"},
		 "-device virtio-blk-pci: drive: there is no block node 'd'; define it with"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_blockdev(void)
{
	static const char file[] = "file,node-name=f0,filename=a";
	static const struct argv_case good[] = {
		{{"-blockdev", file, "-blockdev", "raw,node-name=d0,file=f0"},
		 "{\"blocks\":[{\"node-name\":\"d0\",\"protocol-node-name\":\"f0\","
		 "\"filename\":\"a\"}],\"devices\":[]}"},
		{{"-blockdev", file}, "{\"blocks\":[{\"node-name\":\"f0\"}]}"},
		{{"-blockdev", "driver=raw,node-name=d0,file.driver=host_device,"
			       "file.filename=/dev/x,file.locking=off,file.aio=threads"},
		 "{\"blocks\":[{\"node-name\":\"d0\",\"filename\":\"/dev/x\",\"host-device\":true,"
		 "\"locking\":\"off\",\"aio\":\"threads\"}]}"},
		{{"-blockdev", "{\"driver\":\"raw\",\"node-name\":\"d0\",\"read-only\":true,"
			       "\"discard\":\"unmap\",\"file\":{\"driver\":\"file\","
			       "\"filename\":\"a\",\"cache\":{\"direct\":true,"
			       "\"no-flush\":false}}}"},
		 "{\"blocks\":[{\"read-only\":true,\"discard\":true,\"cache\":{\"direct\":true}}]}"},
		{{"-blockdev", file, "-device", "{\"driver\":\"virtio-blk-pci\",\"drive\":\"f0\"}"},
		 "{\"devices\":[{\"props\":{\"drive\":\"f0\"}}]}"},
	};
	static const struct argv_case bad[] = {
		{{"-blockdev", "qcow2,node-name=d0,file=f0"},
		 "driver: 'qcow2' is not available; give one of: raw, file, host_device"},
		{{"-blockdev", "node-name=d0"}, "driver: '' is not available"},
		{{"-blockdev", "raw,node-name=d0"}, "file= is missing"},
		{{"-blockdev", "raw,node-name=d0,file=f9"}, "file: no free file node 'f9' before"},
		{{"-blockdev", "raw,file.driver=file,file.filename=a"}, "node-name= is missing"},
		{{"-blockdev", "file,node-name=f0"}, "filename= is missing"},
		{{"-blockdev", "file,filename=a"}, "node-name= is missing"},
		{{"-blockdev", "raw,node-name=d0,file.driver=raw"}, "raw over raw"},
		{{"-blockdev", "raw,node-name=d0,file.driver=nbd"},
		 "file: driver: 'nbd' is not available"},
		{{"-blockdev", "raw,node-name=d0,offset=1,file.driver=file,file.filename=a"},
		 "unknown property 'offset'"},
		{{"-blockdev", file, "-blockdev", "raw,node-name=d0,file=f0", "-blockdev",
		  "raw,node-name=d1,file=f0"},
		 "file: no free file node 'f0'"},
		{{"-blockdev", file, "-blockdev", file}, "-blockdev id=f0: the id is taken"},
		{{"-blockdev", "file,node-name=f0,filename=a,read-only=on", "-blockdev",
		  "raw,node-name=d0,file=f0,read-only=off"},
		 "read-only: off here, on in the node below"},
		{{"-blockdev", file, "-blockdev", "raw,node-name=d0,file=f0", "-device",
		  "virtio-blk-pci,drive=f0"},
		 "there is no block node 'f0'"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_device(void)
{
	static const struct argv_case good[] = {
		{{"-device", "virtio-rng-pci,id=r,max-bytes=1,bus=pcie.0"},
		 "{\"devices\":[{\"driver\":\"virtio-rng-pci\",\"id\":\"r\","
		 "\"props\":{\"max-bytes\":\"1\",\"bus\":\"pcie.0\"}}]}"},
		{{"-device", "{\"driver\":\"virtio-rng-pci\",\"max-bytes\":1}"},
		 "{\"devices\":[{\"driver\":\"virtio-rng-pci\",\"props\":{\"max-bytes\":1}}]}"},
		{{"-object", "rng-random,id=g", "-object", "iothread,id=t", "-chardev", "null,id=c",
		  "-device", "virtio-rng-pci,rng=g", "-device", "virtconsole,chardev=c", "-device",
		  "x,iothread=t"},
		 "{\"devices\":[{},{},{}]}"},
	};
	static const struct argv_case bad[] = {
		{{"-device", "id=r"}, "-device id=r: driver= is missing"},
		{{"-device", "{\"driver\":7}"}, "driver: the JSON value has the wrong type"},
		{{"-device", "x,id=a", "-device", "y,id=a"}, "-device id=a: the id is taken"},
		{{"-device", "x,rng=g"},
		 "-device x: rng: there is no rng-random 'g'; define it "
		 "with -object rng-random,id=g"},
		{{"-device", "x,iothread=g"}, "iothread: there is no iothread 'g'"},
		{{"-device", "x,chardev=g"}, "chardev: there is no chardev 'g'"},
		{{"-chardev", "null,id=c", "-device", "x,chardev=c", "-device", "y,chardev=c"},
		 "-device y: chardev: -device x uses 'c' already"},
	};

	check_good(good, G_N_ELEMENTS(good));
	check_bad(bad, G_N_ELEMENTS(bad));
}

static void test_explicit_vm(void)
{
	static const struct {
		const char *args[ARGS_MAX];
		bool explicit_vm;
	} cases[] = {
		{{NULL}, false},
		{{"-incoming", "defer", "-S", "-pidfile", "p", "-name", "x", "-nodefaults", "-qmp",
		  "null", "-monitor", "null", "-display", "none"},
		 false},
		{{"-chardev", "null,id=c", "-mon", "c"}, false},
		{{"-nographic", "-nodefaults"}, false},
		{{"-chardev", "null,id=c"}, true},
		{{"-nographic"}, true},
		{{"-m", "1G"}, true},
		{{"-smp", "1"}, true},
		{{"-machine", "q35"}, true},
		{{"-cpu", "host"}, true},
		{{"-kernel", "k"}, true},
		{{"-device", "x"}, true},
		{{"-drive", "file=x"}, true},
		{{"-blockdev", "file,node-name=x,filename=x"}, true},
		{{"-object", "iothread,id=x"}, true},
		{{"-serial", "null"}, true},
	};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		autoptr(vm_config) config = parse_good(cases[i].args);

		g_assert_cmpint(config->explicit_vm, ==, cases[i].explicit_vm);
	}
}

/* Only a -drive looks at its file, to tell a block device; a plain file or none is not one. */
static void test_drive_host_device(void)
{
	static const char *const args[] = {"-drive", "file=/dev/null,if=none,id=a", "-drive",
					   "file=/does/not/exist,if=none,id=b", NULL};
	autoptr(vm_config) config = parse_good(args);

	g_assert_false(vm_config_block(config, "a")->host_device);
	g_assert_false(vm_config_block(config, "b")->host_device);
	g_assert_null(vm_config_block(config, "c"));
}

/* A whole command line cut anywhere is refused or taken, and nothing leaks. */
static void test_truncations(void)
{
	static const char *const args[] = {
		"-machine",
		"q35,memory-backend=ram0",
		"-object",
		"memory-backend-memfd,id=ram0,size=1G",
		"-chardev",
		"socket,id=c,path=/s,server=on,wait=off",
		"-serial",
		"chardev:c",
		"-blockdev",
		"{\"driver\":\"raw\",\"node-name\":\"d\",\"file\":{\"driver\":\"file\","
		"\"filename\":\"a\"}}",
		"-device",
		"virtio-blk-pci,drive=d",
		"-drive",
		"file=b,cache=none",
		NULL};

	for (size_t n = 0; args[n]; n++) {
		for (size_t len = 0; len <= strlen(args[n]); len++) {
			g_autofree char *head = g_strndup(args[n], len);
			const char *cut[G_N_ELEMENTS(args)] = {NULL};
			struct command_line_action action = {0};
			g_autoptr(GError) error = NULL;
			autoptr(vm_config) config = NULL;

			memcpy(cut, args, n * sizeof(cut[0]));
			cut[n] = head;
			config = parse(cut, &action, &error);
			g_assert_true((config == NULL) == (error != NULL || action.text != NULL));
			g_free(action.text);
		}
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/options/command-line/machine", test_machine);
	g_test_add_func("/options/command-line/smp", test_smp);
	g_test_add_func("/options/command-line/ram", test_ram);
	g_test_add_func("/options/command-line/boot-and-process", test_boot_and_process);
	g_test_add_func("/options/command-line/chardev", test_chardev);
	g_test_add_func("/options/command-line/serial", test_serial);
	g_test_add_func("/options/command-line/monitor", test_monitor);
	g_test_add_func("/options/command-line/drive", test_drive);
	g_test_add_func("/options/command-line/blockdev", test_blockdev);
	g_test_add_func("/options/command-line/device", test_device);
	g_test_add_func("/options/command-line/explicit-vm", test_explicit_vm);
	g_test_add_func("/options/command-line/drive-host-device", test_drive_host_device);
	g_test_add_func("/options/command-line/truncations", test_truncations);
	return g_test_run();
}
