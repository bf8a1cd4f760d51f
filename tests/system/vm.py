# A molt process under test: started, watched from outside, updated, and cleaned up for sure.
# SPDX-License-Identifier: Apache-2.0
import json
import mmap
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import time

from qmp import Qmp, wait_for_change

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MOLT_BUILD", ROOT / "build/gcc"))
MOLT = str(BUILD / "src/molt")
SHARED_GPA = 0x100000
SHARED_MAGIC = 0x6D6F6C742D6F6B21


def payload(name):
    return str(BUILD / f"tests/guest/{name}.elf")


class Shared:
    """The page that payload and test share, through the RAM back-end's file (tests/guest/payload.h)."""

    def __init__(self, path):
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 8192, offset=SHARED_GPA)

    def u64(self, index):
        return struct.unpack_from("<Q", self.map, index * 8)[0]

    @property
    def counter(self):
        return self.u64(1)

    @property
    def errors(self):
        return self.u64(2)

    def detail(self, i):
        return self.u64(3 + i)

    def set_detail(self, i, value):
        struct.pack_into("<Q", self.map, (3 + i) * 8, value)

    def per_cpu(self, cpu):
        return self.u64(64 + cpu * 8)

    def wait(self, what, timeout=30.0):
        end = time.monotonic() + timeout
        while not what():
            if time.monotonic() > end:
                raise TimeoutError("the guest did not get there")
            wait_for_change(None, 0.001)

    def wait_started(self, timeout=30.0):
        self.wait(lambda: self.u64(0) == SHARED_MAGIC, timeout)

    def assert_running(self, timeout=10.0):
        before = self.counter
        self.wait(lambda: self.counter > before + 10, timeout)

    def assert_stopped(self):
        before = self.counter
        wait_for_change(None, 0.05)
        assert self.counter == before, "the guest runs although it should not"


class Adopted:
    """A process that is not this one's child, with the part of subprocess.Popen that is used here."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None
        self.pidfd = os.pidfd_open(pid)

    def poll(self):
        if self.returncode is None and select.select([self.pidfd], [], [], 0)[0]:
            self.returncode = 0  # whose child it is has the true one
        return self.returncode

    def wait(self, timeout=None):
        if not select.select([self.pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("adopted", timeout)
        return self.poll()

    def send_signal(self, number):
        signal.pidfd_send_signal(self.pidfd, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Vm:
    """One molt process.  @args are added to what every test needs: RAM in a file, QMP, no defaults."""

    count = 0

    def __init__(self, tmp, args=(), kernel="counter", append="", mem="64M", ram=None, qmp=True,
                 env=None, base=True, incoming=(), binary=MOLT, wait_qmp=True):
        Vm.count += 1
        self.tmp = pathlib.Path(tmp)
        self.tag = f"vm{Vm.count}"
        self.ram = ram or f"/dev/shm/molt-test-{os.getpid()}-{self.tag}"
        self.owns_ram = ram is None
        self.qmp_path = str(self.tmp / f"{self.tag}.qmp")
        self.log_path = self.tmp / f"{self.tag}.log"
        self.qmp = None
        self.mem = mem
        self.argv = [binary]
        if base:
            self.argv += ["-machine", "q35,memory-backend=ram0,aux-ram-share=on", "-nodefaults",
                          "-display", "none", "-m", mem, "-object",
                          f"memory-backend-file,id=ram0,size={mem},mem-path={self.ram},share=on",
                          "-kernel", payload(kernel) if "/" not in kernel else kernel]
            if append:
                self.argv += ["-append", append]
        if qmp:
            self.argv += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        self.argv += list(args)
        for channel in incoming:
            self.argv += ["-incoming", channel if isinstance(channel, str) else json.dumps(channel)]
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, env=dict(os.environ, **(env or {})))
        self.pid = self.process.pid
        if qmp and wait_qmp:
            self.connect()

    def connect(self):
        try:
            self.qmp = Qmp(self.qmp_path)
        except (TimeoutError, EOFError) as error:
            raise AssertionError(f"{error}; log:\n{self.log_text()}") from error
        return self.qmp

    def log_text(self):
        return self.log_path.read_text(errors="replace")

    @property
    def shared(self):
        if not hasattr(self, "_shared"):
            self._shared = Shared(self.ram)
        return self._shared

    def adopt(self, pid):
        """The guest is in process @pid now, which is not a child of this one."""
        self.process = Adopted(pid)
        self.pid = pid

    def wait_exit(self, timeout=20.0):
        return self.process.wait(timeout)

    def alive(self):
        return self.process.poll() is None

    def wait_stopped(self, timeout=30.0):
        """Until the process stands still of SIGSTOP."""
        end = time.monotonic() + timeout
        while pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < end, "it does not stop"
            wait_for_change(None, 0.01)

    def open_fds(self):
        """What each descriptor of the process is, numbers left out."""
        out = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                out.append(os.readlink(f"/proc/{self.pid}/fd/{fd}").split(":")[0])
            except FileNotFoundError:
                pass
        return sorted(out)

    def assert_fds(self, before, timeout=20.0):
        """What was open @before an update is what is left of it, when its children have gone."""
        end = time.monotonic() + timeout
        while (self.open_fds() != before or self.children()) and time.monotonic() < end:
            wait_for_change(None, 0.01)
        assert self.open_fds() == before
        assert self.children() == []

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def children(self):
        out = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = stat.rsplit(")", 1)[1].split()
            if int(fields[1]) == self.pid:
                out.append((int(pid), fields[0]))
        return out

    # ---- updates ----

    def transfer_paths(self):
        Vm.count += 1
        return (str(self.tmp / f"main{Vm.count}.sock"), str(self.tmp / f"cpr{Vm.count}.sock"))

    def successor(self, args=(), defer=False, paths=None, base=False, **kwargs):
        """A process that waits to take over this VM; with @base a full command line, else none."""
        main, cpr = paths or self.transfer_paths()
        incoming = ["defer" if defer else f"unix:{main}",
                    {"channel-type": "cpr",
                     "addr": {"transport": "socket", "type": "unix", "path": cpr}}]
        vm = Vm(self.tmp, args=args, base=base, incoming=incoming, ram=self.ram, mem=self.mem,
                **kwargs)
        vm.main_path, vm.cpr_path = main, cpr
        return vm

    def migrate_to(self, new):
        channels = [{"channel-type": kind,
                     "addr": {"transport": "socket", "type": "unix", "path": path}}
                    for kind, path in (("main", new.main_path), ("cpr", new.cpr_path))]
        self.qmp.cmd("migrate-set-parameters", mode="cpr-transfer")
        return self.qmp.cmd("migrate", channels=channels)

    def set_capabilities(self, **on):
        self.qmp.cmd("migrate-set-capabilities", capabilities=[
            {"capability": name.replace("_", "-"), "state": state} for name, state in on.items()])

    def migrate_first_step(self, new):
        """The first of two steps: until @new is ready and waits for migrate with resume."""
        self.set_capabilities(cpr_two_step=True, events=True)
        wait_for_socket(new.cpr_path)
        self.migrate_to(new)
        self.qmp.wait_event("MIGRATION", status="setup", ready=True)
        assert self.qmp.cmd("query-migrate")["ready"] is True

    def transfer(self, timeout=30.0, two_step=False, quit_old=True, **kwargs):
        """Update by cpr-transfer; returns the new Vm; this one has been told to quit, if so wanted."""
        new = self.successor(**kwargs)
        if two_step:
            self.migrate_first_step(new)
            self.qmp.cmd("migrate", resume=True)
        else:
            wait_for_socket(new.cpr_path)
            self.migrate_to(new)
        info = self.qmp.wait_status(("completed", "failed"), timeout)
        assert info["status"] == "completed", f"{info}\n{self.log_text()}\n{new.log_text()}"
        new.qmp.wait_status(("completed",), timeout)
        new.owns_ram, self.owns_ram = self.owns_ram, False
        new.last_update = info
        if quit_old:
            self.quit()
        return new

    def exec(self, command=None, uri=None, timeout=30.0):
        """Update by cpr-exec, the QMP connection staying open."""
        self.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
                     **({"cpr-exec-command": command} if command else {}))
        args = {"uri": uri or f"file:{self.tmp}/{self.tag}.state"}
        self.qmp.cmd("migrate", **args)
        info = self.qmp.wait_status(("completed", "failed"), timeout)
        assert info["status"] == "completed", f"{info}\n{self.log_text()}"
        return info

    def quit(self):
        if self.qmp:
            try:
                self.qmp.cmd("quit")
            except (EOFError, ConnectionError):
                pass
            self.qmp.close()
        return self.wait_exit()

    def cleanup(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.qmp:
            self.qmp.close()
        self.log.close()
        if self.owns_ram and os.path.exists(self.ram):
            os.unlink(self.ram)


def guest_processes(ram):
    """Every process, zombies left out, that has the guest's RAM open."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if ram in fds and int(pid) != os.getpid():
            found.append(int(pid))
    return found


def wait_processes(vm, pids, timeout=40.0):
    """Until @pids and nobody else has the guest's RAM."""
    end = time.monotonic() + timeout
    while guest_processes(vm.ram) != pids:
        assert time.monotonic() < end, f"not {pids} but {guest_processes(vm.ram)} has the RAM"
        wait_for_change(None, 0.02)


def wait_for_socket(path, timeout=20.0):
    """Until somebody listens on @path (looked up in the kernel's table: no connection is made)."""
    end = time.monotonic() + timeout
    while True:
        for line in open("/proc/net/unix"):
            fields = line.split()
            if fields[-1] == path and fields[3] == "00010000":
                return
        if time.monotonic() > end:
            raise TimeoutError(f"nobody listens on {path}")
        wait_for_change(None, 0.005)


class Serial:
    """The far end of a serial port on a UNIX socket; never reconnects."""

    def __init__(self, path):
        wait_for_socket(path)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.text = b""

    def pump(self, timeout=0.0):
        if select.select([self.sock], [], [], timeout)[0]:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError("serial line dropped")
            self.text += data

    def wait_for(self, pattern, timeout=20.0):
        end = time.monotonic() + timeout
        while pattern not in self.text:
            if time.monotonic() > end:
                raise TimeoutError(f"{pattern!r} not seen in {self.text[-400:]!r}")
            self.pump(0.1)

    def send(self, data):
        self.sock.sendall(data)

    def close(self):
        self.sock.close()


def heartbeat(vms, path, append="spin=200", **kwargs):
    """A VM that writes a numbered line again and again, and its serial line, connected before the first."""
    vm = vms(kernel="heartbeat", append=append,
             args=["-S", "-serial", f"unix:{path},server=on,wait=off"], **kwargs)
    line = Serial(path)
    vm.qmp.cmd("cont")
    return vm, line
