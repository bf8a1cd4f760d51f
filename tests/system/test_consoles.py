# Consoles, monitors and the log whose other ends are slow, full, odd or not there at all.
# SPDX-License-Identifier: Apache-2.0
"""MOLT_SOAK is the number of updates in a row."""
import fcntl
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import string
import subprocess
import time

import pytest
from qmp import Qmp
from vm import MOLT, heartbeat, payload, wait_for_socket

UPDATES = int(os.environ.get("MOLT_SOAK", "8"))


class Terminal:
    """A molt with a pty as its standard streams."""

    def __init__(self, *args):
        self.fd, other = pty.openpty()
        self.text = b""
        self.process = subprocess.Popen([MOLT, "-m", "64M", "-kernel", payload("heartbeat"), *args],
                                        stdin=other, stdout=other, stderr=other)
        os.close(other)

    def wait_for(self, pattern, timeout=40.0):
        end = time.monotonic() + timeout
        while pattern not in self.text:
            assert time.monotonic() < end, f"{pattern!r} not seen in {self.text[-400:]!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 65536)

    def type(self, data):
        self.text = b""
        os.write(self.fd, data)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


@pytest.mark.parametrize("args", [
    ["-nographic"],
    ["-nodefaults", "-display", "none", "-serial", "mon:stdio"],
    ["-nodefaults", "-display", "none", "-chardev", "stdio,id=c,mux=on,signal=off", "-serial", "chardev:c",
     "-mon", "chardev=c,mode=readline"],
    ["-display", "none", "-chardev", "stdio,id=c,mux=on,signal=off", "-mon", "chardev=c,mode=readline",
     "-serial", "chardev:c"],
], ids=["nographic", "mon-stdio", "serial-first", "monitor-first"])
def test_shared_terminal(args):
    """The guest's line, the monitor after Ctrl-A c, the end of all after Ctrl-A x."""
    terminal = Terminal(*args)
    try:
        terminal.wait_for(b"HB 3")
        terminal.type(b"\x01c")
        terminal.wait_for(b"(qemu)")
        terminal.type(b"info status\r")
        terminal.wait_for(b"VM status: running")
        terminal.type(b"\x01x")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.close()


def test_null_serial(vms):
    vm = vms(kernel="heartbeat", args=["-serial", "/dev/null", "-monitor", "/dev/null"])
    vm.shared.wait_started()
    vm.shared.assert_running()
    vm.exec()
    vm.shared.assert_running()


def test_closed_standard_streams(tmp_path):
    """Descriptors 0 to 2 are nobody else's, whatever was closed; the guest's line goes nowhere."""
    qmp = tmp_path / "qmp"
    process = subprocess.Popen(
        [MOLT, "-nodefaults", "-display", "none", "-m", "64M", "-kernel", payload("heartbeat"),
         "-serial", "stdio", "-qmp", f"unix:{qmp},server=on,wait=off"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: [os.close(fd) for fd in (0, 1, 2)])
    try:
        client = Qmp(str(qmp), 40.0)
        for fd in (0, 1, 2):
            assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"
        client.cmd("quit")
        assert process.wait(30) == 0
        client.close()
    finally:
        process.kill()
        process.wait()


def test_full_stderr(vms, monkeypatch):
    """Standard error is a pipe that is full and that nobody reads: updates work, each time."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * 4096)
    popen = subprocess.Popen
    with monkeypatch.context() as m:
        m.setattr(subprocess, "Popen", lambda *a, **k: popen(*a, **{**k, "stderr": writer}))
        vm = vms(kernel="counter")
    try:
        vm.shared.wait_started()
        for _ in range(UPDATES):
            vm.exec()
            vm.shared.assert_running()
        # The reader comes back and hears from then on whole lines only, the loss among them.
        text = b""
        while text.count(b"\n") < 2:
            assert select.select([reader], [], [], 30)[0], text
            text += os.read(reader, 65536)
        lines = text.lstrip(b"x").decode().splitlines()
        assert all(line.startswith("molt: ") for line in lines[:-1] if line), lines
    finally:
        os.close(reader)
        os.close(writer)


def numbers(text):
    """The numbers of whole lines "HB n", which must follow each other."""
    return [int(n) for n in re.findall(rb"HB (\d+)\r?\n", text)]


def assert_flood(text, typed=b""):
    """@text is all that the guest wrote, octet by octet, perhaps not to its end: each number once, in order, and
    each letter of @typed once, in order, between two lines."""
    begin = b"ready\n"
    assert text.startswith(begin)
    number, letters = 0, 0
    for line in text[len(begin):].split(b"\n")[:-1]:
        if line == b"<%s>" % typed[letters:letters + 1].upper():
            letters += 1
            continue
        number += 1
        assert line == b"HB %d" % number, f"{line} for {number}, after {letters} letters"
    assert number > 0 and letters == len(typed), (number, letters)


def test_file_console_over_updates(vms, tmp_path):
    """A flood into a file and its logfile: in order, nothing lost or doubled, in both modes."""
    out, log = tmp_path / "console", tmp_path / "log"
    vm = vms(kernel="heartbeat", append="spin=0",
             args=["-chardev", f"file,id=c,path={out},logfile={log}", "-serial", "chardev:c"])
    vm.shared.wait_started()
    for i in range(UPDATES):
        if i % 2:
            vm = vm.transfer()
        else:
            vm.exec()
        vm.shared.wait(lambda: out.stat().st_size > (i + 1) * 2000)
    (chardev,) = [c for c in vm.qmp.cmd("query-chardev") if c["label"] == "c"]
    assert chardev["lost-bytes"] == 0
    vm.quit()
    for path in (out, log):
        assert_flood(path.read_bytes())
    assert out.read_bytes() == log.read_bytes()


def test_flood_over_updates(vms, tmp_path):
    """A flood over a socket whose client does not read while an update lasts, and types meanwhile: not an octet
    is lost or doubled, in either direction, in both modes."""
    vm, line = heartbeat(vms, str(tmp_path / "com1"), append="spin=0")
    typed, letters = b"", string.ascii_lowercase.encode()
    for i in range(UPDATES):
        line.send(letters[:8])
        if i % 2:
            vm = vm.transfer()
        else:
            vm.exec()
        line.send(letters[8:])
        typed += letters
        line.pump()
        lines, late = line.text.count(b"\n") + 100, time.monotonic() + 60
        while line.text.count(b"<") < len(typed) or line.text.count(b"\n") < lines:
            assert time.monotonic() < late, f"{line.text.count(b'<')} of {len(typed)} letters"
            line.pump(1)
    line.wait_for(b"\nHB %d\n" % (line.text.count(b"HB ") + 3), 60)
    assert_flood(line.text, typed)
    line.close()


def test_typed_in_the_pause(vms, tmp_path):
    """What is typed when the state is on its way is the new process's to read, whatever the old one does."""
    vm, line = heartbeat(vms, str(tmp_path / "com1"))
    line.wait_for(b"HB 3\n")
    new = vm.successor(env={"MOLT_FAULT": "transfer-target:load:stop"})
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    new.wait_stopped()
    line.send(b"x")
    for _ in range(2):  # the old one's main loop goes round
        assert vm.qmp.cmd("query-status")["status"] == "finish-migrate"
    new.process.send_signal(signal.SIGCONT)
    assert vm.qmp.wait_status(("completed", "failed"))["status"] == "completed"
    line.wait_for(b"<X>")
    line.close()


def test_full_file(vms, tmp_path):
    """A console whose file is full does not hold the guest; with room again nothing is missing yet."""
    out = tmp_path / "console"
    vm = vms(kernel="heartbeat", append="spin=20", args=["-serial", f"file:{out}"])
    vm.shared.wait_started()
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(vm.pid, resource.RLIMIT_FSIZE, (1000, unlimited))
    vm.shared.wait(lambda: out.stat().st_size == 1000)
    for _ in range(5):
        vm.shared.assert_running()
    assert out.stat().st_size == 1000
    resource.prlimit(vm.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    vm.shared.wait(lambda: out.stat().st_size > 2000)
    assert vm.qmp.cmd("query-chardev")[0]["lost-bytes"] == 0
    vm.quit()
    seen = numbers(out.read_bytes())
    assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_full_file_over_an_update(vms, tmp_path, mode):
    """What could not be written yet crosses, and is written once there is room."""
    out, before, unlimited = tmp_path / "console", 4 << 20, resource.RLIM_INFINITY
    out.write_bytes(bytes(before))  # the limit is an exec's state file's, too
    vm = vms(kernel="heartbeat", append="spin=20",
             args=["-S", "-chardev", f"file,id=c,path={out},append=on", "-serial", "chardev:c"])
    resource.prlimit(vm.pid, resource.RLIMIT_FSIZE, (before + 1000, unlimited))
    vm.qmp.cmd("cont")
    vm.shared.wait(lambda: out.stat().st_size == before + 1000)
    for _ in range(5):
        vm.shared.assert_running()
    if mode == "exec":
        vm.exec()
    else:
        vm = vm.transfer()
    resource.prlimit(vm.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    vm.shared.wait(lambda: out.stat().st_size > before + 3000)
    vm.quit()
    assert_flood(out.read_bytes()[before:])


def test_successor_names_another_file(vms, tmp_path):
    old_path, new_path = tmp_path / "old", tmp_path / "new"
    old = vms(kernel="heartbeat", args=["-serial", f"file:{old_path}"])
    old.shared.wait_started()
    new = old.transfer(base=True, kernel="heartbeat", args=["-serial", f"file:{new_path}"])
    new.shared.wait(lambda: new_path.exists() and new_path.stat().st_size > 1000)
    assert "chardev serial0:" in new.log_text()
    new.quit()
    seen = numbers(old_path.read_bytes() + new_path.read_bytes())
    assert seen == list(range(1, len(seen) + 1))


def test_exec_refuses_another_file(vms, tmp_path):
    old_path, new_path = tmp_path / "old", tmp_path / "new"
    vm = vms(kernel="heartbeat", args=["-serial", f"file:{old_path}"])
    vm.shared.wait_started()
    command = [arg.replace(f"file:{old_path}", f"file:{new_path}") for arg in vm.argv]
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
    vm.qmp.cmd("migrate", uri=f"file:{tmp_path}/state")
    info = vm.qmp.wait_status(("completed", "failed"), 60)
    assert info["status"] == "failed"
    assert f"chardev serial0: {old_path} here, {new_path} in the successor" in info["error-desc"]
    assert not new_path.exists()
    vm.shared.assert_running()


def test_monitor_that_does_not_read(vms, tmp_path):
    """Commands without end from a client that reads nothing: the other monitor is as ever."""
    path = tmp_path / "flood"
    vm = vms(args=["-qmp", f"unix:{path},server=on,wait=off"])
    vm.shared.wait_started()
    flood = Qmp(str(path))
    flood.sock.setblocking(False)
    request = json.dumps({"execute": "query-qmp-schema"}).encode()
    asked, late = 0, time.monotonic() + 60
    while time.monotonic() < late:
        try:
            asked += flood.sock.send(request) == len(request)
        except BlockingIOError:
            break
        assert vm.qmp.cmd("query-status")["running"]
    for _ in range(20):
        assert vm.qmp.cmd("query-status")["running"]
    vm.shared.assert_running()
    vm.exec()
    vm.shared.assert_running()
    # It was cut off, as more was unread than crosses; who comes next is greeted.
    flood.close()
    flood = Qmp(str(path))
    assert flood.cmd("query-status")["running"]
    flood.close()


def test_hostile_lines(vms, tmp_path):
    """A line of 40 MB, a thousand levels, half a command: errors, and the next one works."""
    path = tmp_path / "odd"
    vm = vms(args=["-qmp", f"unix:{path},server=on,wait=off"])
    for data, text in ((b'{"a":"' + b"x" * (40 << 20) + b"\n", "longer than 4 MiB"),
                       (b"[" * 2000 + b"\n", "nested deeper than 1024 levels")):
        odd = Qmp(str(path))
        odd.sock.sendall(data)
        assert text in odd.receive(60)["error"]["desc"]
        assert odd.cmd("query-status")["running"] in (True, False)
        odd.sock.sendall(b'{"execute": "query-st')
        odd.close()
    assert vm.qmp.cmd("query-status")


def test_signal_ends_the_wait_for_a_client(tmp_path):
    path = tmp_path / "console"
    process = subprocess.Popen(
        [MOLT, "-nodefaults", "-display", "none", "-m", "64M", "-kernel", payload("counter"),
         "-serial", f"unix:{path},server=on"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_socket(str(path))
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert process.returncode >= 0, "it was killed, and removed nothing"
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


def test_unanswered_connection_ends_by_signal(tmp_path):
    """A client chardev whose server takes no connection: SIGTERM ends the process all the same."""
    path = tmp_path / "server"
    server = socket.socket(socket.AF_INET)
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    full = [socket.socket(socket.AF_INET) for _ in range(4)]
    for client in full:
        client.setblocking(False)
        client.connect_ex(server.getsockname())
    process = subprocess.Popen(
        [MOLT, "-nodefaults", "-display", "none", "-m", "64M", "-kernel", payload("counter"), "-qmp",
         f"unix:{path},server=on,wait=off", "-serial", f"tcp:127.0.0.1:{server.getsockname()[1]}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        for client in [*full, server]:
            client.close()
