# What an exec used to trip over: each either works, or is refused before the guest is stopped.
# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import time

import pytest

from qmp import QmpError
from vm import MOLT, wait_for_change, wait_for_socket, wait_processes

SECONDS = 90


def refused(vm, words, before=None, **arguments):
    """A migrate that comes to nothing, the guest running all the while in its process."""
    before = before or vm.open_fds()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    try:
        vm.qmp.cmd("migrate", **arguments)
    except QmpError:
        pass
    info = vm.qmp.wait_status(("failed", "completed"), SECONDS)
    assert info["status"] == "failed" and words in info["error-desc"], info
    assert info["update-record"]["result"] == "unchanged", info
    vm.shared.assert_running(30)
    wait_processes(vm, [vm.pid])
    vm.assert_fds(before)


def test_image_without_a_size(vms, tmp_path):
    """Of an image that is inherited no size is asked: a guest is using it."""
    image = tmp_path / "a.img"
    image.write_bytes(bytes(1 << 20))
    vm = vms(args=["-drive", f"file={image},format=raw,if=virtio"])
    vm.shared.wait_started()
    os.truncate(image, 0)
    vm.exec()
    vm.shared.assert_running(30)
    wait_processes(vm, [vm.pid])


def listener(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(4)
    sock.settimeout(30)
    return sock


def test_client_whose_name_is_gone(vms):
    """A connection that came over needs no name server."""
    hosts = pathlib.Path("/etc/hosts")
    before = hosts.read_text()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(30)
    try:
        hosts.write_text(before + "127.0.0.1 molt-test-peer\n")
        vm = vms(args=["-chardev", f"socket,id=c,host=molt-test-peer,port={server.getsockname()[1]}",
                       "-serial", "chardev:c"])
        peer, _ = server.accept()
        vm.shared.wait_started()
        hosts.write_text(before)
        vm.exec()
        vm.shared.assert_running(30)
        peer.close()
    except PermissionError:
        pytest.skip("/etc/hosts cannot be written")
    finally:
        if hosts.read_text() != before:
            hosts.write_text(before)


def test_reopening_client(vms, tmp_path):
    """It is connected anew before the guest is stopped; without a peer the update is refused."""
    path = str(tmp_path / "peer")
    server = listener(path)
    vm = vms(args=["-chardev", f"socket,id=c,path={path},reopen-on-cpr=on", "-serial",
                   "chardev:c"])
    first, _ = server.accept()
    vm.shared.wait_started()
    before = vm.open_fds()
    vm.exec()
    second, _ = server.accept()
    first.settimeout(30)
    while first.recv(4096):
        pass  # until it is closed
    vm.shared.assert_running(30)
    server.close()
    refused(vm, "reopen/c/connection", before, uri=f"file:{vm.tmp}/s")
    second.close()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_reopening_server(vms, tmp_path, kind):
    """Its socket stays, under any PID; its client has to come again."""
    path = str(tmp_path / "srv")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    where = f"path={path}" if kind == "unix" else f"host=127.0.0.1,port={port}"
    vm = vms(args=["-chardev", f"socket,id=c,{where},server=on,wait=off,reopen-on-cpr=on",
                   "-serial", "chardev:c"])
    vm.shared.wait_started()

    def connect():
        sock = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        sock.settimeout(30)
        sock.connect(path if kind == "unix" else ("127.0.0.1", port))
        return sock
    client = connect()
    for _ in range(2):
        vm.exec()
        while client.recv(4096):
            pass
        client = connect()
    vm.shared.assert_running(30)


def test_state_file_that_cannot_be(vms, tmp_path):
    vm = vms()
    vm.shared.wait_started()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(vm, "fifo", uri=f"file:{fifo}")
    refused(vm, "/does/not/exist", uri="file:/does/not/exist/state")
    refused(vm, "/dev/full", uri="file:/dev/full")
    vm.exec()


def test_file_size_limit(vms, tmp_path):
    """RLIMIT_FSIZE ends as a refusal, not as SIGXFSZ."""
    vm = vms()
    vm.shared.wait_started()
    resource.prlimit(vm.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    refused(vm, "File too large", uri=f"file:{tmp_path}/state")
    assert not (tmp_path / "state").exists()
    resource.prlimit(vm.pid, resource.RLIMIT_FSIZE,
                     (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    vm.exec()


def test_state_file_is_written(vms, tmp_path):
    """Mode 0600, whole once it is written; what was there keeps nothing."""
    vm = vms()
    vm.shared.wait_started()
    state = tmp_path / "state"
    state.write_bytes(b"x" * (4 << 20))
    state.chmod(0o600)
    vm.exec(uri=f"file:{state}")
    end = time.monotonic() + SECONDS
    while state.stat().st_size >= 4 << 20:  # it gets its size when all is written
        assert time.monotonic() < end
        wait_for_change(None, 0.01)
    stream = state.read_bytes()
    assert stream[:8] == b"MOLTSTAT" and int.from_bytes(stream[16:24], "little") == len(stream)
    assert state.stat().st_mode & 0o777 == 0o600
    vm.shared.assert_running(30)


def test_cancel_of_a_rehearsal(vms, tmp_path):
    """The program that rehearses hangs; the monitor answers, and migrate_cancel ends it at once."""
    vm = vms()
    vm.shared.wait_started()
    before = vm.open_fds()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=["/bin/sleep", "1000"])
    vm.qmp.cmd("migrate")
    assert vm.qmp.cmd("query-status")["running"]
    vm.qmp.cmd("migrate_cancel")
    assert vm.qmp.wait_status(("cancelled", "failed"))["status"] == "cancelled"
    vm.assert_fds(before)
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
    vm.exec()


@pytest.mark.parametrize("value", ["3", "99", "0:", "5:00112233445566778899aabbccddeeff", "x"])
def test_stray_variables(value):
    """A variable that names no envelope starts nothing, and takes nothing over."""
    result = subprocess.run([MOLT, "-nodefaults", "-display", "none"], capture_output=True,
                            text=True, timeout=60, env=dict(os.environ, MOLT_CPR_EXEC=value))
    assert result.returncode == 1 and "MOLT_CPR_EXEC" in result.stderr, result


def test_variables_of_a_way_back(vms):
    """What a guardian tells a program is no setting: of one that was started with it nothing is left."""
    vm = vms(env={"MOLT_CPR_ROLLBACK": "x", "MOLT_CPR_SEIZED": "1"})
    vm.shared.wait_started()
    for _ in range(2):
        assert vm.exec()["update-record"]["result"] == "committed"
        assert vm.alive()
    assert b"MOLT_CPR_ROLLBACK" not in pathlib.Path(f"/proc/{vm.pid}/environ").read_bytes()
    vm.shared.assert_running(30)


def test_wrapper_that_drops_the_environment(vms):
    """What it starts does not know that it rehearses: a cold start, which must not get the RAM."""
    vm = vms()
    vm.shared.wait_started()
    acpi, mark = 0xe0000, b"\xaa" * 64  # the boot image has something there; it is the guest's now
    with open(vm.ram, "r+b") as ram:
        ram.seek(acpi)
        assert ram.read(8) == b"RSD PTR "
        ram.seek(acpi)
        ram.write(mark)
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=["/usr/bin/env", "-i", *vm.argv])
    refused(vm, f"RAM file '{vm.ram}' is in use by another process")
    with open(vm.ram, "rb") as ram:
        ram.seek(acpi)
        assert ram.read(64) == mark
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[])
    vm.exec()
    vm.shared.assert_running(30)


def test_raised_privileges(vms, tmp_path):
    """A program that trusts no environment says so, and starts nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a program of another user")
    if os.statvfs(tmp_path).f_flag & os.ST_NOSUID:
        pytest.skip("no set-user-ID programs there")
    program = tmp_path / "molt-suid"
    shutil.copy(MOLT, program)
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    for name in ("MOLT_CPR_PROBE", "MOLT_CPR_EXEC"):
        result = subprocess.run([program, "-nodefaults", "-display", "none"], capture_output=True,
                                text=True, timeout=60, env=dict(os.environ, **{name: "5"}))
        assert result.returncode == 1, result
        assert f"{name} is set, but a program with raised privileges" in result.stderr, result
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_command=[str(program), *vm.argv[1:]])
    refused(vm, "MOLT_CPR_PROBE is set, but a program with raised privileges")


@pytest.mark.parametrize("how", ["renamed", "written", "removed"])
def test_program_is_replaced(vms, tmp_path, how):
    """Between its rehearsal and the commit: what has not rehearsed is not executed."""
    program = tmp_path / "molt-new"
    shutil.copy(MOLT, program)
    vm = vms()
    vm.shared.wait_started()
    before = vm.open_fds()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=[str(program), *vm.argv[1:]])
    vm.set_capabilities(pause_before_switchover=True)
    vm.qmp.cmd("migrate")
    vm.qmp.wait_status(("pre-switchover",), SECONDS)
    if how == "renamed":
        shutil.copy("/bin/true", tmp_path / "next")
        os.rename(tmp_path / "next", program)
    elif how == "written":
        shutil.copy("/bin/true", program)
    else:
        program.unlink()
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    info = vm.qmp.wait_status(("failed", "completed"), SECONDS)
    assert info["status"] == "failed", info
    reason = (f"cannot execute '{program}'" if how == "removed" else
              f"'{program}' was replaced during the update; migrate again")
    assert reason in info["error-desc"], info
    assert info["update-record"]["result"] == "rolled-back", info
    assert info["update-record"]["new-pid"] == vm.pid and vm.alive()
    vm.shared.assert_running(30)
    wait_processes(vm, [vm.pid])
    vm.assert_fds(before)


def test_new_monitor_comes_afterwards(vms, tmp_path):
    """A monitor that only the new command line has is opened once the guest runs."""
    vm = vms()
    vm.shared.wait_started()
    path = str(tmp_path / "new.qmp")
    vm.exec(command=[*vm.argv, "-qmp", f"unix:{path},server=on,wait=off"])
    wait_for_socket(path)
    vm.shared.assert_running(30)


@pytest.mark.parametrize("uri,words", [("file:{tmp}/s", "writes file:{tmp}/s"), (None, "writes none")])
def test_command_that_names_another_state(vms, uri, words):
    """The rehearsal sees it; the same file by another spelling is the same."""
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=[*vm.argv, "-incoming", f"file:{vm.tmp}/other"])
    vm.qmp.cmd("migrate", **({"uri": uri.format(tmp=vm.tmp)} if uri else {}))
    info = vm.qmp.wait_status(("failed", "completed"), SECONDS)
    assert words.format(tmp=vm.tmp) in info["error-desc"], info
    assert info["update-record"]["result"] == "unchanged"
    vm.exec(command=[*vm.argv, "-incoming", f"file:{vm.tmp}/./x/../s"], uri=f"file:{vm.tmp}/s")
    vm.shared.assert_running(30)


def test_stopped_long_before_the_mark(vms):
    """Stopped for longer than the guardian's patience before it took the guest: it is called back."""
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=[*vm.argv, "-incoming", f"file:{vm.tmp}/s"])
    path = pathlib.Path(vm.tmp) / "next"
    path.write_text(f"#!/bin/sh\nMOLT_FAULT=exec-target:load:stop\nexport MOLT_FAULT\n"
                    f"exec {MOLT} \"$@\"\n")
    path.chmod(0o755)
    vm.qmp.cmd("migrate-set-parameters",
               cpr_exec_command=[str(path), *vm.argv[1:], "-incoming", f"file:{vm.tmp}/s"])
    vm.qmp.send("migrate", uri=f"file:{vm.tmp}/s")
    vm.wait_stopped(SECONDS)
    vm.wait_exit(SECONDS)
    vm.qmp.close()
    vm.connect()
    info = vm.qmp.wait_status(("failed",), SECONDS)
    assert "hung before it took the guest" in info["error-desc"], info
    vm.adopt(info["update-record"]["old-pid"])
    vm.shared.assert_running(30)
    wait_processes(vm, [vm.pid])
