# What two processes must agree on: each item refused, all of them in one message, the guest running.
# SPDX-License-Identifier: Apache-2.0
import copy
import fcntl
import os
import socket

import pytest

from frames import encode
from peers import NEW_SENDS, OLD_SENDS, Cut, FakeNew, Relay
from stages import wait_one_owner
from vm import wait_for_socket


@pytest.fixture
def vm(vms, tmp_path):
    """A guest with a disk and a serial port, so that there is something to hand over."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    vm = vms(args=["-drive", f"file={image},format=raw,if=virtio",
                   "-serial", f"unix:{tmp_path}/com1,server=on,wait=off"])
    vm.shared.wait_started()
    return vm


class Attempt:
    """One update that must not happen; says why it did not."""

    def __init__(self, vm):
        self.vm = vm
        self.fds = vm.open_fds()

    def relayed(self, edit=None, edit_fds=None, ends=True, **kwargs):
        """By a real new process, with a relay in between; it @ends by itself, or listens on."""
        new = self.vm.successor(**kwargs)
        wait_for_socket(new.cpr_path)
        relay = Relay(new.cpr_path + ".relay", new.cpr_path, edit, edit_fds)
        new.cpr_path = relay.path
        info = self.refused(new, relay)
        if ends:
            assert new.wait_exit() == 1, new.log_text()
        else:
            assert new.alive(), new.log_text()
            new.process.kill()
        return info

    def refused(self, new, other, seconds=20):
        self.vm.migrate_to(new)
        info = self.vm.qmp.wait_status(("failed", "completed"), seconds)
        other.close()
        assert info["status"] == "failed", info
        assert info["update-record"]["result"] in ("unchanged", "rolled-back")
        return info

    def nothing_happened(self):
        """The guest runs where it was, nothing has leaked, and the next update works."""
        self.vm.shared.assert_running()
        self.vm.assert_fds(self.fds)
        assert self.vm.qmp.cmd("query-status") == {"status": "running", "running": True}
        console = socket.socket(socket.AF_UNIX)
        console.connect(str(self.vm.tmp / "com1"))
        console.close()
        self.vm.transfer().shared.assert_running()


# ---- what the new process is told ----

def edit_of(kind, change):
    def edit(seen, body):
        if seen == kind:
            change(body)
    return edit


def device(offer, section):
    return next(d for d in offer["tree"]["devices"] if d["section"] == section)


def ram(offer):
    return offer["tree"]["ram"][0]


I8042 = "isa/60/i8042"


def remove_device(offer):
    offer["tree"]["devices"].remove(device(offer, I8042))


def add_device(offer):
    offer["tree"]["devices"].append({**device(offer, I8042), "section": "isa/99/i8042"})


def several(*changes):
    def change(body):
        for each in changes:
            each(body)
    return change


HELLO = {
    "protocol": (lambda hello: hello.update({"protocol": 9, "protocol-min": 8}),
                 ["speaks update protocol 8 to 9", "speaks 2 to 2"]),
    "old-protocol": (lambda hello: hello.update({"protocol": 0, "protocol-min": 0}),
                     ["speaks update protocol 0 to 0"]),
    "protocol-is-text": (lambda hello: hello.update({"protocol": "1"}), ["not understood"]),
    "features-are-a-number": (lambda hello: hello.update(features=7), ["not understood"]),
    "features-are-numbers": (lambda hello: hello.update(features=[7]), ["not understood"]),
    "too-many-features": (lambda hello: hello.update(features=["x"] * 1000), ["not understood"]),
    "no-features": (lambda hello: hello.pop("features"), ["not understood"]),
    "no-build": (lambda hello: hello.pop("build"), ["not understood"]),
    "long-build": (lambda hello: hello.update(build="b" * 1000), ["not understood"]),
}


@pytest.mark.parametrize("item", HELLO)
@pytest.mark.parametrize("said_by", ["hello", "welcome"])
def test_greeting(vm, said_by, item):
    """Either side's greeting, changed on its way to the other."""
    change, words = HELLO[item]
    attempt = Attempt(vm)
    info = attempt.relayed(edit_of(said_by, change))
    for word in words:
        assert word in info["error-desc"], info
    assert info["update-record"]["result"] == "unchanged"
    attempt.nothing_happened()


def more_than_the_reader(offer):
    entry = device(offer, "kvm/vcpu")
    entry.update({"version": 99, "min-reader": 99})


OFFERS = {
    "mode": (lambda offer: offer.update(mode="normal"), ["mode 'normal'", "'cpr-transfer'"]),
    "format": (lambda offer: offer.update({"state-min-reader": 99}),
               ["needs a reader of format 99"]),
    "state-version": (more_than_the_reader, ["kvm/vcpu", "needs a reader of version 99"]),
    "unknown-state": (lambda offer: device(offer, I8042).update(state="warp"),
                      ["isa/60/i8042: its state 'warp' is not known here"]),
    "other-state": (lambda offer: device(offer, I8042).update(state="rtc-cmos"),
                    ["isa/60/i8042: its state is 'rtc-cmos' there, 'i8042' here"]),
    "device-missing": (remove_device, ["device isa/60/i8042: here, not there"]),
    "device-more": (add_device, ["device isa/99/i8042: there, not here"]),
    "vcpu-more": (lambda offer: offer["tree"]["devices"].append(
        {**device(offer, "kvm/vcpu"), "instance": 1}), ["device kvm/vcpu: there, not here"]),
    "ram-size": (lambda offer: ram(offer).update(size=4096),
                 ["RAM block ram0: 4096 bytes there, 67108864 here"]),
    "ram-name": (lambda offer: ram(offer).update(name="ram9"),
                 ["RAM block ram9: there, not here", "RAM block ram0: here, not there"]),
    "ram-share": (lambda offer: ram(offer).update(share=False),
                  ["RAM block ram0: share=off there, share=on here"]),
    "ram-missing": (lambda offer: offer["tree"]["ram"].clear(),
                    ["RAM block ram0: here, not there"]),
    "generation": (lambda offer: offer.update(generation=7), ["the offer is of generation 7"]),
    "no-generation": (lambda offer: offer.update(generation=0), ["offer is not understood"]),
    "session": (lambda offer: offer.update(session="x" * 32), ["offer is not understood"]),
    "config-is-no-vm": (lambda offer: offer.update(config={"warp": 1}),
                        ["the offered configuration: ", "warp"]),
    # Before there is a machine, and once there is one: all of it in one message each.
    "all-before-the-machine": (
        several(lambda offer: offer.update({"state-min-reader": 99}), more_than_the_reader,
                lambda offer: device(offer, I8042).update(state="warp")),
        ["format 99", "version 99", "'warp'"]),
    "all-of-the-machine": (
        several(add_device, remove_device, lambda offer: ram(offer).update(size=1, share=False)),
        ["isa/60/i8042: here", "isa/99/i8042: there", "ram0: 1 bytes", "ram0: share=off"]),
}


@pytest.mark.parametrize("item", OFFERS)
def test_offer(vm, item):
    change, words = OFFERS[item]
    attempt = Attempt(vm)
    info = attempt.relayed(edit_of("offer", change))
    for word in words:
        assert word in info["error-desc"], info
    assert info["update-record"]["result"] == "unchanged", "the guest was stopped for this"
    attempt.nothing_happened()


def test_session_is_another(vm):
    """The new process waits for a session that never joins; the old one gives up."""
    attempt = Attempt(vm)
    info = attempt.relayed(edit_of("offer", lambda offer: offer.update(session="0" * 32)))
    assert "join" in info["error-desc"]
    assert info["update-record"]["result"] == "unchanged"
    attempt.nothing_happened()


def test_command_line_differs_in_many_ways(vm):
    """A successor with a command line of its own; all that differs, in one message."""
    attempt = Attempt(vm)
    info = attempt.relayed(
        edit_of("offer", lambda offer: offer.update({"state-min-reader": 99})), base=True,
        args=["-smp", "2", "-uuid", "00000000-0000-0000-0000-000000000001",
              "-device", "virtio-rng-pci"])
    for word in ("format 99", "-smp cpus: 1 here, 2", "-uuid", "COM1",
                 "virtio-rng-pci"):
        assert word in info["error-desc"], info
    assert info["update-record"]["result"] == "unchanged"
    attempt.nothing_happened()


# ---- descriptors ----

def drop(*names):
    def edit(manifest, fds):
        for name in names:
            i = manifest.index(name)
            del manifest.records[i]
            os.close(fds.pop(i))
    return edit


def add(name):
    def edit(manifest, fds):
        i = manifest.index("ram/ram0")
        record = copy.deepcopy(manifest.records[i])
        record[manifest.NAME] = list(name.encode().ljust(96, b"\0"))
        manifest.records.append(record)
        fds.append(os.dup(fds[i]))
    return edit


def replace(name, make):
    """Another descriptor under the same name and description."""
    def edit(manifest, fds):
        i = manifest.index(name)
        os.close(fds[i])
        fds[i] = make()
    return edit


def a_pipe():
    ends = os.pipe()
    os.close(ends[1])
    return ends[0]


def a_memfd(size):
    fd = os.memfd_create("other")
    os.ftruncate(fd, size)
    return fd


def disguise(name, size):
    """A memfd under the name, described as it is."""
    def edit(manifest, fds):
        replace(name, lambda: a_memfd(size))(manifest, fds)
        i = manifest.index(name)
        identity = manifest.records[i][manifest.IDENTITY]
        stat = os.fstat(fds[i])
        identity[1], identity[2], identity[3] = stat.st_dev, stat.st_ino, stat.st_rdev
        identity[6] = fcntl.fcntl(fds[i], fcntl.F_GET_SEALS)
    return edit


def both(*edits):
    def edit(manifest, fds):
        for each in edits:
            each(manifest, fds)
    return edit


def rename(name, new_name):
    return both(lambda manifest, fds: manifest.records[manifest.index(name)].__setitem__(
        manifest.NAME, list(new_name.encode().ljust(96, b"\0"))))


DESCRIPTORS = {
    "ram-missing": (drop("ram/ram0"), ["ram/ram0: was not handed over"]),
    "image-missing": (lambda manifest, fds: drop(image_name(manifest))(manifest, fds),
                      ["block/", "was not handed over"]),
    "kernel-missing": (drop("rom/kernel"), ["rom/kernel: was not handed over"]),
    "serial-missing": (lambda manifest, fds: drop(listener_name(manifest))(manifest, fds),
                       ["was not handed over"]),
    "owner-missing": (drop("cpr/owner"), ["cpr/owner"]),
    "one-more": (add("ram/other"), ["no use for: ram/other"]),
    "two-more": (both(add("ram/other"), add("ram/third")), ["no use for: ram/other, ram/third"]),
    "renamed": (rename("ram/ram0", "ram/new"), ["ram/ram0: was not handed over"]),
    "twice": (add("ram/ram0"), ["ram/ram0: there is one of this name already"]),
    "pipe": (replace("ram/ram0", a_pipe), ["ram/ram0", "another file"]),
    "memfd": (replace("ram/ram0", lambda: a_memfd(64 << 20)), ["ram/ram0", "another file"]),
    "pipe-and-memfd": (both(replace("ram/ram0", a_pipe),
                            replace("rom/kernel", lambda: a_memfd(4096))),
                       ["ram/ram0", "rom/kernel"]),
    "memfd-of-another-size": (disguise("ram/ram0", 1 << 20), ["ram0"]),
    "memfd-as-owner": (disguise("cpr/owner", 4096), ["cpr/owner"]),
    "kind": (lambda manifest, fds: manifest.records[manifest.index("rom/kernel")].__setitem__(
        manifest.KIND, 3), ["rom/kernel", "listening socket"]),
    "unknown-kind": (lambda manifest, fds: manifest.records[0].__setitem__(manifest.KIND, 77),
                     ["kind 77"]),
}


def image_name(manifest):
    return next(name for name in manifest.names() if name.startswith("block/"))


def listener_name(manifest):
    return next(name for name in manifest.names() if name.startswith("chardev/"))


@pytest.mark.parametrize("item", DESCRIPTORS)
def test_descriptors(vm, item):
    change, words = DESCRIPTORS[item]
    attempt = Attempt(vm)
    info = attempt.relayed(edit_fds=change)
    for word in words:
        assert word in info["error-desc"], info
    assert info["update-record"]["result"] == "unchanged", "the guest was stopped for this"
    attempt.nothing_happened()


def test_machine_and_descriptors_in_one_message(vm):
    attempt = Attempt(vm)
    info = attempt.relayed(edit_of("offer", remove_device), add("ram/other"))
    for word in ("isa/60/i8042: here, not there", "no use for: ram/other"):
        assert word in info["error-desc"], info
    attempt.nothing_happened()


# ---- features ----

def relayed_update(vm, edit):
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    relay = Relay(new.cpr_path + ".relay", new.cpr_path, edit)
    new.cpr_path = relay.path
    vm.migrate_to(new)
    info = vm.qmp.wait_status(("completed", "failed"))
    assert info["status"] == "completed", info
    new.shared.assert_running()
    relay.close()
    phases = {p["process"] for p in info["update-record"]["phases"]}
    return relay.seen, phases


@pytest.mark.parametrize("offered,in_force", [
    ([], []), (["record"], ["record"]), (["warp", "record"], ["record"]), (["warp"], [])])
def test_features_in_force(vm, offered, in_force):
    """The new process answers what both know, and does no more than that."""
    seen, phases = relayed_update(vm, edit_of("hello",
                                              lambda hello: hello.update(features=offered)))
    assert seen["welcome"]["features"] == in_force
    assert ("record" in seen["running"]) == (in_force == ["record"])
    assert phases == ({"old", "new"} if in_force else {"old"})


def test_features_of_the_answer(vm):
    """The old process takes no report that the answer did not announce."""
    seen, phases = relayed_update(vm, edit_of("welcome", lambda hello: hello.update(features=[])))
    assert "record" in seen["running"]
    assert phases == {"old"}


@pytest.mark.parametrize("edit", [
    lambda tree: tree.update(cpuid=tree["cpuid"] ^ 1), lambda tree: tree.pop("cpuid"),
    lambda tree: tree.update(cpuid="no number")], ids=["another", "none", "nonsense"])
def test_cpuid_is_another(vm, edit):
    """That is for the state to settle; only the rehearsal of an entry needs to know."""
    relayed_update(vm, edit_of("offer", lambda offer: edit(offer["tree"])))


# ---- a dialogue that breaks off ----

def relay_cut_at(kind):
    def edit(seen, body):
        if seen == kind:
            raise Cut
    return edit


@pytest.mark.parametrize("kind", [kind for kind in (*OLD_SENDS, *NEW_SENDS)
                                  if kind not in ("go", "running")])
def test_connection_breaks(vm, kind):
    attempt = Attempt(vm)
    info = attempt.relayed(relay_cut_at(kind), ends=kind != "hello")
    assert any(word in info["error-desc"] for word in ("gone", "closed", "Broken pipe")), info
    attempt.nothing_happened()


@pytest.mark.parametrize("kind", ["go", "running"])
def test_connection_breaks_after_the_commit(vm, kind):
    """Whoever has the guest then, it is one of them."""
    new = vm.successor()
    wait_for_socket(new.cpr_path)
    relay = Relay(new.cpr_path + ".relay", new.cpr_path, relay_cut_at(kind))
    new.cpr_path = relay.path
    vm.migrate_to(new)
    relay.close()
    vm.qmp.wait_status(("failed", "completed"))
    wait_one_owner([vm, new], vm.shared)


def raw(data):
    return lambda channel: channel.sock.sendall(data)


MISBEHAVIOUR = {
    "disconnect": (lambda channel: channel.close(), "the peer closed the connection"),
    "abort": (lambda channel: channel.send("abort", {"reason": "no wish to"}), "no wish to"),
    "refuse": (lambda channel: channel.send("refuse", {"reason": "one\ntwo"}), "one\ntwo"),
    "no-reason": (lambda channel: channel.send("abort"), "no reason given"),
    "out-of-turn": (lambda channel: channel.send("offer"), "'offer'"),
    "not-json": (raw(encode("ready", b"{")), "does not hold a JSON object"),
    "unknown-type": (raw(b"MOLT" + b"\x63\0\0\0" + bytes(8)), "unknown type 99"),
    "garbage": (raw(b"HTTP/1.1 200 OK\r\n"), "does not speak this protocol"),
    "damaged": (raw(encode("ready", {})[:-1] + b"!"), "wrong checksum"),
    "too-long": (raw(b"MOLT\x07\0\0\0\xff\xff\xff\x7f" + bytes(4)), "octets are more than"),
}


def fake_update(vm, kind, then):
    main, cpr = vm.transfer_paths()
    fake = FakeNew(main, cpr, kind, then)
    return fake, Attempt(vm)


# Each way once, and the ways that differ from stage to stage at all of them.
WAYS = [("welcome", how) for how in MISBEHAVIOUR] + [
    (kind, how) for kind in NEW_SENDS[1:] for how in ("disconnect", "abort", "out-of-turn")]


@pytest.mark.parametrize("kind,how", WAYS)
def test_new_process_misbehaves(vm, kind, how):
    then, words = MISBEHAVIOUR[how]
    fake, attempt = fake_update(vm, kind, then)
    info = attempt.refused(fake, fake)
    assert words in info["error-desc"], info
    attempt.nothing_happened()


@pytest.mark.parametrize("kind", ["welcome", "joined", "loaded", "running"])
def test_new_process_is_silent(vm, kind):
    """Where the old process has a limit, it ends the attempt by itself; a peer that works, as this one
    does, has five times as long as one that stands."""
    fake, attempt = fake_update(vm, kind, lambda channel: None)
    attempt.refused(fake, fake, 60)
    attempt.nothing_happened()


@pytest.mark.parametrize("kind", ["accept", "ready", "main-ready"])
def test_silence_is_cancelled(vm, kind):
    fake, attempt = fake_update(vm, kind, lambda channel: None)
    vm.migrate_to(fake)
    assert fake.arrived.wait(20)
    vm.qmp.cmd("migrate_cancel")
    assert vm.qmp.wait_status(("cancelled",))["update-record"]["result"] == "unchanged"
    fake.close()
    attempt.nothing_happened()
