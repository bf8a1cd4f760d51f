# Commands that meet a disk that does not answer: one outcome each, the monitor alive all the while.
# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import re
import signal
import time

import pytest

from hungfs import hung_disk  # noqa: F401
from qmp import Qmp, QmpError
from vm import MOLT, wait_for_socket

# What each command does with a request that hangs in the storage, and once the storage is back:
#
# command        while it hangs                              afterwards
# stop           done; STOP; the log names disk and queue    the request ends, the guest stays stopped
# cont           done; the guest runs                        it finds its request done
# system_reset   done; no RESET yet; the guest stands still  RESET, once; the guest boots
# device_del     the guest lets go and sees it no more       DEVICE_DELETED
# quit, SIGTERM  the process ends                            -
# migrate        failed, unchanged, the guest never stopped  works, as if nothing had been
# A guest that is stopped or being reset is no exception: it is updated when its disk has answered.

# A thread of the process that waits in such a storage, even after it was given up, would hold execve().
STUCK = r"a thread waits for '.*' since .* s; cpr-exec would wait for it"

BUSY = r"virtio-blk (queue 0: 1 request)"


@pytest.fixture(params=["io_uring", "threads", "io_uring,cache=none"])
def guest(request, vms, hung_disk):  # noqa: F811
    """A guest that writes and reads, with a request held by its disk's storage: (vm, disk)."""
    disk = hung_disk()
    vm = vms(kernel="disk",
             args=["-drive", f"file={disk.path},format=raw,if=virtio,aio={request.param}"])
    vm.shared.wait_started()
    vm.shared.wait(lambda: vm.shared.detail(0) > 16)
    disk.hang()
    disk.wait_held()
    return vm, disk


def goes_on(vm, disk=None):
    """The disk answers again, and the guest finds nothing wrong."""
    if disk:
        disk.go()
    before = vm.shared.detail(0)
    vm.shared.wait(lambda: vm.shared.detail(0) > before + 16)
    assert vm.shared.errors == 0


def answers(vm, status):
    begun = time.monotonic()
    assert vm.qmp.cmd("query-status")["status"] == status
    assert time.monotonic() - begun < 2


def told(vm, event):
    """The events of that name which have come and were not waited for."""
    vm.qmp.cmd("query-status")
    return [e for e in vm.qmp.events if e["event"] == event]


def test_stop_and_cont(guest):
    vm, disk = guest
    vm.qmp.cmd("stop")
    vm.qmp.wait_event("STOP")
    answers(vm, "paused")
    vm.shared.assert_stopped()
    assert BUSY in vm.log_text()
    vm.qmp.cmd("cont")
    vm.qmp.wait_event("RESUME")
    vm.shared.assert_running()
    assert disk.held() == 1
    goes_on(vm, disk)


def test_stop_then_answer(guest):
    """What ends while the guest is stopped is there when it goes on."""
    vm, disk = guest
    vm.qmp.cmd("stop")
    disk.go()
    vm.shared.assert_stopped()
    assert sum(disk.done()) == sum(disk.done())
    vm.qmp.cmd("cont")
    goes_on(vm)


def test_reset(guest):
    vm, disk = guest
    for _ in range(3):
        vm.qmp.cmd("system_reset")
    answers(vm, "running")
    vm.shared.assert_stopped()
    assert BUSY in vm.log_text() and told(vm, "RESET") == []
    disk.go()
    assert vm.qmp.wait_event("RESET")["data"] == {"guest": False,
                                                  "reason": "host-qmp-system-reset"}
    vm.shared.wait(lambda: 0 < vm.shared.detail(0) < 16)
    goes_on(vm)
    assert told(vm, "RESET") == []


def test_reset_of_a_stopped_guest(guest):
    """stop, reset, cont: it runs when both are over."""
    vm, disk = guest
    vm.qmp.cmd("stop")
    vm.qmp.cmd("system_reset")
    vm.qmp.cmd("cont")
    answers(vm, "running")
    vm.shared.assert_stopped()
    disk.go()
    vm.qmp.wait_event("RESET")
    goes_on(vm)


def test_stop_in_a_reset(guest):
    vm, disk = guest
    vm.qmp.cmd("system_reset")
    vm.qmp.cmd("stop")
    disk.go()
    vm.qmp.wait_event("RESET")
    answers(vm, "paused")
    vm.shared.assert_stopped()
    vm.qmp.cmd("cont")
    goes_on(vm)


@pytest.mark.parametrize("before", ["", "stop", "system_reset"])
@pytest.mark.parametrize("how", ["quit", "SIGTERM"])
def test_the_process_ends(guest, how, before):
    vm, disk = guest
    if before:
        vm.qmp.cmd(before)
    if how == "quit":
        vm.quit()
    else:
        vm.process.send_signal(signal.SIGTERM)
    assert vm.wait_exit(20) == 0
    assert "left behind" in vm.log_text()


def update(vm, how, info):
    """Try to update @vm; its record, and the successor if there is one."""
    new = None
    vm.qmp.cmd("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    if how == "exec":
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/{vm.tag}.state")
    else:
        new = vm.successor()
        wait_for_socket(new.cpr_path)
        vm.migrate_to(new)
    result = vm.qmp.wait_status(("completed", "failed"), 60)
    info.update(result)
    return new


@pytest.mark.parametrize("limit", [0, 300])
@pytest.mark.parametrize("how", ["exec", "transfer"])
def test_update(guest, how, limit):
    """It fails in time, unchanged, the guest's vCPUs never stopped; the next one works."""
    vm, disk = guest
    info = {}
    if limit:
        vm.qmp.cmd("migrate-set-parameters", **{"downtime-limit": limit})
    new = update(vm, how, info)
    record = info["update-record"]
    assert info["status"] == "failed" and record["result"] == "unchanged"
    assert BUSY in record["reason"]
    assert record["phases"][-1]["name"] == "disks" and record["phases"][-1]["ns"] < 3e9
    assert told(vm, "STOP") == []
    if new:
        assert new.wait_exit() == 1
    vm.shared.assert_running()
    goes_on(vm, disk)
    vm.qmp.cmd("migrate-set-parameters", **{"downtime-limit": 60000})
    new = update(vm, how, info)
    assert info["status"] == "completed", info
    goes_on(new or vm)


@pytest.mark.parametrize("how", ["exec", "transfer"])
@pytest.mark.parametrize("before", ["stop", "system_reset"])
def test_update_waits(guest, how, before):
    """The disk answers in time: what was begun is done first, then the update."""
    vm, disk = guest
    info = {}
    vm.qmp.cmd(before)
    vm.qmp.cmd("migrate-set-parameters", **{"downtime-limit": 60000})
    if how == "exec":
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
        vm.qmp.cmd("migrate", uri=f"file:{vm.tmp}/{vm.tag}.state")
    else:
        new = vm.successor()
        wait_for_socket(new.cpr_path)
        vm.migrate_to(new)
    disk.go()
    info = vm.qmp.wait_status(("completed", "failed"), 60)
    assert info["status"] == "completed", info
    owner = vm if how == "exec" else new
    if before == "stop":
        answers(owner, "paused")
        owner.qmp.cmd("cont")
    else:
        vm.qmp.wait_event("RESET")
    goes_on(owner)


@pytest.mark.parametrize("how", ["exec", "transfer"])
def test_stopped_update_fails(guest, how):
    """A stopped guest's devices may not be saved before they are at rest."""
    vm, disk = guest
    info = {}
    vm.qmp.cmd("stop")
    update(vm, how, info)
    assert info["update-record"]["result"] == "unchanged" and BUSY in info["error-desc"]
    answers(vm, "paused")
    vm.qmp.cmd("cont")
    goes_on(vm, disk)


def wait_exec(vm, seconds=60, **arguments):
    """migrate by exec, whatever comes of it: query-migrate's answer."""
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    try:
        vm.qmp.cmd("migrate", **arguments)
    except QmpError:
        pass
    return vm.qmp.wait_status(("completed", "failed"), seconds)


def unchanged(info, reason):
    record = info["update-record"]
    assert info["status"] == "failed" and record["result"] == "unchanged", info
    assert re.search(reason, record["reason"]), record


def thread_names(vm):
    names = []
    for task in pathlib.Path(f"/proc/{vm.pid}/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return names


@pytest.mark.parametrize("how", ["exec", "transfer"])
def test_hangs_after_the_first_look(vms, hung_disk, how):  # noqa: F811
    """The disk answered when the update began, and hangs when the guest is to be stopped: it is not."""
    disk = hung_disk()
    vm = vms(kernel="disk",
             args=["-drive", f"file={disk.path},format=raw,if=virtio,aio=io_uring"])
    vm.shared.wait_started()
    vm.shared.wait(lambda: vm.shared.detail(0) > 16)
    if how == "transfer":
        vm.migrate_first_step(vm.successor())
        disk.hang("write")
        disk.wait_held()
        vm.qmp.cmd("migrate", resume=True)
    else:
        # The state file's storage holds the update up until the disk hangs.
        store = hung_disk()
        store.hang()
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
        vm.qmp.cmd("migrate", uri=f"file:{store.path}")
        store.wait_held()
        disk.hang("write")
        disk.wait_held()
        store.go()
    info = vm.qmp.wait_status(("completed", "failed"), 60)
    unchanged(info, re.escape(BUSY))
    assert info["update-record"]["phases"][-1]["name"] == "drain"
    assert told(vm, "STOP") == []
    vm.shared.assert_running()
    goes_on(vm, disk)


def test_state_file(vms, hung_disk):  # noqa: F811
    """A state file that hangs fails its update; the next is refused while a thread waits there, or
    tried again, if that is wanted, until it does not."""
    store = hung_disk()
    vm = vms()
    vm.shared.wait_started()
    store.hang(hard=True)
    unchanged(wait_exec(vm, uri=f"file:{store.path}"), "file: no answer within 5000 ms")
    assert store.held() == 1 and "state file" in thread_names(vm)
    unchanged(wait_exec(vm), STUCK.replace(".*", "state file .*", 1))
    assert told(vm, "STOP") == []
    vm.shared.assert_running()
    vm.qmp.cmd("migrate-set-parameters", cpr_exec_attempts=100)
    vm.qmp.cmd("migrate")
    assert vm.qmp.cmd("query-migrate")["update-stage"] == "again"
    store.go()
    info = vm.qmp.wait_status(("completed", "failed"), 120)
    assert info["status"] == "completed", info
    assert "state file" not in thread_names(vm)
    vm.shared.assert_running()


def test_output_file(vms, hung_disk, tmp_path):  # noqa: F811
    """A chardev's output that hangs holds no monitor, whatever is asked about updates."""
    store = hung_disk()
    store.hang("write", hard=True)
    second = tmp_path / "second.qmp"
    vm = vms(args=["-chardev", f"file,id=c0,path={store.path}", "-serial", "chardev:c0",
                   "-qmp", f"unix:{second},server=on,wait=off"])
    other = Qmp(str(second))
    store.wait_held()
    begun = time.monotonic()
    for mode in ("cpr-transfer", "cpr-exec"):
        vm.qmp.cmd("migrate-set-parameters", mode=mode)
        assert "blocked-reasons" not in vm.qmp.cmd("query-migrate")
        assert other.cmd("query-status")["status"] == "running"
    vm.shared.wait(lambda: time.monotonic() > begun + 1.1)
    unchanged(wait_exec(vm), STUCK.replace(".*", ".*c0.*", 1))
    assert other.cmd("query-status")["status"] == "running"
    assert told(vm, "STOP") == []
    vm.shared.assert_running()
    store.go()
    other.close()


@pytest.mark.parametrize("how", ["qmp", "hmp"])
def test_resize(vms, hung_disk, how):  # noqa: F811
    """Of an image whose store hangs: told in time; done, and told to the guest, when the store is back."""
    store = hung_disk()
    vm = vms(args=["-drive", f"file={store.path},format=raw,if=none,id=d0",
                   "-device", "virtio-blk-pci,drive=d0"])
    vm.shared.wait_started()

    def resize(mib):
        if how == "hmp":
            return vm.qmp.hmp(f"block_resize d0 {mib}M")
        try:
            vm.qmp.cmd("block_resize", device="d0", size=mib << 20)
        except QmpError as error:
            return str(error)
        return ""
    store.hang("attr", hard=True)
    begun = time.monotonic()
    assert f"the storage of '{store.path}' has not answered within 500 ms" in resize(4)
    assert time.monotonic() - begun < 5
    answers(vm, "running")
    store.wait_held()
    assert f"'{store.path}' is being resized" in resize(4)
    assert vm.qmp.cmd("query-block")[0]["inserted"]["image"]["virtual-size"] == 4 << 20
    for mode in ("cpr-exec", "cpr-transfer"):
        vm.qmp.cmd("migrate-set-parameters", mode=mode)
        assert "is being resized" in vm.qmp.cmd("query-migrate")["blocked-reasons"][0]
    vm.shared.assert_running()
    store.go()
    vm.shared.wait(lambda: "has 4194304 bytes now" in vm.log_text())
    assert resize(4) == ""
    vm.exec()
    vm.shared.assert_running()


def test_resize_and_the_end(vms, hung_disk):  # noqa: F811
    """quit does not wait for it."""
    store = hung_disk()
    vm = vms(args=["-drive", f"file={store.path},format=raw,if=none,id=d0",
                   "-device", "virtio-blk-pci,drive=d0"])
    vm.shared.wait_started()
    store.hang("attr")
    with pytest.raises(QmpError, match="has not answered within 500 ms"):
        vm.qmp.cmd("block_resize", device="d0", size=4 << 20)
    assert vm.quit() == 0


# Nothing in the pause, and nothing between execve() and the mark, may wait for a store.

def vm_on(disks, vms, binary=MOLT):
    vm = vms(binary=binary, args=[
        "-drive", f"file={disks['image'].path},format=raw,if=virtio",
        "-chardev", f"file,id=c0,path={disks['output'].path},append=on,"
        f"logfile={disks['logfile'].path},logappend=on", "-serial", "chardev:c0"])
    vm.shared.wait_started()
    vm.fds = vm.open_fds()
    return vm


@pytest.fixture
def stores(vms, hung_disk, tmp_path):  # noqa: F811
    """A VM in the pre-switchover window that has all sorts of files on stores: (vm, stores)."""
    names = ("image", "output", "logfile", "log", "state", "pid")
    disks = {name: hung_disk() for name in names}
    wrapper = tmp_path / "logging"
    wrapper.write_text(f'#!/bin/sh\ncd {disks["image"].dir}\n'
                       f'exec {MOLT} "$@" -pidfile {disks["pid"].path} 2>>{disks["log"].path}\n')
    wrapper.chmod(0o755)

    def start(fault=""):
        vm = vm_on(disks, vms, str(wrapper))
        command = [MOLT, *vm.argv[1:], "-pidfile", disks["pid"].path]
        if fault:  # not by a shell, which looks at its directory
            command[:0] = ["/usr/bin/env", f"MOLT_FAULT=exec-target:{fault}"]
        vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
        vm.set_capabilities(pause_before_switchover=True)
        vm.qmp.cmd("migrate", uri=f"file:{disks['state'].path}")
        vm.qmp.wait_status(("pre-switchover",), 180)
        return vm, disks

    return start


def moves(vm):
    """The guest runs; else what its threads wait for."""
    try:
        vm.shared.assert_running(60)
    except TimeoutError:
        stacks = [(path.parent / "comm").read_text() + path.read_text()
                  for path in pathlib.Path("/proc").glob(f"{vm.pid}/task/*/stack")]
        raise AssertionError("the guest stands: " + "\n".join(stacks)) from None


def held(disks):
    return {name: disk.held() for name, disk in disks.items() if disk.held()}


def go_on_without(stores, kind, fault=""):
    """The exec goes on while calls of @kind hang, and the guest with it.  Return: (vm, stores, outcome)."""
    vm, disks = stores(fault)
    for disk in disks.values():
        disk.hang(kind, hard=True)
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    moves(vm)
    return vm, disks, vm.qmp.wait_status(("completed", "failed"), 60)


def let_stores_answer(vm, disks):
    """What was to be closed is closed, and the guest goes on."""
    for disk in disks.values():
        disk.go()
    vm.assert_fds(vm.fds)
    vm.shared.assert_running()


@pytest.mark.parametrize("kind", ["close", "attr", "dir"])
def test_exec_asks_no_store(stores, kind):
    """A close(), an fstat() or a path that hangs: the guest goes on at once, in the new program."""
    vm, disks, info = go_on_without(stores, kind)
    assert info["status"] == "completed", info
    answers(vm, "running")
    if kind == "close":  # of what the two programs have twice; the last close is on a thread
        vm.shared.wait(lambda: "image" in held(disks))
        answers(vm, "running")
    let_stores_answer(vm, disks)


@pytest.mark.parametrize("kind", ["close", "attr", "dir"])
def test_way_back_asks_no_store(stores, kind):
    """The same when the new program refuses and becomes the old one again."""
    vm, disks, info = go_on_without(stores, kind, fault="load:error")
    assert info["update-record"]["result"] == "rolled-back", info
    answers(vm, "running")
    let_stores_answer(vm, disks)


def test_execve_closes_no_file(stores):
    """What the new program finds: files are what came over, by name, or are listed to be closed."""
    vm, _ = stores(fault="build:stop")
    closing = {}
    for fd in os.listdir(f"/proc/{vm.pid}/fd"):
        path = os.readlink(f"/proc/{vm.pid}/fd/{fd}")
        info = pathlib.Path(f"/proc/{vm.pid}/fdinfo/{fd}").read_text()
        if int(re.search("flags:\\s*(\\d+)", info)[1], 8) & os.O_PATH:
            continue  # is no open file
        if int(fd) > 2 and path.startswith("/") and os.path.isfile(path.removesuffix(" (deleted)")):
            closing[fd] = path
    vm.qmp.send("migrate-continue", state="pre-switchover")
    vm.wait_stopped(60)
    now = {fd: os.readlink(f"/proc/{vm.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{vm.pid}/fd")}
    try:
        assert {fd: now.get(fd) for fd in closing} == closing
    finally:
        vm.process.send_signal(signal.SIGCONT)


def test_transfer_closes_no_file(vms, hung_disk):  # noqa: F811
    """Nor does the old process wait for a store before it says that the guest has gone, or after."""
    disks = {name: hung_disk() for name in ("image", "output", "logfile")}
    vm = vm_on(disks, vms)
    new = vm.successor()
    vm.migrate_first_step(new)
    for disk in disks.values():
        disk.hang("close", hard=True)
    vm.qmp.cmd("migrate", resume=True)
    assert vm.qmp.wait_status(("completed", "failed"), 60)["status"] == "completed"
    disks["image"].wait_held()
    answers(vm, "postmigrate")
    new.qmp.wait_status(("completed",))
    moves(new)
    answers(new, "running")
    for disk in disks.values():
        disk.go()
    assert vm.quit() == 0
    new.shared.assert_running()


def test_exec_with_a_hung_pid_file(vms, hung_disk):  # noqa: F811
    """It is looked at when the guest runs, and nobody waits for that."""
    store = hung_disk()
    vm = vms(args=["-pidfile", store.path])
    vm.shared.wait_started()
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec")
    vm.set_capabilities(pause_before_switchover=True)
    vm.qmp.cmd("migrate")
    vm.qmp.wait_status(("pre-switchover",), 60)
    store.hang()
    vm.qmp.cmd("migrate-continue", state="pre-switchover")
    moves(vm)
    assert vm.qmp.wait_status(("completed", "failed"), 60)["status"] == "completed"
    store.wait_held()
    answers(vm, "running")
    store.go()
    assert pathlib.Path(store.path).read_bytes().split(b"\n")[0] == str(vm.pid).encode()
    assert vm.quit() == 0
