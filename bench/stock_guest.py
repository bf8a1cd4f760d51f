# The longest gap that a busy loop in a stock Debian guest sees of itself around updates of molt.
# SPDX-License-Identifier: Apache-2.0
"""
measure() is the outside half.  Where this machine's /dev/kvm cannot run a stock kernel, the inside
half (main()) runs in scripts/test-host; its results come back a JSON line each.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
UNTOUCHED_S = 1.0
AFTER_S = 0.5  # what an update leaves to be done after it
BETWEEN_STARTS = 10  # updates of a guest, then a new one
LIMIT_S = 1800


def measure(build, runs, modes, say):
    """Return: {"host": where it ran, "runs": {mode: [figures]}}"""
    image = f"{ROOT}/build/guest.cpio"
    subprocess.run([ROOT / "scripts/guest-image", image], check=True)
    command = [PYTHON, "-B", __file__, "--runs", str(runs), "--modes", ",".join(modes)]
    settings = {"MOLT_BUILD": build, "MOLT_GUEST_IMAGE": image}
    probe = subprocess.run([PYTHON, "-B", ROOT / "scripts/lib/kvm-usable", "-t", "8",
                            f"{build}/src/molt"], capture_output=True, text=True, check=False)
    host = "this machine's KVM"
    if probe.returncode:
        host = "an emulated host (scripts/test-host) of one processor"
        say(f"stock: {host}, because {probe.stdout.strip()}")
        command = [str(ROOT / "scripts/test-host"), "-t", str(LIMIT_S),
                   *[word for name, value in settings.items() for word in ("-e", f"{name}={value}")],
                   "--", *command]
    return {"host": host, "runs": collect(command, settings, runs * (1 + len(modes)), say)}


def collect(command, settings, total, say):
    found, done, begin = {}, 0, time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, **settings)) as inside:
        try:
            for line in inside.stdout:
                figures = json.loads(line)
                if "begin" in figures:  # once more, if the emulated host hung
                    found, done = {}, 0
                    continue
                found.setdefault(figures["mode"], []).append(figures)
                done += 1
                left_min = (time.monotonic() - begin) / done * (total - done) / 60
                say(f"stock: {done} of {total}, about {left_min:.0f} min left")
        finally:
            inside.terminate()
    if inside.returncode:
        raise RuntimeError(f"the stock guest's measurement ended with status {inside.returncode}")
    return found


# Inside

def update(guest, mode):
    """Around one update: the guest's longest gap, and what molt says of its pause."""
    guest.line.command("gap")
    record = {}
    if mode == "none":
        time.sleep(UNTOUCHED_S)
    else:
        record = guest.update(mode)["update-record"]
        time.sleep(AFTER_S)
    seen = guest.line.command("gap")
    return {"mode": mode, "gap-ns": seen["max_gap_ns"], "looks": seen["looks"],
            "pause-ns": record.get("pause-ns")}


def life(runs, modes):
    """One guest, updated @runs times each way."""
    from stock import StockVm
    with tempfile.TemporaryDirectory() as tmp:
        guest = StockVm(tmp, append="molt.test=busy")
        try:
            guest.line.wait(lambda: guest.line.boots, "the guest's program", 180)
            for _ in range(runs):
                for mode in modes:
                    print(json.dumps(update(guest, mode)), flush=True)
        finally:
            guest.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int)
    parser.add_argument("--modes", type=lambda s: s.split(","))
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests/host")]
    print(json.dumps({"begin": True}), flush=True)
    for done in range(0, args.runs, BETWEEN_STARTS):
        life(min(BETWEEN_STARTS, args.runs - done), ["none", *args.modes])


if __name__ == "__main__":
    main()
