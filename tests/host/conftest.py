# Runs the tests of this folder where a stock kernel runs: here, or in one session of the test host.
# SPDX-License-Identifier: Apache-2.0
"""Collection happens here in any case, so -k, -x and node ids work as ever.  If this machine's
/dev/kvm cannot run a stock kernel, the tests chosen are run by a second pytest inside
scripts/test-host, whose reports come back one JSON line each and are replayed here: every test has
its own result, and the host is started once.
"""
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
from stock import IMAGE, StockVm, make_image  # noqa: E402
from vm import MOLT  # noqa: E402

MARK = "MOLT-REPORT "
HOST_LIMIT_S = 1500
OUTPUT_TAIL = 40


def inside():
    return "MOLT_TEST_HOST" in os.environ


def pytest_configure(config):
    if inside():
        config.pluginmanager.register(Reporter(config))


class Reporter:
    """Inside: print every report for the pytest outside."""

    def __init__(self, config):
        self.config = config
        self.out = os.fdopen(os.dup(1), "w", buffering=1)

    def pytest_runtest_logreport(self, report):
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.out.write(f"\n{MARK}{json.dumps(data)}\n")


def kvm_usable():
    probe = subprocess.run([sys.executable, "-B", ROOT / "scripts/lib/kvm-usable", "-t", "8", MOLT],
                           capture_output=True, text=True, check=False)
    return probe.returncode == 0, probe.stdout.strip() or probe.stderr.strip()


def pytest_runtestloop(session):
    if inside() or session.config.option.collectonly or session.testsfailed:
        return None
    prepare()
    good, reason = kvm_usable()
    write_line(session, reason)
    if good:
        return None
    Relay(session).run()
    return True


def prepare():
    """What the tests need and the host inside would take long to make."""
    subprocess.run([ROOT / "scripts/guest-image", IMAGE], check=True)


def write_line(session, text):
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal:
        terminal.write_line(text)


class Relay:
    """Outside: run the tests chosen in the test host and report what comes back."""

    def __init__(self, session):
        self.session = session
        self.config = session.config
        self.items = {item.nodeid: item for item in session.items}
        self.seen = set()
        self.finished = set()
        self.output = []

    def run(self):
        command = [str(ROOT / "scripts/test-host"), "-t", str(HOST_LIMIT_S)]
        for name in ("MOLT_BUILD", "MOLT_GUEST_IMAGE"):
            if name in os.environ:
                command += ["-e", f"{name}={os.environ[name]}"]
        command += ["--", "/usr/bin/python3", "-B", "-m", "pytest", "-q", "--tb=short",
                    "--no-summary", "-p", "no:cacheprovider", "--rootdir",
                    str(self.config.rootpath)]
        if self.config.option.maxfail:
            command += ["--maxfail", str(self.config.option.maxfail)]
        command += [str(self.config.rootpath / nodeid) for nodeid in self.items]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace") as host:
            try:
                for line in host.stdout:
                    self.take(line)
            finally:
                host.terminate()
        if not (self.config.option.maxfail and self.session.testsfailed):
            self.fail_missing(host.returncode)

    def take(self, line):
        if not line.startswith(MARK):
            self.output = [*self.output[-OUTPUT_TAIL:], line]
            return
        report = self.config.hook.pytest_report_from_serializable(
            config=self.config, data=json.loads(line[len(MARK):]))
        # A host that hung is started once more, and with it every test.
        if (report.nodeid, report.when) in self.seen or report.nodeid not in self.items:
            return
        self.seen.add((report.nodeid, report.when))
        self.report(report)

    def report(self, report):
        item = self.items[report.nodeid]
        if report.when == "setup":
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        item.ihook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            self.finished.add(item.nodeid)
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def fail_missing(self, status):
        """A test of which nothing was heard has failed, whoever's fault it was."""
        text = f"the test host ended with status {status} before this test did\n"
        for nodeid, item in self.items.items():
            if nodeid not in self.finished:
                self.report(pytest.TestReport(
                    nodeid, item.location, {}, "failed", text + "".join(self.output), "setup"))


# Inside

def running_guest_logs(item):
    return [value.logs() for value in item.funcargs.values() if isinstance(value, StockVm)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and hasattr(item, "funcargs"):
        for text in running_guest_logs(item):
            report.sections.append(("guest and VMM", text))


class SharedGuest:
    """One guest for many tests: booting is what takes the time.  A test that fails loses it."""

    def __init__(self, tmp_path_factory):
        self.factory = tmp_path_factory
        self.guest = None
        self.image = None

    def get(self):
        if not self.guest:
            tmp = self.factory.mktemp("guest")
            self.image = make_image(tmp / "disk.img", 32 << 20)
            rng = ["-object", "rng-random,id=r0,filename=/dev/urandom",
                   "-device", "virtio-rng-pci,rng=r0"]
            self.guest = StockVm(tmp, args=["-drive", f"file={self.image},format=raw,if=virtio",
                                            *rng])
            self.guest.image = self.image
            self.guest.line.wait_boot()
        return self.guest

    def drop(self):
        if self.guest:
            self.guest.close()
        self.guest = None


@pytest.fixture(scope="session")
def shared_guest(tmp_path_factory):
    shared = SharedGuest(tmp_path_factory)
    yield shared
    shared.drop()


@pytest.fixture
def guest(shared_guest, request):
    """The shared guest, beating; booted anew if the test before this one failed or ended it."""
    failed = request.session.testsfailed
    yield shared_guest.get()
    if request.session.testsfailed > failed or not shared_guest.guest.vm.alive():
        shared_guest.drop()


@pytest.fixture
def guests(tmp_path):
    """A function that boots a guest for this test alone."""
    started = []

    def start(**kwargs):
        started.append(StockVm(tmp_path, **kwargs))
        started[-1].line.wait_boot()
        return started[-1]

    yield start
    for each in started:
        each.close()
