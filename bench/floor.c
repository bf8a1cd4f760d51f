// What this machine's own floor is: the kernel calls that no update of a KVM process can avoid.
// SPDX-License-Identifier: Apache-2.0

/*
 * usage: floor transfer|exec RUNS
 *
 * transfer: a vCPU in a busy loop is kicked out of the guest, its state is read, written again and
 * one message goes to another process and back.  exec: this program executes itself and creates a
 * KVM VM with irqchip, PIT, one memslot and a vCPU.  Prints the ns of every run as a JSON list.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RAM_BYTES     (2UL << 20)
#define MESSAGE_BYTES 13000
#define BETWEEN_US    20000

struct vm {
	int kvm, fd, vcpu;
	struct kvm_run *run;
	volatile uint64_t *ram;
};

/* One vCPU's state, as the calls that this kernel has return it. */
struct state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	struct kvm_debugregs debugregs;
	struct kvm_mp_state mp;
	struct kvm_xsave xsave; /* last: it ends in a flexible array */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int must(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static void vm_create(struct vm *vm)
{
	struct kvm_pit_config pit = {0};
	struct kvm_userspace_memory_region slot = {.memory_size = RAM_BYTES};

	vm->kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm->fd = must(ioctl(vm->kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	vm->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	slot.userspace_addr = (uintptr_t)vm->ram;
	/* Before the interrupt controllers: afterwards it waits for a grace period. */
	must(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	must(ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	must(ioctl(vm->fd, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
	vm->vcpu = must(ioctl(vm->fd, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
}

/* A loop at 0x1000 that counts at 0x2000, in real mode. */
static void vm_load(struct vm *vm)
{
	static const uint8_t code[] = {0xff, 0x06, 0x00, 0x20, 0xeb, 0xfa}; /* incw 0x2000; jmp */
	int bytes = must(ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
	struct kvm_sregs sregs;

	memcpy((char *)vm->ram + 0x1000, code, sizeof(code));
	vm->run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	must(ioctl(vm->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	must(ioctl(vm->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	must(ioctl(vm->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void state_read(int vcpu, struct state *s)
{
	must(ioctl(vcpu, KVM_GET_MP_STATE, &s->mp), "KVM_GET_MP_STATE");
	must(ioctl(vcpu, KVM_GET_REGS, &s->regs), "KVM_GET_REGS");
	must(ioctl(vcpu, KVM_GET_SREGS, &s->sregs), "KVM_GET_SREGS");
	must(ioctl(vcpu, KVM_GET_XSAVE, &s->xsave), "KVM_GET_XSAVE");
	must(ioctl(vcpu, KVM_GET_DEBUGREGS, &s->debugregs), "KVM_GET_DEBUGREGS");
	must(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &s->events), "KVM_GET_VCPU_EVENTS");
	must(ioctl(vcpu, KVM_GET_LAPIC, &s->lapic), "KVM_GET_LAPIC");
}

static void state_write(int vcpu, struct state *s)
{
	must(ioctl(vcpu, KVM_SET_SREGS, &s->sregs), "KVM_SET_SREGS");
	must(ioctl(vcpu, KVM_SET_REGS, &s->regs), "KVM_SET_REGS");
	must(ioctl(vcpu, KVM_SET_XSAVE, &s->xsave), "KVM_SET_XSAVE");
	must(ioctl(vcpu, KVM_SET_LAPIC, &s->lapic), "KVM_SET_LAPIC");
	must(ioctl(vcpu, KVM_SET_DEBUGREGS, &s->debugregs), "KVM_SET_DEBUGREGS");
	must(ioctl(vcpu, KVM_SET_VCPU_EVENTS, &s->events), "KVM_SET_VCPU_EVENTS");
	must(ioctl(vcpu, KVM_SET_MP_STATE, &s->mp), "KVM_SET_MP_STATE");
}

/* The other process: answers every message with one byte. */
static void echo(int fd)
{
	static char message[MESSAGE_BYTES];

	while (recv(fd, message, sizeof(message), MSG_WAITALL) == sizeof(message))
		if (write(fd, "", 1) != 1)
			break;
	_exit(0);
}

static void nothing(int sig)
{
	(void)sig;
}

/* Between the two barriers of each round the main thread kicks this one out of the guest. */
struct rounds {
	struct vm vm;
	int peer;
	unsigned int n;
	uint64_t *out_ns;
	volatile bool in_guest;
	volatile uint64_t kicked_ns;
};

static void *vcpu_main(void *arg)
{
	static char message[MESSAGE_BYTES];
	struct rounds *r = arg;
	struct state state;
	char byte;

	for (unsigned int i = 0; i < r->n; i++) {
		r->in_guest = true;
		if (ioctl(r->vm.vcpu, KVM_RUN, 0) == 0 || errno != EINTR) {
			fprintf(stderr, "floor: KVM_RUN: exit %u\n", r->vm.run->exit_reason);
			exit(1);
		}
		state_read(r->vm.vcpu, &state);
		if (write(r->peer, message, sizeof(message)) != sizeof(message) ||
		    read(r->peer, &byte, 1) != 1)
			must(-1, "socket");
		state_write(r->vm.vcpu, &state);
		r->out_ns[i] = now_ns() - r->kicked_ns;
	}
	return NULL;
}

static void floor_transfer(uint64_t *out_ns, unsigned int n)
{
	struct sigaction action = {.sa_handler = nothing};
	struct rounds r = {.n = n, .out_ns = out_ns};
	int ends[2];
	pthread_t thread;

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
	if (must(fork(), "fork") == 0) {
		close(ends[0]);
		echo(ends[1]);
	}
	close(ends[1]);
	r.peer = ends[0];
	sigaction(SIGUSR1, &action, NULL);
	vm_create(&r.vm);
	vm_load(&r.vm);
	pthread_create(&thread, NULL, vcpu_main, &r);
	for (unsigned int i = 0; i < n; i++) {
		while (!r.in_guest)
			usleep(100);
		usleep(BETWEEN_US);
		r.in_guest = false;
		r.kicked_ns = now_ns();
		pthread_kill(thread, SIGUSR1);
		while (!r.out_ns[i])
			usleep(100);
	}
	pthread_join(thread, NULL);
}

/* In a child for each: execute this program, which creates a VM and says when it had it. */
static void floor_exec(uint64_t *out_ns, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		char name[] = "floor", what[] = "create", *argv[] = {name, what, NULL};
		uint64_t begun_ns = 0, end_ns = 0;
		int ends[2];

		must(pipe(ends), "pipe");
		begun_ns = now_ns();
		if (must(fork(), "fork") == 0) {
			begun_ns = now_ns();
			must((int)write(ends[1], &begun_ns, sizeof(begun_ns)), "pipe");
			dup2(ends[1], STDOUT_FILENO);
			execv("/proc/self/exe", argv);
			_exit(1);
		}
		close(ends[1]);
		if (read(ends[0], &begun_ns, 8) != 8 || read(ends[0], &end_ns, 8) != 8)
			must(-1, "floor create");
		close(ends[0]);
		out_ns[i] = end_ns - begun_ns;
	}
}

static int create(void)
{
	struct vm vm;
	uint64_t end_ns;

	vm_create(&vm);
	end_ns = now_ns();
	return write(STDOUT_FILENO, &end_ns, sizeof(end_ns)) != sizeof(end_ns);
}

int main(int argc, char **argv)
{
	unsigned int n = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	uint64_t *out_ns;

	if (argc == 2 && strcmp(argv[1], "create") == 0)
		return create();
	if (n < 1 || n > 100000 || (strcmp(argv[1], "transfer") && strcmp(argv[1], "exec"))) {
		fprintf(stderr, "usage: floor transfer|exec RUNS\n");
		return 2;
	}
	out_ns = calloc(n, sizeof(*out_ns));
	signal(SIGCHLD, SIG_IGN);
	if (strcmp(argv[1], "transfer") == 0)
		floor_transfer(out_ns, n);
	else
		floor_exec(out_ns, n);
	for (unsigned int i = 0; i < n; i++)
		printf("%s%" PRIu64, i ? ", " : "[", out_ns[i]);
	printf("]\n");
	free(out_ns);
	return 0;
}
