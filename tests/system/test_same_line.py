# The same command line again, with -incoming added: paths and pid file are whoever's has the guest.
# SPDX-License-Identifier: Apache-2.0
import os
import socket
import struct

import pytest

from qmp import Qmp
from vm import Vm, wait_for_change, wait_for_socket


@pytest.fixture(name="old")
def fixture_old(vms, tmp_path):
    return vms(args=["-pidfile", str(tmp_path / "pid"),
                     "-serial", f"unix:{tmp_path}/com1,server=on,wait=off"])


def same_line(vms, old, args=(), **kwargs):
    """A successor started with @old's command line, @args, and channels to come by."""
    main, cpr = old.transfer_paths()
    new = vms(args=[*old.argv[1:], *args], base=False, qmp=False, ram=old.ram, incoming=[
        f"unix:{main}", {"channel-type": "cpr", "addr": {
            "transport": "socket", "type": "unix", "path": cpr}}], **kwargs)
    new.main_path, new.cpr_path = main, cpr
    new.qmp_path = old.qmp_path
    try:
        wait_for_socket(cpr, 60)
    except TimeoutError as error:
        raise AssertionError(f"{error}; log:\n{new.log_text()}") from error
    return new


def listener(path):
    """The pid of who listens at @path; None if nobody does."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return None
        return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def assert_paths(tmp, vm, of):
    """Monitor and pid file are @vm's, the console is there, and nothing lies beside."""
    assert listener(of.qmp_path) == vm.pid
    assert (tmp / "pid").read_text() == f"{vm.pid}\n"
    assert listener(tmp / "com1") is not None
    assert [name for name in os.listdir(tmp) if name.startswith(".molt-")] == []


def wait_until(condition, seconds=30):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        wait_for_change(None, 0.02)
    raise AssertionError("it did not come to that")


def test_taken_over(vms, old, tmp_path):
    new = same_line(vms, old, ["-qmp", f"unix:{tmp_path}/own,server=on,wait=off"])
    # It works on a path of its own, while the contested one is the old process's.
    own = Qmp(str(tmp_path / "own"))
    assert own.cmd("query-status")["status"] == "inmigrate"
    assert listener(old.qmp_path) == old.pid
    assert (tmp_path / "pid").read_text() == f"{old.pid}\n"
    old.migrate_to(new)
    assert old.qmp.wait_status(("completed", "failed"))["status"] == "completed"
    own.wait_status(("completed",))
    assert_paths(tmp_path, new, old)
    # The old one's connection goes on; its end leaves what is the new one's.
    assert old.qmp.cmd("query-status")["status"] == "postmigrate"
    old.quit()
    assert_paths(tmp_path, new, old)
    new.shared.assert_running()
    # And once more, from there.
    new.connect()
    third = same_line(vms, new)
    new.migrate_to(third)
    assert new.qmp.wait_status(("completed", "failed"))["status"] == "completed"
    wait_until(lambda: listener(old.qmp_path) == third.pid)
    new.quit()
    assert_paths(tmp_path, third, old)
    third.connect()
    third.quit()
    assert not (tmp_path / "pid").exists() and not os.path.exists(old.qmp_path)
    assert not (tmp_path / "com1").exists()


def test_given_up(vms, old, tmp_path):
    """Cancelled in the pause: no path was touched, and the next attempt has them."""
    old.set_capabilities(pause_before_switchover=True)
    new = same_line(vms, old)
    old.migrate_to(new)
    old.qmp.wait_status(("pre-switchover",))
    old.qmp.cmd("migrate_cancel")
    old.qmp.wait_status(("cancelled",))
    new.wait_exit()
    assert_paths(tmp_path, old, old)
    old.set_capabilities(pause_before_switchover=False)
    new = same_line(vms, old)
    old.migrate_to(new)
    old.qmp.wait_status(("completed",))
    wait_until(lambda: listener(old.qmp_path) == new.pid)
    assert_paths(tmp_path, new, old)


def test_stranger(vms, old, tmp_path):
    """A path in use that is not the predecessor's is refused before anything is stopped."""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(tmp_path / "strangers"))
        stranger.listen()
        new = same_line(vms, old, ["-qmp", f"unix:{tmp_path}/strangers,server=on,wait=off"])
        old.migrate_to(new)
        info = old.qmp.wait_status(("completed", "failed"))
        assert info["status"] == "failed" and "strangers' is in use" in info["error-desc"], info
        assert info["update-record"]["result"] == "unchanged"
        assert new.wait_exit() == 1
        assert listener(tmp_path / "strangers") == os.getpid()
    assert_paths(tmp_path, old, old)


# Who dies where: who has guest and paths afterwards.
DEATHS = [("old", "transfer-source:loaded:kill", "new"),
          ("old", "transfer-source:commit:kill", "new"),
          ("old", "transfer-source:running:kill", "new"),
          ("new", "transfer-target:load:kill", "old"),
          ("new", "transfer-target:commit:kill", "old")]


@pytest.mark.parametrize("who,fault,owner", DEATHS)
def test_deaths(vms, tmp_path, who, fault, owner):
    env = {"MOLT_FAULT": fault}
    old = vms(args=["-pidfile", str(tmp_path / "pid"),
                    "-serial", f"unix:{tmp_path}/com1,server=on,wait=off"],
              env=env if who == "old" else {})
    new = same_line(vms, old, env=env if who == "new" else {})
    old.migrate_to(new)
    (old if who == "old" else new).wait_exit(60)
    if owner == "new":
        wait_until(lambda: listener(old.qmp_path) == new.pid)
        assert_paths(tmp_path, new, old)
    else:
        assert old.qmp.wait_status(("failed",))["update-record"]["result"] == "rolled-back"
        assert listener(old.qmp_path) == old.pid
        assert (tmp_path / "pid").read_text() == f"{old.pid}\n"
        # What a killed successor made beside is found and replaced by nobody: it has no say.
        new = same_line(vms, old)
        old.migrate_to(new)
        old.qmp.wait_status(("completed",))
        wait_until(lambda: listener(old.qmp_path) == new.pid)
        assert (tmp_path / "pid").read_text() == f"{new.pid}\n"
    new.shared.assert_running()


@pytest.mark.parametrize("how", ["quit", "SIGTERM"])
def test_old_ends_after_commit(vms, old, tmp_path, how):
    """Told to end while the new process has the guest and has not said so: nothing of it is removed."""
    new = same_line(vms, old, env={"MOLT_FAULT": "transfer-target:running:hang"})
    old.migrate_to(new)
    wait_until(lambda: (tmp_path / "pid").read_text() == f"{new.pid}\n")
    if how == "quit":
        old.quit()
    else:
        old.process.terminate()
        old.wait_exit()
    new.shared.assert_running()
    assert_paths(tmp_path, new, old)


def test_through_a_link(vms, tmp_path):
    """A link leads to the directory of the paths: they are known again after an exec, too."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    link = tmp_path / "link"
    old = vms(args=["-pidfile", str(link / "pid"), "-serial", f"unix:{link}/com1,server=on,wait=off"])
    old.shared.wait_started()
    for _ in range(2):
        new = same_line(vms, old)
        old.migrate_to(new)
        assert old.qmp.wait_status(("completed", "failed"), 60)["status"] == "completed"
        assert old.quit() == 0
        old.owns_ram, new.owns_ram = False, True
        new.connect()
        new.qmp.wait_status(("completed",))
        new.exec()
        assert (link / "pid").read_text() == f"{new.pid}\n"
        old = new
    assert old.quit() == 0
    assert os.listdir(tmp_path / "real") == []
    assert not os.path.exists(old.qmp_path)
