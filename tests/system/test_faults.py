# Every stage of every transfer, failed in every way: the guest goes on in exactly one process.
# SPDX-License-Identifier: Apache-2.0
import subprocess
import time

import pytest

from qmp import QmpError
from vm import BUILD, wait_for_change, wait_for_socket

STAGES = BUILD / "tests/tools/list_stages"
FAULTS = ("error", "stall", "hang", "kill", "exit", "abort")
UPDATE_SECONDS = 40


def stages(prefix):
    if not STAGES.exists():
        return []
    lines = subprocess.run([STAGES], capture_output=True, text=True, check=True).stdout.split("\n")
    return [tuple(line.split()) for line in lines if line.startswith(prefix)]


def cases(prefix, faults=FAULTS):
    return [(table, stage, bool(int(commit)), fault) for table, stage, commit in stages(prefix)
            for fault in faults]


def running(vm):
    """Whether this process says that it runs the guest."""
    if not vm.alive():
        return False
    try:
        if not vm.qmp:
            vm.connect()
        vm.qmp.sock.settimeout(5)
        return vm.qmp.cmd("query-status", timeout=5)["running"]
    except (AssertionError, EOFError, ConnectionError, TimeoutError, OSError):
        return False


def wait_one_owner(processes, shared, seconds=UPDATE_SECONDS):
    """Until exactly one process says it runs the guest, and the guest's counter goes up."""
    end = time.monotonic() + seconds
    while True:
        owners = [vm for vm in processes if running(vm)]
        if len(owners) == 1:
            before = shared.counter
            wait_for_change(None, 0.05)
            if shared.counter > before:
                return owners[0]
        if time.monotonic() > end:
            logs = "\n".join(vm.log_text() for vm in processes)
            raise AssertionError(f"{len(owners)} owners, counter {shared.counter}\n{logs}")
        wait_for_change(None, 0.02)


@pytest.mark.parametrize("table,stage,commit,fault", cases("transfer-source"))
def test_transfer_source(vms, table, stage, commit, fault):
    """The old process fails, hangs or dies at each of its stages."""
    vm = vms(env={"MOLT_FAULT": f"{table}:{stage}:{fault}"})
    vm.shared.wait_started()
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    try:
        vm.migrate_to(new)
    except (QmpError, EOFError, ConnectionError, TimeoutError):
        pass  # a check that fails is the reply
    if fault == "hang":
        # The old process stands still with the guest's lock in its hands: nobody may take the
        # guest over, and it is the operator who ends it.
        wait_for_change(None, 0.3)
        vm.process.kill()
        vm.process.wait()
    if fault in ("kill", "exit", "abort", "hang"):
        # Dead before the successor has the state: the guest is gone with its process, as with any
        # crash; dead afterwards: the successor goes on.  Never two, never a stopped guest.
        vm.wait_exit()
        if stage in ("connect", "hello"):
            assert new.alive()  # it has not heard of an update, and waits on
            return
        end = time.monotonic() + UPDATE_SECONDS
        while new.alive() and not running(new):
            assert time.monotonic() < end, new.log_text()
            wait_for_change(None, 0.02)
        if new.alive():
            new.shared.assert_running()
        return
    vm.qmp.wait_status(("failed", "completed"), UPDATE_SECONDS)
    owner = wait_one_owner([vm, new], vm.shared)
    if owner is vm:
        info = vm.qmp.wait_status(("failed",))
        assert info["error-desc"], info
        if stage in ("connect", "hello"):
            # The successor has not heard of it: the next attempt finds it waiting.
            vm.migrate_to(new)
            vm.qmp.wait_status(("completed",))
            new.shared.assert_running()
            return
        new.wait_exit(UPDATE_SECONDS)
        # and a new attempt works
        vm.transfer().shared.assert_running()


def offer_guest(vm, new):
    """Start the update if the successor got as far as listening."""
    try:
        wait_for_socket(new.cpr_path, 3)
        vm.migrate_to(new)
        return True
    except (TimeoutError, QmpError):
        return False


def give_up_on_hung(vm, new):
    """A hung successor: the old process gives up by itself, or when the operator cancels, or, once
    the guest is the successor's, when the operator ends the successor.

    Returns False if it hangs while it runs the guest: then only its monitor is dead."""
    end = time.monotonic() + 8
    cancelled = False
    while vm.qmp.cmd("query-migrate").get("status") not in (
            "failed", "completed", "cancelled", None):
        if commit_reached(new):
            return False
        if time.monotonic() > end:
            if cancelled:
                break
            vm.qmp.cmd("migrate_cancel")
            cancelled = True
            end += 4
        wait_for_change(None, 0.05)
    if commit_reached(new):
        return False
    new.process.kill()
    return not commit_reached(new)


@pytest.mark.parametrize("table,stage,commit,fault", cases("transfer-target"))
def test_transfer_target(vms, table, stage, commit, fault):
    """The successor fails, hangs or dies at each of its stages."""
    vm = vms()
    vm.shared.wait_started()
    before = vm.open_fds()
    new = vm.successor(env={"MOLT_FAULT": f"{table}:{stage}:{fault}"}, wait_qmp=False)
    offered = offer_guest(vm, new)
    if fault == "hang":
        if not give_up_on_hung(vm, new):
            new.shared.assert_running()
            return
    if fault in ("hang", "kill", "exit", "abort"):
        new.wait_exit(UPDATE_SECONDS)
    if offered:
        vm.qmp.wait_status(("failed", "cancelled", "completed"), UPDATE_SECONDS)
    if not new.alive() and (stage == "run" or commit_reached(new)) and not running(vm):
        return  # it died with the guest in its hands: an ordinary crash
    if wait_one_owner([vm, new], vm.shared) is new:
        return
    new.process.kill()
    new.process.wait()
    info = vm.qmp.cmd("query-migrate")
    assert not offered or info["status"] == "cancelled" or info["error-desc"], info
    next_vm = vm.successor()
    assert sorted(vm.open_fds()) == before
    wait_for_socket(next_vm.cpr_path)
    vm.migrate_to(next_vm)
    vm.qmp.wait_status(("completed",))
    next_vm.shared.assert_running()


def commit_reached(new):
    return "took over" in new.log_text()


@pytest.mark.parametrize("when", ["setup", "defer"])
def test_cancel(vms, when):
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    vm.qmp.wait_status(("setup", "active"))
    vm.qmp.cmd("migrate_cancel")
    info = vm.qmp.wait_status(("cancelled",))
    assert info["status"] == "cancelled"
    wait_one_owner([vm], vm.shared)
    vm.transfer().shared.assert_running()
