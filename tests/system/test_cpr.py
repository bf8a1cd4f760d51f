# What the dialogue of an update meets: strangers, cancels, limits, managers that take their time.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import socket
import struct
import time
import zlib

import pytest

from qmp import QmpError
from vm import MOLT, heartbeat, wait_for_change, wait_for_socket

EVENTS = [{"capability": "events", "state": True}]


def statuses(vm):
    return [e["data"]["status"] for e in vm.qmp.events if e["event"] == "MIGRATION"]


def wait_until(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        wait_for_change(None, 0.01)


def stranger(path, data=b""):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    if data:
        sock.sendall(data)
    return sock


GARBAGE = [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"MOLT" + b"\xff" * 12,
           struct.pack("<IHHII", 0x544C4F4D, 3, 0, 2, zlib.crc32(b"{}")) + b"{}"]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_stranger_on_the_cpr_channel(vms, data):
    """Who says nothing sensible is sent away, and the successor waits on."""
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    sock = stranger(new.cpr_path, data)
    if data:
        sock.settimeout(10)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass  # it closed without having read all
    vm.migrate_to(new)
    vm.qmp.wait_status(("completed",))
    new.shared.assert_running()
    sock.close()


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_stranger_on_the_main_channel(vms, data):
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-capabilities", capabilities=[
        {"capability": "pause-before-switchover", "state": False}])
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    wait_until(lambda: vm.qmp.cmd("query-migrate")["status"] == "setup")
    sock = None

    def listening():
        nonlocal sock
        try:
            sock = stranger(new.main_path, data)
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    new.qmp.send("migrate-incoming", uri=f"unix:{new.main_path}")
    # Whether it comes before or after the predecessor, it does no harm.
    for _ in range(50):
        if listening():
            break
    new.qmp.reply()
    vm.qmp.wait_status(("completed",))
    new.shared.assert_running()
    if sock:
        sock.close()


def test_sockets_are_private_and_removed(vms):
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    assert os.stat(new.cpr_path).st_mode & 0o777 == 0o600
    vm.migrate_to(new)
    vm.qmp.wait_status(("completed",))
    new.qmp.wait_status(("completed",))
    assert not os.path.exists(new.cpr_path)
    assert not os.path.exists(new.main_path)


@pytest.mark.parametrize("mode", ["cpr-exec", "cpr-transfer"])
def test_pause_before_switchover(vms, mode):
    """The guest stands until migrate-continue; a cancel there lets it go on."""
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-capabilities", capabilities=EVENTS + [
        {"capability": "pause-before-switchover", "state": True}])
    vm.qmp.cmd("migrate-set-parameters", mode=mode)

    def migrate():
        if mode == "cpr-exec":
            vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/s")
            return vm
        new = vm.successor()
        wait_for_socket(new.cpr_path)
        vm.migrate_to(new)
        return new

    migrate()
    vm.qmp.wait_status(("pre-switchover",))
    vm.shared.assert_stopped()
    with pytest.raises(QmpError, match="migration process in progress"):
        vm.qmp.cmd("cont")
    with pytest.raises(QmpError, match="not in expected state"):
        vm.qmp.cmd("migrate-continue", state="device")
    vm.qmp.cmd("migrate_cancel")
    vm.qmp.wait_status(("cancelled",))
    vm.shared.assert_running()
    assert statuses(vm) == ["setup", "active", "pre-switchover", "cancelling", "cancelled"]

    new = migrate()
    vm.qmp.wait_status(("pre-switchover",))
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    new.qmp.wait_status(("completed",))
    new.shared.assert_running()


def test_downtime_limit_is_kept(vms):
    """The pause is over the limit when the commit would come: the guest goes on, and the message
    names the stage."""
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", downtime_limit=4000)
    vm.qmp.cmd("migrate-set-capabilities", capabilities=[
        {"capability": "pause-before-switchover", "state": True}])
    vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/s")
    vm.qmp.wait_status(("pre-switchover",))
    wait_for_change(None, 4.1)
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    info = vm.qmp.wait_status(("failed", "completed"))
    assert info["status"] == "failed"
    assert "downtime-limit" in info["error-desc"] and "switchover" in info["error-desc"]
    assert info["update-record"]["result"] == "rolled-back"
    vm.shared.assert_running()


def test_downtime_limit_is_foreseen(vms, tmp_path):
    """A program that needs longer to start than the limit allows: the guest is not even stopped."""
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\ni=0\nwhile [ $i -lt 50000 ]; do i=$((i + 1)); done\n"
                    f"exec {MOLT} \"$@\"\n")
    slow.chmod(0o755)
    vm = vms()
    vm.shared.wait_started()
    command = [str(slow), *vm.argv[1:]]
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", downtime_limit=5,
               cpr_exec_command=command)
    vm.qmp.cmd("migrate")
    info = vm.qmp.wait_status(("failed", "completed"))
    assert info["status"] == "failed"
    assert "downtime-limit" in info["error-desc"] and "rehearsal" in info["error-desc"], info
    assert info["update-record"]["result"] == "unchanged"
    vm.qmp.cmd("migrate-set-parameters", downtime_limit=60000)
    vm.exec(command=command)
    vm.shared.assert_running()


def test_one_at_a_time(vms):
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    with pytest.raises(QmpError, match="There's a migration process in progress"):
        vm.migrate_to(new)
    with pytest.raises(QmpError, match="There's a migration process in progress"):
        vm.qmp.cmd("migrate-set-capabilities", capabilities=EVENTS)
    with pytest.raises(QmpError, match="Guest is waiting for an incoming migration"):
        new.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
        new.qmp.cmd("migrate", uri="file:/tmp/never")
    with pytest.raises(QmpError, match="only one entry, for type 'main'"):
        new.qmp.cmd("migrate-incoming", channels=[
            {"channel-type": t, "addr": {"transport": "socket", "type": "unix", "path": "/x"}}
            for t in ("main", "cpr")])
    with pytest.raises(QmpError, match="main channel: .*/not/there/x"):
        new.qmp.cmd("migrate-incoming", uri="unix:/not/there/x")
    new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    vm.qmp.wait_status(("completed",))
    assert "migrate was refused: There's a migration process in progress" in vm.log_text()
    with pytest.raises(QmpError, match="already been started"):
        new.qmp.cmd("migrate-incoming", uri="unix:/x")
    with pytest.raises(QmpError, match="previous migration"):
        vm.migrate_to(new)
    with pytest.raises(QmpError, match="another process"):
        vm.qmp.cmd("cont")
    new.shared.assert_running()


def test_main_channel_over_tcp(vms):
    """As in the manual: tcp:0:PORT on both sides."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-transfer")
    vm.qmp.cmd("migrate", channels=[
        {"channel-type": "main", "addr": {"transport": "socket", "type": "inet", "host": "0",
                                          "port": str(port)}},
        {"channel-type": "cpr", "addr": {"transport": "socket", "type": "unix",
                                         "path": new.cpr_path}}])
    new.qmp.cmd("migrate-incoming", uri=f"tcp:0:{port}")
    vm.qmp.wait_status(("completed",))
    new.shared.assert_running()


def test_stopped_while_inmigrate_stays_stopped(vms):
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    new.qmp.cmd("stop")
    vm.migrate_to(new)
    new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    new.qmp.wait_status(("completed",))
    assert new.qmp.cmd("query-status") == {"status": "paused", "running": False}
    new.shared.assert_stopped()
    new.qmp.cmd("cont")
    new.shared.assert_running()


def test_record(vms):
    vm = vms()
    vm.shared.wait_started()
    new = vm.transfer()
    record = new.last_update["update-record"]
    assert record["result"] == "committed" and record["mode"] == "cpr-transfer"
    assert "reason" not in record, record
    assert record["old-pid"] == vm.pid and record["new-pid"] == new.pid
    phases = {(p["process"], p["name"]): p for p in record["phases"]}
    # The two processes' phases lie on one clock.
    assert phases["old", "save"]["begin-ns"] <= phases["new", "load"]["begin-ns"]
    assert phases["new", "load"]["begin-ns"] <= phases["new", "run"]["begin-ns"]
    assert record["paused-at-ns"] <= phases["old", "save"]["begin-ns"]
    assert record["pause-ns"] == record["running-at-ns"] - record["paused-at-ns"]
    own = new.qmp.cmd("query-migrate")["update-record"]
    for same in ("result", "mode", "pause-ns", "old-pid", "new-pid"):
        assert own[same] == record[same], same
    # Each side has the other's phases but for those after the last word it heard.
    late = {("old", "record"), ("new", "running"), ("new", "record")}
    assert {(p["process"], p["name"]) for p in own["phases"]} - late == set(phases) - late
    record = new.exec()["update-record"]
    assert record["result"] == "committed" and record["mode"] == "cpr-exec"
    assert record["old-pid"] == record["new-pid"] == new.pid


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_record_event(vms, mode):
    """The record is told as it is in query-migrate, also of an update that came to nothing."""
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    vm.qmp.cmd("migrate-set-parameters", mode=f"cpr-{mode}", cpr_exec_command=["/bin/false"])
    if mode == "exec":
        vm.qmp.cmd("migrate")
    else:
        new = vm.successor(defer=True)
        wait_for_socket(new.cpr_path)
        vm.migrate_to(new)
        vm.qmp.cmd("migrate_cancel")
    event = vm.qmp.wait_event("MIGRATION_RECORD")
    assert event["data"]["result"] == "unchanged" and event["data"]["reason"]
    if mode == "exec":
        vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
        info = vm.exec()
    else:
        info = vm.transfer(quit_old=False).last_update
    event = vm.qmp.wait_event("MIGRATION_RECORD")
    assert event["data"] == info["update-record"] and event["data"]["result"] == "committed"


def test_settings_survive_an_exec(vms):
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-capabilities", capabilities=EVENTS)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", downtime_limit=5000)
    before = vm.qmp.cmd("query-migrate-parameters")
    vm.exec()
    assert vm.qmp.cmd("query-migrate-parameters") == before
    assert {"capability": "events", "state": True} in vm.qmp.cmd("query-migrate-capabilities")
    assert statuses(vm) == ["setup", "active", "device", "completed"]


def test_failed_update_leaves_no_file(vms, tmp_path):
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=["/bin/false"])
    vm.qmp.cmd("migrate", uri=f"file:{tmp_path}/state")
    vm.qmp.wait_status(("failed",))
    assert not (tmp_path / "state").exists()
    kept = tmp_path / "kept"
    kept.write_bytes(b"x" * 10)
    vm.qmp.cmd("migrate", uri=f"file:{kept}")
    vm.qmp.wait_status(("failed",))
    assert kept.exists()


def test_twenty_updates_leave_nothing_behind(vms, tmp_path):
    path = str(tmp_path / "com1")
    vm, line = heartbeat(vms, path)
    line.wait_for(b"HB 3\n")
    at_start = vm.open_fds()
    vm.exec()
    vm.assert_fds(at_start)

    def fds_without_log():
        return [fd for fd in vm.open_fds() if not fd.endswith(".log")]
    fds, threads = fds_without_log(), vm.threads()
    for i in range(20):
        if i % 3:
            vm.exec()
        else:
            vm = vm.transfer()
    wait_until(lambda: not vm.children())
    wait_until(lambda: vm.threads() == threads)
    assert fds_without_log() == fds
    line.wait_for(b"HB 50\n", 60)
    numbers = [int(n[3:]) for n in line.text.split(b"\n")[:-1] if n.startswith(b"HB ")]
    assert numbers == list(range(1, len(numbers) + 1)), "a heartbeat was lost"


def fail_at_the_end(vm, mode):
    """An update of a @vm with a fault in its commit: all that was made to stand still has to go on."""
    if mode == "exec":
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
        vm.qmp.cmd("migrate")
    else:
        new = vm.successor()
        wait_for_socket(new.cpr_path)
        vm.migrate_to(new)
    info = vm.qmp.wait_status(("failed", "completed"))
    assert info["status"] == "failed", info
    assert info["update-record"]["result"] == "rolled-back", info


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_disk_goes_on_after_a_failure(vms, tmp_path, mode):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    vm = vms(kernel="disk", args=["-drive", f"file={image},format=raw,if=virtio"],
             env={"MOLT_FAULT": f"{mode}-source:commit:error"})
    vm.shared.wait(lambda: vm.shared.detail(1) > 20)
    fail_at_the_end(vm, mode)
    done = vm.shared.detail(1)
    vm.shared.wait(lambda: vm.shared.detail(1) > done + 10)
    assert vm.shared.errors == 0


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_console_goes_on_after_a_failure(vms, tmp_path, mode):
    """In both directions, its client connected all the while."""
    vm, line = heartbeat(vms, str(tmp_path / "com1"),
                         env={"MOLT_FAULT": f"{mode}-source:commit:error"})
    line.wait_for(b"HB 3\n")
    fail_at_the_end(vm, mode)
    line.send(b"x")
    line.wait_for(b"<X>")
    line.wait_for(b"\nHB %d\n" % (line.text.count(b"HB ") + 3))
    numbers = [int(n[3:]) for n in line.text.split(b"\n")[:-1] if n.startswith(b"HB ")]
    assert numbers == list(range(1, len(numbers) + 1)), "a heartbeat was lost"


def test_bad_main_channel(vms):
    vm = vms()
    vm.shared.wait_started()
    fds = vm.open_fds()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-transfer")
    with pytest.raises(QmpError, match="No such file"):
        vm.qmp.cmd("migrate", channels=[
            {"channel-type": t, "addr": {"transport": "socket", "type": "unix",
                                         "path": "/does/not/exist"}} for t in ("main", "cpr")])
    info = vm.qmp.cmd("query-migrate")
    assert info["status"] == "failed" and "No such file" in info["error-desc"]
    assert json.dumps(info["update-record"]["phases"])
    assert vm.open_fds() == fds
    vm.shared.assert_running()


def test_successor_that_cannot_start(vms, tmp_path):
    """The rehearsal sees it: the guest is not even stopped."""
    vm = vms()
    vm.shared.wait_started()
    command = vm.argv + ["-incoming", f"file:{tmp_path}/s",
                         "-pidfile", "/does/not/exist/pid"]
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
    vm.qmp.cmd("migrate", uri=f"file:{tmp_path}/s")
    info = vm.qmp.wait_status(("failed", "completed"))
    assert info["status"] == "failed" and "/does/not/exist/pid" in info["error-desc"], info
    assert info["update-record"]["result"] == "unchanged"
    vm.shared.assert_running()
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
    vm.exec()
