# Measures start-up, memory beside guest RAM, and the pause of updates, beside QEMU's if there is one.
# SPDX-License-Identifier: Apache-2.0
"""
Everything is measured from outside: a tiny payload counts in shared RAM, and bench/gap.c watches
the counters.  The contenders take turns, so that a busy machine is equally unfair to all.  Prints
tables in Markdown; progress goes to standard error.
"""
import argparse
import dataclasses
import json
import pathlib
import re
import signal
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/system"))

import measures  # noqa: E402
import plot  # noqa: E402
import stock_guest  # noqa: E402
import tables  # noqa: E402
import turns  # noqa: E402
from contenders import WALKING, contenders, touching  # noqa: E402
from guest import Ram  # noqa: E402

KINDS = ("start", "floor", "update", "memory", "plot", "stock")
DEFAULT = ("start", "floor", "update", "memory")
PLOT_SIZES = ("1G", "2G", "4G", "8G")


@dataclasses.dataclass(frozen=True)
class Case:
    """What is the same for all contenders of a row."""

    mode: str
    mem: str
    cpus: int
    busy: bool

    def text(self):
        what = "no update" if self.mode == "none" else self.mode
        return (f"{what}, {self.mem}, {self.cpus} vCPU{'s' * (self.cpus > 1)}"
                f"{', one host core busy' if self.busy else ''}")


class Bench:
    def __init__(self, args, tmp, log):
        self.args, self.tmp, self.log = args, tmp, log
        self.contenders = contenders(args.build, args.qemu, args.all_peers, args.beside)
        self.raw = {"machine": measures.machine_text(), "failures": [],
                    "contenders": [c.version + " " + c.machine for c in self.contenders]}

    def say(self, words):
        print(words, file=sys.stderr, flush=True)

    def attempt(self, what, function, *arguments):
        """One measurement; a failure is counted and shown, not hidden."""
        try:
            return function(*arguments)
        except (OSError, EOFError, RuntimeError, TimeoutError, AssertionError) as error:
            tail = pathlib.Path(self.log.name).read_text(errors="replace")[-300:]
            self.raw["failures"].append(f"{what}: {error}")
            self.say(f"FAILED {what}: {error}; the VMM said:\n{tail}")
            return None

    def start(self):
        samples = {c.name: [] for c in self.contenders}
        ram = Ram("1G")
        try:
            for i in range(self.args.runs):
                self.say(f"start {i + 1}/{self.args.runs}")
                for c in self.contenders:
                    run = self.attempt(f"start {c.name}", measures.measure_start, c, ram, self.tmp,
                                       self.log)
                    samples[c.name] += [run] if run else []
        finally:
            ram.close()
        self.raw["start"] = samples
        print(tables.start_table({k: v for k, v in samples.items() if v}), flush=True)

    def floor(self):
        samples = {mode: measures.measure_floor(self.args.build, mode, self.args.runs)
                   for mode in ("transfer", "exec")}
        self.raw["floor"] = samples
        print(tables.floor_table(samples), flush=True)

    def keep(self, name, samples):
        self.raw[name] = [{**dataclasses.asdict(case), "runs": runs}
                          for case, runs in samples.items()]

    def rounds(self, name, cases, guest, measure):
        """Measure @cases in turns and keep the figures as @name; {case: {contender: [figures]}}."""
        samples = turns.take(self, name, cases, guest, measure)
        self.keep(name, samples)
        return samples

    def update(self):
        args = self.args
        samples = self.rounds("update", [
            Case(mode, mem, cpus, busy) for mem in args.mem for cpus in args.cpus
            for busy in ((False,) if args.quick else (False, True))
            for mode in [*args.modes, "none"]], touching, measures.measure_pause)
        print(tables.update_table(samples), flush=True)
        for case, runs in samples.items():
            if case.mode != "none" and not case.busy and runs.get("molt"):
                print(tables.phase_table(case, runs["molt"]), flush=True)

    def memory(self):
        samples = self.rounds("memory", [
            Case(mode, mem, 1, False) for mem in self.args.memory_mem
            for mode in ["none"] + self.args.modes], lambda cpus: WALKING, measures.measure_speed)
        print(tables.memory_table(samples), flush=True)

    def plot(self):
        samples = self.rounds("plot", [
            Case(mode, mem, 1, False) for mem in PLOT_SIZES for mode in self.args.modes],
            touching, measures.measure_pause)
        print(tables.update_table(samples), flush=True)
        drawing = plot.draw(samples, self.raw["machine"])
        if drawing:
            pathlib.Path(self.args.svg).write_text(drawing)
            self.say(f"wrote {self.args.svg}")

    def stock(self):
        result = stock_guest.measure(self.args, self.say)
        self.raw["stock"] = result
        print(tables.stock_table(result), flush=True)


EPILOG = """
what can be measured, in the order in which it is done (default: start floor update memory):
  start    exec to the guest's first instruction, and memory beside guest RAM
  floor    what this machine's kernel asks of any update
  update   the pause, for each mode, RAM size, number of vCPUs, idle host and one core busy
  memory   how long the guest needs after the pause until it is back at its memory speed
  plot     the pause at 1, 2, 4 and 8 GiB, drawn as docs/pause.svg
  stock    the longest gap that a busy loop in a stock Debian guest under molt sees of itself

Each VM is updated --per-vm times in every way before the next contender has its turn, as often as
--runs asks for.  The tables on standard output belong into docs/performance.md as they are.
"""


def comma_list(kind, allowed=None):
    def parse_list(text):
        values = [kind(word) for word in text.split(",")]
        wrong = [value for value in values if allowed and value not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(allowed)}")
        return values
    return parse_list


def mem_size(text):
    if not re.fullmatch("[1-9][0-9]*[MG]", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no size like 512M or 8G")
    return text


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no positive number")
    return int(text)


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__.strip().split("\n\n")[0], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*KINDS, []], metavar="WHAT",
                        help=f"any of {', '.join(KINDS)}")
    parser.add_argument("--runs", type=positive, metavar="N",
                        help="of each kind (default: 20; with --quick 3)")
    parser.add_argument("--per-vm", type=positive, metavar="N", default=5,
                        help="updates of a VM in each way, in a row (default: 5)")
    parser.add_argument("--quick", action="store_true", help="3 runs, 1G, 1 vCPU, no busy core")
    parser.add_argument("--mem", type=comma_list(mem_size), metavar="SIZE,...",
                        help="RAM sizes (default: 1G,8G; for memory 1G)")
    parser.add_argument("--cpus", type=comma_list(positive), metavar="N,...",
                        help="numbers of vCPUs (default: 1,4)")
    parser.add_argument("--modes", type=comma_list(str, ("transfer", "exec")), metavar="MODE,...",
                        default=["transfer", "exec"], help="default: transfer,exec")
    parser.add_argument("--qemu", action="append", default=[], metavar="PATH",
                        help="compare with this one (default: the newest from scripts/qemu-peer)")
    parser.add_argument("--all-peers", action="store_true", help="with every QEMU from qemu-peer")
    parser.add_argument("--beside", metavar="BUILD",
                        help="compare with another build of molt, an earlier commit's")
    parser.add_argument("--poll-us", type=positive, default=100, metavar="N",
                        help="between two looks at the guest (default: 100)")
    parser.add_argument("--json", metavar="FILE", help="write every single figure there")
    parser.add_argument("--svg", metavar="FILE", default=str(ROOT / "docs/pause.svg"),
                        help="where plot draws (default: docs/pause.svg)")
    parser.add_argument("--build", default=str(ROOT / "build/release"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.what = [kind for kind in KINDS if kind in (args.what or DEFAULT)]
    args.runs = args.runs or (3 if args.quick else 20)
    args.per_vm = min(args.per_vm, args.runs)
    args.memory_mem = args.mem or ["1G"]  # a guest needs ten seconds to go through 8 GiB
    args.mem = args.mem or (["1G"] if args.quick else ["1G", "8G"])
    args.cpus = args.cpus or ([1] if args.quick else [1, 4])
    args.build = str(pathlib.Path(args.build).resolve())
    args.beside = args.beside and str(pathlib.Path(args.beside).resolve())
    return args


def measure(args, tmp, log):
    bench = Bench(args, tmp, log)
    print(bench.raw["machine"] + "\n\n" + ", ".join(bench.raw["contenders"]) + "\n", flush=True)
    if len(bench.contenders) == 1:
        bench.say("no QEMU to compare with: scripts/qemu-peer sets one up")
    try:
        for what in args.what:
            getattr(bench, what)()
    finally:
        if bench.raw["failures"]:
            print("Failed runs: " + "; ".join(bench.raw["failures"]) + "\n", flush=True)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(bench.raw, indent=1))


def main():
    args = parse()
    # So that every process and file goes, whichever way this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="molt-bench-") as tmp, open(f"{tmp}/log", "w") as log:
        try:
            measure(args, tmp, log)
        except KeyboardInterrupt:
            sys.exit(130)
        except RuntimeError as error:
            sys.exit(f"scripts/bench: {error}")


main()
