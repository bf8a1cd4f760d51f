# One Debian guest and its hot plug: devices come, work, cross updates, and go.
# SPDX-License-Identifier: Apache-2.0
"""The tests share a guest and follow each other, as in test_stock.py."""
import pytest

from stock import StockVm, make_image
from test_stock import assert_healthy

MODES = ("exec", "transfer")
HOT_BYTES = 1 << 20
SUM = "md5sum </dev/vdb | cut -d' ' -f1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("hotplug")
    vm = StockVm(tmp, args=[
        "-drive", f"file={make_image(tmp / 'disk.img', 32 << 20)},format=raw,if=virtio",
        "-object", "rng-random,id=r0,filename=/dev/urandom",
        "-device", "pcie-root-port,id=rp0,slot=1", "-device", "virtio-rng-pci,bus=rp0,id=behind",
        "-drive", f"file={make_image(tmp / 'hot.img', HOT_BYTES)},format=raw,if=none,id=hot"])
    yield vm
    vm.close()


def wait_shell(line, command, wanted):
    """Until @command prints @wanted; the guest answers each time."""
    for _ in range(200):
        out = line.shell(f"{command} 2>/dev/null; true").strip()
        if out == wanted:
            return
        line.wait_beats(2)
    raise AssertionError(f"{command}: {out!r}, not {wanted!r}")


def functions(line):
    return line.shell("ls /sys/bus/pci/devices").split()


def test_what_is_behind_a_root_port_works(shared):
    line = shared.line
    line.wait_boot()
    assert "0000:01:00.0" in functions(line)
    assert line.shell("cat /sys/bus/pci/devices/0000:00:02.0/class").strip() == "0x060400"
    assert line.shell("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    assert len(line.shell("head -c 32 /dev/hwrng | hexdump -v -e '1/1 \"%02x\"'")) == 64
    assert_healthy(shared)


def test_disk_comes(shared):
    line = shared.line
    shared.qmp.cmd("device_add", driver="virtio-blk-pci", drive="hot", id="d1")
    wait_shell(line, "cat /sys/block/vdb/size", str(HOT_BYTES // 512))
    line.shell("dd if=/dev/urandom of=/dev/vdb bs=64k count=16 2>/dev/null && sync")
    assert_healthy(shared)


@pytest.mark.parametrize("mode", MODES)
def test_disk_crosses(shared, mode):
    line = shared.line
    before = line.shell(SUM)
    shared.update(mode)
    line.shell("echo 3 >/proc/sys/vm/drop_caches")
    assert line.shell(SUM) == before
    assert_healthy(shared)


def test_others_come(shared):
    """A root port and an entropy source, by the line that people type, and across updates."""
    line = shared.line
    seen = len(functions(line))
    assert shared.qmp.hmp("device_add pcie-root-port") == ""
    wait_shell(line, "ls /sys/bus/pci/devices | wc -l", str(seen + 1))
    assert shared.qmp.hmp("device_add virtio-rng-pci,id=hotrng,rng=r0") == ""
    wait_shell(line, "ls -d /sys/bus/virtio/drivers/virtio_rng/virtio* | wc -l", "2")
    for mode in MODES:
        shared.update(mode)
        line.wait_beats(5)
    assert_healthy(shared)


def delete(shared, device):
    shared.qmp.cmd("device_del", id=device)
    event = shared.qmp.wait_event("DEVICE_DELETED", timeout=60, device=device)
    assert event["data"]["path"] == f"/machine/peripheral/{device}"


def test_devices_go(shared):
    line = shared.line
    delete(shared, "hotrng")
    delete(shared, "d1")
    assert line.shell("ls /sys/block").split().count("vdb") == 0
    for mode in MODES:
        shared.update(mode)
    shared.qmp.cmd("device_add", driver="virtio-blk-pci", drive="hot", id="d1")
    wait_shell(line, "cat /sys/block/vdb/size", str(HOT_BYTES // 512))
    assert_healthy(shared)


def test_guest_ejects_in_the_middle_of_an_update(shared):
    """Gone for the guest at once; who has the guest afterwards takes the device away."""
    line = shared.line
    old = shared.vm
    seen = len(functions(line))
    successor = shared.successor(defer=True)
    old.migrate_to(successor)
    slot = int(line.shell("ls -l /sys/block/vdb").split("0000:00:")[1][:2], 16)
    line.shell(f"echo 0 >/sys/bus/pci/slots/{slot}/power")
    line.shell("echo 1 >/sys/bus/pci/rescan")
    assert len(functions(line)) == seen - 1
    assert not [e for e in old.qmp.events if e["event"] == "DEVICE_DELETED"]
    successor.qmp.cmd("migrate-incoming", uri=f"unix:{successor.main_path}")
    successor.qmp.wait_event("DEVICE_DELETED", timeout=60, device="d1")
    old.qmp.wait_status(("completed",), 60)
    old.quit()
    shared.vm = successor
    line.wait_beats(5)
    assert_healthy(shared)


def test_reboots_with_what_was_plugged(shared):
    line = shared.line
    shared.qmp.cmd("device_add", driver="virtio-blk-pci", drive="hot", id="d1")
    wait_shell(line, "cat /sys/block/vdb/size", str(HOT_BYTES // 512))
    boots = line.boots
    line.send("reboot")
    shared.qmp.wait_event("RESET", timeout=60, guest=True)
    line.wait_boot(boots + 1)
    assert line.shell("cat /sys/block/vdb/size").strip() == str(HOT_BYTES // 512)
    assert "0000:01:00.0" in functions(line)
    delete(shared, "d1")
    assert_healthy(shared)
