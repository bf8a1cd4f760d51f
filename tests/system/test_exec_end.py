# Told to end, or powered off, in the middle of an exec: once, by who has the guest, and it does end.
# SPDX-License-Identifier: Apache-2.0
import json
import random
import signal
import time

import pytest

from qmp import QmpError
from stages import stages
from vm import MOLT, wait_for_change, wait_processes

ROUNDS = 12


def events_to_the_end(vm, seconds=60):
    """Every event until the monitor's connection ends."""
    try:
        end = time.monotonic() + seconds
        while True:
            message = vm.qmp.receive(max(0.0, end - time.monotonic()))
            if "event" in message:
                vm.qmp.events.append(message)
    except (EOFError, ConnectionError):
        return vm.qmp.events


def assert_ended_once(vm, guest, reason):
    shutdowns = [e["data"] for e in events_to_the_end(vm) if e["event"] == "SHUTDOWN"]
    assert vm.wait_exit(60) == 0, vm.log_text()
    assert shutdowns == [{"guest": guest, "reason": reason}], vm.log_text()
    wait_processes(vm, [])


def exec_seconds(vm):
    """How long an update takes here."""
    begun = time.monotonic()
    vm.exec()
    return time.monotonic() - begun


def moments(vms, **kwargs):
    """VMs in which an exec has just begun, each to be met at another moment of it."""
    seconds = None
    for i in range(ROUNDS):
        vm = vms(**kwargs)
        vm.shared.wait_started()
        if seconds is None:
            seconds = exec_seconds(vm)
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
        begun = time.monotonic()
        vm.qmp.send("migrate", uri=f"file:{vm.tmp}/state")
        # The last third is where it counts: the pause, the new program's start.
        when = begun + seconds * (random.random() if i % 3 else random.uniform(0.6, 1.0))
        while time.monotonic() < when:
            wait_for_change(None, 0.001)
        yield vm


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_at_any_moment(vms, number):
    for vm in moments(vms):
        vm.process.send_signal(number)
        assert_ended_once(vm, False, "host-signal")


@pytest.mark.parametrize("args,append", [([], "off"), (["-no-reboot"], "cf9"),
                                         (["-no-reboot"], "triple")])
def test_guest_ends_at_any_moment(vms, args, append):
    for vm in moments(vms, kernel="power", append=f"{append} wait", args=args):
        vm.shared.set_detail(1, 1)
        assert_ended_once(vm, True, "guest-reset" if args else "guest-shutdown")


def test_guest_resets_at_any_moment(vms):
    """One reset, told once, wherever it falls."""
    for vm in moments(vms, kernel="power", append="cf9 wait resets=1"):
        vm.shared.set_detail(1, 1)
        vm.qmp.reply(60)
        vm.qmp.wait_event("RESET")
        vm.qmp.wait_status(("completed",))
        vm.shared.wait(lambda vm=vm: vm.shared.detail(0) == 2)
        vm.qmp.cmd("query-status")
        assert not [e for e in vm.qmp.events if e["event"] == "RESET"], vm.qmp.events
        vm.cleanup()


def stalled(vms, tmp_path, table, stage):
    """A VM in whose exec @stage of @table stands still, the main loop going on."""
    fault = f"{table}:{stage}:stall"
    if table == "exec-source":
        vm = vms(env={"MOLT_FAULT": fault})
        command = []
    else:
        vm = vms()
        wrapper = tmp_path / "next"
        wrapper.write_text(f"#!/bin/sh\nMOLT_FAULT={fault}\nexport MOLT_FAULT\n"
                           f"exec {MOLT} \"$@\"\n")
        wrapper.chmod(0o755)
        command = [str(wrapper), *vm.argv[1:], "-incoming", f"file:{vm.tmp}/state"]
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
    return vm


SIDES = [(table, stage) for table in ("exec-source", "exec-target") for stage in stages(table)
         if (table, stage) != ("exec-target", "sessions")]


@pytest.mark.parametrize("how", ["quit", "SIGTERM"])
@pytest.mark.parametrize("table,stage", SIDES)
def test_told_to_end_in_a_stage(vms, tmp_path, table, stage, how):
    """Whichever stage the order finds: the guest ends with the process that has it, told once."""
    vm = stalled(vms, tmp_path, table, stage)
    quit_ = json.dumps({"execute": "quit"})
    migrate = json.dumps({"execute": "migrate", "arguments": {"uri": f"file:{vm.tmp}/state"}})
    if how == "quit":
        # In one piece: what has not been read before the exec is read after it.
        vm.qmp.sock.sendall((migrate + quit_).encode())
    else:
        vm.qmp.sock.sendall(migrate.encode())
        vm.process.send_signal(signal.SIGTERM)
    assert_ended_once(vm, False, "host-qmp-quit" if how == "quit" else "host-signal")


def test_signal_while_a_chardev_waits(vms, tmp_path):
    """A process that waits for its client before there is a machine ends of a signal, and tidies up."""
    path = tmp_path / "client"
    vm = vms(args=["-chardev", f"socket,id=c,path={path},server=on,wait=on", "-serial", "chardev:c"],
             wait_qmp=False)
    while "waiting for connection" not in vm.log_text():
        wait_for_change(None, 0.01)
    vm.process.terminate()
    assert vm.wait_exit() != -signal.SIGTERM
    assert not path.exists()


def test_signal_stops_no_update_that_failed(vms):
    """The order comes after an update that was refused: nothing of that is left."""
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=["/bin/false"])
    try:
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/state")
    except QmpError:
        pass
    vm.process.terminate()
    assert_ended_once(vm, False, "host-signal")
