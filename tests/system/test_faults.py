# Every stage of every update, failed in every way: the guest goes on in exactly one process.
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess
import time

import pytest

from qmp import QmpError
from vm import BUILD, heartbeat, wait_for_change, wait_for_socket

STAGES = BUILD / "tests/tools/list_stages"
FAULTS = ("error", "stall", "hang", "kill", "exit", "abort")
UPDATE_SECONDS = 40


def stages(prefix):
    lines = subprocess.run([STAGES], capture_output=True, text=True, check=True).stdout.split("\n")
    return [tuple(line.split()) for line in lines if line.startswith(prefix)]


def cases(prefix, faults=FAULTS):
    if not STAGES.exists():
        return []
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


@pytest.mark.parametrize("table,stage,commit,fault", cases("exec-source", ("error", "stall")))
def test_exec_source(vms, table, stage, commit, fault):
    vm = vms(env={"MOLT_FAULT": f"{table}:{stage}:{fault}"})
    vm.shared.wait_started()
    before = vm.open_fds()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    try:
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/state")
        info = vm.qmp.wait_status(("failed", "completed"), UPDATE_SECONDS)
        assert info["status"] == "failed" and info["error-desc"], info
    except QmpError as error:
        assert "fault" in str(error) or stage in str(error)
    wait_one_owner([vm], vm.shared)
    assert vm.open_fds() == before
    assert vm.children() == []
    vm.exec()
    vm.shared.assert_running()


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


def wait_processes(vm, pids):
    """Until @pids and nobody else has the guest's RAM."""
    end = time.monotonic() + UPDATE_SECONDS
    while guest_processes(vm.ram) != pids:
        assert time.monotonic() < end, f"not {pids} but {guest_processes(vm.ram)} has the RAM"
        wait_for_change(None, 0.02)


@pytest.mark.parametrize("table,stage,commit,fault", cases("exec-source", ("kill", "exit", "abort")))
def test_exec_source_dies(vms, table, stage, commit, fault):
    """Before its state is saved the guest dies with it, as in any crash, and nothing is left; from
    then on the guardian goes on with the guest."""
    vm = vms(env={"MOLT_FAULT": f"{table}:{stage}:{fault}"})
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    try:
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/state")
    except (EOFError, ConnectionError):
        pass
    vm.wait_exit(UPDATE_SECONDS)
    if not commit:
        wait_processes(vm, [])
        return
    follow_guardian(vm)
    assert wait_one_owner([vm], vm.shared) is vm


def follow_guardian(vm):
    """The process has died; the guardian goes on with guest and monitors, under its own PID."""
    vm.qmp.close()
    vm.connect()
    info = vm.qmp.wait_status(("failed",), UPDATE_SECONDS)
    record = info["update-record"]
    assert record["result"] == "rolled-back" and record["old-pid"] != vm.pid, info
    vm.adopt(record["old-pid"])
    return info


# "sessions" never waits; if it could, monitors would greet their clients a second time.
@pytest.mark.parametrize("table,stage,commit,fault", [
    case for case in cases("exec-target") if case[1::2] != ("sessions", "stall")])
def test_exec_target(vms, tmp_path, table, stage, commit, fault):
    """The new image fails, hangs or dies at each of its stages: the old executable is back, guest and
    monitor too.  Only a process that was killed, or ended by itself, has lost its PID."""
    path = str(tmp_path / "com1")
    vm, line = heartbeat(vms, path)
    line.wait_for(b"HB 3\n")
    wrapper = tmp_path / "next"
    wrapper.write_text(f"#!/bin/sh\nMOLT_FAULT={table}:{stage}:{fault}\nexport MOLT_FAULT\n"
                       f"exec {vm.argv[0]} \"$@\"\n")
    wrapper.chmod(0o755)
    state = tmp_path / "state"
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=[
        str(wrapper), *vm.argv[1:], "-incoming", f"file:{state}"])
    vm.qmp.cmd("migrate", uri=f"file:{state}")
    if fault in ("kill", "exit"):
        vm.wait_exit(UPDATE_SECONDS)
        info = follow_guardian(vm)
    else:
        info = vm.qmp.wait_status(("failed", "completed"), UPDATE_SECONDS)
    owner = wait_one_owner([vm], vm.shared)
    assert owner is vm
    assert info["status"] == "failed" and info["error-desc"], info
    said = {"kill": "ended before", "exit": "ended before", "abort": "SIGABRT",
            "hang": "did not get on"}.get(fault, "")
    assert said in info["error-desc"], info
    line.wait_for(b"HB 50\n", 60)
    numbers = [int(l[3:]) for l in line.text.split(b"\n")[:-1] if l.startswith(b"HB ")]
    assert numbers == list(range(1, len(numbers) + 1)), "a heartbeat was lost"
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
    vm.exec()
    vm.shared.assert_running()
    wait_processes(vm, [vm.pid])


def exec_into_window(vm):
    """The new image is up and waits for migrate-incoming."""
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=[*vm.argv, "-incoming", "defer"])
    vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/state")
    end = time.monotonic() + UPDATE_SECONDS
    while vm.qmp.cmd("query-status")["status"] != "inmigrate":
        assert time.monotonic() < end, vm.log_text()
        wait_for_change(None, 0.005)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_exec_window_killed(vms, number):
    vm = vms()
    exec_into_window(vm)
    vm.shared.assert_stopped()
    vm.process.send_signal(number)
    if number == signal.SIGKILL:
        vm.wait_exit(UPDATE_SECONDS)
        follow_guardian(vm)
    else:
        vm.qmp.wait_status(("failed",), UPDATE_SECONDS)
        assert vm.alive()
    vm.shared.assert_running()
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
    vm.exec()
    wait_processes(vm, [vm.pid])


@pytest.mark.parametrize("how", ["quit", "SIGTERM"])
def test_exec_window_ended(vms, how):
    """Told to end, it ends, and the guest with it: nobody brings it back."""
    vm = vms()
    exec_into_window(vm)
    if how == "quit":
        vm.quit()
    else:
        vm.process.terminate()
        vm.wait_exit()
    wait_processes(vm, [])


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
