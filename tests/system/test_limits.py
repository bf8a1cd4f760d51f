# Limits and odd hosts: an update that cannot be ends failed and unchanged, with a reason, and leaves nothing.
# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import resource
import shutil
import signal
import stat
import subprocess

import pytest

from qmp import QmpError
from vm import MOLT, wait_for_socket

MIB = 1 << 20


class Before:
    """What there was before an update: afterwards it is the same, or something was left behind."""

    def __init__(self, vm):
        self.vm = vm
        self.fds, self.files = vm.open_fds(), self.listing()

    def listing(self):
        return sorted(str(p) for p in self.vm.tmp.rglob("*") if not p.name.endswith(".log"))

    def assert_same(self):
        vm = self.vm
        vm.shared.wait(lambda: not vm.children())
        try:
            vm.shared.wait(lambda: vm.open_fds() == self.fds)
        except TimeoutError:
            assert vm.open_fds() == self.fds
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


# ---- file systems ----

@pytest.fixture
def full(tmp_path):
    """A file system with no room for a byte."""
    path = tmp_path / "full"
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], check=False)
    if done.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        with open(path / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
    except OSError:
        pass
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def test_no_room_for_the_state(vms, full):
    vm = vms()
    vm.shared.wait_started()
    before = Before(vm)
    info = migrate_exec(vm, uri=f"file:{full}/state")
    assert info["status"] == "failed" and "No space left" in info["error-desc"], info
    assert os.listdir(full) == ["filler"]
    before.assert_same()
    vm.exec(command=[MOLT])


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
