# A Debian guest with more of everything: two processors, RAM above 4 GiB, three disks, hvc0.
# SPDX-License-Identifier: Apache-2.0
"""Its program speaks on a virtio console, so the heartbeats cross updates in a virtqueue."""
import os
import re
import subprocess

import pytest

from stock import StockVm, image_records, make_image
from test_stock import assert_healthy, assert_uptime_goes_on

DISK_BYTES = 32 << 20


@pytest.fixture(scope="module")
def loop_device(tmp_path_factory):
    """A block device of the host over a file."""
    subprocess.run(["/usr/sbin/modprobe", "loop"], check=False)
    image = make_image(tmp_path_factory.mktemp("loop") / "disk.img", DISK_BYTES)
    attach = subprocess.run(["/usr/sbin/losetup", "--find", "--show", image],
                            capture_output=True, text=True, check=False)
    if attach.returncode:
        pytest.skip(f"no loop device: {attach.stderr.strip()}")
    device = attach.stdout.strip()
    yield device
    subprocess.run(["/usr/sbin/losetup", "--detach", device], check=False)


@pytest.fixture(scope="module")
def big(tmp_path_factory, loop_device):
    tmp = tmp_path_factory.mktemp("big")
    fixed = tmp / "fixed.img"
    fixed.write_bytes(os.urandom(1 << 20))
    args = ["-smp", "2", "-serial", f"file:{tmp}/kernel.log",
            "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=line",
            "-drive", f"file={loop_device},format=raw,if=virtio",
            "-drive", f"file={fixed},format=raw,if=virtio,readonly=on",
            "-blockdev", f"driver=file,filename={make_image(tmp / 'q.img', 1 << 20)},node-name=f0",
            "-blockdev", "driver=raw,file=f0,node-name=r0",
            "-device", "virtio-blk-pci,drive=r0,num-queues=2,serial=queues"]
    vm = StockVm(tmp, args=args, mem="3G", append="molt.line=/dev/hvc0", line="console")
    vm.fixed = fixed
    vm.loop_device = loop_device
    yield vm
    vm.close()


def test_boots_on_a_virtio_console(big):
    big.line.wait_boot()
    assert_healthy(big)


def test_two_processors(big):
    assert big.line.command("status")["cpus"] == 2
    assert big.line.shell("cat /sys/devices/system/cpu/online").strip() == "0-1"
    interrupts = big.line.shell("grep LOC: /proc/interrupts").split()
    assert all(int(count) > 0 for count in interrupts[1:3]), interrupts


def test_memory_above_4g(big):
    memory = big.line.shell("cat /proc/iomem | grep 'System RAM'").split("\n")
    ends = [int(re.match("\\s*[0-9a-f]+-([0-9a-f]+)", text)[1], 16) for text in memory if text]
    assert max(ends) >= (5 << 30) - 1, memory
    total_kb = int(re.search("MemTotal:\\s+(\\d+)", big.line.shell("cat /proc/meminfo"))[1])
    assert total_kb > 2.8 * (1 << 20)


def test_read_only_disk(big):
    line = big.line
    assert line.shell("cat /sys/block/vdb/ro").strip() == "1"
    before = big.fixed.read_bytes()
    reply = line.command("sh dd if=/dev/zero of=/dev/vdb bs=4096 count=1 conv=fsync")
    assert reply["status"] != 0, reply
    assert big.fixed.read_bytes() == before
    total = line.shell("cat /dev/vdb | md5sum").split()[0]
    assert total == subprocess.run(["md5sum", big.fixed], capture_output=True, text=True,
                                   check=True).stdout.split()[0]


def test_several_queues_and_serial(big):
    line = big.line
    assert line.shell("ls /sys/block/vdc/mq").split() == ["0", "1"]
    assert line.shell("cat /sys/block/vdc/serial").strip() == "queues"
    line.shell("dd if=/dev/urandom of=/x bs=64k count=16 && dd if=/x of=/dev/vdc bs=64k "
               "conv=fsync && echo 3 >/proc/sys/vm/drop_caches")
    sums = line.shell("md5sum </x; head -c 1048576 /dev/vdc | md5sum").split("\n")
    assert sums[0] == sums[1]


def test_block_device_as_image(big):
    assert big.line.shell("cat /sys/block/vda/size").strip() == str(DISK_BYTES // 512)
    written = big.line.command("verify")["disk_seq"]
    assert_healthy(big)
    right, wrong = image_records(big.loop_device)
    assert wrong == [] and right >= written > 0


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_updates(big, mode):
    line = big.line
    first = line.wait_beats(1)
    for _ in range(3):
        record = big.update(mode)["update-record"]
        assert record["result"] == "committed"
        line.wait_beats(10)
    assert_uptime_goes_on(line, first)
    assert big.line.command("status")["cpus"] == 2
    assert_healthy(big)


def test_powers_off(big):
    big.line.send("poweroff")
    big.qmp.wait_event("SHUTDOWN", timeout=60, guest=True)
    assert big.wait_gone() == 0
