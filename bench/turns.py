# The order of a run: which VM when, and how long it may still take.
# SPDX-License-Identifier: Apache-2.0
"""
One VM of each contender in turn goes through every case that its size allows, --per-vm times each.
With so many turns as --runs needs, all contenders are measured all along, and the guest has to
touch its RAM only once for many updates.
"""
import time

from guest import Ram, size_bytes
from measures import busy_core
from updates import Vm


class Progress:
    """What is done, and an estimate of the time left; a turn weighs what its guest has to touch."""

    def __init__(self, say, total):
        self.say, self.total = say, total
        self.done, self.begin = 0.0, time.monotonic()

    def step(self, weight, words):
        spent = time.monotonic() - self.begin
        left = f"about {spent / self.done * (self.total - self.done) / 60:.0f} min left" \
            if self.done else "time left not known yet"
        self.say(f"{100 * self.done / self.total:3.0f} %, {left}: {words}")
        self.done += weight


def batches(runs, per_vm):
    """@runs in parts of @per_vm."""
    return [min(per_vm, runs - done) for done in range(0, runs, per_vm)]


def weight(mem):
    return 2 + (size_bytes(mem) >> 30) / 2


def take(bench, name, cases, guest, measure):
    """
    @guest: number of vCPUs to contenders.Guest.  @measure: (vm, mode, args) to figures.
    Return: {case: {contender: [figures]}}
    """
    parts = batches(bench.args.runs, bench.args.per_vm)
    sizes = list(dict.fromkeys((case.mem, case.cpus) for case in cases))
    samples = {case: {c.name: [] for c in bench.contenders
                      if case.mode == "none" or case.mode in c.modes} for case in cases}
    progress = Progress(bench.say, sum(weight(mem) for mem, _ in sizes) * len(parts) *
                        len(bench.contenders))
    for mem in dict.fromkeys(mem for mem, _ in sizes):
        ram = Ram(mem)
        try:
            for i, n in enumerate(parts):
                for cpus in [cpus for m, cpus in sizes if m == mem]:
                    fitting = [case for case in cases if (case.mem, case.cpus) == (mem, cpus)]
                    for c in bench.contenders:
                        progress.step(weight(mem), f"{name} {i + 1}/{len(parts)}, {mem}, "
                                      f"vCPUs {cpus}, {c.name}")
                        Turn(bench, c, ram, guest(cpus), cpus).take(fitting, n, measure, samples)
        finally:
            ram.close()
    return samples


class Turn:
    """One contender's: a VM that goes through the cases; another one if an update breaks it."""

    def __init__(self, bench, contender, ram, guest, cpus):
        self.bench, self.contender = bench, contender
        self.ram, self.guest, self.cpus = ram, guest, cpus
        self.vm = None

    def take(self, cases, n, measure, samples):
        try:
            for case in cases:
                if self.contender.name not in samples[case]:
                    continue
                with busy_core(case.busy):
                    for _ in range(n):
                        figures = self.bench.attempt(f"{self.contender.name}: {case.text()}",
                                                     self.measure, case, measure)
                        if figures:
                            samples[case][self.contender.name].append(figures)
                        else:
                            self.drop()
        finally:
            self.drop()

    def measure(self, case, measure):
        if not self.vm:
            self.vm = Vm(self.contender, self.ram, self.cpus, self.bench.tmp, self.bench.log,
                         self.guest)
            self.vm.start_counting()
        return measure(self.vm, case.mode, self.bench.args)

    def drop(self):
        if self.vm:
            self.vm.close()
        self.vm = None
