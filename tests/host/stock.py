# A stock Linux guest under molt: started, listened to on a serial line, updated, judged.
# SPDX-License-Identifier: Apache-2.0
"""Used by scripts/demo and by the tests of this folder.

`StockVm` is the VMM side: a chain of molt processes that carry one guest.  `GuestLine` is the
guest's side: what its program (tests/guest/stock) says on a serial line that is connected once and
never again.  A thread of its own reads that line, because the time of arrival is a measurement.
"""
import collections
import json
import os
import pathlib
import re
import socket
import struct
import sys
import threading
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/system"), str(ROOT / "scripts/lib")]
from initramfs import StockKernel  # noqa: E402
from vm import Vm, wait_for_socket  # noqa: E402

IMAGE = os.environ.get("MOLT_GUEST_IMAGE", str(ROOT / "build/guest.cpio"))
# What saves time in an emulated host.  On the line only its notices; warnings come as KMSG lines.
APPEND = "console=ttyS0 loglevel=6 panic=-1 mitigations=off no_timer_check random.trust_cpu=on"
BOOT_S = 180

# What a kernel says of a processor that is slow, and an emulated one is: true, and not our doing.
SLOWNESS = ("hrtimer: interrupt took", "Long readout interval", "hogged CPU for",
            "excessive read-back delay")
EMULATED = "MOLT_TEST_HOST" in os.environ

RECORD = struct.Struct("<8sQQQ476sI")
RECORD_MAGIC = b"MOLTLOG1"

Beat = collections.namedtuple("Beat", "at_ns seq up_ns mono_ns disk_seq bad")
BEAT = re.compile(rb"HB seq=(\d+) up_ns=(\d+) mono_ns=(\d+) disk_seq=(\d+) bad=(\d+)")


class GuestLine:
    """One serial line of the guest, read from the moment it was connected until it ends."""

    def __init__(self, path, log_path):
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(path)
        self._log = open(log_path, "wb")
        self._changed = threading.Condition()
        self._rest = b""
        self._replies = []
        self._next_seq = 1
        self._began_ns = 0
        self.first_line_ns = None
        self.ended = False
        self.beats = []
        self.boots = 0
        self.holes = []
        self.kmsg = []
        self.slowness = 0
        self.other = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    # The reader

    def _read(self):
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            with self._changed:
                self.ended = not data
                self._take(data, time.monotonic_ns())
                if self.ended or b"\n" in data:
                    self._changed.notify_all()
            if not data:
                return

    def _take(self, data, now_ns):
        """A serial port gives a byte at a time: what is not the end of a line has to be cheap."""
        if not self._rest:
            self._began_ns = now_ns
        self._rest += data
        if b"\n" not in data:
            return
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._log.write(line + b"\n")
            self._line(line.rstrip(b"\r"), self._began_ns)
            self._began_ns = now_ns
        self._log.flush()

    def _line(self, line, now_ns):
        """@now_ns is when the first byte of @line arrived."""
        self.first_line_ns = self.first_line_ns or now_ns
        match = BEAT.fullmatch(line)
        if match:
            self._beat(Beat(now_ns, *map(int, match.groups())))
        elif line.startswith(b"{"):
            self._replies.append((now_ns, line))
        else:
            self._text(line.decode(errors="replace"))

    def _text(self, line):
        if line.startswith("READY "):
            self.boots += 1
            self._next_seq = 1
        if line.startswith("KMSG "):
            if EMULATED and any(text in line for text in SLOWNESS):
                self.slowness += 1
            else:
                self.kmsg.append(line)
        self.other.append(line)

    def _beat(self, beat):
        if beat.seq != self._next_seq:
            self.holes.append((self._next_seq, beat.seq))
        self._next_seq = beat.seq + 1
        self.beats.append(beat)

    # What others ask of it

    def wait(self, condition, what, timeout_s=60):
        """Until @condition() is true; the guest has to say something for it to become so."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left_s = end - time.monotonic()
                assert not self.ended, f"the serial line was dropped while waiting for {what}"
                assert left_s > 0, f"no {what} after {timeout_s} s; the line ends:\n{self.tail()}"
                self._changed.wait(left_s)

    def wait_beats(self, count=5, timeout_s=60):
        """Until @count more heartbeats have come; the last."""
        wanted = len(self.beats) + count
        self.wait(lambda: len(self.beats) >= wanted, f"{count} heartbeats", timeout_s)
        return self.beats[-1]

    def wait_boot(self, boots=1, timeout_s=BOOT_S):
        self.wait(lambda: self.boots >= boots, f"boot number {boots}", timeout_s)
        self.wait_beats(1)

    def wait_text(self, text, timeout_s=60):
        self.wait(lambda: any(text in line for line in self.other), repr(text), timeout_s)

    def send(self, text):
        self._sock.sendall(text.encode() + b"\n")

    def command(self, text, timeout_s=60):
        """Send a command; the guest program's JSON reply to it."""
        return self._ask(text, timeout_s)[1]

    def _ask(self, text, timeout_s=60):
        seen = len(self._replies)
        self.send(text)
        self.wait(lambda: len(self._replies) > seen, f"reply to '{text}'", timeout_s)
        at_ns, reply = self._replies[seen]
        return at_ns, json.loads(reply)

    def shell(self, command, timeout_s=60):
        """Run @command in the guest's busybox shell; its output."""
        reply = self.command(f"sh {command}", timeout_s)
        assert reply["status"] == 0, f"in the guest: {command}: {reply}"
        return reply["output"]

    def wait_end(self, timeout_s=60):
        end = time.monotonic() + timeout_s
        with self._changed:
            while not self.ended:
                assert time.monotonic() < end, f"the serial line did not end; {self.tail()}"
                self._changed.wait(end - time.monotonic())

    def clock_offset_ns(self, readings=20):
        """Host clock minus guest clock, of the reading that was under way the shortest time."""
        return self.clock_offsets_ns(readings)[0]

    def clock_offsets_ns(self, readings=20):
        """The same of CLOCK_MONOTONIC and CLOCK_REALTIME."""
        real_ns = time.time_ns() - time.monotonic_ns()
        asked = [self._ask("clock") for _ in range(readings)]
        return (min(at_ns - reply["mono_ns"] for at_ns, reply in asked),
                min(at_ns + real_ns - reply["real_ns"] for at_ns, reply in asked))

    def tail(self, lines=25):
        last = [f"{self.beats[-1]}"] if self.beats else []
        return "\n".join([*list(self.other)[-lines:], *last])

    def close(self):
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(10)
        self._sock.close()
        self._log.close()


class StockVm:
    """A stock guest and the molt process that has it now; every process it ever had is ended for
    sure by close()."""

    def __init__(self, tmp, args=(), mem="256M", append="", line="serial", kernel=None):
        self.tmp = pathlib.Path(tmp)
        self.serial_path = str(self.tmp / "serial.sock")
        console = f"socket,id=line,path={self.serial_path},server=on,wait=off"
        kernel = StockKernel.find(kernel)
        command = ["-machine", "q35,aux-ram-share=on", "-cpu", "host", "-m", mem]
        command += ["-nodefaults", "-display", "none", "-chardev", console, "-S"]
        if line == "serial":
            command += ["-serial", "chardev:line"]
        command += ["-kernel", kernel.vmlinuz, "-initrd", IMAGE, "-append", f"{APPEND} {append}"]
        self.chain = []
        self.line = None
        self.started_ns = time.monotonic_ns()
        try:
            self.vm = self._add(Vm(self.tmp, base=False, args=[*command, *args], wait_qmp=False))
            self.vm.connect()
            wait_for_socket(self.serial_path)
            self.line = GuestLine(self.serial_path, self.tmp / "serial.log")
            self.cont_ns = time.monotonic_ns()
            self.vm.qmp.cmd("cont")
        except BaseException as error:
            logs = self.logs()
            self.close()
            raise AssertionError(f"{error}\n{logs}") from error

    def _add(self, vm):
        self.chain.append(vm)
        return vm

    @property
    def qmp(self):
        return self.vm.qmp

    def exec(self, timeout_s=60):
        """Update by exec; query-migrate's reply."""
        return self.vm.exec(timeout=timeout_s)

    def transfer(self, timeout_s=60, **kwargs):
        """Update by transfer; query-migrate's reply."""
        successor = self.successor(**kwargs)
        self.vm.migrate_to(successor)
        info = self.vm.qmp.wait_status(("completed", "failed"), timeout_s)
        assert info["status"] == "completed", f"{info}\n{self.logs()}"
        successor.qmp.wait_status(("completed",), timeout_s)
        self.vm.quit()
        self.vm = successor
        return info

    def successor(self, **kwargs):
        """A process that waits for this guest, told nothing but that."""
        vm = self._add(self.vm.successor(wait_qmp=False, **kwargs))
        vm.connect()
        wait_for_socket(vm.cpr_path)
        return vm

    def update(self, mode, timeout_s=60):
        return self.exec(timeout_s) if mode == "exec" else self.transfer(timeout_s)

    def logs(self, lines=30):
        """The last lines of every process and of the serial line, for a failure's report."""
        parts = []
        for vm in self.chain:
            text = vm.log_text().strip().splitlines()[-lines:]
            if text:
                parts.append("\n".join([f"-- {vm.tag}, PID {vm.pid}:", *text]))
        if self.line:
            parts.append(f"-- serial line:\n{self.line.tail(lines)}")
        return "\n".join(parts)

    def wait_gone(self, timeout_s=60):
        """Until the guest has powered off and its process has ended; the exit status."""
        return self.vm.wait_exit(timeout_s)

    def close(self):
        if self.line:
            self.line.close()
        for vm in self.chain:
            vm.cleanup()


def make_image(path, size_bytes):
    with open(path, "wb") as file:
        file.truncate(size_bytes)
    return str(path)


def image_records(path):
    """(how many records of the disk's last run are right, what is wrong with others).

    A run's records are numbered from 1 in the first sector on; they end at a sector that was never
    written, or that holds a record of an earlier run.
    """
    data = pathlib.Path(path).read_bytes()
    wrong = []
    count = 0
    run = None
    for at in range(0, len(data), RECORD.size):
        magic, run_id, seq, _, _, crc = RECORD.unpack_from(data, at)
        summed = crc == zlib.crc32(data[at : at + RECORD.size - 4])
        run = run or run_id
        if magic == bytes(8) or (summed and run_id != run):
            break
        count += 1
        if magic != RECORD_MAGIC or seq != count:
            wrong.append(f"sector {count - 1}: magic {magic}, number {seq}")
        elif not summed:
            wrong.append(f"sector {count - 1}: checksum")
    return count - len(wrong), wrong
