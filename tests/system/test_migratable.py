# What starts can be updated, or says so: blockers at the start, at hot plug, in query-migrate, in migrate.
# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import resource
import subprocess

import pytest

from qmp import QmpError
from vm import MOLT, payload

PRIVATE = ["-object", "memory-backend-ram,id=extra,size=4M"]
RINGBUF = ["-chardev", "ringbuf,id=c0", "-device", "virtio-serial-pci", "-device",
           "virtserialport,chardev=c0"]
WHY_PRIVATE = "RAM 'extra' is private"
WHY_RINGBUF = "chardev c0 -> ringbuf is not capable of cpr. See reopen-on-cpr"

BOTH = ["-only-migratable"], ["-only-migratable-modes", "cpr-exec,cpr-transfer"]
ONE = ["-only-migratable-modes", "cpr-exec"], ["-only-migratable-modes", "cpr-transfer"]


@pytest.mark.parametrize("promise", [*BOTH, *ONE], ids=lambda p: p[-1])
@pytest.mark.parametrize("args,why", [(PRIVATE, WHY_PRIVATE), (RINGBUF, WHY_RINGBUF)],
                         ids=["ram", "chardev"])
def test_promise_is_kept_at_the_start(promise, args, why):
    done = subprocess.run([MOLT, "-nodefaults", "-machine", "aux-ram-share=on", "-kernel",
                           payload("counter"), *args, *promise], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1
    assert f"{promise[0]}: {why}" in done.stderr


@pytest.mark.parametrize("mode", ["normal", "cpr-reboot", "warp"])
def test_modes_that_are_not_offered(mode):
    done = subprocess.run([MOLT, "-only-migratable-modes", mode], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1 and f"migration mode '{mode}' is not offered" in done.stderr


def test_without_a_promise(vms):
    """A warning; the same reasons in query-migrate, and the first of them from migrate."""
    vm = vms(args=[*PRIVATE, *RINGBUF])
    assert "warning: this VM cannot be updated as it is: " + WHY_PRIVATE in vm.log_text()
    for mode in ("cpr-exec", "cpr-transfer"):
        vm.qmp.cmd("migrate-set-parameters", mode=mode)
        reasons = vm.qmp.cmd("query-migrate")["blocked-reasons"]
        assert [WHY_PRIVATE in reasons[0], WHY_RINGBUF in reasons[1], len(reasons)] == [True, True, 2]
        channels = {"channels": [
            {"channel-type": kind, "addr": {"transport": "socket", "type": "unix",
                                            "path": f"{vm.tmp}/nobody"}}
            for kind in ("main", "cpr")]} if mode == "cpr-transfer" else {}
        with pytest.raises(QmpError, match=WHY_PRIVATE):
            vm.qmp.cmd("migrate", **channels)
    vm.shared.assert_running()


def test_promise_that_is_kept(vms):
    vm = vms(kernel="hotplug", args=["-only-migratable"])
    assert "cannot be updated" not in vm.log_text()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    assert "blocked-reasons" not in vm.qmp.cmd("query-migrate")
    vm.qmp.cmd("device_add", driver="virtio-rng-pci", id="a")
    vm.exec(command=[MOLT])
    vm = vm.transfer()
    vm.shared.assert_running()


@pytest.mark.parametrize("promised", [True, False])
def test_descriptors_at_hot_plug(vms, promised):
    """So few are left that an update would not get through: no device with a promise, else a warning."""
    vm = vms(kernel="hotplug", args=["-only-migratable"] if promised else [])
    used = len(vm.open_fds())
    resource.prlimit(vm.pid, resource.RLIMIT_NOFILE, (used + 60, used + 60))
    if promised:
        with pytest.raises(QmpError, match="-only-migratable: device_add: .*RLIMIT_NOFILE"):
            vm.qmp.cmd("device_add", driver="virtio-rng-pci", id="a")
    else:
        vm.qmp.cmd("device_add", driver="virtio-rng-pci", id="a")
        assert "warning: device_add: this VM cannot be updated" in vm.log_text()
    resource.prlimit(vm.pid, resource.RLIMIT_NOFILE, (used + 400, used + 400))
    vm.exec(command=[MOLT])
    vm.shared.assert_running()


def test_name_of_the_process(vms):
    vm = vms(args=["-name", "guest=g,process=vm-of-a,debug-threads=on"])

    def comm():
        return pathlib.Path(f"/proc/{vm.pid}/comm").read_text().strip()
    assert comm() == "vm-of-a"
    vm.exec(command=[MOLT])
    assert comm() == "vm-of-a"
    threads = {pathlib.Path(f"/proc/{vm.pid}/task/{t}/comm").read_text().strip()
               for t in os.listdir(f"/proc/{vm.pid}/task")}
    assert "CPU 0/KVM" in threads
    vm = vm.transfer()
    assert comm() == "vm-of-a"
