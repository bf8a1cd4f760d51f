# Boot, reset by every way there is, power-off, stop and cont, -S, -no-reboot, -pidfile, -daemonize.
# SPDX-License-Identifier: Apache-2.0
import contextlib
import ctypes
import os
import pathlib
import select
import signal
import subprocess

import pytest

from vm import heartbeat, wait_for_socket


def test_boot_counts(vms):
    vm = vms()
    vm.shared.wait_started()
    vm.shared.assert_running()
    assert vm.qmp.cmd("query-status") == {"status": "running", "running": True}
    assert vm.quit() == 0
    assert vm.children() == []


def test_start_paused_and_cont(vms):
    vm = vms(args=["-S"])
    assert vm.qmp.cmd("query-status")["status"] == "prelaunch"
    vm.shared.assert_stopped()
    vm.qmp.cmd("cont")
    vm.qmp.wait_event("RESUME")
    vm.shared.wait_started()
    vm.shared.assert_running()


def test_stop_and_cont(vms):
    vm = vms()
    vm.shared.wait_started()
    for _ in range(20):
        vm.qmp.cmd("stop")
        vm.qmp.wait_event("STOP")
        assert vm.qmp.cmd("query-status") == {"status": "paused", "running": False}
        vm.shared.assert_stopped()
        vm.qmp.cmd("cont")
        vm.qmp.wait_event("RESUME")
        vm.shared.assert_running()


@pytest.mark.parametrize("how", ["cf9", "i8042", "port92", "triple"])
def test_guest_resets(vms, how):
    vm = vms(kernel="power", append=f"{how} stay resets=3", args=["-S"])
    vm.qmp.cmd("cont")
    for _ in range(3):
        event = vm.qmp.wait_event("RESET")
        assert event["data"] == {"guest": True, "reason": "guest-reset"}
    vm.shared.wait(lambda: vm.shared.detail(0) == 4)
    vm.shared.assert_running()


def test_system_reset(vms):
    vm = vms(kernel="power", append="off stay")
    vm.shared.wait(lambda: vm.shared.detail(0) == 1)
    for boots in range(2, 6):
        vm.qmp.cmd("system_reset")
        vm.qmp.wait_event("RESET", guest=False)
        vm.shared.wait(lambda boots=boots: vm.shared.detail(0) == boots)
    vm.shared.assert_running()


PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000


def ptrace(request, tid):
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes, call.restype = [ctypes.c_long] * 4, ctypes.c_long
    assert call(request, tid, 0, 0) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def held_vcpu(vm):
    """The first vCPU's thread gets no further meanwhile, as in a page fault on slow memory."""
    tid = next(int(task.name) for task in pathlib.Path(f"/proc/{vm.pid}/task").iterdir()
               if (task / "comm").read_text().startswith("CPU 0"))
    ptrace(PTRACE_SEIZE, tid)
    try:
        ptrace(PTRACE_INTERRUPT, tid)
        os.waitpid(tid, WALL)
        yield
    finally:
        ptrace(PTRACE_DETACH, tid)


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_update_in_a_reset(vms, mode):
    """A reset that waits for a vCPU is made before anything else, and made once."""
    vm = vms(kernel="power", append="off stay")
    vm.shared.wait(lambda: vm.shared.detail(0) == 1)
    new = vm.successor() if mode == "transfer" else None
    if new:
        wait_for_socket(new.cpr_path)
    with held_vcpu(vm):
        vm.qmp.cmd("system_reset")
        if new:
            vm.migrate_to(new)
        else:
            vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
            vm.qmp.cmd("migrate")
        info = vm.qmp.wait_status(("failed", "completed"), 60)
        assert info["status"] == "failed" and "the guest is being reset" in info["error-desc"], info
        assert info["update-record"]["result"] == "unchanged"
    vm.qmp.wait_event("RESET", guest=False)
    vm.shared.wait(lambda: vm.shared.detail(0) == 2)
    vm.shared.assert_running()
    if mode == "exec":
        vm.exec()
    else:
        vm = vm.transfer()
    vm.shared.assert_running()
    assert vm.shared.detail(0) == 2


def test_power_off(vms):
    vm = vms(kernel="power", append="off", args=["-S"])
    vm.qmp.cmd("cont")
    event = vm.qmp.wait_event("SHUTDOWN")
    assert event["data"] == {"guest": True, "reason": "guest-shutdown"}
    assert vm.wait_exit() == 0


def test_no_shutdown(vms):
    vm = vms(kernel="power", append="off", args=["-S", "-no-shutdown"])
    vm.qmp.cmd("cont")
    vm.qmp.wait_event("SHUTDOWN")
    vm.qmp.wait_event("STOP")
    assert vm.qmp.cmd("query-status")["status"] == "shutdown"
    assert vm.alive()


def test_no_reboot(vms):
    vm = vms(kernel="power", append="cf9", args=["-S", "-no-reboot"])
    vm.qmp.cmd("cont")
    vm.qmp.wait_event("SHUTDOWN", guest=True)
    assert vm.wait_exit() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_quit(vms, number):
    vm = vms()
    vm.shared.wait_started()
    vm.process.send_signal(number)
    vm.qmp.wait_event("SHUTDOWN", guest=False, reason="host-signal")
    assert vm.wait_exit() == 0


def test_quit_event(vms):
    vm = vms()
    vm.qmp.cmd("quit")
    vm.qmp.wait_event("SHUTDOWN", guest=False, reason="host-qmp-quit")
    assert vm.wait_exit() == 0


@pytest.mark.parametrize("cpus", [2, 4, 7])
def test_smp(vms, cpus):
    vm = vms(kernel="smp", append=f"cpus={cpus}", args=["-smp", str(cpus)])
    vm.shared.wait(lambda: all(vm.shared.per_cpu(i) > 100 for i in range(cpus)), timeout=60)
    infos = vm.qmp.cmd("query-cpus-fast")
    assert [i["cpu-index"] for i in infos] == list(range(cpus))
    tasks = os.listdir(f"/proc/{vm.pid}/task")
    assert all(str(i["thread-id"]) in tasks for i in infos)


def test_pidfile(vms, tmp_path):
    path = tmp_path / "molt.pid"
    vm = vms(args=["-pidfile", str(path)])
    assert path.read_text().strip() == str(vm.pid)
    vm.quit()
    assert not path.exists()


def test_daemonize(vms, tmp_path):
    path = tmp_path / "molt.pid"
    vm = vms(args=["-daemonize", "-pidfile", str(path)])
    assert vm.process.wait(20) == 0
    pid = int(path.read_text())
    assert pid != vm.pid
    vm.shared.wait_started()
    vm.shared.assert_running()
    assert vm.qmp.cmd("query-status")["running"]
    pidfd = os.pidfd_open(pid)
    vm.qmp.cmd("quit")
    assert select.select([pidfd], [], [], 20)[0], "it does not end"
    os.close(pidfd)


def test_daemon_with_relative_paths(vms, tmp_path, monkeypatch):
    """They mean the same to the program after an exec, which removes what lies there."""
    monkeypatch.chdir(tmp_path)
    vm = vms(args=["-daemonize", "-pidfile", "pid", "-serial", "unix:com1,server=on,wait=off"])
    assert vm.process.wait(20) == 0
    pid = int((tmp_path / "pid").read_text())
    vm.shared.wait_started()
    monkeypatch.chdir("/")
    vm.exec()
    vm.shared.assert_running()
    assert int((tmp_path / "pid").read_text()) == pid
    pidfd = os.pidfd_open(pid)
    vm.qmp.cmd("quit")
    assert select.select([pidfd], [], [], 20)[0], "it does not end"
    os.close(pidfd)
    assert not (tmp_path / "pid").exists() and not (tmp_path / "com1").exists()


def test_high_memory(vms):
    """A page in each 2 MiB is written, so that the host need not have that much memory."""
    vm = vms(mem="5G", append="sparse")
    vm.shared.wait(lambda: vm.shared.counter > 100, timeout=60)
    assert vm.shared.errors == 0


def test_serial_socket_echo(vms, tmp_path):
    path = str(tmp_path / "com1")
    vm, line = heartbeat(vms, path)
    line.wait_for(b"HB ")
    line.send(b"molt")
    line.wait_for(b"<T>")
    assert b"<M>\n" in line.text and b"<O>\n" in line.text
    assert vm.shared.errors == 0


def test_version_and_help(molt):
    version = subprocess.run([molt, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("molt ")
    text = subprocess.run([molt, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("-machine", "-incoming", "-blockdev", "-qmp"):
        assert option in text
