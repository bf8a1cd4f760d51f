# What users and peers get wrong: one clear line, exit 1 or a QMP error, the guest untouched.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess

import pytest

from qmp import QmpError
from vm import MOLT, payload, wait_for_change, wait_for_socket

BASE = ["-nodefaults", "-display", "none"]


def refuse(*args, cwd=None):
    """Run molt, which must end with status 1 and one line; that line."""
    done = subprocess.run([MOLT, *BASE, *args], capture_output=True, text=True, timeout=20,
                          stdin=subprocess.DEVNULL, cwd=cwd, check=False)
    assert done.returncode == 1, done
    lines = done.stderr.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith("molt: "), done.stderr
    assert done.stdout == ""
    return lines[0]


@pytest.mark.parametrize("args,words", [
    (["-frobnicate"], ["-frobnicate"]),
    (["-machine", "pc"], ["pc", "q35"]),
    (["-machine", "q35,wings=2"], ["wings"]),
    (["-cpu", "pentium"], ["pentium", "host"]),
    (["-accel", "tcg"], ["tcg", "kvm"]),
    (["-smp", "0"], ["-smp"]),
    (["-smp", "1000"], ["1000"]),
    (["-m", "12Q"], ["12Q"]),
    (["-device", "warp-drive"], ["warp-drive"]),
    (["-device", "virtio-blk-pci,drive=none"], ["drive", "none"]),
    (["-device", "virtio-rng-pci,colour=red"], ["colour"]),
    (["-device", "virtio-rng-pci,addr=99"], ["addr"]),
    (["-device", "virtio-rng-pci,bus=isa.0"], ["isa.0"]),
    (["-drive", "file=/does/not/exist,format=raw,if=virtio"],
     ["/does/not/exist", "No such file"]),
    (["-chardev", "socket,id=c"], ["c"]),
    (["-chardev", "teleport,id=c"], ["teleport"]),
    (["-serial", "unix:/does/not/exist/s,server=on,wait=off"], ["/does/not/exist/s"]),
    (["-object", "memory-backend-file,id=r,size=64M,mem-path=/does/not/exist/x",
      "-machine", "q35,memory-backend=r"], ["/does/not/exist/x"]),
    (["-object", "memory-backend-memfd,id=r,size=64M", "-machine", "q35,memory-backend=other"],
     ["other"]),
    (["-object", "memory-backend-memfd,id=r,size=64M", "-machine", "q35,memory-backend=r",
      "-m", "128M"], ["64", "128"]),
    (["-incoming", "teleport:here"], ["teleport"]),
    (["-kernel", "/does/not/exist"], ["/does/not/exist", "No such file"]),
    (["-kernel", "/etc/passwd"], ["/etc/passwd", "neither"]),
    ([], ["-kernel"]),
])
def test_command_line(args, words):
    if not any(a in ("-kernel", "-incoming") for a in args) and args:
        args = args + ["-kernel", payload("counter")]
    line = refuse(*args)
    for word in words:
        assert word in line, line


def test_images(tmp_path):
    kernel = ["-kernel", payload("counter")]
    foreign = tmp_path / "disk.img"
    foreign.write_bytes(b"QFI\xfb" + bytes(508))
    line = refuse(*kernel, "-drive", f"file={foreign},if=virtio")
    assert str(foreign) in line and "qcow2" in line and "format=raw" in line
    empty_dir = tmp_path / "dir"
    empty_dir.mkdir()
    assert str(empty_dir) in refuse(*kernel, "-drive", f"file={empty_dir},format=raw,if=virtio")


def test_locked_image(vms, tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    vms(args=["-drive", f"file={image},format=raw,if=virtio"]).shared.wait_started()
    line = refuse("-kernel", payload("counter"), "-drive", f"file={image},format=raw,if=virtio")
    assert str(image) in line and "lock" in line


def check_unharmed(vm, fds):
    vm.shared.assert_running()
    assert vm.qmp.cmd("query-status") == {"status": "running", "running": True}
    vm.assert_fds(fds)


def script(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("what", ["missing", "not-executable", "true", "false", "cat", "hang",
                                  "garbage", "crash", "other-config", "bad-option"])
def test_exec_of_the_wrong_thing(vms, tmp_path, what):
    vm = vms()
    vm.shared.wait_started()
    fds = vm.open_fds()
    plain = tmp_path / "plain"
    plain.write_text("hello")
    command = {
        "missing": ["/does/not/exist/molt"],
        "not-executable": [str(plain)],
        "true": ["/bin/true"],
        "false": ["/bin/false"],
        "cat": ["/bin/cat"],
        "hang": ["/bin/sleep", "1000"],
        "garbage": [script(tmp_path, "g", "#!/bin/sh\nhead -c 100000 /dev/urandom\n")],
        "crash": [script(tmp_path, "c", "#!/bin/sh\nkill -SEGV $$\n")],
        "other-config": [a.replace("64M", "32M") for a in vm.argv] + ["-incoming", "defer"],
        "bad-option": vm.argv + ["-frobnicate"],
    }[what]
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
    stops = len([e for e in vm.qmp.events if e["event"] == "STOP"])
    try:
        vm.qmp.cmd("migrate", uri=f"file:{tmp_path}/state")
        info = vm.qmp.wait_status(("failed", "completed"))
        assert info["status"] == "failed"
        assert len(info["error-desc"]) > 10, info
    except QmpError as error:
        assert len(str(error)) > 10
    check_unharmed(vm, fds)
    vm.qmp.cmd("query-status")
    assert len([e for e in vm.qmp.events if e["event"] == "STOP"]) == stops, "the guest was stopped"


@pytest.mark.parametrize("change", [
    ["-device", "virtio-rng-pci"],
    ["-smp", "2"],
])
def test_transfer_to_another_machine(vms, change):
    vm = vms()
    vm.shared.wait_started()
    fds = vm.open_fds()
    new = vm.successor(base=True, args=change)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    info = vm.qmp.wait_status(("failed", "completed"))
    assert info["status"] == "failed", info
    new.wait_exit()
    check_unharmed(vm, fds)


def test_transfer_with_other_ram_size(vms):
    vm = vms()
    vm.shared.wait_started()
    fds = vm.open_fds()
    paths = vm.transfer_paths()
    incoming = [f"unix:{paths[0]}", {"channel-type": "cpr", "addr": {
        "transport": "socket", "type": "unix", "path": paths[1]}}]
    new = vms(mem="32M", incoming=incoming)
    new.main_path, new.cpr_path = paths
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    info = vm.qmp.wait_status(("failed", "completed"))
    assert info["status"] == "failed" and "size" in info["error-desc"], info
    check_unharmed(vm, fds)


@pytest.mark.parametrize("mode", ["cpr-exec", "cpr-transfer"])
def test_private_ram_is_a_blocker(vms, mode):
    args = ["-machine", "q35", "-m", "64M", *BASE, "-kernel", payload("counter")]
    vm = vms(args=args, base=False)
    vm.qmp.cmd("migrate-set-parameters", mode=mode)
    assert any("aux-ram-share=on" in reason
               for reason in vm.qmp.cmd("query-migrate").get("blocked-reasons", []))
    with pytest.raises(QmpError, match="aux-ram-share=on"):
        if mode == "cpr-exec":
            vm.qmp.cmd("migrate", uri="file:/tmp/never")
        else:
            vm.qmp.cmd("migrate", channels=[
                {"channel-type": t, "addr": {"transport": "socket", "type": "unix", "path": "/x"}}
                for t in ("main", "cpr")])
    assert vm.qmp.cmd("query-status")["running"]


def save_stream(vms, tmp_path):
    """A real state file: what an exec update with -incoming defer leaves."""
    vm = vms()
    vm.shared.wait_started()
    state = tmp_path / "golden.state"
    vm.exec(command=vm.argv + ["-incoming", f"file:{state}"], uri=f"file:{state}")
    return vm, state.read_bytes()


def test_damaged_streams_do_not_start(vms, tmp_path):
    """exec with -incoming defer, then a file that is cut, flipped, newer or of another architecture."""
    vm, good = save_stream(vms, tmp_path)
    state = tmp_path / "defer.state"
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=vm.argv + ["-incoming", "defer"])
    vm.qmp.cmd("migrate", uri=f"file:{state}")
    while vm.qmp.cmd("query-status")["status"] != "inmigrate":
        wait_for_change(None, 0.01)
    good = state.read_bytes()
    step = max(1, len(good) // 40)
    bad = [good[:n] for n in range(0, len(good), step)]
    bad += [good[:i] + bytes([good[i] ^ 0x10]) + good[i + 1:] for i in range(0, len(good), step)]
    bad += [good + b"x"]
    for i, data in enumerate(bad):
        path = tmp_path / f"bad{i}"
        path.write_bytes(data)
        try:
            vm.qmp.cmd("migrate-incoming", uri=f"file:{path}", exit_on_error=False)
        except QmpError:
            continue
        info = vm.qmp.wait_status(("failed", "completed"))
        assert info["status"] == "failed", f"damaged stream {i} was taken"
        assert info["error-desc"]
    vm.qmp.cmd("migrate-incoming", uri=f"file:{state}", exit_on_error=False)
    vm.qmp.wait_status(("completed",))
    vm.shared.assert_running()


def test_migrate_arguments(vms):
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-transfer")
    fds = vm.open_fds()
    for arguments, words in [
            ({}, "need either 'uri' or 'channels' argument"),
            ({"uri": "teleport:x"}, "teleport"),
            ({"channels": []}, "cpr"),
            ({"uri": "file:/tmp/x", "channels": []}, "uri"),
    ]:
        with pytest.raises(QmpError, match=words):
            vm.qmp.cmd("migrate", **arguments)
    with pytest.raises(QmpError, match="mode"):
        vm.qmp.cmd("migrate-set-parameters", mode="warp")
    with pytest.raises(QmpError, match="-incoming"):
        vm.qmp.cmd("migrate-incoming", uri="file:/tmp/x")
    check_unharmed(vm, fds)


def test_hostile_cpr_peer(vms, tmp_path):
    """Whoever connects to a waiting successor and talks nonsense harms nobody: it waits on."""
    import socket
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    for data in (b"", b"\0" * 100, os.urandom(4096), json.dumps({"a": 1}).encode()):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(new.cpr_path)
        sock.sendall(data)
        sock.close()
        assert new.qmp.cmd("query-status")["status"] == "inmigrate"
    vm.migrate_to(new)
    vm.qmp.wait_status(("completed",))
    new.shared.assert_running()
