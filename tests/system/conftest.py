# Where the system tests run, and their fixtures: Vms that are gone when the test is.
# SPDX-License-Identifier: Apache-2.0
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import relay  # noqa: E402
from relay import Relay, inside, kvm_reason, write_line  # noqa: E402
from vm import MOLT, Vm  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: one of the few that scripts/test --quick runs")
    relay.register(config)


def pytest_runtestloop(session):
    """Without KVM here, test hosts run the tests."""
    if inside() or session.config.option.collectonly or session.testsfailed:
        return None
    reason = kvm_reason()
    if not reason:
        return None
    write_line(session, f"{reason}: the tests run in test hosts")
    Relay(session).run()
    return True


@pytest.fixture
def vms(tmp_path):
    """A function that starts Vms; every process it started is gone afterwards, as is its RAM file."""
    started = []
    real_init = Vm.__init__

    def init(self, *args, **kwargs):
        started.append(self)
        real_init(self, *args, **kwargs)

    Vm.__init__ = init
    try:
        yield lambda *args, **kwargs: Vm(tmp_path, *args, **kwargs)
    finally:
        Vm.__init__ = real_init
        for vm in started:
            if hasattr(vm, "process"):
                vm.cleanup()


@pytest.fixture
def molt():
    assert pathlib.Path(MOLT).exists(), f"{MOLT} is not built"
    return MOLT
