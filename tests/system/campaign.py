# What campaigns of kills and stops at random moments share: the guest, the moment, and the evidence.
# SPDX-License-Identifier: Apache-2.0
"""The guest (tests/guest/once.c) compares a register with RAM at every step and holds its disk to its word.
What an end comes to is not guessed from who is left: the owner page, which this process maps too, says who had
the guest when the process died or stood, and docs/live-update.md, section 5, says what comes of that.

MOLT_SOAK is the number of kills, and of stops, each; hundreds take a while."""
import enum
import fcntl
import mmap
import os
import pathlib
import random
import signal
import struct
import time

from vm import wait_for_change

ROUNDS = int(os.environ.get("MOLT_SOAK", "6"))
SECONDS = 90
# Longer than any patience, and shorter than each.
LONG_SECONDS, SHORT_SECONDS = 14.0, 0.5

SECTOR_BYTES = 512
# Words of the shared page: where the guest notes its records.
RECORDS = 64
SLOTS = 8


class Word(enum.Enum):
    """The low two bits of the owner's word (src/cpr/owner.h)."""
    OWNED, OFFERED, RECALLED = 1, 2, 3


class OwnerPage:
    """The page of the guest that process @pid has, mapped: it can be read when all are dead."""

    def __init__(self, pid):
        for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(fd).startswith("/memfd:molt-owner"):
                break
        with open(fd, "rb") as page:
            self.map = mmap.mmap(page.fileno(), 4096, prot=mmap.PROT_READ)
        self.first = self.word[0]

    @property
    def word(self):
        """(id, state) now."""
        word = struct.unpack_from("<Q", self.map, 16)[0]
        return word >> 2, Word(word & 3)

    @property
    def state(self):
        return self.word[1]

    @property
    def offered(self):
        return self.state is Word.OFFERED

    @property
    def taken(self):
        """Somebody else than who had it at the beginning has taken it."""
        return self.state is Word.OWNED and self.word[0] != self.first

    @property
    def untouched(self):
        """It is whose it was: not offered yet, or recalled."""
        return self.word == (self.first, Word.OWNED)


def start_guest(vms, tmp_path, args=()):
    """(VM, image): the guest at work on its disk."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    vm = vms(kernel="once", mem="16M", args=[
        "-drive", f"file={image},format=raw,if=virtio,cache=writethrough", *args])
    vm.shared.wait_started()
    vm.shared.wait(lambda: vm.shared.detail(5) > 100)
    return vm, image


def assert_sound(shared):
    """Nobody ran the guest twice, or from an old state, and its disk did what it said."""
    wrong = {1: "a request failed", 2: "a request was given back twice", 4: "a sector holds another record"}
    assert shared.errors == 0, (
        f"{shared.errors} errors; " + ", ".join(wrong[bit] for bit in wrong if shared.detail(1) & bit) +
        f"; runner at {shared.detail(0)} of {shared.counter}; sector {shared.detail(2)} has record "
        f"{shared.detail(3)}, not {shared.detail(4)}")


def slot_progress(shared):
    """The record that each slot has begun last."""
    return [max(shared.u64(RECORDS + 2 * sector) for sector in range(slot, shared.detail(6), SLOTS))
            for slot in range(SLOTS)]


def assert_runs(shared):
    """The guest gets on, no request of its disk has been lost, and nothing was wrong so far."""
    shared.assert_running(60)
    before = slot_progress(shared)
    shared.wait(lambda: all(now > then for now, then in zip(slot_progress(shared), before)), 60)
    assert_sound(shared)


def record_of(sector, data):
    """The number in a sector's octets, which must be whole."""
    words = struct.unpack("<64Q", data)
    whole = [words[0]] + [
        (words[0] * 1000003 + sector) ^ i << 48 if words[0] else 0 for i in range(1, 64)]
    assert list(words) == [word & (1 << 64) - 1 for word in whole], f"sector {sector} is torn"
    return words[0]


def assert_image(shared, image):
    """Nobody runs the guest any more: each sector holds what the guest was told is written, or what was in
    flight.  And nobody holds the image."""
    assert_sound(shared)
    with open(image, "r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        for sector in range(shared.detail(6)):
            written, told = shared.u64(RECORDS + 2 * sector), shared.u64(RECORDS + 2 * sector + 1)
            found = record_of(sector, file.read(SECTOR_BYTES))
            assert found in (written, told), f"sector {sector}: {found}; {told} told, {written} written"


# ---- the moment ----

def wait_moment(owner, rng, whole_seconds, early=True):
    """A moment of an update that has begun: @early, anywhere in @whole_seconds, or after the state was offered,
    which is in the middle of the pause; else from now on."""
    if early and rng.random() < 0.3:
        span = whole_seconds
    else:
        if early:
            hold(SECONDS, lambda: not owner.untouched, 0.0002)
        span = rng.choice((0.001, 0.01, 0.1, 0.5))
    time.sleep(rng.random() * span)  # the moment itself, not a wait for something


# ---- standing still ----

def proc_text(pid, name):
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def stand(process):
    """SIGSTOP, and until all threads stand.  Return: whether it lives."""
    process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        tasks = os.listdir(f"/proc/{process.pid}/task")
        states = [proc_text(f"{process.pid}/task/{task}", "stat").rpartition(")")[2].split() for task in tasks]
        if all(fields and fields[0] in "TZX" for fields in states):
            return process.poll() is None
        wait_for_change(None, 0.001)
    raise TimeoutError(f"{process.pid} does not stand: {[fields[:1] for fields in states]}")


def hold(seconds, until=lambda: False, step=0.02):
    """For @seconds, or until something happens, which is looked for every @step.  Return: whether it did."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            return False
        wait_for_change(None, step)
    return True


def choices(*names):
    """A generator of its own for each round, so that every round can be had again."""
    return random.Random(" ".join(map(str, names)))
