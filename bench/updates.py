# How a VM is updated in each mode, with the commands that QEMU and molt have in common.
# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import time

from contenders import IDLE
from qmp import Qmp
from vm import wait_for_socket


EVENT_S = 2


class Vm:
    """A running VM of one contender: the process that has it, and its monitor."""

    def __init__(self, contender, ram, cpus, tmp, log, guest=IDLE):
        self.contender, self.ram, self.cpus, self.tmp, self.log = contender, ram, cpus, tmp, log
        self.guest = guest
        self.generation = 0
        self.round_s = None  # of tests/guest/walk.c, once it was measured
        self.update_s = 0.5  # the longest of this VM; "no update" is watched for as long
        self.process = self.qmp = None
        self.old = []

    def path(self, name):
        """Every process has its own paths: an old one may remove its sockets when it ends."""
        return f"{self.tmp}/{name}.{self.generation}"

    def argv(self, extra=()):
        return self.contender.argv(self.ram, self.path("qmp"), self.cpus, extra, self.guest)

    def spawn(self, argv):
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                env=self.contender.env)

    def start(self):
        """Return: when the program was executed, in ns."""
        self.contender.prepare(self.ram, self.guest)
        argv = self.argv()
        begin_ns = time.monotonic_ns()
        self.process = self.spawn(argv)
        return begin_ns

    def start_counting(self):
        """Start, and return when the guest has touched its RAM and counts."""
        self.start()
        self.ram.wait_counting(self.cpus, self.process)
        self.connect()

    def connect(self):
        try:
            self.qmp = Qmp(self.path("qmp"), 60)
        except AssertionError:  # QEMU, just resuming, may send an event before its greeting
            self.qmp = Qmp(self.path("qmp"), 60)

    def migrate(self, **arguments):
        """
        Until it has completed, by its events: who asks again and again takes a processor from the
        guest each time, and on a host with two of them that is a gap of its own.
        """
        self.qmp.cmd("migrate-set-capabilities", 60,
                     capabilities=[{"capability": "events", "state": True}])
        self.qmp.cmd("migrate", 60, **arguments)
        status, end = None, time.monotonic() + 120
        while status not in ("completed", "failed"):
            try:
                status = self.qmp.wait_event("MIGRATION", EVENT_S)["data"]["status"]
            except TimeoutError:  # QEMU keeps one back now and then
                status = self.qmp.cmd("query-migrate", 60)["status"]
            if time.monotonic() > end:
                raise TimeoutError(f"{self.contender.name}: still {status}")
        info = self.qmp.cmd("query-migrate", 60)
        if status != "completed":
            raise RuntimeError(f"{self.contender.name}: {info}")
        return info

    def wait_running(self):
        end = time.monotonic() + 60
        while not self.qmp.cmd("query-status", 60)["running"]:
            if time.monotonic() > end:
                raise TimeoutError("the guest does not run after the update")
            time.sleep(0.005)

    def quit_old(self):
        """End the processes that do not have the guest (any more)."""
        old, self.old = self.old, []
        self.quit(old)

    def close(self):
        """End every process; an ordinary end is tried first."""
        self.quit([*self.old, (self.process, self.qmp)])
        self.old, self.process, self.qmp = [], None, None

    @staticmethod
    def quit(processes):
        for process, qmp in processes:
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


def channels(vm):
    return [{"channel-type": kind,
             "addr": {"transport": "socket", "type": "unix", "path": vm.path(kind)}}
            for kind in ("main", "cpr")]


def prepare_transfer(vm):
    """Start the successor: what happens before `migrate` is not part of the update."""
    vm.generation += 1
    both = channels(vm)
    new = vm.spawn(vm.argv(["-incoming", f"unix:{vm.path('main')}", "-incoming",
                            json.dumps(both[1])]))
    vm.old.append((new, None))
    wait_for_socket(vm.path("cpr"), 60)
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-transfer")
    return new, both


def run_transfer(vm, prepared):
    new, both = prepared
    info = vm.migrate(channels=both)
    vm.old = [(vm.process, vm.qmp)]
    vm.process, vm.qmp = new, None
    vm.connect()
    vm.wait_running()
    vm.quit_old()
    return info


def prepare_exec(vm):
    state = f"{vm.tmp}/state"
    command = vm.argv(extra=["-incoming", f"file:{state}"])
    vm.qmp.cmd("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
    return state


def run_exec(vm, state):
    if not vm.contender.keeps_monitors:
        vm.qmp.cmd("migrate", 60, uri=f"file:{state}")
        reported = reconnect(vm)
        vm.wait_running()
        return {"downtime": reported}
    info = vm.migrate(uri=f"file:{state}")
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
    time.sleep(vm.update_s)
    return {}


UPDATES = {"none": (prepare_none, run_none), "transfer": (prepare_transfer, run_transfer),
           "exec": (prepare_exec, run_exec)}
