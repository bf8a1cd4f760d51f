# Fixtures: Vms that are gone when the test is, and a look for what they left behind.
# SPDX-License-Identifier: Apache-2.0
import fcntl
import os
import pathlib
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from vm import MOLT, Vm  # noqa: E402

KVM_CREATE_VM = 0xAE01


def kvm_reason():
    """Why /dev/kvm cannot be used here, None if it can."""
    try:
        with open("/dev/kvm", "rb+", buffering=0) as kvm:
            os.close(fcntl.ioctl(kvm, KVM_CREATE_VM, 0))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    return None


def pytest_collection_modifyitems(items):
    reason = kvm_reason()
    for item in items:
        if reason and "kvm" not in item.keywords.get("no", ()):
            item.add_marker(pytest.mark.skip(reason=f"no usable KVM: {reason}"))


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
