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
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/system"))

import measures  # noqa: E402
import plot  # noqa: E402
import tables  # noqa: E402
from contenders import contenders  # noqa: E402
from guest import Ram  # noqa: E402

KINDS = ("start", "floor", "update", "plot")


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
        self.contenders = contenders(args.build, args.qemu, args.all_peers)
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
            self.say(f"FAILED {what}: {error}\n{tail}")
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

    def measure_cases(self, cases):
        """{case: {contender: [run]}}, one run of everything before the next of anything."""
        samples = {case: {c.name: [] for c in self.contenders
                          if case.mode == "none" or case.mode in c.modes} for case in cases}
        for mem in dict.fromkeys(case.mem for case in cases):
            ram = Ram(mem)
            try:
                for i in range(self.args.runs):
                    for case in [case for case in cases if case.mem == mem]:
                        self.say(f"run {i + 1}/{self.args.runs}: {case.text()}")
                        self.measure_round(case, ram, samples[case])
            finally:
                ram.close()
        return samples

    def measure_round(self, case, ram, samples):
        for c in self.contenders:
            if c.name not in samples:
                continue
            run = self.attempt(f"{c.name}: {case.text()}", measures.measure_pause, c, case, ram,
                               self.args, self.tmp, self.log)
            samples[c.name] += [run] if run else []

    def keep(self, name, samples):
        self.raw[name] = [{**dataclasses.asdict(case), "runs": runs}
                          for case, runs in samples.items()]

    def update(self):
        args = self.args
        samples = self.measure_cases([
            Case(mode, mem, cpus, busy) for mem in args.mem for cpus in args.cpus
            for busy in ((False,) if args.quick else (False, True)) for mode in ["none"] + args.modes])
        self.keep("update", samples)
        print(tables.update_table(samples), flush=True)
        for case, runs in samples.items():
            if case.mode != "none" and not case.busy and runs.get("molt"):
                print(tables.phase_table(case, runs["molt"]), flush=True)

    def plot(self):
        samples = self.measure_cases([Case(mode, mem, 1, False) for mem in ("1G", "2G", "4G", "8G")
                                      for mode in self.args.modes])
        self.keep("plot", samples)
        print(tables.update_table(samples), flush=True)
        drawing = plot.draw(samples, self.raw["machine"])
        if drawing:
            pathlib.Path(self.args.svg).write_text(drawing)
            self.say(f"wrote {self.args.svg}")


def parse():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*KINDS, []], metavar="WHAT",
                        help=f"any of {', '.join(KINDS)} (default: start floor update)")
    parser.add_argument("--runs", type=int, help="of each kind (default: 20; with --quick 3)")
    parser.add_argument("--quick", action="store_true", help="3 runs, 1G, 1 vCPU, no busy core")
    parser.add_argument("--mem", type=lambda s: s.split(","), help="RAM sizes (default: 1G,8G)")
    parser.add_argument("--cpus", type=lambda s: [int(n) for n in s.split(",")],
                        help="numbers of vCPUs (default: 1,4)")
    parser.add_argument("--modes", type=lambda s: s.split(","), default=["transfer", "exec"])
    parser.add_argument("--qemu", action="append", default=[], metavar="PATH",
                        help="compare with this one (default: the newest from scripts/qemu-peer)")
    parser.add_argument("--all-peers", action="store_true", help="with every QEMU from qemu-peer")
    parser.add_argument("--poll-us", type=int, default=50, help="between two looks (default: 50)")
    parser.add_argument("--json", help="write the raw figures there")
    parser.add_argument("--svg", default=str(ROOT / "docs/pause.svg"), help="where plot draws")
    parser.add_argument("--build", default=str(ROOT / "build/release"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.what = args.what or ["start", "floor", "update"]
    args.runs = args.runs or (3 if args.quick else 20)
    args.mem = args.mem or (["1G"] if args.quick else ["1G", "8G"])
    args.cpus = args.cpus or ([1] if args.quick else [1, 4])
    args.build = str(pathlib.Path(args.build).resolve())
    return args


def main():
    args = parse()
    with tempfile.TemporaryDirectory(prefix="molt-bench-") as tmp, open(f"{tmp}/log", "w") as log:
        bench = Bench(args, tmp, log)
        print(bench.raw["machine"] + "\n\n" + ", ".join(bench.raw["contenders"]) + "\n",
              flush=True)
        for what in args.what:
            getattr(bench, what)()
        if bench.raw["failures"]:
            print("Failed runs: " + "; ".join(bench.raw["failures"]) + "\n", flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(bench.raw, indent=1))


main()
