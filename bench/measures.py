# What is measured: start-up and memory, the pause of an update, the machine's floor.
# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import subprocess
import sys
import time

from guest import COUNTERS_GPA, COUNTER_STRIDE, FIRST_GPA, MAGIC, ROUNDS_GPA, SHARED_GPA
from recovery import BEFORE_S, recovery
from updates import UPDATES, Vm

QUIET_S = 0.1  # watched before and after an update
QUIET_S_PER_GIB = 0.03  # and after it for this long: taking RAM mappings apart takes 17 ms of it
SERIES_US = 1000


def rss_beside_ram(pid):
    """RssAnon + RssFile in bytes: pages of the shared RAM file count as RssShmem."""
    total = 0
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(("RssAnon", "RssFile")):
                total += int(line.split()[1]) * 1024
    return total


def measure_start(contender, ram, tmp, log):
    vm = Vm(contender, ram, 1, tmp, log)
    try:
        begin = vm.start()
        first = ram.wait(lambda: ram.u64(FIRST_GPA) == 1, vm.process, 30)
        ram.wait(lambda: ram.u64(SHARED_GPA) == MAGIC, vm.process, 30)
        vm.connect()
        return {"first-instruction-ns": first - begin, "rss-bytes": rss_beside_ram(vm.process.pid)}
    finally:
        vm.close()


@contextlib.contextmanager
def busy_core(wanted):
    """A process that keeps one host core busy."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if busy:
            busy.kill()
            busy.wait()


class Watch:
    """bench/gap while it watches the guest's counters."""

    def __init__(self, build, ram, cpus, poll_us, series_us=0, at=COUNTERS_GPA):
        self.process = subprocess.Popen(
            [f"{build}/bench/gap", ram.path, hex(at), str(COUNTER_STRIDE), str(cpus),
             str(poll_us), str(series_us)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.process.stdout.readline() != b"watching\n":
            self.close()
            raise RuntimeError("bench/gap did not start")

    def end(self):
        return json.loads(self.process.communicate()[0])

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@contextlib.contextmanager
def watching(*args):
    watch = Watch(*args)
    try:
        yield watch
    finally:
        watch.close()


def nth(gaps, n):
    return gaps[n] if n < len(gaps) else [0, 0, 0]


def measure_pause(vm, mode, args, at=COUNTERS_GPA):
    """The gaps seen around one update of @vm, which counts @at; mode 'none' gives the noise."""
    prepare, run = UPDATES[mode]
    prepared = prepare(vm)
    with watching(args.build, vm.ram, vm.cpus, args.poll_us, 0, at) as watch:
        time.sleep(QUIET_S)
        begin_s = time.monotonic()
        reported = run(vm, prepared)
        vm.ram.wait_moving(at, vm.cpus, vm.process)
        if mode != "none":
            vm.update_s = max(vm.update_s, time.monotonic() - begin_s)
        time.sleep(QUIET_S + QUIET_S_PER_GIB * (vm.ram.size >> 30))
        seen = watch.end()
    _, gap_ns, unseen_ns = nth(seen["any"], 0)
    return {"gap-ns": gap_ns, "unseen-ns": unseen_ns, "second-ns": nth(seen["any"], 1)[1],
            "whole-ns": nth(seen["whole"], 0)[1], "longest-look-ns": seen["longest-look-ns"],
            "realtime": seen["realtime"], "reported": reported, "gaps": seen["any"]}


def measure_speed(vm, mode, args):
    """How fast the guest goes through its memory around one update of @vm (tests/guest/walk.c)."""
    prepare, run = UPDATES[mode]
    if not vm.round_s:
        vm.round_s = time_round(vm)
    prepared = prepare(vm)
    with watching(args.build, vm.ram, 1, args.poll_us, SERIES_US) as watch:
        time.sleep(BEFORE_S)
        begin_ns = time.monotonic_ns()
        reported = run(vm, prepared)
        vm.ram.wait_moving(COUNTERS_GPA, 1, vm.process)
        end_ns = time.monotonic_ns()
        time.sleep(1.1 * vm.round_s)
        seen = watch.end()
    return {**recovery(seen["series"], seen["whole"], begin_ns, end_ns, int(vm.round_s * 1e9)),
            "reported": reported}


def time_round(vm):
    """How long the guest takes to visit all of its RAM once, in s."""
    times = []
    for _ in range(2):
        rounds = vm.ram.u64(ROUNDS_GPA)
        times.append(vm.ram.wait(lambda n=rounds: vm.ram.u64(ROUNDS_GPA) > n, vm.process, 300,
                                 0.002))
    return (times[1] - times[0]) / 1e9


def measure_floor(build, mode, runs):
    out = subprocess.run([f"{build}/bench/floor", mode, str(runs)], check=True,
                         capture_output=True, text=True).stdout
    return json.loads(out)


def machine_text():
    """The machine, and how busy it is: a noisy run must be recognisable."""
    model = "unknown processor"
    flags = ""
    with open("/proc/cpuinfo") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
            elif line.startswith("flags"):
                flags = line
    kind = "VMX" if " vmx" in flags else "SVM" if " svm" in flags else "PVM (no VMX or SVM)"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    load = " ".join(f"{x:.2f}" for x in os.getloadavg())
    return (f"{model}, {os.cpu_count()} CPUs, {pages / (1 << 30):.0f} GiB, Linux "
            f"{os.uname().release}, KVM by {kind}; load average at the start {load}")
