# Run a command in an emulated host that has a full KVM, with this machine's files in view.
# SPDX-License-Identifier: Apache-2.0
"""The outside half of scripts/test-host; docs/test-host.md describes both halves.

QEMU in pure emulation boots the stock kernel with a small initramfs.  Its root is this machine's
root over virtiofs, read-only, under an overlay in memory.  The command's output comes back over
virtio-serial ports.  Every resource is a descriptor (memfd, socket pair), and every process dies
with this one, so nothing is left behind however it ends.
"""

import argparse
import collections
import ctypes
import os
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from initramfs import Archive, MissingError, StockKernel, static_busybox

LIBRARY = os.path.dirname(os.path.realpath(__file__))

EXIT_DEADLINE = 124  # as timeout(1)
EXIT_UNUSABLE = 125  # the test host itself failed, the command did not

BOOT_LIMIT_S = 120  # without a sign of the agent the host counts as hung
SILENCE_LIMIT_S = 90  # so does one whose agent is silent this long
DRAIN_LIMIT_S = 20  # for output still under way when the command has ended

# Every feature that emulation has, SVM among them, but two.  QEMU 7.2 does not intercept XSETBV, so
# that KVM inside would run guests with a wrong XCR0; and page walks of five levels are only slower.
CPU = "max,xsave=off,la57=off"

# Modules that the root file system and KVM need; one that is built in costs nothing here.
BASE_MODULES = (
    "virtio_pci virtio_console virtiofs overlay virtio_rng irqbypass kvm kvm_amd".split()
)
VFIO_MODULES = "vfio_pci vfio_iommu_type1".split()
VFIO_DISK_BYTES = 64 << 20

# Environment that means the same inside; anything else is passed with -e.
KEPT_ENVIRONMENT = "PATH HOME USER LOGNAME LANG LC_ALL TERM MOLT_CACHE XDG_CACHE_HOME".split()


class HungError(Exception):
    """The host, not the command, failed; worth one more try."""


class DeadlineError(Exception):
    """The command was running when its time was up."""


def say(text):
    print(f"test-host: {text}", file=sys.stderr, flush=True)


def die_with_parent():
    """Between fork and exec: own process group, killed when this script ends in any way."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def memory_file(name, data=b"", size=0):
    fd = os.memfd_create(name, 0)
    if size:
        os.truncate(fd, size)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def find_program(name, *places):
    for place in places:
        if os.access(place, os.X_OK):
            return place
    found = shutil.which(name)
    if not found:
        raise MissingError(f"no {name}: run scripts/setup")
    return found


class TokenStream:
    """An output stream of the command: passes bytes on until its closing token."""

    def __init__(self, target_fd, token):
        self._target_fd = target_fd
        self._token = token
        self._held = b""
        self.ended = False

    def feed(self, data):
        data = self._held + data
        end = data.find(self._token)
        if end >= 0:
            self.ended = True
            self._held = b""
            self._write(data[:end])
            return
        hold = min(len(data), len(self._token) - 1)
        while hold and not self._token.startswith(data[len(data) - hold :]):
            hold -= 1
        self._held = data[len(data) - hold :]
        self._write(data[: len(data) - hold])

    def _write(self, data):
        view = memoryview(data)
        while view:
            view = view[os.write(self._target_fd, view) :]


class Host:
    """One run of the emulated host.  Use as a context manager: leaving it ends its processes."""

    def __init__(self, options, kernel):
        self._options = options
        self._kernel = kernel
        self._children = []
        self._messages = 2 if options.verbose else memory_file("messages")
        self._selector = selectors.DefaultSelector()
        self._console = collections.deque(maxlen=40)
        self._console_rest = b""
        self._control_rest = b""
        token = b"\0\x1b" + os.urandom(16).hex().encode() + b"\0"
        self._token = token
        self._streams = {2: TokenStream(1, token), 3: TokenStream(2, token)}
        self.started = False
        self.status = None
        self._last_sign = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
        if not self._options.verbose:
            os.close(self._messages)

    # Starting

    def start(self):
        filesystem = self._start_virtiofsd()
        initramfs = memory_file("initramfs", self._initramfs())
        passed = [filesystem.fileno(), initramfs]
        command = self._qemu_command(initramfs, filesystem.fileno())
        channels = []
        for name in ("console", "1", "2", "3"):
            ours, theirs = socket.socketpair()
            self._selector.register(ours, selectors.EVENT_READ, name)
            channels.append(theirs)
            passed.append(theirs.fileno())
            command += ["-chardev", f"socket,id=c{name},fd={theirs.fileno()}"]
            if name == "console":
                command += ["-serial", "chardev:cconsole"]
            else:
                command += ["-device", f"virtserialport,bus=ports.0,chardev=c{name},nr={name}"]
        if self._options.vfio:
            disk = memory_file("nvme", size=VFIO_DISK_BYTES)
            passed.append(disk)
            command += ["-drive", f"file=/proc/self/fd/{disk},if=none,id=n0,format=raw"]
            command += ["-device", "nvme,drive=n0,serial=test-host"]
        self._spawn(command, passed)
        filesystem.close()
        os.close(initramfs)
        for channel in channels:
            channel.close()

    def _qemu_command(self, initramfs, filesystem_fd):
        options = self._options
        append = (
            "console=ttyS0 quiet panic=-1 mitigations=off nowatchdog"
            " clocksource=tsc tsc=reliable random.trust_cpu=on rdinit=/init"
        )
        if options.vfio:
            append += " intel_iommu=on iommu=pt"
        if options.append:
            append += " " + options.append
        thread = "single" if options.smp == 1 else "multi"
        command = [options.qemu, "-no-user-config", "-nodefaults", "-display", "none"]
        command += ["-machine", "q35,memory-backend=ram", "-accel", f"tcg,thread={thread}"]
        command += ["-cpu", options.cpu, "-smp", str(options.smp), "-m", options.mem, "-no-reboot"]
        command += ["-object", f"memory-backend-memfd,id=ram,size={options.mem},share=on"]
        if options.vfio:
            command += ["-device", "intel-iommu,intremap=on"]
        command += ["-kernel", self._kernel.vmlinuz, "-append", append]
        command += ["-initrd", f"/proc/self/fd/{initramfs}"]
        command += ["-chardev", f"socket,id=cfs,fd={filesystem_fd}"]
        command += ["-device", "vhost-user-fs-pci,chardev=cfs,tag=machine"]
        command += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci,id=ports"]
        return command

    def _start_virtiofsd(self):
        """Start the file server; return a connected vhost-user socket."""
        program = find_program(
            "virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"
        )
        directory = tempfile.mkdtemp(prefix="test-host.")
        path = os.path.join(directory, "fs")
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(path)
                listener.listen(1)
                connected = socket.socket(socket.AF_UNIX)
                connected.connect(path)
            finally:
                shutil.rmtree(directory)
            command = [program, "-f", f"--fd={listener.fileno()}", "-o", "source=/"]
            command += ["-o", "sandbox=chroot,cache=always,xattr,log_level=err"]
            self._spawn(command, [listener.fileno()])
        return connected

    def _spawn(self, command, pass_fds):
        if self._options.verbose:
            say(shlex.join(command))
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._messages,
            stderr=self._messages,
            pass_fds=pass_fds,
            preexec_fn=die_with_parent,
        )
        self._children.append(child)

    def _initramfs(self):
        options = self._options
        archive = Archive()
        for directory in ("dev", "proc", "sys", "etc", "tmp"):
            archive.directory(directory)
        archive.character_device("dev/console", 5, 1)
        archive.file("bin/busybox", static_busybox(), 0o755)
        for name, source in (("init", "test-host-init"), ("test-host-agent",) * 2):
            with open(os.path.join(LIBRARY, source), "rb") as file:
                archive.file(name, file.read(), 0o755)
        names = BASE_MODULES + (VFIO_MODULES if options.vfio else [])
        self._kernel.add_modules(archive, names)
        settings = {
            "machine_mode": "rw" if options.share else "ro",
            "kernel_version": self._kernel.version,
            "kernel_modules": self._kernel.modules,
        }
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        archive.file("job/settings", "".join(lines).encode())
        archive.file("job/shared", "".join(f"{path}\n" for path in options.share).encode())
        archive.file("job/command", command_script(options).encode())
        archive.file("job/token", self._token)
        return archive.finish()

    # Watching

    def run(self, deadline_s):
        """Carry output until the command has ended; return its exit status."""
        end = time.monotonic() + deadline_s
        drained_by = None
        while True:
            now = time.monotonic()
            if self.status is not None:
                drained_by = drained_by or now + DRAIN_LIMIT_S
                if all(stream.ended for stream in self._streams.values()):
                    return self.status
                if now > drained_by:
                    say("the end of the command's output was lost")
                    return self.status
            self._check_limits(now, end)
            for key, _ in self._selector.select(timeout=1):
                self._receive(key)

    def _check_limits(self, now, end):
        if now > end and self.status is None:
            if self.started:
                raise DeadlineError
            raise HungError("did not reach the command before the deadline")
        limit = SILENCE_LIMIT_S if self.started else BOOT_LIMIT_S
        if now - self._last_sign > limit:
            raise HungError(f"gave no sign of life for {limit} s")

    def _receive(self, key):
        try:
            data = os.read(key.fd, 65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self._selector.unregister(key.fileobj)
            if key.data == "console" and self.status is None:
                raise HungError("stopped by itself")
            return
        if key.data == "console":
            self._console_data(data)
        elif key.data == "1":
            self._control_data(data)
        else:
            self._streams[int(key.data)].feed(data)

    def _console_data(self, data):
        if self._options.verbose:
            os.write(2, data)
        *lines, self._console_rest = (self._console_rest + data).split(b"\n")
        self._console.extend(lines)

    def _control_data(self, data):
        *lines, self._control_rest = (self._control_rest + data).split(b"\n")
        for line in lines:
            self._last_sign = time.monotonic()
            if line == b"started":
                self.started = True
            elif line.startswith(b"exit "):
                self.status = int(line[5:])

    def last_words(self):
        """What the host and its processes said at the end, as lines."""
        messages = b""
        if not self._options.verbose:
            messages = os.pread(self._messages, 4096, 0)
        lines = [*self._console, self._console_rest][-15:] + messages.splitlines()
        return [line.decode(errors="replace").rstrip() for line in lines if line.strip()]


def command_script(options):
    """The shell script that becomes the command, inside."""
    environment = {n: os.environ[n] for n in KEPT_ENVIRONMENT if n in os.environ}
    environment.update(TMPDIR="/run/tmp", MOLT_TEST_HOST="1")
    environment.update(options.environment)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines.append(f"cd -- {shlex.quote(os.getcwd())} || exit 125")
    lines.append(f"exec {shlex.join(options.command)}")
    return "\n".join(lines) + "\n"


def environment_item(text):
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def shared_directory(text):
    path = os.path.realpath(text)
    if not os.path.isdir(path) or "\n" in path or path == "/":
        raise argparse.ArgumentTypeError(f"'{text}' is not a directory that can be shared")
    return path


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return int(text)


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog="test-host", description="Run COMMAND in an emulated host that has a full KVM."
    )
    add = parser.add_argument
    add("-t", dest="deadline_s", type=positive, default=600, metavar="SECONDS",
        help="deadline of the command, start of the host included (600)")
    add("-e", dest="environment", type=environment_item, action="append", default=[],
        metavar="NAME=VALUE", help="set an environment variable inside")
    add("--share", type=shared_directory, action="append", default=[], metavar="DIR",
        help="let what is written to DIR inside stay on this machine")
    add("--smp", type=positive, default=1, metavar="N", help="processors (1)")
    add("--cpu", default=CPU, metavar="MODEL", help=f"processor model ({CPU})")
    add("--mem", default="2G", metavar="SIZE", help="memory (2G)")
    add("--kernel", metavar="VERSION|DIR", help="a stock kernel other than the cache's current")
    add("--append", metavar="TEXT", help="more kernel parameters")
    add("--vfio", action="store_true", help="add an IOMMU and an NVMe disk to give to guests")
    add("--qemu", metavar="PATH", help="the emulator, if not qemu-system-x86_64")
    add("--verbose", action="store_true", help="show the processes started and the console")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND...")
    options = parser.parse_args(arguments)
    if options.command[:1] == ["--"]:
        del options.command[0]
    if not options.command:
        parser.error("no command given")
    if not re.fullmatch("[1-9][0-9]*[MG]", options.mem):
        parser.error(f"--mem takes a number with M or G, not '{options.mem}'")
    return options


def run_once(options, kernel):
    with Host(options, kernel) as host:
        try:
            host.start()
            return host.run(options.deadline_s)
        except HungError:
            for line in host.last_words():
                say(f"| {line}")
            raise


def become_root():
    """The file server must read every file as its owner would: start anew through sudo if need be."""
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if not sudo:
        raise MissingError("needs root to show this machine's files: run as root, or install sudo")
    kept = [f"{name}={os.environ[name]}" for name in KEPT_ENVIRONMENT if name in os.environ]
    os.execv(sudo, [sudo, "env", *kept, sys.executable, "-B", __file__, *sys.argv[1:]])


def run(options):
    become_root()
    kernel = StockKernel.find(options.kernel)
    options.qemu = options.qemu or find_program("qemu-system-x86_64")
    try:
        return run_once(options, kernel)
    except HungError as error:
        say(f"the host {error}; trying once more")
    return run_once(options, kernel)


def main():
    options = parse_options(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return run(options)
    except DeadlineError:
        say(f"the command was not done after {options.deadline_s} s and was ended")
        return EXIT_DEADLINE
    except (MissingError, HungError) as error:
        prefix = "the host " if isinstance(error, HungError) else ""
        say(f"{prefix}{error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    return EXIT_UNUSABLE


if __name__ == "__main__":
    sys.exit(main())
