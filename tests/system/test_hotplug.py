# Devices that come and go, beside updates: commands, errors, what a successor is told.
# SPDX-License-Identifier: Apache-2.0
import json
import pathlib
import select
import struct
import subprocess
import time

import pytest

from qmp import QmpError
from vm import MOLT, payload, wait_for_socket

EMPTY = 1 << 0 | 1 << 31  # the chipset's slots
RESET_DETAIL = 4  # tests/guest/hotplug.c
RNG = ["-object", "rng-random,id=r0,filename=/dev/urandom"]


def add(vm, driver="virtio-rng-pci", **args):
    return vm.qmp.cmd("device_add", driver=driver, **args)


def delete(vm, device):
    return vm.qmp.cmd("device_del", id=device)


def slots(vm):
    return [i for i in range(32) if (vm.shared.detail(2) & ~EMPTY) >> i & 1]


def wait_slots(vm, *wanted):
    vm.shared.wait(lambda: slots(vm) == list(wanted))


@pytest.fixture
def watcher(vms):
    """A guest that watches its root bus."""
    def start(append="", args=()):
        vm = vms(kernel="hotplug", append=append, args=args)
        vm.shared.wait_started()
        wait_slots(vm)
        return vm
    return start


# ---- a device comes ----

def test_guest_is_told(watcher):
    vm = watcher()
    add(vm, id="a")
    vm.shared.wait(lambda: vm.shared.detail(0) == 1 << 1)
    wait_slots(vm, 1)
    assert vm.qmp.hmp("device_add virtio-rng-pci,id=b,addr=0x7") == ""
    vm.shared.wait(lambda: vm.shared.detail(0) == 1 << 1 | 1 << 7)
    wait_slots(vm, 1, 7)


@pytest.mark.parametrize("args,words", [
    ({"driver": "warp-drive"}, "'warp-drive' is not a valid device model name"),
    ({"driver": "virtio-rng-pci", "id": "a"}, "Duplicate device ID 'a'"),
    ({"driver": "virtio-rng-pci", "id": "0a"}, "'0a' is not an id"),
    ({"driver": "virtio-rng-pci", "bus": "pci.0"}, "Bus 'pci.0' not found"),
    ({"driver": "virtio-rng-pci", "bus": "rp"}, "Bus 'rp' does not support hotplugging"),
    ({"driver": "virtio-rng-pci", "addr": "2"},
     "PCI: slot 2 function 0 not available for virtio-rng-pci, in use by virtio-rng-pci"),
    ({"driver": "virtio-rng-pci", "addr": "0"}, "in use by the host bridge"),
    ({"driver": "virtio-rng-pci", "addr": "3.1"}, "whole slots"),
    ({"driver": "virtio-rng-pci", "addr": "99"}, "addr=99"),
    ({"driver": "virtio-rng-pci", "addr": 3}, "give it as text"),
    ({"driver": "virtio-rng-pci", "rng": "r9"}, "there is no rng-random 'r9'"),
    ({"driver": "virtio-rng-pci", "wings": "2"}, "unknown property 'wings'"),
    ({"driver": "virtio-blk-pci", "drive": "d9"}, "there is no block node 'd9'"),
    ({"driver": "virtio-blk-pci"}, "drive"),
    ({"driver": "virtserialport"}, "does not support hotplugging"),
    ({"driver": "isa-debugcon"}, "does not support hotplugging"),
    ({"id": "x"}, "Parameter 'driver' is missing"),
    ({"driver": 7}, "Invalid parameter type for 'driver', expected: string"),
])
def test_refused_additions(watcher_with_two, args, words):
    """Each leaves everything as it was: the next device gets the place it would have got."""
    vm = watcher_with_two
    fds = vm.open_fds()
    with pytest.raises(QmpError) as error:
        vm.qmp.cmd("device_add", **args)
    assert words in str(error.value) and error.value.error["class"] == "GenericError"
    assert vm.open_fds() == fds
    assert slots(vm) == [1, 2]
    vm.exec()


@pytest.fixture
def watcher_with_two(vms):
    vm = vms(kernel="hotplug", args=["-device", "pcie-root-port,id=rp", "-device",
                                     "virtio-rng-pci,id=a", *RNG])
    vm.shared.wait_started()
    wait_slots(vm, 1, 2)
    return vm


def test_bus_gets_full(watcher):
    vm = watcher()
    for _ in range(30):
        add(vm, "pcie-root-port")
    with pytest.raises(QmpError, match="PCI: no slot/function available for virtio-rng-pci, all in "
                                       "use or reserved"):
        add(vm)
    wait_slots(vm, *range(1, 31))
    vm.exec()
    vm = vm.transfer()
    wait_slots(vm, *range(1, 31))


def test_in_every_run_state(vms):
    vm = vms(kernel="hotplug", args=["-S", "-no-shutdown"])
    assert vm.qmp.cmd("query-status")["status"] == "prelaunch"
    add(vm, id="a")
    add(vm, "pcie-root-port", id="rp")
    add(vm, id="c", bus="rp")
    with pytest.raises(QmpError, match="others behind it"):
        delete(vm, "rp")
    delete(vm, "c")
    delete(vm, "rp")
    vm.qmp.wait_event("DEVICE_DELETED", device="rp")
    vm.qmp.cmd("cont")
    vm.shared.wait_started()
    wait_slots(vm, 1)
    vm.qmp.cmd("stop")
    add(vm, id="b")
    vm.qmp.cmd("cont")
    wait_slots(vm, 1, 2)
    vm.qmp.cmd("stop")
    delete(vm, "a")
    vm = vm.transfer()
    assert vm.qmp.cmd("query-status")["status"] == "paused"
    vm.qmp.cmd("cont")
    vm.shared.wait(lambda: vm.shared.detail(1) == 1 << 1)


def test_disk_that_comes_before_the_guest(vms, tmp_path):
    """It has addresses when the guest begins: this one relies on them."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    vm = vms(kernel="disk", args=["-S", "-drive", f"file={image},format=raw,if=none,id=d0"])
    add(vm, "virtio-blk-pci", drive="d0")
    vm.qmp.cmd("cont")
    vm.shared.wait(lambda: vm.shared.detail(1) > 20)
    for update in ("exec", "transfer"):
        vm = vm.transfer() if update == "transfer" else (vm.exec() and vm)
        done = vm.shared.detail(1)
        vm.shared.wait(lambda done=done: vm.shared.detail(1) > done + 10)
        assert vm.shared.errors == 0


# ---- a device goes ----

def test_guest_ejects(watcher):
    vm = watcher("eject")
    add(vm, id="a")
    add(vm, id="b")
    wait_slots(vm, 1, 2)
    before = vm.open_fds()
    delete(vm, "a")
    event = vm.qmp.wait_event("DEVICE_DELETED")
    assert event["data"] == {"device": "a", "path": "/machine/peripheral/a"}
    wait_slots(vm, 2)
    assert len(vm.open_fds()) < len(before)
    for update in (vm.exec, None):
        vm = vm if update else vm.transfer()
        wait_slots(vm, 2)
        add(vm, id="a")
        wait_slots(vm, 1, 2)
        delete(vm, "a")
        vm.qmp.wait_event("DEVICE_DELETED", device="a")


def test_what_was_there_at_the_start_goes_too(vms):
    """The others keep their places, also in a successor, which is not told of the one before them."""
    vm = vms(kernel="hotplug", append="eject", args=["-device", "virtio-rng-pci,id=a", "-device",
                                                     "virtio-rng-pci,id=b", "-device",
                                                     "isa-debugcon,iobase=0x402,chardev=c",
                                                     "-chardev", "null,id=c"])
    vm.shared.wait_started()
    wait_slots(vm, 1, 2)
    assert vm.qmp.hmp("device_del a") == ""
    vm.qmp.wait_event("DEVICE_DELETED", device="a")
    vm = vm.transfer()
    wait_slots(vm, 2)
    vm.exec()
    wait_slots(vm, 2)


def test_refused_deletions(watcher):
    vm = watcher()
    add(vm, id="a")
    with pytest.raises(QmpError) as error:
        delete(vm, "z")
    assert error.value.error == {"class": "DeviceNotFound", "desc": "Device 'z' not found"}
    delete(vm, "/machine/peripheral/a")
    with pytest.raises(QmpError, match="Device a is already in the process of unplug"):
        delete(vm, "a")


def test_guest_refuses(watcher):
    vm = watcher("refuse")
    add(vm, id="a")
    wait_slots(vm, 1)
    for _ in range(2):
        delete(vm, "a")
        event = vm.qmp.wait_event("DEVICE_UNPLUG_GUEST_ERROR")
        assert event["data"] == {"device": "a", "path": "/machine/peripheral/a"}
        wait_slots(vm, 1)


def test_guest_that_does_not_answer(watcher):
    """What it was asked for goes at the next reset, also if an update came between."""
    vm = watcher()
    add(vm, id="a")
    wait_slots(vm, 1)
    delete(vm, "a")
    vm.shared.wait(lambda: vm.shared.detail(1) == 1 << 1)
    vm = vm.transfer()
    vm.exec()
    wait_slots(vm, 1)
    vm.qmp.cmd("system_reset")
    vm.qmp.wait_event("DEVICE_DELETED", device="a")
    wait_slots(vm)


SERIAL = ["-device", "virtio-serial-pci,id=vs", "-device", "virtio-serial-pci,id=other",
          "-chardev", "null,id=c0", "-chardev", "null,id=c1", "-chardev", "null,id=c2",
          "-device", "virtserialport,chardev=c0,id=p0", "-device", "virtconsole,chardev=c1,id=p1",
          "-device", "virtserialport,chardev=c2,id=p2,bus=other.0"]
ASK_DETAIL = 5  # tests/guest/hotplug.c: slots that it ejects unasked


@pytest.mark.parametrize("who", ["manager", "guest"])
@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_ports_go_with_their_bus(vms, who, mode):
    vm = vms(kernel="hotplug", append="eject", args=SERIAL)
    vm.shared.wait_started()
    wait_slots(vm, 1, 2)
    if who == "manager":
        delete(vm, "vs")
    else:
        vm.shared.set_detail(ASK_DETAIL, 1 << 1)
    gone = [vm.qmp.wait_event("DEVICE_DELETED")["data"]["device"] for _ in range(3)]
    assert gone == ["p1", "p0", "vs"]
    wait_slots(vm, 2)
    for _ in range(2):
        if mode == "exec":
            vm.exec(command=[MOLT])
        else:
            vm = vm.transfer()
        wait_slots(vm, 2)
    with pytest.raises(QmpError, match="Device 'p0' not found"):
        delete(vm, "p0")
    vm.shared.assert_running()


def test_slots_of_the_chipset(vms):
    """Nobody can empty them, so nothing is asked for that would cross an update."""
    vm = vms(kernel="hotplug", append="eject", args=["-device", "virtio-rng-pci,id=zero,addr=0.1",
                                                     "-device", "virtio-rng-pci,id=last,addr=1f.2"])
    vm.shared.wait_started()
    for device in ("zero", "last"):
        with pytest.raises(QmpError, match="the chipset's, which cannot be emptied"):
            delete(vm, device)
    vm.shared.set_detail(ASK_DETAIL, 0xffffffff)
    vm.shared.wait(lambda: vm.shared.detail(ASK_DETAIL) == 0)
    vm.exec(command=[MOLT])
    vm = vm.transfer()
    vm.shared.assert_running()


# ---- root ports ----

def test_root_port_and_what_is_behind(vms):
    vm = vms(kernel="hotplug", append="eject",
             args=[*RNG, "-device", "pcie-root-port,id=rp,port=1,slot=3", "-device",
                   "virtio-rng-pci,id=x,bus=rp,rng=r0"])
    vm.shared.wait_started()
    wait_slots(vm, 1)
    with pytest.raises(QmpError, match="Bus 'rp' does not support hotplugging"):
        delete(vm, "x")
    vm.exec()
    vm = vm.transfer()
    delete(vm, "rp")
    vm.qmp.wait_event("DEVICE_DELETED", device="x")
    vm.qmp.wait_event("DEVICE_DELETED", device="rp")
    wait_slots(vm)
    vm.exec()


@pytest.mark.parametrize("args,words", [
    (["pcie-root-port,id=rp", "pcie-root-port,bus=rp"], "only be on pcie.0"),
    (["pcie-root-port,id=rp", "virtio-rng-pci,bus=rp,addr=1"], "slot 0 only"),
    (["pcie-root-port,id=rp", "virtio-rng-pci,bus=rp", "virtio-rng-pci,bus=rp"], "no slot"),
    (["virtio-rng-pci,bus=rp", "pcie-root-port,id=rp"], "Bus 'rp' not found"),
    (["pcie-root-port,slot=9999"], "slot"),
])
def test_wrong_root_ports(args, words):
    options = [word for device in args for word in ("-device", device)]
    done = subprocess.run([MOLT, "-nodefaults", "-kernel", payload("counter"), *options],
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1 and words in done.stderr, done


# ---- updates ----

def test_guest_that_ejects_without_end(watcher):
    """What is not there, or has gone: it keeps nobody busy, and delays no update."""
    vm = watcher("eject")
    vm.shared.set_detail(6, 0xffffffff)
    for _ in range(2):
        vm.exec(command=[MOLT])
        vm = vm.transfer()
        add(vm, id="a")
        vm.qmp.wait_event("DEVICE_DELETED", device="a")
        wait_slots(vm)
    vm.qmp.cmd("stop")
    vm.qmp.cmd("cont")
    vm.shared.assert_running()


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_rolled_back_update(watcher, mode):
    """A successor that fails after it has loaded: device and configuration are as before."""
    vm = watcher("eject")
    add(vm, id="a")
    wait_slots(vm, 1)
    if mode == "exec":
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
                   cpr_exec_command=["env", "MOLT_FAULT=exec-target:load:error", MOLT])
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/s")
        info = vm.qmp.wait_status(("failed",))
    else:
        new = vm.successor(env={"MOLT_FAULT": "transfer-target:load:error"})
        wait_for_socket(new.cpr_path)
        vm.migrate_to(new)
        info = vm.qmp.wait_status(("failed",))
    assert info["update-record"]["result"] == "rolled-back", info
    wait_slots(vm, 1)
    add(vm, id="b")
    wait_slots(vm, 1, 2)
    delete(vm, "a")
    vm.qmp.wait_event("DEVICE_DELETED", device="a")
    vm.exec(command=[MOLT])
    wait_slots(vm, 2)


def test_refused_during_an_update(watcher):
    """From its beginning to its end, on both sides; the two-step window is part of it."""
    vm = watcher("eject")
    add(vm, id="a")
    wait_slots(vm, 1)
    vm.qmp.cmd("migrate-set-capabilities",
               capabilities=[{"capability": "cpr-two-step", "state": True}])
    new = vm.successor(defer=True)
    with pytest.raises(QmpError, match="no machine yet"):
        delete(new, "a")
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    wait_machine(new)
    with pytest.raises(QmpError, match="device_add not allowed while migrating"):
        add(vm)
    with pytest.raises(QmpError, match="device_del not allowed while migrating"):
        delete(vm, "a")
    with pytest.raises(QmpError, match="takes its devices from its predecessor"):
        add(new)
    with pytest.raises(QmpError, match="takes its devices from its predecessor"):
        delete(new, "a")
    vm.qmp.cmd("migrate_cancel")
    vm.qmp.wait_status(("cancelled",))
    add(vm, id="b")
    delete(vm, "a")
    vm.qmp.wait_event("DEVICE_DELETED", device="a")
    wait_slots(vm, 2)
    vm.qmp.cmd("migrate-set-capabilities",
               capabilities=[{"capability": "cpr-two-step", "state": False}])
    old = vm
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    vm.qmp.wait_status(("completed",))
    with pytest.raises(QmpError, match="another process"):
        add(old)
    wait_slots(new, 2)
    add(new, id="c")
    wait_slots(new, 1, 2)


def test_guest_ejects_in_the_middle(watcher):
    """It does not see the device any more; whoever has the guest afterwards takes it away."""
    vm = watcher("eject")
    add(vm, id="a")
    wait_slots(vm, 1)
    vm.qmp.cmd("stop")
    delete(vm, "a")
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    vm.qmp.cmd("cont")
    wait_slots(vm)
    new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    vm.qmp.wait_status(("completed",))
    new.qmp.wait_event("DEVICE_DELETED", device="a")
    assert not [e for e in vm.qmp.events if e["event"] == "DEVICE_DELETED"]
    add(new, id="a")
    wait_slots(new, 1)


def test_guest_resets_in_the_middle(watcher):
    """Nothing goes, for the successor has been told of it; the guest that boots is asked again."""
    vm = watcher()
    add(vm, id="a")
    wait_slots(vm, 1)
    delete(vm, "a")
    vm.shared.wait(lambda: vm.shared.detail(1) == 1 << 1)
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    struct.pack_into("<Q", vm.shared.map, (3 + RESET_DETAIL) * 8, 1)
    vm.qmp.wait_event("RESET", guest=True)
    vm.shared.wait(lambda: vm.shared.detail(1) == 1 << 1)
    new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    vm.qmp.wait_status(("completed",))
    wait_slots(new, 1)
    new.qmp.cmd("system_reset")
    new.qmp.wait_event("DEVICE_DELETED", device="a")
    wait_slots(new)


# ---- successors with a command line ----

def wait_machine(vm):
    """Until it is built; before that, commands that need one are refused."""
    end = time.monotonic() + 20
    while True:
        try:
            return vm.qmp.cmd("query-block")
        except QmpError:
            assert time.monotonic() < end


def deferred(vm, base_args=(), **kwargs):
    new = vm.successor(base=True, kernel="hotplug", defer=True, args=base_args, **kwargs)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    wait_machine(new)
    return new


def test_successor_without_the_device_and_without_defer(watcher):
    """Refused at the offer, as any other difference."""
    vm = watcher()
    add(vm, id="a")
    new = vm.successor(base=True, kernel="hotplug", wait_qmp=False)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    info = vm.qmp.wait_status(("failed",))
    assert "virtio-rng-pci,id=a here, none in the successor" in info["error-desc"]
    assert new.wait_exit() == 1
    vm.shared.assert_running()


def test_successor_with_the_device_on_its_command_line(watcher):
    """The address that it got is the one it gets there."""
    vm = watcher()
    add(vm, id="a")
    vm = vm.transfer(base=True, kernel="hotplug", args=["-device", "virtio-rng-pci,id=a"])
    wait_slots(vm, 1)


def test_successor_is_completed(watcher):
    vm = watcher("eject", RNG)
    add(vm, id="a", rng="r0")
    add(vm, "pcie-root-port")
    add(vm, id="far", addr="0x9")
    new = deferred(vm, RNG)
    with pytest.raises(QmpError, match="device_add can add"):
        new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    add(new, id="far", addr="0x9")
    add(new, id="wrong")
    delete(new, "wrong")
    new.qmp.wait_event("DEVICE_DELETED", device="wrong")
    add(new, id="a", rng="r0")
    delete(new, "a")  # and what it had of the predecessor is there to be had again
    add(new, id="a", rng="r0")
    with pytest.raises(QmpError) as error:
        new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    assert "pcie-root-port here, none in the successor" in str(error.value)
    assert "far" not in str(error.value)
    vm.shared.assert_running()
    assert vm.qmp.cmd("query-migrate")["status"] == "setup"
    assert new.qmp.hmp("device_add pcie-root-port") == ""
    new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    with pytest.raises(QmpError, match="not allowed while migrating|Duplicate"):
        add(new, id="a")
    vm.qmp.wait_status(("completed",))
    new.qmp.wait_status(("completed",))
    wait_slots(new, 1, 2, 9)
    delete(new, "a")
    new.qmp.wait_event("DEVICE_DELETED", device="a")
    new = new.transfer()
    wait_slots(new, 2, 9)


def test_successor_is_completed_early(watcher):
    """Before the handshake has even begun a device_add is one more -device, and checked as one."""
    vm = watcher("", RNG)
    add(vm, id="a", rng="r0")
    add(vm, id="b")
    new = vm.successor(base=True, kernel="hotplug", defer=True, args=RNG)
    for args, words in (({"id": "a", "rng": "r9"}, "no rng-random 'r9'"),
                        ({"id": "a", "addr": "0"}, "in use by the host bridge"),
                        ({"id": "a", "wings": "2"}, "unknown property")):
        with pytest.raises(QmpError, match=words):
            add(new, **args)
    add(new, id="a", rng="r0")
    add(new, id="b")
    with pytest.raises(QmpError, match="Duplicate device ID 'a'"):
        add(new, id="a")
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    vm.qmp.wait_status(("completed",))
    wait_slots(new, 1, 2)
    new.exec(command=[MOLT])
    wait_slots(new, 1, 2)


def test_successor_is_given_up(watcher):
    """What it lacks is named; migrate_cancel ends it, and the guest never knew."""
    vm = watcher()
    add(vm, id="a")
    new = deferred(vm)
    with pytest.raises(QmpError, match="virtio-rng-pci,id=a here, none in the successor"):
        new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    vm.qmp.cmd("migrate_cancel")
    vm.qmp.wait_status(("cancelled",))
    assert new.wait_exit() == 1
    vm.shared.assert_running()
    add(vm, id="b")


def test_successor_with_something_else(watcher):
    """Hot plug mends what is missing, nothing else: refused at the offer."""
    vm = watcher()
    new = vm.successor(base=True, kernel="hotplug", defer=True, wait_qmp=False,
                       args=["-device", "virtio-rng-pci,id=z"])
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    info = vm.qmp.wait_status(("failed",))
    assert "none here, virtio-rng-pci,id=z in the successor" in info["error-desc"]
    assert new.wait_exit() == 1


def test_exec_with_a_command_line(watcher):
    """The probe refuses what lacks a device, unless the command waits for migrate-incoming."""
    vm = watcher("", RNG)
    add(vm, id="a", rng="r0")
    state = f"file:{vm.tmp}/s"
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=vm.argv)
    vm.qmp.cmd("migrate", uri=state)
    info = vm.qmp.wait_status(("failed",))
    assert "none in the successor" in info["error-desc"]
    assert info["update-record"]["result"] == "unchanged"
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=vm.argv + ["-incoming", "defer"])
    vm.qmp.cmd("migrate", uri=state)
    end = time.monotonic() + 20
    while vm.qmp.cmd("query-status")["status"] != "inmigrate":
        assert time.monotonic() < end, vm.qmp.cmd("query-migrate")
    with pytest.raises(QmpError, match="none in the successor"):
        vm.qmp.cmd("migrate-incoming", uri=state)
    add(vm, id="a", rng="r0")
    vm.qmp.cmd("migrate-incoming", uri=state)
    vm.qmp.wait_status(("completed",))
    wait_slots(vm, 1)


# ---- the manual's example ----

class Stdio:
    """A molt whose monitor is its standard input and output."""

    def __init__(self, *args, cwd):
        self.process = subprocess.Popen([MOLT, *args], cwd=cwd, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text = b""

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, line, end="(qemu) "):
        """Type @line; what is said up to @end."""
        self.type(line)
        return self.expect(end)

    def expect(self, words, timeout=20):
        """Read until @words have come, and forget them; what was before."""
        while words.encode() not in self.text:
            assert select.select([self.process.stdout], [], [], timeout)[0], self.text
            data = self.process.stdout.read1(65536)
            assert data, self.text
            self.text += data
        before, self.text = self.text.split(words.encode(), 1)
        return before.decode()

    def end(self):
        self.process.kill()
        self.process.communicate()


def test_example_2_incoming_defer(tmp_path):
    """Both sides as printed, but for the path, size and port of the host at hand."""
    ram = pathlib.Path(f"/dev/shm/molt-example-{tmp_path.name}-{id(tmp_path)}")
    machine = ["-object", f"memory-backend-file,id=ram0,size=64M,mem-path={ram},share=on",
               "-m", "64M", "-machine", "memory-backend=ram0", "-machine", "aux-ram-share=on",
               "-kernel", payload("counter"), "-display", "none"]
    cpr = {"channel-type": "cpr", "addr": {"transport": "socket", "type": "unix",
                                           "path": "cpr.sock"}}
    main = {"channel-type": "main", "addr": {"transport": "socket", "type": "inet", "host": "0",
                                             "port": "44444"}}
    sides = []
    try:
        old = Stdio("-qmp", "stdio", *machine, cwd=tmp_path)
        sides.append(old)
        old.expect('{"QMP"')
        new = Stdio("-monitor", "stdio", *machine, "-incoming", "defer", "-incoming",
                    json.dumps(cpr), cwd=tmp_path)
        sides.append(new)
        wait_for_socket("cpr.sock")
        for command in ({"execute": "qmp_capabilities"},
                        {"execute": "device_add", "arguments": {"driver": "pcie-root-port"}},
                        {"execute": "migrate-set-parameters",
                         "arguments": {"mode": "cpr-transfer"}},
                        {"execute": "migrate", "arguments": {"channels": [main, cpr]}}):
            old.type(json.dumps(command))
            old.expect('{"return": {}}')
        new.expect("(qemu) ")
        new.type("info status")
        new.expect("VM status: paused (inmigrate)")
        new.expect("(qemu) ")
        new.type("device_add pcie-root-port")
        new.expect("(qemu) ")
        new.type("migrate_incoming tcp:0:44444")
        new.expect("(qemu) ")
        old.expect('"STOP"')
        end = time.monotonic() + 20
        while "running" not in new.ask("info status"):
            assert time.monotonic() < end
        while "postmigrate" not in old.ask('{"execute": "query-status"}', "\n"):
            assert time.monotonic() < end
    finally:
        for side in sides:
            side.end()
        ram.unlink(missing_ok=True)
