# The programme of scripts/demo: one stock guest, one life, many processes; then the verdict.
# SPDX-License-Identifier: Apache-2.0
"""A program in the guest writes numbered, checksummed records to its disk, reads them back, and says
so on a serial line fifty times a second.  Everything below is judged from what arrives on that line,
which is connected once, from the image, and from what the VMM's processes say about each update."""
import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/host"))
from stock import StockKernel, StockVm, image_records, make_image  # noqa: E402

DISK_MB = 32
BEATS_BETWEEN = 25
# How far guest and host clock may be apart after all updates: far more than the reading's own noise
# on a busy machine, far less than any pause that had been left out.
CLOCK_LIMIT_NS = 20_000_000


def ms(ns):
    return f"{ns / 1e6:.2f} ms"


class Programme:
    def __init__(self, options, tmp):
        self.options = options
        self.image = make_image(tmp / "disk.img", DISK_MB << 20)
        self.tmp = tmp
        self.guest = None
        self.failed = 0
        self.longest_gap_ns = 0
        self.pauses_ns = []

    def run(self):
        self.boot()
        offset_ns = self.settle()
        for number in range(self.options.updates):
            self.update(number)
        self.verdict(offset_ns)
        return 1 if self.failed else 0

    def close(self):
        if self.guest:
            self.guest.close()

    # The guest's life

    def boot(self):
        kernel = StockKernel.find()
        print(f"kernel   {kernel.version}, as Debian ships it, with a busybox initramfs")
        print(f"machine  q35, 1 vCPU, 256 MiB, virtio disk of {DISK_MB} MiB, serial line on a socket")
        print("booting  ...", flush=True)
        drive = f"file={self.image},format=raw,if=virtio,id=disk0"
        self.guest = StockVm(self.tmp, args=["-drive", drive])
        line = self.guest.line
        line.wait_boot()
        first_s = (line.first_line_ns - self.guest.started_ns) / 1e9
        beat_s = (line.beats[0].at_ns - self.guest.started_ns) / 1e9
        print(f"         first message of the kernel {first_s:.2f} s after exec, "
              f"first heartbeat {beat_s:.2f} s")
        print(f"         {next(text for text in line.other if text.startswith('READY'))}")

    def settle(self):
        """Host clock minus guest clock; the guest's longest gap is counted from here on."""
        line = self.guest.line
        line.wait_beats(BEATS_BETWEEN)
        line.command("mark")
        return line.clock_offset_ns()

    def update(self, number):
        line, options = self.guest.line, self.options
        mode = options.modes[number % len(options.modes)]
        if number == 0:
            print(f"\nupdate   {'mode':<9} {'PID':<14} {'pause':>10} {'downtime':>9} "
                  f"{'longest gap':>12}  guest's uptime")
        before = line.wait_beats(1)
        old_pid = self.guest.vm.pid
        info = self.guest.update(mode)
        record = info["update-record"]
        after = line.wait_beats(BEATS_BETWEEN)
        gap_ns = line.command("mark")["max_gap_ns"]
        self.longest_gap_ns = max(self.longest_gap_ns, gap_ns)
        self.pauses_ns.append(record["pause-ns"])
        pids = f"{old_pid} -> {self.guest.vm.pid}"
        print(f"{number + 1:>3}/{options.updates:<4} {mode:<9} {pids:<14} "
              f"{ms(record['pause-ns']):>10} {info.get('downtime', 0):>6} ms {ms(gap_ns):>12}"
              f"  {before.up_ns / 1e9:.2f} s -> {after.up_ns / 1e9:.2f} s")
        for text in phases(record):
            print(f"         {text}")
        sys.stdout.flush()

    # The judgement

    def claim(self, holds, what, evidence):
        self.failed += not holds
        print(f"{'ok' if holds else 'FAILED':<8} {what}\n         {evidence}")

    def verdict(self, offset_before_ns):
        guest, line, number = self.guest, self.guest.line, self.options.updates
        drift_ns = line.clock_offset_ns() - offset_before_ns
        last = line.beats[-1]
        print("\nverifying every record in the guest, then powering it off ...\n", flush=True)
        status = line.command("verify", timeout_s=120)
        line.send("poweroff")
        guest.qmp.wait_event("SHUTDOWN", timeout=60, guest=True)
        exit_status = guest.wait_gone()
        line.wait_end()
        right, wrong = image_records(self.image)

        ups = [beat.up_ns for beat in line.beats]
        went_on = all(a < b for a, b in zip(ups, ups[1:])) and line.boots == 1
        self.claim(went_on and not status["clock_back"],
                   f"one guest, one boot: its uptime went on through {number} updates",
                   f"{ups[0] / 1e9:.2f} s to {ups[-1] / 1e9:.2f} s, {line.boots} boot, its clocks "
                   f"went back {status['clock_back']} times")
        self.claim(not line.holes and not status["dropped"],
                   "no heartbeat was lost on the serial line, which never reconnected",
                   f"{len(line.beats)} in a row" if not line.holes else
                   f"missing between {line.holes[:5]}, dropped in the guest {status['dropped']}")
        self.claim(not status["disk_bad"] and status["disk_seq"] >= len(line.beats) - 5,
                   "no record was lost or bad on the disk, as the guest reads it",
                   f"{status['disk_seq']} written, {status['disk_checked']} reads right, "
                   f"{status['disk_bad']} bad, slowest access {ms(status['max_io_ns'])}")
        self.claim(not wrong and right >= status["disk_seq"],
                   "nor as the host reads the image afterwards",
                   f"{right} records right, {len(wrong)} wrong {wrong[:3] or ''}")
        slowness = f"; {line.slowness} remarks on a slow processor" if line.slowness else ""
        self.claim(not line.kmsg, "the guest's kernel has nothing to complain of",
                   "\n         ".join(line.kmsg[:10]) or f"no warning in its log{slowness}")
        self.claim(abs(drift_ns) < CLOCK_LIMIT_NS, "the guest's clock kept time with the host's",
                   f"{drift_ns / 1e6:+.2f} ms apart after {last.up_ns / 1e9 - ups[0] / 1e9:.1f} s "
                   f"and {sum(self.pauses_ns) / 1e6:.1f} ms of pauses")
        self.claim(exit_status == 0, "the guest powered off, and the last process ended in order",
                   f"exit status {exit_status}")
        print(f"\nlongest pause {ms(max(self.pauses_ns, default=0))}; longest gap the guest saw "
              f"between two heartbeats (every 20 ms) {ms(self.longest_gap_ns)}")


def phases(record):
    """What filled the pause, in its order, a line for each process."""
    start, end = record["paused-at-ns"], record["running-at-ns"]
    inside = [phase for phase in record["phases"] if start <= phase["begin-ns"] + phase["ns"]
              and phase["begin-ns"] < end]
    for process in ("old", "new"):
        texts = [f"{phase['name']} {clip(phase, start, end) / 1e6:.2f}" for phase in inside
                 if phase["process"] == process]
        yield f"{process}: {', '.join(texts)} ms"


def clip(phase, start, end):
    """The part of @phase in ns that lies in the pause."""
    return min(phase["begin-ns"] + phase["ns"], end) - max(phase["begin-ns"], start)


def modes(text):
    names = text.split(",")
    if not all(name in ("exec", "transfer") for name in names):
        raise argparse.ArgumentTypeError(f"'{text}': exec and transfer are the modes there are")
    return names


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return int(text)


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--updates", type=positive, default=6)
    parser.add_argument("--modes", type=modes,
                        default=modes("exec,transfer,exec,transfer,transfer,exec"))
    parser.add_argument("--keep", metavar="DIR")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="molt-demo.") as directory:
        programme = Programme(options, pathlib.Path(directory))
        try:
            status = programme.run()
        except (AssertionError, TimeoutError, EOFError, OSError) as error:
            print(f"FAILED   {error}")
            status = 1
        finally:
            programme.close()
        if status and programme.guest:
            print(programme.guest.logs())
        if options.keep:
            keep(directory, options.keep)
    print(f"\n{'demo: ok' if status == 0 else 'demo: FAILED'}, {time.monotonic() - start:.0f} s")
    return status


def keep(source, target):
    for name in os.listdir(source):
        if os.path.isfile(os.path.join(source, name)):
            shutil.copy(os.path.join(source, name), target)


if __name__ == "__main__":
    sys.exit(main())
