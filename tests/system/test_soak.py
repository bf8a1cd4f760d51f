# Hundreds of updates in a row of one VM at work: nothing wrong in the guest, nothing left behind.
# SPDX-License-Identifier: Apache-2.0
"""MOLT_SOAK is the number of updates; a thousand take some minutes."""
import os
import statistics

import pytest

from census import Census, kind_of
from qmp import wait_for_change
from vm import Serial

UPDATES = int(os.environ.get("MOLT_SOAK", "60"))
# e: cpr-exec; t: cpr-transfer; 2: the same in two steps.
MIX = "et2eettee22t"
WARM_UP = 2 * len(MIX)
VCPUS = ("clock", "memory", "disk")

# What a process has beside guest RAM depends a little on when threads ran: glibc makes an arena
# for a thread that finds all others busy, and each holds on to some pages.
TOLERANCE_KIB = 512


class Soak:
    """The VM, whichever process has it now, and what the test knows of it."""

    def __init__(self, vms, tmp_path):
        image = tmp_path / "disk.img"
        image.write_bytes(bytes(1 << 20))
        line = tmp_path / "com1"
        self.tmp = tmp_path
        self.vm = vms(kernel="soak", mem="16M", args=[
            "-smp", str(len(VCPUS)), "-drive", f"file={image},format=raw,if=virtio",
            "-object", "rng-random,id=r0,filename=/dev/urandom",
            "-device", "virtio-rng-pci,rng=r0",
            "-serial", f"unix:{line},server=on,wait=off"])
        self.shared = self.vm.shared
        self.line = Serial(str(line))
        self.wait_progress()

    def wait_progress(self):
        """Every vCPU has done something, and the serial line answers."""
        before = self.done()
        self.line.text = b""
        self.line.send(b"A")
        self.shared.wait(lambda: all(now > then for now, then in zip(self.done(), before)))
        self.line.wait_for(b"B")

    def done(self):
        return [self.shared.per_cpu(cpu) for cpu in range(len(VCPUS))]

    def errors(self):
        found = {name: self.shared.u64(64 + cpu * 8 + 1) for cpu, name in enumerate(VCPUS)}
        return {name: count for name, count in found.items() if count}

    def update(self, mode):
        if mode == "e":
            info = self.vm.exec(uri=f"file:{self.tmp}/state")
        else:
            old = self.vm
            self.vm = old.transfer(two_step=mode == "2")
            info = self.vm.last_update
            assert old.process.returncode == 0, old.log_text()
            old.cleanup()
        record = info["update-record"]
        assert record["result"] == "committed", record
        assert record["mode"] == ("cpr-exec" if mode == "e" else "cpr-transfer"), record
        if mode != "e":
            # Over exec the capability stays, but asks nothing of that mode.
            self.vm.set_capabilities(cpr_two_step=False)

    def settled(self):
        for _ in range(500):
            census = Census(self.vm)
            if census.settled:
                return census
            wait_for_change(None, 0.01)
        raise AssertionError(f"a child that stays: {census.kinds}")

    def files(self):
        """What lies in the directory, but for one log of each process (the test's own)."""
        return sorted(kind_of(path.name) for path in self.tmp.iterdir() if path.suffix != ".log")


def check_memory(name, first, last):
    """@first, @last: a figure of each position in the mix, in KiB, early and at the end."""
    growth = statistics.median(last) - statistics.median(first)
    print(f"{name}: {statistics.median(first):.0f} KiB, then {statistics.median(last):.0f} KiB")
    assert growth <= TOLERANCE_KIB, f"{name} grew by {growth} KiB: {first}, {last}"


def test_soak(vms, tmp_path):
    if UPDATES < WARM_UP + 2 * len(MIX):
        pytest.fail(f"MOLT_SOAK: at least {WARM_UP + 2 * len(MIX)}")
    soak = Soak(vms, tmp_path)
    first, last, files = {}, {}, None
    for n in range(UPDATES):
        position = n % len(MIX)
        soak.update(MIX[position])
        soak.wait_progress()
        assert not soak.errors(), f"update {n + 1}: {soak.errors()}"
        if WARM_UP <= n < WARM_UP + len(MIX):
            first[position] = soak.settled()
        files = files or n == WARM_UP and soak.files()
        if n >= UPDATES - len(MIX):
            last[position] = soak.settled()
            wrong = first[position].differences(last[position])
            assert not wrong, f"update {n + 1}, position {position}, then and now: {wrong}"
    print(f"{UPDATES} updates; done: {dict(zip(VCPUS, soak.done()))}; the last process has")
    for what, kinds in last[(UPDATES - 1) % len(MIX)].kinds.items():
        print(f"{what}: {sum(kinds.values()) if isinstance(kinds, dict) else kinds}")
    assert soak.files() == files
    for name, figure in (("RSS", lambda c: c.own_kib), ("anonymous RSS", lambda c: c.anon_kib),
                         ("anonymous mappings", lambda c: c.anonymous_bytes >> 10)):
        for modes in ("e", "t2"):
            at = [i for i, mode in enumerate(MIX) if mode in modes]
            check_memory(f"{name} after {modes}", [figure(first[i]) for i in at],
                         [figure(last[i]) for i in at])
