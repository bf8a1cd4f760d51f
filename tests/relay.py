# Runs tests in emulated hosts that have a full KVM, from a pytest outside, and reports them there.
# SPDX-License-Identifier: Apache-2.0
"""Collection happens outside in any case, so -k, -x and node ids work as ever.  The tests chosen are
cut into shares; each share is run by a second pytest inside scripts/test-host, whose reports come
back one JSON line each and are replayed outside: every test has its own result.  As many hosts run at
once as there are processors, for all pytest processes of a build tree together: a host is one
emulated processor that is always busy.

Run as a program it tells whether /dev/kvm of this machine makes a VM: exit status 0, or 1 with the
reason on stdout.
"""
import fcntl
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
KVM_CREATE_VM = 0xAE01
MARK = "MOLT-REPORT "
SHARE_TESTS = 48
SHARE_LIMIT_S = 1500
OUTPUT_TAIL = 40
PASSED_ON = ("MOLT_BUILD", "MOLT_GUEST_IMAGE", "MOLT_SOAK", "MOLT_OLD_BUILD", "MOLT_CAMPAIGN",
             "MOLT_MUTANT")


def inside():
    """Whether this process runs in a test host."""
    return "MOLT_TEST_HOST" in os.environ


def register(config):
    """Inside, for a pytest outside: report to it."""
    if "MOLT_RELAY" in os.environ:
        config.pluginmanager.register(Reporter(config), "molt-reporter")


def kvm_reason():
    """Why /dev/kvm makes no VM here, None if it does."""
    try:
        with open("/dev/kvm", "rb+", buffering=0) as kvm:
            os.close(fcntl.ioctl(kvm, KVM_CREATE_VM, 0))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    return None


class Reporter:
    """Inside: print every report for the pytest outside."""

    def __init__(self, config):
        self.config = config
        self.out = os.fdopen(os.dup(1), "w", buffering=1)

    def pytest_runtest_logreport(self, report):
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.out.write(f"\n{MARK}{json.dumps(data)}\n")


class Slot:
    """The right to run one test host; waits for one of as many as there are processors."""

    def __init__(self):
        directory = ROOT / "build/host-slots"
        directory.mkdir(parents=True, exist_ok=True)
        self.paths = [directory / str(i) for i in range(os.cpu_count() or 1)]
        self.file = None

    def __enter__(self):
        while not self.file:
            self.file = next(filter(None, map(self._try, self.paths)), None)
            if not self.file:
                time.sleep(1)  # the holder is another process: there is nothing to be told by
        return self

    def __exit__(self, *_):
        self.file.close()

    @staticmethod
    def _try(path):
        file = open(path, "w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file


class Share(threading.Thread):
    """Some tests that one host runs; tells (share, line) for each line, (share, None) at its end."""

    def __init__(self, nodeids, command, heard):
        super().__init__(daemon=True)
        self.nodeids, self.command, self.heard = nodeids, command, heard
        self.output = []
        self.status = None
        self.host = None
        self.stopped = False

    def run(self):
        with Slot():
            if not self.stopped:
                self._run_host()
        self.heard.put((self, None))

    def _run_host(self):
        self.host = subprocess.Popen(self.command, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True, errors="replace")
        with self.host:
            for line in self.host.stdout:
                self.heard.put((self, line))
        self.status = self.host.returncode

    def stop(self):
        self.stopped = True
        if self.host:
            self.host.terminate()


class Relay:
    """Outside: run the tests chosen in test hosts and report what comes back."""

    def __init__(self, session, share_tests=SHARE_TESTS):
        self.session = session
        self.config = session.config
        self.share_tests = share_tests
        self.items = {item.nodeid: item for item in session.items}
        self.seen = set()
        self.finished = set()

    def run(self):
        heard = queue.Queue()
        nodeids = list(self.items)
        shares = [Share(part, self._command(part), heard)
                  for part in (nodeids[i:i + self.share_tests]
                               for i in range(0, len(nodeids), self.share_tests))]
        for share in shares:
            share.start()
        left = len(shares)
        try:
            while left:
                share, line = heard.get()
                if line is not None:
                    self._take(share, line)
                else:
                    left -= 1
                    self._fail_missing(share)
                if self._enough():
                    break
        finally:
            for share in shares:
                share.stop()

    def _enough(self):
        limit = self.config.option.maxfail
        return limit and self.session.testsfailed >= limit

    def _command(self, nodeids):
        command = [str(ROOT / "scripts/test-host"), "-t", str(SHARE_LIMIT_S), "-e", "MOLT_RELAY=1"]
        for name in PASSED_ON:
            if name in os.environ:
                command += ["-e", f"{name}={os.environ[name]}"]
        command += ["--", "/usr/bin/python3", "-B", "-m", "pytest", "-q", "--tb=short",
                    "--no-summary", "-p", "no:cacheprovider", "--rootdir",
                    str(self.config.rootpath)]
        if self.config.option.maxfail:
            command += ["--maxfail", str(self.config.option.maxfail)]
        return command + [str(self.config.rootpath / nodeid) for nodeid in nodeids]

    def _take(self, share, line):
        if not line.startswith(MARK):
            share.output = [*share.output[-OUTPUT_TAIL:], line]
            return
        report = self.config.hook.pytest_report_from_serializable(
            config=self.config, data=json.loads(line[len(MARK):]))
        if isinstance(report.longrepr, list):
            report.longrepr = tuple(report.longrepr)  # a skip's place and reason: JSON has no tuples
        # A host that hung is started once more, and with it every test of its share.
        if (report.nodeid, report.when) in self.seen or report.nodeid not in self.items:
            return
        self.seen.add((report.nodeid, report.when))
        self._report(report)

    def _report(self, report):
        item = self.items[report.nodeid]
        if report.when == "setup":
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        item.ihook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            self.finished.add(item.nodeid)
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _fail_missing(self, share):
        """A test of which nothing was heard has failed, whoever's fault it was."""
        import pytest  # not there where only kvm_reason() is wanted

        if self._enough():
            return
        text = f"the test host ended with status {share.status} before this test did\n"
        for nodeid in share.nodeids:
            if nodeid not in self.finished:
                self._report(pytest.TestReport(
                    nodeid, self.items[nodeid].location, {}, "failed",
                    text + "".join(share.output), "setup"))


def write_line(session, text):
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal:
        terminal.write_line(text)


if __name__ == "__main__":
    REASON = kvm_reason()
    print(REASON or "/dev/kvm makes VMs")
    sys.exit(1 if REASON else 0)
