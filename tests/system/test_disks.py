# Disks as administrators know them: errors, sizes, locks, formats, odd images, odd stores.
# SPDX-License-Identifier: Apache-2.0
import contextlib
import errno
import os
import shutil
import subprocess

import pytest

from hungfs import hung_disk  # noqa: F401
from qmp import QmpError

READ, WRITE, FLUSH = 0, 1, 4
SECTOR, SLOTS = 512, 8
(ASKED, TYPE, FIRST, N, STEP, SEED, ANSWERED, GOOD, WRONG, CAPACITY, BLOCK, GENERATION, TOLD,
 OPEN) = range(14)


class Asked:
    """The guest of tests/guest/asked.c: begin() asks for requests, end() says what came of them."""

    def __init__(self, vm):
        self.vm = vm
        vm.shared.wait_started()
        vm.shared.wait(lambda: vm.shared.detail(CAPACITY) or vm.shared.detail(BLOCK))
        self.number = vm.shared.detail(ASKED)

    def moved(self, vm):
        """The guest is in @vm now."""
        self.vm = vm
        return self

    def put(self, i, value):
        self.vm.shared.map[(3 + i) * 8:(4 + i) * 8] = value.to_bytes(8, "little")

    def begin(self, kind, first=0, n=1, step=8, seed=1):
        for i, value in ((TYPE, kind), (FIRST, first), (N, n), (STEP, step), (SEED, seed)):
            self.put(i, value)
        self.number += 1
        self.put(ASKED, self.number)

    def open(self):
        return self.vm.shared.detail(ANSWERED) != self.number

    def end(self, timeout=30.0):
        """(requests that ended well, sectors that held something else)."""
        self.vm.shared.wait(lambda: not self.open(), timeout)
        return self.vm.shared.detail(GOOD), self.vm.shared.detail(WRONG)

    def ask(self, *args, **kwargs):
        self.begin(*args, **kwargs)
        return self.end()

    def told(self):
        """Capacity, generation and configuration interrupts, as the guest sees them now."""
        before = self.vm.shared.counter
        self.vm.shared.wait(lambda: self.vm.shared.counter > before + 2)
        return tuple(self.vm.shared.detail(i) for i in (CAPACITY, GENERATION, TOLD))


def io_status(vm):
    return vm.qmp.cmd("query-block")[0].get("io-status")


def wait_stopped(guest, operation, error):
    """The VM has stopped for a failed request, and says so in every place."""
    event = guest.vm.qmp.wait_event("BLOCK_IO_ERROR")["data"]
    guest.vm.qmp.wait_event("STOP")
    assert guest.vm.qmp.cmd("query-status") == {"status": "io-error", "running": False}
    nospace = error == errno.ENOSPC
    assert event == {"qom-path": "/machine/peripheral/vda/virtio-backend", "device": "d0",
                     "node-name": "d0", "operation": operation, "action": "stop",
                     "nospace": nospace, "reason": os.strerror(error)}
    assert io_status(guest.vm) == ("nospace" if nospace else "failed")
    assert guest.open()


@pytest.fixture
def disk_vm(vms):
    """A function: a guest that can be asked, with one disk: @drive options, @device options."""
    def make(path, drive="", device="", **kwargs):
        return Asked(vms(kernel="asked", args=[
            "-drive", f"file={path},format=raw,if=none,id=d0{drive}",
            "-device", f"virtio-blk-pci,drive=d0,id=vda{device}"], **kwargs))
    return make


# ---- errors ----

# drive's and device's options, what fails and how: what becomes of it.
POLICIES = [
    ("", "", "write", errno.ENOSPC, "stop"),
    ("", "", "write", errno.EIO, "report"),
    ("", "", "flush", errno.EIO, "report"),
    ("", "", "read", errno.EIO, "report"),
    (",werror=report", "", "write", errno.ENOSPC, "report"),
    (",werror=enospc", "", "write", errno.EIO, "report"),
    (",werror=ignore", "", "write", errno.ENOSPC, "ignore"),
    (",werror=stop", "", "write", errno.EIO, "stop"),
    (",werror=stop", "", "read", errno.EIO, "report"),
    (",rerror=stop", "", "read", errno.EIO, "stop"),
    (",rerror=ignore", "", "read", errno.EIO, "ignore"),
    (",werror=stop", ",werror=report", "write", errno.EIO, "report"),
    ("", ",werror=stop,rerror=stop", "read", errno.EIO, "stop"),
]


@pytest.mark.parametrize("drive,device,what,error,outcome", POLICIES)
def test_error_policy(disk_vm, hung_disk, drive, device, what, error, outcome):  # noqa: F811
    disk = hung_disk()
    guest = disk_vm(disk.path, drive, device)
    kind = {"read": READ, "write": WRITE, "flush": FLUSH}[what]
    assert guest.ask(WRITE, n=3) == (3, 0)
    disk.fail(what, error)
    guest.begin(kind, n=1)
    if outcome == "stop":
        wait_stopped(guest, "read" if what == "read" else "write", error)
        disk.fail(what, 0)
        guest.vm.qmp.cmd("cont")
        assert guest.end() == (1, 0)
        assert io_status(guest.vm) == "ok"
    else:
        event = guest.vm.qmp.wait_event("BLOCK_IO_ERROR")["data"]
        assert (event["action"], event["reason"]) == (outcome, os.strerror(error))
        good, _ = guest.end()
        assert good == (1 if outcome == "ignore" else 0)
        assert guest.vm.qmp.cmd("query-status")["status"] == "running"
        disk.fail(what, 0)
    assert guest.ask(READ, n=3) == (3, 0)


@contextlib.contextmanager
def full_store(tmp_path, options="size=1m"):
    """A file system without room: (directory, a function that makes room)."""
    where = tmp_path / "full"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", where], check=True)
    try:
        with open(where / "d.img", "wb") as image:
            image.truncate(1 << 20)
        with open(where / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        yield where / "d.img", (where / "filler").unlink
    finally:
        subprocess.run(["umount", "-l", where], check=False)


def needs_mount():
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")


@pytest.mark.parametrize("aio", ["io_uring", "threads"])
def test_disk_full(disk_vm, tmp_path, aio):
    needs_mount()
    with full_store(tmp_path) as (image, make_room):
        guest = disk_vm(image, f",aio={aio}")
        guest.begin(WRITE, n=SLOTS, seed=5)
        wait_stopped(guest, "write", errno.ENOSPC)
        guest.vm.shared.assert_stopped()
        # No room yet: the same again, and nothing reaches the guest.
        guest.vm.qmp.cmd("cont")
        wait_stopped(guest, "write", errno.ENOSPC)
        make_room()
        guest.vm.qmp.cmd("cont")
        assert guest.end() == (SLOTS, 0)
        assert guest.ask(READ, n=SLOTS, seed=5) == (SLOTS, 0)
        guest.vm.quit()


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_update_keeps_io_error(disk_vm, tmp_path, mode):
    """The requests that failed are the successor's, which repeats them; twice, then there is room."""
    needs_mount()
    with full_store(tmp_path) as (image, make_room):
        guest = disk_vm(image)
        guest.begin(WRITE, n=SLOTS, seed=7)
        wait_stopped(guest, "write", errno.ENOSPC)
        for _ in range(2):
            if mode == "exec":
                guest.vm.exec()
            else:
                guest.moved(guest.vm.transfer())
            assert guest.vm.qmp.cmd("query-status")["status"] == "io-error"
            assert io_status(guest.vm) == "nospace"
            assert guest.open()
        guest.vm.qmp.cmd("cont")
        wait_stopped(guest, "write", errno.ENOSPC)
        make_room()
        guest.vm.qmp.cmd("cont")
        assert guest.end() == (SLOTS, 0)
        assert guest.ask(READ, n=SLOTS, seed=7) == (SLOTS, 0)
        guest.vm.quit()


def test_reset_drops_failed_requests(disk_vm, tmp_path):
    needs_mount()
    with full_store(tmp_path) as (image, make_room):
        guest = disk_vm(image)
        guest.begin(WRITE, n=SLOTS, seed=9)
        wait_stopped(guest, "write", errno.ENOSPC)
        guest.put(ASKED, 0)
        guest.vm.qmp.cmd("system_reset")
        guest.vm.qmp.wait_event("RESET")
        assert guest.vm.qmp.cmd("query-status")["status"] == "prelaunch"
        assert io_status(guest.vm) == "ok"
        make_room()
        before = image.stat().st_blocks
        guest.vm.qmp.cmd("cont")
        guest.vm.shared.assert_running()
        assert image.stat().st_blocks == before, "a dropped request was done"
        guest.vm.quit()


@pytest.mark.parametrize("way", ["cont", "system_reset", "exec", "transfer"])
def test_flush_without_space(disk_vm, hung_disk, way):  # noqa: F811
    """The flush is tried again at each cont, by a successor as well; with room the guest goes on."""
    disk = hung_disk()
    guest = disk_vm(disk.path, ",aio=threads")
    assert guest.ask(WRITE, n=SLOTS, seed=3) == (SLOTS, 0)
    disk.fail("flush", errno.ENOSPC)
    guest.begin(FLUSH)
    wait_stopped(guest, "write", errno.ENOSPC)
    guest.vm.qmp.cmd("cont")
    wait_stopped(guest, "write", errno.ENOSPC)
    if way == "exec":
        guest.vm.exec()
    elif way == "transfer":
        guest.moved(guest.vm.transfer())
    disk.fail("flush", 0)
    if way == "system_reset":
        guest.put(ASKED, 0)
        guest.vm.qmp.cmd("system_reset")
        guest.vm.qmp.wait_event("RESET")
        guest.number = 0
    guest.vm.qmp.cmd("cont")
    if way == "system_reset":
        guest.vm.shared.assert_running()
    else:
        assert guest.end() == (1, 0)
    assert guest.ask(FLUSH) == (1, 0)
    assert guest.ask(READ, n=SLOTS, seed=3) == (SLOTS, 0)
    assert guest.vm.qmp.cmd("query-status")["status"] == "running"
    assert io_status(guest.vm) == "ok"


# ---- sizes ----

def test_block_resize(disk_vm, tmp_path):
    image = tmp_path / "d.img"
    image.write_bytes(bytes(1 << 20))
    guest = disk_vm(image)
    qmp = guest.vm.qmp
    capacity, generation, told = guest.told()
    assert capacity == 2048
    qmp.cmd("block_resize", device="d0", size=2 << 20)
    guest.vm.shared.wait(lambda: guest.told() == (4096, generation + 1, told + 1))
    assert image.stat().st_size == 2 << 20
    assert guest.ask(WRITE, first=4000, n=2, step=8) == (2, 0)
    qmp.cmd("block_resize", node_name="d0", size=1 << 20)
    guest.vm.shared.wait(lambda: guest.told() == (2048, generation + 2, told + 2))
    assert guest.ask(WRITE, first=4000) == (0, 0)
    # A stopped guest hears of it when it goes on; an update in between changes nothing.
    qmp.cmd("stop")
    qmp.hmp("block_resize d0 3M")
    guest.vm.exec()
    guest.moved(guest.vm.transfer())
    qmp = guest.vm.qmp
    qmp.cmd("cont")
    guest.vm.shared.wait(lambda: guest.told() == (6144, generation + 3, told + 3))
    assert qmp.cmd("query-block")[0]["inserted"]["image"]["virtual-size"] == 3 << 20
    for wrong in ({"device": "d1", "size": 512}, {"node-name": "x", "size": 512}, {"size": 512},
                  {"device": "d0", "node-name": "d0", "size": 512}, {"device": "d0", "size": -1},
                  {"device": "d0", "size": 0}):
        with pytest.raises(QmpError):
            qmp.cmd("block_resize", **wrong)
    assert image.stat().st_size == 3 << 20


@pytest.mark.parametrize("mode", ["exec", "transfer"])
@pytest.mark.parametrize("size", [4 << 20, 512 << 10, (1 << 20) + 100, 0])
def test_size_changed_outside(disk_vm, tmp_path, mode, size):
    """The guest's view stays; what is not there any more is an I/O error; block_resize tells."""
    image = tmp_path / "d.img"
    image.write_bytes(bytes(1 << 20))
    guest = disk_vm(image)
    before = guest.told()
    os.truncate(image, size)
    if mode == "exec":
        guest.vm.exec()
    else:
        guest.moved(guest.vm.transfer())
    assert guest.told() == before
    assert f"has {-(-size // 512) * 512} bytes, the guest was told 1048576" in guest.vm.log_text()
    last = 2048 - 8
    assert guest.ask(READ, first=last, seed=0) == ((1, 0) if size > 1 << 20 else (0, 1))
    assert guest.ask(WRITE, first=last) == ((1, 0) if size > 1 << 20 else (0, 0))
    assert image.stat().st_size >= size
    # As large as before once more: all is well, and told.
    guest.vm.qmp.cmd("block_resize", device="d0", size=1 << 20)
    guest.vm.shared.wait(lambda: guest.told()[1] == before[1] + 1)
    assert guest.told()[0] == 2048
    assert guest.ask(WRITE, first=last, seed=3) == (1, 0)
    assert guest.ask(READ, first=last, seed=3) == (1, 0)


@pytest.mark.parametrize("aio", ["io_uring", "threads"])
def test_image_with_a_tail(disk_vm, tmp_path, aio):
    """The size is rounded up to a sector; what the file lacks of it reads as zeros until written."""
    image = tmp_path / "d.img"
    image.write_bytes(bytes((1 << 20) + 100))
    guest = disk_vm(image, f",aio={aio}")
    assert guest.told()[0] == 2049
    assert guest.ask(READ, first=2048, seed=0) == (1, 0)
    guest.vm.exec()
    assert guest.told()[0] == 2049
    assert guest.ask(WRITE, first=2048, seed=4) == (1, 0)
    assert guest.ask(READ, first=2048, seed=4) == (1, 0)
    assert image.stat().st_size == (1 << 20) + 512
    assert guest.ask(READ, first=2049) == (0, 1)


# ---- stores with large sectors ----

@contextlib.contextmanager
def loop_device(path):
    subprocess.run(["modprobe", "loop"], capture_output=True, check=False)
    done = subprocess.run(["losetup", "--sector-size", "4096", "--find", "--show", path],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"losetup: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=False)


@pytest.mark.parametrize("aio", ["io_uring", "threads"])
def test_small_sectors_on_large_ones(disk_vm, tmp_path, aio):
    """O_DIRECT on blocks of 4096 bytes, a guest with sectors of 512: neighbours do not lose."""
    needs_mount()
    backing = tmp_path / "backing"
    backing.write_bytes(bytes(1 << 20))
    with loop_device(backing) as device:
        guest = disk_vm(device, f",cache=none,aio={aio}", ",logical_block_size=512")
        guest.told()
        assert guest.vm.shared.detail(BLOCK) == 512
        for seed in range(1, 6):
            # All eight sectors of one block at once, then of eight blocks one each.
            assert guest.ask(WRITE, first=64, n=SLOTS, step=1, seed=seed) == (SLOTS, 0)
            assert guest.ask(READ, first=64, n=SLOTS, step=1, seed=seed) == (SLOTS, 0)
            assert guest.ask(WRITE, first=131, n=SLOTS, step=7, seed=seed) == (SLOTS, 0)
            assert guest.ask(READ, first=131, n=SLOTS, step=7, seed=seed) == (SLOTS, 0)
            assert guest.ask(READ, first=64, n=SLOTS, step=1, seed=seed) == (SLOTS, 0)
        guest.moved(guest.vm.transfer())
        guest.told()
        assert guest.vm.shared.detail(BLOCK) == 512
        assert guest.ask(READ, first=64, n=SLOTS, step=1, seed=5) == (SLOTS, 0)
        guest.vm.quit()


# ---- locks ----

def qemu_img(*args):
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img is not installed: scripts/setup")
    return subprocess.run(["qemu-img", *map(str, args)], capture_output=True, text=True,
                          check=False)


# What qemu-img does beside a guest that writes, one that reads, one that shares; 0: it works.
TOOLS = [
    (("info",), 0, 0, 0),
    (("convert", "-f", "raw", "-O", "raw", "{image}", "{other}"), 1, 0, 1),
    (("convert", "-U", "-f", "raw", "-O", "raw", "{image}", "{other}"), 0, 0, 0),
    (("resize", "-f", "raw", "{image}", "2M"), 1, 1, 0),
    (("bench", "-f", "raw", "-w", "-c", "1", "{image}"), 1, 1, 0),
]


@pytest.mark.parametrize("beside,drive,device", [(1, "", ""), (2, ",readonly=on", ""),
                                                 (3, "", ",share-rw=on")])
def test_qemu_img_beside_us(disk_vm, tmp_path, beside, drive, device):
    """Locked as by QEMU itself, before and after updates; the table was made beside QEMU 7.2."""
    image = tmp_path / "d.img"
    image.write_bytes(bytes(1 << 20))
    guest = disk_vm(image, drive, device)
    for update in (None, "exec", "transfer"):
        if update == "exec":
            guest.vm.exec()
        elif update == "transfer":
            guest.moved(guest.vm.transfer())
        for row in TOOLS:
            words = [w.format(image=image, other=tmp_path / "other") for w in row[0]]
            done = qemu_img(*(words if len(words) > 1 else [*words, image]))
            assert (done.returncode != 0) == row[beside], (update, row, done.stderr)
            if done.returncode:
                assert 'lock' in done.stderr, done.stderr
    guest.vm.quit()
    assert qemu_img("resize", "-f", "raw", image, "2M").returncode == 0


def refused(vms, *args):
    """Why a VM with @args does not start."""
    vm = vms(args=list(args), wait_qmp=False)
    assert vm.wait_exit() != 0
    return vm.log_text()


def test_second_user(vms, disk_vm, tmp_path):
    image = tmp_path / "d.img"
    image.write_bytes(bytes(1 << 20))
    drive = f"file={image},format=raw,if=none,id=d0"
    guest = disk_vm(image)
    for options in ("", ",readonly=on"):
        text = refused(vms, "-drive", drive + options, "-device", "virtio-blk-pci,drive=d0")
        assert "another process" in text
    guest.vm.quit()
    first = disk_vm(image, "", ",share-rw=on")
    second = disk_vm(image, "", ",share-rw=on")
    for guest in (first, second):
        assert guest.ask(WRITE) == (1, 0)


# ---- formats ----

def test_foreign_format(vms, tmp_path):
    image = tmp_path / "d.img"
    image.write_bytes(b"QFI\xfb\0\0\0\3".ljust(1 << 16, b"\0"))
    text = refused(vms, "-drive", f"file={image},if=virtio")
    assert "qcow2" in text and "format=raw" in text
    vm = vms(args=["-drive", f"file={image},if=virtio,format=raw"])
    vm.shared.assert_running()
    vm.quit()
    vm = vms(args=["-blockdev", f"driver=raw,node-name=d0,file.driver=file,file.filename={image}",
                   "-device", "virtio-blk-pci,drive=d0"])
    vm.shared.assert_running()


def test_guest_writes_a_header(disk_vm, vms, tmp_path):
    """A guest may write what it likes: its image is not looked at again while it lives."""
    image = tmp_path / "d.img"
    image.write_bytes(bytes(1 << 20))
    vm = vms(args=["-drive", f"file={image},if=virtio"])
    vm.shared.wait_started()
    with open(image, "r+b") as f:
        f.write(b"QFI\xfb")
    vm.exec()
    vm = vm.transfer()
    vm.shared.assert_running()
