# A disk image whose storage hangs or fails on command (tests/tools/hungfs.c).
# SPDX-License-Identifier: Apache-2.0
import os
import select
import subprocess

import pytest

from vm import BUILD


class HungDisk:
    """A file that can be given to -drive; ask() is one of hungfs's commands."""

    def __init__(self, tmp, size=4 << 20):
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            pytest.skip("/dev/fuse cannot be opened here")
        self.dir = tmp / f"hungfs{id(self):x}"
        self.dir.mkdir()
        self.path = str(self.dir / "img")
        self.process = subprocess.Popen([BUILD / "tests/tools/hungfs", self.dir, str(size)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answer()

    def answer(self, timeout=20.0):
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            raise TimeoutError("hungfs does not answer")
        line = self.process.stdout.readline().decode().strip()
        assert line, "hungfs ended"
        return line

    def ask(self, line, timeout=20.0):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.answer(timeout)

    def hang(self, kind="", hard=False):
        """Hold requests of @kind, or all, from now on; @hard: a kill does not end them either."""
        assert self.ask(f"{'hang-hard' if hard else 'hang'} {kind}") == "ok"

    def wait_held(self, n=1):
        assert self.ask(f"wait {n}") == "ok"

    def held(self):
        return int(self.ask("held"))

    def go(self):
        assert self.ask("go") == "ok"

    def fail(self, kind, number):
        """Let requests of @kind fail with errno @number; 0: no more."""
        assert self.ask(f"fail {kind} {number}") == "ok"

    def done(self):
        """How many reads, writes and flushes have been carried out."""
        return tuple(map(int, self.ask("count").split()))

    def close(self):
        if self.process.poll() is None:
            self.go()
            self.process.stdin.close()
            self.process.wait(20)


@pytest.fixture
def hung_disk(tmp_path):
    """A function that makes HungDisks; import it into the test's module."""
    disks = []

    def make(*args, **kwargs):
        disks.append(HungDisk(tmp_path, *args, **kwargs))
        return disks[-1]

    yield make
    for disk in disks:
        disk.close()
