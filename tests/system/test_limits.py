# Limits and odd hosts: an update that cannot be ends failed and unchanged, with a reason, and leaves nothing.
# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import pathlib
import resource
import shutil
import signal
import stat
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from qmp import Qmp, QmpError
from vm import MOLT, Vm, payload, wait_for_change, wait_for_socket, wait_processes

MIB = 1 << 20
SECONDS = 90


class Before:
    """What there was before an update: afterwards it is the same, or something was left behind."""

    def __init__(self, vm):
        self.vm = vm
        self.fds, self.files = vm.open_fds(), self.listing()

    def listing(self):
        return sorted(str(p) for p in self.vm.tmp.rglob("*") if not p.name.endswith(".log"))

    def assert_same(self):
        vm = self.vm
        vm.assert_fds(self.fds)
        assert self.listing() == self.files
        vm.shared.assert_running()


def limit(vm, name, value):
    resource.prlimit(vm.pid, getattr(resource, f"RLIMIT_{name}"), (value, value))


def under(tmp, name, value):
    """A program that is molt under a limit."""
    path = tmp / f"molt-{name}-{value}"
    path.write_text(f'#!/bin/sh\nexec prlimit --{name.lower()}={value}:{value} {MOLT} "$@"\n')
    path.chmod(0o755)
    return str(path)


def migrate_exec(vm, command=None, uri=None):
    vm.qmp.cmd("migrate-set-parameters", **{"mode": "cpr-exec",
                                            "cpr-exec-command": command or [MOLT]})
    try:
        vm.qmp.cmd("migrate", uri=uri or f"file:{vm.tmp}/state")
    except QmpError:
        # What fails before the first wait is the reply, too; what was refused never began.
        if "status" not in vm.qmp.cmd("query-migrate"):
            raise
    return vm.qmp.wait_status(("completed", "failed"), 120)


def assert_unchanged(info, reason):
    assert info["status"] == "failed", info
    assert info["update-record"]["result"] == "unchanged", info
    assert reason in info["error-desc"], info


# ---- the side that has the guest ----

@pytest.mark.parametrize("mode", ["exec", "transfer"])
@pytest.mark.parametrize("name,value,reason", [
    ("NOFILE", 0, "RLIMIT_NOFILE"),  # added to what is open
    ("AS", 0, "address space"),
])
def test_old_refuses(vms, mode, name, value, reason):
    """Known beforehand: migrate's reply is the reason, and nothing was begun."""
    vm = vms()
    vm.shared.wait_started()
    before = Before(vm)
    if name == "NOFILE":
        limit(vm, name, len(before.fds) + 4)
    else:
        status = pathlib.Path(f"/proc/{vm.pid}/status").read_text()
        size_kib = int(status.split("VmSize:")[1].split()[0])
        limit(vm, name, (size_kib << 10) + 8 * MIB)
    new = vm.successor() if mode == "transfer" else None
    if new:
        wait_for_socket(new.cpr_path)
    with pytest.raises(QmpError, match=reason):
        if mode == "exec":
            migrate_exec(vm)
        else:
            vm.migrate_to(new)
    if new:
        new.process.send_signal(signal.SIGTERM)
        assert new.wait_exit() == 0
        os.unlink(new.qmp_path) if os.path.exists(new.qmp_path) else None
    before.assert_same()
    limit(vm, name, resource.prlimit(os.getpid(), getattr(resource, f"RLIMIT_{name}"))[1])
    vm.exec(command=[MOLT])
    vm.shared.assert_running()


def test_old_file_size(vms):
    """A state that may not become as long as it is; the signal that comes with it ends nobody."""
    vm = vms()
    vm.shared.wait_started()
    before = Before(vm)
    limit(vm, "FSIZE", 1024)
    info = migrate_exec(vm)
    assert info["update-record"]["result"] == "unchanged", info
    assert "File too large" in info["error-desc"], info
    before.assert_same()
    vm = vm.transfer()
    vm.shared.assert_running()


@pytest.mark.parametrize("name", ["MEMLOCK", "CORE"])
def test_old_does_not_need_it(vms, name):
    vm = vms()
    limit(vm, name, 0)
    vm.exec(command=[MOLT])
    vm = vm.transfer()
    vm.shared.assert_running()


# ---- the successor ----

@pytest.mark.parametrize("name,value", [("NOFILE", 16), ("AS", 32 * MIB), ("FSIZE", 0)])
def test_successor_by_transfer(vms, tmp_path, name, value):
    vm = vms()
    vm.shared.wait_started()
    before = Before(vm)
    new = vm.successor(binary=under(tmp_path, name, value), wait_qmp=False, qmp=False)
    if name == "FSIZE":  # it writes no file
        wait_for_socket(new.cpr_path)
        vm.migrate_to(new)
        assert vm.qmp.wait_status(("completed", "failed"), 60)["status"] == "completed"
        new.owns_ram, vm.owns_ram = True, False
        vm.shared.assert_running()
        return
    try:
        wait_for_socket(new.cpr_path, 10)
        vm.migrate_to(new)
        info = vm.qmp.wait_status(("failed", "completed"), 60)
        assert_unchanged(info, "")
    except TimeoutError:
        pass  # it did not get as far as that
    assert new.wait_exit() not in (None, 0)
    os.unlink(tmp_path / f"molt-{name}-{value}")
    before.assert_same()


def test_successor_by_exec(vms, tmp_path):
    """It writes no file."""
    vm = vms()
    vm.shared.wait_started()
    info = migrate_exec(vm, [under(tmp_path, "FSIZE", 0)])
    assert info["status"] == "completed", info
    vm.shared.assert_running()


@pytest.mark.parametrize("name,value", [("NOFILE", 16), ("AS", 32 * MIB)])
def test_new_program_under_a_limit(vms, tmp_path, name, value):
    """It holds for the new program alone: the rehearsal finds out."""
    vm = vms()
    vm.shared.wait_started()
    wrapper = under(tmp_path, name, value)
    before = Before(vm)
    info = migrate_exec(vm, [wrapper])
    assert_unchanged(info, "")
    before.assert_same()
    vm.exec(command=[MOLT])
    vm.shared.assert_running()


# ---- RLIMIT_NPROC: of a user who is not root ----

STRANGER = 12345


@pytest.fixture
def unprivileged():
    """A directory of a user without privileges, with a molt of his, who may use /dev/kvm."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, with setpriv")
    mode = stat.S_IMODE(os.stat("/dev/kvm").st_mode)
    path = pathlib.Path(tempfile.mkdtemp(dir="/run"))
    shutil.copy(MOLT, path / "molt.bin")
    shutil.copy(payload("counter"), path / "counter.elf")
    wrapper = path / "molt"
    wrapper.write_text(f"#!/bin/sh\nexec setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups "
                       f'{path}/molt.bin "$@"\n')
    wrapper.chmod(0o755)
    os.chown(path, STRANGER, STRANGER)
    os.chmod("/dev/kvm", 0o666)
    yield path
    os.chmod("/dev/kvm", mode)
    shutil.rmtree(path)


def stranger_tasks():
    """How many tasks the user has, each of which counts."""
    n = 0
    for task in pathlib.Path("/proc").glob("[0-9]*/task/*/status"):
        try:
            n += f"Uid:\t{STRANGER}\t" in task.read_text()
        except (FileNotFoundError, ProcessLookupError):
            pass
    return n


@pytest.mark.parametrize("more", [0, 1])
def test_nproc(vms, unprivileged, more):
    """No task more, or none but the new program's first."""
    vm = Vm(unprivileged, binary=str(unprivileged / "molt"), kernel=str(unprivileged / "counter.elf"))
    vm.shared.wait_started()
    own = [str(unprivileged / "molt.bin")]
    # What jobs and engines start for a while is gone.
    at_start = vm.open_fds()
    vm.exec(command=own)
    vm.assert_fds(at_start)
    before = Before(vm)
    limit(vm, "NPROC", stranger_tasks() + more)
    info = migrate_exec(vm, own)
    assert_unchanged(info, "Resource temporarily unavailable")
    before.assert_same()
    limit(vm, "NPROC", resource.RLIM_INFINITY)
    vm.exec(command=own)
    vm.shared.assert_running()


def test_nproc_of_a_successor(vms, unprivileged):
    """By transfer: it ends with a reason, and the guest stays."""
    vm = Vm(unprivileged, binary=str(unprivileged / "molt"), kernel=str(unprivileged / "counter.elf"))
    vm.shared.wait_started()
    wrapper = unprivileged / "few"
    wrapper.write_text(f"#!/bin/sh\nexec prlimit --nproc=1:1 {unprivileged}/molt \"$@\"\n")
    wrapper.chmod(0o755)
    before = Before(vm)
    new = vm.successor(binary=str(wrapper), wait_qmp=False, qmp=False)
    try:
        wait_for_socket(new.cpr_path, 10)
        vm.migrate_to(new)
        assert_unchanged(vm.qmp.wait_status(("failed", "completed"), 60), "")
    except TimeoutError:
        pass
    assert new.wait_exit() not in (None, 0)
    assert "Resource temporarily unavailable" in new.log_text()
    before.assert_same()


# ---- descriptors ----

def test_no_descriptor_for_a_client(vms, tmp_path):
    """accept() fails: others stay alive, and the client is taken as soon as there is room."""
    path = str(tmp_path / "second.qmp")
    vm = vms(args=["-qmp", f"unix:{path},server=on,wait=off"])
    wait_for_socket(path)
    had = resource.prlimit(vm.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(vm.pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{vm.pid}/fd")), had[1]))
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.settimeout(30)

    def used():
        return sum(map(int, pathlib.Path(f"/proc/{vm.pid}/task/{vm.pid}/stat").read_text()
                       .rsplit(")", 1)[1].split()[11:13]))
    for _ in range(5):
        assert vm.qmp.cmd("query-status")["status"] == "running"
    begun = used()
    wait_for_change(None, 2)
    # A loop that turned all the time would have used most of the two seconds.
    assert used() - begun < 100, "the main loop spins"
    assert vm.qmp.cmd("query-status")["status"] == "running"
    resource.prlimit(vm.pid, resource.RLIMIT_NOFILE, had)
    assert b"QMP" in client.recv(4096)
    client.close()
    vm.shared.assert_running()


# ---- memory ----

class Cgroup:
    """One of version 2, with the controllers for memory and tasks."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.mkdir()

    def write(self, name, value):
        (self.path / name).write_text(str(value))

    def number(self, name):
        return int((self.path / name).read_text())

    def events(self, name):
        return int((self.path / "memory.events").read_text().split(f"\n{name} ")[1].split()[0])

    def used(self):
        """Without what can be reclaimed."""
        lines = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        return self.number("memory.current") - sum(
            int(lines[name]) for name in ("inactive_file", "active_file", "slab_reclaimable"))

    def leave(self, name, room):
        """Let there be @room bytes."""
        self.write(name, self.used() + room)

    def program(self, path):
        """A molt that goes into it first."""
        path.write_text(f'#!/bin/sh\necho $$ >{self.path}/cgroup.procs && exec {MOLT} "$@"\n')
        path.chmod(0o755)
        return str(path)


def remove(group, timeout=30.0):
    """As soon as the last that was killed in it is gone."""
    end = time.monotonic() + timeout
    while True:
        try:
            return group.rmdir()
        except OSError:
            assert time.monotonic() < end, (group / "cgroup.procs").read_text()
            wait_for_change(None, 0.02)


@pytest.fixture
def cgroup():
    if os.geteuid() != 0:
        pytest.skip("only root makes cgroups")
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    top = next((pathlib.Path(m[1]) for m in mounts if m[2] == "cgroup2"), None)
    mounted = None
    if not top:
        top = mounted = pathlib.Path("/run/molt-test-cgroup")
        top.mkdir(exist_ok=True)
        if subprocess.run(["mount", "-t", "cgroup2", "cgroup2", top], check=False).returncode:
            pytest.skip("no cgroups of version 2 here")
    try:
        (top / "cgroup.subtree_control").write_text("+memory +pids")
    except OSError as error:
        pytest.skip(f"a controller is missing here: {error}")
    group = Cgroup(top / f"molt-test-{os.getpid()}")
    yield group
    for procs in [*group.path.glob("*/cgroup.procs"), group.path / "cgroup.procs"]:
        for pid in procs.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        remove(procs.parent)
    if mounted:
        subprocess.run(["umount", "-l", mounted], check=True)


# Whatever place gets free it takes, until it is killed.
GREEDY = """
import os, signal
while True:
    try:
        if os.fork() == 0:
            signal.pause()
    except OSError:
        os.sched_yield()
"""


@pytest.mark.parametrize("told", [False, True])
def test_no_room_for_threads(vms, tmp_path, cgroup, told):
    """execve() ends threads, and others get their places: who comes back waits until there is room, or until
    it is told to end, and then nobody else goes on."""
    vm = vms(binary=cgroup.program(tmp_path / "in-cgroup"), args=["-smp", "2"])
    vm.shared.wait_started()
    vm.set_capabilities(pause_before_switchover=True)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=[MOLT])
    vm.qmp.cmd("migrate")
    vm.qmp.wait_status(("pre-switchover",), SECONDS)
    full = cgroup.number("pids.current") + 10
    cgroup.write("pids.max", full)
    greedy = subprocess.Popen(
        ["/bin/sh", "-c", f'echo $$ >{cgroup.path}/cgroup.procs && exec "$@"', "greedy",
         sys.executable, "-c", GREEDY], start_new_session=True)
    try:
        vm.shared.wait(lambda: cgroup.number("pids.current") >= full, SECONDS)
        vm.qmp.send("migrate-continue", state="pre-switchover")
        # The new program gives up after a while, the old one does not.
        vm.shared.wait(lambda: vm.log_text().count("no room for thread") == 2, SECONDS)
        vm.shared.assert_stopped()
        if told:
            vm.process.terminate()
            assert vm.process.wait(SECONDS) == 1
            assert "told to end while there was no room" in vm.log_text()
    finally:
        os.killpg(greedy.pid, signal.SIGKILL)
        greedy.wait()
    if told:
        wait_processes(vm, [])
        return
    info = vm.qmp.wait_status(("failed", "completed"), SECONDS)
    assert info["update-record"]["result"] == "rolled-back", info
    assert "vCPU 0: Error creating thread" in info["error-desc"], info
    vm.shared.assert_running()
    cgroup.write("pids.max", "max")
    vm.set_capabilities(pause_before_switchover=False)
    vm.exec()
    vm.shared.assert_running()


def test_memory_is_short(vms, tmp_path, cgroup):
    """Known beforehand, so that a cgroup which ends as a whole does not lose the guest to a rehearsal."""
    vm = vms(binary=cgroup.program(tmp_path / "in-cgroup"))
    vm.shared.wait_started()
    before = Before(vm)
    cgroup.write("memory.oom.group", 1)
    cgroup.leave("memory.max", 2 * MIB)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    assert "memory.max" in vm.qmp.cmd("query-migrate")["blocked-reasons"][0]
    with pytest.raises(QmpError, match=f"the cgroup '{cgroup.path}' has room for . MiB"):
        migrate_exec(vm)
    assert cgroup.events("oom_kill") == 0
    before.assert_same()
    cgroup.write("memory.max", "max")
    vm.exec(command=[MOLT])
    vm.shared.assert_running()


def test_memory_gets_short(vms, tmp_path, cgroup):
    """While a manager has the guest stopped: what the rehearsal needed is not there any more."""
    vm = vms(binary=cgroup.program(tmp_path / "in-cgroup"))
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=[MOLT])
    vm.set_capabilities(pause_before_switchover=True)
    vm.qmp.cmd("migrate", uri=f"file:{tmp_path}/state")
    vm.qmp.wait_status(("pre-switchover",), 60)
    cgroup.leave("memory.max", 2 * MIB)
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    info = vm.qmp.wait_status(("completed", "failed"), 60)
    assert info["update-record"]["result"] == "rolled-back", info
    assert f"the cgroup '{cgroup.path}' has room for" in info["error-desc"], info
    vm.shared.assert_running()
    assert cgroup.events("oom_kill") == 0
    cgroup.write("memory.max", "max")


def test_new_program_without_memory(vms, tmp_path, cgroup):
    """In a cgroup of its own it is killed, which is told; nothing of this one is."""
    vm = vms()
    vm.shared.wait_started()
    cgroup.write("memory.max", 256 << 10)
    wrapper = cgroup.program(tmp_path / "in-cgroup")
    before = Before(vm)
    info = migrate_exec(vm, [wrapper])
    assert_unchanged(info, "killed by signal 9 (Killed) without answering, as the kernel does where "
                           "memory is short")
    assert cgroup.events("oom_kill") > 0
    before.assert_same()
    vm.exec(command=[MOLT])


# ---- file systems ----

@contextlib.contextmanager
def small_tmpfs(place, limit):
    """A file system at @place with @limit as mount(8) has it for tmpfs."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", limit, "tmpfs", place], check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(place, step):
    """Not @step octets more find room."""
    try:
        with open(place / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(step))
    except OSError:
        pass


@pytest.fixture
def full(tmp_path):
    """A file system with no room for a byte."""
    with small_tmpfs(tmp_path / "full", "size=64k") as path:
        fill(path, 4096)
        yield path


def test_no_room_for_the_state(vms, full):
    vm = vms()
    vm.shared.wait_started()
    before = Before(vm)
    info = migrate_exec(vm, uri=f"file:{full}/state")
    assert info["status"] == "failed" and "No space left" in info["error-desc"], info
    assert os.listdir(full) == ["filler"]
    before.assert_same()
    vm.exec(command=[MOLT])


def test_no_room_for_a_socket(vms, tmp_path):
    """A file system without an inode left, such as a full /tmp: the successor ends, the guest stays."""
    with small_tmpfs(tmp_path / "full", "nr_inodes=1") as place:
        vm = vms()
        vm.shared.wait_started()
        before = Before(vm)
        new = vm.successor(wait_qmp=False, qmp=False, paths=(f"{place}/main", f"{place}/cpr"))
        assert new.wait_exit() == 1
        assert "No space left on device" in new.log_text()
        with pytest.raises(QmpError, match="No such file or directory"):
            vm.migrate_to(new)
        info = migrate_exec(vm, uri=f"file:{place}/state")
        assert_unchanged(info, "No space left on device")
        assert os.listdir(place) == []
        before.assert_same()
        vm.exec(command=[MOLT])


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_no_room_for_more_ram(vms, tmp_path, mode):
    """A full /dev/shm: what the guest has of its RAM file crosses; no page is added to it."""
    with small_tmpfs(tmp_path / "shm", "size=80m") as place:
        vm = vms(ram=f"{place}/ram")
        vm.shared.wait_started()
        fill(place, MIB)
        assert os.statvfs(place).f_bavail == 0
        if mode == "exec":
            vm.exec(command=[MOLT])
        else:
            vm = vm.transfer()
        vm.shared.assert_running()
        assert sorted(os.listdir(place)) == ["filler", "ram"]


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "two-names", "stranger"])
def test_places_for_the_state(vms, tmp_path, kind):
    """By the rule of docs/files.md: refused at once, and what is there stays as it is."""
    vm = vms()
    vm.shared.wait_started()
    place, other = tmp_path / "place", tmp_path / "other"
    other.write_text("precious")
    if kind == "fifo":
        os.mkfifo(place)
        why = "not a regular file"
    elif kind == "directory":
        place.mkdir()
        why = "not a regular file"
    elif kind == "two-names":
        os.link(other, place)
        why = "a file with 2 names"
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can make files of another user")
        tmp_path.chmod(0o1777)
        if kind == "link":
            place.symlink_to(other)
            why = "a symbolic link of user 12345"
        else:
            place.write_text("precious")
            why = "a file of user 12345"
        os.chown(place, 12345, 12345, follow_symlinks=False)
    before = Before(vm)
    info = migrate_exec(vm, uri=f"file:{place}")
    assert info["update-record"]["result"] == "unchanged" and why in info["error-desc"], info
    before.assert_same()
    assert other.read_text() == "precious"


@pytest.mark.parametrize("kind", ["image", "ram"])
def test_places_that_the_vm_uses(vms, tmp_path, kind):
    """Its own disk and its own memory are no places for its state."""
    image = tmp_path / "d.img"
    image.write_bytes(b"precious" + bytes(MIB))
    vm = vms(args=["-drive", f"file={image},format=raw,if=virtio"])
    vm.shared.wait_started()
    place = image if kind == "image" else vm.ram
    size = os.stat(place).st_size
    before = Before(vm)
    info = migrate_exec(vm, uri=f"file:{place}")
    assert info["update-record"]["result"] == "unchanged" and "is in use" in info["error-desc"], info
    before.assert_same()
    assert os.stat(place).st_size == size and image.read_bytes()[:8] == b"precious"


def test_modes(vms, tmp_path):
    """Of all that molt makes, under a umask that takes nothing away."""
    mask = os.umask(0)
    try:
        vm = vms(args=["-pidfile", f"{tmp_path}/pid", "-chardev",
                       f"file,id=c0,path={tmp_path}/out,logfile={tmp_path}/log", "-serial",
                       "chardev:c0", "-chardev", f"socket,id=c1,path={tmp_path}/sock,server=on,"
                       "wait=off", "-mon", "chardev=c1"])
        vm.exec(command=[MOLT])
    finally:
        os.umask(mask)
    made = [vm.ram, vm.qmp_path, *(f"{tmp_path}/{name}" for name in ("pid", "out", "log", "sock")),
            f"{vm.tmp}/{vm.tag}.state"]
    assert {path: oct(stat.S_IMODE(os.lstat(path).st_mode)) for path in made} == {
        path: "0o600" for path in made}


def test_kernel_file_changes(vms, tmp_path):
    """A guest that resets, here or in a successor, boots what it was started with."""
    kernel = tmp_path / "kernel.elf"
    shutil.copy(str(pathlib.Path(MOLT).parents[1] / "tests/guest/counter.elf"), kernel)
    vm = vms(kernel=str(kernel))
    vm.shared.wait_started()
    os.truncate(kernel, 100)
    for update in ("none", "exec", "transfer"):
        if update == "exec":
            vm.exec(command=[MOLT])
            kernel.write_bytes(b"something else")
        elif update == "transfer":
            vm = vm.transfer()
        vm.shared.map[:8] = bytes(8)
        vm.qmp.cmd("system_reset")
        vm.shared.wait_started()
        vm.shared.assert_running()


# ---- without /proc ----

def test_without_proc(vms, tmp_path):
    """It runs, cannot be updated, and says so."""
    wrapper = tmp_path / "noproc"
    wrapper.write_text("#!/bin/sh\nexec unshare -m sh -c 'mount -t tmpfs tmpfs /proc && exec \"$@\"' sh "
                       f'{MOLT} "$@"\n')
    wrapper.chmod(0o755)
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/proc"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    vm = vms(binary=str(wrapper))
    vm.shared.wait_started()
    before = Before(vm)
    for mode in ("cpr-exec", "cpr-transfer"):
        vm.qmp.cmd("migrate-set-parameters", mode=mode)
        assert "/proc" in vm.qmp.cmd("query-migrate")["blocked-reasons"][0]
    with pytest.raises(QmpError, match="mount /proc"):
        migrate_exec(vm)
    before.assert_same()
