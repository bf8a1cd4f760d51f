# What becomes of the guest when either process of a transfer fails, stands or dies, at every stage.
# SPDX-License-Identifier: Apache-2.0
"""The tables here are docs/live-update.md, section 5, stage by stage: one outcome a row.  The guest compares a
register with RAM at every step, so that a second runner, or an old state, is seen (tests/guest/once.c).

MOLT_SOAK is the number of kills, and of stops, at random moments (tests/system/campaign.py)."""
import fcntl
import os
import pathlib
import re
import signal
import struct
import time

import pytest

from campaign import (LONG_SECONDS, ROUNDS, SHORT_SECONDS, OwnerPage, Word, assert_image, choices,
                      hold, stand, start_guest, wait_moment)
from campaign import assert_runs as assert_at_work
from qmp import QmpError
from stages import stages
from vm import wait_for_change, wait_for_socket, wait_processes

SECONDS = 60
SYS_PAUSE = "34 "
F_OFD_SETLK = 37
REASONS = {"error": ("fault injected",), "stall": ("out of turn",)}

# ---- the old process.  Stage: what its error or stall comes to, and its death or standstill. ----
# old: the guest goes on in the old process, with this result.  new: in the new one, committed.
# gone: it died with the old process, and the new one, which has no state, ends.
# waits: the same, and the new one, which has not heard of an update, waits on.
OLD = {
    "connect": ("old unchanged", "waits"), "hello": ("old unchanged", "waits"),
    "disks": ("old unchanged", "gone"),
    "offer": ("old unchanged", "gone"), "fds": ("old unchanged", "gone"),
    "rehearse": ("old unchanged", "gone"), "ready": ("old unchanged", "gone"),
    "main": ("old unchanged", "gone"), "window": ("old unchanged", "gone"),
    "join": ("old unchanged", "gone"), "drain": ("old unchanged", "gone"),
    "pause": ("old unchanged", "gone"),
    "switchover": ("old rolled-back", "gone"), "quiesce": ("old rolled-back", "gone"),
    "save": ("old rolled-back", "gone"), "state": ("old rolled-back", "gone"),
    "loaded": ("old rolled-back", "new"), "commit": ("old rolled-back", "new"),
    "go": ("new", "new"), "running": ("new", "new"), "record": ("new", "new"),
}

# ---- the new process.  Stage: what its error or stall comes to, its death, its standstill. ----
# none: there is no update.  lost: it died with the guest in its hands; the old one says so and stays stopped.
# holds: it stands with the guest in its hands, and the old one leaves it that.  ends: as old, by migrate_cancel,
# where a manager is waited for.
NEW = {
    "listen": ("none", "none", "none"),
    "hello": ("old unchanged", "old unchanged", "old unchanged"),
    "offer": ("old unchanged", "old unchanged", "old unchanged"),
    "fds": ("old unchanged", "old unchanged", "old cancelled"),
    "build": ("old unchanged", "old unchanged", "old cancelled"),
    "populate": ("old unchanged", "old unchanged", "old cancelled"),
    "rehearse": ("old unchanged", "old unchanged", "old cancelled"),
    "ready": ("old unchanged", "old unchanged", "old cancelled"),
    "main": ("old unchanged", "old unchanged", "old cancelled"),
    "join": ("old unchanged", "old unchanged", "old unchanged"),
    "state": ("old unchanged", "old unchanged", "old unchanged"),
    "load": ("old rolled-back", "old rolled-back", "old rolled-back"),
    "loaded": ("old rolled-back", "old rolled-back", "old rolled-back"),
    "commit": ("old rolled-back", "old rolled-back", "old rolled-back"),
    "run": ("new", "lost", "holds"), "running": ("new", "lost", "holds"),
    "record": ("new", "gone-after", "new"),
}


def rows(table, outcomes, kinds):
    return [(stage, fault, outcomes[stage][column]) for stage in stages(table)
            for column, faults in enumerate(kinds) for fault in faults
            # What comes right after the commit cannot fail, it can only wait.
            if (table, fault) != ("transfer-source", "error") or stage not in ("go", "running")]


def assert_goes_on(vm, shared):
    """@vm says that it runs the guest, the guest does, and nobody ever ran it twice."""
    if not vm.qmp:
        vm.connect()
    assert vm.qmp.cmd("query-status")["running"] is True
    shared.assert_running(30)
    assert shared.errors == 0, f"at {shared.detail(0)} of {shared.counter}"


def wait_owner(vm, shared, answers=True):
    """Until @vm has the guest; it @answers, unless it was told to stand afterwards."""
    end = time.monotonic() + SECONDS
    while "took over" not in vm.log_text():
        assert vm.alive() and time.monotonic() < end, vm.log_text()
        wait_for_change(None, 0.02)
    if answers:
        assert_goes_on(vm, shared)
    shared.assert_running(30)
    assert shared.errors == 0


def migrate(vm, new):
    try:
        vm.migrate_to(new)
    except (QmpError, EOFError, ConnectionError):
        pass  # an error before the first wait is the reply; one that dies has none


def migrate_until_hung(vm, new):
    """The old process stands in the stage that it was told to."""
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-transfer")
    vm.qmp.send("migrate", channels=[
        {"channel-type": kind, "addr": {"transport": "socket", "type": "unix", "path": path}}
        for kind, path in (("main", new.main_path), ("cpr", new.cpr_path))])
    end = time.monotonic() + SECONDS
    while not pathlib.Path(f"/proc/{vm.pid}/syscall").read_text().startswith(SYS_PAUSE):
        assert vm.alive() and time.monotonic() < end, vm.log_text()
        wait_for_change(None, 0.02)


def result(vm):
    info = vm.qmp.wait_status(("failed", "completed", "cancelled"), SECONDS)
    return info["update-record"]["result"], info


def assert_next_works(vm, shared, **kwargs):
    new = vm.transfer(timeout=SECONDS, **kwargs)
    assert_goes_on(new, shared)


@pytest.mark.parametrize("stage,fault,outcome",
                         rows("transfer-source", OLD, (("error", "stall"), ("kill", "hang"))))
def test_old(vms, stage, fault, outcome):
    vm = vms(kernel="once", env={"MOLT_FAULT": f"transfer-source:{stage}:{fault}"})
    shared = vm.shared
    shared.wait_started()
    new = vm.successor()
    wait_for_socket(new.cpr_path, SECONDS)
    if fault != "hang":
        migrate(vm, new)
    else:
        migrate_until_hung(vm, new)
        # While it stands before it unlocked, nobody takes the guest; afterwards the new one has it.
        if stage in ("go", "running", "record"):
            wait_owner(new, shared)
        else:
            assert new.alive() and "took over" not in new.log_text()
        vm.process.kill()
    if fault in ("kill", "hang"):
        vm.wait_exit(SECONDS)
    if outcome == "gone":
        assert new.wait_exit(SECONDS) == 1
        shared.assert_stopped()
    elif outcome == "waits":
        wait_for_socket(new.cpr_path)
        assert new.alive() and new.qmp.cmd("query-status")["status"] == "inmigrate"
    elif outcome == "new":
        wait_owner(new, shared)
        got, info = result(new)
        assert got == "committed"
        if stage in ("running", "record"):  # "go" says when the guest was stopped
            assert "paused-at-ns" in info["update-record"], info
    else:
        got, info = result(vm)
        assert f"old {got}" == outcome, info
        # What the new one sends to a process that does not expect it is a reason, too.
        assert any(word in info["error-desc"] for word in REASONS[fault] + (stage,)), info
        assert_goes_on(vm, shared)
        if stage not in ("connect", "hello"):
            assert new.wait_exit(SECONDS) == 1
            assert_next_works(vm, shared)
        else:
            vm.migrate_to(new)  # it has not heard of the first attempt
            wait_owner(new, shared)


def cancel_hung(vm):
    """Where a successor may take as long as it likes, it is the manager who ends it."""
    end = time.monotonic() + 3
    while vm.qmp.cmd("query-migrate")["status"] == "setup" and time.monotonic() < end:
        wait_for_change(None, 0.05)
    vm.qmp.cmd("migrate_cancel")
    assert vm.qmp.wait_status(("cancelled",))["update-record"]["result"] == "unchanged"


@pytest.mark.parametrize("stage,fault,outcome",
                         rows("transfer-target", NEW, (("error", "stall"), ("kill",), ("hang",))))
def test_new(vms, stage, fault, outcome):
    vm = vms(kernel="once")
    shared = vm.shared
    shared.wait_started()
    before = vm.open_fds()
    new = vm.successor(env={"MOLT_FAULT": f"transfer-target:{stage}:{fault}"}, wait_qmp=False)
    if outcome == "none":
        if fault == "hang":
            new.process.kill()
        new.wait_exit(SECONDS)
        assert_goes_on(vm, shared)
        return
    wait_for_socket(new.cpr_path, SECONDS)
    migrate(vm, new)
    if outcome == "new":
        wait_owner(new, shared, fault != "hang")
        if fault == "hang":
            assert result(vm)[0] == "committed"
        return
    if outcome == "old cancelled":
        cancel_hung(vm)
    else:
        got, info = result(vm)
    if outcome in ("lost", "holds", "gone-after"):
        assert got == ("lost" if outcome == "lost" else "committed"), info
        assert vm.qmp.cmd("query-status")["status"] == "postmigrate"
        with pytest.raises(QmpError):
            vm.qmp.cmd("cont")
        if outcome != "holds":
            new.wait_exit(SECONDS)
            shared.assert_stopped()
        return
    if outcome != "old cancelled":
        assert f"old {got}" == outcome and info["error-desc"], info
    assert_goes_on(vm, shared)
    if fault == "hang":
        new.process.kill()
    new.wait_exit(SECONDS)
    vm.assert_fds(before)
    assert_next_works(vm, shared)


# ---- one that stands and goes on: longer than each time-out, and then finds out by the word ----


def paused_update(vms):
    """A guest at pre-switchover, and its successor, which waits for the state."""
    vm = vms(kernel="once")
    vm.shared.wait_started()
    vm.set_capabilities(pause_before_switchover=True)
    new = vm.successor()
    wait_for_socket(new.cpr_path, SECONDS)
    vm.migrate_to(new)
    vm.qmp.wait_status(("pre-switchover",), SECONDS)
    return vm, new


def test_new_stands_in_the_pause(vms):
    """The old one goes on alone; the new one, with the state and an abort in its sockets, ends."""
    vm, new = paused_update(vms)
    new.process.send_signal(signal.SIGSTOP)
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    got, info = result(vm)
    assert got == "rolled-back" and "loaded" in info["error-desc"], info
    assert_goes_on(vm, vm.shared)
    # A second attempt, in whose pause the first one's successor wakes up.
    late = new
    vm.set_capabilities(pause_before_switchover=True)
    new = vm.successor()
    wait_for_socket(new.cpr_path, SECONDS)
    vm.migrate_to(new)
    vm.qmp.wait_status(("pre-switchover",), SECONDS)
    late.process.send_signal(signal.SIGCONT)
    assert late.wait_exit(SECONDS) == 1 and "took over" not in late.log_text()
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    wait_owner(new, vm.shared)


@pytest.mark.parametrize("stage", ["loaded", "commit", "go", "running"])
def test_old_dies_while_new_stands(vms, stage):
    """State, hang-up and perhaps "go" lie in the new one's sockets when it goes on: it takes the guest."""
    vm = vms(kernel="once", env={"MOLT_FAULT": f"transfer-source:{stage}:kill"})
    vm.shared.wait_started()
    vm.set_capabilities(pause_before_switchover=True)
    new = vm.successor()
    wait_for_socket(new.cpr_path, SECONDS)
    vm.migrate_to(new)
    vm.qmp.wait_status(("pre-switchover",), SECONDS)
    if stage == "loaded":
        new.process.send_signal(signal.SIGSTOP)
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    vm.wait_exit(SECONDS)
    if stage == "loaded":
        vm.shared.assert_stopped()
        new.process.send_signal(signal.SIGCONT)
    wait_owner(new, vm.shared)
    assert result(new)[0] == "committed"


def lock_owner_page(vm):
    """Take the owner's lock as @vm would, as soon as it is there and free.  Return: what holds it."""
    fds = pathlib.Path(f"/proc/{vm.pid}/fd")
    lock = None
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if lock is None:
                pages = [fd for fd in fds.iterdir() if "molt-owner" in os.readlink(fd)]
                lock = os.open(pages[0], os.O_RDWR) if pages else None
            else:
                fcntl.fcntl(lock, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
                return lock
        except (BlockingIOError, FileNotFoundError):
            pass  # held, or a descriptor that was closed since
        wait_for_change(None, 0.001)
    raise AssertionError(vm.log_text())


def test_new_stands_with_the_lock(vms):
    """Between lock and mark it may stand for ever: the guest is taken back without the lock."""
    vm = vms(kernel="once")
    vm.shared.wait_started()
    new = vm.successor(env={"MOLT_FAULT": "transfer-target:commit:stop"})
    wait_for_socket(new.cpr_path, SECONDS)
    migrate(vm, new)
    lock = lock_owner_page(new)
    got, info = result(vm)
    assert got == "rolled-back", info
    assert_goes_on(vm, vm.shared)
    # Another one has the guest, on a page of its own, before this one goes on.
    vm2 = vm.transfer(timeout=SECONDS)
    assert_goes_on(vm2, vm.shared)
    os.close(lock)
    new.process.send_signal(signal.SIGCONT)
    assert new.wait_exit(SECONDS) == 1 and "took over" not in new.log_text()
    assert_goes_on(vm2, vm.shared)


@pytest.mark.parametrize("command", ["stop", "quit"])
def test_told_before_the_record(vms, command):
    """The new one has the guest and awaits the old one's record: what it is told, it does."""
    vm = vms(kernel="once", env={"MOLT_FAULT": "transfer-source:go:stop"})
    vm.shared.wait_started()
    new = vm.successor()
    wait_for_socket(new.cpr_path, SECONDS)
    migrate(vm, new)
    new.qmp.wait_event("RESUME", SECONDS)
    if command == "stop":
        new.qmp.cmd("stop")
        vm.shared.assert_stopped()
        assert new.qmp.cmd("query-status")["status"] == "paused"
        vm.process.send_signal(signal.SIGCONT)
        assert result(new)[0] == "committed"
        vm.shared.assert_stopped()
        new.qmp.cmd("cont")
        assert_goes_on(new, vm.shared)
    else:
        new.qmp.cmd("quit")
        assert new.qmp.wait_event("SHUTDOWN", SECONDS)["data"]["reason"] == "host-qmp-quit"
        assert new.wait_exit(SECONDS) == 0
        vm.process.send_signal(signal.SIGCONT)
        result(vm)
        assert vm.qmp.cmd("query-status")["status"] == "postmigrate"


def test_new_stands_with_downtime_limit(vms):
    """The agreed pause ends the wait for a successor that stands."""
    vm, new = paused_update(vms)
    vm.qmp.cmd("migrate_cancel")
    new.wait_exit(SECONDS)
    vm.qmp.cmd("migrate-set-parameters", **{"downtime-limit": 60000})
    new = vm.successor()
    wait_for_socket(new.cpr_path, SECONDS)
    vm.migrate_to(new)
    vm.qmp.wait_status(("pre-switchover",), SECONDS)
    new.process.send_signal(signal.SIGSTOP)
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    got, info = result(vm)
    assert got == "rolled-back", info
    assert_goes_on(vm, vm.shared)


def test_requests_in_the_pause(vms):
    """The state is on its way, and RAM is not the new one's yet: neither can be asked for anything."""
    vm, new = paused_update(vms)
    for process in (vm, new):
        for command in ("system_reset", "system_powerdown"):
            with pytest.raises(QmpError, match="migration"):
                process.qmp.cmd(command)
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    wait_owner(new, vm.shared)


def test_old_stands_in_the_pause(vms):
    """The new one waits for it, its monitor answers, and the update is done when it goes on."""
    vm, new = paused_update(vms)
    vm.process.send_signal(signal.SIGSTOP)
    for _ in range(30):
        assert new.qmp.cmd("query-status", timeout=5)["status"] == "inmigrate"
        wait_for_change(None, 0.1)
    vm.process.send_signal(signal.SIGCONT)
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    wait_owner(new, vm.shared)


# ---- kills and stops at random moments: the owner's word says who has the guest, this who that is ----

UPDATE_SECONDS = 1.0


def begin_update(vms, tmp_path):
    vm, image = start_guest(vms, tmp_path)
    owner = OwnerPage(vm.pid)
    new = vm.successor()
    wait_for_socket(new.cpr_path, SECONDS)
    vm.migrate_to(new)
    return vm, new, image, owner


def listens(vm):
    """It has not heard of an update, or of none that came to anything, and waits for one."""
    try:
        wait_for_socket(vm.cpr_path, 1)
    except TimeoutError:
        return False
    return vm.qmp.cmd("query-status", timeout=SECONDS)["status"] == "inmigrate"


def assert_gone(vm, image):
    wait_processes(vm, [])
    vm.shared.assert_stopped()
    assert_image(vm.shared, image)


def assert_new_has_it(old, new, image):
    """@old: None if it is dead."""
    wait_owner(new, new.shared)
    got, info = result(new)
    assert got == "committed", info
    assert_at_work(new.shared)
    if old:
        got, info = result(old)
        assert got == "committed" and old.qmp.cmd("query-status")["status"] == "postmigrate", info
        old.quit()
    new.owns_ram = True
    new.quit()
    assert_gone(new, image)


def assert_old_has_it(vm, new, image):
    """@new has found out, and ended; nothing is left of it; the next update works."""
    got, info = result(vm)
    assert info["status"] == "failed", info
    assert got == ("rolled-back" if "paused-at-ns" in info["update-record"] else "unchanged"), info
    assert new.process.wait(SECONDS) in (1, -signal.SIGKILL) and "took over" not in new.log_text()
    assert_goes_on(vm, vm.shared)
    wait_processes(vm, [vm.pid])
    last = vm.transfer(timeout=SECONDS)
    assert_at_work(last.shared)
    last.quit()
    assert_gone(last, image)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_old_killed_at_random(vms, tmp_path, seed):
    """The successor has the guest if it has got the whole state; what else it does follows from the word."""
    rng = choices("old", "kill", seed)
    vm, new, image, owner = begin_update(vms, tmp_path)
    wait_moment(owner, rng, UPDATE_SECONDS)
    vm.process.kill()
    vm.wait_exit()
    print(f"old killed: {owner.state.name} {'taken' * owner.taken}")
    if owner.untouched:
        assert hold(SECONDS, lambda: not new.alive() or listens(new)), new.log_text()
        assert owner.untouched and "took over" not in new.log_text()
        if new.alive():
            new.quit()
        assert_gone(vm, image)
        return
    assert hold(SECONDS, lambda: owner.taken or not new.alive()), new.log_text()
    if owner.taken:
        assert_new_has_it(None, new, image)
        return
    # It was offered a state that never came, or not all of it: no other reason will do.
    assert new.wait_exit() == 1 and owner.offered
    assert re.search("state: the old process is gone|main channel: ", new.log_text()), new.log_text()
    assert_gone(vm, image)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_new_killed_at_random(vms, tmp_path, seed):
    rng = choices("new", "kill", seed)
    vm, new, image, owner = begin_update(vms, tmp_path)
    wait_moment(owner, rng, UPDATE_SECONDS)
    new.process.kill()
    new.wait_exit()
    print(f"new killed: {owner.state.name} {'taken' * owner.taken}")
    if not owner.taken:
        assert_old_has_it(vm, new, image)
        return
    # Gone with its process, like any guest; whether it was heard of there before is all that differs.
    got, info = result(vm)
    heard = any(phase["process"] == "new" for phase in info["update-record"]["phases"])
    assert got == ("committed" if heard else "lost"), info
    assert vm.qmp.cmd("query-status")["status"] == "postmigrate"
    with pytest.raises(QmpError):
        vm.qmp.cmd("cont")
    vm.shared.assert_stopped()
    vm.quit()
    assert_gone(vm, image)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_old_stopped_at_random(vms, tmp_path, seed):
    """However long it stands: nobody takes a guest that it has not let go, and the update is done when it goes on."""
    rng = choices("old", "stop", seed)
    vm, new, image, owner = begin_update(vms, tmp_path)
    wait_moment(owner, rng, UPDATE_SECONDS)
    stand(vm.process)
    before = owner.word
    print(f"old stopped: {owner.state.name} {'taken' * owner.taken}")
    hold(rng.choice((0, SHORT_SECONDS, 3, LONG_SECONDS)))
    assert owner.word == before or owner.taken, "the word changed, but not to who may take it"
    assert not (before == (owner.first, Word.OWNED) and owner.taken)
    vm.process.send_signal(signal.SIGCONT)
    assert_new_has_it(vm, new, image)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_new_stopped_at_random(vms, tmp_path, seed):
    """With the state on its way the old one goes on alone, in time; where it waits as long as a manager likes, the
    update is done when the new one goes on; once it has the guest, that is its own."""
    rng = choices("new", "stop", seed)
    vm, new, image, owner = begin_update(vms, tmp_path)
    wait_moment(owner, rng, UPDATE_SECONDS)
    stand(new.process)
    taken = owner.taken
    long = rng.random() < 0.6

    def ended():
        return vm.qmp.cmd("query-migrate", timeout=SECONDS)["status"] in ("failed", "completed")

    if not long:
        hold(rng.random() * SHORT_SECONDS)
    elif owner.offered:
        assert hold(SECONDS, ended), "the old one never gives up"
    else:
        hold(LONG_SECONDS, ended)
    back = not taken and ended() and result(vm)[1]["status"] == "failed"
    print(f"new stopped: {'long ' * long}{owner.state.name} {'taken ' * taken}{'back' * back}")
    if not long:
        assert not back
    if back:
        assert not owner.taken
        assert_goes_on(vm, vm.shared)
    new.process.send_signal(signal.SIGCONT)
    if back:
        assert_old_has_it(vm, new, image)
    else:
        assert_new_has_it(vm, new, image)


def test_cancel(vms):
    """While the successor waits for its manager; the next attempt works."""
    vm = vms(kernel="once")
    vm.shared.wait_started()
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    vm.qmp.wait_status(("setup",))
    vm.qmp.cmd("migrate_cancel")
    assert vm.qmp.wait_status(("cancelled",))["update-record"]["result"] == "unchanged"
    assert new.wait_exit(SECONDS) == 1
    assert "the old process gave up: the update was cancelled" in new.log_text()
    assert_goes_on(vm, vm.shared)
    assert_next_works(vm, vm.shared)
