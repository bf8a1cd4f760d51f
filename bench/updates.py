# How a VM is updated in each mode, with the commands that QEMU and molt have in common.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import time

from qmp import Qmp
from vm import wait_for_socket


class Vm:
    """A running VM of one contender: the process that has it, and its monitor."""

    def __init__(self, contender, ram, cpus, tmp, log):
        self.contender, self.ram, self.cpus, self.tmp, self.log = contender, ram, cpus, tmp, log
        self.process = self.qmp = None
        self.old = []

    @property
    def qmp_path(self):
        return f"{self.tmp}/qmp"

    def argv(self, qmp=None, extra=(), command_line="none"):
        return self.contender.argv(self.ram, qmp or self.qmp_path, self.cpus, extra, command_line)

    def spawn(self, argv):
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                env=self.contender.env)

    def start(self, command_line):
        """Return: when the program was executed, in ns."""
        self.contender.prepare(self.ram, command_line)
        argv = self.argv(command_line=command_line)
        begin_ns = time.monotonic_ns()
        self.process = self.spawn(argv)
        return begin_ns

    def connect(self):
        self.qmp = Qmp(self.qmp_path, 60)

    def wait_running(self):
        end = time.monotonic() + 60
        while not self.qmp.cmd("query-status", 60)["running"]:
            if time.monotonic() > end:
                raise TimeoutError("the guest does not run after the update")
            time.sleep(0.005)

    def close(self):
        """End every process; an ordinary end is tried first."""
        for process, qmp in [*self.old, (self.process, self.qmp)]:
            if qmp:
                try:
                    qmp.cmd("quit")
                except (EOFError, OSError, TimeoutError):
                    pass
                qmp.close()
            elif process:
                process.kill()
            try:
                if process:
                    process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def channels(main, cpr):
    return [{"channel-type": kind, "addr": {"transport": "socket", "type": "unix", "path": path}}
            for kind, path in (("main", main), ("cpr", cpr))]


def prepare_transfer(vm):
    """Start the successor: what happens before `migrate` is not part of the update."""
    main, cpr = f"{vm.tmp}/main", f"{vm.tmp}/cpr"
    both = channels(main, cpr)
    argv = vm.argv(f"{vm.tmp}/new.qmp", ["-incoming", f"unix:{main}",
                                         "-incoming", json.dumps(both[1])])
    new = vm.spawn(argv)
    vm.old.append((new, None))
    wait_for_socket(cpr, 60)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-transfer")
    return new, both


def run_transfer(vm, prepared):
    new, both = prepared
    vm.qmp.cmd("migrate", 60, channels=both)
    info = vm.qmp.wait_status(("completed", "failed"), 120)
    if info["status"] != "completed":
        raise RuntimeError(f"{vm.contender.name}: {info}")
    vm.old = [(vm.process, vm.qmp)]
    os.rename(f"{vm.tmp}/new.qmp", vm.qmp_path)
    vm.process, vm.qmp = new, None
    vm.connect()
    vm.wait_running()
    return info


def prepare_exec(vm):
    state = f"{vm.tmp}/state"
    command = vm.argv(extra=["-incoming", f"file:{state}"])
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
    return state


def run_exec(vm, state):
    vm.qmp.cmd("migrate", 60, uri=f"file:{state}")
    if vm.contender.name != "molt":  # QEMU drops its monitors' connections
        reported = reconnect(vm)
        vm.wait_running()
        return {"downtime": reported}
    info = vm.qmp.wait_status(("completed", "failed"), 120)
    if info["status"] != "completed":
        raise RuntimeError(f"molt: {info}")
    vm.wait_running()
    return info


def reconnect(vm):
    """
    To the new program, once the old one's connection has ended.  A connection may still land in the
    backlog of the program that is being replaced.  Return: the downtime that the old one reported,
    if it was caught saying so.
    """
    end = time.monotonic() + 60
    downtime = None
    try:
        while True:  # until the end of file: what it says of itself is known only before
            downtime = vm.qmp.cmd("query-migrate").get("downtime", downtime)
            time.sleep(0.005)
    except (EOFError, OSError):
        vm.qmp.close()
    while True:
        try:
            vm.connect()
            return downtime
        except (EOFError, OSError):
            if time.monotonic() > end:
                raise


def prepare_none(vm):
    return None


def run_none(vm, _prepared):
    time.sleep(0.5)
    return {}


UPDATES = {"none": (prepare_none, run_none), "transfer": (prepare_transfer, run_transfer),
           "exec": (prepare_exec, run_exec)}
