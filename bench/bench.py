# Measures start-up, memory beside guest RAM, and the pause of updates, beside QEMU's if there is one.
# SPDX-License-Identifier: Apache-2.0
"""Everything is measured from outside: a tiny payload counts in shared RAM, and bench/gap.c watches
the counter.  Runs of the contenders are interleaved, so that a busy machine is equally unfair to all.
Prints tables in Markdown; --json keeps the raw figures."""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/system"))
from qmp import Qmp  # noqa: E402
from vm import wait_for_socket  # noqa: E402

COUNTER_GPA = 0x100008
FIRST_GPA = 0x101000
MAGIC = 0x6D6F6C742D6F6B21


class Peer:
    """One contender: how to start it, and how its command line describes the same VM."""

    def __init__(self, name, binary, machine, modes):
        self.name, self.binary, self.machine, self.modes = name, binary, machine, modes

    def argv(self, ram, mem, qmp, kernel, append, cpus=1, extra=()):
        return [self.binary, "-machine", f"{self.machine},memory-backend=ram0,aux-ram-share=on",
                "-accel", "kvm", "-cpu", "host", "-smp", str(cpus), "-m", mem, "-nodefaults",
                "-display", "none", "-no-user-config", "-object",
                f"memory-backend-file,id=ram0,size={mem},mem-path={ram},share=on",
                "-kernel", kernel, "-append", append,
                "-qmp", f"unix:{qmp},server=on,wait=off", *extra]


class Ram:
    """The guest's RAM file, made first so that it can be watched from the first instruction on."""

    def __init__(self, mem):
        units = {"M": 1 << 20, "G": 1 << 30}
        self.path = f"/dev/shm/molt-bench-{os.getpid()}"
        with open(self.path, "wb") as f:
            f.truncate(int(mem[:-1]) * units[mem[-1]])

    def read(self, gpa):
        with open(self.path, "rb") as f:
            f.seek(gpa)
            return int.from_bytes(f.read(8), "little")

    def wait(self, gpa, value, timeout):
        """ns when the value was seen."""
        end = time.monotonic() + timeout
        fd = os.open(self.path, os.O_RDONLY)
        try:
            while int.from_bytes(os.pread(fd, 8, gpa), "little") != value:
                if time.monotonic() > end:
                    raise TimeoutError(f"nothing at {gpa:#x}")
            return time.monotonic_ns()
        finally:
            os.close(fd)

    def close(self):
        os.unlink(self.path)


def start(argv, log):
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def stop(process, qmp=None):
    if qmp:
        try:
            qmp.cmd("quit")
        except (EOFError, ConnectionError):
            pass
        qmp.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def rss_beside_ram(pid):
    """RssAnon + RssFile in bytes: pages of the shared RAM file count as RssShmem."""
    total = 0
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(("RssAnon", "RssFile")):
            total += int(line.split()[1]) * 1024
    return total


def measure_start(peer, args, tmp, log):
    """{first-instruction: ns, rss: bytes}"""
    ram = Ram("1G")
    qmp_path = f"{tmp}/start.qmp"
    begin = time.monotonic_ns()
    process = start(peer.argv(ram.path, "1G", qmp_path, args.payload, "none"), log)
    try:
        first = ram.wait(FIRST_GPA, 1, 20)
        qmp = Qmp(qmp_path)
        rss = rss_beside_ram(process.pid)
        stop(process, qmp)
    finally:
        stop(process) if process.poll() is None and process.kill() is None else None
        ram.close()
    return {"first-instruction-ns": first - begin, "rss-bytes": rss}


def channels(main, cpr):
    return [{"channel-type": kind, "addr": {"transport": "socket", "type": "unix", "path": path}}
            for kind, path in (("main", main), ("cpr", cpr))]


def update_transfer(peer, args, tmp, log, ram, mem, process, qmp, cpus):
    main, cpr, new_qmp_path = f"{tmp}/main", f"{tmp}/cpr", f"{tmp}/new.qmp"
    for path in (main, cpr, new_qmp_path):
        if os.path.exists(path):
            os.unlink(path)
    incoming = ["-incoming", f"unix:{main}", "-incoming", json.dumps(channels(main, cpr)[1])]
    new = start(peer.argv(ram.path, mem, new_qmp_path, args.payload, "none", cpus, incoming), log)
    wait_for_socket(cpr)
    qmp.cmd("migrate-set-parameters", mode="cpr-transfer")
    qmp.cmd("migrate", channels=channels(main, cpr), timeout=60)
    info = qmp.wait_status(("completed", "failed"), 120)
    if info["status"] != "completed":
        raise RuntimeError(f"{peer.name}: {info}")
    stop(process, qmp)
    os.rename(new_qmp_path, f"{tmp}/qmp")
    new_qmp = Qmp(f"{tmp}/qmp")
    new_qmp.wait_status(("completed",), 60)
    return new, new_qmp, info


def update_exec(peer, args, tmp, log, ram, mem, process, qmp, cpus):
    state = f"{tmp}/state"
    command = peer.argv(ram.path, mem, f"{tmp}/qmp", args.payload, "none", cpus,
                        ["-incoming", f"file:{state}"])
    qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
    qmp.cmd("migrate", uri=f"file:{state}", timeout=60)
    if peer.name != "molt":
        qmp.close()
        end = time.monotonic() + 60
        while True:  # a connection may still land in the old process's backlog
            try:
                qmp = Qmp(f"{tmp}/qmp", 60)
                break
            except (EOFError, ConnectionError):
                if time.monotonic() > end:
                    raise
    end = time.monotonic() + 60
    while not qmp.cmd("query-status")["running"]:
        if time.monotonic() > end:
            raise TimeoutError("guest not running after exec")
    return process, qmp, qmp.cmd("query-migrate")


UPDATES = {"transfer": update_transfer, "exec": update_exec, "none": None}


def measure_pause(peer, mode, mem, args, tmp, log, cpus=1):
    """The gap that a poller saw around one update of a fresh VM, in ns; 'none' is the noise."""
    ram = Ram(mem)
    process = start(peer.argv(ram.path, mem, f"{tmp}/qmp", args.payload, "touch", cpus), log)
    qmp = None
    try:
        ram.wait(0x100000, MAGIC, 60)
        qmp = Qmp(f"{tmp}/qmp")
        wait_counting(ram)
        gap = subprocess.Popen([f"{args.build}/bench/gap", ram.path, hex(COUNTER_GPA)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        time.sleep(0.2)  # a quiet stretch on both sides belongs to the measurement
        info = {}
        if mode == "none":
            time.sleep(0.5)
        else:
            process, qmp, info = UPDATES[mode](peer, args, tmp, log, ram, mem, process, qmp, cpus)
        time.sleep(0.2)
        out = json.loads(gap.communicate()[0])
        gaps = [length for _, length in out["gaps"]]
        return {"gap-ns": gaps[0] if gaps else 0, "second-ns": gaps[1] if len(gaps) > 1 else 0,
                "missed-ns": out["longest-look-ns"], "reported": info}
    finally:
        if qmp:
            stop(process, qmp)
        elif process.poll() is None:
            process.kill()
            process.wait()
        ram.close()


def wait_counting(ram, timeout=300):
    """Until the payload has touched its RAM and counts."""
    end = time.monotonic() + timeout
    while ram.read(COUNTER_GPA) < 10:
        if time.monotonic() > end:
            raise TimeoutError("the payload does not count")
        time.sleep(0.01)


def ms(values):
    values = sorted(values)
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    return (f"{values[0] / 1e6:.2f} | {statistics.median(values) / 1e6:.2f} | {p99 / 1e6:.2f} | "
            f"{values[-1] / 1e6:.2f}")


def table_start(peers, args, tmp, log, raw):
    rows = {peer.name: [] for peer in peers}
    for _ in range(args.runs):
        for peer in peers:
            rows[peer.name].append(measure_start(peer, args, tmp, log))
    raw["start"] = rows
    print("| exec to first guest instruction, ms | min | median | p99 | max | RSS beside RAM, MiB |")
    print("|---|---|---|---|---|---|")
    for name, samples in rows.items():
        rss = statistics.median(s["rss-bytes"] for s in samples) / (1 << 20)
        print(f"| {name} | {ms([s['first-instruction-ns'] for s in samples])} | {rss:.1f} |")
    print(flush=True)


def table_update(peers, args, tmp, log, raw):
    rows = {}
    for mem in args.mem.split(","):
        for mode in ["none"] + args.modes.split(","):
            contenders = [p for p in peers if mode == "none" or mode in p.modes]
            for _ in range(args.runs):
                for peer in contenders:
                    key = f"{peer.name} {mode} {mem}"
                    rows.setdefault(key, []).append(
                        measure_pause(peer, mode, mem, args, tmp, log))
    raw["update"] = rows
    print("| pause seen from outside, ms | runs | min | median | p99 | max | second gap, median |")
    print("|---|---|---|---|---|---|---|")
    for key, samples in rows.items():
        second = statistics.median(s["second-ns"] for s in samples) / 1e6
        print(f"| {key} | {len(samples)} | {ms([s['gap-ns'] for s in samples])} | {second:.2f} |")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=["start", "update"],
                        help="start, update (default: both)")
    parser.add_argument("--runs", type=int, default=20, help="of each kind (default: 20)")
    parser.add_argument("--mem", default="1G,8G", help="RAM sizes (default: 1G,8G)")
    parser.add_argument("--modes", default="transfer,exec")
    parser.add_argument("--qemu", help="a QEMU to compare with (scripts/qemu-peer sets one up)")
    parser.add_argument("--build", default=str(ROOT / "build/gcc"), help=argparse.SUPPRESS)
    parser.add_argument("--json", help="write the raw figures there")
    args = parser.parse_args()
    args.build = str(pathlib.Path(args.build).resolve())
    args.payload = f"{args.build}/tests/guest/counter.elf"
    peers = [Peer("molt", f"{args.build}/src/molt", "q35", ("transfer", "exec"))]
    if args.qemu:
        peers.append(Peer("qemu q35", args.qemu, "q35", ("transfer", "exec")))
        peers.append(Peer("qemu microvm", args.qemu, "microvm", ("transfer", "exec")))
    raw = {}
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="molt-bench-") as tmp, open(f"{tmp}/log", "w") as log:
        try:
            if "start" in args.what:
                table_start(peers, args, tmp, log, raw)
            if "update" in args.what:
                table_update(peers, args, tmp, log, raw)
        except BaseException:
            print(pathlib.Path(f"{tmp}/log").read_text()[-2000:], file=sys.stderr)
            raise
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(raw, indent=1))


main()
