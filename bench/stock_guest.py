# A stock Debian guest with a busy loop: its gaps around updates, as it and as the host sees them.
# SPDX-License-Identifier: Apache-2.0
"""
measure() is the outside half.  Where this machine's /dev/kvm cannot run a stock kernel, the inside
half (main()) runs in scripts/test-host; its results come back a JSON line each.
"""
import argparse
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
LIMIT_S = 3600
BOOT_S = 240
MEM = "256M"
# As tests/host boots it; the busy loop has the processor for itself.
APPEND = ("console=ttyS0 loglevel=4 panic=-1 mitigations=off no_timer_check random.trust_cpu=on "
          "molt.test=busy")
EMULATED_POLL_US = 1000
PAGE = struct.Struct("<QQQ")  # struct busy of tests/guest/stock/busy.h


def measure(args, say):
    """Return: {"host": where it ran, "runs": {mode: {contender: [figures]}}}"""
    image = f"{ROOT}/build/guest.cpio"
    subprocess.run([ROOT / "scripts/guest-image", image], check=True)
    command = [PYTHON, "-B", __file__, "--runs", str(args.runs), "--per-vm", str(args.per_vm),
               "--modes", ",".join(args.modes), "--build", args.build, "--image", image,
               *[word for path in args.qemu for word in ("--qemu", path)]]
    probe = subprocess.run([PYTHON, "-B", ROOT / "scripts/lib/kvm-usable", "-t", "8",
                            f"{args.build}/src/molt"], capture_output=True, text=True, check=False)
    host = "this machine's KVM"
    poll_us = args.poll_us
    if probe.returncode:
        host = "an emulated host (scripts/test-host) of one processor"
        say(f"stock: {host}, because {probe.stdout.strip()}")
        command = [str(ROOT / "scripts/test-host"), "-t", str(LIMIT_S), "--", *command]
        poll_us = max(poll_us, EMULATED_POLL_US)
    return {"host": host, "runs": collect([*command, "--poll-us", str(poll_us)], say)}


def collect(command, say):
    found, done, begin = {}, 0, time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as inside:
        try:
            for line in inside.stdout:
                figures = json.loads(line)
                if "total" in figures:  # once more, if the emulated host hung
                    found, done, total = {}, 0, figures["total"]
                    continue
                done += 1
                if "failed" in figures:
                    say(f"FAILED stock: {figures['failed']}")
                else:
                    found.setdefault(figures["mode"], {}).setdefault(
                        figures["name"], []).append(figures)
                left_min = (time.monotonic() - begin) / done * (total - done) / 60
                say(f"stock: {done} of {total}, about {left_min:.0f} min left")
        finally:
            inside.terminate()
    if inside.returncode:
        raise RuntimeError(f"the stock guest's measurement ended with status {inside.returncode}")
    return found


# Inside

def start(vm):
    """Boot the guest; where its page is."""
    vm.start()
    serial = pathlib.Path(vm.guest.serial)

    def ready():
        return re.search(rb"READY .*page=(\d+)\r?\n", serial.read_bytes())
    serial.write_bytes(b"")
    vm.ram.wait(ready, vm.process, BOOT_S, 0.2)
    vm.connect()
    return int(ready()[1])


def update(vm, page, mode, args):
    """Around one update: the guest's longest gap, as it and as the host sees it."""
    os.pwrite(vm.ram.fd, b"\1", page + 16)
    vm.ram.wait(lambda: not PAGE.unpack(os.pread(vm.ram.fd, PAGE.size, page))[2], vm.process, 60,
                0.01)
    figures = measures.measure_pause(vm, mode, args, page)
    _, inside_ns, _ = PAGE.unpack(os.pread(vm.ram.fd, PAGE.size, page))
    return {"mode": mode, "name": vm.contender.name, "inside-ns": inside_ns, **figures}


def life(vm, n, args):
    """One guest, updated @n times in each way that its contender has."""
    modes = [mode for mode in [*args.modes, "none"] if mode == "none" or mode in vm.contender.modes]
    try:
        page = start(vm)
        for mode in modes:
            for _ in range(n):
                print(json.dumps(update(vm, page, mode, args)), flush=True)
    except (OSError, EOFError, RuntimeError, AssertionError) as error:
        print(json.dumps({"failed": f"{vm.contender.name}: {error}"}), flush=True)
    finally:
        vm.close()


def parse():
    parser = argparse.ArgumentParser()
    for name in ("--runs", "--per-vm", "--poll-us"):
        parser.add_argument(name, type=int)
    parser.add_argument("--modes", type=lambda s: s.split(","))
    parser.add_argument("--qemu", action="append", default=[])
    for name in ("--build", "--image"):
        parser.add_argument(name)
    return parser.parse_args()


def main():
    args = parse()
    # microvm has no PCI firmware to boot a stock kernel from; the two QEMU rows would say the same
    who = [c for c in contenders(args.build, args.qemu) if c.machine == "q35"]
    parts = turns.batches(args.runs, args.per_vm)
    print(json.dumps({"total": args.runs * len(who) * (1 + len(args.modes))}), flush=True)
    ram = Ram(MEM)
    with tempfile.TemporaryDirectory() as tmp, open(f"{tmp}/log", "w") as log:
        guest = Linux(StockKernel.find().vmlinuz, args.image, APPEND, f"{tmp}/serial")
        for n in parts:
            for contender in who:
                life(Vm(contender, ram, 1, tmp, log, guest), n, args)
    ram.close()


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "tests/system"), str(ROOT / "scripts/lib")]
    import measures
    import turns
    from contenders import Linux, contenders
    from guest import Ram
    from initramfs import StockKernel
    from updates import Vm
    main()
