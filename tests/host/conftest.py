# Runs the tests of this folder where a stock kernel runs: here, or in one session of the test host.
# SPDX-License-Identifier: Apache-2.0
"""If this machine's /dev/kvm cannot run a stock kernel, tests/relay.py has all of them run by one
test host: they share a guest, and booting it is what takes the time.
"""
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]
import relay  # noqa: E402
from relay import Relay, inside, write_line  # noqa: E402
from stock import IMAGE, StockVm, make_image  # noqa: E402
from vm import MOLT  # noqa: E402


def pytest_configure(config):
    relay.register(config)


def kvm_usable():
    probe = subprocess.run([sys.executable, "-B", ROOT / "scripts/lib/kvm-usable", "-t", "8", MOLT],
                           capture_output=True, text=True, check=False)
    return probe.returncode == 0, probe.stdout.strip() or probe.stderr.strip()


def pytest_runtestloop(session):
    if inside() or session.config.option.collectonly or session.testsfailed:
        return None
    # What the tests need and the host inside would take long to make.
    subprocess.run([ROOT / "scripts/guest-image", IMAGE], check=True)
    good, reason = kvm_usable()
    write_line(session, reason)
    if good:
        return None
    Relay(session, share_tests=len(session.items)).run()
    return True


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
