# Updates that succeed: each mode, again and again, in any mix, with everything that must survive.
# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import resource
import time

import pytest

from vm import MOLT, heartbeat, wait_for_change, wait_for_socket


def test_exec_keeps_pid_and_qmp(vms):
    vm = vms()
    vm.shared.wait_started()
    before = vm.open_fds()
    for _ in range(3):
        vm.exec()
        assert vm.alive()
        assert vm.qmp.cmd("query-status") == {"status": "running", "running": True}
        vm.shared.assert_running()
    told = vm.qmp.hmp("info migrate")
    assert "committed by cpr-exec" in told and f"old {vm.pid} " in told, told
    # The old address space is let go of after the update, by a child.
    vm.assert_fds(before)


def test_transfer_from_description_of_predecessor(vms):
    vm = vms()
    vm.shared.wait_started()
    for _ in range(3):
        vm = vm.transfer()
        vm.shared.assert_running()
        assert vm.qmp.cmd("query-status") == {"status": "running", "running": True}


def test_transfer_with_full_command_line(vms):
    vm = vms()
    vm.shared.wait_started()
    new = vm.transfer(base=True)
    new.shared.assert_running()


def test_transfer_without_a_timer(vms):
    """A successor that may have none cannot rehearse its vCPUs' first entry; it enters all the same."""
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    resource.prlimit(new.pid, resource.RLIMIT_SIGPENDING, (0, 0))
    vm.migrate_to(new)
    info = vm.qmp.wait_status(("completed", "failed"))
    assert info["status"] == "completed", info
    new.shared.assert_running()


def test_old_process_answers_postmigrate(vms):
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    vm.qmp.wait_status(("completed",))
    assert vm.qmp.cmd("query-status") == {"status": "postmigrate", "running": False}
    new.shared.assert_running()
    vm.quit()
    new.shared.assert_running()


@pytest.mark.parametrize("order", ["".join(p) for p in itertools.product("et", repeat=3)])
def test_any_mix(vms, order):
    vm = vms()
    vm.shared.wait_started()
    for mode in order:
        if mode == "e":
            vm.exec()
        else:
            vm = vm.transfer()
        vm.shared.assert_running()
    assert vm.shared.errors == 0


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_serial_stays_connected(vms, tmp_path, mode):
    path = str(tmp_path / "com1")
    vm, line = heartbeat(vms, path)
    line.wait_for(b"HB 5\n")
    for i in range(3):
        line.send(b"x")
        if mode == "exec":
            vm.exec()
        else:
            vm = vm.transfer()
        line.send(b"y")
        seen = line.text.count(b"<Y>")
        deadline = time.monotonic() + 20
        while line.text.count(b"<Y>") < i + 1 or line.text.count(b"<X>") < i + 1:
            assert time.monotonic() < deadline, (seen, line.text[-300:])
            line.pump(0.1)
    numbers = [int(l[3:]) for l in line.text.split(b"\n")[:-1] if l.startswith(b"HB ")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a heartbeat was lost"


@pytest.mark.parametrize("mode", ["exec", "transfer"])
@pytest.mark.parametrize("aio", ["io_uring", "threads"])
def test_disk_goes_on(vms, tmp_path, mode, aio):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    vm = vms(kernel="disk",
             args=["-drive", f"file={image},format=raw,if=virtio,id=d0,aio={aio}"])
    vm.shared.wait(lambda: vm.shared.detail(1) > 20)
    for _ in range(5):
        if mode == "exec":
            vm.exec()
        else:
            vm = vm.transfer()
        done = vm.shared.detail(1)
        vm.shared.wait(lambda done=done: vm.shared.detail(1) > done + 10)
        assert vm.shared.errors == 0


def test_paused_guest_stays_paused(vms):
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("stop")
    vm.exec()
    assert vm.qmp.cmd("query-status")["status"] == "paused"
    vm.shared.assert_stopped()
    vm = vm.transfer()
    assert vm.qmp.cmd("query-status")["status"] == "paused"
    vm.shared.assert_stopped()
    vm.qmp.cmd("cont")
    vm.shared.assert_running()


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_smp_goes_on(vms, mode):
    vm = vms(kernel="smp", append="cpus=4", args=["-smp", "4"])
    vm.shared.wait(lambda: all(vm.shared.per_cpu(i) > 100 for i in range(4)), timeout=60)
    for _ in range(3):
        if mode == "exec":
            vm.exec()
        else:
            vm = vm.transfer()
        seen = [vm.shared.per_cpu(i) for i in range(4)]
        vm.shared.wait(lambda seen=seen: all(vm.shared.per_cpu(i) > seen[i] for i in range(4)))


@pytest.mark.parametrize("mode", ["exec", "transfer"])
def test_guest_with_an_odd_code_segment(vms, mode):
    """KVM reports of it what KVM refuses to set: bit L outside of long mode."""
    vm = vms(kernel="odd_code")
    vm.shared.wait_started()
    for _ in range(2):
        if mode == "exec":
            vm.exec()
        else:
            vm = vm.transfer()
        vm.shared.assert_running(30)


def test_implicit_ram(vms):
    args = ["-machine", "q35,aux-ram-share=on", "-m", "64M", "-nodefaults", "-display", "none",
            "-kernel", str(__import__("vm").payload("counter"))]
    vm = vms(args=args, base=False)
    vm.exec()
    assert vm.qmp.cmd("query-status")["running"]
    vm = vm.transfer()
    assert vm.qmp.cmd("query-status")["running"]


@pytest.mark.parametrize("spelling", ["memfd-alloc=on", "anon-alloc=memfd", "aux-ram-share=on"])
def test_three_spellings(vms, spelling):
    args = ["-machine", f"q35,{spelling}", "-m", "64M", "-nodefaults", "-display", "none",
            "-kernel", str(__import__("vm").payload("counter"))]
    vm = vms(args=args, base=False)
    vm.exec()
    assert vm.qmp.cmd("query-status")["running"]


def test_memfd_backend(vms):
    args = ["-machine", "q35,memory-backend=m0,aux-ram-share=on", "-nodefaults", "-display", "none",
            "-object", "memory-backend-memfd,id=m0,size=64M", "-m", "64M",
            "-kernel", str(__import__("vm").payload("counter"))]
    vm = vms(args=args, base=False)
    vm.exec()
    vm = vm.transfer()
    assert vm.qmp.cmd("query-memdev")[0]["share"]


def test_exec_with_command(vms, tmp_path):
    vm = vms()
    vm.shared.wait_started()
    state = tmp_path / "vm.state"
    vm.exec(command=vm.argv + ["-incoming", f"file:{state}"], uri=f"file:{state}")
    vm.shared.assert_running()
    assert oct(state.stat().st_mode & 0o777) == "0o600"


def test_exec_defer(vms, tmp_path):
    vm = vms()
    vm.shared.wait_started()
    state = tmp_path / "vm.state"
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec",
               cpr_exec_command=vm.argv + ["-incoming", "defer"])
    vm.qmp.cmd("migrate", uri=f"file:{state}")
    end = time.monotonic() + 20
    while vm.qmp.cmd("query-status")["status"] != "inmigrate":
        assert time.monotonic() < end
    vm.shared.assert_stopped()
    vm.qmp.cmd("migrate-incoming", uri=f"file:{state}")
    vm.qmp.wait_status(("completed",))
    assert vm.qmp.cmd("query-status")["running"]
    vm.shared.assert_running()


def test_transfer_defer(vms):
    vm = vms()
    vm.shared.wait_started()
    new = vm.successor(defer=True)
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    assert new.qmp.cmd("query-status")["status"] == "inmigrate"
    vm.shared.assert_running()
    assert vm.qmp.cmd("query-migrate")["status"] == "setup"
    new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    vm.qmp.wait_status(("completed",))
    new.qmp.wait_status(("completed",))
    new.shared.assert_running()


def test_events_in_order(vms):
    vm = vms()
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-capabilities",
               capabilities=[{"capability": "events", "state": True}])
    new = vm.successor()
    new.qmp.cmd("migrate-set-capabilities",
                capabilities=[{"capability": "events", "state": True}])
    wait_for_socket(new.cpr_path)
    vm.migrate_to(new)
    vm.qmp.wait_status(("completed",))
    new.qmp.wait_status(("completed",))
    events = [(e["event"], e["data"].get("status") if "data" in e else None)
              for e in vm.qmp.events]
    order = [e for e in events if e[0] in ("MIGRATION", "STOP")]
    assert order == [("MIGRATION", "setup"), ("STOP", None), ("MIGRATION", "active"),
                     ("MIGRATION", "device"), ("MIGRATION", "completed")], events
    events = [(e["event"], e["data"].get("status") if "data" in e else None)
              for e in new.qmp.events]
    order = [e for e in events if e[0] in ("MIGRATION", "RESUME")]
    assert order[-2:] == [("RESUME", None), ("MIGRATION", "completed")], events


def test_disk_lock_is_never_dropped(vms, tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    args = ["-drive", f"file={image},format=raw,if=virtio"]
    vm = vms(kernel="disk", args=args)
    for i in range(4):
        if i % 2:
            vm.exec()
        else:
            vm = vm.transfer()
        other = vms(kernel="disk", args=args, wait_qmp=False)
        assert other.wait_exit() == 1
        assert str(image) in other.log_text()


def test_update_to_another_binary(vms, tmp_path):
    """The next release is another file: a copy stands for it."""
    import shutil
    copy = tmp_path / "molt-next"
    shutil.copy(MOLT, copy)
    vm = vms()
    vm.shared.wait_started()
    state = tmp_path / "s"
    vm.exec(command=[str(copy)] + vm.argv[1:] + ["-incoming", f"file:{state}"],
            uri=f"file:{state}")
    assert json.dumps(vm.qmp.cmd("query-status"))
    import os
    assert os.readlink(f"/proc/{vm.pid}/exe") == str(copy)
    vm.shared.assert_running()


def two_step(vm, **kwargs):
    new = vm.successor(**kwargs)
    vm.migrate_first_step(new)
    return new


@pytest.mark.parametrize("defer", [False, True])
def test_two_step(vms, defer):
    """The first migrate ends in setup and ready; the second, with resume, switches."""
    vm = vms()
    vm.shared.wait_started()
    new = two_step(vm, defer=defer)
    assert new.qmp.cmd("query-status")["status"] == "inmigrate"
    if defer:
        new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    vm.shared.assert_running()
    assert vm.qmp.cmd("query-migrate")["status"] == "setup"
    vm.qmp.cmd("migrate", resume=True)
    vm.qmp.wait_status(("completed",))
    new.shared.assert_running()


def test_two_step_resume_before_the_main_channel(vms):
    vm = vms()
    vm.shared.wait_started()
    new = two_step(vm, defer=True)
    vm.qmp.cmd("migrate", resume=True)
    vm.shared.assert_running()
    new.qmp.cmd("migrate-incoming", uri=f"unix:{new.main_path}")
    vm.qmp.wait_status(("completed",))
    new.shared.assert_running()


@pytest.mark.parametrize("how", ["cancel", "kill", "stop"])
def test_two_step_ends_in_the_window(vms, how):
    """Cancel, death or hang of the successor in the window: the guest runs on, a new try works."""
    import signal
    vm = vms()
    vm.shared.wait_started()
    before = vm.open_fds()
    new = two_step(vm)
    if how == "cancel":
        vm.qmp.cmd("migrate_cancel")
        vm.qmp.wait_status(("cancelled",))
    elif how == "kill":
        new.process.kill()
        vm.qmp.wait_status(("failed",))
    else:
        new.process.send_signal(signal.SIGSTOP)
        vm.shared.assert_running()
        vm.qmp.cmd("migrate_cancel")
        vm.qmp.wait_status(("cancelled",))
        new.process.kill()
    new.wait_exit()
    vm.shared.assert_running()
    vm.assert_fds(before)
    again = two_step(vm)
    vm.qmp.cmd("migrate", resume=True)
    vm.qmp.wait_status(("completed",))
    again.shared.assert_running()


def test_resume_of_nothing(vms):
    from qmp import QmpError
    vm = vms()
    with pytest.raises(QmpError, match="no paused migration"):
        vm.qmp.cmd("migrate", resume=True)
