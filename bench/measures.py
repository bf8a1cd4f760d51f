# What is measured: start-up and memory, the pause of an update, the machine's floor.
# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import subprocess
import sys
import time

from guest import COUNTERS_GPA, COUNTER_STRIDE, FIRST_GPA, MAGIC, SHARED_GPA
from updates import UPDATES, Vm

QUIET_S = 0.1  # watched before and after an update


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
        begin = vm.start("none")
        first = ram.wait(lambda: ram.u64(FIRST_GPA) == 1, 30)
        ram.wait(lambda: ram.u64(SHARED_GPA) == MAGIC, 30)
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

    def __init__(self, build, ram, cpus, poll_us):
        self.process = subprocess.Popen(
            [f"{build}/bench/gap", ram.path, hex(COUNTERS_GPA), str(COUNTER_STRIDE), str(cpus),
             str(poll_us)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end(self):
        return json.loads(self.process.communicate()[0])

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def lengths(gaps, n=2):
    return ([length for _, length in gaps] + [0] * n)[:n]


def measure_pause(contender, case, ram, args, tmp, log):
    """The gaps seen around one update of a fresh VM; mode 'none' gives the noise."""
    prepare, run = UPDATES[case.mode]
    vm = Vm(contender, ram, case.cpus, tmp, log)
    watch = None
    try:
        vm.start(f"touch cpus={case.cpus}")
        ram.wait_counting(case.cpus)
        vm.connect()
        prepared = prepare(vm)
        with busy_core(case.busy):
            watch = Watch(args.build, ram, case.cpus, args.poll_us)
            time.sleep(QUIET_S)
            reported = run(vm, prepared)
            time.sleep(QUIET_S)
            seen = watch.end()
    finally:
        if watch:
            watch.close()
        vm.close()
    first, second = lengths(seen["any"])
    return {"gap-ns": first, "second-ns": second, "whole-ns": lengths(seen["whole"])[0],
            "longest-look-ns": seen["longest-look-ns"], "realtime": seen["realtime"],
            "reported": reported, "gaps": seen["any"][:10]}


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
