# Every stage of an exec, failed in every way: one outcome each, as docs/live-update.md says it.
# SPDX-License-Identifier: Apache-2.0
"""MOLT_SOAK is the number of kills, and of stops, at random moments (tests/system/campaign.py)."""
import os
import pathlib
import re
import signal
import struct
import time

import pytest

from campaign import (LONG_SECONDS, ROUNDS, SHORT_SECONDS, OwnerPage, Word, assert_image,
                      choices, hold, proc_text, stand, start_guest, wait_moment)
from campaign import assert_runs as assert_at_work
from hungfs import hung_disk  # noqa: F401
from qmp import QmpError
from stages import stages
from vm import MOLT, Adopted, Serial, wait_for_change, wait_processes

SECONDS = 90

# Where the guest is afterwards: in its process, in the guardian's, or nowhere (it died with its process).
SAME, GUARDIAN, NOWHERE = "same PID", "guardian's PID", "nowhere"

# What the old program's stages come to: fault -> (where, result, reason).
BEFORE_PAUSE = {  # open .. pause: the guest was never stopped
    "error": (SAME, "unchanged", "fault injected into {stage}"),
    "stall": (SAME, "unchanged", "{stage}: no answer"),
    "kill": (NOWHERE, None, None), "exit": (NOWHERE, None, None), "abort": (NOWHERE, None, None),
}
IN_PAUSE = {  # switchover .. export
    "error": (SAME, "rolled-back", "fault injected into {stage}"),
    "stall": (SAME, "rolled-back", "{stage}: no answer"),
    "kill": (NOWHERE, None, None), "exit": (NOWHERE, None, None), "abort": (NOWHERE, None, None),
}
ARMED = {  # commit: there is a state to go on with
    "error": (SAME, "rolled-back", "fault injected into {stage}"),
    "stall": (SAME, "rolled-back", "{stage}: no answer"),
    "hang": (GUARDIAN, "rolled-back", "hung before it took the guest"),
    "kill": (GUARDIAN, "rolled-back", "ended before it took the guest"),
    "exit": (GUARDIAN, "rolled-back", "ended before it took the guest"),
    "abort": (GUARDIAN, "rolled-back", "ended before it took the guest"),
}
OLD = {"commit": ARMED}
OLD.update(dict.fromkeys(("open", "disks", "reopen", "rehearse", "way-back", "file", "guardian",
                          "drain", "pause"), BEFORE_PAUSE))
OLD.update(dict.fromkeys(("switchover", "quiesce", "save", "store", "export"), IN_PAUSE))

# The rehearsal: a child, while the guest runs.
REHEARSAL = {
    "error": "fault injected into {stage}", "stall": "does not come to its end",
    "hang": "no answer within", "kill": "killed by signal 9", "exit": "ended with status 3",
    "abort": "killed by signal 6",
}

# The new program, up to the moment before it takes the guest.
NEW = {
    "error": (SAME, "rolled-back", "fault injected into {stage}"),
    "stall": (SAME, "rolled-back", "{stage}: no answer"),
    "hang": (SAME, "rolled-back", "did not get on"),
    "kill": (GUARDIAN, "rolled-back", "ended before it took the guest"),
    "exit": (GUARDIAN, "rolled-back", "ended before it took the guest"),
    "abort": (SAME, "rolled-back", "SIGABRT"),
}


def test_the_table_is_whole():
    assert set(stages("exec-source")) == set(OLD)


def follow_guardian(vm):
    """The process has died; the guardian goes on with guest and monitors, under its own PID."""
    vm.qmp.close()
    vm.connect()
    info = vm.qmp.wait_status(("failed",), SECONDS)
    pid = info["update-record"]["old-pid"]
    assert pid != vm.pid, info
    assert f"goes on in process {pid}; until now its process was {vm.pid}" in vm.log_text()
    vm.adopt(pid)
    return info


def assert_runs(vm, line=None):
    """The guest gets on; one with a serial line only as long as somebody reads that."""
    if not line:
        vm.shared.assert_running(60)
        return
    line.pump(0)
    line.wait_for(b"\nHB %d\n" % (line.text.count(b"HB ") + 3), 60)


def assert_outcome(vm, stage, where, result, reason, line=None):
    """@where the guest is, and what the update says of itself."""
    if where != SAME:
        vm.wait_exit(SECONDS)
    if where == NOWHERE:
        wait_processes(vm, [])
        return
    info = (follow_guardian(vm) if where == GUARDIAN else
            vm.qmp.wait_status(("failed", "completed"), SECONDS))
    assert info["update-record"]["result"] == result, info
    assert reason.format(stage=stage) in info["error-desc"], info
    assert vm.qmp.cmd("query-status")["running"]
    assert_runs(vm, line)
    assert vm.shared.errors == 0
    wait_processes(vm, [vm.pid])


def migrate(vm):
    """The command; its reply may be the failure, or not come."""
    try:
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/state")
    except (QmpError, EOFError, ConnectionError):
        pass


# One that stands still before "commit" has the guest in its hands: no row, an operator's matter.
@pytest.mark.parametrize("stage,fault", [(stage, fault) for stage in OLD for fault in OLD[stage]])
def test_old_program(vms, stage, fault):
    vm = vms(env={"MOLT_FAULT": f"exec-source:{stage}:{fault}"})
    vm.shared.wait_started()
    before = vm.open_fds()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    migrate(vm)
    assert_outcome(vm, stage, *OLD[stage][fault])
    # Where the guardian went on, the fault is in its environment still.
    if OLD[stage][fault][0] == SAME:
        vm.assert_fds(before)
        vm.exec()
        vm.shared.assert_running()


def statuses(vm, last):
    """The MIGRATION events up to @last, and the result of each attempt."""
    seen, results = [], []
    while not seen or seen[-1] != last:
        event = vm.qmp.events.pop(0) if vm.qmp.events else vm.qmp.receive(SECONDS)
        if event["event"] == "MIGRATION":
            seen.append(event["data"]["status"])
        elif event["event"] == "MIGRATION_RECORD":
            results.append(event["data"]["result"])
    return seen, results


@pytest.mark.parametrize("stage,result,way", [
    ("rehearse", "unchanged", ["setup", "failing"]),
    ("quiesce", "rolled-back", ["setup", "active", "failing"]),
])
def test_another_attempt(vms, stage, result, way):
    """What had too little time is tried again; the guest runs meanwhile, and nobody hears "failed"."""
    vm = vms(env={"MOLT_FAULT": f"exec-source:{stage}:stall"})
    vm.shared.wait_started()
    vm.set_capabilities(events=True)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_attempts=2)
    vm.qmp.cmd("migrate")
    seen, results = statuses(vm, "completed")
    assert seen[:len(way)] == way and seen.count("setup") == 2 and "failed" not in seen, seen
    assert results == [result, "committed"]
    assert_runs(vm)
    assert vm.qmp.cmd("query-migrate-parameters")["cpr-exec-attempts"] == 2


def test_another_attempt_is_cancelled(vms):
    vm = vms(env={"MOLT_FAULT": "exec-source:rehearse:stall"})
    vm.shared.wait_started()
    before = vm.open_fds()
    vm.set_capabilities(events=True)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_attempts=100)
    vm.qmp.cmd("migrate")
    statuses(vm, "failing")
    vm.qmp.wait_event("MIGRATION", SECONDS, status="setup")
    with pytest.raises(QmpError, match="in progress"):
        vm.qmp.cmd("migrate")
    with pytest.raises(QmpError, match="in progress"):
        vm.set_capabilities(pause_before_switchover=True)
    info = vm.qmp.cmd("query-migrate")
    assert (info["status"], info["update-stage"]) == ("setup", "again")
    assert info["update-record"]["result"] == "unchanged"
    assert "Stage: \t\t\tagain" in vm.qmp.hmp("info migrate")
    # It is no update yet: devices come, and the guest may be reset.
    vm.qmp.cmd("device_add", driver="virtio-rng-pci", id="rng0", bus="pcie.0")
    vm.qmp.cmd("system_reset")
    vm.qmp.wait_event("RESET")
    before = vm.open_fds()
    vm.qmp.cmd("migrate_cancel")
    assert vm.qmp.wait_status(("cancelled",))["update-record"]["result"] == "unchanged"
    vm.assert_fds(before)
    assert_runs(vm)


def test_no_other_attempt(vms):
    """What failed for another reason would fail again."""
    vm = vms(env={"MOLT_FAULT": "exec-source:quiesce:error"})
    vm.shared.wait_started()
    vm.set_capabilities(events=True)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_attempts=2)
    vm.qmp.cmd("migrate")
    seen, results = statuses(vm, "failed")
    assert seen.count("setup") == 1 and results == ["rolled-back"]


def faulty(vm, tmp_path, table, stage, fault):
    """The command of a program with a fault in it."""
    wrapper = tmp_path / "next"
    wrapper.write_text(f"#!/bin/sh\nMOLT_FAULT={table}:{stage}:{fault}\nexport MOLT_FAULT\n"
                       f"exec {MOLT} \"$@\"\n")
    wrapper.chmod(0o755)
    return [str(wrapper), *vm.argv[1:], "-incoming", f"file:{vm.tmp}/state"]


@pytest.mark.parametrize("stage", stages("exec-rehearsal"))
def test_rehearsal(vms, tmp_path, stage):
    """One VM meets them all: the guest never stops, and nothing is left of any of them."""
    vm = vms()
    vm.shared.wait_started()
    before = vm.open_fds()
    for fault, reason in REHEARSAL.items():
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
                   cpr_exec_command=faulty(vm, tmp_path, "exec-rehearsal", stage, fault))
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/state")
        assert_outcome(vm, stage, SAME, "unchanged", reason)
        vm.assert_fds(before)
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
    vm.exec()
    vm.shared.assert_running()


# A program that damages what it rehearses with, and only that, before it is molt.
SPOILER = """#!/usr/bin/python3
import fcntl, os, sys
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        found = os.readlink("/proc/self/fd/%d" % fd) == "/memfd:{memfd} (deleted)"
    except OSError:
        continue
    if found:
        data = bytearray(os.pread(fd, 1 << 24, 0))
        data[-1] ^= 1
        copy = os.memfd_create("copy", os.MFD_ALLOW_SEALING)
        os.write(copy, data)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.fcntl(fd, fcntl.F_GET_SEALS))
        os.dup2(copy, fd)
        os.close(copy)
os.execv("{molt}", sys.argv)
"""


@pytest.mark.parametrize("memfd", ["molt-rehearsal", "molt-rehearsal-sessions"])
def test_rehearsal_reads_what_will_cross(vms, tmp_path, memfd):
    """A new program that could not read it is found out while the guest runs."""
    program = tmp_path / "next"
    program.write_text(SPOILER.format(memfd=memfd, molt=MOLT))
    program.chmod(0o755)
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=[str(program), *vm.argv[1:]])
    vm.qmp.cmd("migrate")
    assert_outcome(vm, "", SAME, "unchanged", "damaged")


def test_way_back_rehearsed(vms, tmp_path):
    """The new program would do, but this one could not come back to: it is refused all the same."""
    vm = vms(env={"MOLT_FAULT": "exec-rehearsal:build:error"})
    vm.shared.wait_started()
    wrapper = tmp_path / "next"
    wrapper.write_text(f"#!/bin/sh\nunset MOLT_FAULT\nexec {MOLT} \"$@\"\n")
    wrapper.chmod(0o755)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=[str(wrapper), *vm.argv[1:]])
    vm.qmp.cmd("migrate")
    assert_outcome(vm, "build", SAME, "unchanged", "there would be no way back")


# "sessions" never waits; if it could, monitors would greet their clients a second time.
@pytest.mark.parametrize("stage,fault", [
    (stage, fault) for stage in stages("exec-target") for fault in NEW
    if (stage, fault) != ("sessions", "stall")])
def test_new_program(vms, tmp_path, stage, fault):
    """The serial line, its client connected all the while, loses nothing either."""
    path = str(tmp_path / "com1")
    vm = vms(kernel="heartbeat", append="spin=200",
             args=["-S", "-serial", f"unix:{path},server=on,wait=off"])
    line = Serial(path)
    vm.qmp.cmd("cont")
    line.wait_for(b"HB 3\n")
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=faulty(vm, tmp_path, "exec-target", stage, fault))
    migrate(vm)
    assert_outcome(vm, stage, *NEW[fault], line=line)
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
    vm.exec()
    assert_runs(vm, line)
    wait_processes(vm, [vm.pid])
    numbers = [int(n[3:]) for n in line.text.split(b"\n")[:-1] if n.startswith(b"HB ")]
    assert numbers == list(range(1, len(numbers) + 1)), "a heartbeat was lost"


def exec_into_window(vm, state=None):
    """The new program is up and waits for migrate-incoming."""
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=[*vm.argv, "-incoming", "defer"])
    vm.qmp.cmd("migrate", uri=f"file:{state or f'{vm.tmp}/state'}")
    vm.qmp.wait_status(("device", "failed"), SECONDS)

    def waits():
        assert vm.qmp.cmd("query-migrate")["status"] != "failed", vm.log_text()
        return vm.qmp.cmd("query-status")["status"] == "inmigrate"

    vm.shared.wait(waits)


@pytest.mark.parametrize("number,where,reason", [
    (signal.SIGKILL, GUARDIAN, "ended before it took the guest"),
    (signal.SIGSEGV, SAME, "SIGSEGV"), (signal.SIGBUS, SAME, "SIGBUS")])
def test_window_killed(vms, number, where, reason):
    vm = vms()
    exec_into_window(vm)
    vm.shared.assert_stopped()
    vm.process.send_signal(number)
    assert_outcome(vm, "", where, "rolled-back", reason)
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
    vm.exec()
    wait_processes(vm, [vm.pid])


def test_window_with_a_hung_state_file(vms, hung_disk):
    """Whoever goes on needs no file, and no thread that waits for one stands in the way."""
    vm, store = vms(), hung_disk()
    exec_into_window(vm, store.path)
    store.hang(hard=True)
    vm.process.kill()
    assert_outcome(vm, "main", GUARDIAN, "rolled-back", "ended before it took the guest")
    store.go()


@pytest.mark.parametrize("exits", [True, False])
def test_window_with_a_hung_incoming_file(vms, hung_disk, exits):
    """A manager may take its time; a program that does not hear it may not."""
    vm, store = vms(), hung_disk()
    exec_into_window(vm)
    store.hang("read")
    vm.qmp.send("migrate-incoming", uri=f"file:{store.path}", exit_on_error=exits)
    store.wait_held()
    vm.qmp.close()
    vm.connect()
    assert_outcome(vm, "main", SAME, "rolled-back", "did not get on")
    store.go()


@pytest.mark.parametrize("how", ["quit", "SIGTERM"])
def test_window_ended(vms, how):
    """Told to end, it ends, and the guest with it: nobody brings it back."""
    vm = vms()
    exec_into_window(vm)
    if how == "quit":
        vm.quit()
    else:
        vm.process.terminate()
        vm.wait_exit()
    wait_processes(vm, [])


def test_process_1_of_a_container(vms, tmp_path):
    """A child cannot kill process 1: the guardian goes on beside a new program that hangs."""
    wrapper, program = tmp_path / "container", tmp_path / "next"
    wrapper.write_text(f'#!/bin/sh\nexec unshare --pid --fork --kill-child {MOLT} "$@"\n')
    program.write_text(f'#!/bin/sh\n[ -n "$MOLT_CPR_PROBE" ] && exec {MOLT} "$@"\n'
                       "while :; do sleep 1000; done\n")
    wrapper.chmod(0o755)
    program.chmod(0o755)
    vm = vms(binary=str(wrapper))
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=[str(program)])
    vm.qmp.cmd("migrate")
    vm.qmp.close()
    vm.connect()
    info = vm.qmp.wait_status(("failed",), SECONDS)
    assert info["update-record"]["result"] == "rolled-back"
    assert "hung before it took the guest" in info["error-desc"], info
    assert info["update-record"]["old-pid"] != 1
    assert_runs(vm)
    assert vm.shared.errors == 0


def in_container(vm):
    """The process that its namespace calls 1."""
    for path in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text()
        except ProcessLookupError:
            continue
        if re.search(rf"^PPid:\t{vm.pid}$", text, re.M) and re.search(r"^NSpid:.*\t1$", text, re.M):
            return int(path.parent.name)
    raise AssertionError("there is no process 1")


def test_process_1_outlives_its_guests(vms, tmp_path):
    """A late program that is process 1 serves whoever has the guest, and has nothing of it."""
    wrapper, late, dies = (tmp_path / name for name in ("container", "late", "dies"))
    probe = f'#!/bin/sh\n[ -n "$MOLT_CPR_PROBE" ] && exec {MOLT} "$@"\n'
    wrapper.write_text(f'#!/bin/sh\nexec unshare --pid --fork --kill-child {MOLT} "$@"\n')
    late.write_text(f'{probe}sleep 30\nexec {MOLT} "$@"\n')
    dies.write_text(f"{probe}kill -9 $$\n")
    for path in wrapper, late, dies:
        path.chmod(0o755)
    vm = vms(binary=str(wrapper))
    vm.shared.wait_started()
    first = in_container(vm)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=[str(late)])
    vm.qmp.cmd("migrate")
    vm.qmp.close()
    vm.connect()
    assert "hung before" in vm.qmp.wait_status(("failed",), SECONDS)["error-desc"]
    vm.shared.wait(lambda: "the guardian goes on with the guest" in vm.log_text(), SECONDS)
    # The standard ones, and the pipe to its guardian.
    vm.shared.wait(lambda: len(os.listdir(f"/proc/{first}/fd")) <= 4, SECONDS)
    # Its own child goes, and a child of that goes on.
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[str(dies)])
    vm.qmp.cmd("migrate")
    vm.qmp.close()
    vm.connect()
    assert "ended before it took" in vm.qmp.wait_status(("failed",), SECONDS)["error-desc"]
    assert_runs(vm)
    vm.qmp.cmd("quit")
    assert vm.process.wait(SECONDS) == 0


@pytest.mark.parametrize("seconds", [13])
def test_frozen_after_the_mark(vms, tmp_path, seconds):
    """The new program stands still right after it took the guest, for longer than any patience: it is
    the guest's, whatever the guardian thinks."""
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=faulty(vm, tmp_path, "exec-target", "taken", "stop"))
    vm.qmp.send("migrate", uri=f"file:{vm.tmp}/state")
    vm.wait_stopped(SECONDS)
    wait_for_change(None, seconds)
    vm.process.send_signal(signal.SIGCONT)
    vm.qmp.reply(SECONDS)
    assert vm.qmp.wait_status(("completed", "failed"), SECONDS)["status"] == "completed"
    vm.shared.assert_running()
    wait_processes(vm, [vm.pid])


# ---- kills and stops at random moments ----

# The whole of an update, in a test host.
UPDATE_SECONDS = 2.5
GUARDIAN_STACK_BYTES = 64 << 10
HUNG = "hung before it took the guest"


class Guardian(Adopted):
    """The child that keeps the way back, and what it knows: its plan lies at the low end of its stack
    (struct guardian_plan, src/cpr/guardian.c)."""

    def __init__(self, vm, pid):
        assert "MOLT_CPR_PROBE" not in proc_text(pid, "environ")
        # It is on a processor now and then, to look at its parent.
        assert hold(0.1, lambda: len(proc_text(pid, "syscall").split()) > 2, 0)
        stack = int(proc_text(pid, "syscall").split()[-2], 16)
        self.pid, self.plan_at = pid, (stack + 0xFFF & ~0xFFF) - GUARDIAN_STACK_BYTES
        assert self.plan()[2] == vm.pid
        super().__init__(pid)

    def plan(self):
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            return struct.unpack("iiiiQQiiQ", os.pread(memory.fileno(), 48, self.plan_at))

    def armed(self):
        """The attempt that it can go back with; 0: none."""
        try:
            plan = self.plan()
        except (OSError, struct.error):
            return 0
        return plan[5] if plan[8] else 0


def find_guardian(vm):
    """The guardian, if there is one now; the child that rehearses is none."""
    for pid in proc_text(vm.pid, f"task/{vm.pid}/children").split():
        try:
            return Guardian(vm, int(pid))
        except (AssertionError, OSError, IndexError, struct.error):
            pass
    return None


def begin_update(vms, tmp_path):
    vm, image = start_guest(vms, tmp_path)
    owner = OwnerPage(vm.pid)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/state")
    return vm, image, owner


def find_moment(vm, owner, rng, wait_guardian):
    """A random moment; mostly one at which there is a guardian, since there all is decided.
    Return: the guardian, if there is one."""
    if wait_guardian:
        hold(SECONDS, lambda: owner.taken or find_guardian(vm), 0.001)
    wait_moment(owner, rng, UPDATE_SECONDS, not wait_guardian)
    return find_guardian(vm)


def has_way_back(owner, guardian):
    """Who is killed now leaves the guest to the guardian: there is a saved state, nobody has taken it, and the
    guardian has been given what it needs.  Otherwise the guest is gone with its process."""
    return owner.offered and guardian is not None and guardian.armed() == owner.word[0]


def assert_left(vm, image, owner, where, reason):
    """@where the guest is after its process was killed, and nothing else is left."""
    vm.wait_exit(SECONDS)
    if where == NOWHERE:
        wait_processes(vm, [])
        vm.shared.assert_stopped()
        assert_image(vm.shared, image)
        return
    assert_back(vm, follow_guardian(vm), image, owner, reason)


def assert_back(vm, info, image, owner, reason):
    """The old program has the guest again, in the same process or the guardian's."""
    record = info["update-record"]
    assert record["result"] == "rolled-back" and reason in info["error-desc"], info
    assert owner.taken and record["old-pid"] == vm.pid
    assert not (vm.tmp / "state").exists()
    assert_settled(vm, image)


def assert_committed(vm, image, owner):
    info = vm.qmp.wait_status(("completed", "failed"), SECONDS)
    assert info["status"] == "completed" and info["update-record"]["result"] == "committed", info
    assert owner.taken
    assert_settled(vm, image)


def assert_settled(vm, image):
    """The guest runs in this process alone, with no child, and another update works."""
    assert vm.qmp.cmd("query-status")["running"]
    assert_at_work(vm.shared)
    wait_processes(vm, [vm.pid])
    assert hold(SECONDS, lambda: not vm.children()), vm.children()
    vm.exec(timeout=SECONDS)
    assert_at_work(vm.shared)
    vm.quit()
    wait_processes(vm, [])
    assert_image(vm.shared, image)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_at_random(vms, tmp_path, seed):
    """Either the guardian stands while the process is killed, or the process stands before: in both
    cases what decides can be read before anybody acts on it."""
    rng = choices("exec", "kill", seed)
    vm, image, owner = begin_update(vms, tmp_path)
    guardian = find_moment(vm, owner, rng, rng.random() < 0.8)
    if guardian and rng.random() < 0.7:
        stand(guardian)
        time.sleep(rng.random() * 0.1)  # the moment, once more
        vm.process.kill()
        vm.wait_exit()
        back = has_way_back(owner, guardian)
        guardian.send_signal(signal.SIGCONT)
    else:
        stand(vm.process)
        back = has_way_back(owner, find_guardian(vm))
        assert back or not (owner.offered and "MOLT_CPR_EXEC=" in proc_text(vm.pid, "environ"))
        vm.process.kill()
    print(f"killed: {owner.state.name} {'taken ' * owner.taken}{'back' * back}")
    assert_left(vm, image, owner, GUARDIAN if back else NOWHERE, "ended before it took the guest")


def catches_abort(vm):
    """The new program is far enough to become the old one again by itself."""
    caught = next(line for line in proc_text(vm.pid, "status").splitlines() if "SigCgt" in line)
    return bool(int(caught.split()[1], 16) >> signal.SIGABRT - 1 & 1)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_stopped_at_random(vms, tmp_path, seed):
    """For less than each patience, for longer than the first, or for longer than all."""
    rng = choices("exec", "stop", seed)
    vm, image, owner = begin_update(vms, tmp_path)
    find_moment(vm, owner, rng, rng.random() < 0.8)
    assert stand(vm.process)
    late = has_way_back(owner, find_guardian(vm))
    handler, how = catches_abort(vm), rng.choice(("short", "called back", "killed"))
    if how == "short":
        hold(rng.random() * 10 * SHORT_SECONDS)
    elif not late:
        # Nobody has a right to the guest but the one that stands; a guest in the middle of it stands too.
        before = owner.word
        hold(LONG_SECONDS)
        assert owner.word == before and vm.alive()
    elif how == "called back":
        assert hold(SECONDS, lambda: owner.state is Word.RECALLED)
    else:
        assert hold(SECONDS, lambda: not vm.alive())
    print(f"stopped: {how}, {owner.state.name} {'taken ' * owner.taken}{'late ' * late}{'handler' * handler}")
    if vm.alive():
        vm.process.send_signal(signal.SIGCONT)
    if how == "short" or not late:
        assert_committed(vm, image, owner)
    elif how == "called back" and handler:
        assert_back(vm, vm.qmp.wait_status(("failed",), SECONDS), image, owner, "did not get on")
    else:
        assert_left(vm, image, owner, GUARDIAN, HUNG)


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("what", ["kill", "stop"])
def test_guardian_at_random(vms, tmp_path, what, seed):
    """It may be killed, or stand as long as it likes, whenever: the update needs it for nothing."""
    rng = choices("guardian", what, seed)
    vm, image, owner = begin_update(vms, tmp_path)
    guardian = find_moment(vm, owner, rng, True)
    print(f"guardian: {what} {bool(guardian)} {owner.state.name} {'taken' * owner.taken}")
    if not guardian:
        pass  # it has ended by now
    elif what == "kill":
        guardian.kill()
    elif stand(guardian):
        seconds = rng.choice((SHORT_SECONDS, LONG_SECONDS))
        if owner.untouched or owner.offered:
            vm.qmp.wait_status(("completed", "failed"), SECONDS)
        hold(rng.random() * seconds)
        guardian.send_signal(signal.SIGCONT)
    assert_committed(vm, image, owner)
